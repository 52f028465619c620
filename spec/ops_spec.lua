--- Every operation of the registry, by its own cases: shapes, gradients against differences, repeatability, memory orders,
-- destinations, and what it says of wrong tensors and arguments. Run against the f64 build the gradients are held to 1e-7.

local pn = require "penumbra"
local helper = require "spec.helper"
local C = pn.C

local IS_F64 = pn.real == "f64"

local cases = require "spec.cases"
local parse_case, make_inputs, case_values = cases.parse_case, cases.make_inputs, cases.case_values
local run, bits, dtype_of = cases.run, cases.bits, cases.dtype_of
local is_real, wants, output_weights, for_each_case = cases.is_real, cases.wants, cases.output_weights, cases.each
local spec_of, write = cases.spec_of, cases.write

-- The weighted sum of the outputs, in doubles.
local function loss_of(op, tensors, arguments, weights)
  return pn.scope(function()
    return pn.no_grad(function()
      local total = 0
      for i, y in ipairs(pn.ops.apply_text(op, tensors, arguments)) do
        if weights[i] then
          local a, w = y:flat(), weights[i]
          for k = 1, #a do
            total = total + a[k] * w[k]
          end
        end
      end
      return total
    end)
  end)
end

describe("the registry", function()
  it("describes every operation: help, tensors, cases", function()
    assert.is_true(#pn.ops.names() > 0)
    for _, name in ipairs(pn.ops.names()) do
      local d = pn.ops.describe(name)
      assert.is_true(#d.help > 0, name)
      assert.is_true(#d.inputs > 0, name)
      assert.is_true(#d.outputs > 0, name)
      assert.is_true(#d.cases > 0, name .. " has no case")
      assert.is_truthy(pn.ops.help(name):find(name, 1, true))
      for _, arg in ipairs(d.args) do
        assert.is_truthy(pn.ops.help(name):find(arg.name, 1, true), name .. "." .. arg.name)
        assert.is_truthy(arg.help, name .. "." .. arg.name .. " has no help")
      end
    end
  end)

  it("names the nearest operation", function()
    helper.failure(function() return pn.ops.sigmoyd end, "no operation 'sigmoyd'", "did you mean 'sigmoid'?")
    helper.failure(function() pn.ops.describe("relo") end, "did you mean 'relu'?")
  end)
end)

describe("operations", function()
  local threads = pn.threads()
  after_each(function()
    pn.threads(threads)
  end)

  for_each_case(function(name, text)
    local inputs, arguments = parse_case(text)
    local values = case_values(inputs, name .. text)
    local title = ("%s %s"):format(name, text)
    local differentiable = pn.ops.describe(name).differentiable

    if differentiable then
      it(title .. ": its gradient is that of differences", function()
        pn.scope(function()
          local tensors = make_inputs(inputs, values)
          local ys, grads = run(name, tensors, arguments)
          local weights, any = {}, false
          for i, w in ipairs(output_weights(ys)) do
            weights[i] = w and w:flat()
            any = any or weights[i]
          end
          if not any then
            return -- a conversion to another type: nothing to differentiate in this build
          end
          local checked = 0
          for i, t in ipairs(tensors) do
            if is_real(t) and wants(name, i) then
              assert.is_truthy(grads[i], "no gradient for input " .. i)
              helper.assert_shape(grads[i], unpack(t:shape()))
              local g, base = grads[i]:flat(), values[i]
              local h = IS_F64 and 1e-5 or 2e-3
              -- One random direction sees every element; then elements alone.
              local rng = pn.random.stream(17, title .. i)
              local ahead, behind, expected, scale = {}, {}, 0, 0
              for k = 1, #base do
                local d = rng:uniform(-1, 1)
                ahead[k], behind[k] = base[k] + h * d, base[k] - h * d
                expected = expected + g[k] * d
                scale = scale + math.abs(g[k] * d)
              end
              local moved = {}
              for k = 1, #tensors do
                moved[k] = tensors[k]
              end
              local probe = pn.empty(spec_of(t:shape()))
              moved[i] = probe
              write(probe, ahead)
              local difference = loss_of(name, moved, arguments, weights)
              write(probe, behind)
              difference = (difference - loss_of(name, moved, arguments, weights)) / (2 * h)
              local tolerance = IS_F64 and 1e-7 or 2e-2
              local error_now = math.abs(difference - expected) / math.max(scale, 1e-30)
              assert.is_true(scale == 0 and math.abs(difference) < tolerance or error_now < tolerance,
                ("input %d, a direction: %.12g by differences, %.12g by backward"):format(i, difference, expected))
              if IS_F64 then
                local largest, worst = 0, 0
                local step = math.max(1, math.floor(#base / 24))
                for k = 1, #base, step do
                  local single = { unpack(base) }
                  single[k] = base[k] + h
                  write(probe, single)
                  local up = loss_of(name, moved, arguments, weights)
                  single[k] = base[k] - h
                  write(probe, single)
                  local numeric = (up - loss_of(name, moved, arguments, weights)) / (2 * h)
                  largest = math.max(largest, math.abs(numeric), math.abs(g[k]))
                  worst = math.max(worst, math.abs(numeric - g[k]))
                end
                assert.is_true(worst <= 1e-7 * math.max(largest, 1e-3),
                  ("input %d: gradients of elements are off by %.3g of %.3g"):format(i, worst, largest))
              end
              checked = checked + 1
            end
          end
          assert.is_true(checked > 0, "no input was checked")
        end)
      end)
    end

    it(title .. ": twice, and on any number of threads, the same bits", function()
      pn.scope(function()
        local tensors = make_inputs(inputs, values)
        pn.threads(1)
        local once = bits(run(name, tensors, arguments))
        assert.equal(once, bits(run(name, make_inputs(inputs, values), arguments)))
        pn.threads(4)
        assert.equal(once, bits(run(name, make_inputs(inputs, values), arguments)), "4 threads")
        pn.threads(3)
        assert.equal(once, bits(run(name, make_inputs(inputs, values), arguments)), "3 threads")
      end)
    end)

    it(title .. ": reads nothing that was not written, nor what was freed", function()
      pn.scope(function()
        local once = bits(run(name, make_inputs(inputs, values), arguments))
        C.pn_debug_poison(true)
        local ok, message = pcall(function()
          for _ = 1, 2 do -- the first leaves poisoned blocks to the second
            pn.scope(function()
              assert.equal(once, bits(run(name, make_inputs(inputs, values), arguments)))
            end)
          end
        end)
        C.pn_debug_poison(false)
        assert(ok, message)
      end)
    end)

    it(title .. ": every variant of the CPU's kernels gives the same", function()
      pn.scope(function()
        local variant = require("ffi").string(C.pn_cpu_variant())
        local ys, grads = run(name, make_inputs(inputs, values), arguments)
        for _, other in ipairs { "plain", "avx2", "avx512" } do
          if C.pn_set_cpu_variant(other) == 0 then
            local ok, ys2, grads2 = pcall(run, name, make_inputs(inputs, values), arguments)
            assert(C.pn_set_cpu_variant(variant) == 0)
            assert(ok, ys2)
            for i, y in ipairs(ys) do
              helper.assert_close(ys2[i], y, IS_F64 and 1e-13 or 3e-6, other)
            end
            for i, g in ipairs(grads) do
              if g then
                helper.assert_close(grads2[i], g, IS_F64 and 1e-12 or 1e-5, other .. ", gradient " .. i)
              end
            end
          end
        end
      end)
    end)

    it(title .. ": the failure of any allocation is an error, and leaks nothing", function()
      pn.scope(function()
        local tensors = make_inputs(inputs, values)
        local weights = output_weights(pn.ops.apply_text(name, tensors, arguments)) -- not among what fails
        local function attempt()
          return pcall(pn.scope, function()
            local _, grads = run(name, tensors, arguments, weights)
            for i in pairs(grads) do
              if grads[i] then
                tensors[i]:set_grad(nil)
              end
            end
          end)
        end
        assert(attempt())
        collectgarbage()
        collectgarbage()
        local before = pn.memory()
        for nth = 1, 200 do
          C.pn_debug_fail_alloc(nth)
          local ok, message = attempt()
          C.pn_debug_fail_alloc(0)
          for _, t in ipairs(tensors) do
            if t then
              t:set_grad(nil)
            end
          end
          if ok then
            assert.is_true(nth > 1, "no allocation failed")
            break
          end
          assert.is_truthy(message:find("out of memory", 1, true), message)
          collectgarbage()
          local after = pn.memory()
          assert.same({ before.live, before.tensors }, { after.live, after.tensors }, "after failure " .. nth)
        end
      end)
    end)

    it(title .. ": any memory order gives the same", function()
      pn.scope(function()
        local tolerance = IS_F64 and 1e-13 or 3e-6
        local ys, grads = run(name, make_inputs(inputs, values), arguments)
        for what, options in pairs { ["channels last"] = { layout = "channels_last" }, ["gaps"] = { gaps = true } } do
          local ys2, grads2 = run(name, make_inputs(inputs, values, options), arguments)
          for i, y in ipairs(ys) do
            helper.assert_shape(ys2[i], unpack(y:shape()))
            helper.assert_close(ys2[i], y, tolerance, what)
          end
          for i, g in ipairs(grads) do
            assert.equal(g and true, grads2[i] and true)
            if g then
              helper.assert_close(grads2[i], g, tolerance, what .. ", gradient " .. i)
            end
          end
        end
      end)
    end)

    it(title .. ": a second backward adds", function()
      pn.scope(function()
        local tensors = make_inputs(inputs, values)
        local _, grads = run(name, tensors, arguments)
        local once = {}
        for i, g in ipairs(grads) do
          once[i] = g and g:flat()
        end
        for i, t in ipairs(tensors) do
          if once[i] then
            local ys = pn.ops.apply_text(name, tensors, arguments)
            local weights = output_weights(ys)
            for k, y in ipairs(ys) do
              if weights[k] and y:requires_grad() then
                y:backward(weights[k], { keep_graph = k < #ys })
              end
            end
            local twice = t:grad():flat()
            for k = 1, #twice do
              twice[k] = twice[k] / 2
            end
            helper.assert_close(twice, once[i], IS_F64 and 1e-13 or 1e-5)
            break
          end
        end
      end)
    end)

    it(title .. ": writes where it is told", function()
      pn.scope(function()
        local tensors = make_inputs(inputs, values)
        local d = pn.ops.describe(name)
        local expected = pn.ops.apply_text(name, tensors, arguments)
        local y = expected[1]
        local whole_shape = y:shape()
        if #whole_shape < 2 then
          return -- too small to be a part of anything
        end
        whole_shape[2] = whole_shape[2] + 3
        local whole = pn.full((function()
          local spec = spec_of(whole_shape, y:dtype())
          spec.layout, spec.value = #whole_shape == 5 and "channels_last" or "rows", 7
          return spec
        end)())
        local slot = whole:slot(2, 2, y:size(2))
        local op, ffi = C.pn_op_find(name), require "ffi"
        local args, x, out, n = ffi.new("pn_value [12]"), ffi.new("pn_tensor *[16]"), ffi.new("pn_tensor *[8]"), ffi.new("int [1]")
        pn.ffi.check(C.pn_op_parse(op, arguments, args))
        for i, t in ipairs(tensors) do
          x[i - 1] = t and pn.ffi.ptr(t) or nil
        end
        out[0] = pn.ffi.ptr(slot)
        local rc = C.pn_apply(op, x, math.max(#tensors, d.inputs[#d.inputs].variadic and 0 or #d.inputs), args, out, n)
        if rc ~= 0 and pn.ffi.message():find("takes no destination", 1, true) then
          assert.equal(C.pn_tensor_storage_id(pn.ffi.ptr(tensors[1])), C.pn_tensor_storage_id(pn.ffi.ptr(y)), "not even a view")
          return
        end
        pn.ffi.check(rc)
        for i = 0, n[0] - 1 do
          pn.ffi.wrap(out[i])
        end
        helper.assert_close(slot, y, IS_F64 and 1e-13 or 3e-6)
        -- and nothing beside it
        for _, at in ipairs { 1, y:size(2) + 2, y:size(2) + 3 } do
          for _, value in ipairs(whole:slot(2, at, 1):flat()) do
            assert.equal(7, value)
          end
        end
      end)
    end)
  end)
end)

describe("wrong tensors", function()
  -- Each input in turn gets another shape or type: it works, or the message begins with the operation's name.
  local function mutations(shape)
    local list = {}
    local function add(what, new)
      list[#list + 1] = { what = what, shape = new }
    end
    for i = 1, #shape do
      local larger = { unpack(shape) }
      larger[i] = larger[i] + 1
      add("axis " .. i .. " larger", larger)
      local empty = { unpack(shape) }
      empty[i] = 0
      add("axis " .. i .. " empty", empty)
    end
    if #shape > 0 then
      add("an axis less", { unpack(shape, 2) })
    end
    if #shape < 6 then
      add("an axis more", { 1, unpack(shape) })
    end
    return list
  end

  for _, name in ipairs(pn.ops.names()) do
    it(name .. ": is refused with its name, or works", function()
      local refused = 0
      for _, text in ipairs(pn.ops.describe(name).cases) do
        local inputs, arguments = parse_case(text)
        local values = case_values(inputs, name .. text)
        pn.scope(function()
          local tensors = make_inputs(inputs, values)
          local function try(what, i, t)
            local changed = {}
            for k = 1, #inputs do
              changed[k] = tensors[k]
            end
            changed[i] = t
            local ok, message = pcall(pn.ops.apply_text, name, changed, arguments)
            if not ok then
              refused = refused + 1
              assert.is_truthy(message:find(name .. ":", 1, true) or message:find(name .. " takes", 1, true),
                ("%s, input %d with %s: %s"):format(name, i, what, message))
            end
          end
          for i, input in ipairs(inputs) do
            if input then
              for _, mutation in ipairs(mutations(input.shape)) do
                try(mutation.what, i, pn.zeros(spec_of(mutation.shape, dtype_of(input))))
              end
              for _, dtype in ipairs { "u8", "i64", "f16" } do
                try("type " .. dtype, i, pn.zeros(spec_of(input.shape, dtype)))
              end
              try("nothing", i, false)
            end
          end
        end)
      end
      assert.is_true(refused > 0, "nothing was ever refused")
    end)
  end
end)

describe("arguments", function()
  local x = pn.ones { 1, 2, 3, 4, 4 }:keep()

  it("that are unknown name the nearest", function()
    helper.failure(function() pn.ops.conv3d(x, x, nil, { strides = 2 }) end, "conv3d: unknown argument 'strides'",
      "did you mean 'stride'?", "known: dilation, groups, into, pad, relu, stride")
  end)

  it("are whole numbers where they should be", function()
    helper.failure(function() pn.ops.conv3d(x, x, nil, { stride = 1.7 }) end, "conv3d: stride is 1.7, expects a whole number")
    helper.failure(function() pn.ops.conv3d(x, x, nil, { stride = "2" }) end, 'conv3d: stride is "2", expects a whole number')
    helper.failure(function() pn.ops.conv3d(x, x, nil, { stride = { 1, 2 } }) end, "stride has 2 numbers", "{t, h, w}")
  end)

  it("need no name where they are the only list", function()
    local t = pn.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ 5, 7, 9 }, pn.sum(t, { 1 }):totable())
    assert.same({ { 6 }, { 15 } }, t:sum({ 2, keep = true }):totable())
    assert.same({ 3, 3 }, pn.argmax(t, { 2 }):totable())
    assert.same({ 3, 2 }, pn.reshape(t, { 3, -1 }):shape())
    assert.same({ 3, 2 }, pn.permute(t, { 2, 1 }):shape())
    helper.failure(function() pn.sum(t, { 1, axes = { 2 } }) end, "sum: axes is given twice: as a list, and by its name")
    helper.failure(function() pn.concat({ t, t }, { 1 }) end,
      "concat: arguments have names, and 1 has none: { axis = ... } (known: axis, into)")
  end)

  it("that are axes count from the last too", function()
    local t = pn.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ 6, 15 }, pn.sum(t, { -1 }):totable())
    assert.same({ 5, 7, 9 }, pn.sum(t, { axes = -2 }):totable())
    assert.same({ 2, 6 }, pn.concat(t, t, { axis = -1 }):shape())
    assert.same({ 4, 3 }, pn.concat({ t, t }, { axis = -2 }):shape())
    assert.same({ { 2, 3 }, { 5, 6 } }, t:slice(-1, 2):totable())
    assert.equal(3, t:size(-1))
    helper.failure(function() pn.sum(t, { -3 }) end, "sum: axes is -3, the tensor has axes 1 to 2, or -2 to -1 from the last")
    helper.failure(function() pn.slice(t, { axis = 1, first = -1 }) end, "slice: first is -1")
    helper.failure(function() pn.concat(pn.ones { 2 }, pn.ones { 2 }) end,
      "concat: there is no axis 2 (axis is 2 by default: { axis = 1 } is the first)")
  end)

  it("say what else would do", function()
    helper.failure(function() pn.resize3d(x, { scale = { 1, .5, .5 } }) end,
      "resize3d: scale is 0.5, expects a whole number (whole factors of T,H,W where size is 0; size = {T, H, W} takes any)")
  end)

  it("are in range", function()
    helper.failure(function() pn.ops.conv3d(x, x, nil, { stride = 0 }) end, "conv3d: stride is 0, expects 1 to 4096")
    helper.failure(function() pn.ops.sum(x, { axes = { 0 } }) end, "sum: axes is 0, the tensor has axes 1 to 5, or -5 to -1")
    helper.failure(function() pn.ops.sum(x, { 9 }) end, "sum: axes is 9, the tensor has axes 1 to 5, or -5 to -1 from the last")
    helper.failure(function() pn.sum(pn.tensor(1), { 0 }) end, "sum: axes is 0, the tensor has no axes")
    helper.failure(function() x:slice(2, -2, 2) end, "slice: first is -2, expects 1 or more (axes and positions count from 1)")
    helper.failure(function() x:slice(2, 1, -2) end, "slice: count is -2, expects -1 or more")
    helper.failure(function() pn.ops.sum(x, { axes = { 1, 2, 3, 4, 5, 6, 1 } }) end, "sum: axes has 7 numbers, at most 6")
  end)

  it("of pads are same, numbers, triples or pairs", function()
    helper.failure(function() pn.ops.pad3d(x, { pad = "some" }) end, 'pad3d: pad is "some", the only word it knows is "same"')
    helper.failure(function() pn.max_pool3d(x, { kernel = 2, pad = "valid" }) end, ': pad = 0 is what is called "valid" elsewhere')
    helper.failure(function() pn.ops.pad3d(x, { pad = { 1, 2 } }) end, "pad3d: pad has 2 entries")
    helper.failure(function() pn.ops.pad3d(x, { pad = { 1, 2, { 3 } } }) end, "pad3d: pad[3] has 1 numbers, expects {low, high}")
    helper.assert_shape(pn.ops.pad3d(x, { pad = 1 }), 1, 2, 5, 6, 6)
    helper.assert_shape(pn.ops.pad3d(x, { pad = { 0, 1, 2 } }), 1, 2, 3, 6, 8)
    helper.assert_shape(pn.ops.pad3d(x, { pad = { { 0, 1 }, { 1, 0 }, { 0, 0 } } }), 1, 2, 4, 5, 4)
  end)

  it("of truth and of choice say what they expect", function()
    helper.failure(function() pn.ops.sum(x, { keep = 1 }) end, "sum: keep is 1, expects true or false")
    helper.failure(function() pn.ops.contiguous(x, { layout = "channel_last" }) end, 'contiguous: layout is "channel_last"',
      'did you mean "channels_last"?')
  end)

  it("of numbers are numbers", function()
    helper.failure(function() pn.ops.scale(x, { a = "2" }) end, 'scale: a is "2", expects a number')
    helper.failure(function() pn.ops.scale(x, { a = 0 / 0 }) end, "expects a number")
  end)

  it("must be there when required", function()
    helper.failure(function() pn.ops.reshape(x, {}) end, "reshape", "shape")
  end)

  it("that are tensors must be tensors, and as many as it takes", function()
    helper.failure(function() pn.ops.relu() end, "relu: x: expected a tensor, got nil")
    helper.failure(function() pn.ops.relu("x") end, "relu: x: expected a tensor, got string")
    helper.failure(function() pn.ops.relu(x, x) end, "relu: takes x, got 2 positional arguments")
    helper.failure(function() pn.ops.concat({}) end, "concat")
    helper.failure(function() pn.ops.relu(x, { into = 3 }) end, "relu: into: expects a tensor or a list of tensors, got number")
  end)

  it("count axes from 1", function()
    assert.same({ 3, 7 }, pn.tensor({ { 1, 2 }, { 3, 4 } }):sum { axes = { 2 } }:totable())
    assert.same({ 4, 6 }, pn.tensor({ { 1, 2 }, { 3, 4 } }):sum { axes = { 1 } }:totable())
    assert.same({ { 2 }, { 4 } }, pn.tensor({ { 1, 2 }, { 3, 4 } }):slice(2, 2, 1):totable())
    assert.is_truthy(pn.ops.help "concat":find("default 2", 1, true))
  end)

  it("go to the user's line", function()
    local message = helper.failure(function() pn.ops.relu(3, 4) end)
    assert.is_truthy(message:find("spec/ops_spec.lua:%d+: relu"))
  end)
end)
