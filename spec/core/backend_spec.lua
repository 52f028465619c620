-- backend_spec: what is said when a device is asked for that is not there. Each case is a program of its own: a library opens once.
local pn = require "penumbra"
local binding = require "penumbra.ffi"
local ffi = require "ffi"
local files = require "penumbra.base.files"
local helper = require "spec.helper"
local shell = require "penumbra.base.shell"

-- What `penumbra -e code` prints, both streams, with PENUMBRA_CUDA_LIB set.
local function said(library, code, environment)
  local program = ffi.string(binding.library_path):match("^(.*)/[^/]*$") .. "/penumbra"
  if not io.open(program) then program = "build/penumbra" end
  return (shell.run(("%s PENUMBRA_CUDA_LIB=%s %s -e %s"):format(environment or "", library, program, shell.quote(code))))
end

describe("a device", function()
  it("that has no plug-in is one clear message", function()
    assert.matches("no CUDA: /nowhere/libpenumbra_cuda.so: cannot open shared object file",
      said("/nowhere/libpenumbra_cuda.so", 'require("penumbra").zeros { 2, device = "cuda" }'))
  end)

  it("whose plug-in was never built says how to build it", function()
    if io.open "build/libpenumbra_cuda.so" then pending "build/libpenumbra_cuda.so is there" end
    assert.matches("no CUDA: there is no %S*/libpenumbra_cuda.so; `make cuda` builds it %(docs/gpu.md%)",
      said("''", 'require("penumbra").zeros { 2, device = "cuda" }'))
  end)

  it("whose plug-in is something else is named", function()
    assert.matches("no CUDA: .* is not a backend of Penumbra",
      said(binding.library_path, 'require("penumbra").zeros({ 2 }):to("cuda:1")'))
  end)

  describe("whose plug-in needs a library", function()
    local top = helper.directory(teardown)
    local has_compiler = shell.succeeds "command -v gcc"
    local ask = 'require("penumbra").zeros { 2, device = "cuda" }'

    local PACKAGES = "/lib/python3*/*-packages/nvidia/*/lib"

    local function must(format, ...) assert.is_true(shell.succeeds(format:format(...))) end

    setup(function()
      if not has_compiler then return end
      must("mkdir -p %s/far %s/env/lib/python3.11/site-packages/nvidia/far/lib", top, top)
      assert.is_nil(files.write(top .. "/far.c", "int far(void); int far(void) { return 1; }"))
      assert.is_nil(files.write(top .. "/plug.c", "int far(void); int near(void); int near(void) { return far(); }"))
      must("cd %s && gcc -shared -fPIC -Wl,-soname,libfar.so.7 far.c -o far/libfar.so.7", top)
      must("cd %s && gcc -shared -fPIC plug.c far/libfar.so.7 -o libplug.so", top)
      must("cd %s && cp far/libfar.so.7 env/lib/python3.11/site-packages/nvidia/far/lib/", top)
    end)

    it("that is nowhere says where it looked", function()
      if not has_compiler then pending "no gcc" end
      local text = said(top .. "/libplug.so", ask, "CUDA_HOME=/opt/mine VIRTUAL_ENV=/opt/env PENUMBRA_CUDA_PATH=/one:/two")
      local begins = "no CUDA: " .. top .. "/libplug.so: there is no libfar.so.7 where the loader looks, nor in /one, /two, "
        .. "/opt/mine/lib64, /usr/local/cuda/lib64, /opt/env" .. PACKAGES
      assert.truthy(text:find(begins, 1, true), text)
      assert.truthy(text:find("(PENUMBRA_CUDA_PATH=FOLDER:... names more)", 1, true), text)
      text = said(top .. "/libplug.so", ask, "PATH=/usr/bin HOME=" .. top .. "/nobody")
      assert.truthy(text:find((", /usr/local%s, %s/nobody/.local%s ("):format(PACKAGES, top, PACKAGES), 1, true), text)
    end)

    it("finds it in a folder that is named, and among Python's packages", function()
      if not has_compiler then pending "no gcc" end
      must("mkdir -p %s/conda && cp -r %s/far %s/conda/lib", top, top, top)
      for _, environment in ipairs {
        "PENUMBRA_CUDA_PATH=/nowhere:" .. top .. "/far", "VIRTUAL_ENV=" .. top .. "/env", "CONDA_PREFIX=" .. top .. "/conda",
      } do
        local text = said(top .. "/libplug.so", ask, environment)
        assert.truthy(text:find("libplug.so is not a backend of Penumbra", 1, true), text)
      end
      must("mkdir -p %s/home/.local/lib && cp -r %s/env/lib/python3.11 %s/home/.local/lib/", top, top, top)
      assert.truthy(said(top .. "/libplug.so", ask, "HOME=" .. top .. "/home"):find("is not a backend of Penumbra", 1, true))
      must("mkdir -p %s/env/bin && ln -s /bin/true %s/env/bin/python3", top, top)
      local text = said(top .. "/libplug.so", ask, ("PATH=%s/env/bin:$PATH"):format(top))
      assert.truthy(text:find("is not a backend of Penumbra", 1, true), text)
    end)
  end)

  it("of the true plug-in is not there, on a machine without a card", function()
    local folder = ffi.string(binding.library_path):match "^(.*)/[^/]*$"
    local tried = 0
    for _, name in ipairs { "libpenumbra_cuda.so", "libpenumbra_cuda_check.so" } do -- the second is that of make test
      local library = folder .. "/" .. name
      if files.exists(library) then
        tried = tried + 1
        local text = said(library, 'print(require("penumbra.ffi").C.pn_n_devices(), require("penumbra.ffi").message())')
        if text:match "^[1-9]" then pending "there is a card" end
        assert.truthy(text:find("0\tno CUDA: no device", 1, true) or text:find("0\tno CUDA: CUDA driver version", 1, true)
          or text:find("0\tno CUDA: no CUDA-capable device", 1, true), text)
      end
    end
    if tried == 0 then pending "no plug-in for CUDA here: nvcc and cuDNN are wanted (make test builds one with them)" end
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
    local text = shell.run "PENUMBRA_CPU=mmx build/penumbra -e 'print(pn.zeros{1})'"
    assert.matches('PENUMBRA_CPU: no CPU variant "mmx" %(plain, avx2, avx512, avx512_bf16, amx%)', text)
  end)

  it("describes itself", function()
    local buffer = ffi.new("char[256]")
    binding.check(binding.C.pn_device_describe(binding.C.PN_CPU, buffer, 256))
    assert.matches("^penumbra .*kernels", ffi.string(buffer))
  end)
end)
