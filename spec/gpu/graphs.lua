--- cuDNN's descriptors from Lua, by either library: graphs(C) has what makes them with what is given, and leaves out or twists what
-- a spec says. Every maker returns the descriptor and the first status that was not success (else CUDNN_STATUS_SUCCESS).

local ffi = require "ffi"

local elements = { HANDLE = "void *", DATA_TYPE = "cudnnDataType_t", BOOLEAN = "bool", INT64 = "int64_t", FLOAT = "float",
  DOUBLE = "double", VOID_PTR = "void *", CONVOLUTION_MODE = "cudnnConvolutionMode_t", HEUR_MODE = "cudnnBackendHeurMode_t",
  POINTWISE_MODE = "cudnnPointwiseMode_t", BACKEND_DESCRIPTOR = "void *", KNOB_TYPE = "cudnnBackendKnobType_t",
  NUMERICAL_NOTE = "cudnnBackendNumericalNote_t", BEHAVIOR_NOTE = "cudnnBackendBehaviorNote_t", CHAR = "char" }

local function enum(value) return type(value) == "string" and "CUDNN_" .. value or value end

local function channels_last(sizes, channels)
  local strides, reach = {}, channels or sizes[2]
  strides[2] = 1
  for i = #sizes, 3, -1 do
    strides[i] = reach
    reach = reach * sizes[i]
  end
  strides[1] = reach
  return strides
end

return function(C)
  local g = { channels_last = channels_last }

  --- The name of a status, without its beginning.
  function g.name(status) return (ffi.string(C.cudnnGetErrorString(status)):gsub("^CUDNN_STATUS_", "")) end

  --- The reason for the last failure.
  function g.reason()
    local text = ffi.new "char[1024]"
    C.cudnnGetLastErrorString(text, 1024)
    return ffi.string(text)
  end

  function g.create(kind)
    local d = ffi.new "cudnnBackendDescriptor_t[1]"
    local status = C.cudnnBackendCreateDescriptor("CUDNN_BACKEND_" .. kind .. "_DESCRIPTOR", d)
    return d[0], g.name(status)
  end

  function g.set(d, name, kind, ...)
    local n = select("#", ...)
    local values = ffi.new(elements[kind] .. "[?]", math.max(n, 1))
    for i = 1, n do
      values[i - 1] = enum((select(i, ...)))
    end
    return g.name(C.cudnnBackendSetAttribute(d, "CUDNN_ATTR_" .. name, "CUDNN_TYPE_" .. kind, n, values))
  end

  function g.get(d, name, kind, most)
    local values, n = ffi.new(elements[kind] .. "[?]", math.max(most, 1)), ffi.new "int64_t[1]"
    local status = C.cudnnBackendGetAttribute(d, "CUDNN_ATTR_" .. name, "CUDNN_TYPE_" .. kind, most, n, values)
    return g.name(status), tonumber(n[0]), values
  end

  function g.finish(d) return g.name(C.cudnnBackendFinalize(d)) end

  -- Makes a descriptor from rows {attribute, type, value...}; a row of false is left out.
  function g.make(kind, rows)
    local d, status = g.create(kind)
    for _, row in ipairs(rows) do
      if row and status == "SUCCESS" then
        status = g.set(d, unpack(row))
      end
    end
    if status == "SUCCESS" then
      status = g.finish(d)
    end
    return d, status
  end

  -- A row, or none where `o.without` names it.
  local function row(o, key, ...) return o.without ~= key and { ... } end

  --- o: sizes, strides or channels (of what it lies in), id, type, alignment, virtual, without.
  function g.tensor(o)
    local sizes = o.sizes or { 1, 8, 4, 6, 6 }
    return g.make("TENSOR", {
      row(o, "type", "TENSOR_DATA_TYPE", "DATA_TYPE", o.type or "DATA_FLOAT"),
      row(o, "sizes", "TENSOR_DIMENSIONS", "INT64", unpack(sizes)),
      row(o, "strides", "TENSOR_STRIDES", "INT64", unpack(o.strides or channels_last(sizes, o.channels))),
      row(o, "id", "TENSOR_UNIQUE_ID", "INT64", o.id or 1),
      row(o, "alignment", "TENSOR_BYTE_ALIGNMENT", "INT64", o.alignment or 4),
      o.virtual ~= nil and { "TENSOR_IS_VIRTUAL", "BOOLEAN", o.virtual },
    })
  end

  --- o: dims, low, high, stride, dilation (a number or a list), sums (a type), mode, without.
  function g.convolution(o)
    local function list(value)
      if type(value) == "table" then return unpack(value) end
      local all = {}
      for i = 1, o.dims or 3 do all[i] = value end
      return unpack(all)
    end
    return g.make("CONVOLUTION", {
      row(o, "dims", "CONVOLUTION_SPATIAL_DIMS", "INT64", o.dims or 3),
      row(o, "sums", "CONVOLUTION_COMP_TYPE", "DATA_TYPE", o.sums or "DATA_FLOAT"),
      row(o, "mode", "CONVOLUTION_CONV_MODE", "CONVOLUTION_MODE", o.mode or "CROSS_CORRELATION"),
      row(o, "low", "CONVOLUTION_PRE_PADDINGS", "INT64", list(o.low or 1)),
      row(o, "high", "CONVOLUTION_POST_PADDINGS", "INT64", list(o.high or 1)),
      row(o, "stride", "CONVOLUTION_FILTER_STRIDES", "INT64", list(o.stride or 1)),
      row(o, "dilation", "CONVOLUTION_DILATIONS", "INT64", list(o.dilation or 1)),
    })
  end

  local operations = { forward = { "FORWARD", "FORWARD", "W", "X", "Y" }, data = { "BACKWARD_DATA", "BWD_DATA", "W", "DX", "DY" },
    filter = { "BACKWARD_FILTER", "BWD_FILTER", "DW", "X", "DY" } }

  --- kind: forward, data or filter. o: x, w, y (options of tensors, or descriptors), c (options of the convolution), alpha, beta,
  -- factors (their type), without. Returns the operation, its status, and the tensors.
  function g.operation(kind, o)
    o = o or {}
    local words = operations[kind]
    local function part(value, maker)
      if type(value) ~= "table" then return value end
      local d, status = maker(value)
      assert(status == "SUCCESS", status)
      return d
    end
    local function of_tensor(name, sizes, id)
      local value = o[name] or {}
      if type(value) == "table" then
        value.sizes, value.id = value.sizes or sizes, value.id or id
      end
      return part(value, g.tensor)
    end
    local x = of_tensor("x", { 1, 8, 4, 6, 6 }, 1)
    local w = of_tensor("w", { 16, 8, 3, 3, 3 }, 2)
    local y = of_tensor("y", { 1, 16, 4, 6, 6 }, 3)
    local prefix = "OPERATION_CONVOLUTION_" .. words[2] .. "_"
    local d, status = g.make("OPERATION_CONVOLUTION_" .. words[1], {
      row(o, "alpha", prefix .. "ALPHA", o.factors or "FLOAT", o.alpha or 1),
      row(o, "beta", prefix .. "BETA", o.factors or "FLOAT", o.beta or 0),
      row(o, "c", prefix .. "CONV_DESC", "BACKEND_DESCRIPTOR", part(o.c or {}, g.convolution)),
      row(o, "w", prefix .. words[3], "BACKEND_DESCRIPTOR", w),
      row(o, "x", prefix .. words[4], "BACKEND_DESCRIPTOR", x),
      row(o, "y", prefix .. words[5], "BACKEND_DESCRIPTOR", y),
    })
    return d, status, x, w, y
  end

  --- o: mode, precision, x, b, y (options of tensors, or descriptors), without.
  function g.pointwise(o)
    local p, status = g.make("POINTWISE", {
      row(o, "mode", "POINTWISE_MODE", "POINTWISE_MODE", o.mode or "POINTWISE_ADD"),
      row(o, "precision", "POINTWISE_MATH_PREC", "DATA_TYPE", o.precision or "DATA_FLOAT"),
    })
    if status ~= "SUCCESS" then return p, status end
    local function part(value)
      if type(value) ~= "table" then return value end
      return (g.tensor(value))
    end
    return g.make("OPERATION_POINTWISE", {
      { "OPERATION_POINTWISE_PW_DESCRIPTOR", "BACKEND_DESCRIPTOR", p },
      o.x and { "OPERATION_POINTWISE_XDESC", "BACKEND_DESCRIPTOR", part(o.x) } or false,
      o.b and { "OPERATION_POINTWISE_BDESC", "BACKEND_DESCRIPTOR", part(o.b) } or false,
      o.y and { "OPERATION_POINTWISE_YDESC", "BACKEND_DESCRIPTOR", part(o.y) } or false,
    })
  end

  function g.graph(...) return g.make("OPERATIONGRAPH", { { "OPERATIONGRAPH_OPS", "BACKEND_DESCRIPTOR", ... } }) end

  --- The configurations that heuristics offer, and the bound that was told first.
  function g.offers(graph, mode)
    local d, status = g.make("ENGINEHEUR", {
      { "ENGINEHEUR_OPERATION_GRAPH", "BACKEND_DESCRIPTOR", graph },
      { "ENGINEHEUR_MODE", "HEUR_MODE", "HEUR_MODE_" .. (mode or "A") },
    })
    assert(status == "SUCCESS", status)
    local _, bound = g.get(d, "ENGINEHEUR_RESULTS", "BACKEND_DESCRIPTOR", 0)
    local room, n = ffi.new("cudnnBackendDescriptor_t[?]", bound), ffi.new "int64_t[1]"
    for i = 0, bound - 1 do room[i] = g.create "ENGINECFG" end
    assert(C.cudnnBackendGetAttribute(d, "CUDNN_ATTR_ENGINEHEUR_RESULTS", "CUDNN_TYPE_BACKEND_DESCRIPTOR", bound, n, room) == 0)
    local list = {}
    for i = 1, tonumber(n[0]) do list[i] = room[i - 1] end
    return list, bound
  end

  --- What a configuration is: {index =, notes =, knob =}.
  function g.engine_of(config)
    local e, n = ffi.new("cudnnBackendDescriptor_t[1]", { (g.create "ENGINE") }), ffi.new "int64_t[1]"
    assert(C.cudnnBackendGetAttribute(config, "CUDNN_ATTR_ENGINECFG_ENGINE", "CUDNN_TYPE_BACKEND_DESCRIPTOR", 1, n, e) == 0)
    local _, _, index = g.get(e[0], "ENGINE_GLOBAL_INDEX", "INT64", 1)
    local _, n_notes, notes = g.get(e[0], "ENGINE_NUMERICAL_NOTE", "NUMERICAL_NOTE", 16)
    local what = { index = tonumber(index[0]), notes = {}, descriptor = e[0] }
    for i = 1, n_notes do what.notes[i] = tonumber(notes[i - 1]) end
    return what
  end

  --- A configuration of an engine by its number, with knobs {type = value}.
  function g.config(graph, index, knobs)
    local e, status = g.make("ENGINE", {
      { "ENGINE_OPERATION_GRAPH", "BACKEND_DESCRIPTOR", graph }, { "ENGINE_GLOBAL_INDEX", "INT64", index },
    })
    if status ~= "SUCCESS" then return e, status end
    local rows = { { "ENGINECFG_ENGINE", "BACKEND_DESCRIPTOR", e } }
    for knob, value in pairs(knobs or {}) do
      local k = g.make("KNOB_CHOICE", {
        { "KNOB_CHOICE_KNOB_TYPE", "KNOB_TYPE", knob }, { "KNOB_CHOICE_KNOB_VALUE", "INT64", value },
      })
      rows[#rows + 1] = { "ENGINECFG_KNOB_CHOICES", "BACKEND_DESCRIPTOR", k }
    end
    return g.make("ENGINECFG", rows)
  end

  --- A plan, its status and the bytes of workspace it asks for.
  function g.plan(config)
    local p, status = g.make("EXECUTION_PLAN", { { "EXECUTION_PLAN_ENGINE_CONFIG", "BACKEND_DESCRIPTOR", config } })
    if status ~= "SUCCESS" then return p, status end
    local _, _, bytes = g.get(p, "EXECUTION_PLAN_WORKSPACE_SIZE", "INT64", 1)
    return p, status, tonumber(bytes[0])
  end

  --- where: {[id] = address}.
  function g.pack(where, workspace)
    local ids, at = { "VARIANT_PACK_UNIQUE_IDS", "INT64" }, { "VARIANT_PACK_DATA_POINTERS", "VOID_PTR" }
    for id, p in pairs(where) do
      ids[#ids + 1], at[#at + 1] = id, p
    end
    return g.make("VARIANT_PACK", { ids, at, workspace and { "VARIANT_PACK_WORKSPACE", "VOID_PTR", workspace } or false })
  end

  return g
end
