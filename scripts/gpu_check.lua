-- scripts/gpu_check.lua: everything that only a card can show, in stages: penumbra scripts/gpu_check.lua out=gpu-check
-- `make gpu-check` builds the plug-in for the card and runs this; so does the program of `make gpu-bundle`. Writes
-- OUT/results.json, OUT/results.md (the table for docs/gpu.md) and OUT/NAME.log. A stage that fails or runs too long does not stop
-- the others. Leaves with 0 when all went well, 1 when a stage failed, 3 when there is no card.
local about = require "penumbra.about"
local files = require "penumbra.files"
local json = require "penumbra.json"
local program = require "penumbra.program"
local shell = require "penumbra.shell"
local usage = require "penumbra.usage"
local pn = require "penumbra"

local order = { "specs", "compare", "bench", "oneshot", "clock", "leak", "gradients", "sanitizer" }

local cfg = pn.config{
  stages  = {},            -- of specs, compare, bench, oneshot, clock, leak, gradients, sanitizer; none: all, in this order
  out     = "gpu-check",   -- directory of the results
  seconds = 570,           -- for all of it; what is left then is not begun
  plugin  = "",            -- default: libpenumbra_cuda.so beside the library
  f64     = "build-f64",   -- directory of the f64 build, for the gradients
  weights = "",            -- of I3D; default: gpu-check/i3d.safetensors of a bundle, else where penumbra fetch puts them
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
    usage.fail("stages: there is no '%s': the nearest is '%s' (%s)", name, usage.nearest(name, order), table.concat(order, ", "))
  end
end

-- ---- the card ------------------------------------------------------------------------------------------------------------------

local answer = shell.line

local function penumbra(words, environment)
  return ("env PENUMBRA_CUDA_LIB=%s %s %s %s"):format(quote(plugin), environment or "", quote(program.exe), words)
end

local card = answer(penumbra "-e 'print(pn.device.describe \"cuda:0\")'")
if not card then
  local why = shell.run(penumbra "-e 'pn.device.choose \"cuda\"'")
  print("no card to check: " .. (why:gsub("^penumbra: %S*%s*device=cuda: ", ""):gsub("%s+$", "")))
  return 3
end

local problem = files.make_directory(cfg.out)
if problem then usage.fail("out: %s", problem) end
local started = pn.clock()
local results = {
  date = os.date "!%Y-%m-%d", card = card, commit = about.commit() or files.read(program.home .. "/COMMIT"), penumbra = pn.version,
  processor = about.processor(), threads = pn.threads(),
  driver = answer "nvidia-smi --query-gpu=driver_version --format=csv,noheader", stages = {},
}
print(("%s%s, %s, %d threads"):format(card, results.driver and ", driver " .. results.driver or "", results.processor or "?",
  results.threads))

-- ---- running things ------------------------------------------------------------------------------------------------------------

local function left() return cfg.seconds - (pn.clock() - started) end

-- Runs a command for so many seconds at most, its output at the end of OUT/NAME.log too. Returns the output, the exit code and
-- seconds.
local function run(name, command, limit)
  limit = math.max(1, math.floor(math.min(limit, left())))
  local began = pn.clock()
  local text, code = shell.run(("timeout -k 5 %d %s"):format(limit, command))
  local log = io.open(cfg.out .. "/" .. name .. ".log", "a")
  log:write("$ ", command, "\n", text, "\n")
  log:close()
  if code == 124 or code == 137 then text = text .. ("\nran longer than %d s"):format(limit) end
  return text, code, pn.clock() - began
end

local function last_line(text) return text:match "([^\n]+)%s*$" or "" end

-- What a script printed as one line of JSON.
local function result_of(name, words, limit, environment)
  local text, code, seconds = run(name, penumbra(words, environment), limit)
  local found
  for line in text:gmatch "[^\n]+" do
    if line:sub(1, 1) == "{" then found = json.decode(line) or found end
  end
  return found, code == 0, last_line(text), seconds
end

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

local stages = {}

local function tally(text)
  local passed, failed, skipped = text:match "(%d+) passed, (%d+) failed, (%d+) skipped%s*$"
  return passed and { passed = tonumber(passed), failed = tonumber(failed), skipped = tonumber(skipped) }
end

function stages.specs(limit)
  local text, code = run("specs", penumbra "--spec spec/gpu", limit)
  local found = tally(text)
  return code == 0, found and ("%d specs passed, %d failed, %d skipped"):format(found.passed, found.failed, found.skipped)
    or last_line(text), found
end

local toy = "width=0.0625 frames=4"

function stages.compare(limit)
  local w, clip = weights(), data(cfg.clip, "clip.npy")
  local words = "scripts/gpu_compare.lua"
  if cfg.small then
    words = words .. " size=32 precisions=f32 " .. toy
  elseif w then
    words = words .. " weights=" .. quote(w) .. (clip and " clip=" .. quote(clip) or "")
  end
  local found, ok, last = result_of("compare", words, limit)
  if not found then return false, last end
  local parts = {}
  for _, precision in ipairs { "f32", "tf32", "bf16", "fp16" } do
    local step = found.step[precision]
    if step then
      parts[#parts + 1] = step.problem and ("%s: %s"):format(precision, step.problem)
        or ("%s loss %.1e, gradient %.1e, pixels %.4f"):format(precision, step.loss, step.gradient, step.pixels)
    end
  end
  return ok, table.concat(parts, "; "), found
end

local function read_line(text)
  local forward, step, peak = text:match "forward ([%d.]+) s, train step (%S+) s, peak ([%d.]+) GiB"
  if not forward then return nil end
  step = tonumber(step)
  return { forward = tonumber(forward), step = step == step and step or nil, peak = tonumber(peak) }
end

local twin_precisions = { f32 = "fp32", tf32 = "tf32", bf16 = "bf16" }
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

local function median(list)
  table.sort(list)
  local n = #list
  return n > 0 and (list[math.floor((n + 1) / 2)] + list[math.ceil((n + 1) / 2)]) / 2 or nil
end

-- Ours and the twin's in turns; the median of each field. `keys` and `options` as the two programs take them.
local function in_turns(limit, keys, options)
  local function summary(list)
    local all = {}
    for _, field in ipairs { "forward", "step", "peak" } do
      local values = {}
      for _, record in ipairs(list) do values[#values + 1] = record[field] end
      all[field] = median(values)
    end
    return next(all) and all or nil
  end
  local ours, theirs, why = {}, {}, nil
  for _ = 1, cfg.turns do
    local text = run("bench", penumbra("bench/step.lua device=cuda " .. keys), limit)
    local record = read_line(text)
    if record then ours[#ours + 1] = record else why = last_line(text) end
    if options and twin() then
      text = run("bench", ("%s %s --device cuda --layout ndhwc %s"):format(cfg.python, quote(twin()), options), limit)
      record = read_line(text)
      if record then theirs[#theirs + 1] = record else why = why or "the twin: " .. last_line(text) end
    end
  end
  return { ours = summary(ours), theirs = summary(theirs), problem = why }
end

function stages.bench(limit)
  local began, found, ok = pn.clock(), {}, true
  local clip = cfg.small and toy .. " size=32 runs=1" or "frames=16 size=224 runs=20"
  local twin_clip = cfg.small and "--frames 4 --size 32 --runs 1" or "--frames 16 --size 224 --runs 20"
  local function measure(name, keys, options)
    local rest = limit - (pn.clock() - began)
    if rest < 5 then return end
    local record = in_turns(math.min(rest, 120), keys, options)
    record.name = name
    found[#found + 1] = record
    ok = ok and record.ours ~= nil
    local function say(side, field)
      return record[side] and record[side][field] and ("%.2f"):format(1e3 * record[side][field]) or "-"
    end
    print(("  %-32s step %8s ms (PyTorch %8s)   forward %8s ms (%8s)"):format(name, say("ours", "step"), say("theirs", "step"),
      say("ours", "forward"), say("theirs", "forward")))
  end
  for _, precision in ipairs { "bf16", "tf32", "f32" } do
    measure(precision, clip .. " precision=" .. precision, twin_clip .. " --precision " .. twin_precisions[precision])
  end
  measure("fp16", clip .. " precision=fp16")
  if not cfg.small then
    measure("bf16, PyTorch compiled", clip .. " precision=bf16 autotune=true", twin_clip .. " --precision bf16 --compile")
    local frame = "frames=16 size=480x864 runs=10 infer=true"
    for _, precision in ipairs { "bf16", "tf32" } do
      measure("480p, 16 frames, " .. precision, frame .. " precision=" .. precision,
        "--frames 16 --size 480x864 --runs 10 --infer --precision " .. twin_precisions[precision])
    end
    for _, batch in ipairs { 2, 4, 8 } do
      measure(("bf16, batch %d"):format(batch), clip .. " precision=bf16 batch=" .. batch)
    end
    measure("bf16, kernel by kernel", clip .. " precision=bf16 graph=false")
  end
  local why
  for _, record in ipairs(found) do why = why or record.problem and record.name .. ": " .. record.problem end
  return ok, ("%d measurements%s"):format(#found, why and "; " .. why or ""), found
end

function stages.oneshot(limit)
  local w, tree = weights(), davis()
  local recipe, words = "quickstart", "quickstart least=0"
  if cfg.small then
    words = words .. " epochs=2 crop=32 toy.frames=6 toy.height=48 toy.width=64 infer.frames=4 " .. toy
  elseif w and tree then
    recipe, words = "oneshot", ("oneshot davis=%s sequence=%s weights=%s"):format(quote(tree), quote(cfg.sequence), quote(w))
  end
  local found = { recipe = recipe }
  for _, device in ipairs { "cuda", "cpu" } do
    local out = ("%s/oneshot-%s"):format(cfg.out, device)
    files.remove(out)
    local text, code, seconds = run("oneshot", penumbra(("%s device=%s out=%s"):format(words, device, quote(out))), limit)
    local scores = json.decode(files.read(out .. "/scores.json") or "null")
    if code ~= 0 or not scores then return false, device .. ": " .. last_line(text), found end
    found[device] = { J = 100 * scores.mean.J.mean, F = 100 * scores.mean.F.mean, seconds = seconds }
  end
  local difference = math.abs(found.cuda.J - found.cpu.J)
  return difference <= 1, ("%s: J %.1f on the card, %.1f on the CPU; %.0f s and %.0f s"):format(recipe, found.cuda.J, found.cpu.J,
    found.cuda.seconds, found.cpu.seconds), found
end

function stages.clock(limit)
  local words = cfg.small and "crop=32 height=48 clip_width=64 clip_frames=6 steps=9 " .. toy or "precision=bf16"
  local found, ok, last = result_of("clock", "scripts/gpu_clock.lua device=cuda " .. words, limit)
  if not found then return false, last end
  return ok, ("parent step %.1f ms, one-shot step %.1f ms, 480p frame %.1f ms: the experiment %.1f minutes"):format(
    1e3 * found.step_parent, 1e3 * found.step_shot, 1e3 * found.frame, found.experiment_minutes), found
end

function stages.leak(limit)
  local words = cfg.small and "steps=40 warm=20 crop=32 " .. toy or "steps=500"
  local found, ok, last = result_of("leak", "scripts/gpu_leak.lua device=cuda " .. words, limit)
  if not found then return false, last end
  return ok, ("%d steps: device %+d bytes, host %+.1f MiB"):format(found.steps, found.grown.held,
    found.grown.resident / 2 ^ 20), found
end

function stages.gradients(limit)
  local library, device_library = cfg.f64 .. "/libpenumbra.so", cfg.f64 .. "/" .. plugin:match "[^/]*$"
  if not (exists(library) and exists(device_library)) then return false, ("no %s or no %s"):format(library, device_library) end
  local text, code = run("gradients", ("env PENUMBRA_LIB=%s PENUMBRA_CUDA_LIB=%s %s --spec spec/gpu/registry_spec.lua"):format(
    quote(library), quote(device_library), quote(program.exe)), limit)
  local found = tally(text)
  return code == 0, found and ("in f64: %d passed, %d failed"):format(found.passed, found.failed) or last_line(text), found
end

function stages.sanitizer(limit)
  local tool = answer "command -v compute-sanitizer" or exists "/usr/local/cuda/bin/compute-sanitizer"
  if not tool then return nil, "no compute-sanitizer here" end
  local text, code = run("sanitizer", ("env PENUMBRA_CUDA_LIB=%s %s --tool memcheck --error-exitcode 9 %s --spec %s"):format(
    quote(plugin), tool, quote(program.exe), "spec/gpu/registry_spec.lua"), limit)
  local errors = text:match "ERROR SUMMARY: (%d+) error"
  return code == 0 and errors == "0", errors and ("memcheck: %s errors"):format(errors) or last_line(text),
    { errors = tonumber(errors) }
end

-- ---- all of them ---------------------------------------------------------------------------------------------------------------

local limits = { specs = 150, compare = 90, bench = 240, oneshot = 150, clock = 120, leak = 60, gradients = 120, sanitizer = 150 }

local all_well = true
for _, name in ipairs(#cfg.stages > 0 and cfg.stages or order) do
  local record = {}
  if left() < 10 then
    record.state, record.text = "not begun", "the time was up"
    all_well = false
  else
    os.remove(cfg.out .. "/" .. name .. ".log")
    local began = pn.clock()
    local ran, ok, text, found = pcall(stages[name], limits[name])
    if not ran then ok, text = false, tostring(ok) end
    record.state = ok and "passed" or ok == nil and "skipped" or "failed"
    record.text, record.found, record.seconds = text, found, pn.clock() - began
    all_well = all_well and ok ~= false
  end
  results.stages[name] = record
  print(("%-10s %-9s %5.0f s  %s"):format(name, record.state, record.seconds or 0, record.text))
  io.flush()
  results.seconds = pn.clock() - started
  files.write(cfg.out .. "/results.json", json.pretty(results))
end

-- ---- the table -----------------------------------------------------------------------------------------------------------------

local function table_of()
  local lines = {}
  local function add(format, ...) lines[#lines + 1] = format:format(...) end
  add("### %s, %s", card, results.date)
  add("")
  add("Driver %s, PyTorch %s, %s, %d threads, commit %s. Medians; ours and the twin's in turns.", results.driver or "?",
    results.torch or "none", results.processor or "?", results.threads, results.commit or "?")
  add("")
  local function ms(value) return value and ("%.2f ms"):format(1e3 * value) or "" end
  local function ratio(a, b) return a and b and ("%.2f ×"):format(b / a) or "" end
  local bench = results.stages.bench and results.stages.bench.found
  if bench and #bench > 0 then
    add("| 16 × 224² unless said | step | PyTorch | | forward | PyTorch | | peak | PyTorch |")
    add("|---|---|---|---|---|---|---|---|---|")
    for _, row in ipairs(bench) do
      local a, b = row.ours or {}, row.theirs or {}
      local function gib(value) return value and ("%.2f GiB"):format(value) or "" end
      add("| %s | %s | %s | %s | %s | %s | %s | %s | %s |", row.name, ms(a.step), ms(b.step), ratio(a.step, b.step), ms(a.forward),
        ms(b.forward), ratio(a.forward, b.forward), gib(a.peak), gib(b.peak))
    end
    add("")
  end
  add("| stage | | |")
  add("|---|---|---|")
  for _, name in ipairs(order) do
    local record = results.stages[name]
    if record then add("| %s | %s | %s |", name, record.state, (record.text:gsub("|", "\\|"))) end
  end
  return table.concat(lines, "\n") .. "\n"
end

files.write(cfg.out .. "/results.md", table_of())
print(("%s/results.json and results.md, %.0f s"):format(cfg.out, results.seconds or 0))
return all_well and 0 or 1
