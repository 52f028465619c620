--- Help on a value, from where it is written: what the registry says of an operation, the comment above a function or the
-- constructor of a layer, the head of a module's file. `help(pn.lucid.stream)` at the prompt.
-- @module penumbra.help
local ops = require "penumbra.ops"
local raise = require "penumbra.raise"
local recipe_text = require "penumbra.recipe_text"

local help = {}

local function operation_named(value)
  for _, name in ipairs(ops.names()) do
    if value == ops[name] or value == name then return name end
  end
end

local function file_of(f)
  local info = debug.getinfo(f, "S")
  local path = info.source:match "^@(.*)"
  if not path or info.what == "C" then return nil end
  return path, info.linedefined
end

-- The comment lines right above a line, and the line itself.
local function above(lines, at)
  local first = at
  while first > 1 and lines[first - 1]:match "^%s*%-%-" do first = first - 1 end
  local text = {}
  for i = first, at - 1 do text[#text + 1] = lines[i]:gsub("^%s*%-%-+%s?", "") end
  return text, lines[at]:gsub("^%s+", ""):gsub("^local%s+", "")
end

local function of_function(f)
  local path, at = file_of(f)
  local lines = recipe_text.lines(path)
  if not path then return "a function of C, or typed in: nothing is written about it" end
  if not lines[at] then return ("%s:%d: the file is not there any more"):format(path, at) end
  local text, head = above(lines, at)
  table.insert(text, 1, head)
  text[#text + 1] = ("(%s:%d)"):format(path, at)
  return table.concat(text, "\n")
end

local function of_module(name)
  local path = package.searchpath(name, package.path)
  local head = path and recipe_text.head(recipe_text.lines(path)) or {}
  head[#head + 1] = ("(%s)"):format(path or name)
  return table.concat(head, "\n")
end

local function module_named(value)
  local found
  for name, loaded in pairs(package.loaded) do
    if loaded == value and (not found or name < found) then found = name end
  end
  return found
end

-- "lucid.stream" -> pn.lucid.stream
local function value_at(path)
  local value = require "penumbra"
  for part in path:gsub("^pn%.", ""):gmatch "[^.:]+" do
    local found, inner = pcall(function() return type(value) == "table" and value[part] or nil end)
    if not found or inner == nil then
      local hint = not found and tostring(inner):match "(, did you mean .-%?)" or ""
      raise("help: there is no %s in pn%s", path, hint)
    end
    value = inner
  end
  return value
end

--- What is written about a value.
-- @param value a function, a layer or its class, a module, or the name of one in pn: "conv3d", "lucid.stream"
-- @treturn string
function help.text(value)
  local name = operation_named(value)
  if name then return ops.help(name) end
  if type(value) == "string" then value = value_at(value) end
  if type(value) == "function" then return of_function(value) end
  name = type(value) == "table" and module_named(value)
  if name then return of_module(name) end
  local meta = type(value) == "table" and getmetatable(value)
  local constructor = meta and value.new
  if type(constructor) == "function" then return of_function(constructor) end
  if type(meta) == "table" and type(meta.__call) == "function" then return of_function(meta.__call) end
  return ("a %s: help takes a function, a layer, a module, or the name of one in pn"):format(type(value))
end

return help
