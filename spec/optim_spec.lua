--- Optimisers against PyTorch's numbers (torch.optim on the same gradients, in f64), and Caffe's by its rule.
-- The f64 build holds them to 1e-10.

local pn = require "penumbra"
local helper = require "spec.helper"

local TOLERANCE = pn.real == "f64" and 1e-10 or 2e-6
local GRADIENTS = { { .1, .2, -.3 }, { -.4, .5, .6 }, { .7, -.8, .05 }, { -.15, .25, .35 } }

local function parameter()
  return pn.tensor { 1, -2, 3 }:requires_grad(true)
end

local function run(make, from, to, p, optimiser)
  p = p or parameter()
  optimiser = optimiser or make { { name = "p", tensor = p } }
  for i = from or 1, to or #GRADIENTS do
    p:set_grad(pn.tensor(GRADIENTS[i]))
    optimiser:step()
  end
  return p, optimiser
end

local function sgd(options)
  return function(params)
    return pn.optim.sgd(params, options)
  end
end

local function adam(options)
  return function(params)
    return pn.optim.adam(params, options)
  end
end

describe("sgd", function()
  local cases = {
    { "plain", { lr = .1 }, { 0.975, -2.015, 2.93 } },
    { "weight decay", { lr = .1, weight_decay = .01 }, { 0.971026006011, -2.00693210198, 2.91805301797 } },
    { "momentum", { lr = .1, momentum = .9 }, { 0.95601, -2.07728, 2.89607 } },
    { "dampening", { lr = .1, momentum = .9, dampening = .5 }, { 0.96081, -2.07303, 2.99962 } },
    { "nesterov", { lr = .1, momentum = .9, nesterov = true, weight_decay = .01 },
      { 0.923344068102, -2.05969895188, 2.80015758186 } },
    { "torch7: dampening is the momentum", { lr = .1, momentum = .9, convention = "torch7" }, { 0.96465, -2.06963, 3.08246 } },
    { "caffe, nesterov, at one rate, is PyTorch's",
      { lr = .1, momentum = .9, nesterov = true, weight_decay = .01, convention = "caffe" },
      { 0.923344068102, -2.05969895188, 2.80015758186 } },
  }
  for _, case in ipairs(cases) do
    it("steps as PyTorch does: " .. case[1], function()
      helper.assert_close(run(sgd(case[2])), case[3], TOLERANCE)
    end)
  end

  local function falling(step)
    return step < 2 and .1 or .01
  end

  it("takes a schedule; a change of rate acts at once in PyTorch's convention", function()
    helper.assert_close(run(sgd { lr = falling, momentum = .9 }), { 1.014501, -2.086928, 2.986907 }, TOLERANCE)
  end)

  it("takes a schedule; in Caffe's convention the momentum remembers the old rate", function()
    helper.assert_close(run(sgd { lr = falling, momentum = .9, weight_decay = .01, convention = "caffe" }),
      { 1.055793648, -2.17862443166, 2.91673679614 }, TOLERANCE)
  end)

  it("clips the norm of all gradients together, and returns it", function()
    local p, q = parameter(), pn.tensor { 0 }:requires_grad(true)
    local optimiser = pn.optim.sgd({ p, q }, { lr = 1, clip_norm = 1 })
    p:set_grad(pn.tensor { 3, 0, 0 })
    q:set_grad(pn.tensor { 4 })
    assert.is_true(math.abs(optimiser:step() - 5) < 1e-6)
    helper.assert_close(p, { 1 - 3 / 5, -2, 3 }, 1e-6)
    helper.assert_close(q, { -4 / 5 }, 1e-6)
    helper.assert_close(run(sgd { lr = .1, clip_norm = .5 }), { 0.9949032512215337, -2.035902868108674, 2.9584626633019315 },
      2e-6)
  end)

  it("has groups with rates and decays of their own", function()
    local p, q = parameter(), parameter()
    local optimiser = pn.optim.sgd({ { params = { p }, lr_scale = 2, weight_decay = 0 }, { params = { { name = "q",
      tensor = q } } } },
      { lr = .1, weight_decay = .5 })
    p:set_grad(pn.tensor { 1, 1, 1 })
    q:set_grad(pn.tensor { 1, 1, 1 })
    optimiser:step()
    helper.assert_close(p, { .8, -2.2, 2.8 }, 1e-6)
    helper.assert_close(q, { 1 - .1 * 1.5, -2 - .1 * 0, 3 - .1 * 2.5 }, 1e-6)
  end)

  it("leaves alone what is frozen and what no gradient reached", function()
    local p, q = parameter(), parameter()
    local optimiser = pn.optim.sgd({ p, q }, { lr = 1, momentum = .9, weight_decay = 1 })
    q:set_grad(pn.tensor { 1, 1, 1 })
    q:requires_grad(false)
    optimiser:step()
    assert.same({ 1, -2, 3 }, p:totable())
    assert.same({ 1, -2, 3 }, q:totable())
  end)

  it("takes a gradient in another memory order", function()
    local p = pn.random.stream(1, "w"):fill(pn.empty { 4, 3, 2, 2, 2, layout = "filter" }, "normal")
    local q = pn.empty { 4, 3, 2, 2, 2 }:copy(p):requires_grad(true)
    p:requires_grad(true)
    local g = pn.random.stream(1, "g"):fill(pn.empty { 4, 3, 2, 2, 2 }, "normal")
    p:set_grad(g)
    q:set_grad(g)
    pn.optim.sgd({ p, q }, { lr = .1, momentum = .9 }):step()
    assert.same(q:flat(), p:flat())
  end)

  -- Parameters of many blocks, of a few elements and of none; the norm and the parameters after two steps.
  local function two_steps(make)
    local params = {}
    for i, n in ipairs { 5, 100003, 0, 16384, 1, 33000 } do
      params[i] = pn.random.stream(i, "w"):fill(pn.empty { n }, "normal"):requires_grad(true)
    end
    local optimiser, norm = make(params), nil
    for step = 1, 2 do
      for i, p in ipairs(params) do
        p:set_grad(pn.random.stream(i + 10 * step, "g"):fill(pn.empty { p:count() }, "normal"))
      end
      norm = optimiser:step()
    end
    return norm, params
  end

  local rules = {
    sgd { lr = .1 }, sgd { lr = .1, momentum = .9, weight_decay = .01, clip_norm = 1 },
    sgd { lr = .1, momentum = .9, nesterov = true }, sgd { lr = .1, momentum = .9, convention = "caffe" },
    adam { lr = .1, clip_norm = 1 },
  }

  it("does not depend on the number of threads", function()
    local threads = pn.threads()
    for i, make in ipairs(rules) do
      local sums = {}
      for _, n in ipairs { 1, 3 } do
        pn.threads(n)
        local norm, params = two_steps(make)
        sums[#sums + 1] = ("%.17g"):format(norm)
        for _, p in ipairs(params) do
          sums[#sums] = sums[#sums] .. " " .. p:crc32c()
        end
      end
      pn.threads(threads)
      assert.equal(sums[1], sums[2], "rule " .. i)
    end
  end)

  for _, variant in ipairs { "avx2", "avx512" } do
    it("does the same with " .. variant .. " as without", function()
      local C, best = pn.C, require("ffi").string(pn.C.pn_cpu_variant())
      if C.pn_set_cpu_variant(variant) ~= 0 then
        pending("this CPU has no " .. variant)
        return
      end
      for i, make in ipairs(rules) do
        assert.equal(0, C.pn_set_cpu_variant(variant))
        local fast_norm, fast = two_steps(make)
        assert.equal(0, C.pn_set_cpu_variant("plain"))
        local norm, plain = two_steps(make)
        assert.is_true(math.abs(fast_norm / norm - 1) < 1e-7)
        for k, p in ipairs(fast) do
          if p:count() > 0 then
            helper.assert_close(p, plain[k], 1e-6, "rule " .. i)
          end
        end
      end
      assert.equal(0, C.pn_set_cpu_variant(best))
    end)
  end

  it("drops gradients", function()
    local p = parameter()
    local optimiser = pn.optim.sgd({ p }, { lr = 1 })
    p:set_grad(pn.tensor { 1, 1, 1 })
    optimiser:zero_grad()
    assert.is_nil(p:grad())
  end)
end)

describe("adam", function()
  local cases = {
    { "plain", { lr = .1 }, { 0.90673013048, -2.1862312709, 2.97961653852 } },
    { "weight decay, betas", { lr = .1, weight_decay = .01, beta1 = .8, beta2 = .95 },
      { 0.899262293691, -2.16936430024, 2.94912926921 } },
    { "decoupled decay", { lr = .1, weight_decay = .01, decoupled = true },
      { 0.902957090611, -2.17776817099, 2.96744098316 } },
  }
  for _, case in ipairs(cases) do
    it("steps as PyTorch does: " .. case[1], function()
      helper.assert_close(run(adam(case[2])), case[3], TOLERANCE * 5)
    end)
  end
end)

describe("adamw", function()
  it("is adam with decoupled decay", function()
    local function after(make, options)
      local p = pn.tensor({ 1, -2 }):requires_grad(true)
      local made = make({ p }, options)
      for _ = 1, 3 do
        made:zero_grad()
        pn.sum(pn.square(p)):backward()
        made:step()
      end
      return p:totable()
    end
    local options = { lr = .1, weight_decay = .3 }
    assert.same(after(pn.optim.adam, { lr = .1, weight_decay = .3, decoupled = true }), after(pn.optim.adamw, options))
    assert.is_nil(options.decoupled)
  end)
end)

describe("an optimiser by its kind", function()
  local kinds = {
    { "sgd", { lr = .1, momentum = .9, weight_decay = .01 }, sgd { lr = .1, momentum = .9, weight_decay = .01 } },
    { "adam", { lr = .1, momentum = .8, weight_decay = .01 }, adam { lr = .1, beta1 = .8, weight_decay = .01 } },
    { "adamw", { lr = .1, momentum = .8, weight_decay = .01 }, adam { lr = .1, beta1 = .8, weight_decay = .01, decoupled = true } },
  }
  for _, case in ipairs(kinds) do
    it("is that optimiser: " .. case[1], function()
      local options = case[2]
      options.kind = case[1]
      local function by_kind(params) return pn.optim.new(params, options) end
      helper.assert_same_bits((run(by_kind)), (run(case[3])))
      assert.equal(case[1], options.kind) -- the table is the user's, and stays as it was
    end)
  end

  it("names what is wrong", function()
    local p = parameter()
    helper.failure(function() pn.optim.new({ p }, { kind = "adams", lr = 1 }) end, "unknown kind 'adams', did you mean 'adam'?")
    assert.equal("sgd", pn.optim.new({ p }, { lr = 1 }).kind)
    helper.failure(function() pn.optim.new({ p }, { kind = "sgd", lr = 1, beta3 = .9 }) end, "sgd: unknown option 'beta3'")
    local function fails(options, message)
      helper.failure(function() pn.optim.new({ p }, options) end, message)
      helper.failure(function() pn.optim.check(options) end, message)
    end
    fails({ lr = 1, beta2 = .9 }, "optim.beta2: sgd has none, it is of adam")
    fails({ kind = "adamw", lr = 1, nesterov = true }, "optim.nesterov: adamw has none, it is of sgd")
    fails({ kind = "adam", lr = -1 }, "optim.lr is -1, expects a number from 0")
    fails({ kind = "adam", lr = 1, momentum = 2 }, "optim.momentum (Adam's beta1) is 2, expects a number from 0 to 1")
    fails({ kind = "adam", lr = 1, beta1 = 2 }, "optim.beta1 is 2, expects a number from 0 to 1")
    fails({ lr = 1, momentum = 2 }, "optim.momentum is 2, expects a number from 0 to 1")
    fails({ lr = 1, clip_norm = 0 }, "optim.clip_norm is 0, expects a number from 1e-30")
    assert.equal(.9, pn.optim.new({ p }, { kind = "adam", lr = 1, momentum = .9, nesterov = false }).beta1)
    helper.failure(function() pn.optim.new({ p }, "adam") end, "optim: expects a table of options, got string")
  end)
end)

describe("an optimiser", function()
  for what, make in pairs { sgd = sgd { lr = .1, momentum = .9, dampening = .2 }, adam = adam { lr = .1 } } do
    it("that goes on from its state equals one that never stopped, bit for bit: " .. what, function()
      local straight = run(make)
      local p, first = run(make, 1, 2)
      local state = first:state()
      local saved = { tensors = {}, numbers = state.numbers }
      for name, t in pairs(state.tensors) do
        saved.tensors[name] = t:clone()
      end
      local q = p:detach():clone():requires_grad(true)
      local second = make { { name = "p", tensor = q } }
      second:load_state(saved)
      run(make, 3, 4, q, second)
      assert.equal(4, second.n_steps)
      helper.assert_same_bits(straight, q)
    end)
  end

  it("survives the scope that its first step was in", function()
    local p = parameter()
    local optimiser = pn.optim.sgd({ p }, { lr = .1, momentum = .9 })
    for i = 1, 4 do
      pn.scope(function()
        p:set_grad(pn.tensor(GRADIENTS[i]))
        optimiser:step()
      end)
    end
    helper.assert_close(p, { 0.95601, -2.07728, 2.89607 }, TOLERANCE)
  end)

  it("refuses a gradient that is not finite, names it, and changes nothing", function()
    local p, q = parameter(), parameter()
    local optimiser = pn.optim.sgd({ { name = "a.weight", tensor = p }, { name = "b.weight", tensor = q } }, { lr = 1 })
    p:set_grad(pn.tensor { 1, 1, 1 })
    q:set_grad(pn.tensor { 1, 0 / 0, 1 })
    helper.failure(function() optimiser:step() end, "sgd: the gradient of 'b.weight' is not finite (step 1)")
    assert.same({ 1, -2, 3 }, p:totable())
    assert.equal(0, optimiser.n_steps)
  end)

  it("without any gradient is an error; with one it is a step", function()
    local p, q = pn.ones({ 1 }):requires_grad(true), pn.ones({ 1 }):requires_grad(true)
    for _, kind in ipairs { "sgd", "adam" } do
      local optimiser = pn.optim[kind]({ p, q }, { lr = .5 })
      local message = helper.failure(function() optimiser:step() end,
        kind .. ": no parameter has a gradient: backward() was not called, or reaches none")
      assert.is_truthy(message:find "^spec/optim_spec.lua:%d+: ")
      assert.equal(0, optimiser.n_steps)
      pn.sum(p):backward()
      optimiser:step()
      assert.is_true(p:item() < 1)
      assert.equal(1, q:item())
      optimiser:zero_grad()
      helper.failure(function() optimiser:step() end, "no parameter has a gradient")
      assert.equal(1, optimiser.n_steps)
      p:fill(1)
    end
  end)

  it("that ran out of memory in its first step has not begun", function()
    local failed = 0
    local function trained(nth)
      local p, q = parameter(), parameter()
      local optimiser = pn.optim.sgd({ p, q }, { lr = .1, momentum = .9, dampening = .5 })
      for i, g in ipairs(GRADIENTS) do
        p:set_grad(pn.tensor(g))
        q:set_grad(pn.tensor(g))
        pn.C.pn_debug_fail_alloc(i == 1 and nth or 0)
        local ok, problem = pcall(optimiser.step, optimiser)
        pn.C.pn_debug_fail_alloc(0)
        if not ok then
          failed = failed + 1
          assert.is_truthy(tostring(problem):find("out of memory", 1, true), problem)
          assert.same({ 1, -2, 3 }, p:totable())
          optimiser:step()
        end
      end
      return p, q
    end
    local p, q = trained(0)
    for nth = 1, 16 do
      local a, b = trained(nth)
      helper.assert_same_bits(p, a, "allocation " .. nth)
      helper.assert_same_bits(q, b, "allocation " .. nth)
    end
    assert.is_true(failed > 4, failed)
  end)

  it("says what it does not understand", function()
    local p = parameter()
    local function sgd_with(options)
      return function() pn.optim.sgd({ p }, options) end
    end
    helper.failure(sgd_with {}, "sgd: lr is missing")
    helper.failure(sgd_with { lr = -1 }, "sgd: lr is -1, expects a number from 0")
    helper.failure(sgd_with { lr = 1, momentun = .9 }, "sgd: unknown option 'momentun'", "did you mean 'momentum'?")
    helper.failure(sgd_with { lr = 1, momentum = 2 }, "sgd: momentum is 2, expects a number from 0 to 1")
    helper.failure(sgd_with { lr = 1, convention = "cafe" }, "unknown convention 'cafe'", "did you mean 'caffe'?")
    helper.failure(sgd_with { lr = 1, convention = "caffe", dampening = .1 }, "caffe knows no dampening")
    helper.failure(sgd_with { lr = 1, nesterov = true }, "nesterov needs momentum and no dampening")
    helper.failure(sgd_with { lr = 1, clip_norm = 0 }, "clip_norm is 0")
    helper.failure(sgd_with { lr = 1, weight_decay = "x" }, "weight_decay is x")
    helper.failure(function() pn.optim.adam({ p }, { lr = 1, beta2 = 1 }) end, "adam: beta2 is 1")
    helper.failure(function() pn.optim.sgd({}, { lr = 1 }) end, "expects a list of parameters")
    helper.failure(function() pn.optim.sgd({ 3 }, { lr = 1 }) end, "parameter 1 is no tensor")
    helper.failure(function() pn.optim.sgd({ { name = "a", tensor = p }, { name = "a", tensor = p } }, { lr = 1 }) end,
      "'a' is there twice")
    helper.failure(function() pn.optim.sgd({ { params = { p }, lr_scal = 2 } }, { lr = 1 }) end, "did you mean 'lr_scale'?")
    helper.failure(function() pn.optim.sgd({ p }, { lr = function() return 0 / 0 end }):rate() end, "the schedule gave")
    local falling = pn.optim.sgd({ p }, { lr = pn.optim.schedule.linear { from = 1, steps = 4 } })
    assert.same({ 1, 1 }, { falling:rate(), falling:lr() })
    falling.lr = 0.5
    assert.same({ 0.5, 0.5 }, { falling:rate(), falling:lr() })
    helper.failure(function() falling.lr = -1 end, "sgd: lr is -1, expects a number from 0")
    helper.failure(function() pn.optim.sgd({ p }, { lr = 1 }):set_lr("x") end, "sgd: lr is x")
  end)

  it("refuses a state that is not its own", function()
    local optimiser = pn.optim.sgd({ { name = "p", tensor = parameter() } }, { lr = 1, momentum = .9 })
    helper.failure(function() optimiser:load_state {} end, "not a state of an optimiser")
    helper.failure(function() optimiser:load_state { numbers = { n_steps = 1 }, tensors = { ["momentum.q"] = pn.zeros { 3 } } } end,
      "no parameter has a 'momentum.q', the nearest is 'momentum.p'")
    helper.failure(function() optimiser:load_state { numbers = { n_steps = 1 }, tensors = { ["momentum.p"] = pn.zeros { 4 } } } end,
      "'momentum.p' is 4, the parameter 3")
  end)

  it("is refused by C where Lua cannot see it", function()
    local C, ffi = pn.C, require "ffi"
    local p, out = parameter(), require("ffi").new("double [1]")
    local function message(rc)
      assert.equal(-1, rc)
      return pn.ffi.message()
    end
    local function sgd_step(how, param, grad, momentum)
      local entry = ffi.new("pn_sgd_entry [1]", { { param = param.p, grad = grad.p, buffer = momentum and momentum.p } })
      return message(C.pn_sgd_step(entry, 1, ffi.new("pn_sgd", how)))
    end
    local function sum_squares(t)
      return message(C.pn_sum_squares(ffi.new("pn_tensor *[1]", { t }), 1, out))
    end
    assert.equal("sgd_step: NULL", message(C.pn_sgd_step(nil, 0, nil)))
    assert.equal("sgd_step: NULL", message(C.pn_sgd_step(ffi.new "pn_sgd_entry [1]", 1, ffi.new "pn_sgd")))
    assert.equal("adam_step: NULL", message(C.pn_adam_step(nil, 0, nil)))
    assert.equal("optim_buffer: NULL", message(C.pn_optim_buffer(nil, nil)))
    assert.equal("sum_squares: NULL", message(C.pn_sum_squares(nil, 0, nil)))
    assert.equal("sum_squares: NULL", sum_squares(nil))
    assert.equal("sum_squares: u8, expected " .. pn.real, sum_squares(pn.zeros({ 2, dtype = "u8" }).p))
    assert.equal("sgd_step: momentum needs a buffer", sgd_step({ momentum = .9 }, p, p))
    assert.equal("sgd_step: unknown convention 7", sgd_step({ convention = 7 }, p, p))
    assert.equal("sgd_step: nesterov needs momentum and no dampening", sgd_step({ nesterov = true }, p, p))
    assert.equal("sgd_step: the gradient is 2, the parameter 3", sgd_step({}, p, pn.zeros { 2 }))
    assert.equal("sgd_step: the gradient is u8, the parameter " .. pn.real, sgd_step({}, p, pn.zeros { 3, dtype = "u8" }))
    local bytes = pn.zeros { 3, dtype = "u8" }
    assert.equal("sgd_step: the parameter is u8, expected " .. pn.real, sgd_step({}, bytes, bytes))
    local gaps = pn.ops.slice(pn.zeros { 6 }, { axis = 1, first = 1, count = 3, step = 2 })
    assert.equal("sgd_step: the parameter has gaps between its elements", sgd_step({}, gaps, gaps))
    assert.is_truthy(sgd_step({ momentum = .9 }, p, p, gaps):find("another memory order than the parameter", 1, true))
    local function adam_step(entry)
      return message(C.pn_adam_step(ffi.new("pn_adam_entry [1]", { entry }), 1, ffi.new "pn_adam"))
    end
    assert.equal("adam_step: NULL", adam_step { step = 1 })
    assert.equal("adam_step: step 0, the first is 1", adam_step { param = p.p, grad = p.p, mean = p.p, square = p.p })
    local how, verdict = ffi.new "pn_sgd", pn.zeros { 3 }
    assert.equal("sgd_set: NULL", message(C.pn_sgd_set(nil, 0, nil)))
    assert.equal("adam_set: NULL", message(C.pn_adam_set(nil, 0, nil)))
    assert.equal("sgd_set: NULL", message(C.pn_sgd_set(ffi.new "pn_sgd_entry [1]", 0, how)))
    assert.equal("adam_set: NULL", message(C.pn_adam_set(ffi.new "pn_adam_entry [1]", 0, ffi.new "pn_adam")))
    how.numbers = verdict.p
    local entries = ffi.new("pn_sgd_entry [1]", { { param = p.p, grad = p.p } })
    assert.equal("sgd_set: numbers must be u8 (1, 64) on the device of the parameters", message(C.pn_sgd_set(entries, 1, how)))
    assert.equal("sgd_step: numbers must be u8 (1, 64) on the device of the parameters", message(C.pn_sgd_step(entries, 1, how)))
    how.numbers, how.verdict = nil, pn.zeros({ 2, dtype = "f64" }).p
    assert.equal("sgd_step: the verdict must be f64 (3) on the device of the gradients", message(C.pn_sgd_step(entries, 1, how)))
    assert.equal("grad_verdict: NULL", message(C.pn_grad_verdict(nil, nil, 0, 0)))
    assert.equal("grad_verdict: the verdict must be f64 (3) on the device of the gradients",
      message(C.pn_grad_verdict(how.verdict, ffi.new("pn_tensor *[1]", { p.p }), 1, 0)))
  end)
end)

describe("schedules", function()
  local schedule = pn.optim.schedule

  local function at(f, ...)
    local values = {}
    for i = 1, select("#", ...) do
      values[i] = f((select(i, ...)))
    end
    return values
  end

  it("are functions of the steps done", function()
    helper.assert_close(at(schedule.constant(.1), 0, 99), { .1, .1 }, 1e-12)
    helper.assert_close(at(schedule.linear { from = 1, to = .5, steps = 10 }, 0, 5, 10, 20), { 1, .75, .5, .5 }, 1e-12)
    helper.assert_close(at(schedule.step { lr = 1, at = { 2, 4 } }, 0, 1, 2, 3, 4), { 1, 1, .1, .1, .01 }, 1e-12)
    helper.assert_close(at(schedule.poly { lr = 1, steps = 10, power = 2 }, 0, 5, 10, 11), { 1, .25, 0, 0 }, 1e-12)
    helper.assert_close(at(schedule.cosine { lr = 1, steps = 10, final = .2 }, 0, 5, 10, 12), { 1, .6, .2, .2 }, 1e-12)
    helper.assert_close(at(schedule.warmup(4, schedule.linear { from = 1, steps = 10 }), 0, 3, 4, 9), { .25, 1, 1, .5 }, 1e-12)
  end)

  it("say what they miss", function()
    helper.failure(function() schedule.linear { from = 1 } end, "linear: steps is nil")
    helper.failure(function() schedule.poly { lr = 1, steps = 0 } end, "poly: steps is 0, expects 1 or more")
    helper.failure(function() schedule.step { lr = 1 } end, "schedule.step: at is nil")
    helper.failure(function() schedule.cosine { lr = 1, step = 3 } end, "did you mean 'steps'?")
    helper.failure(function() schedule.warmup(3, 1) end, "expects a schedule after the steps")
    helper.failure(function() schedule.constant("x") end, "schedule.constant is x, expects a number")
  end)
end)
