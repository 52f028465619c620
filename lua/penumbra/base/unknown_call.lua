--- What Lua says of a call of a method or field that is not there, said with what the object is and which of its names is nearest.
-- All is found out once the call has failed, so that reading a field costs nothing more; the text of its line tells the object.

local nearest = require "penumbra.base.nearest"
local sorted_keys = require "penumbra.base.sorted_keys"
local value_of = require "penumbra.base.value_of"

-- The level, counted from the caller, of the function that runs at a place.
local function level_at(file, line)
  for level = 2, 100 do
    local info = debug.getinfo(level, "Sl")
    if not info then
      return nil
    elseif info.short_src == file and info.currentline == line then
      return level - 1
    end
  end
end

local function line_of(source, number)
  local file = source:sub(1, 1) == "@" and io.open(source:sub(2), "r")
  if not file then
    return ""
  end
  local n = 0
  for text in file:lines() do
    n = n + 1
    if n == number then
      file:close()
      return text
    end
  end
  file:close()
  return ""
end

-- The object of `self.down[2]:haed(x)`, as far as it is written in names and numbers.
local function object_at(level, text, name)
  local path = text:match("([%a_][%w_%.%[%]]*)%s*[:.]%s*" .. name .. "%f[^%w_]")
  local object
  for part in (path or ""):gmatch "[%w_]+" do
    if object == nil then
      object = value_of(part, level + 1)
    elseif type(object) == "table" then
      object = object[tonumber(part) or part]
    end
    if object == nil then
      return nil
    end
  end
  return object
end

-- All names that an object answers to, and what it is.
local function names_of(object)
  local names = {}
  local function add(from)
    for key in next, from do
      if type(key) == "string" and key:sub(1, 2) ~= "__" then
        names[key] = true
      end
    end
  end
  local from, what = object, nil
  for _ = 1, 8 do
    local meta = getmetatable(from)
    add(from)
    if type(meta) == "table" and meta.is_module then
      what, names.own = ("the module '%s'"):format(object.name), nil
      add(object.own.held)
      from = meta.methods
    else
      from = type(meta) == "table" and meta.__index
    end
    if type(from) ~= "table" then
      break
    end
  end
  return sorted_keys(names), what
end

--- In an error handler: the message, or a better one.
-- @param message what was raised
-- @return the same, or a text
return function(message)
  if type(message) ~= "string" then
    return message
  end
  local file, line, name = message:match "^(.-):(%d+): attempt to call %a+ '([%a_][%w_]*)' %(a nil value%)$"
  local level = file and level_at(file, tonumber(line))
  if not level then
    return message
  end
  local ok, better = pcall(function()
    local object = object_at(level + 2, line_of(debug.getinfo(level + 2, "S").source, tonumber(line)), name)
    if type(object) ~= "table" then
      return message
    end
    local names, what = names_of(object)
    local hint = nearest.hint(name, names)
    if not what and hint == "" then
      return message
    end
    return ("%s:%s: %s has no '%s' to call%s"):format(file, line, what or "it", name, hint)
  end)
  return ok and better or message
end
