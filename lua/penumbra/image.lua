--- Images, masks and clips of frames: reading, writing, sizes, shapes, pictures.
--
-- An image is a u8 tensor (H,W,C), values 0-255; frames are (T,H,W,C); a mask is u8 (H,W) of object numbers, 0 the background;
-- masks are (T,H,W). Rows and columns count from 1. Every function returns a new tensor and leaves its arguments alone.
--
--     local frame = pn.image.read "00000.jpg"
--     local mask  = pn.image.read_mask "00000.png"
--     pn.image.write("look.png", pn.image.overlay(frame, mask))

local ffi = require "ffi"
local lfs = require "lfs"
local binding = require "penumbra.ffi"
local named = require "penumbra.base.named"
local natural = require "penumbra.base.natural"
local raise = require "penumbra.base.raise"

local C, check, out, wrap, ptr = binding.C, binding.check, binding.out, binding.wrap, binding.ptr

local image = {}

local path_list = ffi.typeof "const char *[?]"
local sizes = ffi.typeof "int64_t [?]"

local function made(fn, ...)
  local p = out()
  check(fn(p, ...))
  return wrap(p[0])
end

-- ---- files ------------------------------------------------------------------------------------------------------------

--- The picture files of a directory, sorted by name, where digits count as numbers: f2 before f10.
-- @tparam string directory
-- @tparam ?string extension "jpg" or "png"; both when not given
-- @treturn {string} paths
-- @treturn {string} names without directory and extension
function image.files(directory, extension)
  named.text("files", directory)
  if lfs.attributes(directory, "mode") ~= "directory" then
    raise("%s: no such directory", directory)
  end
  local files = {}
  for file in lfs.dir(directory) do
    local name, kind = file:match("^([^.].*)%.(%w+)$")
    kind = kind and kind:lower():gsub("^jpeg$", "jpg")
    if kind and (kind == extension or not extension and (kind == "jpg" or kind == "png")) then
      files[#files + 1] = { file = file, name = name }
    end
  end
  natural.sort(files, function(entry)
    return entry.name, entry.file
  end)
  local paths, names = {}, {}
  for i, entry in ipairs(files) do
    paths[i], names[i] = directory .. "/" .. entry.file, entry.name
  end
  return paths, names
end

local function paths_of(what, paths)
  if type(paths) ~= "table" or #paths == 0 then
    raise("%s: expects a list of at least one path, got %s", what, type(paths) == "table" and "an empty one" or type(paths))
  end
  local list = path_list(#paths)
  for i, path in ipairs(paths) do
    list[i - 1] = named.text(what, path)
  end
  return list, #paths
end

--- Reads a JPEG or PNG.
-- @tparam string path
-- @tparam ?table how channels = 3 (default), 1 (luma), 4, or 0 (as stored)
-- @treturn Tensor u8 (H,W,C)
function image.read(path, how)
  return made(C.pn_image_read, named.text("read", path), named("read", how, { channels = 3 }).channels)
end

--- Reads frames of one size, by all threads.
-- @tparam {string} paths
-- @tparam ?table how channels = 3 (default), 1 or 4
-- @treturn Tensor u8 (T,H,W,C)
function image.read_frames(paths, how)
  local list, n = paths_of("read_frames", paths)
  return made(C.pn_frames_read, list, n, named("read_frames", how, { channels = 3 }).channels)
end

--- Reads a mask from a PNG: palette indices are object numbers; grey values too, but 0/255 becomes 0/1; in colour, all but
-- black is 1.
-- @treturn Tensor u8 (H,W)
function image.read_mask(path)
  return made(C.pn_mask_read, named.text("read_mask", path))
end

--- Reads masks of one size, by all threads.
-- @treturn Tensor u8 (T,H,W)
function image.read_masks(paths)
  local list, n = paths_of("read_masks", paths)
  return made(C.pn_masks_read, list, n)
end

--- Height, width and channels of a file, from its header.
function image.size(path)
  local size = sizes(3)
  check(C.pn_image_size(named.text("size", path), size))
  return tonumber(size[0]), tonumber(size[1]), tonumber(size[2])
end

local ends = { ["\255\216"] = "\255\217", ["\137P"] = "IEND" } -- of JPEG and PNG, by how they begin

--- Fails where a JPEG or PNG is cut off: where it lacks its end marker. Reads its first bytes and its last ones alone, unless more
-- follows the marker.
-- @tparam string path
function image.check_end(path)
  local mode = lfs.attributes(named.text("check_end", path), "mode")
  if mode and mode ~= "file" then -- a pipe would wait for its writer
    raise("%s: is a %s, not a file", path, mode)
  end
  local file, problem = io.open(path, "rb")
  if not file then
    raise("cannot read %s", problem)
  end
  local marker = ends[file:read(2) or ""]
  if marker then
    local size = file:seek "end"
    file:seek("set", math.max(0, size - 12)) -- as long as the last chunk of a PNG
    local found = (file:read "*a" or ""):find(marker, 1, true)
    if not found then
      file:seek "set"
      found = (file:read "*a" or ""):find(marker, 1, true)
    end
    problem = not found and ("%s: the file is cut off (%d bytes, no end marker)"):format(path, size)
  else
    problem = path .. ": neither a JPEG nor a PNG"
  end
  file:close()
  if problem then
    raise("%s", problem)
  end
end

-- The ending of a picture's name: "png", where there is none too, or "jpg".
local function kind_of(what, path)
  local kind = named.text(what, path):match "%.(%w+)$" or "png"
  kind = kind:lower():gsub("^jpeg$", "jpg")
  if kind ~= "png" and kind ~= "jpg" then
    raise("%s: %s: pictures are written as .png or .jpg", what, path)
  end
  return kind
end

--- Writes a PNG, or a JPEG where the name ends so; what stood at the path stays whole until the new file is complete.
-- @tparam string path
-- @tparam Tensor picture u8 (H,W,1|3|4), or a mask (H,W); a JPEG has 1 or 3 channels
-- @tparam ?table how palette: a mask is written with the DAVIS palette (default for masks) or as grey values (false); quality of a
--   JPEG: 1 to 100 (95)
function image.write(path, picture, how)
  how = named("write", how, { palette = named.optional, quality = 95 })
  if kind_of("write", path) == "jpg" then
    if ptr(picture, "write") ~= nil and picture:dims() == 2 then
      raise("write: %s: a mask would not keep its values in a JPEG; a PNG does", path)
    end
    return check(C.pn_jpeg_write(path, ptr(picture, "write"), named.whole("write", "quality", how.quality, 1, 100)))
  end
  local palette = how.palette
  if palette == nil then
    palette = ptr(picture, "write") ~= nil and picture:dims() == 2
  end
  check(C.pn_png_write(path, ptr(picture, "write"), palette and true or false))
end

--- Writes frames (T,H,W,C) or masks (T,H,W) as PNGs, by all threads; otherwise as `write`.
-- @tparam {string} paths one for each
function image.write_frames(paths, pictures, how)
  local list, n = paths_of("write_frames", paths)
  for _, path in ipairs(paths) do
    if kind_of("write_frames", path) ~= "png" then raise("write_frames: %s: writes PNGs alone", path) end
  end
  local palette = named("write_frames", how, { palette = named.optional }).palette
  if palette == nil then
    palette = ptr(pictures, "write_frames") ~= nil and pictures:dims() == 3
  end
  check(C.pn_frames_write(list, n, ptr(pictures, "write_frames"), palette and true or false))
end

--- Red, green and blue (0-255) of an object number in the DAVIS palette.
function image.davis_colour(object)
  local rgb = ffi.new "uint8_t [3]"
  C.pn_davis_colour(named.whole("davis_colour", "object", object, 0, 255), rgb)
  return rgb[0], rgb[1], rgb[2]
end

-- ---- size and place -----------------------------------------------------------------------------------------------------

local filters = { area = C.PN_AREA, bilinear = C.PN_BILINEAR, nearest = C.PN_NEAREST }

--- To another size: `image.resize(frame, { 240, 427 })` (height, width).
-- @tparam Tensor picture u8 or real: mask (H,W), image (H,W,C), frames (T,H,W,C), or masks (T,H,W) with masks = true
-- @tparam table how { height, width, filter =, masks = }; filter "area" (default), "bilinear" or "nearest" (default for masks)
function image.resize(picture, how)
  local named_how = named("resize", how, { filter = named.optional, masks = false })
  local masks = named_how.masks or ptr(picture, "resize") ~= nil and picture:dims() == 2
  local filter = named.choice("resize", "filter", named_how.filter or (masks and "nearest" or "area"), filters)
  local height = named.whole("resize", "height", how and how[1], 1)
  return made(C.pn_image_resize, ptr(picture), height, named.whole("resize", "width", how[2], 1), filter, named_how.masks)
end

-- The axis of the rows.
local function row_axis(picture, masks)
  local n = picture:dims()
  return (n == 4 or n == 3 and masks) and 2 or 1
end

--- A window: `image.crop(frame, { top, left, height, width })`; the first row and column are 1. Dense, in its own memory.
function image.crop(picture, how)
  local masks = named("crop", how, { masks = false }).masks
  local p, shape = ptr(picture, "crop"), picture:shape()
  if #shape < 2 or #shape > 4 then
    raise("crop: expects a mask (H,W), an image (H,W,C) or frames (T,H,W,C), got %d axes", #shape)
  end
  local axis = row_axis(picture, masks)
  local h, w = shape[axis], shape[axis + 1]
  local height, width = named.whole("crop", "height", how[3], 1, h), named.whole("crop", "width", how[4], 1, w)
  local top = named.whole("crop", "top", how[1], 1, h - height + 1)
  local left = named.whole("crop", "left", how[2], 1, w - width + 1)
  local offset = (top - 1) * picture:stride(axis) + (left - 1) * picture:stride(axis + 1)
  local stride = sizes(#shape)
  for i = 1, #shape do
    stride[i - 1] = picture:stride(i)
  end
  shape[axis], shape[axis + 1] = height, width
  local view = made(C.pn_tensor_view, p, #shape, sizes(#shape, shape), stride, offset)
  local window = view:clone()
  view:free()
  return window
end

--- One of frames (T,H,W,C) or masks (T,H,W), sharing their memory.
function image.frame(frames, index)
  local p, shape = ptr(frames, "frame"), frames:shape()
  if #shape < 3 then
    raise("frame: expects frames (T,H,W,C) or masks (T,H,W), got %d axes", #shape)
  end
  named.whole("frame", "index", index, 1, shape[1])
  local n = #shape - 1
  local size, stride = sizes(n), sizes(n)
  for i = 1, n do
    size[i - 1], stride[i - 1] = shape[i + 1], frames:stride(i + 1)
  end
  return made(C.pn_tensor_view, p, n, size, stride, (index - 1) * frames:stride(1))
end

--- Mirrored: left to right, or top to bottom with vertical = true. masks = true for (T,H,W).
function image.flip(picture, how)
  how = named("flip", how, { vertical = false, masks = false })
  return made(C.pn_image_flip, ptr(picture, "flip"), how.vertical, how.masks)
end

-- ---- clips: what networks read --------------------------------------------------------------------------------------------

local pixel_rules = { rgb_pm1 = C.PN_RGB_PM1, bgr_01 = C.PN_BGR_01 }
--- The rules by which a network may want its pixels, by name.
image.pixel_rules = pixel_rules

--- Frames u8 (T,H,W,3), one (H,W,3), or clips of them (N,T,H,W,3), to what a network reads: real (N,3,T,H,W), channels-last, on the
-- device of the frames.
-- @tparam Tensor frames
-- @tparam ?string rule "rgb_pm1" (default; [-1,1], what I3D's weights expect) or "bgr_01" ([0,1], blue first)
function image.to_clip(frames, rule)
  ptr(frames, "to_clip")
  named.choice("to_clip", "pixel rule", rule or "rgb_pm1", pixel_rules)
  return require("penumbra.ops").frames_to_clip(frames, { rule = rule })
end

--- A clip back to frames u8 (T,H,W,3), rounded and clamped to 0-255.
function image.from_clip(clip, rule)
  return made(C.pn_clip_to_frames, ptr(clip, "from_clip"), named.choice("from_clip", "pixel rule", rule or "rgb_pm1", pixel_rules))
end

--- Masks u8 (T,H,W), or one (H,W), to real (1,1,T,H,W): 1 where any object is.
function image.masks_to_clip(masks)
  return made(C.pn_masks_to_clip, ptr(masks, "masks_to_clip"))
end

--- Logits or probabilities (1,1,T,H,W) to masks u8 (T,H,W): 1 where the value is above the threshold (0 by default).
function image.clip_to_masks(clip, threshold)
  return made(C.pn_clip_to_masks, ptr(clip, "clip_to_masks"), threshold or 0)
end

--- Values that follow the edges of a picture: the guided filter (He, Sun & Tang, "Guided Image Filtering", 2013).
-- @tparam Tensor values f32 (H,W), such as a probability that was interpolated
-- @tparam Tensor guide u8 (H,W,3)
-- @tparam ?table how radius = 8, pixels, of the windows; eps = 1e-3: edges weaker than its root, in colours of 0-1, are smoothed
--   over
-- @treturn Tensor f32 (H,W); may go a little beyond the range of the values
function image.guided(values, guide, how)
  how = named("guided", how, { radius = 8, eps = 1e-3 })
  local radius = named.whole("guided", "radius", how.radius, 1)
  return made(C.pn_guided_filter, ptr(values, "guided: values"), ptr(guide, "guided: guide"), radius, how.eps)
end

-- ---- masks as shapes --------------------------------------------------------------------------------------------------------

--- Grown by a disk of that radius in pixels. A mask (H,W) or masks (T,H,W); 0 or 1.
function image.dilate(mask, radius)
  return made(C.pn_mask_dilate, ptr(mask, "dilate"), named.whole("dilate", "radius", radius, 0))
end

--- Shrunk by a disk of that radius; the border of the image does not eat.
function image.erode(mask, radius)
  return made(C.pn_mask_erode, ptr(mask, "erode"), named.whole("erode", "radius", radius, 0))
end

--- The boundary map of the DAVIS measures: 1 where a pixel differs from its east, south or south-east neighbour.
function image.boundary(mask)
  return made(C.pn_mask_boundary, ptr(mask, "boundary"))
end

--- The 8-connected parts of a mask (H,W): labels i32 (H,W), 1 the largest, and their number.
function image.components(mask)
  local labels, n = out(), sizes(1)
  check(C.pn_mask_components(labels, n, ptr(mask, "components")))
  return wrap(labels[0]), tonumber(n[0])
end

--- The largest part alone; of masks (T,H,W), in each frame.
function image.largest(mask)
  return made(C.pn_mask_largest, ptr(mask, "largest"))
end

--- 1 where a mask (H,W) or masks (T,H,W) hold that object number, 0 elsewhere; without a number: where any object is.
function image.select(mask, object)
  local number = object == nil and -1 or named.whole("select", "object", object, 0, 255)
  return made(C.pn_mask_select, ptr(mask, "select"), number)
end

--- The object numbers of a mask, in order; none where it is empty.
-- @treturn {int}
function image.objects(mask)
  local seen, list = {}, {}
  local dense = ptr(mask, "objects") ~= nil and mask:contiguous()
  local p = dense:data()
  for k = 0, mask:count() - 1 do
    seen[p[k]] = true
  end
  for object = 1, 255 do
    if seen[object] then
      list[#list + 1] = object
    end
  end
  return list
end

--- The smallest window that holds the object: { top, left, height, width, area = pixels }; nil when the mask is empty.
function image.box(mask)
  local box, area = sizes(4), sizes(1)
  check(C.pn_mask_box(ptr(mask, "box"), box, area))
  if area[0] == 0 then
    return nil
  end
  local top, left = tonumber(box[0]), tonumber(box[1])
  return { top + 1, left + 1, tonumber(box[2]) - top, tonumber(box[3]) - left, area = tonumber(area[0]) }
end

--- All windows of a size over a mask: `image.windows(mask, { 224, 224, threshold = 0.1 })`.
-- @treturn table best: the largest filled share; top, left: where; share: of the positions whose filled share > threshold
function image.windows(mask, how)
  local threshold = named("windows", how, { threshold = 0.1 }).threshold
  local found = ffi.new "pn_windows"
  local height = named.whole("windows", "height", how and how[1], 1)
  check(C.pn_mask_windows(found, ptr(mask, "windows"), height, named.whole("windows", "width", how[2], 1), threshold))
  return { best = found.best, share = found.share, top = tonumber(found.top) + 1, left = tonumber(found.left) + 1 }
end

--- The filled share of one window { top, left, height, width }; the first row and column are 1.
function image.fraction(mask, window)
  local value = ffi.new "double [1]"
  local numbers = {}
  for i, name in ipairs { "top", "left", "height", "width" } do
    numbers[i] = named.whole("fraction", name, window and window[i], 1)
  end
  check(C.pn_mask_fraction(value, ptr(mask, "fraction"), numbers[1] - 1, numbers[2] - 1, numbers[3], numbers[4]))
  return value[0]
end

-- ---- pictures -----------------------------------------------------------------------------------------------------------------

--- The objects of a mask over an image: filled and outlined, a bright colour for each.
-- @tparam Tensor picture u8 (H,W,3)
-- @tparam Tensor mask u8 (H,W)
-- @tparam ?table how alpha = 0.45 strength of the fill (0-1), thickness = 2 pixels of outline
function image.overlay(picture, mask, how)
  how = named("overlay", how, { alpha = 0.45, thickness = 2 })
  named.whole("overlay", "thickness", how.thickness, 0)
  return made(C.pn_overlay, ptr(picture, "overlay"), ptr(mask, "overlay"), how.alpha, how.thickness)
end

--- Many images on one white sheet.
-- @tparam {Tensor} images u8 (H,W,1|3) each, any sizes
-- @tparam ?table how captions: a list of strings; columns (default: about square); gap = 8 pixels
-- @treturn Tensor u8 (H,W,3)
function image.sheet(images, how)
  if type(images) ~= "table" or #images == 0 then
    raise("sheet: expects a list of at least one image")
  end
  how = named("sheet", how, { captions = {}, columns = math.ceil(math.sqrt(#images)), gap = 8 })
  local n = #images
  local list, captions = ffi.new("pn_tensor *[?]", n), path_list(n)
  for i = 1, n do
    local caption = how.captions[i]
    list[i - 1] = ptr(images[i], "sheet")
    captions[i - 1] = caption ~= nil and named.text("sheet: captions", caption, "texts") or nil
  end
  return made(C.pn_contact_sheet, list, captions, n, named.whole("sheet", "columns", how.columns, 1),
    named.whole("sheet", "gap", how.gap, 0))
end

return image
