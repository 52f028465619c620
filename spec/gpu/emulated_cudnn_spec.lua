--- The emulated cuDNN: it refuses what the true one refuses (which is asked too where it is installed: descriptors need no device),
-- has engines of every sort, and computes by the definition.

local device = require "spec.gpu.device"
local emulation = require "spec.gpu.emulation"
local pn = require "penumbra"
local helper = require "spec.helper"
local ffi = require "ffi"

if not emulation then
  describe("the emulated cuDNN", function()
    it("is not what runs here", function() pending(device.library) end)
  end)
  return
end

local C = emulation.C
local g = require "spec.gpu.graphs"(C)

local function true_library()
  for _, path in ipairs { "libcudnn.so.9", "/usr/local/cuda/lib64/libcudnn.so.9" } do
    local ok, library = pcall(ffi.load, path)
    if ok then return library end
  end
end

-- Mistakes, each a function of the makers that returns the status at which it was stopped.
local mistakes, correct = {}, {}
local function mistake(what, expected, f) mistakes[#mistakes + 1] = { what = what, expected = expected, f = f } end
local function fine(what, f) correct[#correct + 1] = { what = what, f = f } end
local function second(f)
  return function(m) return (select(2, f(m))) end
end

fine("a tensor", second(function(m) return m.tensor {} end))
fine("a tensor with gaps", second(function(m) return m.tensor { channels = 256 } end))
fine("a tensor of 8 dimensions", second(function(m) return m.tensor { sizes = { 4, 4, 1, 1, 1, 1, 1, 2 } } end))
for _, part in ipairs { "sizes", "strides", "alignment" } do
  mistake("a tensor without " .. part, "BAD_PARAM", second(function(m) return m.tensor { without = part } end))
end
mistake("a tensor with a negative size", "BAD_PARAM", second(function(m) return m.tensor { sizes = { 1, 8, -1, 6, 6 } } end))
mistake("a tensor with a negative stride", "BAD_PARAM", second(function(m)
  return m.tensor { strides = { 1, -1, 1, 1, 1 } }
end))
mistake("a tensor with few strides", "BAD_PARAM", second(function(m) return m.tensor { strides = { 8, 1 } } end))
mistake("a tensor aligned to 3 bytes", "BAD_PARAM", second(function(m) return m.tensor { alignment = 3 } end))
mistake("a tensor aligned to less than an element", "BAD_PARAM", second(function(m) return m.tensor { alignment = 2 } end))
mistake("a tensor of 9 dimensions", "BAD_PARAM", second(function(m)
  return m.tensor { sizes = { 4, 4, 1, 1, 1, 1, 1, 1, 1 } }
end))
mistake("a change of what is final", "BAD_PARAM", function(m)
  return m.set(m.tensor {}, "TENSOR_UNIQUE_ID", "INT64", 3)
end)
mistake("finalizing twice", "BAD_PARAM", function(m) return m.finish((m.tensor {})) end)
mistake("an attribute of another type", "BAD_PARAM_ATTRIBUTE_TYPE", function(m)
  return m.set(m.create "TENSOR", "TENSOR_DIMENSIONS", "FLOAT", 3)
end)
mistake("two values for one", "BAD_PARAM", function(m) return m.set(m.create "TENSOR", "TENSOR_UNIQUE_ID", "INT64", 3, 4) end)
mistake("no value", "BAD_PARAM", function(m) return m.set(m.create "TENSOR", "TENSOR_UNIQUE_ID", "INT64") end)
mistake("an attribute of another descriptor", "BAD_PARAM", function(m)
  return m.set(m.create "TENSOR", "CONVOLUTION_SPATIAL_DIMS", "INT64", 3)
end)
mistake("nothing as a descriptor", "BAD_PARAM_NULL_POINTER", function(m) return m.set(nil, "TENSOR_UNIQUE_ID", "INT64", 3) end)
mistake("nothing as a tensor", "BAD_PARAM", function(m)
  return m.set(m.create "OPERATION_CONVOLUTION_FORWARD", "OPERATION_CONVOLUTION_FORWARD_X", "BACKEND_DESCRIPTOR", nil)
end)
mistake("reading what is not final", "NOT_INITIALIZED", function(m)
  return (m.get(m.create "TENSOR", "TENSOR_UNIQUE_ID", "INT64", 1))
end)
mistake("reading as another type", "BAD_PARAM_ATTRIBUTE_TYPE", function(m)
  return (m.get(m.tensor {}, "TENSOR_DIMENSIONS", "FLOAT", 8))
end)

fine("a convolution", second(function(m) return m.convolution {} end))
fine("a convolution with other padding on each side", second(function(m) return m.convolution { low = { 0, 1, 2 }, high = 3 } end))
for _, part in ipairs { "dims", "stride", "dilation" } do
  mistake("a convolution without " .. part, "BAD_PARAM", second(function(m) return m.convolution { without = part } end))
end
mistake("a convolution with negative padding", "BAD_PARAM", second(function(m) return m.convolution { low = -1 } end))
mistake("a convolution that does not move", "BAD_PARAM", second(function(m) return m.convolution { stride = 0 } end))
mistake("a convolution without dilation", "BAD_PARAM", second(function(m) return m.convolution { dilation = 0 } end))
mistake("a convolution of few numbers", "BAD_PARAM", second(function(m) return m.convolution { stride = { 1, 1 } } end))

for _, kind in ipairs { "forward", "data", "filter" } do
  local function with(o) return second(function(m) return m.operation(kind, o()) end) end
  fine(kind, with(function() return {} end))
  fine(kind .. " with factors of double", with(function() return { factors = "DOUBLE" } end))
  fine(kind .. " in groups", with(function() return { w = { sizes = { 16, 4, 3, 3, 3 } } } end))
  fine(kind .. " with stride and one-sided padding", with(function()
    return { c = { stride = 2, low = 0 }, y = { sizes = { 1, 16, 2, 3, 3 } } }
  end))
  for _, part in ipairs { "c", "w", "x", "y" } do
    mistake(kind .. " without " .. part, "BAD_PARAM", with(function() return { without = part } end))
  end
  for what, o in pairs {
    ["of a size that does not come out"] = function() return { y = { sizes = { 1, 16, 4, 6, 5 } } } end,
    ["with a channel too few"] = function() return { y = { sizes = { 1, 15, 4, 6, 6 } } } end,
    ["of another batch"] = function() return { y = { sizes = { 2, 16, 4, 6, 6 } } } end,
    ["with filters of 3 channels for 8"] = function() return { w = { sizes = { 16, 3, 3, 3, 3 } } } end,
    ["with filters of 16 channels for 8"] = function() return { w = { sizes = { 16, 16, 3, 3, 3 } } } end,
    ["with 15 filters in 2 groups"] = function()
      return { w = { sizes = { 15, 4, 3, 3, 3 } }, y = { sizes = { 1, 15, 4, 6, 6 } } }
    end,
    ["on a tensor of 4 dimensions"] = function() return { x = { sizes = { 1, 8, 6, 6 } } } end,
    ["with a kernel that is too long"] = function() return { w = { sizes = { 16, 8, 9, 3, 3 } } } end,
  } do
    mistake(kind .. " " .. what, "BAD_PARAM", with(o))
  end
end

local wide, narrow = { 1, 16, 4, 6, 6 }, { 1, 16, 1, 1, 1 }
fine("an addition", second(function(m)
  return m.pointwise { x = { id = 1, sizes = wide }, b = { id = 2, sizes = narrow }, y = { id = 3, sizes = wide } }
end))
fine("a relu", second(function(m)
  return m.pointwise { mode = "POINTWISE_RELU_FWD", x = { id = 1, sizes = wide }, y = { id = 3, sizes = wide } }
end))
mistake("an addition without what is added", "BAD_PARAM", second(function(m)
  return m.pointwise { x = { id = 1, sizes = wide }, y = { id = 3, sizes = wide } }
end))
mistake("an addition without a result", "BAD_PARAM", second(function(m)
  return m.pointwise { x = { id = 1, sizes = wide }, b = { id = 2, sizes = narrow } }
end))
mistake("an addition of 4 dimensions to 5", "BAD_PARAM", second(function(m)
  return m.pointwise { x = { id = 1, sizes = wide }, b = { id = 2, sizes = { 1, 16, 1, 1 } }, y = { id = 3, sizes = wide } }
end))

-- A convolution and an addition behind it; the tensor between them has id 3.
local function fused(m, between, b, y)
  between = m.tensor(between or { id = 3, sizes = wide, virtual = true })
  local op = m.operation("forward", { y = between })
  b, y = b or { id = 4, sizes = narrow }, y or { id = 5, sizes = wide }
  local added = m.pointwise { x = between, b = b, y = y }
  return op, added
end
fine("a graph of a convolution", second(function(m) return m.graph((m.operation "forward")) end))
fine("a graph with an addition", second(function(m) return m.graph(fused(m)) end))
fine("a graph in any order", second(function(m)
  local a, b = fused(m)
  return m.graph(b, a)
end))
mistake("a graph of nothing", "BAD_PARAM", second(function(m) return m.graph() end))
mistake("a graph with an operation twice", "BAD_PARAM", second(function(m)
  local op = m.operation "forward"
  return m.graph(op, op)
end))
mistake("a graph with two tensors of one id", "BAD_PARAM", second(function(m)
  return m.graph(fused(m, nil, { id = 3, sizes = narrow, virtual = true }))
end))
mistake("a graph that writes a tensor twice", "BAD_PARAM", second(function(m)
  local between = m.tensor { id = 3, sizes = wide }
  local op = m.operation("forward", { y = between })
  return m.graph(op, (m.pointwise { x = { id = 6, sizes = wide }, b = { id = 4, sizes = narrow }, y = between }))
end))

-- What the true library lets pass, to fail later or to mean nothing.
local stricter = {
  ["a tensor without an id"] = function(m) return select(2, m.tensor { without = "id" }) end,
  ["a tensor without a type"] = function(m) return select(2, m.tensor { without = "type" }) end,
  ["a tensor of no elements"] = function(m) return select(2, m.tensor { sizes = { 1, 8, 0, 6, 6 } }) end,
  ["a convolution without padding"] = function(m) return select(2, m.convolution { without = "low" }) end,
  ["an operation on a descriptor that is not final"] = function(m)
    local op = m.create "OPERATION_CONVOLUTION_FORWARD"
    return m.set(op, "OPERATION_CONVOLUTION_FORWARD_X", "BACKEND_DESCRIPTOR", (m.create "TENSOR"))
  end,
  ["a convolution as a tensor"] = function(m)
    local op = m.create "OPERATION_CONVOLUTION_FORWARD"
    return m.set(op, "OPERATION_CONVOLUTION_FORWARD_X", "BACKEND_DESCRIPTOR", (m.convolution {}))
  end,
  ["alpha and beta of two types"] = function(m)
    local d = m.create "OPERATION_CONVOLUTION_FORWARD"
    m.set(d, "OPERATION_CONVOLUTION_FORWARD_ALPHA", "FLOAT", 1)
    m.set(d, "OPERATION_CONVOLUTION_FORWARD_BETA", "DOUBLE", 0)
    for name, part in pairs {
      CONV_DESC = m.convolution {},
      X = m.tensor { id = 1 },
      W = m.tensor { id = 2, sizes = { 16, 8, 3, 3, 3 } },
      Y = m.tensor { id = 3, sizes = wide },
    } do
      m.set(d, "OPERATION_CONVOLUTION_FORWARD_" .. name, "BACKEND_DESCRIPTOR", part)
    end
    return m.finish(d)
  end,
  ["a result whose elements share places"] = function(m)
    return select(2, m.operation("forward", { y = { strides = { 16, 1, 16, 16, 16 } } }))
  end,
  ["a pointwise mode that it has not"] = function(m) return select(2, m.pointwise { mode = 7 }) end,
  ["a relu of two inputs"] = function(m)
    return select(2, m.pointwise { mode = "POINTWISE_RELU_FWD", x = { id = 1 }, b = { id = 2 }, y = { id = 3 } })
  end,
  ["an addition of other sizes"] = function(m)
    local narrower = { id = 2, sizes = { 1, 15, 1, 1, 1 } }
    return select(2, m.pointwise { x = { id = 1, sizes = wide }, b = narrower, y = { id = 3, sizes = wide } })
  end,
  ["a virtual tensor that nobody reads"] = function(m)
    return select(2, m.graph((m.operation("forward", { y = { virtual = true } }))))
  end,
  ["a virtual tensor that nobody writes"] = function(m)
    return select(2, m.graph((m.pointwise { x = { id = 6, sizes = wide, virtual = true }, b = { id = 4, sizes = narrow },
      y = { id = 5, sizes = wide } })))
  end,
  ["beta of a virtual tensor"] = function(m)
    local between = m.tensor { id = 3, sizes = wide, virtual = true }
    return select(2, m.graph(m.operation("forward", { y = between, beta = 1 }),
      (m.pointwise { x = between, b = { id = 4, sizes = narrow }, y = { id = 5, sizes = wide } })))
  end,
  ["operations in a circle"] = function(m)
    local a, b = m.tensor { id = 6, sizes = wide, virtual = true }, m.tensor { id = 7, sizes = wide, virtual = true }
    return select(2, m.graph(m.pointwise { mode = "POINTWISE_RELU_FWD", x = a, y = b },
      (m.pointwise { mode = "POINTWISE_RELU_FWD", x = b, y = a })))
  end,
  ["a pack with a tensor twice"] = function(m)
    return select(2, m.make("VARIANT_PACK", { { "VARIANT_PACK_UNIQUE_IDS", "INT64", 1, 1 },
      { "VARIANT_PACK_DATA_POINTERS", "VOID_PTR", nil, nil } }))
  end,
  ["a device described in no way"] = function(m) return select(2, m.make("DEVICEPROP", {})) end,
  ["a device described by what is no JSON"] = function(m)
    return select(2, m.make("DEVICEPROP", { { "DEVICEPROP_JSON_REPRESENTATION", "CHAR", ("x"):byte() } }))
  end,
}

describe("the emulated cuDNN", function()
  it("takes what is right", function()
    for _, case in ipairs(correct) do
      assert.equal("SUCCESS", case.f(g), case.what .. ": " .. g.reason())
    end
  end)

  it("refuses what the true one refuses, with a reason", function()
    for _, case in ipairs(mistakes) do
      g.reason()
      assert.equal(case.expected, case.f(g), case.what)
      assert.is_true(#g.reason() > 0, case.what)
    end
  end)

  it("refuses more", function()
    for what, f in pairs(stricter) do
      g.reason()
      assert.is_not.equal("SUCCESS", f(g), what)
      assert.is_true(#g.reason() > 0, what)
    end
  end)

  it("is no laxer than the true one", function()
    local library = true_library()
    if not library then pending "no cuDNN is installed" return end
    local truth = require "spec.gpu.graphs"(library)
    for _, case in ipairs(correct) do
      assert.equal("SUCCESS", case.f(truth), case.what)
    end
    for _, case in ipairs(mistakes) do
      assert.equal(case.expected, case.f(truth), case.what)
    end
  end)

  it("forgets descriptors that are destroyed", function()
    local before = emulation.alive().cudnnBackendDescriptor
    local t = g.tensor {}
    assert.equal(before + 1, emulation.alive().cudnnBackendDescriptor)
    assert.equal("SUCCESS", g.name(C.cudnnBackendDestroyDescriptor(t)))
    assert.equal(before, emulation.alive().cudnnBackendDescriptor)
    assert.equal("BAD_PARAM", g.name(C.cudnnBackendDestroyDescriptor(t)))
    assert.equal("BAD_PARAM_NULL_POINTER", g.name(C.cudnnBackendDestroyDescriptor(nil)))
    assert.equal("BAD_PARAM_NULL_POINTER", g.set(t, "TENSOR_UNIQUE_ID", "INT64", 3))
  end)
end)

describe("its engines", function()
  local function indices(list)
    local found = {}
    for i, config in ipairs(list) do found[i] = g.engine_of(config).index end
    return found
  end

  it("are offered by what the graph is, in an order by mode, fewer than was said", function()
    local graph = g.graph((g.operation "forward"))
    local list, bound = g.offers(graph)
    assert.same({ 62, 40, 62, 62, 28 }, indices(list))
    assert.is_true(bound > #list)
    assert.same({ 28, 62, 62, 40, 62 }, indices((g.offers(graph, "B"))))
    assert.same({ 28, 0 }, indices((g.offers(graph, "FALLBACK"))))
    assert.same({ 62, 40, 62, 20, 62, 28 }, indices((g.offers((g.graph((g.operation "data")))))))
  end)

  it("differ for 16 bits, f64, mixed types, groups and what is fused", function()
    local function offered(kind, type, out_type, o)
      o = o or {}
      local to = ({ forward = "y", data = "x", filter = "w" })[kind]
      for _, name in ipairs { "x", "w", "y" } do
        o[name] = o[name] or {}
        o[name].type = name == to and out_type or type
        o[name].alignment = 8
      end
      o.c = { sums = type == "DATA_DOUBLE" and type or nil }
      return indices((g.offers((g.graph((g.operation(kind, o)))))))
    end
    assert.same({ 62, 40, 62, 62 }, offered("forward", "DATA_BFLOAT16", "DATA_BFLOAT16"))
    assert.same({ 7, 7 }, offered("forward", "DATA_HALF", "DATA_FLOAT"))
    assert.same({}, offered("filter", "DATA_BFLOAT16", "DATA_FLOAT"))
    assert.same({ 40, 20 }, offered("filter", "DATA_HALF", "DATA_HALF", { w = { sizes = { 16, 4, 3, 3, 3 } } }))
    assert.same({ 28 }, offered("forward", "DATA_DOUBLE", "DATA_DOUBLE"))
    assert.same({ 20 }, offered("filter", "DATA_DOUBLE", "DATA_DOUBLE"))
    assert.same({ 62, 62, 62, 28 }, indices((g.offers((g.graph(fused(g)))))))
    assert.same({}, indices((g.offers((g.graph((g.operation("forward", { w = { type = "DATA_HALF" } }))))))))
  end)

  it("have notes, knobs and workspaces, and one that cannot be made", function()
    local graph = g.graph((g.operation "data"))
    local list = g.offers(graph)
    local _, broken = g.plan(list[1])
    assert.equal("NOT_SUPPORTED", broken)
    assert.matches("engine 62 cannot be made so", g.reason())
    assert.equal(16 * 2 ^ 30, select(3, g.plan(list[2])))
    assert.same({ 0 }, g.engine_of(list[3]).notes)
    assert.same({ 2, 4 }, g.engine_of(list[4]).notes)
    assert.is_true(select(3, g.plan(list[3])) > 0)
    local k, n = ffi.new("cudnnBackendDescriptor_t[1]", { (g.create "KNOB_INFO") }), ffi.new "int64_t[1]"
    assert.equal(0, tonumber(C.cudnnBackendGetAttribute(g.engine_of(list[3]).descriptor, "CUDNN_ATTR_ENGINE_KNOB_INFO",
      "CUDNN_TYPE_BACKEND_DESCRIPTOR", 1, n, k)))
    assert.equal(1, tonumber(n[0]))
    local _, _, most = g.get(k[0], "KNOB_INFO_MAXIMUM_VALUE", "INT64", 1)
    assert.equal(2, tonumber(most[0]))
  end)

  it("can be asked for by number, with knobs", function()
    local graph = g.graph((g.operation "forward"))
    local config, status = g.config(graph, 62, { KNOB_TYPE_KERNEL_CFG = 1 })
    assert.equal("SUCCESS", status)
    assert.equal("SUCCESS", select(2, g.plan(config)))
    assert.equal("NOT_SUPPORTED", select(2, g.plan((g.config(graph, 62, { KNOB_TYPE_KERNEL_CFG = 2 })))))
    assert.equal("NOT_SUPPORTED", select(2, g.config(graph, 62, { KNOB_TYPE_KERNEL_CFG = 3 })))
    assert.equal("NOT_SUPPORTED", select(2, g.config(graph, 28, { KNOB_TYPE_KERNEL_CFG = 0 })))
    assert.equal("NOT_SUPPORTED", select(2, g.config(graph, 20)))
    assert.equal("NOT_SUPPORTED", select(2, g.config(graph, 3)))
    emulation.with("ENGINES", 0, -1, function()
      assert.same({}, (g.offers(graph)))
      assert.equal("NOT_SUPPORTED", select(2, g.config(graph, 28)))
    end)
  end)
end)

describe("its plans", function()
  local handle, s
  setup(function()
    assert.equal(0, tonumber(C.cudaSetDevice(0)))
    local h, made = ffi.new "cudnnHandle_t[1]", ffi.new "cudaStream_t[1]"
    assert.equal("SUCCESS", g.name(C.cudnnCreate(h)))
    assert.equal(0, tonumber(C.cudaStreamCreateWithFlags(made, 1)))
    handle, s = h[0], made[0]
    assert.equal("SUCCESS", g.name(C.cudnnSetStream(handle, s)))
  end)
  teardown(function()
    assert.equal("SUCCESS", g.name(C.cudnnDestroy(handle)))
    assert.equal("BAD_PARAM", g.name(C.cudnnDestroy(handle)))
    assert.equal(0, tonumber(C.cudaStreamDestroy(s)))
  end)

  local function address(t) return pn.C.pn_tensor_data(t.p) end
  local function random(shape, name, dtype)
    local spec = { unpack(shape) }
    spec.layout, spec.dtype = "channels_last", dtype or "f32"
    return pn.empty(spec):copy(helper.random(shape, name)):to "cuda"
  end

  -- x (1,8,4,6,6) by w (16,8,3,3,3), whose memory is O,T,H,W,I.
  local function inputs(dtype)
    return random({ 1, 8, 4, 6, 6 }, "x", dtype), random({ 16, 8, 3, 3, 3 }, "w", dtype), random({ 1, 16, 4, 6, 6 }, "y", dtype)
  end

  local function execute(plan, where, workspace)
    local pack, status = g.pack(where, workspace)
    assert.equal("SUCCESS", status)
    for _, t in pairs(where) do assert(t) end
    return g.name(C.cudnnBackendExecute(handle, plan, pack))
  end

  -- Runs an engine on a graph; where: tensors by id.
  local function run(graph, engine, where)
    local plan, status, bytes = g.plan((g.config(graph, engine)))
    assert.equal("SUCCESS", status)
    local room = bytes > 0 and pn.empty { bytes, dtype = "u8", device = "cuda" }
    local at = {}
    for id, t in pairs(where) do at[id] = address(t) end
    where[1]:get(1, 1, 1, 1, 1) -- what was uploaded is there
    assert.equal("SUCCESS", execute(plan, at, room and address(room)))
    assert.equal(0, tonumber(C.cudaStreamSynchronize(s)))
    return room
  end

  if pn.real == "f32" then
    local function expected(x, w) return pn.conv3d(x:to "cpu", w:to "cpu", nil, { pad = 1 }) end

    it("compute a convolution and its gradients as the CPU does", function()
      local x, w, y = inputs()
      run(g.graph((g.operation "forward")), 28, { x, w, y })
      helper.assert_close(y:to "cpu", expected(x, w), 1e-6)
      local hx, hw = x:to("cpu"):requires_grad(true), w:to("cpu"):requires_grad(true)
      local dy = random({ 1, 16, 4, 6, 6 }, "dy")
      pn.conv3d(hx, hw, nil, { pad = 1 }):backward(dy:to "cpu")
      local dx, dw = random({ 1, 8, 4, 6, 6 }, "dx"), random({ 16, 8, 3, 3, 3 }, "dw")
      run(g.graph((g.operation "data")), 28, { dx, w, dy })
      helper.assert_close(dx:to "cpu", hx:grad(), 1e-6)
      run(g.graph((g.operation "filter")), 28, { x, dw, dy })
      helper.assert_close(dw:to "cpu", hw:grad(), 1e-6)
    end)

    it("add to what is there, by alpha and beta", function()
      local x, w, y = inputs()
      local old = y:to "cpu"
      run(g.graph((g.operation("forward", { alpha = 2, beta = 0.5 }))), 28, { x, w, y })
      helper.assert_close(y:to "cpu", expected(x, w) * 2 + old * 0.5, 1e-6)
    end)

    it("add a bias and apply relu behind it", function()
      local x, w = inputs()
      local b, z = random({ 1, 16, 1, 1, 1 }, "b"), random({ 1, 16, 4, 6, 6 }, "z")
      local between, sum = g.tensor { id = 3, sizes = wide, virtual = true }, g.tensor { id = 6, sizes = wide, virtual = true }
      run(g.graph(g.operation("forward", { y = between }), g.pointwise { x = between, b = { id = 4, sizes = narrow }, y = sum },
        (g.pointwise { mode = "POINTWISE_RELU_FWD", x = sum, y = { id = 5, sizes = wide } })), 28, { x, w, nil, b, z })
      helper.assert_close(z:to "cpu", pn.relu(expected(x, w) + b:to "cpu"), 1e-6)
    end)

    it("round f32 to TF32 on tensor cores, take workspace and leave it in disorder", function()
      local x, w, y = inputs()
      local room = run(g.graph((g.operation "forward")), 62, { x, w, y })
      local e = helper.relative_error(y:to "cpu", expected(x, w))
      assert.is_true(e > 1e-5 and e < 1e-3, e)
      assert.equal(0xa5, room:get(1))
      assert.equal(0xa5, room:get(room:size(1)))
    end)

    it("are never the same twice where they are not deterministic", function()
      local x, w, y = inputs()
      local graph = g.graph((g.operation "data"))
      local dx, again = random({ 1, 8, 4, 6, 6 }, "dx"), random({ 1, 8, 4, 6, 6 }, "dx")
      run(graph, 20, { dx, w, y })
      run(graph, 20, { again, w, y })
      assert.is_not.equal(dx:crc32c(), again:crc32c())
      helper.assert_close(dx:to "cpu", again:to "cpu", 1e-5)
      assert.is_truthy(x)
    end)
  end

  it("round what is of 16 bits to the nearest", function()
    for dtype, type in pairs { f16 = "DATA_HALF", bf16 = "DATA_BFLOAT16" } do
      local x, w, y = inputs(dtype)
      run(g.graph((g.operation("forward", { x = { type = type }, w = { type = type }, y = { type = type } }))), 62, { x, w, y })
      local e = pn.conv3d(x:to("cpu"):cast(pn.real), w:to("cpu"):cast(pn.real), nil, { pad = 1 })
      helper.assert_close(y:to("cpu"):cast "f64", e:cast(dtype):cast "f64", 1e-3 * (dtype == "bf16" and 8 or 1))
    end
  end)

  it("refuse what does not lie on the device, or not so aligned, or on one another", function()
    local x, w, y = inputs()
    x:get(1, 1, 1, 1, 1)
    local graph = g.graph((g.operation("forward", { x = { alignment = 16 } })))
    local plan = g.plan((g.config(graph, 28)))
    local at = { address(x), address(w), address(y) }
    local function try(expected, reason, change)
      g.reason()
      local where = { unpack(at) }
      change(where)
      assert.equal(expected, execute(plan, where))
      assert.matches(reason, g.reason())
    end
    local function moved(p, bytes) return ffi.cast("char *", p) + bytes end
    try("BAD_PARAM", "no tensor 2", function(t) t[2] = nil end)
    try("BAD_PARAM_MISALIGNED_POINTER", "tensor 1 is not aligned to 16 bytes", function(t) t[1] = moved(t[1], 4) end)
    try("EXECUTION_FAILED", "tensor 2 does not lie inside", function(t) t[2] = moved(t[2], 4) end)
    try("EXECUTION_FAILED", "tensor 2 does not lie inside", function(t) t[2] = ffi.new "float[4096]" end)
    try("EXECUTION_FAILED", "tensor 3 is written where tensor 2 lies", function(t) t[3] = t[2] end)
    plan = g.plan((g.config(graph, 62)))
    try("BAD_PARAM_SIZE_INSUFFICIENT", "the workspace has not the", function() end)
    assert.equal("BAD_PARAM", g.name(C.cudnnBackendExecute(handle, graph, plan)))
    assert.equal("BAD_PARAM", g.name(C.cudnnBackendExecute(nil, plan, (g.pack { [1] = at[1] }))))
  end)

  it("fail where they are told to", function()
    for call, expected in pairs { cudnnBackendCreateDescriptor = "INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
      cudnnBackendSetAttribute = "INTERNAL_ERROR", cudnnBackendFinalize = "INTERNAL_ERROR" } do
      emulation.fail(call)
      local _, status = g.tensor {}
      assert.equal(expected, status, call)
      assert.equal("an injected fault", g.reason())
    end
    local t = g.tensor {}
    emulation.fail "cudnnBackendGetAttribute"
    assert.equal("INTERNAL_ERROR", (g.get(t, "TENSOR_UNIQUE_ID", "INT64", 1)))
    emulation.fail "cudnnBackendExecute"
    assert.equal("EXECUTION_FAILED", g.name(C.cudnnBackendExecute(handle, t, t)))
    emulation.fail "cudnnCreate"
    assert.equal("NOT_INITIALIZED", g.name(C.cudnnCreate(ffi.new "cudnnHandle_t[1]")))
    emulation.fail "cudnnSetStream"
    assert.equal("INTERNAL_ERROR", g.name(C.cudnnSetStream(handle, s)))
  end)
end)
