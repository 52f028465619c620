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

-- Values of PyTorch 2: sums of sigmoid, binary_cross_entropy_with_logits and cross_entropy.
describe("losses for unequal classes", function()
  local x, t, void
  before_each(function()
    x = pn.tensor { { -2, -.5, .3 }, { 1, 2.5, -1 } }
    t, void = pn.tensor { { 0, 1, 1 }, { 1, 1, 0 } }, pn.tensor { { 0, 0, 1 }, { 0, 0, 0 } }
  end)

  it("compare sets: dice", function()
    helper.assert_close(pn.loss.dice(x, t):item(), 0.2227502465, 1e-6)
    helper.assert_close(pn.loss.dice(x, t:cast "u8", { smooth = 0 }):item(), 0.2545929551, 1e-6)
    assert.near(0, pn.loss.dice((t - .5) * 200, t):item(), 1e-6)
    helper.assert_close(pn.loss.dice(x, t, { void = void }):item(),
      pn.loss.dice(pn.tensor { -2, -.5, 1, 2.5, -1 }, pn.tensor { 0, 1, 1, 1, 0 }):item(), 1e-6)
    assert.equal(0, pn.loss.dice(pn.full { 4, value = -200 }, pn.zeros { 4 }):item())
    pn.check_gradient(function(a) return pn.loss.dice(a, t, { void = void }) end, x)
  end)

  it("look away from what is right: focal", function()
    helper.assert_close(pn.loss.focal(x, t):item(), 0.0875630751, 1e-6)
    helper.assert_close(pn.loss.focal(x, t, { alpha = .25, norm = "sum" }):item(), 0.1435754299, 1e-6)
    helper.assert_close(pn.loss.focal(x, t, { gamma = 0 }):item(), pn.loss.bce(x, t):item(), 1e-6)
    helper.assert_close(pn.sum(pn.loss.focal(x, t, { norm = "none" })):item() / 6, pn.loss.focal(x, t):item(), 1e-6)
    helper.assert_close(pn.loss.focal(x, t, { void = void }):item(),
      pn.loss.focal(pn.tensor { -2, -.5, 1, 2.5, -1 }, pn.tensor { 0, 1, 1, 1, 0 }):item(), 1e-6)
    assert.equal(0, pn.loss.focal(x, t, { void = pn.ones { 2, 3 } }):item())
    pn.check_gradient(function(a) return pn.loss.focal(a, t, { alpha = .3 }) end, x)
    local sure = pn.tensor({ 300, -300 }):requires_grad(true)
    pn.loss.focal(sure, pn.tensor { 1, 0 }, { gamma = .5 }):backward()
    helper.assert_close(sure:grad():flat(), { 0, 0 }, 1e-30) -- finite, where the slope of 0 ^ 0.5 is not
  end)

  it("know many classes: cross_entropy", function()
    local label = pn.tensor({ 3, 1 }):cast "i64"
    helper.assert_close(pn.loss.cross_entropy(x, label, { norm = "none" }):flat(), { 0.4379888773, 1.7258020639 }, 1e-6)
    helper.assert_close(pn.loss.cross_entropy(x, label):item(), 1.0818954706, 1e-6)
    helper.assert_close(pn.loss.cross_entropy(x, label, { norm = "sum" }):item(), 2.1637909412, 1e-6)
    pn.check_gradient(function(a) return pn.loss.cross_entropy(a, label) end, x)
    local clip = helper.random({ 2, 4, 2, 3, 3 }, "clip")
    local labels = pn.full { 2, 2, 3, 3, value = 2, dtype = "u8" }
    helper.assert_close(pn.loss.cross_entropy(clip, labels):item(),
      -pn.mean(pn.log_softmax(clip, { axis = 2 }):select(2, 2)):item(), 1e-6)
  end)

  it("say what they do not take", function()
    for _, case in ipairs {
      { function() pn.loss.dice(x, t, { smooth = -1 }) end, "loss.dice: smooth is -1, expects a number from 0" },
      { function() pn.loss.dice(x, t, { norm = "sum" }) end, "loss.dice: unknown option 'norm'" },
      { function() pn.loss.focal(x, t, { gamma = -1 }) end, "loss.focal: gamma is -1, expects a number from 0" },
      { function() pn.loss.focal(x, t, { alpha = 2 }) end, "loss.focal: alpha is 2, expects a probability from 0 to 1" },
      { function() pn.loss.focal(x, t, { norm = "batch" }) end, "loss.focal: unknown norm 'batch' (known: mean, none, sum)" },
      { function() pn.loss.cross_entropy(x, t) end,
        "loss.cross_entropy: target 2,3 has 2 axes, expects those of logits 2,3 without the classes, 1" },
      { function() pn.loss.cross_entropy(x, pn.tensor({ 4, 1 }):cast "i64") end, "gather: index has 4, expects 1 to 3" },
    } do
      local message = helper.failure(case[1], case[2])
      assert.truthy(message:find "^spec/loss_spec.lua:%d+: ", message)
    end
  end)
end)
