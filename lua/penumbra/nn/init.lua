--- Networks: modules with named parameters, the layers of the method, and how weights begin.
--
--     local nn = pn.nn
--     local block = nn.sequential {
--       nn.unit { from = 3, to = 64, kernel = 7, stride = 2 },
--       nn.concat { nn.unit { from = 64, to = 32 }, nn.unit { from = 64, to = 96, kernel = 3 } },
--     }
--     print(block:summary { 1, 3, 16, 64, 64 })

local module = require "penumbra.nn.module"

local nn = {
  class = module.class,
  is_module = require("penumbra.nn.fields").is_module,
  check_options = require("penumbra.base.named").check,
  path = module.path,
  init = require "penumbra.nn.initialise",
}

for _, file in ipairs { "activation", "attention", "container", "conv", "linear", "norm", "pool", "resize" } do
  for name, layer in pairs(require("penumbra.nn." .. file)) do
    nn[name] = layer
  end
end

local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"

return setmetatable(nn, {
  __index = function(_, name)
    local known = {}
    for key in next, nn do
      known[#known + 1] = key
    end
    raise("nn has no '%s'%s", tostring(name), nearest.hint(name, known))
  end,
})
