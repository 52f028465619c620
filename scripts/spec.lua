-- scripts/spec.lua: runs specs with busted inside this program: penumbra --spec [FILE | DIR ...] [--filter=TEXT] [--verbose]
-- One file runs right here; several run in a process each, so that a crash costs one file and nothing leaks from one to the
-- next. The last line is "N passed, N failed, N skipped"; the exit code is 0 only when nothing failed and something ran.
-- PENUMBRA_LIB chooses the library under test (the f64 or asan build), PENUMBRA_SPEC_SECONDS the limit of one file.
local program = require "penumbra.program"
local shell = require "penumbra.base.shell"
local usage = require "penumbra.base.usage"
local lfs = require "lfs"

local function collect(path, into)
  local mode = lfs.attributes(path, "mode")
  if mode == "directory" then
    local entries = {}
    for entry in lfs.dir(path) do
      if entry:sub(1, 1) ~= "." then entries[#entries + 1] = entry end
    end
    table.sort(entries)
    for _, entry in ipairs(entries) do
      local inside = path .. "/" .. entry
      if lfs.attributes(inside, "mode") == "directory" or entry:match("_spec%.lua$") then collect(inside, into) end
    end
  elseif mode == "file" then
    into[#into + 1] = path
  else
    usage.fail("--spec: no file or directory '%s'", path)
  end
end

local files, options, roots = {}, {}, {}
local tally_file
for _, word in ipairs(arg) do
  if word:match("^%-%-tally=") then tally_file = word:match("=(.*)")
  elseif word:match("^%-%-") then options[#options + 1] = word
  else roots[#roots + 1] = word end
end
if #roots == 0 then roots[1] = "spec" end
for _, root in ipairs(roots) do collect(root:gsub("/+$", ""), files) end
if #files == 0 then usage.fail("--spec: no *_spec.lua in %s", table.concat(roots, ", ")) end

local quote = shell.quote

-- ---- one file: in this process -----------------------------------------------------------------------------------------

-- The libraries that write globals of their own do so now; afterwards an accidental global is an error.
local function guard_globals()
  for _, name in ipairs { "lfs", "cjson", "ffi", "bit", "busted" } do require(name) end
  pcall(require, "readline")
  local allowed = { arg = true }
  setmetatable(_G, {
    __newindex = function(t, key, value)
      if not allowed[key] and debug.getinfo(2, "S").what ~= "C" then
        error(("global '%s' written: a 'local' is missing"):format(tostring(key)), 2)
      end
      rawset(t, key, value)
    end,
  })
end

local function run_here(file)
  local arguments = { [0] = "penumbra --spec", "--output=" .. program.home .. "/scripts/spec_output.lua", "--pattern=_spec",
    "-Xoutput", tally_file or "", "--keep-going" }
  for _, option in ipairs(options) do arguments[#arguments + 1] = option end
  arguments[#arguments + 1] = file
  rawset(_G, "arg", arguments)
  guard_globals()
  -- busted ends a failed run by raising nil.
  local ok, problem = pcall(require("busted.runner"), { standalone = false })
  if not ok and problem ~= nil then error(problem, 0) end
  return ok and 0 or 1
end

if #files == 1 then return run_here(files[1]) end

-- ---- several: a process each ---------------------------------------------------------------------------------------------

local passed, failed, skipped = 0, 0, 0
local reasons, reason_order = {}, {}
local seconds = tonumber(os.getenv "PENUMBRA_SPEC_SECONDS") or 900
local tally = os.tmpname()
local started = os.time()

for _, file in ipairs(files) do
  os.remove(tally)
  local words = {}
  for _, option in ipairs(options) do words[#words + 1] = quote(option) end
  local began = os.time()
  local output, code, late = shell.within(seconds, ("%s --spec %s --tally=%s %s"):format(quote(program.exe),
    table.concat(words, " "), quote(tally), quote(file)))
  output = output:gsub("\n+$", "")

  local counts = {}
  local handle = io.open(tally, "r")
  if handle then
    for line in handle:lines() do
      local key, text = line:match("^(%S+) (.*)$")
      if key == "skip" then
        if not reasons[text] then
          reasons[text] = 0
          reason_order[#reason_order + 1] = text
        end
        reasons[text] = reasons[text] + 1
      elseif key then
        counts[key] = tonumber(text)
      end
    end
    handle:close()
  end
  passed, skipped = passed + (counts.passed or 0), skipped + (counts.skipped or 0)
  local bad = counts.failed or 0
  if not counts.done or (bad == 0 and code ~= 0) then
    bad = bad + 1
    local why = late and ("ran longer than %d s"):format(seconds) or ("ended with exit code %s"):format(tostring(code))
    output = output .. ("\n  %s: %s before its end"):format(file, why)
  end
  failed = failed + bad
  io.write(("%-44s %4d passed"):format(file, counts.passed or 0), bad > 0 and (", %d failed"):format(bad) or "",
    (counts.skipped or 0) > 0 and (", %d skipped"):format(counts.skipped) or "", ("  (%d s)\n"):format(os.time() - began))
  if bad > 0 then
    io.write(output, "\n")
  end
  io.flush()
end
os.remove(tally)

if #reason_order > 0 then
  print "\nskipped:"
  for _, reason in ipairs(reason_order) do print(("  %3d  %s"):format(reasons[reason], reason)) end
end
print(("\n%d files in %d s"):format(#files, os.time() - started))
if passed + failed == 0 then failed = 1 end
print(("%d passed, %d failed, %d skipped"):format(passed, failed, skipped))
return failed == 0 and 0 or 1
