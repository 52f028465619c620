-- bench/step.lua: what a training step of FCN-I3D costs, in the line format of its PyTorch twin:
-- penumbra bench/step.lua frames=16 size=224 threads=2 runs=5
-- One step: forward, five weighted losses, backward, SGD; batch norm in batch mode. Forward alone: with stored statistics, as the
-- twin evaluates. Medians of `runs` after 2 warm-ups; on CUDA (device=cuda) 4, and each run ends when the device is done.
local ffi = require "ffi"
local pn = require "penumbra"

local cfg = pn.config{
  frames    = 16,
  size      = "224",       -- pixels: 224, or 480x864 (height x width)
  part      = "full",      -- full | backbone (I3D to Mixed_4f, its mean as loss)
  infer     = false,       -- forward only
  batch     = 1,           -- clips at a time
  width     = 1,           -- times the channels of I3D
  device    = "cpu",       -- cpu, cuda, cuda:1 ...
  graph     = true,        -- on CUDA: forward and backward captured once, then launched as one
  autotune  = false,       -- on CUDA: each convolution times all its engines first
  precision = pn.choice("f32", "tf32", "bf16", "fp16"),
  exact     = false,       -- convolutions by their definition alone
  batchnorm = "batch",     -- batch, as the twin; frozen, as the recipes train
  recompute = false,       -- less memory, more time
  runs      = 5,
  profile   = false,       -- then one more, by operation and by layer
}
pn.threads(cfg.threads or 2)
local device = pn.device.choose(cfg.device)
local precision = pn.precision(cfg.precision, device)
pn.exact(cfg.exact)
if cfg.autotune then pn.engines { how = "autotune" } end
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
  if device ~= "cpu" then return pn.memory(device).peak_held / 2^30 end
  local usage = ffi.new "struct pn_bench_usage"
  ffi.C.getrusage(0, usage)
  return tonumber(usage.max_rss) / 2^20 -- KiB on Linux
end

local backbone = cfg.part == "backbone"
local how = { to = backbone and "mixed_4f" or nil, batchnorm = cfg.batchnorm, recompute = cfg.recompute, width = cfg.width }
local net = require(backbone and "models.i3d" or "models.fcn_i3d")(how):to(device)
local rng = pn.random.stream(0, "bench")
local x = rng:fill(pn.empty { cfg.batch, 3, cfg.frames, height, width, layout = "channels_last" }, "uniform", -1, 1):to(device)
local y = rng:fill(pn.empty { cfg.batch, 1, cfg.frames, height, width, layout = "channels_last" }, "bernoulli", 0.2):to(device)
local sgd = pn.optim.sgd(net:parameters(), { lr = 1e-3, momentum = 0.9, weight_decay = 2e-4 })
local scaler = pn.optim.scaler { on = precision == "fp16" }

local captured = { device = device, graph = cfg.graph }
local learn = pn.captured(function(frames, mask)
  sgd:zero_grad()
  local out = net(frames)
  local loss = backbone and pn.mean(out) or pn.loss.balanced(out.fused, mask)
  for _, side in ipairs(backbone and {} or out.sides) do loss = loss + 0.5 * pn.loss.balanced(side, mask) end
  scaler:backward(loss)
end, captured)

local function step()
  learn(x, y)
  scaler:step(sgd)
end

local look = pn.captured(function(frames)
  local out = pn.no_grad(net, frames)
  return backbone and out or out.fused
end, captured)

local function infer() look(x) end

-- Trained with the statistics of the batch, evaluated with the stored ones: as the twin does.
local function statistics(mode)
  for _, entry in ipairs(net:modules()) do
    if entry.module.kind == "batch_norm" then entry.module.mode = mode end
  end
end

local function median(f)
  local seconds, warm = {}, device == "cpu" and 2 or 4 -- on CUDA the third call is the one that is captured
  for i = 1, cfg.runs + warm do
    pn.device.wait(device)
    local began = pn.clock()
    pn.scope(f)
    pn.device.wait(device)
    if i > warm then seconds[#seconds + 1] = pn.clock() - began end
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
print(("penumbra %s %s ndhwc %s %s T%d S%s%s: forward %.6f s, train step %s s, peak %.2f GiB"):format(pn.version,
  device == "cpu" and "cpu" or "cuda", precision == "f32" and "fp32" or precision, cfg.part, cfg.frames, cfg.size,
  cfg.batch > 1 and " N" .. cfg.batch or "", forward, train and ("%.6f"):format(train) or "nan", peak_gib()))

if cfg.profile then
  if not cfg.infer then
    net:train()
    statistics(cfg.batchnorm)
  end
  local one = cfg.infer and infer or step
  print("\n" .. pn.profile(function() pn.scope(one) end):text())
end
