--- The fields of a module: which are children, which parameters and buffers, and what becomes of an assignment.
--
-- A module's `own` holds `children`, a list of {name, module} or, where a field is a list of modules, {name, list}; `parameters`
-- and `buffers`, lists of {name, tensor}; and `held`, what its fields of these names are. No such field is ever set in the module
-- itself, so that each assignment to it comes by here.

local binding = require "penumbra.ffi"
local is_list = require "penumbra.base.is_list"
local raise = require "penumbra.base.raise"
local sorted_keys = require "penumbra.base.sorted_keys"

local is_tensor = binding.is_tensor

local fields = {}

--- Is this value a module?
function fields.is_module(value)
  return type(value) == "table" and rawget(value, "own") ~= nil and getmetatable(value) and getmetatable(value).is_module == true
end

local known = setmetatable({}, { __mode = "k" }) -- the tensors that some module has for parameter or buffer

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
    if fields.is_module(value) then
      found[#found + 1] = { name = its_name, module = value, list = list, at = i }
    elseif is_plain_list(value) then
      modules_of_list(value, its_name, found)
    end
  end
  return found
end

--- The children in order: {name, module}; those of a list are listed anew each time, as the list is a table like any other.
function fields.children_of(self)
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

local function walk(self, name, visit, seen)
  if seen[self] then
    return
  end
  seen[self] = true
  visit(self, name)
  for _, child in ipairs(fields.children_of(self)) do
    walk(child.module, name == "" and child.name or name .. "." .. child.name, visit, seen)
  end
end

--- Calls visit(module, name) for the module itself (name "") and all below it, in order; each once.
function fields.walk(self, visit)
  walk(self, "", visit, {})
end

-- A list has modules (or lists of them) alone, or none; returns whether it has any.
local function check_list(self, name, list)
  local other, n_modules = nil, 0
  for i, value in ipairs(list) do
    if fields.is_module(value) then
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

-- A new child; see Module:add.
function fields.add(self, name, child)
  check_name(self, name)
  if not fields.is_module(child) then
    raise("%s: '%s' is no module but a %s", self.kind, name, type(child))
  end
  check_circle(self, name, child)
  table.insert(self.own.children, { name = name, module = child })
  call_it(child, name)
  self.own.held[name] = child
  return child
end

-- A new parameter, or buffer, in the list that is for them; see Module:add_parameter.
function fields.add_tensor(self, list, name, t, learns)
  check_name(self, name)
  if not is_tensor(t) then
    raise("%s: '%s' is no tensor but a %s", self.kind, name, type(t))
  end
  if learns then
    t:requires_grad(true)
  end
  table.insert(list, { name = name, tensor = t:keep() })
  self.own.held[name], known[t] = t, true
  return t
end

local function place_of(children, name)
  for i, child in ipairs(children) do
    if child.name == name then
      return i
    end
  end
end

local function check_successor(self, name, child)
  if fields.is_module(child) then
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
      fields.is_module(value) and "module" or type(value))
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
-- @tparam boolean is_method whether every module has a method of this name
function fields.assign(self, key, value, is_method)
  local own = self.own
  if key == "name" then
    raise("%s: 'name' is what a module is called by in paths and reports: the field needs another name", self.kind)
  end
  local at = place_of(own.children, key)
  local entry = at and own.children[at] or type(key) == "number" and fields.children_of(self)[key]
  if at and entry.list then
    if replace_list(self, at, value) then return end
  elseif entry then
    return replace(self, entry, value)
  elseif own.held[key] ~= nil then
    raise("%s: '%s' is a parameter or buffer of it: change its values in place, self.%s:copy(t)", self.kind, key, key)
  end
  if fields.is_module(value) then
    fields.add(self, key, value)
  elseif value ~= nil and is_method then
    raise("%s: '%s' is a method of every module: the field needs another name", self.kind, tostring(key))
  elseif is_plain_list(value) and (#value == 0 and type(key) == "string" or check_list(self, tostring(key), value)) then
    add_list(self, key, value) -- an empty one may be filled later
  else
    rawset(self, key, value)
  end
end

-- What came to a field that was there already is looked at once the module is made: a module, or a list that holds some by now.
local function adopt(self)
  local found = {}
  for name, value in pairs(self) do
    if type(name) == "string" and (fields.is_module(value) or is_plain_list(value) and check_list(self, name, value)) then
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
  fields.children_of(self) -- they are called by their places
end

-- A tensor that wants to learn, but that no module knows of: nothing would train or save it.
local function check(self)
  for name, value in pairs(self) do
    if is_tensor(value) and not known[value] and value:requires_grad() then
      raise("%s: '%s' requires a gradient, but is no parameter: self:add_parameter(\"%s\", t) makes it one (what is saved, but "
        .. "does not learn: add_buffer)", self.kind, tostring(name), tostring(name))
    end
  end
end

-- What became of a constructor. One that set `own` took away what a module holds: that is told in place of all that came of it.
function fields.guard(self, ok, problem)
  local own = rawget(self, "own")
  if type(own) ~= "table" or type(own.held) ~= "table" then
    raise("%s: 'own' is where a module keeps its parts: the field needs another name", rawget(self, "kind"))
  elseif not ok then
    error(problem, 0)
  end
end

-- A module just made: its fields are looked through.
function fields.settle(self)
  adopt(self)
  check(self)
end

-- A tensor takes the place of a parameter or buffer: an entry of own.parameters or own.buffers.
function fields.replace_tensor(self, item, t)
  item.tensor, self.own.held[item.name], known[t] = t, t, true
end

return fields
