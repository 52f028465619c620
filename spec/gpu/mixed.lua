--- mixed(f): what f gives with blocks and threads in a mixed order, where the device lets itself be told.

local emulation = require "spec.gpu.emulation"

return function(f)
  if not emulation then return f() end
  local result
  emulation.with("ORDER", 2, 0, function() result = f() end)
  return result
end
