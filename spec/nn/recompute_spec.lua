--- Results that backward computes again: the same bits, less memory, and nothing that happens twice.

local ffi = require "ffi"
local cases = require "spec.cases"
local helper = require "spec.helper"
local pn = require "penumbra"
local nn = pn.nn

-- A layer with what could go wrong: random choices, statistics that move, a concatenation in place, a view, pooling.
local Block = nn.class "block"

function Block:new(options)
  self:add("narrow", nn.unit { from = 8, to = 8, kernel = 3, batchnorm = options.batchnorm })
  self:add("joined", nn.concat {
    nn.unit { from = 8, to = 4, batchnorm = options.batchnorm },
    nn.unit { from = 8, to = 4, kernel = 3, batchnorm = options.batchnorm },
  })
  self:add("pool", nn.max_pool3d { kernel = 3, stride = 1 })
  self:add("dropout", nn.dropout { p = 0.4 })
end

function Block:forward(x)
  local y = self.dropout(self.pool(self.joined(self.narrow(x))))
  local sum = (y:slice { axis = 2, first = 1, count = 4 } * y:slice { axis = 2, first = 5, count = 4 }):sigmoid()
  return pn.concat({ sum, y:relu() }, { axis = 2 })
end

local Net = nn.class "net"

function Net:new(options)
  self:add("stem", nn.unit { from = 3, to = 8, kernel = 3, batchnorm = options.batchnorm })
  self:add("a", Block(options))
  self:add("b", nn.conv3d { from = 12, to = 8, kernel = 3 })
  self:add("c", Block(options))
end

function Net:forward(x)
  local stem = self.stem(x)
  local a = self.a(stem)
  return { out = self.c(self.b(a)), side = a }
end

local function make(batchnorm)
  return Net { batchnorm = batchnorm }:reset(3):train()
end

local function state_of(net)
  local list = {}
  for name, t in pairs(net:state()) do
    list[name] = t:clone():keep()
  end
  for name, t in pairs(net:named_parameters()) do
    list["gradient of " .. name] = t:grad() and t:grad():clone():keep()
  end
  return list
end

-- Steps of a net; its state, the bytes kept for backward and the loss.
local function train(net, n_steps, around)
  local sgd = pn.optim.sgd(net:parameters(), { lr = 0.05, momentum = 0.9 })
  local x = helper.random({ 1, 3, 8, 64, 64 }, "x"):contiguous("channels_last")
  collectgarbage()
  collectgarbage()
  local value, kept
  for _ = 1, n_steps do
    pn.scope(function()
      sgd:zero_grad()
      local before = pn.memory().live
      local y = net(x)
      kept = pn.memory().live - before
      local loss = (y.out:square():mean() + y.side:mean()) * 10
      if around then
        around(y)
      end
      loss:backward()
      value = loss:item()
      sgd:step()
    end)
  end
  return state_of(net), kept, value
end

local function same(expected, got)
  for name, t in pairs(expected) do
    assert.equal(t:crc32c(), got[name]:crc32c(), name)
  end
end

describe("recompute", function()
  for _, batchnorm in ipairs { "batch", "moving", "frozen" } do
    it("changes no bit of weights, gradients, statistics or random choices: " .. batchnorm, function()
      local expected, whole, loss = train(make(batchnorm), 3)
      local got, less, loss_again = train(make(batchnorm):recompute("^[ac]$", "^stem$"), 3)
      assert.equal(loss, loss_again)
      same(expected, got)
      assert.is_true(less < 0.5 * whole, ("%.0f of %.0f bytes"):format(less, whole))
    end)
  end

  it("may stand inside recompute, and hold the whole network", function()
    local expected, whole = train(make "moving", 2)
    same(expected, (train(make("moving"):recompute("^[ac]"), 2))) -- blocks and all inside
    local got, less = train(make("moving"):recompute(), 2)
    same(expected, got)
    assert.is_true(less < 0.3 * whole, ("%.0f of %.0f bytes"):format(less, whole))
  end)

  it("leaves alone what someone still holds", function()
    local net = make("batch"):recompute("^[ac]$")
    local kept
    net:hook("^a.pool$", function(_, _, out)
      kept = out:keep()
    end)
    local expected = train(make "batch", 1)
    local seen
    same(expected, (train(net, 1, function()
      seen = kept:clone():keep()
    end)))
    assert.equal(seen:crc32c(), kept:crc32c())
  end)

  it("holds for a graph that is kept, and for one that is never used", function()
    local x = helper.random({ 1, 8, 3, 20, 20 }, "x"):contiguous("channels_last")
    local function gradients(net)
      net:zero_grad()
      local y = net(x)
      local loss = y:sum()
      loss:backward(nil, { keep_graph = true })
      loss:backward()
      return state_of(net)
    end
    local function block()
      return Block { batchnorm = "batch" }:reset(5):train()
    end
    same(gradients(block()), gradients(block():recompute()))
    local net = block():recompute()
    collectgarbage()
    collectgarbage()
    local before = pn.memory().live
    pn.scope(function()
      net(x)
    end)
    collectgarbage()
    collectgarbage()
    assert.equal(before, pn.memory().live)
  end)

  it("does nothing where nothing is recorded, and can be taken back", function()
    local net = make("batch"):recompute("^[ac]$")
    local _, less = train(net, 1)
    local _, whole = train(make("batch"):recompute("^[ac]$"):recompute(false, "^[ac]$"), 1)
    assert.is_true(less < whole)
    local x = helper.random({ 1, 3, 4, 16, 16 }, "x")
    local y = pn.no_grad(net:eval(), x).out
    assert.equal(make("batch"):eval()(x).out:dims(), y:dims())
  end)

  it("without memory is an error that names the layer, and leaves nothing behind", function()
    local net = make("batch"):recompute()
    local x = helper.random({ 1, 3, 4, 40, 40 }, "x"):contiguous("channels_last")
    collectgarbage()
    collectgarbage()
    local before, messages, room, done = pn.memory().live, {}, 0, false
    while not done do
      room = room + 2 ^ 17
      pn.scope(function()
        local loss = net(x).out:sum()
        pn.C.pn_memory_set_limit(0, pn.memory().live + room)
        local ok, message = pcall(loss.backward, loss)
        pn.C.pn_memory_set_limit(0, 0)
        done = ok
        table.insert(messages, not ok and message or nil)
      end)
      net:zero_grad()
      collectgarbage() -- a handle may be on its way to its finalizer
      collectgarbage()
      assert.equal(before, pn.memory().live)
    end
    assert.matches("out of memory: .* wanted on the CPU by net.stem", table.concat(messages, "\n"))
  end)

  -- Each operation by its own cases, with its result behind an addition, so that it is given back.
  local binding, C = pn.ffi, pn.C

  local function gradients_of(op, case, again)
    local handles, pointers, n, arguments = cases.for_c(ffi.string(C.pn_op_name(op)), case)
    local values, y, n_y = ffi.new "pn_value [12]", ffi.new "pn_tensor *[8]", ffi.new "int [1]"
    binding.check(C.pn_op_parse(op, arguments, values))
    local mark = C.pn_tape_mark()
    binding.check(C.pn_apply(op, pointers, n, values, y, n_y))
    local found = {}
    if C.pn_requires_grad(y[0]) and C.pn_tensor_dtype(y[0]) == C.pn_real() then
      local results = {}
      for i = 0, n_y[0] - 1 do
        results[#results + 1] = binding.wrap(y[i])
      end
      local z = (results[1] + 1):square()
      for _, t in ipairs(results) do
        t:free()
      end
      if again then
        binding.check(C.pn_recompute(ffi.new("pn_tensor *[1]", binding.ptr(z)), 1, mark))
      end
      z:backward(helper.counted(z:shape(), 613))
      for i, x in ipairs(handles) do
        found[i] = x:grad() and x:grad():crc32c() or false
      end
    end
    return found
  end

  it("gives every operation the gradients it had", function()
    for index = 0, C.pn_n_ops() - 1 do
      local op, position = C.pn_op_at(index), 0
      while C.pn_op_case(op, position) ~= nil do
        local case = ffi.string(C.pn_op_case(op, position))
        pn.scope(function()
          assert.same(gradients_of(op, case, false), gradients_of(op, case, true), ffi.string(C.pn_op_name(op)) .. " " .. case)
        end)
        position = position + 1
      end
    end
  end)

  it("names what it cannot find", function()
    local net = make "batch"
    helper.failure(function() net:recompute("^d$") end, "net: no module's name matches '^d$'")
    helper.failure(function() net:recompute(true, 3) end, "recompute: expects patterns of names, got number")
  end)
end)
