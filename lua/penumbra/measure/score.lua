--- J and F of the frames of one sequence; penumbra.measure says what they are.
-- @module penumbra.measure.score
local ffi = require "ffi"
local binding = require "penumbra.ffi"

local C, check, ptr = binding.C, binding.check, binding.ptr

local function statistics(values, first, n)
  local s = ffi.new "pn_statistics"
  check(C.pn_measure_statistics(s, values + first, n))
  local per_frame = {}
  for i = 1, n do
    per_frame[i] = values[first + i - 1]
  end
  return { mean = s.mean, recall = s.recall, decay = s.decay, per_frame = per_frame }
end

--- J and F of masks against truth u8 (T,H,W), without the first `skip` frames and as many at the end.
local function score(masks, truth, object, tolerance, skip)
  local a, b = ptr(masks, "measure: masks"), ptr(truth, "measure: truth")
  local n = truth:size(1)
  local J, F = ffi.new("double [?]", math.max(n, 1)), ffi.new("double [?]", math.max(n, 1))
  check(C.pn_measure_jaccard(J, a, b, object))
  check(C.pn_measure_boundary(F, a, b, object, tolerance))
  local result = { J = statistics(J, skip, n - 2 * skip), F = statistics(F, skip, n - 2 * skip), frames = n - 2 * skip }
  if skip > 0 then
    result.first = { J = J[0], F = F[0] }
  end
  return result
end

return score
