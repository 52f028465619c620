--- From probabilities to masks: the threshold, the parts of the mask before, edges, and the size at which an object is shown.
-- @module penumbra.infer.masks
local ffi = require "ffi"
local image = require "penumbra.image"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"
local tensor = require "penumbra.tensor"

local masks = {}

--- Keeps of a mask u8 (H,W) the parts that overlap `before`, or without it the largest; all of them where none does. Whether there
-- are any.
function masks.keep_overlapping(mask, before)
  return scope.run(function()
    local parts, n_parts = image.components(mask)
    local pixels, label, to = mask:count(), parts:data(), mask:data()
    local touches = {}
    if before then
      local dense = before:contiguous()
      local from = dense:data()
      for p = 0, pixels - 1 do
        if from[p] ~= 0 and label[p] ~= 0 then
          touches[label[p]] = true
        end
      end
    else
      touches[1] = true -- the largest
    end
    if next(touches) then
      for p = 0, pixels - 1 do
        if label[p] ~= 0 and not touches[label[p]] then
          to[p] = 0
        end
      end
    end
    return n_parts > 0
  end)
end

--- Keeps of each mask the 8-connected parts that overlap the mask of the frame before; those of the first frame must overlap
-- `first`. A frame that would become empty keeps all it has. Changes them in place.
-- @param all tensor u8 (T,H,W)
-- @param first ?tensor u8 (H,W), the annotated mask of frame 1; without it frame 1 keeps its largest part
-- @return all
function masks.keep_connected(all, first)
  local before = first
  for t = 1, all:size(1) do
    local mask = image.frame(all, t)
    if masks.keep_overlapping(mask, before) then
      before = mask
    end
  end
  return all
end

local STEP, TOLERANCE = 0.05, 0.05

--- The threshold: o.calibrate of the way from o.threshold to the one that is best on frame 1, or further; and frame 1's J at it.
function masks.calibrated(probability, first, o)
  return scope.run(function()
    local dense = first:contiguous()
    local mask = tensor.empty { 1, first:size(1), first:size(2), dtype = "u8" }
    local truth, found, pixels = dense:data(), mask:data(), first:count()
    local function j_at(threshold)
      for p = 0, pixels - 1 do
        found[p] = probability[p] >= threshold and 1 or 0
      end
      if o.keep == "connected" then
        masks.keep_connected(mask, first)
      end
      local both, either = 0, 0
      for p = 0, pixels - 1 do
        local a, b = found[p] ~= 0, truth[p] ~= 0
        both = both + (a and b and 1 or 0)
        either = either + ((a or b) and 1 or 0)
      end
      return either > 0 and both / either or 1
    end
    if o.calibrate == 0 then
      return o.threshold, j_at(o.threshold)
    end
    local best, best_j = nil, -1
    for threshold = STEP, 1 - STEP / 2, STEP do
      local j = j_at(threshold)
      if j > best_j then
        best, best_j = threshold, j
      end
    end
    local threshold = o.threshold + o.calibrate * (best - o.threshold)
    local j = j_at(threshold)
    while j < best_j - TOLERANCE do
      threshold = threshold < best and math.min(best, threshold + STEP) or math.max(best, threshold - STEP)
      j = j_at(threshold)
    end
    return threshold, j
  end)
end

--- How many times smaller the network is shown an object: the power of two, up to `most`, that brings it nearest to the size at
-- which it was learnt.
-- @tparam number area pixels of its mask
-- @tparam number first pixels of its first mask
-- @tparam number most
function masks.downscale_of(area, first, most)
  local k = 1
  while 2 * k <= most and area >= 2 * k * k * first do
    k = 2 * k
  end
  return k
end

--- A float array, h x w, as a tensor of its own.
function masks.values_of(array, h, w)
  local values = tensor.empty { h, w, dtype = "f32" }
  ffi.copy(values:data(), array, 4 * h * w)
  return values
end

local EDGE = 1e-4 -- of the guided filter: weak edges count, for what is behind them was interpolated

--- Makes a probability (a float array, h x w) follow the edges of frame i, which `read` writes to an address.
function masks.follow_edges(probability, h, w, radius, read, i)
  scope.run(function()
    local frame = tensor.empty { h, w, 3, dtype = "u8" }
    read(i, frame:data(), h * w * 3)
    local guided = image.guided(masks.values_of(probability, h, w), frame, { radius = radius, eps = EDGE })
    local from = guided:data()
    for p = 0, h * w - 1 do
      probability[p] = math.max(0, math.min(1, from[p]))
    end
  end)
end

--- A mask must be of its frame.
function masks.check(what, mask, h, w)
  if not tensor.is_tensor(mask) or mask:dtype() ~= "u8" or mask:dims() ~= 2 or mask:size(1) ~= h or mask:size(2) ~= w then
    raise("%s is %s, expects u8 (%d,%d), as the frame", what, tensor.is_tensor(mask)
      and ("%s (%s)"):format(mask:dtype(), table.concat(mask:shape(), ",")) or "a " .. type(mask), h, w)
  end
end

return masks
