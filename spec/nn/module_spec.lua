--- What a module is: names, state, modes, hooks, paths in errors, the table it prints, and layers of one's own.

local pn = require "penumbra"
local helper = require "spec.helper"
local nn = pn.nn

local function names(list)
  local found = {}
  for i, entry in ipairs(list) do
    found[i] = entry.name
  end
  return table.concat(found, " ")
end

local function build()
  return nn.sequential {
    { "stem", nn.unit { from = 3, to = 4, kernel = 3, stride = 2 } },
    { "head", nn.conv3d { from = 4, to = 2 } },
  }
end

describe("parameters and buffers", function()
  it("have names, in order", function()
    local net = build()
    assert.equal("stem.conv.weight stem.bn.beta head.weight head.bias", names(net:parameters()))
    assert.equal("stem.bn.mean stem.bn.var", names(net:buffers()))
    assert.equal(net.head.weight, net:named_parameters()["head.weight"])
    assert.equal(net.stem.bn.var, net:named_buffers()["stem.bn.var"])
    assert.equal(net.stem.bn, net:find "stem.bn")
    assert.equal("head", net:children()[2].name)
    assert.equal(" stem stem.conv stem.bn head", names(net:modules()))
    helper.failure(function() net:find "stem.bm" end, "no module 'stem.bm', did you mean 'stem.bn'?")
  end)

  it("that two modules share are listed once", function()
    local shared = nn.conv3d { from = 2, to = 2 }
    assert.equal(2, #nn.sequential({ shared, shared }):parameters())
  end)

  it("outlive the scope they were made in", function()
    local net = pn.scope(build)
    local inner
    pn.scope(function()
      inner = build()
    end)
    for _, module in ipairs { net, inner } do
      helper.assert_shape(module.head.weight, 2, 4, 1, 1, 1)
    end
  end)
end)

describe("a state", function()
  it("holds everything, and loads into another", function()
    local a, b = build():reset(1), build():reset(2)
    a.stem.bn.mean:fill(3)
    assert.not_equal(a.head.weight:crc32c(), b.head.weight:crc32c())
    local report = b:load_state(a:state())
    assert.equal(6, #report.loaded)
    for name, t in pairs(a:state()) do
      helper.assert_same_bits(t, b:state()[name], name)
    end
  end)

  it("may be of another element type, and of other names", function()
    local a, b = build():reset(1), build():reset(2)
    local state = {}
    for name, t in pairs(a:state()) do
      state["module." .. name] = t:cast("f64")
    end
    state["module.epoch"] = pn.tensor(3)
    b:load_state(state, { rename = function(name)
      return name ~= "module.epoch" and name:gsub("^module%.", "") or nil
    end })
    helper.assert_same_bits(a.head.weight, b.head.weight)
  end)

  it("that does not fit is refused with the names, and nothing changes", function()
    local net = build():reset(1)
    local before = net.stem.conv.weight:crc32c()
    local state = build():reset(2):state()
    state["head.bias"] = nil
    state["haed.bias"] = pn.zeros { 2 }
    state["head.weight"] = pn.zeros { 2, 5, 1, 1, 1 }
    helper.failure(function() net:load_state(state) end,
      "sequential: load_state: 1 missing: head.bias (allow_missing keeps their values)",
      "1 unexpected: haed.bias (allow_unexpected passes them over)",
      "1 of another shape: head.weight is 2,5,1,1,1, expected 2,4,1,1,1")
    assert.equal(before, net.stem.conv.weight:crc32c())
    local report = net:load_state(state, { allow_missing = true, allow_unexpected = true, allow_mismatched = true })
    assert.same({ { "head.bias" }, { "haed.bias" }, { "head.weight" } }, { report.missing, report.unexpected, report.mismatched })
    assert.not_equal(before, net.stem.conv.weight:crc32c())
    helper.failure(function() net:load_state(3) end, "load_state: expects a table name -> tensor, got number")
    helper.failure(function() net:load_state({}, { allow_mising = true }) end, "did you mean 'allow_missing'?")
    local many = {}
    for i = 1, 20 do
      many["x" .. i] = pn.zeros { 1 }
    end
    helper.failure(function() net:load_state(many) end, "20 unexpected", "and 12 more")
  end)
end)

describe("a checkpoint file", function()
  it("brings a module back, bit for bit", function()
    local name = os.tmpname()
    local path = name .. ".safetensors"
    local a, b = build():reset(1), build():reset(2)
    assert.equal(a, a:save(path, { note = "spec" }))
    assert.equal(b, b:load(path))
    for key, t in pairs(a:state()) do
      helper.assert_same_bits(t, b:state()[key], key)
    end
    local other = nn.sequential { nn.conv3d { from = 1, to = 1 } }
    helper.failure(function() other:load(path) end, "load_state: 2 missing: 1.bias, 1.weight")
    os.remove(name)
    os.remove(path)
    helper.failure(function() b:load(path) end, path)
  end)
end)

describe("modes", function()
  it("train and evaluate, all the way down", function()
    local net = build()
    assert.is_true(net.stem.bn.training)
    assert.equal(net, net:eval())
    assert.is_false(net.stem.bn.training)
    net:train()
    assert.is_true(net.stem.bn.training)
  end)

  it("freeze and unfreeze by pattern", function()
    local net = build()
    net:freeze "^stem%."
    assert.is_false(net.stem.conv.weight:requires_grad())
    assert.is_true(net.head.weight:requires_grad());
    (net(pn.ones { 1, 3, 1, 4, 4 })):sum():backward()
    assert.is_nil(net.stem.conv.weight:grad())
    assert.is_truthy(net.head.weight:grad())
    net:zero_grad()
    assert.is_nil(net.head.weight:grad())
    net:freeze():unfreeze("weight$", "beta$")
    assert.equal("stem.conv.weight stem.bn.beta head.weight", names(net:group("weight$", "beta$")))
    assert.is_false(net.head.bias:requires_grad())
    assert.is_true(net.stem.bn.beta:requires_grad())
    helper.failure(function() net:freeze "^stam" end, "sequential: no parameter's name matches '^stam'")
  end)

  it("run over all modules", function()
    local seen = {}
    build():apply(function(module, name)
      seen[#seen + 1] = name .. ":" .. module.kind
    end)
    assert.equal(":sequential stem:unit stem.conv:conv3d stem.bn:batch_norm head:conv3d", table.concat(seen, " "))
  end)

  it("move to a device, and stay what they are", function()
    local net = build()
    local weight = net.head.weight
    assert.equal(net, net:to "cpu")
    assert.equal(weight, net.head.weight)
    helper.failure(function() net:to "gpu" end, 'unknown device "gpu"')
  end)
end)

describe("random beginnings", function()
  it("depend on seed and name alone", function()
    local a = build():reset(7)
    nn.conv3d { from = 1, to = 1 }
    local b = build():reset(7)
    for name, t in pairs(a:state()) do
      helper.assert_same_bits(t, b:state()[name], name)
    end
    local other = nn.sequential { { "more", nn.conv3d { from = 3, to = 3 } }, { "head", nn.conv3d { from = 4, to = 2 } } }:reset(7)
    helper.assert_same_bits(a.head.weight, other.head.weight)
  end)

  it("differ from layer to layer", function()
    assert.not_equal(nn.conv3d({ from = 3, to = 3 }).weight:crc32c(), nn.conv3d({ from = 3, to = 3 }).weight:crc32c())
    local net = nn.sequential { nn.conv3d { from = 3, to = 3 }, nn.conv3d { from = 3, to = 3 } }:reset(1)
    assert.not_equal(net[1].weight:crc32c(), net[2].weight:crc32c())
  end)
end)

describe("errors inside a network", function()
  it("bear the path of the innermost module, once, and the user's line", function()
    local net = nn.sequential { { "i3d", nn.sequential { { "mixed", nn.concat { { "branch1", nn.conv3d { from = 3,
      to = 2 } } } } } } }
    local line = debug.getinfo(1, "l").currentline + 1
    local message = helper.failure(function() net(pn.zeros { 1, 4, 1, 2, 2 }) end)
    local start = ("spec/nn/module_spec.lua:%d: sequential.i3d.mixed.branch1: "):format(line)
    assert.is_truthy(message:find(start .. "conv3d: weight expects 3 input channels, x has 4", 1, true), message)
    assert.equal(1, select(2, message:gsub("branch1", "")))
    assert.is_truthy(pn.traceback():find("stack traceback", 1, true))
  end)

  it("leave scopes, paths and labels as they were", function()
    local net = build()
    local depth = pn.scope.depth()
    pn.scope(function()
      helper.failure(function() net(pn.zeros { 1, 4, 1, 2, 2 }) end, "sequential.stem.conv: ")
      assert.equal(depth + 1, pn.scope.depth())
      assert.is_nil(nn.path())
      helper.assert_shape(net(pn.zeros { 1, 3, 1, 4, 4 }), 1, 2, 1, 2, 2)
    end)
  end)

  it("of Lua, in a layer of one's own, bear it too", function()
    local Broken = nn.class "broken"
    function Broken.forward()
      error("no idea")
    end
    local net = nn.sequential { { "inner", Broken() } }
    local message = helper.failure(function() net(pn.zeros { 1 }) end)
    assert.is_truthy(message:find("module_spec.lua:%d+: sequential.inner: no idea"), message)
    function Broken.forward()
      error({ code = 3 })
    end
    local _, value = pcall(net, pn.zeros { 1 })
    assert.same({ code = 3 }, value)
  end)

  it("may be caught on the way: paths and scopes are put right", function()
    local Careful = nn.class "careful"
    function Careful:new()
      self:add("inner", nn.sequential { nn.conv3d { from = 3, to = 3 } })
    end
    function Careful:forward(x)
      local ok = pcall(self.inner, pn.ones { 1, 2, 1, 1, 1 })
      assert.equal("sequential.careful", nn.path())
      return ok and self.inner(x) or x + 1
    end
    local net, depth = nn.sequential { { "careful", Careful() }, { "last", nn.conv3d { from = 3, to = 1 } } }, pn.scope.depth()
    helper.assert_shape(net(pn.ones { 1, 3, 1, 1, 1 }), 1, 1, 1, 1, 1)
    assert.equal(depth, pn.scope.depth())
    assert.is_nil(nn.path())
    helper.failure(function() net(pn.ones { 1, 2, 1, 1, 1 }) end, "sequential.last: conv3d: weight expects 3")
  end)

  it("name the layer whose result is not finite", function()
    local net = build():reset(1)
    net.head.bias:detach():set(0 / 0, 1)
    pn.trap_nan(true)
    local ok, message = pcall(net, pn.zeros { 1, 3, 1, 4, 4 })
    pn.trap_nan(false)
    assert.is_false(ok)
    assert.is_truthy(message:find("sequential.head: conv3d: 4 of the 8 values it made are not finite", 1, true), message)
  end)

  it("of memory name the layer", function()
    local net = build()
    local x = pn.zeros { 1, 3, 2, 256, 256 }
    collectgarbage()
    collectgarbage()
    pn.C.pn_memory_trim(0)
    pn.C.pn_memory_set_limit(0, pn.memory().live + 2 ^ 16)
    local ok, message = pcall(net, x)
    pn.C.pn_memory_set_limit(0, 0)
    assert.is_false(ok)
    assert.is_truthy(message:find("sequential.stem.conv: out of memory", 1, true), message)
    assert.is_truthy(message:find("by sequential.stem.conv", 1, true), message)
  end)
end)

describe("hooks", function()
  it("see the outputs of the modules they name, until taken away", function()
    local net, seen = build(), {}
    local kept
    local remove = net:hook("^stem", function(module, name, out)
      seen[#seen + 1] = name .. "=" .. module.kind .. "=" .. table.concat(out:shape(), ",")
      if name == "stem.conv" then
        kept = out:keep()
      end
    end)
    pn.no_grad(net, pn.zeros { 1, 3, 1, 4, 4 })
    assert.equal("stem.conv=conv3d=1,4,1,2,2 stem.bn=batch_norm=1,4,1,2,2 stem=unit=1,4,1,2,2", table.concat(seen, " "))
    helper.assert_shape(kept, 1, 4, 1, 2, 2)
    remove()
    net(pn.zeros { 1, 3, 1, 4, 4 })
    assert.equal(3, #seen)
    helper.failure(function() net:hook("^stam", print) end, "no module's name matches '^stam'")
    helper.failure(function() net:hook("x", 3) end, "hook: expects a pattern and a function, got string and number")
  end)
end)

describe("the table it prints", function()
  it("has a line a layer, and totals", function()
    local net = build()
    local text = tostring(net)
    assert.is_truthy(text:find("stem%s+unit 3,3,3 / 2,2,2, bn frozen relu%s+3 %-> 4%s+328"), text)
    assert.is_truthy(text:find("head%s+conv3d 1,1,1 / 1,1,1%s+4 %-> 2%s+10"), text)
    assert.is_truthy(text:find("2 layers, 338 parameters %(338 learn%), 8 in buffers"), text)
    net:freeze "^stem"
    assert.is_truthy(tostring(net):find("(10 learn)", 1, true))
  end)

  it("has shapes, strides and centres after a forward", function()
    local text = build():summary { 1, 3, 4, 8, 8 }
    assert.is_truthy(text:find("stem .* 1,4,2,4,4%s+2,2,2%s+1,1,1\n"), text)
    assert.is_truthy(text:find("head .* 1,2,2,4,4%s+2,2,2%s+1,1,1\n"), text)
  end)

  it("changes nothing by its forward", function()
    local net = nn.sequential { nn.unit { from = 3, to = 2, batchnorm = "batch" } }
    net:summary { 1, 3, 1, 4, 4 }
    assert.is_true(net[1].bn.training)
    assert.same({ 1, 1 }, net[1].bn.var:totable())
    helper.failure(function() net:summary { 1, 4, 1, 4, 4 } end, "sequential.1.conv: conv3d: weight expects 3")
    assert.is_true(net[1].bn.training)
  end)
end)

describe("a layer of one's own", function()
  local Gate = nn.class "gate"
  function Gate:new(options)
    nn.check_options("gate", options, { "from" })
    self:add("conv", nn.conv3d { from = options.from, to = options.from })
    self:add_parameter("slope", pn.ones { 1 })
    self:add_buffer("count", pn.zeros { 1 })
  end
  function Gate:initialise(stream)
    self.slope:detach():fill(stream("slope"):uniform(1, 2))
  end
  function Gate:describe()
    return "of " .. self.conv.n_from
  end
  function Gate:forward(x)
    return x * (self.conv(x) * self.slope):sigmoid()
  end

  it("is a class: parameters, children, forward", function()
    local net = nn.sequential { { "gate", Gate { from = 2 } } }:reset(1)
    assert.equal("gate.slope gate.conv.weight gate.conv.bias", names(net:parameters()))
    assert.is_true(net.gate.slope:item() > 1)
    local x = pn.ones({ 1, 2, 1, 2, 2 }):requires_grad(true)
    net(x):sum():backward()
    assert.is_truthy(net.gate.slope:grad())
    assert.is_truthy(tostring(net):find("gate%s+gate of 2"))
    assert.is_true(nn.is_module(net))
    assert.is_false(nn.is_module({}))
    helper.failure(function() Gate { form = 2 } end, "gate: unknown option 'form', did you mean 'from'?")
  end)

  it("cannot take a name twice, nor hold what is no tensor or module", function()
    local gate = Gate { from = 2 }
    helper.failure(function() gate:add("conv", nn.relu()) end, "gate: the name 'conv' is taken")
    helper.failure(function() gate:add("forward", nn.relu()) end, "gate: the name 'forward' is taken")
    helper.failure(function() gate:add("a.b", nn.relu()) end, "gate: a name is letters, digits and _, got 'a.b'")
    helper.failure(function() gate:add("x", {}) end, "gate: 'x' is no module but a table")
    helper.failure(function() gate:add_parameter("x", 3) end, "gate: 'x' is no tensor but a number")
    helper.failure(function() nn.class "a b" end, "class: expects a name, got a b")
  end)

  local function of(net)
    return names(net:parameters())
  end

  it("has for children the modules assigned to its fields", function()
    local Block = nn.class "block"
    function Block:new(options)
      self.conv = nn.conv3d { from = options.from, to = options.from }
      self.act = nn.relu()
      self.other = options.other
      self.width = options.from
    end
    function Block:forward(x)
      return self.act(self.conv(x))
    end
    local net = nn.sequential { { "block", Block { from = 2 } } }
    assert.equal("block.conv.weight block.conv.bias", of(net))
    assert.equal("conv act", names(net.block:children()))
    assert.equal(2, net.block.width)
    net(pn.ones { 1, 2, 1, 2, 2 }):sum():backward()
    assert.is_truthy(net.block.conv.weight:grad())
    assert.is_truthy(tostring(net):find "block.conv%s+conv3d")
    assert.equal("conv act other", names(Block { from = 1, other = nn.relu() }:children()))
    net.head = nn.conv3d { from = 2, to = 1 }
    assert.equal("block.conv.weight block.conv.bias head.weight head.bias", of(net))
    helper.assert_shape(net(pn.ones { 1, 2, 1, 2, 2 }), 1, 1, 1, 2, 2)
    helper.failure(function() net.load = nn.relu() end, "sequential: the name 'load' is taken")
  end)

  it("has another child where one is assigned in its place, and none where it is nil", function()
    local net = build()
    local head = nn.conv3d { from = 4, to = 5, bias = false }
    net.head = head
    assert.equal("stem.conv.weight stem.bn.beta head.weight", of(net))
    assert.equal("head", head.name)
    assert.equal(head, net.head)
    helper.assert_shape(net(pn.zeros { 1, 3, 1, 4, 4 }), 1, 5, 1, 2, 2)
    net[2] = nn.conv3d { from = 4, to = 6 }
    assert.equal(6, net.head.n_to)
    helper.assert_shape(net(pn.zeros { 1, 3, 1, 4, 4 }), 1, 6, 1, 2, 2)
    net.head = nil
    assert.is_nil(net.head)
    assert.equal("stem.conv.weight stem.bn.beta", of(net))
    net.head = 3
    assert.equal(3, net.head)
    helper.failure(function() net.stem = 3 end,
      "sequential: 'stem' is a module: a number cannot take its place, another module or nil can")
  end)

  it("refuses a tensor that would learn unseen, and another in place of a parameter", function()
    local Slope = nn.class "slope"
    function Slope:new(options)
      self.slope = pn.ones({ 1 }):requires_grad(options.learns)
      self.shared = options.shared
    end
    assert.equal(1, Slope({ learns = false }).slope:item())
    helper.failure(function() Slope { learns = true } end, "slope: 'slope' requires a gradient, but is no parameter: "
      .. 'self:add_parameter("slope", t) makes it one (what is saved, but does not learn: add_buffer)')
    local gate = Gate { from = 2 }
    assert.equal(gate.slope, Slope({ learns = false, shared = gate.slope }).shared) -- another module has it
    gate.last = gate(pn.ones { 1, 2, 1, 1, 1 }) -- what a layer keeps for itself
    assert.is_true(gate.last:requires_grad())
    for _, name in ipairs { "slope", "count" } do
      local before = gate[name]
      helper.failure(function() gate[name] = pn.ones { 1 } end,
        ("gate: '%s' is a parameter or buffer of it: change its values in place, self.%s:copy(t)"):format(name, name))
      assert.equal(before, gate[name])
    end
  end)

  it("cannot hold itself", function()
    local net = build()
    helper.failure(function() net.stem.whole = net end, "unit: 'whole' holds this module itself")
    helper.failure(function() net.stem = nn.sequential { net } end, "sequential: 'stem' holds this module itself")
    helper.failure(function() net.stem.whole = { net } end,
      "unit: 'whole.1' holds this module itself", "stands in a table under a name: { net = net }")
    net.stem.whole = { net = net }
    assert.equal(4, #net:parameters())
  end)

  describe("has for children the modules of a list", function()
    local function conv(to) return nn.conv3d { from = 1, to = to, bias = false } end
    local Stack = nn.class "stack"
    function Stack:new(options)
      self.first = conv(1)
      self.layers = options.layers or { conv(1), nn.relu(), conv(1) }
      self.last = conv(1)
    end
    function Stack:forward(x)
      x = self.first(x)
      for _, layer in ipairs(self.layers) do x = layer(x) end
      return self.last(x)
    end

    it("in order, by name and place", function()
      local net = nn.sequential { { "stack", Stack {} } }:reset(1)
      assert.equal("stack.first.weight stack.layers.1.weight stack.layers.3.weight stack.last.weight", of(net))
      assert.equal("first layers.1 layers.2 layers.3 last", names(net.stack:children()))
      assert.equal("layers.3", net.stack.layers[3].name)
      assert.equal(net.stack.layers[3], net:find "stack.layers.3")
      net(pn.ones { 1, 1, 1, 1, 1 }):sum():backward()
      assert.is_truthy(net.stack.layers[1].weight:grad())
      assert.is_truthy(tostring(net):find "stack.layers.3%s+conv3d")
      helper.failure(function() net.stack.layers[3](pn.zeros { 1, 2, 1, 1, 1 }) end, "layers.3: conv3d: weight expects 1")
      net:eval()
      assert.is_false(net.stack.layers[2].training)
      local other = nn.sequential { { "stack", Stack {} } }:reset(2)
      assert.equal(4, #other:load_state(net:state()).loaded)
    end)

    it("that is filled, changed or emptied after it was assigned", function()
      local net = Stack { layers = {} }
      assert.equal("first.weight last.weight", of(net))
      for i = 1, 2 do net.layers[i] = conv(1) end
      assert.equal("first.weight layers.1.weight layers.2.weight last.weight", of(net))
      assert.equal("layers.2", net.layers[2].name)
      table.remove(net.layers, 1)
      assert.equal("first layers.1 last", names(net:children()))
      net.layers = { conv(2), conv(2) }
      assert.equal("first layers.1 layers.2 last", names(net:children()))
      net.layers = nil
      assert.is_nil(net.layers)
      assert.equal("first last", names(net:children()))
      net.layers = conv(1)
      assert.equal("first last layers", names(net:children()))
    end)

    it("of lists, and of one filled while it is made", function()
      local Stages = nn.class "stages"
      function Stages:new()
        self.stages, self.later = { {}, {} }, { 0 }
        for i = 1, 2 do
          for k = 1, 2 do self.stages[i][k] = conv(1) end
        end
        self.later[1] = conv(1)
        self.sizes, self.empty = { 1, 2 }, {}
      end
      local net = Stages()
      assert.equal("later.1.weight stages.1.1.weight stages.1.2.weight stages.2.1.weight stages.2.2.weight", of(net))
      assert.equal("stages.2.1", net.stages[2][1].name)
      assert.same({ 1, 2 }, net.sizes)
      net.empty[1] = 5
      assert.same({ 5 }, net.empty)
      net.empty = 3
      assert.equal(3, net.empty)
    end)

    it("which a sequence runs as it runs its own", function()
      local net = nn.sequential { conv(2) }
      net.more = { nn.conv3d { from = 2, to = 3 }, nn.relu() }
      helper.assert_shape(net(pn.ones { 1, 1, 1, 2, 2 }), 1, 3, 1, 2, 2)
      assert.equal(net.more[1], net[2])
      net[2] = nn.conv3d { from = 2, to = 4 }
      assert.equal(4, net.more[1].n_to)
      net[3] = nil
      assert.equal(1, #net.more)
      helper.failure(function() net[2] = 3 end, "sequential: 'more.1' is a module: a number cannot take its place")
    end)

    it("of modules alone", function()
      local net = Stack {}
      helper.failure(function() net.mixed = { conv(1), 3 } end, "stack: 'mixed' holds modules and, at 2, a number: a list is of "
        .. "modules alone; what is only used, not owned, stands in a table under a name: { net = net }")
      helper.failure(function() Stack { layers = { { "a", conv(1) } } } end, "stack: 'layers.1' holds modules and, at 1, a string")
      helper.failure(function() net.layers = 3 end,
        "stack: 'layers' is a list of modules: a number cannot take its place, another list or nil can")
      helper.failure(function() net["my layers"] = { conv(1) } end, "stack: a name is letters, digits and _, got 'my layers'")
      helper.failure(function() net.forward = { conv(1) } end, "stack: the name 'forward' is taken")
      net.teacher = { net = conv(1) } -- used, not owned
      net.skips = { "1a", "2c" }
      assert.equal("first.weight layers.1.weight layers.3.weight last.weight", of(net))
    end)
  end)

  it("finds the module that came to a field that was there", function()
    local Late = nn.class "late"
    function Late:new()
      self.head = false
      self.head = nn.conv3d { from = 1, to = 1, bias = false }
    end
    assert.equal("head.weight", of(Late()))
  end)

  it("cannot have a field with the name of what every module has", function()
    for _, name in ipairs { "state", "modules", "parameters", "train", "to", "hook", "initialise" } do
      local Bad = nn.class "bad"
      function Bad:new() self[name] = name == "modules" and {} or 0 end
      helper.failure(function() Bad() end, ("bad: '%s' is a method of every module: the field needs another name"):format(name))
    end
    local net = build()
    helper.failure(function() net.name = "x" end,
      "sequential: 'name' is what a module is called by in paths and reports: the field needs another name")
    assert.equal("sequential", net.name)
    assert.equal("stem", net.stem.name)
  end)

  it("reads its own tensors from the checkpoint of a run, which holds more", function()
    local path = os.tmpname()
    pn.save(path, { weight = pn.tensor { 2 }, ["@optim/#1/momentum"] = pn.tensor { 5 } })
    local Scale = nn.class "scale"
    function Scale:new() self:add_parameter("weight", pn.ones { 1 }) end
    assert.equal(2, Scale():load(path).weight:item())
    os.remove(path)
  end)

  it("names the nearest of what a module has where it is called by a name that it has not", function()
    local Tiny = nn.class "tiny"
    function Tiny:new()
      self.head, self.down = nn.relu(), { nn.relu() }
    end
    function Tiny.forward(_, x, f) return f(x) end
    local net = Tiny()
    for _, case in ipairs {
      { "the module 'tiny' has no 'haed' to call, did you mean 'head'?", function() net:haed() end },
      { "the module 'tiny' has no 'haed' to call, did you mean 'head'?", function() net.haed() end },
      { "the module 'tiny' has no 'parametrs' to call, did you mean 'parameters'?", function() net:parametrs() end },
      { "the module 'tiny' has no 'half' to call", function() net:half() end },
      { "the module 'down.1' has no 'forwrd' to call, did you mean 'forward'?", function() net.down[1]:forwrd() end },
    } do
      local said = helper.failure(function() pn.scope(case[2]) end, case[1])
      assert.truthy(said:find "^spec/nn/module_spec.lua:%d+: the module", said)
      assert.is_nil(said:match "half.*did you mean")
      helper.failure(function() net(pn.ones { 1 }, case[2]) end, ": tiny: " .. case[1]) -- inside of a call, with its path
    end
    assert.is_nil(net.haed) -- to read it is no mistake
  end)

  it("says what a class lacks that cannot be called", function()
    local Bad = nn.class "bad"
    helper.failure(function() Bad()(pn.ones { 1 }) end, "bad: the class 'bad' has no method forward(self, x), which a call runs")
    function Bad.foward(_, x) return x end
    helper.failure(function() Bad()(pn.ones { 1 }) end, "which a call runs, did you mean 'foward'?")
  end)

  it("keeps the name 'own' for itself", function()
    local Mine = nn.class "mine"
    for _, new in ipairs {
      function(self) self.own = 1 end, function(self) self.own = {} end,
      function(self) self.own, self.conv = 1, nn.relu() end, function(self) self.own = nil end,
    } do
      Mine.new = new
      helper.failure(function() Mine() end, "module_spec.lua:",
        "mine: 'own' is where a module keeps its parts: the field needs another name")
    end
    function Mine.new() error("its own", 0) end
    assert.equal("its own", select(2, pcall(Mine)))
  end)
end)
