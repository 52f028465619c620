--- Scopes: `scope.run(f)` frees the tensors that f made and did not return, at once.
--
-- LuaJIT cannot see the bytes behind a handle, so the collector alone would let them pile up. A scope lists the handles made
-- while it is the innermost one. The list is weak: a handle that f dropped on the way may be collected before the scope ends.
-- Each handle knows the serial number of the scope it belongs to (0: none), so keeping one costs a single store.
-- What the tape needs for backward it holds itself, by reference count: freeing a handle never frees what a gradient waits for.

local explained = require "penumbra.base.unknown_call"
local raise = require "penumbra.base.raise"

local scope = {}

local weak = { __mode = "v" }
local stack, depth = {}, 0
local serial = 0
local last_traceback

--- Lists a new handle in the innermost scope. Called by the binding for each tensor it makes.
function scope.adopt(handle)
  if depth > 0 then
    local top = stack[depth]
    local n = top.n + 1
    top.n, top.list[n] = n, handle
    handle.scope = top.serial
  end
end

--- Opens a scope. Each push needs its pop; `pn.scope(f)` does both, also when f fails.
function scope.push()
  serial = serial + 1
  depth = depth + 1
  local top = stack[depth]
  if top then
    top.serial, top.n, top.list = serial, 0, setmetatable({}, weak)
  else
    stack[depth] = { serial = serial, n = 0, list = setmetatable({}, weak) }
  end
end

local function keep(value, from, to, seen)
  if type(value) == "cdata" then
    if scope.is_tensor(value) and value.scope == from.serial then
      if to then
        local n = to.n + 1
        to.n, to.list[n] = n, value
        value.scope = to.serial
      else
        value.scope = 0
      end
    end
  elseif type(value) == "table" and not seen[value] then
    seen[value] = true
    for _, inner in pairs(value) do
      keep(inner, from, to, seen)
    end
  end
end

local function close()
  local top = stack[depth]
  depth = depth - 1
  local list, number = top.list, top.serial
  top.list = nil
  for i = 1, top.n do
    local handle = list[i]
    if handle and handle.scope == number then
      handle:free()
    end
  end
end

--- Closes the innermost scope. The arguments, tensors or tables of tensors to any depth, join the scope around it.
-- @return the arguments
function scope.pop(...)
  if depth == 0 then
    raise("scope.pop: no scope is open")
  end
  local from, to = stack[depth], stack[depth - 1]
  for i = 1, select("#", ...) do
    keep((select(i, ...)), from, to, {})
  end
  close()
  return ...
end

--- Frees a handle now when the innermost scope made it: for a chain of steps that needs each result only once.
function scope.drop(handle)
  if depth > 0 and handle.scope == stack[depth].serial then
    handle:free()
  end
end

--- How many scopes are open.
function scope.depth()
  return depth
end

--- Closes scopes down to a depth, freeing all they made: the way out of a failure.
function scope.unwind(to)
  while depth > to do
    close()
  end
end

--- As xpcall(f, debug.traceback), where the error itself is returned (only what Lua says of a call of nothing is put better) and
-- the traceback of the innermost failure is kept for `scope.traceback()`.
function scope.protect(f, ...)
  return xpcall(f, function(message)
    message = explained(message)
    last_traceback = debug.traceback(tostring(message), 2)
    return message
  end, ...)
end

--- The traceback of the last error that left a scope or a module: errors are raised again on their way out, which would
-- otherwise hide where they began.
function scope.traceback()
  return last_traceback
end

--- Remembers a traceback (see `scope.traceback`).
function scope.note_traceback(text)
  last_traceback = text
end

local function finish(before, ok, ...)
  if not ok then
    scope.unwind(before)
    error((...), 0)
  end
  if depth ~= before + 1 then
    raise("scope: %d scope(s) were pushed inside and not popped", depth - before - 1)
  end
  return scope.pop(...)
end

--- Runs f in a scope of its own.
-- @tparam function f what to run; its tensors that are not among its results (tables are searched) are freed
-- @param ... arguments of f
-- @return the results of f, whose tensors join the scope around
function scope.run(f, ...)
  if type(f) ~= "function" and not (getmetatable(f) or {}).__call then
    raise("scope: expects a function, got %s", type(f))
  end
  local before = depth
  scope.push()
  return finish(before, scope.protect(f, ...))
end

local function inside_again(saved, before, ok, ...)
  scope.unwind(0)
  stack, depth = saved, before
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Runs f as if no scope were open: for what must outlive the one at hand. The collector alone looks after the tensors it makes.
-- @return the results of f
function scope.outside(f, ...)
  local saved, before = stack, depth
  stack, depth = {}, 0
  return inside_again(saved, before, scope.protect(f, ...))
end

--- Set by the binding: is this cdata a tensor handle?
function scope.is_tensor(_)
  return false
end

return setmetatable(scope, {
  __call = function(_, f, ...)
    return scope.run(f, ...)
  end,
})
