--- What is made of operations, and has a name of its own: methods of tensors too. Gradients flow through all but argmin.
--
--     x:min { 3, 4, keep = true }                    -- as max; so var, std and norm
--     pn.stack({ a, b, c }, { axis = 1 })            -- tensors side by side along a new axis
--     local q, k, v = unpack(x:split(2, 64))         -- parts of 64 channels; x:split(2, { 64, 96, 32 })
--     x:select(2, 1)                                 -- channel 1, without its axis; x[1] is x:select(1, 1)
--     x:unsqueeze(1):squeeze(1)                      -- an axis of size 1 put in, and taken out
-- @module penumbra.composed
local named = require "penumbra.base.named"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local tensor = require "penumbra.tensor"

local composed = {}

local function need_tensor(what, x)
  if not tensor.is_tensor(x) then
    raise("%s: x is a %s, expects a tensor", what, type(x))
  end
end

-- An axis, counted from 1, or from the end below 0.
local function axis_of(what, axis, n)
  if type(axis) == "number" and axis < 0 then
    axis = n + 1 + axis
  end
  return named.whole(what, "axis", axis, 1, n)
end

-- The options of a reduction: the axes listed bare or as axes=, and keep.
local function reduction(what, x, options)
  need_tensor(what, x)
  local how = named(what, options, { axes = named.optional, keep = false, correction = what == "var" and 0 or nil })
  if type(options) == "table" and options[1] ~= nil then
    how.axes = { unpack(options) }
  end
  return how
end

--- The smallest value over axes. A NaN wins.
-- @param x real
-- @tparam ?table options axes (all), keep (false): leaves them with size 1
function composed.min(x, options)
  local how = reduction("min", x, options)
  return -ops.max(-x, how)
end

--- The place of the smallest value over axes, counted from 1 in row order; of equal ones the first. Options as `min`.
function composed.argmin(x, options)
  local how = reduction("argmin", x, options)
  return ops.argmax(-x, how)
end

--- The variance over axes: the mean of the squared distances from the mean.
-- @param x real
-- @tparam ?table options axes (all), keep (false), correction (0): the sum is divided by the count less this; 1 estimates the
--   variance of what x was drawn from
function composed.var(x, options)
  local how = reduction("var", x, options)
  local mean = ops.mean(x, { axes = how.axes, keep = true })
  local squares = ops.mean(ops.square(x - mean), { axes = how.axes, keep = how.keep })
  local n = x:count() / math.max(1, mean:count())
  if how.correction >= n and x:count() > 0 then
    raise("var: correction is %g, but each variance is of %d value%s", how.correction, n, n == 1 and "" or "s")
  end
  return how.correction == 0 and squares or squares * (n / (n - how.correction))
end

--- The standard deviation: the root of `var`, with its options.
function composed.std(x, options)
  return ops.sqrt(composed.var(x, options))
end

--- The length of x over axes: the root of the sum of squares. Options as `min`.
function composed.norm(x, options)
  local how = reduction("norm", x, options)
  return ops.sqrt(ops.sum(ops.square(x), how))
end

--- An axis of size 1 put in.
-- @param x
-- @tparam int axis where it will be, from 1 to one past the last; -1 puts it last
function composed.unsqueeze(x, axis)
  need_tensor("unsqueeze", x)
  axis = axis_of("unsqueeze", axis, x:dims() + 1)
  local shape = x:shape()
  table.insert(shape, axis, 1)
  return ops.reshape(x, { shape = shape })
end

--- Without an axis of size 1, or without all of them.
-- @param x
-- @tparam ?int axis which; default: every axis of size 1
function composed.squeeze(x, axis)
  need_tensor("squeeze", x)
  local shape = x:shape()
  if axis ~= nil then
    axis = axis_of("squeeze", axis, x:dims())
    if shape[axis] ~= 1 then
      raise("squeeze: axis %d has %d elements, expects 1   (x %s)", axis, shape[axis], table.concat(shape, ","))
    end
  end
  local rest = {}
  for d, size in ipairs(shape) do
    if size ~= 1 or (axis and d ~= axis) then rest[#rest + 1] = size end
  end
  return ops.reshape(x, { shape = rest })
end

--- The i-th part of an axis, without that axis: a view. x[i] is x:select(1, i).
-- @param x
-- @tparam int axis from 1; -1 is the last
-- @tparam int i from 1
function composed.select(x, axis, i)
  need_tensor("select", x)
  if x:dims() == 0 then
    raise("select: x is one number, it has no axis")
  end
  axis = axis_of("select", axis, x:dims())
  named.whole("select", "place along axis " .. axis, i, 1, x:size(axis))
  return composed.squeeze(ops.slice(x, { axis = axis, first = i, count = 1 }), axis)
end

--- The parts of an axis, one after the other: views.
-- @param x
-- @tparam int axis from 1; -1 is the last
-- @tparam int|{int} sizes of all parts (the last one may be smaller), or of each, which together make the axis
-- @treturn {tensor}
function composed.split(x, axis, sizes)
  need_tensor("split", x)
  if x:dims() == 0 then
    raise("split: x is one number, it has no axis")
  end
  axis = axis_of("split", axis, x:dims())
  local n, parts = x:size(axis), {}
  if type(sizes) ~= "table" then
    local size = named.whole("split", "size", sizes, 1)
    sizes = {}
    for first = 1, n, size do sizes[#sizes + 1] = math.min(size, n + 1 - first) end
  end
  local first = 1
  for i, size in ipairs(sizes) do
    named.whole("split", ("size %d"):format(i), size, 0, n)
    parts[i] = first + size - 1 <= n and ops.slice(x, { axis = axis, first = first, count = size }) or nil
    first = first + size
  end
  if first ~= n + 1 then
    raise("split: the sizes make %d, axis %d has %d   (x %s)", first - 1, axis, n, table.concat(x:shape(), ","))
  end
  return parts
end

--- Tensors of one shape side by side along a new axis.
-- @tparam {tensor} list
-- @tparam ?table options axis (1): where the new axis will be; -1 puts it last
function composed.stack(list, options)
  local how = named("stack", options, { axis = 1 })
  if type(list) ~= "table" or #list == 0 then
    raise("stack: expects a list of tensors, got %s",
      type(list) == "table" and "an empty one" or tensor.is_tensor(list) and "a tensor" or "a " .. type(list))
  end
  local wide = {}
  for i, x in ipairs(list) do
    if not tensor.is_tensor(x) then
      raise("stack: number %d of the list is a %s, expects a tensor", i, type(x))
    end
    how.axis = axis_of("stack", how.axis, x:dims() + 1)
    wide[i] = composed.unsqueeze(x, how.axis)
  end
  return ops.concat(wide, { axis = how.axis })
end

for name, f in pairs(composed) do
  if name ~= "stack" then tensor.methods[name] = f end
end

return composed
