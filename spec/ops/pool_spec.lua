-- max_pool3d and avg_pool3d: PyTorch's numbers, TensorFlow's padding, ties, the grid, every CPU variant alike.
local pn = require "penumbra"
local helper = require "spec.helper"
local C = pn.C

local max_pool_y = {
  0.76, 0.82, 0.82, 0.88, 0.88, 0.88, 0.94, 0.94, 0.82, 0.94, 1, 1, 0.94, 0.94, 0.82, 0.94, 1, 1, 0.8, 0.8,
  0.8, 0.86, 0.92, 0.92, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98,
}
local max_pool_d1 = {
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0, -0.5, 0, 0, 0, 0, -1.32, 0, 0, 0, 0, 0.66, 0, 0, 0, 0,
  -0.48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1.08, 0, 0, 0, 0, -0.08, 0, 0, 0, 0, 0.26, 0, 0, 0,
  0, -0.82, 0, 0, 0, 0, 0, 0, 0,
}
local avg_pool_y = {
  -0.2475, -0.09, 0.0675, -0.00833333333, -0.103333333, -0.03, -0.125, 0.00444444444, 0.0216666667, 0.03,
  -0.00888888889, 0.0644444444, -0.0025, 0.155, 0.06, 0.0683333333, 0.0855555556, 0.215, -0.0175,
  -0.0283333333, -0.2075, -0.115, 0.0144444444, 0.0316666667, 0.105, 0.01, -0.085, -0.0766666667, 0.0340740741,
  0.07, 0.2275, 0.0483333333, 0.0375, -0.0383333333, 0.0911111111, 0.108333333,
}
local avg_pool_d1 = {
  -0.211111111, -0.291111111, -0.152777778, -0.25462963, -0.32962963, -0.157407407, -0.0435185185,
  -0.0385185185, -0.00462962963, -0.0435185185, -0.0385185185, -0.00462962963, -0.0577777778, -0.0177777778,
  0.0355555556, -0.221296296, -0.22962963, -0.0657407407, -0.163518519, -0.211851852, -0.101296296,
  -0.163518519, -0.211851852, -0.101296296, 0.138888889, 0.268888889, 0.197222222, 0.0481481481, 0.154814815,
  0.14537037, -0.0907407407, -0.114074074, -0.0518518519, -0.0907407407, -0.114074074, -0.0518518519, -0.0375,
  -0.0133333333, 0.0208333333, 0.0347222222, 0.0211111111, 0.0197222222, 0.0722222222, 0.0344444444,
  -0.00111111111, 0.0722222222, 0.0344444444, -0.00111111111, -0.200833333, -0.246666667, -0.1075,
  -0.179166667, -0.274444444, -0.135833333, 0.0216666667, -0.0277777778, -0.0283333333, 0.0216666667,
  -0.0277777778, -0.0283333333, -0.108333333, -0.126666667, -0.05, -0.0833333333, -0.167777778, -0.0983333333,
  0.025, -0.0411111111, -0.0483333333, 0.025, -0.0411111111, -0.0483333333,
}
local avg_pool_padded_y = {
  -0.0733333333, -0.04, 0.02, -0.0037037037, -0.0688888889, -0.0133333333, -0.0555555556, 0.00296296296,
  0.00962962963, 0.02, -0.00888888889, 0.042962963, -0.000740740741, 0.0688888889, 0.0177777778, 0.0303703704,
  0.057037037, 0.0955555556, -0.00518518519, -0.0125925926, -0.0614814815, -0.0511111111, 0.00962962963,
  0.0140740741, 0.0466666667, 0.00666666667, -0.0377777778, -0.0511111111, 0.0340740741, 0.0466666667,
  0.0674074074, 0.0214814815, 0.0111111111, -0.017037037, 0.0607407407, 0.0481481481,
}
local avg_pool_padded_d1 = {
  -0.0755555556, -0.0977777778, -0.0548148148, -0.0888888889, -0.102222222, -0.0474074074, -0.0133333333,
  -0.00444444444, 0.00740740741, -0.0133333333, -0.00444444444, 0.00740740741, -0.02, -0.00666666667,
  0.0111111111, -0.0962962963, -0.0977777778, -0.0340740741, -0.0762962963, -0.0911111111, -0.0451851852,
  -0.0762962963, -0.0911111111, -0.0451851852, 0.0488888889, 0.0888888889, 0.0696296296, 0.0103703704,
  0.0466666667, 0.0518518519, -0.0385185185, -0.0422222222, -0.0177777778, -0.0385185185, -0.0422222222,
  -0.0177777778, -0.00148148148, 0.0133333333, 0.0192592593, 0.0592592593, 0.0451851852, 0.0259259259,
  0.0607407407, 0.0318518519, 0.00666666667, 0.0607407407, 0.0318518519, 0.00666666667, -0.0585185185,
  -0.0644444444, -0.0274074074, -0.0237037037, -0.0637037037, -0.0362962963, 0.0348148148, 0.000740740741,
  -0.00888888889, 0.0348148148, 0.000740740741, -0.00888888889, -0.0266666667, -0.0244444444, -0.00592592593,
  0.00888888889, -0.0303703704, -0.0244444444, 0.0355555556, -0.00592592593, -0.0185185185, 0.0355555556,
  -0.00592592593, -0.0185185185,
}

local function row(values)
  return pn.reshape(pn.tensor(values), { shape = { 1, 1, 1, 1, -1 } })
end

describe("max_pool3d", function()
  it("gives PyTorch's numbers, forward and backward", function()
    local y, d = helper.with_gradients(function(x)
      return pn.max_pool3d(x, { kernel = 3, stride = { 1, 2, 1 }, pad = 1 })
    end, helper.counted { 1, 2, 3, 4, 3 })
    helper.assert_shape(y, 1, 2, 3, 2, 3)
    helper.assert_close(y, max_pool_y, 1e-6)
    helper.assert_close(d[1], max_pool_d1, 1e-6)
  end)

  it("pads as TensorFlow does, with -inf: even sizes at the end, odd ones on both sides", function()
    local window = { kernel = { 1, 1, 3 }, stride = { 1, 1, 2 } }
    helper.assert_close(pn.max_pool3d(row { -1, -2, -3, -4 }, window), { -1, -3 })
    helper.assert_close(pn.max_pool3d(row { -1, -2, -3, -4, -5 }, window), { -1, -2, -4 })
  end)

  it("gives the gradient of a tie to the first in t,h,w order, and to it alone", function()
    local x = pn.full { 1, 1, 2, 2, 3, value = 4 }
    x:requires_grad(true)
    pn.sum(pn.max_pool3d(x, { kernel = { 2, 2, 2 }, stride = 1, pad = 0 })):backward()
    helper.assert_close(x:grad(), { 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 })
  end)

  it("lets NaN win, wherever it stands in the window", function()
    local nan = 0 / 0
    for place = 1, 3 do
      local values = { 1, 2, 3 }
      values[place] = nan
      local y = pn.max_pool3d(row(values), { kernel = { 1, 1, 3 }, pad = 0 }):item()
      assert.is_true(y ~= y)
    end
  end)

  it("carries the grid", function()
    local x = pn.zeros { 1, 1, 4, 6, 7 }
    x:set_grid({ 2, 4, 4 }, { 1, 3, 1 })
    local stride, centre = helper.grid(pn.max_pool3d(x, { kernel = 3, stride = 2 }))
    assert.same({ 4, 8, 8 }, stride)
    assert.same({ 3, 7, 1 }, centre) -- even: pads (0,1), so the window's middle is one element on; odd: (1,1)
  end)

  it("refuses windows that it cannot have", function()
    local x = pn.zeros { 1, 1, 2, 3, 4 }
    helper.failure(function() pn.max_pool3d(x, { kernel = 8 }) end,
      "max_pool3d: kernel 8,8,8 has 512 places, at most 256 are possible")
    helper.failure(function() pn.max_pool3d(x, { kernel = 2, pad = { 0, 2, 0 } }) end,
      "pad 2,2 along h must be smaller than kernel 2, or a window holds no element", "(x 1,1,2,3,4)")
    helper.failure(function() pn.max_pool3d(x, { kernel = { 3, 1, 1 }, pad = 0 }) end,
      "kernel 3 is larger than the padded t axis of 2")
    helper.failure(function() pn.max_pool3d(pn.zeros { 2, 3 }, { kernel = 1 }) end, "max_pool3d: x has 2 axes, expected 5")
    helper.failure(function() pn.max_pool3d(x, { kernel = 0 }) end, "max_pool3d: kernel is 0, expects 1 to 256")
  end)
end)

describe("avg_pool3d", function()
  it("gives PyTorch's numbers, padding counted or not", function()
    for _, include in ipairs { false, true } do
      local y, d = helper.with_gradients(function(x)
        return pn.avg_pool3d(x, { kernel = 3, stride = { 1, 2, 1 }, pad = 1, count_include_pad = include })
      end, helper.counted { 1, 2, 3, 4, 3 })
      helper.assert_close(y, include and avg_pool_padded_y or avg_pool_y, 1e-6)
      helper.assert_close(d[1], include and avg_pool_padded_d1 or avg_pool_d1, 1e-6)
    end
  end)

  it("takes the global mean, and windows larger than 256", function()
    local x = helper.counted { 1, 3, 4, 9, 9 }
    helper.assert_close(pn.avg_pool3d(x, { kernel = { 4, 9, 9 }, pad = 0 }), pn.mean(x, { axes = { 3, 4, 5 }, keep = true }), 1e-5)
  end)
end)

describe("the CPU variants of pooling", function()
  local best = require("ffi").string(C.pn_cpu_variant())
  after_each(function()
    assert(C.pn_set_cpu_variant(best) == 0)
  end)

  for _, variant in ipairs { "plain", "avx2", "avx512" } do
    it(variant .. " finds the same largest values with and without the winners that a gradient wants", function()
      if C.pn_set_cpu_variant(variant) ~= 0 then
        pending("this CPU cannot run " .. variant)
        return
      end
      for _, window in ipairs {
        { kernel = 3, stride = 1 }, { kernel = 3, stride = 2 }, { kernel = { 1, 3, 3 }, stride = { 1, 2, 2 } },
        { kernel = 2 }, { kernel = { 2, 1, 5 }, stride = { 1, 3, 2 } },
      } do
        for _, channels in ipairs { 1, 17, 70 } do
          local whole = pn.contiguous(helper.random({ 2, channels, 4, 8, 11 }, "x"), { layout = "channels_last" })
          for _, x in ipairs { whole, whole:slice(4, 2, 5):slice(5, 3, 7) } do
            local with = pn.max_pool3d(x:detach():requires_grad(true), window):detach()
            helper.assert_same_bits(pn.no_grad(pn.max_pool3d, x, window), with, channels .. " channels")
          end
        end
      end
      local x = pn.full({ 1, 70, 3, 3, 3, value = -1 / 0, layout = "channels_last" })
      x:set(0 / 0, 1, 69, 2, 2, 1)
      x:set(0 / 0, 1, 3, 1, 1, 1)
      local y = pn.max_pool3d(x, { kernel = 3, stride = 1 })
      for _, case in ipairs { { 69, 2, 2, 2 }, { 69, 1, 1, 1 }, { 3, 2, 2, 2 } } do
        local v = y:get(1, case[1], case[2], case[3], case[4])
        assert.is_true(v ~= v)
      end
      assert.equal(-1 / 0, y:get(1, 3, 3, 3, 3))
      assert.equal(-1 / 0, y:get(1, 69, 2, 2, 3))
    end)
  end

  for _, variant in ipairs { "avx2", "avx512" } do
    it(variant .. " agrees with the plain definition for any number of channels", function()
      if C.pn_set_cpu_variant(variant) ~= 0 then
        pending("this CPU cannot run " .. variant)
        return
      end
      for _, channels in ipairs { 1, 3, 8, 17, 70, 200 } do
        local x = pn.contiguous(helper.counted { 1, channels, 3, 5, 6 }, { layout = "channels_last" }):detach()
        local made = {}
        for _, name in ipairs { "plain", variant } do
          assert(C.pn_set_cpu_variant(name) == 0)
          local m, dm = helper.with_gradients(function(t) return pn.max_pool3d(t, { kernel = 3, stride = { 1, 2, 1 } }) end, x)
          local a, da = helper.with_gradients(function(t) return pn.avg_pool3d(t, { kernel = 3, stride = { 1, 2, 1 } }) end, x)
          made[name] = { m, dm[1]:clone(), a, da[1]:clone() }
        end
        helper.assert_same_bits(made[variant][1], made.plain[1], channels .. " channels: largest")
        helper.assert_same_bits(made[variant][2], made.plain[2], channels .. " channels: its gradient")
        helper.assert_close(made[variant][3], made.plain[3], 1e-6, channels .. " channels: mean")
        helper.assert_close(made[variant][4], made.plain[4], 1e-6, channels .. " channels: its gradient")
      end
    end)
  end
end)
