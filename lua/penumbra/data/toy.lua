--- A painted DAVIS tree, for trying everything with no download: a creature walks through a landscape, the camera pans along,
-- the light drifts, legs and head move, and every mask is exact.
--
--     pn.data.toy.write("toy", { sequences = { "walk", "stroll" }, frames = 40, height = 240, width = 426, seed = 2 })
--     local clip = pn.data.davis("toy"):sequence("walk")
--
-- Layout: JPEGImages/480p, Annotations/480p (0/255), ImageSets/480p/val.txt and ImageSets/2016/val.txt.

local ffi = require "ffi"
local lfs = require "lfs"
local binding = require "penumbra.ffi"
local tensor = require "penumbra.tensor"
local image = require "penumbra.image"
local named = require "penumbra.base.named"
local random = require "penumbra.random"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"
local affine = require "penumbra.augment.affine"

local C, check, out, wrap, ptr = binding.C, binding.check, binding.out, binding.wrap, binding.ptr

local toy = {}

local function painted(fn, h, w, seed)
  local p = out()
  check(fn(p, h, w, seed))
  return wrap(p[0])
end

-- Pastes a creature (H,W,4) over a copy of a landscape; returns the picture and the creature's mask.
local function compose(landscape, creature, top, left)
  local frame = landscape:clone()
  local H, W = landscape:size(1), landscape:size(2)
  local mask = tensor.zeros { H, W, dtype = "u8" }
  local h, w = creature:size(1), creature:size(2)
  local to, m, from = frame:data(), mask:data(), creature:data()
  for y = 0, h - 1 do
    for x = 0, w - 1 do
      local p = from + 4 * (y * w + x)
      if p[3] > 0 then
        local at = (y + top) * W + x + left
        to[3 * at], to[3 * at + 1], to[3 * at + 2] = p[0], p[1], p[2]
        m[at] = 1
      end
    end
  end
  return frame, mask
end

--- The frames and masks of one painted clip.
-- @tparam ?table how frames = 40, height = 240, width = 426, seed = 2, name = "walk" (part of the seed)
-- @treturn Tensor frames u8 (T,H,W,3)
-- @treturn Tensor masks u8 (T,H,W), 0 or 1
function toy.clip(how)
  how = named("toy", how, { frames = 40, height = 240, width = 426, seed = 2, name = "walk" })
  local n, h, w = named.whole("toy", "frames", how.frames, 1, 10000), how.height, how.width
  named.whole("toy", "height", h, 32, 4096)
  named.whole("toy", "width", w, 32, 4096)
  local rng = random.stream(named.whole("toy", "seed", how.seed, 0), "toy " .. how.name)

  -- A world larger than the frame, so that the camera can pan.
  local H, W = math.floor(1.15 * h), math.floor(1.7 * w)
  local size = rng:uniform(0.48, 0.62)
  local ch, cw = math.floor(size * h), math.floor(size * w)
  local stride, way = rng:uniform(0.25, 0.45), rng:coin() and 1 or -1 -- of the world's width, in 40 frames; the way it looks
  stride = stride * math.min(1, n / 40)
  local landscape = painted(C.pn_paint_landscape, H, W, rng:integer(0, 2 ^ 31))
  local creature = painted(C.pn_paint_creature, ch, cw, rng:integer(0, 2 ^ 31))
  if way < 0 then
    creature = image.flip(creature)
  end
  local left = math.floor((W - cw) / 2)
  local top = math.min(H - ch - 2, math.floor(H * rng:uniform(0.80, 0.88)) - ch)
  local frame, mask = compose(landscape, creature, top, left)
  local scene = ffi.new "pn_scene *[1]"
  check(C.pn_scene_new(scene, ptr(frame), ptr(mask), ptr(landscape)))
  scene = ffi.gc(scene[0], C.pn_scene_free)

  -- Points that hold the back, and points that swing: feet in turn, head and tail.
  local box = image.box(mask)
  local x0, y0, bw, bh = box[2] - 1, box[1] - 1, box[4], box[3]
  local function at(u, v)
    return { x0 + u * bw, y0 + v * bh }
  end
  local points = {
    at(0.3, 0.55), at(0.5, 0.5), at(0.66, 0.55), at(0.27, 1), at(0.38, 1), at(0.62, 1), at(0.74, 1), at(0.93, 0.05), at(0.02, 0.4),
  }
  local swing = { 0, 0, 0, 0.035, -0.035, 0.035, -0.035, 0.02, 0.03 }
  local lift = { 0, 0, 0, 0.02, 0.02, 0.02, 0.02, 0.025, 0.04 }
  if way < 0 then
    for _, p in ipairs(points) do
      p[1] = 2 * x0 + bw - p[1]
    end
  end
  local beat = rng:uniform(0.07, 0.10) -- steps a frame
  local flat = ffi.new("double [?]", 2 * #points)
  for i, p in ipairs(points) do
    flat[2 * i - 2], flat[2 * i - 1] = p[1], p[2]
  end
  local moves = ffi.new("double [?]", 2 * #points * n)
  local poses = ffi.new("pn_pose [?]", n)
  local zoom, drift = rng:uniform(-0.08, 0.12), rng:uniform(-0.06, 0.06)
  local lag, sway, phase = rng:uniform(0.25, 0.6), rng:uniform(0.5, 2.5), rng:uniform(0, 6.28)
  local hand_x, hand_y = 0, 0
  local start = { (W - 1) / 2, top + ch / 2 }
  for t = 0, n - 1 do
    local u = n > 1 and t / (n - 1) or 0
    local step = 2 * math.pi * beat * t
    for i = 1, #points do
      local k = 2 * (t * #points + i - 1)
      moves[k] = -way * swing[i] * bw * math.sin(step + (i > 7 and i or 0))
      local rise = i > 7 and math.sin(0.5 * step + i) or math.max(0, math.sin(step + (swing[i] < 0 and math.pi or 0)))
      moves[k + 1] = lift[i] * bh * rise
    end
    -- In the world: along the ground, a bob with each step, a little nearer or farther.
    local along = way * stride * W * (u - 0.5) + 0.01 * W * math.sin(6.3 * u + phase)
    local near = math.exp(0.10 * math.sin(3 * u + phase))
    local centre = { start[1] + along, start[2] + 0.012 * bh * math.sin(2 * step) + 0.02 * H * math.sin(2.2 * u + phase) }
    local walk = affine.pose(0.8 * math.sin(step), near, start, centre)
    -- The camera follows, lagging, held by hand.
    local look = { (W - 1) / 2 + lag * along, (H - 1) / 2 + drift * h * u }
    local middle = { (w - 1) / 2 + hand_x, (h - 1) / 2 + hand_y }
    local camera = affine.pose(sway * math.sin(2 * u + phase), 1.04 * math.exp(zoom * u), look, middle)
    hand_x, hand_y = 0.7 * hand_x + 0.4 * rng:normal(), 0.7 * hand_y + 0.4 * rng:normal()
    local behind, object = affine.invert(camera), affine.invert(affine.after(camera, walk))
    local sun = 1 + 0.05 * math.sin(4 * u + phase)
    local light = { 1, 1, 0, sun, 1 / sun, 0 }
    for i = 1, 6 do
      local pose = poses[t]
      pose.background[i - 1], pose.object[i - 1] = behind[i], object[i]
      pose.background_light[i - 1], pose.light[i - 1] = (i == 2 or i == 5 or i == 1 or i == 4) and 1 or 0, light[i]
    end
  end
  local frames, masks = tensor.empty { n, h, w, 3, dtype = "u8" }, tensor.empty { n, h, w, dtype = "u8" }
  check(C.pn_scene_render(scene, n, poses, #points, flat, moves, ptr(frames), ptr(masks), C.PN_RGB_PM1))
  return frames, masks
end

local function make_directory(path)
  local at = path:sub(1, 1) == "/" and "/" or ""
  for part in path:gmatch("[^/]+") do
    at = at .. part
    if lfs.attributes(at, "mode") ~= "directory" then
      local ok, message = lfs.mkdir(at)
      if not ok and lfs.attributes(at, "mode") ~= "directory" then
        raise("toy: cannot make the directory %s: %s", at, tostring(message))
      end
    end
    at = at .. "/"
  end
end

local function write_text(path, text)
  local file, message = io.open(path, "w")
  if not file then
    raise("toy: cannot write %s", message)
  end
  local ok, problem = file:write(text)
  local closed = file:close()
  if not ok or not closed then
    raise("toy: cannot write %s: %s", path, tostring(problem))
  end
end

--- Writes a painted DAVIS tree. The same arguments write the same files.
-- @tparam string root is made where it does not exist
-- @tparam ?table how sequences = { "walk" }; frames = 40, height = 240, width = 426; seed = 1; quality = 92 of the JPEGs
-- @treturn string root
function toy.write(root, how)
  how = named("toy", how, { sequences = { "walk" }, frames = 40, height = 240, width = 426, seed = 2, quality = 92 })
  if type(root) ~= "string" or root == "" then
    raise("toy: expects the path of the tree to write, got %s", root == nil and "nothing" or "a " .. type(root))
  end
  local lines = {}
  for _, name in ipairs(how.sequences) do
    if type(name) ~= "string" or not name:match("^[%w._-]+$") then
      raise("toy: '%s' is not a name for a sequence (letters, digits, '.', '_' and '-')", tostring(name))
    end
    local pictures, annotations = "/JPEGImages/480p/" .. name, "/Annotations/480p/" .. name
    make_directory(root .. pictures)
    make_directory(root .. annotations)
    scope.run(function()
      local frames, masks = toy.clip {
        frames = how.frames, height = how.height, width = how.width, seed = how.seed, name = name,
      }
      local m = masks:data()
      for i = 0, masks:count() - 1 do
        m[i] = m[i] * 255
      end
      for i = 1, how.frames do
        local jpg, png = ("%s/%05d.jpg"):format(pictures, i - 1), ("%s/%05d.png"):format(annotations, i - 1)
        check(C.pn_jpeg_write(root .. jpg, ptr(image.frame(frames, i)), how.quality))
        image.write(root .. png, image.frame(masks, i), { palette = false })
        lines[#lines + 1] = jpg .. " " .. png
      end
    end)
  end
  make_directory(root .. "/ImageSets/480p")
  make_directory(root .. "/ImageSets/2016")
  write_text(root .. "/ImageSets/480p/val.txt", table.concat(lines, "\n") .. "\n")
  write_text(root .. "/ImageSets/2016/val.txt", table.concat(how.sequences, "\n") .. "\n")
  return root
end

return toy
