--- A profile on a CUDA device: the seconds are the device's own, in the order of its stream.

require "spec.gpu.device"
local pn = require "penumbra"
local files = require "penumbra.base.files"
local helper = require "spec.helper"

describe("a profile on a device", function()
  local directory = helper.directory(teardown)

  local function work(x)
    pn.profile.part("outer", function()
      pn.profile.part("inner", function()
        for _ = 1, 3 do pn.relu(x) end
      end)
      pn.relu(x)
    end)
  end

  it("has the device's seconds, and those of the host beside", function()
    local x = pn.ones { 100000, device = "cuda" }
    pn.profile(work, x)
    local report = pn.profile(work, x)
    assert.equal("cuda:0", report.device)
    local rows = {}
    for _, row in ipairs(report.rows) do rows[row.op] = row end
    assert.equal(4, rows["relu.forward"].calls)
    assert.is_true(rows["relu.forward"].seconds > 0 and rows["relu.forward"].host > 0)
    assert.is_true(rows.outer.seconds > -2e-6 and rows.inner.seconds > -2e-6) -- CUDA rounds to float, span by span
    -- Own seconds add up to the outermost span, from its first moment to its last.
    local whole
    for _, event in ipairs(report.events) do
      if event.row.op == "outer" and event.thread == -1 then whole = event end
    end
    local inside, outside = report:seconds()
    assert.is_true(math.abs(inside + outside - whole.seconds) < 2e-6, ("%g + %g, %g"):format(inside, outside, whole.seconds))
    assert.truthy(tostring(report):find("ms in operations on cuda:0", 1, true))
  end)

  it("shows the device as a row of its trace, beside the host", function()
    local x = pn.ones { 1000, device = "cuda" }
    local report = pn.profile(work, x)
    local path = directory .. "/trace.json"
    report:write_trace(path)
    local trace, named, seen = pn.json.decode(files.read(path)), {}, {}
    for _, e in ipairs(trace.traceEvents) do
      if e.name == "thread_name" then named[e.tid] = e.args.name end
      if e.ph == "X" and e.name == "relu.forward" then
        seen[e.tid] = (seen[e.tid] or 0) + 1
        assert.is_true(e.ts >= 0)
      end
    end
    assert.same({ [0] = "main", [10000] = "cuda:0" }, named)
    assert.same({ [0] = 4, [10000] = 4 }, seen)
  end)

  it("of work on the CPU is not of a device", function()
    pn.profile(work, pn.ones { 10, device = "cuda" })
    for _ = 1, 2 do
      local report = pn.profile(work, pn.ones { 10 })
      assert.is_nil(report.device)
      for _, event in ipairs(report.events) do assert.is_true(event.thread >= 0) end
    end
  end)
end)
