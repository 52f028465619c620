--- The emulation of CUDA itself: work waits for those who wait for it, memory is watched, captures record, faults come when told.

local device = require "spec.gpu.device"
local emulation = require "spec.gpu.emulation"
local pn = require "penumbra"
local helper = require "spec.helper"
local shell = require "penumbra.base.shell"
local ffi = require "ffi"

if not emulation then
  describe("the emulation", function()
    it("is not what runs here", function() pending(device.library) end)
  end)
  return
end

local C = emulation.C

local function name_of(code) return ffi.string(C.cudaGetErrorName(code)) end

-- A call that must succeed, or fail with a certain error.
local function ok(code) assert.equal("cudaSuccess", name_of(code)) end
local function refused(expected, code)
  assert.equal(expected, name_of(code))
  assert.equal(expected, name_of(C.cudaGetLastError()))
  ok(C.cudaGetLastError())
end

local function out(kind) return ffi.new(kind .. "[1]") end

local function stream()
  local s = out "cudaStream_t"
  ok(C.cudaStreamCreateWithFlags(s, 1))
  return s[0]
end

local function memory(bytes)
  local p = out "void *"
  ok(C.cudaMalloc(p, bytes))
  return ffi.cast("uint8_t *", p[0])
end

local function pinned(bytes)
  local p = out "void *"
  ok(C.cudaHostAlloc(p, bytes, 0))
  return ffi.cast("uint8_t *", p[0])
end

describe("a stream of the emulation", function()
  local s, there, here
  before_each(function()
    ok(C.cudaSetDevice(0))
    s, there, here = stream(), memory(8), pinned(8)
  end)
  after_each(function()
    emulation.mend()
    C.cudaFree(there)
    C.cudaFreeHost(here)
    C.cudaStreamDestroy(s)
    while C.cudaGetLastError() ~= 0 do end
  end)

  it("holds work back until something waits: a buffer used again too early is found", function()
    here[0] = 1
    ok(C.cudaMemcpyAsync(there, here, 8, "cudaMemcpyHostToDevice", s))
    here[0] = 2 -- too early
    ok(C.cudaStreamSynchronize(s))
    assert.equal(2, there[0])
  end)

  it("has done what stands before an event when that is waited for, and not more", function()
    local e = out "cudaEvent_t"
    ok(C.cudaEventCreateWithFlags(e, 0))
    ok(C.cudaMemsetAsync(there, 5, 8, s))
    ok(C.cudaEventRecord(e[0], s))
    ok(C.cudaMemsetAsync(there, 6, 8, s))
    assert.equal("cudaErrorNotReady", name_of(C.cudaEventQuery(e[0])))
    ok(C.cudaEventSynchronize(e[0]))
    assert.equal(5, there[0])
    ok(C.cudaEventQuery(e[0]))
    ok(C.cudaDeviceSynchronize())
    assert.equal(6, there[0])
    ok(C.cudaEventDestroy(e[0]))
    refused("cudaErrorInvalidResourceHandle", C.cudaEventQuery(e[0]))
  end)

  it("runs another's work where it waits for it", function()
    local other, e = stream(), out "cudaEvent_t"
    ok(C.cudaEventCreateWithFlags(e, 0))
    ok(C.cudaMemsetAsync(there, 7, 8, other))
    ok(C.cudaEventRecord(e[0], other))
    ok(C.cudaStreamWaitEvent(s, e[0], 0))
    ok(C.cudaMemcpyAsync(here, there, 8, "cudaMemcpyDeviceToHost", s))
    ok(C.cudaStreamSynchronize(s))
    assert.equal(7, here[0])
    ok(C.cudaEventDestroy(e[0]))
    ok(C.cudaStreamDestroy(other))
  end)

  it("waits for another also when it has failed, or fails then", function()
    for nth = 1, 2 do
      local other, e = stream(), out "cudaEvent_t"
      ok(C.cudaEventCreateWithFlags(e, 0))
      ok(C.cudaDeviceSynchronize())
      emulation.fail("task", nth)
      ok(C.cudaMemsetAsync(there, 5, 8, s))
      ok(C.cudaMemsetAsync(there, 7, 8, other))
      ok(C.cudaEventRecord(e[0], other))
      ok(C.cudaStreamWaitEvent(s, e[0], 0))
      refused("cudaErrorLaunchFailure", C.cudaStreamSynchronize(s))
      ok(C.cudaEventQuery(e[0])) -- the other has come so far,
      assert.is_not.equal(7, there[0]) -- but did no work after the failure
      ok(C.cudaEventDestroy(e[0]))
      ok(C.cudaStreamDestroy(other))
    end
  end)

  it("runs what it holds when that is too much", function()
    emulation.with("QUEUE", 3, 4096, function()
      for i = 1, 3 do
        ok(C.cudaMemsetAsync(there, i, 8, s))
        assert.is_not.equal(i, there[0])
      end
      ok(C.cudaMemsetAsync(there, 4, 8, s))
      assert.equal(4, there[0])
    end)
  end)

  it("waits by itself for what goes to pageable memory", function()
    local pageable = ffi.new "uint8_t[8]"
    ok(C.cudaMemsetAsync(there, 9, 8, s))
    ok(C.cudaMemcpyAsync(pageable, there, 8, "cudaMemcpyDeviceToHost", s))
    assert.equal(9, pageable[7])
  end)

  it("refuses memory that is not the device's, or not so large", function()
    local pageable = ffi.new "uint8_t[8]"
    refused("cudaErrorInvalidValue", C.cudaMemcpyAsync(there, here, 9, "cudaMemcpyHostToDevice", s))
    refused("cudaErrorInvalidValue", C.cudaMemcpyAsync(pageable, here, 8, "cudaMemcpyHostToDevice", s))
    refused("cudaErrorInvalidValue", C.cudaMemcpyAsync(there, here, 8, "cudaMemcpyDeviceToDevice", s))
    refused("cudaErrorInvalidValue", C.cudaMemsetAsync(here, 0, 8, s))
    refused("cudaErrorInvalidValue", C.cudaMemsetAsync(there + 1, 0, 8, s))
    refused("cudaErrorInvalidValue", C.cudaMemcpyPeerAsync(there, 1, there, 0, 8, s))
    refused("cudaErrorInvalidValue", C.cudaFree(here))
    refused("cudaErrorInvalidValue", C.cudaFreeHost(there))
    refused("cudaErrorInvalidValue", C.cudaFree(there + 1))
    local p = out "void *"
    refused("cudaErrorInvalidValue", C.cudaHostGetDevicePointer(p, pageable, 0))
    ok(C.cudaHostGetDevicePointer(p, here, 0))
    refused("cudaErrorInvalidValue", C.cudaMalloc(p, 0))
    refused("cudaErrorMemoryAllocation", C.cudaMalloc(p, 3 * 2 ^ 30))
  end)

  it("refuses what has been destroyed, and devices that are not there", function()
    local gone = stream()
    ok(C.cudaStreamDestroy(gone))
    refused("cudaErrorInvalidResourceHandle", C.cudaStreamSynchronize(gone))
    refused("cudaErrorInvalidResourceHandle", C.cudaMemsetAsync(there, 0, 8, nil))
    refused("cudaErrorInvalidDevice", C.cudaSetDevice(2))
    refused("cudaErrorInvalidDevice", C.cudaSetDevice(-1))
    refused("cudaErrorInvalidDevice", C.cudaGetDeviceProperties(ffi.new "struct cudaDeviceProp", 2))
  end)

  it("frees memory when all work is done, and overwrites it", function()
    local held = memory(8)
    ok(C.cudaMemsetAsync(held, 3, 8, s))
    ok(C.cudaMemcpyAsync(there, held, 8, "cudaMemcpyDeviceToDevice", s))
    ok(C.cudaFree(held))
    assert.equal(3, there[0])
    local fresh = memory(8)
    assert.equal(255, fresh[0])
    ok(C.cudaFree(fresh))
  end)

  it("records while it is captured, and a graph does it again", function()
    local graph, exec, status = out "cudaGraph_t", out "cudaGraphExec_t", out "enum cudaStreamCaptureStatus"
    ok(C.cudaMemsetAsync(there, 1, 8, s))
    ok(C.cudaStreamSynchronize(s))
    ok(C.cudaStreamBeginCapture(s, "cudaStreamCaptureModeGlobal"))
    ok(C.cudaStreamIsCapturing(s, status))
    assert.equal(1, tonumber(status[0]))
    ok(C.cudaMemcpyAsync(here, there, 8, "cudaMemcpyDeviceToHost", s))
    ok(C.cudaMemsetAsync(there, 4, 8, s))
    ok(C.cudaStreamEndCapture(s, graph))
    assert.equal(1, there[0])
    ok(C.cudaGraphInstantiate(exec, graph[0], 0))
    ok(C.cudaGraphDestroy(graph[0]))
    for _ = 1, 2 do ok(C.cudaGraphLaunch(exec[0], s)) end
    ok(C.cudaStreamSynchronize(s))
    assert.equal(4, here[0])
    assert.equal(4, there[0])
    ok(C.cudaGraphExecDestroy(exec[0]))
    refused("cudaErrorInvalidResourceHandle", C.cudaGraphLaunch(exec[0], s))
  end)

  describe("that is captured", function()
    local graph, exec, status, e, other
    before_each(function()
      graph, exec, status, other = out "cudaGraph_t", out "cudaGraphExec_t", out "enum cudaStreamCaptureStatus", stream()
      e = out "cudaEvent_t"
      ok(C.cudaEventCreateWithFlags(e, 0))
    end)
    after_each(function()
      ok(C.cudaEventDestroy(e[0]))
      ok(C.cudaStreamDestroy(other))
    end)

    -- `forbidden` is refused with `code`, and the capture is lost; `before` is done before it begins.
    local function loses(mode, what, code, forbidden, before)
      what = mode .. ": " .. what
      if before then before() end
      ok(C.cudaStreamBeginCapture(s, "cudaStreamCaptureMode" .. mode))
      assert.equal(code, name_of(forbidden()), what)
      C.cudaGetLastError()
      ok(C.cudaStreamIsCapturing(s, status))
      assert.equal(2, tonumber(status[0]), what)
      assert.equal("cudaErrorStreamCaptureInvalidated", name_of(C.cudaMemsetAsync(there, 0, 8, s)), what)
      assert.equal("cudaErrorStreamCaptureInvalidated", name_of(C.cudaEventRecord(e[0], s)), what)
      assert.equal("cudaErrorStreamCaptureInvalidated", name_of(C.cudaStreamEndCapture(s, graph)), what)
      assert.is_true(graph[0] == nil)
      while C.cudaGetLastError() ~= 0 do end
    end

    for _, mode in ipairs { "Global", "ThreadLocal", "Relaxed" } do
      it("loses its capture to a wait, an event from elsewhere or what gives back, " .. mode, function()
        local unsupported = "cudaErrorStreamCaptureUnsupported"
        loses(mode, "wait", unsupported, function() return C.cudaStreamSynchronize(s) end)
        loses(mode, "device", unsupported, function() return C.cudaDeviceSynchronize() end)
        loses(mode, "pageable", unsupported, function()
          return C.cudaMemcpyAsync(there, ffi.new "uint8_t[8]", 8, "cudaMemcpyHostToDevice", s)
        end)
        loses(mode, "free", unsupported, function() return C.cudaFree(there) end)
        loses(mode, "graph", unsupported, function() return C.cudaGraphExecDestroy(exec[0]) end, function()
          ok(C.cudaStreamBeginCapture(other, "cudaStreamCaptureModeRelaxed"))
          ok(C.cudaStreamEndCapture(other, graph))
          ok(C.cudaGraphInstantiate(exec, graph[0], 0))
          ok(C.cudaGraphDestroy(graph[0]))
        end)
        ok(C.cudaGraphExecDestroy(exec[0]))
        for what, ask in pairs { query = C.cudaEventQuery, synchronize = C.cudaEventSynchronize } do
          loses(mode, what, "cudaErrorCapturedEvent", function()
            ok(C.cudaEventRecord(e[0], s))
            return ask(e[0])
          end)
          refused("cudaErrorCapturedEvent", ask(e[0])) -- for good
        end
        local isolation = "cudaErrorStreamCaptureIsolation"
        loses(mode, "from outside", isolation, function() return C.cudaStreamWaitEvent(s, e[0], 0) end, function()
          ok(C.cudaEventRecord(e[0], other))
        end)
        loses(mode, "from another capture", isolation, function() return C.cudaStreamWaitEvent(s, e[0], 0) end, function()
          ok(C.cudaStreamBeginCapture(s, "cudaStreamCaptureModeRelaxed"))
          ok(C.cudaEventRecord(e[0], s))
          ok(C.cudaStreamEndCapture(s, graph))
          ok(C.cudaGraphDestroy(graph[0]))
        end)
        loses(mode, "to outside", isolation, function()
          ok(C.cudaEventRecord(e[0], s))
          return C.cudaStreamWaitEvent(other, e[0], 0)
        end)
      end)
    end

    it("loses its capture to allocations and queries, unless it is relaxed", function()
      local p = out "void *"
      for _, mode in ipairs { "Global", "ThreadLocal" } do
        loses(mode, "allocation", "cudaErrorStreamCaptureUnsupported", function() return C.cudaMalloc(p, 8) end)
        loses(mode, "query", "cudaErrorStreamCaptureUnsupported", function() return C.cudaEventQuery(e[0]) end, function()
          ok(C.cudaEventRecord(e[0], other))
        end)
      end
      ok(C.cudaEventRecord(e[0], other))
      ok(C.cudaStreamBeginCapture(s, "cudaStreamCaptureModeRelaxed"))
      ok(C.cudaMalloc(p, 8))
      assert.equal("cudaErrorNotReady", name_of(C.cudaEventQuery(e[0])))
      ok(C.cudaEventSynchronize(e[0]))
      ok(C.cudaStreamSynchronize(other))
      refused("cudaErrorStreamCaptureUnsupported", C.cudaStreamBeginCapture(s, "cudaStreamCaptureModeRelaxed"))
      ok(C.cudaEventRecord(e[0], s))
      ok(C.cudaStreamWaitEvent(s, e[0], 0))
      ok(C.cudaStreamEndCapture(s, graph))
      ok(C.cudaGraphDestroy(graph[0]))
      ok(C.cudaFree(p[0]))
      refused("cudaErrorStreamCaptureUnsupported", C.cudaStreamEndCapture(s, graph))
    end)

    it("leaves another device alone", function()
      ok(C.cudaStreamBeginCapture(s, "cudaStreamCaptureModeRelaxed"))
      ok(C.cudaSetDevice(1))
      local far = memory(8)
      ok(C.cudaDeviceSynchronize())
      ok(C.cudaFree(far))
      ok(C.cudaSetDevice(0))
      ok(C.cudaStreamEndCapture(s, graph))
      ok(C.cudaGraphDestroy(graph[0]))
    end)
  end)

  it("measures time between events that have passed", function()
    local a, b, ms = out "cudaEvent_t", out "cudaEvent_t", ffi.new "float[1]"
    ok(C.cudaEventCreateWithFlags(a, 0))
    ok(C.cudaEventCreateWithFlags(b, 0))
    refused("cudaErrorInvalidResourceHandle", C.cudaEventElapsedTime(ms, a[0], b[0]))
    local began = pn.clock()
    ok(C.cudaEventRecord(a[0], s))
    ok(C.cudaEventRecord(b[0], s))
    refused("cudaErrorNotReady", C.cudaEventElapsedTime(ms, a[0], b[0]))
    ok(C.cudaStreamSynchronize(s))
    ok(C.cudaEventElapsedTime(ms, a[0], b[0]))
    assert.is_true(ms[0] >= 0 and ms[0] * 1e-3 <= (pn.clock() - began) * 1.000001)
    ok(C.cudaEventDestroy(a[0]))
    ok(C.cudaEventDestroy(b[0]))
  end)
end)

describe("faults", function()
  after_each(emulation.mend)

  it("fail the nth call of a name, once", function()
    local n = ffi.new "int[1]"
    emulation.fail("cudaGetDeviceCount", 2)
    ok(C.cudaGetDeviceCount(n))
    refused("cudaErrorUnknown", C.cudaGetDeviceCount(n))
    ok(C.cudaGetDeviceCount(n))
    emulation.fail("*", 2)
    ok(C.cudaGetDevice(n))
    refused("cudaErrorInvalidDevice", C.cudaSetDevice(0))
  end)

  it("are counted by name", function()
    emulation.forget()
    local n = ffi.new "int[1]"
    for _ = 1, 3 do ok(C.cudaGetDevice(n)) end
    ok(C.cudaSetDevice(0))
    assert.same({ cudaGetDevice = 3, cudaSetDevice = 1 }, emulation.calls())
    assert.equal(4, tonumber(C.pn_emulated_calls "*"))
    assert.equal(3, tonumber(C.pn_emulated_calls "cudaGetDevice"))
    assert.equal(0, tonumber(C.pn_emulated_calls "cudaMalloc"))
  end)

  it("inside a task reach the next call that waits, with a complaint", function()
    local x = pn.ones { 10, device = "cuda" }
    x:to "cpu"
    emulation.fail("task", 1)
    local y = pn.relu(x)
    helper.failure(function() y:to "cpu" end, "CUDA: cannot", "unspecified launch failure")
    assert.matches("an injected fault", ffi.string(C.pn_emulated_complaint()))
    assert.same({ 1, 1 }, pn.relu(pn.ones { 2, device = "cuda" }):to("cpu"):totable())
  end)

  -- What a program prints whose second relu goes wrong and leaves the device dead; `f` is what it does then.
  local function dead(f)
    return (shell.run(("PENUMBRA_EMULATED_STICKY=1 PENUMBRA_CUDA_LIB=%s build/penumbra -e %s"):format(device.library,
      shell.quote([[
        local pn = require "penumbra"
        local emulation = require "spec.gpu.emulation"
        local x = pn.ones { 10, device = "cuda" }
        pn.relu(x):to "cpu"
        local step = pn.captured(function(a) return pn.relu(a) end, { device = "cuda" })
        for _ = 1, 3 do step(x) end
        emulation.fail("task", 1)
        pn.relu(x)
        local function try(what, f, ...) print(what, pcall(f, ...)) end
      ]] .. f .. ' print "the end"'))))
  end

  it("inside a task may stay for good: no call that follows says that memory is short, each that the work was older", function()
    local text = dead [[
      try("read", x.to, x, "cpu")
      try("launch", pn.relu, x)
      try("small", pn.zeros, { 3, device = "cuda" })
      try("large", pn.zeros, { 9, 1000, 1000, device = "cuda" })
      local host = pn.ones { 9, 1000, 1000 }
      try("send", host.to, host, "cuda")
      try("step", step, x)
      try("capture", function()
        local other = pn.captured(function(a) return pn.relu(a) end, { device = "cuda" })
        for _ = 1, 3 do other(x) end
      end)
      try("wait", pn.device.wait, "cuda")
      step:forget()
      pn.C.pn_memory_trim(1)
    ]]
    local why = "unspecified launch failure %(of work begun before; CUDA_LAUNCH_BLOCKING=1 shows where, "
      .. "graph=false outside a graph%)\n"
    for _, what in ipairs { "read", "launch", "small", "large", "send", "step", "capture", "wait" } do
      assert.matches(what .. "\tfalse\t[^\n]*CUDA: cannot [^\n]*" .. why, text)
    end
    assert.matches("the end", text)
    assert.is_nil(text:find("out of memory", 1, true), text)
  end)

  it("inside a task may be met by a request for memory first", function()
    local text = dead [[
      emulation.with("QUEUE", 0, 4096, function() pcall(pn.relu, x) end) -- it runs at once
      try("large", pn.zeros, { 9, 1000, 1000, device = "cuda" })
    ]]
    assert.matches("large\tfalse\t[^\n]*CUDA: cannot allocate memory: unspecified launch failure %(of work begun before", text)
    assert.is_nil(text:find("out of memory", 1, true), text)
  end)

  it("come from the environment too, for programs", function()
    local command = ("PENUMBRA_EMULATED_FAIL=cudaLaunchKernel:1 PENUMBRA_CUDA_LIB=%s build/penumbra -e '%s'"):format(
      device.library, 'pn.relu(pn.zeros { 2, device = "cuda" })')
    assert.matches("CUDA: cannot launch the kernel [%w_]+: unknown error", (shell.run(command)))
  end)
end)

describe("memory that a pool gives out", function()
  it("is watched: a piece that is given back is none, and begins as NaN", function()
    local t = pn.ones { 1000, device = "cuda" }
    assert.equal(1, t:get(1)) -- its own stream has come so far
    local p = ffi.cast("uint8_t *", pn.C.pn_tensor_data(t.p))
    local s = stream()
    ok(C.cudaMemsetAsync(p, 0, 4000, s))
    refused("cudaErrorInvalidValue", C.cudaMemsetAsync(p, 0, pn.real == "f64" and 8001 or 4001, s))
    ok(C.cudaStreamSynchronize(s))
    t:free()
    refused("cudaErrorInvalidValue", C.cudaMemsetAsync(p, 0, 4000, s))
    ok(C.cudaStreamDestroy(s))
    local fresh = pn.empty { 1000, device = "cuda" }
    local value = fresh:get(1)
    assert.is_true(value ~= value)
  end)

  it("is lent before it comes back, also when the stream that waits for an upload has failed before", function()
    local x, width = pn.ones { 10, device = "cuda" }, pn.real == "f64" and 8 or 4
    -- Where an upload of that many bytes lay, which goes at once.
    local function lose(bytes)
      local here = pn.ones { bytes / width }
      ok(C.cudaDeviceSynchronize())
      emulation.fail("task", 1)
      local y, there = pn.relu(x), here:to "cuda"
      local at = pn.C.pn_tensor_data(there.p)
      helper.failure(function() pn.device.wait "cuda" end, "unspecified launch failure")
      there:free()
      y:free()
      return at
    end
    collectgarbage()
    collectgarbage() -- so that none comes back in between
    local at = lose(1024)
    ok(C.cudaDeviceSynchronize())
    assert.equal(at, lose(520)) -- in 3 times 512 bytes, with what is watched behind it
    ok(C.cudaDeviceSynchronize())
  end)
end)

describe("a kernel", function()
  local t
  before_each(function()
    t = pn.zeros { 16, dtype = "u8", device = "cuda" }
  end)

  -- The device complains when it is waited for.
  local function found(how, complaint)
    local other = pn.ones { 2, device = "cuda" }
    assert.equal(0, C.pn_emulated_misbehave(how, pn.C.pn_tensor_data(t.p), 16))
    t:free()
    helper.failure(function() return other:to "cpu" end, "unspecified launch failure")
    assert.matches(complaint, ffi.string(C.pn_emulated_complaint()))
    assert.same({ 1, 1 }, other:to("cpu"):totable())
  end

  if not emulation.sanitized then -- the sanitizer ends the program at once
    it("that writes behind the end of a tensor is found when the tensor is given back", function()
      found("beyond", "something wrote 0 bytes behind the end of a tensor or scratch of 16 bytes")
    end)

    it("that writes behind its shared memory is found", function()
      found("beyond shared", "beyond_shared: block 0 wrote behind its 8 bytes of shared memory")
    end)
  end

  it("some of whose threads leave a barrier to the others is found", function()
    found("leaving", "leaving: 2 threads of block 0 wait at a barrier that 2 others have left")
  end)

  it("whose threads write one place gives what the order makes of it", function()
    for order, last in pairs { [0] = 23, [1] = 0, [2] = 22 } do
      emulation.with("ORDER", order, 0, function()
        assert.equal(0, C.pn_emulated_misbehave("racing", pn.C.pn_tensor_data(t.p), 16))
        assert.equal(last, t:get(1), "order " .. order)
      end)
    end
  end)

  it("that meets at a barrier without PN_LAUNCH_TEAM is found", function()
    found("meeting", "it needs PN_LAUNCH_TEAM")
  end)

  it("of no block, of too many threads or of too much shared memory is refused", function()
    for _, how in ipairs { "no blocks", "too many threads", "too much shared" } do
      assert.equal(-1, C.pn_emulated_misbehave(how, pn.C.pn_tensor_data(t.p), 16))
      assert.equal("CUDA: cannot launch the kernel meeting: invalid configuration argument", require("penumbra.ffi").message())
    end
  end)
end)

-- (matmul_spec.lua has the rest of its refusals; that the plug-in asks for the right sums shows in its products of 16 bits.)
describe("the emulated cuBLASLt", function()
  it("refuses a result of 16 bits where parts of its sums may be added in 16 bits", function()
    local function made(kind, create, ...)
      local p = out(kind)
      assert.equal(0, tonumber(create(p, ...)))
      return p[0]
    end
    ok(C.cudaSetDevice(0))
    local handle = made("cublasLtHandle_t", C.cublasLtCreate)
    local desc = made("cublasLtMatmulDesc_t", C.cublasLtMatmulDescCreate, "CUBLAS_COMPUTE_32F", "CUDA_R_32F")
    local preference = made("cublasLtMatmulPreference_t", C.cublasLtMatmulPreferenceCreate)
    local function ask(kind, how)
      local l, n = made("cublasLtMatrixLayout_t", C.cublasLtMatrixLayoutCreate, kind, 2, 2, 2), out "int"
      local results, value = ffi.new "cublasLtMatmulHeuristicResult_t[1]", ffi.new("uint32_t[1]", how)
      assert.equal(how > 7 and "CUBLAS_STATUS_INVALID_VALUE" or "CUBLAS_STATUS_SUCCESS",
        ffi.string(C.cublasLtGetStatusName(C.cublasLtMatmulPreferenceSetAttribute(preference,
          "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK", value, 4))))
      local status = C.cublasLtMatmulAlgoGetHeuristic(handle, desc, l, l, l, l, preference, 1, results, n)
      assert.equal(0, tonumber(C.cublasLtMatrixLayoutDestroy(l)))
      return (ffi.string(C.cublasLtGetStatusName(status)):gsub("CUBLAS_STATUS_", ""))
    end
    for _, kind in ipairs { "CUDA_R_16F", "CUDA_R_16BF" } do
      for how, expected in pairs { [0] = "SUCCESS", "NOT_SUPPORTED", "SUCCESS", "NOT_SUPPORTED", [7] = "NOT_SUPPORTED" } do
        assert.equal(expected, ask(kind, how), kind .. " " .. how)
      end
    end
    assert.equal("SUCCESS", ask("CUDA_R_32F", 7))
    ask("CUDA_R_32F", 8)
    C.cublasLtMatmulPreferenceDestroy(preference)
    C.cublasLtMatmulDescDestroy(desc)
    C.cublasLtDestroy(handle)
  end)
end)
