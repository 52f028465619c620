--- The order of names that people expect: digits count as numbers, so that frame 2 comes before frame 10 however they are written.
-- @module penumbra.base.natural

local natural = {}

-- The runs of a name, text and digits in turns: { text, or digits without leading zeros; is it digits? }
local function runs(name, tie)
  local list, at = { name = name, tie = tie or "" }, 1
  while at <= #name do
    local digits = name:match("^%d+", at)
    local run = digits or name:match("^%D+", at)
    list[#list + 1] = { digits and digits:gsub("^0+", "") or run, digits ~= nil }
    at = at + #run
  end
  return list
end

-- Does one name come before another? A total order: "f2" < "f10" < "g", and "f02" < "f2".
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a[i], b[i]
    if x[2] ~= y[2] then
      return x[2]
    elseif x[1] ~= y[1] then
      if x[2] and #x[1] ~= #y[1] then
        return #x[1] < #y[1] -- of numbers that may be longer than any type holds
      end
      return x[1] < y[1]
    end
  end
  if #a ~= #b then
    return #a < #b
  end
  if a.name ~= b.name then
    return a.name < b.name
  end
  return a.tie < b.tie
end

--- Sorts a list by the names of its elements, in place.
-- @tparam table list
-- @tparam ?function name_of gives the name of an element, and a second text that decides between equal names; without it the
--   elements are names
-- @treturn table list
function natural.sort(list, name_of)
  local keys = {}
  for _, element in ipairs(list) do
    if name_of then
      keys[element] = runs(name_of(element))
    else
      keys[element] = runs(element)
    end
  end
  table.sort(list, function(a, b)
    return before(keys[a], keys[b])
  end)
  return list
end

return natural
