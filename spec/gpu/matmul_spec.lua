--- Matrix products on a device: every memory order, element type and precision, what cannot be multiplied as it lies, products
-- kept by shape; and the emulated cuBLASLt behind them.

local device = require "spec.gpu.device"
local emulation = require "spec.gpu.emulation"
local pn = require "penumbra"
local helper = require "spec.helper"
local shell = require "penumbra.base.shell"
local ffi = require "ffi"

local IS_F64 = pn.real == "f64"

-- Ways in which a matrix of a shape may lie: dense, in columns, with gaps behind each row or column, every second element.
local function lying(t)
  t = t:detach()
  local m, n = t:size(1), t:size(2)
  local function into(whole, view)
    view:copy(t)
    assert(whole)
    return view
  end
  local function zeros(p, q) return pn.zeros { p, q, device = "cuda", dtype = t:dtype() } end
  local rows, columns, apart = zeros(m, n + 3), zeros(n, m + 3), zeros(m, 2 * n)
  local turned = columns:permute { axes = { 2, 1 } }
  return {
    dense = t:to "cuda",
    rows = into(rows, rows:slice { axis = 2, first = 3, count = n }),
    columns = into(columns, turned:slice { axis = 1, first = 2, count = m }),
    apart = into(apart, apart:slice { axis = 2, first = 1, count = n, step = 2 }),
  }
end

-- a (m,k) and b (k,n) multiplied on both, with their gradients.
local function compare(a, b, here_a, here_b, tolerance, what)
  local function run(x, y)
    x:requires_grad(true)
    y:requires_grad(true)
    x:set_grad(nil)
    y:set_grad(nil)
    local z = pn.matmul(x, y)
    local dz = helper.random(z:shape(), "dz")
    z:backward(dz:cast(z:dtype()):to(z:device()))
    return z, x:grad(), y:grad()
  end
  local z, da, db = run(a, b)
  local hz, hda, hdb = run(here_a, here_b)
  for name, pair in pairs { result = { z, hz }, ["gradient of a"] = { da, hda }, ["gradient of b"] = { db, hdb } } do
    helper.assert_close(pair[1]:to("cpu"):cast(pn.real), pair[2], tolerance, what .. ", " .. name)
  end
  return z, da
end

describe("a product on a device", function()
  it("is that of the CPU, however its matrices lie", function()
    for _, sizes in ipairs { { 5, 7, 3 }, { 1, 6, 1 }, { 4, 1, 9 }, { 17, 33, 8 } } do
      local m, k, n = unpack(sizes)
      local a, b = helper.random({ m, k }, "a"), helper.random({ k, n }, "b")
      for name_a, x in pairs(lying(a)) do
        for name_b, y in pairs(lying(b)) do
          compare(x, y, a, b, IS_F64 and 1e-14 or 1e-6, ("%d,%d by %d,%d %s by %s"):format(m, k, k, n, name_a, name_b))
        end
      end
    end
  end)

  it("of 16 bits is of 16 bits, of two types real", function()
    local a, b = helper.random({ 6, 10 }, "a"), helper.random({ 10, 4 }, "b")
    for dtype, tolerance in pairs { f16 = 2e-3, bf16 = 2e-2 } do
      local x, y = a:cast(dtype):detach():to "cuda", b:cast(dtype):detach():to "cuda"
      local rounded_a, rounded_b = a:cast(dtype):cast(pn.real):detach(), b:cast(dtype):cast(pn.real):detach()
      local z, da = compare(x, y, rounded_a, rounded_b, tolerance, dtype)
      assert.equal(dtype, z:dtype())
      assert.equal(dtype, da:dtype())
      z, da = compare(x, b:detach():to "cuda", rounded_a, b, tolerance, dtype .. " by real")
      assert.equal(pn.real, z:dtype())
      assert.equal(dtype, da:dtype())
    end
  end)

  it("adds to a gradient that has begun, in each of its types", function()
    local a, b = helper.random({ 3, 5 }, "a"):to "cuda", helper.random({ 5, 2 }, "b"):to "cuda"
    for _, dtype in ipairs { pn.real, "bf16" } do
      local x = a:cast(dtype):detach():requires_grad(true)
      for i = 1, 2 do
        pn.matmul(x, b):backward(pn.ones { 3, 2, device = "cuda" })
        local sum = pn.matmul(pn.ones { 3, 2 }, b:to "cpu", { transpose_b = true }) * i
        helper.assert_close(x:grad():to("cpu"):cast(pn.real), sum, dtype == "bf16" and 2e-2 or 1e-6, dtype)
      end
    end
  end)

  it("of empty matrices is empty, or zero", function()
    local function product(m, k, n)
      return pn.matmul(pn.zeros { m, k, device = "cuda" }, pn.zeros { k, n, device = "cuda" }):to "cpu"
    end
    assert.same({ 0, 4 }, product(0, 3, 4):shape())
    assert.same({ 2, 0 }, product(2, 3, 0):shape())
    assert.same({ { 0, 0 }, { 0, 0 } }, product(2, 0, 2):totable())
  end)

  it("of batches is that of the CPU, however they lie", function()
    local function heads(t) return t:permute(1, 3, 2, 4) end
    local function same(t) return t end
    local function turned(t) return t:permute(2, 1, 3) end
    for what, case in pairs {
      ["each by each"] = { { 3, 5, 4 }, { 3, 4, 6 } }, ["one for all on the right"] = { { 2, 3, 5, 4 }, { 4, 6 } },
      ["one for all on the left"] = { { 5, 4 }, { 3, 4, 6 } }, ["broadcast both ways"] = { { 3, 1, 5, 4 }, { 2, 4, 6 } },
      ["of heads"] = { { 2, 5, 3, 4 }, { 2, 4, 3, 6 }, heads, heads },
      ["of another order"] = { { 5, 3, 4 }, { 4, 3, 6 }, turned, turned },
      ["odd steps"] = { { 3, 1, 1 }, { 3, 1, 7 } }, ["of rows alone"] = { { 4, 1, 3 }, { 4, 3, 1 } },
    } do
      local a, b = helper.random(case[1], "a"), helper.random(case[2], "b")
      local view_a, view_b = case[3] or same, case[4] or same
      compare(view_a(a:to "cuda"), view_b(b:to "cuda"), view_a(a), view_b(b), IS_F64 and 1e-14 or 1e-6, what)
    end
  end)

  it("of batches of 16 bits adds up what one matrix for all gets back in real", function()
    local a, b = helper.random({ 2, 40, 3, 6 }, "a"), helper.random({ 40, 6, 4 }, "b")
    for dtype, tolerance in pairs { f16 = 2e-3, bf16 = 2e-2 } do
      local x, y = a:cast(dtype):detach():to "cuda", b:cast(dtype):detach():to "cuda"
      local z, da = compare(x, y, a:cast(dtype):cast(pn.real):detach(), b:cast(dtype):cast(pn.real):detach(), tolerance, dtype)
      assert.equal(dtype, z:dtype())
      assert.equal(dtype, da:dtype())
    end
  end)

  if not IS_F64 then
    it("rounds to tf32 in that precision", function()
      -- Of a small product cuBLASLt may take a kernel that multiplies exactly.
      local a, b = helper.random({ 256, 256 }, "a"), helper.random({ 256, 256 }, "b")
      local x, y, exact = a:to "cuda", b:to "cuda", pn.matmul(a, b)
      pn.precision("tf32", "cuda")
      local e = helper.relative_error(pn.matmul(x, y):to "cpu", exact)
      pn.precision("f32", "cuda")
      assert.is_true(e > 1e-5 and e < 2e-3, e)
      e = helper.relative_error(pn.matmul(x, y):to "cpu", exact)
      assert.is_true(e < 2e-6, e)
    end)
  end

  if not emulation then return end

  it("is prepared once for each shape", function()
    local x, y = pn.ones { 11, 13, device = "cuda" }, pn.ones { 13, 7, device = "cuda" }
    emulation.forget()
    for _ = 1, 3 do pn.matmul(x, y) end
    local calls = emulation.calls()
    assert.equal(1, calls.cublasLtMatmulAlgoGetHeuristic)
    assert.equal(3, calls.cublasLtMatmul)
    assert.equal(0, emulation.alive().cublasLtMatmulPreference)
    for i = 1, 300 do pn.matmul(pn.ones { i, 2, device = "cuda" }, pn.ones { 2, 1, device = "cuda" }) end
    assert.equal(128, emulation.alive().cublasLtMatmulDesc)
    assert.equal(3 * 128, emulation.alive().cublasLtMatrixLayout)
    assert.equal(1, emulation.alive().cublasLtHandle)
  end)

  it("of a batch is one call, and one for each place of what cannot be one step", function()
    local function calls_of(a, b)
      local x, y = pn.ones { device = "cuda", unpack(a) }, pn.ones { device = "cuda", unpack(b) }
      emulation.forget()
      pn.matmul(x, y)
      return emulation.calls().cublasLtMatmul
    end
    assert.equal(1, calls_of({ 6, 2, 3 }, { 6, 3, 5 }))
    assert.equal(1, calls_of({ 2, 3, 2, 3 }, { 2, 3, 3, 5 }))
    assert.equal(1, calls_of({ 2, 3, 2, 3 }, { 3, 5 }))
    assert.equal(2, calls_of({ 2, 1, 2, 3 }, { 4, 3, 5 })) -- 4 at a time, twice
    assert.equal(2, calls_of({ 65536, 1, 1 }, { 65536, 1, 1 })) -- more than a grid is deep
  end)

  it("does without workspace where there may be none", function()
    local a, b = helper.random({ 9, 5 }, "a"), helper.random({ 5, 6 }, "b")
    assert.equal(0, pn.C.pn_set_workspace(0))
    emulation.with("ALGORITHMS", 2, -1, function() -- the one without
      helper.assert_close(pn.matmul(a:to "cuda", b:to "cuda"):to "cpu", pn.matmul(a, b), 1e-6)
    end)
    assert.equal(0, pn.C.pn_set_workspace(2 ^ 30))
  end)

  it("says what it cannot do", function()
    local function product(m) return pn.matmul(pn.ones { m, 3, device = "cuda" }, pn.ones { 3, 2, device = "cuda" }) end
    emulation.with("ALGORITHMS", 0, -1, function()
      helper.failure(function() product(41) end, "cuBLAS: cannot find an algorithm: the functionality requested is not supported",
        "(41,3 by 3,2)")
    end)
    local calls = {
      cublasLtMatmulDescCreate = "describe a product",
      cublasLtMatmulDescSetAttribute = "describe a product",
      cublasLtMatrixLayoutCreate = "describe a matrix",
      cublasLtMatmulPreferenceCreate = "say what is preferred",
      cublasLtMatmulPreferenceSetAttribute = "say what is preferred",
      cublasLtMatmulAlgoGetHeuristic = "find an algorithm",
      cublasLtMatmul = "multiply matrices",
    }
    local before, m, layouts = emulation.alive(), 42, nil
    for nth = 1, 6 do -- of each of the three, how many, then how far apart
      emulation.fail("cublasLtMatrixLayoutSetAttribute", nth)
      helper.failure(function() pn.matmul(pn.ones { 5, 4, 3, device = "cuda" }, pn.ones { 5, 3, 2, device = "cuda" }) end,
        "cuBLAS: cannot describe a batch: ", "(5 times 4,3 by 3,2)")
      emulation.mend()
      layouts = layouts or emulation.alive().cublasLtMatrixLayout -- the first made room for itself
      assert.equal(layouts, emulation.alive().cublasLtMatrixLayout)
    end
    for call, doing in pairs(calls) do
      emulation.fail(call)
      helper.failure(function() product(m) end, "cuBLAS: cannot " .. doing .. ": ", ("(%d,3 by 3,2)"):format(m))
      m = m + 1 -- a product that is prepared is kept
      emulation.mend()
      assert.same(before.cublasLtMatmulPreference, emulation.alive().cublasLtMatmulPreference, call)
    end
    assert.same({ 3, 3 }, product(1):to("cpu"):flat())
    assert.matches("cuBLAS: cannot start on the device: the library was not initialized",
      (shell.run(("PENUMBRA_EMULATED_FAIL=cublasLtCreate:1 PENUMBRA_CUDA_LIB=%s build/penumbra -e '%s'"):format(device.library,
        'local x = pn.ones { 2, 2, device = "cuda" } pn.matmul(x, x)'))))
  end)
end)

if not emulation then return end
local C = emulation.C

describe("the emulated cuBLASLt", function()
  local handle, s, objects
  setup(function()
    assert.equal(0, tonumber(C.cudaSetDevice(0)))
    local h, made = ffi.new "cublasLtHandle_t[1]", ffi.new "cudaStream_t[1]"
    assert.equal(0, tonumber(C.cublasLtCreate(h)))
    assert.equal(0, tonumber(C.cudaStreamCreateWithFlags(made, 1)))
    handle, s = h[0], made[0]
  end)
  teardown(function()
    assert.equal(0, tonumber(C.cublasLtDestroy(handle)))
    assert.equal("CUBLAS_STATUS_INVALID_VALUE", ffi.string(C.cublasLtGetStatusName(C.cublasLtDestroy(handle))))
    assert.equal(0, tonumber(C.cudaStreamDestroy(s)))
  end)
  before_each(function() objects = {} end)
  after_each(function()
    for _, object in ipairs(objects) do object.destroy(object[1]) end
    objects = nil
  end)

  local function name(status) return (ffi.string(C.cublasLtGetStatusName(status)):gsub("CUBLAS_STATUS_", "")) end

  local function made(kind, destroy, create, ...)
    local out = ffi.new(kind .. "[1]")
    assert.equal("SUCCESS", name(create(out, ...)))
    objects[#objects + 1] = { out[0], destroy = destroy }
    return out[0]
  end

  local function set(f, object, attribute, kind, value)
    return name(f(object, attribute, ffi.new(kind .. "[1]", { value }), ffi.sizeof(kind)))
  end

  -- o: rows, cols, ld, type, row (order), batches, batch_stride
  local function layout(o)
    local l = made("cublasLtMatrixLayout_t", C.cublasLtMatrixLayoutDestroy, C.cublasLtMatrixLayoutCreate, o.type or "CUDA_R_32F",
      o.rows, o.cols, o.ld or (o.row and o.cols or o.rows))
    local f = C.cublasLtMatrixLayoutSetAttribute
    if o.row then assert.equal("SUCCESS", set(f, l, "CUBLASLT_MATRIX_LAYOUT_ORDER", "int32_t", 1)) end
    if o.batches then
      assert.equal("SUCCESS", set(f, l, "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT", "int32_t", o.batches))
      assert.equal("SUCCESS", set(f, l, "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET", "int64_t", o.batch_stride))
    end
    return l
  end

  local function desc(o)
    o = o or {}
    local d = made("cublasLtMatmulDesc_t", C.cublasLtMatmulDescDestroy, C.cublasLtMatmulDescCreate,
      o.compute or "CUBLAS_COMPUTE_32F", o.scale or "CUDA_R_32F")
    local f = C.cublasLtMatmulDescSetAttribute
    if o.ta then assert.equal("SUCCESS", set(f, d, "CUBLASLT_MATMUL_DESC_TRANSA", "int32_t", 1)) end
    if o.tb then assert.equal("SUCCESS", set(f, d, "CUBLASLT_MATMUL_DESC_TRANSB", "int32_t", 1)) end
    if o.bias then
      assert.equal("SUCCESS", set(f, d, "CUBLASLT_MATMUL_DESC_EPILOGUE", "int32_t", 4))
      assert.equal("SUCCESS", set(f, d, "CUBLASLT_MATMUL_DESC_BIAS_POINTER", "void *", o.bias))
    end
    return d
  end

  local function offers(d, a, b, y, workspace, alignment)
    local p = made("cublasLtMatmulPreference_t", C.cublasLtMatmulPreferenceDestroy, C.cublasLtMatmulPreferenceCreate)
    local f = C.cublasLtMatmulPreferenceSetAttribute
    assert.equal("SUCCESS", set(f, p, "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES", "uint64_t", workspace or 0))
    for _, which in ipairs { "A", "B", "C", "D" } do
      assert.equal("SUCCESS", set(f, p, "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_" .. which .. "_BYTES", "uint32_t", alignment or 16))
    end
    local results, n = ffi.new "cublasLtMatmulHeuristicResult_t[4]", ffi.new "int[1]"
    local status = name(C.cublasLtMatmulAlgoGetHeuristic(handle, d, a, b, y, y, p, 4, results, n))
    return status, n[0], results
  end

  -- An address on the device with these numbers of f32, 512 bytes aligned.
  local function memory(values)
    local t = pn.tensor(values, { dtype = "f32" }):to "cuda"
    t:get(1)
    return ffi.cast("char *", pn.C.pn_tensor_data(t.p)), t
  end

  local function multiply(d, A, a, B, b, Y, y, factors, algo, workspace, bytes)
    factors = factors or {}
    local alpha, beta = ffi.new("float[1]", factors.alpha or 1), ffi.new("float[1]", factors.beta or 0)
    return name(C.cublasLtMatmul(handle, d, alpha, A, a, B, b, beta, Y, y, Y, y, algo, workspace, bytes or 0, s))
  end

  local function values(t)
    assert.equal(0, tonumber(C.cudaStreamSynchronize(s)))
    return t:to("cpu"):totable()
  end

  it("multiplies columns, with transposes, rows, factors and a bias", function()
    local A, B = memory { 1, 2, 3, 4, 5, 6 }, memory { 1, 0, 2, 1, 1, 1 }
    local Y, y = memory { 10, 10, 10, 10 }
    local bias = memory { 100, 200 }
    local function product(o, a, b, c, factors)
      local d, l = desc(o), { layout(a), layout(b), layout(c) }
      local status, _, results = offers(d, l[1], l[2], l[3])
      assert.equal("SUCCESS", status)
      y:copy(pn.full { 4, value = 10, dtype = "f32" })
      y:get(1)
      assert.equal("SUCCESS", multiply(d, A, l[1], B, l[2], Y, l[3], factors, results[0].algo))
      return values(y)
    end
    -- columns: a = [1 3 5; 2 4 6], b = [1 1; 0 1; 2 1]
    local a, b, c = { rows = 2, cols = 3 }, { rows = 3, cols = 2 }, { rows = 2, cols = 2 }
    assert.same({ 11, 14, 9, 12 }, product({}, a, b, c))
    assert.same({ 27, 33, 23, 29 }, product({}, a, b, c, { alpha = 2, beta = 0.5 }))
    assert.same({ 111, 214, 109, 212 }, product({ bias = bias }, a, b, c))
    -- rows: a = [1 2 3; 4 5 6], b = [1 0; 2 1; 1 1]
    local rows_a, rows_b = { rows = 2, cols = 3, row = true }, { rows = 3, cols = 2, row = true }
    assert.same({ 8, 5, 20, 11 }, product({}, rows_a, rows_b, { rows = 2, cols = 2, row = true }))
    assert.same({ 8, 20, 5, 11 }, product({}, rows_a, rows_b, c))
    -- turned: a = [1 2 3; 4 5 6], then b = [1 0; 2 1; 1 1]
    assert.same({ 7, 16, 6, 15 }, product({ ta = true }, b, b, c))
    assert.same({ 12, 16, 8, 10 }, product({ tb = true }, a, a, c))
  end)

  it("multiplies batches, each a stride from the next, or one for all", function()
    local A, B = memory { 1, 2, 3, 4 }, memory { 5, 6 }
    local Y, y = memory { 0, 0, 0, 0 }
    local column = { rows = 2, cols = 1, batches = 2, batch_stride = 2 }
    local a, c = layout(column), layout(column)
    for stride, expected in pairs { [0] = { 5, 10, 15, 20 }, [1] = { 5, 10, 18, 24 } } do
      local b, d = layout { rows = 1, cols = 1, batches = 2, batch_stride = stride }, desc()
      local _, _, results = offers(d, a, b, c)
      assert.equal("SUCCESS", multiply(d, A, a, B, b, Y, c, nil, results[0].algo))
      assert.same(expected, values(y))
    end
  end)

  it("offers what fits: first with a workspace, then one that did not work out, then without", function()
    local d, a, b, c = desc(), layout { rows = 2, cols = 3 }, layout { rows = 3, cols = 2 }, layout { rows = 2, cols = 2 }
    local status, n, results = offers(d, a, b, c, 1e6)
    assert.equal("SUCCESS", status)
    assert.equal(3, n)
    assert.equal(4096, tonumber(results[0].workspaceSize))
    assert.equal("NOT_SUPPORTED", name(results[1].state))
    assert.equal(0, tonumber(results[2].workspaceSize))
    assert.equal(1, (select(2, offers(d, a, b, c, 100))))
  end)

  it("refuses sizes, strides and types that do not fit", function()
    local a, b, c = { rows = 2, cols = 3 }, { rows = 3, cols = 2 }, { rows = 2, cols = 2 }
    local function try(expected, o, x, y, z)
      assert.equal(expected, (offers(desc(o), layout(x or a), layout(y or b), layout(z or c))))
    end
    local half = "CUDA_R_16BF"
    try("SUCCESS")
    try("INVALID_VALUE", { ta = true })
    try("INVALID_VALUE", nil, nil, { rows = 4, cols = 2 })
    try("INVALID_VALUE", nil, nil, nil, { rows = 2, cols = 3 })
    try("INVALID_VALUE", nil, { rows = 2, cols = 3, ld = 1 })
    try("INVALID_VALUE", nil, { rows = 2, cols = 0 })
    try("INVALID_VALUE", nil, { rows = 2, cols = 3, batches = 2, batch_stride = 6 })
    local function batch(m, stride) return { rows = m.rows, cols = m.cols, batches = 2, batch_stride = stride } end
    try("SUCCESS", nil, batch(a, 6), batch(b, 0), batch(c, 4))
    try("INVALID_VALUE", nil, batch(a, 5), batch(b, 0), batch(c, 4))
    try("INVALID_VALUE", nil, batch(a, 6), batch(b, 0), batch(c, 0))
    try("INVALID_VALUE", nil, batch(a, 6), batch(b, 6), batch(c, 3))
    try("INVALID_VALUE", nil, batch(a, -6), batch(b, 6), batch(c, 4))
    try("INVALID_VALUE", nil, batch(a, 6), b, batch(c, 4))
    try("NOT_SUPPORTED", nil, { rows = 2, cols = 3, type = half })
    try("SUCCESS", nil, { rows = 2, cols = 3, type = half }, { rows = 3, cols = 2, type = half })
    try("NOT_SUPPORTED", nil, nil, nil, { rows = 2, cols = 2, type = half })
    try("NOT_SUPPORTED", { compute = "CUBLAS_COMPUTE_64F" })
    try("NOT_SUPPORTED", { scale = "CUDA_R_64F" })
    try("NOT_SUPPORTED", { bias = ffi.cast("void *", 512) }, nil, nil, { rows = 2, cols = 2, row = true })
    local l = layout(a)
    local f = C.cublasLtMatrixLayoutSetAttribute
    assert.equal("INVALID_VALUE", set(f, l, "CUBLASLT_MATRIX_LAYOUT_ORDER", "int64_t", 0))
    assert.equal("INVALID_VALUE", set(f, l, "CUBLASLT_MATRIX_LAYOUT_ORDER", "int32_t", 2))
    assert.equal("INVALID_VALUE", set(f, l, "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT", "int32_t", 0))
    assert.equal("INVALID_VALUE", set(f, l, "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT", "int64_t", 2))
    assert.equal("INVALID_VALUE", set(f, l, "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET", "int32_t", 4))
    assert.equal("INVALID_VALUE", set(C.cublasLtMatmulDescSetAttribute, desc(), "CUBLASLT_MATMUL_DESC_EPILOGUE", "int32_t", 2))
    assert.equal("INVALID_VALUE", name(C.cublasLtMatrixLayoutCreate(ffi.new "cublasLtMatrixLayout_t[1]", 3, 1, 1, 1)))
  end)

  it("refuses an algorithm for what it was not found for, and memory that is not there", function()
    local d, a, b, c = desc(), layout { rows = 2, cols = 2 }, layout { rows = 2, cols = 2 }, layout { rows = 2, cols = 2 }
    local A, B, Y = memory { 1, 2, 3, 4 }, memory { 1, 2, 3, 4 }, memory { 0, 0, 0, 0 }
    local _, _, results = offers(d, a, b, c, 1e6, 256)
    local with_room, broken, without = results[0].algo, results[1].algo, results[2].algo
    assert.equal("SUCCESS", multiply(d, A, a, B, b, Y, c, nil, without))
    assert.equal("INVALID_VALUE", multiply(d, A, a, B, b, Y, c, nil, broken))
    assert.equal("INVALID_VALUE", multiply(d, A, a, B, b, Y, c, nil, with_room))
    assert.equal("EXECUTION_FAILED", multiply(d, A, a, B, b, Y, c, nil, with_room, nil, 4096))
    assert.equal("INVALID_VALUE", multiply(desc { ta = true }, A, a, B, b, Y, c, nil, without))
    assert.equal("INVALID_VALUE", multiply(d, A + 4, a, B, b, Y, c, nil, without))
    assert.equal("INVALID_VALUE", multiply(d, A, a, B, b, Y, c, nil, ffi.new "cublasLtMatmulAlgo_t"))
    assert.equal("EXECUTION_FAILED", multiply(d, A, a, B, b, A, c, nil, without))
    local larger, y = layout { rows = 2, cols = 2, ld = 3 }, layout { rows = 2, cols = 2 }
    assert.equal("EXECUTION_FAILED", multiply(d, A, larger, B, b, Y, y, nil, without))
    local function batch(n, stride) return layout { rows = 1, cols = 1, batches = n, batch_stride = stride } end
    local _, _, of_batch = offers(d, batch(2, 1), batch(2, 1), batch(2, 1))
    assert.equal("SUCCESS", multiply(d, A, batch(2, 1), B, batch(2, 1), Y, batch(2, 1), nil, of_batch[0].algo))
    assert.equal("INVALID_VALUE", multiply(d, A, batch(3, 1), B, batch(3, 1), Y, batch(3, 1), nil, of_batch[0].algo))
    assert.equal("INVALID_VALUE", multiply(d, A, batch(2, 2), B, batch(2, 1), Y, batch(2, 1), nil, of_batch[0].algo))
    assert.equal("EXECUTION_FAILED", multiply(d, A, batch(2, 1), B, batch(2, 1), A, batch(2, 1), nil, of_batch[0].algo))
    local room = pn.empty { 4096, dtype = "u8", device = "cuda" }
    room:get(1)
    assert.equal("SUCCESS", multiply(d, A, a, B, b, Y, c, nil, with_room, pn.C.pn_tensor_data(room.p), 4096))
    assert.equal(0, tonumber(C.cudaStreamSynchronize(s)))
    assert.equal(0xa5, room:get(4096))
  end)
end)
