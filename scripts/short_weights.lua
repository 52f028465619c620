-- scripts/short_weights.lua: the weights of I3D in f16, half the size: penumbra scripts/short_weights.lua FROM TO
-- For `make gpu-bundle`. Leaves with 1 where there are no weights.
local pn = require "penumbra"

local cfg = pn.config{
  pn.config.required "FROM: a file of weights, as the recipes find it",
  pn.config.required "TO: a safetensors file",
}

local found, path = pcall(pn.weights.find, cfg[1])
if not found then
  print("no weights come along: " .. tostring(path))
  return 1
end
local net = require "models.i3d" {}:load(path)
local short = {}
for name, t in pairs(net:state()) do
  -- What f16 cannot hold, as a variance in the millions, stays as it is.
  local narrow = t:cast "f16"
  short[name] = narrow:count_bad() == 0 and narrow or t
end
pn.save(cfg[2], short)
return 0
