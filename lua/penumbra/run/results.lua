--- What comes of the masks of a clip: PNGs, overlays, a video, scores and a report, in the directory of a run.
--
-- A place says where: dir, seed, epoch, config_text, quiet, and, once something is scored, scores. It is plain data, so that a
-- worker can do all this beside what follows: `results.beside(pool)` opens a queue for that, which run:finish then uses.
-- Where a clip says how it was segmented (`clip.found`, the third result of infer.segment), scores.json has it under first_frame.
-- @module penumbra.run.results
local ffi = require "ffi"
local files = require "penumbra.base.files"
local measure = require "penumbra.measure"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"
local tensor = require "penumbra.tensor"

local SAVED_TOGETHER = 8 -- frames in memory while masks and overlays are written

local results = {}

local function say(place, format, ...)
  if place.quiet then return end
  local line = format:format(...)
  if place.lines then
    place.lines[#place.lines + 1] = line
  else
    io.stderr:write(line, "\n")
  end
end

local function check_frames(what, name, frames)
  if not scope.is_tensor(frames) or frames:dims() ~= 3 or frames:dtype() ~= "u8" then
    raise("%s: expects %s u8 (T,H,W), got %s", what, name, scope.is_tensor(frames) and tostring(frames) or type(frames))
  end
end

local function check_masks(what, masks, clip, probabilities)
  check_frames(what, "masks", masks)
  if probabilities ~= nil then
    check_frames(what, "probabilities", probabilities)
    local its_shape, shape = table.concat(probabilities:shape(), ","), table.concat(masks:shape(), ",")
    if its_shape ~= shape then raise("%s: probabilities are %s, the masks %s", what, its_shape, shape) end
  end
  if type(clip) ~= "table" or type(clip.frame) ~= "function" then raise("%s: expects a clip, got %s", what, type(clip)) end
  if masks:size(1) ~= clip.n_frames or masks:size(2) ~= clip.height or masks:size(3) ~= clip.width then
    raise("%s: masks are %s, the clip %s is %d,%d,%d", what, table.concat(masks:shape(), ","), clip.name, clip.n_frames,
      clip.height, clip.width)
  end
end

local function directory(place, ...)
  local path = table.concat({ place.dir, ... }, "/")
  local problem = files.make_directory(path)
  if problem then raise("%s", problem) end
  return path
end

local function save_probabilities(place, probabilities, clip)
  local folder, paths = directory(place, "probabilities", clip.name), {}
  for i = 1, clip.n_frames do paths[i] = ("%s/%s.png"):format(folder, clip:frame_name(i)) end
  require("penumbra.image").write_frames(paths, probabilities, { palette = false })
  say(place, "certainty %s", folder)
end

--- See run:save_masks.
-- @tparam table place
-- @param masks u8 (T,H,W)
-- @tparam table clip
-- @param probabilities ?tensor u8 (T,H,W)
-- @return masks
function results.save_masks(place, masks, clip, probabilities)
  check_masks("run:save_masks", masks, clip, probabilities)
  local image = require "penumbra.image"
  local mask_dir, overlay_dir = directory(place, "masks", clip.name), directory(place, "overlays", clip.name)
  local n, done = clip.n_frames, 0
  local function save(first) -- some at a time, by all threads; gives the overlays
    local count = math.min(SAVED_TOGETHER, n - first + 1)
    local some = masks:slice { axis = 1, first = first, count = count }
    local looks = tensor.empty { count, masks:size(2), masks:size(3), 3, dtype = "u8" }
    local mask_paths, look_paths, bytes = {}, {}, looks:count() / count
    for k = 1, count do
      local name = clip:frame_name(first + k - 1) .. ".png"
      mask_paths[k], look_paths[k] = mask_dir .. "/" .. name, overlay_dir .. "/" .. name
      local look = image.overlay(clip:frame(first + k - 1), image.frame(masks, first + k - 1))
      ffi.copy(looks:data() + (k - 1) * bytes, look:data(), bytes)
    end
    image.write_frames(mask_paths, some)
    image.write_frames(look_paths, looks)
    done = first + count - 1
    return looks
  end
  local looks, first
  local function look(i) -- what is written goes on to the video
    if i > n then return nil end
    if i > done then
      if looks then looks:free() end
      first, looks = i, scope.run(save, i)
    end
    return image.frame(looks, i - first + 1)
  end
  local video = require "penumbra.video"
  local has_video, ok, path = video.available()
  if has_video then
    ok, path = pcall(video.write, { path = place.dir .. "/" .. clip.name .. ".mp4", frames = look })
  end
  while done < n do -- without a video, or when it failed: no reason to lose the masks
    scope.run(function() save(done + 1) end)
  end
  if looks then looks:free() end
  say(place, "masks     %s", mask_dir)
  say(place, "overlays  %s", overlay_dir)
  if probabilities then save_probabilities(place, probabilities, clip) end
  if has_video then say(place, "video     %s", ok and path or (tostring(path):gsub("^%S+%.lua:%d+: ", ""))) end
  return masks
end

--- See run:report.
function results.report(place)
  local path = require("penumbra.run.report").write(place)
  say(place, "report    %s", path)
  return path
end

-- scores.json: of all clips scored, and what is known of their first frames.
local function write_scores(place)
  local result = place.result or { order = {} }
  result.first_frame = place.first_frame
  measure.write_json(place.dir .. "/scores.json", result)
end

-- Takes note of how a clip was segmented.
local function note_found(place, clip)
  if type(clip.found) == "table" then
    place.first_frame = place.first_frame or {}
    place.first_frame[clip.name] = { J = clip.found.first_j, threshold = clip.found.threshold }
  end
end

-- Adds a clip to the scores of a place; nil where there is nothing to score against.
local function add_scores(place, masks, clip)
  if place.first_frame then write_scores(place) end
  for i = 2, clip.n_frames - 1 do
    if not clip:has_mask(i) then return say(place, "%s: frame %d has no mask: nothing to score against", clip.name, i) end
  end
  if clip.n_frames < 3 then
    return say(place, "%s: %d frame(s): the first and the last are left out, so nothing is left to score", clip.name, clip.n_frames)
  end
  local truth = clip:masks()
  local all = place.scores or { order = {}, scores = {}, copied = {} }
  if not all.scores[clip.name] then all.order[#all.order + 1] = clip.name end
  all.scores[clip.name] = measure.sequence(masks, truth)
  all.copied[clip.name] = measure.copied(truth)
  truth:free()
  place.scores = all
  place.result = measure.summary(all.order, all.scores)
  place.result.baseline = measure.summary(all.order, all.copied)
  write_scores(place)
  return all.scores[clip.name]
end

local function print_scores(place, masks, clip)
  note_found(place, clip)
  local score = add_scores(place, masks, clip)
  if score and not place.quiet then measure.print(place.result) end
  return score
end

--- See run:score.
function results.score(place, masks, clip)
  check_masks("run:score", masks, clip)
  local score = print_scores(place, masks, clip)
  results.report(place)
  return score
end

-- ---- beside what follows -----------------------------------------------------------------------------------------------------

--- What a worker runs; gives the scores and what it had to say. `module`, `name`, ... make the clip again.
function results.work(place, masks, probabilities, module, name, ...)
  local clip = require(module)[name](...)
  place.lines = {}
  add_scores(place, masks, clip)
  results.save_masks(place, masks, clip, probabilities)
  results.report(place)
  return place.scores, place.lines
end

local queue -- where run:finish sends its work; nil: it is done at once

local Beside = {}
Beside.__index = Beside

--- Opens the queue: from here on run:finish returns at once.
-- @tparam Pool pool of penumbra.worker
-- @treturn Beside
function results.beside(pool)
  queue = setmetatable({ pool = pool, jobs = {} }, Beside)
  return queue
end

-- Takes what a job gave. Its place then holds the scores, or `problem`.
local function take(self, job)
  self.jobs[job] = nil
  local ok, scores, lines = pcall(self.pool.collect, self.pool, job.ticket)
  job.masks:free()
  if job.probabilities then job.probabilities:free() end
  job.place.scores, job.place.lines, job.place.problem = ok and scores or nil, ok and lines or {}, not ok and scores or nil
  return job.place
end

--- The places whose work is done by now; all of them, waited for, when `wait` is given.
-- @tparam ?boolean wait
-- @treturn {table} places, in the order of their directories: scores, lines (what there is to say), problem (nil, or an error)
function Beside:collect(wait)
  local done = {}
  for job in pairs(self.jobs) do
    if wait or self.pool:is_done(job.ticket) then done[#done + 1] = take(self, job) end
  end
  table.sort(done, function(a, b) return a.dir < b.dir end)
  return done
end

--- Closes the queue; what was not collected is dropped.
function Beside:close()
  if queue == self then queue = nil end
  self.pool:close()
end

--- See run:finish. Numbers are written before pictures, for which there may be no room.
function results.finish(place, masks, clip, probabilities)
  check_masks("run:finish", masks, clip, probabilities)
  if not queue or not clip.made_by then
    local score = print_scores(place, masks, clip)
    results.save_masks(place, masks, clip, probabilities)
    results.report(place)
    return score
  end
  note_found(place, clip)
  for job in pairs(queue.jobs) do -- a place with several clips: one after the other, for they share its scores
    if job.place == place and take(queue, job).problem then raise("%s", place.problem) end
  end
  masks, probabilities = masks:detach():keep(), probabilities and probabilities:detach():keep()
  local ticket = queue.pool:submit("penumbra.run.results", "work", place, masks, probabilities, clip:made_by())
  local job = { ticket = ticket, place = place, masks = masks, probabilities = probabilities, clip = clip }
  queue.jobs[job] = true -- whose pictures stay for the worker
end

return results
