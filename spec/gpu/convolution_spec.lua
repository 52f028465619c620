--- Convolutions on a CUDA device beyond the registry's cases: precisions, engines and their picks, slices, and what happens when
-- cuDNN has no engine, or fails. (registry_spec.lua holds the cases against the CPU in every memory order.)

local device = require "spec.gpu.device"
local emulation = require "spec.gpu.emulation"
local pn = require "penumbra"
local cases = require "spec.cases"
local files = require "penumbra.base.files"
local helper = require "spec.helper"
local shell = require "penumbra.base.shell"
local ffi = require "ffi"
local lfs = require "lfs"
local C = pn.C

ffi.cdef [[
  void pn_cudnn_forget(void);
  int unsetenv(const char *name);
]]
assert(C.pn_n_devices() > 0, pn.ffi.message()) -- opens it, and with it cuDNN, which may lie where the loader does not look
local plugin = ffi.load(device.library)
local f64 = pn.real == "f64"
local usual = pn.engines()
local dtype_of = { f32 = pn.real, tf32 = "f32", bf16 = "bf16", fp16 = "f16" }

local function each_case(f)
  cases.each(function(name, text)
    if name == "conv3d" or name == "conv_transpose3d" then f(name, text) end
  end)
end

-- A case on the device, and on the CPU with what the device rounds rounded before; results and gradients, the device's on the CPU.
local function both(name, text, precision, options)
  local narrow = precision ~= "f32" and precision ~= "tf32" and dtype_of[precision]
  local inputs, arguments = cases.parse_case(text)
  local here, there = cases.make_inputs(inputs, cases.case_values(inputs, name), options), {}
  for i, t in ipairs(here) do
    if t and narrow then t:copy(t:cast(narrow):cast(pn.real)) end
    there[i] = t and t:to "cuda"
  end
  local weights = cases.output_weights(cases.run(name, here, arguments))
  local there_weights = {}
  for i, w in ipairs(weights) do
    if narrow then w:copy(w:cast(narrow):cast(pn.real)) end
    there_weights[i] = w:to "cuda"
  end
  local ys, grads = cases.run(name, here, arguments, weights)
  local cuda_ys, cuda_grads = cases.run(name, there, arguments, there_weights)
  return ys, grads, cuda_ys, cuda_grads
end

local function compare(name, text, precision, options)
  local ys, grads, cuda_ys, cuda_grads = both(name, text, precision, options)
  local what, tolerance = name .. " " .. text .. " in " .. precision, device.tolerance[f64 and "f64" or dtype_of[precision]]
  if precision == "tf32" then tolerance = device.tolerance.tf32 end
  assert.equal(dtype_of[precision], cuda_ys[1]:dtype(), what)
  helper.assert_close(cuda_ys[1]:to "cpu", ys[1], tolerance, what)
  for i, grad in ipairs(grads) do
    if grad then
      assert.equal(pn.real, cuda_grads[i]:dtype(), what)
      helper.assert_close(cuda_grads[i]:to "cpu", grad, tolerance, what .. ": gradient " .. i)
    end
  end
end

-- Lines of pn.picks about this much of a description.
local function picks(text)
  local found = {}
  for line in pn.picks():gmatch "[^\n]+" do
    if line:find(text, 1, true) then found[#found + 1] = line end
  end
  return found
end

-- What is said on stderr meanwhile.
local function said(f)
  local stderr, lines = io.stderr, {}
  io.stderr = { write = function(_, ...) table.insert(lines, table.concat { ... }) end } -- luacheck: ignore
  local ok, message = pcall(f)
  io.stderr = stderr -- luacheck: ignore
  assert(ok, message)
  return lines
end

local home = os.getenv "PENUMBRA_HOME"
local function keep_picks_in(path)
  if path then ffi.C.setenv("PENUMBRA_HOME", path, 1) else ffi.C.unsetenv "PENUMBRA_HOME" end
end

local function picks_file(directory)
  for name in lfs.dir(directory) do
    if name:match "%.picks$" then return directory .. "/" .. name end
  end
end

describe("a convolution on a CUDA device", function()
  local scratch = helper.directory(teardown)
  before_each(function()
    keep_picks_in(scratch)
    plugin.pn_cudnn_forget()
  end)
  after_each(function()
    if emulation then emulation.mend() end
    assert.equal(0, C.pn_set_precision("f32", 1))
    pn.engines(usual)
    keep_picks_in(home)
  end)

  for _, precision in ipairs { "tf32", "bf16", "fp16" } do
    it("multiplies in " .. precision .. ", its result of that type, gradients of each tensor's", function()
      if f64 then return end
      pn.precision(precision, "cuda")
      each_case(function(name, text)
        compare(name, text, precision)
        compare(name, text, precision, { layout = "channels_last" })
      end)
      -- channels in eights, pixels enough for sums in blocks; channels that are no eights
      compare("conv3d", "1,16,4,12,12 24,16,3,3,3 24 24 stride=1,2,2", precision)
      compare("conv3d", "2,8,3,5,5 9,8,1,1,1 9", precision)
      compare("conv_transpose3d", "1,16,3,6,6 16,8,3,3,3 8 stride=2 pad=1 output_pad=1", precision)
    end)
  end

  it("by own kernels, the definition, is that of cuDNN, in every type", function()
    for _, precision in ipairs(f64 and { "f32" } or { "f32", "tf32", "bf16", "fp16" }) do
      pn.precision(precision, "cuda")
      pn.engines { how = "plain" }
      if emulation then emulation.forget() end
      each_case(function(name, text) compare(name, text, precision == "tf32" and "f32" or precision) end)
      if emulation then assert.is_nil(emulation.calls().cudnnBackendExecute) end
    end
  end)

  it("adds the gradients of bias and scale over many pixels, with and without vectors of 16 bytes", function()
    for _, text in ipairs {
      "2,3,9,20,20 24,3,1,1,1 24 24 relu=true", "1,2,5,30,31 7,2,1,1,1 7 relu=true", "1,1,5,40,40 1,1,1,1,1 1",
      "1,2,1,20,20 130,2,1,1,1 130 130", "1,2,1,3,3 300,2,1,1,1 300 relu=true",
    } do
      compare("conv3d", text, "f32", { layout = "channels_last" })
    end
  end)

  it("writes its slice of a concatenation, and reads one", function()
    local x, w = helper.random({ 2, 10, 3, 5, 6 }, "x"), helper.random({ 6, 4, 3, 3, 3 }, "w")
    local expected = pn.conv3d(x:slice(2, 3, 4):clone(), w)
    local there = x:to "cuda":clone("channels_last")
    local whole = pn.zeros { 2, 13, 3, 5, 6, layout = "channels_last", device = "cuda" }
    local y = pn.conv3d(there:slice(2, 3, 4), w:to "cuda", nil, nil, { into = whole:slot(2, 5, 6) })
    helper.assert_close(y:to "cpu", expected, device.tolerance[pn.real])
    local back = whole:to "cpu"
    helper.assert_close(back:slice(2, 5, 6):clone(), expected, device.tolerance[pn.real])
    assert.equal(0, pn.sum(pn.abs(back:slice(2, 1, 4))):item() + pn.sum(pn.abs(back:slice(2, 11, 3))):item())
  end)

  it("of nothing is nothing, or the bias", function()
    for _, precision in ipairs(f64 and { "f32" } or { "f32", "bf16" }) do
      pn.precision(precision, "cuda")
      local w = helper.random({ 4, 3, 1, 1, 1 }, "w"):to "cuda":requires_grad(true)
      local bias = helper.random({ 4 }, "b"):to "cuda":requires_grad(true)
      local x = pn.zeros { 0, 3, 2, 4, 4, device = "cuda" }:requires_grad(true)
      local y = pn.conv3d(x, w, bias, nil, { relu = true })
      assert.same({ 0, 4, 2, 4, 4 }, y:shape())
      y:backward(pn.zeros_like(y))
      assert.same({ 0, 3, 2, 4, 4 }, x:grad():shape())
      assert.equal(0, pn.sum(pn.abs(w:grad():to "cpu")):item() + pn.sum(pn.abs(bias:grad():to "cpu")):item())
      y = pn.conv3d(pn.zeros { 1, 0, 1, 2, 2, device = "cuda" }, pn.zeros { 4, 0, 1, 1, 1, device = "cuda" }, bias)
      local rounded = bias:detach():to "cpu":cast(y:dtype()):cast(pn.real)
      helper.assert_same_bits(y:to "cpu":cast(pn.real):slice(3, 1, 1):slice(4, 2, 1):slice(5, 2, 1):reshape(4):clone(), rounded)
    end
  end)

  it("gives back what it takes", function()
    local x, w = helper.random({ 1, 8, 3, 6, 6 }, "x"):to "cuda", helper.random({ 8, 8, 3, 3, 3 }, "w"):to "cuda"
    local dy = pn.ones { 1, 8, 3, 6, 6, device = "cuda" }
    w:requires_grad(true)
    local function step()
      pn.scope(function()
        w:set_grad(nil)
        pn.conv3d(x, w, nil, nil, { relu = true }):backward(dy)
      end)
    end
    step()
    local memory, alive = pn.memory("cuda").live, emulation and emulation.alive().cudnnBackendDescriptor
    for _ = 1, 3 do step() end
    assert.equal(memory, pn.memory("cuda").live)
    if emulation then assert.equal(alive, emulation.alive().cudnnBackendDescriptor) end
    plugin.pn_cudnn_forget()
    if emulation then assert.equal(0, emulation.alive().cudnnBackendDescriptor) end
  end)

  it("is captured in a graph with its gradients, once its plans are made", function()
    local w = helper.random({ 4, 3, 3, 3, 3 }, "w"):to "cuda":requires_grad(true)
    local bias = helper.random({ 4 }, "b"):to "cuda":requires_grad(true)
    local function step(x)
      w:set_grad(nil)
      bias:set_grad(nil)
      local y = pn.conv3d(x, w, bias, nil, { stride = 2, relu = true })
      y:backward(pn.ones { 1, 4, 2, 3, 3, device = "cuda", dtype = y:dtype() })
      return y:detach()
    end
    for _, precision in ipairs(f64 and { "f32" } or { "f32", "bf16" }) do
      pn.precision(precision, "cuda")
      local captured = pn.captured(step, { device = "cuda" })
      for i = 1, 5 do
        local x = helper.random({ 1, 3, 4, 6, 6 }, "x" .. i):to "cuda"
        local y, dw, db = step(x):to "cpu", w:grad():to "cpu", bias:grad():to "cpu"
        helper.assert_same_bits(captured(x):to "cpu", y)
        helper.assert_same_bits(w:grad():to "cpu", dw)
        helper.assert_same_bits(bias:grad():to "cpu", db)
      end
      assert.equal(1, captured:count())
    end
  end)

  it("makes the first blocks of I3D as the CPU does, their branches slices of one tensor of the precision's type", function()
    local function run(where)
      local net = require "models.i3d" { width = 0.125, batchnorm = "frozen", to = "mixed_3b" }
      net:reset(3)
      net:to(where)
      local y = net(helper.random({ 1, 3, 8, 32, 32 }, "clip"):to(where))
      y:backward(pn.ones { 1, y:size(2), 4, 4, 4, device = where, dtype = y:dtype() })
      return y, net:parameters()
    end
    local expected, parameters = run "cpu"
    for _, precision in ipairs(f64 and { "f32" } or { "f32", "tf32", "bf16", "fp16" }) do
      pn.precision(precision, "cuda")
      local y, others = run "cuda"
      assert.equal(dtype_of[precision], y:dtype())
      local tolerance = device.tolerance[f64 and "f64" or precision == "tf32" and "tf32" or y:dtype()]
      helper.assert_close(y:to "cpu", expected, tolerance, precision)
      for i, entry in ipairs(parameters) do
        local grad = others[i].tensor:grad()
        assert.equal(pn.real, grad:dtype())
        if precision == "f32" then helper.assert_close(grad:to "cpu", entry.tensor:grad(), 1e-4, entry.name) end
      end
    end
  end)

  -- ---- engines ----------------------------------------------------------------------------------------------------------

  if not emulation or f64 then return end -- what follows knows the emulation's engines (gpu/emulated/cudnn.cpp)

  local x, w = helper.random({ 1, 8, 3, 6, 6 }, "x"), helper.random({ 16, 8, 3, 3, 3 }, "w")
  local bias = helper.random({ 16 }, "bias")
  local cx, cw, cbias = x:to "cuda":requires_grad(true), w:to "cuda":requires_grad(true), bias:to "cuda"
  local expected = pn.conv3d(x, w, bias, nil, { relu = true })
  local function forward() return pn.conv3d(cx:detach(), cw:detach(), cbias, nil, { relu = true }) end
  local function right(tolerance) helper.assert_close(forward():to "cpu":cast(pn.real), expected, tolerance or 1e-5) end

  -- All gradients, on the CPU.
  local function gradients()
    cx:set_grad(nil)
    cw:set_grad(nil)
    local y = pn.conv3d(cx, cw, cbias, nil, { relu = true })
    y:backward(pn.ones { 1, 16, 3, 6, 6, device = "cuda", dtype = y:dtype() })
    return { cx:grad():to "cpu", cw:grad():to "cpu" }
  end

  it("casts a filter once for the result and the gradient of x, which never is that of other weights", function()
    pn.precision("bf16", "cuda")
    pn.scope(gradients) -- the engines are picked
    collectgarbage()
    for _, name in ipairs { "conv3d", "conv_transpose3d" } do
      local wide = name == "conv3d" and w or helper.random({ 8, 16, 3, 3, 3 }, "w")
      local weight, from = wide:to "cuda":requires_grad(true),
        x:contiguous("channels_last"):to("cuda"):cast("bf16"):requires_grad(true)
      local fixed = weight:detach()
      local function again(target) -- of x alone, on a device and the CPU
        from:set_grad(nil)
        local y = pn[name](from, target)
        local dy = y:detach():clone()
        emulation.forget()
        y:backward(dy)
        return emulation.calls().cudaLaunchKernel or 0
      end
      pn.scope(again, fixed)
      local before = pn.memory("cuda").live
      assert.equal(1, pn.scope(again, fixed), name) -- dy is copied, nothing else
      local first = from:grad():to("cpu"):cast(pn.real)
      fixed:copy(fixed * 2)
      assert.equal(1, pn.scope(again, fixed), name)
      helper.assert_same_bits(first * 4, from:grad():to("cpu"):cast(pn.real)) -- dy is y
      from:set_grad(nil)
      local y = pn[name](from, weight)
      weight:copy(fixed)
      helper.failure(function() pn.sum(y):backward() end, "was changed in place after the forward")
      y = nil -- luacheck: ignore
      collectgarbage()
      assert.is_true(pn.memory("cuda").live <= before, name)
    end
  end)

  it("takes tensor cores for f32 only in tf32, nothing that rounds more, and no order of chance unless told", function()
    right()
    assert.same({ "forward of 1,8,3,6,6 by 16,8,3,3,3 in f32 + bias, relu: engine 28, workspace 0, by heuristics, 1 tried" },
      picks "forward")
    pn.precision("tf32", "cuda")
    right(3e-3)
    assert.matches("in tf32 %+ bias, relu: engine 62 24=0, workspace %d+, by heuristics, 1 tried$", picks("tf32")[1])
    assert.is_true(helper.relative_error(forward():to "cpu", expected) > 1e-5, "nothing was rounded")
    local first, second = gradients(), gradients()
    helper.assert_same_bits(first[2], second[2])
    assert.equal(0, #picks "engine 20")
    pn.precision("f32", "cuda")
    emulation.with("ENGINES", 64 + 1, -1, function() -- 25, whose only fault is chance, and 0
      plugin.pn_cudnn_forget()
      gradients()
      assert.matches("engine 0,", picks("data")[1])
      pn.engines { deterministic = false }
      gradients()
      assert.matches("engine 25,", picks("data")[1])
    end)
    emulation.with("ENGINES", 4, -1, function() -- engine 20 alone
      plugin.pn_cudnn_forget()
      said(gradients)
      assert.equal(0, #picks "engine 20", "it adds in less than f32")
    end)
  end)

  it("falls back on an engine without its end, and does the end itself", function()
    pn.precision("bf16", "cuda")
    emulation.with("ENGINES", 32 + 1, -1, function() -- 62 and 0: nothing fused in 16 bits
      right(3e-2)
      assert.matches("%+ bias, relu: none: cuDNN: no engine suits$", picks("bias")[1])
      assert.matches("in bf16: engine 62", picks("in bf16:")[1])
    end)
  end)

  it("is done by own kernels where cuDNN has no engine, which is said once", function()
    emulation.with("ENGINES", 0, -1, function()
      local lines = said(function()
        for _ = 1, 2 do compare("conv3d", "1,5,3,6,6 7,5,3,3,3 7 relu=true", "f32") end
      end)
      table.sort(lines)
      assert.same({
        "penumbra: cuDNN: no engine suits (data of 1,5,3,6,6 by 7,5,3,3,3 in f32); own kernels do it, slowly\n",
        "penumbra: cuDNN: no engine suits (forward of 1,5,3,6,6 by 7,5,3,3,3 in f32); own kernels do it, slowly\n",
        "penumbra: cuDNN: no engine suits (weight of 1,5,3,6,6 by 7,5,3,3,3 in f32); own kernels do it, slowly\n",
      }, lines)
    end)
    local lines = said(function() -- rows at the end that no window reaches, more than any padding takes off
      compare("conv_transpose3d", "1,3,2,3,4 3,2,2,3,3 output_pad=1,2,0 dilation=2,3,1", "f32")
    end)
    assert.equal(1, #lines)
    assert.matches("^penumbra: cuDNN: no engine for a padding of %-%d; own kernels do it, slowly\n$", lines[1])
  end)

  it("keeps within the limit of workspace", function()
    pn.precision("tf32", "cuda")
    pn.engines { workspace = 100 }
    right()
    assert.matches("engine 28, workspace 0,", picks("forward")[1])
    emulation.with("ENGINES", 32, -1, function()
      plugin.pn_cudnn_forget()
      local lines = said(right)
      assert.matches("^penumbra: cuDNN: engine 62 wants %d+ bytes of workspace, more than the limit of 100 %(forward of", lines[1])
    end)
  end)

  -- ---- picks ----------------------------------------------------------------------------------------------------------------

  it("times every engine when told, and keeps the picks for the next run", function()
    local directory = helper.directory(finally)
    keep_picks_in(directory .. "/new/home")
    pn.precision("tf32", "cuda")
    pn.engines { how = "autotune" }
    local events = emulation.alive().cudaEvent
    emulation.forget()
    right(3e-3)
    local calls = emulation.calls()
    -- each once to begin with, once to see how long it takes, then in five groups; at last the fastest
    assert.equal(3 * 6, calls.cudaEventElapsedTime)
    assert.is_true(calls.cudnnBackendExecute >= 3 * 7 + 1, calls.cudnnBackendExecute)
    assert.equal(events, emulation.alive().cudaEvent)
    -- engine 62 in two ways, one more is broken; 28; not 40, which wants 16 GiB, nor 0, which is to fall back on
    local made = picks("forward")[1]
    assert.matches("engine %d+.*, workspace %d+, %d+%.%d+ ms, the fastest, 3 tried$", made)
    local path = picks_file(directory .. "/new/home")
    assert.matches("cudnn%-91900%-[%w_.-]+%.picks$", path)
    emulation.forget()
    plugin.pn_cudnn_forget()
    right(3e-3)
    assert.is_nil(emulation.calls().cudaEventElapsedTime)
    assert.matches("ms, from file, 1 tried$", picks("forward")[1])
    assert.equal(made:match "engine [^,]+", picks("forward")[1]:match "engine [^,]+")
    -- heuristics keep theirs apart, so that what a run does hangs on nothing else
    pn.engines { how = "heuristic" }
    right(3e-3)
    assert.matches("by heuristics", picks("forward")[1])
    local _, n = files.read(path):gsub("\n", "")
    assert.equal(2, n)
  end)

  it("heeds only whole lines of the file, the last of a key, and engines that still work", function()
    local directory = helper.directory(finally)
    keep_picks_in(directory)
    right()
    local path = picks_file(directory)
    local line = files.read(path)
    local function from(text)
      files.write(path, text)
      plugin.pn_cudnn_forget()
      right()
      return (picks("forward")[1])
    end
    local function signed(rest) return ("%08x%s\n"):format(C.pn_crc32c(0, rest, #rest), rest) end
    assert.matches("from file", from(line))
    assert.matches("by heuristics", from(line:sub(1, -2)))               -- torn
    assert.matches("by heuristics", from((line:gsub("\t28\n", "\t0\n")))) -- another pick than was signed
    local key = line:match "^%x+(\t[^\t]+\t[^\t]+\t)"
    assert.matches("engine 0,.*from file", from(line .. signed(key .. "0")))
    assert.matches("engine 28,.*by heuristics", from(signed(key .. "77")))        -- no such engine
    assert.matches("engine 28,.*by heuristics", from(signed(key .. "62 2=0")))    -- no such knob
    assert.matches("engine 28,.*by heuristics", from(signed(key .. "62 24")))     -- no pick
    assert.matches("engine 28,.*by heuristics", from("nonsense\n\n" .. ("x"):rep(5000) .. "\n"))
    assert.matches("engine 28,.*by heuristics", from "")
  end)

  it("goes on without a file where none can be written, which is said once", function()
    local directory = helper.directory(finally)
    files.write(directory .. "/file", "")
    keep_picks_in(directory .. "/file")
    local lines = said(function()
      right()
      plugin.pn_cudnn_forget()
      right()
    end)
    assert.equal(1, #lines)
    assert.matches("^penumbra: " .. directory:gsub("%p", "%%%0")
      .. "/file/cudnn.*%.picks: picks of convolutions are not kept: Not a directory\n$", lines[1])
  end)

  it("does not time engines inside a captured step", function()
    local step = pn.captured(function(v) return pn.relu(v) end, { device = "cuda" })
    step(cx:detach())
    local wrong = pn.captured(function(v)
      plugin.pn_cudnn_forget()
      os.remove(picks_file(scratch) or "")
      return pn.conv3d(v, cw:detach())
    end, { device = "cuda" })
    pn.engines { how = "autotune" }
    wrong(cx:detach())
    wrong(cx:detach())
    helper.failure(function() wrong(cx:detach()) end, "cuDNN: cannot time engines while a CUDA graph is captured")
  end)

  -- ---- failures -------------------------------------------------------------------------------------------------------------

  it("says what failed and of what, whichever call of cuDNN it was, loses nothing, and works the next time", function()
    local memory
    for _, how in ipairs { "heuristic", "autotune" } do
      pn.engines { how = how }
      for _, call in ipairs {
        "cudnnBackendCreateDescriptor", "cudnnBackendSetAttribute", "cudnnBackendFinalize", "cudnnBackendGetAttribute",
        "cudnnBackendExecute", "cudaEventCreateWithFlags", "cudaEventRecord", "cudaEventElapsedTime",
      } do
        local failures, nth, calls = 0, 0
        repeat -- each call in turn, or every seventh, until a run needs fewer
          nth = nth + (how == "heuristic" and 1 or 7)
          os.remove(picks_file(scratch) or "")
          plugin.pn_cudnn_forget()
          emulation.forget()
          emulation.fail(call, nth)
          local ok, message = pcall(pn.scope, right)
          calls = emulation.calls()[call] or 0
          emulation.mend()
          if not ok then
            failures = failures + 1
            assert.matches(call:find "^cudnn" and "cuDNN: cannot [%w ]+: CUDNN_STATUS_[%u_]+: an injected fault"
              or "CUDA: cannot [%w ]+: ", message)
            local named = message:find("(forward of 1,8,3,6,6 by 16,8,3,3,3 in f32 + bias, relu)", 1, true)
            assert.is_true(named ~= nil or call == "cudaEventRecord", message) -- copies record events too
          end
          plugin.pn_cudnn_forget()
          assert.equal(0, emulation.alive().cudnnBackendDescriptor, call .. " " .. nth)
          collectgarbage()
          local live = pn.memory("cuda").live
          memory = memory or live
          assert.equal(memory, live, call .. " " .. nth)
        until calls < nth
        pn.scope(right)
        -- where cuDNN cannot tell of an engine, the next one is taken
        if how == "heuristic" and call:find "^cudnn" and not call:find "Get" and not call:find "Execute" then
          assert.is_true(failures > 0, call)
        end
      end
    end
  end)

  -- Engines that say only when they run that they cannot: bits of the emulation's list.
  local refuse = { [0] = 1, [28] = 8, [62] = 32, all = 127 }
  local function refused(engines, f) emulation.with("REFUSES", engines, 0, f) end

  it("goes on to the next engine when one refuses only as it runs, and keeps that", function()
    refused(refuse[28], function()
      right() -- the other has the same bits; what 28 left half way is NaN
      assert.matches("engine 0, workspace 0, by heuristics, 1 tried$", picks("forward")[1])
      right()
      for _, grad in ipairs(gradients()) do assert.is_true(pn.sum(grad):item() == pn.sum(grad):item(), "NaN") end
    end)
    plugin.pn_cudnn_forget()
    right()
    assert.matches("engine 0, workspace 0, from file, 1 tried$", picks("forward")[1])
    assert.equal(1, #picks "forward")
  end)

  it("times the other engines when one refuses, or fails, as it runs", function()
    pn.engines { how = "autotune" }
    pn.precision("tf32", "cuda")
    refused(refuse[62], function()
      right(3e-3)
      assert.matches("engine 28, .* ms, the fastest, 1 tried$", picks("forward")[1])
    end)
    plugin.pn_cudnn_forget()
    os.remove(picks_file(scratch))
    refused(refuse[28], function() -- it comes last: what it leaves is not the result
      right(3e-3)
      assert.matches("engine 62 .* ms, the fastest, 2 tried$", picks("forward")[1])
    end)
    for _, nth in ipairs { 1, 2, 6, 7, 9 } do -- the first, in its first and last runs; the second
      plugin.pn_cudnn_forget()
      os.remove(picks_file(scratch))
      emulation.fail("cudnnBackendExecute", nth)
      right(3e-3)
      assert.equal(0, emulation.C.pn_emulated_pending())
      assert.matches("the fastest, 2 tried$", picks("forward")[1])
    end
  end)

  it("falls back, timed or not, where nothing else runs", function()
    pn.engines { how = "autotune" }
    refused(refuse[28], function()
      right()
      assert.matches("engine 0, .* ms, the fastest, 1 tried$", picks("forward")[1])
    end)
  end)

  it("chooses anew when the engine that was kept refuses as it runs, and keeps the new one", function()
    local directory = helper.directory(finally)
    for _, how in ipairs { "heuristic", "autotune" } do
      pn.engines { how = how }
      keep_picks_in(directory .. "/" .. how)
      plugin.pn_cudnn_forget()
      right()
      assert.matches("engine 28,", picks("forward")[1])
      refused(refuse[28], function()
        plugin.pn_cudnn_forget()
        right()
        assert.matches(how == "autotune" and "engine 0, .*the fastest" or "engine 0, .*by heuristics", picks("forward")[1])
      end)
      plugin.pn_cudnn_forget()
      right()
      assert.matches("engine 0, .*from file", picks("forward")[1])
    end
  end)

  it("is done by own kernels where every engine refuses or fails as it runs, which is said once, and nothing is kept", function()
    for _, how in ipairs { "heuristic", "autotune" } do
      local directory = helper.directory(finally)
      keep_picks_in(directory)
      pn.engines { how = how }
      local before = emulation.alive().cudnnBackendDescriptor
      refused(refuse.all, function()
        local text = how == "heuristic" and "1,5,3,5,6 6,5,3,3,3 6 relu=true" or "1,5,3,7,6 6,5,3,3,3 6 relu=true"
        local lines = said(function()
          for _ = 1, 2 do compare("conv3d", text, "f32") end
        end)
        assert.equal(3, #lines)
        for _, line in ipairs(lines) do
          assert.matches("^penumbra: cuDNN: cannot run a convolution: CUDNN_STATUS_NOT_SUPPORTED: engine 0 does not run this after "
            .. "all %(%a+ of 1,5,3,%d,6 by 6,5,3,3,3 in f32%); own kernels do it, slowly\n$", line)
        end
      end)
      assert.is_nil(picks_file(directory))
      plugin.pn_cudnn_forget()
      assert.is_true(emulation.alive().cudnnBackendDescriptor <= before)
    end
    emulation.with("ENGINES", refuse[28], -1, function()
      pn.engines { how = "heuristic" }
      emulation.fail "cudnnBackendExecute"
      said(right) -- the end by an own kernel, the convolution by 28
      assert.matches("%+ bias, relu: none: cuDNN: cannot run a convolution: CUDNN_STATUS_EXECUTION_FAILED", picks("bias")[1])
    end)
  end)

  it("adds a gradient once, however many engines are run to choose one", function()
    local function added(how)
      pn.engines { how = how }
      plugin.pn_cudnn_forget()
      os.remove(picks_file(scratch) or "")
      cx:set_grad(nil)
      cw:set_grad(nil)
      for _ = 1, 2 do
        pn.conv3d(cx, cw, cbias, nil, { relu = true }):backward(pn.ones { 1, 16, 3, 6, 6, device = "cuda" })
        plugin.pn_cudnn_forget()
        os.remove(picks_file(scratch) or "")
      end
      return cx:grad():to "cpu", cw:grad():to "cpu"
    end
    local once = gradients()
    for _, how in ipairs { "heuristic", "autotune" } do
      refused(refuse[28], function()
        for i, grad in ipairs { added(how) } do helper.assert_close(grad, once[i] * 2, 1e-5, how) end
      end)
    end
  end)

  it("keeps no pick for the next run that was made for want of memory", function()
    local directory = helper.directory(finally)
    keep_picks_in(directory)
    pn.precision("tf32", "cuda")
    local big, taps = helper.random({ 1, 1, 3, 300, 300 }, "big"), helper.random({ 16, 1, 1, 1, 1 }, "taps")
    local there, filter, made = big:to "cuda", taps:to "cuda", pn.conv3d(big, taps)
    C.pn_memory_trim(1)
    local free, total = ffi.new "size_t[1]", ffi.new "size_t[1]"
    assert.equal(0, tonumber(emulation.C.cudaMemGetInfo(free, total)))
    local room = 1.5 * 4 * made:count() -- for the result, but not for a workspace as large
    emulation.with("MEMORY", total[0] - free[0] + ffi.cast("size_t", room), 2 ^ 31, function()
      for _, how in ipairs { "heuristic", "autotune" } do
        pn.engines { how = how }
        pn.scope(function() helper.assert_close(pn.conv3d(there, filter):to "cpu", made, 3e-3) end)
        assert.matches("engine 28, workspace 0, ", picks("forward")[1]) -- 62 comes first
      end
    end)
    assert.is_nil(picks_file(directory))
    plugin.pn_cudnn_forget()
    pn.engines { how = "heuristic" }
    helper.assert_close(pn.conv3d(there, filter):to "cpu", made, 3e-3)
    assert.matches("engine 62", picks("forward")[1])
  end)

  it("ends a capture in which an engine refuses", function()
    local inside = false
    local step = pn.captured(function(v)
      plugin.pn_cudnn_forget()
      os.remove(picks_file(scratch) or "")
      return pn.conv3d(v, cw:detach())
    end, { device = "cuda" })
    refused(refuse[28], function()
      step(cx:detach())
      step(cx:detach())
      inside = true
      helper.failure(function() step(cx:detach()) end, "cuDNN: cannot run a convolution: CUDNN_STATUS_NOT_SUPPORTED: engine 28",
        "run the step once before a CUDA graph is captured")
    end)
    assert.is_true(inside)
    assert.is_false(pn.C.pn_capturing())
    assert.equal(0, emulation.alive().cudnnBackendDescriptor, "something was kept")
    right()
  end)

  it("leaves NaN as it is behind its relu, and complaints about data to those who wait", function()
    local bad = x:clone()
    bad:set(0 / 0, 1, 1, 1, 1, 1)
    local y = pn.conv3d(bad:to "cuda", cw:detach(), cbias, nil, { relu = true }):to "cpu"
    assert.matches("%+ bias, relu: engine", picks("relu")[1])
    assert.is_true(y:get(1, 1, 1, 1, 1) ~= y:get(1, 1, 1, 1, 1))
    plugin.pn_cudnn_forget()
    pn.trap_nan(true) -- then no engine has the relu: few promise to keep NaN, and the first layer that made one is looked for
    local caught, problem = pcall(pn.conv3d, bad:to "cuda", cw:detach(), cbias, nil, { relu = true })
    pn.trap_nan(false)
    assert.is_false(caught)
    assert.matches("of the 1728 values it made are not finite", problem)
    assert.matches("in f32: engine", picks("forward")[1])
    assert.same({}, picks "relu")
    pn.engines { how = "autotune" }
    plugin.pn_cudnn_forget()
    os.remove(picks_file(scratch) or "")
    pn.bce_with_logits(pn.zeros { 4, device = "cuda" }, pn.full { 4, value = 3, device = "cuda" })
    local z = forward()
    assert.matches("the fastest", picks("forward")[1])
    helper.failure(function() z:to "cpu" end, "bce_with_logits: 4 of the targets are not in 0..1")
  end)

  it("says once which versions of cuDNN have wrong kernels", function()
    local code = shell.quote [[for _ = 1, 2 do
      pn.conv3d(pn.ones { 1, 1, 1, 2, 2, device = "cuda" }, pn.ones { 1, 1, 1, 1, 1, device = "cuda" })
    end]]
    local function words(version)
      return (shell.run(("PENUMBRA_HOME=%s PENUMBRA_EMULATED_CUDNN=%d PENUMBRA_CUDA_LIB=%s build/penumbra -e %s 2>&1"):format(
        scratch, version, device.library, code)))
    end
    for _, version in ipairs { 90701, 91600, 91900 } do assert.equal("", words(version)) end
    for version, name in pairs { [90800] = "9.8.0", [91002] = "9.10.2", [91501] = "9.15.1" } do
      local _, n = words(version):gsub("\n", "")
      assert.equal(1, n)
      assert.matches("^penumbra: cuDNN " .. name:gsub("%.", "%%.") .. ": from 9%.8 to 9%.15 it has .*; install 9%.16",
        words(version))
    end
  end)

  it("says that cuDNN does not start", function()
    -- the handle of the first device is made; the second's is not
    local there = x:to "cuda:1"
    for _, call in ipairs { "cudnnCreate", "cudnnSetStream" } do
      emulation.fail(call)
      helper.failure(function() pn.conv3d(there, w:to "cuda:1") end,
        call == "cudnnCreate" and "cuDNN: cannot start on the device: CUDNN_STATUS_NOT_INITIALIZED: an injected fault"
          or "cuDNN: cannot take the stream of the device: CUDNN_STATUS_INTERNAL_ERROR: an injected fault")
    end
    local handles = emulation.alive().cudnnHandle
    helper.assert_close(pn.conv3d(there, w:to "cuda:1"):to "cpu", pn.conv3d(x, w), 1e-5)
    assert.equal(handles + 1, emulation.alive().cudnnHandle)
  end)

  it("fails by name when the device has no room for it, and works when it has", function()
    for _, f in ipairs { forward, gradients } do
      f()
      local nth = 0
      repeat
        nth = nth + 1
        C.pn_memory_trim(1)
        emulation.fail("cudaMalloc", nth)
        emulation.forget()
        local ok, message = pcall(function() pn.scope(function() f() end) end)
        local calls = emulation.calls().cudaMalloc or 0
        emulation.mend()
        if not ok then assert.matches("out of memory", message) end
      until calls < nth
      right()
    end
  end)

  it("lists picks only of devices", function()
    assert.equal("", pn.picks "cpu")
    helper.failure(function() pn.picks "cuda:9" end, "no device cuda:9")
    assert.equal(-1, C.pn_picks(1, nil, 0))
    assert.equal("picks: no buffer", ffi.string(C.pn_error()))
    right()
    local small = ffi.new "char [20]"
    assert.equal(0, C.pn_picks(1, small, 20))
    assert.equal("", ffi.string(small))
  end)
end)
