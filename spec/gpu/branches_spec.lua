--- A tensor that several paths leave: a small net with branches, skips, cuts and joins learns the same on the CPU and on a
-- CUDA device, parameter by parameter and step by step; and captured as it stands.

local device = require "spec.gpu.device"
local pn = require "penumbra"
local helper = require "spec.helper"
local nn = pn.nn

-- stem -> b0, b1a -> b1b, pool -> b3, joined in place; its halves and a box of the stem go on; a skip at the end.
local function build()
  return nn.sequential {
    { "stem", nn.conv3d { from = 2, to = 8, kernel = { 1, 3, 3 }, stride = { 1, 2, 2 }, bias = true } },
    { "b0", nn.conv3d { from = 8, to = 4, bias = true } },
    { "b1a", nn.conv3d { from = 8, to = 4, bias = true } },
    { "b1b", nn.conv3d { from = 4, to = 8, kernel = 3, bias = true } },
    { "b3", nn.conv3d { from = 8, to = 4, bias = true } },
    { "left", nn.conv3d { from = 8, to = 4, kernel = { 1, 3, 3 }, bias = true } },
    { "score", nn.conv3d { from = 20, to = 1, bias = true } },
  }:reset(3)
end

local function forward(net, x)
  local function unit(name, t, into) return pn.relu(net[name](t), { into = into }) end
  local stem = unit("stem", x)
  local n, t, h, w = stem:size(1), stem:size(3), stem:size(4), stem:size(5)
  local whole = pn.empty { n, 16, t, h, w, layout = "channels_last", dtype = stem:dtype(),
    device = x:device() }
  local pooled = pn.max_pool3d(stem, { kernel = 3, stride = 1 })
  local mixed = pn.concat(unit("b0", stem, whole:slot(2, 1, 4)), unit("b1b", unit("b1a", stem), whole:slot(2, 5, 8)),
    unit("b3", pooled, whole:slot(2, 13, 4)), { into = whole })
  local left = unit("left", mixed:slice(2, 1, 8))
  local small = pn.max_pool3d(mixed:slice(2, 9, 8), { kernel = 2 })
  local box = pn.crop3d(stem, { first = { 1, 2, 2 }, size = { t, h - 2, w - 2 } })
  local function back(y) return pn.resize3d(y, { size = { t, h, w } }) end
  local joined = pn.concat(left, back(small), back(pn.avg_pool3d(box, { kernel = { 1, 3, 3 }, stride = 1 })), { axis = 2 })
  local score = pn.resize3d(net.score(joined), { size = { x:size(3), x:size(4), x:size(5) } })
  return pn.crop3d(score, { first = { 1, 1, 2 }, size = { x:size(3), x:size(4), x:size(5) - 1 } })
end

local function clip(k) return helper.counted({ 2, 2, 3, 12, 14 }, k):contiguous "channels_last" end

local function mask_of(k)
  local mask = helper.counted({ 2, 1, 3, 12, 13 }, k):to "cpu"
  for i, value in ipairs(mask:flat()) do mask:data()[i - 1] = value > 0.2 and 1 or 0 end
  return mask
end

-- The gradient of every parameter at each of `steps` steps on one device, and the losses.
local function learn(where, steps)
  local net, losses, gradients = build():to(where), {}, {}
  local x, mask = clip():to(where), mask_of(613):to(where)
  local sgd = pn.optim.sgd(net:parameters(), { lr = 0.05, momentum = 0.9 })
  for step = 1, steps do
    pn.scope(function()
      local loss = pn.loss.balanced(forward(net, x), mask)
      sgd:zero_grad()
      loss:backward()
      gradients[step] = {}
      for _, p in ipairs(net:parameters()) do gradients[step][p.name] = p.tensor:grad():to("cpu"):clone():keep() end
      sgd:step()
      losses[step] = loss:item()
    end)
  end
  return losses, gradients
end

describe("on a CUDA device, a net with branches", function()
  it("learns what it learns on the CPU", function()
    local steps = 4
    local losses, gradients = learn("cpu", steps)
    local there_losses, there = learn("cuda", steps)
    assert.is_true(losses[steps] < 0.95 * losses[1])
    for step = 1, steps do
      helper.assert_close({ there_losses[step] }, { losses[step] }, 10 * device.tolerance[pn.real])
      for name, gradient in pairs(gradients[step]) do
        helper.assert_close(there[step][name], gradient, 10 * device.tolerance[pn.real], ("step %d, %s"):format(step, name))
      end
    end
  end)

  for precision, tolerance in pairs(pn.real == "f32" and { bf16 = 2e-2, fp16 = 3e-3 } or {}) do
    it("learns much the same in " .. precision, function()
      local losses, gradients = learn("cpu", 3)
      pn.precision(precision, "cuda")
      local ok, there_losses, there = pcall(learn, "cuda", 3)
      pn.precision("f32", "cuda")
      assert(ok, there_losses)
      for step = 1, 3 do
        helper.assert_close({ there_losses[step] }, { losses[step] }, tolerance)
        for name, gradient in pairs(gradients[step]) do
          helper.assert_close(there[step][name], gradient, 5 * tolerance, ("step %d, %s"):format(step, name))
        end
      end
    end)
  end

  it("is captured as it stands", function()
    local net = build():to "cuda"
    local function gradients(x, mask)
      for _, p in ipairs(net:parameters()) do p.tensor:set_grad(nil) end
      local loss = pn.loss.balanced(forward(net, x), mask)
      loss:backward()
      return loss:detach()
    end
    local step = pn.captured(gradients, { device = "cuda" })
    for i = 1, 5 do
      pn.scope(function()
        local x, mask = clip(100 + i):to "cuda", mask_of(600 + i):to "cuda"
        local loss = step(x, mask)
        local made = {}
        for _, p in ipairs(net:parameters()) do made[p.name] = p.tensor:grad():to "cpu" end
        local again = gradients(x, mask)
        helper.assert_same_bits(loss:to "cpu", again:to "cpu", "loss")
        for _, p in ipairs(net:parameters()) do helper.assert_same_bits(made[p.name], p.tensor:grad():to "cpu", p.name) end
      end)
    end
    assert.equal(1, step:count())
  end)
end)
