--- Views and rearrangements on a CUDA device, beyond the registry's cases: gradients that meet, slots, nothing at all.

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
