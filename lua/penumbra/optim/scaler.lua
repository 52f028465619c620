--- Loss scaling, for precision fp16: what the small gradients of a network would lose in 16 bits is kept by making all larger.
--
--     local scaler = pn.optim.scaler()
--     sgd:zero_grad(); scaler:backward(loss); scaler:step(sgd)
--
-- The loss goes backward times `scale`; the optimiser divides by it again, in f32. A step whose gradients are not finite is left
-- out, and the scale divided by `factor`; after `grow_every` steps without such it is multiplied by that (Micikevicius et al.,
-- "Mixed precision training", ICLR 2018). A scale that is a power of two changes no bit of what does not overflow or vanish.
-- @module penumbra.optim.scaler

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"
local replay = require "penumbra.replay"
local tensor = require "penumbra.tensor"

local C, check = binding.C, binding.check

local Scaler = {}
Scaler.__index = Scaler

local function number(name, value, low, high)
  if type(value) ~= "number" or not (value >= low and value <= high) then
    raise("scaler: %s is %s, expects a number from %g to %g", name, tostring(value), low, high)
  end
  return value
end

-- The tensor that backward begins with, on a device.
local function seed_on(self, device)
  local seed = self.seeds[device]
  if not seed then
    seed = { tensor = replay.tensor(function() return tensor.empty { device = device } end) }
    self.seeds[device] = seed
  end
  return seed
end

local function tell(self, seed)
  self.in_use = self.scale
  if seed.scale ~= self.scale then
    check(C.pn_tensor_set(seed.tensor.p, ffi.new "int64_t [1]", self.scale))
    seed.scale = self.scale
  end
end

--- The loss times the scale goes backward. Several losses before one step are fine.
-- @tparam tensor loss one number
-- @tparam ?table options as for loss:backward
function Scaler:backward(loss, options)
  if not self.on then
    return loss:backward(nil, options)
  end
  local seed = seed_on(self, loss:device())
  if replay.capturing() then
    replay.around(function() tell(self, seed) end)
  else
    replay.settle()
    tell(self, seed)
  end
  loss:backward(#loss:shape() == 0 and seed.tensor or seed.tensor:reshape(unpack(loss:shape())), options)
end

local function heed(self, norm, complain)
  if norm < math.huge then
    self.n_good = self.n_good + 1
    if self.n_good >= self.grow_every then
      self.scale, self.n_good = math.min(self.scale * self.factor, self.most), 0
    end
    return
  end
  if self.scale <= self.least then
    complain()
  end
  self.scale, self.n_good, self.n_skipped = math.max(self.scale / self.factor, self.least), 0, self.n_skipped + 1
end

--- A step of an optimiser whose gradients came by scaler:backward; left out where they are not finite. At the least scale that is
-- an error, which names the parameter. An optimiser stepped this way is stepped in no other.
-- @treturn number the norm of all gradients, without the scale, before clipping; nil when the step was left out, or inside a
--   captured step
function Scaler:step(optimiser)
  if not self.on then
    return optimiser:step()
  end
  local function tell_optimiser() optimiser.loss_scale = self.in_use end
  if replay.capturing() then
    replay.around(tell_optimiser)
  else
    tell_optimiser()
  end
  local norm = optimiser:step_with(function(norm, complain) heed(self, norm, complain) end)
  return norm ~= math.huge and norm or nil
end

--- What a checkpoint holds: where the scale stands.
function Scaler:state()
  replay.settle()
  return { numbers = { scale = self.scale, n_good = self.n_good, n_skipped = self.n_skipped } }
end

--- Goes to a state that `state` gave.
function Scaler:load_state(state)
  local numbers = type(state) == "table" and state.numbers
  if type(numbers) ~= "table" or type(numbers.scale) ~= "number" or type(numbers.n_good) ~= "number"
    or type(numbers.n_skipped) ~= "number" then
    raise("scaler: load_state: not a state of a scaler")
  end
  self.scale, self.n_good, self.n_skipped = numbers.scale, numbers.n_good, numbers.n_skipped
  return self
end

--- A loss scaler. Its `scale` and `n_skipped` (steps left out) may be read and logged.
-- @tparam ?table options start (65536); factor (2); grow_every (2000) steps; least (1), most (2^32); on (true): false is
--   loss:backward() and optimiser:step(), for recipes in any precision
return function(options)
  options = options or {}
  named.check("scaler", options, { "start", "factor", "grow_every", "least", "most", "on" })
  local self = setmetatable({ n_good = 0, n_skipped = 0, seeds = {}, on = options.on ~= false }, Scaler)
  self.least = number("least", options.least or 1, 2 ^ -24, 2 ^ 60)
  self.most = number("most", options.most or 2 ^ 32, self.least, 2 ^ 60)
  self.scale = number("start", options.start or 65536, self.least, self.most)
  self.factor = number("factor", options.factor or 2, 1.0001, 2 ^ 16)
  self.grow_every = number("grow_every", options.grow_every or 2000, 1, math.huge)
  self.in_use = self.scale
  self.may_begin_anew = true -- in a run that goes on from another precision
  return self
end
