--- One run of a recipe: its directory with all that it takes to repeat it, its log, its checkpoints, its progress line.
--
--     local run = pn.run(cfg)                               -- out/oneshot-camel-20250131-120000, or out=..., or resume=...
--     run:keep{ net = net, optim = sgd }                    -- what a checkpoint holds; put back here when the run goes on
--     for epoch, batch in run:epochs(cfg.epochs, source) do -- the batch is on cfg.device; what a turn made is freed at its end
--       local loss = run:guard(pn.loss.balanced(net(batch.frames), batch.mask), function() return net(batch.frames) end)
--       ...
--       run:log{ loss = loss }                              -- numbers, or tensors of one element
--     end                                                   -- checkpoint every cfg.checkpoint_every epochs, and at the end
--     run:finish(net:segment(clip, cfg.infer), clip)
--
-- The directory: config.json (resolved; functions as source; there once a turn is done), run.json (seed, and for each session its
-- command, commit, versions, what keys it changed, SHA-256 of its sources), source/ (the recipe and what it required), log.jsonl,
-- engines.txt (on CUDA: how each convolution is done), checkpoint.safetensors, masks/SEQUENCE/*.png, overlays/SEQUENCE/*.png (and
-- .mp4), loss.png, curves/, scores.json, report.html; best.safetensors, where run:best was asked.
--
-- A run that goes on equals one that never stopped, bit for bit: parameters, optimiser and random streams are in the
-- checkpoint, and a source gives its batch by the number of the epoch. Ctrl-C, SIGTERM and SIGHUP end the epoch at hand, write a
-- checkpoint, stop; the second stops at once.
-- A directory that was made for a run is removed again where its script fails before a turn is done or a result written.
-- A checkpoint knows no device: it goes on anywhere. Two processes never write into one directory (penumbra.run.lock).
-- out= of a run goes on with it where all keys are the same but for the device and a larger epochs; with others only resume= does.
--
-- Nothing in a turn waits for a CUDA device: what run:log and run:guard are given there, and what came of an optimiser's step, is
-- read when the next turn has its batch, or the loop ends. So the device computes while the host makes ready what comes next.
-- @module penumbra.run
local about = require "penumbra.about"
local checkpoint = require "penumbra.run.checkpoint"
local config = require "penumbra.config"
local device = require "penumbra.device"
local files = require "penumbra.base.files"
local folder = require "penumbra.run.folder"
local formats = require "penumbra.formats"
local json = require "penumbra.json"
local lock = require "penumbra.run.lock"
local named = require "penumbra.base.named"
local log = require "penumbra.run.log"
local profile = require "penumbra.profile"
local progress = require "penumbra.run.progress"
local raise = require "penumbra.base.raise"
local replay = require "penumbra.replay"
local results = require "penumbra.run.results"
local scope = require "penumbra.scope"
local sorted_keys = require "penumbra.base.sorted_keys"
local source_files = require "penumbra.run.source"
local usage = require "penumbra.base.usage"
local pn = require "penumbra"

local Run = {}
Run.__index = Run

local has_program, program = pcall(require, "penumbra.program")
if not has_program then program = nil end -- under a plain luajit: no Ctrl-C, no home

-- ---- the directory and its record ------------------------------------------------------------------------------------------

local function default_directory(cfg)
  local parts = { config.name(cfg) }
  if type(cfg.sequence) == "string" then parts[2] = cfg.sequence:gsub("[^%w_-]", "-") end
  parts[#parts + 1] = os.date "%Y%m%d-%H%M%S"
  local path = "out/" .. table.concat(parts, "-")
  local n = 1
  local free = path
  while files.exists(free, "directory") do -- two runs within a second
    n = n + 1
    free = path .. "-" .. n
  end
  return free
end

local function put(self, name, text)
  local problem = files.write(self.dir .. "/" .. name, text)
  if problem then raise(problem) end
end

-- Writes config.json and the sources, once a session: when something was made with these, not before.
local function write_config(self)
  if self.recorded then return end
  self.recorded = true
  put(self, "config.json", json.pretty(self.config))
  local session, recipe = self.history.sessions[#self.history.sessions], config.file(self.cfg)
  if not recipe then return end
  local list, problem = source_files.keep(self.dir, source_files.collect(recipe, self.sources), session.from_epoch)
  if problem then raise("%s", problem) end
  session.source = list
  put(self, "run.json", json.pretty(self.history))
end

-- The same for a run that has just begun, which may have no loop, or no turn in it. One that goes on keeps the keys it was trained
-- with until a turn is done with others.
local function write_new_config(self)
  if not self.went_on then write_config(self) end
end

-- ---- the state of what is kept: tensors into the file, the rest as text into its metadata ------------------------------------

local function path_of(prefix, key) return prefix == "" and key or prefix .. "/" .. key end

local encoders = {
  number = function(value) return ("n %.17g"):format(value) end,
  string = function(value) return "s " .. value end,
  boolean = function(value) return "b " .. tostring(value) end,
}

local function flatten(value, path, tensors, texts)
  if pn.is_tensor(value) then
    tensors[path] = value
  elseif type(value) == "table" then
    local n = 0
    for key, element in pairs(value) do
      flatten(element, path_of(path, type(key) == "number" and "#" .. key or tostring(key)), tensors, texts)
      n = n + 1
    end
    if n == 0 then texts[path] = "t" end
  elseif encoders[type(value)] then
    texts[path] = encoders[type(value)](value)
  else
    raise("checkpoint: %s is a %s, which a checkpoint cannot hold", path, type(value))
  end
end

local function decode(text)
  local kind, rest = text:match("^(%a) ?(.*)$")
  if kind == "n" then return tonumber(rest) end
  if kind == "b" then return rest == "true" end
  if kind == "t" then return {} end
  return rest
end

-- Puts a value at "optim/#3/buffer" of a tree.
local function plant(tree, path, value)
  local at, last = tree, nil
  for part in path:gmatch("[^/]+") do
    if last ~= nil then
      at[last] = at[last] or {}
      at = at[last]
    end
    last = part:sub(1, 1) == "#" and tonumber(part:sub(2)) or part
  end
  at[last] = value
end

local function state_of(name, part)
  if type(part) ~= "table" or type(part.state) ~= "function" then
    raise("run:keep: %s has no state(): a module, an optimiser or a random stream is expected", name)
  end
  return part:state()
end

local function restore(part, state)
  if part.load_state then return part:load_state(state) end
  return part:set_state(state)
end

--- Names what a checkpoint holds; in a run that goes on, puts it back at once.
-- @tparam table parts name = module, optimiser or random stream (anything with state() and load_state() or set_state());
--   the tensors of `net` stand in the file under their own names, so that net:load reads it
-- @treturn table the run
function Run:keep(parts)
  if type(parts) ~= "table" then raise("run:keep: expects a table of named parts, got %s", type(parts)) end
  for name, part in pairs(parts) do
    state_of(name, part)
    self.parts[name] = part
    if type(part.grad_norm) == "function" then
      part.before_failure = function() self:settle() end -- a loss that waits says more than the gradient it spoilt
    end
  end
  if not self.resumed then return self end

  local path = self.checkpoint_path
  for name, part in pairs(parts) do
    local tree, found = {}, false
    for key, tensor in pairs(self.resumed.tensors) do
      local inside = name == "net" and key:sub(1, 1) ~= "@" and key or key:match("^@" .. name:gsub("%p", "%%%0") .. "/(.*)$")
      if inside then
        if name == "net" then tree[inside] = tensor else plant(tree, inside, tensor) end
        found = true
      end
    end
    for key, text in pairs(self.resumed.metadata) do
      local inside = key:match("^@" .. name:gsub("%p", "%%%0") .. "/(.*)$")
      if inside then
        plant(tree, inside, decode(text))
        found = true
      end
    end
    if not found and not part.may_begin_anew then raise("%s: holds nothing for '%s'", path, name) end
    local ok, problem = true, nil
    if found then ok, problem = pcall(restore, part, tree) end
    if not ok then raise("%s: %s", path, (tostring(problem):gsub("^%S+:%d+: ", ""))) end
  end
  return self
end

-- What a checkpoint of now holds: tensors, and texts for its metadata.
local function contents(self)
  local tensors, texts = {}, {
    format = checkpoint.marker, recipe = self.name, epoch = tostring(self.epoch), step = tostring(self.step),
    seed = tostring(self.seed), log_bytes = tostring(self.journal.bytes), config = json.line(self.config), penumbra = pn.version,
    loss = self.progress and ("%.17g %.17g"):format(self.progress.smooth, self.progress.weight) or nil,
  }
  for name, part in pairs(self.parts) do
    flatten(state_of(name, part), name == "net" and "" or "@" .. name, tensors, texts)
  end
  return tensors, texts
end

--- Writes the checkpoint: beside the last one first, then in its place. In a loop over run:epochs there is no need to call it.
-- @tparam ?table parts as for keep, when keep was not called
-- @treturn string its path; nil when nothing is kept
function Run:checkpoint(parts)
  if parts then
    for name, part in pairs(parts) do
      if name ~= "epoch" then
        state_of(name, part)
        self.parts[name] = part
      end
    end
  end
  if next(self.parts) == nil then return nil end
  local ok, problem = pcall(formats.save, self.checkpoint_path, contents(self))
  if not ok then
    raise("cannot write %s: %s%s", self.checkpoint_path, (tostring(problem):gsub("^%S+:%d+: ", "")),
      self.saved_epoch and ("; the checkpoint of epoch %d still stands: make room and go on with resume=%s"):format(
        self.saved_epoch, self.dir) or "")
  end
  self.saved_epoch = self.epoch
  write_config(self)
  return self.checkpoint_path
end

--- Keeps the best so far: where the value is better than every one before, in this session and those that it goes on from, all that
-- was named to run:keep is written to best.safetensors, for weights= and checkpoint= as the checkpoint is.
--
--     local j = run:score(net:segment(clip, cfg.infer), clip).J.mean
--     run:best(j)
--
-- @tparam number value of a score; one that is no number (NaN) is never the best
-- @tparam ?table options lower = true: of a loss, the lowest is the best
-- @treturn boolean whether it was the best
function Run:best(value, options)
  local how = named("run:best", options, { lower = false })
  if type(value) ~= "number" then raise("run:best: the value is a %s, expects a number", type(value)) end
  if next(self.parts) == nil then raise("run:best: nothing is kept: run:keep{ net = net } names what a checkpoint holds") end
  local path = self.dir .. "/best.safetensors"
  if not self.best_value and self.went_on and files.exists(path) then
    self.best_value = tonumber(checkpoint.metadata(path).best)
  end
  local before = self.best_value
  if value ~= value or before and not (how.lower and value < before or not how.lower and value > before) then return false end
  local tensors, texts = contents(self)
  texts.best, texts.epoch = ("%.17g"):format(value), tostring(self.current or self.epoch)
  formats.save(path, tensors, texts)
  self.best_value = value
  return true
end

-- ---- opening -------------------------------------------------------------------------------------------------------------------

local function directory_of(cfg)
  local function bare(path) return path and path:gsub("(.)/+$", "%1") end
  local out, resume = bare(cfg.out), bare(cfg.resume)
  if out and resume and out ~= resume then
    usage.fail("out=%s and resume=%s: a run goes on in its own directory; give one of the two", out, resume)
  end
  return resume or out or profile.watching and profile.watching.out or default_directory(cfg)
end

-- Takes up the run that the directory holds; refuses what is not this run. Gives what changed, as texts.
local function go_on(self)
  self.resumed = checkpoint.read(self.checkpoint_path)
  local metadata = self.resumed.metadata
  if metadata.recipe ~= self.name then
    usage.fail("%s: belongs to the recipe '%s', this is '%s': choose another out=", self.checkpoint_path,
      tostring(metadata.recipe), self.name)
  end
  local before, now = json.decode(metadata.config or "{}") or {}, self.config
  local changes = config.changes(before, now)
  if not self.cfg.resume then
    -- More epochs make no other run of it, nor does another device.
    if tonumber(before.epochs) and tonumber(now.epochs) and now.epochs > before.epochs then before.epochs = now.epochs end
    before.device = now.device
    config.hold(self.dir, "a run", before, now, (", or give resume=%s to go on with these"):format(self.dir))
  end
  self.epoch, self.step = tonumber(metadata.epoch) or 0, tonumber(metadata.step) or 0
  self.saved_epoch = self.epoch
  return changes
end

-- Nobody else may write here while this process lives, or the run is closed. A run that may still be refused makes no file.
local function take_lock(self, make)
  local problem, is_new = lock.take(self.dir, make)
  if problem then usage.fail("%s: %s", self.cfg.resume and "resume" or "out", problem) end
  return is_new
end

--- Opens a run.
-- @tparam table cfg from pn.config; out, resume, checkpoint_every, threads, device, precision and seed are read from it.
--   cfg.device is then the device itself: "cpu" or "cuda:N"
-- @treturn table run
local function open(cfg)
  if type(cfg) ~= "table" then raise("pn.run: expects a configuration, got %s", type(cfg)) end
  local self = setmetatable({
    cfg = cfg, name = config.name(cfg), seed = cfg.seed or 1, epoch = 0, step = 0, parts = {}, quiet = cfg.quiet,
    every = cfg.checkpoint_every or 10, pending = {},
  }, Run)
  local resume = cfg.resume
  cfg.resume = nil -- not on record: who takes the keys from there shall not go on with this run
  self.config, self.config_text = config.plain(cfg), tostring(cfg) -- a recipe may add to cfg later
  cfg.resume = resume
  if cfg.threads then pn.threads(cfg.threads) end
  replay.defer(false) -- of a loop that an error ended
  self.device = device.choose(cfg.device)
  cfg.device = self.device
  local card = device.describe(self.device)
  local where = card and ("%s (%s)"):format(self.device, card) or "the CPU"
  if cfg.precision then pn.precision(cfg.precision, self.device) end
  if cfg.autotune then pn.engines { how = "autotune" } end
  if cfg.exact ~= nil then pn.exact(cfg.exact) end

  self.dir = directory_of(cfg)
  self.checkpoint_path = checkpoint.path(self.dir)
  local is_locked = take_lock(self)
  self.went_on = files.exists(self.checkpoint_path)
  if cfg.resume and not self.went_on then usage.fail("resume: there is no %s", self.checkpoint_path) end
  local changes
  if self.went_on then
    local ok
    ok, changes = pcall(go_on, self)
    if not ok then
      if is_locked then lock.release(self.dir) end
      error(changes, 0)
    end
  end
  local problem = folder.make(self.dir)
  if problem then usage.fail("out: %s", problem) end
  take_lock(self, true)
  if self.went_on then
    self:say("going on after epoch %d in %s on %s", self.epoch, self.dir, where)
    for _, text in ipairs(changes) do self:say("  with another %s", text) end
  end

  self.sources = source_files.collect(config.file(cfg))
  local history = json.decode(self.went_on and files.read(self.dir .. "/run.json") or "null") or {}
  self.history = history
  history.sessions = history.sessions or {}
  for i = #history.sessions, 1, -1 do -- the last that trained
    local changed = history.sessions[i].source and source_files.changed(history.sessions[i].source, config.file(cfg))
    if changed and #changed > 0 then self:say("  changed since: %s", table.concat(changed, ", ")) end
    if changed then break end
  end
  history.recipe, history.seed = self.name, self.seed
  history.sessions[#history.sessions + 1] = {
    command = about.command(rawget(_G, "arg") or {}), commit = about.commit(), started = os.date "!%Y-%m-%dT%H:%M:%SZ",
    from_epoch = self.epoch, changes = changes and #changes > 0 and changes or nil,
    versions = about.versions(), processor = about.processor(), threads = pn.threads(),
    precision = pn.precision(nil, self.device), device = self.device, card = card,
  }
  put(self, "run.json", json.pretty(history))

  local kept = self.went_on and tonumber(self.resumed.metadata.log_bytes)
  local log_path = self.dir .. "/log.jsonl"
  if kept and not files.exists(log_path) then kept = nil end
  local ok, opened = pcall(log.open, log_path, kept)
  if not ok then raise("%s", opened) end
  self.journal = opened
  self.began = pn.clock()
  if not self.went_on then self:say("run in %s on %s", self.dir, where) end
  return self
end

--- Prints a line, unless the recipe is quiet.
function Run:say(format, ...)
  if self.quiet then return end
  io.stderr:write((select("#", ...) > 0 and format:format(...) or format), "\n")
end

--- A stream of random numbers of this run: the same for the same seed and name.
-- @tparam string name
function Run:random(name) return pn.random.stream(self.seed, name) end

-- ---- the loop ----------------------------------------------------------------------------------------------------------

local function draw(source, epoch, i)
  if source == nil then return nil end
  if type(source) == "function" then return source(epoch, i) end
  if type(source) == "table" then
    if type(source.batch) == "function" then return source:batch(epoch, i) end
    if #source > 0 then return source[(epoch - 1) % #source + 1] end
  end
  raise("run:epochs: the source is a function of the epoch, a list of batches, or has a method batch(epoch, i)")
end

local function end_turn(self)
  if not self.turn_depth then return end
  if scope.depth() ~= self.turn_depth then
    raise("run:epochs: %d scope(s) were pushed in the loop and not popped", scope.depth() - self.turn_depth)
  end
  self.turn_depth = nil
  scope.pop()
end

-- A failure to write the log or a checkpoint ends the run; what is trained so far is saved first when that is possible.
local function rescue(self, problem)
  if next(self.parts) == nil or self.rescued then raise("%s", problem) end
  self.rescued = true
  local ok = self.saved_epoch == self.epoch or pcall(self.checkpoint, self)
  raise("%s; %s", problem, ok and ("go on with resume=" .. self.dir)
    or self.saved_epoch and ("the checkpoint of epoch %d stands: go on with resume=%s"):format(self.saved_epoch, self.dir)
    or "no checkpoint could be written")
end

-- Clears what is left of the progress line where a message goes.
local function cleared(self) return self.progress and self.progress.terminal and "\r\27[K" or "" end

local function stop_for_interrupt(self)
  self:settle()
  local path = self.saved_epoch == self.epoch and self.checkpoint_path or self:checkpoint()
  self:close()
  if path then
    io.stderr:write(("%sstopped after epoch %d; go on with: penumbra %s resume=%s\n"):format(cleared(self), self.epoch,
      (rawget(_G, "arg") or {})[0] or self.name, self.dir))
  else
    io.stderr:write(cleared(self), "stopped; there is no checkpoint (run:keep names what it holds)\n")
  end
  usage.leave(130)
end

--- Yields epoch, batch (and i, where an epoch has several batches) up to epoch n, each turn in a scope of its own. In a run
-- that goes on it starts after the last epoch of the checkpoint.
-- @tparam number n the last epoch
-- @param source what gives the batches: function(epoch, i), a list, or an object with batch(epoch, i); nil for none. An object
--   may say per_epoch, the number of batches of an epoch
function Run:epochs(n, source)
  if type(n) ~= "number" or n < 0 or n ~= math.floor(n) then
    raise("run:epochs: expects the number of epochs, got %s", tostring(n))
  end
  local per_epoch = type(source) == "table" and source.per_epoch or 1
  self:unwind()
  self.progress = progress.new {
    total = n * per_epoch, done = self.epoch * per_epoch, clock = pn.clock, what = per_epoch == 1 and "epoch" or "step",
    write = self.quiet and function() end or nil,
    memory = function()
      local memory = pn.memory(self.device)
      return memory.live, memory.peak
    end,
  }
  if self.resumed and self.resumed.metadata.loss then
    local smooth, weight = self.resumed.metadata.loss:match("^(%S+) (%S+)$")
    self.progress.smooth, self.progress.weight = tonumber(smooth), tonumber(weight)
  end
  self.resumed = nil -- the tensors of the checkpoint are put back by now
  if self.went_on and self.epoch >= n then self:say("nothing left to train: %d of %d epochs are done", self.epoch, n) end
  replay.defer(self.device ~= "cpu")
  if program then
    program.catch_interrupt("note", cleared(self) .. "stopping after this epoch; Ctrl-C again stops at once\n")
  end
  local i = per_epoch
  local watch = profile.watching
  if watch then watch.loop_begins() end
  return function()
    if self.current then
      end_turn(self)
      write_config(self)
      if watch then watch.turn_ends() end
      self.step = self.step + 1
      if i == per_epoch then
        self.epoch, self.current = self.current, nil
        if next(self.parts) and self.epoch ~= n and self.every > 0 and self.epoch % self.every == 0 then
          self:settle()
          self:checkpoint()
        end
      end
      self.progress:update(self.epoch * per_epoch + (i < per_epoch and i or 0))
      if i == per_epoch and program and program.interrupted() then stop_for_interrupt(self) end
    end
    if i == per_epoch and self.epoch >= n then
      self:settle()
      write_new_config(self)
      if self.saved_epoch ~= self.epoch then self:checkpoint() end
      if self.progress.done > self.progress.first then self.progress:finish() end
      if program then program.catch_interrupt "off" end
      replay.defer(false)
      if self.device ~= "cpu" then put(self, "engines.txt", pn.picks(self.device)) end
      self.current = nil
      if watch then watch.loop_ends() end
      self:plot()
      return nil
    end
    i = i < per_epoch and i + 1 or 1
    self.current = self.epoch + 1
    scope.push()
    self.turn_depth = scope.depth()
    if watch then watch.turn_begins() end
    local asked = pn.clock()
    local function arrived(batch)
      self.waited = pn.clock() - asked
      self.progress:wait(self.waited)
      if self.device ~= "cpu" then
        batch = watch and profile.part("upload", device.bring, batch, self.device) or device.bring(batch, self.device)
        self:settle() -- the turn before, which the device has worked on meanwhile
        self.brought = batch
      end
      return self.current, batch, i
    end
    if not watch then return arrived(draw(source, self.current, i)) end
    return arrived(profile.part("batch", draw, source, self.current, i))
  end
end

-- Closes the turn that a `break` or an error left open.
function Run:unwind()
  if self.turn_depth then
    scope.unwind(self.turn_depth - 1)
    self.turn_depth = nil
  end
  self.current = nil
end

--- Ends a run early: closes its log and its open turn, and leaves its directory to others. Not needed at the end of a recipe.
function Run:close()
  self:settle()
  replay.defer(false)
  self:unwind()
  write_new_config(self)
  self.journal:close()
  lock.release(self.dir)
  if program then program.catch_interrupt "off" end
end

local function plain_number(key, value)
  if pn.is_tensor(value) then
    if value:count() ~= 1 then raise("run:log: %s has %d elements, expects one", key, value:count()) end
    return value:item()
  end
  if type(value) ~= "number" and type(value) ~= "string" and type(value) ~= "boolean" then
    raise("run:log: %s is a %s, expects a number, a tensor of one element, a string or a boolean", key, type(value))
  end
  return value
end

-- ---- what is not read yet: numbers on a device, in the order in which they were given
-- ----------------------------------------------

local function is_away(value) return pn.is_tensor(value) and value:count() == 1 and value:device() ~= "cpu" end

-- A copy that the turn and the next captured step leave alone.
local function hold(value) return value:detach():clone():keep() end

local function fetch(held)
  local value = held:item()
  held:free()
  return value
end

local function hold_batch(batch)
  local held = {}
  for _, value in pairs(type(batch) == "table" and batch or { batch }) do
    if pn.is_tensor(value) and value:device() ~= "cpu" then held[#held + 1] = value:keep() end
  end
  return held
end

--- Reads what run:log and run:guard have not yet read from the device, writes it down, and heeds what came of optimisers' steps.
-- The loop does so by itself.
function Run:settle()
  local pending, batches = self.pending, self.held_batches or {}
  self.pending, self.held_batches = {}, nil
  for _, finish in ipairs(pending) do finish() end
  replay.settle()
  for _, tensor in ipairs(batches) do tensor:free() end
end

local function is_finite(value) return value == value and math.abs(value) < math.huge end

-- The first parameter that is not finite, by name.
local function spoilt_parameter(self)
  local net = self.parts.net
  if not net then return nil end
  local state = net:state()
  for _, name in ipairs(sorted_keys(state)) do
    if state[name]:count_bad() > 0 then return name end
  end
end

local function write_line(self, line)
  for key, value in pairs(line) do
    if key:match("loss$") and type(value) == "number" and not is_finite(value) then
      local name = spoilt_parameter(self)
      raise("%s is %s at epoch %d%s%s", key, tostring(value), line.epoch,
        name and (": the values of %s are no longer finite"):format(name) or "",
        self.guarded and "" or "; run:guard(loss, function() return net(...) end) before the backward pass names the layer")
    end
  end
  local ok, problem = pcall(self.journal.write, self.journal, line)
  if not ok then rescue(self, problem) end
  if self.progress and type(line.loss) == "number" then self.progress:loss(line.loss) end
end

--- Adds a line to the log and shows the loss on the progress line. The epoch, the step and the seconds since the start are
-- added, and `data`, the seconds that the step waited for its batch. A loss (any key that ends in "loss") that is not finite ends
-- the run with an error.
-- @tparam table record name = number, tensor of one element, string or boolean
function Run:log(record)
  if type(record) ~= "table" then raise("run:log: expects a table, got %s", type(record)) end
  if not self.current then write_new_config(self) end
  local line, away = { epoch = self.current or self.epoch, step = self.step + 1 }, {}
  for key, value in pairs(record) do
    key = tostring(key)
    if is_away(value) then
      away[key] = hold(value)
    else
      line[key] = plain_number(key, value)
    end
  end
  line.seconds = math.floor((pn.clock() - self.began) * 1e3 + 0.5) / 1e3
  line.data = self.waited and math.floor(self.waited * 1e5 + 0.5) / 1e5
  if next(away) == nil and #self.pending == 0 then return write_line(self, line) end
  table.insert(self.pending, function()
    for key, held in pairs(away) do line[key] = fetch(held) end
    write_line(self, line)
  end)
  if not self.current then self:settle() end
end

local function refuse_loss(self, value, epoch, forward)
  local name = spoilt_parameter(self)
  if name then raise("loss is %s at epoch %d: the values of %s are not finite", tostring(value), epoch, name) end
  pn.trap_nan(true)
  local ok, problem = pcall(pn.no_grad, forward)
  pn.trap_nan(false)
  if ok then raise("loss is %s at epoch %d: every layer is finite, the loss itself is not", tostring(value), epoch) end
  raise("loss is %s at epoch %d: %s", tostring(value), epoch, (tostring(problem):gsub("^%S+%.lua:%d+: ", "")))
end

--- Looks at a loss before it does harm. One that is not finite ends the run with an error that names the first layer whose result
-- was not finite: the forward pass runs again with the trap on. On a CUDA device that is when the next turn begins, so `forward`
-- may use the batch, and what outlives the turn.
-- @param loss a tensor of one element
-- @tparam function forward runs the network again on the same input
-- @return the loss
function Run:guard(loss, forward)
  self.guarded = true
  local epoch = self.current or self.epoch
  if self.current and is_away(loss) then
    local held = hold(loss)
    self.held_batches = self.held_batches or hold_batch(self.brought)
    table.insert(self.pending, function()
      local value = fetch(held)
      if not is_finite(value) then refuse_loss(self, value, epoch, forward) end
    end)
    return loss
  end
  local value = plain_number("loss", loss)
  if not is_finite(value) then refuse_loss(self, value, epoch, forward) end
  return loss
end

-- ---- results -----------------------------------------------------------------------------------------------------------

--- Draws loss.png from the log: each loss, thin, with its running mean; and curves/KEY.png for each other number.
-- @treturn ?string the path; nil when there is nothing to draw
function Run:plot() return require("penumbra.run.report").plot(self.dir) end

-- What penumbra.run.results needs to know of this run; all of it travels to a worker.
local function place(self)
  write_new_config(self)
  self.results = self.results or { dir = self.dir, seed = self.seed, config_text = self.config_text, quiet = self.quiet }
  self.results.epoch = self.epoch
  return self.results
end

--- Writes the masks of a clip as DAVIS reads them, each over its frame, and a video of these where ffmpeg is there.
-- @param masks u8 (T,H,W), object numbers
-- @tparam table clip name, frames and their names
-- @param probabilities ?tensor u8 (T,H,W), 255 for certainty: written too, as grey pictures
-- @return masks, for run:score
function Run:save_masks(masks, clip, probabilities) return results.save_masks(place(self), masks, clip, probabilities) end

--- Scores masks against the clip's own: prints the table, with the first mask copied to every frame and published results
-- beside it, and writes scores.json (of all clips scored in this run) and report.html.
-- @param masks u8 (T,H,W), object numbers; what save_masks returns
-- @tparam table clip
-- @treturn ?table J and F, each with mean, recall, decay; nil when the clip has no masks to score against
function Run:score(masks, clip) return results.score(place(self), masks, clip) end

--- save_masks and score in one. Under `penumbra each` they are done by workers, while the next sequence is learnt already.
-- @param masks u8 (T,H,W), object numbers
-- @tparam table clip
-- @param probabilities ?tensor as for save_masks
function Run:finish(masks, clip, probabilities) return results.finish(place(self), masks, clip, probabilities) end

--- Writes report.html: one file with configuration, loss, scores and overlays.
-- @treturn string its path
function Run:report() return results.report(place(self)) end

return open
