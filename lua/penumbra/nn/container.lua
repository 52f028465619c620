--- Containers: sequential (one after the other) and concat (side by side, joined along channels).

local fields = require "penumbra.nn.fields"
local module = require "penumbra.nn.module"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"
local tensor = require "penumbra.tensor"

-- Adds the entries of a list: modules, named by their place, or {"name", module}.
local function add_entries(self, entries)
  if type(entries) ~= "table" or fields.is_module(entries) then
    raise("%s: expects a list of modules", self.kind)
  end
  for key in pairs(entries) do
    if type(key) ~= "number" then
      raise("%s: unknown option '%s' (it takes a list: modules, or {\"name\", module})", self.kind, tostring(key))
    end
  end
  for i, entry in ipairs(entries) do
    if fields.is_module(entry) then
      self:add(tostring(i), entry)
    elseif type(entry) == "table" and type(entry[1]) == "string" then
      self:add(entry[1], entry[2])
    else
      raise("%s: entry %d is a %s, expects a module or {\"name\", module}", self.kind, i, type(entry))
    end
  end
  if #self.own.children == 0 then
    raise("%s: it is empty", self.kind)
  end
end

local Sequential = module.class "sequential"

--- One after the other. `nn.sequential { nn.conv3d {...}, { "act", nn.relu() } }`; entries are named by their place unless named.
function Sequential:new(entries)
  add_entries(self, entries)
  local children = fields.children_of(self)
  local last = children[#children].module
  self.writes_into = last.writes_into
  self.keeps_grid = true
  for _, child in ipairs(children) do
    self.n_from = self.n_from or child.module.n_from
    self.n_to = child.module.n_to or (child.module.keeps_channels and self.n_to) or nil
    self.keeps_grid = self.keeps_grid and child.module.keeps_grid or false
  end
end

--- @param x what the first takes
-- @param into ?tensor where the last writes its result
function Sequential:forward(x, into)
  local children = fields.children_of(self)
  local n = #children
  for i = 1, n do
    local y = children[i].module(x, i == n and into or nil)
    -- What is used up is freed at once: a chain under no_grad holds two activations, not all.
    if tensor.is_tensor(x) and tensor.is_tensor(y) and x ~= y then
      scope.drop(x)
    end
    x = y
  end
  return x
end

local Concat = module.class "concat"

--- Side by side: each branch takes x; the results are joined along channels, in order. Where every branch keeps the grid of x,
-- knows its number of channels and can write where it is told, each writes its part of the result in place.
function Concat:new(entries)
  add_entries(self, entries)
  self.total_line = true
  self.writes_into, self.keeps_grid, self.in_place = true, true, true
  self.n_to = 0
  for _, child in ipairs(fields.children_of(self)) do
    local branch = child.module
    self.n_from = self.n_from or branch.n_from
    self.keeps_grid = self.keeps_grid and branch.keeps_grid or false
    self.in_place = self.in_place and branch.writes_into and branch.keeps_grid and branch.n_to ~= nil
    self.n_to = self.n_to and branch.n_to and self.n_to + branch.n_to or nil
  end
end

--- @param x (N,C,T,H,W)
-- @param into ?tensor where to write the result
function Concat:forward(x, into)
  local parts = {}
  if not self.in_place or x:dims() ~= 5 then
    for i, child in ipairs(fields.children_of(self)) do
      parts[i] = child.module(x)
    end
    return ops.concat(parts, { axis = 2, into = into })
  end
  local whole = into or tensor.empty {
    x:size(1), self.n_to, x:size(3), x:size(4), x:size(5), dtype = x:dtype(), layout = "channels_last", device = x:device(),
  }
  local first = 1
  for i, child in ipairs(fields.children_of(self)) do
    local branch = child.module
    parts[i] = branch(x, whole:slot(2, first, branch.n_to))
    first = first + branch.n_to
  end
  return ops.concat(parts, { axis = 2, into = whole })
end

return { sequential = Sequential, concat = Concat }
