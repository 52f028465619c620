--- What comes of the order of values: sorted, the largest few, quantiles. Gradients go to the elements that were taken.
--
--     local values, places = pn.sort(x, { axis = 2 })            -- pn.gather(x, places, { axis = 2 }) is values
--     local best, where = pn.topk(likeness, 20, { axis = 3 })    -- of each query the 20 keys most like it, the best first
--     local median = x:quantile(0.5, { axis = 1 })               -- methods of tensors too
--
-- A NaN is larger than everything; of equal ones the first comes first.
-- @module penumbra.order
local named = require "penumbra.base.named"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local tensor = require "penumbra.tensor"

local order = {}

-- The axis that was asked for, or the last; there must be one.
local function axis_of(what, x, axis)
  if not tensor.is_tensor(x) then
    raise("%s: x is a %s, expects a tensor", what, type(x))
  elseif x:dims() == 0 then
    raise("%s: x is one number, it has no axis", what)
  end
  if type(axis) == "number" and axis < 0 then
    axis = x:dims() + 1 + axis
  end
  return named.whole(what, "axis", axis or x:dims(), 1, x:dims())
end

--- Sorted along an axis.
-- @param x real
-- @tparam ?table options axis (the last one; -1 is the last), descending (false)
-- @treturn tensor values, of the shape of x
-- @treturn tensor their places in x (i64, counted from 1), of the same shape
function order.sort(x, options)
  options = named("sort", options, { axis = named.optional, descending = false })
  local axis = axis_of("sort", x, options.axis)
  local places = ops.argsort(x, { axis = axis, descending = options.descending })
  return ops.gather(x, places, { axis = axis }), places
end

--- The k largest along an axis, the largest first.
-- @param x real
-- @tparam int k from 1 to the size of the axis
-- @tparam ?table options axis (the last one), smallest (false: true takes the smallest, the smallest first)
-- @treturn tensor values: x with that axis of size k
-- @treturn tensor their places in x (i64, counted from 1), of the same shape
function order.topk(x, k, options)
  options = named("topk", options, { axis = named.optional, smallest = false })
  local axis = axis_of("topk", x, options.axis)
  named.whole("topk", "k", k, 1, x:size(axis))
  local places = ops.argsort(x, { axis = axis, descending = not options.smallest, count = k })
  return ops.gather(x, places, { axis = axis }), places
end

--- The value below which a share q of the values along an axis lie; between two of them it is interpolated.
-- @param x real
-- @tparam number q 0 (the smallest) to 1 (the largest); 0.5 is the median
-- @tparam ?table options axis (the last one)
-- @treturn tensor x with that axis of size 1
function order.quantile(x, q, options)
  options = named("quantile", options, { axis = named.optional })
  local axis = axis_of("quantile", x, options.axis)
  named.share("quantile", "q", q)
  local n = x:size(axis)
  if n == 0 then
    raise("quantile: x has nothing along axis %d", axis)
  end
  local place = 1 + q * (n - 1)
  local below = math.floor(place)
  local sorted = order.sort(x, { axis = axis })
  local low = sorted:slice(axis, below, 1)
  if below == place then
    return low
  end
  return low + (sorted:slice(axis, below + 1, 1) - low) * (place - below)
end

for name, f in pairs(order) do
  tensor.methods[name] = f
end

return order
