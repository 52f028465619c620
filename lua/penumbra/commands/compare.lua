--- `penumbra compare DIR ... key=value ...`: runs beside each other, by what their keys differ in (penumbra.compare).
-- @module penumbra.commands.compare
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local usage = require "penumbra.base.usage"

local keys = {
  { "plot", "the losses of the runs, over each other: a .png or .svg file" },
  { "json", "a file for the whole comparison, values 0-1" },
}

local function print_help()
  print "usage: penumbra compare DIR ... key=value ...   (a run, a directory of `each`, or a folder of runs)\n"
  for _, key in ipairs(keys) do print(("  %-12s %s"):format(key[1] .. "=FILE", key[2])) end
  print "\nRuns that differ in nothing but seed and sequence are one setting; the others are held against the first."
end

-- The directories, and our keys.
local function split(arguments)
  local dirs, ours = {}, {}
  for _, word in ipairs(arguments) do
    local name, text = word:match "^([%a_]+)=(.*)$"
    if not name or files.exists(word, "directory") then
      dirs[#dirs + 1] = word
    elseif name == "plot" or name == "json" then
      ours[name] = text
    else
      usage.fail("compare: no key '%s'%s", name, usage.nearest(name, { "plot", "json" }))
    end
  end
  if #dirs == 0 then usage.fail("compare: expects a directory of runs, got %s", arguments[1]) end
  return dirs, ours
end

-- A line a run; the names of settings tell which is which.
local function plot_losses(path, found)
  local series = { path = path, title = "loss", x_label = "step", y_label = "loss", log_y = true, smooth = 25 }
  for _, setting in ipairs(found.settings) do
    for _, run in ipairs(setting.runs) do
      if run.losses then series[#series + 1] = { setting.name .. " " .. run.dir:match "[^/]+$", run.losses } end
    end
  end
  if #series == 0 then usage.fail("compare: none of the runs has logged a loss to plot") end
  require("penumbra.plot").lines(series)
end

local function as_json(found)
  local settings = {}
  for i, setting in ipairs(found.settings) do
    local differ, dirs = {}, {}
    for _, key in ipairs(found.differ) do differ[key] = setting.keys[key] end
    for k, run in ipairs(setting.runs) do dirs[k] = run.dir end
    settings[i] = { name = setting.name, keys = differ, runs = dirs, sequences = setting.sequences, mean = setting.mean }
  end
  return json.pretty { differ = found.differ, sequences = found.sequences, settings = settings }
end

--- @tparam table arguments of the command
-- @treturn ?int exit code
local function run(arguments)
  local word = arguments[1]
  if word == nil or word == "--help" or word == "-h" then
    print_help()
    return word and 0 or 2
  end
  local dirs, ours = split(arguments)
  local compare = require "penumbra.compare"
  local found = compare.settings(compare.read(dirs))
  io.write(compare.format(found))
  if ours.plot then plot_losses(ours.plot, found) end
  if ours.json then
    local problem = files.write(ours.json, as_json(found))
    if problem then error("compare: " .. problem, 0) end
  end
end

return { run = run }
