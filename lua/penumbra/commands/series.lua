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

local function print_help(command)
  print(("usage: penumbra %s RECIPE key=value ...   (a recipe's name, or FILE.lua; its own keys are passed on)\n"):format(
    command.name))
  for _, key in ipairs(command.keys) do print(("  %-12s %s"):format(key[1] .. "=" .. key[2], key[3])) end
  print(("\nand every key of the recipe but %s (penumbra RECIPE --help lists them)."):format(command.varied .. " and resume"))
end

-- The command's own keys by name, and what is left for the recipe, [0] its name.
local function split(command, arguments)
  local is_own, ours, rest = {}, {}, { [0] = arguments[1] }
  for _, key in ipairs(command.keys) do is_own[key[1]] = true end
  local instead = { [command.varied] = command.instead, resume = "the same out= goes on" }
  for i = 2, #arguments do
    local name, text = arguments[i]:match("^([%a_]+)=(.*)$")
    if instead[name] then usage.fail("%s: %s= is not given here: %s", command.name, name, instead[name]) end
    if is_own[name] then
      ours[name] = text
    else
      rest[#rest + 1] = arguments[i]
    end
  end
  return ours, rest
end

-- The keys that the recipe declares, without running it; those that the command needs must be among them.
local function declared(command, path, run_file)
  local keys = config.declared(function() run_file(path, { [0] = path }) end)
  for _, key in ipairs(command.needs) do
    if not keys or keys[key] == nil then
      usage.fail("%s: %s has no key '%s': it cannot be run on %s", command.name, path, key, command.over)
    end
  end
  return keys
end

local Series = {}
Series.__index = Series

--- What a command over runs is asked for.
-- @tparam table command name; keys: rows {key, default, what it says}; varied: the recipe's key that differs from run to run;
--   instead: what to do instead of giving that one; needs: {keys that the recipe must have}; over: what it is run on, in words
-- @tparam table arguments of the command
-- @tparam function find path of a recipe or script by its name; fails with the nearest
-- @tparam function run_file runs a script with a list of arguments
-- @treturn table a series, with the command's own keys as text in `keys`; nil where help was asked for
-- @treturn number the exit status, of nil
function series.asked(command, arguments, find, run_file)
  local word, code = usage.subject(command.name, "a recipe or FILE.lua", arguments, function() print_help(command) end)
  if not word then return nil, code end
  local path = find(word)
  local ours, rest = split(command, arguments)
  return setmetatable({
    command = command, arguments = arguments, path = path, run_file = run_file, keys = ours, rest = rest,
    declared = declared(command, path, run_file),
  }, Series)
end

-- The recipe's arguments and some more.
function Series:with(...)
  local all = { [0] = self.rest[0], unpack(self.rest) }
  for _, text in ipairs { ... } do all[#all + 1] = text end
  return all
end

--- The configuration that every run has, but for the key that varies; mistakes show here.
-- @tparam ?string ... arguments of every run, besides those that were given
-- @treturn table the configuration
function Series:resolve(...)
  self.cfg = config.resolve(self.declared, self:with(...), { name = self.rest[0], file = self.path })
  return self.cfg
end

--- The words of a key of the command, between commas or spaces.
function Series:words(key)
  local words = {}
  for word in (self.keys[key] or ""):gmatch "[^,%s]+" do words[#words + 1] = word end
  return words
end

--- Makes the directory, or finds that it holds runs of the same recipe with the same keys.
-- @tparam {string} folders to make there
-- @treturn string the directory
function Series:open(folders)
  local cfg = self.cfg
  local dir = self.keys.out or ("out/%s-%s-%s"):format(self.command.name, config.name(cfg), os.date "%Y%m%d-%H%M%S")
  dir = dir:gsub("(.)/+$", "%1")
  local now = config.plain(cfg)
  now[self.command.varied] = nil
  now.recipe = config.name(cfg)
  local before = json.decode(files.read(dir .. "/config.json") or "null")
  if before then config.hold(dir, "runs", before, now) end
  local problem = files.make_directory(dir) or lock.take(dir, true)
  for _, folder in ipairs(folders) do problem = problem or files.make_directory(dir .. "/" .. folder) end
  if problem then usage.fail("out: %s", problem) end
  local about = require "penumbra.about"
  local record = { sessions = { {
    command = about.command(self.arguments), commit = about.commit(), versions = about.versions(),
    started = os.date "!%Y-%m-%dT%H:%M:%SZ",
  } } }
  for name, value in pairs { ["config.json"] = now, ["run.json"] = record } do
    problem = files.write(dir .. "/" .. name, json.pretty(value))
    if problem then usage.fail("out: %s", problem) end
  end
  if cfg.threads then require("penumbra").threads(cfg.threads) end
  self.dir = dir
  return dir
end

--- Runs the recipe in a folder of the directory, and gives back what it held.
-- @tparam string folder
-- @tparam string ... arguments of this run, besides those that were given
-- @treturn boolean whether it came to its end
-- @return the problem: a text, or a table that ends the program (Ctrl-C, a mistake of usage), for the caller to raise again
function Series:run(folder, ...)
  local depth = scope.depth()
  local ok, problem = scope.protect(self.run_file, self.path, self:with(("out=%s/%s"):format(self.dir, folder), ...))
  scope.unwind(depth)
  require("penumbra.program").catch_interrupt "off"
  jit.flush() -- compiled traces hold closures of the recipe, and with them its network
  collectgarbage() -- handles first, then what they held, on the device too
  collectgarbage()
  return ok, problem
end

--- What to say when Ctrl-C ended a run.
function Series:go_on() series.say("go on with the same command and out=%s", self.dir) end

--- Fails where some runs did.
-- @tparam table failures what they were of
-- @tparam number n of how many
-- @tparam string what "sequences"
function Series:fail(failures, n, what)
  if #failures == 0 then return end
  error(("%d of %d %s failed: %s; the same command with out=%s tries them again"):format(#failures, n, what,
    table.concat(failures, ", "), self.dir), 0)
end

--- Tells of the series on standard error.
function series.say(format, ...) io.stderr:write(format:format(...), "\n") end

return series
