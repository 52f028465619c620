--- Augmentation of clips: one draw for all frames of a clip, replayable from its random stream.
--
--     local rng    = pn.random.stream(seed, "clip 17")
--     local params = pn.augment.draw(rng, clip_masks, { crop = { size = 224 } })
--     local frames, masks = pn.augment.apply(params, clip_frames, clip_masks)
--
-- Frames are u8 (T,H,W,3), masks u8 (T,H,W). Frames are read between pixels, masks at the nearest pixel, by the same map.
-- What a map asks for beyond the edge of the picture is mirrored. Maps are those of penumbra.augment.affine, and lead from
-- the source to the canvas: the whole picture after its flip, turn and scaling, from which the window is cut.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local tensor = require "penumbra.tensor"
local image = require "penumbra.image"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"
local affine = require "penumbra.augment.affine"

local C, check, out, wrap, ptr = binding.C, binding.check, binding.out, binding.wrap, binding.ptr

local range, share = named.range, named.share
local augment = { affine = affine }

-- ---- kernels --------------------------------------------------------------------------------------------------------------

local filters = { bilinear = C.PN_BILINEAR, nearest = C.PN_NEAREST }
local borders = { reflect = C.PN_BORDER_REFLECT, replicate = C.PN_BORDER_REPLICATE, zero = C.PN_BORDER_ZERO }

-- A list of {x, y} as double[2 n].
local function points_of(what, list)
  local flat = ffi.new("double [?]", math.max(2 * #list, 1))
  for i, point in ipairs(list) do
    if type(point) ~= "table" or type(point[1]) ~= "number" or type(point[2]) ~= "number" then
      raise("warp: %s %d is not a pair of numbers {x, y}", what, i)
    end
    flat[2 * i - 2], flat[2 * i - 1] = point[1], point[2]
  end
  return flat
end

-- t seen as (T,H,W,C), without a copy where it is dense; and how to see the result again.
local function as_clip(t, masks)
  local shape, dims = t:shape(), t:dims()
  local is_mask = dims == 2 or dims == 3 and masks
  local full = dims == 2 and { 1, shape[1], shape[2], 1 } or dims == 4 and shape
    or is_mask and { shape[1], shape[2], shape[3], 1 } or { 1, shape[1], shape[2], shape[3] }
  if dims < 2 or dims > 4 then
    raise("warp: expects (H,W), (H,W,3), (T,H,W) or (T,H,W,C), got %d axes", dims)
  end
  return full, function(h, w)
    return dims == 2 and { h, w } or dims == 4 and { full[1], h, w, full[4] } or is_mask and { full[1], h, w } or { h, w, full[4] }
  end
end

local function viewed(t, shape)
  local n = #shape
  local sizes, strides = ffi.new("int64_t [?]", n), ffi.new("int64_t [?]", n)
  local step = 1
  for i = n, 1, -1 do
    sizes[i - 1], strides[i - 1] = shape[i], step
    step = step * shape[i]
  end
  local p = out()
  check(C.pn_tensor_view(p, ptr(t), n, sizes, strides, 0))
  return wrap(p[0])
end

--- All pictures of a tensor through one map.
-- @tparam Tensor t u8 (H,W), (H,W,3), (T,H,W) or (T,H,W,C)
-- @tparam table how map: six numbers, output pixel -> input pixel; height, width: of the output (default: as the input);
--   points, moves: lists of {x, y}: a thin-plate spline on top, which shifts where output points read by their moves;
--   filter = "bilinear" or "nearest" (default for masks); border = "reflect", "replicate" or "zero"; masks = true for (T,H,W)
-- @treturn Tensor u8, with the axes of t
function augment.warp(t, how)
  how = named("warp", how, {
    map = affine.identity(), height = named.optional, width = named.optional, points = {}, moves = {}, filter = named.optional,
    border = "reflect", masks = false,
  })
  ptr(t, "warp")
  local full, result_shape = as_clip(t, how.masks)
  local filter = how.filter or (how.masks or t:dims() == 2) and "nearest" or "bilinear"
  local h, w = how.height or full[2], how.width or full[3]
  if #how.points ~= #how.moves then
    raise("warp: %d points but %d moves", #how.points, #how.moves)
  end
  for i = 1, 6 do
    if type(how.map[i]) ~= "number" then
      raise("warp: number %d of the map is %s", i, tostring(how.map[i]))
    end
  end
  local clip = viewed(t:contiguous(), full)
  local p = out()
  check(C.pn_warp(p, ptr(clip), ffi.new("double [6]", how.map), #how.points, points_of("point", how.points),
    points_of("move", how.moves), named.whole("warp", "height", h, 1), named.whole("warp", "width", w, 1),
    named.choice("warp", "filter", filter, filters), named.choice("warp", "border", how.border, borders)))
  return viewed(wrap(p[0]), result_shape(h, w))
end

--- Changes saturation and value (HSV, 0-1) of pictures: v becomes gain v^gamma + offset, clamped; hue stays.
-- @tparam Tensor t u8 (...,3)
-- @tparam table light gain, gamma, offset of saturation, then of value: {1, 1, 0, 1, 1, 0} changes nothing
function augment.relight(t, light)
  for i = 1, 6 do
    if type(light) ~= "table" or type(light[i]) ~= "number" then
      raise("relight: expects six numbers: gain, gamma and offset of saturation, then of value")
    end
  end
  local p = out()
  check(C.pn_relight(p, ptr(t, "relight"), ffi.new("double [6]", light)))
  return wrap(p[0])
end

--- Fills a hole in a picture: smooth colours from around it, and texture copied from its neighbourhood.
-- @tparam Tensor picture u8 (H,W,3)
-- @tparam Tensor hole u8 (H,W), any value but 0
-- @tparam ?table how grain = 1: strength of the texture, 0-4; seed = 0
function augment.inpaint(picture, hole, how)
  how = named("inpaint", how, { grain = 1, seed = 0 })
  local p = out()
  check(C.pn_inpaint(p, ptr(picture, "inpaint"), ptr(hole, "inpaint"), how.grain, named.whole("inpaint", "seed", how.seed, 0)))
  return wrap(p[0])
end

-- ---- draws ------------------------------------------------------------------------------------------------------------------

-- Of saturation, and of value.
augment.light_defaults = {
  gain = { 0.97, 1.03 },    -- another light: saturation and value (0-1) times this,
  gamma = { 0.8, 1.2 },     -- another light: after this power of them,
  offset = { -0.05, 0.05 }, -- another light: plus this
}

--- A change of light for augment.relight. Numbers of the release of Lucid Data Dreaming (METHOD 7) by default.
function augment.light(rng, how)
  how = named("light", how, augment.light_defaults)
  local light = {}
  for k = 0, 3, 3 do
    for i, name in ipairs { "gain", "gamma", "offset" } do
      local r = range("light", name, how[name])
      light[k + i] = rng:uniform(r[1], r[2])
    end
  end
  return light
end

local function size_of(what, size)
  local h, w
  if type(size) == "table" then
    h, w = size[1], size[2]
  else
    h, w = size, size
  end
  return named.whole(what, "size", h, 1), named.whole(what, "size", w, 1)
end

--- The crop rule: a window of the mask of the first frame, drawn until more than min_share of it is object; after `tries`
-- draws the fullest window there is. The same window then serves all frames.
-- @param rng a random stream
-- @tparam Tensor mask u8 (H,W); any value but 0 is object
-- @tparam ?table how size = 224 (a number or {height, width}); min_share = 0.1; tries = 100; uniform = 0: probability of a
--   window drawn without a condition; background = 0: probability of the emptiest of 8 windows
-- @treturn table {top, left, height, width} from 1; share: of its pixels, object; rule: "object", "uniform" or "background";
--   tries: draws made; accepted: the rule is met; fallback: it is the fullest window
function augment.crop(rng, mask, how)
  how = named("crop", how, { size = named.optional, min_share = 0.1, tries = 100, uniform = 0, background = 0 })
  local h, w = size_of("crop", how.size or 224)
  named.whole("crop", "tries", how.tries, 1)
  if type(how.min_share) ~= "number" or how.min_share < 0 or how.min_share >= 1 then
    raise("crop: min_share is %s, expects 0 to less than 1", tostring(how.min_share))
  end
  if share("crop", "uniform", how.uniform) + share("crop", "background", how.background) > 1 then
    raise("crop: uniform and background are probabilities that add up to more than 1")
  end
  ptr(mask, "crop")
  local H, W = mask:size(1), mask:size(2)
  if h > H or w > W then
    raise("crop: a window of %d x %d (height x width) does not fit a frame of %d x %d", h, w, H, W)
  end
  local function drawn()
    local window = { rng:integer(1, H - h + 1), rng:integer(1, W - w + 1), h, w }
    window.share = image.fraction(mask, window)
    return window
  end
  local fate = rng:uniform()
  local window
  if fate < how.uniform then
    window = drawn()
    window.rule, window.tries = "uniform", 1
  elseif fate < how.uniform + how.background then
    for _ = 1, 8 do
      local other = drawn()
      if not window or other.share < window.share then
        window = other
      end
    end
    window.rule, window.tries = "background", 8
  else
    for try = 1, how.tries do
      window = drawn()
      window.tries = try
      if window.share > how.min_share then
        break
      end
    end
    if window.share <= how.min_share then
      local best = image.windows(mask, { h, w, threshold = how.min_share })
      window = { best.top, best.left, h, w, share = best.best, tries = how.tries, fallback = true }
    end
    window.rule = "object"
  end
  window.accepted = window.share > how.min_share
  window.fallback = window.fallback or false
  return window
end

augment.whole_defaults = {
  flip = 0.5, rotate = 0.5, degrees = 15, resize = 0.5, scale = { 0.8, 1.25 }, shrink = 0,
}

--- A change of the whole picture: flip, turn and scale. The canvas is the picture scaled, and never smaller than the window.
-- @param rng a random stream
-- @tparam int height of the picture
-- @tparam int width
-- @tparam table size {height, width} of the window that will be cut; nil: the canvas has the size of the picture
-- @tparam ?table how flip = 0.5: probability; rotate = 0.5: probability of a turn by up to degrees = 15; resize = 0.5:
--   probability of a scaling by scale = {0.8, 1.25}; shrink = 0: probability of a scaling between the smallest at which the
--   window is still filled and 1
-- @treturn table map (source -> canvas), height, width (of the canvas), flip, degrees, scale
function augment.whole(rng, height, width, size, how)
  how = named("whole", how, augment.whole_defaults)
  local r = range("whole", "scale", how.scale)
  if r[1] <= 0 then
    raise("whole: scale must be above 0")
  end
  local flip, turn = rng:coin(share("whole", "flip", how.flip)), rng:coin(share("whole", "rotate", how.rotate))
  local resize, shrink = rng:coin(share("whole", "resize", how.resize)), rng:coin(share("whole", "shrink", how.shrink))
  local degrees, scale = rng:uniform(-how.degrees, how.degrees), math.exp(rng:uniform(math.log(r[1]), math.log(r[2])))
  local low = size and math.min(1, math.max(size[1] / height, size[2] / width)) or r[1]
  local small = rng:uniform(low, math.max(low, 1))
  degrees = turn and degrees or 0
  scale = shrink and small or resize and scale or 1
  local h, w = height, width
  if size then
    h, w = math.max(size[1], math.floor(height * scale + 0.5)), math.max(size[2], math.floor(width * scale + 0.5))
  end
  local map = affine.pose(degrees, scale, { (width - 1) / 2, (height - 1) / 2 }, { (w - 1) / 2, (h - 1) / 2 })
  if flip then
    map = affine.after(affine.mirror(w), map)
  end
  return { map = map, height = h, width = w, flip = flip, degrees = degrees, scale = scale }
end

-- How much coarser the mask is on which windows are chosen: a window need not be judged to the pixel.
local COARSE = 4

--- A window of a canvas by the crop rule, judged on a coarse picture of the first mask.
-- @param rng a random stream
-- @tparam table whole what augment.whole returned
-- @tparam table size {height, width} of the window
-- @tparam ?table how as for augment.crop, without size
-- @tparam function coarse_mask (map, height, width) -> mask u8 (height, width), where map leads from its pixels to the canvas
-- @treturn table as augment.crop, in pixels of the canvas; share is that of the coarse window
function augment.window(rng, whole, size, how, coarse_mask)
  local k = COARSE
  local ch, cw = math.ceil(size[1] / k), math.ceil(size[2] / k)
  local H, W = math.max(ch, math.floor(whole.height / k)), math.max(cw, math.floor(whole.width / k))
  local mask = coarse_mask({ k, 0, (k - 1) / 2, 0, k, (k - 1) / 2 }, H, W)
  local options = {}
  for key, value in pairs(how or {}) do
    options[key] = value
  end
  options.size = { ch, cw }
  local window = augment.crop(rng, mask, options)
  for axis = 1, 2 do
    local canvas = axis == 1 and whole.height or whole.width
    local at = (window[axis] - 1) * k + rng:integer(0, k - 1)
    window[axis], window[axis + 2] = math.min(at, canvas - size[axis]) + 1, size[axis]
  end
  return window
end

-- ---- a clip --------------------------------------------------------------------------------------------------------------------

augment.defaults = {
  reverse = 0.5, light = 0.5, lights = augment.light_defaults, whole = augment.whole_defaults,
  crop = { size = named.optional, min_share = 0.1, tries = 100, uniform = 0, background = 0 },
}

--- Draws the augmentation of one clip.
-- @param rng a random stream; the same stream gives the same draw
-- @tparam Tensor masks u8 (T,H,W) of the clip: the crop rule looks at the first (after reversal)
-- @tparam ?table how reverse = 0.5: probability of time running backwards; light = 0.5: probability of another light, drawn
--   by lights (augment.light); whole: augment.whole; crop: augment.crop, or false for whole frames
-- @treturn table params: reverse, light (six numbers or nil), whole, window, map (output pixel -> source pixel), height, width
function augment.draw(rng, masks, how)
  how = how or {}
  local crop = how.crop
  if crop == false then
    local copy = {}
    for key, value in pairs(how) do
      copy[key] = value
    end
    copy.crop = nil
    how = copy
  end
  how = named("augment", how, augment.defaults)
  ptr(masks, "augment")
  if masks:dims() ~= 3 then
    raise("augment: masks must be (T,H,W), have %d axes", masks:dims())
  end
  local n, h, w = masks:size(1), masks:size(2), masks:size(3)
  local params = { reverse = rng:coin(share("augment", "reverse", how.reverse)) }
  local lit, light = rng:coin(share("augment", "light", how.light)), augment.light(rng, how.lights)
  params.light = lit and light or nil
  local size, rule
  if crop ~= false then
    rule = named("crop", how.crop, augment.defaults.crop)
    local ch, cw = size_of("crop", rule.size or 224)
    size = { ch, cw }
  end
  local whole = augment.whole(rng, h, w, size, how.whole)
  params.whole = whole
  local back = affine.invert(whole.map)
  if not size then
    params.map, params.height, params.width = back, h, w
    return params
  end
  rule.size = nil
  params.window = augment.window(rng, whole, size, rule, function(map, height, width)
    local first = image.frame(masks, params.reverse and n or 1)
    return augment.warp(first, { map = affine.after(back, map), height = height, width = width })
  end)
  params.map = affine.after(back, affine.shift(params.window[2] - 1, params.window[1] - 1))
  params.height, params.width = size[1], size[2]
  return params
end

-- The pictures in reverse order, in new memory.
local function reversed(t)
  local n = t:size(1)
  local back, bytes = tensor.empty_like(t:contiguous()), t:count() / n
  local from, to = t:contiguous(), back:data()
  local p = from:data()
  for i = 0, n - 1 do
    ffi.copy(to + i * bytes, p + (n - 1 - i) * bytes, bytes)
  end
  return back
end

--- Applies a draw to all frames and masks of a clip.
-- @tparam table params what augment.draw returned
-- @tparam Tensor frames u8 (T,H,W,3)
-- @tparam ?Tensor masks u8 (T,H,W)
-- @treturn Tensor frames u8 (T,h,w,3)
-- @treturn ?Tensor masks u8 (T,h,w)
function augment.apply(params, frames, masks)
  local where = { map = params.map, height = params.height, width = params.width }
  frames = augment.warp(frames, where)
  if params.light then
    frames = augment.relight(frames, params.light)
  end
  where.masks = true
  masks = masks and augment.warp(masks, where)
  if params.reverse then
    frames, masks = reversed(frames), masks and reversed(masks)
  end
  return frames, masks
end

return augment
