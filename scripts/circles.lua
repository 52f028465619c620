-- scripts/circles.lua [ROOT]: calls and requires run down. An arrow goes from a file of C or CUDA to each other whose functions
-- or data it names (as nm finds them in the object files of ROOT/build), and from a module of Lua to each that it requires,
-- wherever in its text. Fails where files reach each other in a circle, and shows the shortest way round, with the names.
-- The registry (core/op.c) and the plug-in's table (gpu/device.c) point at the operations that they list: those are no calls.
local lfs = require "lfs"
local root = arg[1] or require("penumbra.program").home
local build = root .. "/build"

local arrows = {} -- from -> to -> list of names
local function arrow(from, to, name)
  if from == to then return end
  arrows[from] = arrows[from] or {}
  arrows[from][to] = arrows[from][to] or {}
  table.insert(arrows[from][to], name)
end

-- ---- C ----------------------------------------------------------------------------------------------------------------

local function read_whole(path)
  local f = assert(io.open(path), path .. " is missing: `make build` writes it")
  local text = f:read "*a"
  f:close()
  return text
end

-- Object file -> source, both as they stand under the root.
local source_of, paths = {}, {}
for directory, command, file in read_whole(build .. "/compile_commands.json"):gmatch
  '"directory": "([^"]*)",%s*"command": "(.-)",%s*"file": "([^"]*)"' do
  local object = command:match "%-o (%S+%.o)"
  local source = file:sub(1, #root + 1) == root .. "/" and file:sub(#root + 2)
  if object and source and lfs.attributes(directory .. "/" .. object) then
    source_of[directory .. "/" .. object] = source
    paths[#paths + 1] = directory .. "/" .. object
  end
end
assert(#paths > 0, "no object files under " .. build)

local defined, wanted = {}, {} -- name -> source; list of { source, name }
local nm = assert(io.popen("nm -A -P '" .. table.concat(paths, "' '") .. "'"))
for line in nm:lines() do
  local path, name, kind = line:match "^(.-): (%S+) (%a)"
  local source = path and source_of[path]
  if source and kind == "U" then
    wanted[#wanted + 1] = { source, name }
  elseif source and kind:match "[TDBRVWC]" then
    defined[name] = source
  end
end
nm:close()
for _, want in ipairs(wanted) do
  local source, name = want[1], want[2]
  local listed = name:match "^pn_op_" or name:match "^pn_cuda_"
  if defined[name] and not (listed and defined[name]:match "/ops/") then arrow(source, defined[name], name) end
end

-- ---- Lua --------------------------------------------------------------------------------------------------------------

local modules = {} -- penumbra.nn -> lua/penumbra/nn/init.lua
local function find_modules(dir)
  for entry in lfs.dir(root .. "/" .. dir) do
    local path = dir .. "/" .. entry
    if entry:match "%.lua$" then
      modules[(path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", "."))] = path
    elseif entry:sub(1, 1) ~= "." and lfs.attributes(root .. "/" .. path, "mode") == "directory" then
      find_modules(path)
    end
  end
end
find_modules "lua"
for _, path in pairs(modules) do
  for line in io.lines(root .. "/" .. path) do
    for name in line:gsub("^%s*%-%-.*$", ""):gmatch "require%s*%(?%s*[\"']([^\"']+)[\"']" do
      if modules[name] then arrow(path, modules[name], name) end
    end
  end
end

-- ---- circles ----------------------------------------------------------------------------------------------------------

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t or {}) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

-- The shortest way from a file back to itself, as a list of files; nil where there is none.
local function way_round(start)
  local came_from, queue = {}, { start }
  for at = 1, math.huge do
    local file = queue[at]
    if not file then return nil end
    for _, to in ipairs(sorted_keys(arrows[file])) do
      if to == start then
        local way = { start }
        while file ~= start do
          table.insert(way, 2, file)
          file = came_from[file]
        end
        return way
      end
      if not came_from[to] then
        came_from[to] = file
        queue[#queue + 1] = to
      end
    end
  end
end

local n_arrows, shown, n_circles = 0, {}, 0
for _, file in ipairs(sorted_keys(arrows)) do
  n_arrows = n_arrows + #sorted_keys(arrows[file])
  local way = not shown[file] and way_round(file)
  if way then
    n_circles = n_circles + 1
    for i, from in ipairs(way) do
      local to = way[i % #way + 1]
      shown[from] = true
      print(("%s%s -> %s (%s)"):format(i == 1 and "circle: " or "        ", from, to, table.concat(arrows[from][to], ", ", 1,
        math.min(4, #arrows[from][to]))))
    end
  end
end
if n_circles == 0 then print(("%d arrows, no circle"):format(n_arrows)) end
return n_circles == 0 and 0 or 1
