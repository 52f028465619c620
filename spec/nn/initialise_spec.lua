--- How weights begin: their spread, and the filters of transposed convolutions tap by tap.

local pn = require "penumbra"
local helper = require "spec.helper"
local nn = pn.nn
local init = nn.init

local function rng()
  return pn.random.stream(3, "init")
end

-- Deviation and largest magnitude.
local function spread(t)
  local square, largest = 0, 0
  local values = t:flat()
  for _, value in ipairs(values) do
    square = square + value * value
    largest = math.max(largest, math.abs(value))
  end
  return math.sqrt(square / #values), largest
end

describe("random weights", function()
  local function weight()
    return pn.empty { 32, 16, 2, 3, 3 } -- fan-in 288, fan-out 576
  end

  it("have He's spread", function()
    assert.is_true(math.abs(spread(init.kaiming(weight(), rng())) / math.sqrt(2 / 288) - 1) < .03)
    assert.is_true(math.abs(spread(init.kaiming(weight(), rng(), { fan = "out", gain = 1 })) / math.sqrt(1 / 576) - 1) < .03)
    local deviation, largest = spread(init.kaiming(weight(), rng(), { distribution = "uniform" }))
    assert.is_true(math.abs(deviation / math.sqrt(2 / 288) - 1) < .03)
    assert.is_true(largest <= math.sqrt(6 / 288))
  end)

  it("have Glorot's spread", function()
    local deviation, largest = spread(init.xavier(weight(), rng()))
    assert.is_true(math.abs(deviation / math.sqrt(2 / 864) - 1) < .03)
    assert.is_true(largest <= math.sqrt(6 / 864))
    assert.is_true(math.abs(spread(init.xavier(weight(), rng(), { distribution = "normal" })) / math.sqrt(2 / 864) - 1) < .03)
    assert.is_true(math.abs(spread(init.normal(.1)(weight(), rng())) / .1 - 1) < .03)
  end)

  it("or are what a layer says", function()
    assert.same({ .5, .5 }, nn.conv3d({ from = 1, to = 2, init = .5 }).weight:flat())
    assert.same({ 1, 1 }, nn.conv3d({ from = 1, to = 2, init = "ones" }).weight:flat())
    assert.same({ 7, 7 }, nn.conv3d({ from = 1, to = 2, init = init.constant(7) }).weight:flat())
    helper.failure(function() init.kaiming(pn.empty { 3 }, rng()) end, "init: fans of a tensor with 1 axes; expects 2 or more")
  end)
end)

describe("filters of transposed convolutions", function()
  local function filter(how, options, kernel)
    return how(options)(pn.empty { 1, 1, kernel[1], kernel[2], kernel[3] }, rng())
  end

  it("bilinear: along h and w the triangle, along t as asked", function()
    local row = { .25, .75, .75, .25 }
    local sums = { ["repeat"] = { 1, 1, 1, 1 }, repeat_gain1 = { .5, .5, .5, .5 }, centre = { 0, 1, 1, 0 }, linear = row }
    for time, along in pairs(sums) do
      local t = filter(init.bilinear, { stride = { 2, 2, 2 }, time = time }, { 4, 4, 4 }):totable()[1][1]
      for i = 1, 4 do
        for j = 1, 4 do
          for k = 1, 4 do
            assert.is_true(math.abs(t[i][j][k] - along[i] * row[j] * row[k]) < 1e-6, time)
          end
        end
      end
    end
    helper.assert_close(filter(init.bilinear, { stride = { 1, 1, 2 } }, { 1, 1, 3 }), { { { { { .5, 1, .5 } } } } })
  end)

  it("nearest: each output takes the nearest input", function()
    helper.assert_close(filter(init.nearest, { stride = { 1, 2, 2 } }, { 1, 2, 4 }), { { { { { 0, 1, 1, 0 }, { 0, 1, 1, 0 } } } } })
  end)

  it("lie on the channel diagonal, also in groups", function()
    local t = init.nearest { stride = { 1, 1, 1 } } (pn.empty { 2, 2, 1, 1, 1 })
    assert.same({ 1, 0, 0, 1 }, t:flat())
    t = init.nearest { stride = { 1, 1, 1 }, groups = 2 } (pn.empty { 4, 2, 1, 1, 1 })
    assert.same({ 1, 0, 0, 1, 1, 0, 0, 1 }, t:flat())
    helper.failure(function() init.bilinear { stride = { 1, 1, 1 } } (pn.empty { 3, 2, 1, 1, 1 }) end,
      "init: bilinear goes along the channel diagonal", "the weight is 3,2,1,1,1")
  end)

  -- What they are for: a transposed convolution that begins as an interpolation keeps a constant, inside, times its gain.
  for time, gain in pairs { ["repeat"] = 2, repeat_gain1 = 1, centre = 1, linear = 1 } do
    it("bilinear, " .. time .. ": a constant comes out times " .. gain, function()
      local layer = nn.conv_transpose3d {
        from = 2, to = 2, kernel = { 4, 8, 8 }, stride = { 2, 4, 4 }, pad = { 1, 2, 2 }, bias = false,
        init = init.bilinear { stride = { 2, 4, 4 }, time = time },
      }
      local y = layer(pn.full { 1, 2, 4, 4, 4, value = 3 })
      helper.assert_shape(y, 1, 2, 8, 16, 16)
      helper.assert_close(y:get(1, 2, 4, 8, 9), 3 * gain)
      helper.assert_close(y:get(1, 1, 5, 7, 8), 3 * gain)
    end)
  end

  it("icnr: all phases of the output begin alike", function()
    local layer = nn.conv_transpose3d {
      from = 3, to = 2, kernel = { 2, 4, 4 }, stride = { 2, 2, 2 }, pad = 0, bias = false, init = init.icnr { stride = { 2, 2,
        2 } },
    }
    local y = layer(pn.random.stream(1, "x"):fill(pn.empty { 1, 3, 2, 3, 3 }, "normal"))
    for c = 1, 2 do
      for t = 1, 4, 2 do
        for h = 1, 8, 2 do
          for w = 1, 8, 2 do
            local value = y:get(1, c, t, h, w)
            helper.assert_close({ y:get(1, c, t + 1, h, w), y:get(1, c, t, h + 1, w), y:get(1, c, t + 1, h + 1, w + 1) },
              { value, value, value }, 1e-5)
          end
        end
      end
    end
    assert.is_true(spread(y) > .3)
    helper.failure(function() filter(init.icnr, { stride = { 2, 2, 2 } }, { 3, 4, 4 }) end,
      "init: icnr needs a kernel that its stride divides, the kernel is 3,4,4, the stride 2,2,2")
  end)

  it("say what is wrong", function()
    helper.failure(function() filter(init.bilinear, { stride = { 1, 1, 1 }, time = "reapet" }, { 1, 1, 1 }) end,
      "init: unknown deconv_time 'reapet', did you mean 'repeat'?")
  end)
end)
