-- backend_spec: what is said when a device is asked for that is not there. Each case is a program of its own: a library opens once.
local pn = require "penumbra"
local binding = require "penumbra.ffi"
local ffi = require "ffi"

-- What `penumbra -e code` prints, both streams, with PENUMBRA_CUDA_LIB set.
local function said(library, code)
  local program = ffi.string(binding.library_path):match("^(.*)/[^/]*$") .. "/penumbra"
  if not io.open(program) then program = "build/penumbra" end
  local pipe = io.popen(("PENUMBRA_CUDA_LIB=%s %s -e '%s' 2>&1"):format(library, program, code))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

describe("a device", function()
  it("that has no plug-in is one clear message", function()
    assert.matches("no CUDA: /nowhere/libpenumbra_cuda.so: cannot open shared object file",
      said("/nowhere/libpenumbra_cuda.so", 'require("penumbra").zeros { 2, device = "cuda" }'))
  end)

  it("whose plug-in is something else is named", function()
    assert.matches("no CUDA: .* is not a backend of Penumbra",
      said(binding.library_path, 'require("penumbra").zeros({ 2 }):to("cuda:1")'))
  end)

  it("is counted: none, with the reason", function()
    assert.matches("^0\tno CUDA: ",
      said("/nowhere/x.so", 'local b = require "penumbra.ffi"; print(b.C.pn_n_devices(), b.message())'))
  end)

  it("with a strange name is refused", function()
    local ok, message = pcall(function() return pn.zeros { 2, device = "gpu" } end)
    assert.is_false(ok)
    assert.matches('unknown device', message)
  end)

  it("that is a CPU without the kernels asked for is refused", function()
    local pipe = io.popen("PENUMBRA_CPU=mmx build/penumbra -e 'print(require(\"penumbra\").zeros{1})' 2>&1")
    local text = pipe:read "*a"
    pipe:close()
    assert.matches('PENUMBRA_CPU: no CPU variant "mmx" %(plain, avx2, avx512, avx512_bf16, amx%)', text)
  end)

  it("describes itself", function()
    local buffer = ffi.new("char[256]")
    binding.check(binding.C.pn_device_describe(binding.C.PN_CPU, buffer, 256))
    assert.matches("^penumbra .*kernels", ffi.string(buffer))
  end)
end)
