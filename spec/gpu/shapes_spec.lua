--- Views, rearrangements and windows on a CUDA device, beyond the registry's cases: gradients that meet, slots, boxes, nothing.

local device = require "spec.gpu.device"
local pn = require "penumbra"
local binding = require "penumbra.ffi"
local helper = require "spec.helper"
local ffi = require "ffi"

ffi.cdef "long long pn_emulated_calls(const char *call);"

-- Kernels launched so far; only the emulation counts them.
local function launches() return device.emulated and tonumber(ffi.load(device.library).pn_emulated_calls "launch") end

-- The same function of the same inputs on the CPU and on the device: what it makes and every gradient, bit for bit or close by.
local function both(f, shapes, tolerance)
  local made = {}
  for _, where in ipairs { "cpu", "cuda" } do
    local inputs = {}
    for i, shape in ipairs(shapes) do
      inputs[i] = helper.counted(shape, 31 * i):contiguous(#shape == 5 and "channels_last" or "rows"):detach():to(where)
      inputs[i]:requires_grad(true)
    end
    local y = f(unpack(inputs))
    y:backward(helper.counted(y:shape(), 613):to(where))
    made[where] = { y:to "cpu" }
    for i, x in ipairs(inputs) do made[where][i + 1] = x:grad():to "cpu" end
  end
  for i, expected in ipairs(made.cpu) do
    local what = i == 1 and "result" or "gradient " .. i - 1
    if tolerance then helper.assert_close(made.cuda[i], expected, tolerance, what)
    else helper.assert_same_bits(made.cuda[i], expected, what) end
  end
end

describe("on a CUDA device, parts of one tensor", function()
  it("add their gradients into their places", function()
    both(function(x)
      local left, right = x:slice(5, 1, 3), x:slice(5, 3, 4)
      local box = pn.crop3d(x, { first = { 1, 2, 1 }, size = { 2, 2, 3 } })
      local turned = pn.permute(left, { axes = { 1, 2, 3, 5, 4 } })
      return pn.concat(pn.reshape(turned, { shape = { -1 } }), pn.reshape(pn.flip(right, { axes = { 2, 5 } }), { shape = { -1 } }),
        pn.reshape(box, { shape = { -1 } }), pn.reshape(x, { shape = { -1 } }), { axis = 1 })
    end, { { 2, 5, 3, 4, 6 } })
  end)

  it("are joined in place, slice by slice", function()
    for _, channels in ipairs { { 2, 3 }, { 16, 8 }, { 1, 7 } } do
      both(function(p, q)
        local shape = p:shape()
        local whole = pn.zeros { shape[1], channels[1] + channels[2], shape[3], shape[4], shape[5], layout = "channels_last",
          device = p:device() }
        local first, second = whole:slot(2, 1, channels[1]), whole:slot(2, channels[1] + 1, channels[2])
        local a, b, before = pn.relu(p, { into = first }), pn.relu(q, { into = second }), launches()
        local y = pn.concat(a, b, { into = whole })
        assert.equal(before, launches())
        assert.equal(pn.C.pn_tensor_storage_id(binding.ptr(whole)), pn.C.pn_tensor_storage_id(binding.ptr(y)))
        return y
      end, { { 2, channels[1], 2, 3, 4 }, { 2, channels[2], 2, 3, 4 } })
    end
  end)

  it("are joined by copies, of any number of channels", function()
    for _, channels in ipairs { { 1, 2 }, { 16, 48 }, { 37, 20 }, { 4, 0 } } do
      both(function(p, q)
        local box = { first = { 1, 2, 2 }, size = { 2, 3, 3 } }
        return pn.concat(pn.crop3d(p, box), pn.crop3d(q, box), pn.crop3d(p, box), { axis = 2 })
      end, { { 2, channels[1], 2, 4, 5 }, { 2, channels[2], 2, 4, 5 } })
    end
  end)
end)

describe("on a CUDA device, what is repeated", function()
  it("adds up the gradients of its copies", function()
    for _, case in ipairs {
      { { 1, 16, 1, 1, 1 }, { 3, -1, 2, 5, 40 } }, { { 3, 1 }, { 2, -1, 7 } }, { { 1 }, { 300, 40 } }, { { 4, 5 }, { 4, 5 } },
      { { 0, 1 }, { 0, 3 } }, { { 2, 1 }, { 2, 0 } },
    } do
      both(function(x) return pn.expand(x, { shape = case[2] }) end, { case[1] }, device.tolerance[pn.real])
    end
  end)
end)

describe("on a CUDA device, a border", function()
  it("holds what it was given", function()
    both(function(x) return pn.pad3d(x, { pad = { { 0, 1 }, { 2, 0 }, { 1, 3 } }, value = -2.5 }) end, { { 2, 4, 3, 2, 5 } })
  end)
end)

describe("on a CUDA device, a destination", function()
  it("is where the inputs are", function()
    helper.failure(function() pn.relu(pn.ones { 2 }, { into = pn.ones { 2, device = "cuda" } }) end,
      "relu: the destination is on another device than the inputs")
  end)
end)

-- Max pooling keeps its bits, 16 of them too; a mean may round otherwise.
describe("on a CUDA device, pooling", function()
  local windows = {
    { kernel = { 1, 3, 3 }, stride = { 1, 2, 2 } }, { kernel = 3, stride = 1 }, { kernel = 3, stride = 2 }, { kernel = 2 },
    { kernel = { 2, 7, 5 }, stride = { 1, 2, 3 }, pad = { { 1, 0 }, { 5, 6 }, { 0, 4 } } }, { kernel = 1, stride = 3 },
  }

  it("agrees with the CPU for any number of channels", function()
    for _, channels in ipairs { 1, 3, 8, 30, 40, 72 } do
      for _, window in ipairs(windows) do
        for _, shape in ipairs { { 2, channels, 3, 9, 10 }, { 1, channels, 1, 2, 1 } } do
          pn.scope(function()
            both(function(x) return pn.max_pool3d(x, window) end, { shape })
            both(function(x) return pn.avg_pool3d(x, window) end, { shape }, device.tolerance[pn.real])
          end)
        end
      end
    end
  end)

  it("agrees with the CPU in 16 bits", function()
    for _, short in ipairs { "f16", "bf16" } do
      for _, channels in ipairs { 8, 20 } do
        for _, window in ipairs(windows) do
          local x = helper.counted { 1, channels, 3, 6, 7 }:contiguous("channels_last"):cast(short)
          local y, d = helper.with_gradients(function(t) return pn.max_pool3d(t, window) end, x:cast(pn.real))
          local there = x:to("cuda"):requires_grad(true)
          local made = pn.max_pool3d(there, window)
          made:backward(helper.counted(made:shape(), 613):to("cuda"):cast(short))
          assert.equal(short, made:dtype())
          helper.assert_same_bits(made:to("cpu"):cast(pn.real), y)
          helper.assert_close(there:grad():to("cpu"):cast(pn.real), d[1], device.tolerance[short])
        end
      end
    end
  end)

  it("gives ties to the first and lets NaN win", function()
    local values = {}
    for i = 1, 8 * 3 * 4 * 4 do values[i] = i % 7 == 0 and 0 / 0 or i % 3 end
    for _, channels in ipairs { 8, 1 } do
      local x = pn.reshape(pn.tensor(values), { shape = { 1, channels, 3, 4, -1 } }):contiguous "channels_last"
      local made = {}
      for _, where in ipairs { "cpu", "cuda" } do
        local there = x:detach():to(where):requires_grad(true)
        local y = pn.max_pool3d(there, { kernel = { 2, 2, 3 }, stride = 1 })
        y:backward(helper.counted(y:shape(), 613):to(where))
        made[#made + 1] = { y:to "cpu", there:grad():to "cpu" }
      end
      helper.assert_same_bits(made[2][1], made[1][1])
      helper.assert_same_bits(made[2][2], made[1][2])
    end
  end)

  it("reads and writes parts of larger tensors", function()
    for _, at in ipairs { { 1, 24, 40 }, { 5, 24, 40 }, { 2, 24, 40 }, { 1, 27, 41 } } do -- on and off the 16 bytes of a thread
      both(function(x)
        local first = at[1]
        local part = x:slice(2, first, 16)
        local whole = pn.zeros { 1, at[3], 2, 3, 3, layout = "channels_last", device = x:device() }
        local y = pn.max_pool3d(part, { kernel = 3, stride = 2, into = whole:slot(2, first, 16) })
        return pn.concat(y, pn.avg_pool3d(part, { kernel = { 1, 1, 1 }, stride = 2 }), { axis = 2 })
      end, { { 1, at[2], 3, 5, 5 } })
    end
  end)

  it("adds where several windows lead to one tensor", function()
    both(function(x)
      return pn.concat(pn.max_pool3d(x, { kernel = 3, stride = 1 }), pn.avg_pool3d(x, { kernel = { 1, 3, 3 }, stride = 1 }),
        pn.max_pool3d(x, { kernel = { 1, 2, 2 }, stride = 1 }), x, { axis = 2 })
    end, { { 2, 8, 2, 5, 6 } }, device.tolerance[pn.real])
  end)

  it("of nothing is nothing", function()
    for _, shape in ipairs { { 0, 8, 2, 3, 4 }, { 2, 0, 2, 3, 4 } } do
      both(function(x) return pn.max_pool3d(x, { kernel = 3, stride = 2 }) end, { shape })
      both(function(x) return pn.avg_pool3d(x, { kernel = 3, stride = 2 }) end, { shape })
    end
  end)
end)

describe("on a CUDA device, resizing", function()
  local sizes = { { 3, 7, 40 }, { 1, 1, 1 }, { 6, 9, 3 }, { 2, 4, 5 } }
  local aligns = { "half_pixel", "corners", "asymmetric", "grid" }

  local function each(f)
    for _, mode in ipairs { "nearest", "trilinear" } do
      for _, align in ipairs(aligns) do
        for _, size in ipairs(sizes) do
          pn.scope(function() f { size = size, mode = mode, align = align } end)
        end
      end
    end
  end

  local function placed(x) return x:set_grid({ 2, 0.5, 3 }, { 1, -0.25, 4 }) end

  it("agrees with the CPU by every rule, from large and small axes", function()
    each(function(how)
      for _, shape in ipairs { { 2, 1, 2, 4, 5 }, { 1, 3, 1, 1, 1 }, { 1, 40, 3, 1, 2 } } do
        both(function(x) return pn.resize3d(placed(x), how) end, { shape }, device.tolerance[pn.real])
      end
    end)
  end)

  it("has a backward that is its adjoint, and adds", function()
    each(function(how)
      local x = helper.counted({ 1, 5, 2, 4, 5 }, 3):to "cuda"
      placed(x):requires_grad(true)
      local z = helper.counted({ 1, 5, unpack(how.size) }, 613)
      local there = z:to "cuda"
      for times = 1, 2 do
        local y = pn.resize3d(x, how)
        y:backward(there)
        local product = pn.sum(y:detach():to "cpu" * z)
        helper.assert_close(pn.sum(x:detach():to "cpu" * x:grad():to "cpu"), product * times, 20 * device.tolerance[pn.real])
      end
    end)
  end)

  it("agrees with the CPU in 16 bits", function()
    for _, short in ipairs { "f16", "bf16" } do
      local x = helper.counted({ 1, 3, 2, 4, 5 }):cast(short)
      local y, d = helper.with_gradients(function(t) return pn.resize3d(t, { size = { 4, 6, 7 } }) end, x:cast(pn.real))
      local there = x:to("cuda"):requires_grad(true)
      local made = pn.resize3d(there, { size = { 4, 6, 7 } })
      made:backward(helper.counted(made:shape(), 613):to("cuda"):cast(short))
      assert.same({ short, short }, { made:dtype(), there:grad():dtype() })
      helper.assert_close(made:to("cpu"):cast(pn.real), y, device.tolerance[short])
      helper.assert_close(there:grad():to("cpu"):cast(pn.real), d[1], device.tolerance[short])
    end
  end)

  it("takes an end for itself, whatever lies beside it", function()
    local y = pn.resize3d(pn.tensor({ { { { { 1, 1 / 0 } } } } }):to "cuda", { size = { 1, 1, 19 }, align = "corners" }):to "cpu"
    assert.equal(1, y:get(1, 1, 1, 1, 1))
    assert.equal(1 / 0, y:get(1, 1, 1, 1, 19))
  end)

  it("of nothing is nothing", function()
    both(function(x) return pn.resize3d(x, { scale = 2 }) end, { { 0, 3, 2, 2, 2 } })
    both(function(x) return pn.resize3d(x, { scale = 2 }) end, { { 1, 0, 2, 2, 2 } })
  end)
end)

describe("on a CUDA device, memory that is not there", function()
  it("is an error, and leaves nothing behind", function()
    for _, case in ipairs { { "resize3d", "size=3,7,9" }, { "max_pool3d", "kernel=3 stride=1" }, { "reshape", "shape=-1" } } do
      local name, arguments = unpack(case)
      local x = helper.counted({ 1, 3, 2, 4, 5 }):contiguous("channels_last"):to("cuda"):requires_grad(true)
      local function make() return pn.ops.apply_text(name, { x }, arguments)[1] end -- the binding itself would try again
      local dy = helper.counted(make():shape(), 613):to "cuda"
      local function attempt()
        return pcall(pn.scope, function()
          make():backward(dy)
          x:set_grad(nil)
        end)
      end
      assert(attempt())
      collectgarbage()
      collectgarbage()
      local before, failures = pn.memory "cuda", 0
      for nth = 1, 200 do
        pn.C.pn_debug_fail_alloc(nth)
        local ok, message = attempt()
        pn.C.pn_debug_fail_alloc(0)
        x:set_grad(nil)
        if ok then break end
        failures = failures + 1
        assert.matches("out of memory", message)
        collectgarbage()
        local after = pn.memory "cuda"
        assert.same({ before.live, before.tensors }, { after.live, after.tensors }, "after failure " .. nth)
      end
      assert.is_true(failures > 1 and failures < 200)
    end
  end)
end)
