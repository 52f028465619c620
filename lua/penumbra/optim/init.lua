--- Optimisers: SGD and Adam over named parameters, in groups, resumable bit for bit.
--
--     local sgd = pn.optim.sgd(net:parameters(), { lr = 1e-2, momentum = 0.9, weight_decay = 2e-4 })
--     local sgd = pn.optim.sgd({
--       { params = net:group "^i3d%.", lr_scale = 0.1 },
--       { params = net:group("^side_", "^fuse"), weight_decay = 0 },
--     }, { lr = 1e-2, momentum = 0.9 })
--     sgd:zero_grad(); loss:backward(); sgd:step()
--     local optim = pn.optim.new(net:parameters(), cfg.optim) -- the kind by a key: sgd | adam | adamw
--
-- A step is one pass in C over all parameters (core/optim.c has the rules), on the device that they are on. A parameter that is
-- frozen, or that no gradient reached, stays as it is; where that is so of all, it is an error. A gradient that is not finite is
-- an error that names its parameter, and nothing has changed.
--
-- step() may be part of a captured step (penumbra.captured) but for the first two: each time round it takes the rate of that
-- time, and what it finds is heeded after.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local guarded = require "penumbra.base.guarded"
local named = require "penumbra.base.named"
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local replay = require "penumbra.replay"
local tensor = require "penumbra.tensor"

local C, check, ptr, is_tensor = binding.C, binding.check, binding.ptr, binding.is_tensor

local optim = { schedule = guarded("optim.schedule", require "penumbra.optim.schedule"), scaler = require "penumbra.optim.scaler" }

-- ---- what both share ----------------------------------------------------------------------------------------------------

local Optimiser = {}
Optimiser.__index = Optimiser

-- optim.lr = 0.1 is optim:set_lr(0.1): lr itself is a method.
function Optimiser:__newindex(name, value)
  if name == "lr" then
    self:set_lr(value)
  else
    rawset(self, name, value)
  end
end

local GROUP_OPTIONS = { "params", "lr_scale", "weight_decay" }

local function number_option(what, name, value, low, high)
  if type(value) ~= "number" or not (value >= low and value <= high) then
    raise("%s is %s, expects a number from %g%s", type(what) == "string" and what .. ": " .. name or what.label(name),
      tostring(value), low, high < math.huge and (" to %g"):format(high) or "")
  end
  return value
end

local function read_entry(what, entry, index)
  if is_tensor(entry) then
    return { name = tostring(index), tensor = entry }
  elseif type(entry) == "table" and is_tensor(entry.tensor) then
    return { name = entry.name or tostring(index), tensor = entry.tensor }
  end
  raise("%s: parameter %d is no tensor and no {name, tensor} but a %s", what, index, type(entry))
end

-- A list of parameters, or of groups of them -> a flat list of {name, tensor, lr_scale, weight_decay}.
local function read_parameters(what, params, weight_decay)
  if type(params) ~= "table" or #params == 0 then
    raise("%s: expects a list of parameters (net:parameters()) or of groups ({ params = ..., lr_scale = ... })", what)
  end
  local groups = params
  if is_tensor(params[1]) or type(params[1]) ~= "table" or params[1].params == nil then
    groups = { { params = params } }
  end
  local list, names = {}, {}
  for _, group in ipairs(groups) do
    named.check(what .. ": group", group, GROUP_OPTIONS)
    local scale = number_option(what .. ": group", "lr_scale", group.lr_scale or 1, 0, math.huge)
    local decay = number_option(what .. ": group", "weight_decay", group.weight_decay or weight_decay, 0, math.huge)
    for _, given in ipairs(group.params) do
      local entry = read_entry(what, given, #list + 1)
      if names[entry.name] then
        raise("%s: parameter '%s' is there twice", what, entry.name)
      end
      names[entry.name] = true
      entry.lr_scale, entry.weight_decay, entry.buffers = scale, decay, {}
      list[#list + 1] = entry
    end
  end
  return list
end

-- `what` names the options in messages: the kind ("sgd: lr"), or a table with label(name), what the user called it.
local function new(kind, what, params, options, known, defaults)
  named.check(kind, options, known)
  local self = setmetatable({ kind = kind, n_steps = 0, loss_scale = 1 }, Optimiser)
  for name, value in pairs(defaults) do
    self[name] = options[name] == nil and value or options[name]
  end
  if options.lr == nil then
    raise("%s: lr is missing", kind)
  end
  if type(options.lr) ~= "function" then
    number_option(what, "lr", options.lr, 0, math.huge)
  end
  number_option(what, "weight_decay", self.weight_decay, 0, math.huge)
  if options.clip_norm ~= nil then
    number_option(what, "clip_norm", options.clip_norm, 1e-30, math.huge)
  end
  self.given_lr, self.clip_norm = options.lr, options.clip_norm
  self.entries = read_parameters(kind, params, self.weight_decay)
  return self
end

--- The rate of the next step.
function Optimiser:rate()
  if type(self.given_lr) == "function" then
    local lr = self.given_lr(self.n_steps)
    if type(lr) ~= "number" or not (lr >= 0 and lr < math.huge) then
      raise("%s: the schedule gave %s at step %d, expects a number from 0", self.kind, tostring(lr), self.n_steps)
    end
    return lr
  end
  return self.given_lr
end

--- The same.
Optimiser.lr = Optimiser.rate

--- Sets the rate: a number, or a function of the number of steps done. Returns the optimiser.
function Optimiser:set_lr(lr)
  if type(lr) ~= "function" then
    number_option(self.kind, "lr", lr, 0, math.huge)
  end
  self.given_lr = lr
  return self
end

--- Drops all gradients. Returns the optimiser.
function Optimiser:zero_grad()
  for _, entry in ipairs(self.entries) do
    entry.tensor:set_grad(nil)
  end
  return self
end

local pointers, doubles = ffi.typeof("pn_tensor *[?]"), ffi.typeof("double [?]")

-- Entries that have a gradient and these gradients, which the caller frees; two lists.
local function with_gradient(self)
  local entries, grads = {}, {}
  for _, entry in ipairs(self.entries) do
    local grad = entry.tensor:grad()
    if grad then
      entries[#entries + 1], grads[#grads + 1] = entry, grad:keep() -- what came of the step may be heeded in another scope
    end
  end
  return entries, grads
end

-- Of these, the ones that learn. A step that no gradient came to is a backward pass forgotten.
local function learning(self, entries, grads)
  if #entries == 0 then
    raise("%s: no parameter has a gradient: backward() was not called, or reaches none", self.kind)
  end
  local learners, theirs = {}, {}
  for i, entry in ipairs(entries) do
    if entry.tensor:requires_grad() then
      learners[#learners + 1], theirs[#theirs + 1] = entry, grads[i]
    end
  end
  return learners, theirs
end

local function free(grads)
  for _, grad in ipairs(grads) do
    grad:free()
  end
end

local function pointers_to(tensors)
  local n = #tensors
  local list = pointers(n)
  for i, t in ipairs(tensors) do
    list[i - 1] = ptr(t)
  end
  return list, n
end

local function raise_not_finite(self, name)
  if self.before_failure then
    self.before_failure()
  end
  raise("%s: the gradient of %s is not finite (step %d)", self.kind, name, self.n_steps + 1)
end

-- Raises, naming the first parameter whose gradient is not finite.
local function name_the_culprit(self, entries, grads)
  local list, n = pointers_to(grads)
  local sums = doubles(n)
  check(C.pn_sum_squares(list, n, sums))
  for i, entry in ipairs(entries) do
    local squares = sums[i - 1]
    if squares ~= squares or squares == math.huge then
      raise_not_finite(self, ("'%s'"):format(entry.name))
    end
  end
  raise_not_finite(self, "all parameters together")
end

local LOSS_SCALE, NORM, N_VERDICT = C.PN_VERDICT_LOSS_SCALE, C.PN_VERDICT_NORM, tonumber(C.PN_VERDICT_NUMBERS)

-- Where the norm of the gradients is worked out, on the device of the parameters.
local function verdict_of(self)
  local device = self.entries[1].tensor:device()
  if not self.verdict or self.verdict:device() ~= device then
    self.verdict = replay.tensor(function() return tensor.empty { N_VERDICT, dtype = "f64", device = device } end)
    self.verdict_scale = nil
  end
  return self.verdict
end

-- Tells the device what the gradients are too large by; nothing when it knows.
local function tell_scale(self)
  if self.verdict_scale ~= self.loss_scale then
    check(C.pn_tensor_set(verdict_of(self).p, ffi.new("int64_t [1]", LOSS_SCALE), self.loss_scale))
    self.verdict_scale = self.loss_scale
  end
end

local function judge(self, grads, clip_norm)
  local list, n = pointers_to(grads)
  check(C.pn_grad_verdict(verdict_of(self).p, list, n, clip_norm or 0))
end

-- The norm that judge found: waits for the device. Infinite when a gradient is not finite.
local function read_norm(self)
  local found = doubles(N_VERDICT)
  check(C.pn_tensor_read(self.verdict.p, found, 8 * N_VERDICT))
  return found[NORM]
end

--- The norm of all gradients together; raises, naming the parameter, when one is not finite.
function Optimiser:grad_norm()
  local entries, grads = with_gradient(self)
  tell_scale(self)
  judge(self, grads)
  local norm = read_norm(self)
  if norm == math.huge then
    name_the_culprit(self, entries, grads)
  end
  free(grads)
  return norm
end

-- What is left of a step that was not taken: nothing.
local function take_back(made)
  for _, entry in ipairs(made) do
    entry.buffers = {}
  end
end

local function commit(self, learners)
  for _, entry in ipairs(learners) do
    if entry.n_steps then
      entry.n_steps = entry.n_steps + 1
    end
  end
  self.n_steps = self.n_steps + 1
end

-- One step, taken where all gradients are finite. Returns a function that waits for it and tells `heed` what came of it, and
-- returns the norm.
local function attempt(self, heed)
  local entries, grads = with_gradient(self)
  local learners, theirs = learning(self, entries, grads)
  local made = {}
  tell_scale(self)
  judge(self, grads, self.clip_norm)
  self.how.numbers, self.how.verdict = nil, self.verdict.p
  local ok, problem = pcall(self.take, self, learners, theirs, self:rate(), made)
  if not ok then
    take_back(made)
    error(problem, 0)
  end
  return function()
    local norm = read_norm(self)
    if norm == math.huge then
      take_back(made)
    else
      commit(self, learners)
    end
    heed(norm, function() name_the_culprit(self, entries, grads) end)
    free(grads)
    return norm
  end
end

-- The same inside a captured step: what varies lies on the device. Nothing is known until it has run; `heed` is then told the
-- norm, and a function that raises.
local function attempt_captured(self, heed)
  local entries, grads = with_gradient(self)
  local learners, theirs = learning(self, entries, grads)
  local made = {}
  local numbers = replay.tensor(function()
    return tensor.empty { #learners, tonumber(C.PN_STEP_BYTES), dtype = "u8", device = verdict_of(self):device() }
  end)
  judge(self, grads, self.clip_norm)
  self.how.numbers, self.how.verdict = numbers.p, self.verdict.p
  self.take(self, learners, theirs, self:rate(), made)
  if made[1] then
    take_back(made)
    raise("%s: the first step of '%s' cannot be captured: take it before", self.kind, made[1].name)
  end
  replay.around(function()
    tell_scale(self)
    self.how.numbers = numbers.p
    self.set(self, learners, theirs, self:rate())
  end, function()
    local norm = read_norm(self)
    if norm < math.huge then
      commit(self, learners)
    end
    heed(norm, function() name_the_culprit(self, entries, grads) end)
  end)
end

--- step() for those who heed what came of it themselves (the loss scaler).
-- @tparam function heed (norm, complain): the norm is infinite where a gradient is not finite; then no step was taken, and
--   complain() raises with the name of the parameter. Inside a captured step it is called each time that has run
function Optimiser:step_with(heed)
  if not replay.capturing() then
    replay.settle()
  end
  check(C.pn_profile_begin(self.kind))
  local ok, finish = pcall(replay.capturing() and attempt_captured or attempt, self, heed)
  C.pn_profile_end()
  if not ok then
    error(finish, 0)
  end
  if not finish then
    return nil
  end
  return self.entries[1].tensor:device() == "cpu" and finish() or replay.heed(finish)
end

--- One step on every parameter that has a gradient; that none has is an error.
-- @treturn number the norm of all gradients, before clipping; nil where it is not known yet: inside a captured step, and on a CUDA
--   device in the loop of a run
function Optimiser:step()
  return self:step_with(function(norm, complain)
    if norm == math.huge then
      complain()
    end
  end)
end

-- A buffer of an entry, made when first needed: zeros in the memory order of the parameter. `made` lists the entries it was made
-- for.
local function buffer(entry, name, made)
  local t = entry.buffers[name]
  if t then
    return t, false
  end
  local out = binding.out()
  check(C.pn_optim_buffer(out, ptr(entry.tensor)))
  t = binding.wrap(out[0]):keep()
  entry.buffers[name] = t
  if made then
    made[#made + 1] = entry
  end
  return t, true
end

--- All it needs to go on as if it had never stopped.
-- @treturn table {tensors = name -> tensor (its own, not copies), numbers = name -> number}
function Optimiser:state()
  replay.settle()
  local tensors, numbers = {}, { n_steps = self.n_steps }
  for _, entry in ipairs(self.entries) do
    for name, t in pairs(entry.buffers) do
      tensors[name .. "." .. entry.name] = t
    end
    if entry.n_steps and entry.n_steps > 0 then
      numbers["n_steps." .. entry.name] = entry.n_steps
    end
  end
  return { tensors = tensors, numbers = numbers }
end

--- Goes to a state that `state` gave; all or nothing.
function Optimiser:load_state(state)
  if type(state) ~= "table" or type(state.tensors) ~= "table" or type(state.numbers) ~= "table"
    or type(state.numbers.n_steps) ~= "number" then
    raise("%s: load_state: not a state of an optimiser", self.kind)
  end
  local targets, names = {}, {}
  for _, entry in ipairs(self.entries) do
    for _, name in ipairs(self.buffer_names) do
      targets[name .. "." .. entry.name] = { entry = entry, name = name }
      names[#names + 1] = name .. "." .. entry.name
    end
  end
  for name, t in pairs(state.tensors) do
    local target = targets[name]
    if not target then
      local guess = nearest(name, names)
      raise("%s: load_state: no parameter has a '%s'%s", self.kind, name, guess and (", the nearest is '%s'"):format(guess) or "")
    end
    local have, want = table.concat(t:shape(), ","), table.concat(target.entry.tensor:shape(), ",")
    if have ~= want then
      raise("%s: load_state: '%s' is %s, the parameter %s", self.kind, name, have, want)
    end
  end
  for _, entry in ipairs(self.entries) do
    entry.buffers, entry.n_steps = {}, state.numbers["n_steps." .. entry.name]
  end
  for name, t in pairs(state.tensors) do
    buffer(targets[name].entry, targets[name].name):copy(t)
  end
  self.n_steps = state.numbers.n_steps
  return self
end

-- ---- SGD ------------------------------------------------------------------------------------------------------------------

local CONVENTIONS = { pytorch = C.PN_SGD_TORCH, torch7 = C.PN_SGD_TORCH, caffe = C.PN_SGD_CAFFE }

local sgd_entries = ffi.typeof("pn_sgd_entry [?]")

local function sgd_list(self, entries, grads, lr, made)
  local n = #entries
  local list = sgd_entries(n)
  for i, entry in ipairs(entries) do
    local e = list[i - 1]
    e.param, e.grad, e.lr, e.weight_decay = ptr(entry.tensor), ptr(grads[i]), lr * entry.lr_scale, entry.weight_decay
    if self.momentum ~= 0 then
      local momentum, first = buffer(entry, "momentum", made)
      e.buffer, e.first = ptr(momentum), first
    end
  end
  return list, n
end

local function sgd_take(self, ...)
  local list, n = sgd_list(self, ...)
  check(C.pn_sgd_step(list, n, self.how))
end

local function sgd_set(self, ...)
  local list, n = sgd_list(self, ...)
  check(C.pn_sgd_set(list, n, self.how))
end

--- Stochastic gradient descent.
-- @tparam table params net:parameters(), a list of tensors, or a list of groups {params, lr_scale (1), weight_decay}
-- @tparam table options lr: a number or a function of the number of steps done; momentum (0); dampening (0; with convention
--   torch7 as momentum); nesterov (false); weight_decay (0); clip_norm: gradients are scaled down to this norm together;
--   convention: "pytorch" (default), "torch7", "caffe" (the rate is inside the momentum buffer)
function optim.sgd(params, options, what)
  options, what = options or {}, what or "sgd"
  local self = new("sgd", what, params, options, {
    "lr", "momentum", "dampening", "nesterov", "weight_decay", "clip_norm", "convention",
  }, { momentum = 0, nesterov = false, weight_decay = 0, convention = "pytorch" })
  number_option(what, "momentum", self.momentum, 0, 1)
  if CONVENTIONS[self.convention] == nil then
    raise("sgd: unknown convention '%s'%s (known: caffe, pytorch, torch7)", tostring(self.convention),
      nearest.hint(self.convention, { "pytorch", "torch7", "caffe" }))
  end
  local dampening = options.dampening
  if dampening == nil then
    dampening = self.convention == "torch7" and not self.nesterov and self.momentum or 0
  end
  number_option("sgd", "dampening", dampening, 0, 1)
  if self.convention == "caffe" and dampening ~= 0 then
    raise("sgd: convention caffe knows no dampening")
  end
  if self.nesterov and (self.momentum == 0 or dampening ~= 0) then
    raise("sgd: nesterov needs momentum and no dampening")
  end
  self.take, self.set, self.buffer_names = sgd_take, sgd_set, { "momentum" }
  self.how = ffi.new("pn_sgd", {
    grad_scale = 1, momentum = self.momentum, dampening = dampening, nesterov = self.nesterov,
    convention = CONVENTIONS[self.convention],
  })
  return self
end

-- ---- Adam -----------------------------------------------------------------------------------------------------------------

local adam_entries = ffi.typeof("pn_adam_entry [?]")

local function adam_list(_, entries, grads, lr, made)
  local n = #entries
  local list = adam_entries(n)
  for i, entry in ipairs(entries) do
    local e = list[i - 1]
    e.param, e.grad, e.lr, e.weight_decay = ptr(entry.tensor), ptr(grads[i]), lr * entry.lr_scale, entry.weight_decay
    entry.n_steps = entry.n_steps or 0
    e.mean, e.square, e.step = ptr((buffer(entry, "mean", made))), ptr((buffer(entry, "square", made))), entry.n_steps + 1
  end
  return list, n
end

local function adam_take(self, ...)
  local list, n = adam_list(self, ...)
  check(C.pn_adam_step(list, n, self.how))
end

local function adam_set(self, ...)
  local list, n = adam_list(self, ...)
  check(C.pn_adam_set(list, n, self.how))
end

--- Adam (Kingma & Ba 2015).
-- @tparam table params as for sgd
-- @tparam table options lr; beta1 (0.9), beta2 (0.999), eps (1e-8); weight_decay (0); decoupled (false): the decay acts on the
--   parameter, not through the gradient (AdamW); clip_norm
function optim.adam(params, options, what)
  options, what = options or {}, what or "adam"
  local self = new("adam", what, params, options, { "lr", "beta1", "beta2", "eps", "weight_decay", "decoupled", "clip_norm" },
    { beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, decoupled = false })
  number_option(what, "beta1", self.beta1, 0, 1 - 1e-12)
  number_option(what, "beta2", self.beta2, 0, 1 - 1e-12)
  number_option(what, "eps", self.eps, 0, 1)
  self.take, self.set, self.buffer_names = adam_take, adam_set, { "mean", "square" }
  self.how = ffi.new("pn_adam", {
    grad_scale = 1, beta1 = self.beta1, beta2 = self.beta2, eps = self.eps, decoupled = self.decoupled,
  })
  return self
end

--- Adam whose weight decay acts on the parameter, not through the gradient (Loshchilov & Hutter 2019): `adam` with decoupled.
-- @tparam table params as for sgd
-- @tparam table options as for adam
function optim.adamw(params, options, what)
  local how = {}
  for name, value in pairs(options or {}) do
    how[name] = value
  end
  how.decoupled = true
  return optim.adam(params, how, what or "adamw")
end

-- ---- by name --------------------------------------------------------------------------------------------------------------

local kinds = {
  sgd = function(...) return optim.sgd(...) end,
  adam = function(...) return optim.adam(...) end,
  adamw = function(...) return optim.adamw(...) end,
}
local of_one_kind = { beta1 = "adam", beta2 = "adam", eps = "adam", decoupled = "adam", nesterov = "sgd", dampening = "sgd",
                      convention = "sgd" }

--- The optimiser that a configuration names: `optim = { kind = "adamw", lr = 1e-4, momentum = 0.9, weight_decay = 2e-4 }`.
-- @tparam table params as for sgd
-- @tparam table options kind: "sgd" (default), "adam" or "adamw" (Adam whose decay acts on the parameter); the others are
--   those of the kind, but that momentum is what Adam calls beta1. Messages name them as keys: optim.lr
function optim.new(params, options)
  if type(options) ~= "table" then
    raise("optim: expects a table of options, got %s", type(options))
  end
  local how = {}
  for name, value in pairs(options) do
    how[name] = value
  end
  local kind = how.kind or "sgd"
  local make = named.choice("optim", "kind", kind, kinds)
  local family = kind == "sgd" and "sgd" or "adam"
  for name, value in pairs(how) do
    if of_one_kind[name] and of_one_kind[name] ~= family then
      if value then
        raise("optim.%s: %s has none, it is of %s", name, kind, of_one_kind[name])
      end
      how[name] = nil
    end
  end
  local renamed = kind ~= "sgd" and how.beta1 == nil and how.momentum ~= nil
  if kind ~= "sgd" then
    how.beta1, how.momentum = how.beta1 or how.momentum, nil
  end
  how.kind = nil
  return make(params, how, { label = function(name)
    return name == "beta1" and renamed and "optim.momentum (Adam's beta1)" or "optim." .. name
  end })
end

--- Checks what `new` would make of these options, before there are parameters: in a recipe, before its run has a folder.
-- @tparam table options as for `new`
function optim.check(options)
  optim.new({ tensor.zeros { 1 } }, options)
end

--- Options with those that are seldom given, for a recipe's configuration: `optim = pn.optim.keys { kind = ..., lr = 1e-4 }` has
-- the keys optim.clip_norm, optim.beta2, optim.eps and optim.nesterov as well.
-- @tparam table options as for `new`, their values or declarations
-- @treturn table
function optim.keys(options)
  local optional = require("penumbra.config").optional
  local keys = {
    clip_norm = optional("the gradients together are scaled down to this norm", "number"),
    beta2 = optional("of adam and adamw: the share of the mean square that stays; 0.999", "number"),
    eps = optional("of adam and adamw: added to the root of the mean square; 1e-8", "number"),
    nesterov = optional("of sgd: true looks ahead along the momentum", "boolean"),
  }
  for name, value in pairs(options) do
    keys[name] = value
  end
  return keys
end

return optim
