-- bench/ops.lua: what the operations around the convolutions cost, at the sizes of I3D on 16 frames of 224 x 224:
-- penumbra bench/ops.lua threads=2 runs=9
-- A line each: forward alone, and forward with backward (every leaf, gradients fresh); medians of `runs` after a warm-up.
local pn = require "penumbra"

local cfg = pn.config{
  runs = 9,
  only = "",  -- part of a name: only those
}
pn.threads(cfg.threads or 2)

local function activation(channels, t, h, w)
  local x = pn.empty { 1, channels, t, h, w, layout = "channels_last" }
  return pn.random.stream(0, "bench"):fill(x, "normal", 0, 1):requires_grad(true)
end

local function milliseconds(f)
  pn.scope(f)
  local seconds = {}
  for i = 1, cfg.runs do
    local began = pn.clock()
    pn.scope(f)
    seconds[i] = pn.clock() - began
  end
  table.sort(seconds)
  return 1e3 * seconds[math.ceil(#seconds / 2)]
end

local function bench(title, f, ...)
  if not title:find(cfg.only, 1, true) then return end
  local inputs = { ... }
  local seed = pn.scope(function() return pn.ones(f():shape()):contiguous(f():dims() == 5 and "channels_last" or "rows") end)
  local forward = milliseconds(function() pn.no_grad(f) end)
  local both = milliseconds(function()
    for _, x in ipairs(inputs) do x:set_grad(nil) end
    f():backward(seed)
  end)
  io.write(("%-52s forward %7.2f ms, with backward %7.2f ms\n"):format(title, forward, both))
end

for _, case in ipairs {
  { "max_pool3d 2a: 64 ch, 8x112x112, 1x3x3 / 1x2x2", { 64, 8, 112, 112 }, { kernel = { 1, 3, 3 }, stride = { 1, 2, 2 } } },
  { "max_pool3d 3b: 192 ch, 8x28x28, 3x3x3 / 1", { 192, 8, 28, 28 }, { kernel = 3, stride = 1 } },
  { "max_pool3d 4a: 480 ch, 8x28x28, 3x3x3 / 2", { 480, 8, 28, 28 }, { kernel = 3, stride = 2 } },
  { "max_pool3d 4b: 480 ch, 4x14x14, 3x3x3 / 1", { 480, 4, 14, 14 }, { kernel = 3, stride = 1 } },
} do
  local x = activation(unpack(case[2]))
  bench(case[1], function() return pn.max_pool3d(x, case[3]) end, x)
end

for _, case in ipairs { { "1a: 64 ch, 8x112x112", { 64, 8, 112, 112 } }, { "2c: 192 ch, 8x56x56", { 192, 8, 56, 56 } } } do
  local x, channels = activation(unpack(case[2])), case[2][1]
  local beta, mean, var = pn.zeros { channels }, pn.zeros { channels }, pn.ones { channels }
  beta:requires_grad(true)
  for _, mode in ipairs { "frozen", "batch" } do
    bench(("batch_norm %s + relu, %s"):format(mode, case[1]), function()
      return pn.batch_norm(x, beta, mean, var, { mode = mode, relu = true })
    end, x, beta)
  end
end

local x, z = activation(64, 8, 112, 112), activation(64, 8, 112, 112)
for _, name in ipairs { "relu", "sigmoid" } do
  bench(name .. ", 64 ch, 8x112x112", function() return pn[name](x) end, x)
end
bench("add, 64 ch, 8x112x112", function() return pn.add(x, z) end, x, z)
bench("sum, 64 ch, 8x112x112", function() return pn.sum(x) end, x)

local logits, target = activation(1, 16, 224, 224), pn.zeros { 1, 1, 16, 224, 224 }
target:slice(4, 60, 90):fill(1)
bench("balanced_bce, 16x224x224", function() return pn.balanced_bce(logits, target) end, logits)
local score, features = activation(1, 8, 56, 56), activation(16, 8, 56, 56)
bench("resize3d, 1 ch, 8x56x56 to 16x224x224", function() return pn.resize3d(score, { size = { 16, 224, 224 } }) end, score)
bench("resize3d, 16 ch, 8x56x56 to 16x224x224", function() return pn.resize3d(features, { size = { 16, 224, 224 } }) end, features)
