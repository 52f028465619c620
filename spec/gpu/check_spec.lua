--- make gpu-check, rehearsed: without a card it says so; on the emulated device its stages run, and a stage that fails stops no
-- other.

local device = require "spec.gpu.device"
local files = require "penumbra.base.files"
local helper = require "spec.helper"
local json = require "penumbra.json"
local program = require "penumbra.program"
local shell = require "penumbra.base.shell"
local lfs = require "lfs"

local here = lfs.currentdir()
local library = device.library:sub(1, 1) == "/" and device.library or here .. "/" .. device.library
local quote = shell.quote

describe("gpu-check", function()
  local directory = helper.directory(teardown)
  local out = directory .. "/out"

  local function check(...)
    return shell.run(table.concat({ quote(program.exe), here .. "/scripts/gpu_check.lua", "out=" .. out, ... }, " "))
  end

  local function read(path) return files.read(path or out .. "/results.json") end
  local function results() return json.decode(read()) end
  local function has(text, what) assert.truthy(text:find(what, 1, true), text) end

  it("says in one line what it cannot use, and where there is no card with a code of its own", function()
    local text, code = check "plugin=/nowhere/libpenumbra_cuda.so"
    assert.equal(1, code)
    assert.matches("^the card cannot be used: no CUDA: /nowhere/libpenumbra_cuda.so: cannot open shared object[^\n]*\n$", text)
    assert.is_false(files.exists(out, "directory"))
    text, code = shell.run(("env PENUMBRA_EMULATED_DEVICES=0 %s %s/scripts/gpu_check.lua out=%s plugin=%s"):format(
      quote(program.exe), here, out, quote(here .. "/build/libpenumbra_emulated.so")))
    assert.same({ "no card to check: no CUDA: no CUDA-capable device is detected\n", 3 }, { text, code })
  end)

  it("says so before anything is built", function()
    local seen = shell.succeeds "ls /dev/dxg" or shell.succeeds "ls /dev/nvidia[0-9]*" or shell.succeeds "nvidia-smi -L"
    if seen then pending "there is one" end
    assert.same({ "no card to check: neither nvidia-smi nor /dev/nvidia0 shows one\n", 3 }, { shell.run "scripts/gpu_check.sh" })
  end)

  it("names a stage that there is not", function()
    local text, code = check "stages=bensh"
    assert.equal(2, code)
    assert.truthy(text:find("stages: there is no 'bensh': the nearest is 'bench'", 1, true), text)
  end)

  it("finds the libraries of PyTorch's wheels where python3 says, unless they are named", function()
    local place = directory .. "/wheels"
    local function write(name, text)
      files.make_directory((place .. "/" .. name):match "^(.*)/")
      assert.is_nil(files.write(place .. "/" .. name, text))
      assert(shell.succeeds("chmod 755 " .. quote(place .. "/" .. name)))
    end
    write("scripts/gpu_check.sh", files.read "scripts/gpu_check.sh")
    write("build/penumbra", "#!/bin/sh\necho \"$PENUMBRA_CUDA_PATH\" \"$@\"\n")
    write("bin/nvidia-smi", "#!/bin/sh\necho GPU 0\n")
    write("bin/python3", ("#!/bin/sh\nPYTHONPATH=%s/far exec %s \"$@\"\n"):format(place,
      shell.quote((shell.run "command -v python3"):gsub("\n", ""))))
    for _, name in ipairs { "cudnn", "cu13" } do write("far/nvidia/" .. name .. "/lib/lib.so", "") end
    local function run(environment)
      local words = { "env -u PENUMBRA_CUDA_PATH PATH=" .. quote(place .. "/bin") .. ':"$PATH"', environment,
        quote(place .. "/scripts/gpu_check.sh"), "stages=leak" }
      return (shell.run(table.concat(words, " ")))
    end
    assert.matches(("^%s/far/nvidia/cu13/lib:%s/far/nvidia/cudnn/lib[^ ]* scripts/gpu_check.lua stages=leak\n$"):format(
      place:gsub("%p", "%%%0"), place:gsub("%p", "%%%0")), run "")
    assert.equal("/named scripts/gpu_check.lua stages=leak\n", run "PENUMBRA_CUDA_PATH=/named")
    write("bin/python3", "#!/bin/sh\necho no >&2\nexit 1\n")
    assert.equal(" scripts/gpu_check.lua stages=leak\n", run "")
  end)

  if not device.emulated then return end -- a rehearsal is the emulation's

  it("runs its stages, each for itself, and leaves results, a table and a log", function()
    files.make_directory(out .. "/work/oneshot-cpu") -- of an earlier run
    for _, name in ipairs { "results.md", "log.txt", "work/bench.log" } do files.write(out .. "/" .. name, "stale") end
    local text, code = check("plugin=" .. library, "small=true", "turns=1", "stages=gradients,compare,leak", "f64=/nowhere",
      "python=none")
    assert.equal(1, code, text) -- one of them cannot work
    local found = results()
    assert.equal("failed", found.stages.gradients.state)
    has(found.stages.gradients.text, "no /nowhere/libpenumbra.so")
    assert.equal("passed", found.stages.compare.state, text)
    assert.is_true(found.stages.compare.found.step.f32.gradient < 1e-5)
    local grown = found.stages.leak.found.grown
    assert.same({ 0, 0 }, { grown.tensors, grown.live })
    local sanitized = library:find("asan", 1, true) -- which holds on to what the host gave back
    local state = sanitized and found.stages.leak.state or "passed"
    assert.equal(state, found.stages.leak.state, text)
    local lines = read(out .. "/results.md")
    has(lines, "### " .. found.card .. ", " .. found.date)
    has(lines, ("| leak | %s | 40 steps: device +0 bytes"):format(state))
    local log = read(out .. "/log.txt")
    assert.is_nil(log:find "stale")
    assert.matches("^==== gradients ====\n==== gradients: failed, 0 s: no /now.*==== compare ====\n%$ env.*==== leak ====\n%$", log)
    local there = {}
    for _, folder in ipairs { out, out .. "/work" } do
      for name in lfs.dir(folder) do
        if name:sub(1, 1) ~= "." then there[#there + 1] = name end
      end
    end
    table.sort(there)
    assert.same({ "compare.log", "leak.log", "log.txt", "results.json", "results.md", "work" }, there)
  end)

  it("begins no stage when the time is up, and keeps its own files where it is told", function()
    local text, code = check("plugin=" .. library, "small=true", "seconds=4", "stages=leak", "work=" .. directory .. "/elsewhere")
    assert.equal(1, code)
    assert.matches("leak +not begun +0 s  the time was up", text)
    assert.truthy(files.exists(directory .. "/elsewhere", "directory"))
  end)

  it("says where it cannot write", function()
    local text, code = check("plugin=" .. library, "out=/dev/null")
    assert.equal(2, code)
    has(text, "out: /dev/null: cannot make the directory")
    text, code = check("plugin=" .. library, "work=/dev/null/there")
    assert.equal(2, code)
    has(text, "work: /dev/null: cannot make the directory")
    text, code = check("plugin=" .. library, "out=/proc", "work=" .. directory .. "/elsewhere")
    assert.equal(2, code)
    has(text, "out: cannot write /proc/results.json")
  end)

  it("gives a stage what is left but for the share of those to come; more where it is asked for by name", function()
    -- The limits, were there no time gone by when a stage begins.
    local function limits(expected, ...)
      check("plugin=" .. library, "small=true", "specs=/nowhere", "python=none", "f64=/nowhere", ...)
      local found = results()
      for name, record in pairs(found.stages) do
        local most = expected[name]
        assert.is_true(record.limit <= most and record.limit >= most - found.seconds, ("%s: %g"):format(name, record.limit))
      end
    end
    limits({ specs = 570 / 2, gradients = 570 }, "stages=specs,gradients")
    limits({ gradients = 570 }, "stages=gradients")
    limits({ specs = 60 - 40 * 60 / (150 + 40), gradients = 60 }, "stages=specs,gradients", "seconds=60")
  end)

  -- The scripts that stages run are looked for where we stand: stand-ins that print what the true ones would.
  describe("with stand-ins", function()
    local place = directory .. "/place"

    local function write(name, text)
      files.make_directory((place .. "/" .. name):match "^(.*)/")
      assert.is_nil(files.write(place .. "/" .. name, text))
    end

    local script = here .. "/scripts/gpu_check.lua"

    local function run_there(what, environment, ...)
      local words = { "cd", quote(place), "&& env", environment, quote(program.exe), what, "out=" .. out, "plugin=" .. library,
        ... }
      return shell.run(table.concat(words, " "))
    end
    local function check_there(...) return run_there(script, ...) end

    it("keeps what is known when a part fails, NaN and all", function()
      write("scripts/gpu_compare.lua", [[
        print '{"step": {"f32": {"loss": 1e-7, "gradient": 2e-6, "pixels": 1}}}'
        print '{"step": {"f32": {"loss": null, "gradient": 2e-6, "pixels": 1}, "tf32": {"problem": "out of memory"}}}'
        error("it fell", 0)]])
      write("scripts/gpu_clock.lua", [[print '{"step_shot": 0.5, "frame": null}' error("it fell too", 0)]])
      write("scripts/gpu_leak.lua", [[print '{"steps": 40}']])
      local text, code = check_there("", "stages=compare,clock,leak")
      assert.equal(1, code, text)
      local stages = results().stages
      assert.same({ "failed", "failed", "failed" }, { stages.compare.state, stages.clock.state, stages.leak.state })
      assert.equal(2e-6, stages.compare.found.step.f32.gradient)
      has(stages.compare.text, "f32 loss NaN, gradient 2.0e-06, pixels 1.0000; tf32: out of memory; penumbra: it fell")
      assert.equal("parent step not measured, one-shot step 500.0 ms, 480p frame not measured: the experiment not measured; "
        .. "penumbra: it fell too", stages.clock.text)
      assert.equal(40, stages.leak.found.steps) -- of which no line can be made
      assert.matches("attempt to index field 'grown'", stages.leak.text)
      write("scripts/gpu_clock.lua", [[print '{"step_shot": 0.5, "step_parent": null, "experiment": {}}']])
      write("scripts/gpu_leak.lua", [[print(("x"):rep(300000)) error("at once", 0)]])
      check_there("", "stages=clock,leak")
      has(results().stages.clock.text, "parent step NaN, one-shot step 500.0 ms, 480p frame NaN: the experiment NaN")
      assert.equal("penumbra: at once", results().stages.leak.text)
      assert.is_true(#read(out .. "/work/leak.log") > 300000) -- and of that the common log has the two ends
      local log = read(out .. "/log.txt")
      assert.matches("x\n%.%.%. 37%d%d%d bytes %.%.%.\nx.*penumbra: at once\n", log)
    end)

    it("says when results can no longer be written", function()
      write("scripts/gpu_leak.lua", ([[local files = require "penumbra.base.files"
        files.remove(%q)
        files.make_directory(%q)
        print '{"steps": 1, "grown": {"held": 0, "resident": 0}}']]):format(out .. "/results.json", out .. "/results.json/in"))
      local text, code = check_there("", "stages=leak")
      assert.equal(1, code)
      has(text, ("not kept: cannot write %s/results.json"):format(out))
      files.remove(out)
    end)

    it("times what matters most first, each as it is known, and says what was not begun", function()
      write("python", [[#!/bin/sh
        if [ "$1" = -c ]; then echo 9.9; else echo "torch: forward 0.0200 s, train step 0.0800 s, peak 2.00 GiB"; fi]])
      write("twin.py", "")
      -- Time goes by where a stand-in says so.
      write("by_clock.lua", ([[local pn, files = require "penumbra", require "penumbra.base.files"
        function pn.clock() return tonumber(files.read "clock") end
        return dofile %q]]):format(script))
      write("clock", "100")
      -- The second has nothing left for its twin, and sees what was known before it.
      write("bench/step.lua", ([[local words, files = table.concat(arg, " "), require "penumbra.base.files"
        if words:find "480x864" then
          for _, name in ipairs { "results.json", "results.md" } do
            files.write("seen." .. name, assert(files.read(%q .. "/" .. name)))
          end
          files.write("clock", "176")
        end
        local train = words:find "infer=true" and "nan" or "0.040007"
        print(("penumbra: forward 0.010003 s, train step %%s s, peak 1.00 GiB"):format(train))
      ]]):format(out))
      local text, code = run_there("by_clock.lua", "", "stages=bench", "turns=1", "seconds=80", "twin=twin.py",
        "python='sh python'")
      assert.equal(1, code, text)
      local stage = results().stages.bench
      local names, problems = {}, {}
      for i, row in ipairs(stage.found) do names[i], problems[i] = row.name, row.problem or "-" end
      assert.same({ "bf16", "480p, 16 frames, bf16", "tf32", "bf16, kernel by kernel", "bf16, batch 2", "bf16, batch 4",
        "bf16, batch 8", "f32", "fp16", "480p, 16 frames, tf32", "bf16, autotuned", "bf16, PyTorch compiled" }, names)
      assert.same({ "-", "no time" }, { problems[1], problems[2] })
      for i = 3, #problems do assert.equal("not begun", problems[i]) end
      assert.same({ forward = 0.010003, step = 0.040007, peak = 1 }, stage.found[1].ours)
      assert.same({ forward = 0.02, step = 0.08, peak = 2 }, stage.found[1].theirs)
      assert.same({ forward = 0.010003, peak = 1 }, stage.found[2].ours)
      assert.equal("failed", stage.state)
      has(stage.text, "2 measurements; not begun: tf32, bf16, kernel by kernel, bf16, batch 2")
      has(stage.text, "; 480p, 16 frames, bf16: no time")
      has(text, "fp16                             not begun\n")
      local lines = read(out .. "/results.md")
      has(lines, "| bf16 | 40.01 ms | 80.00 ms | 2.00 × |")
      has(lines, "| f32: not begun |  |")
      local seen = json.decode(read(place .. "/seen.results.json")).stages.bench
      assert.same({ "running", 1 }, { seen.state, #seen.found })
      has(read(place .. "/seen.results.md"), "| bench | running |  |")
    end)

    it("runs the specs that say most first; of a stage that is ended nothing lives on, and what it found counts", function()
      local one = "it('is', function() end) it('waits', function() pending 'for it' end)"
      for _, name in ipairs { "specs/alpha_spec.lua", "specs/reduce_spec.lua", "specs/registry_spec.lua" } do write(name, one) end
      local text, code = check_there("", "stages=specs", "specs=specs")
      assert.equal(0, code, text)
      has(results().stages.specs.text, "3 specs passed, 0 failed, 3 skipped")
      assert.matches("registry_spec.*reduce_spec.*alpha_spec", read(out .. "/work/specs.log"):match "\n(.*)$")
      write("specs/broken_spec.lua", "it('is not', function() error 'no' end)")
      write("specs/sleepy_spec.lua", "it('sleeps', function() os.execute 'echo $$ >sleeper; exec sleep 60' end)")
      for _, seconds in ipairs { 6, 30, 150 } do -- a busy machine takes longer to come to the last
        text, code = check_there("", "stages=specs", "specs=specs", "seconds=" .. seconds)
        if files.exists(place .. "/sleeper") then break end
      end
      assert.equal(1, code, text)
      local stage = results().stages.specs
      assert.same({ passed = 3, failed = 1, skipped = 3, files = 4 }, stage.found)
      assert.matches("^3 specs passed, 1 failed, 3 skipped in 4 of 5 files; ran longer than %d s$", stage.text)
      local sleeper = read(place .. "/sleeper"):match "%d+"
      assert.is_true(shell.succeeds(([[for i in $(seq 50); do
        [ -n "$(tr '\0' ' ' </proc/%s/cmdline)" ] || exit 0; sleep 0.1; done; exit 1]]):format(sleeper)))
      check_there("", "stages=specs", "specs=scripts")
      assert.equal("no specs in scripts", results().stages.specs.text)
    end)

    it("watches a part of the registry, then races, as long as there is time", function()
      write("bin/compute-sanitizer", [[#!/bin/sh
        echo "$PENUMBRA_MEMORY $*" >>calls
        case "$*" in
          *registry*last*) echo "1 passed, 0 failed, 0 skipped"; echo "========= ERROR SUMMARY: 0 errors" ;;
          *batch_norm*) echo "2 passed, 0 failed, 0 skipped"
            echo "========= RACECHECK SUMMARY: ${HAZARDS:-0} hazards displayed (${HAZARDS:-0} errors, 0 warnings)" ;;
          *) echo "not a summary" ;;
        esac]])
      assert(shell.succeeds("chmod 755 " .. quote(place .. "/bin/compute-sanitizer")))
      local path = "PATH=" .. quote(place .. "/bin") .. ":\"$PATH\""
      local text, code = check_there(path, "stages=sanitizer", "seconds=12")
      assert.equal(0, code, text)
      assert.equal("memcheck of registry_spec, channels last: 0 errors, 1 passed, 0 failed; "
        .. "no time for racecheck of batch_norm_spec; no time for racecheck of reduce_spec; "
        .. "no time for memcheck of registry_spec, in bf16", results().stages.sanitizer.text)
      assert.matches("^exact %-%-tool memcheck %-%-report%-api%-errors no %-%-error%-exitcode 9 .*%-%-filter=channels last\n$",
        read(place .. "/calls"))
      text, code = check_there(path .. " HAZARDS=3", "stages=sanitizer")
      assert.equal(1, code, text)
      local stage = results().stages.sanitizer
      has(stage.text, "racecheck of batch_norm_spec: 3 errors, 2 passed, 0 failed; racecheck of reduce_spec: not a summary")
      assert.equal(3, stage.found[2].errors)
    end)

    it("calls a one-shot failed whose J differs by more than 1, and says when a seed would do as much", function()
      write("recipes/quickstart.lua", [[local words, files = table.concat(arg, " "), require "penumbra.base.files"
        assert(words:find "seed=1 ")
        local out = words:match "out=(%S+)"
        files.make_directory(out)
        files.write(out .. "/scores.json", ('{"mean": {"J": {"mean": %s}, "F": {"mean": 0.5}}}'):format(
          words:find "device=cuda" and os.getenv "J" or "0.8"))]])
      for _, case in ipairs {
        { "0.794", 0, "J 79.4 on the card, 80.0 on the CPU; F 50.0, 50.0; ", "" },
        { "0.785", 1, "J 78.5", "; J differs by 1.5, 1 is allowed (another seed moves it as much)" },
        { "0.7", 1, "J 70.0", "; J differs by 10.0, 1 is allowed" },
        { "null", 1, "J nan on the card", "" },
      } do
        local J, code, start, ending = unpack(case)
        assert.equal(code, select(2, check_there("J=" .. J, "stages=oneshot", "davis=/nowhere")))
        local stage = results().stages.oneshot
        has((stage.text:gsub("%-nan", "nan")), start)
        assert.equal(ending, stage.text:match " s and %d+ s(.*)$")
        assert.equal(80, math.floor(stage.found.cpu.J + 0.5))
      end
    end)

    it("runs all of them in their order when none is named, and keeps for each its share", function()
      write("scripts/gpu_leak.lua", [[print '{"steps": 1, "grown": {"held": 0, "resident": 0}}']])
      local text, code = check_there("J=0.8", "specs=scripts", "turns=1", "davis=/nowhere", "f64=/nowhere", "twin=/nowhere")
      assert.equal(1, code, text)
      assert.matches("\nspecs .*\ncompare .*\nbench +passed .*\noneshot +passed .*\nclock .*\nleak +passed .*\ngradients ", text)
      local limits = {}
      for name, record in pairs(results().stages) do limits[name] = math.floor(record.limit / 5 + 0.5) * 5 end
      assert.same({ specs = 150, compare = 90, bench = 240, oneshot = 150, clock = 120, leak = 60, gradients = 120,
        sanitizer = 150 }, limits)
    end)
  end)
end)
