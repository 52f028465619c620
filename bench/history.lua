--- bench/history.lua: the runs of `make bench` on this machine, as JSON outside the tree, and what changed since another commit.
-- A run: { date, commit, machine = { processor, threads }, keys, rows = { { key, value, unit, ... } } }. Less is better in the
-- units "ms" and "GiB", more in "x".
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local lfs = require "lfs"

local history = { FLAG = 0.10 }

--- Where runs are kept when no other directory is named: $XDG_STATE_HOME/penumbra/bench, else ~/.local/state/penumbra/bench.
function history.directory()
  local state = os.getenv "XDG_STATE_HOME"
  if not state or state == "" then state = (os.getenv "HOME" or ".") .. "/.local/state" end
  return state .. "/penumbra/bench"
end

local function name_of(text) return (text:gsub("[^%w]+", "-"):gsub("^%-+", ""):gsub("%-+$", "")) end

--- Writes a run; its name begins with the date, so names sort by time.
-- @treturn string its path
function history.write(directory, run)
  local problem = files.make_directory(directory)
  if problem then error(problem, 0) end
  local path = ("%s/%s_%s_%s.json"):format(directory, name_of(run.date), name_of(run.commit), name_of(run.machine.processor))
  problem = files.write(path, json.pretty(run))
  if problem then error(problem, 0) end
  return path
end

local function same_machine(a, b) return a.processor == b.processor and a.threads == b.threads end

--- The newest run of another commit on the same machine that has a row in common with this one.
-- @treturn ?table nil when there is none
function history.before(directory, run)
  if not files.exists(directory, "directory") then return nil end
  local names, keys = {}, {}
  for name in lfs.dir(directory) do
    if name:match "%.json$" then names[#names + 1] = name end
  end
  for _, row in ipairs(run.rows) do keys[row.key] = true end
  table.sort(names, function(a, b) return a > b end)
  for _, name in ipairs(names) do
    local other = json.decode((files.read(directory .. "/" .. name) or ""))
    if other and other.commit ~= run.commit and other.machine and same_machine(other.machine, run.machine)
      and other.date <= run.date then
      for _, row in ipairs(other.rows) do
        if keys[row.key] then return other end
      end
    end
  end
end

local more_is_better = { x = true }

--- What changed: a row for each key that both runs have, worst first: { key, before, now, unit, ratio, slower }. ratio above 1 is
-- worse (slower, larger); slower: by more than 10 %.
function history.compare(before, now)
  local old, list = {}, {}
  for _, row in ipairs(before.rows) do old[row.key] = row end
  for _, row in ipairs(now.rows) do
    local was = old[row.key]
    if was and was.unit == row.unit and was.value > 0 and row.value > 0 then
      local ratio = more_is_better[row.unit] and was.value / row.value or row.value / was.value
      list[#list + 1] = { key = row.key, before = was.value, now = row.value, unit = row.unit, ratio = ratio,
        slower = ratio > 1 + history.FLAG }
    end
  end
  table.sort(list, function(a, b)
    if a.ratio ~= b.ratio then return a.ratio > b.ratio end
    return a.key < b.key
  end)
  return list
end

--- The comparison as text: every row that became worse by more than 10 %, those that became better by as much, and the mean.
-- @tparam ?number most lines of those that became better; default 10
function history.text(before, now, most)
  local list = history.compare(before, now)
  local lines, sum, n_slower, better = {}, 0, 0, {}
  local function line(row, mark)
    return ("  %-72s %10.4g -> %10.4g %-7s x %.2f%s"):format(row.key, row.before, row.now, row.unit, row.ratio, mark)
  end
  for _, row in ipairs(list) do
    sum = sum + math.log(row.ratio)
    if row.slower then
      n_slower = n_slower + 1
      lines[#lines + 1] = line(row, "   SLOWER")
    elseif row.ratio < 1 / (1 + history.FLAG) then
      table.insert(better, 1, line(row, ""))
    end
  end
  for i = 1, math.min(#better, most or 10) do lines[#lines + 1] = better[i] end
  if #better > (most or 10) then lines[#lines + 1] = ("  and %d more that are faster"):format(#better - (most or 10)) end
  table.insert(lines, 1, ("against %s of %s: %d rows, mean ratio %.3f, %d slower by more than %g %%"):format(before.commit,
    before.date, #list, #list > 0 and math.exp(sum / #list) or 1, n_slower, 100 * history.FLAG))
  return table.concat(lines, "\n")
end

return history
