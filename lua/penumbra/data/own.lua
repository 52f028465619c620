--- One's own clip: a video or a folder of frames, with a mask that marks the object in the first of them.
--
--     local clip = pn.data.own("holiday.mp4", { mask = "first.png" })
--     local clip = pn.data.clip(cfg)           -- what a recipe's keys name: video and mask, or davis and sequence; and object
--
-- A mask for the first frame: ffmpeg -i holiday.mp4 -frames:v 1 first.png, painted over: black where the object is not.

local lfs = require "lfs"
local config = require "penumbra.config"
local davis = require "penumbra.data.davis"
local image = require "penumbra.image"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"
local video = require "penumbra.video"

local own = {}

-- What was not given is nil.
local function given(text)
  return text ~= "" and text or nil
end

local function object_of(what, object)
  if object == "all" then
    return object
  end
  object = named.whole(what, "object", object or 0, 0, 255)
  return object > 0 and object or nil
end

-- What is wrong with the first mask shows now, not after the training. More objects than one, where none was chosen, are told of.
local function check_first_mask(clip, object, quiet)
  clip:mask(1)
  local _, path = clip:paths(1)
  local objects = object == nil and not quiet and image.objects(image.read_mask(path)) or {}
  if #objects > 1 then
    local shown = table.concat(objects, ", ", 1, math.min(#objects, 10))
    io.stderr:write(("%s marks %d objects (%s%s), taken as one; object=N takes one of them, penumbra objects each\n"):format(path,
      #objects, shown, #objects > 10 and ", ..." or ""))
  end
  return clip
end

--- Opens a clip of one's own.
-- @tparam string path a video (through ffmpeg), or a folder of frames
-- @tparam ?table how mask: a PNG for the first frame, or a folder of PNGs named as the frames; object: its number in the mask
--   (default, or 0: any value but 0 is object; "all": masks keep the numbers); quiet: says nothing of a mask of several objects
-- @treturn Clip named as the file or the folder; "clip" where that has no name of its own, as "."
function own.open(path, how)
  how = named("own", how, { mask = named.optional, object = named.optional, quiet = false })
  named.text("own", path, "the path of a video or of a folder of frames")
  local object, mask = object_of("own", how.object), how.mask
  if not lfs.attributes(path, "mode") then
    raise("%s: no such video, or folder of frames", path)
  end
  if mask ~= nil and not lfs.attributes(named.text("own: mask", mask), "mode") then
    raise("mask: %s: no such file", mask)
  end
  if mask == nil and object then
    raise("own: object is %s, but there is no mask that says where it is", object)
  end
  local name = path:match "([^/]+)/*$" or "."
  if name == "." or name == ".." then
    name = "clip" -- names folders of results
  end
  local folder, keeper = video.folder(path)
  local clip = davis.folder(folder, { mask = mask, object = object, name = keeper and name:gsub("(.)%.%w+$", "%1") or name })
  clip.keeper = keeper -- the frames of a video are there as long as the clip is
  return mask == nil and clip or check_first_mask(clip, object, how.quiet)
end

--- The clip that the keys of a recipe name, its first mask checked.
-- @tparam table cfg video and mask, or davis and sequence; object (0: any value of the mask is the object; "all": masks keep
--   the numbers); quiet
-- @treturn Clip
function own.clip(cfg)
  local path, mask = given(cfg.video), given(cfg.mask)
  if path then
    if not mask then
      raise("clip: video=%s needs mask=FILE.png, which marks the object in the first frame", path)
    end
    if config.was_written(cfg, "sequence") then
      raise("clip: sequence=%s and video=%s are two clips: give one of the two", cfg.sequence, path)
    end
    return own.open(path, { mask = mask, object = cfg.object, quiet = cfg.quiet })
  end
  if mask then
    raise("clip: mask=%s goes with video=; a sequence of a data set has its own masks", mask)
  end
  local object = object_of("clip", cfg.object)
  return check_first_mask(davis.open(cfg.davis):sequence(cfg.sequence, { object = object }), object, cfg.quiet)
end

return own
