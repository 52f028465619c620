--- programs_spec: gradients of programs that are drawn, not thought of: chains of views, reductions, copies, sorts, arithmetic on
-- two small tensors, each held against differences of its values. In the f64 build, where a step is too short to cross a kink.
local pn = require "penumbra"

local PROGRAMS = 300

local function axis_of(x, draw) return draw:integer(1, x:dims()) end

-- What may become of one tensor with axes.
local steps = {
  function(x) return pn.tanh(x) end,
  function(x) return pn.sigmoid(x) end,
  function(x) return pn.gelu(x) end,
  function(x) return pn.softplus(x) end,
  function(x) return pn.abs(x) end,
  function(x) return x:contiguous() end,
  function(x) return x:clone() end,
  function(x) return pn.square(x) * .3 end,
  function(x) return 2 - x * .7 end,
  function(x) return pn.exp(x * .2) end,
  function(x) return pn.clamp(x, { min = -2.3, max = 2.7 }) end,
  function(x) return pn.where(x:detach():gt(0), x * 2, pn.tanh(x)) end,
  function(x) return x:reshape(-1) end,
  function(x) return x:dims() == 2 and pn.matmul(x, x:permute(2, 1)) * .3 or x end,
  function(x, draw) return pn.softmax(x, { axis = axis_of(x, draw) }) end,
  function(x, draw) return pn.flip(x, { axes = axis_of(x, draw) }) end,
  function(x)
    local order = {}
    for d = 1, x:dims() do order[d] = x:dims() + 1 - d end
    return x:permute { axes = order }
  end,
  function(x, draw)
    local axis = axis_of(x, draw)
    local first = draw:integer(1, x:size(axis))
    return x:slice(axis, first, draw:integer(1, x:size(axis) + 1 - first))
  end,
  function(x, draw) return x:dims() < 4 and x:unsqueeze(draw:integer(1, x:dims() + 1)) or x:squeeze() end,
  function(x, draw) return pn.sum(x, { axes = axis_of(x, draw), keep = draw:integer(1, 2) == 1 }) end,
  function(x, draw) return pn.mean(x, { axes = axis_of(x, draw), keep = true }) end,
  function(x, draw) return pn.max(x, { axes = axis_of(x, draw), keep = true }) + x end,
  function(x, draw) return x:min { axis_of(x, draw), keep = true } * x end,
  function(x, draw) return x:var { axis_of(x, draw), keep = true } + x end,
  function(x, draw) return pn.stack({ x, pn.tanh(x) }, { axis = axis_of(x, draw) }):select(1, 1) end,
  function(x, draw)
    local axis = axis_of(x, draw)
    return pn.concat(x:split(axis, 1), { axis = axis }) * .9
  end,
  function(x, draw) return (pn.sort(x, { axis = axis_of(x, draw) })) end,
  function(x, draw)
    local places = {}
    for i = 1, 5 do places[i] = draw:integer(1, x:size(1)) end
    return pn.gather(x, pn.tensor(places):cast "i64", { axis = 1 })
  end,
}
local pairings = {
  pn.add, pn.sub, pn.maximum, pn.minimum,
  function(a, b) return a * b * .5 end,
  function(a, b) return a / (pn.square(b) + 1) end,
}
local shapes = { { 2, 3 }, { 4 }, { 3, 1, 2 }, { 1, 2, 2, 3 } }

-- Program number k: two to nine steps, each of tensors there are by then; its result is a sum of all it made.
local function program(k)
  return function(a, b)
    local draw, made = pn.random.stream(k, "program"), { a, b }
    local total = pn.sum(a) * 0
    for i = 1, draw:integer(2, 9) do
      local one, y = made[draw:integer(1, #made)], nil
      if draw:integer(1, 3) == 1 then
        local ok, joined = pcall(pairings[draw:integer(1, #pairings)], one, made[draw:integer(1, #made)])
        y = ok and joined -- where the shapes allow it
      elseif one:dims() > 0 then
        y = steps[draw:integer(1, #steps)](one, draw)
      end
      if y then
        made[#made + 1] = y
        total = total + pn.sum(y) * (.1 * i + .5)
      end
    end
    return total
  end
end

describe("programs that are drawn", function()
  if pn.real == "f64" then it("have the gradients that their values say", function()
    for k = 1, PROGRAMS do
      pn.scope(function()
        local draw = pn.random.stream(k, "inputs")
        local function input() return draw:fill(pn.empty(shapes[draw:integer(1, #shapes)]), "normal", 0, 1) end
        local ok, problem = pcall(pn.check_gradient, program(k), input(), input(), { tolerance = 1e-5 })
        assert.is_true(ok, ("program %d: %s"):format(k, tostring(problem)))
      end)
    end
  end) end

  it("go backward once more to the same bits where the graph is kept", function()
    for k = 1, 60 do
      pn.scope(function()
        local draw = pn.random.stream(k, "inputs")
        local function input() return draw:fill(pn.empty(shapes[draw:integer(1, #shapes)]), "normal", 0, 1) end
        local a, b = input():requires_grad(true), input():requires_grad(true)
        local loss = program(k)(a, b)
        local seen = {}
        for i = 1, 2 do
          a:set_grad(nil)
          b:set_grad(nil)
          loss:backward { keep_graph = i == 1 }
          seen[i] = { a:grad():crc32c(), b:grad() and b:grad():crc32c() or 0 }
        end
        assert.same(seen[1], seen[2], "program " .. k)
      end)
    end
  end)
end)
