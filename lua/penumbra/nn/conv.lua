--- Convolutions: conv3d and conv_transpose3d.
-- Weights lie in memory as the kernels read them (layout "filter": T,H,W,I,O under axes O,I,T,H,W).

local init = require "penumbra.nn.initialise"
local module = require "penumbra.nn.module"
local named = require "penumbra.base.named"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local tensor = require "penumbra.tensor"

local function pad_text(pad)
  if type(pad) == "table" then
    local parts = {}
    for i, side in ipairs(pad) do
      parts[i] = type(side) == "table" and side[1] .. ":" .. side[2] or tostring(side)
    end
    return table.concat(parts, ",")
  end
  return tostring(pad)
end

local function divide(what, channels, groups)
  if channels % groups ~= 0 then
    raise("%s: groups %d do not divide %d channels", what, groups, channels)
  end
  return channels / groups
end

local function triple_text(t)
  return table.concat(t, ",")
end

-- What both kinds share: channels, kernel, stride, groups, bias, how they begin.
local function begin(self, options)
  local what = self.kind
  self.n_from = named.whole(what, "from", options.from, 1)
  self.n_to = named.whole(what, "to", options.to, 1)
  self.kernel = named.triple(what, "kernel", options.kernel or 1, 1)
  self.stride = named.triple(what, "stride", options.stride or 1, 1)
  self.dilation = named.triple(what, "dilation", options.dilation or 1, 1)
  self.groups = named.whole(what, "groups", options.groups or 1, 1)
  self.init_weight = init.resolve(what, options.init or "kaiming")
  if options.bias ~= nil and type(options.bias) ~= "boolean" then
    raise("%s: bias is %s, expects true or false", what, tostring(options.bias))
  end
end

local function initialise(self, stream)
  self.init_weight(self.weight:detach(), stream("weight"))
  if self.bias then
    self.bias:detach():fill(0)
  end
end

local function describe(self)
  local text = triple_text(self.kernel) .. " / " .. triple_text(self.stride)
  if self.pad ~= "same" then
    text = text .. " pad " .. pad_text(self.pad)
  end
  if triple_text(self.dilation) ~= "1,1,1" then
    text = text .. " dilation " .. triple_text(self.dilation)
  end
  return self.groups > 1 and text .. " groups " .. self.groups or text
end

local Conv3d = module.class "conv3d"

--- 3-D convolution. x (N,from,T,H,W) -> (N,to,T',H',W'); 2-D is T = 1 with a kernel of 1 along time.
-- @tparam table options from, to (channels); kernel (1), stride (1), dilation (1): numbers or {t,h,w}; pad: "same" (TensorFlow's
--   rule, the default), a number (0: what is called "valid" elsewhere), {t,h,w} or {{low,high},...}; groups (1); bias (true); init
--   ("kaiming", "xavier", a number, or a function(t, rng))
function Conv3d:new(options)
  named.check("conv3d", options, { "from", "to", "kernel", "stride", "pad", "dilation", "groups", "bias", "init" })
  begin(self, options)
  self.pad = named.pad("conv3d", options.pad == nil and "same" or options.pad)
  self.writes_into = true
  self.keeps_grid = self.pad == "same" and triple_text(self.stride) == "1,1,1"
  local k = self.kernel
  divide("conv3d", self.n_to, self.groups)
  self:add_parameter("weight",
    tensor.empty { self.n_to, divide("conv3d", self.n_from, self.groups), k[1], k[2], k[3], layout = "filter" })
  if options.bias ~= false then
    self:add_parameter("bias", tensor.zeros { self.n_to })
  end
  self.named = { stride = self.stride, pad = self.pad, dilation = self.dilation, groups = self.groups }
end

Conv3d.initialise = initialise
Conv3d.describe = describe

--- @param x tensor
-- @param into ?tensor where to write the result
-- @tparam ?table behind what stands behind it, done in the same pass: scale and bias (a number a channel; bias in place of the
--   layer's own), relu (boolean)
function Conv3d:forward(x, into, behind)
  local how = self.named
  how.into, how.relu = into, behind and behind.relu
  local y = ops.conv3d(x, self.weight, behind and behind.bias or self.bias, behind and behind.scale, how)
  how.into = nil
  return y
end

local ConvTranspose3d = module.class "conv_transpose3d"

--- Transposed 3-D convolution, the adjoint of conv3d: upsamples by its stride. x (N,from,T,H,W) -> (N,to,T',H',W').
-- @tparam table options as conv3d; pad 0 by default ("same": T' = T·stride), output_pad (0)
function ConvTranspose3d:new(options)
  named.check("conv_transpose3d", options,
    { "from", "to", "kernel", "stride", "pad", "output_pad", "dilation", "groups", "bias", "init" })
  begin(self, options)
  self.pad = named.pad("conv_transpose3d", options.pad == nil and 0 or options.pad)
  self.output_pad = named.triple("conv_transpose3d", "output_pad", options.output_pad or 0, 0)
  self.writes_into = true
  local k = self.kernel
  divide("conv_transpose3d", self.n_from, self.groups)
  self:add_parameter("weight",
    tensor.empty { self.n_from, divide("conv_transpose3d", self.n_to, self.groups), k[1], k[2], k[3], layout = "filter" })
  if options.bias ~= false then
    self:add_parameter("bias", tensor.zeros { self.n_to })
  end
  self.named = {
    stride = self.stride, pad = self.pad, output_pad = self.output_pad, dilation = self.dilation, groups = self.groups,
  }
end

ConvTranspose3d.initialise = initialise
ConvTranspose3d.describe = describe

--- @param x tensor
-- @param into ?tensor where to write the result
function ConvTranspose3d:forward(x, into)
  self.named.into = into
  local y = ops.conv_transpose3d(x, self.weight, self.bias, self.named)
  self.named.into = nil
  return y
end

return { conv3d = Conv3d, conv_transpose3d = ConvTranspose3d }
