--- Element by element on a CUDA device, beyond the registry's cases: every way that memory may lie, mixed element types, what type
-- a result has, destinations, nothing at all, and places beyond 2^31.

local device = require "spec.gpu.device"
local pn = require "penumbra"
local helper = require "spec.helper"
local emulation = require "spec.gpu.emulation"

local real = pn.real
local function here(shape, name) return helper.random(shape, name, 0.5, 1.5) end

-- Numbers that are the same in every type named, and a tensor of them on the device in `dtype`.
local function pair(t, dtype)
  local rounded = t:cast "bf16":cast(real)
  return rounded, rounded:to "cuda":cast(dtype)
end

-- f of the tensors on both sides, and the gradients of all of them; views(t) is what f gets of each. Types: of the tensors there.
local function agree(f, tensors, types, views, what)
  pn.scope(function()
    local sides = { {}, {} }
    for i, t in ipairs(tensors) do
      sides[1][i], sides[2][i] = pair(t, types[i])
      for s = 1, 2 do
        sides[s][i] = sides[s][i]:detach()
        sides[s][i]:requires_grad(true)
      end
    end
    local ys = {}
    for s = 1, 2 do
      local seen = {}
      for i, t in ipairs(sides[s]) do seen[i] = views[i] and views[i](t) or t end
      ys[s] = f(unpack(seen))
    end
    local seed = here(ys[1]:shape(), "seed"):cast "bf16":cast(real)
    ys[1]:backward(seed)
    ys[2]:backward(seed:to "cuda":cast(ys[2]:dtype()))
    helper.assert_close(ys[2]:to "cpu", ys[1], device.tolerance[ys[2]:dtype()], what)
    for i = 1, #tensors do
      local grad = sides[2][i]:grad()
      assert.equal(types[i], grad:dtype(), what)
      helper.assert_close(grad:to "cpu", sides[1][i]:grad(), device.tolerance[types[i]], what .. ": gradient " .. i)
    end
  end)
end

local types = { real, "bf16", "f16" }

describe("element by element on a CUDA device", function()
  local layouts = {
    { "dense, not a whole number of packs", { { 3, 7, 11 }, { 3, 7, 11 } } },
    { "one element", { { 1 }, { 1 } } },
    { "without axes", { {}, {} } },
    { "by channel, packs of 8", { { 2, 16, 2, 3, 3 }, { 16, 1, 1, 1 } } },
    { "by channel, packs of 4", { { 2, 12, 2, 3, 3 }, { 1, 12, 1, 1, 1 } } },
    { "by channel, single", { { 2, 5, 2, 3, 3 }, { 1, 5, 1, 1, 1 } } },
    { "a number", { { 4, 6, 8 }, { 1 } } },
    { "a column and a row", { { 9, 1 }, { 16 } } },
    { "slices that begin where no pack does", { { 6, 40 }, { 6, 40 } }, function(t) return t:slice(2, 2, 33) end },
    { "slices of whole packs", { { 6, 40 }, { 6, 40 } }, function(t) return t:slice(2, 9, 24) end },
    { "slices whose rows do not begin at packs", { { 6, 41 }, { 6, 42 } }, function(t) return t:slice(2, 9, 24) end },
    { "every second element", { { 6, 40 }, { 6, 40 } }, function(t) return t:slice { axis = 2, first = 1, step = 2 } end },
    { "turned", { { 8, 16 }, { 16, 8 } }, nil, function(t) return pn.permute(t, { axes = { 2, 1 } }) end },
  }
  local functions = {
    mul = pn.mul, div = pn.div, add = pn.add, sub = pn.sub, ["maximum"] = pn.maximum,
  }
  for _, layout in ipairs(layouts) do
    it("agrees with the CPU: " .. layout[1], function()
      local a, b = here(layout[2][1], "a"), here(layout[2][2], "b")
      if #layout[2][1] == 5 then a = a:contiguous "channels_last" end
      for _, ta in ipairs(types) do
        for _, tb in ipairs(types) do
          for name, f in pairs(functions) do
            agree(f, { a, b }, { ta, tb }, { layout[3], layout[3] or layout[4] }, ("%s of %s and %s"):format(name, ta, tb))
          end
        end
        agree(pn.sigmoid, { a }, { ta }, { layout[3] or layout[4] }, "sigmoid of " .. ta)
        agree(function(x) return pn.scale(x, { a = -2, b = 0.5 }) end, { a }, { ta }, { layout[3] or layout[4] }, "scale of " .. ta)
      end
    end)
  end

  for _, layout in ipairs(layouts) do
    it("compares and chooses as the CPU does: " .. layout[1], function()
      local a, b = helper.random(layout[2][1], "a"), helper.random(layout[2][2], "b")
      if #layout[2][1] == 5 then a = a:contiguous "channels_last" end
      local view_a, view_b = layout[3] or function(t) return t end, layout[3] or layout[4] or function(t) return t end
      for _, kinds in ipairs { { real, real }, { "bf16", "f16" }, { "u8", "u8" }, { "i64", "i32" }, { "u8", real } } do
        local here_a, here_b = (a * 3):cast(kinds[1]), (b * 3):cast(kinds[2])
        local there_a, there_b = here_a:to "cuda", here_b:to "cuda"
        for i, t in ipairs { here_a, here_b } do -- the CPU has no 16 bits
          if kinds[i] == "bf16" then here_a = t:cast(real) elseif kinds[i] == "f16" then here_b = t:cast(real) end
        end
        for _, name in ipairs { "gt", "ge", "lt", "le", "eq", "ne" } do
          local y = pn[name](view_a(there_a), view_b(there_b))
          assert.equal(real, y:dtype())
          helper.assert_same_bits(y:to "cpu":contiguous(), pn[name](view_a(here_a), view_b(here_b)):contiguous(), name)
        end
        if kinds[2] == real then
          local n = view_a(here_a)
          helper.assert_same_bits(pn.where(view_a(there_a), view_b(there_b), -1):to "cpu":contiguous(),
            pn.where(n, view_b(here_b), -1):contiguous(), "where of " .. kinds[1])
        end
      end
      for _, t in ipairs(types) do
        agree(function(x, y) return pn.where(x:detach():gt(1), x, y) end, { a + 1, b + 1 }, { t, t },
          { layout[3], layout[3] or layout[4] }, "where of " .. t)
        agree(function(x, y) return pn.where(y:detach():lt(x:detach()), y, 3) + x end, { a + 1, b + 1 }, { t, t },
          { layout[3], layout[3] or layout[4] }, "where of a number and of " .. t)
      end
    end)
  end

  it("tells integers apart that no float tells apart, and takes numbers with them", function()
    local large = pn.tensor({ 16777216, 16777217, 2 ^ 52 + 1 }, { dtype = "i64" }):to "cuda"
    assert.same({ 0, 1, 0 }, large:eq(16777217):to "cpu":totable())
    assert.same({ 0, 0, 1 }, pn.gt(large, 2 ^ 52):to "cpu":totable())
    local mask = pn.tensor({ 0, 2, 255 }, { dtype = "u8" }):to "cuda"
    assert.same({ 0, 1, 1 }, mask:gt(0.5):to "cpu":totable())
    assert.same({ 0, 1, 0 }, pn.eq(2, mask):to "cpu":totable())
  end)

  it("chooses without a trace of what was not chosen, NaN neither", function()
    local inf, nan = math.huge, 0 / 0
    local c, a, b = pn.tensor { 1, 0, 1 }:to "cuda", pn.tensor { 1, nan, 2 }:to "cuda", pn.tensor { inf, 3, nan }:to "cuda"
    a:requires_grad(true)
    b:requires_grad(true)
    local y = pn.where(c, a, b)
    assert.same({ 1, 3, 2 }, y:to "cpu":totable())
    y:backward(pn.tensor { 5, 6, nan }:to "cuda")
    assert.same({ 5, 0 }, pn.slice(a:grad():to "cpu", { axis = 1, first = 1, count = 2 }):totable())
    assert.same({ 0, 6, 0 }, b:grad():to "cpu":totable())
  end)

  it("compares with NaN as C does", function()
    local x, y = pn.tensor { 1, 0 / 0, 0 / 0 }:to "cuda", pn.tensor { 0 / 0, 1, 0 / 0 }:to "cuda"
    for _, name in ipairs { "gt", "ge", "lt", "le", "eq" } do assert.same({ 0, 0, 0 }, pn[name](x, y):to "cpu":totable(), name) end
    assert.same({ 1, 1, 1 }, pn.ne(x, y):to "cpu":totable())
  end)

  it("has results of the type that both inputs have, of real where they differ; a number changes nothing", function()
    local function typed(dtype, ...) return pn.ones({ ... }):to "cuda":cast(dtype) end
    for _, t in ipairs(types) do
      assert.equal(t, pn.add(typed(t, 2, 3), typed(t, 3)):dtype())
      assert.equal(t, pn.add(typed(t, 2, 3), 7):dtype())
      assert.equal(t, pn.sub(7, typed(t, 2, 3)):dtype())
      assert.equal(t, pn.softmax(typed(t, 2, 3)):dtype())
      assert.equal(t, pn.max(typed(t, 2, 3)):dtype())
      assert.equal(real, pn.sum(typed(t, 2, 3)):dtype())
      assert.equal(real, pn.mean(typed(t, 2, 3), { axes = { 1 } }):dtype())
      assert.equal("i64", pn.argmax(typed(t, 2, 3)):dtype())
      assert.equal(t, pn.gt(typed(t, 2, 3), typed(t, 3)):dtype())
      assert.equal(t, pn.gt(typed(t, 2, 3), 0):dtype())
      assert.equal(real, pn.gt(typed(t, 2, 3), typed("u8", 3)):dtype())
      assert.equal(t, pn.where(typed("u8", 2, 3), typed(t, 2, 3), 0):dtype())
    end
    assert.equal(real, pn.mul(typed("bf16", 2), typed("f16", 2)):dtype())
    assert.equal(real, pn.mul(typed("bf16", 2), typed(real, 2, 1)):dtype())
    assert.equal(real, pn.mul(typed(real, 2), typed "bf16"):dtype())
  end)

  it("adds to a gradient that is there, and gives both to an input used twice", function()
    for _, t in ipairs(types) do
      for name, expected in pairs { add = 2, sub = 0, mul = 6, div = 0 } do
        local x = pn.full { 19, value = 3 }:to "cuda":cast(t)
        x:requires_grad(true)
        pn.sum(pn[name](x, x)):backward()
        pn.sum(pn[name](x, x)):backward()
        helper.assert_close(x:grad():to "cpu", pn.full { 19, value = 2 * expected }, device.tolerance[t], name)
      end
    end
  end)

  it("keeps NaN and reaches its limits", function()
    local inf, nan = math.huge, 0 / 0
    for _, name in ipairs { "relu", "clamp", "sigmoid", "tanh", "softplus", "abs", "sqrt" } do
      local y = pn[name](pn.tensor { nan, 1 }:to "cuda"):to "cpu":flat()
      assert.is_true(y[1] ~= y[1] and y[2] == y[2], name)
    end
    helper.assert_close(pn.sigmoid(pn.tensor { -inf, -200, 200, inf }:to "cuda"):to "cpu", { 0, 0, 1, 1 })
    helper.assert_close(pn.softplus(pn.tensor { -300, 300 }:to "cuda"):to "cpu", { 0, 300 })
  end)

  it("writes into a part of another tensor, and nothing beside it", function()
    for _, t in ipairs(types) do
      local whole = pn.full { 2, 24, 1, 2, 2, value = 5, layout = "channels_last" }:to "cuda":cast(t)
      local part = whole:slot(2, 9, 8)
      pn.mul(pn.full { 2, 8, 1, 2, 2, value = 2, layout = "channels_last" }:to "cuda":cast(t), 3, { into = part })
      local sums = pn.sum(whole, { axes = { 1, 3, 4, 5 } }):to "cpu":flat()
      for c = 1, 24 do assert.equal((c > 8 and c <= 16 and 6 or 5) * 8, sums[c]) end
    end
  end)

  it("does nothing to nothing", function()
    for _, t in ipairs(types) do
      for _, name in ipairs { "relu", "exp", "softmax", "log_softmax", "sum", "add", "div", "mul", "weighted_sum" } do
        local n_inputs = #pn.ops.describe(name).inputs
        local x, other = pn.zeros({ 0, 3 }):to "cuda":cast(t), pn.ones({ 3 }):to "cuda":cast(t)
        x:requires_grad(true)
        other:requires_grad(true)
        local arguments = name == "weighted_sum" and { axis = 2 } or {}
        local y = n_inputs == 2 and pn[name](x, other, arguments) or pn[name](x, arguments)
        y:backward(pn.zeros(y:shape()):to "cuda":cast(y:dtype()))
        assert.same({ 0, 3 }, x:grad():shape())
        if n_inputs == 2 then assert.same({ 0, 0, 0 }, other:grad():to "cpu":flat(), name) end
      end
    end
  end)

  it("finds elements beyond the reach of 32 bits", function()
    if not emulation then pending(device.library) end
    local ffi = require "ffi"
    local sizes, strides = { 3, 70000, 5, 40000 }, { 1, 120000, -3, 8400000007 }
    local size, stride, count = ffi.new("long long [4]", sizes), ffi.new("long long [4]", strides), 1LL
    for _, n in ipairs(sizes) do count = count * n end
    assert.is_true(count > 2LL ^ 32)
    for _, i in ipairs { 0LL, 1LL, 2LL ^ 31 - 1, 2LL ^ 31, 2LL ^ 32 - 1, 2LL ^ 32, 2LL ^ 32 + 12345678901LL, count - 1 } do
      local rest, expected = i, 0LL
      for d = 4, 1, -1 do
        expected = expected + rest % sizes[d] * stride[d - 1]
        rest = rest / sizes[d]
      end
      assert.is_true(emulation.C.pn_emulated_loop_at(4, size, stride, i) == expected)
      assert.is_true(emulation.C.pn_emulated_axes_at(4, size, stride, i) == expected)
      assert.is_true(emulation.C.pn_emulated_loop_at(1, ffi.new("long long [1]", count), stride + 1, i) == i * stride[1])
      assert.is_true(emulation.C.pn_emulated_axes_at(1, ffi.new("long long [1]", count), stride + 1, i) == i * stride[1])
    end
    -- and those within
    for i = 0, 3 * 7 * 5 - 1 do
      local small = ffi.new("long long [3]", 3, 7, 5)
      local expected = math.floor(i / 35) + math.floor(i / 5) % 7 * 120000 - i % 5 * 3
      assert.equal(expected, tonumber(emulation.C.pn_emulated_loop_at(3, small, stride, i)))
      assert.equal(expected, tonumber(emulation.C.pn_emulated_axes_at(3, small, stride, i)))
    end
  end)

  it("converts between floating types, wherever they lie", function()
    local x = helper.random({ 3, 16, 2, 3, 5 }, "x"):contiguous "channels_last"
    for _, from in ipairs(types) do
      for _, to in ipairs(types) do
        for _, first in ipairs { 1, 2, 5, 9 } do
          local a = x:cast(from):slice(2, first, 7)
          helper.assert_same_bits(a:cast(to):contiguous(), a:to "cuda":cast(to):to "cpu":contiguous(), from .. " to " .. to)
        end
      end
    end
  end)

end)
