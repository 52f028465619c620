--- Every operation that a CUDA device has, by the registry's own cases: what it makes and every gradient against the CPU, twice
-- with equal bits, in every memory order, and with inputs of 16 bits against the CPU on the same rounded numbers.
-- PENUMBRA_CUDA_LIB=build/libpenumbra_cuda.so runs it on a card; else it is the emulation.

local device = require "spec.gpu.device"
local pn = require "penumbra"
local helper = require "spec.helper"
local cases = require "spec.cases"

local function on_cuda(name) return pn.ops.describe(name).devices:find("cuda", 1, true) ~= nil end

local function rounded(t, short) return t:cast(short):cast(t:dtype()) end

-- The inputs of a case on both sides; with `short` (f16, bf16) every number is one of that type, and on the device stored so where
-- the operation allows it.
local function both_sides(name, tensors, short)
  local here, there = {}, {}
  for i, t in ipairs(tensors) do
    local narrow = t and short and cases.is_real(t)
    here[i] = narrow and t:copy(rounded(t, short)) or t
    there[i] = t and t:to "cuda:0"
    if narrow and cases.may_be_short(name, i) then there[i] = there[i]:cast(short) end
  end
  return here, there
end

local function compare(name, text, make, short)
  local inputs, arguments = cases.parse_case(text)
  local values = cases.case_values(inputs, name)
  local here, there = both_sides(name, cases.make_inputs(inputs, values, make), short)
  local weights, cuda_weights = cases.output_weights(cases.run(name, here, arguments)), {}
  for i, w in ipairs(weights) do
    weights[i] = w and short and rounded(w, short) or w
    cuda_weights[i] = weights[i] and weights[i]:to "cuda:0"
  end
  local ys, grads = cases.run(name, here, arguments, weights)
  local cuda_ys, cuda_grads = cases.run(name, there, arguments, cuda_weights)
  local what = ("%s %s%s"):format(name, text, short and " in " .. short or "")
  local tolerance = device.tolerance[short or pn.real]
  assert.equal(#ys, #cuda_ys)
  for i, y in ipairs(ys) do
    assert.equal("cuda:0", cuda_ys[i]:device(), what)
    helper.assert_close(cuda_ys[i]:to "cpu", y, tolerance, what)
  end
  for i, grad in ipairs(grads) do
    assert.equal(not grad, not cuda_grads[i], what .. ": gradient " .. i)
    if grad then
      assert.equal(there[i]:dtype(), cuda_grads[i]:dtype(), what .. ": gradient " .. i)
      helper.assert_close(cuda_grads[i]:to "cpu", grad, tolerance, what .. ": gradient " .. i)
    end
  end
  return cases.bits(cuda_ys, cuda_grads)
end

local function each_case(make, short)
  local n = 0
  cases.each(function(name, text)
    if not on_cuda(name) then return end
    n = n + 1
    pn.scope(function()
      local first = compare(name, text, make, short)
      assert.equal(first, compare(name, text, make, short), name .. " " .. text .. ": other bits")
    end)
  end)
  assert.is_true(n > 0)
end

describe("the registry on a CUDA device", function()
  it("agrees with the CPU, in rows", function() each_case() end)
  it("agrees with the CPU, channels last", function() each_case { layout = "channels_last" } end)
  it("agrees with the CPU, with gaps between the elements", function() each_case { gaps = true } end)
  it("agrees with the CPU in bf16", function() each_case({ layout = "channels_last" }, "bf16") end)
  it("agrees with the CPU in f16", function() each_case({ layout = "channels_last" }, "f16") end)
end)
