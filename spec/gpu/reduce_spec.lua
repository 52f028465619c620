--- Sums, means, the largest, softmax on a CUDA device, beyond the registry's cases: any axes of any memory order, cut in parts
-- and not, exact where the CPU is; ties and NaN wherever they meet.

local device = require "spec.gpu.device"
local pn = require "penumbra"
local helper = require "spec.helper"

local real = pn.real
local types = { real, "bf16", "f16" }
local exact = real == "f64" and 1e-13 or 2e-7 -- sums run in double: what is left is one rounding

-- x, of numbers that every type has, in memory orders: what each gives.
local function orders(x)
  local turned = {}
  for d = 1, x:dims() do turned[d] = x:dims() + 1 - d end
  local list = {
    ["in rows"] = x,
    turned = pn.permute(pn.permute(x, { axes = turned }):contiguous(), { axes = turned }),
    ["with gaps"] = pn.concat({ x, x }, { axis = x:dims() }):slice(x:dims(), 2, x:shape()[x:dims()]),
  }
  if x:dims() == 5 then
    list["channels last"] = x:contiguous "channels_last"
    local n = x:shape()[2]
    list["a slice of channels"] = pn.concat({ x, x, x }, { axis = 2 }):contiguous "channels_last":slice(2, math.min(5, n + 1), n)
  end
  return list
end

local function numbers(shape, name) return helper.random(shape, name):cast "bf16":cast(real) end

-- f(x), and the gradient of x, on both sides and in every order; once more on the device, to the same bits.
local function agree(shape, f, tolerance, what)
  pn.scope(function()
    for order, x in pairs(orders(numbers(shape, "x"))) do
      for _, t in ipairs(types) do
        local name = ("%s, %s, %s"):format(what, order, t)
        local sides = {}
        for i = 1, 3 do
          local here = i == 1 and x:detach() or x:to "cuda":cast(t)
          here:requires_grad(true)
          local y = f(here)
          if y:requires_grad() and y:dtype() ~= "i64" then
            y:backward(numbers(y:shape(), "dy"):to(i == 1 and "cpu" or "cuda"):cast(y:dtype()))
          end
          sides[i] = { y, here:grad() }
        end
        for k, expected in pairs(sides[1]) do
          local got = sides[2][k]
          helper.assert_same_bits(got, sides[3][k], name)
          helper.assert_close(got:to "cpu", expected, got:dtype() == real and tolerance or device.tolerance[got:dtype()], name)
        end
      end
    end
  end)
end

describe("sums on a CUDA device", function()
  local shapes = {
    { { 2, 36, 2, 12, 13 }, { {}, { 1, 3, 4, 5 }, { 2 }, { 4, 5 }, { 1, 2 }, { 1, 2, 3 }, { 1 }, { 5 }, { 2, 4 } } },
    { { 1, 1, 2, 50, 51 }, { {}, { 1, 3, 4, 5 }, { 2 }, { 4, 5 }, { 5 } } }, -- one channel: a mask
    { { 2, 3, 1, 4, 5 }, { {}, { 2 }, { 1, 3, 4, 5 } } },
    { { 9000 }, { {} } },
    { { 3, 2000 }, { { 1 }, { 2 }, {} } },
    { { 700, 9 }, { { 1 }, { 2 }, {} } },
  }
  for _, case in ipairs(shapes) do
    for _, axes in ipairs(case[2]) do
      local what = ("%s over axes %s"):format(table.concat(case[1], ","), table.concat(axes, ","))
      it("are the CPU's: " .. what, function()
        agree(case[1], function(x) return pn.sum(x, { axes = axes }) end, exact, what)
        agree(case[1], function(x) return pn.mean(x, { axes = axes, keep = true }) end, exact, what .. ", mean")
      end)
    end
  end

  it("lose nothing to small summands: a million tenths", function()
    local tenth = pn.full { 1, value = 0.1 }:flat()[1]
    local x = pn.full { 1000, 1000, value = 0.1, device = "cuda" }
    helper.assert_close(pn.sum(x):to "cpu", tenth * 1e6, 1e-6)
    helper.assert_close(pn.sum(pn.sum(x, { axes = 1 })):to "cpu", tenth * 1e6, 1e-6)
  end)

  it("of nothing are 0, added to what is there", function()
    assert.equal(0, pn.sum(pn.zeros { 0, 3, device = "cuda" }):item())
    assert.same({ 0, 0, 0 }, pn.sum(pn.zeros { 0, 3, device = "cuda" }, { axes = 1 }):to "cpu":totable())
    local b = pn.ones({ 3, device = "cuda" }):requires_grad(true)
    b:set_grad(pn.full { 3, value = 5, device = "cuda" })
    pn.sum(pn.zeros { 4, 3, device = "cuda" } + b):backward()
    assert.same({ 9, 9, 9 }, b:grad():to "cpu":flat())
  end)

  it("gather the gradient of what was broadcast, products too", function()
    for _, shape in ipairs { { 1, 36, 1, 1, 1 }, { 12, 1 }, { 1 }, {}, { 2, 1, 2, 1, 13 }, { 2, 12, 13 } } do
      for _, order in ipairs { "rows", "channels_last" } do
        for _, name in ipairs { "mul", "add", "sub", "div" } do
          local grads = {}
          for i, where in ipairs { "cpu", "cuda" } do
            local x = numbers({ 2, 36, 2, 12, 13 }, "x"):contiguous(order):detach():to(where)
            local b = pn.scale(numbers(shape, "b"), { a = 0.25, b = 1 }):to(where)
            x:requires_grad(true)
            b:requires_grad(true)
            local y = pn[name](x, b)
            y:backward(numbers(y:shape(), "dy"):contiguous(order):detach():to(where))
            grads[i] = { x:grad():to "cpu", b:grad():to "cpu" }
          end
          helper.assert_close(grads[2][1], grads[1][1], 1e-6, name)
          helper.assert_close(grads[2][2], grads[1][2], 1e-6, name .. ", broadcast")
        end
      end
    end
  end)
end)

describe("the largest on a CUDA device", function()
  for _, axes in ipairs { {}, { 1, 3, 4, 5 }, { 2 }, { 4, 5 }, { 1, 2 }, { 5 } } do
    it("is the CPU's, with its place and its gradient, over axes " .. table.concat(axes, ","), function()
      agree({ 2, 36, 2, 12, 13 }, function(x) return pn.max(x, { axes = axes }) end, 0, "max")
      agree({ 2, 36, 2, 12, 13 }, function(x) return pn.argmax(x, { axes = axes, keep = true }) end, 0, "argmax")
    end)
  end

  it("is the first of equals and the first NaN, wherever the threads meet", function()
    local n = 70000
    for _, places in ipairs { { 1, 2 }, { 300, 40000 }, { 257, 69999 }, { 69999, 70000 }, { 511, 513 } } do
      for _, value in ipairs { 5, 0 / 0 } do
        local x = pn.zeros { n }
        local rows = x:data()
        rows[places[1] - 1], rows[places[2] - 1] = value, value
        assert.equal(places[1], pn.argmax(x:to "cuda"):item())
        local columns = pn.reshape(x, { shape = { n, 1 } }):to "cuda"
        assert.equal(places[1], pn.argmax(pn.expand(columns, { shape = { n, 2 } }):clone(), { axes = 1 }):to "cpu":flat()[2])
        local largest = pn.max(x:to "cuda"):item()
        assert.is_true(value == value and largest == 5 or value ~= value and largest ~= largest)
      end
    end
    local lowest = pn.full { 3, 400, value = -math.huge, device = "cuda" }
    assert.same({ 1, 1, 1 }, pn.argmax(lowest, { axes = 2 }):to "cpu":flat())
  end)
end)

describe("the order of values on a CUDA device", function()
  for _, axis in ipairs { 1, 2, 4 } do
    it("is the CPU's along axis " .. axis .. ", with the gradient of what is taken", function()
      agree({ 2, 300, 2, 5, 1 }, function(x) return pn.argsort(x, { axis = axis }) end, 0, "argsort")
      agree({ 2, 8, 2, 260, 1 }, function(x) return (pn.topk(x, 2, { axis = axis })) end, 0, "topk")
    end)
  end

  -- Lanes of one tile and of several, with many that are alike, and what is not finite among them.
  for _, n in ipairs { 511, 512, 513, 1024, 1537, 3000 } do
    it("is the CPU's along lanes of " .. n, function()
      local drawn = pn.random.stream(3, "order"):fill(pn.empty { 3, n }, "uniform", -20, 20)
      local values = drawn:cast("i32"):cast(real)
      for i, value in ipairs { 0 / 0, math.huge, -math.huge, 0 / 0 } do values:set(value, 2, 3 + 101 * i) end
      for _, dtype in ipairs { real, "f16" } do
        local there = values:to("cuda"):cast(dtype)
        for _, options in ipairs { { axis = 2 }, { axis = 2, descending = true }, { axis = 2, count = 1 },
          { axis = 2, count = 20, descending = true }, { axis = 2, count = n - 1 }, { axis = 2, count = math.min(n, 700) } } do
          assert.same(pn.argsort(values, options):flat(), pn.argsort(there, options):to("cpu"):flat())
        end
      end
      assert.same(pn.argsort(values:permute(2, 1), { axis = 1 }):flat(),
        pn.argsort(values:to("cuda"):permute(2, 1), { axis = 1 }):to("cpu"):flat())
    end)
  end

  it("sums what meets in one place, in order", function()
    local places = pn.tensor { 1, 3, 3, 3, 2 }:cast "i64"
    for _, axis in ipairs { 1, 3 } do
      agree({ 3, 40, 3 }, function(x) return pn.gather(x, places:to(x:device()), { axis = axis }) end, exact, "gather")
    end
    local stream = pn.random.stream(4, "places") -- long lanes, whose places are sorted first
    for _, dtype in ipairs { "u8", "i32", "i64" } do
      for _, shape in ipairs { { 600 }, { 4, 600 }, { 1, 600 } } do
        local many = stream:fill(pn.empty(shape), "uniform", 1, 40.99):cast(dtype)
        agree({ 4, 40 }, function(x) return pn.gather(x, many:to(x:device()), { axis = 2 }) end, exact, "gather")
      end
    end
  end)

  it("is NaN where a place is not there, and teaches nothing there", function()
    local x = pn.tensor({ 1, 2, 3 }):to "cuda":requires_grad(true)
    local y = pn.gather(x, pn.tensor({ 2, 0, 4, 3 }):cast "i64":to "cuda", { axis = 1 })
    local found = y:to "cpu":flat()
    assert.same({ 2, 3 }, { found[1], found[4] })
    assert.is_true(found[2] ~= found[2] and found[3] ~= found[3])
    y:backward(pn.ones { 4, device = "cuda" })
    assert.same({ 0, 1, 1 }, x:grad():to "cpu":flat())
  end)
end)

describe("softmax on a CUDA device", function()
  for _, axis in ipairs { 1, 2, 3, 5 } do
    it("is the CPU's along axis " .. axis, function()
      local close = real == "f64" and 1e-12 or 3e-6
      for _, shape in ipairs { { 3, 2, 2, 4, 5 }, { 2, 40, 2, 3, 3 }, { 2, 600, 1, 1, 3 } } do
        agree(shape, function(x) return pn.softmax(x, { axis = axis }) end, close, "softmax")
        agree(shape, function(x) return pn.log_softmax(x * 32, { axis = axis }) end, close, "log_softmax")
      end
    end)
  end

  it("does not overflow, and a NaN is all NaN", function()
    local y = pn.softmax(pn.tensor { { 1000, 1000, -1000 }, { 1, 0 / 0, 2 } }:to "cuda", { axis = 2 }):to "cpu":flat()
    helper.assert_close({ y[1], y[2], y[3] }, { 0.5, 0.5, 0 })
    for i = 4, 6 do assert.is_true(y[i] ~= y[i]) end
  end)
end)

describe("weighted_sum on a CUDA device", function()
  it("is the CPU's in every order, with weights as views", function()
    for axis = 1, 5 do
      local shape = { 3, 8, 5, 4, 16 }
      agree(shape, function(x)
        local weight = numbers({ shape[axis], 2 }, "w"):slice(2, 2, 1)
        return pn.weighted_sum(x, pn.reshape(weight, { shape = { shape[axis] } }):to(x:device()), { axis = axis })
      end, 2e-6, "axis " .. axis)
    end
  end)

  it("takes slices that do not begin where packs do", function()
    for _, t in ipairs(types) do
      local x, w = numbers({ 3, 8, 18 }, "x"), numbers({ 8 }, "w")
      local y = pn.weighted_sum(x:to "cuda":cast(t):slice(3, 1, 16), w:to "cuda", { axis = 2 })
      assert.equal(t, y:dtype())
      helper.assert_close(y:to "cpu", pn.weighted_sum(x:slice(3, 1, 16), w, { axis = 2 }), device.tolerance[t])
    end
  end)

  it("has its gradients", function()
    for axis = 1, 5 do
      local shape, sides = { 3, 8, 5, 4, 16 }, {}
      for i, where in ipairs { "cpu", "cuda" } do
        local x = numbers(shape, "x"):contiguous "channels_last":detach():to(where):requires_grad(true)
        local w = numbers({ shape[axis] }, "w"):to(where):requires_grad(true)
        for _ = 1, 2 do
          local y = pn.weighted_sum(x, w, { axis = axis })
          y:backward(numbers(y:shape(), "dy"):to(where))
        end
        sides[i] = { x:grad():to "cpu", w:grad():to "cpu" }
      end
      helper.assert_close(sides[2][1], sides[1][1], 1e-6, "x")
      helper.assert_close(sides[2][2], sides[1][2], 1e-6, "weight")
    end
  end)
end)
