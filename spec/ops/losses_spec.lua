-- bce_with_logits, balanced_bce, softmax, log_softmax: golden values (METHOD 5, PyTorch), void, one class alone.
local pn = require "penumbra"
local helper = require "spec.helper"

local softmax_y = {
  0.00549998569, 0.703183834, 0.753512412, 0.224891566, 0.240987602, 0.0719246006, 0.703183834, 0.703183834,
  0.224891566, 0.224891566, 0.0719246006, 0.0719246006,
}
local softmax_d1 = {
  -0.00570793794, -0.217805739, -0.149051987, 0.119250497, 0.154759925, 0.0985552418, -0.217805739,
  -0.217805739, 0.119250497, 0.119250497, 0.0985552418, 0.0985552418,
}
local log_softmax_y = {
  -5.20300979, -0.352136923, -0.283009789, -1.49213692, -1.42300979, -2.63213692, -0.352136923, -0.352136923,
  -1.49213692, -1.49213692, -2.63213692, -2.63213692,
}
local log_softmax_d1 = {
  -2.96436009, 1.09061961, 2.72276043, -0.566066026, 0.241599664, -0.524553585, -1.23943854, -1.70545017,
  0.117117109, 0.253753736, 1.12232143, 1.45169643,
}
local bce_d1 = {
  -0.0237129366, -0.0290937911, -0.126069217, 0.386452266, -0.227840057, 0.241873533,
}

local LOGITS = { 2, -1, .5, -3, 0, 4 }

local function balanced(logits, target, args, void)
  local x = pn.tensor(logits)
  x:requires_grad(true)
  local loss = pn.balanced_bce(x, target, void, args or {})
  loss:backward()
  return loss:item(), x:grad()
end

describe("balanced_bce", function()
  local target = pn.tensor { 1, 0, 1, 0, 0, 1 }

  it("gives the golden values of METHOD 5", function()
    local loss, dx = balanced(LOGITS, target, { norm = "sum" })
    helper.assert_close(loss, 0.8370755713963997, 1e-7)
    helper.assert_close(dx, { -0.059601461, 0.134470711, -0.188770334, 0.023712937, 0.25, -0.008993105 }, 1e-6)
    helper.assert_close(balanced(LOGITS, pn.tensor { 1, 0, 0, 0, 0, 0 }, { norm = "sum" }), 1.1136438644941147, 1e-7)
  end)

  it("divides by the elements that count, or by the batch", function()
    helper.assert_close(balanced(LOGITS, target), 0.8370755713963997 / 6, 1e-7)
    local x = pn.reshape(pn.tensor(LOGITS), { shape = { 2, 1, 1, 1, 3 } })
    local loss = pn.balanced_bce(x, pn.reshape(target, { shape = { 2, 1, 1, 1, 3 } }), { norm = "batch" })
    helper.assert_close(loss, 0.8370755713963997 / 2, 1e-7)
  end)

  it("takes u8 targets, and leaves void out of everything", function()
    local wide = { 2, 9, -1, .5, -9, -3, 0, 4 }
    for _, dtype in ipairs { "u8", pn.real } do
      local t = pn.tensor({ 1, 1, 0, 1, 0, 0, 0, 1 }, { dtype = dtype })
      local void = pn.tensor({ 0, 1, 0, 0, 255, 0, 0, 0 }, { dtype = dtype })
      local loss, dx = balanced(wide, t, nil, void)
      helper.assert_close(loss, 0.8370755713963997 / 6, 1e-7)
      helper.assert_close(dx * 6, { -0.059601461, 0, 0.134470711, -0.188770334, 0, 0.023712937, 0.25, -0.008993105 }, 1e-6)
    end
  end)

  it("with one class alone is unweighted, or nothing", function()
    local zeros = pn.zeros { 6 }
    local plain = pn.bce_with_logits(pn.tensor(LOGITS), zeros):item()
    helper.assert_close(balanced(LOGITS, zeros), plain, 1e-6)
    local loss, dx = balanced(LOGITS, zeros, { empty = "zero" })
    assert.equal(0, loss)
    helper.assert_close(dx, { 0, 0, 0, 0, 0, 0 })
    helper.assert_close(balanced(LOGITS, pn.ones { 6 }), pn.bce_with_logits(pn.tensor(LOGITS), pn.ones { 6 }):item(), 1e-6)
    loss, dx = balanced(LOGITS, zeros, nil, pn.ones { 6 })
    assert.equal(0, loss)
    helper.assert_close(dx, { 0, 0, 0, 0, 0, 0 })
  end)

  it("stays finite for any logit", function()
    local loss, dx = balanced({ 1e4, -1e4, 1e4, -1e4 }, pn.tensor { 1, 1, 0, 0 }, { norm = "sum" })
    helper.assert_close(loss, 1e4, 1e-6)
    helper.assert_close(dx, { 0, -0.5, 0.5, 0 }, 1e-6)
  end)

  it("is the same for a large input as for its parts", function()
    local n = 3 * 8192 + 17
    local x, y = helper.random({ n }, "x", -6, 6), pn.random.stream(3, "y"):fill(pn.empty { n }, "bernoulli", 0.2)
    local values, marks, loss, ones = x:flat(), y:flat(), { [0] = 0, [1] = 0 }, 0
    for i = 1, n do
      local v, t = values[i], marks[i]
      loss[t] = loss[t] + math.max(v, 0) - v * t + math.log(1 + math.exp(-math.abs(v)))
      ones = ones + t
    end
    helper.assert_close(pn.balanced_bce(x, y), ((n - ones) * loss[1] + ones * loss[0]) / n / n, 1e-6)
  end)

  it("with norm none has the terms of its sum, each with its gradient; void ones are 0, whatever stands there", function()
    local wide = { 2, 0 / 0, -1, .5, 1 / 0, -3, 0, 4 }
    local terms = { 1.5 * 0.1269280110 / 3, 0, 1.5 * 0.3132616875 / 3, 1.5 * 0.4740769842 / 3, 0, 1.5 * 0.0485873516 / 3,
      1.5 * 0.6931471806 / 3, 1.5 * 0.0181499279 / 3 }
    local slopes = { -0.059601461, 0, 0.134470711, -0.188770334, 0, 0.023712937, 0.25, -0.008993105 }
    local dy, expected = { 1, 1 / 0, 2, -3, 0 / 0, 5, 7, 11 }, {}
    for i = 1, 8 do
      expected[i] = slopes[i] == 0 and 0 or slopes[i] * dy[i]
    end
    for _, dtype in ipairs { "u8", pn.real } do
      local x = pn.tensor(wide)
      x:requires_grad(true)
      local t = pn.tensor({ 1, 1, 0, 1, 0, 0, 0, 1 }, { dtype = dtype })
      local void = pn.tensor({ 0, 1, 0, 0, 255, 0, 0, 0 }, { dtype = dtype })
      local loss = pn.balanced_bce(x, t, void, { norm = "none" })
      helper.assert_shape(loss, 8)
      helper.assert_close(loss, terms, 1e-6)
      helper.assert_close(pn.sum(loss), 0.8370755713963997, 1e-6)
      for twice = 1, 2 do
        pn.balanced_bce(x, t, void, { norm = "none" }):backward(pn.tensor(dy))
        helper.assert_close(x:grad() / twice, expected, 1e-6)
      end
    end
    local ones = pn.balanced_bce(pn.tensor(LOGITS), pn.ones { 6 }, { norm = "none" })
    helper.assert_close(ones, pn.bce_with_logits(pn.tensor(LOGITS), pn.ones { 6 }, { norm = "none" }), 1e-6)
    assert.same({ 0, 0, 0, 0, 0, 0 }, pn.balanced_bce(pn.tensor(LOGITS), pn.ones { 6 },
      { norm = "none", empty = "zero" }):totable())
    assert.same({ 0 }, pn.balanced_bce(pn.zeros { 0, 1 }, pn.zeros { 0, 1 }, { norm = "none" }):sum({ axes = 1 }):totable())
  end)

  it("refuses targets that are no mask", function()
    helper.failure(function() balanced(LOGITS, pn.tensor { 1, 0, 255, 0, 0, 1 }) end,
      "balanced_bce: 1 of the 6 targets are neither 0 nor 1", "(x 6; target 6)")
    helper.failure(function() balanced(LOGITS, pn.tensor { 1, 0 }) end, "balanced_bce: x and target differ in shape")
    helper.failure(function() balanced(LOGITS, pn.zeros { 6, dtype = "i64" }) end, "balanced_bce: target is i64")
  end)
end)

describe("bce_with_logits", function()
  it("gives PyTorch's numbers for targets between 0 and 1", function()
    local target = (helper.counted({ 2, 3 }, 31) + 1) / 2
    local x = helper.counted { 2, 3 }
    x:requires_grad(true)
    local loss = pn.bce_with_logits(x * 3, target)
    helper.assert_close(loss, 0.972249988, 1e-6)
    loss:backward(pn.tensor(-1)) -- the seed of the golden values
    helper.assert_close(x:grad(), bce_d1, 1e-6)
  end)

  it("with norm none has the loss of each element, of the shape, layout and grid of x", function()
    local x = helper.counted({ 1, 2, 2, 3, 4 }):contiguous "channels_last":set_grid({ 1, 2, 2 }, { 0, 1, 1 }) * 4
    local target = (helper.counted({ 1, 2, 2, 3, 4 }, 31) + 1) / 2
    local loss = pn.bce_with_logits(x, target, { norm = "none" })
    helper.assert_shape(loss, 1, 2, 2, 3, 4)
    assert.same({ 1, 2, 2 }, loss:grid().stride)
    helper.assert_close(loss, pn.softplus(x) - x * target, 1e-6)
    helper.assert_close(pn.mean(loss), pn.bce_with_logits(x, target), 1e-6)
    helper.failure(function() pn.bce_with_logits(pn.tensor { 0, 0 }, pn.tensor { 1, 1.5 }, { norm = "none" }) end,
      "bce_with_logits: 1 of the 2 targets are not in 0..1")
  end)

  it("sums, and refuses targets outside 0..1", function()
    helper.assert_close(pn.bce_with_logits(pn.tensor { 0, 0 }, pn.tensor { 1, 0 }, { norm = "sum" }), 2 * math.log(2), 1e-6)
    helper.failure(function() pn.bce_with_logits(pn.tensor { 0, 0 }, pn.tensor { 1, 1.5 }) end,
      "bce_with_logits: 1 of the 2 targets are not in 0..1")
  end)
end)

describe("softmax", function()
  it("gives PyTorch's numbers, forward and backward", function()
    local y, d = helper.with_gradients(function(x) return pn.softmax(x * 3, { axis = 2 }) end, helper.counted { 2, 3, 2 })
    helper.assert_close(y, softmax_y, 1e-6)
    helper.assert_close(d[1], softmax_d1, 1e-6)
    y, d = helper.with_gradients(function(x) return pn.log_softmax(x * 3, { axis = 2 }) end, helper.counted { 2, 3, 2 })
    helper.assert_close(y, log_softmax_y, 1e-6)
    helper.assert_close(d[1], log_softmax_d1, 1e-6)
  end)

  it("does not overflow, and names a missing axis", function()
    helper.assert_close(pn.softmax(pn.tensor { 1000, 1000, -1000 }, { axis = 1 }), { 0.5, 0.5, 0 })
    helper.failure(function() pn.softmax(pn.tensor { 1, 2 }, { axis = 2 }) end, "softmax: there is no axis 2")
  end)
end)

describe("the CPU variants of the losses and the sigmoid", function()
  local C = pn.C
  local best = require("ffi").string(C.pn_cpu_variant())
  after_each(function()
    assert(C.pn_set_cpu_variant(best) == 0)
  end)

  it("hold to the C library's exponentials", function()
    local values = { 0, 1e-8, -1e-8, 0.3, -0.3, 5, -5, 17, -17, 40, -40, 86, -86, 88, -88, 1000, -1000 }
    for _, variant in ipairs { "plain", "avx2", "avx512" } do
      if C.pn_set_cpu_variant(variant) == 0 then
        local y = pn.sigmoid(pn.tensor(values)):flat()
        for i, x in ipairs(values) do
          local logistic = 1 / (1 + math.exp(-x))
          assert.is_true(math.abs(y[i] - logistic) <= 1e-6 * logistic + 1e-37, ("%s: sigmoid(%g)"):format(variant, x))
          local expected = math.max(x, 0) + (x == 0 and math.log(2) or math.exp(-math.abs(x)) < 1e-7 and math.exp(-math.abs(x))
            or math.log(1 + math.exp(-math.abs(x))))
          local loss = pn.bce_with_logits(pn.tensor { x }, pn.tensor { 0 }):item()
          assert.is_true(math.abs(loss - expected) <= 1e-6 * expected + 1e-37, ("%s: loss(%g)"):format(variant, x))
        end
      end
    end
  end)

  it("agree for any length, with void and without, forward and backward", function()
    for _, n in ipairs { 1, 15, 16, 33, 300, 8209 } do
      local x, target = helper.random({ n }, "x", -8, 8), pn.random.stream(3, "y"):fill(pn.empty { n }, "bernoulli", 0.3)
      local void = pn.random.stream(4, "v"):fill(pn.empty { n }, "bernoulli", 0.2)
      local made = {}
      for _, variant in ipairs { "plain", "avx2", "avx512" } do
        if C.pn_set_cpu_variant(variant) == 0 then
          for i, v in ipairs { false, void } do
            x:set_grad(nil)
            x:requires_grad(true)
            local loss = pn.balanced_bce(x, target, v or nil, {})
            loss:backward()
            made[i] = made[i] or { loss, x:grad():clone() }
            helper.assert_close(loss, made[i][1], 1e-6, variant)
            helper.assert_close(x:grad(), made[i][2], 2e-6, variant)
          end
        end
      end
    end
  end)
end)
