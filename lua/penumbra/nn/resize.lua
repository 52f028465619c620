--- Resizing without parameters: upsample.

local module = require "penumbra.nn.module"
local named = require "penumbra.base.named"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"

local Upsample = module.class "upsample"

--- Another size along T, H, W.
-- @tparam table options scale (whole factors, a number or {t,h,w}) or size (T,H,W of the result); mode: "trilinear" (default) or
--   "nearest"; align: "half_pixel" (default), "corners", "asymmetric" or "grid" (by the grid that the tensor carries)
function Upsample:new(options)
  named.check("upsample", options, { "scale", "size", "mode", "align" })
  if (options.scale == nil) == (options.size == nil) then
    raise("upsample: expects either scale or size")
  end
  self.named = {
    scale = options.scale and named.triple("upsample", "scale", options.scale, 1),
    size = options.size and named.triple("upsample", "size", options.size, 1), mode = options.mode, align = options.align,
  }
  self.keeps_channels, self.writes_into = true, true
end

function Upsample:describe()
  local how = self.named
  return (how.scale and "× " .. table.concat(how.scale, ",") or "to " .. table.concat(how.size, ",")) .. " "
    .. (how.mode or "trilinear")
end

--- @param x (N,C,T,H,W)
-- @param into ?tensor where to write the result
function Upsample:forward(x, into)
  self.named.into = into
  local y = ops.resize3d(x, self.named)
  self.named.into = nil
  return y
end

return { upsample = Upsample }
