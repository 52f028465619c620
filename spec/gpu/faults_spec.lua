--- Every call that an operation makes of CUDA, cuDNN and cuBLAS fails in turn: the operation either fails with a sentence that says
-- what could not be done, or does without that call and gives the same; then it runs as before, and nothing has leaked.

local device = require "spec.gpu.device"
local emulation = require "spec.gpu.emulation"
local pn = require "penumbra"
local cases = require "spec.cases"
local helper = require "spec.helper"
local shell = require "penumbra.base.shell"
local ffi = require "ffi"

ffi.cdef "int unsetenv(const char *name);"

if not emulation then
  describe("faults on a device", function()
    it("are of the emulation", function() pending(device.library) end)
  end)
  return
end

-- Calls whose failure there is nothing to be done about: what they end is given up.
local function is_idle(call) return call:find "Destroy" or call == "cudaFree" or call == "cudaFreeHost" end

-- A message that says what could not be done.
local function says_what(message)
  return message:find("CUDA: cannot %a") or message:find("cuDNN: cannot %a") or message:find("cuBLAS: cannot %a") or
    message:find "out of memory"
end

local function moved(tensors)
  local there = {}
  for i, t in ipairs(tensors) do there[i] = t and t:to "cuda:0" end
  return there
end

-- Bytes on the device that nobody will collect; where they are `expected`, nobody need collect.
local function left(expected)
  if pn.memory("cuda").live ~= expected then
    collectgarbage()
    collectgarbage()
  end
  return pn.memory("cuda").live
end

local function on_cuda(name) return pn.ops.describe(name).devices:find("cuda", 1, true) ~= nil end

-- Forward, backward and the way home, of a case on the device.
local function runner(name, text)
  local inputs, arguments = cases.parse_case(text)
  local here = cases.make_inputs(inputs, cases.case_values(inputs, name))
  local there, weights = moved(here), moved(cases.output_weights(cases.run(name, here, arguments)))
  return function()
    return pn.scope(function()
      for _, t in ipairs(there) do
        if t then t:set_grad(nil) end
      end
      return cases.bits(cases.run(name, there, arguments, weights))
    end)
  end
end

-- Fails the nth call of a name while f runs; true when f failed, and said why.
local function fails(f, call, nth, expected, what)
  emulation.fail(call, nth)
  local ok, result = pcall(f)
  local fired = emulation.C.pn_emulated_pending() == 0
  emulation.mend()
  assert.equal(0, tonumber(emulation.C.cudaGetLastError()), what .. ": leaves its error to the next call")
  if not fired then return nil end
  if ok then
    assert.equal(expected, result, what .. ": other numbers")
    return false
  end
  assert.is_truthy(says_what(tostring(result)), ("%s: %s"):format(what, tostring(result)))
  return true
end

-- Fails each call that run() makes, in turn; run returns what must not change. Returns how many times it failed.
local function walk_through(run, name)
  local expected, failed = run(), 0
  emulation.forget()
  assert.equal(expected, run(), name)
  local live = left()
  for call, count in emulation.each_call() do
    for nth = 1, is_idle(call) and 0 or count do
      local what = ("%s, %s %d of %d"):format(name, call, nth, count)
      if fails(run, call, nth, expected, what) then
        failed = failed + 1
        local ok, result = pcall(run)
        assert.equal(expected, ok and result, ("%s: after it, %s"):format(what, tostring(result)))
        assert.equal(live, left(live), what .. ": memory is left")
      end
    end
  end
  return failed
end

describe("a fault", function()
  after_each(emulation.mend)

  for _, name in ipairs(pn.ops.names()) do
    if on_cuda(name) then
      it("in any call of " .. name .. " is an error that says what, or does no harm", function()
        local failed = 0
        for _, text in ipairs(pn.ops.describe(name).cases) do
          pn.scope(function() failed = failed + walk_through(runner(name, text), name .. " " .. text) end)
        end
        assert.is_true(failed > 0, "nothing failed")
      end)
    end
  end

  local function walk(run, name)
    assert.is_true(walk_through(function() return pn.scope(run) end, name) > 0, "nothing failed")
    assert.is_false(pn.C.pn_capturing())
  end

  it("in a step of an optimiser is an error that says what", function()
    for kind, options in pairs { sgd = { lr = .1, momentum = .9, clip_norm = 1 }, adam = { lr = .1 } } do
      walk(function()
        local w = helper.random({ 300 }, "w"):to("cuda"):requires_grad(true)
        local optimiser = pn.optim[kind]({ w }, options)
        for _ = 1, 2 do
          w:set_grad(helper.random({ 300 }, "g"):to "cuda")
          optimiser:step()
        end
        return w:crc32c()
      end, kind)
    end
  end)

  it("in a captured step ends the capture, and is an error that says what", function()
    walk(function()
      local step = pn.captured(function(x) return pn.relu(x):to(x:device()) end, { device = "cuda" })
      local bits = {}
      for i = 1, 4 do bits[i] = step(helper.random({ 40 }, "x" .. i):to "cuda"):crc32c() end
      step:forget()
      return table.concat(bits, " ")
    end, "captured")
  end)

  it("in filling, copying, converting, looking for NaN or going to another device is an error that says what", function()
    walk(function()
      local t = pn.full { 3, 4, 5, value = 2, device = "cuda" }
      t:copy(helper.random({ 3, 4, 5 }, "t"))
      local second = t:cast("f16"):to "cuda:1"
      local bad = ffi.new "int64_t[1]"
      pn.ffi.check(pn.C.pn_tensor_check_finite(t.p, bad))
      t:set(7, 1, 2, 3)
      local r = pn.random.stream(3, "fault"):fill(pn.empty { 33, device = "cuda" }, "normal")
      return table.concat({ t:crc32c(), second:to("cpu"):crc32c(), r:crc32c(), tostring(bad[0]), t:get(1, 2, 3) }, " ")
    end, "tensors")
  end)

  -- A program of its own each time: a device is opened once.
  it("while a device is opened is an error that says what", function()
    local function said(fault, code)
      return (shell.run(("PENUMBRA_EMULATED_FAIL=%s PENUMBRA_CUDA_LIB=%s build/penumbra -e %s"):format(fault, device.library,
        shell.quote(code))))
    end
    local code = [[local pn = require "penumbra" print("=", pn.relu(pn.ones { 3, device = "cuda" }):to("cpu"):sum():item())]]
    local failed = 0
    local calls = said("", code .. [[ for call, n in pairs(require("spec.gpu.emulation").calls()) do print(call, n) end]])
    for call, count in calls:gmatch "(%w+)\t(%d+)" do
      for nth = 1, is_idle(call) and 0 or tonumber(count) do
        local text = said(("%s:%d"):format(call, nth), code)
        local what = ("%s %d of %d: %s"):format(call, nth, count, text)
        if not text:find "^=\t3" then
          failed = failed + 1
          assert.is_truthy(says_what(text) or text:find "no CUDA: unknown error", what)
        end
      end
    end
    assert.is_true(failed > 10, failed)
  end)
end)

-- The first call for a shape: engines are asked for, plans are made. A fault may lead to another engine; then the numbers tell.
describe("a fault in the first call for a shape", function()
  local directory, home = helper.directory(teardown), os.getenv "PENUMBRA_HOME"
  setup(function() ffi.C.setenv("PENUMBRA_HOME", directory, 1) end) -- no picks of earlier runs
  teardown(function()
    if home then ffi.C.setenv("PENUMBRA_HOME", home, 1) else ffi.C.unsetenv "PENUMBRA_HOME" end
  end)
  after_each(emulation.mend)

  -- make(h, w): the inputs for a shape nobody has asked for yet. f: what is done with them.
  local function walk(make, f)
    local turn = 0
    local function fresh()
      turn = turn + 1
      local here = make(4 + turn % 29, 4 + math.floor(turn / 29))
      local there = moved(here)
      local function run(tensors)
        return pn.scope(function()
          local results = {}
          for _, t in ipairs(tensors) do t:set_grad(nil):requires_grad(true) end
          results[1] = f(unpack(tensors))
          results[1]:backward(helper.random(results[1]:shape(), "dy"):to(tensors[1]:device()))
          for i, t in ipairs(tensors) do results[i + 1] = t:grad() end
          for i, t in ipairs(results) do results[i] = t:to("cpu"):clone() end
          return unpack(results)
        end)
      end
      return there, run, function(what, ...)
        for i, expected in ipairs { run(here) } do
          helper.assert_close((select(i, ...)), expected, device.tolerance[pn.real], what .. ", " .. i)
        end
      end
    end

    local usual -- more descriptors of cuDNN, which its plans keep
    for _ = 1, 2 do -- the second begins with what the device keeps
      emulation.forget()
      local there, run = fresh()
      local before = emulation.alive().cudnnBackendDescriptor
      run(there)
      usual = emulation.alive().cudnnBackendDescriptor - before
    end
    local failed = 0
    for call, count in emulation.each_call() do
      local most = is_idle(call) and 0 or count
      for nth = 1, most, math.max(1, math.floor(most / 40)) do -- of hundreds of attributes some forty
        pn.scope(function()
          local what = ("%s %d of %d"):format(call, nth, count)
          local there, run, check = fresh()
          local before = emulation.alive()
          assert.equal(0, tonumber(emulation.C.cudaDeviceSynchronize())) -- the inputs are there
          emulation.fail(call, nth)
          local results = { pcall(run, there) }
          emulation.mend()
          assert.equal(0, tonumber(emulation.C.cudaGetLastError()), what .. ": leaves its error to the next call")
          if not results[1] then
            failed = failed + 1
            assert.is_truthy(says_what(tostring(results[2])), what .. ": " .. tostring(results[2]))
            results = { pcall(run, there) }
            assert.is_true(results[1], what .. ": after it, " .. tostring(results[2]))
            local now = emulation.alive()
            assert.equal(before.cudnnBackendDescriptor + usual, now.cudnnBackendDescriptor, what .. ": descriptors are left")
            assert.equal(0, now.cublasLtMatmulPreference, what)
          end
          check(what, unpack(results, 2))
        end)
      end
    end
    assert.is_true(failed > 20, ("only %d failed"):format(failed))
  end

  it("of a convolution is an error, or leads to another engine", function()
    walk(function(h, w)
      return { helper.random({ 1, 3, 2, h, w }, "x"), helper.random({ 4, 3, 1, 3, 3 }, "w"), helper.random({ 4 }, "b") }
    end, function(x, w, b) return pn.conv3d(x, w, b, { stride = { 1, 2, 1 }, relu = true }) end)
  end)

  it("of a convolution that times its engines is an error, or leads to another engine", function()
    local usual = pn.engines()
    finally(function() pn.engines(usual) end)
    pn.engines { how = "autotune" }
    walk(function(h, w) return { helper.random({ 1, 2, 2, h, w }, "x"), helper.random({ 3, 2, 1, 3, 3 }, "w") } end,
      function(x, w) return pn.conv3d(x, w) end)
  end)

  it("of a transposed convolution is an error, or leads to another engine", function()
    walk(function(h, w) return { helper.random({ 1, 6, 2, h, w }, "x"), helper.random({ 6, 5, 1, 4, 4 }, "w") } end,
      function(x, w) return pn.conv_transpose3d(x, w, nil, { stride = { 1, 2, 2 }, pad = { 0, 1, 1 } }) end)
  end)

  it("of a matrix product is an error", function()
    walk(function(h, w) return { helper.random({ h, w }, "a"), helper.random({ w, 3 }, "b") } end, pn.matmul)
  end)

  it("of a batch of matrix products is an error", function()
    walk(function(h, w) return { helper.random({ 2, 3, h, w }, "a"), helper.random({ 3, w, 3 }, "b") } end, pn.matmul)
  end)
end)
