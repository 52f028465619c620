-- sum, mean, max, argmax: values, ties, exact sums, names of wrong axes.
local pn = require "penumbra"
local helper = require "spec.helper"

describe("sum and mean", function()
  it("go over the axes named, all when none is", function()
    local x = pn.tensor { { { 1, 2 }, { 3, 4 } }, { { 5, 6 }, { 7, 8 } } }
    assert.equal(36, pn.sum(x):item())
    assert.same({ { 6, 8 }, { 10, 12 } }, pn.sum(x, { axes = 1 }):totable())
    assert.same({ { { 10 } }, { { 26 } } }, pn.sum(x, { axes = { 2, 3 }, keep = true }):totable())
    assert.same({ 3.5, 5.5 }, pn.mean(x, { axes = { 1, 3 } }):totable())
    assert.equal(4.5, pn.mean(x):item())
  end)

  it("lose nothing to small summands: a million tenths", function()
    local x = pn.full { 1000, 1000, value = 0.1 }
    helper.assert_close(pn.sum(x), x:flat()[1] * 1e6, 1e-7)
    helper.assert_close(pn.sum(pn.sum(x, { axes = 1 })), x:flat()[1] * 1e6, 1e-6)
  end)

  it("give the same bits on one thread as on three, over any axes", function()
    local x = helper.random({ 2, 37, 5, 40, 41 }, "x"):contiguous("channels_last")
    local threads = pn.C.pn_threads()
    for _, axes in ipairs { {}, { 1, 3, 4, 5 }, { 2 }, { 4, 5 }, { 1, 2 } } do
      assert(pn.C.pn_set_threads(1) == 0)
      local one = pn.sum(x, { axes = axes })
      assert(pn.C.pn_set_threads(3) == 0)
      local three = pn.sum(x, { axes = axes })
      assert(pn.C.pn_set_threads(threads) == 0)
      helper.assert_same_bits(one, three)
    end
  end)

  it("of nothing is 0; the mean of nothing is refused", function()
    assert.equal(0, pn.sum(pn.zeros { 0, 3 }):item())
    assert.same({ 0, 0, 0 }, pn.sum(pn.zeros { 0, 3 }, { axes = 1 }):totable())
    helper.failure(function() pn.mean(pn.zeros { 0, 3 }) end, "mean: the mean of no elements   (x 0,3)")
  end)

  it("names a wrong axis", function()
    helper.failure(function() pn.sum(pn.zeros { 2, 3 }, { axes = 3 }) end, "sum: there is no axis 3   (x 2,3)")
    helper.failure(function() pn.sum(pn.zeros { 2, 3 }, { axes = { 1, 1 } }) end, "sum: axis 1 is named twice")
  end)
end)

describe("max and argmax", function()
  it("find the first of the largest", function()
    local x = pn.tensor { { 1, 5, 5 }, { 7, 2, 7 } }
    assert.equal(7, pn.max(x):item())
    assert.same({ 5, 7 }, pn.max(x, { axes = 2 }):totable())
    assert.same({ 7, 5, 7 }, pn.max(x, { axes = 1 }):totable())
    assert.same({ 2, 1 }, pn.argmax(x, { axes = 2 }):flat())
    assert.equal(5, x:get(1, pn.argmax(x, { axes = 2 }):get(1)))
    assert.same({ 4 }, pn.argmax(x):flat())
    assert.equal("i64", pn.argmax(x):dtype())
    x:requires_grad(true)
    pn.sum(pn.max(x, { axes = 2 })):backward()
    assert.same({ { 0, 1, 0 }, { 1, 0, 0 } }, x:grad():totable())
  end)

  it("see NaN", function()
    local y = pn.max(pn.tensor { 1, 0 / 0, 3 }):item()
    assert.is_true(y ~= y)
    assert.same({ 2 }, pn.argmax(pn.tensor { 1, 0 / 0, 3 }):flat())
    helper.failure(function() pn.max(pn.zeros { 2, 0 }, { axes = 2 }) end,
      "max: the largest of no elements (axis 2 is empty)   (x 2,0)")
  end)
end)
