--- Methods of every module that see to its tensors: parameters and buffers by name, checkpoints, and the device that they are on.

local binding = require "penumbra.ffi"
local fields = require "penumbra.nn.fields"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"
local sorted_keys = require "penumbra.base.sorted_keys"

local methods = {}

local function collect(self, kind)
  local list = {}
  fields.walk(self, function(module, prefix)
    for _, entry in ipairs(module.own[kind]) do
      local name = prefix == "" and entry.name or prefix .. "." .. entry.name
      list[#list + 1] = { name = name, tensor = entry.tensor, module = module }
    end
  end)
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
function methods:parameters()
  return collect(self, "parameters")
end

--- Its parameters: name -> tensor.
function methods:named_parameters()
  return by_name(self:parameters())
end

--- Its buffers in order: a list of {name, tensor, module}.
function methods:buffers()
  return collect(self, "buffers")
end

--- Its buffers: name -> tensor.
function methods:named_buffers()
  return by_name(self:buffers())
end

--- Everything a checkpoint holds: name -> tensor, parameters and buffers. The tensors are the module's own, not copies.
function methods:state()
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

-- name -> tensor as the module names them.
local function renamed(state, rename)
  local given = {}
  for name, t in pairs(state) do
    local its_name = name
    if rename then
      its_name = rename(name)
    end
    if its_name ~= nil then
      given[its_name] = t
    end
  end
  return given
end

-- Which names match: the report of load_state, and what to say of each mismatch.
local function compared(mine, given)
  local report, texts = { loaded = {}, missing = {}, unexpected = {}, mismatched = {} }, {}
  for _, name in ipairs(sorted_keys(mine)) do
    local t = given[name]
    if t == nil then
      table.insert(report.missing, name)
    elseif shape_text(t) ~= shape_text(mine[name]) then
      table.insert(report.mismatched, name)
      table.insert(texts, ("%s is %s, expected %s"):format(name, shape_text(t), shape_text(mine[name])))
    else
      table.insert(report.loaded, name)
    end
  end
  for _, name in ipairs(sorted_keys(given)) do
    if not mine[name] then
      table.insert(report.unexpected, name)
    end
  end
  return report, texts
end

--- Copies values into parameters and buffers, by name. All or nothing: it refuses before it copies.
-- @tparam table state name -> tensor (of any element type)
-- @tparam ?table options allow_missing = true: what the state lacks keeps its value; allow_unexpected = true: what the module lacks
--   is passed over; allow_mismatched = true: a tensor of another shape counts as missing; rename: a function from the name in
--   the state to the name here, nil to pass it over
-- @treturn table {loaded, missing, unexpected, mismatched}, lists of names
function methods:load_state(state, options)
  options = options or {}
  named.check("load_state", options, { "allow_missing", "allow_unexpected", "allow_mismatched", "rename" })
  if type(state) ~= "table" then
    raise("load_state: expects a table name -> tensor, got %s", type(state))
  end
  local mine, given = self:state(), renamed(state, options.rename)
  local report, mismatch_texts = compared(mine, given)
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
    mine[name]:copy(given[name]:detach())
  end
  return report
end

--- Writes everything a checkpoint holds to a file (safetensors), atomically. Returns the module.
-- @tparam string path
-- @tparam ?table metadata name -> text, kept in the file
function methods:save(path, metadata)
  require("penumbra.formats").save(path, self:state(), metadata)
  return self
end

-- What a run keeps beside its network stands in its checkpoint as "@optim/...": no module has such a name.
local function without_others(tensors)
  for _, name in ipairs(sorted_keys(tensors)) do
    if name:sub(1, 1) == "@" then
      tensors[name] = nil
    end
  end
  return tensors
end

--- Reads a file of tensors (safetensors, npz, PyTorch, ...; of the checkpoint of a run its network) into the module. Returns the
-- module.
-- @tparam string path
-- @tparam ?table options as for `load_state`
function methods:load(path, options)
  scope.run(function()
    self:load_state(without_others((require("penumbra.formats").load(path))), options)
  end)
  return self
end

--- Drops the gradients of all parameters. Returns the module.
function methods:zero_grad()
  for _, entry in ipairs(self:parameters()) do
    entry.tensor:set_grad(nil)
  end
  return self
end

--- The device that its first parameter is on; "cpu" where there is none.
function methods:device()
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
function methods:to(device)
  local where = binding.device_name(binding.device(device))
  for _, entry in ipairs(self:modules()) do
    local own = entry.module.own
    for _, list in ipairs { own.parameters, own.buffers } do
      for _, item in ipairs(list) do
        if item.tensor:device() ~= where then
          local learns, order = item.tensor:requires_grad(), order_for(item, where)
          scope.run(function()
            local there = item.tensor:detach():to(where)
            fields.replace_tensor(entry.module, item, (order and there:contiguous(order) or there):keep():requires_grad(learns))
          end)
        end
      end
    end
  end
  return self
end

return methods
