--- Where the windows and tiles of inference stand, and what a frame or pixel weighs within one.
-- @module penumbra.infer.windows
local ffi = require "ffi"

local windows = {}

--- First frames of the windows over a clip (1 is the clip's first frame; below 1 and beyond the end lie the mirrored frames). What
-- is counted are frames as the network is shown them.
-- Every frame is covered, and with `mirror` or `hold` each stands at least a quarter of a window away from some window's ends.
-- @tparam number n_frames frames of the clip, times `slow`
-- @tparam table o settings: frames, stride, ends
-- @treturn {number} in rising order
function windows.starts(n_frames, o)
  local starts = {}
  local first, last
  if o.ends == "inside" then
    first, last = 1, math.max(1, n_frames - o.frames + 1)
  else
    local reach = math.floor(o.frames / 2) -- the first window has half of it before the clip
    first, last = 1 - reach, n_frames - o.frames + 1 + reach
    last = math.max(first, last)
  end
  local at = first
  while at < last do
    starts[#starts + 1] = at
    at = at + math.min(o.stride, o.frames)
  end
  starts[#starts + 1] = last
  return starts
end

--- The frame of the clip that stands at position i, which may lie beyond its ends.
-- @tparam number i
-- @tparam number n frames of the clip
-- @tparam string ends "mirror" (the end frame itself is not repeated) or "hold"
function windows.reflect(i, n, ends)
  if ends ~= "mirror" then
    return math.max(1, math.min(n, i))
  end
  if n == 1 then
    return 1
  end
  local period = 2 * (n - 1)
  local k = (i - 1) % period
  return (k < n and k or period - k) + 1
end

--- First pixels (from 0) of tiles along an axis: a tile each `stride`, and the last at the border.
function windows.tile_starts(n, size, stride)
  if n <= size then
    return { 0 }
  end
  local starts = {}
  for at = 0, n - size, stride do
    starts[#starts + 1] = at
  end
  if starts[#starts] ~= n - size then
    starts[#starts + 1] = n - size
  end
  return starts
end

--- The weight of each frame of a window.
function windows.frame_weights(o)
  local weights = {}
  for i = 1, o.frames do
    weights[i] = o.weight == "flat" and 1 or math.min(i, o.frames + 1 - i)
  end
  return weights
end

--- The weight of each pixel along a side of a tile; Hann never reaches 0, so a border pixel that one tile covers keeps its value.
function windows.tile_weights(n, window)
  local weights = ffi.new("float [?]", n)
  for i = 0, n - 1 do
    weights[i] = window == "flat" and 1 or math.sin(math.pi * (i + 0.5) / n) ^ 2 + 1e-4
  end
  return weights
end

return windows
