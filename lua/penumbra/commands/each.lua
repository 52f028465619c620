--- `penumbra each RECIPE key=value ...`: a recipe on every sequence of a set, one after another; one table of scores at the end.
--
-- The recipe is one with the keys davis and sequence, as oneshot. Each sequence is a run of its own, in out/NAME. While one is
-- learnt, workers write and score the masks of the one before (run:finish). A sequence that fails is named, and the others go on.
-- Called again with the same out=, what is done stays, what was begun goes on from its checkpoint, what failed is tried again.
--
-- out/: NAME/ for each run, masks/NAME (what DAVIS expects, for `penumbra evaluate` too), overlays/NAME, config.json, run.json,
-- scores.json of all that is done so far; at the end (or at Ctrl-C) report.html.
-- @module penumbra.commands.each
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local lfs = require "lfs"
local progress = require "penumbra.run.progress"
local scope = require "penumbra.scope"
local series = require "penumbra.commands.series"
local usage = require "penumbra.base.usage"

local say = series.say

local command = {
  name = "each", varied = "sequence", instead = "sequences=a,b or set=NAME", needs = { "davis", "sequence" },
  over = "the sequences of a set",
  keys = {
    { "set", "val", "whose sequences: a set of the tree" },
    { "sequences", "", "or these, with commas between" },
    { "out", "", "directory of the runs; default out/each-RECIPE-DATE-TIME. One that is there goes on" },
  },
}

-- The names to run, each of them there and sound.
local function names_of(runs, dataset)
  local names, set = runs:words "sequences", runs.keys.set or "val"
  if #names == 0 then
    names = dataset:sequences(set)
    local present, missing = {}, {}
    for _, name in ipairs(dataset:sequences()) do present[name] = true end
    for _, name in ipairs(names) do
      if not present[name] then missing[#missing + 1] = name end
    end
    if #missing > 0 then
      usage.fail("each: %s has %d of the %d sequences of set %s; missing: %s. sequences=a,b names those to run", dataset.root,
        #names - #missing, #names, set, table.concat(missing, ", "))
    end
  end
  for _, name in ipairs(names) do dataset:sequence(name) end
  return names
end

-- The row of a run that is done; nil for one that is not.
local function row_of(dir, name)
  local scores = json.decode(files.read(("%s/%s/scores.json"):format(dir, name)) or "null")
  return scores and scores.sequences and scores.sequences[name]
end

local function percent(row) return ("J %.1f  F %.1f"):format(100 * row.J.mean, 100 * row.F.mean) end

-- masks/NAME and overlays/NAME of the whole, which lie in the run.
local function link(dir, name)
  for _, what in ipairs { "masks", "overlays" } do
    local path = ("%s/%s/%s"):format(dir, what, name)
    if not lfs.symlinkattributes(path) then lfs.link(("../%s/%s/%s"):format(name, what, name), path, true) end
  end
end

-- ---- one experiment --------------------------------------------------------------------------------------------------------

local Each = {}
Each.__index = Each

-- Writes the scores of what is done so far, and gives them as measure.summary does; nil where nothing is.
function Each:scores()
  local measure = require "penumbra.measure"
  local order = {}
  for _, name in ipairs(self.names) do
    if self.rows[name] then order[#order + 1] = name end
  end
  if #order == 0 then return nil end
  local result = measure.summary(order, self.rows)
  measure.write_json(self.dir .. "/scores.json", result)
  return result
end

-- The page of what is done so far; gives the scores, with the baseline beside them.
function Each:report()
  local measure, results = require "penumbra.measure", require "penumbra.run.results"
  local result = self:scores()
  if not result then return nil end
  for _, name in ipairs(result.order) do
    self.copied[name] = self.copied[name] or scope.run(function() return measure.copied(self.dataset:sequence(name):masks()) end)
  end
  result.baseline = measure.summary(result.order, self.copied)
  results.report { dir = self.dir, seed = self.cfg.seed, config_text = tostring(self.cfg), result = result, quiet = true }
  return result
end

function Each:failed(name, problem)
  self.failures[#self.failures + 1] = name
  say("%s: failed: %s", name, tostring(problem))
end

-- Takes what workers have done.
function Each:collect(wait)
  for _, place in ipairs(self.beside:collect(wait)) do
    local name = place.dir:match "([^/]+)$"
    if place.problem then
      self:failed(name, place.problem)
    elseif place.scores then
      self.rows[name], self.copied[name] = place.scores.scores[name], place.scores.copied[name]
      say("%s: %s", name, percent(self.rows[name]))
    else
      for _, line in ipairs(place.lines) do say("%s", line) end
    end
    link(self.dir, name)
    self:scores()
  end
end

-- Learns and segments one sequence. An error is told; one that ends the program (Ctrl-C, a mistake of usage) goes on.
function Each:run(i, name)
  say("[%d of %d] %s", i, #self.names, name)
  local ok, problem = self.runs:run(name, "sequence=" .. name)
  if ok then return end
  if type(problem) == "table" then
    self:collect(true)
    if problem.code == 130 then
      self:report()
      self.runs:go_on()
    end
    error(problem, 0)
  end
  self:failed(name, problem)
end

--- @tparam table arguments of the command
-- @tparam function find path of a recipe or script by its name; fails with the nearest
-- @tparam function run_file runs a script with a list of arguments
local function run(arguments, find, run_file)
  local runs, code = series.asked(command, arguments, find, run_file)
  if not runs then return code end
  local recipe = runs.rest[0]
  local cfg = runs:resolve("sequence=" .. recipe) -- any: it is another in each run
  if cfg.video then usage.fail("each: video= is one clip, not the sequences of a set: penumbra %s video=%s", recipe, cfg.video) end

  local pn = require "penumbra"
  local object = type(cfg.object) == "number" and cfg.object > 0 and cfg.object or nil
  local dataset = pn.data.davis(cfg.davis, { object = object })
  local self = setmetatable({ cfg = cfg, runs = runs, dataset = dataset, rows = {}, copied = {}, failures = {} }, Each)
  self.names = names_of(runs, dataset)
  self.dir = runs:open { "masks", "overlays" }
  local n_workers = math.max(1, pn.worker.default(pn.device.choose(cfg.device)))
  self.beside = require("penumbra.run.results").beside(pn.worker.pool(n_workers))

  local began, n_run = pn.clock(), 0
  for i, name in ipairs(self.names) do
    self.rows[name] = row_of(self.dir, name)
    if self.rows[name] then
      say("[%d of %d] %s: done before, %s", i, #self.names, name, percent(self.rows[name]))
    else
      n_run = n_run + 1
      self:run(i, name)
      self:collect()
    end
  end
  self:collect(true)
  self.beside:close()
  local result = self:report()
  if result then pn.measure.print(result) end
  say("%d sequence%s in %s: %s/report.html", n_run, n_run == 1 and "" or "s", progress.duration(pn.clock() - began), self.dir)
  runs:fail(self.failures, #self.names, "sequences")
end

return { run = run }
