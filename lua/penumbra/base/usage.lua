--- Mistakes on the command line or in a configuration: an error value that the program prints as is and leaves with code 2,
-- and the search for the name that was probably meant.
-- @module penumbra.base.usage
local nearest = require "penumbra.base.nearest"

local usage = {}

local Problem = {}
Problem.__index = Problem
function Problem:__tostring() return self.message end
function Problem.__concat(a, b) return tostring(a) .. tostring(b) end

--- Raises a message as a mistake of usage: without position, exit code 2.
-- @tparam string format text, or a format for the arguments that follow
function usage.fail(format, ...)
  local message = select("#", ...) > 0 and string.format(format, ...) or format
  error(setmetatable({ message = message, code = 2 }, Problem), 0)
end

--- The first word of a command that works on something: a recipe, a model. Without one, or with --help, the help is printed.
-- @tparam string command for messages
-- @tparam string what is expected: "a recipe or FILE.lua"
-- @tparam {string} arguments of the command
-- @tparam function print_help
-- @treturn ?string the word; nil when there is nothing more to do
-- @treturn ?int then the exit code
function usage.subject(command, what, arguments, print_help)
  local word = arguments[1]
  if word == nil or word == "--help" or word == "-h" then
    print_help()
    return nil, word and 0 or 2
  end
  if word:find("=", 1, true) then usage.fail("%s: the first word is %s, got '%s'", command, what, word) end
  return word
end

--- Ends the program with an exit code and no message; for `--help` in the middle of a recipe.
-- @tparam number code
function usage.leave(code)
  error(setmetatable({ code = code }, { __tostring = function() return "left with code " .. code end }), 0)
end

--- How a message about an unknown name goes on: ": the nearest is 'oneshot'", ": " and how it is said here, or "" when none is
-- near.
-- @tparam string name
-- @tparam table names list of known names
-- @treturn string
function usage.nearest(name, names)
  local text = nearest.otherwise(name, names)
  if text then return ": " .. text end
  local best = nearest(name, names)
  return best and (": the nearest is '%s'"):format(best) or ""
end

return usage
