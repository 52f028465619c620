--- Inference: a clip of any length through a network that sees a few frames at a time.
--
-- Windows of `frames` frames slide over the clip, `stride` frames apart; each frame's probability is the mean over the windows
-- that saw it, weighted by the frame's distance from the window's ends (features of temporal stride 4 know least there). At the
-- clip's own ends the clip is mirrored, so that the first frame stands in the middle of a window like any other: worth up to
-- 11 J on the first frame (docs/experiments.md has the trials). The network is shown each frame `slow` times, as in slow motion: a
-- feature of temporal stride 4 then knows one frame instead of four. In space a window is the whole frame, or tiles whose
-- probabilities are averaged flat or under a Hann window; the last tile of a row stands at the border, so every pixel is covered.
--
-- An object that comes nearer outgrows what was learnt of it. Once its mask has grown to twice the area of the first, the network
-- is shown windows at half the size, where the object looks about as large as it was learnt (`downscale`). What comes out is
-- interpolated, then follows the edges of the frame (`guided`).
--
-- The class-balanced loss (METHOD 5) teaches the odds of object against background as if both were equally common; where a
-- share π of what was trained on is object, the odds are even at a probability of 1 - π, not one half (.75 for a swan, .5 for a
-- camel that fills its crops). The annotated frame tells at which threshold its J is best; but it was learnt by heart, so that is
-- half believed, where it makes no great difference to frame 1 (`calibrate`).
--
-- Memory is bounded whatever the length of the clip: frames and sums live only while a window to come may need them. The network's
-- device is that of inference; on CUDA frames go there once, as bytes, and what comes back is a sum a frame (penumbra.infer.sums).
--
-- Windows that overlap share no features: zeros pad each window's ends, and little that they do not reach would be the same (with
-- statistics of the input, nothing at all). Of a segment's time 98 % is the network.
local ffi = require "ffi"
local binding = require "penumbra.ffi"
local image = require "penumbra.image"
local masks_of = require "penumbra.infer.masks"
local sums_of = require "penumbra.infer.sums"
local windows = require "penumbra.infer.windows"
local pn_tensor = require "penumbra.tensor"
local scope = require "penumbra.scope"
local raise = require "penumbra.base.raise"
local named = require "penumbra.base.named"

local infer = { keep_connected = masks_of.keep_connected }

--- The defaults of `infer.segment`; a recipe's `infer` table overrides any.
infer.defaults = {
  mode = "full_frame", -- full_frame | tiles
  size = 224,          -- tiles: side of a tile, pixels
  tile_stride = 100,   -- tiles: from one tile to the next, pixels (224 and 100 are the paper's)
  window = "flat",     -- tiles: flat | hann, the weight of a pixel within its tile
  batch = 0,           -- tiles: how many the network sees at once; 0: 1 on the CPU and with statistics of the input, 8 on CUDA
  slow = 4,            -- how many times the network is shown each frame; 1: the clip as it is
  frames = 16,         -- of a temporal window, as the network is shown them: 16 / slow of the clip's
  stride = 12,         -- from one window to the next, counted likewise
  ends = "mirror",     -- mirror | hold | inside: what stands beyond the ends of the clip (inside: windows never leave it)
  weight = "distance", -- distance | flat, the weight of a frame within its window
  threshold = 0.5,     -- probability from which a pixel is object
  calibrate = 0.5,     -- where first_mask is given: how far to go from there (0-1) to the threshold that is best on frame 1, or as
                       -- far as frame 1 loses no more than 5 points of J; 0: not at all
  downscale = 2,       -- where first_mask is given: up to how many times smaller an object that has grown is shown, by powers of 2
  guided = 16,         -- radius, pixels, of the guided filter of frames that were shown smaller; 0: interpolated alone
  keep = "all",        -- all | connected: only components that touch the mask of the frame before (see `keep_connected`)
  probabilities = false, -- whether a recipe keeps the probabilities too: grey pictures, 255 for certainty
}

local choices = {
  mode = { full_frame = true, tiles = true }, window = { flat = true, hann = true },
  ends = { mirror = true, hold = true, inside = true }, weight = { distance = true, flat = true },
  keep = { all = true, connected = true },
}
local lowest = { size = 1, tile_stride = 1, batch = 0, frames = 1, stride = 1, slow = 1, downscale = 1, guided = 0 }

local everything = {
  first_mask = named.optional, progress = named.optional, after_frame = named.optional,
}
for name, default in pairs(infer.defaults) do
  everything[name] = default
end

local function settings(options)
  local resolved = named("infer", options, everything)
  for name, known in pairs(choices) do
    named.choice("infer", name, resolved[name], known)
  end
  for name, least in pairs(lowest) do
    named.whole("infer", name, resolved[name], least)
  end
  for _, name in ipairs { "calibrate", "threshold" } do
    if not (resolved[name] >= 0 and resolved[name] <= 1) then
      raise("infer: %s is %g, expects 0 to 1", name, resolved[name])
    end
  end
  local power = resolved.downscale
  while power > 1 do
    power = power / 2
  end
  if power ~= 1 then
    raise("infer: downscale is %g, expects a power of 2", resolved.downscale)
  end
  return resolved
end

-- ---- reading the clip ----------------------------------------------------------------------------------------------------

-- A clip is a u8 tensor (T,H,W,3), or anything with n_frames and :frame(i) -> u8 (H,W,3).
local function reader(clip)
  if pn_tensor.is_tensor(clip) then
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

--- The defaults with changes: `infer = pn.infer.with { stride = 4 }` in a recipe's configuration.
function infer.with(changes)
  return settings(changes)
end

--- A progress function that draws a line on standard error: `infer.progress = pn.infer.line()`.
function infer.line()
  local progress = require "penumbra.run.progress"
  local line
  return function(done, total)
    line = line or progress.new { total = total, what = "window", clock = binding.C.pn_clock }
    line:update(done)
    if done == total then
      line:finish()
    end
  end
end

local TILES_ON_CUDA = 8

-- Statistics of the input are those of all tiles that are seen at once, so that such a network sees one unless it is told.
local function batch_of(net, o, device)
  if o.batch > 0 then
    return o.batch
  end
  local alone = device == "cpu"
  for _, entry in ipairs(net.modules and net:modules() or {}) do
    alone = alone or entry.module.kind == "batch_norm" and entry.module.mode ~= "frozen"
  end
  return alone and 1 or TILES_ON_CUDA
end

-- A mask must be of its frame.
local function check_mask(what, mask, h, w)
  if not pn_tensor.is_tensor(mask) or mask:dtype() ~= "u8" or mask:dims() ~= 2 or mask:size(1) ~= h or mask:size(2) ~= w then
    raise("%s is %s, expects u8 (%d,%d), as the frame", what, pn_tensor.is_tensor(mask)
      and ("%s (%s)"):format(mask:dtype(), table.concat(mask:shape(), ",")) or "a " .. type(mask), h, w)
  end
end

-- Runs f with the network as it is when it is used, not taught; what came before is put back, also when f fails.
local function unlearning(net, f, ...)
  local was_training = net.training
  net:eval()
  local ok, problem = pcall(pn_tensor.no_grad, f, ...)
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

-- o: settings that were checked.
local function new_pass(net, clip, o)
  local self = setmetatable({ net = net, clip = clip, o = o }, Pass)
  self.n_frames, self.read, self.h, self.w = reader(clip)
  self.first_area = math.huge
  if o.first_mask then
    check_mask("infer: first_mask", o.first_mask, self.h, self.w)
    self.first_area = (image.box(o.first_mask) or raise("infer: first_mask is empty: there is no object to follow")).area
  end
  local shape = { self.n_frames, self.h, self.w, dtype = "u8" }
  self.masks, self.probabilities = pn_tensor.empty(shape), o.probabilities and pn_tensor.empty(shape) or nil
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

-- ---- the door ----------------------------------------------------------------------------------------------------------------

--- Segments a clip. A frame of which the network's answer is not finite is an error that names it, and the layer.
-- @param net a module with `net:logits(x)`: real (1,3,T,H,W) to logits (1,1,T,H,W); net.input is its pixel rule (image.to_clip)
-- @param clip tensor u8 (T,H,W,3), or a clip with n_frames and :frame(i) -> u8 (H,W,3)
-- @tparam ?table options see `infer.defaults`; and first_mask = u8 (H,W), the annotated mask of frame 1; progress =
--   function(done, total), called after each window; after_frame = function(seen), called after each frame, in order, outside of
--   no_grad, so that the network may be taught on the way (penumbra.online): index; mask u8 (H,W); probability f32 (H,W); smaller:
--   how many times smaller windows now show the object
-- @return masks u8 (T,H,W), 1 where the object is
-- @return probabilities u8 (T,H,W), 0-255, where options.probabilities asks for them; else nil
-- @return table threshold; and first_j, the J of frame 1 at it, where first_mask is given
function infer.segment(net, clip, options)
  local pass = new_pass(net, clip, settings(options))
  pass:run()
  return pass.masks, pass.probabilities, { threshold = pass.threshold, first_j = pass.first_j }
end

--- Where the network takes background of an annotated frame for the object: what it should see more of (Stream:focus of
-- penumbra.lucid). The frame is seen as a clip that stands still.
-- @param net as for `segment`
-- @param frame u8 (H,W,3)
-- @param mask u8 (H,W); any value but 0 is the object
-- @tparam ?table how frames = 8: length of the clip; margin = 10: pixels around the object that do not count, for the boundary is
--   learnt anyway
-- @treturn tensor u8 (H,W), 1 at false positives
-- @treturn int how many there are
function infer.false_positives(net, frame, mask, how)
  how = named("false_positives", how, { frames = 8, margin = 10 })
  local h, w = frame:size(1), frame:size(2)
  check_mask("false_positives: the mask", mask, h, w)
  local still = frame:contiguous():reshape { shape = { 1, h, w, 3 } }
  local found = infer.segment(net, still, { frames = how.frames, ends = "inside" })
  local wrong = image.frame(found, 1):gt(image.dilate(mask, how.margin)) -- 1 where found and not near
  return wrong:cast "u8", wrong:sum():item()
end

return infer
