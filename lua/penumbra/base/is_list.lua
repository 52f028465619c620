--- Whether a table is a list: keys 1, 2, ... and no others. An empty one is.
-- @tparam table t
-- @treturn boolean
return function(t)
  local n = 0
  for key in pairs(t) do
    if type(key) ~= "number" then return false end
    n = n + 1
  end
  return n == #t
end
