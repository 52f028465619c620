-- Views and rearrangements: slice, crop3d, permute, reshape, expand, flip, concat, pad3d, contiguous.
local pn = require "penumbra"
local binding = require "penumbra.ffi"
local helper = require "spec.helper"

local function numbers(...)
  local shape, count, values = { ... }, 1, {}
  for _, size in ipairs(shape) do
    count = count * size
  end
  for i = 1, count do
    values[i] = i
  end
  return pn.reshape(pn.tensor(values), { shape = shape })
end

local function shares_memory(a, b)
  return pn.C.pn_tensor_storage_id(binding.ptr(a)) == pn.C.pn_tensor_storage_id(binding.ptr(b))
end

describe("slice", function()
  it("takes every step-th element, as a view, and moves the grid", function()
    local x = numbers(2, 6)
    local y = pn.slice(x, { axis = 2, first = 2, count = 2, step = 3 })
    assert.same({ { 2, 5 }, { 8, 11 } }, y:totable())
    assert.is_true(shares_memory(x, y))
    assert.same({ { 9, 10, 11, 12 } }, pn.slice(pn.slice(x, { axis = 1, first = 2 }), { axis = 2, first = 3 }):totable())
    local clip = numbers(1, 1, 4, 1, 1)
    clip:set_grid({ 2, 1, 1 }, { 1, 0, 0 })
    local stride, centre = helper.grid(pn.slice(clip, { axis = 3, first = 2, step = 2 }))
    assert.same({ 4, 1, 1 }, stride)
    assert.same({ 3, 0, 0 }, centre)
  end)

  it("says what leaves the axis", function()
    helper.failure(function() pn.slice(numbers(2, 6), { axis = 2, first = 4, count = 4 }) end,
      "slice: first 4, count 4, step 1 leaves axis 2 of size 6   (x 2,6)")
    helper.failure(function() pn.slice(numbers(2, 6), { axis = 3 }) end, "slice: there is no axis 3")
  end)
end)

describe("crop3d", function()
  it("cuts a box, as a view, and moves the grid", function()
    local x = numbers(1, 1, 2, 3, 4)
    x:set_grid({ 2, 8, 8 }, { 1, 7, 3 })
    local y = pn.crop3d(x, { first = { 2, 1, 2 }, size = { 1, 2, 3 } })
    assert.same({ 14, 15, 16, 18, 19, 20 }, y:flat())
    assert.is_true(shares_memory(x, y))
    local stride, centre = helper.grid(y)
    assert.same({ 2, 8, 8 }, stride)
    assert.same({ 3, 7, 11 }, centre)
    helper.failure(function() pn.crop3d(x, { first = { 1, 1, 3 }, size = { 1, 1, 3 } }) end,
      "crop3d: first 3 and size 3 leave the w axis of size 4   (x 1,1,2,3,4)")
  end)
end)

describe("permute", function()
  it("orders axes anew, as a view", function()
    local x = numbers(2, 3)
    local y = pn.permute(x, { axes = { 2, 1 } })
    assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, y:totable())
    assert.is_true(shares_memory(x, y))
    helper.failure(function() pn.permute(x, { axes = { 1 } }) end, "permute: 1 axes are named, x has 2")
    helper.failure(function() pn.permute(x, { axes = { 1, 1 } }) end, "permute: axis 1 is named twice")
    helper.failure(function() pn.permute(x, { axes = { 1, 3 } }) end, "permute: axis 3 is not there")
  end)
end)

describe("reshape", function()
  it("is a view where strides allow, else a copy in row order", function()
    local x = numbers(2, 3, 4)
    local y = pn.reshape(x, { shape = { 6, -1 } })
    assert.same({ 6, 4 }, y:shape())
    assert.is_true(shares_memory(x, y))
    local turned = pn.permute(x, { axes = { 3, 1, 2 } })
    assert.is_true(shares_memory(turned, pn.reshape(turned, { shape = { 4, 1, 2, 3, 1 } })))
    assert.is_true(shares_memory(turned, pn.reshape(turned, { shape = { 4, 6 } })))
    local copy = pn.reshape(turned, { shape = { -1 } })
    assert.is_false(shares_memory(turned, copy))
    assert.same(turned:flat(), copy:flat())
  end)

  it("says what does not fill", function()
    helper.failure(function() pn.reshape(numbers(2, 3), { shape = { 4, -1 } }) end,
      "reshape: 6 elements do not fill the shape 4,-1   (x 2,3)")
    helper.failure(function() pn.reshape(numbers(2, 3), { shape = { 5 } }) end, "reshape: 6 elements do not fill the shape 5")
    helper.failure(function() pn.reshape(numbers(2, 3), { shape = { -1, -1 } }) end, "reshape: only one size can be -1")
  end)
end)

describe("expand", function()
  it("repeats without memory", function()
    local x = pn.tensor { { 1 }, { 2 } }
    local y = pn.expand(x, { shape = { 3, -1, 2 } })
    assert.same({ { { 1, 1 }, { 2, 2 } }, { { 1, 1 }, { 2, 2 } }, { { 1, 1 }, { 2, 2 } } }, y:totable())
    assert.is_true(shares_memory(x, y))
    helper.failure(function() pn.expand(x, { shape = { 3, 1 } }) end, "expand: axis 1 of size 2 does not expand to 3   (x 2,1)")
    helper.failure(function() pn.expand(x, { shape = { 2 } }) end, "expand: 1 sizes are named, x has 2 axes")
  end)
end)

describe("flip", function()
  it("reverses axes, of any element type", function()
    assert.same({ { 6, 5, 4 }, { 3, 2, 1 } }, pn.flip(numbers(2, 3), { axes = { 1, 2 } }):totable())
    assert.same({ 3, 2, 1 }, pn.flip(pn.tensor({ 1, 2, 3 }, { dtype = "u8" }), { axes = 1 }):totable())
    helper.failure(function() pn.flip(numbers(3), { axes = 2 }) end, "flip: there is no axis 2")
    helper.failure(function() pn.flip(numbers(3), { axes = { 1, 1 } }) end, "flip: axis 1 is named twice")
  end)
end)

describe("concat", function()
  it("puts one after the other, of any element type", function()
    assert.same({ { 1, 2, 1 }, { 3, 4, 2 } }, pn.concat(numbers(2, 2), numbers(2, 1), { axis = 2 }):totable())
    assert.same({ 7, 8 }, pn.concat(pn.tensor({ 7 }, { dtype = "u8" }), pn.tensor({ 8 }, { dtype = "u8" }), { axis = 1 }):totable())
  end)

  it("does not copy what already stands in its destination, and gives it its gradient", function()
    local whole = pn.zeros { 1, 5, 1, 2, 2, layout = "channels_last" }
    local a, b = helper.counted { 1, 2, 1, 2, 2 }, helper.counted({ 1, 3, 1, 2, 2 }, 31)
    local y, d = helper.with_gradients(function(p, q)
      local first, second = whole:slot(2, 1, 2), whole:slot(2, 3, 3)
      return pn.concat(pn.scale(p, { a = 2, into = first }), pn.scale(q, { a = 3, into = second }), { into = whole })
    end, a, b)
    assert.is_true(shares_memory(y, whole))
    helper.assert_close(y:slice(2, 1, 2), pn.scale(a:detach(), { a = 2 }))
    local dy = helper.counted({ 1, 5, 1, 2, 2 }, 613)
    helper.assert_close(d[1], pn.scale(dy:slice(2, 1, 2), { a = 2 }))
    helper.assert_close(d[2], pn.scale(dy:slice(2, 3, 3), { a = 3 }))
  end)

  it("joins crops of any number of channels, in any memory order", function()
    for _, channels in ipairs { { 1, 2 }, { 16, 48 }, { 37, 20 } } do
      local parts, rows = {}, {}
      for i, n in ipairs(channels) do
        local x, box = helper.counted({ 2, n, 2, 4, 5 }, 31 * i), { first = { 1, 2, 2 }, size = { 2, 3, 3 } }
        rows[i], parts[i] = pn.crop3d(x, box), pn.crop3d(x:contiguous("channels_last"), box)
      end
      local y, first = pn.concat(parts[1], parts[2], { axis = 2 }), 1
      for i, n in ipairs(channels) do
        assert.same(rows[i]:flat(), y:slice(2, first, n):flat())
        first = first + n
      end
      helper.assert_same_bits(y, pn.concat(rows[1], rows[2], { axis = 2 }))
    end
  end)

  it("says which tensor does not fit", function()
    helper.failure(function() pn.concat(numbers(2, 2), numbers(3, 2), { axis = 2 }) end,
      "concat: x2 and x1 differ in more than axis 2")
    helper.failure(function() pn.concat(numbers(2), pn.zeros { 2, dtype = "u8" }, { axis = 1 }) end,
      "concat: x2 is u8, x1 " .. pn.real)
    helper.failure(function() pn.concat(numbers(2), { axis = 2 }) end, "concat: there is no axis 2")
  end)
end)

describe("pad3d", function()
  it("adds a border and moves the grid back", function()
    local x = numbers(1, 1, 1, 1, 2)
    x:set_grid({ 1, 4, 4 }, { 0, 3, 3 })
    local y = pn.pad3d(x, { pad = { { 0, 0 }, { 1, 0 }, { 2, 1 } }, value = -1 })
    assert.same({ { -1, -1, -1, -1, -1 }, { -1, -1, 1, 2, -1 } }, y:totable()[1][1][1])
    local _, centre = helper.grid(y)
    assert.same({ 0, -1, -5 }, centre)
    helper.failure(function() pn.pad3d(x, { pad = "same" }) end, "pad3d: pad=same has a meaning for windows only")
  end)
end)

describe("contiguous", function()
  it("is the tensor itself, or a copy in the order asked for", function()
    local x = numbers(1, 2, 1, 2, 3)
    assert.is_true(shares_memory(x, pn.contiguous(x)))
    local y = pn.contiguous(x, { layout = "channels_last" })
    assert.is_true(y:is_dense "channels_last")
    assert.same(x:flat(), y:flat())
    helper.failure(function() pn.contiguous(numbers(2, 3), { layout = "filter" }) end,
      "contiguous: channels_last and filter are orders of five axes")
  end)
end)
