--- The command line: penumbra FILE.lua key=value ..., and the commands of `penumbra help`. Run by lua/main.c, which also
-- turns errors into exit codes: 0 done, 1 the work failed, 2 the command line was wrong.
local modules = require "penumbra.base.modules"
local program = require "penumbra.program"
local scope = require "penumbra.scope"
local usage = require "penumbra.base.usage"

local commands, summary = {}, {}
local function command(name, arguments, text, run)
  commands[name] = run
  summary[#summary + 1] = { name = name, arguments = arguments, text = text }
end

local function exists(path)
  local file = io.open(path, "r")
  if not file then return false end
  local readable = file:read(0) ~= nil or file:seek("end") == 0 -- a directory opens, but cannot be read
  file:close()
  return readable
end

-- The rest of a list, from its nth element, with element 0 as the name.
local function arguments_from(list, n, name)
  local rest = { [0] = name }
  for i = n, #list do rest[#rest + 1] = list[i] end
  return rest
end

-- What a script returned. One that failed leaves no folder of a run that had not begun.
local function finish(ok, ...)
  if ok then return ... end
  if package.loaded["penumbra.run"] then require("penumbra.run.folder").clear() end
  error((...), 0)
end

-- Runs a script as `penumbra FILE ...` does: its arguments in the global arg.
local function run_file(path, arguments)
  local chunk, problem = loadfile(path)
  if not chunk then error(problem, 0) end
  rawset(_G, "arg", arguments)
  modules.look_beside(path)
  return finish(scope.protect(chunk, unpack(arguments)))
end

-- A recipe by its short name: the user's own recipes/ first, then ours.
local function recipe_file(name)
  for _, home in ipairs { ".", program.home } do
    local path = home .. "/recipes/" .. name .. ".lua"
    if exists(path) then return (path:gsub("^%./", "")) end
  end
end

local function recipe_names()
  local found, lfs = pcall(require, "lfs")
  local names = {}
  if not found then return names end
  for _, home in ipairs { ".", program.home } do
    local dir = home .. "/recipes"
    if lfs.attributes(dir, "mode") == "directory" then
      for entry in lfs.dir(dir) do
        local name = entry:match("^([%w_]+)%.lua$")
        if name and not names[name] then
          names[name] = true
          names[#names + 1] = name
        end
      end
    end
  end
  table.sort(names)
  return names
end

local function first_comment(path)
  local file = io.open(path, "r")
  local line = file and file:read("*l") or ""
  if file then file:close() end
  line = line:gsub("^%-%-+%s*", ""):gsub("^recipes/[%w_]+%.lua:%s*", ""):gsub(":?%s*penumbra %w.*$", ""):gsub(":$", "")
  return #line <= 100 and line or line:sub(1, 100):gsub("[,;:]?%s+%S*$", "") .. " ..."
end

local function print_help()
  print "usage: penumbra FILE.lua key=value ...   run a script or a recipe"
  print "       penumbra NAME key=value ...       run recipes/NAME.lua\n"
  for _, row in ipairs(summary) do print(("  %-30s %s"):format(row.name .. " " .. row.arguments, row.text)) end
  print(("  %-30s %s"):format("-e CODE", "run a line of Lua, with pn at hand"))
  print(("  %-30s %s"):format("--spec [FILE | DIR ...]", "run specs (busted) in this program"))
  print(("  %-30s %s"):format("--version", "print the version"))
  local names = recipe_names()
  if #names > 0 then
    print "\nrecipes (penumbra help NAME lists the keys of one)"
    for _, name in ipairs(names) do print(("  %-12s %s"):format(name, first_comment(recipe_file(name)))) end
  end
  print "\nhelp() at the prompt lists what Lua has; docs/from_pytorch.md says what PyTorch's habits are here"
end

local main
command("help", "[NAME]", "this text; the keys of a recipe, the words of a command", function(arguments)
  if arguments[1] == nil or commands[arguments[1]] == commands.help then return print_help() end
  return main { arguments[1], "--help" }
end)

command("fetch", "i3d", "bring the Kinetics weights to this machine", function(arguments)
  return require("penumbra.commands.fetch").run(arguments)
end)

command("ops", "[NAME]", "the operations, or the help of one", function(arguments)
  return require("penumbra.about").operations(arguments[1])
end)

local find_script
command("info", "[MODEL key=value ...]", "version, threads, libraries; or what a model takes, by layer", function(arguments)
  if arguments[1] == nil then return require("penumbra.about").info() end
  return require("penumbra.commands.info").run(arguments, find_script, run_file)
end)

command("each", "RECIPE key=value ...", "a recipe on every sequence of a set, and one table", function(arguments)
  return require("penumbra.commands.each").run(arguments, find_script, run_file)
end)

command("objects", "RECIPE key=value ...", "a recipe on every object of the first mask, and their masks in one", function(arguments)
  return require("penumbra.commands.objects").run(arguments, find_script, run_file)
end)

command("compare", "DIR ... key=value ...", "runs beside each other, by what their keys differ in", function(arguments)
  return require("penumbra.commands.compare").run(arguments)
end)

command("profile", "RECIPE key=value ...", "where its time goes, by operation and layer, and a trace", function(arguments)
  return require("penumbra.commands.profile").run(arguments, find_script, run_file)
end)

command("repl", "", "an interactive prompt, with history and completion", function()
  return require("penumbra.commands.repl").run()
end)

local function unknown(word)
  local names = recipe_names()
  for name in pairs(commands) do names[#names + 1] = name end
  table.sort(names)
  if word:match "^[%w_]+$" and (exists("models/" .. word .. ".lua") or exists(program.home .. "/models/" .. word .. ".lua")) then
    usage.fail("'%s' is a model, no recipe or command: penumbra info %s --help lists its keys, penumbra info %s its layers", word,
      word, word)
  end
  usage.fail("no command, recipe or file '%s'%s (penumbra help lists all)", word, usage.nearest(word, names))
end

-- The path of a script or recipe; fails with the nearest.
function find_script(word)
  if word:match("%.lua$") then
    local path = exists(word) and word or program.home .. "/" .. word
    if not exists(path) then usage.fail("no file '%s'", word) end
    return path
  end
  return word:match("^[%w_]+$") and recipe_file(word) or unknown(word)
end

-- What a command without a --help of its own is told with.
local function print_summary(word)
  for _, row in ipairs(summary) do
    if row.name == word then print((("usage: penumbra %s %s"):format(word, row.arguments):gsub("%s+$", "")) .. "\n" .. row.text) end
  end
end
local own_help = { fetch = true, info = true, each = true, objects = true, compare = true, profile = true }

function main(arguments)
  local word = arguments[1]
  if word == nil then
    print_help()
    return 2
  end
  if word == "--help" or word == "-h" then return print_help() end
  if word == "--version" or word == "-v" then return print("penumbra " .. program.version) end
  if word == "-e" then
    if not arguments[2] then usage.fail("-e: expects a line of Lua") end
    local chunk, problem = loadstring(arguments[2], "=-e")
    if not chunk then error(problem, 0) end
    rawset(_G, "arg", arguments_from(arguments, 3, "-e"))
    -- pn is loaded when it is first named.
    setfenv(chunk, setmetatable({}, { __newindex = _G, __index = function(_, key)
      local value = rawget(_G, key)
      if value == nil and key == "pn" then return require "penumbra" end
      return value
    end }))
    return chunk()
  end
  if word == "--spec" then
    local runner = program.home .. "/scripts/spec.lua"
    if not exists(runner) then usage.fail("--spec: works in a checkout; there is no %s", runner) end
    return run_file(runner, arguments_from(arguments, 2, runner))
  end
  if word:sub(1, 1) == "-" then usage.fail("unknown option '%s' (penumbra help lists all)", word) end
  local first = arguments[2]
  if commands[word] and not own_help[word] and (first == "--help" or first == "-h") then return print_summary(word) end
  if commands[word] then return commands[word](arguments_from(arguments, 2, word)) end
  return run_file(find_script(word), arguments_from(arguments, 2, word))
end

modules.speak_plainly()
local code = main(rawget(_G, "arg"))
return type(code) == "number" and code or 0
