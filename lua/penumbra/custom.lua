--- Operations of one's own: results and gradients, both in Lua, no compiler.
--
--     local swish = pn.custom {
--       name = "swish",
--       forward = function(ctx, x, slope)
--         local s = pn.sigmoid(slope * x)
--         ctx:save(x, s)
--         ctx.slope = slope
--         return x * s
--       end,
--       backward = function(ctx, dy)
--         local x, s = ctx:saved()
--         return dy * (s + ctx.slope * x * s * (1 - s))
--       end,
--     }
--     local y = swish(x, 2)
--     pn.check_gradient(function(x) return swish(x, 2) end, x)
--
-- Neither function is recorded, so inside both are plain numbers without a history, and a gradient of the gradient there is none.
-- @module penumbra.custom
local ffi = require "ffi"
local binding = require "penumbra.ffi"
local named = require "penumbra.base.named"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"
local tensor = require "penumbra.tensor"

local C, check, ptr = binding.C, binding.check, binding.ptr

local MAX_INPUTS, MAX_OUTPUTS = tonumber(ffi.cast("int", C.PN_MAX_INPUTS)), tonumber(ffi.cast("int", C.PN_MAX_OUTPUTS))

-- ---- what forward leaves for backward ------------------------------------------------------------------------------------

local Context = {}
Context.__index = Context

--- Keeps tensors until backward has been. Other values are fields: ctx.slope = 2.
function Context:save(...)
  local list = self.tensors
  for i = 1, select("#", ...) do
    local t = select(i, ...)
    if not tensor.is_tensor(t) then
      raise("%s: ctx:save: value %d is a %s, expects a tensor", self.name, i, type(t))
    end
    list[#list + 1] = t:detach():keep() -- a handle of its own: that of t ends with the scope around
  end
end

--- What was saved, in its order.
function Context:saved()
  return unpack(self.tensors)
end

-- ---- backward -------------------------------------------------------------------------------------------------------------

local waiting = {} -- by number: { ctx, backward, like } of what the tape may still ask for; like: each result without its memory
local last = 0

-- What flowed into a result: zeros where nothing did.
local function flowed(dy, like)
  if dy ~= nil then
    C.pn_tensor_retain(dy)
    return binding.wrap(dy)
  end
  return tensor.zeros(like)
end

local function run_backward(entry, dy, n_y, dx, n_x)
  local slopes = {}
  for i = 1, n_y do slopes[i] = flowed(dy[i - 1], entry.like[i]) end
  local results = { entry.backward(entry.ctx, unpack(slopes, 1, n_y)) }
  for i = 1, math.max(n_x, table.maxn(results)) do
    local t = results[i]
    if i > n_x then
      raise("%s: backward gave %d gradients, forward took %d tensor%s", entry.ctx.name, table.maxn(results), n_x,
        n_x == 1 and "" or "s")
    elseif t and not tensor.is_tensor(t) then
      raise("%s: backward gave a %s for input %d, expects a tensor or nil", entry.ctx.name, type(t), i)
    elseif t then
      local p = ptr(t)
      C.pn_tensor_retain(p)
      dx[i - 1] = p
    end
  end
end

-- Called by the tape. An error must not leave it: C is waiting.
local callback = ffi.cast("pn_custom_backward *", function(id, dy, n_y, dx, n_x)
  local entry, depth = waiting[tonumber(id)], scope.depth()
  scope.push()
  local ok, problem = scope.protect(run_backward, entry, dy, n_y, dx, n_x)
  scope.unwind(depth)
  return ok and 0 or C.pn_fail_with(tostring(problem))
end)

-- Drops what the tape will not ask for again.
local function tidy()
  while true do
    local id = tonumber(C.pn_custom_forgotten(callback))
    local entry = waiting[id]
    if not entry then return end
    waiting[id] = nil
    for _, t in ipairs(entry.ctx.tensors) do t:free() end
  end
end

-- ---- forward --------------------------------------------------------------------------------------------------------------

-- The tensors among the arguments, and whether one wants a gradient.
local function inputs_of(...)
  local list, wanted = {}, false
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    if tensor.is_tensor(value) then
      list[#list + 1] = value
      wanted = wanted or value:requires_grad()
    end
  end
  return list, wanted
end

-- Results as tensors that are nobody else's: forward may have returned what it was given.
local function results_of(name, ...)
  local n = select("#", ...)
  if n == 0 or n > MAX_OUTPUTS then
    raise("%s: forward returned %s, expects 1 to %d tensors", name, n == 0 and "nothing" or n .. " values", MAX_OUTPUTS)
  end
  local list = { ... }
  for i = 1, n do
    if not tensor.is_tensor(list[i]) then
      raise("%s: forward returned a %s as result %d, expects a tensor", name, type(list[i]), i)
    end
    list[i] = list[i]:detach()
  end
  return list
end

local function record(ctx, backward, x, y)
  local px, py = ffi.new("pn_tensor *[?]", MAX_INPUTS), ffi.new("pn_tensor *[?]", MAX_OUTPUTS)
  if #x > MAX_INPUTS then
    raise("%s: %d tensors, expects %d at most", ctx.name, #x, MAX_INPUTS)
  end
  local like = {}
  for i, t in ipairs(x) do px[i - 1] = ptr(t) end
  for i, t in ipairs(y) do
    py[i - 1], like[i] = ptr(t), t:shape()
    like[i].dtype, like[i].device = t:dtype(), t:device()
  end
  last = last + 1
  waiting[last] = { ctx = ctx, backward = backward, like = like }
  local rc = C.pn_tape_custom(ctx.name, px, #x, py, #y, callback, last)
  if rc ~= 0 then waiting[last] = nil end
  check(rc)
end

-- @tparam table options name; forward: function(ctx, ...) of the arguments of the call, returns 1 to 8 tensors; backward:
--   function(ctx, dy, ...) of what flows into each result, returns what flows into each tensor among the arguments, in their order
--   (nil: nothing)
-- @treturn function(...) tensors and other values; its results are those of forward, and have a gradient where a tensor among the
--   arguments wants one
local function custom(_, options)
  local how = named("custom", options, { name = "custom", forward = named.required, backward = named.required })
  for _, key in ipairs { "forward", "backward" } do
    if type(how[key]) ~= "function" then
      raise("custom: %s is a %s, expects a function", key, type(how[key]))
    end
  end
  return function(...)
    tidy()
    local x, wanted = inputs_of(...)
    local ctx = setmetatable({ name = how.name, tensors = {} }, Context)
    local y = results_of(how.name, tensor.no_grad(how.forward, ctx, ...))
    if wanted and tensor.recording() then
      record(ctx, how.backward, x, y)
    end
    return unpack(y)
  end
end

-- ---- the gradient, checked -------------------------------------------------------------------------------------------------

-- What f's results come to, each element times a fixed number of its own, so that no two errors cancel.
local function weighed(f, x)
  local total
  for i, y in ipairs { f(unpack(x)) } do
    local weights = {}
    for k = 1, y:count() do weights[k] = math.cos(0.7 * k + i) end
    local sum = ops.sum(ops.reshape(y, { shape = { y:count() } }) * tensor.tensor(weights, { device = y:device() }))
    total = total and total + sum or sum
  end
  return total
end

local custom_module = {}

--- Holds the gradient of a function against differences of its values, at every element of every input.
-- @tparam function f of tensors; returns one or more; nothing in it may be random
-- @param ... tensors, real
-- @tparam[opt] table options the last argument: step (1e-2; 1e-5 in the f64 build), tolerance (1e-2; 1e-6), of the largest
--   slope, beyond what rounding alone makes of a difference
-- @treturn number the largest difference, as a share of the largest slope; an error where it is above the tolerance, with the
--   input, the element and both slopes
function custom_module.check_gradient(f, ...)
  local x, options = { ... }, nil
  if type(x[#x]) == "table" then options = table.remove(x) end
  local exact = binding.real == "f64"
  options = named("check_gradient", options, { step = exact and 1e-5 or 1e-2, tolerance = exact and 1e-6 or 1e-2 })
  if type(f) ~= "function" then
    raise("check_gradient: f is a %s, expects a function", type(f))
  end
  local leaves = {}
  for i, t in ipairs(x) do
    if not tensor.is_tensor(t) then raise("check_gradient: input %d is a %s, expects a tensor", i, type(t)) end
    leaves[i] = t:detach():clone():requires_grad(true)
  end
  scope.run(function() weighed(f, leaves):backward() end)
  local worst, largest, highest, place = 0, 0, 0, nil
  for i, leaf in ipairs(leaves) do
    local flat, slopes = leaf:detach():reshape(leaf:count()), leaf:grad() and leaf:grad():flat() or {}
    for k = 1, leaf:count() do
      local value = flat:get(k)
      local function at(moved)
        flat:set(moved, k)
        local y = tensor.no_grad(function() return scope.run(function() return weighed(f, leaves):item() end) end)
        highest = math.max(highest, math.abs(y))
        return y
      end
      local difference = (at(value + options.step) - at(value - options.step)) / (2 * options.step)
      flat:set(value, k)
      local slope = slopes[k] or 0
      largest = math.max(largest, math.abs(difference), math.abs(slope))
      local apart = math.abs(slope - difference)
      if apart > worst or apart ~= apart then
        worst, place = apart, { i, k, slope, difference }
      end
    end
  end
  local noise = 8 * (exact and 2 ^ -52 or 2 ^ -23) * highest / options.step -- what rounding alone makes of a difference
  local share = math.max(0, worst - noise) / math.max(largest, noise, 1e-300)
  if worst ~= worst then share = worst end
  if share > options.tolerance or share ~= share then
    raise("check_gradient: input %d, element %d: backward says %.6g, the values %.6g", unpack(place))
  end
  return share
end

return setmetatable(custom_module, { __call = custom })
