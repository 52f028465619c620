-- scripts/gpu_check_bench.lua: what scripts/gpu_check.lua times, and how: bench/step.lua and the twin in PyTorch in turns.
local last_line = require("scripts.gpu_check_run").last_line

local M = {}

local twin_precisions = { f32 = "fp32", tf32 = "tf32", bf16 = "bf16" }

--- What to time, what matters most first: time may be up. Of each `name`, `keys` for bench/step.lua and, where the twin can do it
-- too, its `options`. `toy`: the keys of a small network, for a rehearsal.
function M.measures(toy)
  local clip = toy and toy .. " size=32 runs=1" or "frames=16 size=224 runs=20"
  local twin_clip = toy and "--frames 4 --size 32 --runs 1" or "--frames 16 --size 224 --runs 20"
  local list = {}
  local function add(name, keys, options) list[#list + 1] = { name = name, keys = keys, options = options } end
  local function step(precision)
    add(precision, clip .. " precision=" .. precision,
      twin_precisions[precision] and twin_clip .. " --precision " .. twin_precisions[precision])
  end
  local function frame(precision)
    add("480p, 16 frames, " .. precision, "frames=16 size=480x864 runs=10 infer=true precision=" .. precision,
      "--frames 16 --size 480x864 --runs 10 --infer --precision " .. twin_precisions[precision])
  end
  step "bf16"
  if not toy then frame "bf16" end
  step "tf32"
  if not toy then
    add("bf16, kernel by kernel", clip .. " precision=bf16 graph=false")
    for _, batch in ipairs { 2, 4, 8 } do add(("bf16, batch %d"):format(batch), clip .. " precision=bf16 batch=" .. batch) end
  end
  step "f32"
  step "fp16"
  if not toy then
    frame "tf32"
    add("bf16, autotuned", clip .. " precision=bf16 autotune=true", twin_clip .. " --precision bf16") -- as the twin is, always
    add("bf16, PyTorch compiled", clip .. " precision=bf16 autotune=true", twin_clip .. " --precision bf16 --compile")
  end
  return list
end

local function read_line(text)
  local forward, step, peak = text:match "forward ([%d.]+) s, train step (%S+) s, peak ([%d.]+) GiB"
  if not forward then return nil end
  step = tonumber(step)
  return { forward = tonumber(forward), step = step == step and step or nil, peak = tonumber(peak) }
end

local function median(list)
  table.sort(list)
  local n = #list
  return n > 0 and (list[math.floor((n + 1) / 2)] + list[math.ceil((n + 1) / 2)]) / 2 or nil
end

local function summary(list)
  local all = {}
  for _, field in ipairs { "forward", "step", "peak" } do
    local values = {}
    for _, record in ipairs(list) do values[#values + 1] = record[field] end
    all[field] = median(values)
  end
  return next(all) and all or nil
end

--- One measurement: our command and the twin's (nil: none), so many times in turns; the median of each field. A process has two
-- minutes, and none is begun that would have no five seconds. remaining(): the seconds left; run(command, limit): its output.
function M.in_turns(turns, our_command, twin_command, remaining, run)
  local ours, theirs, why = {}, {}, nil
  local sides = {
    { list = ours, prefix = "", command = our_command },
    twin_command and { list = theirs, prefix = "the twin: ", command = twin_command } or nil,
  }
  for _ = 1, turns do
    for _, side in ipairs(sides) do
      local limit = math.min(120, remaining())
      if limit < 5 then
        why = why or "no time"
        break
      end
      local text = run(side.command, limit)
      local record = read_line(text)
      if record then side.list[#side.list + 1] = record else why = why or side.prefix .. last_line(text) end
    end
  end
  return { ours = summary(ours), theirs = summary(theirs), problem = why }
end

return M
