--- Optimisers: SGD and Adam over named parameters, in groups, resumable bit for bit.
--
--     local sgd = pn.optim.sgd(net:parameters(), { lr = 1e-2, momentum = 0.9, weight_decay = 2e-4 })
--     local sgd = pn.optim.sgd({
--       { params = net:group "^i3d%.", lr_scale = 0.1 },
--       { params = net:group("^side_", "^fuse"), weight_decay = 0 },
--     }, { lr = 1e-2, momentum = 0.9 })
--     sgd:zero_grad(); loss:backward(); sgd:step()
--
-- A step of SGD is one pass in C over all parameters, a step of Adam one over each (core/optim.c has the rules). A parameter that
-- is frozen, or that no gradient reached, stays as it is. A gradient that is not finite is an error that names its parameter,
-- before anything has changed.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local nearest = require "penumbra.nearest"
local raise = require "penumbra.raise"
local check_options = require("penumbra.nn.module").check_options

local C, check, ptr, is_tensor = binding.C, binding.check, binding.ptr, binding.is_tensor

local optim = { schedule = require "penumbra.optim.schedule" }

-- ---- what both share ----------------------------------------------------------------------------------------------------

local Optimiser = {}
Optimiser.__index = Optimiser

local GROUP_OPTIONS = { "params", "lr_scale", "weight_decay" }

local function number_option(what, name, value, low, high)
  if type(value) ~= "number" or not (value >= low and value <= high) then
    raise("%s: %s is %s, expects a number from %g to %g", what, name, tostring(value), low, high)
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
    check_options(what .. ": group", group, GROUP_OPTIONS)
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

local function new(kind, params, options, known, defaults)
  check_options(kind, options, known)
  local self = setmetatable({ kind = kind, n_steps = 0 }, Optimiser)
  for name, value in pairs(defaults) do
    self[name] = options[name] == nil and value or options[name]
  end
  if options.lr == nil then
    raise("%s: lr is missing", kind)
  end
  if type(options.lr) ~= "function" then
    number_option(kind, "lr", options.lr, 0, math.huge)
  end
  number_option(kind, "weight_decay", self.weight_decay, 0, math.huge)
  if options.clip_norm ~= nil then
    number_option(kind, "clip_norm", options.clip_norm, 1e-30, math.huge)
  end
  self.lr, self.clip_norm = options.lr, options.clip_norm
  self.entries = read_parameters(kind, params, self.weight_decay)
  return self
end

--- The rate of the next step.
function Optimiser:rate()
  if type(self.lr) == "function" then
    local lr = self.lr(self.n_steps)
    if type(lr) ~= "number" or not (lr >= 0 and lr < math.huge) then
      raise("%s: the schedule gave %s at step %d, expects a number from 0", self.kind, tostring(lr), self.n_steps)
    end
    return lr
  end
  return self.lr
end

--- Sets the rate: a number, or a function of the number of steps done. Returns the optimiser.
function Optimiser:set_lr(lr)
  if type(lr) ~= "function" then
    number_option(self.kind, "lr", lr, 0, math.huge)
  end
  self.lr = lr
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

-- Entries that have a gradient (and learn, where asked) and these gradients, which the caller frees; two lists.
local function with_gradient(self, only_learning)
  local entries, grads = {}, {}
  for _, entry in ipairs(self.entries) do
    local grad = (not only_learning or entry.tensor:requires_grad()) and entry.tensor:grad()
    if grad then
      entries[#entries + 1], grads[#grads + 1] = entry, grad
    end
  end
  return entries, grads
end

local function free(grads)
  for _, grad in ipairs(grads) do
    grad:free()
  end
end

--- The norm of all gradients together; raises, naming the parameter, when one is not finite.
function Optimiser:grad_norm()
  local entries, grads = with_gradient(self)
  local n = #grads
  local list, sums, sum = pointers(n), doubles(n), 0
  for i, grad in ipairs(grads) do
    list[i - 1] = ptr(grad)
  end
  check(C.pn_sum_squares(list, n, sums))
  for i, entry in ipairs(entries) do
    local squares = sums[i - 1]
    if squares ~= squares or squares == math.huge then
      if self.before_failure then
        self.before_failure()
      end
      raise("%s: the gradient of '%s' is not finite (step %d)", self.kind, entry.name, self.n_steps + 1)
    end
    sum = sum + squares
  end
  free(grads)
  return math.sqrt(sum)
end

--- One step on every parameter that has a gradient.
-- @treturn number the norm of all gradients, before clipping
function Optimiser:step()
  check(C.pn_profile_begin(self.kind))
  local lr = self:rate()
  local norm = self:grad_norm()
  local scale = self.clip_norm and norm > self.clip_norm and self.clip_norm / norm or 1
  local entries, grads = with_gradient(self, true)
  self.update(self, entries, grads, lr, scale)
  free(grads)
  C.pn_profile_end()
  self.n_steps = self.n_steps + 1
  return norm
end

-- A buffer of an entry, made when first needed: zeros in the memory order of the parameter.
local function buffer(entry, name)
  local t = entry.buffers[name]
  if t then
    return t, false
  end
  local out = binding.out()
  check(C.pn_optim_buffer(out, ptr(entry.tensor)))
  t = binding.wrap(out[0]):keep()
  entry.buffers[name] = t
  return t, true
end

--- All it needs to go on as if it had never stopped.
-- @treturn table {tensors = name -> tensor (its own, not copies), numbers = name -> number}
function Optimiser:state()
  local tensors, numbers = {}, { n_steps = self.n_steps }
  for _, entry in ipairs(self.entries) do
    for name, t in pairs(entry.buffers) do
      tensors[name .. "." .. entry.name] = t
    end
    if entry.n_steps then
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

local function sgd_update(self, entries, grads, lr, scale)
  local n = #entries
  local list = sgd_entries(n)
  for i, entry in ipairs(entries) do
    local e = list[i - 1]
    e.param, e.grad, e.lr, e.weight_decay = ptr(entry.tensor), ptr(grads[i]), lr * entry.lr_scale, entry.weight_decay
    if self.momentum ~= 0 then
      local momentum, first = buffer(entry, "momentum")
      e.buffer, e.first = ptr(momentum), first
    end
  end
  self.how.grad_scale = scale
  check(C.pn_sgd_step(list, n, self.how))
end

--- Stochastic gradient descent.
-- @tparam table params net:parameters(), a list of tensors, or a list of groups {params, lr_scale (1), weight_decay}
-- @tparam table options lr: a number or a function of the number of steps done; momentum (0); dampening (0; with convention
--   torch7 as momentum); nesterov (false); weight_decay (0); clip_norm: gradients are scaled down to this norm together;
--   convention: "pytorch" (default), "torch7", "caffe" (the rate is inside the momentum buffer)
function optim.sgd(params, options)
  options = options or {}
  local self = new("sgd", params, options, {
    "lr", "momentum", "dampening", "nesterov", "weight_decay", "clip_norm", "convention",
  }, { momentum = 0, nesterov = false, weight_decay = 0, convention = "pytorch" })
  number_option("sgd", "momentum", self.momentum, 0, 1)
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
  self.update, self.buffer_names = sgd_update, { "momentum" }
  self.how = ffi.new("pn_sgd", {
    momentum = self.momentum, dampening = dampening, nesterov = self.nesterov, convention = CONVENTIONS[self.convention],
  })
  return self
end

-- ---- Adam -----------------------------------------------------------------------------------------------------------------

local function adam_update(self, entries, grads, lr, scale)
  local how = self.how
  for i, entry in ipairs(entries) do
    local mean, square = buffer(entry, "mean"), buffer(entry, "square")
    entry.n_steps = (entry.n_steps or 0) + 1
    how.lr, how.grad_scale, how.weight_decay, how.step = lr * entry.lr_scale, scale, entry.weight_decay, entry.n_steps
    check(C.pn_adam_step(ptr(entry.tensor), ptr(grads[i]), ptr(mean), ptr(square), how))
  end
end

--- Adam (Kingma & Ba 2015).
-- @tparam table params as for sgd
-- @tparam table options lr; beta1 (0.9), beta2 (0.999), eps (1e-8); weight_decay (0); decoupled (false): the decay acts on the
--   parameter, not through the gradient (AdamW); clip_norm
function optim.adam(params, options)
  options = options or {}
  local self = new("adam", params, options, { "lr", "beta1", "beta2", "eps", "weight_decay", "decoupled", "clip_norm" },
    { beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, decoupled = false })
  number_option("adam", "beta1", self.beta1, 0, 1 - 1e-12)
  number_option("adam", "beta2", self.beta2, 0, 1 - 1e-12)
  number_option("adam", "eps", self.eps, 0, 1)
  self.update, self.buffer_names = adam_update, { "mean", "square" }
  self.how = ffi.new("pn_adam", { beta1 = self.beta1, beta2 = self.beta2, eps = self.eps, decoupled = self.decoupled })
  return self
end

return optim
