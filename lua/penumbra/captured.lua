--- A step that a CUDA device does again at one call. Launching the hundreds of kernels of a training step takes the host about as
-- long as the device needs to run them; captured once as a CUDA graph, they are launched together.
--
--     local step = pn.captured(function(frames, mask, side)
--       local masks = net(frames)
--       local loss = pn.loss.balanced(masks.fused, mask)
--       for _, logits in ipairs(masks.sides) do loss = loss + side * pn.loss.balanced(logits, mask) end
--       sgd:zero_grad()
--       loss:backward()
--       return loss
--     end, cfg)
--     for epoch, batch in run:epochs(cfg.epochs, dreams) do
--       local loss = step(batch.frames, batch.mask, cfg.side_weight(epoch, cfg.epochs))
--       sgd:step()
--     end
--
-- What varies from call to call goes through the arguments: tensors, and numbers, which the function receives as tensors without
-- axes. Optimisers, loss scalers and dropout see to what varies in them (penumbra.replay). For each combination of shapes the first
-- two calls run as written, the third is captured, and from then on the function itself is not called: its other effects in Lua
-- happen no more. Its results are the same tensors each time, with new values: read or copy them before the next call. A captured
-- function must not read numbers from the device (item, get, printing): that is an error which says so. On the CPU, or with
-- graph = false, every call runs the function.
-- @module penumbra.captured

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local raise = require "penumbra.base.raise"
local replay = require "penumbra.replay"
local scope = require "penumbra.scope"
local tensor = require "penumbra.tensor"

local C, check = binding.C, binding.check
local is_tensor = binding.is_tensor

local WARM = 2 -- calls as written: cuDNN chooses its algorithms, optimisers make their buffers

local Captured = {}
Captured.__index = Captured

-- A profile wants to see the operations one by one, and the trap for NaN must look at each result.
local function wants_plain()
  return C.pn_profiling() or C.pn_trapping_nan()
end

local function signature(arguments, n)
  local words = {}
  for i = 1, n do
    local a = arguments[i]
    if is_tensor(a) then
      words[i] = ("%s %s"):format(a:dtype(), table.concat(a:shape(), ","))
    elseif type(a) == "number" then
      words[i] = "number"
    else
      raise("captured: argument %d is a %s, expects tensors and numbers", i, type(a))
    end
  end
  return table.concat(words, "; ")
end

-- The arguments as the function sees them: numbers as tensors. `own`: copies of the tensors, which stay.
local function seen(self, arguments, n, own)
  local list = {}
  for i = 1, n do
    local a = arguments[i]
    if type(a) == "number" then
      list[i] = tensor.full { device = self.device, value = a }
    elseif a:device() ~= self.device then
      raise("captured: argument %d is on %s, the step on %s", i, a:device(), self.device)
    else
      list[i] = own and tensor.empty_like(a):copy(a) or a
    end
  end
  return list
end

local function launch(made)
  replay.run(made.around, function() check(C.pn_graph_launch(made.graph)) end)
end

local function capture(self, arguments, n)
  local made = { inputs = scope.outside(seen, self, arguments, n, true) }
  check(C.pn_capture_begin(binding.device(self.device)))
  replay.open()
  local out = ffi.new "pn_graph *[1]"
  local ok, problem = scope.protect(function()
    made.results = scope.outside(function()
      return { scope.run(self.step, unpack(made.inputs, 1, n)) }
    end)
    check(C.pn_capture_end(out))
  end)
  made.around = replay.close()
  if not ok then
    C.pn_capture_abort()
    error(problem, 0)
  end
  made.graph = ffi.gc(out[0], C.pn_graph_free)
  launch(made)
  return made
end

local function again(made, arguments, n)
  for i = 1, n do
    local a, to = arguments[i], made.inputs[i]
    if type(a) == "number" then
      check(C.pn_tensor_fill(to.p, a))
    elseif a:device() ~= to:device() then
      raise("captured: argument %d is on %s, the step on %s", i, a:device(), to:device())
    else
      to:copy(a)
    end
  end
  launch(made)
end

function Captured:__call(...)
  local n = select("#", ...)
  if not self.graph or wants_plain() then
    return scope.run(self.step, ...)
  end
  local arguments = { ... }
  local key = signature(arguments, n)
  local made = self.made[key]
  if made then
    again(made, arguments, n)
    return unpack(made.results)
  end
  local calls = (self.calls[key] or 0) + 1
  self.calls[key] = calls
  if calls <= WARM then
    return scope.run(self.step, unpack(seen(self, arguments, n), 1, n))
  end
  made = capture(self, arguments, n)
  self.made[key] = made
  return unpack(made.results)
end

--- How many captured steps there are: one for each combination of shapes that came three times.
function Captured:count()
  local n = 0
  for _ in pairs(self.made) do n = n + 1 end
  return n
end

--- Gives the captured work and its memory back; the next calls begin anew.
function Captured:forget()
  self.made, self.calls = {}, {}
  collectgarbage()
end

--- See the head of this page.
-- @tparam function step of tensors (on the device) and numbers, to tensors
-- @tparam table options device: "cpu" (default), "cuda", "cuda:1"; graph: false never captures (default true). Other keys are not
--   looked at, so that a recipe may give its whole config
-- @return what is called like the function
return function(step, options)
  options = options or {}
  if type(step) ~= "function" and not (getmetatable(step) or {}).__call then
    raise("captured: expects a function, got %s", type(step))
  end
  local device = binding.device(options.device)
  return setmetatable({
    step = step, device = binding.device_name(device), graph = device ~= 0 and options.graph ~= false, made = {}, calls = {},
  }, Captured)
end
