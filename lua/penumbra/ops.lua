--- The operations: one Lua function each, built from the registry of the library (core/ops.def).
--
--     y = ops.conv3d(x, weight, bias, { stride = 2, pad = "same" })
--     print(ops.help "conv3d")
--
-- Tensors are positional (nil for an optional one that is absent; a number stands for a tensor without axes, of integers where it
-- is whole, stands beside one of integers, and the operation takes those), the rest is named in one table. Triples are t,h,w: a
-- number or {t,h,w}. Pads: "same", a number, {t,h,w} or {{low,high},{low,high},{low,high}}. A list that is the operation's only one
-- needs no name: ops.sum(x, { 2, 3 }), ops.reshape(x, { 6, 4 }). Axes and positions count from 1; axis -1 is the last.
-- `into = tensor` (or a list) names destinations to write. LuaJIT's FFI turns nil into NULL and 1.7 into 1, so every argument is
-- checked here; C checks the tensors.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local nearest = require "penumbra.base.nearest"
local pace = require "penumbra.pace"
local raise = require "penumbra.base.raise"

local C, wrap, Ref, is_tensor = binding.C, binding.wrap, binding.Ref, binding.is_tensor

local ops = {}

-- ---- arguments --------------------------------------------------------------------------------------------------------

local KIND = {
  [tonumber(ffi.cast("int", C.PN_INT))] = "int", [tonumber(ffi.cast("int", C.PN_INT3))] = "int3",
  [tonumber(ffi.cast("int", C.PN_PAD3))] = "pad3", [tonumber(ffi.cast("int", C.PN_REAL))] = "real",
  [tonumber(ffi.cast("int", C.PN_BOOL))] = "bool", [tonumber(ffi.cast("int", C.PN_CHOICE))] = "choice",
  [tonumber(ffi.cast("int", C.PN_INTS))] = "ints",
}
-- Arguments that name an axis or a position: 0-based in C, 1-based here.
local ONE_BASED = { axis = true, axes = true, first = true }
local IS_AXIS = { axis = true, axes = true } -- may count from the last: -1

local function text_of(pointer)
  return pointer ~= nil and ffi.string(pointer) or nil
end

local function describe_value(value)
  if type(value) == "string" then
    return ("%q"):format(value)
  end
  return tostring(value)
end

local n_axes -- of the first tensor of the call at hand; nil where there is none

local ENDLESS = 1e15 -- as good as no bound: what the registry has for sizes and positions

-- An axis of the tensor at hand, from 1, where it may count from the last; the operation knows one that is too large.
local function axis_from_first(op, arg, value)
  if value == 0 or value < -n_axes or value > arg.max + 1 then
    raise("%s: %s is %g, the tensor has %s", op.name, arg.name, value,
      n_axes > 0 and ("axes 1 to %d, or -%d to -1 from the last"):format(n_axes, n_axes) or "no axes")
  end
  return value < 0 and n_axes + 1 + value or value
end

-- A whole number in the argument's range, as C wants it.
local function whole(op, arg, value)
  if type(value) ~= "number" or value ~= math.floor(value) or math.abs(value) >= 2 ^ 53 then
    raise("%s: %s is %s, expects a whole number%s", op.name, arg.name, describe_value(value),
      arg.help and type(value) == "number" and (" (%s)"):format(arg.help) or "")
  end
  if arg.is_axis and n_axes then
    value = axis_from_first(op, arg, value)
  end
  local shift = arg.one_based and 1 or 0
  if arg.min < arg.max and (value - shift < arg.min or value - shift > arg.max) then
    raise("%s: %s is %g, expects %g %s%s", op.name, arg.name, value, arg.min + shift,
      arg.max >= ENDLESS and "or more" or ("to %g"):format(arg.max + shift),
      arg.one_based and " (axes and positions count from 1)" or "")
  end
  if arg.one_based and value < 1 then
    raise("%s: %s is %g, expects 1 or more (axes and positions count from 1)", op.name, arg.name, value)
  end
  return value - shift
end

local set = {}

function set.int(op, arg, value, to)
  to.i[0] = whole(op, arg, value)
  to.n = 1
end

function set.int3(op, arg, value, to)
  if type(value) == "table" then
    if #value ~= 3 then
      raise("%s: %s has %d numbers, expects a number or {t, h, w}", op.name, arg.name, #value)
    end
    for i = 1, 3 do
      to.i[i - 1] = whole(op, arg, value[i])
    end
  else
    local number = whole(op, arg, value)
    to.i[0], to.i[1], to.i[2] = number, number, number
  end
  to.n = 3
end

function set.pad3(op, arg, value, to)
  to.n = 6
  if value == "same" then
    to.same = true
    return
  end
  if type(value) == "table" then
    if #value ~= 3 then
      raise("%s: %s has %d entries, expects \"same\", a number, {t, h, w} or {{low, high}, {low, high}, {low, high}}", op.name,
        arg.name, #value)
    end
    for i = 1, 3 do
      local side = value[i]
      if type(side) == "table" then
        if #side ~= 2 then
          raise("%s: %s[%d] has %d numbers, expects {low, high}", op.name, arg.name, i, #side)
        end
        to.i[2 * i - 2], to.i[2 * i - 1] = whole(op, arg, side[1]), whole(op, arg, side[2])
      else
        local number = whole(op, arg, side)
        to.i[2 * i - 2], to.i[2 * i - 1] = number, number
      end
    end
  elseif type(value) == "string" then
    raise("%s: %s is %q, the only word it knows is \"same\"%s", op.name, arg.name, value,
      value == "valid" and (": %s = 0 is what is called \"valid\" elsewhere"):format(arg.name) or "")
  else
    local number = whole(op, arg, value)
    for i = 0, 5 do
      to.i[i] = number
    end
  end
end

function set.real(op, arg, value, to)
  if type(value) ~= "number" or value ~= value then
    raise("%s: %s is %s, expects a number", op.name, arg.name, describe_value(value))
  end
  if arg.min < arg.max and (value < arg.min or value > arg.max) then
    raise("%s: %s is %g, expects %g to %g", op.name, arg.name, value, arg.min, arg.max)
  end
  to.f = value
end

function set.bool(op, arg, value, to)
  if type(value) ~= "boolean" then
    raise("%s: %s is %s, expects true or false", op.name, arg.name, describe_value(value))
  end
  to.i[0] = value and 1 or 0
  to.n = 1
end

function set.choice(op, arg, value, to)
  local index = arg.choice_index[value]
  if not index then
    local guess = type(value) == "string" and nearest(value, arg.choice_list)
    raise("%s: %s is %s, expects one of %s%s", op.name, arg.name, describe_value(value), table.concat(arg.choice_list, ", "),
      guess and (" (did you mean %q?)"):format(guess) or "")
  end
  to.i[0] = index
  to.n = 1
end

function set.ints(op, arg, value, to)
  local list = type(value) == "table" and value or { value }
  if #list > 6 then
    raise("%s: %s has %d numbers, at most 6", op.name, arg.name, #list)
  end
  for i = 1, #list do
    to.i[i - 1] = whole(op, arg, list[i])
  end
  to.n = #list
end

local MAX_ARGS = tonumber(ffi.cast("int", C.PN_MAX_ARGS))
local MAX_INPUTS = tonumber(ffi.cast("int", C.PN_MAX_INPUTS))
local MAX_OUTPUTS = tonumber(ffi.cast("int", C.PN_MAX_OUTPUTS))

local x_buffer = ffi.new("pn_tensor *[?]", MAX_INPUTS)
local y_buffer = ffi.new("pn_tensor *[?]", MAX_OUTPUTS)
local value_buffer = ffi.new("pn_value [?]", MAX_ARGS)
local given_buffer = ffi.new("bool [?]", MAX_ARGS)
local n_buffer = ffi.new("int [1]")
local IS_INTEGER = {}
for _, dtype in ipairs { C.PN_U8, C.PN_I32, C.PN_I64 } do
  IS_INTEGER[tonumber(ffi.cast("int", dtype))] = true
end

local function known_names(op)
  local names = { "into" }
  for _, arg in ipairs(op.args) do
    names[#names + 1] = arg.name
  end
  table.sort(names)
  return names
end

local function read_named(op, named)
  ffi.fill(value_buffer, ffi.sizeof(value_buffer))
  ffi.fill(given_buffer, ffi.sizeof(given_buffer))
  local list = named[1] ~= nil and op.n_lists == 1 and op.list
  if list then
    if named[list.name] ~= nil then
      raise("%s: %s is given twice: as a list, and by its name", op.name, list.name)
    end
    set.ints(op, list, named, value_buffer[list.index])
    given_buffer[list.index] = true
  end
  for key, value in pairs(named) do
    local arg = op.by_name[key]
    if arg then
      set[arg.kind](op, arg, value, value_buffer[arg.index])
      given_buffer[arg.index] = true
    elseif type(key) == "number" then
      if not list then
        local known = known_names(op)
        raise("%s: arguments have names, and %s has none: { %s = ... } (known: %s)", op.name, describe_value(value),
          #op.args > 0 and op.args[1].name or "into", table.concat(known, ", "))
      end
    elseif key ~= "into" then
      local known = known_names(op)
      raise("%s: unknown argument '%s'%s (known: %s)", op.name, tostring(key),
        nearest.hint(key, known), table.concat(known, ", "))
    end
  end
end

-- One tensor argument to its pointer; a number becomes a tensor without axes on the device of the others, held in `hold` until
-- the call is over. Of integers where that says it exactly.
local function read_tensor(op, name, value, hold, device, as_integer)
  if is_tensor(value) then
    return binding.ptr(value)
  end
  if type(value) == "number" then
    local p = binding.out()
    local whole_number = as_integer and value == math.floor(value) and math.abs(value) < 2 ^ 53
    binding.check(C.pn_tensor_new(p, whole_number and C.PN_I64 or C.pn_real(), 0, nil, C.PN_ROWS, device))
    local handle = Ref(p[0], 0)
    hold[#hold + 1] = handle
    binding.check(C.pn_tensor_fill(handle.p, value))
    return handle.p
  end
  raise("%s: %s: expected a tensor, got %s", op.name, name, value == nil and "nil" or type(value))
end

local function read_inputs(op, tensors, n, hold)
  local inputs = op.inputs
  local n_x = 0
  if op.variadic then
    if n == 1 and type(tensors[1]) == "table" then
      tensors = tensors[1]
      n = #tensors
    end
    if n < #inputs then
      raise("%s: expects %s, got %d", op.name, op.signature, n)
    end
  elseif n > #inputs then
    raise("%s: takes %s, got %d positional arguments (the rest is named: { %s })", op.name, op.signature, n,
      #op.args > 0 and op.args[1].name .. " = ..." or "")
  end
  local last = op.variadic and n or #inputs
  if last > MAX_INPUTS then
    raise("%s: %d tensors, at most %d", op.name, last, MAX_INPUTS)
  end
  local device, any_integers = 0, false
  for i = last, 1, -1 do
    if is_tensor(tensors[i]) then
      local p = binding.ptr(tensors[i])
      device = C.pn_tensor_device(p)
      if inputs[math.min(i, #inputs)].integer then
        any_integers = any_integers or IS_INTEGER[tonumber(ffi.cast("int", C.pn_tensor_dtype(p)))]
      end
    end
  end
  for i = 1, last do
    local input = inputs[math.min(i, #inputs)]
    local value = tensors[i]
    if value == nil and input.optional then
      x_buffer[i - 1] = nil
    else
      x_buffer[i - 1] = read_tensor(op, input.name, value, hold, device, input.integer and any_integers)
    end
    n_x = i
  end
  return n_x
end

local function read_into(op, into)
  for i = 0, MAX_OUTPUTS - 1 do
    y_buffer[i] = nil
  end
  if into == nil then
    return
  end
  if is_tensor(into) then
    y_buffer[0] = binding.ptr(into)
  elseif type(into) == "table" then
    for i, t in pairs(into) do
      if type(i) ~= "number" or i < 1 or i > MAX_OUTPUTS then
        raise("%s: into: expects a tensor or a list of tensors", op.name)
      end
      y_buffer[i - 1] = binding.ptr(t, op.name .. ": into")
    end
  else
    raise("%s: into: expects a tensor or a list of tensors, got %s", op.name, type(into))
  end
end

local function results(i, n)
  if i < n then
    local handle = wrap(y_buffer[i])
    return handle, results(i + 1, n)
  end
end

local function is_plain_table(value)
  return type(value) == "table" and not is_tensor(value)
end

local function call(op, ...)
  local n = select("#", ...)
  local tensors = { ... }
  local named = tensors[n]
  if n > 0 and is_plain_table(named) and not (op.variadic and n == 1 and is_tensor(named[1])) then
    tensors[n] = nil
    n = n - 1
  else
    named = nil
  end
  named = named or {}
  local hold = {}
  local first = tensors[1]
  if op.variadic and n == 1 and is_plain_table(first) then
    first = first[1]
  end
  n_axes = is_tensor(first) and C.pn_tensor_dims(binding.ptr(first)) or nil
  read_named(op, named)
  local n_x = read_inputs(op, tensors, n, hold)
  read_into(op, named.into)
  if C.pn_op_defaults(op.pointer, given_buffer, value_buffer) ~= 0 then
    raise(binding.message())
  end
  local rc = C.pn_apply(op.pointer, x_buffer, n_x, value_buffer, y_buffer, n_buffer)
  if rc ~= 0 and binding.message():find("out of memory", 1, true) then
    pace.collect()
    read_into(op, named.into)
    rc = C.pn_apply(op.pointer, x_buffer, n_x, value_buffer, y_buffer, n_buffer)
  end
  for i = 1, #hold do
    hold[i]:free()
  end
  binding.heed()
  if rc ~= 0 then
    raise(binding.message())
  end
  -- The results first, then the collection: y_buffer holds references that no handle owns yet.
  local n_y = n_buffer[0]
  if n_y == 1 then
    local y = wrap(y_buffer[0])
    pace.mind(C.pn_tensor_device(y.p))
    return y
  end
  return results(0, n_y)
end
jit.off(call, true) -- handles must stay on the stack, in sight of the collector, while C works on their pointers

-- ---- the registry -----------------------------------------------------------------------------------------------------

local function read_op(pointer)
  local op = { pointer = pointer, name = ffi.string(C.pn_op_name(pointer)), inputs = {}, outputs = {}, args = {}, by_name = {} }
  op.signature = ffi.string(C.pn_op_inputs(pointer))
  for word in op.signature:gmatch("%S+") do
    local input = { name = word:match("^[%w_]+"), optional = word:sub(-1) == "?", variadic = word:sub(-3) == "..." }
    input.integer = C.pn_op_input_integer(pointer, #op.inputs)
    op.inputs[#op.inputs + 1] = input
    op.variadic = op.variadic or input.variadic
  end
  for word in ffi.string(C.pn_op_outputs(pointer)):gmatch("%S+") do
    op.outputs[#op.outputs + 1] = word
  end
  for index = 0, MAX_ARGS - 1 do
    local a = C.pn_op_arg(pointer, index)
    if a == nil then
      break
    end
    local arg = {
      index = index, name = ffi.string(a.name), kind = KIND[tonumber(ffi.cast("int", a.kind))], min = a.min, max = a.max,
      default = text_of(a.def), choices = text_of(a.choices), help = text_of(a.help),
    }
    arg.one_based = ONE_BASED[arg.name] and (arg.kind == "int" or arg.kind == "ints" or arg.kind == "int3")
    arg.is_axis = arg.one_based and IS_AXIS[arg.name]
    if arg.kind == "ints" then
      op.n_lists, op.list = (op.n_lists or 0) + 1, arg
    end
    if arg.kind == "choice" then
      arg.choice_list, arg.choice_index = {}, {}
      for choice in arg.choices:gmatch("[^|]+") do
        arg.choice_index[choice] = #arg.choice_list
        arg.choice_list[#arg.choice_list + 1] = choice
      end
    end
    op.args[index + 1] = arg
    op.by_name[arg.name] = arg
  end
  return op
end

local registry, order = {}, {}

for i = 0, C.pn_n_ops() - 1 do
  local op = read_op(C.pn_op_at(i))
  registry[op.name] = op
  order[#order + 1] = op.name
  ops[op.name] = function(...)
    return call(op, ...)
  end
end

-- Every operation on tensors is a method of its first one; a few take their only argument bare.
local methods = require("penumbra.tensor").methods
for name, op in pairs(registry) do
  if #op.inputs > 0 and methods[name] == nil then
    methods[name] = ops[name]
  end
end

for _, name in ipairs { "reshape", "expand", "permute", "flip" } do
  if registry[name] then
    -- As a method also with the numbers bare: t:reshape(2, -1) is t:reshape{2, -1} and t:reshape{shape = {2, -1}}.
    methods[name] = function(t, first, ...)
      if type(first) == "number" then
        return ops[name](t, { first, ... })
      end
      return ops[name](t, first)
    end
  end
end

--- Part of an axis, as a view that gradients flow through: `x:slice(2, 1, 64)`, or named as pn.slice has it.
-- @param t the tensor
-- @param axis which axis, from 1
-- @param first its first element to keep, from 1
-- @param count how many; default: to the end
function methods.slice(t, axis, first, count)
  local named = type(axis) == "table" and axis or { axis = axis, first = first, count = count }
  return ops.slice(t, named)
end

-- Conversions of a tensor that takes part in a gradient go through the graph, where the new type can carry one.
local carries_gradient = { f32 = true, f64 = true, f16 = true, bf16 = true }
local plain_cast, plain_contiguous = methods.cast, methods.contiguous

local function is_recorded(t)
  return C.pn_recording() and C.pn_requires_grad(binding.ptr(t))
end

if registry.cast then
  -- Converted to another element type, in new memory: t:cast "u8". Differentiable between the types of floating point.
  methods.cast = function(t, dtype)
    if is_recorded(t) and carries_gradient[dtype] then
      return ops.cast(t, { dtype = dtype })
    end
    return plain_cast(t, dtype)
  end
end

if registry.contiguous then
  -- The tensor itself when it is dense in this layout ("rows" by default), else a dense copy: t:contiguous "channels_last".
  methods.contiguous = function(t, layout)
    if is_recorded(t) then
      return ops.contiguous(t, { layout = layout or "rows" })
    end
    return plain_contiguous(t, layout)
  end
end

--- The names of all operations, in the order of ops.def.
function ops.names()
  local names = {}
  for i, name in ipairs(order) do
    names[i] = name
  end
  return names
end

local function find(name)
  local op = registry[name]
  if not op then
    raise("no operation '%s'%s", tostring(name), nearest.hint(name, order))
  end
  return op
end

--- What the registry says of an operation: {name, help, inputs, outputs, devices, differentiable, args, cases}.
function ops.describe(name)
  local op = find(name)
  local cases = {}
  while true do
    local case = C.pn_op_case(op.pointer, #cases)
    if case == nil then
      break
    end
    cases[#cases + 1] = ffi.string(case)
  end
  return {
    name = op.name, help = ffi.string(C.pn_op_help(op.pointer)), inputs = op.inputs, outputs = op.outputs, signature = op.signature,
    devices = ffi.string(C.pn_op_devices(op.pointer)), differentiable = C.pn_op_differentiable(op.pointer), args = op.args,
    cases = cases,
  }
end

--- Runs an operation with its arguments as text, as its cases write them: `ops.apply_text("conv3d", {x, w}, "stride=1,2,2")`.
-- Tensors may be false where an optional one is absent.
-- @treturn table the results
function ops.apply_text(name, tensors, text)
  local op = find(name)
  local values = ffi.new("pn_value [?]", MAX_ARGS)
  binding.check(C.pn_op_parse(op.pointer, text, values))
  local n = math.max(#tensors, op.variadic and 0 or #op.inputs)
  local x, y = ffi.new("pn_tensor *[?]", MAX_INPUTS), ffi.new("pn_tensor *[?]", MAX_OUTPUTS)
  for i = 1, n do
    x[i - 1] = tensors[i] and binding.ptr(tensors[i]) or nil
  end
  binding.check(C.pn_apply(op.pointer, x, n, values, y, n_buffer))
  local list = {}
  for i = 1, n_buffer[0] do
    list[i] = wrap(y[i - 1])
  end
  return list
end
jit.off(ops.apply_text)

local KIND_HELP = {
  int = "whole number", int3 = "number or {t, h, w}", pad3 = "\"same\", number, {t, h, w} or {{low, high}, ...}", real = "number",
  bool = "true or false", ints = "list of whole numbers",
}

--- The help text of an operation: what it does, its tensors, its arguments with range and default.
function ops.help(name)
  local d = ops.describe(name)
  local lines = { d.name .. ": " .. d.help }
  lines[#lines + 1] = "  tensors  " .. d.signature .. " -> " .. table.concat(d.outputs, " ")
  for _, arg in ipairs(d.args) do
    local kind = arg.kind == "choice" and arg.choice_list and table.concat(arg.choice_list, " | ") or KIND_HELP[arg.kind]
    local shift = arg.one_based and 1 or 0
    local range = arg.min < arg.max and (", %g to %g"):format(arg.min + shift, arg.max + shift) or ""
    local default = "; required"
    if arg.default and arg.default:sub(1, 1) == "=" then
      default = "; as " .. arg.default:sub(2)
    elseif arg.default then
      default = "; default " .. (arg.default:gsub("%d+", function(digits)
        return arg.one_based and tostring(tonumber(digits) + 1) or digits
      end))
    end
    lines[#lines + 1] = ("  %-8s %s%s%s%s"):format(arg.name, kind, range, default, arg.help and "  -- " .. arg.help or "")
  end
  lines[#lines + 1] = "  devices  " .. d.devices .. (d.differentiable and "" or "; not differentiable")
  return table.concat(lines, "\n")
end

return setmetatable(ops, {
  __index = function(_, name)
    find(name)
  end,
})
