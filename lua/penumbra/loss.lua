--- Losses: one number (a tensor without axes), or one for each element, from logits and targets of one shape.

local named = require "penumbra.base.named"
local ops = require "penumbra.ops"

local loss = {}

--- Class-balanced cross entropy (METHOD 5; OSVOS): ones weigh by the share of zeros and zeros by the share of ones, so that a
-- small object counts as much as its large background. The weights are constants in the gradient.
-- @param logits real, any shape
-- @param target 0 or 1, real or u8, the same shape
-- @tparam ?table options norm = "mean" (over the elements that count, the default), "sum", "batch" (over the size of the first
--   axis) or "none" (the loss of each element with the weight of its class, of the shape of logits; 0 where void); void = tensor,
--   not 0 where an element is left out; empty = "unweighted" (the default: a target without ones, or without zeros, gives the
--   plain sum) or "zero" (it gives 0)
-- @return the loss, without axes; with norm = "none" of the shape of logits
function loss.balanced(logits, target, options)
  options = options or {}
  named.check("loss.balanced", options, { "norm", "void", "empty" })
  return ops.balanced_bce(logits, target, options.void, { norm = options.norm, empty = options.empty })
end

--- Binary cross entropy of logits.
-- @param logits real, any shape
-- @param target 0 to 1, the same shape
-- @tparam ?table options norm, void as for `balanced`
-- @return the loss, without axes; with norm = "none" of the shape of logits
function loss.bce(logits, target, options)
  options = options or {}
  named.check("loss.bce", options, { "norm", "void" })
  return ops.bce_with_logits(logits, target, options.void, { norm = options.norm })
end

return loss
