--- Folders of masks scored against a DAVIS tree.
-- @module penumbra.measure.folders
local ffi = require "ffi"
local lfs = require "lfs"
local binding = require "penumbra.ffi"
local image = require "penumbra.image"
local named = require "penumbra.base.named"
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local score = require "penumbra.measure.score"
local sequence = require "penumbra.measure.sequence"
local text = require "penumbra.measure.text"

local C, check, ptr = binding.C, binding.check, binding.ptr

local folders = {}

local function is_directory(path)
  return lfs.attributes(path, "mode") == "directory"
end

local function directories(path)
  local names = {}
  for name in lfs.dir(path) do
    if name:sub(1, 1) ~= "." and is_directory(path .. "/" .. name) then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

-- Where the masks of the truth lie: ROOT/Annotations/<resolution>, or ROOT/Annotations itself.
local function annotations(root, resolution)
  local top = root .. "/Annotations"
  if not is_directory(top) then
    raise("measure.evaluate: %s: no folder Annotations there; is it the root of a DAVIS data set?", root)
  end
  if is_directory(top .. "/" .. resolution) then
    return top .. "/" .. resolution
  end
  if #image.files(top) == 0 then
    for _, name in ipairs(directories(top)) do
      if #image.files(top .. "/" .. name, "png") > 0 then
        return top
      end
    end
  end
  raise("measure.evaluate: %s: no folder %s there", top, resolution)
end

local function listed(names, most)
  local shown = {}
  for i = 1, math.min(#names, most) do
    shown[i] = names[i]
  end
  return table.concat(shown, ", ") .. (#names > most and ", ..." or "")
end

-- The masks and the truth of one sequence, from the second frame to the last but one; the truth's first mask too.
local function read_sequence(name, masks_directory, truth_directory, notes)
  local truth_paths, truth_names = image.files(truth_directory, "png")
  if #truth_paths < 3 then
    raise("measure.evaluate: %s: %d frame%s; the first and the last are left out, so nothing is left to score", truth_directory,
      #truth_paths, #truth_paths == 1 and "" or "s")
  end
  if not is_directory(masks_directory) then
    raise("measure.evaluate: %s: no such folder; the masks of sequence %s are missing", masks_directory, name)
  end
  local _, found = image.files(masks_directory, "png")
  local present, wanted = {}, {}
  for _, file in ipairs(found) do
    present[file] = true
  end
  for _, file in ipairs(truth_names) do
    wanted[file] = true
  end
  local extra = {}
  for _, file in ipairs(found) do
    if not wanted[file] then
      extra[#extra + 1] = file .. ".png"
    end
  end
  if #extra > 0 then
    notes[#notes + 1] = ("%s: %d file%s not of the sequence, left out: %s"):format(masks_directory, #extra,
      #extra == 1 and "" or "s", listed(extra, 4))
  end
  local mask_paths, inner = {}, {}
  local missing = {}
  for i = 2, #truth_paths - 1 do
    local path = masks_directory .. "/" .. truth_names[i] .. ".png"
    if not present[truth_names[i]] then
      missing[#missing + 1] = path
    end
    mask_paths[#mask_paths + 1], inner[#inner + 1] = path, truth_paths[i]
  end
  if #missing > 0 then
    raise("measure.evaluate: %s: no such mask%s", missing[1],
      #missing > 1 and (" (%d of %d are missing)"):format(#missing, #mask_paths) or "")
  end
  for i, path in ipairs(mask_paths) do
    local h, w = image.size(path)
    local truth_h, truth_w = image.size(inner[i])
    if h ~= truth_h or w ~= truth_w then
      raise("measure.evaluate: %s is %d x %d (height x width), but %s is %d x %d", path, h, w, inner[i], truth_h, truth_w)
    end
  end
  return image.read_masks(mask_paths), image.read_masks(truth_paths)
end

-- Frames 2..T-1 of masks (T,H,W), sharing their memory.
local function inner_frames(masks)
  local size, stride = ffi.new "int64_t [3]", ffi.new "int64_t [3]"
  for i = 1, 3 do
    size[i - 1], stride[i - 1] = masks:size(i), masks:stride(i)
  end
  size[0] = size[0] - 2
  local view = binding.out()
  check(C.pn_tensor_view(view, ptr(masks), 3, size, stride, masks:stride(1)))
  return binding.wrap(view[0])
end

-- The object numbers that stand anywhere in masks, in order.
local function numbers_in(masks)
  local data, is_there, numbers = masks:data(), {}, {}
  for i = 0, masks:count() - 1 do
    is_there[data[i]] = true
  end
  for number = 1, 255 do
    numbers[#numbers + 1] = is_there[number] and number or nil
  end
  return numbers
end

local function names_of(what)
  if type(what) == "string" then
    local names = {}
    for name in what:gmatch "[^,%s]+" do
      names[#names + 1] = name
    end
    return names
  end
  if type(what) ~= "table" then
    raise("measure.evaluate: sequences expects a list of names, got a %s", type(what))
  end
  return what
end

--- Scores folders of masks against DAVIS.
-- @tparam table how masks: the folder that holds a folder for each sequence (PNG; 0/255 or palette); davis: the root of the data
--   set; sequences: a list, or names with commas between (default: every folder of masks); resolution = "480p";
--   objects = true scores each object by itself (rows `name_1`, `name_2`, ..., as DAVIS 2017) instead of all as one;
--   tolerance = 0.008; json: a file to write
-- @treturn table sequences, order, mean as `summary`; baseline: the same for the first mask copied; notes: a list of strings
function folders.evaluate(how)
  how = named("measure.evaluate", how, {
    masks = named.required, davis = named.required, sequences = named.optional, resolution = "480p", objects = false,
    tolerance = sequence.tolerance, json = named.optional,
  })
  for _, key in ipairs { "masks", "davis" } do
    if type(how[key]) ~= "string" or not is_directory(how[key]) then
      raise("measure.evaluate: %s=%s: no such folder", key, tostring(how[key]))
    end
  end
  if how.json then
    text.check_path(how.json)
  end
  local truth_root = annotations(how.davis, how.resolution)
  local known = directories(truth_root)
  local is_known = {}
  for _, name in ipairs(known) do
    is_known[name] = true
  end
  local names, notes = how.sequences and names_of(how.sequences) or {}, {}
  if #names == 0 then
    local unknown = {}
    for _, name in ipairs(directories(how.masks)) do
      local list = is_known[name] and names or unknown
      list[#list + 1] = name
    end
    if #unknown > 0 then
      notes[#notes + 1] = ("%s: %d folder%s not of the data set, left out: %s"):format(how.masks, #unknown,
        #unknown == 1 and "" or "s", listed(unknown, 4))
    end
    if #names == 0 then
      raise("measure.evaluate: %s: no folder there has the name of a sequence of %s", how.masks, truth_root)
    end
  end
  for _, name in ipairs(names) do
    if not is_known[name] then
      raise("measure.evaluate: no sequence '%s' in %s%s", name, truth_root, nearest.hint(name, known))
    end
  end

  local order, scores, copied = {}, {}, {}
  for _, name in ipairs(names) do
    local masks, truth = read_sequence(name, how.masks .. "/" .. name, truth_root .. "/" .. name, notes)
    local inner = inner_frames(truth)
    local rows = { { name, -1 } }
    if how.objects then
      rows = {}
      for i, object in ipairs(numbers_in(truth)) do
        rows[i] = { ("%s_%d"):format(name, object), object }
      end
    end
    for _, row in ipairs(rows) do
      order[#order + 1] = row[1]
      scores[row[1]] = score(masks, inner, row[2], how.tolerance, 0)
      copied[row[1]] = sequence.copied(truth, { object = row[2] > 0 and row[2] or nil, tolerance = how.tolerance })
    end
    inner:free()
    masks:free()
    truth:free()
  end
  local result = sequence.summary(order, scores)
  result.baseline = sequence.summary(order, copied)
  result.notes = notes
  if how.json then
    text.write_json(how.json, result)
  end
  return result
end

return folders
