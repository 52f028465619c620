--- `penumbra profile RECIPE key=value ...`: where the time of a recipe goes, by operation and by layer, and a trace of it.
--
-- The recipe runs as usual, in a directory that is removed afterwards (unless out= names one), and is left after a few turns of
-- its loop; without a loop it runs to its end. Keys of the profile itself, before or between those of the recipe: steps, warm,
-- rows, trace.
-- @module penumbra.commands.profile
local files = require "penumbra.base.files"
local usage = require "penumbra.base.usage"

local keys = {
  { "steps", 5, "turns of the loop that are recorded" },
  { "warm", 2, "turns before them" },
  { "rows", 40, "lines of each table" },
  { "trace", "trace.json", "for chrome://tracing or ui.perfetto.dev; \"\" for none" },
}

local function print_help()
  print "usage: penumbra profile RECIPE key=value ...   (a recipe's name, or FILE.lua; its own keys are passed on)\n"
  for _, key in ipairs(keys) do print(("  %-18s %s"):format(key[1] .. "=" .. key[2], key[3])) end
end

local function whole(name, text, low)
  local number = tonumber(text)
  if not number or number ~= math.floor(number) or number < low then
    usage.fail("profile: %s is '%s', expects a whole number from %d", name, text, low)
  end
  return number
end

-- Our keys, and what is left for the recipe.
local function split(arguments)
  local ours, rest = {}, { [0] = arguments[1] }
  for _, key in ipairs(keys) do ours[key[1]] = key[2] end
  for i = 2, #arguments do
    local name, text = arguments[i]:match("^([%a_]+)=(.*)$")
    if ours[name] == nil then
      rest[#rest + 1] = arguments[i]
    elseif name == "trace" then
      ours.trace = text
    else
      ours[name] = whole(name, text, name == "warm" and 0 or 1)
    end
  end
  return ours, rest
end

--- @tparam table arguments of the command
-- @tparam function find path of a recipe or script by its name; fails with the nearest
-- @tparam function run_file runs a script with a list of arguments
local function run(arguments, find, run_file)
  local name, code = usage.subject("profile", "a recipe or FILE.lua", arguments, print_help)
  if not name then return code end
  local path = find(name)
  local ours, rest = split(arguments)
  local had_trace = files.exists(ours.trace)
  if ours.trace ~= "" then -- before minutes are spent
    local file, problem = io.open(ours.trace, "ab")
    if not file then usage.fail("profile: trace: cannot write %s", problem) end
    file:close()
  end
  local profile = require "penumbra.profile"
  local out = files.scratch()
  local how = { steps = ours.steps, warm = ours.warm, out = out }
  local ok, report = pcall(profile.watch, how, function() return run_file(path, rest) end)
  require("penumbra.program").catch_interrupt "off"
  files.remove(out)
  if not ok then
    if ours.trace ~= "" and not had_trace then os.remove(ours.trace) end
    error(report, 0)
  end
  local pn = require "penumbra"
  io.stderr:write "\r\27[K"
  print(("%s, %s kernels, %d thread%s: %s, %.1f ms%s\n"):format(name, require("ffi").string(pn.C.pn_cpu_variant()), pn.threads(),
    pn.threads() == 1 and "" or "s", report.loop and ("%d turn%s"):format(report.turns, report.turns == 1 and "" or "s")
    or "the whole run (it has no loop)", report.wall * 1e3 / report.turns, report.loop and " each" or ""))
  print(report:text(ours.rows))
  if ours.trace ~= "" then
    print(("\n%s: %d events; open it in chrome://tracing or ui.perfetto.dev"):format(ours.trace, report:write_trace(ours.trace)))
  end
end

return { run = run }
