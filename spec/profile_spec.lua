--- The profile: what ran, how often, under which layer.

local pn = require "penumbra"
local files = require "penumbra.base.files"
local helper = require "spec.helper"
local worker = require "penumbra.worker"
local nn = pn.nn

local function burn(seconds)
  local began = pn.clock()
  while pn.clock() < began + seconds do end
end

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
    local report = pn.profile(function()
      pn.profile.part("outer", function()
        pn.profile.part("inner", function()
          local began = pn.clock()
          while pn.clock() < began + 0.02 do pn.exp(x) end
        end)
        burn(0.01) -- nothing is recorded here: the part's own time
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

  it("counts what its own thread does; what workers do beside it is in the trace", function()
    local x, pool = pn.ones { 64, 256 }, worker.pool(1)
    local function work()
      pn.profile.part("whole", function()
        local ticket = pool:submit("penumbra", "exp", x)
        pn.relu(x)
        pool:collect(ticket)
      end)
    end
    work() -- a worker that has begun
    local report = pn.profile(work)
    pool:close()
    local calls, whole, foreign = {}, nil, nil
    for _, row in ipairs(report.rows) do calls[row.op] = row.calls end
    assert.same({ whole = 1, ["relu.forward"] = 1 }, calls)
    for _, event in ipairs(report.events) do
      if event.row.op == "whole" then whole = event end
      if event.row.op == "exp.forward" then foreign = event end
    end
    local inside, outside = report:seconds()
    assert.is_true(math.abs(whole.seconds - inside - outside) < 1e-6)
    assert.is_true(foreign.thread >= 1000 and foreign.seconds > 0)
    local path = os.tmpname()
    report:write_trace(path)
    local shapes
    for _, e in ipairs(pn.json.decode((files.read(path))).traceEvents) do
      if e.name == "exp.forward" then shapes = e.args.shapes end
    end
    os.remove(path)
    assert.equal("64,256", shapes)
  end)

  describe("of a loop", function()
    -- n turns as run:epochs makes them, with something to do between them; then `after`.
    local function watched(how, n, after)
      return pn.profile.watch(how, function()
        local watch = pn.profile.watching
        watch.loop_begins()
        for _ = 1, n do
          watch.turn_begins()
          pn.relu(pn.ones { 100 })
          burn(0.002)
          watch.turn_ends()
          burn(0.01)
        end
        after(watch)
      end)
    end
    local function ends(watch) watch.loop_ends() end

    it("accounts for all of its time, also between the turns", function()
      for _, steps in ipairs { 3, 20 } do -- and more than there are
        local report = watched({ steps = steps, warm = 1 }, 5, ends)
        local n = math.min(steps, 4)
        assert.same({ n, true }, { report.turns, report.loop })
        local rows = {}
        for _, row in ipairs(report.rows) do rows[row.op] = row end
        assert.same({ n, n, 1 }, { rows["relu.forward"].calls, rows.turn.calls, rows.loop.calls })
        assert.is_true(rows.turn.seconds >= 0.002 * n, rows.turn.seconds)
        assert.is_true(rows.loop.seconds >= 0.01 * (steps == 3 and 2 or 4), rows.loop.seconds)
        local inside, outside = report:seconds()
        assert.is_true(math.abs(inside + outside - report.wall) < 1e-6, inside + outside - report.wall)
      end
    end)

    it("that a break leaves has the rest of the script in it", function()
      local report = watched({ steps = 9, warm = 1 }, 3, function(watch)
        watch.turn_begins()
        burn(0.002)
      end)
      assert.equal(2, report.turns)
      local inside, outside = report:seconds()
      assert.is_true(report.wall >= 0.026 and math.abs(inside + outside - report.wall) < 1e-6)
    end)

    it("without a turn after the warm-up says so", function()
      for _, after in ipairs { ends, function() end, function(watch) watch.turn_begins() end } do
        helper.failure(function() watched({ steps = 1, warm = 2 }, 2, after) end,
          "profile: the loop ended after 2 turn(s), all of them warm-up (warm=2)")
      end
      assert.equal(0, #pn.profile(function() end).rows)
    end)
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
    local trace = pn.json.decode((files.read(path)))
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
