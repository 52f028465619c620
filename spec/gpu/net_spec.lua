--- FCN-I3D on a CUDA device against the CPU: masks, losses and every gradient of a step, in each of its ways; where its weights
-- lie; inference; what recomputing saves.

require "spec.gpu.device"
local pn = require "penumbra"
local fcn = require "models.fcn_i3d"
local helper = require "spec.helper"
local infer = require "penumbra.infer"

local TOLERANCE = pn.real == "f64" and 1e-8 or 5e-4 -- after three steps, each of which widens the gap

local function tiny(cfg)
  cfg.width, cfg.features = cfg.width or 1 / 16, cfg.features or 4
  return fcn(cfg)
end

local x = helper.random({ 1, 3, 6, 48, 40 }, "clip"):contiguous "channels_last"
local mask = pn.random.stream(2, "mask"):fill(pn.empty { 1, 1, 6, 48, 40, layout = "channels_last" }, "bernoulli", 0.3)

-- Loss, masks and gradients of two steps of SGD, the second captured where that is asked for.
local function learn(cfg, where)
  local net = tiny(cfg):to(where):train()
  local sgd = pn.optim.sgd(net:parameters(), { lr = 1e-4, momentum = 0.9, weight_decay = 2e-4 })
  local frames, target = x:to(where), mask:to(where)
  local found = { losses = {} }
  local step = pn.captured(function(a, b, weight)
    local masks = net(a)
    local loss = pn.loss.balanced(masks.fused, b)
    for _, side in ipairs(masks.sides) do loss = loss + weight * pn.loss.balanced(side, b) end
    sgd:zero_grad()
    loss:backward()
    return loss:detach(), masks.fused:detach()
  end, { device = where })
  for turn = 1, 4 do
    local loss, fused = step(frames, target, 1 - turn / 4)
    found.losses[turn], found.mask = loss:item(), fused:to "cpu"
    if turn == 4 then break end
    sgd:step()
  end
  found.gradients = {}
  for name, t in pairs(net:named_parameters()) do found.gradients[name] = t:grad() and t:grad():to "cpu" or false end
  found.state = net:state()
  return found
end

-- Gradients as one vector: of a bias alone the gradient may be a small difference of large sums.
local function gradient_error(here, there)
  local off, all = 0, 0
  for name, g in pairs(here) do
    assert.equal(not g, not there[name], name)
    if g then
      off, all = off + pn.sum(pn.square(g - there[name])):item(), all + pn.sum(pn.square(g)):item()
    end
  end
  return math.sqrt(off / all)
end

describe("FCN-I3D on a device", function()
  for name, cfg in pairs {
    ["as the recipes have it"] = {}, ["with statistics of the clip"] = { batchnorm = "batch" },
    ["with moving statistics"] = { batchnorm = "moving" }, ["with other skips and filters"] = {
      skips = { "2c", "3c", "4f", "5c" }, deconv_init = "random", crop_align = "centre",
    },
    ["recomputing"] = { recompute = true, batchnorm = "batch" }, ["with a refinement"] = { refine = 4 },
  } do
    it("learns as on the CPU, " .. name, function()
      local here, there = learn(cfg, "cpu"), learn(cfg, "cuda")
      helper.assert_close(there.losses, here.losses, TOLERANCE)
      helper.assert_close(there.mask, here.mask, 4 * TOLERANCE)
      local e = gradient_error(here.gradients, there.gradients)
      assert.is_true(e < 4 * TOLERANCE, ("gradients differ by %g"):format(e))
      for key, t in pairs(here.state) do helper.assert_close(there.state[key]:to "cpu", t, 4 * TOLERANCE, key) end
    end)
  end

  it("has its weights there in the order that convolutions want, and here as they were; saved they are the same", function()
    local net, other = tiny {}, tiny {}
    assert.equal("cpu", net:device())
    local before = {}
    for name, t in pairs(net:state()) do before[name] = t:clone() end
    local last = "cuda:" .. pn.C.pn_n_devices() - 1
    assert.is_true(net == net:to(last))
    assert.equal(last, net:device())
    local weight = net:named_parameters()["mixed_3b.branch1b.conv.weight"]
    assert.is_true(weight:is_dense "channels_last" and not weight:is_dense "filter" and weight:requires_grad())
    assert.is_true(weight == net.mixed_3b.branch1b.conv.weight)
    local folder = helper.directory(function() end)
    net:save(folder .. "/there.safetensors")
    other:save(folder .. "/here.safetensors")
    assert.equal(0, os.execute(("cmp -s %s/there.safetensors %s/here.safetensors"):format(folder, folder)))
    require("penumbra.base.files").remove(folder)
    net:to "cpu"
    for name, t in pairs(net:state()) do
      helper.assert_same_bits(t, before[name], name)
    end
    assert.is_true(net:named_parameters()["mixed_3b.branch1b.conv.weight"]:is_dense "filter")
  end)

  it("recomputing needs less memory, for the same bits", function()
    local peak, found = {}, {}
    for i, recompute in ipairs { false, true } do
      local net = tiny { batchnorm = "moving", recompute = recompute, width = 0.25 }:to("cuda"):train()
      local frames = helper.random({ 1, 3, 16, 96, 96 }, "long"):contiguous("channels_last"):to "cuda"
      collectgarbage()
      collectgarbage()
      local before = pn.memory("cuda").live
      pn.C.pn_memory_reset_peak(1)
      pn.scope(function() net(frames).fused:square():mean():backward() end)
      peak[i], found[i] = pn.memory("cuda").peak - before, {}
      for name, t in pairs(net:named_parameters()) do found[i][name] = t:grad() and t:grad():crc32c() or "none" end
      net:zero_grad()
    end
    assert.same(found[1], found[2])
    assert.is_true(peak[2] < 0.9 * peak[1], ("%d of %d bytes"):format(peak[2], peak[1]))
  end)

  it("takes a footprint there", function()
    local net = tiny {}:to "cuda"
    local there = pn.footprint(net, { shape = { 1, 3, 4, 32, 32 } })
    assert.is_true(there.infer.peak > 0 and there.train.peak > there.infer.peak)
    assert.is_true(there.kept["fcn_i3d.conv3d_1a.conv"] > 0)
    helper.failure(function() pn.footprint(net, { shape = { 1, 3, 4, 32, 32 }, dry = true }) end,
      "footprint: a dry run is of a network on the CPU, this one is on cuda:0")
  end)
end)

describe("inference on a device", function()
  -- A network that sees what it is given: its logit is large where the red channel is above the middle.
  local function seeing(where, seen)
    local net = { training = true }
    function net.device() return where end
    function net:eval() self.training = false end
    function net:train() self.training = true end
    function net.logits(_, clip)
      assert.equal(where, clip:device())
      if seen then seen[clip:size(1)] = true end
      return clip:slice(2, 1, 1) * 20
    end
    return net
  end

  local moving = helper.moving_square

  for name, how in pairs {
    ["whole frames"] = {}, ["flat tiles"] = { mode = "tiles", size = 16, tile_stride = 7, batch = 5 },
    ["Hann tiles"] = { mode = "tiles", size = 16, tile_stride = 9, window = "hann" },
    ["windows inside"] = { ends = "inside", stride = 5 },
    ["held ends, flat weights"] = { ends = "hold", weight = "flat", frames = 5, stride = 2 },
  } do
    it("finds what it finds on the CPU: " .. name, function()
      how.probabilities = true
      for _, n in ipairs { 1, 2, 9, 21 } do
        local clip = moving(n, 23, 37)
        how.first_mask = n > 2 and pn.image.frame(clip, 1):slice(3, 1, 1):reshape({ shape = { 23, 37 } }):contiguous() or nil
        local masks, chance, found = infer.segment(seeing "cpu", clip, how)
        local there, there_chance, there_found = infer.segment(seeing "cuda:0", clip, how)
        helper.assert_same_bits(masks, there, name .. ", " .. n)
        helper.assert_same_bits(chance, there_chance)
        assert.same(found, there_found)
      end
    end)
  end

  it("shows an object that has grown at the size that the CPU shows it at", function()
    local clip = helper.growing_square({ 4, 4, 4, 8, 8, 8, 16, 16, 16, 16, 4, 4, 4, 4 }, 22, 27, 4)
    for _, how in ipairs { { downscale = 4 }, { downscale = 2, mode = "tiles", size = 16, tile_stride = 7, batch = 3 } } do
      how.slow, how.frames, how.stride, how.probabilities = 1, 3, 1, true
      how.first_mask = pn.image.select(pn.image.frame(clip, 1):slice(3, 1, 1):reshape({ shape = { 22, 27 } }):contiguous())
      local widths = {}
      local function watched(where)
        local net, list = seeing(where), {}
        local logits = net.logits
        widths[where] = list
        function net.logits(self, seen)
          list[#list + 1] = seen:size(5)
          return logits(self, seen)
        end
        return net
      end
      local masks, chance = infer.segment(watched "cpu", clip, how)
      local there, there_chance = infer.segment(watched "cuda:0", clip, how)
      helper.assert_same_bits(masks, there)
      helper.assert_same_bits(chance, there_chance)
      assert.is_true(math.min(unpack(widths.cpu)) < math.max(unpack(widths.cpu)))
      if not how.mode then assert.same(widths.cpu, widths["cuda:0"]) end
    end
  end)

  it("sees eight tiles at once, and one where batch norm looks at its input", function()
    local clip, seen = moving(3, 40, 40), {}
    local tiles = { mode = "tiles", size = 16, tile_stride = 8, frames = 4, stride = 4 } -- 16 tiles
    infer.segment(seeing("cuda:0", seen), clip, tiles)
    assert.same({ [8] = true }, seen)
    for mode, n in pairs { frozen = 8, batch = 1 } do
      local net = tiny { batchnorm = mode }:to "cuda"
      local most = 0
      net:hook("^conv3d_1a$", function(_, _, y) most = math.max(most, y:size(1)) end)
      net:segment(clip, tiles)
      assert.equal(n, most)
    end
  end)

  it("gives the memory back", function()
    local function live()
      collectgarbage()
      collectgarbage()
      return pn.memory("cuda").live
    end
    local clip = moving(12, 40, 40)
    local before = live()
    pn.scope(function() infer.segment(seeing "cuda:0", clip, { frames = 4, stride = 2 }) end)
    assert.is_true(live() <= before) -- garbage of earlier specs may go meanwhile
  end)
end)
