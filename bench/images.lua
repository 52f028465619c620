-- bench/images.lua: what pictures and measures cost, at the size of DAVIS: penumbra bench/images.lua threads=1 runs=7
-- A wobbling disk of radius 120 in 16 frames; medians of `runs` after a warm-up, a frame (or a pair of masks) each.
local pn = require "penumbra"

local cfg = pn.config{
  height = 480,
  width  = 854,
  frames = 16,
  runs   = 7,
}
pn.threads(cfg.threads or 1)
local image, measure = pn.image, pn.measure
local n, h, w = cfg.frames, cfg.height, cfg.width

local function disks(shift)
  local masks = pn.zeros{ n, h, w, dtype = "u8" }
  local data = masks:data()
  for t = 0, n - 1 do
    for y = 0, h - 1 do
      for x = 0, w - 1 do
        local dy, dx = y - h / 2, x - w / 2 - shift - 4 * t
        local r = h / 4 + 10 * math.sin(6 * math.atan2(dy, dx) + t)
        if dy * dy + dx * dx <= r * r then data[(t * h + y) * w + x] = 1 end
      end
    end
  end
  return masks
end

local truth, masks = disks(0), disks(6)
local frames = pn.random.stream(1, "bench"):fill(pn.empty{ n, h, w, 3 }, "uniform", 0, 256):cast "u8"
local diagonal = math.ceil(measure.tolerance * math.sqrt(h * h + w * w))
local file = os.tmpname()
image.write(file, image.frame(masks, 1))

local function time(label, f, each)
  pn.scope(f)
  local seconds = {}
  for i = 1, cfg.runs do
    local begin = pn.clock()
    pn.scope(f)
    seconds[i] = (pn.clock() - begin) / (each or n)
  end
  table.sort(seconds)
  print(("%-34s %8.3f ms"):format(label, 1e3 * seconds[math.ceil(cfg.runs / 2)]))
end

print(("images %dx%d, %d thread%s, medians of %d, a frame"):format(w, h, pn.threads(), pn.threads() == 1 and "" or "s", cfg.runs))
time("mask from PNG", function() image.read_mask(file) end, 1)
time("mask to PNG", function() image.write(file, image.frame(masks, 1)) end, 1)
time("frames to clip (rgb_pm1)", function() image.to_clip(frames) end)
time("resize to half, area", function() image.resize(frames, { h / 2, w / 2 }) end)
time("resize to half, bilinear", function() image.resize(frames, { h / 2, w / 2, filter = "bilinear" }) end)
time("dilate, disk 7", function() image.dilate(masks, 7) end)
time("largest component", function() image.largest(masks) end)
time("all 224 x 224 windows", function() image.windows(image.frame(masks, 1), { math.min(224, h), math.min(224, w) }) end, 1)
time("overlay", function() image.overlay(image.frame(frames, 1), image.frame(masks, 1)) end, 1)
time("J and F", function() measure.sequence(masks, truth) end)
time("F's dilations, by definition", function()
  image.dilate(image.boundary(masks), diagonal)
  image.dilate(image.boundary(truth), diagonal)
end)
os.remove(file)
