--- Raises an error at the user's line: the innermost Lua line that is not of this package, nor of its models.
-- So a wrong argument is reported where it was written, however many layers of the package lie between.
--
-- `return pn.sum(x)` is a tail call: LuaJIT keeps nothing of the function that it stands in, so the line is that of its caller.
-- Where that caller named the function by a local, an upvalue or a global, the message ends with where it was defined.

local is_ours = require "penumbra.base.ours"
local value_of = require "penumbra.base.value_of"

local is_variable = { ["local"] = true, upvalue = true, global = true }

-- The function of the user's that the one at `level` calls, where something else runs in its place: it ended in a tail call.
local function replaced(level)
  local below = debug.getinfo(level, "nf")
  local called = is_variable[below.namewhat] and value_of(below.name, level + 1)
  local info = type(called) == "function" and called ~= below.func and debug.getinfo(called, "S")
  if not info or info.what ~= "Lua" or is_ours(info.source) then
    return ""
  end
  return ("   (in what %s returns, %s:%d)"):format(below.name, info.short_src, info.linedefined)
end

local function position()
  for level = 3, 200 do
    local info = debug.getinfo(level, "Sl")
    if not info then
      return "", ""
    end
    if info.currentline > 0 and not is_ours(info.source) then
      return ("%s:%d: "):format(info.short_src, info.currentline), level > 3 and replaced(level) or ""
    end
  end
  return "", ""
end

--- @tparam string message the text, taken literally unless arguments follow
-- @param ... arguments of string.format, when message is a format
local function raise(message, ...)
  if select("#", ...) > 0 then
    message = message:format(...)
  end
  local where, tail = position()
  error(where .. message .. tail, 0)
end

return raise
