--- What a layer is: a table with named parameters, buffers and children, and a forward function.
--
--     local Gate = nn.class "gate"                      -- a layer of one's own
--     function Gate:new(options)
--       self.conv = nn.conv3d { from = options.from, to = options.from, kernel = 1 }
--       self:add_parameter("slope", pn.ones { 1 })
--     end
--     function Gate:forward(x)
--       return x * (self.conv(x) * self.slope):sigmoid()
--     end
--     local gate = Gate { from = 64 }
--     local y = gate(x)
--
-- A module assigned to a field is a child, as `self:add("conv", ...)` has it; another assigned there takes its place, nil takes
-- it out. So are the modules of a list: those of `self.layers = { nn.conv3d {...}, nn.relu() }` are the children "layers.1" and
-- "layers.2", in lists of lists "stages.1.2"; the list stays the table it is, and what it holds when it is looked at counts. A
-- module that is only to be used, not owned (a teacher), stands in a table under a name: `self.teacher = { net = net }`. Tensors
-- have to be added, since a layer may also keep some that are no part of its state. A field cannot have the name of a method of
-- every module.
--
-- Calling a module (not :forward) opens a scope, so what it made and did not return is freed; puts its name on the path that
-- memory reports and errors show; notes the shapes for print(net); and runs hooks. A failure gets the path of the innermost
-- module put before its message, once.

local call = require "penumbra.nn.call"
local fields = require "penumbra.nn.fields"
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local random = require "penumbra.random"
local scope = require "penumbra.scope"

local Module = {}
Module.__index = Module

for _, part in ipairs { "state", "summary" } do
  for name, method in pairs(require("penumbra.nn." .. part)) do
    Module[name] = method
  end
end

-- ---- making one -------------------------------------------------------------------------------------------------------

local made = 0

-- A stream of its own for a layer just made; `reset` replaces it by one that depends on names only.
local function first_streams(kind)
  made = made + 1
  local number = made
  return function(name)
    return random.stream(0, ("%s#%d.%s"):format(kind, number, name))
  end
end

--- A new kind of module. Its methods: `new(self, options)` makes parameters and children; `forward(self, x, ...)` computes.
-- It may have `initialise(self, stream)`, which sets its own parameters from `stream(name)`, a random stream for each, and
-- `describe(self)`, a few words for print(net).
-- @tparam string kind its name
-- @return the class: call it with options to make a module
local function class(kind)
  if type(kind) ~= "string" or not kind:match("^[%a_][%w_]*$") then
    raise("class: expects a name, got %s", tostring(kind))
  end
  local methods = setmetatable({ kind = kind }, Module)
  local meta = {
    is_module = true, methods = methods,
    __index = function(self, key)
      local own = self.own
      local value = own.held[key]
      if value ~= nil then
        return value
      end
      value = methods[key]
      if value == nil and type(key) == "number" then
        local child = fields.children_of(self)[key]
        return child and child.module
      end
      return value
    end,
    __newindex = function(self, key, value) -- what a module holds is never its own field, so each assignment of such comes by
      fields.assign(self, key, value, Module[key] ~= nil)
    end,
    __call = call.call,
    __tostring = function(self)
      return self:summary()
    end,
  }
  local maker = {}
  return setmetatable(maker, {
    __index = methods,
    __newindex = methods,
    __call = function(_, options)
      local self = setmetatable({
        own = { parameters = {}, buffers = {}, children = {}, n_lists = 0, held = { name = kind }, hooks = {}, last = {} },
        kind = kind, training = true,
      }, meta)
      if methods.new then
        fields.guard(self, scope.protect(methods.new, self, options or {}))
      end
      fields.settle(self)
      self:initialise(first_streams(kind))
      return self
    end,
  })
end

--- Sets the module's own parameters at random; modules with parameters override it.
function Module.initialise(_, _)
end

--- Sets every parameter anew. Each draws from a stream named by the seed and its full name, so the numbers depend on nothing
-- else: not on what was made before, nor in which order. Returns the module.
-- @tparam number seed a whole number from 0
function Module:reset(seed)
  for _, entry in ipairs(self:modules()) do
    entry.module:initialise(function(name)
      return random.stream(seed, (entry.name == "" and "" or entry.name .. ".") .. name)
    end)
  end
  return self
end

-- ---- what it holds ----------------------------------------------------------------------------------------------------

--- Adds a child; it is then `self[name]`, and its parameters are `name.…`. Returns the child.
function Module:add(name, child)
  return fields.add(self, name, child)
end

--- Adds a tensor that learns; it is then `self[name]`. Returns it.
function Module:add_parameter(name, t)
  return fields.add_tensor(self, self.own.parameters, name, t, true)
end

--- Adds a tensor that is saved but does not learn (a running mean); it is then `self[name]`. Returns it.
function Module:add_buffer(name, t)
  return fields.add_tensor(self, self.own.buffers, name, t)
end

--- Its children in order: a list of {name, module}.
function Module:children()
  local list = {}
  for i, child in ipairs(fields.children_of(self)) do
    list[i] = { name = child.name, module = child.module }
  end
  return list
end

--- The module itself (name "") and all below it, in order: a list of {name, module}. One that stands in two places is listed
-- once.
function Module:modules()
  local list = {}
  fields.walk(self, function(module, name)
    list[#list + 1] = { name = name, module = module }
  end)
  return list
end

--- The module of a path below this one: `net:find "i3d.mixed_3b"`.
function Module:find(path)
  local names = {}
  for _, entry in ipairs(self:modules()) do
    if entry.name == path then
      return entry.module
    end
    names[#names + 1] = entry.name
  end
  raise("%s: no module '%s'%s", self.name, tostring(path), nearest.hint(path, names))
end

-- ---- modes ------------------------------------------------------------------------------------------------------------

--- Runs fn(module, name) on the module (name "") and all below it. Returns the module.
function Module:apply(fn)
  for _, entry in ipairs(self:modules()) do
    fn(entry.module, entry.name)
  end
  return self
end

local function set_training(self, on)
  return self:apply(function(module)
    module.training = on
  end)
end

--- Training mode, for it and all below: dropout drops, batch norm may learn its statistics. Returns the module.
function Module:train()
  return set_training(self, true)
end

--- Evaluation mode. Returns the module.
function Module:eval()
  return set_training(self, false)
end

--- The parameters whose name matches any of the Lua patterns; none is an error.
-- @treturn table a list of {name, tensor, module}, for an optimiser's groups
function Module:group(...)
  local list = {}
  local patterns = { ... }
  for _, entry in ipairs(self:parameters()) do
    for _, pattern in ipairs(patterns) do
      if entry.name:find(pattern) then
        list[#list + 1] = entry
        break
      end
    end
  end
  if #list == 0 then
    raise("%s: no parameter's name matches '%s'", self.name, table.concat(patterns, "' or '"))
  end
  return list
end

local function set_learning(self, on, ...)
  local list = select("#", ...) == 0 and self:parameters() or self:group(...)
  for _, entry in ipairs(list) do
    entry.tensor:requires_grad(on)
    if not on then
      entry.tensor:set_grad(nil)
    end
  end
  return self
end

--- The parameters whose name matches (all, without a pattern) no longer learn. Returns the module.
function Module:freeze(...)
  return set_learning(self, false, ...)
end

--- They learn again. Returns the module.
function Module:unfreeze(...)
  return set_learning(self, true, ...)
end

--- Keeps the results of these modules, not what led to them: backward runs them again first, to the same bits, which saves memory
-- and costs one more forward of them. Random choices, statistics and their updates are those of the first time. Returns the module.
-- @tparam ?boolean on false: they keep everything again
-- @tparam ?string ... Lua patterns of names; none: this module itself
function Module:recompute(on, ...)
  local patterns = { ... }
  if type(on) ~= "boolean" then
    if on ~= nil then
      table.insert(patterns, 1, on)
    end
    on = true
  end
  if #patterns == 0 then
    self.own.recomputes = on
    return self
  end
  local found = false
  for _, entry in ipairs(self:modules()) do
    for _, pattern in ipairs(patterns) do
      if type(pattern) ~= "string" then
        raise("recompute: expects patterns of names, got %s", type(pattern))
      end
      if entry.name:find(pattern) then
        entry.module.own.recomputes, found = on, true
      end
    end
  end
  if not found then
    raise("%s: no module's name matches '%s'", self.name, table.concat(patterns, "' or '"))
  end
  return self
end

--- Drops the gradients of all parameters. Returns the module.
function Module:zero_grad()
  for _, entry in ipairs(self:parameters()) do
    entry.tensor:set_grad(nil)
  end
  return self
end

--- Calls fn(module, name, out) after each call of the modules whose name matches the Lua pattern ("" is this one itself).
-- The output is freed with its scope unless fn keeps it (`out:keep()`).
-- @treturn function takes the hooks away again
function Module:hook(pattern, fn)
  if type(pattern) ~= "string" or type(fn) ~= "function" then
    raise("hook: expects a pattern and a function, got %s and %s", type(pattern), type(fn))
  end
  local hooked = {}
  for _, entry in ipairs(self:modules()) do
    if entry.name:find(pattern) then
      local hook = { name = entry.name, fn = fn }
      table.insert(entry.module.own.hooks, hook)
      hooked[#hooked + 1] = { module = entry.module, hook = hook }
    end
  end
  if #hooked == 0 then
    raise("%s: no module's name matches '%s'", self.name, pattern)
  end
  return function()
    for _, item in ipairs(hooked) do
      local hooks = item.module.own.hooks
      for i = #hooks, 1, -1 do
        if hooks[i] == item.hook then
          table.remove(hooks, i)
        end
      end
    end
  end
end

return { Module = Module, class = class, path = call.path }
