--- Raises an error at the user's line: the innermost Lua line that is not of this package.
-- So a wrong argument is reported where it was written, however many layers of the package lie between.

local package_directory = debug.getinfo(1, "S").source:match("^(@.*/)[^/]*$") or "@"

local function position()
  for level = 3, 200 do
    local info = debug.getinfo(level, "Sl")
    if not info then
      return ""
    end
    if info.currentline > 0 and info.source:sub(1, #package_directory) ~= package_directory then
      return ("%s:%d: "):format(info.short_src, info.currentline)
    end
  end
  return ""
end

--- @tparam string message the text, taken literally unless arguments follow
-- @param ... arguments of string.format, when message is a format
local function raise(message, ...)
  if select("#", ...) > 0 then
    message = message:format(...)
  end
  error(position() .. message, 0)
end

return raise
