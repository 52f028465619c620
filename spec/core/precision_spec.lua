--- What convolutions multiply in on each device, how engines are picked, and notices: settings that need no device.

local pn = require "penumbra"
local helper = require "spec.helper"
local ffi = require "ffi"
local C = pn.C

ffi.cdef "void pn_notice(const char *format, ...);"

local f64 = pn.real == "f64"

local function refuses(rc, message)
  assert.equal(-1, rc)
  assert.equal(message, ffi.string(C.pn_error()))
end

describe("precision", function()
  after_each(function()
    assert.equal(0, C.pn_set_precision("f32", 0))
    assert.equal(0, C.pn_set_precision("f32", 1))
  end)

  it("belongs to a device: all of CUDA has one, the CPU another", function()
    if f64 then
      refuses(C.pn_set_precision("fp16", 1), "the f64 build has no fp16")
      assert.equal("f64", pn.precision(nil, "cuda"))
      return
    end
    for _, name in ipairs { "tf32", "bf16", "fp16", "f32" } do
      assert.equal(name, pn.precision(name, "cuda:1"))
      assert.equal(name, pn.precision(nil, "cuda"))
      assert.equal("f32", pn.precision())
    end
  end)

  it("is refused where a device has it not", function()
    helper.failure(function() pn.precision "tf32" end, 'no precision "tf32" on the CPU (f32, bf16)')
    helper.failure(function() pn.precision("f16", "cuda") end, "precision: expects f32, tf32, bf16 or fp16, got f16")
    refuses(C.pn_set_precision("f8", 1), 'no precision "f8" on CUDA (f32, tf32, bf16, fp16)')
    refuses(C.pn_set_precision(nil, 0), "set_precision: name is NULL")
  end)
end)

describe("engines", function()
  local before = pn.engines()
  after_each(function() pn.engines(before) end)

  it("are picked by heuristics, deterministic, within 1 GiB, until told otherwise", function()
    assert.same({ how = "heuristic", deterministic = true, workspace = 2 ^ 30 }, before)
    assert.same({ how = "autotune", deterministic = false, workspace = 0 },
      pn.engines { how = "autotune", deterministic = false, workspace = 0 })
    assert.same({ how = "plain", deterministic = false, workspace = 0 }, pn.engines { how = "plain" })
  end)

  it("refuse what makes no sense", function()
    for message, o in pairs {
      ['no way "best" to pick engines (heuristic, autotune, plain)'] = { how = "best" },
      ["engines: how is 1, expects heuristic, autotune or plain"] = { how = 1 },
      ["set_workspace: -1 bytes"] = { workspace = -1 },
      ["engines: workspace is 1.5, expects a whole number of bytes"] = { workspace = 1.5 },
      ["engines: deterministic is 1, expects true or false"] = { deterministic = 1 },
      ["engines: unknown option 'hwo' (known: deterministic, how, workspace)"] = { hwo = 1 },
    } do
      helper.failure(function() pn.engines(o) end, message)
    end
    assert.equal(-1, C.pn_set_engines(nil))
    assert.equal("set_engines: how is NULL", ffi.string(C.pn_error()))
  end)
end)

describe("a notice", function()
  it("is written on stderr after the next operation, each text once, with nothing lost", function()
    local stderr, said = io.stderr, {}
    io.stderr = { write = function(_, ...) table.insert(said, table.concat { ... }) end } -- luacheck: ignore
    C.pn_notice("first\n%d", ffi.cast("int", 1))
    C.pn_notice("second")
    C.pn_notice("first\n%d", ffi.cast("int", 1))
    assert.same({}, said)
    pn.relu(pn.zeros { 1 })
    C.pn_notice("second")
    C.pn_notice("%s", ffi.cast("const char *", ("x"):rep(400)))
    pn.relu(pn.zeros { 1 })
    io.stderr = stderr -- luacheck: ignore
    assert.same({ "penumbra: first;1\n", "penumbra: second\n", "penumbra: " .. ("x"):rep(319) .. "\n" }, said)
  end)
end)
