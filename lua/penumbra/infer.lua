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
-- device is that of inference; on CUDA frames go there once, as bytes, and what comes back is a sum a frame (penumbra.infer_sums).
--
-- Windows that overlap share no features: zeros pad each window's ends, and little that they do not reach would be the same (with
-- statistics of the input, nothing at all). Of a segment's time 98 % is the network.
local ffi = require "ffi"
local binding = require "penumbra.ffi"
local image = require "penumbra.image"
local infer_sums = require "penumbra.infer_sums"
local pn_tensor = require "penumbra.tensor"
local scope = require "penumbra.scope"
local raise = require "penumbra.raise"
local named = require "penumbra.named"

local infer = {}

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

-- ---- where windows stand ----------------------------------------------------------------------------------------------

--- First frames of the windows over a clip (1 is the clip's first frame; below 1 and beyond the end lie the mirrored frames). What
-- is counted are frames as the network is shown them.
-- Every frame is covered, and with `mirror` or `hold` each stands at least a quarter of a window away from some window's ends.
-- @tparam number n_frames frames of the clip, times `slow`
-- @tparam table o settings: frames, stride, ends
-- @treturn {number} in rising order
function infer.window_starts(n_frames, o)
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
function infer.reflect(i, n, ends)
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
function infer.tile_starts(n, size, stride)
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

local function frame_weights(o)
  local weights = {}
  for i = 1, o.frames do
    weights[i] = o.weight == "flat" and 1 or math.min(i, o.frames + 1 - i)
  end
  return weights
end

-- The weight of each pixel of a tile; Hann never reaches 0, so a border pixel that one tile covers keeps its value.
local function tile_weights(n, window)
  local weights = ffi.new("float [?]", n)
  for i = 0, n - 1 do
    weights[i] = window == "flat" and 1 or math.sin(math.pi * (i + 0.5) / n) ^ 2 + 1e-4
  end
  return weights
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

-- ---- connected components ------------------------------------------------------------------------------------------------

-- Keeps of a mask u8 (H,W) the parts that overlap `before`, or without it the largest; all of them where none does. Whether there
-- are any.
local function keep_overlapping(mask, before)
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
-- `first`. A frame that would become empty keeps all it has. Changes `masks` in place.
-- @param masks tensor u8 (T,H,W)
-- @param first ?tensor u8 (H,W), the annotated mask of frame 1; without it frame 1 keeps its largest part
-- @return masks
function infer.keep_connected(masks, first)
  local before = first
  for t = 1, masks:size(1) do
    local mask = image.frame(masks, t)
    if keep_overlapping(mask, before) then
      before = mask
    end
  end
  return masks
end

--- The defaults with changes: `infer = pn.infer.with { stride = 4 }` in a recipe's configuration.
function infer.with(changes)
  return settings(changes)
end

local STEP, TOLERANCE = 0.05, 0.05

-- The threshold: o.calibrate of the way from o.threshold to the one that is best on frame 1, or further; and frame 1's J at it.
local function calibrated(probability, first, o)
  return scope.run(function()
    local dense = first:contiguous()
    local mask = pn_tensor.empty { 1, first:size(1), first:size(2), dtype = "u8" }
    local truth, found, pixels = dense:data(), mask:data(), first:count()
    local function j_at(threshold)
      for p = 0, pixels - 1 do
        found[p] = probability[p] >= threshold and 1 or 0
      end
      if o.keep == "connected" then
        infer.keep_connected(mask, first)
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

--- A progress function that draws a line on standard error: `infer.progress = pn.infer.line()`.
function infer.line()
  local progress = require "penumbra.progress"
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

--- How many times smaller the network is shown an object: the power of two, up to `most`, that brings it nearest to the size at
-- which it was learnt.
-- @tparam number area pixels of its mask
-- @tparam number first pixels of its first mask
-- @tparam number most
function infer.downscale_of(area, first, most)
  local k = 1
  while 2 * k <= most and area >= 2 * k * k * first do
    k = 2 * k
  end
  return k
end

-- A float array, h x w, as a tensor of its own.
local function values_of(array, h, w)
  local values = pn_tensor.empty { h, w, dtype = "f32" }
  ffi.copy(values:data(), array, 4 * h * w)
  return values
end

local EDGE = 1e-4 -- of the guided filter: weak edges count, for what is behind them was interpolated

-- Makes a probability (a float array, h x w) follow the edges of frame i, which `read` writes to an address.
local function follow_edges(probability, h, w, radius, read, i)
  scope.run(function()
    local frame = pn_tensor.empty { h, w, 3, dtype = "u8" }
    read(i, frame:data(), h * w * 3)
    local guided = image.guided(values_of(probability, h, w), frame, { radius = radius, eps = EDGE })
    local from = guided:data()
    for p = 0, h * w - 1 do
      probability[p] = math.max(0, math.min(1, from[p]))
    end
  end)
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
  local o = settings(options)
  local n, read, h, w = reader(clip)
  local first_area = math.huge
  if o.first_mask then
    check_mask("infer: first_mask", o.first_mask, h, w)
    first_area = (image.box(o.first_mask) or raise("infer: first_mask is empty: there is no object to follow")).area
  end
  local pixels = h * w
  local masks = pn_tensor.empty { n, h, w, dtype = "u8" }
  local mask_data = masks:data()
  local probabilities = o.probabilities and pn_tensor.empty { n, h, w, dtype = "u8" }

  local n_shown = n * o.slow -- what windows slide over
  local starts = infer.window_starts(n_shown, o)
  local weights = frame_weights(o)
  local tile_h = o.mode == "tiles" and math.min(o.size, h) or h
  local tile_w = o.mode == "tiles" and math.min(o.size, w) or w
  local tops = infer.tile_starts(h, tile_h, o.tile_stride)
  local lefts = infer.tile_starts(w, tile_w, o.tile_stride)
  local shape = o.mode == "tiles" and o.window or "flat"
  local weight_y, weight_x = tile_weights(tile_h, shape), tile_weights(tile_w, shape)

  -- The sum of tile weights at each row and column: the same for all windows, and separable.
  local total_y, total_x = ffi.new("float [?]", h), ffi.new("float [?]", w)
  for _, top in ipairs(tops) do
    for y = 0, tile_h - 1 do
      total_y[top + y] = total_y[top + y] + weight_y[y]
    end
  end
  for _, left in ipairs(lefts) do
    for x = 0, tile_w - 1 do
      total_x[left + x] = total_x[left + x] + weight_x[x]
    end
  end

  local job = {
    net = net, read = read, h = h, w = w, frames = o.frames, tiles = {}, tile_h = tile_h, tile_w = tile_w, weights = weights,
    weight_y = weight_y, weight_x = weight_x, uniform = shape == "flat", device = net.device and net:device() or "cpu",
  }
  for _, top in ipairs(tops) do
    for _, left in ipairs(lefts) do
      table.insert(job.tiles, { top, left })
    end
  end
  job.batch = batch_of(net, o, job.device)
  local sums = job.device == "cpu" and infer_sums.on_host(job) or infer_sums.on_device(job)
  local totals = {} -- by frame: the sum of the weights of the frames of windows
  local coarse = {} -- by frame: whether it was ever shown smaller

  local threshold, first_j = o.threshold, nil
  local before = o.first_mask -- what the next mask must touch, where only connected ones are kept
  local smaller = 1
  local sizes = {} -- by window that was run: how many times smaller it was shown

  local function seen_by(start)
    local seen = {}
    for t = 1, o.frames do
      seen[t] = math.ceil(infer.reflect(start + t - 1, n_shown, o.ends) / o.slow)
    end
    return seen
  end

  -- Frame i is not finite: the windows that saw it are run again, with the trap on.
  local function refuse(i)
    local frame = type(clip) == "table" and clip.frame_name and ("frame %d (%s)"):format(i, clip:frame_name(i)) or "frame " .. i
    for k in ipairs(sizes) do
      local seen = seen_by(starts[k])
      if contains(seen, i) then
        binding.C.pn_trap_nan(true)
        local ok, problem = pcall(unlearning, net, sums.window, seen, sizes[k])
        binding.C.pn_trap_nan(false)
        if not ok then
          raise("infer: %s: the network's answer is not finite: %s", frame, (tostring(problem):gsub("^%S+%.lua:%d+: ", "")))
        end
      end
    end
    raise("infer: %s: the network's answer was not finite; run again, every layer is", frame)
  end

  local function finish(i, sum)
    local total, check = totals[i], 0
    local to = mask_data + (i - 1) * pixels
    local chance = probabilities and probabilities:data() + (i - 1) * pixels
    for y = 0, h - 1 do
      for x = 0, w - 1 do
        local p = y * w + x
        sum[p] = sum[p] / (total * total_y[y] * total_x[x])
        check = check + sum[p]
      end
    end
    if check - check ~= 0 then -- of NaN and of infinities
      refuse(i)
    end
    if coarse[i] and o.guided > 0 then
      follow_edges(sum, h, w, o.guided, read, i)
    end
    if i == 1 and o.first_mask then
      threshold, first_j = calibrated(sum, o.first_mask, o)
    end
    for p = 0, pixels - 1 do
      to[p] = sum[p] >= threshold and 1 or 0
    end
    for p = 0, chance and pixels - 1 or -1 do
      chance[p] = math.min(255, math.floor(sum[p] * 255 + 0.5))
    end
    totals[i], coarse[i] = nil, nil
    local mask = image.frame(masks, i)
    if o.keep == "connected" and keep_overlapping(mask, before) then
      before = mask
    end
    local area = (image.box(mask) or { area = 0 }).area
    smaller = infer.downscale_of(area, first_area, o.downscale)
    if o.after_frame then
      scope.run(function()
        o.after_frame { index = i, mask = mask, probability = values_of(sum, h, w), smaller = smaller }
      end)
    end
    sums.spare(sum)
  end

  local function window(seen)
    sizes[#sizes + 1] = smaller
    unlearning(net, sums.window, seen, smaller)
    for t = 1, o.frames do
      totals[seen[t]] = (totals[seen[t]] or 0) + weights[t]
      coarse[seen[t]] = coarse[seen[t]] or smaller > 1
    end
  end

  local taken, waiting = 0, {}
  local function finish_waiting()
    for _, entry in ipairs(waiting) do
      finish(entry[1], entry[2])
    end
    waiting = {}
  end
  for k, start in ipairs(starts) do
    window(seen_by(start))
    -- While a device works on this window, the host finishes the frames of the one before and reads those of the next. On the CPU
    -- in the same order, so that each window is shown at the same size.
    finish_waiting()
    -- A later window begins later; beyond the end it may mirror back at most its own length before its start.
    local next_start = starts[k + 1]
    local reach = n + 1
    if next_start then
      reach = math.ceil(math.min(next_start, 2 * n_shown - (starts[#starts] + o.frames - 1)) / o.slow)
    end
    if next_start then
      sums.prepare(seen_by(next_start))
    end
    while taken + 1 < reach and taken < n do
      taken = taken + 1
      waiting[#waiting + 1] = { taken, sums.take(taken) }
    end
    sums.forget(reach)
    if o.progress then
      o.progress(k, #starts)
    end
  end
  finish_waiting()
  return masks, probabilities or nil, { threshold = threshold, first_j = first_j }
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
