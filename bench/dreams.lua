-- bench/dreams.lua: what training samples cost: penumbra bench/dreams.lua threads=1 runs=9
-- A painted clip at the size of DAVIS; medians of `runs` after a warm-up, over 8 different samples each.
local pn = require "penumbra"
local files = require "penumbra.base.files"

local cfg = pn.config{
  height = 480,
  width  = 854,
  frames = 16,
  crop   = 224,
  runs   = 9,
}
pn.threads(cfg.threads or 1)

local function time(label, f)
  pn.scope(f, 1)
  local seconds = {}
  for run = 1, cfg.runs do
    local begin = pn.clock()
    for i = 1, 8 do pn.scope(f, i) end
    seconds[run] = (pn.clock() - begin) / 8
  end
  table.sort(seconds)
  print(("%-34s %8.2f ms"):format(label, 1e3 * seconds[math.ceil(cfg.runs / 2)]))
end

print(("%d frames, window %d of %dx%d, %d thread%s, medians of %d"):format(cfg.frames, cfg.crop, cfg.width, cfg.height,
  pn.threads(), pn.threads() == 1 and "" or "s", cfg.runs))
local root = files.scratch()
pn.data.toy.write(root, { frames = cfg.frames, height = cfg.height, width = cfg.width })
local set = pn.data.davis(root)
local clip = set:sequence "walk"
local frame, mask = clip:frame(1), clip:mask(1)
local hole = pn.image.dilate(mask, 7)

local dreams = pn.lucid.stream(frame, mask, cfg)
time("a dream", function(i) dreams:clip(i) end)
local plain = { deform = 0, background_light = 0, light = 0 }
local still = pn.lucid.stream(frame, mask, { frames = cfg.frames, crop = cfg.crop, lucid = plain })
time("  without deformation and light", function(i) still:clip(i) end)
time("  over the whole frame", function(i) dreams:clip(i, { crop = false }) end)
local feed = pn.data.clips(set, { sequences = { "walk" }, frames = cfg.frames, crop = cfg.crop })
time("a training clip, frames in cache", function(i) feed:clip(i, 1) end)
time("inpainting the first frame", function() pn.augment.inpaint(frame, hole) end)
time("decoding a frame", function(i) pn.image.read((clip:paths(i))) end)

files.remove(root)
