--- make gpu-check, rehearsed: without a card it says so; on the emulated device its stages run, and a stage that fails stops no
-- other.

local device = require "spec.gpu.device"
local files = require "penumbra.files"
local helper = require "spec.helper"
local json = require "penumbra.json"
local program = require "penumbra.program"
local shell = require "penumbra.shell"

describe("gpu-check", function()
  local directory = helper.directory(teardown)

  local function check(...)
    return shell.run(table.concat({ "'" .. program.exe .. "'", "scripts/gpu_check.lua", "out=" .. directory .. "/out", ... }, " "))
  end

  it("says in one line that there is no card, with a code of its own", function()
    local text, code = check "plugin=/nowhere/libpenumbra_cuda.so"
    assert.equal(3, code)
    assert.matches("^no card to check: no CUDA: /nowhere/libpenumbra_cuda.so: cannot open shared object file[^\n]*\n$", text)
    assert.is_false(files.exists(directory .. "/out", "directory"))
  end)

  it("names a stage that there is not", function()
    local text, code = check "stages=bensh"
    assert.equal(2, code)
    assert.truthy(text:find("stages: there is no 'bensh': the nearest is 'bench'", 1, true), text)
  end)

  it("runs its stages, each for itself, and leaves results and a table", function()
    if not device.emulated then pending "the rehearsal is the emulation's" end
    local text, code = check("plugin=" .. device.library, "small=true", "turns=1", "stages=gradients,compare,leak",
      "f64=/nowhere", "python=none")
    assert.equal(1, code, text) -- one of them cannot work
    local results = json.decode(files.read(directory .. "/out/results.json"))
    assert.equal("failed", results.stages.gradients.state)
    assert.truthy(results.stages.gradients.text:find("no /nowhere/libpenumbra.so", 1, true))
    assert.equal("passed", results.stages.compare.state, text)
    assert.is_true(results.stages.compare.found.step.f32.gradient < 1e-5)
    local grown = results.stages.leak.found.grown
    assert.same({ 0, 0 }, { grown.tensors, grown.live })
    local sanitized = device.library:find("asan", 1, true) -- which holds on to what the host gave back
    local state = sanitized and results.stages.leak.state or "passed"
    assert.equal(state, results.stages.leak.state, text)
    local lines = files.read(directory .. "/out/results.md")
    assert.truthy(lines:find("### " .. results.card .. ", " .. results.date, 1, true), lines)
    assert.truthy(lines:find(("| leak | %s | 40 steps: device +0 bytes"):format(state), 1, true), lines)
    assert.truthy(files.exists(directory .. "/out/leak.log"))
  end)

  it("begins no stage when the time is up", function()
    if not device.emulated then pending "the rehearsal is the emulation's" end
    local text, code = check("plugin=" .. device.library, "small=true", "seconds=5", "stages=leak")
    assert.equal(1, code)
    assert.matches("leak +not begun +0 s  the time was up", text)
  end)
end)
