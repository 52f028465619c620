-- Data: DAVIS trees in every layout, plain folders, the painted tree, training clips; and what is said when they are broken.
-- All small trees are written here, by our own writers; the real one is read where it stands beside the tree.

local ffi = require "ffi"
local lfs = require "lfs"
local pn = require "penumbra"
local files = require "penumbra.base.files"
local helper = require "spec.helper"

local data, image = pn.data, pn.image

local root
local function fresh()
  root = files.scratch()
  return root
end

local remove = files.remove

local function make(path)
  local at = root
  for part in path:gmatch("[^/]+") do
    at = at .. "/" .. part
    lfs.mkdir(at)
  end
  return at
end

local function save(path, text)
  local file = assert(io.open(root .. "/" .. path, "wb"))
  file:write(text)
  file:close()
end

local function load(path)
  local file = assert(io.open(root .. "/" .. path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

-- A frame whose every pixel is its number, and a mask with one rectangle of an id.
local function frame_of(number, h, w)
  return pn.full { h or 8, w or 12, 3, dtype = "u8", value = number }
end

local function mask_of(ids, h, w)
  local mask = pn.zeros { h or 8, w or 12, dtype = "u8" }
  for k, id in ipairs(ids) do
    for y = 2, 4 do
      mask:set(id, y, 3 * k - 1)
      mask:set(id, y, 3 * k)
    end
  end
  return mask
end

local function tree(name, n, ids, how)
  make("JPEGImages/480p/" .. name)
  make("Annotations/480p/" .. name)
  for i = 0, n - 1 do
    image.write(("%s/JPEGImages/480p/%s/%05d.png"):format(root, name, i), frame_of(i))
    image.write(("%s/Annotations/480p/%s/%05d.png"):format(root, name, i), mask_of(ids), how)
  end
end

before_each(fresh)
after_each(function() remove(root) end)

describe("a DAVIS tree", function()
  it("is read: frames, masks, names, any span of them", function()
    tree("walk", 5, { 1 })
    local clip = data.davis(root .. "/"):sequence "walk"
    assert.same({ "walk", 5, 8, 12 }, { clip.name, clip.n_frames, clip.height, clip.width })
    helper.assert_shape(clip:frame(3), 8, 12, 3)
    assert.equal(2, clip:frame(3):get(1, 1, 1))
    assert.equal("00004", clip:frame_name(5))
    helper.assert_shape(clip:frames(2, 3), 3, 8, 12, 3)
    local some = clip:frames(2, 3)
    assert.same({ 1, 2, 3 }, { some:get(1, 1, 1, 1), some:get(2, 8, 12, 3), some:get(3, 1, 1, 2) })
    helper.assert_shape(clip:frames(), 5, 8, 12, 3)
    helper.assert_shape(clip:masks(4), 2, 8, 12)
    assert.equal(1, clip:mask(1):get(2, 2))
    assert.equal(0, clip:mask(1):get(1, 1))
    local frames, masks = clip:gather { 5, 1, 1 }
    assert.same({ 4, 0, 0 }, { frames:get(1, 1, 1, 1), frames:get(2, 1, 1, 1), frames:get(3, 1, 1, 1) })
    helper.assert_shape(masks, 3, 8, 12)
    assert.equal("walk: 5 frames of 8 x 12 (height x width), 5 masks", tostring(clip))
    local frame_path, mask_path = clip:paths(2)
    assert.truthy(frame_path:find("JPEGImages/480p/walk/00001.png", 1, true))
    assert.truthy(mask_path:find("Annotations/480p/walk/00001.png", 1, true))
  end)

  it("has its sets in either format, in their order", function()
    tree("walk", 1, { 1 })
    tree("amble", 1, { 1 })
    make "ImageSets/480p"
    make "ImageSets/2016"
    make "ImageSets/2017"
    save("ImageSets/480p/train.txt", "/JPEGImages/480p/walk/00000.jpg /Annotations/480p/walk/00000.png \n"
      .. "/JPEGImages/480p/walk/00001.jpg /Annotations/480p/walk/00001.png\r\n"
      .. "/JPEGImages/480p/amble/00000.jpg /Annotations/480p/amble/00000.png\n")
    save("ImageSets/2016/val.txt", "walk\n\namble\n")
    save("ImageSets/2017/val.txt", "amble\r\n")
    local set = data.davis(root)
    assert.same({ "walk", "amble" }, set:sequences "train")
    assert.same({ "walk", "amble" }, set:sequences "val")
    assert.same({ "amble" }, set:sequences "2017/val")
    assert.same({ "amble", "walk" }, set:sequences())
    assert.same({ "train", "val" }, set:sets())
  end)

  it("gives any object as one, one of them, or all by number", function()
    tree("pair", 2, { 1, 2 })
    local set = data.davis(root)
    local function at(clip)
      return { clip:mask(2):get(2, 2), clip:mask(2):get(2, 5), clip:mask(2):get(1, 1) }
    end
    assert.same({ 1, 1, 0 }, at(set:sequence "pair"))
    assert.same({ 0, 1, 0 }, at(set:sequence("pair", { object = 2 })))
    assert.same({ 1, 2, 0 }, at(set:sequence("pair", { object = "all" })))
    assert.same({ 1, 0, 0 }, at(data.davis(root, { object = 1 }):sequence "pair"))
  end)

  it("reads masks of 2016 (0/255) as 2017's (palette)", function()
    tree("old", 1, { 255 }, { palette = false })
    assert.equal(1, data.davis(root):sequence("old"):mask(1):get(2, 2))
  end)

  it("may be one frame long, and lack masks", function()
    tree("still", 1, { 1 })
    local clip = data.davis(root):sequence "still"
    assert.equal(1, clip.n_frames)
    helper.assert_shape(clip:frames(), 1, 8, 12, 3)
    os.remove(root .. "/Annotations/480p/still/00000.png")
    clip = data.davis(root):sequence "still"
    assert.is_false(clip:has_mask(1))
    helper.failure(function() clip:mask(1) end, "still: frame 1", "has no mask; expected", "Annotations/480p/still/00000.png")
  end)

  it("takes another resolution by name", function()
    tree("walk", 1, { 1 })
    make "JPEGImages/Full-Resolution/walk"
    image.write(root .. "/JPEGImages/Full-Resolution/walk/00000.png", frame_of(9, 20, 30))
    assert.equal(30, data.davis(root, { resolution = "Full-Resolution" }):sequence("walk").width)
    assert.equal(12, data.davis(root):sequence("walk").width)
    helper.failure(function() data.davis(root, { resolution = "480" }) end, "no resolution '480'", "did you mean '480p'")
  end)

  it("keeps what it decoded, within its bytes, and survives callers that free", function()
    tree("walk", 6, { 1 })
    local clip = data.davis(root, { cache_bytes = 8 * 12 * 3 * 3 }):sequence "walk" -- three frames fit
    local first = clip:frame(1)
    os.remove(root .. "/JPEGImages/480p/walk/00000.png")
    first:free()
    pn.scope(function() assert.equal(0, clip:frame(1):get(1, 1, 1)) end)
    assert.equal(0, clip:frame(1):get(1, 1, 1)) -- still there
    for i = 2, 6 do
      clip:frame(i)
    end
    helper.failure(function() clip:frame(1) end, "00000.png") -- out of the cache: read again, and gone
    assert.is_true(tonumber(pn.C.pn_cache_bytes()) <= 8 * 12 * 3 * 3)
  end)

  it("notices frames that changed their size since the clip was opened", function()
    tree("walk", 3, { 1 })
    local clip = data.davis(root):sequence "walk"
    for i = 1, 3 do
      image.write(clip:paths(i), frame_of(i, 4, 6))
    end
    helper.failure(function() clip:frames() end, "00000.png: is no longer 8 x 12 (height x width), as it was when")
    helper.failure(function() clip:frame(2) end, "00001.png: is no longer 8 x 12")
  end)

  it("says what is wrong", function()
    helper.failure(function() data.davis(root .. "/nowhere") end, "no such directory", "nowhere")
    helper.failure(function() data.davis(root) end, "is not a DAVIS tree", "JPEGImages/480p")
    helper.failure(function() data.davis() end, "expects the path of a DAVIS tree, got nothing")
    tree("walk", 3, { 1 })
    local set = data.davis(root)
    helper.failure(function() set:sequence "wlak" end, "has no sequence 'wlak'", "did you mean 'walk'")
    helper.failure(function() set:sequence "../480p/walk" end, "has no sequence")
    helper.failure(function() set:sequences "val" end, "no set 'val'", "there is no ImageSets")
    make "ImageSets/480p"
    save("ImageSets/480p/train.txt", "walk\n")
    save("ImageSets/480p/empty.txt", "\n")
    helper.failure(function() set:sequences "trian" end, "no set 'trian'", "did you mean 'train'", "known: empty, train")
    helper.failure(function() set:sequences "empty" end, "empty.txt lists no sequence")
    helper.failure(function() data.davis(root, { objekt = 1 }) end, "unknown option 'objekt'", "did you mean 'object'")
    helper.failure(function() data.davis(root, { object = "one" }) end, "object is 'one'", "1 to 255")
    helper.failure(function() data.davis(root, { object = 300 }) end, "object is 300", "from 1 to 255")
    local clip = set:sequence "walk"
    helper.failure(function() clip:frame(4) end, "walk: frame: frame is 4, expects a whole number from 1 to 3")
    helper.failure(function() clip:frames(2, 3) end, "walk: frames from frame 2", "from 1 to 2")
    make "JPEGImages/480p/hollow"
    helper.failure(function() set:sequence "hollow" end, "hollow holds no frame")
  end)

  it("names the frame that is missing", function()
    tree("walk", 5, { 1 })
    os.remove(root .. "/JPEGImages/480p/walk/00002.png")
    helper.failure(function() data.davis(root):sequence "walk" end, "JPEGImages/480p/walk: frame 00002 is missing", "00001.png",
      "00003.png")
    tree("run", 5, { 1 })
    os.remove(root .. "/JPEGImages/480p/run/00004.png") -- the last: only its mask tells
    helper.failure(function() data.davis(root):sequence "run" end, "run/00004.jpg is missing: there is a mask for it",
      "Annotations/480p/run/00004.png")
  end)

  it("counts its frames, whether they are written with zeros or not", function()
    make "JPEGImages/480p/walk"
    local function frame(i) return ("%s/JPEGImages/480p/walk/%d.png"):format(root, i) end
    for i = 7, 12 do
      image.write(frame(i), frame_of(i))
    end
    local clip = data.davis(root):sequence "walk"
    for i = 1, 6 do
      assert.equal(i + 6, clip:frame(i):get(1, 1, 1))
    end
    os.remove(frame(9))
    helper.failure(function() data.davis(root):sequence "walk" end, "frame 9 is missing: there is 8.png, then 10.png")
    os.remove(frame(10))
    os.remove(frame(8))
    helper.failure(function() data.davis(root):sequence "walk" end, "frame 8 is missing: there is 7.png, then 11.png")
  end)

  it("names files of another size, and both sizes", function()
    tree("walk", 3, { 1 })
    image.write(root .. "/Annotations/480p/walk/00001.png", mask_of({ 1 }, 8, 10))
    helper.failure(function() data.davis(root):sequence "walk" end, "a mask of another size",
      "Annotations/480p/walk/00001.png is 8 x 10 (height x width), its frame ", "JPEGImages/480p/walk/00001.png is 8 x 12")
    tree("run", 3, { 1 })
    image.write(root .. "/JPEGImages/480p/run/00002.png", frame_of(3, 6, 12))
    helper.failure(function() data.davis(root):sequence "run" end, "frames of mixed size",
      "run/00002.png is 6 x 12 (height x width), ",
      "run/00000.png is 8 x 12")
  end)

  it("says so when the first mask is empty, or lacks the object; a later one may be", function()
    tree("walk", 2, { 1 })
    image.write(root .. "/Annotations/480p/walk/00000.png", mask_of {})
    helper.failure(function() data.davis(root):sequence("walk"):mask(1) end, "Annotations/480p/walk/00000.png",
      "the mask of the first frame is empty")
    tree("run", 2, { 1, 3 })
    image.write(root .. "/Annotations/480p/run/00001.png", mask_of {})
    local clip = data.davis(root):sequence "run"
    assert.is_nil(image.box(clip:mask(2)))
    helper.failure(function() data.davis(root):sequence("run", { object = 2 }):mask(1) end,
      "object 2 is not in the mask of the first frame", "objects there: 1, 3")
  end)

  it("names a frame or a mask that is cut off when it is opened, and one that cannot be decoded", function()
    data.toy.write(root, { sequences = { "walk" }, frames = 2, height = 40, width = 56 })
    for _, path in ipairs { "Annotations/480p/walk/00001.png", "JPEGImages/480p/walk/00001.jpg" } do
      local whole = load(path)
      save(path, whole:sub(1, math.floor(#whole / 2)))
      helper.failure(function() data.davis(root):sequence "walk" end, path .. ": the file is cut off")
      save(path, whole)
    end
    local clip, whole = data.davis(root):sequence "walk", load "JPEGImages/480p/walk/00001.jpg"
    save("JPEGImages/480p/walk/00001.jpg", whole:sub(1, math.floor(#whole / 2)))
    helper.failure(function() clip:frame(2) end, "walk/00001.jpg")
    helper.failure(function() clip:frames() end, "walk/00001.jpg")
    save("JPEGImages/480p/walk/00001.jpg", "not a picture")
    helper.failure(function() data.davis(root):sequence "walk" end, "walk/00001.jpg")
  end)
end)

describe("a folder of frames", function()
  it("is a clip, with a mask for its first frame or masks by name", function()
    make "in"
    make "masks"
    for i, name in ipairs { "img_3", "img_4", "img_9" } do
      image.write(("%s/in/%s.png"):format(root, name), frame_of(i))
    end
    image.write(root .. "/masks/img_4.png", mask_of { 1 })
    image.write(root .. "/first.png", mask_of { 5 })
    local clip = data.folder(root .. "/in", { mask = root .. "/first.png" })
    assert.same({ "in", 3, "img_9" }, { clip.name, clip.n_frames, clip:frame_name(3) })
    assert.equal(1, clip:mask(1):get(2, 2))
    assert.is_false(clip:has_mask(2))
    clip = data.folder(root .. "/in/", { mask = root .. "/masks", name = "trip" })
    assert.same({ "trip", false, true }, { clip.name, clip:has_mask(1), clip:has_mask(2) })
    assert.is_false(data.folder(root .. "/in"):has_mask(1))
    image.write(root .. "/in/a_mask.png", mask_of { 1 })
    assert.equal(3, data.folder(root .. "/in", { mask = root .. "/in/a_mask.png" }).n_frames)
  end)

  it("is in the order of the numbers", function()
    make "in"
    for i = 1, 11, 2 do
      image.write(("%s/in/f%d.png"):format(root, i), frame_of(i))
    end
    local clip = data.folder(root .. "/in")
    for k = 1, 6 do
      assert.equal(2 * k - 1, clip:frame(k):get(1, 1, 1))
    end
    assert.equal("f11", clip:frame_name(6))
  end)

  it("says what is wrong", function()
    make "in"
    helper.failure(function() data.folder(root .. "/in") end, "in holds no frame (.jpg or .png)")
    helper.failure(function() data.folder(root .. "/out") end, "no such directory")
    helper.failure(function() data.folder(7) end, "expects the path of a folder of frames, got a number")
    image.write(root .. "/in/1.png", frame_of(1))
    helper.failure(function() data.folder(root .. "/in", { mask = "none.png" }) end, "no such mask: none.png")
    image.write(root .. "/m.png", mask_of({ 1 }, 8, 11))
    helper.failure(function() data.folder(root .. "/in", { mask = root .. "/m.png" }) end, "a mask of another size", "8 x 11",
      "8 x 12")
  end)
end)

describe("a clip of one's own", function()
  local function folder()
    make "holiday"
    for i = 1, 3 do
      image.write(("%s/holiday/%d.png"):format(root, i), frame_of(i))
    end
    image.write(root .. "/first.png", mask_of { 2, 5 })
    return root .. "/holiday/", root .. "/first.png"
  end

  it("is a folder of frames, with any or one object of its mask", function()
    local path, mask = folder()
    local clip = data.own(path, { mask = mask, quiet = true })
    assert.same({ "holiday", 3, true, false }, { clip.name, clip.n_frames, clip:has_mask(1), clip:has_mask(2) })
    assert.same({ 1, 1 }, { clip:mask(1):get(2, 2), clip:mask(1):get(2, 5) })
    clip = data.own(path, { mask = mask, object = 5 })
    assert.same({ 0, 1 }, { clip:mask(1):get(2, 2), clip:mask(1):get(2, 5) })
    assert.is_false(data.own(path):has_mask(1))
    assert.same({ "clip", "clip" }, { data.own(path .. ".").name, data.own(path .. "../holiday/./").name })
    lfs.link("holiday", root .. "/link", true)
    image.write(root .. "/holiday/0 mask.png", mask_of { 1 }) -- among its frames, by another path
    assert.equal(3, data.own(root .. "/link", { mask = root .. "/holiday/0 mask.png" }).n_frames)
  end)

  it("is a video, whose frames go when it does", function()
    if not pn.video.available() then return pending "ffmpeg is not installed" end
    folder()
    local path = pn.video.write { path = root .. "/my clip.v2.mp4", frames = root .. "/holiday" }
    local clip = data.own(path, { mask = root .. "/first.png", object = 2 })
    assert.same({ "my clip.v2", 3, 8, 12 }, { clip.name, clip.n_frames, clip.height, clip.width })
    assert.same({ "00002", 1, 0 }, { clip:frame_name(3), clip:mask(1):get(2, 2), clip:mask(1):get(2, 5) })
    local frames = clip:paths(1):match "^(.*)/[^/]+$"
    assert.is_true(files.exists(frames, "directory"))
    clip = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_false(files.exists(frames, "directory"))
  end)

  it("or a sequence is what the keys of a recipe name", function()
    local path, mask = folder()
    tree("pair", 2, { 1, 2 })
    local cfg = { davis = root, sequence = "pair", object = 2, video = "", quiet = true }
    local clip = data.clip(cfg)
    assert.same({ "pair", 2, 0, 1 }, { clip.name, clip.n_frames, clip:mask(2):get(2, 2), clip:mask(2):get(2, 5) })
    cfg.object = 0
    assert.equal(1, data.clip(cfg):mask(2):get(2, 2))
    cfg.video, cfg.mask = path, mask
    assert.equal("holiday", data.clip(cfg).name)
    cfg.object = 5
    assert.equal(0, data.clip(cfg):mask(1):get(2, 2))
  end)

  it("says what is wrong", function()
    local path, mask = folder()
    helper.failure(function() data.own() end, "own: expects the path of a video or of a folder of frames, got nothing")
    helper.failure(function() data.own(root .. "/none.mp4", { mask = mask }) end, "none.mp4: no such video, or folder of frames")
    helper.failure(function() data.own(path, { mask = root .. "/none.png" }) end, "mask: ", "none.png: no such file")
    helper.failure(function() data.own(path, { object = 2 }) end, "own: object is 2, but there is no mask that says where it is")
    helper.failure(function() data.own(path, { mask = mask, object = 300 }) end, "own: object is 300, expects a whole number")
    helper.failure(function() data.own(path, { mask = mask, object = 3 }) end, "first.png: object 3 is not in the mask",
      "objects there: 2, 5")
    image.write(mask, mask_of {})
    helper.failure(function() data.own(path, { mask = mask }) end, "first.png: the mask of the first frame is empty")
    image.write(mask, mask_of({ 1 }, 8, 10))
    helper.failure(function() data.own(path, { mask = mask }) end, "a mask of another size", "first.png is 8 x 10", "8 x 12")
    save("text.mp4", "not a video")
    helper.failure(function() data.own(root .. "/text.mp4") end,
      pn.video.available() and "text.mp4: cannot read the video" or "the program ffmpeg is not installed")
    helper.failure(function() data.clip { video = path, mask = "" } end, "clip: video=", "needs mask=FILE.png")
    helper.failure(function() data.clip { davis = root, sequence = "a", mask = mask } end, "first.png goes with video=")
    local keys = { davis = root, sequence = "a", video = pn.optional "a video", mask = pn.optional "its mask", object = 0 }
    local function cfg_of(...) return pn.config.resolve(keys, { "video=" .. path, "mask=" .. mask, ... }, { name = "x" }) end
    for _, cfg in ipairs { cfg_of "sequence=b", setmetatable({ object = "all" }, { __index = cfg_of "sequence=b" }) } do
      helper.failure(function() data.clip(cfg) end,
        ("clip: sequence=b and video=%s are two clips: give one of the two"):format(path))
    end
    helper.failure(function() data.clip(cfg_of()) end, "a mask of another size")
    tree("pair", 2, { 1, 2 })
    helper.failure(function() data.clip { davis = root, sequence = "pair", object = 3 } end, "object 3 is not in the mask",
      "objects there: 1, 2")
    helper.failure(function() data.clip { davis = root, sequence = "pair", object = -1 } end, "clip: object is -1")
  end)
end)

describe("the painted tree", function()
  local how = { sequences = { "walk", "stroll" }, frames = 6, height = 48, width = 80 }

  it("is a DAVIS tree with an object in every frame, and moves", function()
    data.toy.write(root, how)
    local set = data.davis(root)
    assert.same({ "walk", "stroll" }, set:sequences "val")
    assert.same({ "walk", "stroll" }, set:sequences "2016/val")
    local clip = set:sequence "walk"
    assert.same({ 6, 48, 80 }, { clip.n_frames, clip.height, clip.width })
    for i = 1, 6 do
      local box = image.box(clip:mask(i))
      assert.is_true(box and box.area > 150 and box.area < 48 * 80 / 2)
    end
    assert.not_equal(clip:mask(1):crc32c(), clip:mask(6):crc32c())
    assert.truthy(load("Annotations/480p/walk/00000.png"):sub(2, 4) == "PNG")
    assert.equal("\255\216", load("JPEGImages/480p/walk/00000.jpg"):sub(1, 2))
  end)

  it("is of the seed, and of each name", function()
    local function clip(seed, name)
      return data.toy.clip { frames = 3, height = 48, width = 80, seed = seed, name = name }
    end
    local frames, masks = clip(4, "a")
    local again, masks_again = clip(4, "a")
    helper.assert_same_bits(frames, again)
    helper.assert_same_bits(masks, masks_again)
    assert.not_equal(frames:crc32c(), clip(5, "a"):crc32c())
    assert.not_equal(frames:crc32c(), clip(4, "b"):crc32c())
    helper.assert_shape(data.toy.clip { frames = 1, height = 48, width = 80 }, 1, 48, 80, 3)
  end)

  it("says what is wrong", function()
    helper.failure(function() data.toy.write() end, "expects the path of the tree to write")
    helper.failure(function() data.toy.write(root, { sequences = { "a/b" } }) end, "'a/b' is not a name for a sequence")
    helper.failure(function() data.toy.write(root, { frame = 3 }) end, "unknown option 'frame'", "did you mean 'frames'")
    helper.failure(function() data.toy.clip { height = 8 } end, "height is 8")
    save("file", "")
    helper.failure(function() data.toy.write(root .. "/file/tree", how) end, "cannot make the directory")
    make "block/ImageSets/480p/val.txt"
    helper.failure(function() data.toy.write(root .. "/block", { frames = 1, height = 48, width = 80 }) end, "cannot write",
      "val.txt")
  end)
end)

describe("training clips", function()
  -- Frames whose red is 220 where the mask is, and 20 elsewhere: what happens to masks must happen to frames.
  local function joint_tree()
    for s, name in ipairs { "a", "b", "c" } do
      make("JPEGImages/480p/" .. name)
      make("Annotations/480p/" .. name)
      for i = 0, 9 do
        local frame, mask = frame_of(20, 60, 90), pn.zeros { 60, 90, dtype = "u8" }
        local f, m = frame:data(), mask:data()
        for y = 15 + i, 40 + i do
          for x = 20 + 3 * i, 45 + 3 * i do
            m[y * 90 + x] = 1
            f[3 * (y * 90 + x)], f[3 * (y * 90 + x) + 1] = 220, 20 * s + i
          end
        end
        image.write(("%s/JPEGImages/480p/%s/%05d.png"):format(root, name, i), frame)
        image.write(("%s/Annotations/480p/%s/%05d.png"):format(root, name, i), mask)
      end
    end
    return data.davis(root)
  end
  local cfg = { sequences = { "a", "b", "c" }, frames = 4, crop = 32, seed = 5, lr = "other keys are left alone" }

  it("visit every sequence once an epoch, in an order of the epoch", function()
    local feed = data.clips(joint_tree(), cfg)
    assert.equal(3, feed.per_epoch)
    local orders = {}
    for epoch = 1, 12 do
      local seen, order = {}, {}
      for i = 1, 3 do
        order[i] = feed:sequence_of(epoch, i)
        seen[order[i]] = true
      end
      assert.is_true(seen.a and seen.b and seen.c)
      orders[table.concat(order)] = true
    end
    local n = 0
    for _ in pairs(orders) do n = n + 1 end
    assert.is_true(n > 1)
  end)

  it("are what the network reads, and replay from (seed, epoch, index) alone", function()
    local set = joint_tree()
    local feed, other = data.clips(set, cfg), data.clips(set, cfg)
    local frames, mask, params = feed:clip(2, 3)
    helper.assert_shape(frames, 1, 3, 4, 32, 32)
    helper.assert_shape(mask, 1, 1, 4, 32, 32)
    assert.is_true(frames:is_dense "channels_last")
    other:clip(1, 1)
    local before = pn.threads()
    pn.threads(1)
    local again = other:batch(2, 3)
    pn.threads(before)
    helper.assert_same_bits(frames, again.frames)
    helper.assert_same_bits(mask, again.mask)
    assert.equal(params.sequence, again.params.sequence)
    assert.not_equal(frames:crc32c(), feed:clip(3, 3):crc32c())
  end)

  it("augment frames and masks as one", function()
    local feed = data.clips(joint_tree(), { sequences = { "a", "b", "c" }, frames = 4, crop = 32, augment = { light = 0 } })
    local wrong, n, flips, reverses = 0, 0, 0, 0
    for epoch = 1, 6 do
      for i = 1, 3 do
        local frames, masks, params = feed:sample(epoch, i)
        local f, m = frames:data(), masks:data()
        for k = 0, masks:count() - 1 do
          n = n + 1
          wrong = wrong + ((f[3 * k] > 120) == (m[k] == 1) and 0 or 1)
        end
        flips = flips + (params.whole.flip and 1 or 0)
        reverses = reverses + (params.reverse and 1 or 0)
      end
    end
    assert.is_true(wrong < 0.004 * n, ("%d of %d pixels disagree"):format(wrong, n)) -- the halves of edge pixels
    assert.is_true(flips > 2 and flips < 16 and reverses > 2 and reverses < 16)
  end)

  it("keep the frames in step: one time order, at one rate", function()
    local feed = data.clips(joint_tree(), { sequences = { "a" }, frames = 4, crop = false, augment = {
      light = 0, whole = { flip = 0, rotate = 0, resize = 0 }, steps = { 2, 2 } } })
    for epoch = 1, 8 do
      local frames, _, params = feed:sample(epoch, 1)
      local green = {}
      for t = 1, 4 do
        local top = 0
        local f = image.frame(frames, t):contiguous():data()
        for k = 0, 60 * 90 - 1 do
          if f[3 * k] == 220 then top = math.max(top, f[3 * k + 1]) end
        end
        green[t] = top - 20 + 1 -- the number of the frame
      end
      local expected = params.visits
      if params.reverse then
        expected = { expected[4], expected[3], expected[2], expected[1] }
      end
      assert.same(expected, green)
      assert.equal(2, math.abs(params.visits[2] - params.visits[1]))
    end
  end)

  it("show each frame several times in slow motion", function()
    local function feed(share)
      return data.clips(joint_tree(), { sequences = { "a" }, frames = 5, crop = 16, augment = {
        slow = share, slow_by = 2, steps = { 1, 1 } } })
    end
    for epoch = 1, 8 do
      local _, _, params = feed(1):sample(epoch, 1)
      local list = params.visits
      assert.equal(2, params.slow)
      assert.equal(5, #list)
      assert.same({ list[1], list[1], list[3], list[3], list[5] }, list)
      assert.is_true(math.abs(list[3] - list[1]) == 1 and math.abs(list[5] - list[3]) == 1)
      assert.equal(1, select(3, feed(0):sample(epoch, 1)).slow)
    end
    helper.failure(function() feed(2) end, "clips: slow is 2")
  end)

  it("turn round at the ends of a short video", function()
    make "JPEGImages/480p/one"
    make "Annotations/480p/one"
    image.write(root .. "/JPEGImages/480p/one/00000.png", frame_of(1, 40, 40))
    image.write(root .. "/Annotations/480p/one/00000.png", mask_of({ 1 }, 40, 40))
    local feed = data.clips(data.davis(root), { sequences = { "one" }, frames = 4, crop = 32 })
    local frames, _, params = feed:clip(1, 1)
    helper.assert_shape(frames, 1, 3, 4, 32, 32)
    assert.same({ 1, 1, 1, 1 }, params.visits)
    assert.same({ 1, 2, 3, 2 }, (function()
      tree("three", 3, { 1 })
      local other = data.clips(data.davis(root), { sequences = { "three" }, frames = 4, crop = 8, augment = { steps = { 1, 1 } } })
      local _, _, p = other:sample(1, 1)
      return p.visits
    end)())
  end)

  it("say what is wrong", function()
    local set = joint_tree()
    helper.failure(function() data.clips() end, "expects a data set of pn.data.davis, got nothing")
    helper.failure(function() data.clips(set, { sequences = {} }) end, "the list of sequences is empty")
    helper.failure(function() data.clips(set, { sequences = { "d" } }) end, "has no sequence 'd'")
    helper.failure(function() data.clips(set, { sequences = { "a" }, input = "rgb" }) end, "unknown input 'rgb'")
    helper.failure(function() data.clips(set, { sequences = { "a" }, augment = { flp = 1 } }) end, "unknown option 'flp'")
    helper.failure(function() data.clips(set, { sequences = { "a" }, augment = { whole = { flap = 1 } } }) end,
      "did you mean 'flip'")
    helper.failure(function() data.clips(set, { sequences = { "a" }, augment = { steps = { 2, 1 } } }) end, "steps", "{low, high}")
    helper.failure(function() data.clips(set, { sequences = { "a" } }):clip(1, 2) end, "index is 2")
    os.remove(root .. "/Annotations/480p/b/00003.png")
    helper.failure(function() data.clips(set, { sequences = { "b" } }) end, "frame 4 of b has no mask")
  end)
end)

describe("DAVIS 2016 beside the tree", function()
  local davis = helper.shared "davis2016"

  it("opens: 30 + 10 sequences, each whole", function()
    if not davis then return pending "no ../shared/davis2016" end
    local set = data.davis(davis)
    assert.equal(30, #set:sequences "train")
    assert.equal(10, #set:sequences "val-dev")
    local n = 0
    for _, name in ipairs(set:sequences()) do
      local clip = set:sequence(name)
      assert.is_true(clip:has_mask(1) and clip:has_mask(clip.n_frames))
      n = n + clip.n_frames
    end
    assert.is_true(n > 2000)
    local clip = set:sequence "camel"
    assert.same({ 90, 480, 854 }, { clip.n_frames, clip.height, clip.width })
    assert.is_true(image.box(clip:mask(1)).area > 40000)
    assert.equal(ffi.sizeof "uint8_t" * 480 * 854 * 3, clip:frame(90):count())
  end)
end)
