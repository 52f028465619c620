-- Videos through ffmpeg: there and back, and what is said when it cannot be.

local lfs = require "lfs"
local pn = require "penumbra"
local files = require "penumbra.base.files"
local helper = require "spec.helper"
local program = require "penumbra.program"
local shell = require "penumbra.base.shell"

local video, image = pn.video, pn.image

local directory = helper.directory(teardown)

-- Frames of one colour each.
local function frames(n, h, w)
  local t = pn.empty { n, h, w, 3, dtype = "u8" }
  for i = 1, n do
    image.frame(t, i):fill(40 * i)
  end
  return t
end

local function brightness(path)
  local t = image.read(path)
  return t:get(math.floor(t:size(1) / 2), math.floor(t:size(2) / 2), 1)
end

it("goes there and back, through names that a shell would trip over", function()
  if not video.available() then
    pending "ffmpeg is not installed"
    return
  end
  for _, kind in ipairs { "mp4", "gif" } do
    local path = directory .. "/it's 100%d:$x." .. kind
    assert.equal(path, video.write { path = path, frames = frames(4, 33, 47), fps = 10 }) -- odd sizes
    local into = directory .. "/frames 50%d of " .. kind
    local paths = video.read { path = path, directory = into, extension = "png" }
    assert.equal(4, #paths)
    assert.equal(into .. "/00000.png", paths[1])
    for i, file in ipairs(paths) do
      assert.near(40 * i, brightness(file), 6)
    end
    assert.is_nil(lfs.attributes(path .. ".part"))
    helper.failure(function() video.read { path = path, directory = into } end, "holds 4 frames already")
  end
end)

it("takes a folder or a list of files, and scales", function()
  if not video.available() then
    pending "ffmpeg is not installed"
    return
  end
  local folder = directory .. "/in"
  lfs.mkdir(folder)
  local t, list = frames(3, 20, 40), {}
  for i = 1, 3 do
    list[i] = ("%s/%05d.png"):format(folder, i)
    image.write(list[i], image.frame(t, i))
  end
  video.write { path = directory .. "/folder.mp4", frames = folder, width = 20 }
  video.write { path = directory .. "/list.mp4", frames = { list[3], list[1] } }
  local paths = video.read { path = directory .. "/folder.mp4", directory = directory .. "/folder" }
  assert.equal(3, #paths)
  assert.same({ 10, 20, 3 }, { image.size(paths[1]) })
  local asked = {}
  video.write { path = directory .. "/asked.mp4", frames = function(i)
    asked[i] = true
    return i <= 3 and image.frame(t, i) or nil
  end }
  assert.same({ true, true, true, true }, asked)
  assert.equal(3, #video.read { path = directory .. "/asked.mp4", directory = directory .. "/asked" })
  helper.failure(function() video.write { path = "a.mp4", frames = function() end } end, "a.mp4: there is no first frame")
  paths = video.read { path = directory .. "/list.mp4", directory = directory .. "/list" }
  assert.near(120, brightness(paths[1]), 6)
  assert.near(40, brightness(paths[2]), 6)
end)

it("gives the folder of frames behind a path", function()
  assert.same({ directory, n = 1 }, { n = select("#", video.folder(directory)), (video.folder(directory)) })
  if not video.available() then
    pending "ffmpeg is not installed"
    return
  end
  local path = video.write { path = directory .. "/three.mp4", frames = frames(3, 16, 16) }
  local folder, keeper = video.folder(path)
  assert.equal(3, #image.files(folder))
  assert.equal("userdata", type(keeper))
  keeper = nil -- luacheck: ignore
  collectgarbage()
  collectgarbage()
  assert.is_nil(lfs.attributes(folder))
  -- Also when the program ends, by itself or by an error, with the clip still in use.
  for _, ending in ipairs { "", "error 'and out'" } do
    local script, said = directory .. "/end.lua", directory .. "/end.txt"
    local file = assert(io.open(script, "w"))
    file:write(("local pn = require 'penumbra'; clip = pn.data.own(%q); io.open(%q, 'w'):write((clip:paths(1))); %s"):format(path,
      said, ending))
    file:close()
    local _, code = shell.run(shell.quote(program.exe) .. " " .. shell.quote(script))
    assert.equal(ending == "" and 0 or 1, code)
    local frame = files.read(said)
    assert.truthy(frame:match "/00000.jpg$")
    assert.is_nil(lfs.attributes((frame:gsub("/[^/]+$", ""))))
  end
end)

it("says what is wrong, and keeps what stood there", function()
  helper.failure(function() video.write { path = "a.avi", frames = frames(1, 8, 8) } end,
    "a.avi: a video is written as .mp4 or .gif")
  helper.failure(function() video.write { path = "a.mp4", frames = frames(1, 8, 8), fps = 0 } end, "fps is 0, expects more than 0")
  helper.failure(function() video.write { path = "a.mp4" } end, "video.write: frames is missing")
  helper.failure(function() video.read { path = directory .. "/no.mp4", directory = directory .. "/d" } end, "no.mp4: no such file")
  if not video.available() then
    pending "ffmpeg is not installed"
    return
  end
  helper.failure(function() video.write { path = "a.mp4", frames = {} } end, "frames expects a folder, a list")
  helper.failure(function() video.write { path = "a.mp4", frames = pn.zeros { 2, 3, 3, dtype = "u8" } } end,
    "expects a u8 tensor (T,H,W,3)", "2,3,3")
  lfs.mkdir(directory .. "/empty")
  helper.failure(function() video.write { path = "a.mp4", frames = directory .. "/empty" } end,
    "/empty: no frames (jpg or png) there")
  helper.failure(function() video.write { path = directory .. "/no/a.mp4", frames = frames(2, 8, 8) } end,
    "/no/a.mp4: cannot write the video", "No such file")

  local kept = directory .. "/kept.mp4"
  video.write { path = kept, frames = frames(2, 16, 16) }
  local bytes = lfs.attributes(kept, "size")
  image.write(directory .. "/1.png", image.frame(frames(1, 16, 16), 1))
  image.write(directory .. "/2.png", image.frame(frames(1, 16, 18), 1))
  helper.failure(function() video.write { path = kept, frames = { directory .. "/1.png", directory .. "/2.png" } } end,
    "frame 2 is 16 x 18 (height x width), the first is 16 x 16")
  assert.equal(bytes, lfs.attributes(kept, "size"))
  assert.is_nil(lfs.attributes(kept .. ".part"))

  local file = assert(io.open(directory .. "/text.mp4", "w"))
  file:write "not a video"
  file:close()
  helper.failure(function() video.read { path = directory .. "/text.mp4", directory = directory .. "/text" } end,
    "text.mp4: cannot read the video")
  assert.is_nil(lfs.attributes(directory .. "/text"))
  helper.failure(function() video.read { path = kept, directory = directory .. "/x/y" } end, "cannot make the folder")
  helper.failure(function() video.read { path = kept, directory = directory .. "/z", extension = "bmp" } end,
    "extension is 'bmp', expects jpg or png")
end)

it("says when the program is not there", function()
  local before = video.program
  video.program = "no-such-program"
  assert.is_false(video.available())
  local ok, problem = pcall(video.write, { path = "a.mp4", frames = frames(1, 8, 8) })
  local ok2, problem2 = pcall(video.read, { path = "spec/video_spec.lua", directory = directory .. "/q" })
  video.program = before
  assert.is_false(ok or ok2)
  assert.truthy(problem:find("video.write: the program no-such-program is not installed (on Debian: apt-get install ffmpeg)", 1,
    true))
  assert.truthy(problem2:find("video.read: the program no-such-program is not installed", 1, true))
end)
