--- The known name that a misspelt one most likely meant.
-- Every message about an unknown option, operation or key ends with it.

local function distance(a, b)
  local row = {}
  for j = 0, #b do
    row[j] = j
  end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local above = row[j]
      local change = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(diagonal + change, above + 1, row[j - 1] + 1)
      diagonal = above
    end
  end
  return row[#b]
end

--- Levenshtein's nearest candidate.
-- @tparam string name what was written
-- @tparam {string} candidates what is known
-- @treturn ?string the best candidate, or nil when none is near (more than 2 and a third of the letters away);
--   of equally near ones the alphabetically first, so that messages do not depend on table order
local function nearest(name, candidates)
  name = tostring(name)
  local best, best_distance
  for _, candidate in ipairs(candidates) do
    local d = distance(name:lower(), candidate:lower())
    if not best or d < best_distance or (d == best_distance and candidate < best) then
      best, best_distance = candidate, d
    end
  end
  if best and best_distance <= math.max(2, math.floor(#name / 3)) then
    return best
  end
  return nil
end

return nearest
