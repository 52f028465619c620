--- The loss scaler: what it changes (nothing, where all is finite), what it leaves out, how the scale moves; on the CPU, on a
-- device, and in captured steps.

require "spec.gpu.device"
local pn = require "penumbra"
local helper = require "spec.helper"

local GRADIENTS = { { .1, .2, -.3 }, { -.4, .5, .6 }, { .7, -.8, .05 }, { -.15, .25, .35 }, { .3, .3, -.2 }, { .01, -.02, .4 } }

local optimisers = {
  sgd = function(params) return pn.optim.sgd(params, { lr = .1, momentum = .9, dampening = .5, clip_norm = .8 }) end,
  caffe = function(params) return pn.optim.sgd(params, { lr = .1, momentum = .9, weight_decay = .1, convention = "caffe" }) end,
  adam = function(params) return pn.optim.adam(params, { lr = .1, weight_decay = .01 }) end,
}

-- Steps over the gradients; `spoil` names the turns whose gradient is not finite. Without a scaler those are left out.
local function trained(make, where, scaler, spoil)
  local p = pn.tensor({ 1, -2, 3 }):to(where):requires_grad(true)
  local optimiser, norms = make { p }, {}
  local w = pn.empty { 3, device = where }
  local function turn()
    optimiser:zero_grad()
    local loss = pn.sum(p * w)
    if not scaler then
      loss:backward()
      return optimiser:step()
    end
    scaler:backward(loss)
    return scaler:step(optimiser)
  end
  for i, g in ipairs(GRADIENTS) do
    w:copy(pn.tensor(g))
    if spoil and spoil[i] then w:fill(1 / 0) end
    if scaler or not (spoil and spoil[i]) then norms[#norms + 1] = turn() end
  end
  return p:to "cpu", norms, optimiser
end

for _, where in ipairs { "cpu", "cuda" } do
  describe("a loss scaler on " .. where, function()
    for name, make in pairs(optimisers) do
      it("of a power of two changes no bit: " .. name, function()
        local p, norms, optimiser = trained(make, where)
        local q, scaled_norms, scaled = trained(make, where, pn.optim.scaler { start = 2 ^ 12, grow_every = 2 })
        helper.assert_same_bits(p, q)
        assert.same(norms, scaled_norms)
        assert.equal(optimiser.n_steps, scaled.n_steps)
      end)

      it("leaves out a step that is not finite, the first too: " .. name, function()
        for _, spoil in ipairs { { true }, { false, false, true, true }, { true, false, false, false, false, true } } do
          local scaler = pn.optim.scaler { start = 1024 }
          local p, norms, optimiser = trained(make, where, nil, spoil)
          local q, scaled_norms, scaled = trained(make, where, scaler, spoil)
          helper.assert_same_bits(p, q)
          assert.same(norms, scaled_norms)
          assert.same(optimiser:state().numbers, scaled:state().numbers)
          assert.equal(#GRADIENTS - #norms, scaler.n_skipped)
          assert.equal(1024 / 2 ^ scaler.n_skipped, scaler.scale)
        end
      end)
    end

    it("grows after so many good steps, and not beyond the most", function()
      local scaler = pn.optim.scaler { start = 4, factor = 4, grow_every = 3, most = 8 }
      trained(optimisers.sgd, where, scaler, { false, true })
      assert.same({ 4, 1 }, { scaler.scale, scaler.n_good }) -- 4, halved by 4, three good ones, one more
      trained(optimisers.sgd, where, scaler)
      assert.same({ 8, 1 }, { scaler.scale, scaler.n_good })
    end)

    it("at its least says which gradient is not finite", function()
      local p, q = pn.tensor({ 1 }):to(where):requires_grad(true), pn.tensor({ 2 }):to(where):requires_grad(true)
      local optimiser = pn.optim.sgd({ { name = "a.weight", tensor = p }, { name = "b.weight", tensor = q } }, { lr = 1 })
      local scaler = pn.optim.scaler { start = 1 }
      scaler:backward(pn.sum(p + q * pn.full { 1, value = 0 / 0, device = where }))
      helper.failure(function() scaler:step(optimiser) end, "sgd: the gradient of 'b.weight' is not finite (step 1)")
      assert.equal(1, p:item())
    end)
  end)
end

describe("a loss scaler in a captured step", function()
  -- Forward, backward and step; `whole` false: the step outside, as the recipes have it.
  local function run(make, graph, whole)
    local p = pn.tensor({ 1, -2, 3 }):to("cuda"):requires_grad(true)
    local optimiser, scaler = make { p }, pn.optim.scaler { start = 256, grow_every = 3 }
    local scales = {}
    local step = pn.captured(function(w)
      optimiser:zero_grad()
      scaler:backward(pn.sum(p * w))
      if whole then scaler:step(optimiser) end
      return w
    end, { device = "cuda", graph = graph })
    for round = 1, 2 do
      for i, g in ipairs(GRADIENTS) do
        local spoilt = round == 1 and i == 4 or round == 2 and i == 2
        step(spoilt and pn.full { 3, value = 1 / 0, device = "cuda" } or pn.tensor(g):to "cuda")
        if not whole then scaler:step(optimiser) end
        scales[#scales + 1] = scaler.scale
      end
    end
    assert.equal(graph and 1 or 0, step:count())
    return p:to "cpu", scales, optimiser
  end

  for name, make in pairs(optimisers) do
    it("does what it does outside one: " .. name, function()
      local p, scales, optimiser = run(make, false, true)
      assert.same({ 256, 256, 512, 256, 256, 256, 512, 256, 256, 256, 512, 512 }, scales)
      for _, whole in ipairs { true, false } do
        local q, captured_scales, captured = run(make, true, whole)
        helper.assert_same_bits(p, q)
        assert.same(scales, captured_scales)
        assert.same(optimiser:state().numbers, captured:state().numbers)
      end
    end)
  end
end)

describe("a loss scaler", function()
  it("takes losses of one element with axes, several before a step, and options of backward", function()
    local p = pn.tensor({ 1, 2 }):requires_grad(true)
    local scaler, sgd = pn.optim.scaler { start = 8 }, pn.optim.sgd({ p }, { lr = 1 })
    local loss = pn.sum(p):reshape(1, 1)
    scaler:backward(loss, { keep_graph = true })
    scaler:backward(loss)
    assert.same({ 16, 16 }, p:grad():totable())
    scaler:step(sgd)
    assert.same({ -1, 0 }, p:totable())
  end)

  it("that is off is the plain way", function()
    local p = pn.tensor({ 1, 2 }):requires_grad(true)
    local scaler, sgd = pn.optim.scaler { on = false }, pn.optim.sgd({ p }, { lr = 1 })
    scaler:backward(pn.sum(p))
    assert.same({ 1, 1 }, p:grad():totable())
    assert.is_true(math.abs(scaler:step(sgd) - math.sqrt(2)) < 1e-6)
  end)

  it("has no step without a gradient, on or off", function()
    for _, on in ipairs { true, false } do
      local sgd = pn.optim.sgd({ pn.ones({ 1 }):requires_grad(true) }, { lr = 1 })
      helper.failure(function() pn.optim.scaler({ on = on }):step(sgd) end, "sgd: no parameter has a gradient")
    end
  end)

  it("goes on from its state", function()
    local scaler = pn.optim.scaler { start = 64 }
    trained(optimisers.sgd, "cpu", scaler, { true })
    local other = pn.optim.scaler():load_state(scaler:state())
    assert.same({ 32, 5, 1 }, { other.scale, other.n_good, other.n_skipped })
    helper.failure(function() other:load_state {} end, "scaler: load_state: not a state of a scaler")
  end)

  it("says what it does not understand", function()
    helper.failure(function() pn.optim.scaler { begin = 1 } end, "scaler: unknown option 'begin'")
    helper.failure(function() pn.optim.scaler { start = 0 } end, "scaler: start is 0, expects a number from 1 to 4.29497e+09")
    helper.failure(function() pn.optim.scaler { factor = 1 } end, "scaler: factor is 1, expects a number from 1.0001")
    helper.failure(function() pn.optim.scaler { grow_every = "x" } end, "scaler: grow_every is x")
  end)
end)
