--- Named arguments: the table a user gave, checked against the defaults and completed by them.
--
--     local how = named("overlay", given, { alpha = 0.45, thickness = 2, title = named.optional })
--
-- An unknown name is an error that names the nearest known one; a value must be of its default's type.

local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local sorted_keys = require "penumbra.base.sorted_keys"

local optional = {}
local required = {}

local function unknown(what, name, known)
  raise("%s: unknown option '%s'%s (known: %s)", what, tostring(name), nearest.hint(name, known), table.concat(known, ", "))
end

-- @tparam string what the function, for messages
-- @tparam ?table given what the user wrote; list entries are not looked at
-- @tparam table defaults name to default, named.optional (any type, nil when not given) or named.required (any type)
-- @treturn table all named values
local function read(_, what, given, defaults)
  if given ~= nil and type(given) ~= "table" then
    raise("%s: expects its named arguments in a table, got a %s", what, type(given))
  end
  local values = {}
  for name, value in pairs(given or {}) do
    if type(name) ~= "number" then
      local default = defaults[name]
      if default == nil then
        unknown(what, name, sorted_keys(defaults))
      end
      if default ~= optional and default ~= required and type(value) ~= type(default) then
        raise("%s: %s expects a %s, got a %s", what, name, type(default), type(value))
      end
      values[name] = value
    end
  end
  for name, default in pairs(defaults) do
    if values[name] == nil then
      if default == required then
        raise("%s: %s is missing", what, name)
      end
      if default ~= optional then
        values[name] = default
      end
    end
  end
  return values
end

--- Refuses what is no table, and any key but these, of whatever type its value is.
-- @tparam {string} names
local function check(what, given, names)
  if type(given) ~= "table" then
    raise("%s: expects a table of options, got %s", what, type(given))
  end
  local is_known = {}
  for _, name in ipairs(names) do
    is_known[name] = true
  end
  for name in pairs(given) do
    if not is_known[name] then
      unknown(what, name, sorted_keys(is_known))
    end
  end
end

--- A whole number from `low` to `high`, or an error at the user's line.
local function whole(what, name, value, low, high)
  if type(value) ~= "number" or value ~= math.floor(value) or value < low or value == math.huge or (high and value > high) then
    raise("%s: %s is %s, expects a whole number %s", what, name, tostring(value),
      high and ("from %d to %d"):format(low, high) or ("from %d"):format(low))
  end
  return value
end

--- A whole number from `low`, or a list {t, h, w} of such; or an error.
-- @treturn table {t, h, w}
local function triple(what, name, value, low)
  local list = type(value) == "table" and value or { value, value, value }
  for i = 1, 3 do
    local number = list[i]
    if #list ~= 3 or type(number) ~= "number" or number ~= math.floor(number) or number < low then
      raise("%s: %s expects a whole number from %d or {t, h, w}", what, name, low)
    end
  end
  return { list[1], list[2], list[3] }
end

local function is_count(value)
  return type(value) == "number" and value == math.floor(value) and value >= 0 and value < math.huge
end

local function is_side(value)
  return is_count(value) or type(value) == "table" and #value == 2 and is_count(value[1]) and is_count(value[2])
end

--- What a layer pads by: "same", a whole number from 0, {t, h, w} or {{low, high}, {low, high}, {low, high}}; or an error.
local function pad(what, value)
  local is_triple = type(value) == "table" and #value == 3 and is_side(value[1]) and is_side(value[2]) and is_side(value[3])
  if value ~= "same" and not is_count(value) and not is_triple then
    raise("%s: pad is %s, expects \"same\", a whole number from 0, {t, h, w} or {{low, high}, {low, high}, {low, high}} of such%s",
      what, type(value) == "string" and ("%q"):format(value) or type(value) == "table" and "another list" or tostring(value),
      value == "valid" and ": pad = 0 is what is called \"valid\" elsewhere" or "")
  end
  return value
end

--- One of a few names, or an error that lists them.
-- @tparam table known name to what it stands for
-- @return what the name stands for
local function choice(what, name, value, known)
  local found = known[value]
  if found == nil then
    local names = sorted_keys(known)
    raise("%s: unknown %s '%s'%s (known: %s)", what, name, tostring(value), nearest.hint(value, names), table.concat(names, ", "))
  end
  return found
end

--- A pair of numbers in order, or an error.
-- @tparam ?number least that the first may be
-- @tparam ?number most that the second may be
local function range(what, name, value, least, most)
  local is_pair = type(value) == "table" and #value == 2 and type(value[1]) == "number" and type(value[2]) == "number"
  if not is_pair or not (value[1] <= value[2] and value[1] >= (least or -math.huge) and value[2] <= (most or math.huge)) then
    raise("%s: %s expects a pair of numbers in order {low, high}%s", what, name,
      most and (", from %g to %g"):format(least, most) or "")
  end
  return value
end

--- A number from 0 to 1, or an error.
local function share(what, name, value)
  if type(value) ~= "number" or not (value >= 0 and value <= 1) then
    raise("%s: %s is %s, expects a probability from 0 to 1", what, name, tostring(value))
  end
  return value
end

--- A string, or an error that says what was expected.
-- @tparam ?string expected "a path" when not given
local function text(what, value, expected)
  if type(value) ~= "string" then
    raise("%s: expects %s, got %s", what, expected or "a path", value == nil and "nothing" or "a " .. type(value))
  end
  return value
end

return setmetatable({
  optional = optional, required = required, check = check, whole = whole, triple = triple, pad = pad, choice = choice,
  range = range,
  share = share, text = text,
}, { __call = read })
