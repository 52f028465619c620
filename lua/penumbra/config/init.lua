--- The configuration of a recipe: its table of defaults is the declaration; the command line overrides any key.
--
--     local cfg = pn.config{            -- penumbra oneshot sequence=camel optim.lr=5e-3 skips=1a,2c
--       sequence = "blackswan",         -- a sequence of the set
--       optim    = { lr = 1e-3, momentum = 0.9 },
--       skips    = { "1a", "2c", "3c", "4f" },
--       side_weight = function(epoch, n) return 1 - epoch / n end,
--     }
--
-- A value is typed by its default: number, boolean, string, list (comma-separated, or a Lua table), function (a Lua
-- expression, a number, which is the same all along, or a name of penumbra.side_weight). An unknown key, or a value of
-- another type, is an error. A run records a function as its text; the recipe's own may use its locals and have a name, one
-- that is given must say all in its text.
-- `config=FILE.lua` or `config=FILE.json` (such as the config.json of a run) reads overrides from a file, in the order of the
-- command line; its out, resume, threads and workers are left out: they are of that run alone. `--help` prints the keys with
-- their defaults and the comment beside each; `--print` the resolved configuration.
-- Positional arguments land in cfg[1], cfg[2], ... where the recipe declares them: pn.required"help", pn.optional"help" or
-- pn.rest"help" in the list part of its table. A number with a range: pn.number(1, 0.5, 2), pn.whole(16, 1).
-- Reading a key that is not declared is an error that names the nearest; one that is optional and was not given is nil.
-- @module penumbra.config
local config_text = require "penumbra.config.text"
local files = require "penumbra.base.files"
local is_list = require "penumbra.base.is_list"
local json = require "penumbra.json"
local kinds = require "penumbra.config.kinds"
local raise = require "penumbra.base.raise"
local recipe_text = require "penumbra.config.recipe_text"
local strict = require "penumbra.config.strict"
local usage = require "penumbra.base.usage"

local config = {
  required = kinds.required, optional = kinds.optional, rest = kinds.rest, choice = kinds.choice, number = kinds.number,
  whole = kinds.whole,
}
local kind_of, is_declared, flatten = kinds.of, kinds.is_declared, config_text.flatten

-- Keys that a script need not declare: those of the run itself (penumbra.run) where its source opens one, and the threads.
local function common(file)
  local keys = { threads = config.optional("worker threads; default one for each core", "number") }
  local handle = file and io.open(file, "r")
  local text = handle and handle:read("*a")
  if handle then handle:close() end
  if text and not text:find("pn.run", 1, true) then return keys end
  if text and text:find("pn.ahead", 1, true) then
    keys.workers = config.optional(
      "threads that make batches ahead; default 1, or 2 from 8 threads on, with CUDA more; 0: none", "number")
    keys.ahead = config.optional("batches made ahead; default 2 a worker", "number")
  end
  if text and text:find("pn.captured", 1, true) then keys.graph = true end
  keys.out = config.optional "directory of the run; default out/<recipe>-<sequence>-<date-time>"
  keys.resume = config.optional "directory of a run to go on with"
  keys.checkpoint_every = config.whole(10, 0)
  keys.device = "auto"
  keys.precision = config.choice("f32", "tf32", "bf16", "fp16")
  keys.autotune = false
  keys.exact = false
  return keys
end
-- ---- kinds and values ----------------------------------------------------------------------------------------------------

local function show(value)
  if type(value) == "string" then return "'" .. value .. "'" end
  return tostring(value)
end

local expected = {
  number = "a number", boolean = "true or false", string = "a string", list = "a list such as a,b,c",
  ["function"] = "a Lua function such as 'function(epoch, n) return 1 - epoch / n end', a number, or one of constant, linear, "
    .. "steps",
  group = "a table such as {key=value}",
}

local function wrong(path, value, kind, detail)
  usage.fail("%s: expects %s, got %s%s", path, expected[kind], show(value), detail and " (" .. detail .. ")" or "")
end

-- What a function that is given as text can see: arithmetic, text and tables, the side weights by name, and the learning rates of
-- penumbra.optim.schedule as `schedule`. Nothing that reaches a file or a program: a run records the text and makes the function
-- again when it goes on, and a directory or checkpoint may come from anywhere.
local seen_by_functions = {
  "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type", "unpack",
}
local function function_scope(path)
  local scope = {}
  for _, name in ipairs(seen_by_functions) do scope[name] = _G[name] end
  for _, library in ipairs { "bit", "math", "string", "table" } do -- copies: what others use stays as it is
    scope[library] = {}
    for name, value in pairs(require(library)) do scope[library][name] = value end
  end
  for name, value in pairs(require "penumbra.side_weight") do scope[name] = value end
  return setmetatable(scope, { __index = function(_, name)
    if name == "schedule" then return require "penumbra.optim.schedule" end
    error(("%s: its function uses '%s', which it cannot see: it sees math, string, table, bit, schedule and what is local to it")
      :format(path, tostring(name)), 0)
  end })
end

-- What any other Lua expression on the command line can see: the same by name, and the globals.
local function expression_scope()
  local scope = {}
  for name, value in pairs(require "penumbra.side_weight") do scope[name] = value end
  return setmetatable(scope, { __index = function(_, name)
    if name == "schedule" then return require "penumbra.optim.schedule" end
    return _G[name]
  end })
end

local function evaluate(path, text, kind)
  local chunk, problem = loadstring("return " .. text, "=" .. path)
  if not chunk then wrong(path, text, kind, problem:gsub("^.-:%d+: ", "")) end
  setfenv(chunk, kind == "function" and function_scope(path) or expression_scope())
  local ok, value = pcall(chunk)
  if not ok then wrong(path, text, kind, (tostring(value):gsub("^.-:%d+: ", ""))) end
  return value
end

local booleans = { ["true"] = true, ["false"] = false, yes = true, no = false, on = true, off = false, ["1"] = true, ["0"] = false }

local parse = {}
function parse.string(_, text) return text end
function parse.any(_, text)
  local number = tonumber(text)
  if number then return number end
  if text == "true" or text == "false" then return text == "true" end
  return text
end
function parse.number(path, text)
  local value = tonumber(text)
  if not value then wrong(path, text, "number") end
  return value
end
function parse.boolean(path, text)
  local value = booleans[text:lower()]
  if value == nil then wrong(path, text, "boolean") end
  return value
end
parse["function"] = function(path, text)
  local value = evaluate(path, text, "function")
  if type(value) == "number" and math.abs(value) < math.huge then return function() return value end end
  if type(value) ~= "function" then wrong(path, text, "function") end
  return value
end
function parse.list(path, text, default)
  if text:match("^%s*{") then return evaluate(path, text, "list") end
  local element = type(default) == "table" and not is_declared(default) and type(default[1]) or nil
  local list = {}
  for part in (text .. ","):gmatch("([^,]*),") do
    if part ~= "" then
      local value = part
      if element == "number" or element == nil then
        value = tonumber(part) or part
        if element == "number" and type(value) ~= "number" then wrong(path, text, "list", "'" .. part .. "' is not a number") end
      elseif element == "boolean" then
        value = parse.boolean(path, part)
      end
      list[#list + 1] = value
    end
  end
  return list
end
function parse.group(path, text)
  local value = evaluate(path, text, "group")
  if type(value) ~= "table" then wrong(path, text, "group") end
  return value
end

local function bare_name(name) return (name:gsub("^.*/", ""):gsub("%.lua$", "")) end

-- ---- setting keys ----------------------------------------------------------------------------------------------------------

-- Every path of the defaults: leaves, and groups too.
local function paths_of(defaults, prefix, into)
  for key, value in pairs(defaults) do
    if type(key) == "string" then
      local path = prefix .. key
      into[#into + 1] = path
      if kind_of(value) == "group" then paths_of(value, path .. ".", into) end
    end
  end
  return into
end

local function unknown(state, path)
  local names = paths_of(state.defaults, "", { "config" })
  table.sort(names)
  -- In a known group, the nearest of its own keys.
  local group = path:match("^(.*%.)")
  if group then
    local inside = {}
    for _, name in ipairs(names) do
      if name:sub(1, #group) == group then inside[#inside + 1] = name end
    end
    if #inside > 0 then names = inside end
  end
  usage.fail("%sunknown key '%s'%s (penumbra %s --help lists all)", state.reading or "", path, usage.nearest(path, names),
    state.name)
end

-- A function as it is recorded: by its text, which makes it again; a default that uses locals of its recipe, or whose text cannot
-- be told, by where it was written: { ["function"] = "mine.lua:12" }, and its text where that is known.
local function on_record(f)
  local text, place, outside = recipe_text.of_function(f)
  if text and not outside then return text end
  return { ["function"] = place, text = text }
end

local function is_record(value) return type(value) == "table" and type(value["function"]) == "string" end

-- A function that came as Lua: its text. A run that goes on makes it again from that, so what it needs must be in it.
local function text_given(state, path, f)
  local text, place, outside = recipe_text.of_function(f, state.given)
  if outside then
    usage.fail("%s: the function of %s uses '%s' from outside itself, which a run cannot record: write its value into the "
      .. "function", path, place, outside)
  end
  if not text then usage.fail("%s: the text of the function of %s cannot be told: give it lines of its own", path, place) end
  return text
end

local function check_range(path, value, of)
  local whole = not of.is_whole or value % 1 == 0
  if whole and value >= of.low and value <= of.high and math.abs(value) < math.huge then return end
  local range = of.low > -math.huge and (" from %g"):format(of.low) or ""
  if of.high < math.huge then range = ("%s to %g"):format(range, of.high) end
  usage.fail("%s: expects a %snumber%s, got %s", path, of.is_whole and "whole " or "", range, show(value))
end

-- Checks a value that came as Lua (from a file or a group) against its default.
local function fit(state, path, default, value)
  local kind = kind_of(default)
  if kind == "function" then
    if type(value) == "number" then value = ("%.17g"):format(value) end -- the same all along
    if type(value) == "string" then
      -- The text of the default itself stands for the default.
      if type(default) == "function" and value == recipe_text.of_function(default) then return default end
      return parse["function"](path, value), value
    elseif is_record(value) then
      if type(default) == "function" then return default end
      usage.fail("%s%s was the recipe's own function (%s), and the recipe has none now: give %s=...", state and state.reading or "",
        path, value["function"], path)
    elseif type(value) == "function" and state then
      return value, text_given(state, path, value)
    end
  end
  if kind == "list" then
    if type(value) ~= "table" or not is_list(value) then wrong(path, value, kind) end
  elseif kind ~= "any" and type(value) ~= kind then
    wrong(path, value, kind)
  end
  if is_declared(default) and default.low then check_range(path, value, default) end
  if is_declared(default) and default.choices then
    for _, name in ipairs(default.choices) do
      if name == value then return value end
    end
    usage.fail("%s: expects one of %s, got %s%s", path, table.concat(default.choices, ", "), show(value),
      usage.nearest(value, default.choices))
  end
  return value, state and nil
end

local function merge(state, into, defaults, values, prefix)
  for key, value in pairs(values) do
    local path = prefix .. tostring(key)
    local default = defaults[key]
    if default == nil or type(key) ~= "string" then unknown(state, path) end
    if kind_of(default) == "group" then
      if type(value) ~= "table" then wrong(path, value, "group") end
      merge(state, into[key], default, value, path .. ".")
    else
      local text
      into[key], text = fit(state, path, default, value)
      state.sources[path] = text
    end
  end
end

-- Merges what a file gave; `from` says which, for messages.
local function merge_file(state, values, from)
  if type(values) ~= "table" then usage.fail("%sexpects a table of keys", from) end
  -- Positional arguments that a run wrote into its config.json are not keys.
  for i = #values, 1, -1 do values[i] = nil end
  for key in pairs(values) do
    if type(key) == "string" and key:match("^%d+$") then values[key] = nil end
  end
  state.reading = from
  merge(state, state.values, state.defaults, values, "")
  state.reading = nil
end

-- What belongs to one run and its machine, not to the experiment.
local own = { "out", "resume", "threads", "workers" }

-- Takes these from the keys of a file, where the recipe has none of its own by that name; gives their names.
local function drop_own(state, values)
  local dropped = {}
  for _, key in ipairs(own) do
    if state.recipe[key] == nil and values[key] ~= nil then
      values[key] = nil
      dropped[#dropped + 1] = key
    end
  end
  return dropped
end

local function load_file(state, path)
  local file, problem = io.open(path, "rb")
  if not file then usage.fail("config: %s", problem) end
  local text = file:read("*a")
  file:close()
  local values
  if path:match("%.json$") then
    values, problem = json.decode(text)
    if problem then usage.fail("config: %s: %s", path, problem) end
  else
    local chunk
    chunk, problem = loadstring(text, "@" .. path)
    if not chunk then usage.fail("config: %s", problem) end
    values = chunk()
  end
  if type(values) == "table" then
    local dropped = drop_own(state, values)
    -- A run writes them into its config.json; in a file written by hand they were meant.
    if #dropped > 0 and not path:match("%.json$") then
      io.stderr:write(("config: %s: %s: left out, give such keys on the command line\n"):format(path, table.concat(dropped, ", ")))
    end
  end
  merge_file(state, values, ("config: %s: "):format(path))
end

-- How the recipe of a run is called from here: as it was then, or, where that was a file which is not here, by the copy that the
-- run keeps of it.
local function recipe_of_run(dir, metadata)
  local record = json.decode(files.read(dir .. "/run.json") or "null")
  local sessions = type(record) == "table" and record.sessions or {}
  local command = sessions[#sessions] and sessions[#sessions].command or ""
  local word = command:match "^penumbra ('[^']*')" or command:match "^penumbra (%S+)" or tostring(metadata.recipe)
  local path = word:gsub("'", "")
  local copy = ("%s/source/%s"):format(dir, path:match "[^/]*$")
  return path:match "%.lua$" and not files.exists(path) and files.exists(copy) and copy or word
end

-- The configuration of the run that resume= names: of its config.json, or, where there is none that can be opened, of its
-- checkpoint.
local function load_run(state, dir)
  local checkpoint = require "penumbra.run.checkpoint"
  local path, from = checkpoint.path(dir), dir .. "/config.json"
  local there = io.open(path, "r")
  if not there then usage.fail("resume: there is no %s", path) end
  there:close()
  local metadata = checkpoint.metadata(path)
  local recipe = bare_name(state.name)
  if metadata.recipe ~= recipe then
    usage.fail("resume: %s: belongs to the recipe '%s', this is '%s': penumbra %s resume=%s goes on with it", path,
      tostring(metadata.recipe), recipe, recipe_of_run(dir, metadata), dir)
  end
  local file = io.open(from, "r")
  local text = file and file:read("*a")
  if file then file:close() end
  local values, problem = json.decode(text or metadata.config or "null")
  if problem then usage.fail("resume: %s: %s; the checkpoint knows the keys too: remove the file", from, problem) end
  if not text then from = path end
  merge_file(state, values, ("resume: %s: "):format(from))
  state.values.out, state.values.resume = nil, nil
end

local function set(state, path, text)
  if path == "config" and state.defaults.config == nil then return load_file(state, text) end
  local defaults, values = state.defaults, state.values
  local parts = {}
  for part in path:gmatch("[^.]+") do parts[#parts + 1] = part end
  for i = 1, #parts - 1 do
    local default = defaults[parts[i]]
    if default == nil or kind_of(default) ~= "group" then unknown(state, path) end
    defaults, values = default, values[parts[i]]
  end
  local key = parts[#parts]
  local default = key and defaults[key]
  if default == nil then unknown(state, path) end
  state.written[path] = true
  local kind = kind_of(default)
  local value = parse[kind](path, text, default)
  if kind == "group" then
    state.given = "return " .. text
    merge(state, values, { [key] = default }, { [key] = value }, path:match("^(.*%.)") or "")
    state.given = nil
    return
  end
  values[key] = kind == "function" and value or fit(state, path, default, value) -- its own text makes a function again
  state.sources[path] = kind == "function" and text or nil
end

local function copy(defaults)
  local into = {}
  for key, value in pairs(defaults) do
    if is_declared(value) then value = value.value end
    if type(value) == "table" and not getmetatable(value) then value = copy(value) end
    into[key] = value
  end
  return into
end

-- ---- printing -------------------------------------------------------------------------------------------------------------

local meta = setmetatable({}, { __mode = "k" }) -- cfg -> { name, file, sources, written }

local function print_of(cfg)
  local lines = {}
  for _, row in ipairs(flatten(cfg, "", {})) do
    lines[#lines + 1] = ("%s = %s"):format(row.path, (config_text.value(row.value, row.path, meta[cfg].sources)))
  end
  return table.concat(lines, "\n")
end

-- ---- the door ----------------------------------------------------------------------------------------------------------------

--- The resolved configuration from defaults and a command line.
-- @tparam table defaults the recipe's table
-- @tparam table args list of "key=value", positional arguments, "--help", "--print"
-- @tparam table about name = of the recipe (for messages), file = its source (for --help), help = key -> a line, where the source
--   says none
-- @treturn table cfg; prints as a sorted list of keys
function config.resolve(defaults, args, about)
  if type(defaults) ~= "table" then error("pn.config: expects a table", 3) end
  local state = { name = about.name, file = about.file, help = about.help or {}, recipe = defaults, sources = {}, positional = {},
    written = {} }
  state.defaults = common(about.file)
  for key, value in pairs(defaults) do
    if type(key) == "number" then
      if not is_declared(value) then
        error("pn.config: a positional argument is declared with pn.required, pn.optional or pn.rest", 3)
      end
      state.positional[key] = value
    else
      local common_key = state.defaults[key]
      if type(value) == "number" and is_declared(common_key) and common_key.low then -- the recipe's default, our range
        value = kinds[common_key.what](value, common_key.low, common_key.high)
      end
      state.defaults[key] = value
    end
  end
  state.values = copy(state.defaults)

  for _, text in ipairs(args) do
    if text == "--help" or text == "-h" then
      print(config_text.help(state, common(state.file)))
      usage.leave(0)
    end
  end

  -- A run that goes on keeps its configuration; the command line may change it.
  for _, text in ipairs(args) do
    local dir = text:match("^resume=(.+)$")
    if dir and state.recipe.resume == nil and state.defaults.resume then load_run(state, (dir:gsub("(.)/+$", "%1"))) end
  end

  local given, prints = {}, false
  for _, text in ipairs(args) do
    local key, value = text:match("^([%a_][%w_.]*)=(.*)$")
    if text == "--print" then
      prints = true
    elseif key then
      set(state, key, value)
    elseif text:sub(1, 1) == "-" and #text > 1 then
      usage.fail("unknown option '%s': keys are given as key=value; --help lists them", text)
    else
      given[#given + 1] = text
    end
  end

  local cfg = state.values
  for i, text in ipairs(given) do
    local declared = state.positional[i] or state.positional[#state.positional]
    if not declared or (i > #state.positional and declared.what ~= "rest") then
      usage.fail("unexpected argument '%s': keys are given as key=value; --help lists them", text)
    end
    cfg[i] = fit(nil, "argument " .. i, declared, parse[declared.kind]("argument " .. i, text, declared))
  end
  for i, declared in ipairs(state.positional) do
    if declared.what == "required" and cfg[i] == nil then usage.fail("missing argument: %s", declared.help) end
  end
  local function demand(group, values, prefix)
    for key, default in pairs(group) do
      if type(key) == "string" then
        if is_declared(default) then
          if default.what == "required" and values[key] == nil then
            usage.fail("%s is required: %s; give %s=...", prefix .. key, default.help, prefix .. key)
          end
        elseif kind_of(default) == "group" then
          demand(default, values[key], prefix .. key .. ".")
        end
      end
    end
  end
  demand(state.defaults, cfg, "")

  meta[cfg] = { name = state.name, file = state.file, sources = state.sources, written = state.written }
  strict.make(cfg, state.defaults, print_of)
  if prints then
    print(cfg)
    usage.leave(0)
  end
  return cfg
end

local stop -- config.declared waits for this

-- pn.config{...}: the configuration of the recipe that runs, from its defaults and the program's command line.
local function from_program(defaults)
  if stop then
    stop.defaults = defaults
    error(stop, 0)
  end
  local arguments = rawget(_G, "arg") or {}
  local here, level = debug.getinfo(1, "S").source, 2
  while debug.getinfo(level, "S").source == here do level = level + 1 end
  local file = debug.getinfo(level, "S").source:match("^@(.*)")
  return config.resolve(defaults, arguments, { name = arguments[0] or file or "recipe", file = file })
end

--- The keys that a recipe declares, without running it: it is left where it comes to pn.config{...}.
-- @tparam function recipe what runs it
-- @treturn ?table the defaults; nil when it came to its end
function config.declared(recipe)
  local mine = {}
  stop = mine
  local ok, problem = pcall(recipe)
  stop = nil
  if not ok and problem ~= mine then error(problem, 0) end
  return mine.defaults
end

--- What a model is made of: its defaults, with what a configuration has of these keys. The configuration may hold others beside.
-- @tparam string what the model, for messages
-- @tparam ?table cfg
-- @tparam table defaults the model's keys
-- @treturn table
function config.pick(what, cfg, defaults)
  local values = {}
  for key, default in pairs(defaults) do
    if is_declared(default) then default = default.value end
    local value = cfg and cfg[key]
    if value == nil then value = default end
    if default ~= nil and type(value) ~= type(default) then
      raise("%s: %s is a %s, expects a %s", what, key, type(value), type(default))
    end
    values[key] = value
  end
  return values
end

--- What the functions among the keys give: a number each, or an error that names the key.
--
--     local at = pn.config.at(cfg, epoch, cfg.epochs)
--     local loss = loss + at.side_weight * side
--
-- @tparam table cfg
-- @param ... the arguments of the functions
-- @treturn table key -> number, each worked out when it is asked for
function config.at(cfg, ...)
  local arguments, n = { ... }, select("#", ...)
  return setmetatable({}, { __index = function(_, key)
    if type(cfg[key]) ~= "function" then raise("config.at: the key '%s' holds no function", tostring(key)) end
    local value = cfg[key](unpack(arguments, 1, n))
    if type(value) == "number" and math.abs(value) < math.huge then return value end
    local given = {}
    for i = 1, n do given[i] = tostring(arguments[i]) end
    raise("%s: its function gave %s at (%s), expects a number", key, value == nil and "nothing" or show(value),
      table.concat(given, ", "))
  end })
end

--- The name a recipe goes by: its file without folder and ending.
-- @tparam table cfg
-- @treturn string
function config.name(cfg) return bare_name(meta[cfg] and meta[cfg].name or "run") end

--- The file of the recipe.
-- @tparam table cfg
-- @treturn ?string nil where there is none, as on the prompt
function config.file(cfg) return meta[cfg] and meta[cfg].file end

--- Was a key written on the command line, not left at its default or taken from a file?
-- @tparam table cfg also a table that has one behind it (__index)
-- @tparam string path of the key: "optim.lr"
function config.was_written(cfg, path)
  while cfg and not meta[cfg] do
    local behind = getmetatable(cfg)
    cfg = behind and type(behind.__index) == "table" and behind.__index
  end
  return cfg and meta[cfg].written[path] == true or false
end

--- The configuration as plain data for JSON: functions as their source text (a default that its text alone does not make again as
-- { function = "mine.lua:12" }, which stands for the recipe's own), positional arguments as "1", "2", ...
-- @tparam table cfg
-- @treturn table
function config.plain(cfg)
  local sources = meta[cfg] and meta[cfg].sources or {}
  local function walk(value, path)
    if type(value) == "function" then return sources[path] or on_record(value) end
    if type(value) ~= "table" then return value end
    if is_list(value) and path ~= "" then
      local list = {}
      for i, element in ipairs(value) do list[i] = walk(element, path) end
      return list
    end
    local group = {}
    for key, element in pairs(value) do
      group[tostring(key)] = walk(element, (path == "" and "" or path .. ".") .. tostring(key))
    end
    return group
  end
  return walk(cfg, "")
end

local not_compared = { out = true, resume = true, threads = true, workers = true, ahead = true }

-- A value for a message; a key may be missing on either side.
local function told(value) return value == nil and "nothing" or json.line(value) end

--- Every key of a configuration by its whole path. A function that only its place in a file stands for has no line number there,
-- for where a default stands makes no difference.
-- @tparam table plain as `plain` gives it
-- @treturn table "optim.lr" -> value: a list is one; a group without keys, or a recorded function, is one
function config.flat(plain)
  local into = {}
  local function walk(values, prefix)
    for key, value in pairs(values) do
      local path = prefix .. key
      if is_record(value) then
        into[path] = { ["function"] = value["function"]:gsub(":%d+$", ""), text = value.text }
      elseif type(value) == "table" and not is_list(value) then
        walk(value, path .. ".")
      else
        into[path] = value
      end
    end
  end
  walk(plain, "")
  return into
end

--- What differs between two configurations, as `plain` gives them, apart from where a run lies and its threads.
-- @tparam table before
-- @tparam table now
-- @treturn {string} "optim.lr: 0.02, was 0.01", sorted
function config.changes(before, now)
  local was, is, found = config.flat(before), config.flat(now), {}
  for _, side in ipairs { was, is } do
    for path in pairs(side) do
      local one, other = told(is[path]), told(was[path])
      if not not_compared[path] and one ~= other and (side == is or is[path] == nil) then
        found[#found + 1] = ("%s: %s, was %s"):format(path, one, other)
      end
    end
  end
  table.sort(found)
  return found
end

--- Fails where a directory holds what was made with other keys.
-- @tparam string dir which out= names
-- @tparam string what it holds: "a run"
-- @tparam table before
-- @tparam table now
-- @tparam ?string instead what else to do than to choose another out=
function config.hold(dir, what, before, now, instead)
  local changes = config.changes(before, now)
  if #changes == 0 then return end
  usage.fail("out: %s holds %s with other keys (%s): choose another out=%s", dir, what, table.concat(changes, "; "), instead or "")
end

return setmetatable(config, { __call = function(_, defaults) return from_program(defaults) end })
