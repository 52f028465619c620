-- scripts/operations_doc.lua [--check]: writes docs/operations.md from the registry; with --check, says whether it is current.
local about = require "penumbra.about"
local path = require("penumbra.program").home .. "/docs/operations.md"
local text = about.operations_markdown()

if arg[1] == "--check" then
  local file = io.open(path, "r")
  local now = file and file:read("*a") or ""
  if file then file:close() end
  if now == text then return 0 end
  print "docs/operations.md is not what the registry says: make docs"
  return 1
end
local file = assert(io.open(path, "w"))
assert(file:write(text))
assert(file:close())
