local pn = require "penumbra"
local fcn = require "models.fcn_i3d"
local registered = require("penumbra.nn.registered").registered
local helper = require "spec.helper"
local nn = pn.nn

local function tiny(cfg)
  cfg.width = cfg.width or 1 / 16
  cfg.features = cfg.features or 4
  return fcn(cfg)
end

local function clip(t, h, w)
  local x = pn.empty { 1, 3, t, h, w, layout = "channels_last" }
  return pn.random.stream(3, "clip"):fill(x, "uniform", -1, 1):set_grid({ 1, 1, 1 }, { 0, 0, 0 })
end

describe("FCN-I3D", function()
  it("gives a fused mask and a mask a skip, of the size of the clip, odd or even", function()
    local net = tiny {}
    for _, size in ipairs { { 16, 64, 64 }, { 11, 45, 70 }, { 1, 32, 33 }, { 3, 50, 86 } } do
      pn.scope(function()
        local masks = net(clip(size[1], size[2], size[3]))
        helper.assert_shape(masks.fused, 1, 1, size[1], size[2], size[3])
        assert.equal(4, #masks.sides)
        for _, side in ipairs(masks.sides) do
          helper.assert_shape(side, 1, 1, size[1], size[2], size[3])
        end
      end)
    end
  end)

  it("has the paper's sizes: kernels of twice the stride, 16 channels, I3D's own names", function()
    local net = fcn {}
    local p = net:named_parameters()
    helper.assert_shape(p["conv3d_1a.conv.weight"], 64, 3, 7, 7, 7)
    helper.assert_shape(p["mixed_4f.branch2b.conv.weight"], 128, 32, 3, 3, 3)
    helper.assert_shape(p["side_1a.up_features.weight"], 16, 16, 4, 4, 4)
    helper.assert_shape(p["side_2c.up_score.weight"], 1, 1, 4, 8, 8)
    helper.assert_shape(p["side_3c.reduce.weight"], 16, 480, 1, 1, 1)
    helper.assert_shape(p["side_4f.up_features.weight"], 16, 16, 8, 32, 32)
    helper.assert_shape(p["fuse.weight"], 1, 64, 1, 1, 1)
    assert.is_nil(p["mixed_5b.branch0.conv.weight"])
  end)

  it("takes any subset of skips, and goes no deeper than it must", function()
    local osvos = tiny { skips = { "2c", "3c", "4f", "5c" } }
    assert.equal(4, #osvos(clip(8, 64, 64)).sides)
    assert.is_truthy(osvos:named_parameters()["mixed_5c.branch0.conv.weight"])
    local shallow = tiny { skips = { "3c", "1a" } }
    assert.is_nil(shallow:named_parameters()["mixed_4b.branch0.conv.weight"])
    local masks = shallow(clip(4, 32, 32))
    assert.equal(2, #masks.sides)
    assert.equal("1a", shallow.sides[1][1])
  end)

  it("with recompute has the same gradients, bit by bit, in less memory", function()
    local x, found, peak = clip(16, 96, 96), {}, {}
    for i, recompute in ipairs { false, true } do
      local net = tiny { batchnorm = "moving", recompute = recompute, width = 0.25 }:train()
      collectgarbage()
      collectgarbage()
      local before = pn.memory().live
      pn.C.pn_memory_reset_peak(0)
      pn.scope(function()
        net(x).fused:square():mean():backward()
      end)
      peak[i], found[i] = pn.memory().peak - before, {}
      for name, t in pairs(net:named_parameters()) do
        found[i][name] = t:grad() and t:grad():crc32c() or "none"
      end
      net:zero_grad()
    end
    assert.same(found[1], found[2])
    assert.is_true(peak[2] < 0.9 * peak[1], ("%d of %d bytes"):format(peak[2], peak[1]))
  end)

  it("with a refinement begins as without, and then learns all of it", function()
    local others = { {}, { crop_align = "centre" }, { crop_align = "caffe", skips = { "2c", "4f" } }, { skips = { "5c" } } }
    for _, cfg in ipairs(others) do
      pn.scope(function()
        local x = clip(5, 37, 54)
        local plain = tiny(cfg)(x).fused
        cfg.refine = 6
        local net = tiny(cfg)
        helper.assert_same_bits(plain, net(x).fused)
        local first = net.refine.first.weight
        assert.equal(3 + #net.sides, first:size(2))
        pn.random.stream(4, "score"):fill(net.refine.score.weight:detach(), "normal", 0, 0.5)
        local fused = net(x).fused
        assert.is_true(helper.relative_error(fused, plain) > 1e-3)
        pn.no_grad(function() helper.assert_close(net:logits(x), fused) end) -- where features are freed on the way
        fused:square():mean():backward()
        for name, t in pairs(net:named_parameters()) do
          if name:match "^refine%." then
            assert.is_true(t:grad() and t:grad():abs():max():item() > 0, name)
          end
        end
      end)
    end
  end)

  it("with a refinement knows an edge that no sum over scales can: where two scales agree", function()
    -- Coarse logits that say object on the left half, a fine feature that says so in the upper half; the object is both.
    local net = tiny { skips = { "1a", "4f" }, refine = 8 }
    local x = clip(2, 32, 32)
    local grid = { stride = { 2, 2, 2 }, centre = { 1, 1, 1 } }
    local upper = pn.empty { 1, 4, 1, 16, 16, layout = "channels_last" }
    local left = pn.empty { 1, 1, 1, 16, 16, layout = "channels_last" }
    local target = pn.zeros { 1, 1, 2, 32, 32 }
    for h = 1, 16 do
      for w = 1, 16 do
        left:set(w <= 8 and 0.9 or -0.9, 1, 1, 1, h, w)
        for c = 1, 4 do upper:set(h <= 8 and 1 or 0, 1, c, 1, h, w) end
        for k = 0, 7 do
          target:set(w <= 8 and h <= 8 and 1 or 0, 1, 1, 1 + k % 2, 2 * h - math.floor(k / 2) % 2, 2 * w - math.floor(k / 4))
        end
      end
    end
    upper:set_grid(grid.stride, grid.centre)
    local seen = { upper, left, pn.zeros_like(left) }
    local optim = pn.optim.adam(net:group "^refine%.", { lr = 3e-2 })
    local loss
    for _ = 1, 60 do
      loss = pn.scope(function()
        local value = pn.loss.bce(net.refine(seen, x), target)
        optim:zero_grad()
        value:backward()
        optim:step()
        return value:item()
      end)
    end
    assert.is_true(loss < 0.1, ("loss %g"):format(loss)) -- the best sum of one number for each half: 0.35
  end)

  it("runs under every key", function()
    for key, values in pairs {
      deconv_init = { "bilinear", "nearest", "icnr", "random" }, deconv_time = { "linear", "repeat", "repeat_gain1", "centre" },
      overlap = { "2s", "s" }, crop_align = { "grid", "centre", "caffe" }, batchnorm = { "frozen", "batch", "moving" },
      output = { "fused", "sum_of_five", "mean_of_sides" }, input = { "rgb_pm1", "bgr_01" },
    } do
      for _, value in ipairs(values) do
        pn.scope(function()
          local net = tiny { [key] = value, skips = { "1a", "2c", "4f", "5c" } }
          local x = clip(5, 37, 54)
          local y = net:logits(x)
          helper.assert_shape(y, 1, 1, 5, 37, 54)
          assert.equal(0, y:count_bad(), key .. "=" .. value)
          net(x).fused:mean():backward()
          local moved = net:find("conv3d_1a.conv").weight:grad()
          assert.is_truthy(moved, key .. "=" .. value)
        end)
      end
    end
  end)

  it("segments by the fused mask, by the sum of all five, or by the mean of the sides", function()
    local x = clip(4, 32, 32)
    pn.no_grad(function()
      local masks = tiny {}(x)
      local s = masks.sides
      local sum = s[1] + s[2] + s[3] + s[4]
      helper.assert_close(tiny { output = "fused" }:logits(x), masks.fused)
      helper.assert_close(tiny { output = "sum_of_five" }:logits(x), sum + masks.fused)
      helper.assert_close(tiny { output = "mean_of_sides" }:logits(x), sum * 0.25)
    end)
  end)

  it("begins alike from the same seed, and not from another", function()
    helper.assert_same_bits(tiny { seed = 5 }.fuse.weight, tiny { seed = 5 }.fuse.weight)
    assert.is_true(helper.relative_error(tiny { seed = 5 }.fuse.weight, tiny { seed = 6 }.fuse.weight) > 0.1)
  end)

  it("says at the user's line what is wrong, not at its own", function()
    local here = "spec/models/fcn_i3d_spec.lua:%d: "
    local line = debug.getinfo(1, "l").currentline
    local net = tiny {}
    for i, f in ipairs {
      function() fcn { skips = { "9z" } } end,
      function() net:load "/nowhere/a.safetensors" end,
      function() net(nil) end,
      function() net(pn.zeros { 1, 4, 1, 32, 32 }) end,
      function() require "models.i3d" { to = "mixed_9z" } end,
    } do
      local message = helper.failure(f)
      assert.equal(1, message:find(here:format(line + 2 + i), 1, true), message)
    end
    helper.failure(function() net(nil) end, ": fcn_i3d: conv3d_1a expects a clip (N,3,T,H,W), got nil")
  end)

  it("names what it does not know", function()
    helper.failure(function() fcn { skips = { "1a", "3d" } } end, "skips is '3d'", "did you mean '3c'?")
    helper.failure(function() fcn { skips = {} } end, "skips is empty")
    helper.failure(function() fcn { deconv_init = "bilnear" } end, "deconv_init is 'bilnear', did you mean 'bilinear'?")
    helper.failure(function() fcn { width = "half" } end, "width is a string, expects a number")
    for _, make in ipairs { fcn, fcn.check } do
      helper.failure(function() make { skips = { "1a", "2c", "1a" } } end, "fcn_i3d: skips has '1a' twice")
      helper.failure(function() make { width = 0 } end, "fcn_i3d: width is 0, expects more than 0")
      helper.failure(function() make { width = 0 / 0 } end, "nan, expects more than 0")
      helper.failure(function() make { refine = 3 } end, "fcn_i3d: refine is 3, expects an even number of channels, or 0")
      helper.failure(function() make { refine = -2 } end, "fcn_i3d: refine is -2, expects an even number of channels, or 0")
    end
    helper.failure(function() require "models.i3d" { width = -1 } end, "i3d: width is -1, expects more than 0")
  end)

  it("segments a clip of one frame", function()
    local frames = pn.zeros { 1, 32, 40, 3, dtype = "u8" }
    helper.assert_shape(tiny {}:segment(frames, { frames = 4 }), 1, 32, 40)
  end)

  it("takes a layer of one's own, written in Lua", function()
    local Gate = nn.class "gate"
    function Gate:new(options)
      self:add("conv", nn.conv3d { from = options.channels, to = options.channels })
    end
    function Gate:forward(x)
      return x * self.conv(x):sigmoid()
    end
    local net = tiny {}
    local plain = net.side_3c.forward
    net.side_3c:add("gate", Gate { channels = 30 })
    function net.side_3c.forward(self, y, like, wants_mask)
      return plain(self, self.gate(y), like, wants_mask)
    end
    net(clip(4, 32, 32)).fused:mean():backward()
    assert.is_truthy(net:find("side_3c.gate.conv").weight:grad())
  end)
end)

describe("weights of FCN-I3D", function()
  local directory = helper.directory(teardown)

  -- How many tensors of a, of these names, b has too; all of the same bits.
  local function same(a, b, pattern)
    local n, state = 0, b:state()
    for name, t in pairs(a:state()) do
      if name:find(pattern) and state[name] then
        helper.assert_same_bits(t, state[name], name)
        n = n + 1
      end
    end
    return n
  end

  it("come from I3D, whose head is passed over; what is new is said", function()
    local path = directory .. "/i3d.safetensors"
    local i3d = require "models.i3d" { width = 1 / 16, classes = 3 }:reset(5)
    local state = i3d:state()
    state["fuse.bias"] = pn.ones { 1 } -- so it is a checkpoint of ours, and the sizes of the real one are not asked for
    state["other.note"] = pn.zeros { 1 }
    pn.save(path, state)
    local net = tiny { skips = { "1a", "3c" } }
    assert.equal(net, net:load(path, { allow_missing = true }))
    assert.equal(("weights   %s: 61 of 72 tensors; new: side_1a, side_3c, fuse.weight; unused: other"):format(path),
      net.loaded.text)
    assert.equal(60, same(net, i3d, "^[cm]"))
    assert.equal(1, net.fuse.bias:item())
    assert.equal(11, #net.loaded.missing)
    helper.failure(function() tiny({}):load(path) end, "21 missing", "fuse.weight")
  end)

  it("come from a parent, also one of other skips", function()
    local path = directory .. "/parent.safetensors"
    local parent = tiny { skips = { "1a", "2c", "4f" }, seed = 3 }
    parent:save(path)
    local net = tiny { skips = { "1a", "2c", "4f" } }:load(path)
    assert.equal(202 - 5, #net.loaded.loaded)
    assert.equal(("weights   %s: 197 of 197 tensors"):format(path), net.loaded.text)
    assert.equal(197, same(net, parent, ""))
    -- As many sides, and a fusion of the same shape, but of others.
    net = tiny { skips = { "2c", "3c", "4f" }, seed = 4 }:load(path, { allow_missing = true })
    assert.equal(("weights   %s: 190 of 197 tensors; new: side_3c, fuse; unused: side_1a"):format(path), net.loaded.text)
    assert.equal(5, same(net, parent, "^side_4f"))
    helper.assert_same_bits(net.fuse.weight, tiny({ skips = { "2c", "3c", "4f" }, seed = 4 }).fuse.weight)
    net = tiny { skips = { "1a", "2c" } }:load(path, { allow_missing = true })
    assert.equal(("weights   %s: 22 of 24 tensors; new: fuse; unused: side_4f"):format(path), net.loaded.text)
  end)

  it("go into a refinement from a parent that has one, and begin it anew where sides are others", function()
    local path = directory .. "/refined.safetensors"
    local parent = tiny { skips = { "1a", "4f" }, refine = 4, seed = 3 }
    parent:save(path)
    assert.equal(9, same(tiny { skips = { "1a", "4f" }, refine = 4 }:load(path), parent, "^refine%."))
    local net = tiny { skips = { "1a", "4f" } }:load(path, { allow_missing = true })
    assert.truthy(net.loaded.text:find("; unused: refine$"), net.loaded.text)
    net = tiny { skips = { "1a", "3c", "4f" }, refine = 4 }:load(path, { allow_missing = true })
    assert.truthy(net.loaded.text:find("; new: side_3c, fuse, refine$"), net.loaded.text)
    helper.failure(function() tiny { skips = { "1a", "4f" }, refine = 8 }:load(path, { allow_missing = true }) end,
      "refine.first.weight is 4,4,1,3,3, expected 8,6,1,3,3")
  end)

  it("of another shape are refused, with both, and so is a file without a trunk", function()
    local path = directory .. "/wide.safetensors"
    tiny({ width = 1 / 8, features = 8 }):save(path)
    local net = tiny {}
    local before = net.fuse.weight:crc32c()
    helper.failure(function() net:load(path, { allow_missing = true }) end, ("weights: %s: "):format(path),
      " tensors of other shapes than in the network: conv3d_1a.conv.weight is 8,3,7,7,7, expected 4,3,7,7,7; ", " more")
    assert.equal(before, net.fuse.weight:crc32c())
    pn.save(path, { ["fuse.weight"] = net.fuse.weight, ["fuse.bias"] = net.fuse.bias })
    helper.failure(function() net:load(path, { allow_missing = true }) end, path .. ": it has nothing of the trunk (conv3d_1a.")
  end)

  it("of I3D may have a head of other classes, which is then new", function()
    local path = directory .. "/classes.safetensors"
    local function of(classes)
      local net = require "models.i3d" { width = 1 / 32, to = "logits", classes = classes }
      net.extra = nn.conv3d { from = 1, to = 1 }
      return net
    end
    of(4):save(path)
    helper.failure(function() of(3):load(path) end, "2 tensors of other shapes than in the network: logits.conv.weight is 4,")
    local net = of(3):load(path, { allow_missing = true })
    assert.is_truthy(net.loaded.text:find("; new: logits$"), net.loaded.text)
  end)
end)

describe("memory", function()
  it("of inference is bounded by the first features: what no later layer needs is gone", function()
    for _, mode in ipairs { "frozen", "batch" } do
      local net = fcn { batchnorm = mode }:eval()
      local x = clip(16, 224, 224)
      local features = 64 * 8 * 112 * 112 * pn.C.pn_dtype_bytes(pn.C.pn_real())
      collectgarbage()
      local before = pn.memory().live
      pn.C.pn_memory_reset_peak(0)
      pn.scope(function() pn.no_grad(net, x) end)
      local peak = pn.memory().peak - before
      assert.is_true(peak < 2.5 * features, ("%s: %.2f times the first features"):format(mode, peak / features))
    end
  end)

  it("of features that a caller asks for stays, and of a clip too", function()
    local net = require "models.i3d" { to = "mixed_3c", width = 1 / 16 }:eval()
    local x = clip(4, 32, 32)
    pn.no_grad(function()
      local y, found = require("models.i3d").run(net, x, { "conv3d_1a", "mixed_3c" })
      helper.assert_same_bits(found.mixed_3c, y)
      helper.assert_same_bits(found.conv3d_1a, net.conv3d_1a(x))
      assert.is_true(x:count_bad() == 0)
    end)
  end)
end)

describe("registered upsampling", function()
  -- A plane wave of coordinates: value = a + b·t + c·y + d·x at each element's centre; bilinear interpolation must continue it.
  local function ramp(grid, t, h, w)
    local y = pn.empty { 1, 1, t, h, w, layout = "channels_last" }
    local p, k = y:data(), 0
    for i = 0, t - 1 do
      for j = 0, h - 1 do
        for l = 0, w - 1 do
          p[k] = 0.1 + 0.03 * (grid.centre[1] + i * grid.stride[1]) + 0.01 * (grid.centre[2] + j * grid.stride[2])
            - 0.02 * (grid.centre[3] + l * grid.stride[3])
          k = k + 1
        end
      end
    end
    return y:set_grid(grid.stride, grid.centre)
  end

  it("is exact bilinear interpolation between the centres, for even sizes and for width 854", function()
    local net = pn.nn.sequential { require "models.i3d" { to = "mixed_5c", width = 1 / 32 } }[1]
    for _, size in ipairs { { 16, 64, 96 }, { 9, 33, 854 } } do
      local like = clip(size[1], size[2], size[3])
      local found = pn.no_grad(function()
        return net:endpoints(like, { "conv3d_1a", "conv3d_2c", "mixed_3c", "mixed_4f", "mixed_5c" })
      end)
      for _, skip in ipairs(fcn.skips) do
        local grid = found[skip.at]:grid()
        local s = found[skip.at]:shape()
        local x = ramp(grid, s[3], s[4], s[5])
        local y = registered { channels = 1, stride = skip.stride } (x, like)
        local all = ramp({ stride = { 1, 1, 1 }, centre = { 0, 0, 0 } }, size[1], size[2], size[3])
        local last = {}
        for d = 1, 3 do
          last[d] = grid.centre[d] + (s[d + 2] - 1) * grid.stride[d]
        end
        local worst, seen = 0, 0
        for t = 0, size[1] - 1, 3 do
          for h = 0, size[2] - 1, 5 do
            for w = 0, size[3] - 1, 7 do
              local at = { t, h, w }
              local held = {} -- outside the centres the end value is held
              for d = 1, 3 do
                held[d] = math.max(grid.centre[d], math.min(last[d], at[d])) + 1
              end
              local expected = held[1] <= size[1] and held[2] <= size[2] and held[3] <= size[3]
                and all:get(1, 1, held[1], held[2], held[3])
              if expected then
                worst = math.max(worst, math.abs(y:get(1, 1, t + 1, h + 1, w + 1) - expected))
                seen = seen + 1
              end
            end
          end
        end
        assert.is_true(seen > 50, skip[1])
        assert.is_true(worst < 1e-4, ("%s at %d: off by %g"):format(skip[1], size[3], worst))
      end
    end
  end)

  it("runs as plain interpolation while its weights are that and do not learn, the same to the last digits", function()
    for _, size in ipairs { { 5, 37, 54 }, { 1, 33, 64 }, { 16, 45, 70 } } do
      for _, skip in ipairs(fcn.skips) do
        local s = skip.stride
        local like = clip(size[1], size[2], size[3])
        local shape = { 1, 3 }
        for d = 1, 3 do
          shape[d + 2] = math.ceil(size[d] / s[d])
        end
        local x = helper.random(shape, "x"):requires_grad(true)
        x:set_grid(s, { math.floor(s[1] / 2), math.floor(s[2] / 2), s[3] - 1 })
        local up = registered { channels = 3, stride = s }
        up:reset(1)
        local function both()
          x:set_grad(nil)
          local y = up(x, like)
          pn.sum(y * y):backward()
          return y:detach():clone():keep(), x:grad():clone():keep()
        end
        assert.is_false(up:interpolates(x, like))
        local y, dx = both()
        up:freeze()
        assert.is_true(up:interpolates(x, like))
        local frozen_y, frozen_dx = both()
        helper.assert_close(frozen_y, y, 2e-6, skip[1])
        helper.assert_close(frozen_dx, dx, 5e-6, skip[1])
        assert.same(like:grid(), up(x, like):grid())
        up.weight:fill(0.5) -- another version of the weights: one look more
        assert.is_false(up:interpolates(x, like))
        assert.is_true(helper.relative_error((both()), y) > 1e-3)
      end
    end
  end)

  it("is no interpolation where it began as something else, or stands between pixels", function()
    local x, like = helper.random({ 1, 1, 2, 3, 3 }, "x"), clip(4, 6, 6)
    x:set_grid({ 2, 2, 2 }, { 1, 1, 1 })
    for key, value in pairs { init = "nearest", time = "repeat", overlap = "s", align = "caffe" } do
      local up = registered { channels = 1, stride = 2, [key] = value }
      assert.is_false(up:reset(1):freeze():interpolates(x, like), key)
    end
    local up = registered { channels = 1, stride = 2 }
    assert.is_true(up:reset(1):freeze():interpolates(x, like))
    assert.is_false(up:interpolates(x:set_grid({ 2, 2, 2 }, { 1, 0.5, 1 }), like))
    assert.is_false(up:interpolates(x:set_grid({ 2, 4, 2 }, { 1, 1, 1 }), like))
  end)

  it("fuses before a frozen interpolation as after one that learns", function()
    local net, x = tiny {}, clip(5, 37, 54)
    local learning = net(x).fused:detach():clone()
    net:freeze("up_")
    helper.assert_close(net(x).fused, learning, 1e-5)
    assert.is_true(pcall(function() net(x).fused:mean():backward() end))
    assert.is_truthy(net.fuse.weight:grad())
  end)

  it("asks for a grid, and names what it does not know", function()
    local up = registered { channels = 1, stride = { 1, 2, 2 } }
    helper.failure(function() up(pn.zeros { 1, 1, 1, 2, 2 }, pn.zeros { 1, 1, 1, 4, 4 }) end, "carry their grid")
    helper.failure(function() registered { channels = 1, stride = 2, align = "gird" } end, "registered: align is 'gird'",
      "did you mean 'grid'?")
    helper.failure(function() registered { channels = 1 } end, "stride is missing")
  end)
end)

describe("the joined weights of the fusion", function()
  it("give what upsampling 16 channels of every side and fusing their concatenation gives, gradients too", function()
    local net = fcn { width = 1 / 16, skips = { "1a", "3c" }, deconv_init = "random" }
    local x = helper.random({ 1, 3, 8, 33, 46 }, "clip")
    local seed = helper.random({ 1, 1, 8, 33, 46 }, "seed")
    local function gradients(logits)
      net:zero_grad()
      logits:backward(seed)
      local found = {}
      for _, name in ipairs {
        "side_1a.up_features.weight", "side_3c.reduce.weight", "fuse.weight", "fuse.bias", "conv3d_2c.conv.weight",
      } do
        found[name] = net:state()[name]:grad():clone()
      end
      return found
    end
    local joined = net(x).fused
    local of_joined = gradients(joined)
    local _, found = require("models.i3d").run(net, x, { "conv3d_1a", "mixed_3c" })
    local features = {}
    for i, side in ipairs { { "side_1a", "conv3d_1a" }, { "side_3c", "mixed_3c" } } do
      features[i] = net[side[1]].up_features(net[side[1]].reduce(found[side[2]]), x)
    end
    local apart = net.fuse(pn.concat(features, { axis = 2 }))
    local of_apart = gradients(apart)
    helper.assert_close(joined, apart, 1e-5)
    for name, gradient in pairs(of_apart) do
      helper.assert_close(of_joined[name], gradient, 1e-4, name)
    end
  end)
end)
