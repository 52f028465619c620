--- Penumbra: tensors, networks and tools for video object segmentation, scripted from Lua.
--
--     local pn = require "penumbra"
--     local x = pn.zeros{1, 3, 16, 224, 224}
--     local y = pn.relu(x * 2 + 1)
--
-- `pn.NAME` is, in this order: what stands below, an operation of the registry (`pn.ops.NAME`), or the module
-- `penumbra.NAME`, loaded when first asked for (`pn.nn`, `pn.optim`, `pn.loss`, `pn.data`, ...).

local binding = require "penumbra.ffi"
local tensor = require "penumbra.tensor"
local ops = require "penumbra.ops"
local composed = require "penumbra.composed"
local custom = require "penumbra.custom"
local order = require "penumbra.order"
local scope = require "penumbra.scope"
local guarded = require "penumbra.base.guarded"
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local ffi = require "ffi"
require "penumbra.copies" -- clone and to, with their gradients
require "penumbra.show" -- what print makes of a large tensor

local C = binding.C

local pn = {
  C = C,
  ffi = binding,
  ops = ops,
  scope = scope,
  tensor = tensor.tensor,
  empty = tensor.empty,
  zeros = tensor.zeros,
  ones = tensor.ones,
  full = tensor.full,
  empty_like = tensor.empty_like,
  zeros_like = tensor.zeros_like,
  is_tensor = tensor.is_tensor,
  no_grad = tensor.no_grad,
  recording = tensor.recording,
  sort = order.sort,
  topk = order.topk,
  quantile = order.quantile,
  min = composed.min,
  argmin = composed.argmin,
  var = composed.var,
  std = composed.std,
  norm = composed.norm,
  stack = composed.stack,
  split = composed.split,
  select = composed.select,
  squeeze = composed.squeeze,
  unsqueeze = composed.unsqueeze,
  custom = custom,
  check_gradient = custom.check_gradient,
  memory = tensor.memory,
  process = tensor.process,
  soft_limit = require("penumbra.pace").soft_limit,
  real = binding.real,
  version = ffi.string(C.pn_version()),
  traceback = scope.traceback,
}

--- One line on how the library was built: compiler, real type, libraries, CPU variant.
function pn.build_info()
  return ffi.string(C.pn_build_info())
end

--- The number of worker threads; with a number, sets it (results do not depend on it).
function pn.threads(n)
  if n ~= nil then
    if type(n) ~= "number" or n ~= math.floor(n) then
      raise("threads: expects a whole number, got %s", tostring(n))
    end
    binding.check(C.pn_set_threads(n))
  end
  return C.pn_threads()
end

local precisions = { f32 = true, tf32 = true, bf16 = true, fp16 = true }

--- What convolutions multiply in on a device: "f32", "bf16"; on CUDA also "tf32" and "fp16". With a name, sets it. In bf16 they
-- round their inputs (8 bits of precision) and add in f32; weights, statistics, losses and optimiser stay f32; on CUDA results are
-- of the narrow type, and so is what follows. Where the CPU has no bf16 that is said on stderr, in one line, and f32 stays.
-- @tparam ?string name
-- @tparam ?string device "cpu" by default; all CUDA devices share theirs
-- @treturn string the precision in force
function pn.precision(name, device)
  local number = binding.device(device)
  if name ~= nil then
    if not precisions[name] then raise("precision: expects f32, tf32, bf16 or fp16, got %s", tostring(name)) end
    if C.pn_set_precision(name, number) ~= 0 then
      if name ~= "bf16" or number ~= 0 then binding.check(-1) end
      io.stderr:write("precision: ", binding.message(), "\n")
    end
  end
  return ffi.string(C.pn_precision(number))
end

--- How convolutions on CUDA find their engine: "heuristic" (the one cuDNN thinks the fastest; the default), "autotune" (each new
-- shape times all there are; the picks are kept in a file by device and version of cuDNN) or "plain" (own kernels, by the
-- definition, slowly). With a table, sets what it names.
-- @tparam ?table o how; deterministic (true: engines that add in an order of chance are left out); workspace (bytes, the most that
--   an engine may take: 1 GiB)
-- @treturn table all three as they are
function pn.engines(o)
  for key in pairs(o or {}) do
    if key ~= "how" and key ~= "deterministic" and key ~= "workspace" then
      raise("engines: unknown option '%s' (known: deterministic, how, workspace)", tostring(key))
    end
  end
  o = o or {}
  if o.workspace ~= nil then
    if type(o.workspace) ~= "number" or o.workspace ~= math.floor(o.workspace) then
      raise("engines: workspace is %s, expects a whole number of bytes", tostring(o.workspace))
    end
    binding.check(C.pn_set_workspace(o.workspace))
  end
  if o.how ~= nil then
    if type(o.how) ~= "string" then raise("engines: how is %s, expects heuristic, autotune or plain", tostring(o.how)) end
    binding.check(C.pn_set_engines(o.how))
  end
  if o.deterministic ~= nil then
    if type(o.deterministic) ~= "boolean" then
      raise("engines: deterministic is %s, expects true or false", tostring(o.deterministic))
    end
    C.pn_set_deterministic(o.deterministic)
  end
  return { how = ffi.string(C.pn_engines()), deterministic = C.pn_deterministic(), workspace = tonumber(C.pn_workspace()) }
end

--- The engines picked so far on a CUDA device, a line a convolution, for logs.
-- @tparam ?string device "cuda" by default
-- @treturn string
function pn.picks(device)
  local text = ffi.new("char [?]", 2 ^ 18)
  binding.check(C.pn_picks(binding.device(device or "cuda"), text, 2 ^ 18))
  return ffi.string(text)
end

--- Exact mode: f32 convolutions by their definition alone. Otherwise those with 3 taps and stride 1 go by minimal filtering
-- (Winograd), three to five times faster, with rounding of about 1e-6 of the largest value where the definition has 1e-7.
-- @tparam ?boolean on sets it
-- @treturn boolean whether it is on
function pn.exact(on)
  if on ~= nil then
    if type(on) ~= "boolean" then raise("exact: expects true or false, got %s", tostring(on)) end
    binding.check(C.pn_set_winograd(on and "off" or "auto"))
  end
  return ffi.string(C.pn_winograd()) == "off"
end

--- Seconds of a clock that only goes forward.
function pn.clock()
  return C.pn_clock()
end

--- Makes operations fail on the first result that is not finite, naming the layer.
function pn.trap_nan(on)
  C.pn_trap_nan(on and true or false)
end

-- Words of other modules that are said often enough to stand here: pn.save is penumbra.formats' save.
local elsewhere = {
  load = "formats", save = "formats", required = "config", optional = "config", rest = "config", choice = "config",
  number = "config", whole = "config",
}

-- What a script works with, loaded when first asked for; an unknown field of theirs is an error too.
local public = {
  "augment", "compare", "config", "data", "device", "formats", "image", "infer", "json", "loss", "lucid", "measure", "online",
  "optim", "plot", "profile", "random", "video", "weights", "worker",
}
for _, name in ipairs(public) do
  public[name] = true
end

local operations = {}
for _, name in ipairs(ops.names()) do
  operations[name] = true
end

return setmetatable(pn, {
  __index = function(_, name)
    if operations[name] then
      pn[name] = ops[name]
      return ops[name]
    end
    if elsewhere[name] then
      rawset(pn, name, require("penumbra." .. elsewhere[name])[name])
      return rawget(pn, name)
    end
    local path = type(name) == "string" and package.searchpath("penumbra." .. name, package.path)
    if path then
      local module = require("penumbra." .. name)
      if public[name] then
        guarded(name, module)
      end
      rawset(pn, name, module)
      return module
    end
    local known = ops.names()
    for key in next, pn do
      known[#known + 1] = key
    end
    for _, module in ipairs(public) do
      known[#known + 1] = module
    end
    raise("penumbra has no '%s'%s", tostring(name), nearest.hint(name, known))
  end,
})
