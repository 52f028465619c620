--- The losses on a CUDA device: the golden values of METHOD 5, void, one class alone, many blocks, captured steps, and the
-- complaint about targets that are none.

local device = require "spec.gpu.device"
local pn = require "penumbra"
local helper = require "spec.helper"

local TOLERANCE = pn.real == "f64" and 1e-12 or 1e-6
local X, Y = { 2, -1, .5, -3, 0, 4 }, { 1, 0, 1, 0, 0, 1 }
local LOSS, SLOPES = 0.8370755713963997, { -0.059601461, 0.134470711, -0.188770334, 0.023712937, 0.25, -0.008993105 }

local function cuda(values, dtype) return pn.tensor(values, { dtype = dtype }):to "cuda" end

local function balanced(x, y, options)
  x = cuda(x):requires_grad(true)
  local loss = pn.loss.balanced(x, cuda(y), options)
  loss:backward()
  return loss:item(), x:grad():to "cpu"
end

describe("balanced cross entropy on a device, " .. device.library:match "[^/]*$", function()
  it("is the golden one", function()
    local loss, dx = balanced(X, Y, { norm = "sum" })
    helper.assert_close(loss, LOSS, TOLERANCE)
    helper.assert_close(dx, SLOPES, 2e-8 + TOLERANCE)
    helper.assert_close((balanced(X, { 1, 0, 0, 0, 0, 0 }, { norm = "sum" })), 1.1136438644941147, TOLERANCE)
  end)

  it("is divided as asked", function()
    helper.assert_close((balanced(X, Y)), LOSS / 6, TOLERANCE)
    local function halves(t) return t:reshape(2, 3) end
    helper.assert_close(pn.loss.balanced(halves(cuda(X)), halves(cuda(Y)), { norm = "batch" }):item(), LOSS / 2, TOLERANCE)
  end)

  it("leaves void elements out, of u8 and of real", function()
    for _, dtype in ipairs { "u8", pn.real } do
      local x = cuda({ 2, 9, -1, .5, -9, -3, 0, 4 }):requires_grad(true)
      local void = cuda({ 0, 1, 0, 0, 255, 0, 0, 0 }, dtype)
      local loss = pn.loss.balanced(x, cuda({ 1, 1, 0, 1, 0, 0, 0, 1 }, dtype), { void = void })
      loss:backward()
      helper.assert_close(loss:item(), LOSS / 6, TOLERANCE)
      helper.assert_close(x:grad():to "cpu" * 6,
        { SLOPES[1], 0, SLOPES[2], SLOPES[3], 0, SLOPES[4], SLOPES[5], SLOPES[6] }, 2e-8 + TOLERANCE)
    end
  end)

  it("of one class alone is the plain sum, or nothing; of no elements it is 0", function()
    local zeros = { 0, 0, 0, 0, 0, 0 }
    local plain, slopes = 0, {}
    for i, v in ipairs(X) do
      plain = plain + math.max(v, 0) + math.log(1 + math.exp(-math.abs(v)))
      slopes[i] = 1 / (1 + math.exp(-v))
    end
    local loss, dx = balanced(X, zeros, { norm = "sum" })
    helper.assert_close(loss, plain, TOLERANCE)
    helper.assert_close(dx, slopes, TOLERANCE)
    loss, dx = balanced(X, zeros, { empty = "zero" })
    assert.equal(0, loss)
    assert.same(zeros, dx:totable())
    loss, dx = balanced(X, Y, { void = cuda { 1, 1, 1, 1, 1, 1 } })
    assert.equal(0, loss)
    assert.same(zeros, dx:totable())
    local none = pn.zeros { 0, device = "cuda" }:requires_grad(true)
    local of_none = pn.loss.balanced(none, pn.zeros { 0, device = "cuda" })
    of_none:backward()
    assert.equal(0, of_none:item())
    assert.equal(0, none:grad():count())
  end)

  it("agrees with the CPU over many blocks, in every memory order, to equal bits each time", function()
    local shape = { 1, 2, 3, 50, 97 }
    local x, y = helper.random(shape, "x", -8, 8), pn.random.stream(3, "y"):fill(pn.empty(shape), "bernoulli", 0.2)
    local void = pn.random.stream(4, "v"):fill(pn.empty(shape), "bernoulli", 0.1):cast "u8"
    local function on(where, layout)
      local logits = x:detach():contiguous(layout):to(where):requires_grad(true)
      local loss = pn.loss.balanced(logits, y:to(where), { void = void:to(where) })
      loss:backward()
      return loss:to "cpu", logits:grad():to "cpu"
    end
    for _, layout in ipairs { "rows", "channels_last" } do
      local loss, dx = on("cpu", layout)
      local cuda_loss, cuda_dx = on("cuda", layout)
      helper.assert_close(cuda_loss, loss, TOLERANCE)
      helper.assert_close(cuda_dx, dx, 2 * TOLERANCE)
      local again, again_dx = on("cuda", layout)
      helper.assert_same_bits(cuda_loss, again)
      helper.assert_same_bits(cuda_dx, again_dx)
    end
  end)

  it("with norm none is the CPU's for each element, with its gradient, in every memory order and of 16 bits", function()
    local shape = { 1, 2, 3, 50, 97 }
    local x, dy = helper.random(shape, "x", -8, 8):cast "bf16":cast(pn.real), helper.random(shape, "dy"):cast "bf16":cast(pn.real)
    local y = pn.random.stream(3, "y"):fill(pn.empty(shape), "bernoulli", 0.2)
    local void = pn.random.stream(4, "v"):fill(pn.empty(shape), "bernoulli", 0.1):cast "u8"
    for _, loss in ipairs { "balanced", "bce" } do
      local function on(where, layout, dtype)
        local logits = x:detach():contiguous(layout):to(where):cast(dtype):requires_grad(true)
        local each = pn.loss[loss](logits, y:to(where), { void = void:to(where), norm = "none" })
        assert.equal(pn.real, each:dtype())
        each:backward(dy:to(where))
        pn.loss[loss](logits, y:to(where), { void = void:to(where), norm = "none" }):backward(dy:to(where))
        return each:to "cpu", logits:grad():to "cpu"
      end
      for _, layout in ipairs { "rows", "channels_last" } do
        local each, dx = on("cpu", layout, pn.real)
        for _, dtype in ipairs { pn.real, "bf16" } do
          local cuda_each, cuda_dx = on("cuda", layout, dtype)
          helper.assert_close(cuda_each, each, TOLERANCE)
          helper.assert_close(cuda_dx, dx, dtype == "bf16" and device.tolerance.bf16 or 2 * TOLERANCE)
          local again, again_dx = on("cuda", layout, dtype)
          helper.assert_same_bits(cuda_each, again)
          helper.assert_same_bits(cuda_dx, again_dx)
        end
      end
    end
    local none = pn.zeros { 0, 2, device = "cuda" }:requires_grad(true)
    local of_none = pn.loss.balanced(none, pn.zeros { 0, 2, device = "cuda" }, { norm = "none" })
    of_none:backward(pn.zeros { 0, 2, device = "cuda" })
    assert.same({ 0, 2 }, of_none:shape())
    local loss = pn.no_grad(pn.loss.balanced, cuda(X), cuda(Y), { norm = "none", void = cuda { 0, 0, 0, 0, 0, 1 } })
    assert.equal(0, loss:to "cpu":get(6))
    loss = pn.loss.balanced(cuda(X), cuda { 1, 0, 255, .5, 0, 1 }, { norm = "none" })
    helper.failure(function() return loss:to "cpu" end, "balanced_bce: 2 of the targets are neither 0 nor 1")
  end)

  it("stays finite for any logit", function()
    local loss, dx = balanced({ 1e4, -1e4, 1e4, -1e4 }, { 1, 1, 0, 0 }, { norm = "sum" })
    helper.assert_close(loss, 1e4, 1e-6)
    helper.assert_close(dx, { 0, -0.5, 0.5, 0 }, 1e-6)
  end)

  it("is a part of a captured step: the weights follow the mask", function()
    local step = pn.captured(function(x, y)
      x = x:detach():requires_grad(true)
      local loss = pn.loss.balanced(x, y, { norm = "sum" })
      loss:backward()
      return loss, x:grad()
    end, { device = "cuda" })
    for i = 1, 6 do
      local y = { 1, 0, i % 2, 0, 0, i % 2 }
      local loss, dx = step(cuda(X), cuda(y))
      local expected, slopes = balanced(X, y, { norm = "sum" })
      helper.assert_close(loss:item(), expected, TOLERANCE)
      helper.assert_close(dx:to "cpu", slopes, TOLERANCE)
    end
    assert.equal(1, step:count())
  end)

  it("complains of targets that are no mask, once, when something waits", function()
    local loss = pn.loss.balanced(cuda(X), cuda { 1, 0, 255, .5, 0, 1 })
    helper.failure(function() return loss:item() end, "balanced_bce: 2 of the targets are neither 0 nor 1")
    helper.assert_close((balanced(X, Y, { norm = "sum" })), LOSS, TOLERANCE)
  end)

  it("complains of one thing at each wait, and forgets none", function()
    local bad = cuda { 1, 0, 2, .5, 0, 1 }
    local first, second = pn.loss.balanced(cuda(X), bad), pn.loss.bce(cuda(X), bad)
    local texts = {}
    for _ = 1, 2 do
      local ok, problem = pcall(function() return second:item() end)
      assert.is_false(ok)
      texts[#texts + 1] = tostring(problem):match "%d of the targets are n[^(]*"
    end
    table.sort(texts)
    assert.same({ "1 of the targets are not in 0..1 ", "2 of the targets are neither 0 nor 1 " }, texts)
    assert.is_true(first:item() == first:item())
  end)
end)

describe("plain cross entropy on a device", function()
  it("takes targets between 0 and 1, and complains of others", function()
    local x = helper.counted { 2, 3 } * 3
    local target = (helper.counted({ 2, 3 }, 31) + 1) / 2
    helper.assert_close(pn.loss.bce(x:to "cuda", target:to "cuda"):item(), 0.972249988, 1e-6)
    helper.assert_close(pn.loss.bce(x:to "cuda", target:to "cuda", { norm = "sum" }):item(), 6 * 0.972249988, 1e-6)
    local loss = pn.loss.bce(cuda { 0, 0 }, cuda { 1, 1.5 })
    helper.failure(function() return loss:item() end, "bce_with_logits: 1 of the targets are not in 0..1")
  end)
end)
