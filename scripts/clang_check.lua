-- scripts/clang_check.lua: every C file of the build once through Clang, with the flags of the build and warnings as errors.
local cjson = require "cjson"
local program = require "penumbra.program"

local path = program.home .. "/build/compile_commands.json"
local file = assert(io.open(path, "r"), "no " .. path .. ": make build first")
local entries = {}
for _, entry in ipairs(cjson.decode(file:read("*a"))) do -- what nvcc compiles is its own; the emulation compiles the same text
  if not entry.command:match "^%S*nvcc%s" and not entry.command:find("CUDA.rsp", 1, true) then entries[#entries + 1] = entry end
end
file:close()

-- What only Clang finds, and which is meant: assert(!"why"), and { forward } for a kernel without a backward.
local unwanted = "-Wno-string-conversion -Wno-missing-field-initializers"

local n_bad = 0
for _, entry in ipairs(entries) do
  local flags = entry.command:gsub("^%S+", ""):gsub("%s%-o%s+%S+", ""):gsub("%s%-c%s", " ")
  local command = ("cd '%s' && clang -fsyntax-only -Werror -Wno-unknown-warning-option %s %s 2>&1"):format(entry.directory, flags,
    unwanted)
  local pipe = assert(io.popen(command))
  local output = pipe:read("*a")
  pipe:close()
  if output ~= "" then
    io.write(output)
    n_bad = n_bad + 1
  end
end
if n_bad > 0 then print(("%d of %d files with warnings"):format(n_bad, #entries)) end
return n_bad == 0 and 0 or 1
