--- What a name stands for in the function at a level of the stack: a local of its, else one from outside, else a global.
-- @tparam string name
-- @tparam number level counted from the caller
return function(name, level)
  local found
  for i = 1, 250 do
    local other, value = debug.getlocal(level + 1, i)
    if not other then
      break
    elseif other == name then
      found = value
    end
  end
  if found ~= nil then
    return found
  end
  local f = debug.getinfo(level + 1, "f").func
  for i = 1, 250 do
    local other, value = debug.getupvalue(f, i)
    if not other then
      return rawget(getfenv(f), name)
    elseif other == name then
      return value
    end
  end
end

