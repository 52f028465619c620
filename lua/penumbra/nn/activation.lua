--- Layers without parameters: activations and dropout.

local named = require "penumbra.base.named"
local module = require "penumbra.nn.module"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local replay = require "penumbra.replay"
local tensor = require "penumbra.tensor"

local layers = {}

-- An operation of one tensor that keeps shape and channels, as a layer.
local function elementwise(kind)
  local Layer = module.class(kind)
  function Layer:new(options)
    named.check(kind, options, {})
    self.keeps_grid, self.keeps_channels, self.writes_into = true, true, true
  end
  function Layer.forward(_, x, into)
    return ops[kind](x, { into = into })
  end
  layers[kind] = Layer
end

--- max(x, 0).
elementwise "relu"
--- 1/(1 + e^-x).
elementwise "sigmoid"
--- tanh x.
elementwise "tanh"
--- x/2 (1 + erf(x/√2)).
elementwise "gelu"

local Dropout = module.class "dropout"

--- In training, zeroes each element with probability p and scales the others by 1/(1 - p); else hands x through.
-- Its numbers come from a stream of its own (`self.stream`, whose state() a checkpoint may hold; `reset` names it by seed and
-- path), and go on from call to call.
-- @tparam table options p (0.5)
function Dropout:new(options)
  named.check("dropout", options, { "p" })
  self.p = options.p or 0.5
  if type(self.p) ~= "number" or self.p < 0 or self.p >= 1 then
    raise("dropout: p is %s, expects 0 up to, not including, 1", tostring(self.p))
  end
  self.keeps_grid, self.keeps_channels = true, true
end

function Dropout:initialise(stream)
  self.stream = stream("mask")
end

function Dropout:describe()
  return ("p %g"):format(self.p)
end

function Dropout:forward(x)
  if not self.training or self.p == 0 then
    return x
  end
  local function seed() -- 53 bits, what a Lua number holds
    return self.stream:bits() * 2 ^ 21 + math.floor(self.stream:bits() / 2 ^ 11)
  end
  if replay.capturing() then -- each time it is done again with the seed that a call would draw
    local key = replay.tensor(function() return tensor.empty { 1, dtype = "i64", device = x:device() } end)
    replay.around(function() key:fill(seed()) end)
    return ops.dropout(x, key, { p = self.p, seed = 0 })
  end
  return ops.dropout(x, { p = self.p, seed = seed() })
end

layers.dropout = Dropout
return layers
