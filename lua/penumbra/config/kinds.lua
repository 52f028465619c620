--- Kinds of keys of a configuration: what a default stands for, and the declarations for where a plain default does not say it. Of
-- penumbra.config, which hands them on.
-- @module penumbra.config.kinds

local is_list = require "penumbra.base.is_list"

local kinds = {}

local Declared = {}
Declared.__index = Declared

local known = { string = true, number = true, boolean = true, list = true, ["function"] = true, any = true }

local function declare(what, help, kind)
  kind = kind or "string"
  if type(help) ~= "string" then error(("pn.%s: expects a help text"):format(what), 3) end
  if not known[kind] then error(("pn.%s: unknown kind '%s'"):format(what, tostring(kind)), 3) end
  return setmetatable({ what = what, help = help, kind = kind }, Declared)
end

--- A key without a default that must be given.
-- @tparam string help one line
-- @tparam ?string kind "string" (default), "number", "boolean", "list", "function" or "any"
function kinds.required(help, kind) return declare("required", help, kind) end

--- A key without a default that may stay nil.
-- @tparam string help one line
-- @tparam ?string kind as for required
function kinds.optional(help, kind) return declare("optional", help, kind) end

--- The remaining positional arguments, in the list part of a configuration.
-- @tparam string help one line
function kinds.rest(help) return declare("rest", help) end

--- A key with a few possible strings; the first is the default.
-- @tparam string ... the choices
function kinds.choice(...)
  local names = { ... }
  for _, name in ipairs(names) do
    if type(name) ~= "string" then error("pn.choice: expects strings", 2) end
  end
  if #names < 2 then error("pn.choice: expects at least two choices", 2) end
  return setmetatable({ what = "choice", choices = names, kind = "string", value = names[1] }, Declared)
end

local function ranged(name, default, low, high, is_whole)
  for _, value in ipairs { default, low or 0, high or 0 } do
    if type(value) ~= "number" then error(("pn.%s: expects numbers: its default, the least, the most"):format(name), 3) end
  end
  return setmetatable({ what = name, kind = "number", value = default, low = low or -math.huge, high = high or math.huge,
                        is_whole = is_whole }, Declared)
end

--- A number that must lie in a range; anything else is refused before the recipe does anything.
-- @tparam number default
-- @tparam ?number low the least
-- @tparam ?number high the most
function kinds.number(default, low, high) return ranged("number", default, low, high) end

--- The same of whole numbers.
function kinds.whole(default, low, high) return ranged("whole", default, low, high, true) end

--- Is a default a declaration of this module?
function kinds.is_declared(default) return getmetatable(default) == Declared end

-- ---- kinds -----------------------------------------------------------------------------------------------------------------

--- The kind of a default: string, number, boolean, list, function, any; or group, a table with named keys, walked key by key.
function kinds.of(default)
  if kinds.is_declared(default) then return default.kind end
  local kind = type(default)
  if kind == "table" then return is_list(default) and "list" or "group" end
  if not known[kind] then return "any" end
  return kind
end

return kinds
