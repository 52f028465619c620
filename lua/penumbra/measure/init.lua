--- How good masks are: J and F of DAVIS, over a sequence or over folders of masks.
--
--     local score  = pn.measure.sequence(masks, truth)     -- u8 (T,H,W) both; score.J.mean, score.F.recall, ...
--     local result = pn.measure.evaluate{ masks = "out/masks", davis = "davis2016", sequences = { "camel", "goat" } }
--     pn.measure.print(result)
--
-- J is the intersection over the union, F the agreement of the boundaries within 0.8 % of the diagonal. The first frame (it is
-- given) and the last are left out. Mean; recall: the share of frames above 0.5; decay: the mean of the first quarter less that
-- of the last. All values 0-1. Perazzi et al., CVPR 2016.

local ffi = require "ffi"
local lfs = require "lfs"
local binding = require "penumbra.ffi"
local image = require "penumbra.image"
local named = require "penumbra.base.named"
local nearest = require "penumbra.base.nearest"
local published = require "penumbra.measure.published"
local raise = require "penumbra.base.raise"
local sorted_keys = require "penumbra.base.sorted_keys"

local C, check, ptr = binding.C, binding.check, binding.ptr

local measure = {}

--- The tolerance of F, as a share of the diagonal.
measure.tolerance = 0.008

local keys = { "mean", "recall", "decay" }

local function statistics(values, first, n)
  local s = ffi.new "pn_statistics"
  check(C.pn_measure_statistics(s, values + first, n))
  local per_frame = {}
  for i = 1, n do
    per_frame[i] = values[first + i - 1]
  end
  return { mean = s.mean, recall = s.recall, decay = s.decay, per_frame = per_frame }
end

-- J and F of masks against truth, without the first `skip` frames and as many at the end.
local function score(masks, truth, object, tolerance, skip)
  local a, b = ptr(masks, "measure: masks"), ptr(truth, "measure: truth")
  local n = truth:size(1)
  local J, F = ffi.new("double [?]", math.max(n, 1)), ffi.new("double [?]", math.max(n, 1))
  check(C.pn_measure_jaccard(J, a, b, object))
  check(C.pn_measure_boundary(F, a, b, object, tolerance))
  local result = { J = statistics(J, skip, n - 2 * skip), F = statistics(F, skip, n - 2 * skip), frames = n - 2 * skip }
  if skip > 0 then
    result.first = { J = J[0], F = F[0] }
  end
  return result
end

local sequence_options = { object = named.optional, tolerance = measure.tolerance }

local function read_options(what, how)
  how = named(what, how, sequence_options)
  if how.object ~= nil then
    named.whole(what, "object", how.object, 1, 255)
  end
  return how.object or -1, how.tolerance
end

local function need_frames(what, truth)
  if ptr(truth, what) ~= nil and truth:dims() == 3 and truth:size(1) < 3 then
    raise("%s: %d frame%s; the first and the last are left out, so nothing is left to score", what, truth:size(1),
      truth:size(1) == 1 and "" or "s")
  end
end

--- Scores the masks of a sequence.
-- @tparam Tensor masks u8 (T,H,W)
-- @tparam Tensor truth u8 (T,H,W)
-- @tparam ?table how object: the number of the object (default: any value but 0 is object); tolerance of F: a share of the
--   diagonal (0.008), or pixels from 1
-- @treturn table { J = {mean, recall, decay, per_frame}, F = {...}, frames, first = {J, F} }; per_frame begins with the second
--   frame; first is the annotated one, which no mean holds: the first thing to look at when a network learns too little
function measure.sequence(masks, truth, how)
  local object, tolerance = read_options("measure.sequence", how)
  need_frames("measure.sequence", truth)
  return score(masks, truth, object, tolerance, 1)
end

--- What copying the first mask of the truth to every frame scores: the floor to stand above. Options and result as `sequence`.
function measure.copied(truth, how)
  local object, tolerance = read_options("measure.copied", how)
  need_frames("measure.copied", truth)
  local p = ptr(truth)
  local n, h, w = truth:size(1), truth:size(2), truth:size(3)
  local view = binding.out()
  local strides = ffi.new("int64_t [3]", 0, truth:stride(2), truth:stride(3))
  check(C.pn_tensor_view(view, p, 3, ffi.new("int64_t [3]", n, h, w), strides, 0))
  local first = binding.wrap(view[0])
  local result = score(first, truth, object, tolerance, 1)
  first:free()
  return result
end

-- ---- folders of masks ---------------------------------------------------------------------------------------------------

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

--- The means of scores over sequences: { sequences = {name = score}, order = {names}, mean = {J = {...}, F = {...}} }.
-- @tparam {string} order names
-- @tparam table scores name to a result of `sequence`
function measure.summary(order, scores)
  local mean = {}
  for _, which in ipairs { "J", "F" } do
    mean[which] = {}
    for _, key in ipairs(keys) do
      local sum = 0
      for _, name in ipairs(order) do
        sum = sum + scores[name][which][key]
      end
      mean[which][key] = #order > 0 and sum / #order or 0
    end
  end
  return { sequences = scores, order = order, mean = mean }
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
function measure.evaluate(how)
  how = named("measure.evaluate", how, {
    masks = named.required, davis = named.required, sequences = named.optional, resolution = "480p", objects = false,
    tolerance = measure.tolerance, json = named.optional,
  })
  for _, key in ipairs { "masks", "davis" } do
    if type(how[key]) ~= "string" or not is_directory(how[key]) then
      raise("measure.evaluate: %s=%s: no such folder", key, tostring(how[key]))
    end
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
      copied[row[1]] = measure.copied(truth, { object = row[2] > 0 and row[2] or nil, tolerance = how.tolerance })
    end
    inner:free()
    masks:free()
    truth:free()
  end
  local result = measure.summary(order, scores)
  result.baseline = measure.summary(order, copied)
  result.notes = notes
  if how.json then
    measure.write_json(how.json, result)
  end
  return result
end

-- ---- results as text ------------------------------------------------------------------------------------------------------

local function json_number(value)
  return value == value and math.abs(value) ~= math.huge and ("%.9g"):format(value) or "null"
end

local function json_score(s)
  local parts = {}
  for _, which in ipairs { "J", "F" } do
    local fields = {}
    for i, key in ipairs(keys) do
      fields[i] = ('"%s": %s'):format(key, json_number(s[which][key]))
    end
    local frames = s[which].per_frame
    if frames then
      local values = {}
      for i, value in ipairs(frames) do
        values[i] = json_number(value)
      end
      fields[#fields + 1] = ('"per_frame": [%s]'):format(table.concat(values, ", "))
    end
    parts[#parts + 1] = ('"%s": {%s}'):format(which, table.concat(fields, ", "))
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function json_string(text)
  return '"' .. text:gsub('[%c"\\]', function(c)
    return ("\\u%04x"):format(c:byte())
  end) .. '"'
end

-- "name": { rows }, a row a line.
local function json_rows(name, rows)
  return ('  "%s": {%s}'):format(name, #rows > 0 and "\n" .. table.concat(rows, ",\n") .. "\n  " or "")
end

--- A result as JSON: {"sequences": {"camel": {"J": {"mean":, "recall":, "decay":, "per_frame": []}, "F": {...}}, ...},
-- "mean": {...}}, values 0-1; per_frame begins with the second frame. And {"first_frame": {"camel": {"J":, "threshold":}}} where
-- the result has first_frame: of each sequence what infer.segment found there. The mean is left out where there are no sequences.
function measure.json(result)
  local rows, first_rows, parts = {}, {}, {}
  for i, name in ipairs(result.order) do
    rows[i] = ("    %s: %s"):format(json_string(name), json_score(result.sequences[name]))
  end
  for i, name in ipairs(sorted_keys(result.first_frame or {})) do
    local found = result.first_frame[name]
    first_rows[i] = ('    %s: {%s"threshold": %s}'):format(json_string(name),
      found.J and ('"J": %s, '):format(json_number(found.J)) or "", json_number(found.threshold))
  end
  parts[1] = json_rows("sequences", rows)
  parts[#parts + 1] = #rows > 0 and ('  "mean": %s'):format(json_score(result.mean)) or nil
  parts[#parts + 1] = #first_rows > 0 and json_rows("first_frame", first_rows) or nil
  return "{\n" .. table.concat(parts, ",\n") .. "\n}\n"
end

--- Writes a result as JSON; what stood at the path stays whole until the new file is complete.
function measure.write_json(path, result)
  local beside = path .. ".part"
  local file, problem = io.open(beside, "w")
  local written = file and file:write(measure.json(result))
  local closed = file and file:close()
  if not (written and closed and os.rename(beside, path)) then
    os.remove(beside)
    raise("%s: cannot write the scores%s", path, problem and problem:gsub("^.*: ", ": ") or "")
  end
end

local function percent(value)
  return (("%7.1f"):format(100 * value):gsub("%-0%.0$", " 0.0"))
end

--- A result as a table for people, in percent: each sequence beside the first mask copied and, where known, published methods;
-- below, the published means. Returns the text.
function measure.format(result)
  local width = #"mean of 99"
  for _, name in ipairs(result.order) do
    width = math.max(width, #name)
  end
  local beside = {} -- columns to the right: { title, row function }
  if result.baseline then
    beside[#beside + 1] = { "copied", function(name)
      local s = name and result.baseline.sequences[name] or result.baseline.mean
      return s.J.mean, s.F.mean
    end }
  end
  for m, method in ipairs(published.methods) do
    local sum_J, sum_F, n = 0, 0, 0
    for _, name in ipairs(result.order) do
      local row = published.per_sequence[name]
      if row then
        sum_J, sum_F, n = sum_J + row[2 * m - 1], sum_F + row[2 * m], n + 1
      end
    end
    if n > 0 then
      beside[#beside + 1] = { method, function(name)
        if not name then
          if n < #result.order then
            return nil -- a mean over other sequences would mislead
          end
          return sum_J / n, sum_F / n
        end
        local row = published.per_sequence[name]
        if row then
          return row[2 * m - 1], row[2 * m]
        end
      end }
    end
  end

  local lines = {}
  local head, under = { (" "):rep(width), ("%21s"):format "J      ", ("%24s"):format "F      " }, { (" "):rep(width) }
  under[#under + 1] = "   mean recall  decay      mean recall  decay"
  for _, column in ipairs(beside) do
    local title = column[1]
    local left = math.floor((17 - #title) / 2)
    head[#head + 1] = (" "):rep(left + 1) .. title .. (" "):rep(16 - left - #title)
    under[#under + 1] = "        J      F"
  end
  lines[1] = (table.concat(head):gsub("%s+$", ""))
  lines[2] = table.concat(under)
  local function add(label, s, name)
    local line = { label .. (" "):rep(width - #label) }
    line[2] = percent(s.J.mean) .. percent(s.J.recall) .. percent(s.J.decay)
    line[3] = "   " .. percent(s.F.mean) .. percent(s.F.recall) .. percent(s.F.decay)
    for _, column in ipairs(beside) do
      local J, F = column[2](name)
      line[#line + 1] = J and "  " .. percent(J) .. percent(F) or (" "):rep(16)
    end
    lines[#lines + 1] = (table.concat(line):gsub("%s+$", ""))
  end
  for _, name in ipairs(result.order) do
    add(name, result.sequences[name], name)
  end
  if #result.order > 1 then
    lines[#lines + 1] = ("-"):rep(#lines[2])
    add("mean of " .. #result.order, result.mean, nil)
  end

  lines[#lines + 1] = ""
  lines[#lines + 1] = "Percent. Recall: frames above 50; decay: first quarter less last; copied: the first mask in every frame."
  lines[#lines + 1] = "Published means over the 20 validation sequences of DAVIS 2016 (J / F):"
  local line = " "
  for i, row in ipairs(published.means) do
    local entry = ("%s %.1f / %.1f%s"):format(row[1], 100 * row[2], 100 * row[3], i < #published.means and "," or "")
    if #line + 1 + #entry > 110 then
      lines[#lines + 1] = line
      line = " "
    end
    line = line .. " " .. entry
  end
  lines[#lines + 1] = line
  for _, note in ipairs(result.notes or {}) do
    lines[#lines + 1] = "note: " .. note
  end
  return table.concat(lines, "\n") .. "\n"
end

--- Prints `format` of a result.
function measure.print(result)
  io.write(measure.format(result))
end

return measure
