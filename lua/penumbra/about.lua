--- What the library says of itself: `penumbra ops`, `penumbra info`, and docs/operations.md, all from the registry.
-- @module penumbra.about
local files = require "penumbra.base.files"
local shell = require "penumbra.base.shell"
local usage = require "penumbra.base.usage"

local about = {}

--- Prints the list of operations, or the help of one.
-- @tparam ?string name
function about.operations(name)
  local ops = require "penumbra.ops"
  if not name then
    for _, known in ipairs(ops.names()) do
      local d = ops.describe(known)
      print(("%-20s %-24s %s"):format(known, d.signature, d.help))
    end
    return
  end
  local names = ops.names()
  for _, known in ipairs(names) do
    if known == name then return print(ops.help(name)) end
  end
  usage.fail("no operation '%s'%s (penumbra ops lists all)", name, usage.nearest(name, names))
end

local function default_of(arg)
  if not arg.default then return "" end
  if arg.default:sub(1, 1) == "=" then return " as " .. arg.default:sub(2) end
  local text = arg.default
  if arg.one_based then text = text:gsub("%d+", function(digits) return tostring(tonumber(digits) + 1) end) end
  return "=" .. text
end

--- docs/operations.md as text: a row an operation.
-- @treturn string
function about.operations_markdown()
  local ops = require "penumbra.ops"
  local lines = {
    "# Operations", "",
    "Written by `make docs` from the registry (core/ops.def); `make lint` fails when it is out of date. In Lua an operation is",
    "`pn.NAME(tensors..., { named arguments })`; `penumbra ops NAME` prints the ranges. `?` marks a tensor that may be nil, `...`",
    "one or more. Arguments in italics are required. Every row is checked by spec/ops_spec.lua: shape, gradient in f64 (where",
    "differentiable), equal bits for any number of threads.", "",
    "| operation | tensors | arguments | gradient | devices | what |", "|---|---|---|---|---|---|",
  }
  for _, name in ipairs(ops.names()) do
    local d = ops.describe(name)
    local arguments = {}
    for i, arg in ipairs(d.args) do
      local text = arg.name .. default_of(arg)
      if arg.choices then text = text .. " (" .. arg.choices:gsub("|", ", ") .. ")" end
      arguments[i] = arg.default and text or "*" .. text .. "*"
    end
    lines[#lines + 1] = ("| `%s` | %s → %s | %s | %s | %s | %s |"):format(name, d.signature, table.concat(d.outputs, " "),
      table.concat(arguments, ", "), d.differentiable and "yes" or "no", d.devices, (d.help:gsub("|", "\\|")))
  end
  return table.concat(lines, "\n") .. "\n"
end

local function size(bytes)
  if bytes >= 2 ^ 30 then return ("%.1f GiB"):format(bytes / 2 ^ 30) end
  return ("%.0f MiB"):format(bytes / 2 ^ 20)
end

--- The versions of everything that takes part, for `penumbra info` and for the record of a run.
-- @treturn table
function about.versions()
  local pn = require "penumbra"
  return { penumbra = pn.version, build = pn.build_info(), luajit = jit.version, platform = jit.os .. " " .. jit.arch }
end

--- A command line of the program, as one would type it.
-- @tparam {string} arguments from 0, the command or recipe
-- @treturn string
function about.command(arguments)
  local words = { "penumbra" }
  for i = 0, #arguments do
    local word = tostring(arguments[i])
    words[#words + 1] = word:match("^[%w_./=,:+-]+$") and word or shell.quote(word)
  end
  return table.concat(words, " ")
end

--- The commit of the checkout we run from, "-dirty" when it was edited; nil where there is none.
-- @treturn ?string
function about.commit()
  local home = require("penumbra.ffi").root
  if not (files.exists(home .. "/.git", "directory") or files.exists(home .. "/.git")) then return nil end
  return shell.line("git -C " .. shell.quote(home) .. " describe --always --dirty --tags")
end

--- The processor, as the system names it; nil where it does not.
-- @treturn ?string
function about.processor()
  local text = files.read "/proc/cpuinfo" or ""
  return text:match("model name%s*:%s*([^\n]+)")
end

--- Prints version, build, processor, threads, devices and memory.
function about.info()
  local pn = require "penumbra"
  local versions = about.versions()
  local program = require "penumbra.program"
  local memory = pn.memory("cpu")
  print("penumbra    " .. versions.penumbra)
  print("program     " .. program.exe)
  print("home        " .. program.home)
  print("library     " .. pn.ffi.library_path)
  print("build       " .. versions.build)
  print("lua         " .. versions.luajit .. ", " .. versions.platform .. (jit.status() and ", compiling" or ", interpreting"))
  print("threads     " .. pn.threads())
  print(("operations  %d"):format(#pn.ops.names()))
  local devices, why = pn.device.list()
  for _, name in ipairs(devices) do print(("%-11s %s"):format(name, pn.device.describe(name))) end
  if why then print("cuda        none: " .. why:gsub("^no CUDA: ", "")) end
  print(("memory      %s live, %s peak, %s cached"):format(size(memory.live), size(memory.peak), size(memory.cached)))
end

return about
