--- A configuration as text: its values, and the --help of a recipe. Of penumbra.config.
-- @module penumbra.config.text

local is_list = require "penumbra.base.is_list"
local kinds = require "penumbra.config.kinds"
local recipe_text = require "penumbra.config.recipe_text"
local strict = require "penumbra.config.strict"

local config_text = {}

-- Of the keys of a run, which no recipe declares.
local common_help = {
  device = "cpu, cuda, cuda:1 ...; auto: cuda where there is a card, else cpu",
  graph = "on CUDA the step is captured once, then launched as one; false: kernel by kernel",
  exact = "f32 convolutions by their definition alone, no minimal filtering: slower",
  autotune = "on CUDA each new convolution times all its engines; the picks are kept",
  precision = "what convolutions multiply in (tf32, fp16 on CUDA); weights, statistics and losses stay f32",
  checkpoint_every = "epochs from one checkpoint to the next; 0: only at the end",
  config = "a .lua or .json file of overrides, such as a run's config.json",
}

--- A value in a line.
-- @param value
-- @tparam ?string path of its key
-- @tparam ?{[string]=string} sources the texts of functions, by path
-- @treturn string
function config_text.value(value, path, sources)
  if type(value) == "function" then
    local text, place = sources and sources[path], nil
    if not text then text, place = recipe_text.of_function(value) end
    return ((text or place):gsub("%s*\n%s*", " "))
  end
  if type(value) == "table" and kinds.is_declared(value) then
    if value.choices then return ("%s (or %s)"):format(value.choices[1], table.concat(value.choices, ", ", 2)) end
    if value.value ~= nil then return config_text.value(value.value, path) end
    return value.what == "required" and "(required)" or "(none)"
  end
  if type(value) == "table" then
    local parts = {}
    for i, element in ipairs(value) do parts[i] = config_text.value(element, path) end
    return table.concat(parts, ",")
  end
  if type(value) == "number" then return ("%.14g"):format(value) end
  return tostring(value)
end

--- Every key of nested tables with its value, sorted: { path, value }.
function config_text.flatten(values, prefix, into)
  for key, value in pairs(values) do
    local path = prefix .. tostring(key)
    if strict.is_group(value) and not is_list(value) then
      config_text.flatten(value, path .. ".", into)
    else
      into[#into + 1] = { path = path, value = value }
    end
  end
  table.sort(into, function(a, b) return a.path < b.path end)
  return into
end

-- Adds the comments beside the keys of a table of defaults, by path; a group of it may be such a table of another module,
-- `lights = augment.light_defaults`.
local function note_defaults(found, prefix, file, table_name)
  local lines = recipe_text.lines(file)
  local notes, order = recipe_text.annotate(lines, table_name)
  for path, note in pairs(notes) do found[prefix .. "." .. path] = note.comment end
  for _, path in ipairs(order) do
    for _, line in ipairs(lines) do
      local key, module, name = line:match "^  ([%a_][%w_]*)%s*=%s*([%a_]+)%.([%a_]*defaults),"
      local other = key == path and package.searchpath("penumbra." .. module, package.path)
      if other then note_defaults(found, prefix .. "." .. path, other, name) end
    end
  end
end

-- What a group holds may be the defaults of a module, `lucid = pn.lucid.defaults` or `infer = pn.infer.with{...}`: the comments
-- beside them there, by path; that of a group within stands for its first key.
local function notes_of_modules(lines, known)
  local found = {}
  for _, line in ipairs(lines) do
    local key, value = line:match "^%s*([%a_][%w_]*)%s*=%s*(.*)$"
    local name = value and value:match "^pn%.([%a_]+)%.%a"
    local module = name and "penumbra." .. name
      or value and value:match '^require%s*%(?%s*"(penumbra[%w_.]+)"'
    local file = module and package.searchpath(module, package.path)
    if file and not found[key] then note_defaults(found, key, file, "defaults") end
  end
  local rows, last = config_text.flatten(known, "", {}), nil
  for _, row in ipairs(rows) do
    local group = row.path:match "^(.*)%.[^.]*$"
    if group and group ~= last and not found[row.path] then found[row.path] = found[group] end
    last = group
  end
  return found
end

--- The help of a recipe.
-- @tparam table state name and file of the recipe; recipe: its declared table; positional: its declared arguments; help: key -> a
--   line where the source says none
-- @tparam table common the keys of a run
-- @treturn string
function config_text.help(state, common)
  local lines = recipe_text.lines(state.file)
  local notes, order = recipe_text.annotate(lines)
  local out = {}
  local function say(format, ...) out[#out + 1] = select("#", ...) > 0 and format:format(...) or format end
  local usage_line = { "usage: penumbra " .. state.name }
  for _, declared in ipairs(state.positional) do
    local word = declared.help:match("^[^:;, ]+")
    usage_line[#usage_line + 1] = declared.what == "required" and word
      or declared.what == "rest" and word .. " ..." or "[" .. word .. "]"
  end
  say("%s key=value ...", table.concat(usage_line, " "))
  for _, text in ipairs(recipe_text.head(lines)) do say(text) end
  for _, declared in ipairs(state.positional) do say("  %s", declared.help) end
  say("")
  local rows, known = {}, {}
  for _, row in ipairs(config_text.flatten(state.recipe, "", {})) do known[row.path] = row.value end
  local beside = notes_of_modules(lines, state.recipe)
  local function add(path, value, note)
    local declared = kinds.is_declared(value) and value.help
    rows[#rows + 1] = { path = path, value = config_text.value(value, path), above = note and note.above,
      comment = note and note.comment or declared or beside[path] or state.help[path] or common_help[path] or "" }
  end
  local listed = {}
  for _, path in ipairs(order) do listed[path] = true end
  -- A group: its comment goes to its first key, and keys that the recipe does not spell out follow here.
  local function add_group(path)
    local function inside(key) return key:sub(1, #path + 1) == path .. "." and known[key] ~= nil end
    local hidden, first = {}, nil
    for _, key in ipairs(order) do first = first or inside(key) and key or nil end
    for _, row in ipairs(config_text.flatten(known, "", {})) do
      if inside(row.path) and not listed[row.path] then hidden[#hidden + 1] = row end
    end
    first = hidden[1] and hidden[1].path or first
    if not first then return end
    local group, note = notes[path], notes[first] or {}
    local above = group.above or note.above
    local of_its_own = note.comment or beside[first]
    if of_its_own and group.comment then above = { ("%s: %s"):format(path, group.comment) } end
    notes[first] = { above = above, comment = of_its_own or group.comment }
    for _, row in ipairs(hidden) do
      add(row.path, row.value, notes[row.path])
      known[row.path] = nil
    end
  end
  for _, path in ipairs(order) do
    if known[path] ~= nil then
      add(path, known[path], notes[path])
      known[path] = nil
    else
      add_group(path)
    end
  end
  for _, row in ipairs(config_text.flatten(known, "", {})) do
    if not row.path:match("^%d+$") then add(row.path, row.value) end
  end
  rows[#rows + 1] = { above = { "keys of the run" } }
  for _, row in ipairs(config_text.flatten(common, "", {})) do
    if state.recipe[row.path] == nil then add(row.path, row.value) end
  end
  rows[#rows + 1] = { path = "config", value = "(none)", comment = common_help.config }
  local width, value_width = 0, 0
  for _, row in ipairs(rows) do
    if row.path then
      width = math.max(width, #row.path)
      if #row.value <= 32 then value_width = math.max(value_width, #row.value) end
    end
  end
  for _, row in ipairs(rows) do
    for _, text in ipairs(row.above or {}) do say("  -- %s", text) end
    if row.path then
      local line = ("  %-" .. width .. "s  %-" .. value_width .. "s  %s"):format(row.path, row.value, row.comment)
      say((line:gsub("%s+$", "")))
    end
  end
  return table.concat(out, "\n")
end

return config_text
