--- Where `require` looks: beside the script too, and what it says when there is nothing.
-- @module penumbra.base.modules
local raise = require "penumbra.base.raise"

local modules = {}

--- Has `require` look in the folder of a script as well, after all the others.
-- @tparam string script its path
function modules.look_beside(script)
  local folder = script:match "^(.*)/[^/]*$" or "."
  local places = ("%s/?.lua;%s/?/init.lua"):format(folder, folder)
  if not (";" .. package.path .. ";"):find(";" .. places .. ";", 1, true) then package.path = package.path .. ";" .. places end
end

-- The folders of package.path, each once.
local function folders()
  local list, seen = {}, {}
  for folder in package.path:gmatch "([^;]*)/%?%.lua" do
    if not seen[folder] and not folder:find("?", 1, true) then list[#list + 1] = folder end
    seen[folder] = true
  end
  return list
end

local function tell(name)
  local path = tostring(name):gsub("%.", "/")
  raise("no module '%s': looked for %s.lua in %s, and for %s.so where Lua keeps its libraries", tostring(name), path,
    table.concat(folders(), ", "), path)
end

--- Has `require` say in a line which module it did not find, and where it looked.
function modules.speak_plainly()
  if package.loaders[#package.loaders] ~= tell then table.insert(package.loaders, tell) end
end

return modules
