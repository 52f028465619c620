--- custom_spec: operations that a script defines, their gradients against differences and hand values; clone and to; writes in
-- place that would make a gradient wrong.
local pn = require "penumbra"
local helper = require "spec.helper"

local function swish()
  return pn.custom {
    name = "swish",
    forward = function(ctx, x, slope)
      local s = pn.sigmoid(slope * x)
      ctx:save(x, s)
      ctx.slope = slope
      return x * s
    end,
    backward = function(ctx, dy)
      local x, s = ctx:saved()
      return dy * (s + ctx.slope * x * s * (1 - s))
    end,
  }
end

describe("an operation of one's own", function()
  local x
  before_each(function() x = helper.random({ 2, 3 }, "x") end)

  it("has its forward's values and its backward's gradient", function()
    local f = swish()
    helper.assert_close(f(x, 2), x * pn.sigmoid(2 * x), 1e-6)
    pn.check_gradient(function(a) return f(a, 2) end, x)
    pn.check_gradient(function(a) return pn.exp(f(a * 3, 1)) * a end, x) -- amid others
  end)

  it("may take several tensors and give several, not all of which need a gradient", function()
    local seen
    local f = pn.custom {
      forward = function(ctx, a, b)
        ctx:save(a, b)
        return a * b, a + b
      end,
      backward = function(ctx, dproduct, dsum)
        local a, b = ctx:saved()
        seen = { dproduct:flat(), dsum:flat() }
        return dproduct * b + dsum, dproduct * a + dsum
      end,
    }
    local a, b = pn.tensor({ 2, 3 }):requires_grad(true), pn.tensor { 5, 7 }
    local product, sum = f(a, b)
    assert.same({ 10, 21 }, product:flat())
    pn.sum(product):backward { keep_graph = true }
    assert.same({ { 1, 1 }, { 0, 0 } }, seen) -- nothing flowed into the sum
    assert.same({ 5, 7 }, a:grad():flat())
    assert.is_nil(b:grad())
    pn.sum(sum):backward()
    assert.same({ 6, 8 }, a:grad():flat())
    pn.check_gradient(f, helper.random({ 3 }, "a"), helper.random({ 3 }, "b"))
  end)

  it("passes nothing on where backward gives nil, and is not asked where nothing wants it", function()
    local asked = 0
    local f = pn.custom { forward = function(_, a) return a end, backward = function() asked = asked + 1 end }
    local a = pn.ones({ 2 }):requires_grad(true)
    assert.is_false(f(pn.ones { 2 }):requires_grad())
    assert.is_false(pn.no_grad(function() return f(a):requires_grad() end))
    assert.equal(0, asked)
    pn.sum(f(a) + a):backward()
    assert.equal(1, asked)
    assert.same({ 1, 1 }, a:grad():flat())
  end)

  it("adds what flows into a tensor that is given twice", function()
    local f = pn.custom { forward = function(_, a, b) return a + b end, backward = function(_, dy) return dy, dy * 10 end }
    local a = pn.ones({ 2 }):requires_grad(true)
    pn.sum(f(a, a)):backward()
    assert.same({ 11, 11 }, a:grad():flat())
  end)

  it("works inside scopes and modules, recomputed or not, and leaves nothing behind", function()
    local nn, f = pn.nn, swish()
    local Block = nn.class "block"
    function Block:new() self.conv = nn.conv3d { from = 2, to = 2, kernel = 1 } end
    function Block:forward(a) return pn.relu(f(self.conv(f(a, 1)), 2) + 1) end
    local clip = helper.random({ 1, 2, 4, 8, 8 }, "clip"):contiguous "channels_last" -- recompute leaves what is small
    local slopes = {}
    for i, again in ipairs { false, true } do
      local net = nn.sequential { Block {}, Block {} }:reset(3)
      if again then net:recompute() end
      pn.scope(function() pn.sum(pn.square(net(clip))):backward() end)
      slopes[i] = net:parameters()[1].tensor:grad()
    end
    helper.assert_same_bits(slopes[1], slopes[2])
    f(x:requires_grad(true), 1):sum():backward()
    collectgarbage()
    collectgarbage()
    f(x, 1)
    local before = pn.memory().tensors
    for _ = 1, 20 do pn.scope(function() f(x, 1):sum():backward() end) end
    f(x:detach(), 1):free()
    collectgarbage()
    collectgarbage()
    assert.is_true(pn.memory().tensors <= before + 4, pn.memory().tensors - before .. " tensors more")
  end)

  it("goes backward twice where the graph is kept", function()
    local a = pn.tensor({ 3 }):requires_grad(true)
    local loss = swish()(a, 1)
    loss:backward { keep_graph = true }
    local once = a:grad():item()
    loss:backward()
    assert.near(2 * once, a:grad():item(), 1e-6)
  end)

  it("says what it is not given, or does not give", function()
    local a = pn.ones({ 2 }):requires_grad(true)
    local function one(forward, backward) return pn.custom { name = "mine", forward = forward, backward = backward } end
    local function same(_, t) return t * 1 end
    for _, case in ipairs {
      { function() pn.custom { forward = same } end, "custom: backward is missing" },
      { function() pn.custom { forward = 2, backward = same } end, "custom: forward is a number, expects a function" },
      { function() pn.custom { forwards = same } end, "custom: unknown option 'forwards', did you mean 'forward'?" },
      { function() one(function() end, same)(a) end, "mine: forward returned nothing, expects 1 to 8 tensors" },
      { function() one(function() return 2 end, same)(a) end, "mine: forward returned a number as result 1, expects a tensor" },
      { function() one(function(_, t) return t:detach():cast "u8" end, same)(a) end,
        "mine: result 1 is u8, which has no gradient" },
      { function() one(function(ctx) ctx:save(3) end, same)(a) end, "mine: ctx:save: value 1 is a number, expects a tensor" },
      { function() one(same, function() return 2 end)(a):sum():backward() end,
        "mine: backward gave a number for input 1, expects a tensor or nil" },
      { function() one(same, function(_, dy) return dy, dy end)(a):sum():backward() end,
        "mine: backward gave 2 gradients, forward took 1 tensor" },
      { function() one(same, function() return pn.ones { 3 } end)(a):sum():backward() end,
        ("mine: backward gave %s 3 for input 1, which is %s 2"):format(pn.real, pn.real) },
      { function() one(same, function(_, dy) return dy:cast "i32" end)(a):sum():backward() end,
        "mine: backward gave i32 2 for input 1" },
      { function() one(same, function() error "no such slope" end)(a):sum():backward() end, "no such slope" },
      { function() one(same, function(_, dy) return dy + pn.ones { 5 } end)(a):sum():backward() end, "do not broadcast" },
    } do
      local message = helper.failure(case[1], case[2])
      assert.truthy(message:find "^spec/custom_spec.lua:%d+: ", message)
    end
    assert.is_true(pn.recording()) -- also after what failed
    assert.equal(0, require("penumbra.scope").depth())
  end)
end)

describe("a checked gradient", function()
  it("is held against differences, and a wrong one is named", function()
    local x = pn.tensor { 1, 2, 4 }
    assert.is_true(pn.check_gradient(pn.square, x) < 1e-2)
    assert.is_true(pn.check_gradient(pn.mul, x, x + 1, { step = 1e-2 }) < 1e-2)
    local wrong = pn.custom { forward = function(_, a) return a * a end, backward = function(_, dy) return dy * 2 end }
    helper.failure(function() pn.check_gradient(wrong, x) end, "check_gradient: input 1, element 3: backward says ")
    assert.same({ 1, 2, 4 }, x:flat())
    assert.equal(0, pn.check_gradient(function(a) return pn.softmax(a, { axis = 1 }):sum() end, x)) -- no slope but rounding
    assert.equal(0, pn.check_gradient(function(a) return a * 0 end, x))
    for _, case in ipairs {
      { function() pn.check_gradient(x) end, "check_gradient: f is a cdata, expects a function" },
      { function() pn.check_gradient(pn.square, 3) end, "check_gradient: input 1 is a number, expects a tensor" },
      { function() pn.check_gradient(pn.square, x, { eps = 1 }) end, "check_gradient: unknown option 'eps'" },
    } do helper.failure(case[1], case[2]) end
  end)
end)

describe("copies", function()
  it("carry gradients", function()
    local a = pn.tensor({ 1, 2, 3 }):requires_grad(true)
    local y = a * 2
    pn.sum(y + y:clone() * 2):backward()
    assert.same({ 6, 6, 6 }, a:grad():flat())
    assert.is_false(a:detach():clone():requires_grad())
    local whole = helper.random({ 1, 3, 2, 2, 2 }, "whole"):contiguous "channels_last"
    assert.is_true(whole:requires_grad(true):clone():is_dense "channels_last")
  end)

  it("that carry none are refused where one is wanted", function()
    local a = pn.ones({ 2 }):requires_grad(true)
    helper.failure(function() pn.zeros({ 2 }):copy(a * 2) end,
      "copy: the source wants a gradient, which does not flow through copy")
    assert.same({ 2, 2 }, pn.zeros({ 2 }):copy((a * 2):detach()):flat())
    assert.same({ 2, 2 }, pn.no_grad(function() return pn.zeros({ 2 }):copy(a * 2) end):flat())
  end)
end)

describe("a write into a result", function()
  it("is refused while history is recorded", function()
    local a = pn.tensor({ 1, 2, 3 }):requires_grad(true)
    local b = a * 2
    local wrong = ": this tensor is the result of "
    for _, case in ipairs {
      { function() b:fill(5) end, "fill" .. wrong .. "scale, and its gradient would be wrong: write inside no_grad" },
      { function() b:set(5, 1) end, "set" .. wrong .. "scale" },
      { function() b:copy { 1, 2, 3 } end, "copy" .. wrong .. "scale" },
      { function() b:copy(pn.ones { 3 }) end, "copy" .. wrong .. "scale" },
      { function() b:slice(1, 1, 1):fill(5) end, "fill" .. wrong .. "slice" },
      { function() a[1]:fill(5) end, "fill" .. wrong .. "reshape" },
      { function() pn.random.stream(1):fill(b, "normal") end, "fill" .. wrong .. "scale" },
      { function() pn.exp(pn.zeros { 3 }, { into = b }) end, "exp: the destination already takes part in a gradient" },
    } do
      local message = helper.failure(case[1], case[2])
      assert.truthy(message:find "^spec/custom_spec.lua:%d+: ", message)
    end
    assert.same({ 2, 4, 6 }, b:flat())
    a:fill(7):set(8, 1) -- a leaf: what is made of it later has the gradient of its new values
    pn.no_grad(function() b:fill(1) end)
    b:detach():fill(2)
    assert.same({ 8, 7, 7 }, a:flat())
  end)
end)
