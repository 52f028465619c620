-- apply_spec: pn_apply, the tape and the memory beneath, where they refuse and what they keep.
local pn = require "penumbra"
local binding = require "penumbra.ffi"
local helper = require "spec.helper"
local ffi = require "ffi"
local C, check = binding.C, binding.check

local function message_of(f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  return tostring(message)
end

local function last_error() return ffi.string(C.pn_error()) end

describe("element types", function()
  local device = require "spec.gpu.device"
  local function on(where, dtype, ...) return pn.ones({ ... }):to(where):cast(dtype) end

  it("are real on the CPU", function()
    assert.matches('relu: x is bf16, expected f%d+ %(:cast "f%d+" converts it%)   %(x 2%)',
      message_of(pn.relu, on("cpu", "bf16", 2)))
    assert.matches("a tensor of f16 has no gradient", message_of(function() on("cpu", "f16", 2):requires_grad(true) end))
  end)

  it("may be of 16 bits on a CUDA device, " .. device.library:match "[^/]*$", function()
    assert.equal("bf16", pn.relu(on("cuda", "bf16", 2)):dtype())
    assert.matches('relu: x is i64, expected f%d+, f16 or bf16 %(:cast "f%d+" converts it%)',
      message_of(pn.relu, on("cuda", "i64", 2)))
    assert.matches("a tensor of u8 has no gradient", message_of(function() on("cuda", "u8", 2):requires_grad(true) end))
    assert.equal("f16", on("cuda", "f16", 2):requires_grad(true):dtype())
  end)
end)

describe("pn_apply", function()
  it("names what is missing and what is too much", function()
    local op = C.pn_op_find("conv3d")
    local args, y, n_y = ffi.new("pn_value[?]", C.PN_MAX_ARGS), ffi.new("pn_tensor *[?]", C.PN_MAX_OUTPUTS), ffi.new "int[1]"
    check(C.pn_op_parse(op, "", args))
    local x = pn.zeros { 1, 1, 1, 1, 1 }
    local inputs = ffi.new("pn_tensor *[5]", binding.ptr(x))
    assert.equal(-1, C.pn_apply(op, inputs, 1, args, y, n_y))
    assert.matches("conv3d: weight is missing %(takes x weight bias%? scale%?%)", last_error())
    for i = 1, 4 do inputs[i] = binding.ptr(x) end
    assert.equal(-1, C.pn_apply(op, inputs, 5, args, y, n_y))
    assert.matches("conv3d takes 4 tensors", last_error())
    assert.equal(-1, C.pn_apply(nil, inputs, 1, args, y, n_y))
    assert.matches("apply: NULL", last_error())
  end)

  it("reads arguments as text, with their ranges", function()
    local op = C.pn_op_find("conv3d")
    local args = ffi.new("pn_value[?]", C.PN_MAX_ARGS)
    local function refused(text)
      assert.equal(-1, C.pn_op_parse(op, text, args))
      return last_error()
    end
    check(C.pn_op_parse(op, "stride=1,2,3 pad=0,1,2,3,4,5", args))
    assert.equal(3, tonumber(args[0].i[2]))
    assert.equal(5, tonumber(args[1].i[5]))
    assert.matches('conv3d: no argument "strides"', refused("strides=1"))
    assert.matches('conv3d: "stride" is not key=value', refused("stride"))
    assert.matches("conv3d: stride = 0 is not in 1..4096", refused("stride=0"))
    assert.matches('stride = "1,2": one number or t,h,w', refused("stride=1,2"))
    assert.matches('stride = "a" is not a list of whole numbers', refused("stride=a"))
    assert.matches('groups = "1,2" is not one of whole numbers', refused("groups=1,2"))
    assert.matches("groups has no value", refused("groups="))
    assert.matches('pad = "1,2": same, one number', refused("pad=1,2"))
    assert.matches("argument too long", refused("stride=" .. ("1"):rep(200)))
  end)

  it("writes a destination only of the result's shape and type", function()
    local a = helper.random({ 2, 3 }, "a")
    local into = pn.zeros { 2, 3 }
    pn.add(a, a, { into = into })
    helper.assert_close(into, pn.scale(a, { a = 2 }), 1e-6)
    assert.matches("the destination is f%d+ 3,2, the result f%d+ 2,3", message_of(pn.add, a, a, { into = pn.zeros { 3, 2 } }))
    a:requires_grad(true)
    local leaf = pn.zeros({ 2, 3 }):requires_grad(true)
    assert.matches("already takes part in a gradient", message_of(pn.add, a, a, { into = leaf }))
  end)

  it("traps the first value that is not finite", function()
    C.pn_trap_nan(true)
    local message = message_of(pn.log, pn.tensor { 1, 0, -1 })
    C.pn_trap_nan(false)
    assert.matches("log: 2 of the 3 values it made are not finite   %(x 3%)", message)
  end)

  it("counts time by operation and label while profiling", function()
    C.pn_profile(true)
    C.pn_memory_set_label("here")
    pn.add(pn.zeros { 4 }, pn.zeros { 4 })
    C.pn_memory_set_label("")
    C.pn_profile(false)
    local buffer = ffi.new("char[?]", 65536)
    check(C.pn_profile_report(buffer, 65536))
    assert.matches("add.forward\there\t1\t", ffi.string(buffer))
    assert.equal(-1, C.pn_profile_report(buffer, 4))
    assert.matches("4 bytes are too few", last_error())
    assert.equal(-1, C.pn_profile_report(nil, 4))
    assert.matches("profile_report: no buffer", last_error())
    assert.equal(-1, C.pn_profile_begin(nil))
    assert.matches("profile_begin: name is NULL", last_error())
  end)
end)

describe("backward", function()
  it("adds up over uses of one tensor, and over calls", function()
    local x = pn.tensor({ 3 }):requires_grad(true)
    local y = pn.sum(x * x * x)
    y:backward()
    assert.equal(27, x:grad():item())
    pn.sum(x * 2):backward()
    assert.equal(29, x:grad():item())
  end)

  it("refuses what it cannot do, by name", function()
    local x = pn.tensor({ 1, 2 }):requires_grad(true)
    assert.matches("nothing was recorded", message_of(function() x:backward() end))
    assert.matches("the loss has shape 2", message_of(function() (x * x):backward() end))
    local y = pn.sum(x * x)
    y:backward()
    assert.matches("given back by an earlier backward", message_of(function() y:backward() end))
    assert.matches("is the result of sum; only leaves", message_of(function() y:requires_grad(false) end))
    assert.matches("a tensor of u8 has no gradient", message_of(function() pn.zeros({ 2, dtype = "u8" }):requires_grad(true) end))
    assert.matches("the seed must have the loss's shape", message_of(function() (x * x):backward(pn.zeros { 3 }) end))
  end)

  it("notices an input that changed in place", function()
    local x = pn.tensor({ 1, 2 }):requires_grad(true)
    local y = pn.sum(pn.square(x))
    pn.no_grad(function() x:fill(5) end)
    assert.matches("input 1 of square was changed in place after the forward", message_of(function() y:backward() end))
  end)

  it("survives a chain of 20000 operations", function()
    local x = pn.tensor({ 1 }):requires_grad(true)
    local y = x
    for _ = 1, 20000 do y = pn.scale(y, { a = 1 }) end
    pn.sum(y):backward()
    assert.equal(1, x:grad():item())
  end)

  it("records nothing inside no_grad", function()
    local x = pn.tensor({ 1 }):requires_grad(true)
    pn.no_grad(function() assert.is_false((x * x):requires_grad()) end)
    assert.is_true((x * x):requires_grad())
  end)
end)

describe("memory", function()
  after_each(function()
    C.pn_debug_fail_alloc(0)
    C.pn_debug_poison(false)
    C.pn_memory_set_limit(C.PN_CPU, 0)
    C.pn_memory_set_label("")
  end)

  it("is counted, and given back by scopes", function()
    collectgarbage() -- what earlier specs dropped must not be given back in between
    collectgarbage()
    local before = pn.memory().live
    pn.scope(function()
      pn.zeros { 1024, 1024 }
      assert.is_true(pn.memory().live >= before + 4 * 1024 * 1024)
    end)
    assert.equal(before, pn.memory().live)
  end)

  it("that runs out names the layer, the size and the holders", function()
    C.pn_memory_set_label("i3d.mixed_3b")
    local held = pn.zeros { 512, 1024 }
    C.pn_memory_set_limit(C.PN_CPU, pn.memory().live + 2 ^ 20)
    C.pn_memory_set_label("i3d.mixed_3c")
    local message = message_of(pn.zeros, { 4096, 4096 })
    assert.matches("out of memory: %d+%.%d MiB wanted on the CPU by i3d.mixed_3c; %d+%.%d MiB live", message)
    assert.matches("largest holders: .*i3d.mixed_3b %d+%.%d MiB", message)
    assert.is_true(held:count() > 0)
  end)

  it("failing at any one allocation leaves a clear error and nothing behind", function()
    local x, w = helper.random({ 1, 3, 3, 6, 6 }, "x"), helper.random({ 4, 3, 3, 3, 3 }, "w"):requires_grad(true)
    local function step()
      pn.scope(function() pn.sum(pn.relu(pn.conv3d(x, w, { stride = 2 }))):backward() end)
      w:set_grad(nil)
    end
    step()
    collectgarbage()
    local live = pn.memory().live
    local refused = 0
    for nth = 1, 40 do
      C.pn_memory_trim(C.PN_CPU)
      C.pn_debug_fail_alloc(nth)
      local ok, message = pcall(step)
      C.pn_debug_fail_alloc(0)
      if not ok then
        refused = refused + 1
        assert.matches("out of memory", tostring(message))
      end
      w:set_grad(nil)
      collectgarbage()
      assert.equal(live, pn.memory().live)
    end
    assert.is_true(refused >= 1)
    step()
  end)

  it("freed is poisoned on demand", function()
    C.pn_debug_poison(true)
    local t = pn.ones { 64 }
    local p = ffi.cast("uint8_t *", t:data())
    t:free()
    assert.equal(255, p[100])
  end)

  it("of an impossible shape is refused", function()
    assert.matches("impossible shape", message_of(pn.zeros, { 2 ^ 40, 2 ^ 40 }))
  end)
end)

describe("philox", function()
  it("gives the known answers of its authors (Random123)", function()
    local out = ffi.new "uint32_t[4]"
    C.pn_philox(0, 0, 0, out)
    assert.same({ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 }, { out[0], out[1], out[2], out[3] })
    C.pn_philox(0xffffffffffffffffULL, 0xffffffffffffffffULL, 0xffffffffffffffffULL, out)
    assert.same({ 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd }, { out[0], out[1], out[2], out[3] })
    C.pn_philox(0x299f31d0a4093822ULL, 0x0370734413198a2eULL, 0x85a308d3243f6a88ULL, out)
    assert.same({ 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 }, { out[0], out[1], out[2], out[3] })
  end)

  it("fills the same numbers for any layout and number of threads", function()
    local threads = C.pn_threads()
    check(C.pn_set_threads(1))
    local rows = pn.random.stream(3, "t"):fill(pn.empty { 2, 3, 4, 5, 6, layout = "rows" }, "normal", 1, 2)
    check(C.pn_set_threads(4))
    local last = pn.random.stream(3, "t"):fill(pn.empty { 2, 3, 4, 5, 6, layout = "channels_last" }, "normal", 1, 2)
    check(C.pn_set_threads(threads))
    assert.equal(0, helper.relative_error(rows, last))
    assert.equal(-1, C.pn_random_fill(binding.ptr(rows), C.PN_BERNOULLI, 2, 0, 1, 1, 0))
    assert.matches("a probability of 2", last_error())
  end)
end)
