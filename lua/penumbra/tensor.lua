--- Tensors: making them, looking into them; their operators are in metatype.lua.
--
-- A handle is a C struct {pn_tensor *p}; its finalizer drops the reference, a scope may drop it earlier. Axes and indices
-- count from 1 here, and only here. Operations of the registry are methods too: `x:sigmoid()` is `pn.ops.sigmoid(x)`.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local pace = require "penumbra.pace"
local raise = require "penumbra.base.raise"
local nearest = require "penumbra.base.nearest"
local sorted_keys = require "penumbra.base.sorted_keys"

local C, check, out, wrap, ptr, is_tensor = binding.C, binding.check, binding.out, binding.wrap, binding.ptr, binding.is_tensor
local MAX_DIMS = tonumber(ffi.cast("int", C.PN_MAX_DIMS))

local tensor = {}
local methods = {}

--- The methods of a tensor; operations are added by penumbra.ops.
tensor.methods = methods
tensor.is_tensor = is_tensor

local layouts = { rows = C.PN_ROWS, channels_last = C.PN_CHANNELS_LAST, filter = C.PN_FILTER }
local dtype_names, dtype_numbers = binding.dtype_names, binding.dtype_numbers

local pointer_types = {
  f32 = ffi.typeof("float *"), f64 = ffi.typeof("double *"), f16 = ffi.typeof("uint16_t *"), bf16 = ffi.typeof("uint16_t *"),
  i64 = ffi.typeof("int64_t *"), i32 = ffi.typeof("int32_t *"), u8 = ffi.typeof("uint8_t *"),
}
local array_types = {
  f32 = ffi.typeof("float [?]"), f64 = ffi.typeof("double [?]"), i64 = ffi.typeof("int64_t [?]"), i32 = ffi.typeof("int32_t [?]"),
  u8 = ffi.typeof("uint8_t [?]"),
}
local index_type = ffi.typeof("int64_t [?]")

local function is_integer(value)
  return type(value) == "number" and value == math.floor(value) and math.abs(value) < 2 ^ 53
end

local function dtype_number(name)
  if name == nil or name == "real" then
    name = binding.real
  end
  local number = dtype_numbers[name]
  if not number then
    local known = sorted_keys(dtype_numbers)
    raise("unknown element type '%s'%s (known: %s)", tostring(name), nearest.hint(name, known),
      table.concat(known, ", "))
  end
  return number
end
tensor.dtype_number = dtype_number

local function layout_number(name)
  local number = layouts[name or "rows"]
  if number == nil then
    raise("unknown layout '%s' (known: channels_last, filter, rows)", tostring(name))
  end
  return number
end

local function new(shape, n_dims, dtype, layout, device)
  local p = out()
  local rc = C.pn_tensor_new(p, dtype, n_dims, shape, layout, device)
  if rc ~= 0 and binding.message():find("out of memory", 1, true) then
    pace.collect()
    rc = C.pn_tensor_new(p, dtype, n_dims, shape, layout, device)
  end
  check(rc)
  local t = wrap(p[0])
  pace.mind(device)
  return t
end

local options = { dtype = true, layout = true, device = true, value = true }

-- {2, 3, dtype = "u8"} -> sizes as int64_t[], number of them. Options outside `allowed` are errors.
local function read_spec(what, spec, allows_value)
  if type(spec) ~= "table" then
    raise("%s: expects a table {sizes..., dtype=, layout=, device=}, got %s", what, type(spec))
  end
  local n = #spec
  if n > MAX_DIMS then
    raise("%s: %d axes, at most %d", what, n, MAX_DIMS)
  end
  local shape = index_type(math.max(n, 1))
  for i = 1, n do
    local size = spec[i]
    if not is_integer(size) or size < 0 then
      raise("%s: size %d is %s, expects a whole number from 0", what, i, tostring(size))
    end
    shape[i - 1] = size
  end
  for key in pairs(spec) do
    if type(key) ~= "number" and (not options[key] or key == "value" and not allows_value) then
      local guess = nearest(key, sorted_keys(options))
      raise("%s: unknown option '%s'%s", what, key, guess and guess ~= key and (", did you mean '%s'?"):format(guess) or "")
    end
  end
  return shape, n
end

--- A tensor whose memory is not initialised: `pn.empty{2, 3, dtype = "u8"}`.
-- @tparam table spec sizes; dtype ("f32", "f64", "f16", "bf16", "i64", "i32", "u8"; default: what operations compute in),
--   layout ("rows", the default: last axis fastest; "channels_last": N,C,T,H,W in memory as N,T,H,W,C; "filter"), device ("cpu")
function tensor.empty(spec)
  local shape, n = read_spec("empty", spec, false)
  return new(shape, n, dtype_number(spec.dtype), layout_number(spec.layout), binding.device(spec.device))
end

local function filled(what, spec, value)
  local shape, n = read_spec(what, spec, what == "full")
  local t = new(shape, n, dtype_number(spec.dtype), layout_number(spec.layout), binding.device(spec.device))
  check(C.pn_tensor_fill(t.p, value))
  return t
end

--- As `empty`, filled with 0.
function tensor.zeros(spec)
  return filled("zeros", spec, 0)
end

--- As `empty`, filled with 1.
function tensor.ones(spec)
  return filled("ones", spec, 1)
end

--- As `empty`, filled with `spec.value`.
function tensor.full(spec)
  if type(spec) == "table" and type(spec.value) ~= "number" then
    raise("full: value is %s, expects a number", tostring(spec.value))
  end
  return filled("full", spec, spec and spec.value)
end

-- The shape of a nested table, by its first elements; `fill` then finds what does not fit it.
local function shape_of(values)
  local shape, level = {}, values
  while type(level) == "table" do
    shape[#shape + 1] = #level
    level = level[1]
  end
  return shape
end

-- What the types of whole numbers hold.
local limits = { u8 = { 0, 255 }, i32 = { -2 ^ 31, 2 ^ 31 - 1 }, i64 = { -2 ^ 63, 2 ^ 63 } }

local function flatten(values, shape, depth, buffer, at, name)
  if depth > #shape then
    if type(values) ~= "number" and not (type(values) == "cdata" and tonumber(values)) then
      raise("tensor: an element is a %s, expects numbers", type(values))
    end
    local limit = limits[name]
    if limit and type(values) == "number" and not (values >= limit[1] and values <= limit[2]) then
      raise("tensor: an element is %s, %s holds %.0f to %.0f", tostring(values), name, limit[1], limit[2])
    end
    buffer[at] = values
    return at + 1
  end
  if type(values) ~= "table" or #values ~= shape[depth] then
    raise("tensor: ragged table: at depth %d %s where %d elements stood before", depth,
      type(values) == "table" and #values .. " elements" or "a " .. type(values), shape[depth])
  end
  local field = next(values, shape[depth] > 0 and shape[depth] or nil)
  if field ~= nil and depth > 1 then
    raise("tensor: field '%s' at depth %d: options stand beside the outermost values, or in a second table", tostring(field), depth)
  end
  for i = 1, shape[depth] do
    at = flatten(values[i], shape, depth + 1, buffer, at, name)
  end
  return at
end

local function write_table(t, values, shape)
  local name = dtype_names[tonumber(ffi.cast("int", C.pn_tensor_dtype(t.p)))]
  local half = name == "f16" or name == "bf16"
  local count = tonumber(C.pn_tensor_count(t.p))
  local array = array_types[half and "f32" or name]
  local buffer = array(math.max(count, 1))
  flatten(values, shape, 1, buffer, 0, name)
  local bytes = count * ffi.sizeof(array, 1)
  if half then
    local wide = out()
    local sizes = index_type(math.max(#shape, 1), shape)
    check(C.pn_tensor_new(wide, C.PN_F32, #shape, sizes, C.PN_ROWS, 0))
    local handle = binding.Ref(wide[0], 0)
    check(C.pn_tensor_write(handle.p, buffer, bytes))
    check(C.pn_tensor_copy(t.p, handle.p))
    handle:free()
  else
    check(C.pn_tensor_write(t.p, buffer, bytes))
  end
end

--- A tensor of the values of a nested table, or of one number (no axes).
-- @param values `{{1, 2}, {3, 4}}` or a number; options may stand beside the values: `{1, 2, dtype = "u8"}`
-- @tparam ?table named dtype, layout, device as for `empty`
function tensor.tensor(values, named)
  local spec = {}
  for key, value in pairs(named or {}) do
    spec[key] = value
  end
  if type(values) == "number" then
    read_spec("tensor", spec, false)
    return filled("tensor", spec, values)
  end
  if type(values) ~= "table" then
    raise("tensor: expects a number or a nested table of numbers, got %s", type(values))
  end
  for key, value in pairs(values) do -- pn.tensor{1, 2, dtype = "u8"}: named beside the numbers
    if type(key) == "string" then spec[key] = value end
  end
  local shape = shape_of(values)
  for i, size in ipairs(shape) do
    spec[i] = size
  end
  local sizes, n = read_spec("tensor", spec, false)
  local t = new(sizes, n, dtype_number(spec.dtype), layout_number(spec.layout), binding.device(spec.device))
  write_table(t, values, shape)
  return t
end

--- A tensor of the shape, type, layout and device of t, not initialised.
function tensor.empty_like(t)
  local p = ptr(t)
  local n = C.pn_tensor_dims(p)
  local shape = index_type(math.max(n, 1))
  for i = 0, n - 1 do
    shape[i] = C.pn_tensor_size(p, i)
  end
  local layout = C.PN_ROWS
  if not C.pn_tensor_is_dense(p, C.PN_ROWS) then
    if C.pn_tensor_is_dense(p, C.PN_FILTER) then
      layout = C.PN_FILTER
    elseif C.pn_tensor_is_dense(p, C.PN_CHANNELS_LAST) then
      layout = C.PN_CHANNELS_LAST
    end
  end
  return new(shape, n, C.pn_tensor_dtype(p), layout, C.pn_tensor_device(p))
end

--- As `empty_like`, filled with 0.
function tensor.zeros_like(t)
  return tensor.empty_like(t):fill(0)
end

-- ---- what a tensor is -------------------------------------------------------------------------------------------------

-- An axis, from 1, or from the last, -1, as C counts it.
local function axis_of(t, axis, what)
  local n = C.pn_tensor_dims(ptr(t))
  if is_integer(axis) and axis < 0 and axis >= -n then
    axis = n + 1 + axis
  end
  if not is_integer(axis) or axis < 1 or axis > n then
    raise("%s: axis %s, the tensor has axes 1 to %d", what, tostring(axis), n)
  end
  return axis - 1
end

--- The number of elements along an axis (1 is the first, -1 the last).
function methods.size(t, axis)
  return tonumber(C.pn_tensor_size(ptr(t), axis_of(t, axis, "size")))
end

--- The distance between neighbours along an axis, in elements.
function methods.stride(t, axis)
  return tonumber(C.pn_tensor_stride(ptr(t), axis_of(t, axis, "stride")))
end

--- The sizes of all axes, as a table.
function methods.shape(t)
  local p, shape = ptr(t), {}
  for i = 1, C.pn_tensor_dims(p) do
    shape[i] = tonumber(C.pn_tensor_size(p, i - 1))
  end
  return shape
end

--- The number of axes.
function methods.dims(t)
  return C.pn_tensor_dims(ptr(t))
end

--- The number of elements.
function methods.count(t)
  return tonumber(C.pn_tensor_count(ptr(t)))
end

--- The element type: "f32", "u8", ...
function methods.dtype(t)
  return dtype_names[tonumber(ffi.cast("int", C.pn_tensor_dtype(ptr(t))))]
end

--- "cpu", "cuda:0", ...
function methods.device(t)
  return binding.device_name(C.pn_tensor_device(ptr(t)))
end

--- Is it dense in this layout ("rows", the default, "channels_last" or "filter")?
function methods.is_dense(t, layout)
  return C.pn_tensor_is_dense(ptr(t), layout_number(layout))
end

--- The address of the first element, as a pointer of the element type. Strides apply (see `stride`); the tensor must outlive it.
-- Half floats come as uint16_t. Device memory cannot be reached so.
function methods.data(t)
  local p = ptr(t)
  if C.pn_tensor_device(p) ~= 0 then
    raise("data: the tensor is on %s; bring it here with :to(\"cpu\")", t:device())
  end
  return ffi.cast(pointer_types[t:dtype()], C.pn_tensor_data(p))
end

--- The grid it stands on: stride and centre of element 1 in input pixels, {t,h,w} each; nil when it has none.
function methods.grid(t)
  local stride, centre = ffi.new("double [3]"), ffi.new("double [3]")
  if not C.pn_tensor_grid(ptr(t), stride, centre) then
    return nil
  end
  return { stride = { stride[0], stride[1], stride[2] }, centre = { centre[0], centre[1], centre[2] } }
end

--- Places it on a grid; returns the tensor. An input's own grid is `x:set_grid({1, 1, 1}, {0, 0, 0})`.
function methods.set_grid(t, stride, centre)
  for _, triple in ipairs { stride or {}, centre or {} } do
    for i = 1, 3 do
      if type(triple[i]) ~= "number" then
        raise("set_grid: expects two triples {t, h, w} of numbers")
      end
    end
  end
  C.pn_tensor_set_grid(ptr(t), ffi.new("double [3]", stride), ffi.new("double [3]", centre))
  return t
end

-- ---- elements ---------------------------------------------------------------------------------------------------------

local index_buffer = index_type(MAX_DIMS)

local function read_index(t, what, ...)
  local p = ptr(t)
  local n = C.pn_tensor_dims(p)
  if select("#", ...) ~= n then
    raise("%s: %d indices for a tensor of %d axes", what, select("#", ...), n)
  end
  for i = 1, n do
    local index = select(i, ...)
    local size = tonumber(C.pn_tensor_size(p, i - 1))
    if not is_integer(index) or index < 1 or index > size then
      raise("%s: index %d is %s, expects 1 to %d", what, i, tostring(index), size)
    end
    index_buffer[i - 1] = index - 1
  end
  return p
end

local number_buffer = ffi.new("double [1]")

--- One element; indices count from 1.
function methods.get(t, ...)
  local p = read_index(t, "get", ...)
  check(C.pn_tensor_get(p, index_buffer, number_buffer))
  return number_buffer[0]
end

--- Sets one element: `t:set(value, i, j, ...)`; returns the tensor.
function methods.set(t, value, ...)
  if type(value) ~= "number" then
    raise("set: the value is a %s, expects a number", type(value))
  end
  local p = read_index(t, "set", ...)
  check(C.pn_check_write(p, "set"))
  check(C.pn_tensor_set(p, index_buffer, value))
  return t
end

--- The value of a tensor of one element.
function methods.item(t)
  local p = ptr(t)
  if C.pn_tensor_count(p) ~= 1 then
    raise("item: the tensor has %d elements, expects 1", tonumber(C.pn_tensor_count(p)))
  end
  for i = 0, MAX_DIMS - 1 do
    index_buffer[i] = 0
  end
  check(C.pn_tensor_get(p, index_buffer, number_buffer))
  return number_buffer[0]
end

-- All elements in row order as a C array of the element type (half floats as float), and their number.
local function read_all(t)
  local p = ptr(t)
  local name = t:dtype()
  local source
  if name == "f16" or name == "bf16" then
    source = out()
    check(C.pn_tensor_cast(source, p, C.PN_F32))
    source = binding.Ref(source[0], 0)
    p, name = source.p, "f32"
  end
  local count = tonumber(C.pn_tensor_count(p))
  local array = array_types[name]
  local buffer = array(math.max(count, 1))
  check(C.pn_tensor_read(p, buffer, count * ffi.sizeof(array, 1)))
  if source then
    source:free()
  end
  return buffer, count
end

--- All elements as nested tables; a number for a tensor without axes. For small tensors: no pixels in Lua tables.
function methods.totable(t)
  local buffer = read_all(t)
  local shape = t:shape()
  local at = 0
  local function level(depth)
    if depth > #shape then
      at = at + 1
      return tonumber(buffer[at - 1])
    end
    local values = {}
    for i = 1, shape[depth] do
      values[i] = level(depth + 1)
    end
    return values
  end
  return level(1)
end

--- All elements in row order as one flat table.
function methods.flat(t)
  local buffer, count = read_all(t)
  local values = {}
  for i = 1, count do
    values[i] = tonumber(buffer[i - 1])
  end
  return values
end

--- Sets every element; returns the tensor.
function methods.fill(t, value)
  if type(value) ~= "number" then
    raise("fill: the value is a %s, expects a number", type(value))
  end
  check(C.pn_check_write(ptr(t), "fill"))
  check(C.pn_tensor_fill(ptr(t), value))
  return t
end

--- Copies the elements of `from`, a tensor of the same shape (its type is converted) or a nested table; returns the tensor. No
-- gradient flows through it, so while history is recorded neither side may have one: pn.concat and pn.stack put results together.
function methods.copy(t, from)
  check(C.pn_check_write(ptr(t), "copy"))
  if type(from) == "table" then
    local shape = t:shape()
    if #shape ~= #shape_of(from) then
      raise("copy: a table of depth %d into a tensor of %d axes", #shape_of(from), #shape)
    end
    write_table(t, from, shape)
    return t
  end
  local source = ptr(from, "copy")
  if C.pn_requires_grad(source) and C.pn_recording() then
    raise("copy: the source wants a gradient, which does not flow through copy: pn.concat, pn.stack and pn.where carry it, "
      .. "from:detach() leaves it behind")
  end
  check(C.pn_tensor_copy(ptr(t), source))
  return t
end

--- A copy in its own memory, of the same layout. Differentiable (copies.lua).
function methods.clone(t)
  return tensor.empty_like(t):copy(t)
end

local function derived(fn, t, ...)
  local p = out()
  check(fn(p, ptr(t), ...))
  local result = wrap(p[0])
  if result then
    pace.mind(C.pn_tensor_device(result.p))
  end
  return result
end

--- The tensor itself when it is dense in this layout ("rows" by default), else a dense copy. Differentiable.
function methods.contiguous(t, layout)
  return derived(C.pn_tensor_contiguous, t, layout_number(layout))
end

--- On another device ("cpu", "cuda", "cuda:N"); itself when it is there. Differentiable (copies.lua).
function methods.to(t, device)
  return derived(C.pn_tensor_to, t, binding.device(device))
end

--- Converted to another element type, in new memory. Differentiable between the types of floating point.
function methods.cast(t, dtype)
  return derived(C.pn_tensor_cast, t, dtype_number(dtype))
end

--- A part of an axis that an operation may write as its destination (`into = t:slot(2, 1, 64)`).
function methods.slot(t, axis, first, count)
  local zero_axis = axis_of(t, axis, "slot")
  if not is_integer(first) or not is_integer(count) then
    raise("slot: first and count are whole numbers, got %s and %s", tostring(first), tostring(count))
  end
  return derived(C.pn_tensor_slot, t, zero_axis, first - 1, count)
end

--- How many elements are NaN or infinite.
function methods.count_bad(t)
  local n = index_type(1)
  check(C.pn_tensor_check_finite(ptr(t), n))
  return tonumber(n[0])
end

--- CRC-32C of the elements in row order.
function methods.crc32c(t)
  local value = ffi.new("uint32_t [1]")
  check(C.pn_tensor_crc32c(ptr(t), value))
  return tonumber(value[0])
end

-- ---- lifetime ---------------------------------------------------------------------------------------------------------

--- Takes the tensor out of its scope: it lives until it is dropped or freed. Returns it.
function methods.keep(t)
  ptr(t)
  t.scope = 0
  return t
end

--- Drops the reference now; any later use of this handle is an error.
function methods.free(t)
  local p = t.p
  if p ~= nil then
    t.p = nil
    C.pn_tensor_release(p)
  end
end

-- ---- gradients --------------------------------------------------------------------------------------------------------

--- Asks whether results that depend on it record their history; with a boolean, sets it (leaves only) and returns the tensor.
function methods.requires_grad(t, on)
  if on == nil then
    return C.pn_requires_grad(ptr(t))
  end
  if type(on) ~= "boolean" then
    raise("requires_grad: expects true or false, got %s", type(on))
  end
  check(C.pn_set_requires_grad(ptr(t), on))
  return t
end

--- Gradients of this tensor (one element, or with a seed of its shape) are added into the leaves it depends on.
-- @param t the tensor
-- @param seed ?tensor the gradient to start from
-- @tparam ?table named keep_graph = true to be able to go backward once more
function methods.backward(t, seed, named)
  if type(seed) == "table" then
    seed, named = nil, seed
  end
  for key in pairs(named or {}) do
    if key ~= "keep_graph" then
      raise("backward: unknown option '%s' (known: keep_graph)", tostring(key))
    end
  end
  local rc = C.pn_backward(ptr(t), seed and ptr(seed, "backward: seed") or nil, named and named.keep_graph or false)
  binding.heed()
  check(rc)
end
jit.off(methods.backward) -- it may call back into Lua (custom.lua)

--- The gradient that has been added up for it, or nil.
function methods.grad(t)
  return derived(C.pn_grad, t)
end

--- Replaces the gradient; nil drops it. Returns the tensor.
function methods.set_grad(t, grad)
  check(C.pn_set_grad(ptr(t), grad and ptr(grad, "set_grad") or nil))
  return t
end

--- The same memory outside the graph.
function methods.detach(t)
  return derived(C.pn_detach, t)
end

local function restore(before, ok, ...)
  C.pn_set_recording(before)
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Runs f without recording for backward; returns its results.
function tensor.no_grad(f, ...)
  local scope = require "penumbra.scope"
  local before = C.pn_set_recording(false)
  return restore(before, scope.protect(f, ...))
end

--- Is history being recorded?
function tensor.recording()
  return C.pn_recording()
end

--- Bytes: {live, peak, cached, held, peak_held, limit, tensors}. live: tensors and the scratch of kernels; cached: what waits for
-- reuse; held: both; tensors: how many there are.
-- @tparam ?string device "cpu" by default
function tensor.memory(device)
  local stats = ffi.new("pn_memory")
  check(C.pn_memory_stats(binding.device(device), stats))
  return {
    live = tonumber(stats.live_bytes), peak = tonumber(stats.peak_bytes), cached = tonumber(stats.cached_bytes),
    held = tonumber(stats.held_bytes), peak_held = tonumber(stats.peak_held_bytes), limit = tonumber(stats.limit_bytes),
    tensors = tonumber(stats.n_live),
  }
end

--- What the system says of the whole process: {peak_resident (bytes), page_faults (met without a disk)}.
function tensor.process()
  local stats = ffi.new("pn_process")
  check(C.pn_process_stats(stats))
  return { peak_resident = tonumber(stats.peak_resident_bytes), page_faults = tonumber(stats.page_faults) }
end

require "penumbra.metatype"(tensor)

return tensor
