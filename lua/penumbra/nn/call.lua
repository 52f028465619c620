--- The call of a module: a scope of its own, its name on the path that memory reports and errors show, its shapes noted, its hooks
-- run; a failure gets the path of the innermost module put before its message, once.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local explained = require "penumbra.base.unknown_call"
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"
local sorted_keys = require "penumbra.base.sorted_keys"

local C, is_tensor = binding.C, binding.is_tensor

local paths, depth = {}, 0
local annotated -- the message on its way out, once it bears a path

local function annotate(message)
  if message == annotated then
    return message
  end
  message = explained(message)
  scope.note_traceback(debug.traceback(tostring(message), 2))
  local path = paths[depth]
  if type(message) == "string" and path then
    local position, rest = message:match("^([^:\n]+:%d+: )(.*)$")
    rest = rest or message
    local said = rest:sub(1, #path + 2) == path .. ": " -- a layer alone bears its operation's name
    message = (position or "") .. (said and rest or path .. ": " .. rest)
  end
  annotated = message
  return message
end

local function note(self, input, y)
  local last = self.own.last
  last.input = input
  last.output = is_tensor(y) and y:shape() or nil
  last.grid = is_tensor(y) and y:grid() or nil
end

local function leave(self, input, ...)
  note(self, input, (...))
  local hooks = self.own.hooks
  for i = 1, #hooks do
    hooks[i].fn(self, hooks[i].name, ...)
  end
  return scope.pop(...)
end

local function tensors_of(value, list, seen)
  if is_tensor(value) then
    list[#list + 1] = value
  elseif type(value) == "table" and not seen[value] then
    seen[value] = true
    for _, inner in pairs(value) do
      tensors_of(inner, list, seen)
    end
  end
  return list
end

-- What backward alone still holds of the work for these results is given back, to be done again.
local function forget(mark, ...)
  local list = tensors_of({ ... }, {}, {})
  local pointers = ffi.new("pn_tensor *[?]", #list)
  for i, t in ipairs(list) do
    pointers[i - 1] = binding.ptr(t)
  end
  binding.check(C.pn_recompute(pointers, #list, mark))
  return ...
end

local function refuse(self)
  local hint = nearest.hint("forward", sorted_keys(getmetatable(self).methods))
  raise("the class '%s' has no method forward(self, x), which a call runs%s", self.kind, hint)
end

local function enter(self, x, ...)
  local outer = paths[depth]
  local path = outer and outer .. "." .. self.name or self.name
  depth = depth + 1
  paths[depth] = path
  C.pn_memory_set_label(path)
  local shape = is_tensor(x) and x:shape() or nil
  scope.push()
  local forward = self.forward or refuse(self)
  if self.own.recomputes and C.pn_recording() then
    return forget(C.pn_tape_mark(), leave(self, shape, forward(self, x, ...)))
  end
  return leave(self, shape, forward(self, x, ...))
end

-- Every call tidies up after itself, so that a forward may catch the failure of a module below and go on.
local function finish(level, scopes, ok, ...)
  for i = level + 1, depth do
    paths[i] = nil
  end
  depth = level
  C.pn_memory_set_label(paths[level] or "")
  if ok then
    return ...
  end
  scope.unwind(scopes)
  error((...), 0)
end

local function call(self, x, ...)
  if depth == 0 then
    annotated = nil
  end
  return finish(depth, scope.depth(), xpcall(enter, annotate, self, x, ...))
end

--- The path of the module at work, or nil.
local function path()
  return paths[depth]
end

return { call = call, path = path }
