--- Losses: one number (a tensor without axes), or one for each element, from logits and targets of one shape.

local binding = require "penumbra.ffi"
local composed = require "penumbra.composed"
local named = require "penumbra.base.named"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"

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

-- A mask as numbers to compute with.
local function as_real(t)
  local dtype = t:dtype()
  return (dtype == "u8" or dtype == "i32" or dtype == "i64") and t:cast(binding.real) or t
end

local function positive(what, name, value)
  if type(value) ~= "number" or not (value >= 0 and value < math.huge) then
    raise("%s: %s is %s, expects a number from 0", what, name, tostring(value))
  end
  return value
end

--- Dice loss: 1 - (2 Σ p·t + smooth) / (Σ p + Σ t + smooth) over all elements, p the probabilities; small objects count as much as
-- large ones (Milletari et al. 2016). It is rarely used alone: `loss.bce(...) + loss.dice(...)`.
-- @param logits real, any shape
-- @param target 0 to 1, the same shape
-- @tparam ?table options smooth (1); void = tensor, not 0 where an element is left out
-- @return the loss, without axes: 0 where both agree, towards 1 where they have nothing in common
function loss.dice(logits, target, options)
  local how = named("loss.dice", options, { smooth = 1, void = named.optional })
  local smooth = positive("loss.dice", "smooth", how.smooth)
  local p, t = ops.sigmoid(logits), as_real(target)
  if how.void then p, t = ops.where(how.void, 0, p), ops.where(how.void, 0, t) end
  return 1 - (2 * ops.sum(p * t) + smooth) / (ops.sum(p) + ops.sum(t) + smooth)
end

--- Focal loss: the binary cross entropy of each element times (1 - its probability of being right)^gamma, so that what is right
-- already counts little (Lin et al. 2017).
-- @param logits real, any shape
-- @param target 0 or 1, the same shape
-- @tparam ?table options gamma (2; 0 is `bce`); alpha: the weight of ones, zeros weigh 1 - alpha (default: both 1); norm ("mean",
--   over the elements that count, "sum" or "none"); void as for `bce`
-- @return the loss, without axes; with norm = "none" of the shape of logits
function loss.focal(logits, target, options)
  local how = named("loss.focal", options, { gamma = 2, alpha = named.optional, norm = "mean", void = named.optional })
  local gamma = positive("loss.focal", "gamma", how.gamma)
  named.choice("loss.focal", "norm", how.norm, { mean = true, sum = true, none = true })
  local each = ops.bce_with_logits(logits, target, how.void, { norm = "none" })
  if gamma > 0 then
    local wrong = ops.clamp(1 - ops.exp(-each), { min = 1e-12 }) -- the slope of 0 ^ gamma may be infinite
    each = each * wrong ^ gamma
  end
  if how.alpha then
    local alpha = named.share("loss.focal", "alpha", how.alpha)
    each = each * (as_real(target) * (2 * alpha - 1) + (1 - alpha))
  end
  if how.norm == "none" then return each end
  local total = ops.sum(each)
  if how.norm == "sum" then return total end
  local n = how.void and ops.sum(ops.eq(how.void, 0)) or each:count()
  return total / (how.void and ops.maximum(n, 1) or math.max(1, n))
end

--- Cross entropy of classes: minus the logarithm of the probability that the softmax over axis 2 gives to the class that is right.
-- @param logits real (N,classes) or (N,classes,T,H,W)
-- @param target numbers of classes, from 1: i64, i32 or u8, (N) or (N,T,H,W)
-- @tparam ?table options norm: "mean" (the default), "sum" or "none"
-- @return the loss, without axes; with norm = "none" of the shape of target
function loss.cross_entropy(logits, target, options)
  local how = named("loss.cross_entropy", options, { norm = "mean" })
  named.choice("loss.cross_entropy", "norm", how.norm, { mean = true, sum = true, none = true })
  if logits:dims() < 2 or target:dims() ~= logits:dims() - 1 then
    raise("loss.cross_entropy: target %s has %d axes, expects those of logits %s without the classes, %d",
      table.concat(target:shape(), ","), target:dims(), table.concat(logits:shape(), ","), math.max(1, logits:dims() - 1))
  end
  local right = ops.gather(ops.log_softmax(logits, { axis = 2 }), composed.unsqueeze(target, 2), { axis = 2 })
  local each = -composed.squeeze(right, 2)
  return how.norm == "none" and each or how.norm == "sum" and ops.sum(each) or ops.mean(each)
end

return loss
