--- One clip going through a network: windows one after another, each frame's mask as soon as no window to come will look at it.
-- penumbra.infer says what that means.
-- @module penumbra.infer.pass
local ffi = require "ffi"
local binding = require "penumbra.ffi"
local image = require "penumbra.image"
local masks_of = require "penumbra.infer.masks"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"
local sums_of = require "penumbra.infer.sums"
local tensor = require "penumbra.tensor"
local windows = require "penumbra.infer.windows"

-- ---- reading the clip ----------------------------------------------------------------------------------------------------

-- A clip is a u8 tensor (T,H,W,3), or anything with n_frames and :frame(i) -> u8 (H,W,3).
local function reader(clip)
  if tensor.is_tensor(clip) then
    if clip:dtype() ~= "u8" or clip:dims() ~= 4 or clip:size(4) ~= 3 then
      raise("infer: a clip is u8 (T,H,W,3), got %s (%s)", clip:dtype(), table.concat(clip:shape(), ","))
    end
    local dense = clip:contiguous()
    local bytes = clip:size(2) * clip:size(3) * 3
    return clip:size(1), function(i, to, size)
      assert(size == bytes)
      ffi.copy(to, dense:data() + (i - 1) * bytes, bytes)
    end, clip:size(2), clip:size(3)
  end
  local n = clip.n_frames
  if n < 1 then
    raise("infer: the clip has no frames")
  end
  local h, w = scope.run(function()
    local frame = clip:frame(1)
    return frame:size(1), frame:size(2)
  end)
  return n, function(i, to, size)
    scope.run(function()
      local frame = clip:frame(i)
      if frame:size(1) ~= h or frame:size(2) ~= w or frame:size(3) ~= 3 then
        raise("infer: frame %d is %d x %d x %d, the first is %d x %d x 3 (height, width, channels)", i, frame:size(1),
          frame:size(2), frame:size(3), h, w)
      end
      local dense = frame:contiguous()
      ffi.copy(to, dense:data(), size)
    end)
  end, h, w
end

-- ---- what the network needs ---------------------------------------------------------------------------------------------------

local TILES_ON_CUDA = 8

-- Statistics of the input are those of all tiles that are seen at once, so that such a network sees one unless it is told.
local function batch_of(net, o, device)
  if o.batch > 0 then
    return o.batch
  end
  local alone = device == "cpu"
  for _, entry in ipairs(net.modules and net:modules() or {}) do
    alone = alone or entry.module.kind == "batch_norm" and not entry.module:is_frozen(false)
  end
  return alone and 1 or TILES_ON_CUDA
end

-- Runs f with the network as it is when it is used, not taught; what came before is put back, also when f fails.
local function unlearning(net, f, ...)
  local was_training = net.training
  net:eval()
  local ok, problem = pcall(tensor.no_grad, f, ...)
  if was_training then
    net:train()
  end
  if not ok then
    error(problem, 0)
  end
end

local function contains(list, value)
  for _, entry in ipairs(list) do
    if entry == value then
      return true
    end
  end
  return false
end

-- ---- one clip through a network ------------------------------------------------------------------------------------------------

local Pass = {}
Pass.__index = Pass

-- The tiles of a window {top, left}, and along each axis the sum of the tiles' weights at each pixel: the same for all windows, and
-- separable.
local function tiling(o, h, w)
  local is_tiled = o.mode == "tiles"
  local shape = is_tiled and o.window or "flat"
  local function axis(n)
    local size = is_tiled and math.min(o.size, n) or n
    local starts, weights, total = windows.tile_starts(n, size, o.tile_stride), windows.tile_weights(size, shape),
      ffi.new("float [?]", n)
    for _, start in ipairs(starts) do
      for i = 0, size - 1 do
        total[start + i] = total[start + i] + weights[i]
      end
    end
    return { size = size, starts = starts, weights = weights, total = total }
  end
  local y, x, tiles = axis(h), axis(w), {}
  for _, top in ipairs(y.starts) do
    for _, left in ipairs(x.starts) do
      table.insert(tiles, { top, left })
    end
  end
  return tiles, y, x, shape == "flat"
end

--- A pass that has not begun.
-- @param net as for infer.segment
-- @param clip likewise
-- @tparam table o its settings, checked
-- @treturn Pass run() it; then masks, probabilities, threshold and first_j are there
local function new(net, clip, o)
  local self = setmetatable({ net = net, clip = clip, o = o }, Pass)
  self.n_frames, self.read, self.h, self.w = reader(clip)
  self.first_area = math.huge
  if o.first_mask then
    masks_of.check("infer: first_mask", o.first_mask, self.h, self.w)
    self.first_area = (image.box(o.first_mask) or raise("infer: first_mask is empty: there is no object to follow")).area
  end
  local shape = { self.n_frames, self.h, self.w, dtype = "u8" }
  self.masks, self.probabilities = tensor.empty(shape), o.probabilities and tensor.empty(shape) or nil
  self.starts = windows.starts(self:n_shown(), o)
  self.frame_weights = windows.frame_weights(o)
  local device = net.device and net:device() or "cpu"
  local job = {
    net = net, read = self.read, h = self.h, w = self.w, frames = o.frames, weights = self.frame_weights, device = device,
    batch = batch_of(net, o, device),
  }
  job.tiles, self.y, self.x, job.uniform = tiling(o, self.h, self.w)
  job.tile_h, job.tile_w, job.weight_y, job.weight_x = self.y.size, self.x.size, self.y.weights, self.x.weights
  self.sums = device == "cpu" and sums_of.on_host(job) or sums_of.on_device(job)
  self.totals = {} -- by frame: the sum of the weights of the frames of windows
  self.coarse = {} -- by frame: whether it was ever shown smaller
  self.threshold = o.threshold
  self.before = o.first_mask -- what the next mask must touch, where only connected ones are kept
  self.smaller = 1 -- how many times smaller windows show the object
  self.sizes = {} -- by window that was run: how many times smaller it was shown
  return self
end

-- Frames as the network is shown them: what windows slide over.
function Pass:n_shown()
  return self.n_frames * self.o.slow
end

-- By its place in the window that begins there: the frame of the clip.
function Pass:seen_by(start)
  local seen = {}
  for t = 1, self.o.frames do
    seen[t] = math.ceil(windows.reflect(start + t - 1, self:n_shown(), self.o.ends) / self.o.slow)
  end
  return seen
end

-- Frame i is not finite: the windows that saw it are run again, with the trap on.
function Pass:refuse(i)
  local clip = self.clip
  local frame = type(clip) == "table" and clip.frame_name and ("frame %d (%s)"):format(i, clip:frame_name(i)) or "frame " .. i
  for k in ipairs(self.sizes) do
    local seen = self:seen_by(self.starts[k])
    if contains(seen, i) then
      binding.C.pn_trap_nan(true)
      local ok, problem = pcall(unlearning, self.net, self.sums.window, seen, self.sizes[k])
      binding.C.pn_trap_nan(false)
      if not ok then
        raise("infer: %s: the network's answer is not finite: %s", frame, (tostring(problem):gsub("^%S+%.lua:%d+: ", "")))
      end
    end
  end
  raise("infer: %s: the network's answer was not finite; run again, every layer is", frame)
end

-- The sum of frame i becomes its probability, in place.
function Pass:divide(sum, i)
  local h, w, total, total_y, total_x, check = self.h, self.w, self.totals[i], self.y.total, self.x.total, 0
  for y = 0, h - 1 do
    for x = 0, w - 1 do
      local p = y * w + x
      sum[p] = sum[p] / (total * total_y[y] * total_x[x])
      check = check + sum[p]
    end
  end
  if check - check ~= 0 then -- of NaN and of infinities
    self:refuse(i)
  end
  if self.coarse[i] and self.o.guided > 0 then
    masks_of.follow_edges(sum, h, w, self.o.guided, self.read, i)
  end
  self.totals[i], self.coarse[i] = nil, nil
end

-- The mask of frame i, from its probability.
function Pass:decide(sum, i)
  local pixels, threshold = self.h * self.w, self.threshold
  local mask = image.frame(self.masks, i)
  local to, chance = mask:data(), self.probabilities and image.frame(self.probabilities, i):data()
  for p = 0, pixels - 1 do
    to[p] = sum[p] >= threshold and 1 or 0
  end
  for p = 0, chance and pixels - 1 or -1 do
    chance[p] = math.min(255, math.floor(sum[p] * 255 + 0.5))
  end
  if self.o.keep == "connected" and masks_of.keep_overlapping(mask, self.before) then
    self.before = mask
  end
  return mask
end

-- No window to come adds to the sum of frame i.
function Pass:finish(i, sum)
  local o = self.o
  self:divide(sum, i)
  if i == 1 and o.first_mask then
    self.threshold, self.first_j = masks_of.calibrated(sum, o.first_mask, o)
  end
  local mask = self:decide(sum, i)
  local area = (image.box(mask) or { area = 0 }).area
  self.smaller = masks_of.downscale_of(area, self.first_area, o.downscale)
  if o.after_frame then
    scope.run(function()
      o.after_frame { index = i, mask = mask, probability = masks_of.values_of(sum, self.h, self.w), smaller = self.smaller }
    end)
  end
  self.sums.spare(sum)
end

-- Runs a window of these frames.
function Pass:window(seen)
  local totals, coarse = self.totals, self.coarse
  self.sizes[#self.sizes + 1] = self.smaller
  unlearning(self.net, self.sums.window, seen, self.smaller)
  for t = 1, self.o.frames do
    totals[seen[t]] = (totals[seen[t]] or 0) + self.frame_weights[t]
    coarse[seen[t]] = coarse[seen[t]] or self.smaller > 1
  end
end

-- The first frame that a window after the k-th may look at. A later window begins later; beyond the end it may mirror back at most
-- its own length before its start.
function Pass:reach(k)
  local next_start, last = self.starts[k + 1], self.starts[#self.starts]
  if not next_start then
    return self.n_frames + 1
  end
  return math.ceil(math.min(next_start, 2 * self:n_shown() - (last + self.o.frames - 1)) / self.o.slow)
end

--- Runs all windows.
function Pass:run()
  local o, starts, sums = self.o, self.starts, self.sums
  local taken, waiting = 0, {}
  local function finish_waiting()
    for _, entry in ipairs(waiting) do
      self:finish(entry[1], entry[2])
    end
    waiting = {}
  end
  for k, start in ipairs(starts) do
    self:window(self:seen_by(start))
    -- While a device works on this window, the host finishes the frames of the one before and reads those of the next. On the CPU
    -- in the same order, so that each window is shown at the same size.
    finish_waiting()
    if starts[k + 1] then
      sums.prepare(self:seen_by(starts[k + 1]))
    end
    local reach = self:reach(k)
    while taken + 1 < reach and taken < self.n_frames do
      taken = taken + 1
      waiting[#waiting + 1] = { taken, sums.take(taken) }
    end
    sums.forget(reach)
    if o.progress then
      o.progress(k, #starts)
    end
  end
  finish_waiting()
end

return new
