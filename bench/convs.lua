-- bench/convs.lua: every convolution of FCN-I3D, each distinct shape once: penumbra bench/convs.lua threads=2 runs=5
-- The shapes are those that a forward pass of the network itself applies. Forward, gradient of the input, gradient of the weights:
-- medians of `runs` after a warm-up, of the operation alone (pn.profile's clock). Beside them the rate of OpenBLAS's sgemm through
-- pn.matmul, in the same process: the share of it is what a convolution makes of the machine (above 1 where it multiplies less
-- than its definition). json=true prints a JSON object a line, for bench/all.lua and bench/peer_convs.py.
local pn = require "penumbra"

local cfg = pn.config{
  frames    = 16,
  size      = 224,    -- pixels
  precision = pn.choice("f32", "bf16"),
  runs      = 5,
  only      = "",     -- part of a layer's name: only those
  list      = pn.choice("times", "shapes", "rate"), -- shapes: the shapes alone, nothing timed; rate: that of sgemm alone
  json      = false,
}
pn.threads(cfg.threads or 2)
pn.precision(cfg.precision)

-- ---- the network's own shapes ------------------------------------------------------------------------------------------------

-- Distinct convolutions in the order in which they are met: {op, shapes, args, label, n = how often, flops = of one forward}; and
-- the flops of all of them, forward and in a step.
local function walk()
  local net = require "models.fcn_i3d" { batchnorm = "batch" }
  local x = pn.random.stream(0, "bench"):fill(
    pn.empty { 1, 3, cfg.frames, cfg.size, cfg.size, layout = "channels_last" }, "uniform", -1, 1)
  net:train()
  local report = pn.profile(function()
    pn.scope(function()
      local masks = net(x)
      local loss = pn.mean(masks.fused)
      for _, side in ipairs(masks.sides) do loss = loss + pn.mean(side) end
      loss:backward()
    end)
  end)
  local list, seen, work = {}, {}, { forward = 0, step = 0 }
  local first = {}
  for i, event in ipairs(report.events) do first[event.row] = first[event.row] or i end
  table.sort(report.rows, function(a, b) return first[a] < first[b] end)
  for _, row in ipairs(report.rows) do
    local op, direction = row.op:match "^(conv[%w_]*)%.(%w+)$"
    if op then work.step = work.step + row.flops end
    if direction == "forward" then
      work.forward = work.forward + row.flops
      local key = op .. " " .. row.shapes .. " " .. row.args
      if seen[key] then
        seen[key].n = seen[key].n + row.calls
      else
        local label = row.label:gsub("^fcn_i3d%.", ""):gsub("%.conv$", "")
        seen[key] = { op = op, shapes = row.shapes, args = row.args, label = label, n = row.calls, flops = row.flops / row.calls }
        if label:find(cfg.only, 1, true) then list[#list + 1] = seen[key] end
      end
    end
  end
  return list, work
end

-- ---- timing ------------------------------------------------------------------------------------------------------------------

local function median(values)
  table.sort(values)
  local n = #values
  return (values[math.floor((n + 1) / 2)] + values[math.ceil((n + 1) / 2)]) / 2
end

-- The seconds of one operation in what f does: run after run without a pause, so that the threads stay awake as in a step.
local function timed(op, f)
  local report = pn.profile(function()
    for _ = 0, cfg.runs do pn.scope(f) end
  end)
  local seconds = {}
  for _, event in ipairs(report.events) do
    if event.row.op == op and not event.piece then seconds[#seconds + 1] = event.seconds end
  end
  if #seconds ~= cfg.runs + 1 then error(("%s ran %d times in %d turns"):format(op, #seconds, cfg.runs + 1), 0) end
  table.remove(seconds, 1) -- the warm-up
  return median(seconds)
end

local function numbers(text)
  local list = {}
  for number in text:gmatch "%-?%d+" do list[#list + 1] = tonumber(number) end
  return list
end

local function tensors(conv)
  local list, i = {}, 0
  for text in conv.shapes:gmatch "%S+" do
    i = i + 1
    if text == "-" then
      list[i] = false
    else
      local shape = numbers(text)
      if #shape == 5 then shape.layout = i == 2 and "filter" or "channels_last" end
      list[i] = pn.random.stream(i, "convs"):fill(pn.empty(shape), "normal", 0, 0.1)
    end
  end
  return list
end

local function time(conv)
  return pn.scope(function()
    local inputs = tensors(conv)
    local function run() return pn.ops.apply_text(conv.op, inputs, conv.args)[1] end
    local found = { forward = timed(conv.op .. ".forward", function() pn.no_grad(run) end) }
    local seed = pn.scope(function() return pn.random.stream(9, "convs"):fill(pn.empty_like(pn.no_grad(run)), "normal", 0, 0.1) end)
    for i, name in ipairs { "dx", "dw" } do
      inputs[i]:requires_grad(true)
      found[name] = timed(conv.op .. ".backward", function()
        inputs[i]:set_grad(nil)
        run():backward(seed)
      end)
      inputs[i]:set_grad(nil)
      inputs[i]:requires_grad(false)
    end
    return found
  end)
end

-- GFLOP/s of a product of two square matrices.
local function sgemm_rate()
  local n = 2048
  return pn.scope(function()
    local a, b = pn.ones { n, n }, pn.ones { n, n }
    return 2 * n ^ 3 / timed("matmul.forward", function() pn.no_grad(function() pn.matmul(a, b) end) end) / 1e9
  end)
end

-- ---- what it prints ------------------------------------------------------------------------------------------------------------

local function emit(record, text)
  io.write(cfg.json and pn.json.line(record) or text, "\n")
  io.flush()
end

local list, work = walk()
local rate = 0
local function look_at_rate() -- what else runs on the machine takes from it: the most that was seen is its rate
  for _ = 1, cfg.list ~= "shapes" and 3 or 0 do rate = math.max(rate, sgemm_rate()) end
end
look_at_rate()
local function say_machine()
  emit({ kind = "machine", sgemm = rate, variant = require("ffi").string(pn.C.pn_cpu_variant()), threads = pn.threads(),
    forward_flops = work.forward, step_flops = work.step },
    ("sgemm %.1f GFLOP/s, %d thread(s); the network: %.1f GFLOP forward, %.1f a step"):format(rate, pn.threads(),
      work.forward / 1e9, work.step / 1e9))
end

say_machine()
for _, conv in ipairs(cfg.list == "rate" and {} or list) do
  local record = { kind = "conv", op = conv.op, shapes = conv.shapes, args = conv.args, label = conv.label, n = conv.n,
    flops = conv.flops }
  local text = ("%-28s %-16s %s"):format(conv.label, conv.op, conv.shapes)
  if cfg.list == "times" then
    for name, seconds in pairs(time(conv)) do record[name] = seconds end
    local function part(name, title)
      return ("  %s %7.2f ms %6.1f GFLOP/s"):format(title, 1e3 * record[name], conv.flops / record[name] / 1e9)
    end
    text = text .. "\n" .. part("forward", "forward") .. part("dx", "dx") .. part("dw", "dw")
  end
  emit(record, text)
end
if cfg.list == "times" then
  look_at_rate()
  say_machine()
end
