-- resize3d: PyTorch's numbers, nearest by each rule, the grid.
local pn = require "penumbra"
local helper = require "spec.helper"

local half_y = {
  -1, -0.795, -0.385, -0.18, -0.344, -0.341, -0.335, -0.332, 0.64, 0.34, -0.26, -0.56, 0.412, 0.112, -0.488,
  -0.788, 0.26, -0.04, -0.64, -0.94, -0.56, -0.355, 0.055, 0.26, -0.308, -0.204, 0.004, 0.108, 0.07, 0.0225,
  -0.0725, -0.12, -0.158, -0.2055, -0.3005, -0.348, -0.31, -0.3575, -0.4525, -0.5, -0.12, 0.085, 0.495, 0.7,
  -0.272, -0.067, 0.343, 0.548, -0.5, -0.295, 0.115, 0.32, -0.728, -0.523, -0.113, 0.092, -0.88, -0.675,
  -0.265, -0.06,
}
local half_d1 = {
  -2.124, -0.948, 0.7065, 0.2115, -0.66, -0.696, 0.444, 1.62, -0.9495, -0.6365, 1.403, -0.451,
}
local corners_y = {
  -1, -0.726666667, -0.453333333, -0.18, -0.18, -0.243333333, -0.306666667, -0.37, 0.64, 0.24, -0.16, -0.56,
  0.45, 0.05, -0.35, -0.75, 0.26, -0.14, -0.54, -0.94, -0.56, -0.286666667, -0.0133333333, 0.26, -0.245, -0.14,
  -0.035, 0.07, 0.07, 0.00666666667, -0.0566666667, -0.12, -0.12, -0.183333333, -0.246666667, -0.31, -0.31,
  -0.373333333, -0.436666667, -0.5, -0.12, 0.153333333, 0.426666667, 0.7, -0.31, -0.0366666667, 0.236666667,
  0.51, -0.5, -0.226666667, 0.0466666667, 0.32, -0.69, -0.416666667, -0.143333333, 0.13, -0.88, -0.606666667,
  -0.333333333, -0.06,
}
local corners_d1 = {
  -2.07, -1.02, 0.82, 0.2, -0.74, -0.7, 0.59, 1.64, -1.02, -0.63, 1.24666667, -0.396666667,
}

local function row(values)
  return pn.reshape(pn.tensor(values), { shape = { 1, 1, 1, 1, -1 } })
end

describe("resize3d", function()
  it("gives PyTorch's numbers, forward and backward", function()
    for align, expected in pairs { half_pixel = { half_y, half_d1 }, corners = { corners_y, corners_d1 } } do
      local y, d = helper.with_gradients(function(x)
        return pn.resize3d(x, { size = { 3, 5, 4 }, align = align })
      end, helper.counted { 1, 1, 2, 3, 2 })
      helper.assert_close(y, expected[1], 1e-6)
      helper.assert_close(d[1], expected[2], 1e-6)
    end
  end)

  it("takes the nearest by PyTorch's two rules, and by scale", function()
    local x = row { 0, 1, 2, 3, 4 }
    local size = { 1, 1, 7 }
    helper.assert_close(pn.resize3d(x, { size = size, mode = "nearest", align = "asymmetric" }), { 0, 0, 1, 2, 2, 3, 4 })
    helper.assert_close(pn.resize3d(x, { size = size, mode = "nearest" }), { 0, 1, 1, 2, 3, 3, 4 })
    helper.assert_close(pn.resize3d(row { 5, 7 }, { scale = { 1, 1, 3 }, mode = "nearest" }), { 5, 5, 5, 7, 7, 7 })
  end)

  it("registers by the grid: what stands at pixels 1, 3, 5 is read back there", function()
    local x = row { 10, 30, 50 }
    x:set_grid({ 1, 1, 2 }, { 0, 0, 1 })
    local y = pn.resize3d(x, { size = { 1, 1, 7 }, align = "grid" })
    helper.assert_close(y, { 10, 10, 20, 30, 40, 50, 50 })
    local stride, centre = helper.grid(y)
    assert.same({ 1, 1, 1 }, stride)
    assert.same({ 0, 0, 0 }, centre)
    helper.failure(function() pn.resize3d(row { 1, 2 }, { align = "grid" }) end,
      "resize3d: align=grid needs an x that carries its grid")
    x:set_grid({ 1, 1, -2 }, { 0, 0, 1 })
    helper.failure(function() pn.resize3d(x, { size = { 1, 1, 7 }, align = "grid" }) end,
      "resize3d: the grid's stride along w is -2, expected a positive one")
  end)

  it("carries the grid by each rule", function()
    local x = pn.zeros { 1, 1, 2, 3, 4 }
    x:set_grid({ 2, 8, 8 }, { 1, 7, 3 })
    local stride, centre = helper.grid(pn.resize3d(x, { scale = { 1, 2, 4 } }))
    assert.same({ 2, 4, 2 }, stride)
    assert.same({ 1, 5, 0 }, centre)
    stride, centre = helper.grid(pn.resize3d(x, { size = { 2, 5, 7 }, align = "corners" }))
    assert.same({ 2, 4, 4 }, stride)
    assert.same({ 1, 7, 3 }, centre)
  end)

  it("has a backward that is its adjoint: <resize x, z> = <x, backward z>", function()
    for _, args in ipairs {
      { size = { 5, 9, 4 } }, { size = { 2, 3, 11 }, align = "corners" }, { size = { 4, 4, 4 }, mode = "nearest" },
    } do
      local x, z = helper.random({ 1, 6, 3, 4, 5 }, "x"), helper.random({ 1, 6, args.size[1], args.size[2], args.size[3] }, "z")
      x:requires_grad(true)
      local y = pn.resize3d(x, args)
      y:backward(z)
      helper.assert_close(pn.sum(x:detach() * x:grad()), pn.sum(y:detach() * z), 1e-5)
    end
  end)

  local C, best = pn.C, require("ffi").string(pn.C.pn_cpu_variant())
  for _, variant in ipairs { "avx2", "avx512" } do
    it(variant .. " agrees with the plain definition, one channel and many, one element wide", function()
      if C.pn_set_cpu_variant(variant) ~= 0 then
        pending("this CPU has no " .. variant)
        return
      end
      for _, shape in ipairs { { 1, 1, 3, 4, 5 }, { 2, 1, 1, 2, 1 }, { 1, 7, 2, 3, 4 }, { 1, 1, 2, 2, 40 } } do
        for _, align in ipairs { "half_pixel", "corners", "asymmetric" } do
          local made = {}
          for _, name in ipairs { variant, "plain" } do
            assert.equal(0, C.pn_set_cpu_variant(name))
            local y, d = helper.with_gradients(function(t)
              return pn.resize3d(t, { size = { 3, 5, 37 }, align = align })
            end, helper.random(shape, "x"))
            made[#made + 1] = { y, d[1] }
          end
          helper.assert_close(made[1][1], made[2][1], 2e-6)
          helper.assert_close(made[1][2], made[2][2], 2e-6)
        end
      end
      assert.equal(0, C.pn_set_cpu_variant(best))
    end)
  end

  it("takes an end for itself, whatever lies beside it", function()
    local y = pn.resize3d(pn.tensor { { { { { 1, 1 / 0 } } } } }, { size = { 1, 1, 19 }, align = "corners" })
    assert.equal(1, y:get(1, 1, 1, 1, 1))
    assert.equal(1 / 0, y:get(1, 1, 1, 1, 19))
  end)

  it("refuses an empty axis", function()
    helper.failure(function() pn.resize3d(pn.zeros { 1, 1, 0, 2, 2 }, { size = 2 }) end, "resize3d: the t axis is empty")
  end)
end)
