-- Every operation, by its own cases, with the nth allocation refused: an error that says so, and nothing left behind.
local ffi = require "ffi"
local pn = require "penumbra"
local binding = require "penumbra.ffi"
local cases = require "spec.cases"
local C, check = binding.C, binding.check

-- Forward and backward by the C interface, so that nothing is retried; true when both went well.
local function run(op, pointers, n, values)
  local y, n_y, seed = ffi.new "pn_tensor *[8]", ffi.new "int [1]", ffi.new "pn_tensor *[1]"
  if C.pn_apply(op, pointers, n, values, y, n_y) ~= 0 then return false end
  local rc = 0
  if C.pn_requires_grad(y[0]) then
    rc = C.pn_tensor_cast(seed, y[0], C.pn_tensor_dtype(y[0]))
    rc = rc ~= 0 and rc or C.pn_backward(y[0], seed[0], false)
    C.pn_tensor_release(seed[0])
  end
  for i = 0, n_y[0] - 1 do
    C.pn_tensor_release(y[i])
  end
  return rc == 0
end

describe("a refused allocation", function()
  after_each(function()
    C.pn_debug_fail_alloc(0)
  end)

  for index = 0, C.pn_n_ops() - 1 do
    local op = C.pn_op_at(index)
    local name = ffi.string(C.pn_op_name(op))
    it("leaves nothing of " .. name, function()
      local position = 0
      collectgarbage() -- what earlier specs dropped is given back now, not between two looks at the live bytes
      collectgarbage()
      while C.pn_op_case(op, position) ~= nil do
        pn.scope(function()
          local case = ffi.string(C.pn_op_case(op, position))
          local handles, pointers, n, arguments = cases.for_c(name, case)
          local values = ffi.new "pn_value [12]"
          check(C.pn_op_parse(op, arguments, values))
          local nth, done = 0, false
          while not done do
            nth = nth + 1
            assert.is_true(nth < 500, case)
            local live = pn.memory().live
            C.pn_memory_trim(C.PN_CPU)
            C.pn_debug_fail_alloc(nth)
            done = run(op, pointers, n, values)
            C.pn_debug_fail_alloc(0)
            if not done then assert.matches("out of memory", ffi.string(C.pn_error()), 1, true) end
            for _, t in ipairs(handles) do
              t:set_grad(nil)
            end
            assert.equal(live, pn.memory().live, case)
          end
        end)
        position = position + 1
      end
    end)
  end
end)
