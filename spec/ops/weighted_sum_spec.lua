-- weighted_sum: against mul and sum, in every layout, forward and backward; what it refuses.
local pn = require "penumbra"
local helper = require "spec.helper"

local function both(x, weight, axis)
  local spread = {}
  for d = 1, x:dims() do
    spread[d] = d == axis and weight:count() or 1
  end
  local y, d = helper.with_gradients(function(a, w)
    return pn.weighted_sum(a, w, { axis = axis })
  end, x, weight)
  local dx, dw = d[1]:clone(), d[2]:clone()
  local expected, e = helper.with_gradients(function(a, w)
    return pn.sum(a * pn.reshape(w, { shape = spread }), { axes = { axis }, keep = true })
  end, x, weight)
  helper.assert_close(y, expected, 5e-6, "y") -- the sum of 2500 products runs in the real type
  helper.assert_close(dx, e[1], 1e-6, "dx")
  helper.assert_close(dw, e[2], 2e-6, "dw")
end

describe("weighted_sum", function()
  it("gives hand values", function()
    local y = pn.weighted_sum(pn.tensor { { 1, 2 }, { 3, 4 }, { 5, 6 } }, pn.tensor { 1, 10, 100 }, { axis = 1 })
    helper.assert_shape(y, 1, 2)
    helper.assert_close(y, { 531, 642 })
  end)

  it("is the sum of the products, in every layout, whatever the thread count", function()
    local threads = pn.threads()
    for _, n in ipairs { 1, 3 } do
      pn.threads(n)
      for _, layout in ipairs { "rows", "channels_last", "filter" } do
        for axis, size in ipairs { 6, 5, 4, 40, 33 } do
          local x = pn.empty { 6, 5, 4, 40, 33, layout = layout }:copy(helper.random({ 6, 5, 4, 40, 33 }, "x"))
          both(x, helper.random({ size }, "w" .. axis), axis)
        end
      end
    end
    pn.threads(threads)
  end)

  it("takes views, and axes of 1, of 0 and of thousands", function()
    local wide = helper.random({ 3, 9, 4 }, "wide")
    local w = helper.random({ 5 }, "w")
    helper.assert_close(pn.weighted_sum(wide:slice(2, 3, 5), w, { axis = 2 }),
      pn.weighted_sum(wide:slice(2, 3, 5):clone(), w, { axis = 2 }), 0)
    both(helper.random({ 3, 1, 4 }, "x"), helper.random({ 1 }, "w"), 2)
    both(helper.random({ 2, 2500, 3 }, "x"), helper.random({ 2500 }, "w"), 2)
    helper.assert_close(pn.weighted_sum(pn.zeros { 2, 0, 3 }, pn.zeros { 0 }, { axis = 2 }), { 0, 0, 0, 0, 0, 0 })
  end)

  it("refuses weights that do not fit, and an axis that is not there", function()
    helper.failure(function() pn.weighted_sum(pn.zeros { 2, 3 }, pn.zeros { 2 }, { axis = 2 }) end,
      "weighted_sum: weight needs one number for each of the 3 slices of x", "(x 2,3; weight 2)")
    helper.failure(function() pn.weighted_sum(pn.zeros { 2, 3 }, pn.zeros { 2 }, { axis = 3 }) end,
      "weighted_sum: there is no axis 3")
  end)
end)
