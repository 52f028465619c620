--- What a network takes, before it runs: a dry run has the shapes, the lifetimes and the accounts of a real one, without arithmetic
-- and without touching the memory, so it costs milliseconds.
--
--     local predicted = pn.footprint(net, { shape = { 1, 3, 16, 224, 224 }, dry = true })
--     local measured = pn.footprint(net, { shape = { 1, 3, 16, 224, 224 } })
--     local there = pn.footprint(net:to "cuda", { shape = { 1, 3, 16, 224, 224 } })
--     predicted.train.peak, measured.train.peak     -- bytes
--     predicted.kept["fcn_i3d.conv3d_1a.conv"]      -- what backward waits for, by layer
-- @module penumbra.footprint

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"
local pn = require "penumbra"

local C = binding.C

local function by_label(device)
  local size = 2 ^ 16
  local buffer = ffi.new("char [?]", size)
  while C.pn_memory_labels(device, buffer, size) ~= 0 do
    size = size * 4
    buffer = ffi.new("char [?]", size)
  end
  local sums = {}
  for label, bytes in ffi.string(buffer):gmatch("([^\t\n]*)\t(%d+)\n") do
    sums[label] = (sums[label] or 0) + tonumber(bytes)
  end
  return sums
end

local function collect()
  collectgarbage()
  collectgarbage()
end

local function input(shape, device)
  local spec = { device = binding.device_name(device), layout = #shape == 5 and "channels_last" or "rows" }
  for i, size in ipairs(shape) do
    spec[i] = size
  end
  return pn.zeros(spec)
end

-- The loss of the recipes where the network gives masks; else the mean of all it gives.
local function loss_of(out, mask)
  if pn.is_tensor(out) then
    return pn.mean(out)
  end
  local loss
  local function add(term)
    loss = loss and loss + term or term
  end
  for _, t in pairs(mask and { out.fused, unpack(out.sides or {}) } or out) do
    add(mask and pn.loss.balanced(t, mask) * 0.5 or loss_of(t))
  end
  return loss
end

local function infer(net, shape, dry, device, result)
  net:eval()
  collect()
  C.pn_memory_trim(device)
  C.pn_memory_reset_peak(device)
  local report
  for _ = 1, dry and 1 or 3 do -- threads that do not meet hold less scratch at a time
    report = pn.profile(function()
      pn.scope(function()
        pn.no_grad(net, input(shape, device))
      end)
    end)
  end
  result.flops = {}
  for _, row in ipairs(report.rows) do
    result.flops[row.label] = (result.flops[row.label] or 0) + row.flops
  end
  result.shapes = {}
  for _, entry in ipairs(net:modules()) do
    local last = entry.module.own.last
    result.shapes[entry.module] = { input = last.input, output = last.output }
  end
  local memory = pn.memory(binding.device_name(device))
  result.infer = { peak = memory.peak, held = memory.peak_held }
end

local function train(net, shape, how, device, result)
  net:train()
  local learning = {}
  for _, entry in ipairs(net:parameters()) do
    if entry.tensor:requires_grad() then
      learning[#learning + 1] = entry
    end
  end
  local optim = pn.optim.new(learning, how)
  collect()
  C.pn_memory_trim(device)
  C.pn_memory_reset_peak(device)
  local x, mask = input(shape, device), nil
  for _ = 1, 2 do -- the first makes the optimiser's buffers
    pn.scope(function()
      optim:zero_grad()
      local before = by_label(device)
      local out = net(x)
      if not mask and type(out) == "table" and out.fused then
        mask = pn.zeros_like(out.fused):keep()
      end
      local loss = loss_of(out, mask)
      result.kept = by_label(device)
      for label, bytes in pairs(before) do
        result.kept[label] = (result.kept[label] or 0) - bytes
      end
      loss:backward()
      optim:step()
    end)
  end
  local memory = pn.memory(binding.device_name(device))
  result.train = { peak = memory.peak, held = memory.peak_held }
  optim:zero_grad()
  return x, mask
end

--- Runs a network forward, and forward and backward with an optimiser's step, on a clip of zeros, and says what it took.
-- Parameters and statistics move in a run that is not dry.
-- @tparam module net on the CPU; for a run that is not dry on any device, whose memory is then meant
-- @tparam table options shape of its input {N, C, T, H, W}; dry (false): by a dry run; train (true): the training step too;
--   optim (SGD with momentum 0.9): kind and options of the optimiser, as for pn.optim.new
-- @treturn table infer and train, each {peak, held}: bytes that were live at most, and that the process held for them; kept:
--   label -> bytes that backward waits for; flops: label -> of one forward; shapes: module -> {input, output}
return function(net, options)
  local o = named("footprint", options or {}, {
    shape = named.required, dry = false, train = true, optim = { lr = 1e-3, momentum = 0.9 },
  })
  local result, was = {}, net.training
  local device = binding.device(net:device())
  if o.dry then
    if device ~= C.PN_CPU then
      raise("footprint: a dry run is of a network on the CPU, this one is on %s", net:device())
    end
    C.pn_dry_run(true)
  end
  local ok, problem = pcall(pn.scope, function()
    infer(net, o.shape, o.dry, device, result)
    if o.train then
      local x, mask = train(net, o.shape, o.optim, device, result)
      x:free()
      if mask then
        mask:free()
      end
    end
  end)
  collect() -- what is left of it goes before the dry run ends
  C.pn_dry_run(false)
  C.pn_memory_trim(device)
  if was then
    net:train()
  else
    net:eval()
  end
  if not ok then
    error(problem, 0)
  end
  return result
end
