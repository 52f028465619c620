--- Batches made ahead of the step, by worker threads: decoding, augmentation and dreams run while the network learns.
--
--     local dreams = pn.ahead(pn.lucid.stream(clip:frame(1), clip:mask(1), cfg), cfg)
--     for epoch, batch in run:epochs(cfg.epochs, dreams) do ... end
--
-- Batch i of an epoch is what the source gives for it, whatever the number of workers and however far they are ahead: each worker
-- makes the source anew from what it was made of, and a source is a pure function of (seed, epoch, i).
--
-- A change of one's own runs in the workers too:
--
--     local pn = require "penumbra"
--     local strength = 0.05
--     local noisy = pn.ahead(dreams, cfg, function(batch, rng)
--       local noise = rng:fill(pn.empty_like(batch.frames), "normal", 0, strength)
--       batch.frames = batch.frames + noise
--       return batch
--     end)
--
-- The function travels with a copy of what it closes over (penumbra.worker.pack says what can): `strength` is a copy, `pn` is
-- required again. Or name it: "mine.noise" is the field `noise` of your mine.lua, or what mine/noise.lua returns. All chance
-- comes from `rng`, a random stream of (seed, epoch, i).
-- @module penumbra.ahead

local pack = require "penumbra.worker.pack"
local batched = require "penumbra.batched"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"
local random = require "penumbra.random"
local scope = require "penumbra.scope"
local is_tensor = require("penumbra.ffi").is_tensor
local worker = require "penumbra.worker"

local ahead = {}
local Ahead = {}
Ahead.__index = Ahead

-- ---- a batch, in a worker or in line ---------------------------------------------------------------------------------------

-- bytes: where the source has its pictures so.
local function draw(source, epoch, i, bytes)
  if type(source) == "function" then
    return source(epoch, i)
  elseif bytes and source.bytes then
    return source:bytes(epoch, i)
  end
  return source:batch(epoch, i)
end

local function changed(batch, change, seed, epoch, i)
  if not change then
    return batch
  end
  local after = change(batch, random.stream(seed, ("change %d %d"):format(epoch, i)))
  if type(after) ~= "table" then
    error(("ahead: the change returned %s, expects the batch"):format(after == nil and "nothing" or "a " .. type(after)), 0)
  end
  return after
end

-- "mine.noise": the field noise of module mine, or the module mine.noise, whichever is there.
local function function_named(name)
  if package.loaded[name] == nil and not package.searchpath(name, package.path) then
    local module, field = name:match "^(.+)%.([^.]+)$"
    local found = module and package.searchpath(module, package.path) and require(module)
    local f = type(found) == "table" and found[field]
    if type(f) ~= "function" then
      raise("ahead: change '%s' is neither a module that returns a function nor a function of a module", name)
    end
    return f
  end
  local f = require(name)
  if type(f) ~= "function" then
    raise("ahead: module '%s' returns a %s, expects a function", name, type(f))
  end
  return f
end

-- A source for each maker, in this state; only the last few: a source that changed is a new one.
local made, order = {}, {}
local KEPT = 4

-- What the source is made of outlives the job that brought it: tensors in tables, and in what functions close over.
local function keep(value, seen)
  if is_tensor(value) then
    value:keep()
  elseif type(value) == "table" and not seen[value] then
    seen[value] = true
    for _, inner in next, value do
      keep(inner, seen)
    end
  elseif type(value) == "function" and not seen[value] then
    seen[value] = true
    for i = 1, 256 do
      local name, inner = debug.getupvalue(value, i)
      if not name then
        break
      end
      keep(inner, seen)
    end
  end
end

local function make_source(maker)
  if maker.source then
    return maker.source
  end
  local module = require(maker.module)
  local make = maker.name and module[maker.name] or module
  return make(unpack(maker, 1, maker.n))
end

local function source_of(key, maker)
  if made[key] then
    return made[key]
  end
  local seen = {} -- modules were required here: nothing in them came with the job
  for _, loaded in pairs(package.loaded) do
    seen[loaded] = true
  end
  keep(maker, seen)
  local source = scope.outside(make_source, maker)
  order[#order + 1] = key
  made[key] = source
  if #order > KEPT then
    made[table.remove(order, 1)] = nil
  end
  return source
end

--- What a worker runs: one batch. `key` names the maker, which is looked at the first time only.
function ahead.make(key, maker, change, seed, epoch, i, bytes)
  if type(change) == "string" then
    change = function_named(change)
  end
  return changed(draw(source_of(key, maker), epoch, i, bytes), change, seed, epoch, i)
end

-- ---- in the main state -------------------------------------------------------------------------------------------------------

local n_keys = 0

-- What the source is made of, under a key of its own.
local function describe(self)
  local source = self.source
  n_keys = n_keys + 1
  self.key, self.version = ("%d"):format(n_keys), type(source) == "table" and source.version
  if type(source) == "function" then
    self.maker = { source = source }
  else
    self.maker = { n = 0 }
    local function note(module, name, ...)
      self.maker.module, self.maker.name, self.maker.n = module, name, select("#", ...)
      for i = 1, self.maker.n do
        self.maker[i] = (select(i, ...))
      end
    end
    note(source:made_by())
  end
end

local function drop_all(self)
  for index, ticket in pairs(self.tickets) do
    self.pool:drop(ticket)
    self.tickets[index] = nil
  end
end

--- Puts workers in front of a source.
-- @param source what has batch(epoch, i), per_epoch and made_by() (which returns the names of a module and of a function in it, and
--   the arguments that make the source again: pn.lucid.stream and pn.data.clips have it), or a function(epoch, i) that travels
-- @tparam ?table cfg workers (default worker.default(device); 0: none, batches are made when asked for); ahead: how many batches
--   may be under way or wait (default 2 a worker); epochs: no batch is made beyond it; seed = 1; device: for another than the
--   "cpu", a source that has `bytes` gives them, unless there is a change (`penumbra.device.bring`, which run:epochs calls, makes
--   numbers of them); batch: how many clips a batch has (default 1; `penumbra.batched`). Other keys are left alone, so a recipe's
--   configuration will do
-- @param ?change function(batch, rng) that returns the batch, or its name; it sees clips one by one, before they are joined
-- @treturn Ahead a source: batch(epoch, i), per_epoch
local function new(source, cfg, change)
  cfg = cfg or {}
  if type(source) ~= "function" and (type(source) ~= "table" or type(source.batch) ~= "function") then
    raise("ahead: expects a source with batch(epoch, i), or a function(epoch, i), got %s",
      source == nil and "nothing" or "a " .. type(source))
  end
  local workers = named.whole("ahead", "workers", cfg.workers or worker.default(cfg.device), 0, 64)
  if workers > 0 and type(source) == "table" and type(source.made_by) ~= "function" then
    raise("ahead: this source has no made_by() to make it again in a worker; give it one, or workers = 0")
  end
  if change ~= nil and type(change) ~= "function" and type(change) ~= "string" then
    raise("ahead: the change is a %s, expects a function(batch, rng) or its name", type(change))
  end
  local per_epoch = type(source) == "table" and source.per_epoch or 1
  local clips = named.whole("ahead", "batch", cfg.batch or 1, 1, 4096)
  local self = setmetatable({
    source = source, change = change, seed = cfg.seed or 1, per_epoch = per_epoch, n_workers = workers, tickets = {},
    ahead = named.whole("ahead", "ahead", cfg.ahead or 2 * workers, workers > 0 and 1 or 0, 1000),
    bytes = change == nil and cfg.device ~= nil and cfg.device ~= "cpu",
    last = type(cfg.epochs) == "number" and cfg.epochs * per_epoch * (per_epoch == 1 and clips or 1) or math.huge,
  }, Ahead)
  if type(change) == "string" then
    self.in_line = function_named(change) -- what is wrong with it shows here
  elseif change then -- a copy, in line too: the batches are the same for any number of workers, whatever becomes of the original
    local bytes, tensors = pack.pack("ahead: change", change)
    self.change = pack.unpack(bytes, function(n) return tensors[n]:detach():keep() end)
    self.in_line = self.change
  end
  if workers > 0 then
    describe(self)
    pack.pack("ahead: source", self.maker)
    self.pool = worker.pool(workers)
  end
  return clips > 1 and batched(self, clips) or self
end

--- Batch i of an epoch; those after it are under way when it is returned.
-- @tparam int epoch from 1
-- @tparam ?int i from 1; default 1
-- @treturn table the batch of the source, changed
function Ahead:batch(epoch, i)
  i = i or 1
  if self.n_workers == 0 then
    return changed(draw(self.source, epoch, i, self.bytes), self.in_line, self.seed, epoch, i)
  end
  if not self.pool then
    self.pool = worker.pool(self.n_workers)
  end
  if type(self.source) == "table" and self.source.version ~= self.version then
    drop_all(self)
    describe(self)
  end
  local index = (epoch - 1) * self.per_epoch + i
  for other, ticket in pairs(self.tickets) do -- a jump leaves some behind
    if other < index or other > index + self.ahead then
      self.pool:drop(ticket)
      self.tickets[other] = nil
    end
  end
  for next_index = index, math.max(index, math.min(index + self.ahead, self.last)) do
    if not self.tickets[next_index] then
      local in_epoch = (next_index - 1) % self.per_epoch
      self.tickets[next_index] = self.pool:submit("penumbra.ahead", "make", self.key, self.maker, self.change, self.seed,
        (next_index - 1 - in_epoch) / self.per_epoch + 1, in_epoch + 1, self.bytes)
    end
  end
  local ticket = self.tickets[index]
  self.tickets[index] = nil
  local batch = self.pool:collect(ticket)
  if next(self.tickets) == nil then -- that was the last
    self:close()
  end
  return batch
end

--- Ends the workers and frees what they made ahead; a later `batch` starts them again.
function Ahead:close()
  if self.pool then
    drop_all(self)
    self.pool:close()
    self.pool = nil
  end
end

return setmetatable(ahead, { __call = function(_, ...) return new(...) end })
