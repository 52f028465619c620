-- scripts/gpu_check.lua: everything that only a card can show, in stages: penumbra scripts/gpu_check.lua out=gpu-check
-- `make gpu-check` builds the plug-in for the card and runs this; so does the program of `make gpu-bundle`. Writes
-- OUT/results.json and OUT/results.md (the table for docs/gpu.md), both anew whenever something is known, and OUT/log.txt; all else
-- goes to WORK. A stage that fails or runs too long does not stop the others. Leaves with 0 when all went well, 1 when a stage
-- failed, 3 when there is no card.
local about = require "penumbra.about"
local benchmark = require "scripts.gpu_check_bench"
local commands = require "scripts.gpu_check_run"
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local program = require "penumbra.program"
local report = require "scripts.gpu_check_results"
local shell = require "penumbra.base.shell"
local usage = require "penumbra.base.usage"
local lfs = require "lfs"
local pn = require "penumbra"

local order = { "specs", "compare", "bench", "oneshot", "clock", "leak", "gradients", "sanitizer" }

-- Seconds that a stage takes at most (of those asked for by name, more where there is more), and those that are kept for it while
-- the stages before it run: 570 together.
local limits = { specs = 240, compare = 90, bench = 240, oneshot = 150, clock = 120, leak = 60, gradients = 120, sanitizer = 150 }
local shares = { specs = 150, compare = 50, bench = 120, oneshot = 110, clock = 45, leak = 25, gradients = 40, sanitizer = 30 }

local cfg = pn.config{
  stages  = {},            -- of specs, compare, bench, oneshot, clock, leak, gradients, sanitizer; none: all, in this order
  out     = "gpu-check",   -- directory of results.json, results.md and log.txt
  work    = "",            -- directory of the stages' own logs and runs; default: OUT/work
  seconds = 570,           -- for all of it; what is left then is not begun
  plugin  = "",            -- default: libpenumbra_cuda.so beside the library
  f64     = "build-f64",   -- directory of the f64 build, for the gradients
  specs   = "spec/gpu",    -- directory of the device's specs
  weights = "",            -- of I3D; default: gpu-check-data/i3d.safetensors of a bundle, else where penumbra fetch puts them
  clip    = "../shared/reference/i3d/clip_16x224x224.npy", -- for the activations, where it is there
  davis   = "../shared/davis2016", -- for the one-shot, where it is there; else a painted clip
  sequence = "blackswan",
  twin    = "../shared/peers/fcn_i3d_torch.py", -- FCN-I3D in PyTorch, where it is there
  python  = "python3",     -- the one that has torch
  turns   = 2,             -- of the benchmark: ours and the twin's, one after the other
  small   = false,         -- a rehearsal with a small network and small clips, for machines without a card
}

local quote = shell.quote

local plugin = cfg.plugin ~= "" and cfg.plugin or (pn.ffi.library_path:match "^(.*/)" or "") .. "libpenumbra_cuda.so"
for _, name in ipairs(cfg.stages) do
  local known
  for _, stage in ipairs(order) do known = known or stage == name end
  if not known then
    usage.fail("stages: there is no '%s'%s (%s)", name, usage.nearest(name, order), table.concat(order, ", "))
  end
end

-- ---- the card ------------------------------------------------------------------------------------------------------------------

local PATIENCE = 180 -- seconds, for what only answers a question: the first one loads cuDNN

local function patiently(command) return ("timeout %d %s"):format(PATIENCE, command) end
local function answer(command) return shell.line(patiently(command)) end

local function penumbra(words, environment)
  return ("env PENUMBRA_CUDA_LIB=%s %s %s %s"):format(quote(plugin), environment or "", quote(program.exe), words)
end

local card = answer(penumbra "-e 'print(pn.device.describe \"cuda:0\")'")
if not card then
  local text, code = shell.run(patiently(penumbra "-e 'pn.device.choose \"cuda\"'"))
  local why = text:gsub("^penumbra: %S*%s*device=cuda: ", ""):gsub("%s+$", "")
  if code == 124 then why = ("no answer within %d s"):format(PATIENCE) end
  local is_none = why:find("no device", 1, true) or why:find("no CUDA-capable device", 1, true)
  print((is_none and "no card to check: " or "the card cannot be used: ") .. why)
  return is_none and 3 or 1 -- whoever skips at 3 must not skip a library that is missing
end

-- ---- results -------------------------------------------------------------------------------------------------------------------

local work = cfg.work ~= "" and cfg.work or cfg.out .. "/work"
local problem = files.make_directory(cfg.out)
if problem then usage.fail("out: %s", problem) end
problem = files.make_directory(work)
if problem then usage.fail("work: %s", problem) end
-- What an earlier run left would pass for this one's.
for _, name in ipairs { "results.json", "results.md", "log.txt" } do files.remove(cfg.out .. "/" .. name) end
for _, name in ipairs(order) do files.remove(work .. "/" .. name .. ".log") end
for _, device in ipairs { "cuda", "cpu" } do files.remove(work .. "/oneshot-" .. device) end

local started, all_well = pn.clock(), true
local results = {
  date = os.date "!%Y-%m-%d", card = card, penumbra = pn.version,
  commit = about.commit() or (files.read(program.home .. "/COMMIT") or ""):match "%S+",
  processor = about.processor(), threads = pn.threads(),
  driver = answer "nvidia-smi --query-gpu=driver_version --format=csv,noheader", stages = {},
}

-- Writes what is known so far. Returns nil, or what went wrong.
local function save()
  results.seconds = pn.clock() - started
  return report.write(cfg.out, results, order)
end

local function keep()
  local why = save()
  if why then
    all_well = false
    print("not kept: " .. why)
  end
end

local function say(format, ...)
  print(format:format(...))
  io.flush()
end

problem = save()
if problem then usage.fail("out: %s", problem) end
say("%s%s, %s, %d threads", card, results.driver and ", driver " .. results.driver or "", results.processor or "?", results.threads)

-- ---- running things ------------------------------------------------------------------------------------------------------------

local function left() return cfg.seconds - (pn.clock() - started) end

local logs = commands.new(cfg.out, work, left)
local run, last_line, tally = logs.run, commands.last_line, commands.tally

-- What a script printed as lines of JSON, of which each says all that was known by then: the last; whether it left with 0; why it
-- left early.
local function result_of(name, words, limit)
  local text, code, _, late = run(name, penumbra(words), limit)
  local last = last_line(text)
  return commands.last_record(text), code == 0, (late or last:sub(1, 1) ~= "{") and last or nil
end

-- JSON knows no NaN: it arrives as nothing.
local function number(format, value) return value and format:format(value) or "NaN" end

local function exists(path) return files.exists(path) and path or nil end

local function weights()
  if cfg.weights ~= "" then return cfg.weights end
  return exists(program.home .. "/gpu-check-data/i3d.safetensors") or exists(pn.weights.home() .. "/i3d_rgb.safetensors")
end

local function data(path, bundled) return exists(path) or exists(program.home .. "/gpu-check-data/" .. bundled) end

local function davis()
  if files.exists(cfg.davis, "directory") then return cfg.davis end
  local bundled = program.home .. "/gpu-check-data/davis2016"
  return files.exists(bundled, "directory") and bundled or nil
end

-- ---- the stages ----------------------------------------------------------------------------------------------------------------

-- Of each: remaining() gives the seconds it has left; what it finds goes into record.found as soon as it is there; it returns
-- whether all is well (nil: not to be had here), and a line about it.
local stages = {}

-- The specs that say most come first.
local first_specs = {
  "registry", "reduce", "elementwise", "shapes", "batch_norm", "few", "losses", "optim", "random", "matmul", "convolution",
  "captured", "device", "run", "branches", "profile", "engines", "net",
}

local function specs_in_order()
  local rank, list = {}, {}
  for i, name in ipairs(first_specs) do rank[name .. "_spec.lua"] = i end
  for name in lfs.dir(cfg.specs) do
    if name:match "_spec%.lua$" then list[#list + 1] = name end
  end
  table.sort(list, function(a, b)
    local first, second = rank[a] or math.huge, rank[b] or math.huge
    if first ~= second then return first < second end
    return a < b
  end)
  for i, name in ipairs(list) do list[i] = quote(cfg.specs .. "/" .. name) end
  return list
end

function stages.specs(remaining, record)
  local list = specs_in_order()
  if #list == 0 then return false, "no specs in " .. cfg.specs end
  local text, code = run("specs", penumbra("--spec " .. table.concat(list, " "), "PENUMBRA_SPEC_SECONDS=90"), remaining())
  local found = tally(text)
  record.found = found
  if not found then return false, last_line(text) end
  local line = ("%d specs passed, %d failed, %d skipped"):format(found.passed, found.failed, found.skipped)
  if found.files then line = ("%s in %d of %d files; %s"):format(line, found.files, #list, last_line(text)) end
  return code == 0, line
end

local toy = "width=0.0625 frames=4"

function stages.compare(remaining, record)
  local w, clip = weights(), data(cfg.clip, "clip.npy")
  local words = "scripts/gpu_compare.lua"
  if cfg.small then
    words = words .. " size=32 precisions=f32 " .. toy
  elseif w then
    words = words .. " weights=" .. quote(w) .. (clip and " clip=" .. quote(clip) or "")
  end
  local found, ok, why = result_of("compare", words, remaining())
  record.found = found
  local parts = {}
  for _, precision in ipairs { "f32", "tf32", "bf16", "fp16" } do
    local step = found and found.step[precision]
    if step then
      parts[#parts + 1] = step.problem and ("%s: %s"):format(precision, step.problem)
        or ("%s loss %s, gradient %s, pixels %s"):format(precision, number("%.1e", step.loss), number("%.1e", step.gradient),
          number("%.4f", step.pixels))
    end
  end
  parts[#parts + 1] = why
  return ok and found ~= nil, table.concat(parts, "; ")
end

local has_twin
local function twin()
  if has_twin == nil then
    local path = data(cfg.twin, "fcn_i3d_torch.py")
    local version = path and answer(cfg.python .. " -c 'import torch; assert torch.cuda.is_available(); print(torch.__version__)'")
    has_twin = version and path or false
    results.torch = version
  end
  return has_twin
end

function stages.bench(remaining, record)
  local found, ok, why, late = {}, true, nil, {}
  record.found = found
  for _, measure in ipairs(benchmark.measures(cfg.small and toy or nil)) do
    local name, row = measure.name, nil
    if remaining() < 5 then
      row = { problem = "not begun" }
      late[#late + 1] = name
      say("  %-32s not begun", name)
    else
      local ours, theirs = penumbra("bench/step.lua device=cuda " .. measure.keys), nil
      if measure.options and twin() then
        theirs = ("%s %s --device cuda --layout ndhwc %s"):format(cfg.python, quote(twin()), measure.options)
      end
      row = benchmark.in_turns(cfg.turns, ours, theirs, remaining, function(...) return (run("bench", ...)) end)
      local function ms(side, field)
        return row[side] and row[side][field] and ("%.2f"):format(1e3 * row[side][field]) or "-"
      end
      say("  %-32s step %8s ms (PyTorch %8s)   forward %8s ms (%8s)%s", name, ms("ours", "step"), ms("theirs", "step"),
        ms("ours", "forward"), ms("theirs", "forward"), row.problem and "   " .. row.problem or "")
      why = why or row.problem and name .. ": " .. row.problem
    end
    row.name = name
    found[#found + 1] = row
    ok = ok and row.ours ~= nil
    keep()
  end
  return ok, ("%d measurements%s%s"):format(#found - #late, #late > 0 and "; not begun: " .. table.concat(late, ", ") or "",
    why and "; " .. why or "")
end

-- The same seed on both: the same dreams, in the same order. What roundings make of 400 steps is like another seed's, though, and
-- learning on would carry that from frame to frame: it is left to the specs of the recipe.
function stages.oneshot(remaining, record)
  local w, tree = weights(), davis()
  local recipe, words = "quickstart", "quickstart least=0"
  if cfg.small then
    words = words .. " epochs=2 crop=32 toy.frames=6 toy.height=48 toy.width=64 infer.frames=4 " .. toy
  elseif w and tree then
    recipe, words = "oneshot", ("oneshot davis=%s sequence=%s weights=%s online.every=0"):format(quote(tree), quote(cfg.sequence),
      quote(w))
  end
  local found = { recipe = recipe, seed = 1 }
  record.found = found
  for _, device in ipairs { "cuda", "cpu" } do
    local out = ("%s/oneshot-%s"):format(work, device)
    local command = penumbra(("%s seed=%d device=%s out=%s"):format(words, found.seed, device, quote(out)))
    local text, code, seconds = run("oneshot", command, remaining())
    local scores = json.decode(files.read(out .. "/scores.json") or "null")
    if code ~= 0 or not scores then return false, device .. ": " .. last_line(text) end
    found[device] = { J = 100 * (scores.mean.J.mean or 0 / 0), F = 100 * (scores.mean.F.mean or 0 / 0), seconds = seconds }
  end
  local difference = math.abs(found.cuda.J - found.cpu.J)
  local line = ("%s: J %.1f on the card, %.1f on the CPU; F %.1f, %.1f; %.0f s and %.0f s"):format(recipe, found.cuda.J,
    found.cpu.J, found.cuda.F, found.cpu.F, found.cuda.seconds, found.cpu.seconds)
  if difference > 1 then
    line = ("%s; J differs by %.1f, 1 is allowed%s"):format(line, difference,
      difference < 3 and " (another seed moves it as much)" or "")
  end
  return difference <= 1, line
end

function stages.clock(remaining, record)
  local words = cfg.small and "crop=32 height=48 clip_width=64 clip_frames=6 steps=9 " .. toy or "precision=bf16"
  local found, ok, why = result_of("clock", "scripts/gpu_clock.lua device=cuda " .. words, remaining())
  record.found = found
  if not found then return false, why end
  local function ms(key)
    return (found[key] or found.experiment) and number("%.1f ms", found[key] and 1e3 * found[key]) or "not measured"
  end
  local whole = found.experiment and number("%.1f minutes", found.experiment_minutes) or "not measured"
  return ok, ("parent step %s, one-shot step %s, 480p frame %s: the experiment %s%s"):format(ms "step_parent", ms "step_shot",
    ms "frame", whole, why and "; " .. why or "")
end

function stages.leak(remaining, record)
  local words = cfg.small and "steps=40 warm=20 crop=32 " .. toy or "steps=500"
  local found, ok, why = result_of("leak", "scripts/gpu_leak.lua device=cuda " .. words, remaining())
  record.found = found
  if not found then return false, why end
  return ok, ("%d steps: device %+d bytes, host %+.1f MiB"):format(found.steps, found.grown.held, found.grown.resident / 2 ^ 20)
end

function stages.gradients(remaining, record)
  local library, device_library = cfg.f64 .. "/libpenumbra.so", cfg.f64 .. "/" .. plugin:match "[^/]*$"
  if not (exists(library) and exists(device_library)) then return false, ("no %s or no %s"):format(library, device_library) end
  local text, code = run("gradients", ("env PENUMBRA_LIB=%s PENUMBRA_CUDA_LIB=%s %s --spec %s/registry_spec.lua"):format(
    quote(library), quote(device_library), quote(program.exe), quote(cfg.specs)), remaining())
  local found = tally(text)
  record.found = found
  return code == 0, found and ("in f64: %d passed, %d failed"):format(found.passed, found.failed) or last_line(text)
end

-- What is watched, kernel by kernel, is many times slower: one memory order of the registry must come through, the rest is for the
-- time that is left. Each tensor has an allocation of its own (PENUMBRA_MEMORY=exact), so that its end is seen. What the
-- libraries ask CUDA and take no for an answer to (--report-api-errors) is no error of ours.
local watched = {
  { tool = "memcheck", options = "--report-api-errors no", file = "registry_spec", filter = "channels last", wanted = true },
  { tool = "racecheck", file = "batch_norm_spec" },
  { tool = "racecheck", file = "reduce_spec" },
  { tool = "memcheck", options = "--report-api-errors no", file = "registry_spec", filter = "in bf16" },
}

function stages.sanitizer(remaining, record)
  local tool = shell.line "command -v compute-sanitizer" or exists "/usr/local/cuda/bin/compute-sanitizer"
  if not tool then return nil, "no compute-sanitizer here" end
  local found, parts, ok = {}, {}, true
  record.found = found
  for _, it in ipairs(watched) do
    local what = ("%s of %s%s"):format(it.tool, it.file, it.filter and ", " .. it.filter or "")
    if not it.wanted and remaining() < 15 then
      parts[#parts + 1] = "no time for " .. what
    else
      local text, code, seconds, late = run("sanitizer",
        ("env PENUMBRA_MEMORY=exact PENUMBRA_CUDA_LIB=%s %s --tool %s %s --error-exitcode 9 %s --spec %s/%s.lua %s"):format(
          quote(plugin), quote(tool), it.tool, it.options or "", quote(program.exe), quote(cfg.specs), it.file,
          it.filter and quote("--filter=" .. it.filter) or ""), remaining())
      local errors = text:match "ERROR SUMMARY: (%d+) error" or text:match "RACECHECK SUMMARY: .-%((%d+) error"
      local specs = tally(text)
      found[#found + 1] = { what = what, errors = tonumber(errors), specs = specs, late = late, seconds = seconds }
      if late or not (errors and specs) then
        parts[#parts + 1] = ("%s: %s"):format(what, last_line(text))
        ok = ok and late and not it.wanted
      else
        parts[#parts + 1] = ("%s: %s errors, %d passed, %d failed"):format(what, errors, specs.passed, specs.failed)
        ok = ok and code == 0 and errors == "0" and specs.passed > 0
      end
    end
  end
  return ok, table.concat(parts, "; ")
end

-- ---- all of them ---------------------------------------------------------------------------------------------------------------

local chosen = #cfg.stages > 0 and cfg.stages or order

-- Seconds for the stage of that place, of which none are those that the later ones will need.
local function limit_of(place)
  local needed, all, rest = 0, 0, left()
  for i, name in ipairs(chosen) do
    all = all + shares[name]
    if i > place then needed = needed + shares[name] end
  end
  local most = limits[chosen[place]]
  if #cfg.stages > 0 then most = math.max(most, rest / (#chosen - place + 1)) end
  return math.max(5, math.min(most, rest - needed * math.min(1, cfg.seconds / all)))
end

for place, name in ipairs(chosen) do
  local record = {}
  results.stages[name] = record
  if left() < 5 then
    record.state, record.text = "not begun", "the time was up"
    all_well = false
  else
    local began, limit = pn.clock(), limit_of(place)
    record.state, record.limit = "running", limit
    logs.note("==== %s ====\n", name)
    keep()
    local ran, ok, text = pcall(stages[name], function() return math.min(limit - (pn.clock() - began), left()) end, record)
    if not ran then ok, text = false, tostring(ok) end
    record.state = ok and "passed" or ok == nil and "skipped" or "failed"
    record.text, record.seconds = text, pn.clock() - began
    all_well = all_well and ok ~= false
  end
  say("%-10s %-9s %5.0f s  %s", name, record.state, record.seconds or 0, record.text)
  logs.note("==== %s: %s, %.0f s: %s\n\n", name, record.state, record.seconds or 0, record.text)
  keep()
end

say("%s/results.json and results.md, %.0f s", cfg.out, results.seconds)
return all_well and 0 or 1
