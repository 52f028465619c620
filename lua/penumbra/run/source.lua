--- What a run is made of beside the framework: its recipe and the Lua files that were required, but for those of this package,
-- which the commit names. The run keeps them in RUN/source as they were when it read them; run.json has their SHA-256.
-- What workers required is not seen.
-- @module penumbra.run.source
local files = require "penumbra.base.files"
local formats = require "penumbra.formats"
local lfs = require "lfs"
local sorted_keys = require "penumbra.base.sorted_keys"

local source = {}

local function absolute(path)
  if path:sub(1, 1) ~= "/" then path = lfs.currentdir() .. "/" .. path end
  return (path:gsub("/%./", "/"))
end

local package_directory = absolute(debug.getinfo(1, "S").source:match "^@(.*/)run/[^/]*$" or "penumbra/")

local function path_of(module) return package.searchpath(module, package.path) end

--- The files of a recipe and of what is required so far, with their texts.
-- @tparam ?string recipe its file; without one nothing is found
-- @tparam ?table found what an earlier call gave, to be added to
-- @treturn table name in RUN/source -> { path, text, module }
function source.collect(recipe, found)
  found = found or {}
  if not recipe then return found end
  local known = {}
  for _, file in pairs(found) do known[file.path] = true end
  local function add(name, path, module)
    local text = not known[path] and files.read(path)
    if not text then return end
    if found[name] then name = "required/" .. name end -- a module of the recipe's name
    found[name], known[path] = { path = path, text = text, module = module }, true
  end
  add(recipe:match "[^/]+$", absolute(recipe))
  for _, module in ipairs(sorted_keys(package.loaded)) do
    local path = path_of(module)
    path = path and absolute(path)
    if path and path:sub(1, #package_directory) ~= package_directory then
      add(module:gsub("%.", "/") .. (path:match "/init%.lua$" or ".lua"), path, module)
    end
  end
  return found
end

--- Writes the files into DIR/source. Others that lie there from before go on as DIR/source-to-epoch-N.
-- @tparam string dir of the run
-- @tparam table found by collect
-- @tparam int epoch to which those from before were used
-- @treturn ?{table} file, sha256 and, of what was required, module: for run.json; nil when something went wrong
-- @treturn ?string what
function source.keep(dir, found, epoch)
  local into, list, differs = dir .. "/source", {}, false
  for name, file in pairs(found) do
    local before = files.read(into .. "/" .. name)
    differs = differs or before and before ~= file.text
  end
  if differs then
    local aside, n = ("%s-to-epoch-%d"):format(into, epoch), 1
    while lfs.attributes(aside .. (n > 1 and "-" .. n or "")) do n = n + 1 end
    os.rename(into, aside .. (n > 1 and "-" .. n or ""))
  end
  for _, name in ipairs(sorted_keys(found)) do
    local path = into .. "/" .. name
    local problem = files.make_directory(path:match "^(.*)/") or files.write(path, found[name].text)
    if problem then return nil, problem end
    list[#list + 1] = { file = name, sha256 = formats.sha256(path), module = found[name].module }
  end
  return list
end

--- Which of the files that run.json lists are not what they were.
-- @tparam {table} list as keep gave it
-- @tparam ?string recipe its file now
-- @treturn {string} "mine.lua", "models/mine.lua (gone)"
function source.changed(list, recipe)
  local changed = {}
  for _, file in ipairs(list) do
    local path = recipe
    if file.module then path = path_of(file.module) end
    if not path or not files.exists(path) then
      changed[#changed + 1] = file.file .. " (gone)"
    elseif formats.sha256(path) ~= file.sha256 then
      changed[#changed + 1] = file.file
    end
  end
  return changed
end

return source
