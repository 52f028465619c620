-- Operations that work element by element: values, special values, broadcasting, dropout's coins, casts.
local pn = require "penumbra"
local helper = require "spec.helper"

local INF, NAN = math.huge, 0 / 0

describe("operations of one input", function()
  local x = { -2.5, -0.5, 0.25, 1, 3 }
  local values = {
    neg = { 2.5, 0.5, -0.25, -1, -3 },
    abs = { 2.5, 0.5, 0.25, 1, 3 },
    exp = { 0.0820849986, 0.60653066, 1.28402542, 2.71828183, 20.0855369 },
    square = { 6.25, 0.25, 0.0625, 1, 9 },
    relu = { 0, 0, 0.25, 1, 3 },
    sigmoid = { 0.07585818, 0.377540669, 0.562176501, 0.731058579, 0.952574127 },
    tanh = { -0.986614298, -0.462117157, 0.244918662, 0.761594156, 0.995054754 },
    softplus = { 0.0788897343, 0.474076984, 0.82593942, 1.31326169, 3.04858735 },
  }
  for name, expected in pairs(values) do
    it(name .. " gives PyTorch's numbers", function()
      helper.assert_close(pn[name](pn.tensor(x)), expected, 1e-6)
    end)
  end

  it("log, sqrt and pow give PyTorch's numbers", function()
    local positive = pn.tensor { .125, .5, 1, 2, 9 }
    helper.assert_close(pn.log(positive), { -2.07944154, -0.693147181, 0, 0.693147181, 2.19722458 }, 1e-6)
    helper.assert_close(pn.sqrt(positive), { 0.353553391, 0.707106781, 1, 1.41421356, 3 }, 1e-6)
    helper.assert_close(pn.pow(positive, { exponent = -1.5 }), { 22.627417, 2.82842712, 1, 0.353553391, 0.037037037 }, 1e-6)
  end)

  it("x to the power 0 is 1 whatever x is, and its gradient 0", function()
    local any = pn.tensor { 0, -2, INF, NAN }:requires_grad(true)
    local y = pn.pow(any, { exponent = 0 })
    assert.same({ 1, 1, 1, 1 }, y:flat())
    pn.sum(y):backward()
    assert.same({ 0, 0, 0, 0 }, any:grad():flat())
  end)

  it("clamp and scale do what their numbers say", function()
    helper.assert_close(pn.clamp(pn.tensor(x), { min = -1, max = 0.5 }), { -1, -0.5, 0.25, 0.5, 0.5 })
    helper.assert_close(pn.scale(pn.tensor(x), { a = 2, b = -1 }), { -6, -2, -0.5, 1, 5 })
    helper.failure(function() pn.clamp(pn.tensor(x), { min = 1, max = 0 }) end, "clamp: min 1 must not exceed max 0", "(x 5)")
  end)

  it("keep NaN and reach their limits", function()
    for _, name in ipairs { "relu", "clamp", "sigmoid", "tanh", "softplus", "abs", "sqrt" } do
      local y = pn[name](pn.tensor { NAN }):item()
      assert.is_true(y ~= y, name)
    end
    helper.assert_close(pn.sigmoid(pn.tensor { -INF, -200, 200, INF }), { 0, 0, 1, 1 })
    helper.assert_close(pn.softplus(pn.tensor { -300, 300 }), { 0, 300 })
    assert.equal(-INF, pn.log(pn.tensor { 0 }):item())
  end)
end)

describe("operations of two inputs", function()
  it("broadcast as NumPy does", function()
    local a, b = pn.tensor { { 1 }, { 2 } }, pn.tensor { 10, 20, 30 }
    assert.same({ { 11, 21, 31 }, { 12, 22, 32 } }, pn.add(a, b):totable())
    assert.same({ { -9, -19, -29 }, { -8, -18, -28 } }, pn.sub(a, b):totable())
    assert.same({ { 10, 20, 30 }, { 20, 40, 60 } }, pn.mul(a, b):totable())
    assert.same({ { 10, 20, 30 }, { 5, 10, 15 } }, pn.div(b, a):totable())
    assert.same({ { 10, 20, 30 }, { 10, 20, 30 } }, pn.maximum(a, b):totable())
    assert.same({ { 1, 1, 1 }, { 2, 2, 2 } }, pn.minimum(a, b):totable())
    helper.failure(function() pn.add(pn.zeros { 2, 3 }, pn.zeros { 2, 4 }) end,
      "add: sizes 3 and 4 of axis 2 do not broadcast   (a 2,3; b 2,4)")
  end)

  it("say how to mend a type that they do not take", function()
    helper.failure(function() return pn.ones { 2 } + pn.ones { 2, dtype = "u8" } end,
      ('add: b is u8, expected %s (:cast "%s" converts it)   (a 2; b 2)'):format(pn.real, pn.real))
  end)

  it("gather the gradients of a broadcast input", function()
    local y, d = helper.with_gradients(pn.mul, helper.counted { 2, 3, 1, 2, 2 }, helper.counted({ 1, 3, 1, 1, 1 }, 31))
    local x, dy, sums = helper.counted { 2, 3, 1, 2, 2 }:flat(), helper.counted(y:shape(), 613):flat(), { 0, 0, 0 }
    for i = 1, #x do
      local channel = math.floor((i - 1) / 4) % 3 + 1
      sums[channel] = sums[channel] + x[i] * dy[i]
    end
    helper.assert_close(d[2], sums, 1e-6)
  end)

  it("give an input used twice both gradients", function()
    local x = pn.tensor { 3, -2 }
    for name, expected in pairs { add = { 2, 2 }, sub = { 0, 0 }, mul = { 6, -4 }, div = { 0, 0 } } do
      x:set_grad(nil)
      x:requires_grad(true)
      pn.sum(pn[name](x, x)):backward()
      helper.assert_close(x:grad(), expected, 1e-6, name)
    end
  end)

  it("divide without squaring: the gradient of b is in range where it itself is", function()
    local small = pn.real == "f64" and 1e-200 or 1e-30 -- its square is 0
    local a, b = pn.tensor { 0, 3 / small, small }, pn.tensor { small, 1 / small, small }:requires_grad(true)
    pn.sum(pn.div(a, b)):backward()
    local d = b:grad():flat()
    assert.equal(0, d[1])
    helper.assert_close(d[2] / small, -3, 1e-6)
    helper.assert_close(d[3] * small, -1, 1e-6)
  end)

  it("choose the first of equals, and NaN before all", function()
    local a, b = pn.tensor { 1, NAN, 1 }, pn.tensor { 1, 1, NAN }
    for _, name in ipairs { "maximum", "minimum" } do
      local y, d = helper.with_gradients(pn[name], a, b)
      y = y:flat()
      assert.is_true(y[1] == 1 and y[2] ~= y[2] and y[3] ~= y[3], name)
      assert.equal(0, d[2]:flat()[1])
    end
  end)

  it("carry the grid of the input that has the result's shape", function()
    local a, b = pn.zeros { 1, 2, 1, 3, 4 }, pn.zeros { 1, 2, 1, 3, 4 }
    b:set_grid({ 1, 2, 2 }, { 0, 1, 1 })
    assert.same({ 1, 2, 2 }, pn.add(a, b):grid().stride)
    assert.same({ 1, 2, 2 }, pn.add(pn.zeros { 1, 2, 1, 1, 1 }, b):grid().stride)
  end)
end)

describe("comparisons", function()
  local x, y = { 1, 2, 3, NAN, INF, -INF, 0 }, { 2, 2, 2, 2, INF, 0, -0 }
  local expected = {
    gt = { 0, 0, 1, 0, 0, 0, 0 }, ge = { 0, 1, 1, 0, 1, 0, 1 }, lt = { 1, 0, 0, 0, 0, 1, 0 }, le = { 1, 1, 0, 0, 1, 1, 1 },
    eq = { 0, 1, 0, 0, 1, 0, 1 }, ne = { 1, 0, 1, 1, 0, 1, 0 },
  }
  for name, truth in pairs(expected) do
    it(name .. " is 1 where it holds, else 0; with NaN as in C", function()
      local z = pn[name](pn.tensor(x), pn.tensor(y))
      assert.same(truth, z:totable())
      assert.equal(pn.real, z:dtype())
    end)
  end

  it("broadcast, and take a number on either side", function()
    local a, b = pn.tensor { { 1 }, { 2 } }, pn.tensor { 1, 2, 3 }
    assert.same({ { 1, 0, 0 }, { 0, 1, 0 } }, a:eq(b):totable())
    assert.same({ { 0, 1, 1 }, { 0, 0, 1 } }, pn.lt(a, b):totable())
    assert.same({ 0, 0, 1 }, b:gt(2.5):totable())
    assert.same({ 1, 1, 0 }, pn.gt(2.5, b):totable())
    helper.failure(function() return pn.zeros({ 2, 3 }):ge(pn.zeros { 2, 4 }) end,
      "ge: sizes 3 and 4 of axis 2 do not broadcast   (a 2,3; b 2,4)")
  end)

  it("of integers, of any two types, give real numbers that sums and products take", function()
    local mask = pn.tensor({ { 0, 2, 255 }, { 2, 1, 2 } }, { dtype = "u8" })
    local is_two = mask:eq(2)
    assert.same({ { 0, 1, 0 }, { 1, 0, 1 } }, is_two:totable())
    assert.equal(pn.real, is_two:dtype())
    assert.equal(3, is_two:sum():item())
    assert.same({ { 0, 0, 0 }, { 0, 1, 0 } }, (mask:gt(0) * mask:lt(2)):totable())
    assert.same({ { 0, 0, 1 }, { 0, 0, 0 } }, mask:gt(2.5):totable())
    assert.same({ { 1, 0, 0 }, { 0, 1, 0 } }, mask:lt(pn.tensor({ { 1 }, { 2 } }, { dtype = "i64" })):totable())
    assert.same({ 0, 0 }, pn.tensor({ 0, 255 }, { dtype = "u8" }):gt(256):totable())
    assert.same({ 1, 1 }, pn.tensor({ 0, 255 }, { dtype = "u8" }):gt(-1):totable())
  end)

  it("see integers apart that no float tells apart", function()
    local large = pn.tensor({ 16777216, 16777217, 2 ^ 52 + 1 }, { dtype = "i64" })
    assert.same({ 0, 1, 0 }, large:eq(16777217):totable())
    assert.same({ 0, 0, 1 }, pn.gt(large, 2 ^ 52):totable())
    assert.same({ 1, 1, 1 }, large:le(large):totable())
    assert.same({ 1, 0, 0 }, pn.tensor({ 16777216, 16777217, 2 ^ 31 - 1 }, { dtype = "i32" }):lt(16777217):totable())
  end)

  it("have no gradient, and leave that of others alone", function()
    local v = pn.tensor { -1, 2, 3 }
    v:requires_grad(true)
    local positive = v:gt(0)
    assert.is_false(positive:requires_grad())
    pn.sum(positive * v):backward()
    assert.same({ 0, 1, 1 }, v:grad():totable())
  end)

  it("refuse other types, by name", function()
    helper.failure(function() return pn.zeros({ 2, dtype = "f16" }):eq(1) end,
      ('eq: a is f16, expected %s, u8, i32 or i64 (:cast "%s" converts it)'):format(pn.real, pn.real))
  end)

  it("are told from == , which asks whether two are one", function()
    local a, b = pn.tensor { 1, 2 }, pn.tensor { 1, 2 }
    assert.is_false(a == b)
    assert.is_true(a == a)
    assert.same({ 1, 1 }, a:eq(b):totable())
    assert.is_truthy(pn.ops.help "eq":find("== in Lua", 1, true))
  end)
end)

describe("where", function()
  it("chooses, with all three broadcast", function()
    local c = pn.tensor { { 1 }, { 0 } }
    local a, b = pn.tensor { 1, 2, 3 }, pn.tensor { { 10 }, { 20 } }
    assert.same({ { 1, 2, 3 }, { 20, 20, 20 } }, pn.where(c, a, b):totable())
    assert.same({ { 10, 10, 10 }, { 1, 2, 3 } }, pn.where(c, b, a):totable())
    assert.same({ -1, 7 }, pn.where(pn.tensor { 0, 2 }, 7, -1):totable())
    assert.same({ 5, 2 }, pn.where(pn.tensor { NAN, 0 }, 5, 2):totable())
    helper.failure(function() return pn.where(c, pn.zeros { 3 }, pn.zeros { 2 }) end,
      "where: sizes 3 and 2 of axis 2 do not broadcast   (c 2,1; a 3; b 2)")
  end)

  it("takes masks and what comparisons give as its condition", function()
    local mask = pn.tensor({ 0, 1, 255, 1 }, { dtype = "u8" })
    assert.same({ 0, 1, 1, 1 }, pn.where(mask, 1, 0):totable())
    assert.same({ 9, 9, 3, 9 }, pn.where(mask:eq(255), pn.tensor { 1, 2, 3, 4 }, 9):totable())
    assert.same({ 2, 1 }, pn.where(pn.tensor({ 0, 2 ^ 40 }, { dtype = "i64" }), 1, 2):totable())
    helper.failure(function() return pn.where(mask, mask, 0) end, "where: a is u8, expected " .. pn.real)
    helper.failure(function() return pn.where(pn.zeros { 1, dtype = "f16" }, 1, 0) end, "where: c is f16, expected")
  end)

  it("lets nothing of what it did not choose through, forward or backward", function()
    local c = pn.tensor { 1, 0, 1, 0 }
    local y, d = helper.with_gradients(function(a, b) return pn.where(c, a, b) end,
      pn.tensor { 1, NAN, 2, INF }, pn.tensor { NAN, 3, -INF, 4 })
    assert.same({ 1, 3, 2, 4 }, y:totable())
    local dy = helper.counted(y:shape(), 613):flat()
    helper.assert_close(d[1], { dy[1], 0, dy[3], 0 })
    helper.assert_close(d[2], { 0, dy[2], 0, dy[4] })
    local a = pn.tensor { 1, 2, 3, 4 }
    a:requires_grad(true)
    pn.where(c, a, 0):backward(pn.tensor { 5, NAN, 6, INF })
    assert.same({ 5, 0, 6, 0 }, a:grad():totable())
  end)

  it("gives its condition no gradient", function()
    local c, a = pn.tensor { 1, 0 }, pn.tensor { 3, 4 }
    c:requires_grad(true)
    assert.is_false(pn.where(c, a, 0):requires_grad())
    a:requires_grad(true)
    pn.sum(pn.where(c, a, 0)):backward()
    assert.is_nil(c:grad())
  end)

  it("carries the grid of the input that has the result's shape", function()
    local b = pn.zeros({ 1, 2, 1, 3, 4 }):set_grid({ 1, 2, 2 }, { 0, 1, 1 })
    assert.same({ 1, 2, 2 }, pn.where(pn.zeros { 1, 2, 1, 3, 4 }, 1, b):grid().stride)
  end)
end)

describe("dropout", function()
  it("tosses Philox's coins: the same for any memory order, replayed by seed, stream and offset", function()
    local x = pn.ones { 2, 4, 3, 5, 7 }
    local named = { p = 0.25, seed = 9, stream = 3, offset = 12 }
    local y = pn.dropout(x, named)
    local kept = y:flat()
    local words = require("ffi").new("uint32_t [4]")
    for i = 0, #kept - 1 do
      pn.C.pn_philox(9, 3, 12 + math.floor(i / 4), words)
      helper.assert_close(kept[i + 1], words[i % 4] / 2 ^ 32 >= 0.25 and 4 / 3 or 0, 1e-6)
    end
    helper.assert_same_bits(pn.dropout(x:contiguous("channels_last"), named), y)
    local share = pn.mean(pn.dropout(pn.ones { 20000 }, { seed = 1 })):item()
    assert.is_true(math.abs(share - 1) < 0.03)
  end)

  it("has as gradient what it did to ones", function()
    local x = helper.counted { 50 }
    x:requires_grad(true)
    pn.sum(pn.dropout(x, { p = 0.4, seed = 2 })):backward()
    helper.assert_close(x:grad(), pn.dropout(pn.ones { 50 }, { p = 0.4, seed = 2 }))
  end)

  it("refuses to drop everything", function()
    helper.failure(function() pn.dropout(pn.ones { 2 }, { p = 1, seed = 1 }) end, "dropout: p must be smaller than 1")
  end)
end)

describe("cast", function()
  it("rounds to nearest even and gives its gradient back", function()
    local x = pn.tensor { 1, 1.00048828125, 2049, 70000 }
    x:requires_grad(true)
    local y = pn.cast(x, { dtype = "f16" })
    assert.equal("f16", y:dtype())
    assert.same({ 1, 1, 2048, INF }, y:flat())
    pn.sum(pn.cast(y, { dtype = pn.real })):backward()
    helper.assert_close(x:grad(), { 1, 1, 1, 1 })
  end)
end)
