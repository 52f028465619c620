--- The keys of a table in rising order: what is listed, written or gone through in an order that does not change from run to run.
-- @tparam table t keys of one type, strings or numbers
-- @treturn table
return function(t)
  local keys = {}
  for key in pairs(t) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end
