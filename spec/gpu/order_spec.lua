--- A device promises no order of blocks and threads, and has as many processors as it has: every operation's kernels give the same
-- bits backwards and mixed, and on a device of another size. What a missing barrier or two writers of one place would break.

local device = require "spec.gpu.device"
local emulation = require "spec.gpu.emulation"
local pn = require "penumbra"
local cases = require "spec.cases"

if not emulation then
  describe("the order of threads", function()
    it("is the emulation's to choose", function() pending(device.library) end)
  end)
  return
end

local AS_COUNTED, BACKWARDS, MIXED = 0, 1, 2

local function each_case(make, short, f)
  local n = 0
  cases.each(function(name, text)
    if not pn.ops.describe(name).devices:find("cuda", 1, true) then return end
    n = n + 1
    pn.scope(function()
      local inputs, arguments = cases.parse_case(text)
      local here = cases.make_inputs(inputs, cases.case_values(inputs, name), make)
      local weights = cases.output_weights(cases.run(name, here, arguments))
      f(("%s %s"):format(name, text), function(where)
        local there, weights_there = {}, {}
        for i, t in ipairs(here) do
          there[i] = t and t:detach():to(where)
          if t and short and cases.is_real(t) and cases.may_be_short(name, i) then there[i] = there[i]:cast(short) end
        end
        for i, w in ipairs(weights) do weights_there[i] = w and w:to(where) end
        return pn.scope(function() return cases.bits(cases.run(name, there, arguments, weights_there)) end)
      end)
    end)
  end)
  assert.is_true(n > 0)
end

local layouts = { rows = {}, ["channels last"] = { layout = "channels_last" }, gaps = { gaps = true } }

describe("every kernel gives the same bits", function()
  for _, short in ipairs { false, "bf16" } do
    for layout, make in pairs(layouts) do
      local title = (", %s%s"):format(layout, short and " in " .. short or "")

      it("in whatever order its blocks and threads run" .. title, function()
        each_case(make, short, function(what, run)
          local expected = run "cuda:0"
          for _, order in ipairs { BACKWARDS, MIXED } do
            emulation.with("ORDER", order, AS_COUNTED, function()
              assert.equal(expected, run "cuda:0", ("%s, order %d"):format(what, order))
            end)
          end
        end)
      end)

      it("on a device with more processors" .. title, function()
        each_case(make, short, function(what, run) assert.equal(run "cuda:0", run "cuda:1", what) end)
      end)
    end
  end
end)
