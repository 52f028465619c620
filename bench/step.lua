-- bench/step.lua: what a training step of FCN-I3D costs, in the line format of its PyTorch twin:
-- penumbra bench/step.lua frames=16 size=224 threads=2 runs=5
-- One step: forward, five weighted losses, backward, SGD; batch 1, batch norm in batch mode. Forward alone: with stored statistics,
-- as the twin evaluates. Medians of `runs` after 2 warm-ups.
local ffi = require "ffi"
local pn = require "penumbra"

local cfg = pn.config{
  frames    = 16,
  size      = "224",       -- pixels: 224, or 480x864 (height x width)
  part      = "full",      -- full | backbone (I3D to Mixed_4f, its mean as loss)
  infer     = false,       -- forward only
  precision = pn.choice("f32", "bf16"),
  exact     = false,       -- convolutions by their definition alone
  batchnorm = "batch",     -- batch, as the twin; frozen, as the recipes train
  recompute = false,       -- less memory, more time
  runs      = 5,
  profile   = false,       -- then one more, by operation and by layer
}
pn.threads(cfg.threads or 2)
local precision = pn.precision(cfg.precision)
pn.exact(cfg.exact)
if cfg.part ~= "full" and cfg.part ~= "backbone" then error(("part is '%s', expects full or backbone"):format(cfg.part), 0) end
local height, width = cfg.size:match("^(%d+)x(%d+)$")
if not height then height, width = cfg.size:match("^(%d+)$"), cfg.size:match("^(%d+)$") end
if not height then error(("size is '%s', expects pixels such as 224 or 480x864"):format(cfg.size), 0) end
height, width = tonumber(height), tonumber(width)

ffi.cdef[[
struct pn_bench_usage { long time[4]; long max_rss; long rest[13]; };
int getrusage(int who, struct pn_bench_usage *usage);
]]
local function peak_gib()
  local usage = ffi.new "struct pn_bench_usage"
  ffi.C.getrusage(0, usage)
  return tonumber(usage.max_rss) / 2^20 -- KiB on Linux
end

local backbone = cfg.part == "backbone"
local how = { to = backbone and "mixed_4f" or nil, batchnorm = cfg.batchnorm, recompute = cfg.recompute }
local net = require(backbone and "models.i3d" or "models.fcn_i3d")(how)
local rng = pn.random.stream(0, "bench")
local x = rng:fill(pn.empty { 1, 3, cfg.frames, height, width, layout = "channels_last" }, "uniform", -1, 1)
local y = rng:fill(pn.empty { 1, 1, cfg.frames, height, width, layout = "channels_last" }, "bernoulli", 0.2)
local sgd = pn.optim.sgd(net:parameters(), { lr = 1e-3, momentum = 0.9, weight_decay = 2e-4 })

local function step()
  sgd:zero_grad()
  local out = net(x)
  local loss = backbone and pn.mean(out) or pn.loss.balanced(out.fused, y)
  for _, side in ipairs(backbone and {} or out.sides) do loss = loss + 0.5 * pn.loss.balanced(side, y) end
  loss:backward()
  sgd:step()
end

local function infer()
  pn.no_grad(function() net(x) end)
end

-- Trained with the statistics of the batch, evaluated with the stored ones: as the twin does.
local function statistics(mode)
  for _, entry in ipairs(net:modules()) do
    if entry.module.kind == "batch_norm" then entry.module.mode = mode end
  end
end

local function median(f)
  local seconds = {}
  for i = 1, cfg.runs + 2 do
    local began = pn.clock()
    pn.scope(f)
    if i > 2 then seconds[#seconds + 1] = pn.clock() - began end
  end
  table.sort(seconds)
  local n = #seconds
  return (seconds[math.floor((n + 1) / 2)] + seconds[math.ceil((n + 1) / 2)]) / 2
end

net:train()
local train = not cfg.infer and median(step) or nil
net:eval()
statistics "frozen"
local forward = median(infer)
print(("penumbra %s cpu ndhwc %s %s T%d S%s: forward %.4f s, train step %s s, peak %.2f GiB"):format(pn.version,
  precision == "bf16" and "bf16" or "fp32", cfg.part, cfg.frames, cfg.size, forward, train and ("%.4f"):format(train) or "nan",
  peak_gib()))

if cfg.profile then
  if not cfg.infer then
    net:train()
    statistics(cfg.batchnorm)
  end
  local one = cfg.infer and infer or step
  print("\n" .. pn.profile(function() pn.scope(one) end):text())
end
