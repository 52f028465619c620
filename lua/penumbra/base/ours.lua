--- Is a piece of Lua this package's, or one of its models? What is not is the user's: errors are raised at its lines, and it is
-- held to what a configuration declares.

local package_directory = debug.getinfo(1, "S").source:match("^(@.*/)base/[^/]*$") or "@"

-- The models beside this package; where the program runs in its own directory they are found as ./models.
local home = package_directory:match "^(@.*)lua/penumbra/$"
local models = home and home .. "models/" or package_directory
local models_here

-- @tparam string source as debug.getinfo has it: "@lua/penumbra/nn/init.lua"
-- @treturn boolean
return function(source)
  if source:sub(1, #package_directory) == package_directory or source:sub(1, #models) == models then
    return true
  elseif source:sub(1, 10) ~= "@./models/" then
    return false
  end
  if models_here == nil then
    local file = io.open("./lua/penumbra/base/raise.lua", "r")
    models_here = file ~= nil
    if file then
      file:close()
    end
  end
  return models_here
end
