--- Optimisers on a CUDA device against the CPU's: every convention, many tensors of every size, memory that is not aligned, norms
-- and clipping, what is not finite, rates that change in captured steps.

require "spec.gpu.device"
local pn = require "penumbra"
local helper = require "spec.helper"
local ffi = require "ffi"

local TOLERANCE = pn.real == "f64" and 1e-13 or 2e-6
local SIZES = { 5, 10007, 0, 4096, 1, 8192, 33 }

local function falling(step) return step < 2 and .1 or .02 end

local rules = {
  plain = { "sgd", { lr = .1, weight_decay = .01 } },
  momentum = { "sgd", { lr = falling, momentum = .9, weight_decay = .01 } },
  dampening = { "sgd", { lr = .1, momentum = .9, dampening = .5, clip_norm = 1 } },
  nesterov = { "sgd", { lr = falling, momentum = .9, nesterov = true, weight_decay = .01 } },
  torch7 = { "sgd", { lr = .1, momentum = .9, convention = "torch7" } },
  caffe = { "sgd", { lr = falling, momentum = .9, weight_decay = .01, convention = "caffe" } },
  ["caffe, nesterov"] = { "sgd", { lr = .1, momentum = .9, nesterov = true, convention = "caffe" } },
  adam = { "adam", { lr = falling, weight_decay = .01, clip_norm = 2 } },
  adamw = { "adam", { lr = .1, weight_decay = .01, decoupled = true, beta1 = .8 } },
}

local function normal(name, ...) return pn.random.stream(1, name):fill(pn.empty { ... }, "normal") end

-- Parameters of many sizes, and enough of them for several tables; one in another memory order than its gradient; one not aligned.
local function parameters(where)
  local list = {}
  for i, n in ipairs(SIZES) do list[i] = normal("w" .. i, n):to(where) end
  list[#list + 1] = normal("filter", 4, 3, 2, 2, 2):contiguous("filter"):to(where)
  list[#list + 1] = normal("odd", 4104):to(where):slice(1, 2, 4103):detach()
  for i = 1, 60 do list[#list + 1] = normal("many" .. i, i):to(where) end
  for _, p in ipairs(list) do p:requires_grad(true) end
  return list
end

local function gradients(where, turn, params)
  for i, p in ipairs(params) do p:set_grad(normal(("g%d of %d"):format(i, turn), unpack(p:shape())):to(where)) end
end

local function trajectory(where, rule)
  local params, norms = parameters(where), {}
  local optimiser = pn.optim[rule[1]](params, rule[2])
  for turn = 1, 4 do
    gradients(where, turn, params)
    norms[turn] = optimiser:step()
  end
  return params, norms, optimiser
end

local function compare(params, expected, what)
  for i, p in ipairs(params) do
    if p:count() > 0 then helper.assert_close(p:to "cpu", expected[i]:to "cpu", TOLERANCE, ("%s: parameter %d"):format(what, i)) end
  end
end

describe("an optimiser on a device", function()
  for name, rule in pairs(rules) do
    it("goes the way of the CPU, to equal bits each time: " .. name, function()
      local here, norms, optimiser = trajectory("cpu", rule)
      local there, cuda_norms, cuda_optimiser = trajectory("cuda", rule)
      compare(there, here, name)
      helper.assert_close(cuda_norms, norms, TOLERANCE)
      local state, cuda_state = optimiser:state(), cuda_optimiser:state()
      assert.same(state.numbers, cuda_state.numbers)
      for key, t in pairs(state.tensors) do
        assert.equal("cuda:0", cuda_state.tensors[key]:device())
        if t:count() > 0 then helper.assert_close(cuda_state.tensors[key]:to "cpu", t, TOLERANCE, key) end
      end
      local again = trajectory("cuda", rule)
      for i, p in ipairs(there) do helper.assert_same_bits(p:to "cpu", again[i]:to "cpu") end
    end)
  end

  it("sums squares tensor by tensor", function()
    local params = parameters "cuda"
    local list, sums = ffi.new("pn_tensor *[?]", #params), ffi.new("double [?]", #params)
    for i, p in ipairs(params) do list[i - 1] = p.p end
    pn.ffi.check(pn.C.pn_sum_squares(list, #params, sums))
    for i, p in ipairs(params) do
      local sum = 0
      for _, v in ipairs(p:to("cpu"):flat()) do sum = sum + v * v end
      helper.assert_close(sums[i - 1], sum, 1e-12)
    end
  end)

  it("names the gradient that is not finite, and changes nothing", function()
    local function cuda(values) return pn.tensor(values):to "cuda" end
    local p, q = cuda { 1, -2 }:requires_grad(true), cuda { 3 }:requires_grad(true)
    local sgd = pn.optim.sgd({ { name = "a.weight", tensor = p }, { name = "b.weight", tensor = q } },
      { lr = 1, momentum = .9, dampening = .5 })
    p:set_grad(cuda { 1, 1 })
    q:set_grad(cuda { 1 / 0 })
    helper.failure(function() sgd:step() end, "sgd: the gradient of 'b.weight' is not finite (step 1)")
    helper.failure(function() sgd:grad_norm() end, "sgd: the gradient of 'b.weight' is not finite (step 1)")
    assert.same({ 1, -2 }, p:to("cpu"):totable())
    assert.same({}, sgd:state().tensors)
    q:set_grad(cuda { 2 })
    assert.is_true(math.abs(sgd:step() - math.sqrt(6)) < 1e-6)
    assert.same({ 1 }, q:to("cpu"):totable()) -- the first step's buffer is the gradient, undampened
  end)

  it("refuses tensors of several devices, and gradients of another type", function()
    local p, q = pn.ones({ 1 }):to("cuda"):requires_grad(true), pn.ones({ 1 }):requires_grad(true)
    for _, t in ipairs { p, q } do t:set_grad(pn.ones({ 1 }):to(t:device())) end
    helper.failure(function() pn.optim.sgd({ p, q }, { lr = 1 }):step() end, "grad_verdict: tensors of several devices")
    local bf16 = p:grad():cast "bf16"
    local entry = ffi.new("pn_sgd_entry [1]", { { param = p.p, grad = bf16.p } })
    assert.equal(-1, pn.C.pn_sgd_step(entry, 1, ffi.new "pn_sgd"))
    assert.equal("sgd_step: the gradient is bf16, the parameter " .. pn.real, pn.ffi.message())
    assert.equal(-1, pn.C.pn_sum_squares(ffi.new("pn_tensor *[1]", { bf16.p }), 1, ffi.new "double [1]"))
    assert.equal("sum_squares: bf16, expected " .. pn.real, pn.ffi.message())
  end)
end)

describe("an optimiser in a captured step", function()
  for name, rule in pairs(rules) do
    it("steps as if it were not captured, at the rates of each time: " .. name, function()
      local function run(graph)
        local p = pn.tensor({ 1, -2, 3 }):to("cuda"):requires_grad(true)
        local optimiser = pn.optim[rule[1]]({ p }, rule[2])
        local norms = {}
        local step = pn.captured(function(g)
          p:set_grad(g)
          norms[#norms + 1] = optimiser:step() or "later"
          return g
        end, { device = "cuda", graph = graph })
        for turn = 1, 7 do
          if turn == 6 then optimiser:set_lr(.5) end
          step(normal("g" .. turn, 3):to "cuda")
        end
        return p:to "cpu", optimiser, norms, step
      end
      local p, optimiser = run(false)
      local q, captured, norms, step = run(true)
      helper.assert_same_bits(p, q)
      assert.equal(1, step:count())
      assert.equal("later", norms[3])
      assert.equal(3, #norms)
      assert.same(optimiser:state().numbers, captured:state().numbers)
      for key, t in pairs(optimiser:state().tensors) do
        helper.assert_same_bits(t:to "cpu", captured:state().tensors[key]:to "cpu", key)
      end
    end)
  end

  it("says at the call which gradient was not finite, takes no step, and goes on", function()
    local p = pn.ones({ 2 }):to("cuda"):requires_grad(true)
    local sgd = pn.optim.sgd({ { name = "w", tensor = p } }, { lr = .5, momentum = .5 })
    local step = pn.captured(function(g)
      p:set_grad(g)
      sgd:step()
      return g
    end, { device = "cuda" })
    local function cuda(a, b) return pn.tensor({ a, b }):to "cuda" end
    for _ = 1, 4 do step(cuda(0, 0)) end
    helper.failure(function() step(cuda(1, 0 / 0)) end, "sgd: the gradient of 'w' is not finite (step 5)")
    assert.same({ 1, 1 }, p:to("cpu"):totable())
    assert.equal(4, sgd.n_steps)
    step(cuda(1, 0))
    assert.same({ .5, 1 }, p:to("cpu"):totable())
  end)

  it("is refused where no parameter has a gradient", function()
    local p = pn.ones({ 2 }):to("cuda"):requires_grad(true)
    local sgd = pn.optim.sgd({ { name = "w", tensor = p } }, { lr = .5, momentum = .5 })
    local calls = 0
    local step = pn.captured(function(g)
      calls = calls + 1
      p:set_grad(calls < 3 and g or nil)
      sgd:step()
      return g
    end, { device = "cuda" })
    local g = pn.ones({ 2 }):to "cuda"
    for _ = 1, 2 do step(g) end
    helper.failure(function() step(g) end, "sgd: no parameter has a gradient: backward() was not called, or reaches none")
    p:set_grad(g)
    sgd:step()
    assert.equal(3, sgd.n_steps)
  end)

  it("cannot begin there", function()
    local p = pn.ones({ 2 }):to("cuda"):requires_grad(true)
    local sgd = pn.optim.sgd({ { name = "w", tensor = p } }, { lr = .5, momentum = .5 })
    local calls = 0
    local step = pn.captured(function(g)
      calls = calls + 1
      p:set_grad(g)
      if calls > 2 then sgd:step() end
      return g
    end, { device = "cuda" })
    local g = pn.ones({ 2 }):to "cuda"
    for _ = 1, 2 do step(g) end
    helper.failure(function() step(g) end, "sgd: the first step of 'w' cannot be captured: take it before")
    assert.same({ 1, 1 }, p:to("cpu"):totable())
    sgd:step()
    assert.same({ .5, .5 }, p:to("cpu"):totable())
  end)
end)
