-- pack_spec: what travels from one Lua state to another, and what is said of what does not.
local pn = require "penumbra"
local helper = require "spec.helper"
local pack = require "penumbra.worker.pack"

local outer = 40

local function through(...)
  local bytes, tensors = pack.pack("spec", ...)
  return pack.unpack(bytes, function(i) return tensors[i] end)
end

describe("packing", function()
  it("keeps plain values, to the bit", function()
    local values = { nil, true, false, 0.1, -0, 1 / 0, "", "a\0b", { 1, 2, { x = { "deep" } }, [7] = false } }
    local back = { through(unpack(values, 1, 9)) }
    assert.same(values, back)
    assert.equal(-1 / 0, 1 / back[5])
    local nan = through(0 / 0)
    assert.is_true(nan ~= nan)
    assert.equal(0, select("#", through()))
    assert.equal(3, select("#", through(nil, nil, nil)))
  end)

  it("passes tensors by reference", function()
    local t = pn.full { 2, 3, value = 7 }
    local back = through { deep = { t } }
    assert.equal(tonumber(pn.C.pn_tensor_storage_id(pn.ffi.ptr(t))), tonumber(pn.C.pn_tensor_storage_id(pn.ffi.ptr(back.deep[1]))))
  end)

  it("carries functions with a copy of what they close over, and modules by name", function()
    local strength, list, sine = 2, { 5, 6 }, math.sin
    local f = through(function(x) return strength * x + list[2] + outer + sine(0), pn end)
    strength, list[2] = 100, 100
    local sum, module = f(1)
    assert.equal(48, sum)
    assert.equal(pn, module)
    local inner = function(x) return x + 1 end
    assert.equal(5, through(function(x) return inner(inner(x)) end)(3))
    local function factorial(n) return n < 2 and 1 or n * factorial(n - 1) end
    assert.equal(120, through(factorial)(5))
    assert.equal(require "penumbra.base.raise", through(require "penumbra.base.raise"))
    assert.equal(pack.unpack, through(pack.unpack))
  end)

  it("says what does not travel, and where it stands", function()
    local net = pn.nn.conv3d { from = 1, to = 1, kernel = 1 }
    helper.failure(function() through(1, { net = { net } }) end, "pack_spec.lua", "spec: value 2.net[1]: an object",
      "(a table with a metatable) does not travel; send what it is made of")
    helper.failure(function() through(function() return net end) end, "spec: value 1, local 'net' of the function at ",
      "pack_spec.lua:", ": an object")
    local loop = {}
    loop.self = loop
    helper.failure(function() through(loop) end, "spec: value 1.self: a table that holds itself does not travel")
    helper.failure(function() through(coroutine.create(print)) end, "a value of type thread does not travel")
    helper.failure(function() through(1LL) end, "a value of type cdata does not travel")
    helper.failure(function() through { [{}] = 1 } end, "a table whose keys are of type table does not travel")
    helper.failure(function() through(string.gmatch("a", "a")) end, "a C function that no loaded module holds does not travel")
    local t = pn.zeros { 2 }
    t:requires_grad(true)
    helper.failure(function() through(t) end, "value 1: a tensor that takes part in a graph does not travel; :detach() it first")
  end)

  it("carries a recipe's configuration as its table", function()
    local cfg = pn.config.resolve({ smooth = 2, lucid = { scale = { 1, 2 } }, rate = function(epoch) return 2 * epoch end }, {},
      { name = "x" })
    local change = through(function(x) return x * cfg.smooth * cfg.lucid.scale[2] + cfg.rate(1) end)
    assert.equal(14, change(3))
    assert.is_nil(getmetatable(through(cfg)))
  end)

  it("takes the same table twice where it stands twice", function()
    local twice = { 1 }
    local back = through { twice, twice }
    assert.same({ { 1 }, { 1 } }, back)
  end)
end)
