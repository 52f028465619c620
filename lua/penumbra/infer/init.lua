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
local binding = require "penumbra.ffi"
local image = require "penumbra.image"
local masks_of = require "penumbra.infer.masks"
local new_pass = require "penumbra.infer.pass"
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

--- Checks that a model has what inference needs: in a recipe, before it trains (docs/models.md).
-- @param net as for `segment`
-- @return the same
function infer.check(net)
  local has = type(net) == "table" and net or {}
  if type(has.logits) ~= "function" or type(has.eval) ~= "function" then
    raise("infer: %s; inference calls net:logits(x), which takes a clip (N,3,T,H,W) to logits (N,1,T,H,W), above 0 where the "
      .. "object is (docs/models.md)",
      has.kind and ("the module '%s' has no method logits"):format(has.name) or "expects a model, got a " .. type(net))
  end
  if has.input ~= nil then
    named.choice("infer", "pixel rule (the model's input)", has.input, image.pixel_rules)
  end
  return net
end

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
  local pass = new_pass(infer.check(net), clip, settings(options))
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
  masks_of.check("false_positives: the mask", mask, h, w)
  local still = frame:contiguous():reshape { shape = { 1, h, w, 3 } }
  local found = infer.segment(net, still, { frames = how.frames, ends = "inside" })
  local wrong = image.frame(found, 1):gt(image.dilate(mask, how.margin)) -- 1 where found and not near
  return wrong:cast "u8", wrong:sum():item()
end

return infer
