--- batch_norm on a CUDA device against the CPU: every mode for any number of channels, packed and not, in 16 bits, slices and
-- crops, gradients written over others, stored statistics that move, and captured.

local device = require "spec.gpu.device"
local mixed = require "spec.gpu.mixed"
local pn = require "penumbra"
local helper = require "spec.helper"

local TOLERANCE = pn.real == "f64" and 1e-11 or 2e-5
local MODES = {
  { relu = true }, {}, { mode = "batch" }, { mode = "batch", relu = true, eps = 1e-2 },
  { mode = "moving", relu = true, alpha = .3 },
}

local function spoken(args)
  return ("%s%s"):format(args.mode or "frozen", args.relu and " relu" or "")
end

local function statistics(channels)
  return helper.random({ channels }, "beta", -.3, .3), helper.random({ channels }, "mean", -.2, .2),
    helper.random({ channels }, "var", .5, 1.5)
end

-- y, dx, dbeta for dy = counted; `before` stands in front, so that the gradient of x may take that of y.
local function run(where, x, args, before, short)
  local beta, mean, var = statistics(x:size(2))
  beta = beta:to(where):requires_grad(true)
  x = x:detach():to(where)
  if short and where ~= "cpu" then x = x:cast(short) end
  x = x:requires_grad(true)
  local y = pn.batch_norm(before and before(x) or x, beta, mean:to(where), var:to(where), args)
  local dy = helper.counted(y:shape(), 613)
  if short then dy = dy:cast(short):cast(pn.real) end
  y:backward(dy:contiguous("channels_last"):to(where):cast(y:dtype()))
  return { y = y:detach():to "cpu", dx = x:grad():to "cpu", dbeta = beta:grad():to "cpu" }
end

local function compare(x, args, what, before, short)
  local here, there, again = run("cpu", x, args, before, short), run("cuda", x, args, before, short),
    mixed(function() return run("cuda", x, args, before, short) end)
  for name, t in pairs(there) do
    helper.assert_close(t:cast(pn.real), here[name], short and device.tolerance[short] or TOLERANCE, what .. ": " .. name)
    helper.assert_same_bits(t, again[name], what .. ": " .. name .. " again")
  end
end

local function activations(n, c, t, h, w)
  return helper.random({ n, c, t, h, w }, "x" .. c, -1, 1):contiguous "channels_last"
end

describe("batch_norm on a device", function()
  it("agrees with the CPU for any number of channels", function()
    for _, c in ipairs { 1, 5, 16, 37, 64, 130 } do
      for _, args in ipairs(MODES) do compare(activations(2, c, 3, 5, 6), args, ("%d channels, %s"):format(c, spoken(args))) end
    end
    for _, c in ipairs { 259, 1100 } do -- more than a tile of channels
      for _, args in ipairs(MODES) do compare(activations(1, c, 1, 3, 2), args, ("%d channels, %s"):format(c, spoken(args))) end
    end
  end)

  it("agrees over parts, of which the last is short, few and many", function()
    for _, args in ipairs(MODES) do
      compare(activations(1, 64, 2, 25, 27), args, spoken(args))
      compare(activations(1, 3, 4, 61, 67), args, "3 channels, " .. spoken(args))
      compare(activations(1, 520, 2, 11, 13), args, "some tiles, " .. spoken(args))
      compare(activations(1, 256, 2, 33, 33), args, "35 parts, " .. spoken(args))
    end
  end)

  for _, short in ipairs { "bf16", "f16" } do
    it("takes and gives " .. short .. "; statistics and the gradient of beta stay real", function()
      for _, c in ipairs { 5, 16, 24, 2100 } do
        local x = activations(1, c, 2, 3, 5)
        x = x:cast(short):cast(pn.real)
        for _, args in ipairs(MODES) do compare(x, args, ("%s, %d channels, %s"):format(short, c, spoken(args)), nil, short) end
      end
      local y = pn.batch_norm(pn.ones { 1, 2, 1, 1, 1 }:to("cuda"):cast(short), pn.ones { 2, device = "cuda" },
        pn.zeros { 2, device = "cuda" }, pn.ones { 2, device = "cuda" })
      assert.equal(short, y:dtype())
      local narrow, wide = pn.ones { 2, device = "cuda" }:cast(short), pn.ones { 2, device = "cuda" }
      helper.failure(function() pn.batch_norm(y, narrow, wide, wide) end,
        "batch_norm: beta is " .. short .. ", expected " .. pn.real)
    end)
  end

  it("writes its gradient over that of its result, and adds to one that has begun", function()
    for _, args in ipairs(MODES) do
      compare(activations(2, 16, 2, 5, 7), args, "over dy, " .. spoken(args), function(x) return pn.relu(x) end)
      local function twice(where)
        local beta, mean, var = statistics(16)
        local x = activations(1, 16, 2, 3, 4):to(where):requires_grad(true)
        local y = pn.batch_norm(x, beta:to(where), mean:to(where), var:to(where), args)
        local dy = helper.counted(y:shape(), 613):contiguous("channels_last"):to(where)
        y:backward(dy, { keep_graph = true })
        y:backward(dy)
        return x:grad():to "cpu"
      end
      helper.assert_close(twice "cuda", twice "cpu", TOLERANCE, "added, " .. spoken(args))
    end
  end)

  it("reads and writes slices of wider tensors, and crops", function()
    for _, c in ipairs { 5, 16 } do
      for _, args in ipairs(MODES) do
        local function strided(where)
          local beta, mean, var = statistics(c)
          local wide = pn.zeros { 1, c + 16, 2, 4, 6, layout = "channels_last", device = where }
          local x = activations(1, c + 8, 4, 6, 8):to(where):slice(2, 9, c)
          x = pn.crop3d(x, { first = { 2, 2, 2 }, size = { 2, 4, 6 } })
          local named = { into = wide:slot(2, 9, c) }
          for key, value in pairs(args) do named[key] = value end
          pn.batch_norm(x, beta:to(where), mean:to(where), var:to(where), named)
          return wide:to "cpu"
        end
        helper.assert_close(strided "cuda", strided "cpu", TOLERANCE, ("%d channels, %s"):format(c, spoken(args)))
      end
    end
  end)

  it("moves the stored statistics, wherever they lie", function()
    local x = activations(2, 21, 2, 5, 7)
    local function moved(where)
      local beta, mean, var = statistics(21)
      local room = pn.zeros { 21, 2, device = where }
      mean, var = room:slice(2, 1, 1):reshape(21):copy(mean), room:slice(2, 2, 1):reshape(21):copy(var)
      for _, mode in ipairs { "batch", "moving" } do
        pn.batch_norm(x:to(where), beta:to(where), mean, var, { mode = mode, update = true, momentum = .9 })
      end
      return room:to "cpu"
    end
    helper.assert_close(moved "cuda", moved "cpu", TOLERANCE)
  end)

  it("keeps its figures where the mean dwarfs the spread", function()
    local x = (helper.counted { 1, 4, 8, 20, 20 } * 0.01 + 1000):contiguous "channels_last"
    local zeros, ones = pn.zeros { 4, device = "cuda" }, pn.ones { 4, device = "cuda" }
    local values = pn.batch_norm(x:to "cuda", zeros, zeros, ones, { mode = "batch", eps = 0 }):to("cpu"):flat()
    local sum, squares = 0, 0
    for _, v in ipairs(values) do sum, squares = sum + v, squares + v * v end
    assert.is_true(math.abs(sum / #values) < 2e-2)
    assert.is_true(math.abs(squares / #values - 1) < 2e-2) -- x itself is only good to 6e-5 / 6e-3
  end)

  it("takes no elements where statistics are stored", function()
    local beta, mean, var = statistics(3)
    beta = beta:to("cuda"):requires_grad(true)
    local x = pn.zeros { 0, 3, 1, 2, 2, layout = "channels_last", device = "cuda" }:requires_grad(true)
    local y = pn.batch_norm(x, beta, mean:to "cuda", var:to "cuda", { relu = true })
    y:backward(pn.zeros { 0, 3, 1, 2, 2, device = "cuda" })
    assert.equal(0, y:count())
    assert.same({ 0, 0, 0 }, beta:grad():to("cpu"):totable())
  end)

  it("is found again by recomputation, though the statistics have moved", function()
    local function gradient(recompute)
      local net = pn.nn.sequential { { "norm", pn.nn.batch_norm { channels = 8, mode = "moving", momentum = .5 } },
        { "relu", pn.nn.relu() } }
      net:to("cuda"):train()
      if recompute then net:recompute() end
      local x = activations(1, 8, 2, 3, 4):to("cuda"):requires_grad(true)
      local y = net(x)
      y:backward(helper.counted(y:shape(), 613):contiguous("channels_last"):to "cuda")
      return x:grad():to "cpu"
    end
    helper.assert_same_bits(gradient(true), gradient(false))
  end)

  it("is a part of captured steps; the statistics move each time", function()
    local x = activations(1, 8, 2, 3, 4)
    local function trained(graph)
      local beta, mean, var = statistics(8)
      beta, mean, var = beta:to("cuda"):requires_grad(true), mean:to "cuda", var:to "cuda"
      local step = pn.captured(function(input)
        beta:set_grad(nil)
        local y = pn.batch_norm(input, beta, mean, var, { mode = "moving", update = true, momentum = .5, relu = true })
        y:backward(input)
        return y:detach(), beta:grad()
      end, { device = "cuda", graph = graph })
      local seen = {}
      for i = 1, 5 do
        local y, dbeta = step((x * i):contiguous("channels_last"):to "cuda")
        seen[i] = ("%s %s %s %s"):format(y:crc32c(), dbeta:crc32c(), mean:crc32c(), var:crc32c())
      end
      return seen
    end
    assert.same(trained(false), trained(true))
  end)
end)
