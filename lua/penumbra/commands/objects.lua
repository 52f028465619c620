--- `penumbra objects RECIPE key=value ...`: a recipe on every object that the first mask of a clip marks, one after another, and
-- their masks in one.
--
-- The recipe is one with the keys object and infer, as oneshot; the clip is what its other keys name. Each object is a run of its
-- own, in out/CLIP_NUMBER. A pixel then belongs to the object whose run says so, of several to that which says so with the highest
-- probability. An object that fails is named, and the others go on. Called again with the same out=, what is done stays, what was
-- begun goes on from its checkpoint, what failed is tried again.
--
-- out/: CLIP_NUMBER/ for each run, masks/CLIP (object numbers, in the palette of DAVIS), overlays/CLIP, CLIP.mp4, config.json,
-- run.json, report.html; scores.json, a row an object, where the clip has masks to score against.
-- @module penumbra.commands.objects
local image = require "penumbra.image"
local lfs = require "lfs"
local scope = require "penumbra.scope"
local series = require "penumbra.commands.series"
local tensor = require "penumbra.tensor"
local usage = require "penumbra.base.usage"

local say = series.say

local MOST = 20 -- objects that a mask may mark without being asked: more are the grey edges of a drawing, not objects

local command = {
  name = "objects", varied = "object", instead = "objects=1,2 names those to follow", needs = { "object", "infer" },
  over = "the objects of a mask",
  keys = {
    { "objects", "", "their numbers in the first mask, with commas between; default: all that are there" },
    { "out", "", "directory of the runs; default out/objects-RECIPE-DATE-TIME. One that is there goes on" },
  },
}
local KEEP = "infer.probabilities=true" -- of each run: what decides between them

local function list_of(numbers)
  return table.concat(numbers, ", ", 1, math.min(#numbers, 10)) .. (#numbers > 10 and ", ..." or "")
end

-- The numbers to follow, each of them in the first mask.
local function numbers_of(runs, clip)
  local there, is_there, numbers = image.objects(clip:mask(1)), {}, {}
  for _, number in ipairs(there) do is_there[number] = true end
  for _, word in ipairs(runs:words "objects") do
    local number = tonumber(word)
    if not is_there[number] then
      usage.fail("objects: %s has no object '%s' in its first mask (there: %s)", clip.name, word, list_of(there))
    end
    numbers[#numbers + 1] = number
  end
  if #numbers > 0 then return numbers end
  if #there > MOST then
    usage.fail("objects: the first mask of %s has %d values (%s): are these the grey edges of a drawing? objects=1,2 names those "
      .. "to follow", clip.name, #there, list_of(there))
  end
  return there
end

-- ---- one experiment ----------------------------------------------------------------------------------------------------------

local Objects = {}
Objects.__index = Objects

function Objects:folder(number) return ("%s_%d"):format(self.clip.name, number) end

-- Where the run of an object leaves frame i: its mask and its probability.
function Objects:paths(number, i)
  local path = "%s/%s/%s/%s/%s.png"
  local run, clip = self:folder(number), self.clip
  return path:format(self.dir, run, "masks", clip.name, clip:frame_name(i)),
    path:format(self.dir, run, "probabilities", clip.name, clip:frame_name(i))
end

-- What the run of an object still lacks: a path, or nil.
function Objects:lacks(number)
  for i = 1, self.clip.n_frames do
    local mask, probability = self:paths(number, i)
    for _, path in ipairs { mask, probability } do
      if lfs.attributes(path, "mode") ~= "file" then return path end
    end
  end
end

-- Learns and segments one object. An error is told; one that ends the program (Ctrl-C, a mistake of usage) goes on.
function Objects:run(number)
  local ok, problem = self.runs:run(self:folder(number), KEEP, "object=" .. number)
  if type(problem) == "table" then
    if problem.code == 130 then self.runs:go_on() end
    error(problem, 0)
  end
  local lacking = ok and self:lacks(number)
  if lacking then
    problem = lacking .. ": the recipe did not write it; run:finish(masks, clip, probabilities) does"
  end
  if problem then
    self.failures[#self.failures + 1] = number
    say("object %d: failed: %s", number, tostring(problem))
  end
end

-- One mask of them all, u8 (H,W): object numbers.
function Objects:frame(i)
  local h, w = self.clip.height, self.clip.width
  local all, best = tensor.zeros { h, w, dtype = "u8" }, tensor.zeros { h, w, dtype = "u8" }
  local to, most = all:data(), best:data()
  for _, number in ipairs(self.numbers) do
    scope.run(function()
      local mask_path, probability_path = self:paths(number, i)
      local mask, probability = image.read_mask(mask_path), image.read(probability_path, { channels = 1 })
      local is_object, chance = mask:data(), probability:data()
      for p = 0, h * w - 1 do
        if is_object[p] ~= 0 and (to[p] == 0 or chance[p] > most[p]) then
          to[p], most[p] = number, chance[p]
        end
      end
    end)
  end
  return all
end

--- u8 (T,H,W): the masks of all objects.
function Objects:merged()
  local clip = self.clip
  local masks = tensor.empty { clip.n_frames, clip.height, clip.width, dtype = "u8" }
  for i = 1, clip.n_frames do
    scope.run(function() image.frame(masks, i):copy(self:frame(i)) end)
  end
  return masks
end

-- The scores of each object, where the clip has masks of the frames that count.
function Objects:scores(masks)
  local measure, clip = require "penumbra.measure", self.clip
  for i = 2, clip.n_frames - 1 do
    if not clip:has_mask(i) then return nil end
  end
  if clip.n_frames < 3 then return nil end
  local truth, order, scores, copied = clip:masks(), {}, {}, {}
  for i, number in ipairs(self.numbers) do
    local name = self:folder(number)
    order[i] = name
    scores[name] = measure.sequence(masks, truth, { object = number })
    copied[name] = measure.copied(truth, { object = number })
  end
  truth:free()
  local result = measure.summary(order, scores)
  result.baseline = measure.summary(order, copied)
  measure.write_json(self.dir .. "/scores.json", result)
  return result
end

--- @tparam table arguments of the command
-- @tparam function find path of a recipe or script by its name; fails with the nearest
-- @tparam function run_file runs a script with a list of arguments
local function run(arguments, find, run_file)
  local runs, code = series.asked(command, arguments, find, run_file)
  if not runs then return code end
  local cfg = runs:resolve(KEEP)

  local pn, results = require "penumbra", require "penumbra.run.results"
  local clip = pn.data.clip(setmetatable({ object = "all" }, { __index = cfg }))
  local self = setmetatable({ clip = clip, runs = runs, failures = {} }, Objects)
  self.numbers = numbers_of(runs, clip)
  self.dir = runs:open {}

  for i, number in ipairs(self.numbers) do
    local done = not self:lacks(number)
    say("[%d of %d] object %d of %s%s", i, #self.numbers, number, clip.name, done and ": done before" or "")
    if not done then self:run(number) end
  end
  runs:fail(self.failures, #self.numbers, "objects")
  local masks = self:merged()
  local place = { dir = self.dir, seed = cfg.seed, config_text = tostring(cfg), result = self:scores(masks) }
  results.save_masks(place, masks, clip)
  results.report(place)
  if place.result then pn.measure.print(place.result) end
end

return { run = run }
