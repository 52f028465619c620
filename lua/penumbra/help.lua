--- Help on a value, from where it is written: what the registry says of an operation, the comment above a function or the
-- constructor of a layer, the head of a module's file, the keys of a recipe. `help(pn.lucid.stream)` at the prompt.
-- @module penumbra.help
local composed = require "penumbra.composed"
local files = require "penumbra.base.files"
local ops = require "penumbra.ops"
local order = require "penumbra.order"
local raise = require "penumbra.base.raise"
local recipe_text = require "penumbra.config.recipe_text"
local shell = require "penumbra.base.shell"
local sorted_keys = require "penumbra.base.sorted_keys"
local tensor = require "penumbra.tensor"

local help = {}

local function operation_named(value)
  for _, name in ipairs(ops.names()) do
    if value == ops[name] or value == name or value == tensor.methods[name] then return name end
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

-- A list of words in lines of at most 100 letters.
local function wrapped(words, indent)
  local lines = { indent }
  for _, word in ipairs(words) do
    local line = lines[#lines]
    if #line + #word > 100 then
      lines[#lines + 1] = indent .. word
    else
      lines[#lines] = line == indent and indent .. word or line .. " " .. word
    end
  end
  return table.concat(lines, "\n")
end

local function of_tensor(t)
  return table.concat({
    tostring(t), "Its methods, and the operations on it (help(x.slice) tells of one):", wrapped(sorted_keys(tensor.methods), "  "),
    "Indices count from 1. x:get(i, j) is an element, x[i] or x:slice(axis, first, count) a part; x + y, 2 * x, x ^ 2, -x.",
  }, "\n")
end

local function made_of_operations()
  local names = sorted_keys(composed)
  for _, name in ipairs(sorted_keys(order)) do names[#names + 1] = name end
  return names
end

local function overview()
  return table.concat({
    "help(x) tells of a function, a tensor, a layer or a module; help \"conv3d\", help \"lucid.stream\" of what pn holds,",
    "help \"oneshot\" of the keys of a recipe, help \"fcn_i3d\" of a model.", "",
    "Tensors      pn.tensor{{1, 2}, {3, 4}}  pn.zeros{2, 3}  pn.ones  pn.full  pn.empty  pn.load  pn.save  pn.random.stream(seed)",
    "Operations", wrapped(ops.names(), "  "),
    "Made of them", wrapped(made_of_operations(), "  "),
    "Networks     pn.nn     layers, nn.class for one's own; pn.optim, pn.loss",
    "Data         pn.data   videos with masks; pn.image, pn.video, pn.augment, pn.lucid, pn.ahead",
    "Runs         pn.config, pn.run, pn.infer, pn.measure, pn.plot, pn.profile",
    "Memory       pn.scope(f) frees what f made and did not return; pn.no_grad(f), pn.memory()", "",
    "docs/from_pytorch.md: what PyTorch's habits are here; docs/operations.md; `penumbra help`: the commands.",
  }, "\n")
end

-- What `penumbra NAME --help` prints, where there is such a recipe.
local function of_recipe(name)
  local found, program = pcall(require, "penumbra.program")
  if not found or not name:match "^[%w_]+$" then return nil end
  for _, home in ipairs { ".", program.home } do
    if files.exists(home .. "/recipes/" .. name .. ".lua") then
      local pipe = io.popen(shell.quote(program.exe) .. " " .. name .. " --help 2>&1")
      local text = pipe:read "*a"
      pipe:close()
      return (text:gsub("\n$", ""))
    end
  end
end

-- The head of models/NAME.lua, where there is such a model.
local function of_model(name)
  local module = "models." .. name
  return name:match "^[%w_]+$" and package.searchpath(module, package.path) and of_module(module) or nil
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
-- @param value a function, a tensor, a layer or its class, a module, or the name of one in pn: "conv3d", "lucid.stream", or of a
--   recipe or model; nothing: an overview
-- @treturn string
function help.text(...)
  local value = ...
  if select("#", ...) == 0 then return overview() end
  if tensor.is_tensor(value) then return of_tensor(value) end
  local name = operation_named(value)
  if name and type(value) == "function" and value ~= ops[name] then return of_function(value) .. "\n" .. ops.help(name) end
  if name then return ops.help(name) end
  if type(value) == "string" then
    local text = of_recipe(value) or of_model(value)
    if text then return text end
    value = value_at(value)
  end
  if type(value) == "function" then return of_function(value) end
  name = type(value) == "table" and module_named(value)
  if name then return of_module(name) end
  local meta = type(value) == "table" and getmetatable(value)
  local constructor = meta and value.new
  if type(constructor) == "function" then return of_function(constructor) end
  if type(meta) == "table" and type(meta.__call) == "function" then return of_function(meta.__call) end
  return ("%s: help takes a function, a tensor, a layer, a module, or the name of one in pn or of a recipe%s"):format(
    value == nil and "nil" or "a " .. type(value), value == nil and "; a name goes in quotes: help \"conv3d\"" or "")
end

return help
