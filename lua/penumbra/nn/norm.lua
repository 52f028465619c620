--- Batch norm, and the unit of I3D: convolution, batch norm, ReLU; group and layer norm, by the input's own statistics.

local module = require "penumbra.nn.module"
local named = require "penumbra.base.named"
local conv = require "penumbra.nn.conv"
local nearest = require "penumbra.base.nearest"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local tensor = require "penumbra.tensor"

local MODES = { "running", "frozen", "batch", "moving" }

local function check_mode(what, mode)
  for _, known in ipairs(MODES) do
    if mode == known then
      return mode
    end
  end
  local guess = nearest(mode, MODES)
  raise("%s is '%s', expects %s%s", what, tostring(mode), table.concat(MODES, ", "),
    guess and (" (did you mean '%s'?)"):format(guess) or "")
end

local function check_eps(what, eps)
  if type(eps) ~= "number" or not (eps >= 0 and eps <= 1) then
    raise("%s: eps is %s, expects 0 to 1", what, tostring(eps))
  end
  return eps
end

local BatchNorm = module.class "batch_norm"

--- y = gamma·(x - mean)/√(var + eps) + beta for each channel, then relu where asked (Ioffe & Szegedy 2015).
-- Parameters: beta; gamma where asked (I3D has none, METHOD 4). Buffers: mean, var. In training, all modes but frozen also move the
-- buffers towards the input's statistics.
-- @tparam table options channels; mode: "running" (in training the mean and variance of the input, in evaluation the buffers:
--   the default, and what other libraries mean by batch norm), "frozen" (the buffers, as they were loaded), "batch" (always those
--   of the input), "moving" (alpha of the input's, the rest the buffers'); alpha (0.1); eps (1e-3); momentum: the share of the
--   buffers that stays in a step (running 0.9, else 0.999); gamma (false); relu (false)
function BatchNorm:new(options)
  named.check("batch_norm", options, { "channels", "mode", "alpha", "eps", "momentum", "gamma", "relu" })
  local channels = named.whole("batch_norm", "channels", options.channels, 1)
  self.n_from, self.n_to = channels, channels
  self.mode = check_mode("batch_norm: mode", options.mode or "running")
  self.named = {
    eps = check_eps("batch_norm", options.eps or 1e-3), alpha = options.alpha or 0.1,
    momentum = options.momentum or (self.mode == "running" and 0.9 or 0.999), relu = options.relu or false,
  }
  self.writes_into, self.keeps_grid, self.keeps_channels = not options.gamma, true, true
  self:add_parameter("beta", tensor.zeros { channels })
  if options.gamma then self:add_parameter("gamma", tensor.ones { channels }) end
  self:add_buffer("mean", tensor.zeros { channels })
  self:add_buffer("var", tensor.ones { channels })
end

function BatchNorm:initialise()
  self.beta:detach():fill(0)
  if self.gamma then self.gamma:detach():fill(1) end
  self.mean:fill(0)
  self.var:fill(1)
end

function BatchNorm:describe()
  return self.mode .. (self.gamma and " gamma" or "") .. (self.named.relu and " relu" or "")
end

-- What the operation is to take: running statistics are those of the input in training, frozen ones otherwise.
local function mode_in(self, training)
  if self.mode ~= "running" then return self.mode end
  return training and "batch" or "frozen"
end

--- Are the statistics those of the buffers?
-- @tparam ?boolean training as the module is now when not given
function BatchNorm:is_frozen(training)
  if training == nil then training = self.training end
  return mode_in(self, training) == "frozen"
end

--- What frozen statistics do to a channel: y = scale·x + bias, scale = gamma/√(var + eps), bias = beta - mean·scale. Two tensors
-- (channels); the gradient goes to beta, and to gamma.
function BatchNorm:line()
  local scale = 1 / ops.sqrt(self.var + self.named.eps)
  if self.gamma then scale = self.gamma * scale end
  return scale, self.beta - self.mean * scale
end

-- The operation has no gamma: it takes no beta then, and the rest comes after it.
local function with_gamma(self, x, how)
  local relu = how.relu
  how.relu = false
  local y = ops.batch_norm(x, tensor.zeros_like(self.mean), self.mean, self.var, how)
  how.relu = relu
  local function by_channel(t) return ops.reshape(t, { shape = { 1, self.n_to, 1, 1, 1 } }) end
  y = y * by_channel(self.gamma) + by_channel(self.beta)
  return relu and ops.relu(y) or y
end

--- @param x (N,channels,T,H,W)
-- @param into ?tensor where to write the result
function BatchNorm:forward(x, into)
  local how = self.named
  local mode = mode_in(self, self.training)
  how.mode, how.update, how.into = mode, self.training and mode ~= "frozen", into
  local y
  if self.gamma then
    y = with_gamma(self, x, how)
  else
    y = ops.batch_norm(x, self.beta, self.mean, self.var, how)
  end
  how.into = nil
  return y
end

local Unit = module.class "unit"

--- Convolution (no bias, pad "same") → batch norm → ReLU. Children: conv, bn. With frozen statistics the three are one
-- convolution, in training as in evaluation. With the statistics of the input and no gradient to come, batch norm
-- works over the convolution's result in place. A hook on conv or bn gets each of them as a step of its own.
-- @tparam table options from, to, kernel, stride, pad, dilation, groups, init as conv3d; batchnorm (the mode: "frozen"), eps,
--   alpha, momentum as batch_norm; relu (true)
function Unit:new(options)
  named.check("unit", options, {
    "from", "to", "kernel", "stride", "pad", "dilation", "groups", "init", "batchnorm", "eps", "alpha", "momentum", "relu",
  })
  self:add("conv", conv.conv3d {
    from = options.from, to = options.to, kernel = options.kernel, stride = options.stride, pad = options.pad,
    dilation = options.dilation, groups = options.groups, init = options.init, bias = false,
  })
  self:add("bn", BatchNorm {
    channels = options.to, mode = check_mode("unit: batchnorm", options.batchnorm or "frozen"), eps = options.eps,
    alpha = options.alpha, momentum = options.momentum, relu = options.relu ~= false,
  })
  self.n_from, self.n_to = self.conv.n_from, self.conv.n_to
  self.keeps_grid, self.writes_into, self.one_line = self.conv.keeps_grid, true, true
end

function Unit:describe()
  return self.conv:describe() .. ", bn " .. self.bn:describe()
end

--- @param x (N,from,T,H,W)
-- @param into ?tensor where to write the result
function Unit:forward(x, into)
  local bn = self.bn
  if #self.conv.own.hooks > 0 or #bn.own.hooks > 0 then
    return bn(self.conv(x), into)
  elseif bn:is_frozen() then
    local scale, bias = bn:line()
    return self.conv(x, into, { scale = scale, bias = bias, relu = bn.named.relu })
  end
  local y = self.conv(x)
  return bn(y, into or not tensor.recording() and y or nil)
end

-- What group and layer norm share: a weight and a bias for each channel, which begin as 1 and 0.
local function add_line(self, channels)
  self:add_parameter("weight", tensor.ones { channels })
  self:add_parameter("bias", tensor.zeros { channels })
end

local function reset_line(self)
  self.weight:detach():fill(1)
  self.bias:detach():fill(0)
end

local GroupNorm = module.class "group_norm"

--- Neighbouring channels in groups, each to mean 0 and variance 1 over its channels and places, then y·weight + bias by channel
-- (Wu & He 2018). The same in training and evaluation; x (N,channels,...) of 2 to 5 axes.
-- @tparam table options groups, channels; eps (1e-5)
function GroupNorm:new(options)
  named.check("group_norm", options, { "groups", "channels", "eps" })
  self.groups = named.whole("group_norm", "groups", options.groups, 1)
  local channels = named.whole("group_norm", "channels", options.channels, 1)
  if channels % self.groups ~= 0 then
    raise("group_norm: groups %d do not divide %d channels", self.groups, channels)
  end
  self.n_from, self.n_to = channels, channels
  self.named = { groups = self.groups, eps = check_eps("group_norm", options.eps or 1e-5) }
  self.writes_into, self.keeps_grid, self.keeps_channels = true, true, true
  add_line(self, channels)
end

GroupNorm.initialise = reset_line

function GroupNorm:describe()
  return ("groups %d"):format(self.groups)
end

--- @param x (N,channels,...)
-- @param into ?tensor where to write the result
function GroupNorm:forward(x, into)
  local how = self.named
  how.into = into
  local y = ops.group_norm(x, self.weight, self.bias, how)
  how.into = nil
  return y
end

local LayerNorm = module.class "layer_norm"

--- Each run of the last axis to mean 0 and variance 1, then y·weight + bias (Ba, Kiros & Hinton 2016). x (...,size), y the same.
-- @tparam table options size; eps (1e-5)
function LayerNorm:new(options)
  named.check("layer_norm", options, { "size", "eps" })
  self.size = named.whole("layer_norm", "size", options.size, 1)
  self.n_from, self.n_to = self.size, self.size
  self.named = { eps = check_eps("layer_norm", options.eps or 1e-5) }
  add_line(self, self.size)
end

LayerNorm.initialise = reset_line

--- @param x (...,size)
function LayerNorm:forward(x)
  local n = x:dims()
  if n == 0 or x:size(n) ~= self.size then
    raise("layer_norm: the last axis of x is %s, expects %d", n == 0 and "missing" or tostring(x:size(n)), self.size)
  end
  local rows = n == 2 and x or x:reshape(x:count() / self.size, self.size)
  local y = ops.group_norm(rows, self.weight, self.bias, self.named)
  return n == 2 and y or y:reshape(x:shape())
end

return { batch_norm = BatchNorm, unit = Unit, group_norm = GroupNorm, layer_norm = LayerNorm }
