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

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local is_list = require "penumbra.is_list"
local nearest = require "penumbra.nearest"
local raise = require "penumbra.raise"
local random = require "penumbra.random"
local scope = require "penumbra.scope"
local sorted_keys = require "penumbra.sorted_keys"

local C, is_tensor = binding.C, binding.is_tensor

local Module = {}
Module.__index = Module

--- Is this value a module?
local function is_module(value)
  return type(value) == "table" and rawget(value, "own") ~= nil and getmetatable(value) and getmetatable(value).is_module == true
end

local registered = setmetatable({}, { __mode = "k" }) -- the tensors that some module has for parameter or buffer

-- ---- the call ---------------------------------------------------------------------------------------------------------

local paths, depth = {}, 0
local annotated -- the message on its way out, once it bears a path

local function annotate(message)
  if message == annotated then
    return message
  end
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

local function enter(self, x, ...)
  local outer = paths[depth]
  local path = outer and outer .. "." .. self.name or self.name
  depth = depth + 1
  paths[depth] = path
  C.pn_memory_set_label(path)
  local shape = is_tensor(x) and x:shape() or nil
  scope.push()
  if self.own.recomputes and C.pn_recording() then
    return forget(C.pn_tape_mark(), leave(self, shape, self:forward(x, ...)))
  end
  return leave(self, shape, self:forward(x, ...))
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
function Module.path()
  return paths[depth]
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

local function check_letters(self, name)
  if type(name) ~= "string" or not name:match("^[%w_]+$") then
    raise("%s: a name is letters, digits and _, got '%s'", self.kind, tostring(name))
  end
end

local function check_name(self, name)
  check_letters(self, name)
  if self[name] ~= nil then
    raise("%s: the name '%s' is taken", self.kind, name)
  end
end

local function check_circle(self, name, child)
  for _, entry in ipairs(child:modules()) do
    if entry.module == self then
      raise("%s: '%s' holds this module itself; what is only used, not owned, stands in a table under a name: { net = net }",
        self.kind, name)
    end
  end
end

-- What it is called: a field that can only be set here.
local function call_it(child, name)
  child.own.held.name = name
end

local function is_plain_list(value)
  return type(value) == "table" and getmetatable(value) == nil and is_list(value)
end

-- The modules of a list and of the lists in it, in order: {name, module, list, at}, appended to `found`.
local function modules_of_list(list, name, found)
  for i, value in ipairs(list) do
    local its_name = name .. "." .. i
    if is_module(value) then
      found[#found + 1] = { name = its_name, module = value, list = list, at = i }
    elseif is_plain_list(value) then
      modules_of_list(value, its_name, found)
    end
  end
  return found
end

-- The children in order: {name, module}; those of a list are listed anew each time, as the list is a table like any other.
local function children_of(self)
  local own = self.own
  if own.n_lists == 0 then
    return own.children
  end
  local found = {}
  for _, entry in ipairs(own.children) do
    local first = #found + 1
    if entry.list then
      modules_of_list(entry.list, entry.name, found)
      for i = first, #found do
        call_it(found[i].module, found[i].name)
      end
    else
      found[first] = entry
    end
  end
  return found
end

-- A list has modules (or lists of them) alone, or none; returns whether it has any.
local function check_list(self, name, list)
  local other, n_modules = nil, 0
  for i, value in ipairs(list) do
    if is_module(value) then
      check_circle(self, ("%s.%d"):format(name, i), value)
      n_modules = n_modules + 1
    elseif is_plain_list(value) and check_list(self, ("%s.%d"):format(name, i), value) then
      n_modules = n_modules + 1
    elseif not (is_plain_list(value) and #value == 0) then
      other = other or i
    end
  end
  if other and n_modules > 0 then
    raise("%s: '%s' holds modules and, at %d, a %s: a list is of modules alone; what is only used, not owned, stands in a table "
      .. "under a name: { net = net }", self.kind, name, other, type(list[other]))
  end
  return n_modules > 0
end

local function add_list(self, name, list)
  local own = self.own
  check_letters(self, name)
  if type(self[name]) == "function" then
    raise("%s: the name '%s' is taken", self.kind, name)
  end
  table.insert(own.children, { name = name, list = list })
  own.held[name] = list
  own.n_lists = own.n_lists + 1
end

--- Adds a child; it is then `self[name]`, and its parameters are `name.…`. Returns the child.
function Module:add(name, child)
  check_name(self, name)
  if not is_module(child) then
    raise("%s: '%s' is no module but a %s", self.kind, name, type(child))
  end
  check_circle(self, name, child)
  table.insert(self.own.children, { name = name, module = child })
  call_it(child, name)
  self.own.held[name] = child
  return child
end

local function add_tensor(self, list, name, t, learns)
  check_name(self, name)
  if not is_tensor(t) then
    raise("%s: '%s' is no tensor but a %s", self.kind, name, type(t))
  end
  if learns then
    t:requires_grad(true)
  end
  table.insert(list, { name = name, tensor = t:keep() })
  self.own.held[name], registered[t] = t, true
  return t
end

--- Adds a tensor that learns; it is then `self[name]`. Returns it.
function Module:add_parameter(name, t)
  return add_tensor(self, self.own.parameters, name, t, true)
end

--- Adds a tensor that is saved but does not learn (a running mean); it is then `self[name]`. Returns it.
function Module:add_buffer(name, t)
  return add_tensor(self, self.own.buffers, name, t)
end

local function place_of(children, name)
  for i, child in ipairs(children) do
    if child.name == name then
      return i
    end
  end
end

local function check_successor(self, name, child)
  if is_module(child) then
    check_circle(self, name, child)
  elseif child ~= nil then
    raise("%s: '%s' is a module: a %s cannot take its place, another module or nil can", self.kind, name, type(child))
  end
end

-- A child gives way to another module, or to nothing.
local function replace(self, entry, child)
  local own, name = self.own, entry.name
  check_successor(self, name, child)
  if entry.list and child == nil then
    table.remove(entry.list, entry.at)
  elseif entry.list then
    entry.list[entry.at] = child
  else
    entry.module = child
    own.held[name] = child
    if child == nil then
      table.remove(own.children, place_of(own.children, name))
    end
  end
  if child ~= nil then
    call_it(child, name)
  end
end

-- A list gives way to another, or to nothing; one without modules to anything. Returns whether that is all.
local function replace_list(self, at, value)
  local own = self.own
  local entry = own.children[at]
  local listed = is_plain_list(value)
  if not listed and value ~= nil and #modules_of_list(entry.list, entry.name, {}) > 0 then
    raise("%s: '%s' is a list of modules: a %s cannot take its place, another list or nil can", self.kind, entry.name,
      is_module(value) and "module" or type(value))
  end
  if listed and (#value == 0 or check_list(self, entry.name, value)) then
    entry.list, own.held[entry.name] = value, value
    return true
  end
  table.remove(own.children, at)
  own.held[entry.name], own.n_lists = nil, own.n_lists - 1
  return value == nil
end

-- self[key] = value, where the module has no such field.
local function assign(self, key, value)
  local own = self.own
  if key == "name" then
    raise("%s: 'name' is what a module is called by in paths and reports: the field needs another name", self.kind)
  end
  local at = place_of(own.children, key)
  local entry = at and own.children[at] or type(key) == "number" and children_of(self)[key]
  if at and entry.list then
    if replace_list(self, at, value) then return end
  elseif entry then
    return replace(self, entry, value)
  elseif own.held[key] ~= nil then
    raise("%s: '%s' is a parameter or buffer of it: change its values in place, self.%s:copy(t)", self.kind, key, key)
  end
  if is_module(value) then
    self:add(key, value)
  elseif value ~= nil and Module[key] ~= nil then
    raise("%s: '%s' is a method of every module: the field needs another name", self.kind, tostring(key))
  elseif is_plain_list(value) and (#value == 0 and type(key) == "string" or check_list(self, tostring(key), value)) then
    add_list(self, key, value) -- an empty one may be filled later
  else
    rawset(self, key, value)
  end
end

-- What came to a field that was there already is looked at once the module is made: a module, or a list that holds some by now.
local function adopt_fields(self)
  local found = {}
  for name, value in pairs(self) do
    if type(name) == "string" and (is_module(value) or is_plain_list(value) and check_list(self, name, value)) then
      found[name] = value
    end
  end
  for _, name in ipairs(sorted_keys(found)) do
    rawset(self, name, nil)
    self[name] = found[name]
  end
  for _, entry in ipairs(self.own.children) do
    if entry.list then
      check_list(self, entry.name, entry.list)
    end
  end
  children_of(self) -- they are called by their places
end

-- A tensor that wants to learn, but that no module knows of: nothing would train or save it.
local function check_fields(self)
  for name, value in pairs(self) do
    if is_tensor(value) and not registered[value] and value:requires_grad() then
      raise("%s: '%s' requires a gradient, but is no parameter: self:add_parameter(\"%s\", t) makes it one (what is saved, but "
        .. "does not learn: add_buffer)", self.kind, tostring(name), tostring(name))
    end
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
    is_module = true,
    __index = function(self, key)
      local own = self.own
      local value = own.held[key]
      if value ~= nil then
        return value
      end
      value = methods[key]
      if value == nil and type(key) == "number" then
        local child = children_of(self)[key]
        return child and child.module
      end
      return value
    end,
    __newindex = assign, -- what a module holds is never its own field, so each assignment of such comes by
    __call = call,
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
        methods.new(self, options or {})
      end
      adopt_fields(self)
      check_fields(self)
      self:initialise(first_streams(kind))
      return self
    end,
  })
end

-- Raises on a key of options that is not known.
-- @tparam string what who asks
-- @tparam table given what the user wrote
-- @tparam {string} known names
local function check_options(what, given, known)
  if type(given) ~= "table" then
    raise("%s: expects a table of options, got %s", what, type(given))
  end
  local is_known = {}
  for _, name in ipairs(known) do
    is_known[name] = true
  end
  for key in pairs(given) do
    if not is_known[key] then
      table.sort(known)
      raise("%s: unknown option '%s'%s (known: %s)", what, tostring(key), nearest.hint(key, known),
        table.concat(known, ", "))
    end
  end
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

--- Its children in order: a list of {name, module}.
function Module:children()
  local list = {}
  for i, child in ipairs(children_of(self)) do
    list[i] = { name = child.name, module = child.module }
  end
  return list
end

local function walk(self, prefix, visit, seen)
  if seen[self] then
    return
  end
  seen[self] = true
  visit(self, prefix)
  for _, child in ipairs(children_of(self)) do
    walk(child.module, prefix == "" and child.name or prefix .. "." .. child.name, visit, seen)
  end
end

--- The module itself (name "") and all below it, in order: a list of {name, module}. One that stands in two places is listed
-- once.
function Module:modules()
  local list = {}
  walk(self, "", function(module, name)
    list[#list + 1] = { name = name, module = module }
  end, {})
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

local function collect(self, kind)
  local list = {}
  walk(self, "", function(module, prefix)
    for _, entry in ipairs(module.own[kind]) do
      local name = prefix == "" and entry.name or prefix .. "." .. entry.name
      list[#list + 1] = { name = name, tensor = entry.tensor, module = module }
    end
  end, {})
  return list
end

local function by_name(list)
  local map = {}
  for _, entry in ipairs(list) do
    map[entry.name] = entry.tensor
  end
  return map
end

--- Its parameters in order: a list of {name, tensor, module}.
function Module:parameters()
  return collect(self, "parameters")
end

--- Its parameters: name -> tensor.
function Module:named_parameters()
  return by_name(self:parameters())
end

--- Its buffers in order: a list of {name, tensor, module}.
function Module:buffers()
  return collect(self, "buffers")
end

--- Its buffers: name -> tensor.
function Module:named_buffers()
  return by_name(self:buffers())
end

--- Everything a checkpoint holds: name -> tensor, parameters and buffers. The tensors are the module's own, not copies.
function Module:state()
  local state = by_name(self:parameters())
  for _, entry in ipairs(self:buffers()) do
    state[entry.name] = entry.tensor
  end
  return state
end

local function shape_text(t)
  return table.concat(t:shape(), ",")
end

local function some_of(list)
  local shown = {}
  for i = 1, math.min(#list, 8) do
    shown[i] = list[i]
  end
  return table.concat(shown, ", ") .. (#list > 8 and (" and %d more"):format(#list - 8) or "")
end

--- Copies values into parameters and buffers, by name. All or nothing: it refuses before it copies.
-- @tparam table state name -> tensor (of any element type)
-- @tparam ?table options allow_missing = true: what the state lacks keeps its value; allow_unexpected = true: what the module lacks
--   is passed over; allow_mismatched = true: a tensor of another shape counts as missing; rename: a function from the name in
--   the state to the name here, nil to pass it over
-- @treturn table {loaded, missing, unexpected, mismatched}, lists of names
function Module:load_state(state, options)
  options = options or {}
  check_options("load_state", options, { "allow_missing", "allow_unexpected", "allow_mismatched", "rename" })
  if type(state) ~= "table" then
    raise("load_state: expects a table name -> tensor, got %s", type(state))
  end
  local given, report = {}, { loaded = {}, missing = {}, unexpected = {}, mismatched = {} }
  for name, t in pairs(state) do
    local renamed = name
    if options.rename then
      renamed = options.rename(name)
    end
    if renamed ~= nil then
      given[renamed] = t
    end
  end
  local mine = self:state()
  local mismatch_texts = {}
  for _, name in ipairs(sorted_keys(mine)) do
    local t = given[name]
    if t == nil then
      table.insert(report.missing, name)
    elseif shape_text(t) ~= shape_text(mine[name]) then
      table.insert(report.mismatched, name)
      table.insert(mismatch_texts, ("%s is %s, expected %s"):format(name, shape_text(t), shape_text(mine[name])))
    else
      table.insert(report.loaded, name)
    end
  end
  for name in pairs(given) do
    if not mine[name] then
      table.insert(report.unexpected, name)
    end
  end
  table.sort(report.unexpected)
  local faults = {}
  if #report.missing > 0 and not options.allow_missing then
    table.insert(faults, ("%d missing: %s (allow_missing keeps their values)"):format(#report.missing, some_of(report.missing)))
  end
  if #report.unexpected > 0 and not options.allow_unexpected then
    table.insert(faults, ("%d unexpected: %s (allow_unexpected passes them over)"):format(#report.unexpected,
      some_of(report.unexpected)))
  end
  if #report.mismatched > 0 and not options.allow_mismatched then
    table.insert(faults, ("%d of another shape: %s"):format(#report.mismatched, some_of(mismatch_texts)))
  end
  if #faults > 0 then
    raise("%s: load_state: %s", self.name, table.concat(faults, "; "))
  end
  for _, name in ipairs(report.loaded) do
    mine[name]:copy(given[name])
  end
  return report
end

--- Writes everything a checkpoint holds to a file (safetensors), atomically. Returns the module.
-- @tparam string path
-- @tparam ?table metadata name -> text, kept in the file
function Module:save(path, metadata)
  require("penumbra.formats").save(path, self:state(), metadata)
  return self
end

--- Reads a file of tensors (safetensors, npz, PyTorch, ...) into the module. Returns the module.
-- @tparam string path
-- @tparam ?table options as for `load_state`
function Module:load(path, options)
  scope.run(function()
    self:load_state((require("penumbra.formats").load(path)), options)
  end)
  return self
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

--- The device that its first parameter is on; "cpu" where there is none.
function Module:device()
  local first = self:parameters()[1] or self:buffers()[1]
  return first and first.tensor:device() or "cpu"
end

-- The memory order that a device wants: on CUDA, weights of convolutions O,T,H,W,I; elsewhere the one it was made in.
local function order_for(item, where)
  if item.tensor:dims() ~= 5 then
    return nil
  end
  if not item.order then
    item.order = item.tensor:is_dense "filter" and "filter" or item.tensor:is_dense "channels_last" and "channels_last" or "rows"
  end
  return where == "cpu" and item.order or "channels_last"
end

--- Moves parameters and buffers to a device; do it before an optimiser is made of them. Weights of convolutions then lie in memory
-- as the device wants them (their axes stay), so a checkpoint is the same from any device. Returns the module.
-- @tparam string device "cpu", "cuda", "cuda:1"
function Module:to(device)
  local where = binding.device_name(binding.device(device))
  for _, entry in ipairs(self:modules()) do
    local own = entry.module.own
    for _, list in ipairs { own.parameters, own.buffers } do
      for _, item in ipairs(list) do
        if item.tensor:device() ~= where then
          local learns, order = item.tensor:requires_grad(), order_for(item, where)
          scope.run(function()
            local there = item.tensor:detach():to(where)
            item.tensor = (order and there:contiguous(order) or there):keep():requires_grad(learns)
          end)
          own.held[item.name], registered[item.tensor] = item.tensor, true
        end
      end
    end
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

-- ---- text -------------------------------------------------------------------------------------------------------------

local function count_of(list)
  local n = 0
  for _, entry in ipairs(list) do
    n = n + entry.tensor:count()
  end
  return n
end

local function thousands(n)
  local text = ("%d"):format(n)
  local grouped = text:reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (grouped:gsub("^,", ""))
end

local function triple(values)
  return ("%g,%g,%g"):format(values[1], values[2], values[3])
end

local COLUMNS = { "layer", "", "in -> out", "parameters", "output", "stride", "centre" }
local RIGHT = { [4] = true }

local function row_of(name, module)
  local last, own = module.own.last, count_of(module:parameters())
  local channels = ""
  if module.n_from and module.n_to then
    channels = ("%d -> %d"):format(module.n_from, module.n_to)
  elseif last.input and last.output and #last.input > 1 and #last.output > 1 then
    channels = ("%d -> %d"):format(last.input[2], last.output[2])
  end
  return {
    name == "" and module.name or name, module.kind .. (module.describe and " " .. module:describe() or ""), channels,
    own > 0 and thousands(own) or "", last.output and table.concat(last.output, ",") or "",
    last.grid and triple(last.grid.stride) or "", last.grid and triple(last.grid.centre) or "",
  }
end

local function lines_below(module, name, rows)
  local children = children_of(module)
  if module.one_line or #children == 0 or #module.own.parameters > 0 then
    rows[#rows + 1] = row_of(name, module)
  end
  if not module.one_line then
    for _, child in ipairs(children) do
      lines_below(child.module, name == "" and child.name or name .. "." .. child.name, rows)
    end
  end
  if #children > 0 and module.total_line then -- what the lines above join to
    rows[#rows + 1] = row_of(name, module)
    rows.n_totals = (rows.n_totals or 0) + 1
  end
end

local function align(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i = 1, #COLUMNS do
      widths[i] = math.max(widths[i] or 0, #row[i])
    end
  end
  local lines = {}
  for i, row in ipairs(rows) do
    local cells = {}
    for k = 1, #COLUMNS do
      if widths[k] > 0 then
        cells[#cells + 1] = (RIGHT[k] and "%" or "%-") .. widths[k] .. "s"
        cells[#cells] = cells[#cells]:format(row[k])
      end
    end
    lines[i] = table.concat(cells, "  "):gsub("%s+$", "")
  end
  return lines
end

--- A line a layer: name, kind, channels in -> out, parameters, and what the last forward showed of it: shape of the output, stride
-- and centre in input pixels (t,h,w). Totals at the end. With a shape, a forward on zeros of that shape is run first.
-- @tparam ?table shape of an input, {1, 3, 16, 64, 64}
-- @treturn string
function Module:summary(shape)
  if shape then
    self:dry_run(shape)
  end
  local rows = { COLUMNS }
  lines_below(self, "", rows)
  local lines = align(rows)
  local parameters, learning = self:parameters(), {}
  for _, entry in ipairs(parameters) do
    if entry.tensor:requires_grad() then
      learning[#learning + 1] = entry
    end
  end
  local total, buffers = count_of(parameters), count_of(self:buffers())
  local bytes = (total + buffers) * C.pn_dtype_bytes(C.pn_real())
  local n_layers = #rows - 1 - (rows.n_totals or 0)
  lines[#lines + 1] = ("%d layers, %s parameters (%s learn), %s in buffers, %.1f MiB"):format(n_layers, thousands(total),
    thousands(count_of(learning)), thousands(buffers), bytes / 2 ^ 20)
  return table.concat(lines, "\n")
end

--- Runs it once on zeros, in evaluation mode and without recording, so that shapes, strides and centres are known. Returns it.
-- @tparam table shape of the input, {N, C, T, H, W}
function Module:dry_run(shape)
  local tensor = require "penumbra.tensor"
  local modes = {}
  for _, entry in ipairs(self:modules()) do
    modes[entry.module] = entry.module.training
  end
  self:eval()
  local spec = { layout = #shape == 5 and "channels_last" or "rows" }
  for i, size in ipairs(shape) do
    spec[i] = size
  end
  local ok, message = pcall(scope.run, function()
    local x = tensor.zeros(spec)
    if #shape == 5 then
      x:set_grid({ 1, 1, 1 }, { 0, 0, 0 })
    end
    tensor.no_grad(self, x)
  end)
  for module, training in pairs(modes) do
    module.training = training
  end
  if not ok then
    error(message, 0)
  end
  return self
end

return {
  Module = Module, class = class, is_module = is_module, check_options = check_options, children_of = children_of,
  to_triple = function(what, value, smallest)
    local list = type(value) == "table" and value or { value, value, value }
    for i = 1, 3 do
      local number = list[i]
      if #list ~= 3 or type(number) ~= "number" or number ~= math.floor(number) or number < (smallest or 1) then
        raise("%s: expects a whole number from %d or {t, h, w}", what, smallest or 1)
      end
    end
    return { list[1], list[2], list[3] }
  end,
  to_count = function(what, value, smallest)
    if type(value) ~= "number" or value ~= math.floor(value) or value < (smallest or 1) then
      raise("%s is %s, expects a whole number from %d", what, tostring(value), smallest or 1)
    end
    return value
  end,
}
