-- conv_spec: conv3d and conv_transpose3d against PyTorch's numbers, and every fast variant against the plain definition.
local pn = require "penumbra"
local binding = require "penumbra.ffi"
local helper = require "spec.helper"
local C, check = binding.C, binding.check
local ffi = require "ffi"

local function ramp(shape, divisor, offset)
  local t = pn.empty(shape)
  local count, values = t:count(), {}
  for i = 1, count do values[i] = (i - 1) / divisor + offset end
  return pn.reshape(pn.tensor(values), { shape = shape }):clone()
end

-- y, dx, dw, db of sum(y^2).
local function all_of(op, x, w, bias, args)
  local made = {}
  for _, t in ipairs { x, w, bias } do
    check(C.pn_set_grad(binding.ptr(t), nil))
    t:requires_grad(true)
  end
  local y = op(x, w, bias, args)
  made.y = y:detach():clone()
  pn.sum(y * y):backward()
  made.dx, made.dw, made.db = x:grad():clone(), w:grad():clone(), bias and bias:grad():clone()
  return made
end

describe("conv3d", function()
  it("gives PyTorch's numbers, forward and backward", function()
    local x, w = ramp({ 1, 2, 2, 3, 2 }, 10, -1), ramp({ 3, 2, 2, 2, 1 }, 20, -0.5)
    local made = all_of(pn.conv3d, x, w, pn.tensor { 0.1, -0.2, 0.3 }, { stride = { 1, 2, 1 }, pad = { 1, 0, 0 } })
    assert.same({ 1, 3, 3, 1, 2 }, made.y:shape())
    helper.assert_close(made.y, {
      0.68, 0.57, 0.72, 0.46, -0.1, -0.25, -0.1, -0.05, 0.42, 0.48, 0.08, 0.09, -0.08, 0.13, 0.92, 1.3, 1.06, 1.23,
    }, 1e-6)
    helper.assert_close(made.dx:slice(2, 1, 1):slice(3, 1, 1), { -0.86, -0.128, -0.604, 0.161, 0, 0 }, 2e-6)
    helper.assert_close(made.dw:slice(1, 1, 1):slice(2, 1, 1), { -2.038, -1.706, -3.238, -2.266 }, 2e-6)
    helper.assert_close(made.db, { 4.16, 1.84, 9.12 }, 2e-6)
  end)

  it("pads as TensorFlow does: an even size with stride 2 has its odd zero at the end", function()
    local x = ramp({ 1, 1, 1, 1, 4 }, 1, 1) -- 1 2 3 4
    local w = ramp({ 1, 1, 1, 1, 3 }, 1, 1) -- 1 2 3
    helper.assert_close(pn.conv3d(x, w, { stride = { 1, 1, 2 } }), { 14, 11 }, 1e-6) -- 1+4+9; 3+8+0
  end)

  it("says which channels do not fit", function()
    local ok, message = pcall(pn.conv3d, pn.zeros { 1, 64, 2, 3, 3 }, pn.zeros { 8, 96, 1, 1, 1 })
    assert.is_false(ok)
    assert.matches("conv3d: weight expects 96 input channels, x has 64   %(x 1,64,2,3,3; weight 8,96,1,1,1%)", message)
  end)

  local wrong = {
    { "the kernel spans 5 along H, the padded input has 3", function()
      return pn.conv3d(pn.zeros { 1, 1, 3, 3, 3 }, pn.zeros { 1, 1, 1, 5, 1 }, { pad = 0 })
    end },
    { "groups divide neither", function()
      return pn.conv3d(pn.zeros { 1, 3, 1, 1, 1 }, pn.zeros { 2, 1, 1, 1, 1 }, { groups = 2 })
    end },
    { "bias must be f%d+ of 2 values", function()
      return pn.conv3d(pn.zeros { 1, 3, 1, 1, 1 }, pn.zeros { 2, 3, 1, 1, 1 }, pn.zeros { 3 })
    end },
    { "scale must be f%d+ of 2 values", function()
      return pn.conv3d(pn.zeros { 1, 3, 1, 1, 1 }, pn.zeros { 2, 3, 1, 1, 1 }, nil, pn.zeros { 3 })
    end },
    { "x has 4 axes, expected 5", function()
      return pn.conv3d(pn.zeros { 3, 1, 1, 1 }, pn.zeros { 2, 3, 1, 1, 1 })
    end },
    { "x is u8, expected f%d+", function()
      return pn.conv3d(pn.zeros { 1, 3, 1, 1, 1, dtype = "u8" }, pn.zeros { 2, 3, 1, 1, 1 })
    end },
    { "the kernel is empty", function()
      return pn.conv3d(pn.zeros { 1, 3, 1, 1, 1 }, pn.zeros { 2, 3, 0, 1, 1 })
    end },
    { "weight expects 4 input channels, x has 3", function()
      return pn.conv_transpose3d(pn.zeros { 1, 3, 1, 1, 1 }, pn.zeros { 4, 3, 1, 1, 1 })
    end },
    { "2 groups do not divide 3 channels", function()
      return pn.conv_transpose3d(pn.zeros { 1, 3, 1, 1, 1 }, pn.zeros { 3, 3, 1, 1, 1 }, { groups = 2 })
    end },
    { "output_pad 2 along H must be below", function()
      return pn.conv_transpose3d(pn.zeros { 1, 3, 1, 1, 1 }, pn.zeros { 3, 3, 1, 2, 1 }, { stride = 2, output_pad = { 0, 2, 0 } })
    end },
    { "the padding leaves nothing along T", function()
      return pn.conv_transpose3d(pn.zeros { 1, 3, 1, 1, 1 }, pn.zeros { 3, 3, 1, 2, 2 }, { pad = 1 })
    end },
    { "the inner sizes differ: 4 and 5", function()
      return pn.matmul(pn.zeros { 3, 4 }, pn.zeros { 5, 2 })
    end },
  }
  for _, case in ipairs(wrong) do
    it("refuses: " .. case[1], function()
      local ok, message = pcall(case[2])
      assert.is_false(ok)
      assert.matches(case[1], message)
    end)
  end

  it("carries the grid: centre 1, 3, 7, 15, 23 after the five stages of I3D", function()
    local x = pn.zeros { 1, 1, 16, 32, 32 }
    C.pn_tensor_set_grid(binding.ptr(x), ffi.new("double[3]", 1, 1, 1), ffi.new("double[3]", 0, 0, 0))
    local y = pn.conv3d(x, pn.zeros { 1, 1, 7, 7, 7 }, { stride = 2 })
    local stride, centre = ffi.new "double[3]", ffi.new "double[3]"
    assert.is_true(C.pn_tensor_grid(binding.ptr(y), stride, centre))
    assert.same({ 2, 2, 2, 1, 1, 1 }, { stride[0], stride[1], stride[2], centre[0], centre[1], centre[2] })
    local up = pn.conv_transpose3d(y, pn.zeros { 1, 1, 4, 4, 4 }, { stride = 2, pad = 1 })
    assert.is_true(C.pn_tensor_grid(binding.ptr(up), stride, centre))
    assert.same({ 1, 1, 1, 0.5, 0.5, 0.5 }, { stride[0], stride[1], stride[2], centre[0], centre[1], centre[2] })
  end)
end)

describe("what stands behind a convolution", function()
  it("is done in its pass: scale, bias and relu give what three operations give, gradients too", function()
    for _, case in ipairs {
      { { 1, 5, 3, 9, 8 }, { 21, 5, 3, 3, 3 }, {} }, { { 2, 6, 2, 7, 7 }, { 300, 3, 1, 1, 1 }, { groups = 2 } },
      { { 1, 16, 4, 14, 14 }, { 64, 16, 3, 3, 3 }, {} }, { { 1, 3, 5, 9, 11 }, { 7, 3, 7, 7, 7 }, { stride = 2 } },
    } do
      local n = case[2][1]
      local x, w = helper.random(case[1], "x"), helper.random(case[2], "w")
      local bias, scale = helper.random({ n }, "bias"), helper.random({ n }, "scale") -- of any sign
      local together = { relu = true }
      for name, value in pairs(case[3]) do together[name] = value end
      local one = all_of(function(a, b, c, args) return pn.conv3d(a, b, c, scale, args) end, x, w, bias, together)
      local three = all_of(function(a, b, c, args)
        local shape = { shape = { 1, n, 1, 1, 1 } }
        return pn.relu(pn.conv3d(a, b, nil, args) * pn.reshape(scale, shape) + pn.reshape(c, shape))
      end, x, w, bias, case[3])
      for _, name in ipairs { "y", "dx", "dw", "db" } do
        helper.assert_close(one[name], three[name], 1e-5, name)
      end
      assert.is_nil(scale:grad())
    end
  end)

  it("leaves a gradient that another operation reads alone", function()
    local x, w = helper.random({ 1, 3, 2, 5, 5 }, "x"), helper.random({ 4, 3, 1, 3, 3 }, "w"):requires_grad(true)
    local other = helper.random({ 1, 4, 2, 5, 5 }, "other"):requires_grad(true)
    local seed = helper.random({ 1, 4, 2, 5, 5 }, "seed"):contiguous "channels_last"
    local y = pn.conv3d(x, w, nil, pn.full { 4, value = 3 }, { relu = true })
    pn.add(other, y):backward(seed) -- both get the same memory
    helper.assert_same_bits(other:grad():contiguous(), seed:contiguous())
  end)
end)

describe("conv_transpose3d", function()
  it("gives PyTorch's numbers, forward and backward", function()
    local x, w = ramp({ 1, 2, 2, 2, 2 }, 10, -1), ramp({ 2, 1, 2, 3, 2 }, 20, -0.5)
    local made = all_of(pn.conv_transpose3d, x, w, nil, { stride = { 1, 2, 2 }, pad = { 0, 1, 0 }, output_pad = { 0, 1, 0 } })
    assert.same({ 1, 1, 3, 4, 4 }, made.y:shape())
    helper.assert_close(made.y:slice(3, 1, 1), {
      0.36, 0.3, 0.34, 0.29, 0.64, 0.54, 0.6, 0.52, 0.32, 0.28, 0.3, 0.27, 0.24, 0.2, 0.24, 0.21,
    }, 2e-6)
    helper.assert_close(made.dx, {
      -1.188, -1.131, -2.222, -2.186, -0.888, -0.999, -1.87, -2.17, 2.7, 2.865, 2.794, 3.118, 1.992, 2.421, 2.474, 3.038,
    }, 2e-6)
    helper.assert_close(made.dw:slice(1, 1, 1):slice(3, 1, 1), { -2.616, -2.2, -3.36, -2.844, -4.636, -3.918 }, 2e-6)
  end)
end)

describe("the fast kernels", function()
  -- Shapes that reach every path: rows fused (few channels), whole and partial tiles, phases, groups, many taps, one channel.
  local cases = {
    { "conv3d", { 1, 3, 5, 9, 11 }, { 7, 3, 7, 7, 7 }, { stride = 2 } },
    { "conv3d", { 2, 5, 4, 9, 8 }, { 21, 5, 3, 3, 3 }, {} },
    { "conv3d", { 1, 16, 4, 14, 14 }, { 64, 16, 3, 3, 3 }, {} },
    { "conv3d", { 1, 50, 3, 7, 7 }, { 70, 50, 1, 1, 1 }, {} },
    { "conv3d", { 1, 6, 3, 7, 7 }, { 8, 3, 3, 2, 1 }, { groups = 2, stride = { 1, 2, 1 }, pad = { 1, 0, 2 } } },
    { "conv3d", { 1, 4, 3, 9, 9 }, { 5, 4, 2, 3, 3 }, { dilation = { 2, 2, 3 }, stride = { 1, 1, 2 } } },
    { "conv3d", { 1, 2, 1, 4, 30 }, { 3, 2, 1, 1, 2 }, { stride = { 1, 1, 3 } } },
    { "conv_transpose3d", { 1, 16, 3, 5, 5 }, { 16, 16, 4, 8, 8 }, { stride = { 2, 4, 4 }, pad = { 1, 2, 2 } } },
    { "conv_transpose3d", { 1, 1, 3, 5, 5 }, { 1, 1, 4, 8, 8 }, { stride = { 2, 4, 4 }, pad = "same" } },
    { "conv_transpose3d", { 1, 16, 2, 4, 5 }, { 16, 1, 4, 8, 8 }, { stride = { 2, 4, 4 }, pad = "same" } },
    { "conv3d", { 1, 37, 2, 4, 5 }, { 2, 37, 1, 3, 1 }, {} },
    { "conv3d", { 1, 3, 5, 9, 11 }, { 7, 3, 7, 7, 7 }, { stride = 2, relu = true } },
    { "conv3d", { 2, 5, 4, 9, 8 }, { 21, 5, 3, 3, 3 }, { relu = true } },
    { "conv3d", { 1, 16, 4, 14, 14 }, { 64, 16, 3, 3, 3 }, { relu = true } },
    { "conv3d", { 1, 50, 3, 7, 7 }, { 70, 50, 1, 1, 1 }, { relu = true } },
    { "conv3d", { 1, 200, 2, 5, 5 }, { 33, 200, 3, 3, 3 }, { relu = true } }, -- the taps come in several rounds
    { "conv3d", { 1, 6, 3, 7, 7 }, { 8, 3, 3, 2, 1 }, { groups = 2, stride = { 1, 2, 1 }, pad = { 1, 0, 2 }, relu = true } },
    { "conv3d", { 1, 37, 2, 4, 5 }, { 1, 37, 1, 3, 1 }, { relu = true } },
    { "conv_transpose3d", { 1, 3, 2, 2, 2 }, { 3, 2, 1, 2, 2 }, { stride = 3, output_pad = { 2, 0, 1 } } },
    -- By cells: odd sizes, one frame, uneven crops, rows added, one stride or three in a kernel, places along t in two groups.
    { "conv_transpose3d", { 2, 16, 3, 7, 5 }, { 16, 1, 4, 4, 4 }, { stride = 2, pad = { { 1, 2 }, { 3, 0 }, { 2, 5 } } } },
    { "conv_transpose3d", { 1, 16, 1, 3, 4 }, { 16, 1, 4, 16, 16 },
      { stride = { 2, 8, 8 }, pad = { { 2, 1 }, { 7, 0 }, { 9, 6 } } } },
    { "conv_transpose3d", { 1, 1, 1, 4, 3 }, { 1, 1, 2, 8, 8 }, { stride = { 1, 4, 4 }, pad = { 0, { 5, 1 }, 3 } } },
    { "conv_transpose3d", { 1, 1, 2, 9, 20 }, { 1, 1, 4, 4, 4 }, { stride = 2, pad = { { 1, 1 }, { 0, 3 }, { 3, 0 } } } },
    { "conv_transpose3d", { 1, 5, 2, 3, 3 }, { 5, 3, 2, 3, 6 }, { stride = { 2, 3, 2 }, output_pad = { 1, 2, 0 } } },
    { "conv_transpose3d", { 1, 2, 2, 1, 2 }, { 2, 1, 4, 64, 32 }, { stride = { 2, 32, 32 }, pad = { { 1, 0 }, { 17, 20 }, 0 } } },
    { "conv_transpose3d", { 1, 20, 2, 2, 2 }, { 20, 4, 2, 4, 2 },
      { stride = { 1, 2, 2 }, pad = { 0, { 5, 0 }, 0 }, output_pad = { 0, 1, 1 } } },
  }
  local best = ffi.string(C.pn_cpu_variant())
  after_each(function() check(C.pn_set_cpu_variant(best)) end)

  for _, variant in ipairs { "avx2", "avx512" } do
    it(variant .. " agree with the plain definition", function()
      if C.pn_set_cpu_variant(variant) ~= 0 then pending("this CPU has no " .. variant) return end
      for i, case in ipairs(cases) do
        local x, w = helper.random(case[2], "x" .. i), helper.random(case[3], "w" .. i)
        local n_out = case[1] == "conv3d" and case[3][1] or case[3][2] * (case[4].groups or 1)
        local bias = helper.random({ n_out }, "b" .. i)
        check(C.pn_set_cpu_variant("plain"))
        local plain = all_of(pn[case[1]], x, w, bias, case[4])
        check(C.pn_set_cpu_variant(variant))
        local fast = all_of(pn[case[1]], x, w, bias, case[4])
        for _, name in ipairs { "y", "dx", "dw", "db" } do
          helper.assert_close(fast[name], plain[name], 3e-6, case[1] .. " case " .. i .. " " .. name)
        end
      end
    end)
  end

  for _, variant in ipairs { "plain", "avx2", "avx512" } do
    it(variant .. " end in relu as the operation of that name does, gradients too", function()
      if C.pn_set_cpu_variant(variant) ~= 0 then pending("this CPU has no " .. variant) return end
      for i, case in ipairs(cases) do
        if case[4].relu then
          local args = {}
          for name, value in pairs(case[4]) do args[name] = value end
          args.relu = nil
          local x, w = helper.random(case[2], "x" .. i), helper.random(case[3], "w" .. i)
          local bias = helper.random({ case[3][1] }, "b" .. i)
          local one = all_of(pn.conv3d, x, w, bias, case[4])
          local two = all_of(function(...) return pn.relu(pn.conv3d(...)) end, x, w, bias, args)
          for _, name in ipairs { "y", "dx", "dw", "db" } do
            assert.equal(0, helper.relative_error(one[name], two[name]), "case " .. i .. " " .. name)
          end
        end
      end
      local x = pn.full { 1, 3, 1, 2, 20, value = 0 / 0 }
      local y = pn.conv3d(x, helper.random({ 20, 3, 1, 1, 1 }, "w"), { relu = true })
      assert.is_true(y:get(1, 1, 1, 1, 1) ~= y:get(1, 1, 1, 1, 1)) -- NaN stays
    end)
  end
  it("add to gradients that have begun", function()
    local x, w = helper.random({ 1, 6, 2, 3, 4 }, "x"), helper.random({ 6, 1, 2, 64, 32 }, "w")
    x:requires_grad(true)
    w:requires_grad(true)
    local y = pn.sum(pn.conv_transpose3d(x, w, nil, { stride = { 2, 32, 32 } }))
    y:backward(nil, { keep_graph = true })
    local dx, dw = x:grad():clone(), w:grad():clone()
    y:backward()
    helper.assert_close(x:grad(), dx * 2, 1e-6)
    helper.assert_close(w:grad(), dw * 2, 1e-6)
  end)

  -- Tiles of every kind against the direct sums: whole tiles and rests, few tiles and many, odd channels, kernels of 1 along t.
  local filtered = {
    { { 2, 16, 4, 12, 20 }, { 32, 16, 3, 3, 3 }, {} },
    { { 1, 5, 3, 7, 9 }, { 21, 5, 3, 3, 3 }, { pad = { { 0, 1 }, { 2, 0 }, { 1, 2 } } } },
    { { 1, 37, 1, 6, 5 }, { 70, 37, 1, 3, 3 }, {} },
    { { 1, 40, 5, 30, 41 }, { 24, 40, 3, 3, 3 }, {} },
    { { 1, 24, 1, 90, 88 }, { 17, 24, 1, 3, 3 }, { pad = 0 } },
  }
  after_each(function() check(C.pn_set_winograd("auto")) end)
  for _, variant in ipairs { "avx2", "avx512" } do
    for _, tile in ipairs { "2,2,2", "2,4,4", "4,4,4", "4,2,4" } do
      it(variant .. " agree with direct sums in tiles of " .. tile, function()
        if C.pn_set_cpu_variant(variant) ~= 0 then pending("this CPU has no " .. variant) return end
        for i, case in ipairs(filtered) do
          local x, w = helper.random(case[1], "x" .. i), helper.random(case[2], "w" .. i)
          local bias = helper.random({ case[2][1] }, "b" .. i)
          check(C.pn_set_winograd("off"))
          local direct = all_of(pn.conv3d, x, w, bias, case[3])
          check(C.pn_set_winograd(tile))
          local fast = all_of(pn.conv3d, x, w, bias, case[3])
          local differs = 0
          for _, name in ipairs { "y", "dx", "dw", "db" } do
            helper.assert_close(fast[name], direct[name], 1e-5, "case " .. i .. " " .. name)
            differs = differs + helper.relative_error(fast[name], direct[name])
          end
          assert.is_true(differs > 0, "the tiles were not used")
          local options = { relu = true }
          for key, value in pairs(case[3]) do options[key] = value end
          local plain = pn.relu(direct.y:detach())
          local cut = pn.no_grad(function() return pn.conv3d(x, w, bias, options) end)
          helper.assert_close(cut, plain, 1e-5, "case " .. i .. " relu")
        end
      end)
    end
  end

  -- The stem, whose strides fold into channels: 7 and 8 taps, odd sizes, paddings by hand, a 2-D stem, a kernel of 5.
  local folded = {
    { { 1, 3, 8, 45, 50 }, { 64, 3, 7, 7, 7 }, { stride = 2 } },
    { { 2, 3, 5, 40, 43 }, { 24, 3, 7, 8, 7 }, { stride = 2, pad = { { 0, 4 }, { 3, 2 }, { 1, 5 } } } },
    { { 1, 3, 1, 60, 61 }, { 64, 3, 1, 7, 7 }, { stride = { 1, 2, 2 } } },
    { { 1, 8, 15, 40, 41 }, { 64, 8, 5, 5, 5 }, { stride = 2 } },
    { { 1, 4, 6, 30, 30 }, { 32, 4, 3, 7, 7 }, { stride = { 1, 2, 2 } } },
  }
  for _, variant in ipairs { "avx2", "avx512" } do
    it(variant .. " agree with direct sums where strides fold", function()
      if C.pn_set_cpu_variant(variant) ~= 0 then pending("this CPU has no " .. variant) return end
      for i, case in ipairs(folded) do
        local x, w = helper.random(case[1], "x" .. i), helper.random(case[2], "w" .. i)
          local bias = helper.random({ case[2][1] }, "b" .. i)
        check(C.pn_set_winograd("off"))
        local direct = all_of(pn.conv3d, x, w, bias, case[3])
        check(C.pn_set_winograd("auto"))
        local fast = all_of(pn.conv3d, x, w, bias, case[3])
        for _, name in ipairs { "y", "dw" } do
          local e = helper.relative_error(fast[name], direct[name])
          assert.is_true(e > 0 and e < 1e-5, ("case %d %s: relative error %.3g"):format(i, name, e))
        end
      end
    end)
  end

  it("choose tiles where they pay, and never in exact mode", function()
    local x, w = helper.random({ 1, 32, 4, 24, 24 }, "x"), helper.random({ 48, 32, 3, 3, 3 }, "w")
    local function with(how)
      if how == nil then pn.exact(false) elseif how == true then pn.exact(true) else check(C.pn_set_winograd(how)) end
      return pn.no_grad(function() return pn.conv3d(x, w) end)
    end
    if best == "plain" then pending("this CPU has the plain kernels alone") return end
    helper.assert_same_bits(with(nil), with("4,4,4"), "chosen and 4,4,4")
    assert.is_false(pn.exact())
    assert.is_true(helper.relative_error(with(true), with(nil)) > 0)
    with(true)
    assert.is_true(pn.exact())
    helper.failure(function() pn.exact("yes") end, "exact: expects true or false, got yes")
    for _, how in ipairs { "3,4,4", "2,2", "2,2,2x", "fast" } do
      assert.equal(-1, C.pn_set_winograd(how))
      local message = ffi.string(C.pn_error())
      assert.matches('"' .. how .. '" is none of auto, off, or the outputs of a tile along t,h,w %(each 2 or 4%)', message)
    end
    assert.equal(-1, C.pn_set_winograd(nil))
    assert.matches("how is NULL", ffi.string(C.pn_error()))
  end)

  it("give the same bits for any number of threads", function()
    local threads = C.pn_threads()
    local all = { unpack(cases) }
    for _, case in ipairs(filtered) do all[#all + 1] = { "conv3d", unpack(case) } end
    for _, case in ipairs(folded) do all[#all + 1] = { "conv3d", unpack(case) } end
    for i, case in ipairs(all) do
      local x, w = helper.random(case[2], "x" .. i), helper.random(case[3], "w" .. i)
      check(C.pn_set_threads(1))
      local one = all_of(pn[case[1]], x, w, nil, case[4])
      check(C.pn_set_threads(5))
      local five = all_of(pn[case[1]], x, w, nil, case[4])
      check(C.pn_set_threads(threads))
      for _, name in ipairs { "y", "dx", "dw" } do
        assert.equal(0, helper.relative_error(one[name], five[name]), case[1] .. " case " .. i .. " " .. name)
      end
    end
  end)

  it("write into a slice of a wider result and read from one", function()
    local x, w = helper.random({ 1, 8, 2, 5, 6 }, "x"), helper.random({ 4, 8, 3, 3, 3 }, "w")
    local wide = pn.zeros { 1, 10, 2, 5, 6 }
    local out = binding.out()
    check(C.pn_tensor_slot(out, binding.ptr(wide), 1, 3, 4))
    local slot = binding.wrap(out[0])
    local y = pn.conv3d(x, w)
    pn.conv3d(x, w, { into = slot })
    assert.equal(0, helper.relative_error(wide:slice(2, 4, 4), y))
    assert.equal(0, pn.sum(pn.abs(wide:slice(2, 1, 3))):item() + pn.sum(pn.abs(wide:slice(2, 8, 3))):item())
    local v = helper.random({ 3, 4, 1, 1, 1 }, "v")
    assert.equal(0, helper.relative_error(pn.conv3d(wide:slice(2, 4, 4), v), pn.conv3d(y, v)))
  end)

  it("refuse a variant that does not exist", function()
    assert.equal(-1, C.pn_set_cpu_variant("mmx"))
    assert.matches('no CPU variant "mmx" %(plain, avx2, avx512, avx512_bf16, amx%)', ffi.string(C.pn_error()))
  end)
end)
