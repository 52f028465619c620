--- Videos from frames and frames from videos, by the program ffmpeg where it is installed.
--
--     pn.video.write{ path = "camel.mp4", frames = "out/overlays", fps = 24 }   -- or .gif; a folder, a list of paths, or a tensor
--     local paths = pn.video.read{ path = "dog.mp4", directory = "dog" }        -- dog/00000.jpg, dog/00001.jpg, ...
--     local folder, keeper = pn.video.folder "dog.mp4"                          -- frames that go when keeper does

local ffi = require "ffi"
local lfs = require "lfs"
local binding = require "penumbra.ffi"
local files = require "penumbra.base.files"
local image = require "penumbra.image"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"
local shell = require "penumbra.base.shell"

local quote = shell.quote
local video = {}

--- The program that is run; a path or a name.
video.program = "ffmpeg"

--- Is ffmpeg installed?
function video.available()
  return shell.succeeds("command -v " .. quote(video.program))
end

local function need_program(what)
  if not video.available() then
    raise("%s: the program %s is not installed (on Debian: apt-get install ffmpeg)", what, video.program)
  end
end

local function slurp(path)
  local file = io.open(path, "r")
  local text = file and file:read "*a" or ""
  if file then
    file:close()
  end
  return text
end

-- Runs ffmpeg; feed(pipe) writes to its input. Returns nil, or what it said when it failed.
local function run(arguments, feed)
  local log, status = os.tmpname(), os.tmpname()
  -- Whatever happens, the input is read to its end: a broken pipe would end this process.
  local command = ("{ %s -nostdin -hide_banner -loglevel error -y %s 2>%s; echo $? >%s; cat >/dev/null; }"):format(
    quote(video.program), arguments, quote(log), quote(status))
  if not feed then
    command = command .. " </dev/null"
  else
    command = command:gsub(" %-nostdin", "", 1)
  end
  local ok, problem = true, nil
  if feed then
    local pipe = io.popen(command, "w")
    ok, problem = pcall(feed, pipe)
    pipe:close()
  else
    os.execute(command)
  end
  local code, said = slurp(status):match "%d+", slurp(log)
  os.remove(log)
  os.remove(status)
  if not ok then
    error(problem, 0)
  end
  if code ~= "0" then
    local last = said:match "([^\n]+)%s*$"
    return last or "it ended with status " .. tostring(code)
  end
end

local kinds = {
  -- Even sizes for 4:2:0; an index at the front, so that a browser can begin to play.
  mp4 = "-vf 'pad=ceil(iw/2)*2:ceil(ih/2)*2' -c:v libx264 -preset veryfast -crf 18 -pix_fmt yuv420p -movflags +faststart -f mp4",
  gif = "-filter_complex 'split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=bayer:bayer_scale=4' -loop 0 -f gif",
}

-- A function that gives frame i as u8 (H,W,3), and nil after the last.
local function frames_of(frames)
  if type(frames) == "function" then
    return frames
  end
  if binding.is_tensor(frames) then
    if frames:dims() ~= 4 or frames:size(4) ~= 3 or frames:dtype() ~= "u8" then
      raise("video.write: frames expects a u8 tensor (T,H,W,3), got %s of shape %s", frames:dtype(),
        table.concat(frames:shape(), ","))
    end
    local n = frames:size(1)
    return function(i)
      return i <= n and image.frame(frames, i) or nil
    end
  end
  local paths = frames
  if type(frames) == "string" then
    paths = image.files(frames)
    if #paths == 0 then
      raise("video.write: %s: no frames (jpg or png) there", frames)
    end
  end
  if type(paths) ~= "table" or #paths == 0 then
    raise("video.write: frames expects a folder, a list of at least one path, or a tensor (T,H,W,3)")
  end
  return function(i)
    return paths[i] and image.read(paths[i])
  end
end

--- Writes a video; what stood at the path stays whole until the new one is complete. Returns the path.
-- @tparam table how path: .mp4 or .gif; frames: a folder (by name), a list of paths, a u8 tensor (T,H,W,3), or a function that
--   gives picture i, u8 (H,W,3), asked for one after the other, and nil after the last; fps = 24 frames a second; width:
--   pixels to scale to (default: as the frames are)
function video.write(how)
  how = named("video.write", how, { path = named.required, frames = named.required, fps = 24, width = named.optional })
  local kind = type(how.path) == "string" and how.path:lower():match "%.(%w+)$"
  if not kinds[kind] then
    raise("video.write: %s: a video is written as .mp4 or .gif", tostring(how.path))
  end
  if how.fps <= 0 then
    raise("video.write: fps is %g, expects more than 0", how.fps)
  end
  need_program "video.write"
  local frame = frames_of(how.frames)
  local first = frame(1)
  if not first then
    raise("video.write: %s: there is no first frame", how.path)
  end
  local h, w, width, height = first:size(1), first:size(2), nil, nil
  if how.width then
    width = named.whole("video.write", "width", how.width, 2, 8192)
    height = math.max(2, math.floor(h * width / w + 0.5))
  end
  local beside = how.path .. ".part"
  local arguments = ("-f rawvideo -pix_fmt rgb24 -s %dx%d -r %g -i - %s %s"):format(width or w, height or h, how.fps, kinds[kind],
    quote("file:" .. beside))
  local ok, problem = pcall(run, arguments, function(pipe)
    local i, picture = 1, first
    while picture do
      if picture:size(1) ~= h or picture:size(2) ~= w then
        raise("video.write: frame %d is %d x %d (height x width), the first is %d x %d", i, picture:size(1), picture:size(2), h, w)
      end
      local shown = width and image.resize(picture, { height, width }) or picture:contiguous()
      pipe:write(ffi.string(shown:data(), shown:count()))
      shown:free()
      picture:free()
      i = i + 1
      picture = frame(i)
    end
  end)
  if not ok then
    os.remove(beside)
    error(problem, 0)
  end
  if problem or not os.rename(beside, how.path) then
    os.remove(beside)
    raise("%s: cannot write the video: %s", how.path, problem or "renaming failed")
  end
  return how.path
end

--- Takes a video apart into a folder of frames 00000.jpg, 00001.jpg, ... (made when it is not there). Returns their paths.
-- @tparam table how path; directory; extension = "jpg" or "png"; fps: take that many frames a second (default: all)
function video.read(how)
  how = named("video.read", how, { path = named.required, directory = named.required, extension = "jpg", fps = named.optional })
  if how.extension ~= "jpg" and how.extension ~= "png" then
    raise("video.read: extension is '%s', expects jpg or png", how.extension)
  end
  if lfs.attributes(how.path, "mode") ~= "file" then
    raise("video.read: %s: no such file", tostring(how.path))
  end
  need_program "video.read"
  local made = lfs.attributes(how.directory, "mode") ~= "directory"
  if made then
    local ok, why = lfs.mkdir(how.directory)
    if not ok then
      raise("video.read: %s: cannot make the folder: %s", how.directory, why)
    end
  elseif #image.files(how.directory) > 0 then
    raise("video.read: %s holds %d frames already; give an empty folder", how.directory, #image.files(how.directory))
  end
  local rate = how.fps and ("-vf fps=%g"):format(how.fps) or ""
  local pattern = "file:" .. how.directory:gsub("%%", "%%%%") .. "/%05d." .. how.extension
  local problem = run(("-i %s %s -vsync 0 -qscale:v 2 -start_number 0 -f image2 %s"):format(quote("file:" .. how.path), rate,
    quote(pattern)))
  local paths = image.files(how.directory)
  if problem or #paths == 0 then
    if made then
      lfs.rmdir(how.directory) -- stays where it holds something
    end
    raise("%s: cannot read the video: %s", how.path, problem or "it holds no frames")
  end
  return paths
end

--- The folder of frames behind a path: the path itself where it is a folder, else the frames of a video, taken apart into a folder
-- of their own.
-- @tparam string path
-- @treturn string folder
-- @treturn ?userdata where it was a video: the folder goes when this is collected, or the program ends
function video.folder(path)
  if lfs.attributes(path, "mode") == "directory" then
    return path
  end
  local folder = files.scratch()
  local ok, paths = pcall(video.read, { path = path, directory = folder })
  if not ok then
    files.remove(folder)
    error(paths, 0)
  end
  local keeper = newproxy(true)
  getmetatable(keeper).__gc = function() -- also while Lua closes, when lfs may open no directory any more
    for _, frame in ipairs(paths) do
      os.remove(frame)
    end
    os.remove(folder)
  end
  return folder, keeper
end

return video
