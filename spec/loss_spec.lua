--- Losses from Lua: the golden numbers of METHOD 5, and void, norms and policies. The f64 build holds them to 1e-12.

local pn = require "penumbra"
local helper = require "spec.helper"

local TOLERANCE = pn.real == "f64" and 1e-12 or 1e-6
local X, Y = { 2, -1, .5, -3, 0, 4 }, { 1, 0, 1, 0, 0, 1 }

local function logits()
  return pn.tensor(X):requires_grad(true)
end

describe("balanced cross entropy", function()
  it("is the golden one", function()
    local x = logits()
    local loss = pn.loss.balanced(x, pn.tensor(Y), { norm = "sum" })
    helper.assert_close(loss:item(), 0.8370755713963997, TOLERANCE)
    loss:backward()
    helper.assert_close(x:grad(), { -0.059601461, 0.134470711, -0.188770334, 0.023712937, 0.25, -0.008993105 }, 2e-8 + TOLERANCE)
    helper.assert_close(pn.loss.balanced(x, pn.tensor { 1, 0, 0, 0, 0, 0 }, { norm = "sum" }):item(), 1.1136438644941147, TOLERANCE)
  end)

  it("is divided as asked; by the number of elements when nothing is", function()
    local y = pn.tensor(Y)
    helper.assert_close(pn.loss.balanced(logits(), y):item(), 0.8370755713963997 / 6, TOLERANCE)
    local function halves(t)
      return t:reshape(2, 3)
    end
    helper.assert_close(pn.loss.balanced(halves(logits()), halves(y), { norm = "batch" }):item(), 0.8370755713963997 / 2, TOLERANCE)
  end)

  it("leaves void elements out", function()
    local with_void = pn.loss.balanced(pn.tensor { 2, -1, .5, -3, 0, 4, 9, -9 }, pn.tensor { 1, 0, 1, 0, 0, 1, 0, 1 },
      { void = pn.tensor({ 0, 0, 0, 0, 0, 0, 1, 255 }, { dtype = "u8" }) })
    helper.assert_close(with_void:item(), 0.8370755713963997 / 6, TOLERANCE)
  end)

  it("of an empty mask is the plain sum, or nothing", function()
    local x = logits()
    local expected = 0
    for _, v in ipairs(X) do
      expected = expected + math.max(v, 0) + math.log(1 + math.exp(-math.abs(v)))
    end
    helper.assert_close(pn.loss.balanced(x, pn.zeros { 6 }, { norm = "sum" }):item(), expected, TOLERANCE)
    local loss = pn.loss.balanced(x, pn.zeros { 6 }, { norm = "sum", empty = "zero" })
    assert.equal(0, loss:item())
    loss:backward()
    assert.same({ 0, 0, 0, 0, 0, 0 }, x:grad():totable())
  end)

  it("is left to the elements where norm is none: hard ones can then be chosen", function()
    local x = logits()
    local each = pn.loss.balanced(x, pn.tensor(Y), { norm = "none" })
    assert.same({ 6 }, each:shape())
    helper.assert_close(each:sum():item(), 0.8370755713963997, TOLERANCE)
    pn.sum(pn.where(each:detach():gt(0.2), each, 0)):backward()
    helper.assert_close(x:grad(), { 0, 0, -0.188770334, 0, 0.25, 0 }, 2e-8 + TOLERANCE)
  end)

  it("says what it does not know", function()
    helper.failure(function() pn.loss.balanced(logits(), pn.tensor(Y), { nrom = "sum" }) end,
      "loss.balanced: unknown option 'nrom'",
      "did you mean 'norm'?")
    helper.failure(function() pn.loss.balanced(logits(), pn.tensor(Y), { norm = "sume" }) end,
      'norm is "sume"', 'did you mean "sum"?')
    helper.failure(function() pn.loss.balanced(logits(), pn.zeros { 5 }) end, "balanced_bce", "x 6", "target 5")
  end)
end)

describe("plain cross entropy", function()
  it("is the mean over the elements", function()
    local expected = 0
    for i, v in ipairs(X) do
      expected = expected + math.max(v, 0) - v * Y[i] + math.log(1 + math.exp(-math.abs(v)))
    end
    helper.assert_close(pn.loss.bce(logits(), pn.tensor(Y)):item(), expected / 6, TOLERANCE)
    helper.assert_close(pn.loss.bce(logits(), pn.tensor(Y), { norm = "sum" }):item(), expected, TOLERANCE)
    helper.assert_close(pn.loss.bce(logits(), pn.tensor(Y), { norm = "none" }):sum():item(), expected, TOLERANCE)
    helper.failure(function() pn.loss.bce(logits(), pn.tensor(Y), { empty = "zero" }) end, "loss.bce: unknown option 'empty'")
  end)
end)
