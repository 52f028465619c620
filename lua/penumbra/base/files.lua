--- Directories and small text files, with errors that name the path; what is replaced stays whole until the new text is there.
-- @module penumbra.base.files
local lfs = require "lfs"

local files = {}

--- Makes a directory and those above it.
-- @tparam string path
-- @treturn ?string nil, or what went wrong
function files.make_directory(path)
  if lfs.attributes(path, "mode") == "directory" then return nil end
  local above = path:match("^(.+)/+[^/]+/*$")
  if above then
    local problem = files.make_directory(above)
    if problem then return problem end
  end
  local ok, problem = lfs.mkdir(path)
  if ok or lfs.attributes(path, "mode") == "directory" then return nil end
  if lfs.attributes(path, "mode") == "file" then problem = "it is a file" end
  return ("%s: cannot make the directory: %s"):format(path, problem)
end

--- Is there a file (or a directory, when kind says so) of this name?
function files.exists(path, kind) return lfs.attributes(path, "mode") == (kind or "file") end

--- The text of a file.
-- @treturn ?string nil and what went wrong when it cannot be read
function files.read(path)
  local file, problem = io.open(path, "rb")
  if not file then return nil, problem end
  local text, why = file:read("*a")
  file:close()
  if not text then return nil, path .. ": " .. (why or "cannot be read") end
  return text
end

--- Writes a file at once: beside it first, then renamed.
-- @treturn ?string nil, or what went wrong
function files.write(path, text)
  local beside = path .. ".tmp"
  local file, problem = io.open(beside, "wb")
  if not file then return ("cannot write %s"):format((problem:gsub("%.tmp:", ":"))) end
  local ok, why = file:write(text)
  if ok then ok, why = file:flush() end
  local closed, why_close = file:close()
  if ok and closed then ok, why = os.rename(beside, path) end
  if ok and closed then return nil end
  os.remove(beside)
  return ("cannot write %s: %s"):format(path, (tostring(why or why_close):gsub("^.*: ", "")))
end

--- A fresh directory for files that nobody will want later.
-- @treturn string path
function files.scratch()
  local path = os.tmpname()
  os.remove(path)
  assert(lfs.mkdir(path))
  return path
end

--- Removes a file, or a directory with all in it; links are removed, not followed. What is not there is fine.
-- @tparam string path
function files.remove(path)
  if lfs.symlinkattributes(path, "mode") == "directory" then
    for name in lfs.dir(path) do
      if name ~= "." and name ~= ".." then files.remove(path .. "/" .. name) end
    end
    lfs.rmdir(path)
  else
    os.remove(path)
  end
end

return files
