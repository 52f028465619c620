--- Runs beside each other: what their keys differ in, and what that was worth.
--
--     local runs = pn.compare.read { "out/ablate" }           -- directories of runs, of `each`, or folders of them
--     local found = pn.compare.settings(runs)
--     print(pn.compare.format(found))
--
-- Runs that differ in nothing but seed and sequence are one setting. What is compared are the sequences that every setting has; the
-- score of a sequence is the mean over its runs there. ± is the standard error that the spread over runs of the same sequence
-- leaves in the mean over sequences: how far another set of seeds would move it, and not how far another set of sequences would.
-- @module penumbra.compare
local config = require "penumbra.config"
local config_text = require "penumbra.config.text"
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local lfs = require "lfs"
local natural = require "penumbra.base.natural"
local progress = require "penumbra.run.progress"
local raise = require "penumbra.base.raise"
local sorted_keys = require "penumbra.base.sorted_keys"

local compare = {}

local WIDEST = 28 -- of a value in the table, characters
local LAST_SHARE = 0.1 -- of a run's steps, whose mean loss is told

-- ---- what a run left ----------------------------------------------------------------------------------------------------------

-- What makes no setting: where a run lies and how fast it goes, and what it is repeated over.
local apart = {
  out = true, resume = true, threads = true, workers = true, ahead = true, checkpoint_every = true, seed = true, sequence = true,
  video = true, mask = true, object = true,
}

local function decoded(path)
  local text = files.read(path)
  if not text then return nil end
  local value, problem = json.decode(text)
  if type(value) ~= "table" then raise("compare: %s: %s", path, problem or "expects an object") end
  return value
end

-- Key -> text. The recipe's own files are keys as well: what was edited there is in no other.
local function setting_of(config_read, record)
  local keys = { recipe = record.recipe }
  for path, value in pairs(config.flat(config_read)) do
    if type(value) == "table" then value = value.text or value["function"] or value end
    if not apart[path] then keys[path] = config_text.value(value) end
  end
  local sessions = record.sessions or {}
  local last = sessions[#sessions] or {}
  for _, file in ipairs(last.source or {}) do keys["source of " .. file.file] = file.sha256:sub(1, 7) end
  return keys, last.commit
end

-- Epochs done, the mean loss of the last tenth of the steps, seconds of training; nil where nothing was logged.
local function training_of(dir)
  local handle = io.open(dir .. "/log.jsonl", "r")
  if not handle then return {} end
  local losses, epoch, seconds, before = {}, nil, 0, 0
  for line in handle:lines() do
    local row = json.decode(line)
    if type(row) == "table" and type(row.epoch) == "number" then -- the last line of a run that is going on may be half of one
      epoch = row.epoch
      losses[#losses + 1] = type(row.loss) == "number" and row.loss or 0 / 0
      local now = tonumber(row.seconds) or before
      seconds, before = seconds + (now >= before and now - before or now), now -- counted anew by each session
    end
  end
  handle:close()
  if #losses == 0 then return {} end
  local first, sum = math.min(#losses, math.floor(#losses * (1 - LAST_SHARE)) + 1), 0
  for i = first, #losses do sum = sum + losses[i] end
  return { epoch = epoch, loss = sum / (#losses - first + 1), losses = losses, seconds = seconds }
end

local function read_run(dir)
  local record = decoded(dir .. "/run.json") or {}
  local given, scores = decoded(dir .. "/config.json"), decoded(dir .. "/scores.json")
  local keys, commit = setting_of(given, record)
  local run = { dir = dir, keys = keys, commit = commit, seed = given.seed, epochs = tonumber(given.epochs), scores = {} }
  for name, value in pairs(training_of(dir)) do run[name] = value end
  for name, row in pairs(scores and scores.sequences or {}) do
    run.scores[name] = { J = row.J.mean, F = row.F.mean }
  end
  return run
end

-- A run has a checkpoint of its own or a log; a directory of `each` has runs in it.
local function is_run(dir)
  return files.exists(dir .. "/config.json")
    and (files.exists(dir .. "/log.jsonl") or files.exists(dir .. "/checkpoint.safetensors"))
end

local function find(dir, depth, into)
  if is_run(dir) then
    into[#into + 1] = dir
  elseif depth > 0 then
    local names = {}
    for name in lfs.dir(dir) do
      local is_directory = lfs.symlinkattributes(dir .. "/" .. name, "mode") == "directory"
      if is_directory and name:sub(1, 1) ~= "." then names[#names + 1] = name end
    end
    natural.sort(names)
    for _, name in ipairs(names) do find(dir .. "/" .. name, depth - 1, into) end
  end
  return into
end

--- What runs left of themselves.
-- @tparam {string} dirs of runs, of `each`, or folders of either
-- @treturn {table} dir; keys, its setting as texts; seed; scores: sequence -> { J, F }, 0-1; epochs, epoch, loss, losses, seconds
--   where they are known; in the order of dirs, by name within one
-- Fails where a directory is none, or has no run in it, or a record cannot be read.
function compare.read(dirs)
  local runs, seen = {}, {}
  for _, dir in ipairs(dirs) do
    dir = dir:gsub("(.)/+$", "%1")
    if not files.exists(dir, "directory") then raise("compare: no directory '%s'", dir) end
    local found = find(dir, 2, {})
    if #found == 0 then
      raise("compare: %s holds no run: none of its directories has a config.json and a log or checkpoint", dir)
    end
    for _, path in ipairs(found) do
      if not seen[path] then
        seen[path] = true
        runs[#runs + 1] = read_run(path)
      end
    end
  end
  return runs
end

-- ---- settings -------------------------------------------------------------------------------------------------------------------

-- The keys in which runs differ, sorted, and how many they have in common.
local function differing(runs)
  local all, differ, same = {}, {}, 0
  for _, run in ipairs(runs) do
    for key in pairs(run.keys) do all[key] = true end
  end
  for _, key in ipairs(sorted_keys(all)) do
    local one = runs[1].keys[key]
    local equal = true
    for _, run in ipairs(runs) do equal = equal and run.keys[key] == one end
    if equal then same = same + 1 else differ[#differ + 1] = key end
  end
  return differ, same
end

local function mean_and_variance(values)
  local sum, square = 0, 0
  for _, value in ipairs(values) do sum = sum + value end
  local mean = sum / #values
  for _, value in ipairs(values) do square = square + (value - mean) ^ 2 end
  return mean, #values > 1 and square / (#values - 1) or nil
end

-- Of a setting: sequence -> { J, F, n, and the variance of each mean where there are several runs }.
local function sequences_of(setting)
  local lists = {}
  for _, run in ipairs(setting.runs) do
    for name, score in pairs(run.scores) do
      lists[name] = lists[name] or { J = {}, F = {} }
      table.insert(lists[name].J, score.J)
      table.insert(lists[name].F, score.F)
    end
  end
  local result = {}
  for name, list in pairs(lists) do
    local row = { n = #list.J, variance = {} }
    for _, which in ipairs { "J", "F" } do
      local mean, variance = mean_and_variance(list[which])
      row[which], row.variance[which] = mean, variance and variance / row.n
    end
    result[name] = row
  end
  return result
end

-- The mean over some sequences, with its standard error where each of them has several runs.
local function mean_over(names, sequences)
  local result = { error = {} }
  for _, which in ipairs { "J", "F" } do
    local sum, variance = 0, 0
    for _, name in ipairs(names) do
      local row = sequences[name]
      sum = sum + row[which]
      variance = variance and row.variance[which] and variance + row.variance[which]
    end
    result[which] = sum / #names
    result.error[which] = variance and math.sqrt(variance) / #names
  end
  return result
end

--- Runs by setting.
-- @tparam {table} runs of `read`
-- @treturn table differ: the keys that differ; same: how many do not; sequences: the names that all settings with scores have, in
--   natural order; settings, in the order of their first runs: name (A, B, ...), keys, runs, sequences: name -> { J, F, n }; mean
--   { J, F, error } over the common sequences, where there are some
function compare.settings(runs)
  local differ, same = differing(runs)
  local found, by_text = { differ = differ, same = same, settings = {}, sequences = {} }, {}
  for _, run in ipairs(runs) do
    local parts = {}
    for i, key in ipairs(differ) do parts[i] = run.keys[key] or "\0" end
    local text = table.concat(parts, "\1")
    if not by_text[text] then
      local n = #found.settings
      local name = string.char(65 + n % 26) .. (n >= 26 and tostring(math.floor(n / 26)) or "")
      by_text[text] = { name = name, keys = run.keys, runs = {} }
      found.settings[n + 1] = by_text[text]
    end
    table.insert(by_text[text].runs, run)
  end

  local count, scored = {}, 0
  for _, setting in ipairs(found.settings) do
    setting.sequences = sequences_of(setting)
    if next(setting.sequences) then scored = scored + 1 end
    for name in pairs(setting.sequences) do count[name] = (count[name] or 0) + 1 end
  end
  for name, n in pairs(count) do
    if n == scored then table.insert(found.sequences, name) end
  end
  natural.sort(found.sequences)
  if #found.sequences > 0 then
    for _, setting in ipairs(found.settings) do
      if next(setting.sequences) then setting.mean = mean_over(found.sequences, setting.sequences) end
    end
  end
  return found
end

-- ---- as text --------------------------------------------------------------------------------------------------------------------

local function n_characters(text) return #text:gsub("[\128-\191]", "") end -- of UTF-8

-- Lines of cells, each column as wide as its widest; `right` are the numbers of columns to be set to the right.
local function lined_up(rows, right)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, n_characters(cell)) end
  end
  for r, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      local fill = (" "):rep(widths[i] - n_characters(cell))
      cells[i] = right[i] and fill .. cell or cell .. fill
    end
    lines[r] = (table.concat(cells, "  "):gsub("%s+$", ""))
  end
  return lines
end

local function percent(value, deviation)
  return ("%.1f"):format(100 * value) .. (deviation and (" ±%.1f"):format(100 * deviation) or "")
end

local function short(text)
  if text == nil then return "-" end
  text = text:gsub("%s+", " ")
  return #text <= WIDEST and text or text:sub(1, WIDEST - 3) .. "..."
end

local function mean_of_runs(setting, what)
  local sum, n = 0, 0
  for _, run in ipairs(setting.runs) do
    if run[what] then sum, n = sum + run[what], n + 1 end
  end
  return n > 0 and sum / n or nil
end

-- Of how many common sequences J is better than that of the first setting.
local function better(found, first, setting)
  local n = 0
  for _, name in ipairs(found.sequences) do
    if setting.sequences[name].J > first.sequences[name].J then n = n + 1 end
  end
  return n
end

-- A row a setting.
local function table_of_settings(found)
  local head, right = { "" }, {}
  for _, key in ipairs(found.differ) do head[#head + 1] = key end
  local n_keys = #head
  for _, title in ipairs { "runs", "loss", "time", "J", "F" } do head[#head + 1] = title end
  head[#head + 1] = #found.settings > 1 and "J, F against A" or nil
  for i = n_keys + 1, n_keys + 5 do right[i] = true end
  local rows, first = { head }, found.settings[1]
  for _, setting in ipairs(found.settings) do
    local row = { setting.name }
    for _, key in ipairs(found.differ) do row[#row + 1] = short(setting.keys[key]) end
    local loss, seconds, mean = mean_of_runs(setting, "loss"), mean_of_runs(setting, "seconds"), setting.mean
    row[#row + 1] = tostring(#setting.runs)
    row[#row + 1] = loss and ("%.4g"):format(loss) or "-"
    row[#row + 1] = seconds and progress.duration(seconds) or "-"
    row[#row + 1] = mean and percent(mean.J, mean.error.J) or "-"
    row[#row + 1] = mean and percent(mean.F, mean.error.F) or "-"
    local against = ""
    if mean and first.mean and setting ~= first then
      against = ("%+.1f  %+.1f"):format(100 * (mean.J - first.mean.J), 100 * (mean.F - first.mean.F))
      if #found.sequences > 1 then
        against = against .. ("  (J better on %d of %d)"):format(better(found, first, setting), #found.sequences)
      end
    end
    row[#row + 1] = against
    rows[#rows + 1] = row
  end
  return lined_up(rows, right)
end

-- A row a sequence that any setting has.
local function table_of_sequences(found)
  local all, head, right = {}, { "J / F" }, {}
  for i, setting in ipairs(found.settings) do
    head[i + 1], right[i + 1] = setting.name, true
    for name in pairs(setting.sequences) do all[name] = true end
  end
  local names = natural.sort(sorted_keys(all))
  local rows = { head }
  for _, name in ipairs(names) do
    local row = { name }
    for i, setting in ipairs(found.settings) do
      local score = setting.sequences[name]
      row[i + 1] = score and ("%5.1f /%5.1f"):format(100 * score.J, 100 * score.F) or "-"
    end
    rows[#rows + 1] = row
  end
  return #names > 0 and lined_up(rows, right) or {}
end

-- What is to be known before the figures are believed.
local function notes_of(found)
  local notes, commits, unfinished = {}, {}, {}
  for _, setting in ipairs(found.settings) do
    for _, run in ipairs(setting.runs) do
      if run.commit then commits[run.commit] = true end
      if not next(run.scores) then
        local state = run.epoch and run.epochs and ("epoch %d of %d"):format(run.epoch, run.epochs) or "nothing logged"
        unfinished[#unfinished + 1] = ("%s (%s)"):format(run.dir, state)
      end
    end
    for _, key in ipairs(found.differ) do
      local text = setting.keys[key]
      if text and short(text) ~= text then
        notes[#notes + 1] = ("%s: %s = %s"):format(setting.name, key, (text:gsub("%s+", " ")))
      end
    end
  end
  local made_by = sorted_keys(commits)
  if #made_by > 1 then notes[#notes + 1] = "made by different commits: " .. table.concat(made_by, ", ") end
  if #unfinished > 0 then notes[#notes + 1] = "without scores: " .. table.concat(unfinished, ", ") end
  return notes
end

--- The comparison as a table for people, in percent.
-- @tparam table found of `settings`
-- @treturn string
function compare.format(found)
  local n_runs = 0
  for _, setting in ipairs(found.settings) do n_runs = n_runs + #setting.runs end
  local function plural(n, word) return ("%d %s%s"):format(n, word, n == 1 and "" or "s") end
  local lines = { ("%s, %s, %s in common; %s the same"):format(plural(n_runs, "run"), plural(#found.settings, "setting"),
    plural(#found.sequences, "sequence"), plural(found.same, "key")), "" }
  local function add(more)
    for _, line in ipairs(more) do lines[#lines + 1] = line end
    if #more > 0 then lines[#lines + 1] = "" end
  end
  add(table_of_settings(found))
  add(table_of_sequences(found))
  lines[#lines + 1] = "J and F in percent, means over the sequences in common; ±: standard error over runs of the same sequence."
  lines[#lines + 1] = ("Loss: mean of the last %d %% of the steps. Time: of training, a run."):format(100 * LAST_SHARE)
  for _, note in ipairs(notes_of(found)) do lines[#lines + 1] = "note: " .. note end
  return table.concat(lines, "\n") .. "\n"
end

return compare
