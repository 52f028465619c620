--- The folder of a run. One that was made for a run whose script failed before anything was done is taken away again.
-- @module penumbra.run.folder
local files = require "penumbra.base.files"
local lfs = require "lfs"
local lock = require "penumbra.run.lock"

local folder = {}

local made = {} -- folder -> how many of the folders of its path were made with it

local function above(path) return path:match "^(.+)/+[^/]+/*$" end

-- How many folders of a path are not there.
local function n_missing(path)
  local n = 0
  while path and not files.exists(path, "directory") do
    path, n = above(path), n + 1
  end
  return n
end

--- Makes the folder of a run, where there is none.
-- @tparam string path
-- @treturn ?string nil, or what went wrong
function folder.make(path)
  local n = n_missing(path)
  local problem = files.make_directory(path)
  if n > 0 and not problem then made[path] = n end
  return problem
end

-- What stands in the folder of a run that has done nothing yet.
local of_the_beginning = { ["."] = true, [".."] = true, [".lock"] = true, ["run.json"] = true, ["log.jsonl"] = true }

local function is_unused(path)
  for name in lfs.dir(path) do
    if not of_the_beginning[name] then return false end
  end
  return (lfs.attributes(path .. "/log.jsonl", "size") or 0) == 0
end

local function remove(path, n)
  lock.release(path)
  files.remove(path)
  for _ = 2, n do
    path = above(path)
    if not lfs.rmdir(path) then return end -- something else is in it
  end
end

--- A script has failed: removes the folders that were made for its runs and in which nothing was done.
function folder.clear()
  for path, n in pairs(made) do
    if files.exists(path, "directory") and is_unused(path) then remove(path, n) end
    made[path] = nil
  end
end

return folder
