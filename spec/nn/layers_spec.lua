--- The layers: against PyTorch's numbers on one small network, and each for what it promises. The f64 build holds it to 1e-10.

local pn = require "penumbra"
local helper = require "spec.helper"
local nn = pn.nn

local TOLERANCE = pn.real == "f64" and 1e-10 or 2e-5

-- sin(a), sin(2a), ... in row order.
local function wave(t, a, factor)
  local rows = pn.empty((function()
    local spec = {}
    for i, size in ipairs(t:shape()) do
      spec[i] = size
    end
    return spec
  end)())
  local data = rows:data()
  for i = 0, rows:count() - 1 do
    data[i] = math.sin((i + 1) * a) * (factor or 1)
  end
  return t:copy(rows)
end

describe("a network of every kind of layer", function()
  -- torch.nn.functional on the same numbers, in f64: convolution with TensorFlow's SAME, batch norm of the batch, two branches
  -- joined, transposed convolution; loss = mean of squares.
  local pitch = {
    ["a.conv.weight"] = .31, ["a.bn.beta"] = .5, ["b.1.weight"] = .77, ["b.1.bias"] = .2, ["b.deep.1.weight"] = .41,
    ["b.deep.1.bias"] = .3, ["b.deep.3.weight"] = .23, ["b.deep.3.bias"] = .4, ["c.weight"] = .57, ["c.bias"] = .6,
  }
  local sums = {
    ["a.conv.weight"] = 57.01472638559675, ["a.bn.beta"] = 16.799635801991492, ["b.1.weight"] = 10.510628138675296,
    ["b.1.bias"] = 5.0217872615167405, ["b.deep.1.weight"] = 70.69499799482702, ["b.deep.1.bias"] = 37.17191013247469,
    ["b.deep.3.weight"] = 177.39425054827555, ["b.deep.3.bias"] = 5.032004450648695, ["c.weight"] = 271.25123972323337,
    ["c.bias"] = 0.4477577680272058,
  }

  local function build()
    local net = nn.sequential {
      { "a", nn.unit { from = 2, to = 3, kernel = 3, stride = 2, batchnorm = "batch" } },
      { "b", nn.concat {
        nn.conv3d { from = 3, to = 2 },
        { "deep", nn.sequential { nn.conv3d { from = 3, to = 4 }, nn.relu(), nn.conv3d { from = 4, to = 3, kernel = 3 } } },
      } },
      { "c", nn.conv_transpose3d { from = 5, to = 1, kernel = 4, stride = 2, pad = 1 } },
    }
    for _, entry in ipairs(net:parameters()) do
      wave(entry.tensor:detach(), pitch[entry.name], .5)
    end
    return net
  end

  local function check(net)
    local x = wave(pn.empty { 1, 2, 4, 6, 6, layout = "channels_last" }, .9):requires_grad(true)
    local y = net(x)
    helper.assert_shape(y, 1, 1, 4, 6, 6)
    local flat = y:flat()
    helper.assert_close({ flat[1], flat[18], flat[101], flat[144] },
      { -0.9816688022310003, -1.1802241354626477, 3.3830848794951485, 3.554808281297363 }, TOLERANCE)
    local loss = (y * y):mean()
    helper.assert_close(loss:item(), 15.43500001913992, TOLERANCE)
    loss:backward()
    for _, entry in ipairs(net:parameters()) do
      helper.assert_close(entry.tensor:grad():abs():sum():item(), sums[entry.name], TOLERANCE * 5, entry.name)
    end
    helper.assert_close(x:grad():abs():sum():item(), 40.58302629376451, TOLERANCE * 5, "x")
  end

  it("gives PyTorch's outputs and gradients", function()
    local net = build()
    assert.is_true(net.b.in_place) -- the branches write into the concatenation
    check(net)
  end)

  it("gives the same when branches are joined by copying", function()
    local net = build()
    net.b.in_place = false
    check(net)
  end)

  it("needs no more memory without recording than its two largest neighbours", function()
    local chain = {}
    for i = 1, 8 do
      chain[i] = nn.conv3d { from = 4, to = 4, bias = false }
    end
    local net = nn.sequential(chain)
    local x = pn.zeros { 1, 4, 4, 32, 32, layout = "channels_last" }
    local bytes = x:count() * pn.C.pn_dtype_bytes(pn.C.pn_real())
    collectgarbage()
    collectgarbage()
    local before = pn.memory().live
    pn.C.pn_memory_reset_peak(0)
    pn.no_grad(net, x)
    assert.is_true(pn.memory().peak - before < 3 * bytes)
    pn.C.pn_memory_reset_peak(0)
    net(x)
    assert.is_true(pn.memory().peak - before >= 8 * bytes) -- the tape holds them all
  end)
end)

describe("conv3d", function()
  it("pads as TensorFlow by default, and carries the grid (METHOD 4)", function()
    local layer = nn.conv3d { from = 1, to = 1, kernel = { 1, 7, 7 }, stride = { 1, 2, 2 }, bias = false }
    local y = layer(pn.zeros({ 1, 1, 1, 854, 9 }):set_grid({ 1, 1, 1 }, { 0, 0, 0 }))
    helper.assert_shape(y, 1, 1, 1, 427, 5)
    assert.same({ stride = { 1, 2, 2 }, centre = { 0, 1, 0 } }, y:grid())
  end)

  it("has groups, dilation and bias", function()
    local layer = nn.conv3d { from = 4, to = 6, kernel = { 1, 3, 3 }, groups = 2, dilation = { 1, 2, 2 }, pad = 0 }
    helper.assert_shape(layer.weight, 6, 2, 1, 3, 3)
    assert.is_true(layer.weight:is_dense "filter")
    helper.assert_shape(layer.bias, 6)
    helper.assert_shape(layer(pn.zeros { 1, 4, 1, 7, 7 }), 1, 6, 1, 3, 3)
    assert.is_nil(nn.conv3d({ from = 1, to = 1, bias = false }).bias)
  end)

  it("says what is wrong", function()
    helper.failure(function() nn.conv3d { from = 3 } end, "conv3d: to is nil, expects a whole number from 1")
    helper.failure(function() nn.conv3d { from = 3, to = 1.5 } end, "conv3d: to is 1.5")
    helper.failure(function() nn.conv3d { from = 3, to = 4, kernel = { 1, 2 } } end,
      "conv3d: kernel expects a whole number from 1 or {t, h, w}")
    helper.failure(function() nn.conv3d { from = 3, to = 4, stride = 0 } end, "conv3d: stride expects a whole number from 1")
    helper.failure(function() nn.conv3d { from = 3, to = 4, groups = 2 } end, "conv3d: groups 2 do not divide 3 channels")
    helper.failure(function() nn.conv3d { from = 3, to = 4, bias = 1 } end, "conv3d: bias is 1, expects true or false")
    helper.failure(function() nn.conv3d { from = 3, to = 4, init = "kaming" } end,
      "conv3d: init is kaming", "did you mean 'kaiming'?")
    helper.failure(function() nn.conv3d { from = 3, to = 4, strid = 2 } end,
      "conv3d: unknown option 'strid', did you mean 'stride'?")
    helper.failure(function() nn.conv3d(3) end, "conv3d: expects a table of options, got number")
    helper.failure(function() nn.conv_transpose3d { from = 3, to = 4, groups = 2 } end,
      "conv_transpose3d: groups 2 do not divide 3")
  end)
end)

describe("batch_norm", function()
  it("frozen uses its buffers and leaves them", function()
    local layer = nn.batch_norm { channels = 2, mode = "frozen" }
    layer.mean:copy { 1, 2 }
    layer.var:copy { 4, 9 }
    layer.beta:detach():copy { 10, 20 }
    local y = layer(pn.ones { 1, 2, 1, 1, 1 }):flat()
    helper.assert_close(y, { 10, 20 - 1 / math.sqrt(9 + 1e-3) }, 1e-6)
    assert.same({ 1, 2 }, layer.mean:totable())
  end)

  it("batch and moving move their buffers in training, not in evaluation", function()
    for _, mode in ipairs { "batch", "moving" } do
      local layer = nn.batch_norm { channels = 1, mode = mode, momentum = .9 }
      local x = pn.tensor({ { { { { 1, 3 } } } } })
      layer:eval()
      layer(x)
      assert.same({ 0, 1 }, { layer.mean:item(), layer.var:item() })
      layer:train()
      layer(x)
      helper.assert_close({ layer.mean:item(), layer.var:item() }, { .1 * 2, .9 + .1 * 1 }, 1e-6)
    end
  end)

  it("running, the default, takes the input's statistics in training and its own in evaluation", function()
    local layer, x = nn.batch_norm { channels = 1 }, pn.tensor({ { { { { 1, 3 } } } } })
    assert.equal("running", layer.mode)
    helper.assert_close(layer(x):flat(), { -1, 1 }, 1e-3)
    helper.assert_close({ layer.mean:item(), layer.var:item() }, { .1 * 2, .9 + .1 * 1 }, 1e-6)
    for _ = 1, 100 do layer(x) end
    layer:eval()
    helper.assert_close(layer(pn.tensor({ { { { { 5 } } } } })):flat(), { 3 }, 1e-2)
    local mean = layer.mean:item()
    layer(x * 7)
    assert.equal(mean, layer.mean:item())
  end)

  it("has gamma where asked", function()
    local x = helper.random({ 2, 3, 1, 2, 3 }, "x")
    for _, mode in ipairs { "running", "frozen" } do
      for _, relu in ipairs { false, true } do
        local layer, plain = nn.batch_norm { channels = 3, mode = mode, gamma = true, relu = relu },
          nn.batch_norm { channels = 3, mode = mode }
        layer.gamma:detach():copy { 2, -1, .5 }
        layer.beta:detach():copy { .1, 0, -.1 }
        local scaled = plain(x) * layer.gamma:detach():reshape(1, 3, 1, 1, 1) + layer.beta:detach():reshape(1, 3, 1, 1, 1)
        helper.assert_close(layer(x), relu and pn.relu(scaled) or scaled, 1e-6)
        layer:zero_grad()
        pn.sum(layer(x)):backward()
        local open = relu and scaled:gt(0) or pn.ones(x:shape())
        helper.assert_close(layer.gamma:grad(), pn.sum(plain(x) * open, { axes = { 1, 3, 4, 5 } }):detach(), 1e-5)
        assert.same({ 1, 1, 1 }, layer:reset(1).gamma:flat())
      end
    end
  end)

  it("fuses relu", function()
    local y = nn.batch_norm({ channels = 1, relu = true, mode = "frozen" })(pn.tensor({ { { { { -1, 3 } } } } })):flat()
    assert.equal(0, y[1])
    assert.is_true(y[2] > 2.9)
  end)

  it("says what is wrong", function()
    helper.failure(function() nn.batch_norm {} end, "batch_norm: channels is nil")
    helper.failure(function() nn.batch_norm { channels = 1, mode = "frosen" } end,
      "batch_norm: mode is 'frosen', expects running, frozen, batch, moving",
      "did you mean 'frozen'?")
    helper.failure(function() nn.unit { from = 1, to = 1, batchnorm = "none" } end, "unit: batchnorm is 'none'")
    helper.failure(function() nn.unit { from = 1, to = 1, eps = 7 } end, "batch_norm: eps is 7, expects 0 to 1")
    helper.failure(function() nn.batch_norm { channels = 1, eps = "little" } end, "batch_norm: eps is little, expects 0 to 1")
    helper.failure(function() nn.unit { from = 1, to = 1, alpha = 7, batchnorm = "moving" } (pn.zeros { 1, 1, 1, 1, 1 }) end,
      "unit.bn: batch_norm: alpha is 7")
  end)
end)

describe("group_norm and layer_norm", function()
  local root = math.sqrt(1.5) -- of 0, 3, 6: mean 3, variance 6, so normalised ±√1.5

  it("bring each group, each run of the last axis, to mean 0 and variance 1", function()
    local norm = nn.group_norm { groups = 2, channels = 4, eps = 0 }
    local x = pn.tensor { { { 0, 2 }, { 4, 6 }, { -1, -1 }, { 1, 1 } } } -- mean 3, variance 5; mean 0, variance 1
    local far, near = 3 / math.sqrt(5), 1 / math.sqrt(5)
    helper.assert_close(norm(x):flat(), { -far, -near, near, far, -1, -1, 1, 1 }, 1e-6)
    norm.weight:detach():copy { 2, 1, 1, 3 }
    norm.bias:detach():copy { 0, 10, 0, -1 }
    helper.assert_close(norm(x):flat(), { -2 * far, -2 * near, 10 + near, 10 + far, -1, -1, 2, 2 }, 1e-6)
    local layer = nn.layer_norm { size = 3, eps = 0 }
    layer.weight:detach():copy { 1, 2, 3 }
    layer.bias:detach():copy { 10, 20, 30 }
    for _, shape in ipairs { { 3 }, { 1, 3 }, { 1, 1, 3 }, { 1, 1, 1, 1, 3 } } do
      local y = layer(pn.tensor({ 0, 3, 6 }):reshape(shape))
      helper.assert_shape(y, unpack(shape))
      helper.assert_close(y:flat(), { 10 - root, 20, 30 + 3 * root }, 1e-6)
    end
    helper.assert_close(nn.layer_norm { size = 2, eps = 3 / 4 }(pn.tensor { { 1, 2 } }):flat(), { -.5, .5 }, 1e-6)
  end)

  it("hand back what the mean and the variance take", function()
    local layer, x = nn.layer_norm { size = 3, eps = 0 }, pn.tensor({ { 0, 3, 6 } }):requires_grad(true)
    layer(x):backward(pn.tensor { { 1, 0, 0 } })
    local sixth = 1 / math.sqrt(6) -- (g - 1/3 + normalised·root/3) / √6
    helper.assert_close(x:grad():flat(), { (1 - 1 / 3 - .5) * sixth, -sixth / 3, (-1 / 3 + .5) * sixth }, 1e-6)
    helper.assert_close(layer.weight:grad():flat(), { -root, 0, 0 }, 1e-6)
    assert.same({ 1, 0, 0 }, layer.bias:grad():flat())
  end)

  it("know a small spread from a large mean, in groups of many parts too", function()
    local x = helper.random({ 1, 4, 1, 100, 200 }, "x") * .01 + 300
    local y = nn.group_norm { groups = 1, channels = 4, eps = 0 }(x)
    local mean, square = y:mean():item(), (y * y):mean():item()
    assert.is_true(math.abs(mean) < 4e-3 and math.abs(square - 1) < 1e-3, ("%g %g"):format(mean, square))
  end)

  it("keep two numbers a group, and nothing of x's size", function()
    local norm, x = nn.layer_norm { size = 64 }, helper.random({ 500, 64 }, "x"):requires_grad(true)
    local before = pn.memory().live
    local y = norm(x)
    local bytes = pn.C.pn_dtype_bytes(pn.C.pn_real())
    assert.is_true(pn.memory().live - before < (y:count() + 3 * 500) * bytes + 2 ^ 14)
  end)

  it("say what is wrong", function()
    helper.failure(function() nn.group_norm { groups = 3, channels = 4 } end, "group_norm: groups 3 do not divide 4 channels")
    helper.failure(function() nn.group_norm { channels = 4 } end, "group_norm: groups is nil")
    helper.failure(function() nn.group_norm { groups = 2, channels = 4, eps = 2 } end, "group_norm: eps is 2, expects 0 to 1")
    helper.failure(function() nn.layer_norm { size = 0 } end, "layer_norm: size is 0, expects a whole number from 1")
    helper.failure(function() nn.layer_norm { size = 3 } (pn.zeros { 3, 2 }) end,
      "layer_norm: the last axis of x is 2, expects 3")
    helper.failure(function() nn.group_norm { groups = 2, channels = 4 } (pn.zeros { 1, 6, 2 }) end,
      "group_norm: weight needs one number for each of x's 6 channels")
    helper.failure(function() pn.group_norm(pn.zeros { 4 }) end, "group_norm: x has 1 axes, expected 2 to 5")
    helper.failure(function() pn.group_norm(pn.zeros { 2, 4 }, { groups = 3 }) end, "group_norm: groups 3 do not divide 4 channels")
  end)
end)

describe("linear", function()
  it("goes along the last axis", function()
    local layer = nn.linear { from = 2, to = 3 }
    layer.weight:detach():copy { { 1, 2 }, { 3, 4 }, { 5, 6 } }
    layer.bias:detach():copy { 10, 20, 30 }
    assert.same({ { 13, 27, 41 }, { 12, 26, 40 } }, layer(pn.tensor { { 1, 1 }, { 2, 0 } }):totable())
    assert.same({ 13, 27, 41 }, layer(pn.tensor { 1, 1 }):totable())
    assert.same({ 13, 27, 41, 12, 26, 40 }, layer(pn.tensor { { { { { 1, 1 }, { 2, 0 } } } } }):flat())
    local x = pn.tensor({ { { 1, 1 } }, { { 2, 0 } } }):requires_grad(true)
    layer(x):backward(pn.tensor { { { 1, 0, 0 } }, { { 0, 1, 1 } } })
    assert.same({ { { 1, 2 } }, { { 8, 10 } } }, x:grad():totable())
    assert.same({ { 1, 1 }, { 2, 0 }, { 2, 0 } }, layer.weight:grad():totable())
    assert.same({ 1, 1, 1 }, layer.bias:grad():totable())
  end)

  it("begins as convolutions do, without a bias where there is to be none", function()
    local plain = nn.linear { from = 400, to = 50, bias = false }
    assert.equal("weight", plain:parameters()[1].name)
    assert.equal(1, #plain:parameters())
    local weight = plain:reset(3).weight:detach()
    assert.is_true(math.abs((weight * weight):mean():item() * 400 / 2 - 1) < .1) -- deviation √(2/from)
    assert.equal(7, nn.linear { from = 1, to = 1, init = 7 }.weight:item())
    assert.is_truthy(tostring(nn.sequential { nn.linear { from = 3, to = 5 } }):find "linear%s+3 %-> 5%s+20")
  end)

  it("says what is wrong", function()
    helper.failure(function() nn.linear { from = 3 } end, "linear: to is nil, expects a whole number from 1")
    helper.failure(function() nn.linear { from = 3, to = 4, bias = 0 } end, "linear: bias is 0, expects true or false")
    helper.failure(function() nn.linear { from = 3, to = 4 } (pn.zeros { 2, 5 }) end, "linear: the last axis of x is 5, expects 3")
    helper.failure(function() nn.linear { from = 3, to = 4 } (pn.zeros {}) end, "linear: the last axis of x is missing, expects 3")
  end)
end)

describe("attention", function()
  -- With linear layers that change nothing.
  local function plain(size, heads)
    local read = nn.attention { size = size, heads = heads }
    for _, entry in ipairs(read:parameters()) do
      local t = entry.tensor:detach():fill(0)
      for i = 1, t:dims() == 2 and size or 0 do t:set(1, i, i) end
    end
    return read
  end

  it("finds in memory what is like the query", function()
    local read = plain(2)
    local x, memory = pn.tensor { { { 1, 0 } } }, pn.tensor { { { 1, 0 }, { 0, 1 } } }
    local share = 1 / (1 + math.exp(-1 / math.sqrt(2)))
    helper.assert_close(read(x, memory):flat(), { share, 1 - share }, 1e-6)
    helper.assert_close(read(x * 1000, memory):flat(), { 1, 0 }, 1e-6)
    helper.assert_close(read(memory * 100):flat(), { 100, 0, 0, 100 }, 1e-6) -- of itself
    helper.assert_close(read(x, memory, pn.tensor { { -1e9, 0 } }):flat(), { 0, 1 }, 1e-6)
    helper.assert_close(read(x, memory, pn.tensor { { 0, math.log(3) } }):flat(),
      { share / (share + 3 * (1 - share)), 3 * (1 - share) / (share + 3 * (1 - share)) }, 1e-6)
  end)

  it("looks with each head on its own part", function()
    local read = plain(4, 2) -- the first head finds the first of the memory, the second its second
    local x, memory = pn.tensor { { { 1000, 0, 0, 1000 } } }, pn.tensor { { { 1, 0, 1, 0 }, { 0, 1, 0, 1 }, { 0, 0, 0, 0 } } }
    helper.assert_close(read(x, memory):flat(), { 1, 0, 0, 1 }, 1e-6)
    local bias = pn.zeros { 2, 1, 3 } -- for the second head alone
    bias:set(-1e9, 2, 1, 2)
    helper.assert_close(read(x, memory, bias):flat(), { 1, 0, .5, 0 }, 1e-6)
  end)

  it("learns", function()
    local read = nn.attention { size = 6, heads = 3 }
    local x, memory = helper.random({ 2, 4, 6 }, "x"):requires_grad(true), helper.random({ 2, 5, 6 }, "m"):requires_grad(true)
    local y = read(x, memory)
    helper.assert_shape(y, 2, 4, 6)
    y:backward(helper.random({ 2, 4, 6 }, "dy"))
    for _, entry in ipairs(read:parameters()) do
      assert.is_truthy(entry.tensor:grad(), entry.name)
    end
    -- The likeness of a query to all keys may move together: nothing comes of it.
    helper.assert_close(read.key.bias:grad():flat(), pn.zeros({ 6 }):flat(), 1e-6)
    helper.assert_same_bits(pn.no_grad(read, x, memory), y:detach():clone())
    assert.is_truthy(tostring(read):find "query%s+linear%s+6 %-> 6%s+42")
  end)

  it("says what is wrong", function()
    helper.failure(function() nn.attention { size = 6, heads = 4 } end, "attention: heads 4 do not divide size 6")
    helper.failure(function() nn.attention { size = 6 } (pn.zeros { 2, 6 }) end, "attention: x is 2,6, expects N,L,6")
    helper.failure(function() nn.attention { size = 6 } (pn.zeros { 1, 2, 6 }, pn.zeros { 1, 2, 5 }) end,
      "attention: memory is 1,2,5, expects N,L,6")
    helper.failure(function() nn.attention { size = 6 } (pn.zeros { 1, 2, 6 }, pn.zeros { 2, 2, 6 }) end,
      "attention: x has 1 in a batch, memory 2")
    helper.failure(function() nn.attention { size = 6 } (pn.zeros { 1, 2, 6 }, nil, pn.zeros { 3, 2 }) end, "do not broadcast")
  end)
end)

describe("unit", function()
  local function make(batchnorm, options)
    options.batchnorm = batchnorm
    local unit = nn.unit(options)
    pn.random.stream(1, "mean"):fill(unit.bn.mean, "normal", 0, 1)
    pn.random.stream(1, "var"):fill(unit.bn.var, "uniform", .3, 3)
    pn.random.stream(1, "beta"):fill(unit.bn.beta:detach(), "normal", 0, 1)
    return unit
  end

  local function all_of(unit, x)
    unit:zero_grad()
    x:set_grid({ 1, 1, 1 }, { 0, 0, 0 }):requires_grad(true):set_grad(nil)
    local y = unit(x)
    pn.sum(y * y):backward()
    return { y = y:detach():clone(), dx = x:grad(), dw = unit.conv.weight:grad(), dbeta = unit.bn.beta:grad() }, y:grid()
  end

  it("with frozen statistics is one convolution, and gives what the two give, gradients too", function()
    for i, options in ipairs {
      { from = 5, to = 7, kernel = 3 }, { from = 3, to = 33, kernel = { 1, 7, 7 }, stride = 2 }, { from = 6, to = 4, groups = 2 },
      { from = 5, to = 7, kernel = 3, relu = false },
    } do
      local unit = make("frozen", options)
      local x = helper.random({ 1, options.from, 3, 9, 8 }, "x")
      local calls = 0
      local one, grid = all_of(unit, x)
      local unhook = unit:hook("^bn$", function() calls = calls + 1 end) -- a step of its own
      local two = all_of(unit, x)
      unhook()
      assert.equal(1, calls)
      for name, value in pairs(two) do
        helper.assert_close(one[name], value, 1e-5, i .. " " .. name)
      end
      assert.equal(options.stride or 1, grid.stride[2])
      local into = pn.zeros { 1, options.to + 2, one.y:size(3), one.y:size(4), one.y:size(5), layout = "channels_last" }
      pn.no_grad(function() unit(x, into:slot(2, 2, options.to)) end)
      helper.assert_same_bits(into:slice(2, 2, options.to):clone(), one.y)
    end
  end)

  it("without a gradient to come makes one result of its size, in any mode", function()
    for _, mode in ipairs { "running", "frozen", "batch", "moving" } do
      local unit = make(mode, { from = 4, to = 24, kernel = 1 }):eval()
      local x = pn.random.stream(2, "x"):fill(pn.empty { 1, 4, 8, 40, 40, layout = "channels_last" }, "normal", 0, 1)
      local recorded = unit(x):detach():clone()
      local before = pn.memory().live
      pn.C.pn_memory_reset_peak(0)
      local y = pn.no_grad(unit, x)
      local made = (pn.memory().peak - before) / (pn.C.pn_dtype_bytes(pn.C.pn_real()) * y:count())
      helper.assert_same_bits(y, recorded)
      assert.is_true(made < 1.2, ("%s: %.2f results"):format(mode, made))
    end
  end)
end)

describe("layers without parameters", function()
  it("pool", function()
    local x = pn.tensor({ { { { { 1, 2, 3, 4 } } } } })
    assert.same({ 2, 4 }, nn.max_pool3d({ kernel = { 1, 1, 2 } })(x):flat())
    assert.same({ 1.5, 3.5 }, nn.avg_pool3d({ kernel = { 1, 1, 2 }, stride = { 1, 1, 2 } })(x):flat())
    assert.is_true(nn.max_pool3d({ kernel = 3, stride = 1 }).keeps_grid)
    assert.is_false(nn.max_pool3d({ kernel = 3 }).keeps_grid)
    helper.failure(function() nn.max_pool3d {} end, "max_pool3d: kernel is missing")
    helper.failure(function() nn.max_pool3d { kernel = 2, count_include_pad = true } end, "unknown option 'count_include_pad'")
    for pad, said in pairs {
      [-1] = "-1", [0.5] = "0.5", valid = '"valid"', [{ 1, 2 }] = "another list", [{ 1, 2, { 3 } }] = "another list",
      [{ 1, -2, 3 }] = "another list", [math.huge] = "inf", [true] = "true",
    } do
      for _, kind in ipairs { "conv3d", "conv_transpose3d", "max_pool3d", "avg_pool3d" } do
        local options = { kernel = 3, pad = pad }
        if kind:match "^conv" then options.from, options.to = 1, 1 end
        local text = helper.failure(function() nn[kind](options) end, "layers_spec.lua:", kind .. ": pad is " .. said
          .. ', expects "same", a whole number from 0, {t, h, w} or {{low, high}, {low, high}, {low, high}} of such')
        assert.equal(pad == "valid", text:match ': pad = 0 is what is called "valid" elsewhere$' ~= nil)
      end
    end
    for _, pad in ipairs { "same", 0, { 0, 1, 2 }, { { 0, 1 }, 2, { 3, 4 } } } do
      assert.equal(pad, nn.conv3d { from = 1, to = 1, kernel = 9, pad = pad }.pad)
    end
  end)

  it("activate", function()
    local x = pn.tensor { -1, 0, 2 }
    assert.same({ 0, 0, 2 }, nn.relu()(x):totable())
    helper.assert_close(nn.sigmoid()(x), { 1 / (1 + math.exp(1)), .5, 1 / (1 + math.exp(-2)) }, 1e-6)
    helper.assert_close(nn.tanh()(x), { math.tanh(-1), 0, math.tanh(2) }, 1e-6)
    helper.assert_close(nn.gelu()(pn.tensor { -5, -1, 0, 1, 5 }),
      { -1.4332578593959665e-06, -0.15865525393145707, 0, 0.8413447460685429, 4.999998566742141 }, 1e-6)
    local z = pn.tensor({ 1, -5 }):requires_grad(true)
    pn.gelu(z):sum():backward()
    helper.assert_close(z:grad():flat(), { 1.0833154705876863, 2.866515718791933e-07 - 5 * 1.4867195147342977e-06 }, 1e-6)
    helper.assert_close(pn.gelu(pn.tensor { -5 }):item() / -1.4332578593959665e-06, 1, 1e-5) -- small, with all its digits
    helper.failure(function() nn.relu { slope = 1 } end, "relu: unknown option 'slope'")
  end)

  it("resize", function()
    local x = pn.tensor({ { { { { 1, 2 } } } } })
    assert.same({ 1, 1, 2, 2 }, nn.upsample({ scale = { 1, 1, 2 }, mode = "nearest" })(x):flat())
    helper.assert_close(nn.upsample({ size = { 1, 1, 4 } })(x):flat(), { 1, 1.25, 1.75, 2 }, 1e-6)
    helper.failure(function() nn.upsample {} end, "upsample: expects either scale or size")
    helper.failure(function() nn.upsample { scale = 2, mod = "nearest" } end, "did you mean 'mode'?")
  end)

  it("drop out in training alone, by a stream that reset names", function()
    local net = nn.sequential { { "drop", nn.dropout { p = .25 } } }
    local x = pn.ones { 40000 }
    local a, b = net:reset(5)(x):crc32c(), net(x):crc32c()
    assert.not_equal(a, b) -- the stream goes on
    local again = net:reset(5)(x)
    assert.equal(a, again:crc32c())
    local kept = 0
    for _, value in ipairs(again:flat()) do
      assert.is_true(value == 0 or math.abs(value - 4 / 3) < 1e-6)
      kept = kept + (value > 0 and 1 or 0)
    end
    assert.is_true(math.abs(kept - 30000) < 500)
    local state = net.drop.stream:state()
    a = net(x):crc32c()
    net.drop.stream:set_state(state)
    assert.equal(a, net(x):crc32c())
    assert.equal(x, net:eval()(x))
    helper.failure(function() nn.dropout { p = 1 } end, "dropout: p is 1, expects 0 up to, not including, 1")
  end)
end)

describe("containers", function()
  it("name their entries", function()
    local net = nn.sequential { nn.relu(), { "act", nn.relu() } }
    assert.same({ "1", "act" }, { net:children()[1].name, net:children()[2].name })
    assert.equal(net:children()[1].module, net[1])
  end)

  it("know the channels of their ends", function()
    local net = nn.sequential { nn.conv3d { from = 3, to = 5 }, nn.relu() }
    assert.same({ 3, 5, true }, { net.n_from, net.n_to, net.keeps_grid })
    local both = nn.concat { net, nn.conv3d { from = 3, to = 2 } }
    assert.same({ 3, 7, true }, { both.n_from, both.n_to, both.in_place })
    assert.is_falsy(nn.concat({ net, nn.conv3d { from = 3, to = 2, stride = 2 } }).in_place)
    assert.is_falsy(nn.concat({ net, nn.dropout() }).in_place)
  end)

  it("of containers write in place to any depth", function()
    local function make()
      return nn.concat {
        nn.concat { nn.conv3d { from = 2, to = 1 }, nn.max_pool3d { kernel = 3, stride = 1 } },
        nn.concat { nn.conv3d { from = 2, to = 2, kernel = 3 }, nn.conv3d { from = 2, to = 3 } },
      }
    end
    local net = make():reset(1)
    local x = pn.random.stream(1, "x"):fill(pn.empty { 2, 2, 2, 3, 3 }, "normal"):requires_grad(true)
    local y = net(x)
    local grad = pn.random.stream(1, "g"):fill(pn.empty_like(y), "normal")
    y:backward(grad)
    local dx = x:grad()
    local plain = make():reset(1)
    plain:apply(function(module)
      module.in_place = false
    end)
    local z = plain(x)
    z:backward(grad)
    helper.assert_close(y, z, 1e-6)
    helper.assert_close(dx, x:grad(), 1e-6)
  end)

  it("say what is wrong", function()
    helper.failure(function() nn.sequential {} end, "sequential: it is empty")
    helper.failure(function() nn.sequential(nn.relu()) end, "sequential: expects a list of modules")
    helper.failure(function() nn.sequential { 3 } end, "sequential: entry 1 is a number, expects a module or {\"name\", module}")
    helper.failure(function() nn.sequential { { "a", 3 } } end, "sequential: 'a' is no module but a number")
    helper.failure(function() nn.concat { axis = 2, nn.relu() } end, "concat: unknown option 'axis'")
  end)
end)
