--- Linear layers.

local named = require "penumbra.base.named"
local init = require "penumbra.nn.initialise"
local module = require "penumbra.nn.module"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local tensor = require "penumbra.tensor"

local Linear = module.class "linear"

--- y = x weight' + bias on the last axis: x (...,from) -> (...,to). weight is (to,from).
-- @tparam table options from, to; bias (true); init ("kaiming", "xavier", a number, or a function(t, rng))
function Linear:new(options)
  named.check("linear", options, { "from", "to", "bias", "init" })
  self.n_from = named.whole("linear", "from", options.from, 1)
  self.n_to = named.whole("linear", "to", options.to, 1)
  self.init_weight = init.resolve("linear", options.init or "kaiming")
  if options.bias ~= nil and type(options.bias) ~= "boolean" then
    raise("linear: bias is %s, expects true or false", tostring(options.bias))
  end
  self:add_parameter("weight", tensor.empty { self.n_to, self.n_from })
  if options.bias ~= false then
    self:add_parameter("bias", tensor.zeros { self.n_to })
  end
end

function Linear:initialise(stream)
  self.init_weight(self.weight:detach(), stream("weight"))
  if self.bias then
    self.bias:detach():fill(0)
  end
end

--- @param x (...,from), of 1 to 6 axes
function Linear:forward(x)
  local n = x:dims()
  if n == 0 or x:size(n) ~= self.n_from then
    raise("linear: the last axis of x is %s, expects %d", n == 0 and "missing" or tostring(x:size(n)), self.n_from)
  end
  local rows = n == 1 and x:reshape(1, self.n_from) or x
  local y = ops.matmul(rows, self.weight, { transpose_b = true })
  if self.bias then
    y = y + self.bias
  end
  return n == 1 and y:reshape(self.n_to) or y
end

return { linear = Linear }
