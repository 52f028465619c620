--- Every operation that a CUDA device has, by the registry's own cases: what it makes and every gradient against the CPU, twice
-- with equal bits, in every memory order. PENUMBRA_CUDA_LIB=build/libpenumbra_cuda.so runs it on a card; else it is the emulation.

local device = require "spec.gpu.device"
local pn = require "penumbra"
local helper = require "spec.helper"
local cases = require "spec.cases"

local function on_cuda(name) return pn.ops.describe(name).devices:find("cuda", 1, true) ~= nil end

local function moved(tensors)
  local there = {}
  for i, t in ipairs(tensors) do there[i] = t and t:to "cuda:0" end
  return there
end

local function compare(name, text, make, tolerance)
  local inputs, arguments = cases.parse_case(text)
  local values = cases.case_values(inputs, name)
  local here = cases.make_inputs(inputs, values, make)
  local there = moved(here)
  local ys, grads = cases.run(name, here, arguments)
  local weights = cases.output_weights(ys)
  local cuda_ys, cuda_grads = cases.run(name, there, arguments, moved(weights))
  local what = ("%s %s"):format(name, text)
  assert.equal(#ys, #cuda_ys)
  for i, y in ipairs(ys) do
    assert.equal("cuda:0", cuda_ys[i]:device(), what)
    helper.assert_close(cuda_ys[i]:to "cpu", y, tolerance, what)
  end
  for i, grad in ipairs(grads) do
    assert.equal(not grad, not cuda_grads[i], what .. ": gradient " .. i)
    if grad then helper.assert_close(cuda_grads[i]:to "cpu", grad, tolerance, what .. ": gradient " .. i) end
  end
  return cases.bits(cuda_ys, cuda_grads)
end

local function each_case(make)
  local n = 0
  cases.each(function(name, text)
    if not on_cuda(name) then return end
    n = n + 1
    pn.scope(function()
      local first = compare(name, text, make, device.tolerance[pn.real])
      assert.equal(first, compare(name, text, make, device.tolerance[pn.real]), name .. " " .. text .. ": other bits")
    end)
  end)
  assert.is_true(n > 0)
end

describe("the registry on a CUDA device", function()
  it("agrees with the CPU, in rows", function() each_case() end)
  it("agrees with the CPU, channels last", function() each_case { layout = "channels_last" } end)
  it("agrees with the CPU, with gaps between the elements", function() each_case { gaps = true } end)
end)
