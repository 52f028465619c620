--- How much the side masks weigh in the loss, as functions of the epoch (from 1) and the number of epochs: what a key such as
-- `side_weight` may name on the command line. Any function of (epoch, n) will do.
-- @module penumbra.side_weight
local side_weight = {}

--- From nearly 1 down to 0 with the epoch: the paper's.
function side_weight.linear(epoch, n) return 1 - epoch / n end

--- Always 1.
function side_weight.constant() return 1 end

--- 1, then 1/2, then 0, a third of the epochs each: the three stages of OSVOS in Caffe.
function side_weight.steps(epoch, n)
  if 3 * epoch <= n then return 1 end
  return 3 * epoch <= 2 * n and 0.5 or 0
end

return side_weight
