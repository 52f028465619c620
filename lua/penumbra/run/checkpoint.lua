--- The file in a run's directory from which it goes on: tensors, and in its metadata the recipe, the epoch and the configuration.
-- @module penumbra.run.checkpoint
local formats = require "penumbra.formats"
local raise = require "penumbra.base.raise"

local checkpoint = {}

--- What metadata.format says.
checkpoint.marker = "penumbra checkpoint 1"

--- Where the checkpoint of a run lies.
-- @tparam string dir
-- @treturn string
function checkpoint.path(dir) return dir .. "/checkpoint.safetensors" end

local function refuse(problem) raise("%s", (tostring(problem):gsub("^%S+%.lua:%d+: ", ""))) end

local function check(path, metadata)
  if type(metadata) ~= "table" or metadata.format ~= checkpoint.marker then raise("%s: not a checkpoint of a run", path) end
  return metadata
end

--- Reads a checkpoint; one that is damaged or of something else is an error.
-- @tparam string path
-- @treturn table tensors and metadata
function checkpoint.read(path)
  local ok, tensors, metadata = pcall(formats.load, path)
  if not ok then refuse(tensors) end
  return { tensors = tensors, metadata = check(path, metadata) }
end

--- Its metadata alone.
-- @tparam string path
-- @treturn {[string]=string}
function checkpoint.metadata(path)
  local ok, archive = pcall(formats.open, path)
  if not ok then refuse(archive) end
  archive:close()
  return check(path, archive.metadata)
end

return checkpoint
