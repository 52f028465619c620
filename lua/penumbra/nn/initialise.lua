--- How weights begin. Each function fills a tensor from a random stream (or from nothing at all) and returns it.
--
-- Fans count a kernel's taps: fan-in of a convolution weight (out, in/groups, t,h,w) is in/groups·t·h·w.
-- Filters for transposed convolutions, weight (in, out/groups, t,h,w): bilinear along h and w on the channel diagonal (Long et
-- al. 2015), nearest, or ICNR (Aitken et al. 2017: random, but the same for each output phase, so that no checkerboard is
-- there to begin with); along t as deconv_time says.

local ffi = require "ffi"
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local tensor = require "penumbra.tensor"

local init = {}

local function fans(t)
  local shape = t:shape()
  if #shape < 2 then
    raise("init: fans of a tensor with %d axes; expects 2 or more", #shape)
  end
  local taps = 1
  for i = 3, #shape do
    taps = taps * shape[i]
  end
  return shape[2] * taps, shape[1] * taps
end

--- He et al. 2015: normal of deviation gain/√fan, or uniform of that deviation.
-- @param t weight
-- @param rng random stream
-- @tparam ?table options fan = "in" (default) or "out"; gain (√2, for ReLU); distribution = "normal" (default) or "uniform"
function init.kaiming(t, rng, options)
  options = options or {}
  local fan_in, fan_out = fans(t)
  local deviation = (options.gain or math.sqrt(2)) / math.sqrt(options.fan == "out" and fan_out or fan_in)
  if options.distribution == "uniform" then
    return rng:fill(t, "uniform", -deviation * math.sqrt(3), deviation * math.sqrt(3))
  end
  return rng:fill(t, "normal", 0, deviation)
end

--- Glorot & Bengio 2010: deviation gain·√(2/(fan-in + fan-out)); uniform by default.
function init.xavier(t, rng, options)
  options = options or {}
  local fan_in, fan_out = fans(t)
  local deviation = (options.gain or 1) * math.sqrt(2 / (fan_in + fan_out))
  if options.distribution == "normal" then
    return rng:fill(t, "normal", 0, deviation)
  end
  return rng:fill(t, "uniform", -deviation * math.sqrt(3), deviation * math.sqrt(3))
end

--- A normal distribution of mean 0.
function init.normal(deviation)
  return function(t, rng)
    return rng:fill(t, "normal", 0, deviation)
  end
end

--- One value everywhere.
function init.constant(value)
  return function(t)
    return t:fill(value)
  end
end

init.zeros = init.constant(0)
init.ones = init.constant(1)

-- ---- transposed convolutions --------------------------------------------------------------------------------------------

-- The triangle of bilinear interpolation, tap by tap.
local function linear_taps(kernel)
  local factor, centre = math.ceil(kernel / 2), (kernel + 1) / 2
  local taps = {}
  for i = 1, kernel do
    taps[i] = 1 - math.abs(i - centre) / factor
  end
  return taps
end

-- Each output takes its nearest input: the middle `stride` taps.
local function nearest_taps(kernel, stride)
  local taps, first = {}, math.floor((kernel - stride) / 2)
  for i = 1, kernel do
    taps[i] = (i - 1 >= first and i - 1 < first + stride) and 1 or 0
  end
  return taps
end

local time_taps = {
  ["repeat"] = function(kernel) -- the same image on every tap; the gain along time is kernel/stride
    local taps = {}
    for i = 1, kernel do
      taps[i] = 1
    end
    return taps
  end,
  repeat_gain1 = function(kernel, stride)
    local taps = {}
    for i = 1, kernel do
      taps[i] = stride / kernel
    end
    return taps
  end,
  centre = nearest_taps,
  linear = linear_taps,
}

local TIMES = { "repeat", "repeat_gain1", "centre", "linear" }

local function taps_along_time(name, kernel, stride)
  local make = time_taps[name]
  if not make then
    raise("init: unknown deconv_time '%s'%s (known: %s)", tostring(name), nearest.hint(name, TIMES),
      table.concat(TIMES, ", "))
  end
  return make(kernel, stride)
end

-- Writes values[index of t,h,w] on the channel diagonal of weight (in, out/groups, t,h,w).
local function write_diagonal(t, what, groups, value)
  local shape = t:shape()
  local per_group = shape[1] / groups
  if per_group ~= shape[2] then
    raise("init: %s goes along the channel diagonal and needs as many channels out as in, the weight is %s", what,
      table.concat(shape, ","))
  end
  local rows = tensor.zeros { shape[1], shape[2], shape[3], shape[4], shape[5] }
  local data = ffi.cast(rows:dtype() == "f64" and "double *" or "float *", rows:data())
  local taps = shape[3] * shape[4] * shape[5]
  for c = 0, shape[1] - 1 do
    local at = (c * shape[2] + c % per_group) * taps
    for i = 0, shape[3] - 1 do
      for j = 0, shape[4] - 1 do
        for k = 0, shape[5] - 1 do
          data[at] = value(i + 1, j + 1, k + 1)
          at = at + 1
        end
      end
    end
  end
  t:copy(rows)
  rows:free()
  return t
end

--- Bilinear interpolation along h and w.
-- @tparam table options stride = {t,h,w}; time = "repeat" | "repeat_gain1" | "centre" | "linear"; groups
function init.bilinear(options)
  return function(t)
    local shape = t:shape()
    local along_t = taps_along_time(options.time or "repeat", shape[3], options.stride[1])
    local along_h, along_w = linear_taps(shape[4]), linear_taps(shape[5])
    return write_diagonal(t, "bilinear", options.groups or 1, function(i, j, k)
      return along_t[i] * along_h[j] * along_w[k]
    end)
  end
end

--- Nearest neighbour along h and w; options as `bilinear`.
function init.nearest(options)
  return function(t)
    local shape = t:shape()
    local along_t = taps_along_time(options.time or "repeat", shape[3], options.stride[1])
    local along_h, along_w = nearest_taps(shape[4], options.stride[2]), nearest_taps(shape[5], options.stride[3])
    return write_diagonal(t, "nearest", options.groups or 1, function(i, j, k)
      return along_t[i] * along_h[j] * along_w[k]
    end)
  end
end

--- Random, but constant over each block of stride taps, so that all phases of the output begin alike; options as `bilinear`
-- (time is free to be random too: it is a block of stride taps like the others).
function init.icnr(options)
  return function(t, rng)
    local shape, stride = t:shape(), options.stride
    local small = {}
    for i = 1, 3 do
      if shape[i + 2] % stride[i] ~= 0 then
        raise("init: icnr needs a kernel that its stride divides, the kernel is %d,%d,%d, the stride %d,%d,%d", shape[3], shape[4],
          shape[5], stride[1], stride[2], stride[3])
      end
      small[i] = shape[i + 2] / stride[i]
    end
    -- The fan-in of one output: each input channel reaches it through one tap of each block.
    local seed = tensor.empty { shape[1], shape[2], small[1], small[2], small[3] }
    local fan = shape[1] / (options.groups or 1) * small[1] * small[2] * small[3]
    rng:fill(seed, "normal", 0, (options.gain or 1) / math.sqrt(fan))
    local rows = tensor.empty { shape[1], shape[2], shape[3], shape[4], shape[5] }
    local kind = rows:dtype() == "f64" and "double *" or "float *"
    local from, to, at = ffi.cast(kind, seed:data()), ffi.cast(kind, rows:data()), 0
    for c = 0, shape[1] * shape[2] - 1 do
      for i = 0, shape[3] - 1 do
        for j = 0, shape[4] - 1 do
          for k = 0, shape[5] - 1 do
            local a, b, d = math.floor(i / stride[1]), math.floor(j / stride[2]), math.floor(k / stride[3])
            to[at] = from[((c * small[1] + a) * small[2] + b) * small[3] + d]
            at = at + 1
          end
        end
      end
    end
    t:copy(rows)
    rows:free()
    seed:free()
    return t
  end
end

--- What a layer's `init` option may be: a function(t, rng), a number, or "kaiming" or "xavier".
function init.resolve(what, choice)
  if type(choice) == "function" then
    return choice
  elseif type(choice) == "number" then
    return init.constant(choice)
  end
  local known = { "kaiming", "xavier", "zeros", "ones" }
  for _, name in ipairs(known) do
    if name == choice then
      return init[name]
    end
  end
  local guess = type(choice) == "string" and nearest(choice, known)
  raise("%s: init is %s, expects a function(t, rng), a number or one of %s%s", what, tostring(choice), table.concat(known, ", "),
    guess and (" (did you mean '%s'?)"):format(guess) or "")
end

return init
