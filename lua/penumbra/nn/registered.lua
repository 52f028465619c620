--- Upsampling that knows where its input stands: a transposed convolution whose output lands on the pixels of another tensor.
--
-- Element j of a feature map is centred on input pixel s·j + c; with TensorFlow's SAME padding c depends on the size (c = 1, 3, 7,
-- 15, 23 after stages 1..5 for even sizes, 1, 1, 5, 5, 13 at width 854). Cutting the middle out of the transposed convolution's
-- result, as FCN and OSVOS do, is then wrong by up to 7.5 px. Here the grid that the tensor carries says where to cut. As c is a
-- whole number and a kernel of even size has its middle between two taps, the filter begins with its peak on tap `stride`
-- (counted from 0), so that bilinear interpolation is exact. Before the first and behind the last centre the end values are held.
--
-- While the weights are the interpolation they began as, and do not learn (frozen, or no gradient is asked for), the layer is run
-- as that: resize3d, one axis after the other. `interpolates` says so; weights that learn go the general way.
--
-- Alignments: grid = as above; centre = the middle of the full result; caffe = the offset that Caffe's Crop layer works out from
-- symmetric pads ⌊k/2⌋, which puts every c at 0 but for the pool of even size before stage 5.
local ffi = require "ffi"
local binding = require "penumbra.ffi"
local init = require "penumbra.nn.initialise"
local module = require "penumbra.nn.module"
local named = require "penumbra.base.named"
local nearest = require "penumbra.base.nearest"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"
local tensor = require "penumbra.tensor"

local function choice(what, value, known)
  for _, name in ipairs(known) do
    if name == value then
      return value
    end
  end
  raise("%s is '%s'%s (known: %s)", what, tostring(value), nearest.hint(tostring(value), known),
    table.concat(known, ", "))
end

-- ---- filters ---------------------------------------------------------------------------------------------------------------

-- Filters of one axis: the weight of each tap, for a kernel whose peak lies at `peak` (0-based, may lie between two taps).
local filters = {}

function filters.linear(kernel, _, peak)
  local taps = {}
  for i = 1, kernel do
    taps[i] = math.max(0, 1 - math.abs(i - 1 - peak) / math.ceil(kernel / 2))
  end
  return taps
end

function filters.nearest(kernel, stride, peak)
  local taps = {}
  local first = math.ceil(peak - stride / 2)
  for i = 1, kernel do
    taps[i] = i - 1 >= first and i - 1 < first + stride and 1 or 0
  end
  return taps
end

filters["repeat"] = function(kernel) -- the paper's inflation: the same image on every tap, so the gain along time is kernel/stride
  local taps = {}
  for i = 1, kernel do
    taps[i] = 1
  end
  return taps
end

function filters.repeat_gain1(kernel, stride)
  local taps = {}
  for i = 1, kernel do
    taps[i] = stride / kernel
  end
  return taps
end

filters.centre = filters.nearest -- along time: the frames nearest to the centre

-- The product of three filters on the channel diagonal of weight (C,C,kt,kh,kw).
local function write_diagonal(weight, along)
  local shape = weight:shape()
  local rows = tensor.zeros(shape)
  local data = rows:data()
  local taps = shape[3] * shape[4] * shape[5]
  for c = 0, shape[1] - 1 do
    local at = (c * shape[2] + c) * taps
    for i = 1, shape[3] do
      for j = 1, shape[4] do
        for k = 1, shape[5] do
          data[at] = along[1][i] * along[2][j] * along[3][k]
          at = at + 1
        end
      end
    end
  end
  weight:copy(rows)
  rows:free()
end

-- ---- the layer -------------------------------------------------------------------------------------------------------------

local Registered = module.class "registered"

local INITS = { "bilinear", "nearest", "icnr", "random" }
local TIMES = { "linear", "repeat", "repeat_gain1", "centre" }
local ALIGNS = { "grid", "centre", "caffe" }

--- x (N,C,T',H',W'), like (N,?,T,H,W) -> (N,C,T,H,W), on the grid of `like`.
-- @tparam table options channels; stride {t,h,w}; overlap = "2s" (kernel twice the stride) | "s" (kernel = stride: no overlap);
--   init = "bilinear" | "nearest" | "icnr" | "random"; time = "linear" | "repeat" | "repeat_gain1" | "centre" (how bilinear and
--   nearest go along time); align = "grid" | "centre" | "caffe"
function Registered:new(options)
  local o = named("registered", options,
    { channels = named.required, stride = named.required, overlap = "2s", init = "bilinear", time = "linear", align = "grid" })
  choice("registered: overlap", o.overlap, { "2s", "s" })
  choice("registered: init", o.init, INITS)
  choice("registered: time", o.time, TIMES)
  choice("registered: align", o.align, ALIGNS)
  self.stride = named.triple("registered", "stride", o.stride, 1)
  self.kernel, self.peak = {}, {}
  for d = 1, 3 do
    local s = self.stride[d]
    self.kernel[d] = o.overlap == "2s" and 2 * s or s
    -- Peaks between taps are for cuts at half pixels; a kernel without overlap has no room for any other.
    self.peak[d] = (o.align == "grid" and o.overlap == "2s") and s or (self.kernel[d] - 1) / 2
  end
  self.n_from, self.n_to, self.init, self.time = o.channels, o.channels, o.init, o.time
  self.overlap, self.align = o.overlap, o.align
  local k = self.kernel
  self:add_parameter("weight", tensor.empty { o.channels, o.channels, k[1], k[2], k[3], layout = "filter" })
end

-- The filters along t, h, w that it begins with.
function Registered:filters()
  local k, s, peak = self.kernel, self.stride, self.peak
  local plane = self.init == "bilinear" and filters.linear or filters.nearest
  return { filters[self.time](k[1], s[1], peak[1]), plane(k[2], s[2], peak[2]), plane(k[3], s[3], peak[3]) }
end

function Registered:initialise(stream)
  local weight, k, s = self.weight:detach(), self.kernel, self.stride
  if self.init == "icnr" then
    init.icnr { stride = s } (weight, stream "weight")
  elseif self.init == "random" then
    local taps = k[1] / s[1] * k[2] / s[2] * k[3] / s[3] -- those that reach one output
    stream("weight"):fill(weight, "normal", 0, 1 / math.sqrt(self.n_from * taps))
  else
    write_diagonal(weight, self:filters())
  end
end

function Registered:describe()
  return ("%s / %s %s, %s"):format(table.concat(self.kernel, ","), table.concat(self.stride, ","), self.init, self.align)
end

-- Is weight (C,C,kt,kh,kw) the product of three filters on its channel diagonal, to the last bit?
local function is_diagonal(weight, along)
  local shape = weight:shape()
  weight = weight:detach():to("cpu"):contiguous "filter"
  local number = ffi.typeof(weight:dtype() == "f64" and "double [1]" or "float [1]") -- rounded as the weights are
  local data, at, product = weight:data(), 0, number() -- in memory t, h, w, to, from
  for i = 1, shape[3] do
    for j = 1, shape[4] do
      for k = 1, shape[5] do
        product[0] = along[1][i] * along[2][j] * along[3][k]
        for c = 0, shape[2] - 1 do
          for d = 0, shape[1] - 1 do
            if data[at] ~= (c == d and product[0] or 0) then
              return false
            end
            at = at + 1
          end
        end
      end
    end
  end
  return true
end

-- Does the result stand on the pixels that grids are counted in, and x on every s-th of them?
local function is_on_pixels(own, grid, s)
  for d = 1, 3 do
    if grid.stride[d] ~= 1 or grid.centre[d] ~= 0 or own.stride[d] ~= s[d] or own.centre[d] % 1 ~= 0 then
      return false
    end
  end
  return true
end

--- Is it, as it stands, linear interpolation of x by its grid, the same for each channel, and are its weights not to learn?
-- Then `forward` takes any number of channels.
function Registered:interpolates(x, like)
  local weight, own, grid = self.weight, x:grid(), like:grid()
  if not (self.align == "grid" and self.overlap == "2s" and self.init == "bilinear" and self.time == "linear") then
    return false
  elseif not (own and grid and is_on_pixels(own, grid, self.stride)) or weight:requires_grad() and tensor.recording() then
    return false
  end
  local storage, version = binding.C.pn_tensor_storage_id(binding.ptr(weight)), binding.C.pn_tensor_version(binding.ptr(weight))
  if self.seen_storage ~= storage or self.seen_version ~= version then -- one look for each state of the weights
    self.seen_storage, self.seen_version = storage, version
    self.is_linear = scope.run(is_diagonal, weight, self:filters())
  end
  return self.is_linear
end

-- Repeats the first element `low` times before, and the last `high` times behind, along an axis. With `last_use` gives x back.
local function hold(x, axis, low, high, last_use)
  if low == 0 and high == 0 then
    return x
  end
  local parts = {}
  for _ = 1, low do
    parts[#parts + 1] = x:slice { axis = axis, first = 1, count = 1 }
  end
  parts[#parts + 1] = x
  for _ = 1, high do
    parts[#parts + 1] = x:slice { axis = axis, first = x:size(axis), count = 1 }
  end
  local whole = ops.concat(parts, { axis = axis })
  for _, part in ipairs(parts) do
    if part ~= x or last_use then
      scope.drop(part) -- a slice, too, holds all of x
    end
  end
  return whole
end

-- Where the full transposed convolution of n elements is cut along axis d, to give `size` elements: how many elements to hold
-- before and behind, and the rows to cut off before and behind.
function Registered:cut(d, n, size, centre)
  local s, k, peak = self.stride[d], self.kernel[d], self.peak[d]
  if self.align == "grid" then
    local low_hold = math.max(0, math.ceil(centre / s))
    local high_hold = math.max(0, math.ceil((size - 1 - centre) / s) - (n - 1))
    local low = math.ceil(peak - centre) + low_hold * s
    return low_hold, high_hold, low, (n + low_hold + high_hold - 1) * s + k - low - size
  end
  local whole = (n - 1) * s + k
  local low = math.floor((whole - size) / 2)
  if self.align == "caffe" then
    local middle = s == 32 and 8 or (d == 1 and s == 8) and 2 or 0
    low = math.max(0, math.floor((k - 1) / 2 - middle))
  end
  return 0, 0, low, whole - size - low
end

--- @param x real (N,C,T',H',W'); any C while the layer interpolates
-- @param weight another than the layer's own, (C,O,kt,kh,kw): its own joined with a linear layer behind it, say
function Registered:forward(x, like, weight)
  local grid, own = like:grid(), x:grid()
  if self.align == "grid" and not (grid and own) then
    raise("registered: align = \"grid\" needs tensors that carry their grid (x:set_grid)")
  end
  if not weight and self:interpolates(x, like) then
    return ops.resize3d(x, { size = { like:size(3), like:size(4), like:size(5) }, align = "grid" })
  end
  local pad, extra, given = {}, {}, x
  for d = 1, 3 do
    local centre = own and grid and (own.centre[d] - grid.centre[d]) / grid.stride[d]
    local before, behind, low, high = self:cut(d, x:size(d + 2), like:size(d + 2), centre)
    x = hold(x, d + 2, before, behind, x ~= given)
    extra[d] = math.max(0, -high)
    pad[d] = { low, math.max(0, high) }
  end
  local y = ops.conv_transpose3d(x, weight or self.weight, nil, { stride = self.stride, pad = pad, output_pad = extra })
  if grid then
    y:set_grid(grid.stride, grid.centre)
  end
  return y
end

return { registered = Registered }
