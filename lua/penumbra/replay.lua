--- What a captured step (penumbra.captured) needs done around each time it is done again: its Lua does not run then, but numbers
-- that vary from step to step still have to reach the device, and what kernels found has to be heeded.
--
-- While a step is captured, an optimiser or a layer that is part of it calls `replay.around(before, after)`: before writes tensors
-- that the captured kernels read, after reads what they wrote. Both run in the order of the calls.

local C = require("penumbra.ffi").C

local replay = {}

local list

--- Is a step being captured?
function replay.capturing() return list ~= nil end

--- To be done around each time of the step that is being captured, the first included; either may be nil.
function replay.around(before, after) list[#list + 1] = { before = before, after = after } end

--- What `make` returns, a tensor that `before` writes: its memory is no other's while the step runs.
function replay.tensor(make)
  C.pn_capture_aside(true)
  local ok, made = pcall(make)
  C.pn_capture_aside(false)
  if not ok then error(made, 0) end
  return made:keep()
end

--- A capture begins; ends, which gives what was to be done around it.
function replay.open() list = {} end
function replay.close()
  local all = list
  list = nil
  return all
end

--- launch(), with all that is to be done around it.
function replay.run(all, launch)
  for _, each in ipairs(all) do
    if each.before then each.before() end
  end
  launch()
  for _, each in ipairs(all) do
    if each.after then each.after() end
  end
end

return replay
