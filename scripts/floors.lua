-- scripts/floors.lua [ROOT]: the floors of the house: recipes -> models -> lua -> core <- gpu. Reads every #include and
-- require and fails on an arrow that points up, or at spec, bench or docs.
local lfs = require "lfs"
local root = arg[1] or require("penumbra.program").home

-- What each floor may reach. scripts serve the house from outside it and may reach any floor; nothing reaches them.
local may = {
  core = { core = true },
  gpu = { gpu = true, core = true },
  lua = { lua = true, core = true },
  models = { models = true, lua = true },
  recipes = { recipes = true, models = true, lua = true },
  bench = { bench = true, recipes = true, models = true, lua = true, core = true },
  spec = { spec = true, bench = true, recipes = true, models = true, lua = true, core = true, scripts = true },
  scripts = { scripts = true, recipes = true, models = true, lua = true, core = true },
}
-- System headers that only one floor may know.
local foreign = {
  { "^lua", "lua" }, { "^lauxlib", "lua" }, { "^cuda", "gpu" }, { "^cudnn", "gpu" }, { "^cublas", "gpu" }, { "^nccl", "gpu" },
}

local n_arrows, problems = 0, {}
local function arrow(floor, file, line, target, name)
  n_arrows = n_arrows + 1
  if target and not may[floor][target] then
    problems[#problems + 1] = ("%s:%d: %s may not reach %s ('%s')"):format(file, line, floor, target, name)
  end
end

local function exists(path) return lfs.attributes(root .. "/" .. path, "mode") == "file" end

-- The floor an included file stands on: beside the includer, below the top, or in core or gpu (the include paths).
local function floor_of_header(file, name)
  local dir = file:match("^(.*)/[^/]*$")
  for _, path in ipairs { dir .. "/" .. name, name, "core/" .. name, "gpu/" .. name } do
    local parts = {}
    for part in path:gmatch("[^/]+") do
      if part == ".." then parts[#parts] = nil elseif part ~= "." then parts[#parts + 1] = part end
    end
    if exists(table.concat(parts, "/")) then return parts[1] end
  end
  return name:match("^([^/]+)/")
end

local function floor_of_module(name)
  local first = name:match("^([^./]+)")
  if first == "penumbra" then return "lua" end
  return may[first] and first or nil
end

local function read_c(floor, file, line, n)
  local quoted = line:match('^%s*#%s*include%s*"([^"]+)"')
  if quoted then arrow(floor, file, n, floor_of_header(file, quoted), quoted) end
  local system = line:match("^%s*#%s*include%s*<([^>]+)>")
  for _, rule in ipairs(system and foreign or {}) do
    if system:match(rule[1]) then arrow(floor, file, n, rule[2], system) end
  end
end

local function read_lua(floor, file, line, n)
  local code = line:gsub("^%s*%-%-.*$", "")
  for name in code:gmatch("require%s*%(?%s*[\"']([^\"']+)[\"']") do arrow(floor, file, n, floor_of_module(name), name) end
  for name in code:gmatch("dofile%s*%(?%s*[\"']([^\"']+)[\"']") do arrow(floor, file, n, floor_of_module(name), name) end
end

local function walk(floor, dir)
  for entry in lfs.dir(root .. "/" .. dir) do
    local path = dir .. "/" .. entry
    local mode = entry:sub(1, 1) ~= "." and lfs.attributes(root .. "/" .. path, "mode")
    if mode == "directory" then
      walk(floor, path)
    elseif mode == "file" then
      local read = (entry:match("%.[ch]$") or entry:match("%.cuh?$") or entry:match("%.def$")) and read_c
        or entry:match("%.lua$") and read_lua
      if read then
        local n = 0
        for line in io.lines(root .. "/" .. path) do
          n = n + 1
          read(floor, path, line, n)
        end
      end
    end
  end
end

for floor in pairs(may) do
  if lfs.attributes(root .. "/" .. floor, "mode") == "directory" then walk(floor, floor) end
end
table.sort(problems)
for _, text in ipairs(problems) do print(text) end
if #problems == 0 then print(("%d arrows, none points up"):format(n_arrows)) end
return #problems == 0 and 0 or 1
