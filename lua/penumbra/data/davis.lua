--- DAVIS: a tree of videos with a mask for every frame, in each of its layouts; and plain folders of frames.
--
--     ROOT/JPEGImages/480p/SEQUENCE/00000.jpg      (.png is read too)
--     ROOT/Annotations/480p/SEQUENCE/00000.png     0/255 (2016), or a palette of object numbers (2017)
--     ROOT/ImageSets/480p/SET.txt                  a line a frame: "/JPEGImages/480p/SEQUENCE/00000.jpg /Annotations/..."
--     ROOT/ImageSets/2016/SET.txt, 2017/SET.txt    a line a sequence
--
-- Frames are u8 (H,W,3), masks u8 (H,W); frame numbers count from 1. What is wrong with a video is found when it is opened,
-- from the headers and the ends of its files, not after an hour of training. Decoded pictures are kept in a cache and shared: do
-- not write into what a clip returns (`:clone()` it first).

local ffi = require "ffi"
local lfs = require "lfs"
local binding = require "penumbra.ffi"
local tensor = require "penumbra.tensor"
local image = require "penumbra.image"
local named = require "penumbra.base.named"
local nearest = require "penumbra.base.nearest"
local pace = require "penumbra.pace"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"

local C = binding.C
local davis = {}

--- The bytes of decoded pictures that are kept by default: an eighth of the machine's memory, at most 4 GB.
davis.cache_bytes = math.floor(math.min(pace.machine_bytes / 8, 4e9))

local function is_directory(path)
  return lfs.attributes(path, "mode") == "directory"
end

local function directories(path)
  local names = {}
  if is_directory(path) then
    for name in lfs.dir(path) do
      if name:sub(1, 1) ~= "." and is_directory(path .. "/" .. name) then
        names[#names + 1] = name
      end
    end
  end
  table.sort(names)
  return names
end

-- ---- a cache of decoded pictures ----------------------------------------------------------------------------------------

-- In the C library, for all workers. The data set that opened it drops its pictures when it is collected.
local Cache = {}
Cache.__index = Cache

local function new_cache(limit_bytes, owner)
  if owner then
    return setmetatable({ limit = limit_bytes, owner = owner }, Cache)
  end
  local number = ffi.gc(ffi.new("uint64_t [1]", C.pn_cache_owner()), function(n) C.pn_cache_drop(n[0]) end)
  return setmetatable({ limit = limit_bytes, number = number, owner = tonumber(number[0]) }, Cache)
end

-- A fresh handle, of the caller's scope: freeing it leaves the cache's own.
function Cache:get(key)
  return binding.wrap(C.pn_cache_get(self.owner, key))
end

function Cache:put(key, t)
  C.pn_cache_put(self.owner, key, binding.ptr(t), self.limit)
end

-- ---- a clip: the frames and masks of one video ----------------------------------------------------------------------------

--- One video. Fields: name, n_frames, height, width, object (nil: any); found, where a recipe says there how it segmented the clip
-- (penumbra.run.results).
local Clip = {}
Clip.__index = Clip

local function frame_index(clip, what, i)
  return named.whole(clip.name .. ": " .. what, "frame", i, 1, clip.n_frames)
end

--- The name of a frame: "00000".
function Clip:frame_name(i)
  return self.names[frame_index(self, "frame_name", i)]
end

--- The files of a frame and of its mask (nil where there is none).
function Clip:paths(i)
  i = frame_index(self, "paths", i)
  return self.frame_paths[i], self.mask_paths[i]
end

--- Is there a mask for frame i?
function Clip:has_mask(i)
  return self.mask_paths[frame_index(self, "has_mask", i)] ~= nil
end

-- What is read of each frame: where from, under which name it is kept, how, and how large one is.
local kinds = {
  frame = {
    path = function(clip, i) return clip.frame_paths[i] end,
    key = function(_, path) return path end,
    read = function(_, paths) return image.read_frames(paths) end,
    shape = function(clip) return { clip.height, clip.width, 3, dtype = "u8" } end,
  },
}

kinds.mask = {
  path = function(clip, i)
    return clip.mask_paths[i] or raise("%s: frame %d (%s) has no mask; expected %s", clip.name, i, clip.frame_paths[i],
      clip.mask_directory .. "/" .. clip.names[i] .. ".png")
  end,
  key = function(clip, path) return path .. "#" .. tostring(clip.object) end,
  read = function(clip, paths)
    local stored = image.read_masks(paths)
    local masks = clip.object == "all" and stored or image.select(stored, clip.object)
    for m, path in ipairs(paths) do -- the first must name the object
      if path == clip.mask_paths[1] and not image.box(image.frame(masks, m)) then
        local ids = image.objects(image.frame(stored, m))
        if #ids == 0 then
          raise("%s: the mask of the first frame is empty: it names no object to follow", path)
        end
        raise("%s: object %s is not in the mask of the first frame (objects there: %s)", path, tostring(clip.object),
          table.concat(ids, ", "))
      end
    end
    return masks
  end,
  shape = function(clip) return { clip.height, clip.width, dtype = "u8" } end,
}

local function read_paths(clip, kind, paths)
  local read = kind.read(clip, paths)
  if read:size(2) ~= clip.height or read:size(3) ~= clip.width then
    raise("%s: is no longer %d x %d (height x width), as it was when the clip was opened", paths[1], clip.height, clip.width)
  end
  return read
end

-- The pictures of a list of frame numbers, stacked; those not in the cache are read by all threads, each once.
local function read_list(clip, kind, list)
  local one = kind.shape(clip)
  local all = tensor.empty { #list, one[1], one[2], one[3], dtype = "u8" }
  local bytes = all:count() / #list
  local missing, where = {}, {}
  for k, i in ipairs(list) do
    local path = kind.path(clip, i)
    local t = not where[path] and clip.cache:get(kind.key(clip, path))
    if t then
      ffi.copy(all:data() + (k - 1) * bytes, t:data(), bytes)
      t:free()
    elseif where[path] then
      table.insert(where[path], k)
    else
      missing[#missing + 1], where[path] = path, { k }
    end
  end
  if #missing > 0 then
    scope.run(function()
      local read = read_paths(clip, kind, missing)
      for m, path in ipairs(missing) do
        local source = read:data() + (m - 1) * bytes
        for _, k in ipairs(where[path]) do
          ffi.copy(all:data() + (k - 1) * bytes, source, bytes)
        end
        if bytes <= clip.cache.limit then
          local copy = tensor.empty(one)
          ffi.copy(copy:data(), source, bytes)
          clip.cache:put(kind.key(clip, path), copy)
        end
      end
    end)
  end
  return all
end

-- One picture, shared with the cache.
local function read_one(clip, kind, i)
  local path = kind.path(clip, i)
  local t = clip.cache:get(kind.key(clip, path))
  if not t then
    t = scope.run(function() return image.frame(read_paths(clip, kind, { path }), 1) end)
    clip.cache:put(kind.key(clip, path), t)
  end
  return t
end

--- Frame i, u8 (H,W,3). Shared: do not write into it.
function Clip:frame(i)
  return read_one(self, kinds.frame, frame_index(self, "frame", i))
end

--- The mask of frame i, u8 (H,W): 1 the object, 0 the rest; object numbers where the clip was opened with object = "all".
-- Shared: do not write into it. An empty mask of the first frame is an error: it names no object to follow.
function Clip:mask(i)
  return read_one(self, kinds.mask, frame_index(self, "mask", i))
end

local function span(clip, what, first, count)
  first = first or 1
  frame_index(clip, what, first)
  count = count or clip.n_frames - first + 1
  named.whole(("%s: %s from frame %d"):format(clip.name, what, first), "count", count, 1, clip.n_frames - first + 1)
  return first, count
end

local function numbers(first, count)
  local list = {}
  for k = 1, count do
    list[k] = first + k - 1
  end
  return list
end

--- Frames first to first + count - 1, u8 (T,H,W,3), in new memory.
-- @tparam ?int first default 1
-- @tparam ?int count default: to the last
function Clip:frames(first, count)
  return read_list(self, kinds.frame, numbers(span(self, "frames", first, count)))
end

--- Masks first to first + count - 1, u8 (T,H,W), in new memory.
function Clip:masks(first, count)
  return read_list(self, kinds.mask, numbers(span(self, "masks", first, count)))
end

--- Frames and masks of a list of frame numbers, in its order; a number may come more than once.
-- @tparam {int} list
-- @treturn Tensor frames u8 (T,H,W,3)
-- @treturn Tensor masks u8 (T,H,W)
function Clip:gather(list)
  for _, i in ipairs(list) do
    frame_index(self, "gather", i)
  end
  return read_list(self, kinds.frame, list), read_list(self, kinds.mask, list)
end

local function describe(clip)
  local n = 0
  for i = 1, clip.n_frames do
    n = n + (clip.mask_paths[i] and 1 or 0)
  end
  return ("%s: %d frames of %d x %d (height x width), %d masks"):format(clip.name, clip.n_frames, clip.height, clip.width, n)
end
Clip.__tostring = describe

-- All that can be known of a video without decoding it is checked here.
local function new_clip(clip)
  local paths = clip.frame_paths
  clip.n_frames = #paths
  clip.height, clip.width = image.size(paths[1])
  for i = 1, #paths do
    local h, w = image.size(paths[i])
    image.check_end(paths[i])
    if h ~= clip.height or w ~= clip.width then
      raise("frames of mixed size: %s is %d x %d (height x width), %s is %d x %d", paths[i], h, w, paths[1], clip.height,
        clip.width)
    end
  end
  for i = 1, #paths do
    local path = clip.mask_paths[i]
    if path then
      local h, w = image.size(path)
      image.check_end(path)
      if h ~= clip.height or w ~= clip.width then
        raise("a mask of another size: %s is %d x %d (height x width), its frame %s is %d x %d", path, h, w, paths[i], clip.height,
          clip.width)
      end
    end
  end
  return setmetatable(clip, Clip)
end

local function check_object(what, object)
  if object ~= nil and object ~= "all" then
    if type(object) ~= "number" then
      raise("%s: object is '%s', expects a number from 1 to 255, or \"all\"", what, tostring(object))
    end
    named.whole(what, "object", object, 1, 255)
  end
  return object
end

--- How to open this clip again, in another Lua state (penumbra.run.results); the decoded pictures are shared.
function Clip:made_by()
  return "penumbra.data.davis", "clip", {
    name = self.name, names = self.names, frame_paths = self.frame_paths, mask_paths = self.mask_paths,
    mask_directory = self.mask_directory, object = self.object, cache_limit = self.cache.limit, cache_owner = self.cache.owner,
  }
end

--- A clip from what `made_by` says.
function davis.clip(made)
  made.cache = new_cache(made.cache_limit, made.cache_owner)
  return new_clip(made)
end

-- Masks by the name of their frame: "00000" -> path.
local function masks_by_name(directory)
  local by_name = {}
  if is_directory(directory) then
    local paths, names = image.files(directory, "png")
    for i, name in ipairs(names) do
      by_name[name] = paths[i]
    end
  end
  return by_name
end

-- Frame files of a directory; a name that stands as both JPEG and PNG counts once.
local function frame_files(directory)
  local paths, names = image.files(directory)
  local kept_paths, kept_names = {}, {}
  for i, name in ipairs(names) do
    if name ~= kept_names[#kept_names] then
      kept_paths[#kept_paths + 1], kept_names[#kept_names + 1] = paths[i], name
    end
  end
  return kept_paths, kept_names
end

local function is_same_file(a, b)
  return a:match "[^/]+$" == b:match "[^/]+$" and lfs.attributes(a, "ino") == lfs.attributes(b, "ino")
    and lfs.attributes(a, "dev") == lfs.attributes(b, "dev")
end

-- Numbered frames must follow each other without a gap.
local function check_numbers(directory, paths, names)
  for i = 2, #names do
    local before, here = tonumber(names[i - 1]), tonumber(names[i])
    if before and here and here ~= before + 1 then
      local lost = ("%0" .. #names[i - 1] .. "d"):format(before + 1)
      raise("%s: frame %s is missing: there is %s, then %s", directory, lost, paths[i - 1]:match("[^/]+$"),
        paths[i]:match("[^/]+$"))
    end
  end
end

-- ---- a DAVIS tree ----------------------------------------------------------------------------------------------------------

--- A DAVIS tree. Fields: root, resolution.
local Dataset = {}
Dataset.__index = Dataset

--- Opens a DAVIS tree.
-- @tparam string root the directory that holds JPEGImages
-- @tparam ?table how object: the object number to follow (default: all of them as one; "all": masks keep the numbers);
--   resolution: "480p" (default), or another folder of JPEGImages; cache_bytes = davis.cache_bytes: how much decoded picture
--   is kept, of all data sets together; cache: the number of the cache of another data set, to be shared
function davis.open(root, how)
  how = named("davis", how, {
    object = named.optional, resolution = named.optional, cache_bytes = davis.cache_bytes, cache = named.optional,
  })
  if type(root) ~= "string" then
    raise("davis: expects the path of a DAVIS tree, got %s", root == nil and "nothing" or "a " .. type(root))
  end
  if not is_directory(root) then
    raise("davis: no such directory: %s", root)
  end
  root = #root > 1 and root:gsub("/+$", "") or root
  local resolutions = directories(root .. "/JPEGImages")
  if #resolutions == 0 then
    raise("davis: %s is not a DAVIS tree: it has no JPEGImages/480p", root)
  end
  local resolution = how.resolution
  if not resolution then
    resolution = resolutions[1]
    for _, name in ipairs(resolutions) do
      if name == "480p" then
        resolution = name
      end
    end
  elseif not is_directory(root .. "/JPEGImages/" .. tostring(resolution)) then
    raise("davis: %s has no resolution '%s'%s (known: %s)", root, tostring(resolution), nearest.hint(resolution, resolutions),
      table.concat(resolutions, ", "))
  end
  return setmetatable({
    root = root, resolution = resolution, object = check_object("davis", how.object),
    cache = new_cache(how.cache_bytes, how.cache),
  }, Dataset)
end

--- How to open this data set again, in another Lua state (penumbra.ahead); the decoded pictures are shared.
function Dataset:made_by()
  return "penumbra.data.davis", "open", self.root, {
    object = self.object, resolution = self.resolution, cache_bytes = self.cache.limit, cache = self.cache.owner,
  }
end

-- Set name to the file that lists it. Where several folders of ImageSets have the name, the one that goes with the tree's
-- resolution is first, then 2016, then the newest.
local function set_files(dataset)
  local files, names = {}, {}
  local folders = directories(dataset.root .. "/ImageSets")
  local function rank(folder)
    return folder == dataset.resolution and "0" or folder == "2016" and "1" or folder
  end
  table.sort(folders, function(a, b)
    return rank(a) < rank(b)
  end)
  for _, folder in ipairs(folders) do
    for file in lfs.dir(dataset.root .. "/ImageSets/" .. folder) do
      local name = file:match("^([^.].*)%.txt$")
      if name then
        local path = ("%s/ImageSets/%s/%s"):format(dataset.root, folder, file)
        files[folder .. "/" .. name] = path
        if not files[name] then
          files[name] = path
          names[#names + 1] = name
        end
      end
    end
  end
  table.sort(names)
  return files, names
end

--- The names of the sets: "train", "val", ...
function Dataset:sets()
  local _, names = set_files(self)
  return names
end

--- The sequences of a set, in its order; without a set, all that the tree holds, sorted.
-- @tparam ?string set "train"; "2017/val" picks one of several folders of ImageSets
-- @treturn {string} names
function Dataset:sequences(set)
  if set == nil then
    return directories(("%s/JPEGImages/%s"):format(self.root, self.resolution))
  end
  local files, names = set_files(self)
  local path = files[set]
  if not path then
    raise("davis: %s has no set '%s'%s (known: %s)", self.root, tostring(set), nearest.hint(set, names),
      #names > 0 and table.concat(names, ", ") or "none: there is no ImageSets/480p/*.txt")
  end
  local file, message = io.open(path, "r")
  if not file then
    raise("davis: cannot read %s", message)
  end
  local listed, seen = {}, {}
  for line in file:lines() do
    local name = line:match("^%s*(%S+)")
    if name then
      name = name:match("([^/]+)/[^/]+$") or name
      if not seen[name] then
        seen[name] = true
        listed[#listed + 1] = name
      end
    end
  end
  file:close()
  if #listed == 0 then
    raise("davis: %s lists no sequence", path)
  end
  return listed
end

--- One sequence, checked.
-- @tparam string name
-- @tparam ?table how object: as for `davis.open`, for this sequence
-- @treturn Clip
function Dataset:sequence(name, how)
  local object = check_object("sequence", named("sequence", how, { object = named.optional }).object)
  local directory = ("%s/JPEGImages/%s/%s"):format(self.root, self.resolution, tostring(name))
  if type(name) ~= "string" or name == "" or name:find("/", 1, true) or not is_directory(directory) then
    raise("davis: %s has no sequence '%s'%s", self.root, tostring(name), nearest.hint(name, self:sequences()))
  end
  local paths, names = frame_files(directory)
  if #paths == 0 then
    raise("davis: %s holds no frame (.jpg or .png)", directory)
  end
  check_numbers(directory, paths, names)
  local mask_directory = ("%s/Annotations/%s/%s"):format(self.root, self.resolution, name)
  local by_name, mask_paths = masks_by_name(mask_directory), {}
  for i, frame in ipairs(names) do
    mask_paths[i] = by_name[frame]
    by_name[frame] = nil
  end
  local lost = next(by_name)
  if lost then
    for other in pairs(by_name) do
      lost = other < lost and other or lost
    end
    raise("davis: %s/%s.jpg is missing: there is a mask for it, %s", directory, lost, by_name[lost])
  end
  return new_clip {
    name = name, names = names, frame_paths = paths, mask_paths = mask_paths, mask_directory = mask_directory,
    object = object or self.object, cache = self.cache,
  }
end

-- ---- a plain folder ----------------------------------------------------------------------------------------------------------

--- A folder of frames (.jpg or .png, in the order of their names and numbers: f2 before f10), with a mask for the first or masks
-- by name.
-- @tparam string path
-- @tparam ?table how mask: a PNG for the first frame, or a folder of PNGs named as the frames; object; name; cache_bytes
-- @treturn Clip
function davis.folder(path, how)
  how = named("folder", how, {
    mask = named.optional, object = named.optional, name = named.optional, cache_bytes = davis.cache_bytes,
  })
  if type(path) ~= "string" then
    raise("folder: expects the path of a folder of frames, got %s", path == nil and "nothing" or "a " .. type(path))
  end
  if not is_directory(path) then
    raise("folder: no such directory: %s", path)
  end
  path = #path > 1 and path:gsub("/+$", "") or path
  local paths, names = frame_files(path)
  local mask_paths, mask_directory = {}, path
  if how.mask ~= nil then
    local mode = type(how.mask) == "string" and lfs.attributes(how.mask, "mode")
    if mode == "directory" then
      local by_name = masks_by_name(how.mask)
      mask_directory = how.mask
      for i, name in ipairs(names) do
        mask_paths[i] = by_name[name]
      end
    elseif mode == "file" then
      mask_paths[1] = how.mask
      for i = #paths, 1, -1 do -- the mask may lie among the frames
        if is_same_file(paths[i], how.mask) then
          table.remove(paths, i)
          table.remove(names, i)
        end
      end
    else
      raise("folder: no such mask: %s", tostring(how.mask))
    end
  end
  if #paths == 0 then
    raise("folder: %s holds no frame (.jpg or .png)", path)
  end
  return new_clip {
    name = how.name or path:match("[^/]+$") or path, names = names, frame_paths = paths, mask_paths = mask_paths,
    mask_directory = mask_directory, object = check_object("folder", how.object), cache = new_cache(how.cache_bytes),
  }
end

return davis
