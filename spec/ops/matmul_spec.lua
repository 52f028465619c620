--- Products of batches: which matrices meet, by hand; what is folded into one product, what is looped over, and what each input
-- gets back, against products of two axes.

local pn = require "penumbra"
local helper = require "spec.helper"

local TOLERANCE = pn.real == "f64" and 1e-14 or 1e-6

-- The matrix of t at places of the leading axes, where t's size is 1 the only one.
local function matrix(t, places)
  local lead = t:dims() - 2
  for axis = 1, lead do
    local at = places[#places - lead + axis]
    t = t:slice(axis, t:size(axis) == 1 and 1 or at, 1)
  end
  return t:reshape(t:size(lead + 1), t:size(lead + 2))
end

-- Every place of the leading axes of a shape.
local function each_place(shape, fn)
  local function go(axis, places)
    if axis > #shape - 2 then return fn(places) end
    for i = 1, shape[axis] do
      places[axis] = i
      go(axis + 1, places)
    end
  end
  go(1, {})
end

-- pn.matmul and its gradients, against one product of two axes after another.
local function compare(a, b, options, what)
  a, b = a:requires_grad(true), b:requires_grad(true)
  a:set_grad(nil)
  b:set_grad(nil)
  local y = pn.matmul(a, b, options)
  local dy = helper.random(y:shape(), "dy")
  y:backward(dy)
  local da, db = a:grad(), b:grad()
  local plain_a, plain_b = a:detach():requires_grad(true), b:detach():requires_grad(true)
  each_place(y:shape(), function(places)
    local z = pn.matmul(matrix(plain_a, places), matrix(plain_b, places), options)
    helper.assert_close(matrix(y, places), z, TOLERANCE, what)
    z:backward(matrix(dy, places))
  end)
  helper.assert_close(da, plain_a:grad(), TOLERANCE * 4, what .. ", gradient of a")
  helper.assert_close(db, plain_b:grad(), TOLERANCE * 4, what .. ", gradient of b")
  return y
end

describe("matmul", function()
  it("multiplies the matrices of a batch", function()
    local a = pn.tensor { { { 1, 2 }, { 3, 4 } }, { { 5, 6 }, { 7, 8 } } }
    local b = pn.tensor { { { 1, 0 }, { 0, 2 } }, { { 0, 1 }, { 1, 0 } } }
    assert.same({ { { 1, 4 }, { 3, 8 } }, { { 6, 5 }, { 8, 7 } } }, pn.matmul(a, b):totable())
    assert.same({ { { 1, 6 }, { 2, 8 } }, { { 7, 5 }, { 8, 6 } } }, pn.matmul(a, b, { transpose_a = true }):totable())
    b:set(5, 1, 1, 2)
    assert.same({ { { 11, 4 }, { 23, 8 } }, { { 6, 5 }, { 8, 7 } } }, pn.matmul(a, b, { transpose_b = true }):totable())
  end)

  it("broadcasts the axes before, and adds up what each use gives back", function()
    local a = pn.tensor({ { { 1, 2 } }, { { 3, 4 } } }):requires_grad(true) -- 2,1,2
    local b = pn.tensor({ { 1 }, { 10 } }):requires_grad(true) -- 2,1
    local y = pn.matmul(a, b)
    assert.same({ { { 21 } }, { { 43 } } }, y:totable())
    y:backward(pn.tensor { { { 1 } }, { { 2 } } })
    assert.same({ { 7 }, { 10 } }, b:grad():totable())
    assert.same({ { { 1, 10 } }, { { 2, 20 } } }, a:grad():totable())
    helper.assert_shape(pn.matmul(pn.zeros { 4, 1, 2, 3 }, pn.zeros { 5, 3, 6 }), 4, 5, 2, 6)
    helper.assert_shape(pn.matmul(pn.zeros { 2, 3 }, pn.zeros { 2, 1, 2, 1, 3, 5 }), 2, 1, 2, 1, 2, 5)
  end)

  it("gives what products of two axes give, folded or one by one", function()
    for _, case in ipairs {
      { { 3, 5, 4 }, { 4, 6 } }, { { 2, 3, 5, 4 }, { 4, 6 } }, { { 5, 4 }, { 3, 4, 6 } }, { { 3, 5, 4 }, { 3, 4, 6 } },
      { { 3, 1, 5, 4 }, { 2, 4, 6 } }, { { 2, 1, 5, 4 }, { 1, 3, 4, 6 } }, { { 2, 1, 3, 1, 4, 2 }, { 2, 1, 2, 2, 3 } },
      { { 1, 5, 4 }, { 4, 6 } }, { { 7, 1, 4 }, { 4, 6 } }, { { 3, 5, 1 }, { 1, 6 } }, { { 2, 3, 4, 1 }, { 2, 1, 1, 3 } },
    } do
      for _, options in ipairs { {}, { transpose_a = true }, { transpose_b = true }, { transpose_a = true, transpose_b = true } } do
        local function shape_of(shape, turned)
          shape = { unpack(shape) }
          if turned then shape[#shape], shape[#shape - 1] = shape[#shape - 1], shape[#shape] end
          return shape
        end
        local a = helper.random(shape_of(case[1], options.transpose_a), "a")
        local b = helper.random(shape_of(case[2], options.transpose_b), "b")
        local what = ("%s by %s"):format(table.concat(a:shape(), ","), table.concat(b:shape(), ","))
        pn.scope(compare, a, b, options, what)
      end
    end
  end)

  it("multiplies heads where they lie, and anything else by way of copies", function()
    local a, b = helper.random({ 2, 5, 3, 4 }, "a"), helper.random({ 2, 6, 3, 4 }, "b") -- N,L,heads,size
    local q, k = a:permute(1, 3, 2, 4), b:permute(1, 3, 2, 4)
    compare(q, k, { transpose_b = true }, "heads")
    compare(a:permute(3, 1, 4, 2), b:permute(3, 1, 2, 4), { transpose_a = true, transpose_b = true }, "columns")
    compare(helper.random({ 2, 4, 5 }, "a"):slice { axis = 3, first = 1, count = 3, step = 2 }, helper.random({ 3, 6 }, "b"), {},
      "every second")
    compare(helper.random({ 2, 1, 2, 3, 4 }, "a"):contiguous "channels_last", helper.random({ 4, 2 }, "b"), {}, "channels last")
    compare(helper.random({ 1, 3, 4 }, "a"):expand(5, 3, 4), helper.random({ 5, 4, 2 }, "b"), {}, "expanded")
  end)

  it("has the same bits for any number of threads, in large and in many small products", function()
    local threads = pn.threads()
    finally(function() pn.threads(threads) end)
    for _, case in ipairs { { { 3, 300, 70 }, { 3, 70, 40 } }, { { 500, 5, 7 }, { 500, 7, 3 } }, { { 4, 200, 9 }, { 9, 30 } } } do
      local bits = {}
      for n = 1, 4 do
        pn.threads(n)
        local a, b = helper.random(case[1], "a"):requires_grad(true), helper.random(case[2], "b"):requires_grad(true)
        local y = pn.matmul(a, b)
        y:backward(helper.random(y:shape(), "dy"))
        bits[n] = table.concat({ y:crc32c(), a:grad():crc32c(), b:grad():crc32c() }, " ")
        assert.equal(bits[1], bits[n])
      end
    end
  end)

  it("of no matrices is empty, and of no numbers 0", function()
    assert.same({ 0, 2, 4 }, pn.matmul(pn.zeros { 0, 2, 3 }, pn.zeros { 3, 4 }):shape())
    assert.same({ { { 0 } }, { { 0 } } }, pn.matmul(pn.zeros { 2, 1, 0 }, pn.zeros { 0, 1 }):totable())
    local b = pn.ones({ 3, 4 }):requires_grad(true)
    pn.matmul(pn.zeros { 0, 2, 3 }, b):sum():backward()
    assert.equal(0, b:grad():abs():sum():item())
  end)

  it("says what does not fit", function()
    local function product(a, b) return function() pn.matmul(pn.zeros(a), pn.zeros(b)) end end
    helper.failure(product({ 2, 3, 4 }, { 5, 6 }), "matmul: the inner sizes differ: 4 and 5   (a 2,3,4; b 5,6)")
    helper.failure(product({ 2, 3, 4 }, { 3, 4, 6 }), "matmul: sizes 2 and 3 of axis 1 do not broadcast")
    helper.failure(product({ 2, 5, 3, 4 }, { 3, 4, 6 }), "matmul: sizes 5 and 3 of axis 2 do not broadcast")
    helper.failure(product({ 4 }, { 4, 6 }), "matmul: a has 1 axes, expected 2 or more   (a 4; b 4,6)")
    helper.failure(product({ 2, 4 }, { 4 }), "matmul: b has 1 axes, expected 2 or more")
  end)
end)
