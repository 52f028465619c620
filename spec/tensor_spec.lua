--- Tensors from Lua: making, reading, writing, operators, gradients, and every message.

local pn = require "penumbra"
local helper = require "spec.helper"

describe("making a tensor", function()
  it("takes options beside the values, and the sign of a zero", function()
    assert.equal("u8", pn.tensor({ 1, 2, dtype = "u8" }):dtype())
    assert.equal("i64", pn.tensor({ { 1 }, { 2 }, dtype = "i64" }):dtype())
    helper.failure(function() pn.tensor { 1, 2, dtipe = "u8" } end, "tensor: unknown option 'dtipe', did you mean 'dtype'?")
    helper.failure(function() pn.tensor { { 1 }, { 2, dtype = "u8" } } end,
      "tensor: field 'dtype' at depth 2: options stand beside the outermost values, or in a second table")
    assert.equal(-math.huge, 1 / pn.tensor(-0.0):item())
    assert.equal(-math.huge, 1 / pn.full({ 2, value = -0.0 }):get(2))
  end)

  it("from sizes", function()
    local t = pn.zeros { 2, 3, dtype = "u8" }
    assert.same({ 2, 3 }, t:shape())
    assert.same({ 2, 2, 3, 6 }, { t:dims(), t:size(1), t:size(2), t:count() })
    assert.equal("u8", t:dtype())
    assert.equal("cpu", t:device())
    assert.same({ { 0, 0, 0 }, { 0, 0, 0 } }, t:totable())
    assert.same({ 1, 1 }, pn.ones { 2 }:totable())
    assert.same({ 7, 7 }, pn.full { 2, value = 7 }:totable())
    assert.equal(pn.real, pn.empty { 1 }:dtype())
    assert.same({ 0 }, pn.empty { 0 }:shape())
  end)

  it("from values", function()
    assert.same({ { 1, 2 }, { 3, 4 } }, pn.tensor({ { 1, 2 }, { 3, 4 } }):totable())
    assert.same({}, pn.tensor(3.5):shape())
    assert.equal(3.5, pn.tensor(3.5):item())
    assert.same({ 1, 2, 255 }, pn.tensor({ 1, 2, 255 }, { dtype = "u8" }):totable())
    assert.same({ 2 ^ 40 }, pn.tensor({ 2 ^ 40 }, { dtype = "i64" }):totable())
    assert.same({ 1.5, -2 }, pn.tensor({ 1.5, -2 }, { dtype = "f16" }):totable())
    assert.same({ 0.5, -2 }, pn.tensor({ 0.5, -2 }, { dtype = "bf16" }):totable())
  end)

  it("in a layout", function()
    local t = pn.zeros { 1, 3, 2, 4, 5, layout = "channels_last" }
    assert.same({ 1, 3 }, { t:stride(2), t:stride(5) })
    assert.is_true(t:is_dense "channels_last")
    assert.is_false(t:is_dense())
    assert.is_true(t:contiguous():is_dense())
    assert.is_true(pn.empty_like(t):is_dense "channels_last")
    assert.is_true(pn.zeros_like(pn.empty { 2, 3, 4, 5, 6, layout = "filter" }):is_dense "filter")
  end)

  it("says what is wrong", function()
    helper.failure(function() pn.zeros(3) end, "zeros: expects a table {sizes...", "got number")
    helper.failure(function() pn.zeros { 2, -1 } end, "zeros: size 2 is -1, expects a whole number from 0")
    helper.failure(function() pn.zeros { 1.5 } end, "zeros: size 1 is 1.5")
    helper.failure(function() pn.zeros { 1, 1, 1, 1, 1, 1, 1 } end, "zeros: 7 axes, at most 6")
    helper.failure(function() pn.zeros { 1, dtyp = "u8" } end, "zeros: unknown option 'dtyp', did you mean 'dtype'?")
    helper.failure(function() pn.zeros { 1, value = 3 } end, "zeros: unknown option 'value'")
    helper.failure(function() pn.full { 1 } end, "full: value is nil, expects a number")
    helper.failure(function() pn.zeros { 1, dtype = "u9" } end, "unknown element type 'u9', did you mean 'u8'?")
    helper.failure(function() pn.zeros { 1, layout = "rose" } end, "unknown layout 'rose'")
    helper.failure(function() pn.zeros { 1, device = "gpu" } end, 'unknown device "gpu"')
    local message = helper.failure(function() pn.zeros { 1, device = "cuda:7" } end) -- wherever this runs, there are not eight
    assert.is_truthy(message:find("tensor_spec.lua:%d+: .*[Cc][Uu][Dd][Aa]"), message)
  end)

  it("from values says what is wrong", function()
    helper.failure(function() pn.tensor("x") end, "tensor: expects a number or a nested table of numbers, got string")
    helper.failure(function() pn.tensor { { 1, 2 }, { 3 } } end,
      "tensor: ragged table: at depth 2 1 elements where 2 elements stood before")
    helper.failure(function() pn.tensor({ { 1, 300 } }, { dtype = "u8" }) end, "tensor: an element is 300, u8 holds 0 to 255")
    helper.failure(function() pn.zeros({ 1, dtype = "u8" }):copy { -1 } end, "tensor: an element is -1, u8 holds 0 to 255")
    helper.failure(function() pn.tensor({ 0 / 0 }, { dtype = "i32" }) end, "nan, i32 holds -2147483648 to 2147483647")
    assert.same({ 0, 255 }, pn.tensor({ 0, 255 }, { dtype = "u8" }):totable())
    assert.same({ -2 ^ 31, 2 ^ 31 - 1 }, pn.tensor({ -2 ^ 31, 2 ^ 31 - 1 }, { dtype = "i32" }):totable())
    helper.failure(function() pn.tensor { { 1 }, 3 } end, "at depth 2 a number where 1 elements stood before")
    helper.failure(function() pn.tensor { "x" } end, "tensor: an element is a string, expects numbers")
  end)

  it("raises at the user's line", function()
    local line = debug.getinfo(1, "l").currentline + 1
    local message = helper.failure(function() pn.zeros { -1 } end)
    assert.is_truthy(message:find("tensor_spec.lua:" .. line .. ":", 1, true), message)
  end)
end)

describe("elements", function()
  it("are read and written by indices from 1", function()
    local t = pn.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.equal(6, t:get(2, 3))
    assert.equal(t, t:set(9, 1, 1))
    assert.same({ 9, 2, 3, 4, 5, 6 }, t:flat())
    assert.same({ 5, 5 }, pn.zeros { 2 }:fill(5):totable())
    assert.same({ { 1, 2 } }, pn.zeros { 1, 2 }:copy({ { 1, 2 } }):totable())
    assert.same({ 1, 2 }, pn.zeros { 2, dtype = "u8" }:copy(pn.tensor { 1, 2 }):totable())
    assert.same({ 1, 0 }, pn.tensor({ 1, 0 }):clone():totable())
  end)

  it("lie at an address", function()
    local t = pn.zeros { 2, 2, dtype = "u8" }
    t:data()[3] = 200
    assert.equal(200, t:get(2, 2))
    assert.equal("ctype<unsigned char *>", tostring(require("ffi").typeof(t:data())))
  end)

  it("say what is wrong", function()
    local t = pn.zeros { 2, 3 }
    helper.failure(function() t:get(1) end, "get: 1 indices for a tensor of 2 axes")
    helper.failure(function() t:get(0, 1) end, "get: index 1 is 0, expects 1 to 2")
    helper.failure(function() t:get(1, 4) end, "get: index 2 is 4, expects 1 to 3")
    helper.failure(function() t:set("x", 1, 1) end, "set: the value is a string, expects a number")
    helper.failure(function() t:set(1, 1, 1.5) end, "set: index 2 is 1.5")
    helper.failure(function() t:item() end, "item: the tensor has 6 elements, expects 1")
    helper.failure(function() t:fill("x") end, "fill: the value is a string")
    helper.failure(function() t:copy(3) end, "copy: expected a tensor, got number")
    helper.failure(function() t:copy { 1 } end, "copy: a table of depth 1 into a tensor of 2 axes")
    helper.failure(function() t:size(3) end, "size: axis 3, the tensor has axes 1 to 2")
    helper.failure(function() t:stride(0) end, "stride: axis 0, the tensor has axes 1 to 2")
    helper.failure(function() t:slot(3, 1, 1) end, "slot: axis 3")
    helper.failure(function() t:slot(1, 1, "x") end, "slot: first and count are whole numbers")
    helper.failure(function() t:slot(1, 2, 5) end, "slot")
    helper.failure(function() t:sise(1) end, "a tensor has no method 'sise', did you mean 'size'?")
    for theirs, ours in pairs {
      transpose = "permute", view = "reshape", cat = "concat", numel = "count", dim = "dims", masked_fill = "where",
    } do
      helper.failure(function() return t[theirs] end, ("a tensor has no method '%s', did you mean '%s'?"):format(theirs, ours))
    end
    local message = helper.failure(function() t:xyzzyq() end, "a tensor has no method 'xyzzyq'")
    assert.is_nil(message:find("did you mean", 1, true))
    helper.failure(function() return t["1"] end, "a tensor has no method '1'")
    helper.failure(function() return t[{ 1, 2 }] end,
      "a tensor is not indexed with [{1, 2}]: t[i] is a part of the first axis, t:get(")
    helper.failure(function() t[{ 1, 2 }] = 2 end, "a tensor has no field [{1, 2}] to set: t:set(value, i, ...)")
    helper.failure(function() t.name = 2 end, "a tensor has no field 'name' to set")
    helper.failure(function() t[1] = 2 end, "a tensor has no field [1] to set: t:set(value, i, ...) sets an element")
    helper.failure(function() return #t end, "a tensor has no length: t:size(axis), t:count() and t:dims() count")
    helper.failure(function() return t < t end,
      "tensors have no order: compare numbers (t:item(), t:get(i, ...)), or elements (t:lt(other), t:ge(0.5))")
    helper.failure(function() return t >= 1 end, "tensors have no order")
    local left = 'x - n * (x / n):cast("i64"):cast("real")'
    helper.failure(function() return t % 2 end, "tensors have no %: " .. left .. " is what is left of x / n, with the sign of x")
    helper.failure(function() return 7 % t end, "tensors have no %")
    local made = setfenv(assert(loadstring("return " .. left)), { x = pn.tensor { 7.5, -7.5, 4 }, n = 2 })()
    assert.same({ 1.5, -1.5, 0 }, made:totable())
    message = helper.failure(function() return "a " .. t end, "a tensor is no text: tostring(t) is")
    assert.is_truthy(message:find "^spec/tensor_spec.lua:%d+: ")
  end)

  it("and numbers that are not finite go by the rules of floating point", function()
    local x = pn.tensor { 1, -2, 0 }:requires_grad(true)
    local function text(t) return table.concat(t:totable(), " "):gsub("%-nan", "nan") end
    assert.equal("inf -inf nan", (text(x / 0)))
    assert.equal("inf inf inf", (text(x + math.huge)))
    assert.equal("-inf -inf -inf", (text(x - math.huge)))
    assert.equal("inf inf inf", (text(math.huge - x)))
    assert.equal("inf -inf nan", (text(math.huge * x)))
    assert.equal("nan nan nan", (text(x * (0 / 0))))
    pn.sum(x / 0):backward()
    assert.equal("inf inf inf", (text(x:grad())))
  end)

  it("are counted when they are not finite, and summed up as a checksum", function()
    assert.equal(2, pn.tensor({ 1, 0 / 0, 1 / 0 }):count_bad())
    -- "123456789" is the check value of CRC-32C.
    assert.equal(0xe3069283, pn.tensor({ 49, 50, 51, 52, 53, 54, 55, 56, 57 }, { dtype = "u8" }):crc32c())
  end)

  it("convert", function()
    assert.same({ 1, 2 }, pn.tensor({ 1, 2 }):cast("u8"):totable())
    assert.equal("f16", pn.tensor({ 1, 2 }):cast("f16"):dtype())
    local t = pn.ones { 2 }
    assert.equal(t, t:to("cpu"))
  end)
end)

describe("a tensor", function()
  it("prints", function()
    assert.equal(("tensor 2 %s cpu {1, 2.5}"):format(pn.real), tostring(pn.tensor { 1, 2.5 }))
    assert.equal(("tensor 9,9 %s cpu"):format(pn.real), tostring(pn.zeros { 9, 9 }))
    assert.equal(("tensor %s cpu 3"):format(pn.real), tostring(pn.tensor(3)))
    local t = pn.zeros { 1 }
    t:free()
    assert.equal("tensor (freed)", tostring(t))
  end)

  it("equals itself, not another, nor anything else", function()
    local t = pn.zeros { 1 }
    assert.is_true(t == t)
    assert.is_false(t == pn.zeros { 1 })
    assert.is_false(t == nil)
    assert.is_false(t == 3)
    assert.is_true(pn.is_tensor(t))
    assert.is_false(pn.is_tensor({}))
  end)

  it("carries a grid", function()
    local t = pn.zeros { 1, 1, 2, 2, 2 }
    assert.is_nil(t:grid())
    t:set_grid({ 1, 2, 2 }, { 0, .5, .5 })
    assert.same({ stride = { 1, 2, 2 }, centre = { 0, .5, .5 } }, t:grid())
    helper.failure(function() t:set_grid({ 1, 2 }, { 0, 0, 0 }) end, "set_grid: expects two triples")
    helper.failure(function() t:set_grid(nil, { 0, 0, 0 }) end, "set_grid: expects two triples")
  end)

  it("is an error once freed", function()
    local t = pn.zeros { 1 }
    t:free()
    helper.failure(function() t:size(1) end, "tensor used after its scope ended (return it from the scope or :keep() it)")
    helper.failure(function() return t + 1 end, "tensor used after its scope ended")
    t:free() -- twice does no harm
  end)
end)

describe("operators", function()
  local a, b = pn.tensor({ 1, 2, 4 }):keep(), pn.tensor({ 2, 2, 2 }):keep()

  it("work on tensors and numbers", function()
    assert.same({ 3, 4, 6 }, (a + b):totable())
    assert.same({ -1, 0, 2 }, (a - b):totable())
    assert.same({ 2, 4, 8 }, (a * b):totable())
    assert.same({ .5, 1, 2 }, (a / b):totable())
    assert.same({ -1, -2, -4 }, (-a):totable())
    assert.same({ 1, 4, 16 }, (a ^ 2):totable())
    assert.same({ 2, 3, 5 }, (a + 1):totable())
    assert.same({ 2, 3, 5 }, (1 + a):totable())
    assert.same({ 0, 1, 3 }, (a - 1):totable())
    assert.same({ 9, 8, 6 }, (10 - a):totable())
    assert.same({ 3, 6, 12 }, (a * 3):totable())
    assert.same({ 3, 6, 12 }, (3 * a):totable())
    assert.same({ .5, 1, 2 }, (a / 2):totable())
    assert.same({ 8, 4, 2 }, (8 / a):totable())
  end)

  it("broadcast", function()
    assert.same({ { 11, 21 }, { 12, 22 } }, (pn.tensor { { 1 }, { 2 } } + pn.tensor { 10, 20 }):totable())
  end)

  it("refuse what does not fit", function()
    helper.failure(function() return a + pn.ones { 2 } end, "add", "a 3", "b 2")
    helper.failure(function() return a + {} end, "add", "expected a tensor")
    helper.failure(function() return a ^ a end, "pow: the exponent is a tensor, expects a number: a ^ x is pn.exp(x * pn.log(a))")
    helper.failure(function() return 2 ^ a end, "pow: the exponent is a tensor, expects a number: 2 ^ x is pn.exp(x * math.log(2))")
  end)
end)

describe("methods that are operations", function()
  local t = pn.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }):keep()

  it("take their only argument bare", function()
    assert.same({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, t:reshape(3, 2):totable())
    assert.same({ 1, 2, 3, 4, 5, 6 }, t:reshape { -1 }:totable())
    assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, t:permute(2, 1):totable())
    assert.same({ { 3, 2, 1 }, { 6, 5, 4 } }, t:flip(2):totable())
    assert.same({ { 2, 3 }, { 5, 6 } }, t:slice(2, 2, 2):totable())
    assert.same({ { 2, 3 }, { 5, 6 } }, t:slice(2, 2):totable())
    assert.same({ 6, 15 }, t:sum({ axes = 2 }):totable())
  end)

  it("share memory where they are views", function()
    local base = pn.zeros { 4 }
    base:slice(1, 2, 2):fill(3)
    assert.same({ 0, 3, 3, 0 }, base:totable())
  end)
end)

describe("an operation", function()
  it("writes into the tensor it is given, also a part of one", function()
    local whole = pn.zeros { 2, 3 }
    local y = pn.relu(pn.tensor { { -1 }, { 2 } }, { into = whole:slot(2, 2, 1) })
    assert.same({ { 0, 0, 0 }, { 0, 2, 0 } }, whole:totable())
    assert.same({ { 0 }, { 2 } }, y:totable())
    helper.failure(function() pn.relu(pn.ones { 2 }, { into = pn.zeros { 3 } }) end, "relu: the destination is")
  end)

  it("takes numbers for tensors, and lists for one-or-more", function()
    assert.same({ 2, 3 }, pn.ops.maximum(pn.tensor { 1, 3 }, 2):totable())
    assert.same({ 1, 2, 3 }, pn.concat({ pn.tensor { 1 }, pn.tensor { 2, 3 } }, { axis = 1 }):totable())
    assert.same({ 1, 2, 3 }, pn.concat(pn.tensor { 1 }, pn.tensor { 2, 3 }, { axis = 1 }):totable())
  end)
end)

describe("gradients", function()
  it("flow back and add up", function()
    local x = pn.tensor({ 1, 2, 3 }):requires_grad(true)
    assert.is_true(x:requires_grad())
    assert.is_nil(x:grad());
    (x * x):sum():backward()
    assert.same({ 2, 4, 6 }, x:grad():totable());
    (x * x):sum():backward()
    assert.same({ 4, 8, 12 }, x:grad():totable())
    x:set_grad(nil)
    assert.is_nil(x:grad())
    x:set_grad(pn.ones { 3 })
    assert.same({ 1, 1, 1 }, x:grad():totable())
  end)

  it("start from a seed", function()
    local x = pn.tensor({ 1, 2 }):requires_grad(true);
    (x * 3):backward(pn.tensor { 1, 10 })
    assert.same({ 3, 30 }, x:grad():totable())
  end)

  it("flow through slices", function()
    local x = pn.tensor({ 1, 2, 3 }):requires_grad(true)
    x:slice(1, 2, 2):sum():backward()
    assert.same({ 0, 1, 1 }, x:grad():totable())
  end)

  it("flow through conversions", function()
    local x = pn.tensor({ { 1, 2 }, { 3, 4 } }):requires_grad(true)
    local other = pn.real == "f32" and "f64" or "f32";
    (x:permute(2, 1):contiguous():cast(other):cast(pn.real) * 3):sum():backward()
    assert.same({ { 3, 3 }, { 3, 3 } }, x:grad():totable())
    assert.equal("u8", x:cast("u8"):dtype())
  end)

  it("do not flow where nothing is recorded", function()
    local x = pn.tensor({ 1, 2 }):requires_grad(true)
    local y = pn.no_grad(function() return x * 2 end)
    assert.is_false(y:requires_grad())
    assert.is_false((x:detach() * 2):requires_grad())
    assert.is_true((x * 2):requires_grad())
    -- Also after an error inside.
    helper.failure(function() pn.no_grad(function() error("stop") end) end, "stop")
    assert.is_true((x * 2):requires_grad())
  end)

  it("say what is wrong", function()
    local x = pn.tensor({ 1, 2 }):requires_grad(true)
    helper.failure(function() x:requires_grad(1) end, "requires_grad: expects true or false, got number")
    helper.failure(function() (x * 2):backward() end, "backward")
    helper.failure(function() x:backward(3) end, "backward: seed: expected a tensor, got number")
    helper.failure(function() (x * 2):sum():backward { keep = true } end, "backward: unknown option 'keep' (known: keep_graph)")
    helper.failure(function() pn.zeros({ 2, dtype = "u8" }):requires_grad(true) end, "u8")
    helper.failure(function() x:set_grad(pn.ones { 3 }) end, "set_grad: the gradient must have the tensor's shape")
    local loss = (x * x):sum()
    loss:backward()
    helper.failure(function() loss:backward() end, "keep_graph")
  end)

  it("go back twice when the graph is kept", function()
    local x = pn.tensor({ 1, 2 }):requires_grad(true)
    local loss = (x * x):sum()
    loss:backward { keep_graph = true }
    loss:backward()
    assert.same({ 4, 8 }, x:grad():totable())
  end)
end)

describe("the library", function()
  it("tells of itself", function()
    assert.is_truthy(pn.version:match("^%d+%.%d+%.%d+$"))
    assert.is_truthy(pn.build_info():find(pn.real, 1, true))
    assert.is_true(pn.clock() > 0)
    assert.is_true(pn.threads() >= 1)
    helper.failure(function() pn.threads(1.5) end, "threads: expects a whole number, got 1.5")
    helper.failure(function() pn.threads(0) end, "0")
  end)

  it("names the nearest of what it has", function()
    helper.failure(function() return pn.sigmoyd end, "penumbra has no 'sigmoyd', did you mean 'sigmoid'?")
    helper.failure(function() return pn.nn.conv3 end, "nn has no 'conv3', did you mean 'conv3d'?")
    helper.failure(function() return pn.cat end, "penumbra has no 'cat', did you mean 'concat'?")
    helper.failure(function() return pn.einsum end, "penumbra has no 'einsum': permute, reshape and matmul say it")
    helper.failure(function() return pn.ops.topk end, "no operation 'topk': pn.topk is made of operations")
    helper.failure(function() return pn.take_along_dim end, "penumbra has no 'take_along_dim', did you mean 'gather'?")
    helper.failure(function() return pn.log2 end, "penumbra has no 'log2': pn.log(x) / math.log(2)")
    helper.failure(function() return pn.ones({ 1 }).log2 end, "a tensor has no method 'log2': pn.log(x) / math.log(2)")
    helper.failure(function() return pn.nn.norm end, "nn has no 'norm', did you mean 'batch_norm'?")
    helper.failure(function() return pn.randn end, 'pn.random.stream(seed):fill(pn.empty{2, 3}, "normal")')
    helper.failure(function() return pn.float32 end, 'an element type is a name: { dtype = "f32" }')
    helper.failure(function() return pn.greater_equal end, "penumbra has no 'greater_equal', did you mean 'ge'?")
    helper.failure(function() return pn.nn.Conv2d end, "nn has no 'Conv2d', did you mean 'conv3d'?")
    helper.failure(function() pn.concat({ pn.ones { 1 } }, { dim = 1 }) end, "unknown argument 'dim', did you mean 'axis'?")
    helper.failure(function() return pn.plot.hist end, "plot has no 'hist' (known: bars, lines)")
    helper.failure(function() return pn.optim.adm end, "optim has no 'adm', did you mean 'adam'? (known: adam, adamw, check, ")
    helper.failure(function() return pn.optim.schedule.polly end, "optim.schedule has no 'polly', did you mean 'poly'?")
    helper.failure(function() return pn.json.encode end, "json has no 'encode', did you mean 'line'?")
    helper.failure(function() return pn.cuda end, "penumbra has no 'cuda', did you mean 'device'?")
    for _, name in ipairs { "config", "loss", "image", "data", "random", "lucid", "profile" } do
      helper.failure(function() return pn[name].xyzzyq end, name .. " has no 'xyzzyq'")
    end
    for name in pairs(pn.plot) do assert.is_not_nil(pn.plot[name]) end
    assert.is_nil(rawget(pn.plot, "hist"))
    local message = helper.failure(function() return pn.xyzzyq end, "penumbra has no 'xyzzyq'")
    assert.is_nil(message:find("did you mean", 1, true))
  end)

  it("makes no globals", function()
    helper.assert_no_globals(function()
      local x = pn.ones { 1, 2, 1, 3, 3 }
      pn.nn.sequential { pn.nn.conv3d { from = 2, to = 2, kernel = { 1, 3, 3 } }, pn.nn.relu() }(x)
    end)
  end)

  it("traps what is not finite, and names the operation", function()
    pn.trap_nan(true)
    local ok, message = pcall(function() return pn.log(pn.tensor { -1, 1 }) end)
    pn.trap_nan(false)
    assert.is_false(ok)
    assert.is_truthy(message:find("log: 1 of the 2 values it made are not finite", 1, true), message)
  end)
end)

describe("the place of an error", function()
  local x = pn.ones({ 2, 3 }):keep()
  local function tail(t)
    return pn.sum(t, { 9 })
  end
  local line = debug.getinfo(tail, "S").linedefined

  it("is the caller's where a function ends in a tail call, and the function is named", function()
    local message = helper.failure(function()
      local y = tail(x)
      return y
    end, "sum: axes is 9, the tensor has axes 1 to 2, or -2 to -1 from the last   (in what tail returns, ",
      ("tensor_spec.lua:%d)"):format(line))
    assert.truthy(message:find(("tensor_spec.lua:%d: sum"):format(line + 7), 1, true), message)
  end)

  it("is the line itself where nothing is lost", function()
    local sum = pn.sum
    for _, f in ipairs {
      function() local y = sum(x, { 9 }) return y end, function() local y = pn.sum(x, { 9 }) return y end,
      function() local y = x:sum { 9 } return y end,
    } do
      assert.is_nil(helper.failure(f, "sum: axes is 9"):find("in what", 1, true))
    end
  end)
end)

describe("the text of a tensor", function()
  local function printed(code)
    local pipe = io.popen(("%s -e '%s' 2>&1"):format(require("penumbra.program").exe, code))
    local text = pipe:read "*a"
    pipe:close()
    return text
  end

  it("is one line; print shows a large one as the prompt does", function()
    assert.equal("tensor 65 f32 cpu", (tostring(pn.ones { 65, dtype = "f32" })))
    assert.equal("tensor (1,65) f32 cpu, 1 to 1, mean 1\n  1  1  1  ...  1  1  1\n",
      printed "print(pn.ones{1, 65, dtype = \"f32\"})")
    assert.equal("tensor 2 u8 cpu {1, 1}\n", printed "print(pn.ones{2, dtype = \"u8\"})")
    assert.equal("tensor (freed)\n", printed "local t = pn.ones{65}; t:free(); print(t)")
    local text = printed("collectgarbage(\"stop\"); t = pn.ones{9, 8, dtype = \"f32\"}; n = pn.memory().live; print(t); "
      .. "print(pn.memory().live - n)")
    assert.truthy(text:find("\n0\n$"), text) -- what it took to look is freed, whether the collector comes or not
  end)
end)

describe("the nearest name", function()
  local nearest = require "penumbra.base.nearest"

  it("is within reach, and the same whatever the order", function()
    assert.equal("stride", nearest("strides", { "pad", "stride" }))
    assert.equal("stride", nearest("STRIDE", { "pad", "stride" }))
    assert.is_nil(nearest("quite_else", { "pad", "stride" }))
    assert.equal("aa", nearest("ab", { "ac", "aa" }))
    assert.equal("aa", nearest("ab", { "aa", "ac" }))
    assert.is_nil(nearest("x", {}))
    assert.equal("bilinear", nearest("bilnear", { "bilinear", "nearest" }))
    assert.equal("skips", nearest("skpis", { "input", "skips" }))
    assert.equal("conv3d", nearest("conv", { "conv3d", "pad" }))
    assert.equal("crop", nearest("crop_size", { "crop", "pad" }))
  end)

  it("is none where a few letters alone are shared", function()
    for name, known in pairs { topk = "ops", einsum = "sum", xnorm = "batch_norm", rank = "mask", hist = "lines" } do
      assert.is_nil(nearest(name, { known }), name)
    end
  end)

  it("is what says a name of PyTorch's here, where all that it takes is there", function()
    assert.equal("reshape", nearest("view", { "reshape", "views_of" }))
    assert.equal("linear", nearest("Linear", { "linear", "matmul" }))
    assert.equal("matmul", nearest("linear", { "line", "matmul" }))
    assert.equal("", nearest.hint("prod", { "exp", "sum" }))
    assert.equal(": pn.exp(pn.sum(pn.log(x))) where all are above 0", nearest.hint("prod", { "exp", "sum", "log" }))
  end)

  it("is none where PyTorch means another thing that is not here", function()
    for name, known in pairs { fft = "ffi", hub = "sub", cumsum = "sum" } do
      assert.equal("", nearest.hint(name, { known }), name)
    end
    assert.equal("hub", nearest("hub", { "hub", "sub" }))
  end)

  it("says what is so", function() -- each text that is an expression, against its result
    local x = pn.tensor { 1, 2, 4 }
    local function value(code) return assert(loadstring("local pn, x = ... return " .. code))(pn, x) end
    -- pn.NAME says it, `where`, `of` and `by` say of what.
    local function said(name, from)
      local ok, text = pcall(function() return (from or pn)[name] end)
      assert.is_false(ok)
      return (text:match "has no '[%w_]+': (.*)$")
    end
    local names = "x, y, t, p, q, labels, n, k, a, pn, math"
    local z = pn.tensor { -1.5, 2.5, -2, 0 }
    local rounded = z:cast("i64"):cast("real")
    for name, case in pairs {
      leaky_relu = { { -0.015, 2.5, -0.02, 0 } }, mse_loss = { (0.25 + 0.25 + 0 + 1) / 4 }, l1_loss = { 0.5 },
      silu = { { -1.5 / (1 + math.exp(1.5)), 2.5 / (1 + math.exp(-2.5)), -2 / (1 + math.exp(2)), 0 } },
      floor = { { -2, 2, -2, 0 }, "where t = x:cast(\"i64\"):cast(\"real\")" }, sign = { { -1, 1, -1, 0 } },
      ceil = { { -1, 3, -2, 0 }, "where t = x:cast(\"i64\"):cast(\"real\")" },
      roll = { { 0, -1.5, 2.5, -2 }, "by k along axis a of n" }, isnan = { { 0, 0, 0, 0 } }, isinf = { { 0, 0, 0, 0 } },
      isfinite = { { 1, 1, 1, 1 } }, kl_div = { 0.5 * math.log(2) + 0.5 * math.log(2 / 3), "of probabilities" },
      one_hot = { { { 0, 1, 0 }, { 0, 0, 1 } }, "labels of real numbers" },
    } do
      local code = assert(said(name), name)
      if case[2] then code = assert(code:match("^(.*), " .. case[2]:gsub("%p", "%%%0") .. "$"), code) end
      local found = assert(loadstring(("local %s = ... return %s"):format(names, code)))(z, pn.tensor { -1, 2, -2, 1 }, rounded,
        pn.tensor { 0.5, 0.5 }, pn.tensor { 0.25, 0.75 }, pn.tensor { 2, 3 }, 4, 1, 1, pn, math)
      helper.assert_close(found, pn.tensor(case[1]), 1e-5, name)
    end
    x = pn.tensor { 1 / 0, 0 / 0, -1 / 0, 3 }
    assert.same({ 0, 1, 0, 0 }, value(said "isnan"):totable())
    assert.same({ 1, 0, 1, 0 }, value(said "isinf"):totable())
    assert.same({ 0, 0, 0, 1 }, value(said "isfinite"):totable())
    local rows = assert(loadstring("local pn, x, y = ... return " .. said("cdist"):gsub(", rows of x and y$", "")))(pn,
      pn.tensor { { 1, 2 }, { 3, 5 }, { 0, 0 } }, pn.tensor { { 0, 0 }, { 3, 4 } })
    helper.assert_close(rows, pn.tensor { { 5 ^ 0.5, 8 ^ 0.5 }, { 34 ^ 0.5, 1 }, { 0, 5 } }, 1e-6)
    assert.equal("pn.captured(step, cfg) launches a step as one on CUDA", said "compile")
    assert.equal("function", type(getmetatable(pn.captured) and getmetatable(pn.captured).__call or pn.captured))
    for name, text in pairs { SiLU = said "silu", LeakyReLU = said "leaky_relu", Identity = "x" } do
      assert.equal("an nn.class whose forward gives " .. text, said(name, pn.nn))
    end
    assert.equal(said "mse_loss", said("MSELoss", pn.nn))
    helper.failure(function() pn.scope(function()
      local net = pn.nn.relu()
      net:register_hook()
    end) end, "has no 'register_hook' to call: net:hook(pattern, function(module, name, y) ... end) sees what modules give")
    assert.equal("read", nearest("load", { "read", "write", "resize" }))
    helper.failure(function() return pn.image.load end, "image has no 'load', did you mean 'read'?")
    x = pn.tensor { 1, 2, 4 }
    for name, expected in pairs { prod = 8, log2 = { 0, 1, 2 }, expm1 = { math.exp(1) - 1, math.exp(2) - 1, math.exp(4) - 1 } } do
      local code = nearest.hint(name, { "exp", "log", "sum" }):gsub("^: ", ""):gsub(" where all.*$", "")
      helper.assert_close(value(code), pn.tensor(expected), 1e-5, name)
    end
  end)
end)
