--- composed_spec: min, argmin, var, std, norm, stack, split, select, squeeze, unsqueeze by hand values, with their gradients.
local pn = require "penumbra"
local helper = require "spec.helper"

local function sums(x, f) -- the gradient of the sum of f(x)
  x:requires_grad(true):set_grad(nil)
  pn.sum(f(x)):backward()
  return x:grad()
end

describe("reductions that are made of others", function()
  local x
  before_each(function() x = pn.tensor { { 3, -1, 4 }, { 1, 5, -9 } } end)

  it("find the smallest, and where it is", function()
    assert.equal(-9, pn.min(x):item())
    assert.same({ -1, -9 }, x:min({ axes = 2 }):flat())
    assert.same({ 1, -1, -9 }, x:min({ 1 }):flat())
    assert.same({ 2, 1 }, x:min({ 2, keep = true }):shape())
    assert.equal(6, x:argmin():item())
    assert.same({ 2, 3 }, x:argmin({ axes = 2 }):flat())
    assert.is_true(pn.min(pn.tensor { 1, 0 / 0 }):item() ~= 1)
    helper.assert_close(sums(x, function(y) return y:min { 2 } end), { 0, 1, 0, 0, 0, 1 }, 0)
  end)

  it("measure the spread", function()
    helper.assert_close(x:var { 2 }, { 14 / 3, 104 / 3 }, 1e-5)
    helper.assert_close(x:var { 2, correction = 1 }, { 7, 52 }, 1e-5)
    helper.assert_close(x:std { axes = 2, correction = 1 }, { math.sqrt(7), math.sqrt(52) }, 1e-6)
    helper.assert_close(pn.var(x), pn.tensor(133 / 6 - 0.25), 1e-5)
    assert.same({ 1, 3 }, x:var({ 1, keep = true }):shape())
    helper.assert_close(sums(x, function(y) return y:var { 2 } end), { 2 / 3, -2, 4 / 3, 4 / 3, 4, -16 / 3 }, 1e-5)
  end)

  it("measure the length", function()
    helper.assert_close(x:norm { 2 }, { math.sqrt(26), math.sqrt(107) }, 1e-6)
    helper.assert_close(pn.norm(x), pn.tensor(math.sqrt(133)), 1e-6)
    helper.assert_close(sums(x, pn.norm), x * (1 / math.sqrt(133)), 1e-6)
  end)

  it("say what they are not given", function()
    for _, case in ipairs {
      { function() pn.min(3) end, "min: x is a number, expects a tensor" },
      { function() x:min { dim = 1 } end, "min: unknown option 'dim', did you mean 'axes'? (known: axes, keep)" },
      { function() x:norm { correction = 1 } end, "norm: unknown option 'correction' (known: axes, keep)" },
      { function() x:var { keep = 1 } end, "var: keep expects a boolean, got a number" },
      { function() x:var { 2, correction = 3 } end, "var: correction is 3, but each variance is of 3 values" },
      { function() x:std { 2, correction = 3 } end, "var: correction is 3, but each variance is of 3 values" },
      { function() x:argmin { 3 } end, "axis" },
    } do
      local message = helper.failure(case[1], case[2])
      assert.truthy(message:find "^spec/composed_spec.lua:%d+: ", message)
    end
  end)
end)

describe("shapes that are made of others", function()
  local x
  before_each(function() x = pn.tensor { { 1, 2, 3 }, { 4, 5, 6 } } end)

  it("get an axis of size 1, and lose it", function()
    assert.same({ 1, 2, 3 }, x:unsqueeze(1):shape())
    assert.same({ 2, 3, 1 }, x:unsqueeze(-1):shape())
    assert.same({ 1 }, pn.tensor(7):unsqueeze(1):shape())
    assert.same({ 2, 3 }, x:unsqueeze(2):unsqueeze(1):squeeze():shape())
    assert.same({ 1, 2, 3 }, x:unsqueeze(2):unsqueeze(1):squeeze(3):shape())
    assert.same({}, pn.tensor({ 7 }):squeeze():shape())
    local view = x:unsqueeze(2)
    x:set(10, 2, 2)
    assert.equal(10, view:get(2, 1, 2))
  end)

  it("are the parts of an axis", function()
    assert.same({ 4, 5, 6 }, x[2]:flat())
    assert.same({ 3, 6 }, x:select(2, 3):flat())
    assert.same({ 3, 6 }, x:select(-1, 3):flat())
    assert.equal(5, x[2][2]:item())
    x[1]:fill(0)
    x[2]:copy(pn.tensor { 7, 8, 9 })
    assert.same({ 0, 0, 0, 7, 8, 9 }, x:flat())
    local slope = sums(x, function(y) return y[2] * y:select(2, 1):expand { 3, 2 }:select(2, 2) end)
    helper.assert_close(slope, { 0, 0, 0, 31, 7, 7 }, 0)
  end)

  it("are cut apart and put together", function()
    local a, b = unpack(x:split(2, 2))
    assert.same({ { 1, 2, 4, 5 }, { 3, 6 } }, { a:flat(), b:flat() })
    local parts = x:split(-1, { 1, 0, 2 })
    assert.same({ { 2, 1 }, { 2, 0 }, { 2, 2 } }, { parts[1]:shape(), parts[2]:shape(), parts[3]:shape() })
    assert.same({}, pn.empty({ 0, 2 }):split(1, 3))
    assert.same(x:flat(), pn.concat(x:split(1, 1), { axis = 1 }):flat())
    local stacked = pn.stack({ x, x * 2 }, { axis = 3 })
    assert.same({ 2, 3, 2 }, stacked:shape())
    assert.same({ 1, 2, 2, 4, 3, 6, 4, 8, 5, 10, 6, 12 }, stacked:flat())
    assert.same({ 2, 2, 3 }, pn.stack({ x, x }):shape())
    assert.same(stacked:flat(), pn.stack({ x, x * 2 }, { axis = -1 }):flat())
    helper.assert_close(sums(x, function(y) return pn.stack { y, y * 2 } end), { 3, 3, 3, 3, 3, 3 }, 0)
  end)

  it("say what does not fit", function()
    for _, case in ipairs {
      { function() return x[3] end, "select: place along axis 1 is 3, expects a whole number from 1 to 2" },
      { function() return x[0] end, "select: place along axis 1 is 0, expects a whole number from 1 to 2" },
      { function() return pn.tensor(1)[1] end, "select: x is one number, it has no axis" },
      { function() x:select(3, 1) end, "select: axis is 3, expects a whole number from 1 to 2" },
      { function() x:unsqueeze(4) end, "unsqueeze: axis is 4, expects a whole number from 1 to 3" },
      { function() x:squeeze(2) end, "squeeze: axis 2 has 3 elements, expects 1   (x 2,3)" },
      { function() x:split(2, { 1, 1 }) end, "split: the sizes make 2, axis 2 has 3   (x 2,3)" },
      { function() x:split(2, { 1, 3 }) end, "split: the sizes make 4, axis 2 has 3   (x 2,3)" },
      { function() x:split(2, 0) end, "split: size is 0, expects a whole number from 1" },
      { function() x:split(2, { -1, 4 }) end, "split: size 1 is -1, expects a whole number from 0 to 3" },
      { function() pn.tensor(1):split(1, 1) end, "split: x is one number, it has no axis" },
      { function() pn.stack(x) end, "stack: expects a list of tensors, got a tensor" },
      { function() pn.stack {} end, "stack: expects a list of tensors, got an empty one" },
      { function() pn.stack { x, 2 } end, "stack: number 2 of the list is a number, expects a tensor" },
      { function() pn.stack { x, x[1] } end, "concat" },
      { function() pn.stack({ x }, { axis = 4 }) end, "stack: axis is 4, expects a whole number from 1 to 3" },
    } do
      local message = helper.failure(case[1], case[2])
      assert.truthy(message:find "^spec/composed_spec.lua:%d+: ", message)
    end
  end)
end)
