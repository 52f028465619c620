--- What a captured step (penumbra.captured) needs done around each time it is done again: its Lua does not run then, but numbers
-- that vary from step to step still have to reach the device, and what kernels found has to be heeded.
--
-- What was found need not be heeded at once: a run (penumbra.run) defers it until the next turn has its batch, so that the device
-- is not waited for before. It is heeded in order, and before anything is launched again.
--
-- While a step is captured, an optimiser or a layer that is part of it calls `replay.around(before, after)`: before writes tensors
-- that the captured kernels read, after reads what they wrote. Both run in the order of the calls.

local C = require("penumbra.ffi").C
local scope = require "penumbra.scope"

local replay = {}

local list
local deferred, is_deferring = {}, false

--- Does what heeds results of the device now, or where that is deferred, at the next `settle`.
-- @return the result of f; nothing where it is deferred
function replay.heed(f)
  if is_deferring and scope.depth() == 0 then -- an error has left the loop
    replay.defer(false)
  end
  if is_deferring then
    deferred[#deferred + 1] = f
    return nil
  end
  return f()
end

--- Heeds what was deferred.
function replay.settle()
  local all = deferred
  deferred = {}
  for _, f in ipairs(all) do f() end
end

--- From now on heeding is deferred, or no longer; what still waits is forgotten.
function replay.defer(on)
  deferred, is_deferring = {}, on
end

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
  replay.settle()
  for _, each in ipairs(all) do
    if each.before then each.before() end
  end
  launch()
  for _, each in ipairs(all) do
    if each.after then replay.heed(each.after) end
  end
end

return replay
