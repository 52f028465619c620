--- The known name that a misspelt one most likely meant.
-- Every message about an unknown option, operation or key ends with it.

-- Letters to change, drop, add or swap with their neighbour (optimal string alignment).
local function distance(a, b)
  local two, one = nil, {}
  for j = 0, #b do
    one[j] = j
  end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local change = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(one[j] + 1, row[j - 1] + 1, one[j - 1] + change)
      if two and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], two[j - 2] + 1)
      end
    end
    two, one = one, row
  end
  return one[#b]
end

local function last_part(name)
  return name:match("([^.]+)$") or name
end

-- learning_rate -> lr
local function initials(name)
  return (name:gsub("(%a)[%a%d]*_?", "%1"))
end

-- How far a name is from a known one. Slips that are not of the finger count little: the path left out ("lr" for "optim.lr"),
-- initials ("learning_rate" for "lr"), a piece of the name.
local function slip(name, known)
  local d = distance(name, known)
  local a, b = last_part(name), last_part(known)
  d = math.min(d, distance(a, b) + 0.5)
  if #a > 1 and #b > 1 then
    if initials(a) == b or initials(b) == a then
      d = math.min(d, 1)
    end
    if #a > 2 and (b:find(a, 1, true) or a:find(b, 1, true)) then
      d = math.min(d, 1.5)
    end
  end
  return d
end

--- The nearest candidate.
-- @tparam string name what was written
-- @tparam {string} candidates what is known
-- @tparam ?boolean always the best there is, however far
-- @treturn ?string the best candidate, or nil when none is near (more than 2 and a third of the letters away);
--   of equally near ones the alphabetically first, so that messages do not depend on table order
local function nearest(name, candidates, always)
  name = tostring(name):lower()
  local best, best_distance
  for _, candidate in ipairs(candidates) do
    local d = slip(name, candidate:lower())
    if not best or d < best_distance or (d == best_distance and candidate < best) then
      best, best_distance = candidate, d
    end
  end
  if best and (always or best_distance <= math.max(2, math.floor(#name / 3))) then
    return best
  end
  return nil
end

--- How a message about an unknown name ends: ", did you mean 'stride'?", or "" when nothing is near.
local function hint(name, candidates)
  local best = nearest(name, candidates)
  return best and (", did you mean '%s'?"):format(best) or ""
end

return setmetatable({ hint = hint }, { __call = function(_, ...) return nearest(...) end })
