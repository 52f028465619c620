--- Runs of one recipe, one after another, each in a folder of one directory: what `penumbra each` (a run a sequence) and
-- `penumbra objects` (a run an object) share. The directory's config.json has what all these runs have in common, run.json the
-- command. Called again with the same out=, it must be the same recipe with the same keys.
-- @module penumbra.commands.series
local config = require "penumbra.config"
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local lock = require "penumbra.run.lock"
local scope = require "penumbra.scope"
local usage = require "penumbra.base.usage"

local series = {}

--- Prints the help of a command over runs.
-- @tparam string command
-- @tparam table keys rows {key, default, what it says}
-- @tparam string own_to_run the keys of the recipe that are not given
function series.print_help(command, keys, own_to_run)
  print(("usage: penumbra %s RECIPE key=value ...   (a recipe's name, or FILE.lua; its own keys are passed on)\n"):format(command))
  for _, key in ipairs(keys) do print(("  %-12s %s"):format(key[1] .. "=" .. key[2], key[3])) end
  print(("\nand every key of the recipe but %s (penumbra RECIPE --help lists them)."):format(own_to_run))
end

--- The command's own keys, and what is left for the recipe.
-- @tparam string command
-- @tparam {string} arguments the recipe, then key=value
-- @tparam table keys rows {key, ...}
-- @tparam table instead keys that are not given here: what to do instead
-- @treturn table key to text
-- @treturn table the other arguments, [0] the recipe
function series.split(command, arguments, keys, instead)
  local is_own, ours, rest = {}, {}, { [0] = arguments[1] }
  for _, key in ipairs(keys) do is_own[key[1]] = true end
  for i = 2, #arguments do
    local name, text = arguments[i]:match("^([%a_]+)=(.*)$")
    if instead[name] then usage.fail("%s: %s= is not given here: %s", command, name, instead[name]) end
    if is_own[name] then
      ours[name] = text
    else
      rest[#rest + 1] = arguments[i]
    end
  end
  return ours, rest
end

--- The words of a text, between commas or spaces.
function series.words(text)
  local words = {}
  for word in (text or ""):gmatch "[^,%s]+" do words[#words + 1] = word end
  return words
end

--- Arguments and some more.
function series.with(rest, ...)
  local all = { [0] = rest[0], unpack(rest) }
  for _, text in ipairs { ... } do all[#all + 1] = text end
  return all
end

--- The keys that a recipe declares, without running it; those that are needed must be among them.
-- @tparam string command
-- @tparam string path of the recipe
-- @tparam function run_file
-- @tparam {string} needed names
-- @tparam string for_what
-- @treturn table the declaration
function series.declared(command, path, run_file, needed, for_what)
  local declared = config.declared(function() run_file(path, { [0] = path }) end)
  for _, key in ipairs(needed) do
    if not declared or declared[key] == nil then
      usage.fail("%s: %s has no key '%s': it cannot be run on %s", command, path, key, for_what)
    end
  end
  return declared
end

--- Makes the directory, or finds that it holds runs of the same recipe with the same keys.
-- @tparam string dir
-- @tparam table arguments of the command
-- @tparam table cfg the configuration of a run
-- @tparam {string} differing keys that differ from run to run
-- @tparam {string} folders to make there
function series.open(dir, arguments, cfg, differing, folders)
  local now = config.plain(cfg)
  for _, key in ipairs(differing) do now[key] = nil end
  now.recipe = config.name(cfg)
  local before = json.decode(files.read(dir .. "/config.json") or "null")
  if before then config.hold(dir, "runs", before, now) end
  local problem = files.make_directory(dir) or lock.take(dir, true)
  for _, folder in ipairs(folders) do problem = problem or files.make_directory(dir .. "/" .. folder) end
  if problem then usage.fail("out: %s", problem) end
  local about = require "penumbra.about"
  local record = { sessions = { {
    command = about.command(arguments), commit = about.commit(), versions = about.versions(),
    started = os.date "!%Y-%m-%dT%H:%M:%SZ",
  } } }
  for name, value in pairs { ["config.json"] = now, ["run.json"] = record } do
    problem = files.write(dir .. "/" .. name, json.pretty(value))
    if problem then usage.fail("out: %s", problem) end
  end
end

--- Runs a recipe, and gives back what it held.
-- @treturn boolean whether it came to its end
-- @return the problem: a text, or a table that ends the program (Ctrl-C, a mistake of usage), for the caller to raise again
function series.run(run_file, path, arguments)
  local depth = scope.depth()
  local ok, problem = scope.protect(run_file, path, arguments)
  scope.unwind(depth)
  require("penumbra.program").catch_interrupt "off"
  jit.flush() -- compiled traces hold closures of the recipe, and with them its network
  collectgarbage() -- handles first, then what they held, on the device too
  collectgarbage()
  return ok, problem
end

--- Tells of the series on standard error.
function series.say(format, ...) io.stderr:write(format:format(...), "\n") end

return series
