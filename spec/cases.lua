--- The cases of the registry as tensors: what an operation's own "2,3,4:step 2,3 kernel=3" asks for, with values that are the same
-- in every run; and one run of a case, forward and backward.

local ffi = require "ffi"
local pn = require "penumbra"
local C = pn.C

local cases = {}

-- "2,3,4:step 2,3 kernel=3" -> {{shape = {2,3,4}, marks = {step = true}}, ...}, "kernel=3"
local function parse_case(text)
  local inputs, arguments = {}, {}
  for word in text:gmatch("%S+") do
    if word:find("=", 1, true) then
      arguments[#arguments + 1] = word
    elseif word == "-" then
      inputs[#inputs + 1] = false
    else
      local sizes, marks = word:match("^([^:]*):?(.*)$")
      local input = { shape = {}, marks = {} }
      for size in sizes:gmatch("%d+") do
        input.shape[#input.shape + 1] = tonumber(size)
      end
      for mark in marks:gmatch("[^:]+") do
        input.marks[mark] = true
      end
      inputs[#inputs + 1] = input
    end
  end
  return inputs, table.concat(arguments, " ")
end

local function spec_of(shape, dtype)
  local spec = { dtype = dtype }
  for i, size in ipairs(shape) do
    spec[i] = size
  end
  return spec
end

local function dtype_of(input)
  for _, name in ipairs { "u8", "i64", "i32", "f32", "f64", "f16", "bf16" } do
    if input.marks[name] then
      return name
    end
  end
  return pn.real
end

-- The values of one input, in row order, from its marks.
local function values_of(input, rng)
  local count = 1
  for _, size in ipairs(input.shape) do
    count = count * size
  end
  local values = {}
  local integral = input.marks.u8 or input.marks.i64 or input.marks.i32
  for i = 1, count do
    if input.marks.step then
      values[i] = (i - 0.3) * 2 / count - 1 -- none is 0, where relu and others have a corner
    elseif input.marks["01"] then
      values[i] = rng:integer(0, 1)
    elseif input.marks["12"] then
      values[i] = rng:integer(1, 2)
    elseif integral then
      values[i] = rng:integer(0, 3)
    elseif input.marks["+"] then -- positive, away from 0
      values[i] = rng:uniform(0.5, 1.5)
    else
      values[i] = rng:uniform(-1, 1)
    end
  end
  return input.marks.step and rng:shuffle(values) or values
end

local function write(t, values)
  local rows = pn.empty(spec_of(t:shape(), t:dtype()))
  local data = rows:data()
  for i, value in ipairs(values) do
    data[i - 1] = value
  end
  return t:copy(rows)
end

-- A tensor with gaps: every second element of a larger one, with its axes in another order in memory.
local function with_gaps(shape, dtype)
  if #shape == 0 then
    return pn.empty { dtype = dtype }
  end
  local big, order, axes = { dtype = dtype }, {}, {}
  for i = #shape, 1, -1 do
    order[#order + 1] = i
    big[#order] = shape[i]
    axes[i] = #order
  end
  big[1] = 2 * big[1] + 1
  local t = pn.zeros(big)
  t = pn.ops.slice(t, { axis = 1, first = 2, count = shape[#shape], step = 2 })
  return pn.ops.permute(t, { axes = axes })
end

local function make_inputs(inputs, values, options)
  local tensors = {}
  for i, input in ipairs(inputs) do
    if input then
      local dtype = dtype_of(input)
      local t
      if options and options.gaps then
        t = with_gaps(input.shape, dtype)
      else
        local spec = spec_of(input.shape, dtype)
        spec.layout = options and options.layout and #input.shape == 5 and options.layout or "rows"
        t = pn.empty(spec)
      end
      tensors[i] = write(t, values[i])
    else
      tensors[i] = false
    end
  end
  return tensors
end

local function case_values(inputs, name)
  local values = {}
  for i, input in ipairs(inputs) do
    values[i] = input and values_of(input, pn.random.stream(11, name .. i)) or false
  end
  return values
end

local function is_real(t)
  return t and t:dtype() == pn.real
end

-- May it have a gradient? A CUDA device computes with 16-bit floats too.
local function differentiable(t)
  return is_real(t) or t and t:device() ~= "cpu" and (t:dtype() == "f16" or t:dtype() == "bf16")
end

local function wants(op, i)
  return not C.pn_op_input_constant(C.pn_op_find(op), i - 1)
end

-- May input i be of 16 bits where the device computes with them?
local function may_be_short(op, i)
  return not C.pn_op_input_real(C.pn_op_find(op), i - 1)
end

-- Fixed weights for the outputs: the scalar that is differentiated is their sum, weighted.
local function output_weights(ys)
  local weights = {}
  for i, y in ipairs(ys) do
    weights[i] = is_real(y) and pn.random.stream(13, "weights" .. i):fill(pn.empty(spec_of(y:shape())), "uniform", 0.2, 1.2)
  end
  return weights
end

-- Forward and backward from weights, each in its output's type; returns the outputs and the gradients (false where there is none).
local function run(op, tensors, arguments, weights)
  for i, t in ipairs(tensors) do
    if differentiable(t) and wants(op, i) then
      t:requires_grad(true)
      t:set_grad(nil)
    end
  end
  local ys = pn.ops.apply_text(op, tensors, arguments)
  weights = weights or output_weights(ys)
  for i, y in ipairs(ys) do
    if weights[i] and y:requires_grad() then
      local weight = weights[i]:dtype() == y:dtype() and weights[i] or weights[i]:cast(y:dtype())
      y:backward(weight, { keep_graph = i < #ys })
    end
  end
  local grads = {}
  for i, t in ipairs(tensors) do
    grads[i] = t and t:grad() or false
  end
  return ys, grads
end

-- The inputs of a case for the C interface, where real ones want a gradient: a list of those there are; pointers (NULL for an
-- absent one) and how many; the text of the arguments.
local function for_c(name, text)
  local inputs, arguments = parse_case(text)
  local handles, pointers = {}, ffi.new("pn_tensor *[?]", #inputs)
  for i, t in ipairs(make_inputs(inputs, case_values(inputs, name))) do
    if t then
      t:requires_grad(is_real(t))
      handles[#handles + 1] = t
      pointers[i - 1] = pn.ffi.ptr(t)
    end
  end
  return handles, pointers, #inputs, arguments
end

local function bits(ys, grads)
  local list = {}
  for _, t in ipairs(ys) do
    list[#list + 1] = t:crc32c()
  end
  for _, t in ipairs(grads) do
    list[#list + 1] = t and t:crc32c() or "-"
  end
  return table.concat(list, " ")
end

local function for_each_case(fn)
  for _, name in ipairs(pn.ops.names()) do
    for _, text in ipairs(pn.ops.describe(name).cases) do
      fn(name, text)
    end
  end
end

cases.parse_case = parse_case
cases.dtype_of = dtype_of
cases.make_inputs = make_inputs
cases.case_values = case_values
cases.is_real = is_real
cases.wants = wants
cases.may_be_short = may_be_short
cases.output_weights = output_weights
cases.run = run
cases.for_c = for_c
cases.bits = bits
cases.each = for_each_case
cases.spec_of = spec_of
cases.write = write

return cases
