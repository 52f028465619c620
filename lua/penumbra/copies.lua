--- Copies that gradients flow through: clone, and to another device. Those of tensors that want no gradient are plain ones.
-- @module penumbra.copies
local custom = require "penumbra.custom"
local tensor = require "penumbra.tensor"

local methods = tensor.methods
local plain_clone, plain_to = methods.clone, methods.to

local function is_recorded(t)
  return tensor.recording() and t:requires_grad()
end

local recorded_clone = custom {
  name = "clone",
  forward = function(_, x) return plain_clone(x) end,
  backward = function(_, dy) return dy end,
}

local recorded_to = custom {
  name = "to",
  forward = function(ctx, x, device)
    ctx.from = x:device()
    return plain_to(x, device)
  end,
  backward = function(ctx, dy) return plain_to(dy, ctx.from) end,
}

--- A copy in its own memory, of the same layout.
function methods.clone(t)
  return is_recorded(t) and recorded_clone(t) or plain_clone(t)
end

--- On another device ("cpu", "cuda", "cuda:N"); itself when it is there.
function methods.to(t, device)
  return is_recorded(t) and recorded_to(t, device) or plain_to(t, device)
end

return { clone = methods.clone, to = methods.to }
