--- What specs do to the emulated device: faults, settings, counts, and its libraries called directly. nil where the device of the
-- specs is a true one: `local emulation = require("spec.gpu.emulation") or return`.

local device = require "spec.gpu.device"
local ffi = require "ffi"

if not device.emulated then
  return false
end

-- Hands a header of gpu/emulated to LuaJIT, without what only the compiler reads.
local function declare(path)
  local lines = {}
  for line in io.lines("gpu/emulated/" .. path) do
    if line:sub(1, 1) ~= "#" and line ~= 'extern "C" {' and line ~= "}" then
      lines[#lines + 1] = (line:gsub("PN_EMULATED_API ", ""))
    end
  end
  ffi.cdef(table.concat(lines, "\n"))
end

declare "emulated.h"
declare "include/cuda_runtime.h"
declare "include/cudnn.h"
declare "include/cublasLt.h"

local emulation = {}

--- The library: its controls (gpu/emulated/emulated.h) and the CUDA calls it has.
local C = ffi.load(device.library)
emulation.C = C

--- Is it built with the address sanitizer?
emulation.sanitized = device.library:find("asan", 1, true) ~= nil

--- The nth call from now of that name fails, once; "*": of any name.
function emulation.fail(call, nth) C.pn_emulated_fail(call, nth or 1) end

--- No fault, and settings as they were.
function emulation.mend()
  C.pn_emulated_fail("", 0)
end

--- Runs f under a setting.
function emulation.with(setting, value, usual, f)
  C.pn_emulated_set(setting, value)
  local ok, message = pcall(f)
  C.pn_emulated_set(setting, usual)
  assert(ok, message)
end

--- Calls since the last emulation.forget(), by name.
function emulation.calls()
  local bytes = tonumber(C.pn_emulated_list_calls(nil, 0)) + 1
  local buffer, counts = ffi.new("char[?]", bytes), {}
  C.pn_emulated_list_calls(buffer, bytes)
  for name, count in ffi.string(buffer):gmatch "(%S+) (%d+)" do
    counts[name] = tonumber(count)
  end
  return counts
end

--- The same, one after the other in the order of their names: for call, count in emulation.each_call() do
function emulation.each_call()
  local counts, names, i = emulation.calls(), {}, 0
  for name in pairs(counts) do names[#names + 1] = name end
  table.sort(names)
  return function()
    i = i + 1
    return names[i], names[i] and counts[names[i]]
  end
end

function emulation.forget() C.pn_emulated_forget() end

local kinds = { "cudaStream", "cudaEvent", "cudaGraph", "cudaGraphExec", "cudnnHandle", "cudnnBackendDescriptor", "cublasLtHandle",
  "cublasLtMatrixLayout", "cublasLtMatmulDesc", "cublasLtMatmulPreference", "cudaMalloc", "cudaHostAlloc" }

--- What is alive: handles, descriptors, events by number, memory by bytes.
function emulation.alive()
  local counts = {}
  for _, kind in ipairs(kinds) do
    counts[kind] = tonumber(C.pn_emulated_alive(kind))
  end
  return counts
end

return emulation
