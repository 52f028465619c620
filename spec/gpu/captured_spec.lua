--- Captured steps: done again with new arguments, with memory of their own, and what they refuse.

local device = require "spec.gpu.device"
local pn = require "penumbra"
local helper = require "spec.helper"
local shell = require "penumbra.base.shell"

local function cuda(values) return pn.tensor(values):to "cuda" end

describe("a captured step", function()
  it("is done again on new arguments from the third call on", function()
    local calls = 0
    local step = pn.captured(function(x, k)
      calls = calls + 1
      return pn.relu(x), pn.relu(k)
    end, { device = "cuda" })
    for i = 1, 6 do
      local y, k = step(cuda { i, -i, 2 * i }, -1 + 0.5 * i)
      assert.same({ i, 0, 2 * i }, y:to("cpu"):totable())
      assert.equal(math.max(0, -1 + 0.5 * i), k:item())
    end
    assert.equal(3, calls)
    assert.equal(1, step:count())
  end)

  it("is captured for each combination of shapes", function()
    local step = pn.captured(function(x) return pn.relu(x) end, { device = "cuda" })
    for i = 1, 4 do
      assert.same({ i }, step(cuda { i }):to("cpu"):totable())
      assert.same({ i, 0 }, step(cuda { i, -1 }):to("cpu"):totable())
    end
    assert.equal(2, step:count())
  end)

  it("keeps older memory that was let go while it was captured", function()
    local old, calls = pn.full { 4000, value = 5, device = "cuda" }, 0
    local step = pn.captured(function(x)
      calls = calls + 1
      local y = pn.add(x, old)
      if calls == 3 then old:free() end
      return y
    end, { device = "cuda" })
    local x = pn.ones { 4000, device = "cuda" }
    for _ = 1, 3 do step(x) end
    local others = pn.zeros { 1, device = "cuda" }
    for _ = 1, 20 do -- written where the old one lay, were it free
      others = others + pn.full { 4000, value = -1, device = "cuda" }
    end
    assert.equal(-20, others:get(4000))
    assert.equal(6, step(x):get(4000))
  end)

  it("computes gradients, whose memory stays", function()
    local w = cuda { 1, -2, 3 }:requires_grad(true)
    local step = pn.captured(function(dy)
      w:set_grad(nil)
      local y = pn.relu(w)
      y:backward(dy)
      return y:detach()
    end, { device = "cuda" })
    for i = 1, 5 do
      step(cuda { i, i, 10 * i })
      assert.same({ i, 0, 10 * i }, w:grad():to("cpu"):totable())
    end
  end)

  it("gives the leaves its own gradients back, whoever set others meanwhile", function()
    local w = cuda { 1, -2, 3 }:requires_grad(true)
    local step = pn.captured(function(dy)
      w:set_grad(nil)
      pn.relu(w):slice(1, 1, dy:size(1)):backward(dy)
    end, { device = "cuda" })
    for i = 1, 5 do -- two shapes in turns: two captured steps with gradients of their own
      step(cuda { i, i, i })
      assert.same({ i, 0, i }, w:grad():to("cpu"):totable())
      step(cuda { 10 * i })
      assert.same({ 10 * i, 0, 0 }, w:grad():to("cpu"):totable())
      w:set_grad(nil)
    end
    assert.equal(2, step:count())
  end)

  it("runs as written while a profile is taken, or the trap for NaN is set", function()
    local calls = 0
    local step = pn.captured(function(x)
      calls = calls + 1
      return pn.relu(x)
    end, { device = "cuda" })
    local function run(i) assert.same({ i }, step(cuda { i }):to("cpu"):totable()) end
    for i = 1, 4 do run(i) end
    assert.equal(3, calls)
    local report = pn.profile(run, 5)
    assert.equal("relu.forward", report.rows[1].op)
    pn.trap_nan(true)
    run(6)
    pn.trap_nan(false)
    assert.equal(5, calls)
    run(7)
    assert.equal(5, calls)
  end)

  it("keeps what it reads, and its memory from others", function()
    local held = cuda { 5, 6, 7 }
    local step = pn.captured(function(x)
      x:copy(held)
      return pn.relu(x)
    end, { device = "cuda" })
    for _ = 1, 3 do step(cuda { 0, 0, 0 }) end
    for _ = 1, 20 do pn.full { 3, value = -1, device = "cuda" } end
    assert.same({ 5, 6, 7 }, step(cuda { 1, 1, 1 }):to("cpu"):totable())
  end)

  it("tells by their versions that tensors were written", function()
    local state = pn.zeros { 2, device = "cuda" }
    local step = pn.captured(function(x) state:copy(x) end, { device = "cuda" })
    for i = 1, 5 do
      local before = pn.C.pn_tensor_version(state.p)
      step(cuda { i, i })
      assert.is_true(pn.C.pn_tensor_version(state.p) > before, "call " .. i)
      assert.equal(i, state:get(1))
    end
  end)

  it("gives its memory back", function()
    local function held() return pn.memory("cuda").held end
    collectgarbage()
    local before = held()
    local step = pn.captured(function(x) return pn.relu(x) end, { device = "cuda" })
    local x = pn.ones { 1000000, device = "cuda" }
    for _ = 1, 3 do step(x) end
    assert.is_true(held() > before)
    x:free()
    step:forget()
    collectgarbage()
    pn.memory("cuda")
    pn.C.pn_memory_trim(1)
    assert.is_true(held() <= before, ("%d held, %d before"):format(held(), before))
  end)

  it("may be given up and collected while another is captured", function()
    local function held() return pn.memory("cuda").held end
    local x = cuda { 1, 2, -3 }
    for _, problem in ipairs { false, "it broke" } do
      local older, calls = {}, 0
      for i = 1, 3 do
        older[i] = pn.captured(function(a) return pn.relu(a * i) end, { device = "cuda" })
        for _ = 1, 3 do older[i](x) end
      end
      local weak = setmetatable({ unpack(older) }, { __mode = "v" })
      local step = pn.captured(function(a)
        calls = calls + 1
        if calls == 3 then
          older = nil
          collectgarbage()
          collectgarbage()
          assert.is_nil(next(weak))
          if problem then error(problem) end
        end
        return pn.relu(a)
      end, { device = "cuda" })
      for _ = 1, 2 do step(x) end
      local before = held()
      if problem then helper.failure(function() step(x) end, problem) else step(x) end
      for _ = 1, 2 do assert.same({ 1, 2, 0 }, step(x):to("cpu"):totable()) end
      step:forget()
      collectgarbage()
      pn.C.pn_memory_trim(1)
      assert.is_true(held() < before, "their memory is kept")
    end
  end)

  it("is captured while another thread lets go of memory", function()
    local pool, given = pn.worker.pool(1), nil
    finally(function() pool:close() end)
    local calls = 0
    local step = pn.captured(function(x)
      calls = calls + 1
      if calls == 3 then
        local ticket = pool:submit("spec.fixtures.jobs", "drop", given)
        given:free()
        pool:collect(ticket)
        pool:collect(pool:submit("spec.fixtures.jobs", "add", 1, 2)) -- the job before has ended
      end
      return pn.relu(x)
    end, { device = "cuda" })
    local x = cuda { 1, -2 }
    given = cuda { 7, 8 }
    for _ = 1, 3 do assert.same({ 1, 0 }, step(x):to("cpu"):totable()) end
    assert.same({ 3, 0 }, step(cuda { 3, -4 }):to("cpu"):totable()) -- sent once more
  end)

  it("takes nothing of what another thread does: that is refused until the capture has ended", function()
    local pool = pn.worker.pool(1)
    finally(function() pool:close() end)
    local calls, meanwhile = 0, nil
    local given, here = cuda { 7, 8 }, pn.tensor { 9, 10 }
    local function tried() return pool:collect(pool:submit("spec.fixtures.jobs", "on_device", given, here)) end
    local step = pn.captured(function(x)
      calls = calls + 1
      local y = pn.relu(x)
      if calls == 3 then meanwhile = tried() end
      return y + 1
    end, { device = "cuda" })
    for i = 1, 8 do -- more than there are pinned buffers: none of them is lost
      assert.same({ i + 1, 1 }, step(cuda { i, -i }):to("cpu"):totable())
    end
    assert.equal(3, calls)
    for _, message in ipairs(meanwhile) do
      assert.matches("cuda:0: another thread captures a step there; what this one did would become part of it", message)
    end
    assert.equal(7, #meanwhile)
    assert.same({ true, true, true, true, true, true, true }, tried())
  end)

  -- What a script prints that runs on a device of 100 MB; it has take(mb), memory, and x, two ones.
  local function in_100_mb(script)
    return shell.run(("PENUMBRA_EMULATED_MEMORY=%d PENUMBRA_CUDA_LIB=%s build/penumbra -e %s"):format(100e6, device.library,
      shell.quote([[
      local pn = require "penumbra"
      local function take(mb) return pn.empty { mb, 1000, 1000, dtype = "u8", device = "cuda" } end
      local x = pn.ones { 2, device = "cuda" }
]] .. script)))
  end

  -- Of 100 MB two calls as written leave 60 idle, the captured one wants as much of its own, or more than there is.
  it("has what calls as written left idle; when that is too little it is an error, and nothing else is lost", function()
    if not device.emulated then pending "of the emulation" end
    local text = in_100_mb [[
      local function work(mb)
        pn.scope(function() take(mb) end)
        return pn.relu(x)
      end
      local step = pn.captured(function() return work(60) end, { device = "cuda" })
      for _ = 1, 3 do step() end
      print("captured", step:count(), step():sum():item())
      step:forget()
      local calls = 0
      local greedy = pn.captured(function()
        calls = calls + 1
        if calls == 3 then
          work(40)
          work(61)
        end
        return work(60)
      end, { device = "cuda" })
      for _ = 1, 2 do greedy() end
      print("too much", pcall(greedy))
      print("then", greedy():sum():item(), greedy:count())
    ]]
    assert.matches("captured\t1\t2\n", text)
    assert.matches("too much\tfalse\t[^\n]*out of memory: 58.2 MiB wanted on cuda:0", text)
    assert.matches("then\t2\t1\n", text)
  end)

  it("gives back at forget() what lies idle, also while one of its results is held", function()
    if not device.emulated then pending "of the emulation" end
    local text = in_100_mb [[
      local step = pn.captured(function()
        pn.scope(function() take(60) end)
        return pn.relu(x)
      end, { device = "cuda" })
      for _ = 1, 3 do step() end
      local held = step()
      step:forget()
      take(60)
      print("held", held:sum():item())
    ]]
    assert.equal("held\t2\n", text)
  end)

  it("may not read from the device, nor send to it, nor draw", function()
    local x = cuda { 1, 2 }
    for what, f in pairs {
      ["cannot read from the device inside a captured step"] = function(a) return pn.full { value = a:get(1), device = "cuda" } end,
      ["cannot take a tensor to the device inside a captured step"] = function() return cuda { 1 } end,
      ["inside a captured step it would give the same numbers each time"] = function(a)
        return a + pn.random.stream(1):fill(pn.empty { 2, device = "cuda" })
      end,
    } do
      local step = pn.captured(f, { device = "cuda" })
      step(x)
      step(x)
      helper.failure(function() step(x) end, what)
      assert.is_false(pn.C.pn_capturing())
      assert.same({ 1, 2 }, x:to("cpu"):totable())
    end
  end)

  it("takes tensors of its device and numbers", function()
    local step = pn.captured(function(x) return x end, { device = "cuda" })
    helper.failure(function() step "a" end, "captured: argument 1 is a string, expects tensors and numbers")
    helper.failure(function() step(pn.zeros { 1 }) end, "captured: argument 1 is on cpu, the step on cuda:0")
    helper.failure(function() pn.captured() end, "captured: expects a function, got nil")
  end)

  it("is the function itself on the CPU, and with graph = false", function()
    local calls = 0
    local function f(x)
      calls = calls + 1
      return x
    end
    local step, plain = pn.captured(f), pn.captured(f, { device = "cuda", graph = false })
    for _ = 1, 4 do
      assert.equal(7, step(7))
      assert.equal(7, plain(7))
    end
    assert.equal(8, calls)
  end)
end)

describe("capturing", function()
  it("is one at a time, on a device, and ends what began", function()
    local function failed(rc)
      assert.equal(-1, rc)
      return require("penumbra.ffi").message()
    end
    local out = require("ffi").new "pn_graph *[1]"
    assert.matches("capture: the CPU has no captured steps", failed(pn.C.pn_capture_begin(0)))
    assert.matches("capture: none is under way", failed(pn.C.pn_capture_end(out)))
    assert.matches("graph_launch: NULL", failed(pn.C.pn_graph_launch(nil)))
    assert.equal(0, pn.C.pn_capture_begin(1))
    assert.matches("capture: one is under way", failed(pn.C.pn_capture_begin(1)))
    pn.C.pn_capture_abort()
    assert.is_false(pn.C.pn_capturing())
  end)
end)
