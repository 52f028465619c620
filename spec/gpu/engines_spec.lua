--- The true cuDNN, asked what it would do on an H100: it makes plans for a device that is described to it and need not be there.
-- Every convolution that FCN-I3D trains by, in each precision: forward with its epilogue, and both gradients.

require "spec.gpu.device"
local pn = require "penumbra"
local binding = require "penumbra.ffi"
local ops = require "penumbra.ops"
local cases = require "spec.cases"
local ffi = require "ffi"

ffi.cdef [[
  int pn_cudnn_check(const char *device, const char *problem, int64_t workspace_bytes, char *report, size_t bytes);
]]

pn.C.pn_n_devices() -- opens the device's plug-in, and with a true one cuDNN, which may lie where the loader does not look
local folder, opened, cuda = ffi.string(binding.library_path):match("^(.*)/[^/]*$"), nil, nil
for _, name in ipairs { "libpenumbra_cuda.so", "libpenumbra_cuda_check.so" } do -- the second is that of make test
  if not opened then opened, cuda = pcall(ffi.load, folder .. "/" .. name) end
end

-- What cuDNN asks of a card, as it writes it itself: an H100 SXM.
local H100 = [[{"deviceVer":900,"driverVer":13000,"cudaDeviceId":0,"deviceName":"NVIDIA H100 80GB HBM3","multiProcessorCount":132,
  "maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,"warpSize":32,
  "maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":232448,"reservedSharedMemoryPerBlock":1024,
  "maxRegistersPerSM":65536,"maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0,
  "supportCoopLaunch":1,"smClockRateKHz":1980000,"memClockRateKHz":2619000,"l2CacheSize":52428800,"totalGlobalMem":85028962304}]]

local KIND = { forward = 0, data = 1, weight = 2 }
local LIMIT = 2 ^ 30

-- p in the order of pn_cudnn_problem (gpu/cudnn_convolve.h).
local function text_of(p)
  local numbers = { "v1" }
  for _, name in ipairs {
    "kind", "dtype", "bias", "relu", "tf32", "exact", "deterministic", "n", "c", "o", "groups", "x", "y", "kernel", "stride",
    "dilation", "low", "high", "x_stride", "y_stride", "x_align", "w_align", "y_align",
  } do
    local v = p[name]
    for _, number in ipairs(type(v) == "table" and v or { v or 0 }) do
      numbers[#numbers + 1] = ("%d"):format(number)
    end
  end
  return table.concat(numbers, ",")
end

local report = ffi.new "char [4096]"

local function ask(p, device)
  local rc = cuda.pn_cudnn_check(device or H100, type(p) == "string" and p or text_of(p), LIMIT, report, 4096)
  return rc, rc < 0 and binding.message() or ffi.string(report)
end

local function strides(c, size) -- of n,t,h,w
  return { c * size[3] * size[2] * size[1], c * size[3] * size[2], c * size[3], c }
end

local function triple(v) return type(v) == "table" and v or { v, v, v } end

-- The geometry of one call of conv3d or conv_transpose3d, named as in core/kernels/convolve.h.
local function geometry(name, x, w, result, args)
  local large, small = x, result
  if name == "conv_transpose3d" then large, small = result, x end
  local p = {
    n = x[1], c = large[2], o = small[2], groups = args.groups or 1, x = { large[3], large[4], large[5] }, deterministic = 1,
    y = { small[3], small[4], small[5] }, kernel = { w[3], w[4], w[5] }, stride = triple(args.stride or 1),
    dilation = triple(args.dilation or 1), low = {}, high = {}, x_align = 16, w_align = 16, y_align = 16,
  }
  for d = 1, 3 do
    local pad = args.pad or "same"
    if pad == "same" then
      local total = math.max((p.y[d] - 1) * p.stride[d] + (p.kernel[d] - 1) * p.dilation[d] + 1 - p.x[d], 0)
      p.low[d], p.high[d] = math.floor(total / 2), math.ceil(total / 2)
    else
      pad = type(pad) == "table" and pad[d] or pad
      p.low[d], p.high[d] = type(pad) == "table" and pad[1] or pad, type(pad) == "table" and pad[2] or pad
    end
  end
  p.x_stride, p.y_stride = strides(p.c, p.x), strides(p.o, p.y)
  return p
end

-- Every convolution of a training step on 16 x 224 x 224, once each, found by a dry run.
local function convolutions()
  local found, seen, kept = {}, {}, {}
  for _, name in ipairs { "conv3d", "conv_transpose3d" } do
    kept[name] = ops[name]
    ops[name] = function(x, w, bias, ...)
      local args = select(select("#", ...), ...)
      local y = kept[name](x, w, bias, ...)
      local p = geometry(name, x:shape(), w:shape(), y:shape(), type(args) == "table" and args or {})
      p.transposed, p.bias, p.relu = name == "conv_transpose3d", bias and 1, type(args) == "table" and args.relu and 1
      local key = text_of(p) .. name
      if not seen[key] then found[#found + 1] = p end
      seen[key] = true
      return y
    end
  end
  local ok, problem = pcall(function()
    local net = require "models.fcn_i3d" { skips = { "1a", "2c", "3c", "4f" }, deconv_init = "random" }
    require "penumbra.footprint"(net, { shape = { 1, 3, 16, 224, 224 }, dry = true })
  end)
  for name, f in pairs(kept) do ops[name] = f end
  if not ok then error(problem, 0) end
  return found
end

local function with(p, changes)
  local q = {}
  for key, value in pairs(p) do q[key] = value end
  for key, value in pairs(changes) do q[key] = value end
  return q
end

local DTYPE = binding.dtype_numbers

describe("cuDNN's engines for an H100", function()
  if not opened or pn.real ~= "f32" then
    pending("no plug-in for CUDA here: " .. tostring(cuda):gsub("\n.*", ""))
    return
  end
  local list = convolutions()

  it("are asked about all of the network", function()
    local n, transposed, strided, asymmetric = #list, 0, 0, 0
    for _, p in ipairs(list) do
      transposed = transposed + (p.transposed and 1 or 0)
      strided = strided + (p.stride[2] > 1 and not p.transposed and 1 or 0)
      for d = 1, 3 do if p.low[d] ~= p.high[d] then asymmetric = asymmetric + 1 break end end
    end
    assert.is_true(n > 40 and transposed >= 4 and strided >= 1 and asymmetric >= 1,
      ("%d convolutions, %d transposed, %d strided, %d asymmetric"):format(n, transposed, strided, asymmetric))
  end)

  for _, precision in ipairs { "f32", "tf32", "bf16", "fp16" } do
    local dtype = DTYPE[({ bf16 = "bf16", fp16 = "f16" })[precision] or "f32"]
    it("take every convolution of FCN-I3D in " .. precision .. ", forward and both gradients, within 1 GiB", function()
      for _, p in ipairs(list) do
        for kind, number in pairs(KIND) do
          local forward = kind == "forward"
          local ends = forward and not p.transposed and (p.bias or p.relu)
          local rc, text = ask(with(p, {
            kind = number, dtype = dtype, tf32 = precision == "tf32" and 1 or 0, bias = ends and 1 or 0,
            relu = ends and p.relu or 0,
          }))
          assert.equal(0, rc, text)
        end
      end
    end)
  end

  local one = geometry("conv3d", { 1, 64, 16, 56, 56 }, { 192, 64, 3, 3, 3 }, { 1, 192, 16, 56, 56 }, {})

  it("on tensor cores are taken for f32 only where TF32 is allowed", function()
    local _, exact = ask(with(one, { kind = 0, dtype = DTYPE.f32 }))
    local _, tf32 = ask(with(one, { kind = 0, dtype = DTYPE.f32, tf32 = 1 }))
    assert.matches("^forward of 1,64,16,56,56 by 192,64,3,3,3 in f32: engine %d+", exact)
    assert.matches("^forward of 1,64,16,56,56 by 192,64,3,3,3 in tf32: engine %d+", tf32)
    assert.are_not.equal(exact:match "engine %d+", tf32:match "engine %d+")
  end)

  it("write a slice of a concatenation, read one, and take odd channels and groups", function()
    local wide = with(one, { y_stride = strides(480, one.y), y_align = 4 })
    for kind, number in pairs(KIND) do
      for _, dtype in ipairs { DTYPE.f32, DTYPE.bf16, DTYPE.f16 } do
        for what, p in pairs {
          slice = with(wide, { c = 64, y_align = 8 }),
          odd = geometry("conv3d", { 2, 3, 4, 6, 5 }, { 5, 3, 3, 3, 3 }, { 2, 5, 2, 3, 3 }, { stride = 2 }),
          groups = geometry("conv3d", { 1, 64, 8, 28, 28 }, { 64, 16, 3, 3, 3 }, { 1, 64, 8, 28, 28 }, { groups = 4 }),
        } do
          local rc, text = ask(with(p, { kind = number, dtype = dtype }))
          assert.equal(0, rc, what .. " " .. kind .. " " .. dtype .. ": " .. text)
        end
      end
    end
  end)

  it("take odd paddings, strides, dilations and groups, and clips of many gigabytes, in every type", function()
    for text, args in pairs {
      ["1,8,4,6,6 8,8,1,1,1"] = { pad = { { 2, 3 }, { 3, 3 }, { 4, 2 } } },
      ["1,8,4,6,6 8,8,3,3,3"] = { pad = 3 },
      ["1,8,9,9,9 8,8,3,3,3"] = { pad = { { 2, 1 }, { 0, 2 }, { 2, 2 } }, dilation = 2, stride = 3 },
      ["1,8,9,9,9 8,8,1,1,1"] = { pad = 0, stride = 4 },
      ["1,3,9,40,40 8,3,9,31,31"] = { pad = { 4, 15, 15 } },
      ["1,3,1,1,1 8,3,3,3,3"] = { pad = 1 },
      ["4,64,64,480,864 64,64,3,3,3"] = { pad = 1 },
      ["1,16,4,28,28 16,1,3,3,3"] = { pad = 1, groups = 16 },
      ["1,1,16,224,224 1,1,4,16,16"] = { pad = { { 1, 1 }, { 6, 6 }, { 6, 6 } }, stride = { 2, 8, 8 } },
    } do
      local inputs = cases.parse_case(text)
      local clip, weight = inputs[1].shape, inputs[2].shape
      local p = geometry("conv3d", clip, weight, { clip[1], weight[1], 1, 1, 1 }, args)
      for d = 1, 3 do
        p.y[d] = math.floor((p.x[d] + p.low[d] + p.high[d] - (p.kernel[d] - 1) * p.dilation[d] - 1) / p.stride[d]) + 1
      end
      p.y_stride = strides(p.o, p.y)
      for kind, number in pairs(KIND) do
        for _, dtype in ipairs { "f32", "tf32", "bf16", "f16", "f64" } do
          local tf32 = dtype == "tf32"
          local rc, said = ask(with(p, { kind = number, dtype = DTYPE[tf32 and "f32" or dtype], tf32 = tf32 and 1 or 0 }))
          assert.equal(0, rc, text .. " " .. kind .. " " .. dtype .. ": " .. said)
        end
      end
    end
  end)

  it("say what they do not take, and what is no problem at all", function()
    local rc, text = ask(with(one, { kind = 0, dtype = DTYPE.f32, y = { 16, 56, 55 } }))
    assert.equal(-1, rc)
    assert.matches("^cuDNN: cannot describe a convolution: CUDNN_STATUS_BAD_PARAM", text)
    assert.matches("%(forward of 1,64,16,56,56 by 192,64,3,3,3 in f32%)$", text)
    rc, text = ask("v1,2,3")
    assert.equal(-1, rc)
    assert.equal("cuDNN: no problem: v1,2,3", text)
    rc, text = ask(with(one, { kind = 0, dtype = 0 }), "{}")
    assert.equal(-1, rc)
    assert.matches("^cuDNN: cannot describe the device", text)
    assert.equal(-1, cuda.pn_cudnn_check(nil, "", LIMIT, report, 4096))
    assert.equal("cudnn_check: NULL", binding.message())
    rc, text = cuda.pn_cudnn_check(H100, text_of(with(one, { kind = 2, dtype = DTYPE.f32 })), 0, report, 4096), ffi.string(report)
    assert.is_true(rc == 0 or rc == 1, text) -- with no workspace at all: an engine that needs none, or the reason
  end)
end)
