-- scripts/gpu_check_run.lua: how scripts/gpu_check.lua runs commands, within a time and into logs, and how it reads their output.
local json = require "penumbra.json"
local shell = require "penumbra.base.shell"
local pn = require "penumbra"

local M = {}

-- ---- their output --------------------------------------------------------------------------------------------------------------

--- The last line that is not empty.
function M.last_line(text)
  local last = ""
  for line in text:gmatch "[^\n]+" do
    if line:find "%S" then last = line end
  end
  return (last:gsub("%s+$", ""))
end

--- Of lines of JSON among others the last.
function M.last_record(text)
  local found
  for line in text:gmatch "[^\n]+" do
    if line:sub(1, 1) == "{" then found = json.decode(line) or found end
  end
  return found
end

--- The sum of a run of specs; where that was ended early, of the files that came to their end.
function M.tally(text)
  local function counts(passed, failed, skipped)
    return { passed = tonumber(passed), failed = tonumber(failed) or 0, skipped = tonumber(skipped) or 0 }
  end
  local passed, failed, skipped = ("\n" .. text .. "\n"):match ".*\n(%d+) passed, (%d+) failed, (%d+) skipped *\n"
  if passed then return counts(passed, failed, skipped) end
  local sum = counts(0)
  sum.files = 0
  for line in text:gmatch "[^\n]+" do
    local n, rest = line:match "^%S+_spec%.lua +(%d+) passed(.*)  %(%d+ s%)$"
    if n then
      local one = counts(n, rest:match "(%d+) failed", rest:match "(%d+) skipped")
      for key, value in pairs(one) do sum[key] = sum[key] + value end
      sum.files = sum.files + 1
    end
  end
  return sum.files > 0 and sum or nil
end

-- ---- running one ---------------------------------------------------------------------------------------------------------------

local function append(path, ...)
  local file = io.open(path, "a")
  if not file then return end -- the results say so, in the same folder
  file:write(...)
  file:close()
end

-- The log of all stages may be all that comes back from another machine: of a long output it has the two ends.
local function ends_of(text)
  local most = 2 ^ 17
  if #text <= 2 * most then return text end
  return ("%s\n... %d bytes ...\n%s"):format(text:sub(1, most), #text - 2 * most, text:sub(-most))
end

--- `out`: the folder of the log of all stages; `work`: of the stages' own; left(): the seconds that there are for all of it.
function M.new(out, work, left)
  local runner = {}

  --- A line into the log of all stages.
  function runner.note(format, ...) append(out .. "/log.txt", format:format(...)) end

  --- Runs a command for so many seconds at most, its output at the end of the logs too. Returns the output, the exit code, seconds,
  -- and whether it ran too long.
  function runner.run(name, command, limit)
    limit = math.max(1, math.floor(math.min(limit, left())))
    local began = pn.clock()
    local text, code, late = shell.within(limit, command)
    if late then text = text .. ("\nran longer than %d s"):format(limit) end
    append(work .. "/" .. name .. ".log", "$ ", command, "\n", text, "\n")
    append(out .. "/log.txt", "$ ", command, "\n", ends_of(text), "\n")
    return text, code, pn.clock() - began, late
  end

  return runner
end

return M
