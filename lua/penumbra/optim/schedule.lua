--- Learning rates as functions of the number of steps done (0 for the first). Any function will do; these are the usual ones.
--
--     local sgd = pn.optim.sgd(net:parameters(), { lr = schedule.warmup(100, schedule.poly { lr = 1e-2, steps = 5000 }) })

local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"

local schedule = {}

local function number(what, value)
  if type(value) ~= "number" or value ~= value then
    raise("schedule.%s is %s, expects a number", what, tostring(value))
  end
  return value
end

local function steps_of(what, options)
  local steps = number(what .. ": steps", options.steps)
  if steps < 1 then
    raise("schedule.%s: steps is %g, expects 1 or more", what, steps)
  end
  return steps
end

--- The same rate always.
function schedule.constant(lr)
  number("constant", lr)
  return function()
    return lr
  end
end

--- A straight line from `from` to `to` (0) over `steps`, then `to`.
function schedule.linear(options)
  named.check("schedule.linear", options, { "from", "to", "steps" })
  local from, to, steps = number("linear: from", options.from), number("linear: to", options.to or 0), steps_of("linear", options)
  return function(step)
    return from + (to - from) * math.min(step / steps, 1)
  end
end

--- Multiplied by `factor` (0.1) at each of the steps in the list `at`.
function schedule.step(options)
  named.check("schedule.step", options, { "lr", "at", "factor" })
  local lr, factor = number("step: lr", options.lr), number("step: factor", options.factor or 0.1)
  if type(options.at) ~= "table" then
    raise("schedule.step: at is %s, expects a list of steps", tostring(options.at))
  end
  return function(step)
    local rate = lr
    for _, at in ipairs(options.at) do
      if step >= at then
        rate = rate * factor
      end
    end
    return rate
  end
end

--- lr·(1 - step/steps)^power (0.9), then 0.
function schedule.poly(options)
  named.check("schedule.poly", options, { "lr", "steps", "power" })
  local lr, steps, power = number("poly: lr", options.lr), steps_of("poly", options), number("poly: power", options.power or 0.9)
  return function(step)
    return lr * (1 - math.min(step / steps, 1)) ^ power
  end
end

--- Half a cosine from lr to `final` (0) over `steps`, then `final`.
function schedule.cosine(options)
  named.check("schedule.cosine", options, { "lr", "steps", "final" })
  local lr, final = number("cosine: lr", options.lr), number("cosine: final", options.final or 0)
  local steps = steps_of("cosine", options)
  return function(step)
    return final + (lr - final) * 0.5 * (1 + math.cos(math.pi * math.min(step / steps, 1)))
  end
end

--- A straight line up to the rate of `inner` over the first `steps`, whose own count begins when the line ends.
function schedule.warmup(steps, inner)
  number("warmup: steps", steps)
  if type(inner) ~= "function" then
    raise("schedule.warmup: expects a schedule after the steps, got %s", type(inner))
  end
  return function(step)
    if step < steps then
      return inner(0) * (step + 1) / steps
    end
    return inner(step - steps)
  end
end

return schedule
