--- The log of a run: one JSON object a line, written through at once, so that nothing is lost when the run ends early.
-- @module penumbra.run.log
local files = require "penumbra.base.files"
local json = require "penumbra.json"

local Log = {}
Log.__index = Log

local log = {}

--- Opens a log.
-- @tparam string path
-- @tparam ?number keep_bytes when a run goes on: what the checkpoint knows of; later lines are dropped
-- @treturn table log; raises when it cannot be written
function log.open(path, keep_bytes)
  if keep_bytes then
    local text, problem = files.read(path)
    if not text then error(problem, 0) end
    problem = #text > keep_bytes and files.write(path, text:sub(1, keep_bytes))
    if problem then error(problem, 0) end
  end
  local file, problem = io.open(path, keep_bytes and "ab" or "wb")
  if not file then error("cannot write " .. problem, 0) end
  return setmetatable({ path = path, file = file, bytes = keep_bytes or 0 }, Log)
end

--- Appends a record; raises when the disk is full.
-- @tparam table record
function Log:write(record)
  local line = json.line(record, { "epoch", "step", "loss" }) .. "\n"
  local ok, problem = self.file:write(line)
  if ok then ok, problem = self.file:flush() end
  if not ok then error(("cannot write %s: %s"):format(self.path, problem), 0) end
  self.bytes = self.bytes + #line
end

function Log:close()
  if self.file then self.file:close() end
  self.file = nil
end

--- The records of a log.
-- @tparam string path
-- @treturn table list of tables; an unfinished last line is left out
function log.read(path)
  local text = files.read(path)
  local records = {}
  for line in (text or ""):gmatch("([^\n]*)\n") do records[#records + 1] = json.decode(line) end
  return records
end

return log
