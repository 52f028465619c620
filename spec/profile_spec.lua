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
    assert.is_truthy(tostring(report):find("conv3d.forward", 1, true))
    assert.is_true(report:seconds() > 0)
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
