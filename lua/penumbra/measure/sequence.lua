--- The scores of one sequence's masks, and their means over several: penumbra.measure has them too.
-- @module penumbra.measure.sequence

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"
local score = require "penumbra.measure.score"

local C, check, ptr = binding.C, binding.check, binding.ptr

local measure = {}

--- The tolerance of F, as a share of the diagonal.
measure.tolerance = 0.008

local keys = { "mean", "recall", "decay" }

local sequence_options = { object = named.optional, tolerance = measure.tolerance }

local function read_options(what, how)
  how = named(what, how, sequence_options)
  if how.object ~= nil then
    named.whole(what, "object", how.object, 1, 255)
  end
  return how.object or -1, how.tolerance
end

local function need_frames(what, truth)
  if ptr(truth, what) ~= nil and truth:dims() == 3 and truth:size(1) < 3 then
    raise("%s: %d frame%s; the first and the last are left out, so nothing is left to score", what, truth:size(1),
      truth:size(1) == 1 and "" or "s")
  end
end

--- Scores the masks of a sequence.
-- @tparam Tensor masks u8 (T,H,W)
-- @tparam Tensor truth u8 (T,H,W)
-- @tparam ?table how object: the number of the object (default: any value but 0 is object); tolerance of F: a share of the
--   diagonal (0.008), or pixels from 1
-- @treturn table { J = {mean, recall, decay, per_frame}, F = {...}, frames, first = {J, F} }; per_frame begins with the second
--   frame; first is the annotated one, which no mean holds: the first thing to look at when a network learns too little
function measure.sequence(masks, truth, how)
  local object, tolerance = read_options("measure.sequence", how)
  need_frames("measure.sequence", truth)
  return score(masks, truth, object, tolerance, 1)
end

--- What copying the first mask of the truth to every frame scores: the floor to stand above. Options and result as `sequence`.
function measure.copied(truth, how)
  local object, tolerance = read_options("measure.copied", how)
  need_frames("measure.copied", truth)
  local p = ptr(truth)
  local n, h, w = truth:size(1), truth:size(2), truth:size(3)
  local view = binding.out()
  local strides = ffi.new("int64_t [3]", 0, truth:stride(2), truth:stride(3))
  check(C.pn_tensor_view(view, p, 3, ffi.new("int64_t [3]", n, h, w), strides, 0))
  local first = binding.wrap(view[0])
  local result = score(first, truth, object, tolerance, 1)
  first:free()
  return result
end

--- The means of scores over sequences: { sequences = {name = score}, order = {names}, mean = {J = {...}, F = {...}} }.
-- @tparam {string} order names
-- @tparam table scores name to a result of `sequence`
function measure.summary(order, scores)
  local mean = {}
  for _, which in ipairs { "J", "F" } do
    mean[which] = {}
    for _, key in ipairs(keys) do
      local sum = 0
      for _, name in ipairs(order) do
        sum = sum + scores[name][which][key]
      end
      mean[which][key] = #order > 0 and sum / #order or 0
    end
  end
  return { sequences = scores, order = order, mean = mean }
end

return measure
