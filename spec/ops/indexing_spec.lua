--- indexing_spec: gather and argsort by hand values, their gradients and what they refuse; sort, topk and quantile, made of them.
local pn = require "penumbra"
local helper = require "spec.helper"

local NAN, INF = 0 / 0, math.huge

local function i64(values) return pn.tensor(values):cast "i64" end
local function flat(t) return t:cast(pn.real):flat() end

describe("gather", function()
  local x = pn.tensor { { 1, 2, 3 }, { 4, 5, 6 } }

  it("takes elements by the places of each lane, of any integer type", function()
    for _, dtype in ipairs { "u8", "i32", "i64" } do
      helper.assert_close(pn.gather(x, pn.tensor({ { 3, 1 }, { 2, 2 } }):cast(dtype), { axis = 2 }), { 3, 1, 5, 5 }, 0)
    end
    assert.same({ 2, 4 }, pn.gather(x, i64 { { 1, 1, 1, 3 }, { 2, 3, 3, 1 } }, { axis = 2 }):shape())
    helper.assert_close(pn.gather(x, i64 { { 2, 1, 2 } }, { axis = 1 }), { 4, 2, 6 }, 0)
  end)

  it("takes the same places everywhere where they have one axis, or size 1", function()
    helper.assert_close(pn.gather(x, i64 { 3, 3, 1 }, { axis = 2 }), { 3, 3, 1, 6, 6, 4 }, 0)
    helper.assert_close(pn.gather(x, i64 { { 2 } }, { axis = -1 }), { 2, 5 }, 0)
    helper.assert_close(pn.gather(x:permute(2, 1), i64 { 2, 1 }, { axis = 2 }), { 4, 1, 5, 2, 6, 3 }, 0) -- of a view
    assert.same({ 2, 0 }, pn.gather(x, pn.empty { 0, dtype = "i64" }, { axis = 2 }):shape())
  end)

  it("adds gradients up where an element was taken more than once", function()
    local leaf = pn.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }):requires_grad(true)
    local y = pn.gather(leaf, i64 { { 3, 1, 3 }, { 2, 2, 2 } }, { axis = 2 })
    y:backward(pn.tensor { { 1, 10, 100 }, { 1, 10, 100 } })
    helper.assert_close(leaf:grad(), { 10, 0, 101, 0, 111, 0 }, 0)
  end)

  it("says what is wrong", function()
    local cases = {
      { function() pn.gather(x, i64 { 1, 4 }, { axis = 2 }) end, "gather: index has 4, expects 1 to 3" },
      { function() pn.gather(x, i64 { 1, 0 }, { axis = 2 }) end, "gather: index has 0, expects 1 to 3" },
      { function() pn.gather(x, i64 { { 1 }, { -7 } }, { axis = 1 }) end, "gather: index has -7, expects 1 to 2" },
      { function() pn.gather(x, pn.tensor { 1 }, { axis = 2 }) end, "gather: index is f", "expects u8, i32 or i64" },
      { function() pn.gather(x, i64 { 1 }, { axis = 3 }) end, "gather: there is no axis 3" },
      { function() pn.gather(x, i64 { { { 1 } } }, { axis = 1 }) end, "gather: index has other axes than x, and more than one" },
      { function() pn.gather(x, i64 { { 1, 1 } }, { axis = 1 }) end, "gather: index is 2 along axis 2, expects 3 or 1" },
      { function() pn.gather(i64 { 1 }, i64 { 1 }, { axis = 1 }) end, "gather: x is i64" },
    }
    for _, case in ipairs(cases) do helper.failure(unpack(case)) end
  end)
end)

describe("argsort", function()
  it("gives places in order, equal ones in theirs, NaN as the largest", function()
    local x = pn.tensor { 2, NAN, -INF, 2, INF, NAN, 1 }
    assert.same({ 3, 7, 1, 4, 5, 2, 6 }, flat(pn.argsort(x, { axis = 1 })))
    assert.same({ 2, 6, 5, 1, 4, 7, 3 }, flat(pn.argsort(x, { axis = 1, descending = true })))
    assert.same({ 2, 6, 5 }, flat(pn.argsort(x, { axis = 1, descending = true, count = 3 })))
    assert.equal("i64", pn.argsort(x, { axis = 1 }):dtype())
    assert.same({ 1, 2, 2, 1 }, flat(pn.argsort(pn.tensor { { 1, 9 }, { 5, 2 } }, { axis = 1 })))
  end)

  it("says what is wrong", function()
    local x = pn.zeros { 2, 3 }
    helper.failure(function() pn.argsort(x, { axis = 2, count = 4 }) end, "argsort: count is 4, axis 2 has 3")
    helper.failure(function() pn.argsort(x, { axis = 3 }) end, "argsort: there is no axis 3")
    helper.failure(function() pn.argsort(i64 { 1 }, { axis = 1 }) end, "argsort: x is i64")
  end)
end)

describe("what is made of them", function()
  local x = pn.tensor { { 3, 1, 2, 5 }, { -1, 7, 7, 0 } }

  it("sorts", function()
    local values, places = pn.sort(x)
    helper.assert_close(values, { 1, 2, 3, 5, -1, 0, 7, 7 }, 0)
    assert.same({ 2, 3, 1, 4, 1, 4, 2, 3 }, flat(places))
    helper.assert_close((x:sort { axis = 1, descending = true }), { 3, 7, 7, 5, -1, 1, 2, 0 }, 0)
    helper.assert_close((x:sort { axis = -2 }), { -1, 1, 2, 0, 3, 7, 7, 5 }, 0)
  end)

  it("takes the largest, or the smallest, and teaches them alone", function()
    local values, places = x:topk(2)
    helper.assert_close(values, { 5, 3, 7, 7 }, 0)
    assert.same({ 4, 1, 2, 3 }, flat(places))
    helper.assert_close((x:topk(1, { axis = 1, smallest = true })), { -1, 1, 2, 0 }, 0)
    local leaf = x:clone():requires_grad(true)
    pn.sum((leaf:topk(2))):backward()
    helper.assert_close(leaf:grad(), { 1, 0, 0, 1, 0, 1, 1, 0 }, 0)
  end)

  it("finds quantiles, between two values by interpolation", function()
    helper.assert_close(x:quantile(0.5), { 2.5, 3.5 }, 1e-6)
    helper.assert_close(x:quantile(1), { 5, 7 }, 0)
    helper.assert_close(pn.quantile(x, 0.25, { axis = 1 }), { 0, 2.5, 3.25, 1.25 }, 1e-6)
    assert.same({ 2, 1 }, x:quantile(0.1):shape())
  end)

  it("says what is wrong", function()
    local cases = {
      { function() pn.sort(3) end, "sort: x is a number, expects a tensor" },
      { function() pn.sort(pn.tensor { 1 }:sum()) end, "sort: x is one number, it has no axis" },
      { function() pn.sort(x, { axis = 3 }) end, "sort: axis is 3, expects a whole number from 1 to 2" },
      { function() pn.sort(x, { ascending = true }) end, "sort: unknown option 'ascending'" },
      { function() x:topk(5) end, "topk: k is 5, expects a whole number from 1 to 4" },
      { function() x:topk() end, "topk: k is nil, expects a whole number from 1 to 4" },
      { function() x:quantile(50) end, "quantile: q is 50, expects a probability from 0 to 1" },
      { function() pn.quantile(pn.zeros { 2, 0 }, 0.5) end, "quantile: x has nothing along axis 2" },
    }
    for _, case in ipairs(cases) do helper.failure(unpack(case)) end
  end)
end)
