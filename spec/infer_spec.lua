local pn = require "penumbra"
local infer = require "penumbra.infer"
local helper = require "spec.helper"
local masks_of = require "penumbra.infer.masks"
local windows = require "penumbra.infer.windows"

local moving = helper.moving_square

-- A network that sees what it is given: its logit is large where the red channel is above the middle.
local function seeing(record)
  local net = { training = true, modes = {} }
  function net:eval() self.training = false end
  function net:train() self.training = true end
  function net.logits(_, x)
    local shape = x:shape()
    local y = pn.empty { shape[1], 1, shape[3], shape[4], shape[5], layout = "channels_last" }
    local from, to = x:data(), y:data()
    for i = 0, y:count() - 1 do
      to[i] = 20 * from[3 * i]
    end
    if record then
      record(x, shape)
    end
    return y
  end
  return net
end

local function truth(clip)
  local n, h, w = clip:size(1), clip:size(2), clip:size(3)
  local masks = pn.empty { n, h, w, dtype = "u8" }
  local from, to = clip:data(), masks:data()
  for i = 0, masks:count() - 1 do
    to[i] = from[3 * i] / 255
  end
  return masks
end

describe("windows", function()
  it("cover every frame, and every frame stands inside some window with mirrored ends", function()
    for _, n in ipairs { 1, 2, 3, 7, 15, 16, 17, 50 } do
      for _, stride in ipairs { 1, 3, 8, 16 } do
        for _, ends in ipairs { "mirror", "hold", "inside" } do
          local o = { frames = 16, stride = stride, ends = ends }
          local depth = {}
          for _, start in ipairs(windows.starts(n, o)) do
            for t = 1, 16 do
              local i = windows.reflect(start + t - 1, n, ends)
              assert.is_true(i >= 1 and i <= n)
              if start + t - 1 == i then
                depth[i] = math.max(depth[i] or 0, math.min(t, 17 - t))
              end
            end
          end
          for i = 1, n do
            assert.is_truthy(depth[i], ("frame %d of %d, stride %d, %s"):format(i, n, stride, ends))
            if ends ~= "inside" then
              assert.is_true(depth[i] >= math.floor((17 - stride) / 2), ("frame %d of %d is %d deep"):format(i, n, depth[i]))
            end
          end
        end
      end
    end
  end)

  it("mirror without repeating the end frame, and hold by repeating it", function()
    local seen = {}
    for i = -3, 8 do
      seen[#seen + 1] = windows.reflect(i, 4, "mirror")
    end
    assert.same({ 3, 4, 3, 2, 1, 2, 3, 4, 3, 2, 1, 2 }, seen)
    assert.equal(1, windows.reflect(-5, 4, "hold"))
    assert.equal(4, windows.reflect(9, 4, "hold"))
    assert.equal(1, windows.reflect(9, 1, "mirror"))
  end)

  it("tile a frame up to its border: 32 tiles of 224 at stride 100 on 854 x 480, 180 on 1920 x 1080", function()
    assert.equal(32, #windows.tile_starts(480, 224, 100) * #windows.tile_starts(854, 224, 100))
    assert.equal(180, #windows.tile_starts(1080, 224, 100) * #windows.tile_starts(1920, 224, 100))
    local starts = windows.tile_starts(854, 224, 100)
    assert.equal(854 - 224, starts[#starts])
    assert.same({ 0 }, windows.tile_starts(100, 224, 100))
  end)
end)

describe("segment", function()
  for _, case in ipairs {
    { name = "whole frames", mode = "full_frame" },
    { name = "flat tiles", mode = "tiles", size = 16, tile_stride = 7 },
    { name = "Hann tiles", mode = "tiles", size = 16, tile_stride = 9, window = "hann" },
    { name = "windows inside", ends = "inside", stride = 5 },
    { name = "the clip as it is", slow = 1, stride = 3 },
    { name = "windows that part a frame's copies", slow = 3, frames = 5, stride = 4, ends = "inside" },
    { name = "held ends, flat weights", ends = "hold", weight = "flat", frames = 5, stride = 2 },
  } do
    it("finds what the network sees, exactly: " .. case.name, function()
      local name = case.name
      case.name = nil
      for _, n in ipairs { 1, 2, 9, 21 } do
        local clip = moving(n, 23, 37)
        local masks = infer.segment(seeing(), clip, case)
        helper.assert_same_bits(masks, truth(clip), name .. ", " .. n .. " frames")
      end
      case.name = name
    end)
  end

  it("sees several tiles at once where it is told, to the same bits", function()
    local clip, seen = moving(5, 30, 41), {}
    local how = { mode = "tiles", size = 16, tile_stride = 9, window = "hann", frames = 4, stride = 2, probabilities = true }
    local _, one = infer.segment(seeing(), clip, how)
    how.batch = 5
    local masks, five = infer.segment(seeing(function(_, shape) seen[shape[1]] = true end), clip, how)
    helper.assert_same_bits(masks, truth(clip))
    helper.assert_same_bits(one, five)
    assert.same({ [5] = true, [2] = true }, seen) -- 12 tiles
  end)

  it("gives probabilities, reads a clip object frame by frame, and reports progress", function()
    local frames = moving(6, 20, 20)
    local reads, steps = {}, 0
    local clip = { n_frames = 6 }
    function clip.frame(_, i)
      reads[i] = (reads[i] or 0) + 1
      return frames:slice { axis = 1, first = i, count = 1 }:reshape { shape = { 20, 20, 3 } }:contiguous()
    end
    local masks, chance = infer.segment(seeing(), clip, {
      frames = 4, stride = 2, probabilities = true,
      progress = function(done, total)
        steps = steps + 1
        assert.is_true(done <= total)
      end,
    })
    helper.assert_same_bits(masks, truth(frames))
    assert.equal(255 * truth(frames):cast(pn.real):sum():item(), chance:cast(pn.real):sum():item())
    assert.is_true(steps > 2)
    for i = 2, 6 do
      assert.equal(1, reads[i], "frame " .. i .. " is decoded once")
    end
  end)

  it("shows the network each frame so many times", function()
    local clip, shown = pn.empty { 4, 8, 8, 3, dtype = "u8" }, {}
    for i = 0, clip:count() - 1 do
      clip:data()[i] = 50 * math.floor(i / (8 * 8 * 3)) -- frame i is of brightness 50 (i - 1)
    end
    local net = seeing(function(x, shape)
      local window = {}
      for t = 1, shape[3] do
        window[t] = math.floor((x:get(1, 1, t, 4, 4) + 1) * 127.5 / 50 + 1.5)
      end
      shown[#shown + 1] = table.concat(window)
    end)
    infer.segment(net, clip, { slow = 2, frames = 4, stride = 2, ends = "inside" })
    assert.same({ "1122", "2233", "3344" }, shown)
    shown = {}
    infer.segment(net, clip, { slow = 4, frames = 6, stride = 5, ends = "hold" })
    assert.same({ "111111", "112222", "233334", "444444", "444444" }, shown)
  end)

  it("waits for a window that mirrors back to a frame before it counts that frame as done", function()
    local clip = moving(7, 8, 8)
    local net = seeing()
    function net.logits(_, x) -- what a frame gets depends on where it stands in its window
      local n = x:size(3)
      local y = pn.empty { 1, 1, n, 8, 8, layout = "channels_last" }
      for i = 0, n * 64 - 1 do
        y:data()[i] = math.floor(i / 64) - n / 2
      end
      return y
    end
    for _, slow in ipairs { 1, 2, 3 } do
      local o = infer.with { slow = slow, frames = 6, stride = 1, calibrate = 0 }
      local sum, total = {}, {}
      for _, start in ipairs(windows.starts(7 * slow, o)) do
        for t = 1, 6 do
          local i, weight = math.ceil(windows.reflect(start + t - 1, 7 * slow, o.ends) / slow), math.min(t, 7 - t)
          sum[i] = (sum[i] or 0) + weight / (1 + math.exp(-(t - 1 - 3)))
          total[i] = (total[i] or 0) + weight
        end
      end
      o.probabilities = true
      local _, chance = infer.segment(net, clip, o)
      for i = 1, 7 do
        assert.is_true(math.abs(chance:get(i, 4, 4) - 255 * sum[i] / total[i]) < 0.51, ("frame %d, slow %d"):format(i, slow))
      end
    end
  end)

  it("needs no more memory for a longer clip, but for the masks", function()
    local function peak(n)
      local clip = { n_frames = n }
      local frame = pn.zeros { 32, 32, 3, dtype = "u8" }
      function clip.frame() return frame:clone() end
      collectgarbage() collectgarbage()
      local most = 0
      local net = seeing(function()
        collectgarbage()
        most = math.max(most, pn.memory().live + collectgarbage "count" * 1024)
      end)
      infer.segment(net, clip, { frames = 8, stride = 4 })
      return most
    end
    peak(10)
    local short, long = peak(20), peak(200)
    assert.is_true(long - short < 180 * 32 * 32 + 2 ^ 20, ("%d against %d bytes"):format(long, short))
  end)

  it("follows the parts that touch the mask before, to where nothing touches the first", function()
    local clip = moving(9, 30, 40)
    local all = truth(clip)
    for t = 1, 9 do
      clip:set(255, t, 28, 3, 1) -- what no mask touches
    end
    local masks = infer.segment(seeing(), clip, { keep = "connected", first_mask = pn.image.frame(all, 1):clone() })
    helper.assert_same_bits(masks, all)
  end)

  describe("of an object that has grown", function()
    local sides = { 4, 4, 4, 4, 8, 8, 8, 8, 16, 16, 16, 16, 16, 4, 4, 4, 4, 4 }
    local clip = helper.growing_square(sides, 22, 27, 4) -- odd sizes: what is halved has a border of its own
    local all = truth(clip)
    local first = pn.image.frame(all, 1):clone()

    -- Segments, and the width that each window was seen with. At a quarter of the size the corners of a square are rounded.
    local function widths(options)
      local seen = {}
      options.slow, options.frames, options.stride, options.ends = 1, 2, 1, "inside"
      local masks = infer.segment(seeing(function(_, shape) seen[#seen + 1] = shape[5] end), clip, options)
      if (options.downscale or 2) < 4 then
        helper.assert_same_bits(masks, all)
      end
      return seen
    end

    it("shows the network windows at half the size once its area has doubled, and whole ones again", function()
      -- a window is placed when the frames before the one before it are finished: 17 windows, the third sees frame 1 done
      local expected = {}
      for k = 1, 17 do
        expected[k] = sides[math.max(1, k - 2)] > 4 and 14 or 27
      end
      assert.same(expected, widths { first_mask = first })
      assert.same(expected, widths { first_mask = first, keep = "connected" })
    end)

    it("halves more than once where it may, and never where it may not or knows no first size", function()
      local expected = {}
      for k = 1, 17 do
        expected[k] = ({ [4] = 27, [8] = 14, [16] = 7 })[sides[math.max(1, k - 2)]]
      end
      assert.same(expected, widths { first_mask = first, downscale = 4 })
      assert.same(expected, widths { first_mask = first, downscale = 8, mode = "tiles", size = 30 })
      for _, how in ipairs { { first_mask = first, downscale = 1 }, { downscale = 4 } } do
        for _, width in ipairs(widths(how)) do
          assert.equal(27, width)
        end
      end
    end)

    it("goes by the parts that are kept", function()
      local spotted = clip:clone()
      for t = 1, #sides do
        for x = 8, 27 do
          spotted:set(255, t, 21, x, 1)
        end
      end
      for keep, widths_seen in pairs { connected = { [27] = true }, all = { [27] = true, [14] = true } } do
        local seen = {}
        infer.segment(seeing(function(_, shape) seen[shape[5]] = true end), spotted:slice(1, 1, 4):contiguous(), {
          slow = 1, frames = 2, stride = 1, first_mask = first, keep = keep, calibrate = 0,
        })
        assert.same(widths_seen, seen, keep)
      end
    end)

    it("gives the network means of pixels, and interpolates what it says", function()
      local net = seeing()
      local logits = net.logits
      function net.logits(self, x) return logits(self, x) * 0.1 end -- 2 and -2
      local _, chance = infer.segment(net, helper.growing_square({ 4, 8, 8, 8, 8, 8 }, 22, 27, 4), {
        slow = 1, frames = 2, stride = 1, ends = "inside", first_mask = first, calibrate = 0, probabilities = true, guided = 0,
      })
      local row = {}
      for x = 3, 7 do row[#row + 1] = chance:get(6, 9, x) end
      assert.same({ 30, 69, 186, 225, 225 }, row) -- the sigmoid of -2, -1, 1, 2, 2
    end)

    it("makes what it interpolated follow the edges of the frame, and nothing else", function()
      local function chances(guided)
        local net = seeing()
        local logits = net.logits
        function net.logits(self, x) return logits(self, x) * 0.1 end
        local _, chance = infer.segment(net, clip, {
          slow = 1, frames = 2, stride = 1, ends = "inside", first_mask = first, calibrate = 0, probabilities = true,
          guided = guided,
        })
        return chance
      end
      local plain, guided = chances(0), chances(3)
      for t = 1, #sides do
        local coarse = false -- frame t is in windows t - 1 and t
        for k = math.max(1, t - 1), math.min(17, t) do coarse = coarse or sides[math.max(1, k - 2)] > 4 end
        local a, b = pn.image.frame(plain, t), pn.image.frame(guided, t)
        if coarse then
          local follows = pn.image.guided((a:cast(pn.real) * (1 / 255)):cast "f32", pn.image.frame(clip, t),
            { radius = 3, eps = 1e-4 })
          local worst = 0
          local seen = b:flat()
          for i, v in ipairs(follows:flat()) do worst = math.max(worst, math.abs(255 * math.max(0, math.min(1, v)) - seen[i])) end
          assert.is_true(worst < 4, ("frame %d: %g"):format(t, worst)) -- both were rounded
          assert.not_same(a:flat(), b:flat())
        else
          assert.same(a:flat(), b:flat())
        end
      end
    end)

    it("takes the power of two that brings it nearest to its first size", function()
      for _, case in ipairs { { 19, 1 }, { 20, 2 }, { 79, 2 }, { 80, 4 }, { 320, 8 }, { 1e6, 8 }, { 0, 1 } } do
        assert.equal(case[2], masks_of.downscale_of(case[1], 10, 8), tostring(case[1]))
      end
      assert.equal(2, masks_of.downscale_of(1e6, 10, 3))
      assert.equal(1, masks_of.downscale_of(1e6, 10, 1))
    end)
  end)

  it("goes half the way to the threshold that is best on frame 1, or as far as frame 1 wants it, unless told not to", function()
    local clip = moving(4, 20, 20)
    local net = seeing()
    function net.logits(_, x) -- object at .8, a rim of false object at .58, the rest at .1
      local shape = x:shape()
      local y = pn.empty { 1, 1, shape[3], shape[4], shape[5], layout = "channels_last" }
      local from, to = x:data(), y:data()
      local w = shape[5]
      for i = 0, y:count() - 1 do
        local here, left = from[3 * i] > 0, i % w > 0 and from[3 * (i - 1)] > 0
        local p = here and 0.8 or left and 0.58 or 0.1
        to[i] = math.log(p / (1 - p))
      end
      return y
    end
    local all = truth(clip)
    local first = all:slice { axis = 1, first = 1, count = 1 }:reshape { shape = { 20, 20 } }
    local masks, none, found = infer.segment(net, clip, { frames = 4, stride = 2, first_mask = first })
    helper.assert_same_bits(masks, all)
    assert.is_nil(none)
    assert.equal(1, found.first_j)
    assert.near(0.6, found.threshold, 1e-9) -- half the way, .55, would take the rim along
    found = select(3, infer.segment(net, clip, { frames = 4, stride = 2, first_mask = first, threshold = 0.7 }))
    assert.near(0.65, found.threshold, 1e-9)
    found = select(3, infer.segment(net, clip, { frames = 4, stride = 2, first_mask = first, threshold = 0.7, calibrate = 1 }))
    assert.near(0.6, found.threshold, 1e-9)
    masks, none, found = infer.segment(net, clip, { frames = 4, stride = 2, first_mask = first, calibrate = 0 })
    assert.is_true(masks:cast(pn.real):sum():item() > all:cast(pn.real):sum():item())
    assert.is_nil(none)
    assert.equal(0.5, found.threshold)
    assert.is_true(found.first_j < 1)
  end)

  it("takes a low threshold where the network is shy", function()
    local clip = moving(3, 20, 20)
    local net, all = seeing(), truth(clip)
    function net.logits(_, x) -- object at .22, the rest at .12
      local shape = x:shape()
      local y = pn.empty { 1, 1, shape[3], shape[4], shape[5], layout = "channels_last" }
      for i = 0, y:count() - 1 do
        local p = x:data()[3 * i] > 0 and 0.22 or 0.12
        y:data()[i] = math.log(p / (1 - p))
      end
      return y
    end
    local masks, _, found = infer.segment(net, clip, { first_mask = pn.image.frame(all, 1):clone() })
    assert.is_true(found.threshold > 0.12 and found.threshold <= 0.22, tostring(found.threshold))
    helper.assert_same_bits(masks, all)
  end)

  it("leaves the network in the mode it found it in, also after a failure", function()
    local net = seeing()
    infer.segment(net, moving(2, 8, 8))
    assert.is_true(net.training)
    net.logits = function() error "the network fails" end
    helper.failure(function() infer.segment(net, moving(2, 8, 8)) end, "the network fails")
    assert.is_true(net.training)
    assert.is_true(pn.C.pn_recording())
  end)

  it("names what is wrong with its options and its clip", function()
    local clip = moving(3, 8, 8)
    for net, said in pairs {
      [pn.nn.relu()] = "infer: the module 'relu' has no method logits; inference calls net:logits(x)", [3] = "got a number",
      [{ eval = print, logits = print, input = "rgb" }] = "infer: unknown pixel rule (the model's input) 'rgb'",
    } do
      helper.failure(function() infer.check(net) end, "infer_spec.lua:", said)
      helper.failure(function() infer.segment(net, clip) end, "infer_spec.lua:", said)
    end
    local net = seeing()
    assert.equal(net, infer.check(net))
    function net.logits() return {} end
    helper.failure(function() infer.segment(net, clip) end, "net:logits(x) gave a table, expects a tensor of logits (N,1,T,H,W)")
    function net.logits(_, x) return x end
    helper.failure(function() infer.segment(net, clip) end, "infer: net:logits(x) gave 1,3,16,", " expects logits 1,1,16,")
    helper.failure(function() infer.segment(seeing(), clip, { strid = 2 }) end, "unknown option 'strid'", "did you mean 'stride'?")
    helper.failure(function() infer.segment(seeing(), clip, { mode = "tile" }) end, "unknown mode 'tile', did you mean 'tiles'?")
    helper.failure(function() infer.segment(seeing(), clip, { stride = 0 }) end, "stride is 0, expects a whole number from 1")
    helper.failure(function() infer.segment(seeing(), clip, { calibrate = 2 }) end, "calibrate is 2, expects 0 to 1")
    helper.failure(function() infer.with { threshold = 5 } end, "infer: threshold is 5, expects 0 to 1")
    helper.failure(function() infer.with { threshold = -1 } end, "infer: threshold is -1, expects 0 to 1")
    helper.failure(function() infer.with { threshold = 0 / 0 } end, "nan, expects 0 to 1")
    helper.failure(function() infer.with { downscale = 3 } end, "infer: downscale is 3, expects a power of 2")
    helper.failure(function() infer.with { downscale = math.huge } end, "infer: downscale is inf, expects a whole number from 1")
    for power = 0, 3 do assert.equal(2 ^ power, infer.with({ downscale = 2 ^ power }).downscale) end
    helper.failure(function() infer.segment(seeing(), clip, { downscale = 0 }) end, "downscale is 0, expects a whole number from 1")
    helper.failure(function() infer.segment(seeing(), clip, { guided = -1 }) end, "guided is -1, expects a whole number from 0")
    helper.failure(function() infer.segment(seeing(), clip, { slow = 0.5 }) end, "slow is 0.5, expects a whole number from 1")
    helper.failure(function() infer.segment(seeing(), clip, { stride = "3" }) end, "stride expects a number, got a string")
    helper.failure(function() infer.segment(seeing(), pn.zeros { 3, 8, 8, 3 }) end, "a clip is u8 (T,H,W,3), got f")
    local mixed = { n_frames = 3 }
    function mixed.frame(_, i) return pn.zeros { 8, i == 2 and 9 or 8, 3, dtype = "u8" } end
    helper.failure(function() infer.segment(seeing(), mixed) end, "frame 2 is 8 x 9 x 3, the first is 8 x 8 x 3")
    for shape, mask in pairs { ["u8 (8,9)"] = pn.ones { 8, 9, dtype = "u8" }, ["u8 (1,8,8)"] = pn.ones { 1, 8, 8, dtype = "u8" },
      [pn.real .. " (8,8)"] = pn.ones { 8, 8 }, ["a string"] = "00000.png" } do
      helper.failure(function() infer.segment(seeing(), moving(2, 8, 8), { first_mask = mask }) end,
        "first_mask is " .. shape .. ", expects u8 (8,8), as the frame")
    end
    helper.failure(function() infer.segment(seeing(), moving(2, 8, 8), { first_mask = pn.zeros { 8, 8, dtype = "u8" } }) end,
      "first_mask is empty: there is no object to follow")
    helper.failure(function() infer.segment(seeing(), { n_frames = 0 }) end, "the clip has no frames")
  end)
end)

describe("false positives", function()
  local net = seeing()

  local function painted(boxes)
    local frame, mask = pn.zeros { 40, 60, 3, dtype = "u8" }, pn.zeros { 40, 60, dtype = "u8" }
    for i, box in ipairs(boxes) do
      for y = box[1], box[1] + box[3] - 1 do
        for x = box[2], box[2] + box[4] - 1 do
          frame:set(255, y, x, 1)
          if i == 1 then mask:set(1, y, x) end
        end
      end
    end
    return frame, mask
  end

  it("are what looks like the object and is not near it", function()
    local frame, mask = painted { { 10, 10, 8, 8 }, { 30, 40, 3, 4 }, { 12, 19, 2, 2 } } -- the last is 2 pixels from the object
    local places, n = pn.infer.false_positives(net, frame, mask, { frames = 2 })
    assert.equal(12, n)
    for _, at in ipairs { { 30, 40, 1 }, { 32, 43, 1 }, { 33, 40, 0 }, { 12, 12, 0 }, { 12, 20, 0 } } do
      assert.equal(at[3], places:get(at[1], at[2]))
    end
    assert.equal(16, select(2, pn.infer.false_positives(net, frame, mask, { frames = 2, margin = 1 })))
    assert.equal(0, select(2, pn.infer.false_positives(net, painted { { 10, 10, 8, 8 } })))
    assert.is_true(net.training)
  end)

  it("name what is wrong", function()
    local frame = painted {}
    helper.failure(function() pn.infer.false_positives(net, frame, frame, { margins = 3 }) end, "unknown", "margins")
    helper.failure(function() pn.infer.false_positives(net, frame, pn.zeros { 4, 5, dtype = "u8" }) end,
      "false_positives: the mask is u8 (4,5), expects u8 (40,60), as the frame")
  end)
end)

describe("after each frame", function()
  it("says what was found, in order, where the network may be taught", function()
    local clip, net, list = helper.growing_square({ 4, 4, 12, 12, 12 }, 40, 40, 8), seeing(), {}
    local masks = infer.segment(net, clip, {
      slow = 1, frames = 2, stride = 1, calibrate = 0, first_mask = pn.image.frame(truth(clip), 1),
      after_frame = function(seen)
        list[#list + 1] = ("%d %d %.2f"):format(seen.index, seen.smaller, seen.probability:get(9, 9))
        assert.equal(pn.image.box(seen.mask).area, pn.image.box(pn.image.frame(truth(clip), seen.index)).area)
        assert.is_true(pn.recording() and net.training)
      end,
    })
    assert.same({ "1 1 1.00", "2 1 1.00", "3 2 1.00", "4 2 1.00", "5 2 1.00" }, list)
    assert.equal(5, masks:size(1))
  end)

  it("lets its error out, and leaves the network as it was", function()
    local net = seeing()
    helper.failure(function()
      infer.segment(net, moving(3, 8, 8), { after_frame = function() error "not now" end })
    end, "not now")
    assert.is_true(net.training and pn.recording())
  end)
end)

describe("an answer that is not finite", function()
  local nn = pn.nn
  local function network()
    local net = nn.sequential { nn.conv3d { from = 3, to = 2, kernel = 1 }, nn.conv3d { from = 2, to = 1, kernel = 1 } }
    net.logits = function(self, x) return self(x) end
    return net
  end

  it("is an error that names the frame, and the layer", function()
    local net = network()
    infer.segment(net, moving(5, 8, 8), { frames = 4, stride = 2 })
    net:state()["2.weight"]:fill(0 / 0)
    local clip = moving(5, 8, 8)
    local message = helper.failure(function() infer.segment(net, clip, { frames = 4, stride = 2 }) end,
      "infer: frame 1: the network's answer is not finite: ", "sequential.2: conv3d: ")
    assert.is_nil(message:find("infer.lua", 1, true))
    assert.is_true(net.training)
    assert.is_false(pn.C.pn_trapping_nan())
    local named = { n_frames = 5, frame_name = function(_, i) return ("%05d"):format(i + 6) end }
    function named.frame(_, i) return pn.image.frame(clip, i):clone() end
    helper.failure(function() infer.segment(net, named, { frames = 4, stride = 2 }) end, "infer: frame 1 (00007): the network's")
  end)

  it("is found in the frame that has it, and where it does not come again", function()
    local net, seen = network(), 0
    function net.logits(self, x)
      seen = seen + 1
      local y = self(x)
      return seen == 4 and y:fill(0 / 0) or y
    end
    helper.failure(function()
      infer.segment(net, moving(9, 8, 8), { slow = 1, frames = 2, stride = 2, ends = "inside" })
    end, "infer: frame 7: the network's answer was not finite; run again, every layer is")
  end)

  it("is found in one pixel of a tile of a frame shown smaller", function()
    local clip = helper.growing_square({ 4, 12, 12, 12 }, 24, 24, 4)
    local net = seeing()
    local logits = net.logits
    function net.logits(self, x)
      local y = logits(self, x)
      if x:size(5) < 24 then y:set(0 / 0, 1, 1, 1, 12, 12) end
      return y
    end
    helper.failure(function()
      infer.segment(net, clip, {
        slow = 1, frames = 1, stride = 1, ends = "inside", calibrate = 0, first_mask = pn.image.frame(truth(clip), 1),
      })
    end, "infer: frame 4: the network's answer is not finite: ", "resize3d")
  end)
end)

describe("the settings of a checkpoint's run", function()
  local of_run, files = require "penumbra.infer.of_run", require "penumbra.base.files"
  local directory = helper.directory(teardown)
  local path = directory .. "/checkpoint.safetensors"
  local function settings(recorded, given, how)
    return of_run.settings(path, { infer = recorded }, given or {}, how or { clip = "a" })
  end

  it("hold where nothing else is given, and are told where they are not the defaults", function()
    local recorded = { frames = 4, stride = 12, keep = "connected", calibrate = 0, size = "large", ends = "hold", gone = 3 }
    local resolved, taken = settings(recorded, { frames = 8, keep = "all" })
    assert.same({ 8, 12, "all", 0, 224, "hold" }, { resolved.frames, resolved.stride, resolved.keep, resolved.calibrate,
      resolved.size, resolved.ends })
    assert.equal("calibrate=0 ends=hold", taken)
    for _, none in ipairs { {}, { stride = 12 } } do
      resolved, taken = settings(none)
      assert.same(infer.with(), resolved)
      assert.is_nil(taken)
    end
    assert.same(infer.with(), (of_run.settings(path, {}, {}, { clip = "a" }))) -- of a parent
    helper.failure(function() settings({ frames = 4 }, { stride = 0 }) end, "infer: stride is 0")
    helper.failure(function() settings { frames = 0 } end, "infer: frames is 0")
  end)

  it("go with the threshold that was found on its first frame, unless there is a mask", function()
    local function scores(text) assert.is_nil(files.write(directory .. "/scores.json", text)) end
    local function threshold(...) return (settings({}, ...)).threshold end
    scores '{"first_frame": {"a": {"J": 1, "threshold": 0.65}, "b": {"threshold": 0.7}}}'
    local resolved, taken = settings({ threshold = 0.4 }, {}, { clip = "b" })
    assert.equal(0.7, resolved.threshold)
    assert.equal("threshold=0.7 (found on its first frame)", taken)
    assert.same({ 0.65, 0.5, 0.6 }, { threshold(), threshold({}, { clip = "c" }), threshold { threshold = 0.6 } })
    assert.equal(0.5, threshold({}, { clip = "a", has_mask = true }))
    scores '{"first_frame": {"a": {"threshold": 0.65}}}'
    assert.equal(0.65, threshold({}, { clip = "c" }))
    for _, text in ipairs { "{", "[]", '{"sequences": {}}', '{"first_frame": {"a": {}}}', '{"first_frame": [1]}' } do
      scores(text)
      assert.equal(0.5, threshold(), text)
    end
  end)
end)

describe("keep_connected", function()
  local function mask_of(rows)
    local t = pn.zeros { 1, #rows, #rows[1], dtype = "u8" }
    for y, row in ipairs(rows) do
      for x = 1, #row do
        if row:sub(x, x) == "#" then
          t:set(1, 1, y, x)
        end
      end
    end
    return t
  end

  it("drops what touches nothing of the frame before", function()
    local first = mask_of({ "##....", "##....", "......" }):reshape { shape = { 3, 6 } }
    local masks = mask_of { "###..#", "..#...", "....##" }
    infer.keep_connected(masks, first)
    helper.assert_same_bits(masks, mask_of { "###...", "..#...", "......" })
  end)

  it("keeps all rather than nothing, and the largest where it knows no first mask", function()
    local apart = mask_of({ "......", "......", "....##" }):reshape { shape = { 3, 6 } }
    local masks = mask_of { "##....", "##....", "......" }
    infer.keep_connected(masks, apart)
    helper.assert_same_bits(masks, mask_of { "##....", "##....", "......" })
    masks = mask_of { "##...#", "##....", "......" }
    infer.keep_connected(masks)
    helper.assert_same_bits(masks, mask_of { "##....", "##....", "......" })
  end)
end)
