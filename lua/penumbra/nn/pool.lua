--- Pooling: max_pool3d and avg_pool3d.

local named = require "penumbra.base.named"
local module = require "penumbra.nn.module"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"

local function pool(kind, known)
  local Pool = module.class(kind)

  function Pool:new(options)
    named.check(kind, options, known)
    if options.kernel == nil then
      raise("%s: kernel is missing", kind)
    end
    self.kernel = named.triple(kind, "kernel", options.kernel, 1)
    self.stride = named.triple(kind, "stride", options.stride or options.kernel, 1)
    self.named = {
      kernel = self.kernel, stride = self.stride, pad = named.pad(kind, options.pad == nil and "same" or options.pad),
      count_include_pad = options.count_include_pad,
    }
    self.keeps_grid = self.named.pad == "same" and table.concat(self.stride, ",") == "1,1,1"
    self.keeps_channels, self.writes_into = true, true
  end

  function Pool:describe()
    return table.concat(self.kernel, ",") .. " / " .. table.concat(self.stride, ",")
  end

  function Pool:forward(x, into)
    self.named.into = into
    local y = ops[kind](x, self.named)
    self.named.into = nil
    return y
  end

  return Pool
end

return {
  --- The largest value of each window; padding never wins. Options: kernel; stride (the kernel); pad ("same", TensorFlow's rule).
  max_pool3d = pool("max_pool3d", { "kernel", "stride", "pad" }),
  --- The mean of each window. Options as max_pool3d; count_include_pad (false): padding counts as zeros.
  avg_pool3d = pool("avg_pool3d", { "kernel", "stride", "pad", "count_include_pad" }),
}
