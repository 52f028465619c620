--- A configuration that is asked for a key which it does not declare: an error at the user's line that names the nearest, in place
-- of a nil that fails far from there. Of penumbra.config.
--
-- The package and its models may ask for what a recipe need not have (`cfg.workers`), and get nil; rawget(cfg, key) asks so too.
-- What a recipe adds to its cfg is there to be read.
-- @module penumbra.config.strict
local is_ours = require "penumbra.base.ours"
local kinds = require "penumbra.config.kinds"
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local sorted_keys = require "penumbra.base.sorted_keys"

local strict = {}

local function refuse(key, prefix, known)
  local hint = nearest.hint(key, known)
  raise("the configuration has no '%s%s'%s", prefix, key,
    hint ~= "" and hint or ": pn.config declares its keys (pn.optional: one that need not be given); a model of one's own takes "
      .. "those that a recipe may lack by pn.config.pick")
end

-- The names of keys, without the positions of arguments.
local function names_of(declared)
  local names = {}
  for key in pairs(declared) do
    if type(key) == "string" then names[key] = true end
  end
  return names
end

local function reads_as_user(level)
  local info = debug.getinfo(level + 1, "S")
  return info and info.what ~= "C" and not is_ours(info.source)
end

--- Makes a configuration, and its groups, strict.
-- @tparam table values
-- @tparam table declared the defaults that they came from
-- @tparam ?function show what tostring(values) gives
-- @tparam ?string prefix of its keys in messages: "optim."
-- @treturn table values
function strict.make(values, declared, show, prefix)
  local names = names_of(declared)
  for key in pairs(names) do
    if kinds.of(declared[key]) == "group" and type(values[key]) == "table" then
      strict.make(values[key], declared[key], nil, (prefix or "") .. key .. ".")
    end
  end
  return setmetatable(values, {
    travels_as_table = true, -- it is plain values (penumbra.worker.pack)
    __tostring = show,
    __index = function(_, key)
      if type(key) == "string" and not names[key] and reads_as_user(2) then refuse(key, prefix or "", sorted_keys(names)) end
    end,
  })
end

--- Is a value a group of keys: a table of names, strict or not?
function strict.is_group(value)
  local meta = type(value) == "table" and getmetatable(value)
  return type(value) == "table" and (meta == nil or type(meta) == "table" and rawget(meta, "travels_as_table") == true)
end

return strict
