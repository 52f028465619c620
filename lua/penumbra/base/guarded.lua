--- A module whose unknown field is an error that names the nearest, in place of a nil that fails where it is called.
--
--     pn.plot.line{...}      --> plot has no 'line', did you mean 'lines'? (known: bars, lines)
--
-- What asks whether a field is there takes rawget.

local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"

-- @tparam string name for messages
-- @tparam table module it gets an __index, if it has none
-- @treturn table the module
return function(name, module)
  local meta = getmetatable(module) or {}
  if meta.__index ~= nil then
    return module
  end
  function meta.__index(_, key)
    if type(key) ~= "string" then
      return nil
    end
    local known = {}
    for field in next, module do
      known[#known + 1] = type(field) == "string" and field or nil
    end
    table.sort(known)
    raise("%s has no '%s'%s%s", name, key, nearest.hint(key, known),
      #known <= 12 and (" (known: %s)"):format(table.concat(known, ", ")) or "")
  end
  return setmetatable(module, meta)
end
