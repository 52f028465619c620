--- Dreams of the first frame: clips of one coherent motion, rendered from the one annotated frame there is.
--
--     local dreams = pn.lucid.stream(clip:frame(1), clip:mask(1), { frames = 16, crop = 224, seed = 1 })
--     local batch  = dreams:batch(epoch)        -- batch.frames real (1,3,16,224,224), batch.mask real (1,1,16,224,224)
--     local look   = dreams:sample(7)           -- look.frames u8 (16,H,W,3), look.masks u8 (16,H,W), look.params
--
-- Method: Khoreva et al., "Lucid Data Dreaming" (2017), with its numbers (METHOD 7), made into one motion of K frames: object and
-- background each follow a trajectory of poses; the object also deforms. A dream is a pure function of (seed, index): any
-- thread may render any dream at any time. Only the window that is asked for is rendered.
--
-- How fast objects go: on the 40 sequences of DAVIS 2016 at hand, the centre of the object moves from frame to frame by a
-- share of its box (root of height x width) whose median is .018, 90th percentile .084, 99th .30; its velocity changes by a
-- median .007, and its scale by .006. Speeds are drawn log-normal to match.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local tensor = require "penumbra.tensor"
local image = require "penumbra.image"
local named = require "penumbra.base.named"
local random = require "penumbra.random"
local raise = require "penumbra.base.raise"
local augment = require "penumbra.augment"

local C, check, ptr = binding.C, binding.check, binding.ptr
local affine = augment.affine
local range, share = named.range, named.share

local lucid = {}

--- What a dream is made of; any key can be given in cfg.lucid.
-- @field defaults
lucid.defaults = {
  annotated = 0.35,        -- share of dreams that begin (or, reversed, end) with the frame exactly as annotated
  reverse = 0.5,           -- share whose time runs backwards
  slow = 0.5,              -- share in slow motion, as infer.slow shows a clip
  slow_by = 4,             -- how many times each frame is shown in slow motion
  still = 0.1,             -- share whose object rests
  follow = 0.5,            -- share in which the camera's motion leaves the object alone, as when it is being followed
  place = 0.2,             -- share whose object starts anywhere in the frame
  near = 0.05,             -- else it starts this far from its place (deviation, of its box)
  speed = 0.018,           -- median speed, of the object's box per frame; log-normal
  spread = 1.1,            -- deviation of the logarithm of the speed
  max_speed = 0.15,        -- the most speed
  swerve = 0.35,           -- deviation of the acceleration, of the speed
  scale = { 0.85, 1.15 },  -- of the object at the start
  growth = 0.008,          -- deviation of the logarithm of its scale, per frame
  degrees = 8,             -- turn of the object at the start, up to
  spin = 0.8,              -- deviation of its turn per frame, degrees
  deform = 0.7,            -- probability of a deformation
  bend = 0.05,             -- largest move of a point of the deformation, of the object's box
  points = 5,              -- how many points of its outline move
  camera = {               -- it goes from one view to another
    degrees = 3,           -- most turn of its first and last view, either way
    scale = { 0.95, 1.05 }, -- of its first and last view
    shift = 0.05,          -- most shift of its first and last view, of the frame's width and height
    shake = 0.4,           -- deviation of its tremble, pixels, in half of the dreams
  },
  background_light = 0.5,  -- probability of another light on the background alone
  light = 0.5,             -- probability of another light on the whole
  lights = augment.light_defaults,
  whole = {                -- a change of the whole picture
    flip = 0.5,            -- probability of a mirror image, left for right
    rotate = 0.5,          -- probability of a turn
    degrees = 15,          -- the most of that turn, either way
    resize = 0.5,          -- probability of another scale
    scale = { 0.8, 1.25 }, -- from which that scale is drawn
    shrink = 0.25,         -- probability of a scale from the smallest that still fills the window up to 1
  },
  crop = {                 -- which window of the picture
    min_share = 0.1,       -- least share of object in it, in the first frame
    tries = 100,           -- draws of a window until one has that; then the fullest there is
    uniform = 0.15,        -- probability of a window anywhere, whatever it shows
    background = 0.1,       -- probability of the emptiest of 8 windows
  },
  focus = 0.25,            -- share of windows on a place given to stream:focus, when there is one
  hole = 7,                -- the background is filled in within this many pixels of the mask
  grain = 1,               -- strength of the texture of what is filled in
}

--- The height and width of the windows that the key `crop` asks for: a number, {height, width}, or false (nil: whole frames).
function lucid.crop_size(crop)
  if crop == false then
    return nil
  end
  local h, w = crop, crop
  if type(crop) == "table" then
    h, w = crop[1], crop[2]
  end
  return { named.whole("lucid", "crop", h, 1), named.whole("lucid", "crop", w, 1) }
end

local Stream = {}
Stream.__index = Stream

-- ---- the scene ------------------------------------------------------------------------------------------------------------------

-- The pixels of the mask that have a neighbour outside it, as int32_t[2 n] of x, y.
local function outline(mask)
  local h, w = mask:size(1), mask:size(2)
  local p = mask:data()
  local function collect(list)
    local n = 0
    for y = 0, h - 1 do
      for x = 0, w - 1 do
        local at = y * w + x
        if p[at] ~= 0 and (x == 0 or y == 0 or x == w - 1 or y == h - 1 or p[at - 1] == 0 or p[at + 1] == 0
          or p[at - w] == 0 or p[at + w] == 0) then
          if list then
            list[2 * n], list[2 * n + 1] = x, y
          end
          n = n + 1
        end
      end
    end
    return n
  end
  local n = collect()
  local list = ffi.new("int32_t [?]", 2 * n)
  collect(list)
  return list, n
end

local function settings(cfg)
  cfg = cfg or {}
  if type(cfg) ~= "table" then
    raise("lucid: expects its settings in a table, got a %s", type(cfg))
  end
  local how = named("lucid", cfg.lucid, lucid.defaults)
  how.camera = named("lucid.camera", how.camera, lucid.defaults.camera)
  how.whole = named("lucid.whole", how.whole, lucid.defaults.whole)
  how.crop = named("lucid.crop", how.crop, lucid.defaults.crop)
  for _, name in ipairs {
    "annotated", "reverse", "slow", "still", "follow", "place", "deform", "background_light", "light", "focus",
  } do
    share("lucid", name, how[name])
  end
  for _, name in ipairs { "near", "speed", "spread", "max_speed", "swerve", "growth", "degrees", "spin", "bend" } do
    if how[name] < 0 then
      raise("lucid: %s is %g, expects 0 or more", name, how[name])
    end
  end
  if range("lucid", "scale", how.scale)[1] <= 0 or range("lucid.camera", "scale", how.camera.scale)[1] <= 0 then
    raise("lucid: a scale must be above 0")
  end
  named.whole("lucid", "points", how.points, 3, 64)
  named.whole("lucid", "slow_by", how.slow_by, 1, 1000)
  named.whole("lucid", "hole", how.hole, 0, 1000)
  local crop = cfg.crop
  if crop == nil then
    crop = 224
  end
  return how, named.whole("lucid", "frames", cfg.frames or 16, 1, 1000), crop, cfg.input or "rgb_pm1", cfg.seed or 1
end

-- A window may stand over the border of a small frame, but what is larger than its longer side is a slip.
local function check_crop(frame, crop)
  local size, h, w = crop ~= nil and lucid.crop_size(crop), frame:size(1), frame:size(2)
  local longer = math.max(h, w)
  if size and math.max(size[1], size[2]) > longer then
    raise("crop is %s, larger than the frame (%d x %d, height x width): expects no more than %d",
      type(crop) == "table" and table.concat(crop, ",") or tostring(crop), h, w, longer)
  end
end

--- Checks what `stream` would make of a configuration: in a recipe, before its run has a folder.
-- @tparam Tensor frame u8 (H,W,3)
-- @tparam ?table cfg as for `stream`
function lucid.check(frame, cfg)
  settings(cfg)
  check_crop(frame, cfg and cfg.crop)
end

local rules = { rgb_pm1 = C.PN_RGB_PM1, bgr_01 = C.PN_BGR_01 }

--- A stream of dreams of one frame.
-- @tparam Tensor frame u8 (H,W,3)
-- @tparam Tensor mask u8 (H,W); any value but 0 is the object
-- @tparam ?table cfg frames = 16; crop = 224 (a number, {height, width}, or false: whole frames); input = "rgb_pm1" or
--   "bgr_01"; seed = 1; lucid: any key of lucid.defaults. Other keys are left alone, so a recipe's configuration will do;
--   cfg.background, u8 (H,W,3): the frame without the object, where one is at hand
-- @treturn Stream fields: height, width, background (u8 (H,W,3))
function lucid.stream(frame, mask, cfg)
  local how, frames, crop, input, seed = settings(cfg)
  ptr(frame, "lucid: frame")
  ptr(mask, "lucid: mask")
  check_crop(frame, cfg and cfg.crop)
  if not rules[input] then
    raise("lucid: unknown input '%s' (known: bgr_01, rgb_pm1)", tostring(input))
  end
  local box = mask:dims() == 2 and image.box(mask)
  if mask:dims() == 2 and not box then
    raise("lucid: the mask is empty: there is no object to dream of")
  end
  local background = cfg and cfg.background
  if not background then
    local hole = image.dilate(mask, how.hole)
    background = augment.inpaint(frame, hole, { grain = how.grain, seed = 0 })
  end
  local scene = ffi.new "pn_scene *[1]"
  check(C.pn_scene_new(scene, ptr(frame), ptr(mask), ptr(background, "lucid: background")))
  local points, n_points = outline(mask:contiguous())
  return setmetatable({
    scene = ffi.gc(scene[0], C.pn_scene_free), how = how, n_frames = frames, crop = crop, input = input, seed = seed,
    height = frame:size(1), width = frame:size(2), background = background:keep(), per_epoch = 1,
    outline = points, n_outline = n_points, -- x, y pairs
    frame = frame:detach():keep(), mask = mask:detach():keep(), version = 0,
    box = { x = box[2] - 1, y = box[1] - 1, width = box[4], height = box[3] },
  }, Stream)
end

-- ---- a dream's motion ----------------------------------------------------------------------------------------------------------

-- Up to `wanted` points of the outline, far from each other; the corners of the box where the outline is too short or straight.
local function deformation_points(stream, rng, wanted)
  local box = stream.box
  local points = {}
  for _ = 1, wanted do
    local best, best_distance
    for _ = 1, 8 do
      local k = rng:integer(0, stream.n_outline - 1)
      local x, y = stream.outline[2 * k], stream.outline[2 * k + 1]
      local distance = math.huge
      for _, p in ipairs(points) do
        distance = math.min(distance, (p[1] - x) ^ 2 + (p[2] - y) ^ 2)
      end
      if not best or distance > best_distance then
        best, best_distance = { x, y }, distance
      end
    end
    points[#points + 1] = best
  end
  local widest, closest = 0, math.huge
  local a = points[1]
  for i = 2, #points do
    for j = 1, i - 1 do
      local b, c = points[i], points[j]
      widest = math.max(widest, math.abs((b[1] - a[1]) * (c[2] - a[2]) - (b[2] - a[2]) * (c[1] - a[1])))
      closest = math.min(closest, (b[1] - c[1]) ^ 2 + (b[2] - c[2]) ^ 2)
    end
  end
  if closest < 1 or widest < 0.02 * box.width * box.height + 4 then
    local x0, y0, x1, y1 = box.x - 1, box.y - 1, box.x + box.width, box.y + box.height
    return { { x0, y0 }, { x1, y0 }, { x0, y1 }, { x1, y1 } }
  end
  return points
end

-- The object's path: centre, scale and turn of each frame, from a start at `from`.
local function object_path(stream, rng, n, from, rests)
  local how, size = stream.how, math.sqrt(stream.box.width * stream.box.height)
  local speed = rests and 0 or size * math.min(how.max_speed, how.speed * math.exp(how.spread * rng:normal()))
  local heading = rng:uniform(0, 2 * math.pi)
  local vx, vy = speed * math.cos(heading), speed * math.sin(heading)
  -- The one way that leaves the frame is turned round; what would still leave it is slowed down.
  for axis = 1, 2 do
    local v, at, far = axis == 1 and vx or vy, from[axis], (axis == 1 and stream.width or stream.height) - 1
    local landing = at + v * (n - 1)
    if landing < 0 or landing > far then
      v = -v
      landing = math.max(0, math.min(far, at + v * (n - 1)))
      v = n > 1 and (landing - at) / (n - 1) or v
    end
    if axis == 1 then vx = v else vy = v end
  end
  local growth, spin = rests and 0 or how.growth * rng:normal(), rests and 0 or how.spin * rng:normal()
  local path = {}
  local x, y, scale, degrees = from[1], from[2], from.scale, from.degrees
  for t = 1, n do
    path[t] = { x, y, scale = scale, degrees = degrees }
    x, y = x + vx, y + vy
    vx, vy = vx + how.swerve * 0.4 * speed * rng:normal(), vy + how.swerve * 0.4 * speed * rng:normal()
    scale, degrees = scale * math.exp(growth), degrees + spin
    if not rests then
      growth, spin = 0.9 * growth + 0.4 * how.growth * rng:normal(), 0.9 * spin + 0.4 * how.spin * rng:normal()
    end
  end
  return path
end

-- The camera's path: a map of the annotated frame for each frame, growing smoothly from one view to another.
local function camera_path(stream, rng, n, starts_at_rest)
  local how = stream.how.camera
  local function view()
    return {
      degrees = rng:uniform(-how.degrees, how.degrees), scale = math.log(rng:uniform(how.scale[1], how.scale[2])),
      x = rng:uniform(-how.shift, how.shift) * stream.width, y = rng:uniform(-how.shift, how.shift) * stream.height,
    }
  end
  local a, b = view(), view()
  if starts_at_rest then
    a = { degrees = 0, scale = 0, x = 0, y = 0 }
  end
  local bow = rng:uniform(-1, 1) -- faster first, or faster last
  local shake = rng:coin() and how.shake or 0
  local sx, sy = 0, 0
  local centre = { (stream.width - 1) / 2, (stream.height - 1) / 2 }
  local maps = {}
  for t = 1, n do
    local u = n > 1 and (t - 1) / (n - 1) or 0
    u = u + bow * u * (1 - u)
    local to = { centre[1] + a.x + (b.x - a.x) * u + sx, centre[2] + a.y + (b.y - a.y) * u + sy }
    maps[t] = affine.pose(a.degrees + (b.degrees - a.degrees) * u, math.exp(a.scale + (b.scale - a.scale) * u), centre, to)
    sx, sy = 0.6 * sx + shake * rng:normal(), 0.6 * sy + shake * rng:normal()
  end
  return maps
end

-- Moves of the points of the deformation: slow waves, each point its own. moves[t][i] = {dx, dy}.
local function bending(stream, rng, n, points, starts_at_rest)
  local moves, waves = {}, {}
  for i = 1, #points do
    for axis = 1, 2 do
      local reach = stream.how.bend * (axis == 1 and stream.box.width or stream.box.height)
      waves[2 * i - 2 + axis] = {
        strength = rng:uniform(0.2, 1) * reach, turns = rng:uniform(0.02, 0.12), phase = rng:uniform(0, 2 * math.pi),
      }
    end
  end
  for t = 1, n do
    moves[t] = {}
    for i = 1, #points do
      local d = {}
      for axis = 1, 2 do
        local wave = waves[2 * i - 2 + axis]
        local angle = 2 * math.pi * wave.turns * (t - 1)
        d[axis] = wave.strength * math.sin(wave.phase + angle)
        if starts_at_rest then -- half the difference keeps within the reach
          d[axis] = 0.5 * (d[axis] - wave.strength * math.sin(wave.phase))
        end
      end
      moves[t][i] = d
    end
  end
  return moves
end

local function reverse(list)
  local n = #list
  for i = 1, math.floor(n / 2) do
    list[i], list[n + 1 - i] = list[n + 1 - i], list[i]
  end
end

-- The first of a list so many times, then the second, up to n in all.
local function slowly(list, by, n)
  local result = {}
  for t = 1, n do
    result[t] = list[math.floor((t - 1) / by) + 1]
  end
  return result
end

-- All of a dream but its pixels. Maps lead from the annotated frame to the canvas.
local function draw(stream, index, n, size)
  named.whole("lucid", "index", index, 0)
  local how = stream.how
  local rng = random.stream(stream.seed, ("lucid %d"):format(index))
  local box = stream.box
  local params = { index = index, seed = stream.seed }
  params.annotated = rng:coin(how.annotated)
  params.reverse = rng:coin(how.reverse)
  params.slow = rng:coin(how.slow) and how.slow_by or 1
  local shown = n
  n = math.ceil(shown / params.slow)
  params.still = rng:coin(how.still)
  params.follow = rng:coin(how.follow)
  local anywhere, deform = rng:coin(how.place), rng:coin(how.deform)
  local behind_lit, whole_lit = rng:coin(how.background_light), rng:coin(how.light)
  local behind, light = augment.light(rng, how.lights), augment.light(rng, how.lights)
  if params.annotated then -- the annotated frame keeps its light, and so does the clip that it belongs to
    behind_lit, whole_lit = false, false
  end
  params.background_light, params.light = behind_lit and behind or nil, whole_lit and light or nil

  local centre = { box.x + (box.width - 1) / 2, box.y + (box.height - 1) / 2 }
  local spread = how.near * math.sqrt(box.width * box.height)
  local from = {
    centre[1] + spread * rng:normal(), centre[2] + spread * rng:normal(),
    scale = math.exp(rng:uniform(math.log(how.scale[1]), math.log(how.scale[2]))),
    degrees = rng:uniform(-how.degrees, how.degrees),
  }
  local there = { rng:uniform(0, stream.width - 1), rng:uniform(0, stream.height - 1) }
  if anywhere then
    from[1], from[2] = there[1], there[2]
  end
  if params.annotated then
    from = { centre[1], centre[2], scale = 1, degrees = 0 }
  end
  local path = object_path(stream, rng, n, from, params.still)
  local camera = camera_path(stream, rng, shown, params.annotated) -- as far from frame to frame in slow motion as without
  params.camera, params.object = {}, {}
  for t = 1, n do
    local p = path[t]
    params.camera[t] = camera[t]
    local map = affine.pose(p.degrees, p.scale, centre, p)
    params.object[t] = params.follow and map or affine.after(camera[t], map)
  end
  params.points = deform and deformation_points(stream, rng, how.points) or {}
  params.moves = bending(stream, rng, n, params.points, params.annotated)
  if params.reverse then
    reverse(params.camera)
    reverse(params.object)
    reverse(params.moves)
  end
  for _, name in ipairs { "camera", "object", "moves" } do
    params[name] = slowly(params[name], params.slow, shown)
  end

  local whole = how.whole
  if params.annotated then
    whole = { flip = whole.flip, rotate = 0, resize = 0, shrink = whole.shrink }
  end
  params.whole = augment.whole(rng, stream.height, stream.width, size, whole)
  return params, rng
end

-- Whether frame t of n shows the annotated frame as it is.
local function as_annotated(params, t, n)
  local at, last = math.ceil(t / params.slow), math.ceil(n / params.slow)
  return params.annotated and at == (params.reverse and last or 1)
end

-- Fills one pn_pose; `window` leads from output pixels to the canvas.
local function pose_of(pose, params, t, n, window)
  local back = affine.after(affine.invert(params.whole.map), window)
  local behind = affine.after(affine.invert(params.camera[t]), back)
  local object = affine.after(affine.invert(params.object[t]), back)
  local none = { 1, 1, 0, 1, 1, 0 }
  local behind_light, light = params.background_light or none, params.light or none
  for i = 1, 6 do
    pose.background[i - 1], pose.object[i - 1] = behind[i], object[i]
    pose.background_light[i - 1], pose.light[i - 1] = behind_light[i], light[i]
  end
  pose.as_annotated = as_annotated(params, t, n) and 1 or 0
end

local function flat_moves(params, first, n)
  local k = #params.points
  local points, moves = ffi.new("double [?]", math.max(2 * k, 1)), ffi.new("double [?]", math.max(2 * k * n, 1))
  for i = 1, k do
    points[2 * i - 2], points[2 * i - 1] = params.points[i][1], params.points[i][2]
    for t = 1, n do
      local at, move = 2 * ((t - 1) * k + i - 1), params.moves[first + t - 1][i]
      moves[at], moves[at + 1] = move[1], move[2]
    end
  end
  return k, points, moves
end

-- Renders frames first .. first + n - 1 of a dream into tensors (either may be nil).
local function render(stream, params, first, n, total, window, frames, masks, rule)
  local poses = ffi.new("pn_pose [?]", n)
  for t = 1, n do
    pose_of(poses[t - 1], params, first + t - 1, total, window)
  end
  local k, points, moves = flat_moves(params, first, n)
  check(C.pn_scene_render(stream.scene, n, poses, k, points, moves, frames and ptr(frames), masks and ptr(masks), rule))
end

-- Chooses the window of a dream on the canvas and leaves it in params.window.
local function choose_window(stream, params, rng, n, size)
  local focused = rng:coin(stream.how.focus)
  if focused and stream.n_focus then
    local k = rng:integer(0, stream.n_focus - 1)
    local map = affine.after(params.whole.map, params.camera[1])
    local x, y = affine.at(map, stream.focus_points[2 * k], stream.focus_points[2 * k + 1])
    x, y = x + rng:uniform(-0.3, 0.3) * size[2], y + rng:uniform(-0.3, 0.3) * size[1]
    local function clamp(v, most)
      return math.max(1, math.min(most, math.floor(v + 0.5)))
    end
    params.window = {
      clamp(y - size[1] / 2, params.whole.height - size[1] + 1), clamp(x - size[2] / 2, params.whole.width - size[2] + 1),
      size[1], size[2], rule = "focus",
    }
  else
    params.window = augment.window(rng, params.whole, size, stream.how.crop, function(map, height, width)
      local mask = tensor.empty { 1, height, width, dtype = "u8" }
      render(stream, params, 1, 1, n, map, nil, mask, rules.rgb_pm1)
      return image.frame(mask, 1)
    end)
  end
  return affine.shift(params.window[2] - 1, params.window[1] - 1)
end

-- ---- what a stream gives -------------------------------------------------------------------------------------------------------

--- Places where the network was wrong on the annotated frame: a share of the windows (lucid.focus) is drawn around them.
-- @tparam ?Tensor mask u8 (H,W) of the size of the frame, any value but 0 counts; nil or an empty one: no such places
function Stream:focus(mask)
  self.focus_points, self.n_focus, self.focus_mask = nil, nil, nil
  self.version = self.version + 1
  if mask == nil then
    return self
  end
  ptr(mask, "focus")
  if mask:dims() ~= 2 or mask:size(1) ~= self.height or mask:size(2) ~= self.width then
    raise("focus: expects a mask of %d x %d (height x width), got %s", self.height, self.width, table.concat(mask:shape(), ","))
  end
  local dense = mask:contiguous()
  local p, n = dense:data(), 0
  for k = 0, self.height * self.width - 1 do
    n = n + (p[k] ~= 0 and 1 or 0)
  end
  if n > 0 then
    local list, at = ffi.new("int32_t [?]", 2 * n), 0
    for k = 0, self.height * self.width - 1 do
      if p[k] ~= 0 then
        list[at], list[at + 1] = k % self.width, math.floor(k / self.width)
        at = at + 2
      end
    end
    self.focus_points, self.n_focus, self.focus_mask = list, n, dense:detach():keep()
  end
  return self
end

--- What a checkpoint holds of a stream, for run:keep: the places of `focus`.
function Stream:state()
  return { focused = self.focus_mask ~= nil, mask = self.focus_mask }
end

function Stream:load_state(state)
  self:focus(state.mask)
end

--- A checkpoint from before streams had a state begins without such places.
Stream.may_begin_anew = true

--- How to make this stream again, in another Lua state (penumbra.ahead).
function Stream:made_by()
  return "penumbra.lucid", "again", self.frame, self.mask, {
    frames = self.n_frames, crop = self.crop, input = self.input, seed = self.seed, lucid = self.how, background = self.background,
  }, self.focus_mask
end

--- A stream from what `made_by` says.
function lucid.again(frame, mask, cfg, focus)
  return lucid.stream(frame, mask, cfg):focus(focus)
end

--- Dream number index as pictures, over the whole frame.
-- @tparam int index from 0
-- @tparam ?table how frames: how many; crop: a window as for `clip` (default false: the whole frame)
-- @treturn table frames u8 (K,h,w,3), masks u8 (K,h,w), params
function Stream:sample(index, how)
  how = named("sample", how, { frames = self.n_frames, crop = named.optional })
  local n, size = named.whole("sample", "frames", how.frames, 1), lucid.crop_size(how.crop or false)
  local params, rng = draw(self, index, n, size)
  local window = size and choose_window(self, params, rng, n, size) or affine.identity()
  local h, w = size and size[1] or self.height, size and size[2] or self.width
  local frames, masks = tensor.empty { n, h, w, 3, dtype = "u8" }, tensor.empty { n, h, w, dtype = "u8" }
  render(self, params, 1, n, n, window, frames, masks, rules.rgb_pm1)
  return { frames = frames, masks = masks, params = params }
end

--- Dream number index as the network reads it.
-- @tparam int index from 0
-- @tparam ?table how frames, crop (default: those of the stream)
-- @treturn Tensor frames real (1,3,K,h,w), channels-last
-- @treturn Tensor mask real (1,1,K,h,w), 0 and 1
-- @treturn table params: everything that was drawn; params.window says how the crop rule fared
function Stream:clip(index, how)
  how = named("clip", how, { frames = self.n_frames, crop = named.optional })
  local crop = how.crop
  if crop == nil then
    crop = self.crop
  end
  local n, size = named.whole("clip", "frames", how.frames, 1), lucid.crop_size(crop)
  local params, rng = draw(self, index, n, size)
  local window = size and choose_window(self, params, rng, n, size) or affine.identity()
  local h, w = size and size[1] or self.height, size and size[2] or self.width
  local frames = tensor.empty { 1, 3, n, h, w, layout = "channels_last" }
  local mask = tensor.empty { 1, 1, n, h, w, layout = "channels_last" }
  render(self, params, 1, n, n, window, frames, mask, rules[self.input])
  return frames, mask, params
end

--- What a training loop asks for: dream i of an epoch.
-- @tparam int epoch from 1
-- @tparam ?int i from 1; default 1
-- @treturn table frames, mask, params as of `clip`
function Stream:batch(epoch, i)
  local frames, mask, params = self:clip((epoch - 1) * self.per_epoch + (i or 1))
  return { frames = frames, mask = mask, params = params }
end

--- The same batch as bytes, a quarter of the size, for a device that turns them into numbers itself (`penumbra.device.bring`).
-- @treturn table frames u8 (K,h,w,3), mask u8 (1,1,K,h,w), input (the rule of the pixels), params
function Stream:bytes(epoch, i)
  local look = self:sample((epoch - 1) * self.per_epoch + (i or 1), { crop = self.crop })
  local mask = require("penumbra.ops").reshape(look.masks, { shape = { 1, 1, unpack(look.masks:shape()) } })
  return { frames = look.frames, mask = mask, input = self.input, params = look.params }
end

return lucid
