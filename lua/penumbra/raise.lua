--- Raises an error at the user's line: the innermost Lua line that is not of this package, nor of its models.
-- So a wrong argument is reported where it was written, however many layers of the package lie between.

local package_directory = debug.getinfo(1, "S").source:match("^(@.*/)[^/]*$") or "@"

-- The models beside this package; where the program runs in its own directory they are found as ./models.
local home = package_directory:match "^(@.*)lua/penumbra/$"
local models = home and home .. "models/" or package_directory
local models_here

local function is_ours(source)
  if source:sub(1, #package_directory) == package_directory or source:sub(1, #models) == models then
    return true
  elseif source:sub(1, 10) ~= "@./models/" then
    return false
  end
  if models_here == nil then
    local file = io.open("./lua/penumbra/raise.lua", "r")
    models_here = file ~= nil
    if file then
      file:close()
    end
  end
  return models_here
end

local function position()
  for level = 3, 200 do
    local info = debug.getinfo(level, "Sl")
    if not info then
      return ""
    end
    if info.currentline > 0 and not is_ours(info.source) then
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
