--- Tensors on a CUDA device without operations: ways there and back, conversions, constants, memory and its accounts, several
-- devices.

local device = require "spec.gpu.device"
local pn = require "penumbra"
local helper = require "spec.helper"
local shell = require "penumbra.base.shell"
local C = pn.C

local types = { "f32", "f64", "f16", "bf16", "i64", "i32", "u8" }

local function numbers(shape, dtype)
  local t = helper.random(shape, "device", 0, 100):cast "i32" -- whole numbers: every type holds them
  return t:cast(dtype)
end

-- Views of one content that lie differently in memory.
local function views(t)
  local list = { rows = t, filter = t:contiguous "filter", channels_last = t:contiguous "channels_last" }
  local wide = pn.zeros { 2, 3, 4, 5, 14, dtype = t:dtype() }
  list.gaps = wide:slice { axis = 5, first = 2, count = 6, step = 2 }
  list.gaps:copy(t)
  return list
end

local function same(a, b, what)
  assert.same(b:to("cpu"):cast("f64"):flat(), a:to("cpu"):cast("f64"):flat(), what)
end

describe("a tensor on a device", function()
  it("comes back as it went, whatever its type and memory order", function()
    for _, dtype in ipairs(types) do
      for name, t in pairs(views(numbers({ 2, 3, 4, 5, 6 }, dtype))) do
        local there = t:to "cuda"
        assert.equal("cuda:0", there:device())
        assert.equal(dtype, there:dtype())
        same(there, t, dtype .. " " .. name)
      end
    end
  end)

  it("is copied to and from every order and type", function()
    local from = numbers({ 2, 3, 4, 5, 6 }, "u8")
    for _, dtype in ipairs(types) do
      for name, t in pairs(views(from)) do
        for to_name, to in pairs(views(numbers({ 2, 3, 4, 5, 6 }, dtype))) do
          local what = ("%s to %s %s"):format(name, dtype, to_name)
          local there = to:to("cuda"):fill(0)
          same(there:copy(t), from, what .. " up")
          same(to:fill(0):copy(t:to "cuda"), from, what .. " down")
          same(there:fill(0):copy(t:to "cuda"), from, what .. " across")
        end
      end
    end
  end)

  it("converts numbers as the CPU does", function()
    local hard = pn.tensor({ -1e30, -300.7, -1.5, -0.4, 0, 0.4, 1.5, 2.5, 65519, 65520, 70000, 1e30, 1e-8, 6e-8,
      3.14159 }, { dtype = "f64" })
    for _, dtype in ipairs(types) do
      same(hard:to("cuda"):cast(dtype), hard:cast(dtype), dtype)
      same(hard:cast(dtype):to("cuda"):cast "f32", hard:cast(dtype):cast "f32", "from " .. dtype)
    end
    local nan = pn.tensor { 0 / 0, 1 / 0, -1 / 0 }
    assert.same({ 0, 255, 0 }, nan:to("cuda"):cast("u8"):to("cpu"):totable())
  end)

  it("gives and takes single elements", function()
    local t = numbers({ 3, 4 }, "f16"):to "cuda"
    t:set(42, 2, 3)
    assert.equal(42, t:get(2, 3))
    assert.equal(42, t:slice(1, 2, 1):slice(2, 3, 1):item())
  end)

  it("counts what is not finite", function()
    for _, dtype in ipairs { "f32", "f64", "f16", "bf16" } do
      local t = pn.zeros { 40, 70, dtype = dtype }
      t:set(0 / 0, 3, 4)
      t:set(1 / 0, 40, 70)
      local bad = require("ffi").new "int64_t[1]"
      assert.equal(0, C.pn_tensor_check_finite(t:to("cuda").p, bad))
      assert.equal(2, tonumber(bad[0]), dtype)
    end
  end)

  it("may have no elements", function()
    local t = pn.zeros { 0, 3 }:to "cuda"
    assert.same({}, t:to("cpu"):flat())
    t:fill(1)
    t:copy(pn.zeros { 0, 3 })
    assert.same({ 0, 3 }, t:cast("u8"):shape())
  end)

  it("larger than the pinned buffers travels in pieces", function()
    local t = helper.random({ 3, 1024, 1500 }, "pieces")
    assert.equal(t:crc32c(), t:to("cuda"):to("cpu"):crc32c())
    local there = pn.empty { 3, 1024, 1500, device = "cuda" }
    there:copy(t)
    assert.equal(t:crc32c(), there:crc32c())
  end)

  it("uploaded while older memory is still in use is not mixed up with it", function()
    local sums = {}
    for i = 1, 12 do
      pn.scope(function()
        local t = pn.full { 4000, value = i }:to "cuda"
        sums[i] = pn.relu(pn.relu(t)):keep()
      end)
    end
    for i = 1, 12 do assert.equal(i, sums[i]:get(4000)) end
  end)
end)

describe("the memory of a device", function()
  it("is counted, cached, and given back", function()
    collectgarbage()
    C.pn_memory_trim(1)
    local before = pn.memory "cuda"
    local t = pn.empty { 3 * 1024 * 1024, dtype = "u8", device = "cuda" }
    local during = pn.memory "cuda"
    assert.equal(3 * 1024 * 1024, during.live - before.live)
    assert.is_true(during.held >= before.held + 3 * 1024 * 1024)
    t:free()
    local after = pn.memory "cuda"
    assert.equal(before.live, after.live)
    assert.is_true(after.cached >= 3 * 1024 * 1024)
    C.pn_memory_trim(1)
    assert.is_true(pn.memory("cuda").held < after.held)
  end)

  it("is used again at once", function()
    local held
    for i = 1, 20 do
      pn.scope(function() pn.relu(pn.relu(pn.zeros { 1000 * 1000, device = "cuda" })) end)
      if i == 2 then held = pn.memory("cuda").held end
    end
    assert.equal(held, pn.memory("cuda").held)
  end)

  it("has a limit, and says who holds what when it is reached", function()
    finally(function()
      C.pn_memory_set_limit(1, 0)
      C.pn_memory_set_label ""
    end)
    local live = pn.memory("cuda").live
    C.pn_memory_set_label "mixed_3b.branch1"
    local held = pn.zeros { 500 * 1000, device = "cuda", dtype = "f32" }
    C.pn_memory_set_limit(1, live + 4 * 1000 * 1000)
    C.pn_memory_set_label "mixed_4f"
    helper.failure(function() pn.zeros { 900 * 1000, device = "cuda", dtype = "f32" } end, "out of memory", "cuda:0", "mixed_4f",
      "mixed_3b.branch1 1.9 MiB")
    held:free()
  end)
end)

describe("several devices", function()
  local n = C.pn_n_devices()
  it("are counted and described", function()
    assert.is_true(n >= 1)
    local buffer = require("ffi").new "char[256]"
    assert.equal(0, C.pn_device_describe(1, buffer, 256))
    assert.matches("sm_%d+, [%d.]+ GiB", require("ffi").string(buffer))
    helper.failure(function() pn.zeros { 1, device = "cuda:" .. n } end, ("no device cuda:%d (%d found)"):format(n, n))
  end)

  it("exchange tensors, and do not mix in an operation", function()
    if n < 2 then pending("one device only") return end
    local t = numbers({ 2, 3, 4, 5, 6 }, pn.real)
    local second = t:to("cuda"):to "cuda:1"
    assert.equal("cuda:1", second:device())
    same(second, t)
    same(pn.zeros { 2, 3, 4, 5, 6, device = "cuda", dtype = "f16" }:copy(second), t)
    assert.is_true(pn.memory("cuda:1").live > 0)
    same(pn.relu(second), t)
  end)
end)

-- What `penumbra -e code` says under other settings of the emulation.
local function said(settings, code)
  return (shell.run(("%s PENUMBRA_CUDA_LIB=%s build/penumbra -e %s"):format(settings, device.library, shell.quote(code))))
end

describe("a device of the emulation", function()
  if not device.emulated then return end

  it("that is not there is one clear message", function()
    assert.matches("no CUDA: no CUDA%-capable device is detected",
      said("PENUMBRA_EMULATED_DEVICES=0", 'require("penumbra").zeros { 2, device = "cuda" }'))
  end)

  it("has one piece of the driver's memory for each tensor, as large as that, when told so", function()
    local text = said("PENUMBRA_MEMORY=exact", [[
      local pn = require "penumbra"
      local emulation = require "spec.gpu.emulation"
      local C, MARGIN = emulation.C, 512 -- gpu/emulated/lend.h
      local held = pn.ones { 5, device = "cuda" }
      local function pieces(f)
        collectgarbage()
        local bytes = C.pn_emulated_alive "cudaMalloc"
        emulation.forget()
        local result = f()
        local calls = emulation.calls()
        return result, tonumber(C.pn_emulated_alive "cudaMalloc" - bytes), calls.cudaMalloc or 0, calls.cudaFree or 0
      end
      local function row(what, f)
        local result, bytes, taken, given = pieces(f)
        print(what, bytes - MARGIN * (taken - given), taken, given)
        return result
      end
      local function bytes(n) return pn.empty { n, dtype = "u8", device = "cuda" } end
      local host = pn.ones { 1001, dtype = "u8" }
      local a = row("made", function() return bytes(1001) end)
      local b = row("sent", function() return host:to "cuda" end)
      row("freed", function() a:free() b:free() end)
      row("large", function() return bytes(3000001) end):free()
      print("memory", pn.memory("cuda").cached)
      local step = pn.captured(function(x) return pn.relu(pn.relu(x) * 2) end, { device = "cuda" })
      for i = 1, 4 do
        local y = step(pn.tensor { i, -i }:to "cuda")
        print("step", y:get(1), y:get(2))
      end
      step:forget()
      row("end", function() held:free() end)
      collectgarbage() -- handles first, then what they held
      collectgarbage()
      print("at last", pn.memory("cuda").held)
    ]])
    assert.matches("made\t1001\t1\t0\n", text)
    assert.matches("sent\t1001\t1\t0\n", text)
    assert.matches("freed\t%-2002\t0\t2\n", text)
    assert.matches("large\t3000001\t1\t0\n", text)
    assert.matches("memory\t0\n", text)
    for i = 1, 4 do assert.matches(("step\t%d\t0\n"):format(2 * i), text) end
    assert.matches("at last\t0\n", text)
  end)

  it("with another word there is refused", function()
    assert.matches("CUDA: cannot use PENUMBRA_MEMORY=exakt: only 'exact' is known",
      said("PENUMBRA_MEMORY=exakt", 'require("penumbra").zeros { 2, device = "cuda" }'))
  end)

  it("that is full gives back what is idle, then says who holds what", function()
    local text = said("PENUMBRA_EMULATED_MEMORY=100000000", [[
      local pn = require "penumbra"
      pn.C.pn_memory_set_label "conv3d_2c"
      local held = pn.zeros { 60, 1000, 1000, dtype = "u8", device = "cuda" }
      pn.zeros { 30, 1000, 1000, dtype = "u8", device = "cuda" }:free()
      local second = pn.zeros { 36, 1000, 1000, dtype = "u8", device = "cuda" }
      print "fits"
      pn.zeros { 30, 1000, 1000, dtype = "u8", device = "cuda" }
    ]])
    assert.matches("fits", text)
    assert.matches("out of memory: 28.6 MiB wanted on cuda:0 by conv3d_2c", text)
    assert.matches("conv3d_2c 91.6 MiB", text)
  end)
end)
