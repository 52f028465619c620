--- The profile: what ran, how often, under which layer.

local pn = require "penumbra"
local helper = require "spec.helper"
local nn = pn.nn

describe("a profile", function()
  it("has a row for each operation, direction and layer", function()
    local net = nn.sequential { { "a", nn.conv3d { from = 2, to = 3, kernel = 3 } }, { "b", nn.conv3d { from = 3, to = 1 } } }
    local x = pn.ones { 1, 2, 2, 4, 4 }
    local report, y = pn.profile(function()
      local result = net(x)
      result:sum():backward()
      return net(x)
    end)
    helper.assert_shape(y, 1, 1, 2, 4, 4)
    local calls, flops = {}, {}
    for _, row in ipairs(report.rows) do
      calls[row.op .. " " .. row.label] = row.calls
      flops[row.op .. " " .. row.label] = row.flops
      assert.is_true(row.seconds >= 0)
    end
    assert.equal(2, calls["conv3d.forward sequential.a"])
    assert.equal(2, calls["conv3d.forward sequential.b"])
    assert.equal(2 * 2 * 32 * 3 * 2 * 27, flops["conv3d.forward sequential.a"])
    local backward = 0
    for _, row in ipairs(report:by_operation()) do
      if row.op == "conv3d.backward" then
        backward = row.calls
      end
    end
    assert.equal(2, backward)
    local layer = report:by_layer()
    local found
    for _, row in ipairs(layer) do
      found = found or row.label == "sequential.a" and row
    end
    assert.equal(3, found.calls) -- twice forward, once backward: the second result was dropped
    assert.is_true(found.backward > 0 and found.backward < found.seconds)
    -- The gradient of x (it wants none) is not counted, that of the weight is.
    assert.equal(3 * (2 * 32 * 3 * 2 * 27), found.flops)
    assert.is_truthy(tostring(report):find("conv3d.forward", 1, true))
    assert.is_true(report:seconds() > 0)
  end)

  it("says shapes and arguments as an operation's cases do", function()
    local x, w = pn.ones { 1, 2, 3, 4, 5 }, pn.ones { 6, 2, 1, 3, 3 }
    local report = pn.profile(function() pn.conv3d(x, w, nil, { stride = { 1, 2, 1 }, pad = { 0, { 1, 2 }, 1 } }) end)
    local row = report.rows[1]
    assert.equal("1,2,3,4,5 6,2,1,3,3 - -", row.shapes)
    assert.equal("stride=1,2,1 pad=0,0,1,2,1,1 dilation=1,1,1 groups=1", row.args:match "^.-groups=1")
    assert.equal(#pn.ops.apply_text("conv3d", { x, w, false }, row.args), 1)
    report = pn.profile(function()
      pn.batch_norm(x, pn.zeros { 2 }, pn.zeros { 2 }, pn.ones { 2 }, { mode = "batch", relu = true })
    end)
    assert.is_truthy(report.rows[1].args:find("mode=batch eps=0.001", 1, true), report.rows[1].args)
  end)

  it("gives parts their own seconds, without those of the operations inside", function()
    local x = pn.ones { 64, 1024 }
    local wait = pn.clock
    local report = pn.profile(function()
      pn.profile.part("outer", function()
        pn.profile.part("inner", function()
          local began = wait()
          while wait() < began + 0.02 do pn.exp(x) end
        end)
        local began = wait()
        while wait() < began + 0.01 do end -- nothing is recorded here: the part's own time
      end)
    end)
    local seconds = {}
    for _, row in ipairs(report:by_operation()) do
      seconds[row.op] = row.seconds
    end
    local inside, outside = report:seconds()
    assert.equal(seconds["exp.forward"], inside)
    assert.is_true(math.abs(outside - seconds.outer - seconds.inner) < 1e-9)
    local whole = {}
    for _, event in ipairs(report.events) do -- an event has its whole length, and own seconds add up to it
      whole[event.row.op] = event.seconds
    end
    assert.is_true(seconds.outer >= 0.01 and whole.inner >= 0.02)
    assert.is_true(math.abs(whole.inner - seconds.inner - inside) < 1e-6)
    assert.is_true(math.abs(whole.outer - inside - outside) < 1e-6)
    helper.failure(function() pn.profile(function() pn.profile.part("bad", function() error("stop") end) end) end, "stop")
    assert.equal(0, #pn.profile(function() end).rows)
  end)

  it("refuses more nested parts than it has room for", function()
    local function nest(n) return n > 0 and pn.profile.part("part " .. n, nest, n - 1) end
    assert.equal(16, #pn.profile(nest, 16).rows)
    helper.failure(function() pn.profile(nest, 17) end, 'profile_begin: 16 parts are open, and "part 1" would be one too many')
    nest(40) -- off: nothing is counted
  end)

  it("writes a trace that is valid JSON, a row a thread, pieces inside their operation", function()
    local was = pn.threads()
    pn.threads(2)
    local x = pn.ones { 1, 8, 4, 32, 32 }:contiguous "channels_last"
    local net = nn.sequential { { "a", nn.conv3d { from = 8, to = 8, kernel = 3 } } }
    local report = pn.profile(function() pn.profile.part("all", function() net(x) end) end)
    pn.threads(was)
    local path = os.tmpname()
    local n = report:write_trace(path)
    local trace = pn.json.decode((pn.files.read(path)))
    os.remove(path)
    local events, threads = {}, {}
    for _, e in ipairs(trace.traceEvents) do
      if e.ph == "X" then
        events[#events + 1] = e
        if e.cat == "piece" then
          threads[e.tid] = e
        end
      else
        assert.equal("M", e.ph)
      end
    end
    assert.equal(n, #events)
    assert.equal(#report.events, n)
    local whole, all
    for _, e in ipairs(events) do
      assert.is_true(e.ts >= 0 and e.dur >= 0 and e.pid == 1)
      if e.cat == "operation" then
        whole = e
      elseif e.cat == "part" then
        all = e
      end
    end
    assert.equal("conv3d.forward sequential.a", whole.name)
    assert.equal("sequential.a", whole.args.layer)
    assert.equal(0, whole.tid)
    for _, inside in ipairs { threads[0], threads[1], whole } do
      local around = inside == whole and all or whole
      assert.is_true(inside.ts >= around.ts - 0.01 and inside.ts + inside.dur <= around.ts + around.dur + 0.01)
    end
    assert.is_truthy(threads[1])
    helper.failure(function() report:write_trace "/nowhere/trace.json" end, "trace: cannot write /nowhere/trace.json")
    helper.failure(function() report:write_trace "/dev/full" end, "trace: cannot write /dev/full")
  end)

  it("ends with its function, also when that fails", function()
    helper.failure(function() pn.profile(function() error("stop") end) end, "stop")
    local report = pn.profile(function() end)
    pn.relu(pn.ones { 1 })
    assert.equal(0, #report.rows)
    assert.equal(0, #pn.profile(function() end).rows)
    helper.failure(function() pn.profile(3) end, "profile: expects a function, got number")
  end)
end)
