--- Mistakes on the command line or in a configuration: an error value that the program prints as is and leaves with code 2,
-- and the search for the name that was probably meant.
-- @module penumbra.usage
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

--- Ends the program with an exit code and no message; for `--help` in the middle of a recipe.
-- @tparam number code
function usage.leave(code)
  error(setmetatable({ code = code }, { __tostring = function() return "left with code " .. code end }), 0)
end

-- Damerau-Levenshtein distance (optimal string alignment).
local function distance(a, b)
  local two, one = nil, {}
  for j = 0, #b do one[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local d = math.min(one[j] + 1, row[j - 1] + 1, one[j - 1] + (same and 0 or 1))
      if two and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then d = math.min(d, two[j - 2] + 1) end
      row[j] = d
    end
    two, one = one, row
  end
  return one[#b]
end

-- "lr" is near "optim.lr": the last parts are compared too, at a small price.
local function last_part(name) return name:match("([^.]+)$") or name end

-- learning_rate and lr
local function initials(name) return (name:gsub("([%a])[%a%d]*_?", "%1")) end

--- The known name nearest to a misspelled one.
-- @tparam string name
-- @tparam table names list of known names
-- @treturn ?string nil when there is none at all
function usage.nearest(name, names)
  local best, best_d
  for _, known in ipairs(names) do
    local a, b = name:lower(), known:lower()
    local la, lb = last_part(a), last_part(b)
    local d = math.min(distance(a, b), distance(la, lb) + 0.5)
    -- A part of the known name, or a name that begins with it, is a likelier slip than its distance says.
    if #la >= 2 and (lb:find(la, 1, true) or la:find(lb, 1, true)) then d = math.min(d, 1.5) end
    if #lb > 1 and #la > 1 and (initials(la) == lb or initials(lb) == la) then d = math.min(d, 1) end
    if not best_d or d < best_d or (d == best_d and known < best) then best, best_d = known, d end
  end
  return best
end

return usage
