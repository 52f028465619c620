-- scripts/gpu_compare.lua: FCN-I3D on a device against the CPU: masks, the loss and every gradient of one training step, and with
-- weights of I3D what each endpoint makes of a clip: penumbra scripts/gpu_compare.lua device=cuda weights=i3d_rgb.safetensors
-- clip=clip.npy Prints a line of JSON after each precision, the last with all. A part of `make gpu-check`; fails (exit code 1)
-- where a difference is beyond its bound.
local pn = require "penumbra"

local cfg = pn.config{
  device     = "cuda",
  precisions = { "f32", "tf32", "bf16", "fp16" },
  weights    = "",    -- of I3D; none: random ones
  clip       = "",    -- npy of u8 (T,H,W,3); none: noise
  frames     = 16,    -- of noise
  size       = 224,
  width      = 1,     -- times the channels of I3D
}
local device = pn.device.choose(cfg.device)

-- What a difference may be: of the loss, relative; of all gradients together, as a vector; of features, relative to the largest;
-- and the share of pixels whose mask must agree. Random weights put logits near 0, where a rounding turns a pixel, so that this
-- share is for noise too.
local bounds = {
  f32 = { loss = 1e-4, gradient = 1e-3, features = 1e-3, pixels = 0.999 },
  tf32 = { loss = 5e-3, gradient = 3e-2, features = 2e-2, pixels = 0.99 },
  fp16 = { loss = 1e-2, gradient = 3e-2, features = 2e-2, pixels = 0.99 },
  bf16 = { loss = 5e-2, gradient = 0.2, features = 0.15, pixels = 0.97 },
}
-- Tensor cores may cut a float to the bits of tf32 where others round: errors are then twice as large and of one sign, which random
-- weights do not even out (worked out by the emulation: 0.034; with those of I3D 0.007).
if cfg.weights == "" then bounds.tf32.gradient, bounds.tf32.loss = 6e-2, 1e-2 end
if pn.real == "f64" then bounds = { f32 = { loss = 1e-10, gradient = 1e-8, features = 1e-9, pixels = 1 } } end

local frames = cfg.clip ~= "" and pn.formats.array(cfg.clip)
local x = frames and pn.image.to_clip(frames)
  or pn.random.stream(1, "clip"):fill(
    pn.empty { 1, 3, cfg.frames, cfg.size, cfg.size, layout = "channels_last" }, "uniform", -1, 1)
local mask = pn.empty { 1, 1, x:size(3), x:size(4), x:size(5), layout = "channels_last" }
pn.random.stream(2, "mask"):fill(mask, "bernoulli", 0.2)

-- The largest difference, relative to the largest value.
local function difference(a, b)
  return pn.scope(function()
    b = b:to("cpu"):cast(pn.real)
    local most = pn.max(pn.abs(a)):item()
    local worst = pn.max(pn.abs(a - b)):item()
    return most > 0 and worst / most or worst
  end)
end

local function fcn(where)
  local net = require "models.fcn_i3d" { width = cfg.width }
  if cfg.weights ~= "" then net:load(cfg.weights, { allow_missing = true }) end
  return net:to(where)
end

-- Masks, loss and gradients of one step.
local function step(where, precision)
  local net = fcn(where)
  pn.precision(precision, where)
  local scaler = pn.optim.scaler { on = precision == "fp16", start = 1024 }
  local masks = net(x:to(where))
  local target = mask:to(where)
  local loss = pn.loss.balanced(masks.fused, target)
  for _, side in ipairs(masks.sides) do loss = loss + 0.5 * pn.loss.balanced(side, target) end
  scaler:backward(loss)
  local found = { loss = loss:item(), mask = masks.fused:detach():to("cpu"):cast(pn.real), gradients = {} }
  for name, t in pairs(net:named_parameters()) do
    local g = t:grad()
    if g then found.gradients[name] = g:to "cpu" * (1 / (scaler.on and scaler.scale or 1)) end
  end
  pn.precision("f32", where)
  return found
end

local function compare_steps(here, there, bound)
  -- Of a tensor alone the difference may be large where its gradient is a small difference of large sums (a bias of a score).
  local worst, name, off, all = 0, nil, 0, 0
  for key, g in pairs(here.gradients) do
    local other = there.gradients[key]
    local d = other and difference(g, other) or math.huge
    if d > worst or d ~= d then worst, name = d == d and d or math.huge, key end
    off = off + (other and pn.sum(pn.square(g - other)):item() or math.huge)
    all = all + pn.sum(pn.square(g)):item()
  end
  local gradient = math.sqrt(off / all)
  local agree = pn.scope(function()
    local a, b = pn.clamp(here.mask * 1e30, { min = 0, max = 1 }), pn.clamp(there.mask * 1e30, { min = 0, max = 1 })
    return 1 - pn.mean(pn.abs(a - b)):item()
  end)
  local loss = math.abs(there.loss - here.loss) / math.abs(here.loss)
  return {
    loss = loss, gradient = gradient, worst = worst, worst_gradient = name, pixels = agree,
    mask = difference(here.mask, there.mask),
    ok = loss <= bound.loss and gradient <= bound.gradient and agree >= bound.pixels,
  }
end

local endpoints = { "conv3d_1a", "conv3d_2c", "mixed_3c", "mixed_4f", "mixed_5c" }

local function activations(where, precision)
  local net = require "models.i3d" {}:load(cfg.weights):eval():to(where)
  pn.precision(precision, where)
  local found = pn.no_grad(function()
    local logits, features = net(x:to(where), endpoints)
    features.logits = logits
    return features
  end)
  for name, t in pairs(found) do found[name] = t:to("cpu"):cast(pn.real) end
  pn.precision("f32", where)
  return found
end

local function compare_activations(here, there, bound)
  local result, ok = {}, true
  for name, t in pairs(here) do
    result[name] = difference(t, there[name])
    ok = ok and result[name] <= bound.features
  end
  result.class = pn.argmax(there.logits):item()
  result.ok = ok and result.class == pn.argmax(here.logits):item()
  return result
end

local results, all_well = { device = device, weights = cfg.weights ~= "", step = {}, activations = {} }, true
local here = pn.scope(step, "cpu", "f32")
local features = cfg.weights ~= "" and frames and pn.scope(activations, "cpu", "f32")
for _, precision in ipairs(cfg.precisions) do
  local bound = bounds[precision]
  local ok, problem = pcall(pn.scope, function()
    results.step[precision] = compare_steps(here, step(device, precision), bound)
    if features then results.activations[precision] = compare_activations(features, activations(device, precision), bound) end
  end)
  if not ok then results.step[precision] = { ok = false, problem = tostring(problem) } end
  all_well = all_well and results.step[precision].ok and (not features or results.activations[precision].ok)
  print(pn.json.line(results))
  io.flush()
end
return all_well and 0 or 1
