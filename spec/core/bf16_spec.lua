-- bf16_spec: precision "bf16": every variant against its definition (inputs rounded, sums in f32), and that against f32.
local pn = require "penumbra"
local binding = require "penumbra.ffi"
local helper = require "spec.helper"
local C, check = binding.C, binding.check
local ffi = require "ffi"

local best = ffi.string(C.pn_cpu_variant())
local f64 = binding.real == "f64"

-- y, dx, dw of sum(y * v), v a fixed tensor.
local function all_of(op, x, w, bias, args)
  for _, t in ipairs { x, w } do
    check(C.pn_set_grad(binding.ptr(t), nil))
    t:requires_grad(true)
  end
  local y = op(x, w, bias, args)
  pn.sum(y * helper.random(y:shape(), "v")):backward()
  return { y = y:detach():clone(), dx = x:grad():clone(), dw = w:grad():clone() }
end

-- Whole and partial tiles, rows fused, phases, groups, odd channels, a dilation, more taps than are looked through at once.
local cases = {
  { "conv3d", { 1, 3, 5, 9, 11 }, { 7, 3, 7, 7, 7 }, { stride = 2 } },
  { "conv3d", { 2, 5, 4, 9, 8 }, { 21, 5, 3, 3, 3 }, {} },
  { "conv3d", { 1, 16, 4, 14, 14 }, { 64, 16, 3, 3, 3 }, { relu = true } },
  { "conv3d", { 1, 64, 2, 18, 40 }, { 33, 64, 1, 3, 3 }, {} },
  { "conv3d", { 1, 50, 3, 7, 7 }, { 70, 50, 1, 1, 1 }, {} },
  { "conv3d", { 1, 96, 2, 9, 16 }, { 208, 96, 1, 1, 1 }, {} },
  { "conv3d", { 1, 6, 3, 7, 7 }, { 8, 3, 3, 2, 1 }, { groups = 2, stride = { 1, 2, 1 }, pad = { 1, 0, 2 } } },
  { "conv3d", { 1, 4, 3, 9, 9 }, { 5, 4, 2, 3, 3 }, { dilation = { 2, 2, 3 }, stride = { 1, 1, 2 } } },
  { "conv3d", { 1, 3, 1, 4, 30 }, { 3, 3, 1, 1, 2 }, { stride = { 1, 1, 3 } } },
  { "conv3d", { 1, 3, 2, 6, 30 }, { 20, 3, 1, 3, 4 }, { pad = 0, stride = { 1, 2, 5 } } },
  { "conv_transpose3d", { 1, 16, 3, 5, 5 }, { 16, 16, 4, 8, 8 }, { stride = { 2, 4, 4 }, pad = { 1, 2, 2 } } },
  { "conv_transpose3d", { 1, 5, 2, 3, 2 }, { 5, 3, 1, 2, 2 }, { stride = 3, output_pad = { 2, 0, 1 } } },
}

local function tensors(i)
  local case = cases[i]
  local n_out = case[1] == "conv3d" and case[3][1] or case[3][2]
  local x, w, bias = helper.random(case[2], "x" .. i), helper.random(case[3], "w" .. i), helper.random({ n_out }, "b" .. i)
  return pn[case[1]], x, w, bias, case[4]
end

-- Runs f with kernels of a variant in a precision; false where this CPU has them not.
local function with(variant, precision, f)
  local emulated = variant == "amx_emulated"
  if C.pn_set_cpu_variant(emulated and best or variant) ~= 0 then return false end
  C.pn_debug_emulate_amx(emulated)
  check(C.pn_set_precision(precision, 0))
  check(C.pn_set_winograd "off")
  f()
  return true
end

local function reset()
  C.pn_debug_emulate_amx(false)
  check(C.pn_set_precision("f32", 0))
  check(C.pn_set_winograd "auto")
  check(C.pn_set_cpu_variant(best))
end

describe("precision bf16", function()
  after_each(reset)
  if f64 then
    it("is refused by the f64 build", function()
      assert.equal(-1, C.pn_set_precision("bf16", 0))
      assert.matches("the f64 build has no bf16", ffi.string(C.pn_error()))
    end)
    return
  end

  it("rounds inputs to 8 bits, to the nearest and ties to even, and keeps sums in f32", function()
    if best == "plain" then pending("this CPU has only the plain kernels") return end
    local ulp = 2 ^ -7
    local x = pn.reshape(pn.tensor { 1 + ulp / 2, 1 + 1.5 * ulp, 1 + ulp * 0.51, 1 }, { shape = { 1, 4, 1, 1, 1 } }):clone()
    local w = pn.zeros { 4, 4, 1, 1, 1, layout = "filter" }
    for i = 1, 4 do w:set(1, i, i, 1, 1, 1) end
    w:set(ulp / 128, 4, 3, 1, 1, 1)
    for _, variant in ipairs { "plain", "avx512_bf16", "amx", "amx_emulated" } do
      with(variant, "bf16", function()
        local y = pn.conv3d(x, w)
        assert.equal(1, y:get(1, 1, 1, 1, 1))
        assert.equal(1 + 2 * ulp, y:get(1, 2, 1, 1, 1))
        assert.equal(1 + ulp, y:get(1, 3, 1, 1, 1))
        assert.is_true(math.abs(y:get(1, 4, 1, 1, 1) - (1 + ulp / 128 * (1 + ulp))) < 2e-7)
      end)
    end
  end)

  for _, variant in ipairs { "avx512_bf16", "amx", "amx_emulated" } do
    it(variant .. " agrees with the definition, which is near f32", function()
      if best == "plain" or C.pn_set_cpu_variant(variant == "amx_emulated" and best or variant) ~= 0 then
        pending("this CPU has no " .. variant)
        return
      end
      for i, case in ipairs(cases) do
        local op, x, w, bias, args = tensors(i)
        local exact, plain, fast
        with("plain", "f32", function() exact = all_of(op, x, w, bias, args) end)
        with("plain", "bf16", function() plain = all_of(op, x, w, bias, args) end)
        with(variant, "bf16", function() fast = all_of(op, x, w, bias, args) end)
        for _, name in ipairs { "y", "dx", "dw" } do
          local what = case[1] .. " case " .. i .. " " .. name
          helper.assert_close(fast[name], plain[name], 3e-6, what)
          if name == "y" or not (args and args.relu) then -- roundings turn some of relu's signs, and so its gradients
            helper.assert_close(plain[name], exact[name], 1.5e-2, what)
          end
          assert.is_true(helper.relative_error(plain[name], exact[name]) > 1e-5, what .. " is not rounded")
        end
      end
    end)
  end

  it("leaves minimal filtering in f32, and takes it where it is faster", function()
    if C.pn_set_precision("bf16", 0) ~= 0 then pending(ffi.string(C.pn_error())) return end
    local x, w = helper.random({ 1, 64, 4, 16, 16 }, "x"), helper.random({ 64, 64, 3, 3, 3 }, "w")
    local y = pn.conv3d(x, w)
    local direct = with("plain", "f32", function() end) and pn.conv3d(x, w)
    local faster = best ~= "amx"
    reset()
    assert.equal(faster, helper.relative_error(y, direct) < 1e-5)
  end)

  it("gives the same bits for any number of threads", function()
    local threads = C.pn_threads()
    if C.pn_set_precision("bf16", 0) ~= 0 then pending(ffi.string(C.pn_error())) return end
    for i, case in ipairs(cases) do
      local op, x, w, bias, args = tensors(i)
      check(C.pn_set_threads(1))
      local one = all_of(op, x, w, bias, args)
      check(C.pn_set_threads(5))
      local five = all_of(op, x, w, bias, args)
      check(C.pn_set_threads(threads))
      for _, name in ipairs { "y", "dx", "dw" } do
        assert.equal(0, helper.relative_error(one[name], five[name]), case[1] .. " case " .. i .. " " .. name)
      end
    end
  end)

  for _, variant in ipairs { "plain", "avx512_bf16", "amx_emulated" } do
    it(variant .. " reports every allocation that fails on the way back", function()
      if best == "plain" or C.pn_set_cpu_variant(variant == "amx_emulated" and best or variant) ~= 0 then
        pending("this CPU has no " .. variant)
        return
      end
      finally(function() C.pn_debug_fail_alloc(0) end)
      for _, i in ipairs { 1, 2, 7, 11 } do
        local op, x, w, bias, args = tensors(i)
        with(variant, "bf16", function()
          x:requires_grad(true)
          w:requires_grad(true)
          local nth, done = 0, false
          while not done do
            nth = nth + 1
            x:set_grad(nil)
            w:set_grad(nil)
            pn.scope(function()
              local sum = pn.sum(op(x, w, bias, args))
              C.pn_memory_trim(C.PN_CPU)
              C.pn_debug_fail_alloc(nth)
              local ok, problem = pcall(sum.backward, sum)
              C.pn_debug_fail_alloc(0)
              done = ok
              if not ok then assert.matches("out of memory", tostring(problem), 1, true) end
            end)
            assert.is_true(nth < 200)
          end
          assert.is_true(nth > 6, nth .. " allocations")
        end)
      end
    end)
  end

  it("trains with weights, gradients and momentum in f32, two steps near those of f32", function()
    if C.pn_set_precision("bf16", 0) ~= 0 then pending(ffi.string(C.pn_error())) return end
    local function train(precision)
      check(C.pn_set_precision(precision, 0))
      return pn.scope(function()
        local net = require "models.fcn_i3d" { width = 0.125, batchnorm = "batch", skips = { "1a", "2c" } }
        net:reset(3)
        net:train()
        local sgd = pn.optim.sgd(net:parameters(), { lr = 1e-2, momentum = 0.9, weight_decay = 2e-4 })
        local x, target = helper.random({ 1, 3, 4, 32, 32 }, "frames"), pn.zeros { 1, 1, 4, 32, 32 }
        target:slice(4, 8, 16):fill(1)
        local losses = {}
        for step = 1, 2 do
          sgd:zero_grad()
          local loss = pn.loss.balanced(net(x).fused, target)
          loss:backward()
          sgd:step()
          losses[step] = loss:item()
        end
        local finer, types = 0, {}
        for _, parameter in ipairs(net:parameters()) do
          local weight = parameter.tensor
          types[weight:dtype()] = true
          if weight:grad() then types[weight:grad():dtype()] = true end
          if helper.relative_error(weight:cast "bf16":cast "f32", weight) > 1e-4 then finer = finer + 1 end
        end
        return { losses = losses, finer = finer, types = types }
      end)
    end
    local f32, bf16 = train "f32", train "bf16"
    assert.same({ f32 = true }, bf16.types)
    assert.is_true(bf16.finer > 10, "weights are coarse: bf16 was stored")
    for step = 1, 2 do
      local difference = math.abs(bf16.losses[step] - f32.losses[step])
      assert.is_true(difference > 0 and difference < 1e-2 * f32.losses[step], ("step %d: %g and %g"):format(step, f32.losses[step],
        bf16.losses[step]))
    end
  end)

  it("keeps f32, and says why, where the kernels in use have no bf16", function()
    for _, variant in ipairs { "avx2", "avx512" } do
      if C.pn_set_cpu_variant(variant) == 0 then
        assert.equal(-1, C.pn_set_precision("bf16", 0))
        assert.equal("bf16 wants a CPU with AVX-512-BF16 or AMX; here are the " .. variant .. " kernels, so f32 stays",
          ffi.string(C.pn_error()))
        assert.equal("f32", ffi.string(C.pn_precision(0)))
      end
    end
  end)

  it("says so on stderr when a script asks for it there, and goes on in f32", function()
    if C.pn_set_cpu_variant("avx2") ~= 0 then pending "this CPU has no avx2" return end
    local stderr, said = io.stderr, ""
    io.stderr = { write = function(_, ...) said = said .. table.concat { ... } end } -- luacheck: ignore
    local precision = pn.precision "bf16"
    io.stderr = stderr -- luacheck: ignore
    assert.equal("f32", precision)
    assert.equal("precision: bf16 wants a CPU with AVX-512-BF16 or AMX; here are the avx2 kernels, so f32 stays\n", said)
    assert.error_matches(function() pn.precision "f8" end, "precision: expects f32, tf32, bf16 or fp16, got f8")
  end)

  it("refuses a precision that does not exist", function()
    assert.equal(-1, C.pn_set_precision("f8", 0))
    assert.equal('no precision "f8" on the CPU (f32, bf16)', ffi.string(C.pn_error()))
    assert.equal(-1, C.pn_set_precision("tf32", 0))
    assert.equal('no precision "tf32" on the CPU (f32, bf16)', ffi.string(C.pn_error()))
    assert.equal(-1, C.pn_set_precision("f8", 1))
    assert.equal('no precision "f8" on CUDA (f32, tf32, bf16, fp16)', ffi.string(C.pn_error()))
    assert.equal(-1, C.pn_set_precision(nil, 0))
    assert.equal("set_precision: name is NULL", ffi.string(C.pn_error()))
  end)
end)
