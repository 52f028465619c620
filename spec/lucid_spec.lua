-- Dreams: exact where they should be, replayable, and of the motion that was asked for.

local pn = require "penumbra"
local helper = require "spec.helper"

local image = pn.image

local function toy()
  local frames, masks = pn.data.toy.clip { frames = 1, height = 96, width = 160, seed = 4 }
  return image.frame(frames, 1):clone(), image.frame(masks, 1):clone()
end
local frame, mask = toy()
frame:keep()
mask:keep()

local function stream(lucid, more)
  local cfg = { frames = 6, crop = 48, seed = 3, lucid = lucid, epochs = "other keys are left alone" }
  for key, value in pairs(more or {}) do
    cfg[key] = value
  end
  return pn.lucid.stream(frame, mask, cfg)
end

local calm = { flip = 0, rotate = 0, resize = 0, shrink = 0 }

describe("a stream of dreams", function()
  it("gives what the network reads, and batches by epoch", function()
    local dreams = stream()
    local frames, target, params = dreams:clip(5)
    helper.assert_shape(frames, 1, 3, 6, 48, 48)
    helper.assert_shape(target, 1, 1, 6, 48, 48)
    assert.is_true(frames:is_dense "channels_last" and frames:dtype() == pn.real)
    local low, high = 9, -9
    for _, v in ipairs(frames:flat()) do
      low, high = math.min(low, v), math.max(high, v)
    end
    assert.is_true(low >= -1 and high <= 1 and high - low > 0.5)
    for _, v in ipairs(target:flat()) do
      assert.is_true(v == 0 or v == 1)
    end
    assert.equal(5, params.index)
    local batch = dreams:batch(5)
    helper.assert_same_bits(batch.frames, frames)
    helper.assert_same_bits(batch.mask, target)
    helper.assert_shape((dreams:clip(1, { frames = 2, crop = { 32, 64 } })), 1, 3, 2, 32, 64)
    helper.assert_shape((dreams:clip(1, { crop = false })), 1, 3, 6, 96, 160)
  end)

  it("is a function of (seed, index): not of what was drawn before, nor of threads", function()
    local a, b = stream(), stream()
    local before = pn.threads()
    pn.threads(1)
    local first = a:sample(11, { crop = 48 })
    pn.threads(2)
    b:sample(3)
    b:clip(4)
    local second = b:sample(11, { crop = 48 })
    pn.threads(before)
    helper.assert_same_bits(first.frames, second.frames)
    helper.assert_same_bits(first.masks, second.masks)
    assert.same(first.params, second.params)
    assert.not_equal(first.frames:crc32c(), a:sample(12, { crop = 48 }).frames:crc32c())
    assert.not_equal(first.frames:crc32c(), stream(nil, { seed = 4 }):sample(11, { crop = 48 }).frames:crc32c())
  end)

  it("reads the same as pictures and as tensors, in either convention", function()
    for _, input in ipairs { "rgb_pm1", "bgr_01" } do
      local dreams = stream(nil, { input = input })
      local look = dreams:sample(2, { crop = 48 })
      local frames, target = dreams:clip(2)
      helper.assert_same_bits(image.to_clip(look.frames, input), frames)
      helper.assert_same_bits(image.masks_to_clip(look.masks), target)
    end
  end)

  it("has no tensors left over: a scope frees what a dream took", function()
    local dreams = stream()
    pn.scope(function() dreams:batch(1) end)
    collectgarbage() -- or handles of other specs would go in between
    collectgarbage()
    local before = pn.memory().live
    for epoch = 1, 4 do
      pn.scope(function() dreams:batch(epoch) end)
    end
    assert.equal(before, pn.memory().live)
  end)
end)

describe("a dream", function()
  it("begins with the frame exactly as annotated, where it says so; reversed, it ends with it", function()
    for reverse = 0, 1 do
      local dreams = stream { annotated = 1, reverse = reverse, whole = calm }
      for index = 1, 4 do
        local look = dreams:sample(index)
        local at = reverse == 1 and 6 or 1
        helper.assert_same_bits(image.frame(look.frames, at):clone(), frame)
        helper.assert_same_bits(image.frame(look.masks, at):clone(), mask)
        assert.is_true(look.params.annotated and look.params.reverse == (reverse == 1))
      end
    end
  end)

  it("shows the object and the mask at one place: the picture differs from the background there, and only there", function()
    local dreams = stream { annotated = 0, camera = { degrees = 0, scale = { 1, 1 }, shift = 0, shake = 0 }, background_light = 0,
      light = 0, whole = calm, place = 1 }
    local inside, inside_same, outside_different = 0, 0, 0
    local behind = dreams.background:data()
    for index = 1, 6 do
      local look = dreams:sample(index)
      for t = 1, 6, 5 do
        local here, picture = image.frame(look.masks, t), image.frame(look.frames, t):clone():data()
        local near, core = image.dilate(here, 3):data(), here:clone():data()
        for k = 0, 96 * 160 - 1 do
          local d = 0
          for c = 0, 2 do
            d = d + math.abs(picture[3 * k + c] - behind[3 * k + c])
          end
          if core[k] == 1 then
            inside, inside_same = inside + 1, inside_same + (d < 12 and 1 or 0)
          elseif near[k] == 0 then
            outside_different = outside_different + (d > 0 and 1 or 0)
          end
        end
      end
    end
    assert.equal(0, outside_different)
    assert.is_true(inside > 5000 and inside_same < 0.08 * inside, ("%d of %d look like the background"):format(inside_same, inside))
  end)

  it("moves coherently, as fast as asked and no faster", function()
    local dreams = stream({
      annotated = 0, slow = 0, still = 0, follow = 1, swerve = 0, speed = 0.05, spread = 0, whole = calm, growth = 0, spin = 0,
      deform = 0, scale = { 1, 1 }, degrees = 0,
    }, { frames = 4 })
    local size = math.sqrt(dreams.box.width * dreams.box.height)
    local n = 0
    for index = 1, 12 do
      local look = dreams:sample(index)
      local boxes = {}
      for t = 1, 4 do
        boxes[t] = image.box(image.frame(look.masks, t))
      end
      -- Whole in all frames: then the box moves as the object does.
      local whole = true
      for t = 1, 4 do
        local b = boxes[t]
        whole = whole and b and b[1] > 1 and b[2] > 1 and b[1] + b[3] - 1 < 96 and b[2] + b[4] - 1 < 160
      end
      if whole then
        n = n + 1
        local dx, dy = boxes[4][2] - boxes[1][2], boxes[4][1] - boxes[1][1]
        local speed = math.sqrt(dx * dx + dy * dy) / 3 / size
        assert.is_true(speed < 0.05 + 1 / size, "speed " .. speed)
        for t = 2, 4 do
          assert.is_true(math.abs(boxes[t][2] - boxes[t - 1][2] - dx / 3) <= 1.5)
        end
      end
    end
    assert.is_true(n >= 4, n .. " dreams to judge")
  end)

  it("rests where it is still and the camera follows", function()
    local dreams = stream { annotated = 1, still = 1, follow = 1, deform = 0, whole = calm, camera = { shake = 0 } }
    local look = dreams:sample(1)
    for t = 2, 6 do
      helper.assert_same_bits(image.frame(look.masks, t):clone(), mask)
    end
  end)

  it("shows each frame several times in slow motion, and moves between them as it does without", function()
    for _, reverse in ipairs { 0, 1 } do
      local how = { annotated = 1, reverse = reverse, still = 0, speed = 0.1, whole = calm }
      how.slow, how.slow_by = 1, 3
      local slow = stream(how, { frames = 7 }):sample(2)
      how.slow_by = 1
      local plain = stream(how, { frames = 3 }):sample(2)
      assert.same({ 3, 1 }, { slow.params.slow, plain.params.slow })
      assert.same({ 7, 3 }, { #slow.params.object, #plain.params.object })
      for t = 1, 7 do
        local first = image.frame(slow.frames, t - (t - 1) % 3)
        helper.assert_same_bits(image.frame(slow.frames, t), first)
        assert.same(slow.params.object[t], slow.params.object[t - (t - 1) % 3])
      end
      for _, t in ipairs { 3, 6 } do
        assert.is_false(pcall(helper.assert_same_bits, image.frame(slow.frames, t), image.frame(slow.frames, t + 1)))
      end
      local annotated = reverse == 1 and { 7 } or { 1, 2, 3 }
      for _, t in ipairs(annotated) do
        helper.assert_same_bits(image.frame(slow.masks, t):clone(), mask)
      end
    end
    local some = 0
    for index = 1, 40 do
      some = some + (stream():sample(index, { frames = 1 }).params.slow == 4 and 1 or 0)
    end
    assert.is_true(some > 10 and some < 30, some .. " of 40 in slow motion")
  end)

  it("is drawn at speeds like those of real objects", function()
    local dreams = stream({ annotated = 0, slow = 0, still = 0, follow = 1, near = 0, place = 0 }, { frames = 2, crop = false })
    local speeds, size = {}, math.sqrt(dreams.box.width * dreams.box.height)
    local centre = { dreams.box.x + (dreams.box.width - 1) / 2, dreams.box.y + (dreams.box.height - 1) / 2 }
    for index = 1, 300 do
      pn.scope(function()
        local object = dreams:sample(index).params.object
        local x0, y0 = pn.augment.affine.at(object[1], centre[1], centre[2])
        local x1, y1 = pn.augment.affine.at(object[2], centre[1], centre[2])
        speeds[index] = math.sqrt((x1 - x0) ^ 2 + (y1 - y0) ^ 2) / size
      end)
    end
    table.sort(speeds)
    assert.is_true(speeds[150] > 0.013 and speeds[150] < 0.024, "median " .. speeds[150])
    assert.is_true(speeds[270] > 0.05 and speeds[270] < 0.11, "90th percentile " .. speeds[270])
    assert.is_true(speeds[300] <= 0.15 + 1e-6)
  end)

  it("is seen through a window by the crop rule, and a window is a part of the whole", function()
    local dreams = stream { whole = calm, crop = { uniform = 0, background = 0 }, focus = 0 }
    local held = 0
    for index = 1, 30 do
      local full, part = dreams:sample(index), dreams:sample(index, { crop = 48 })
      local window = part.params.window
      held = held + (image.fraction(image.frame(part.masks, 1), { 1, 1, 48, 48 }) > 0.095 and 1 or 0)
      assert.is_true(window.accepted and window.rule == "object")
      if index <= 5 then
        local a = image.crop(full.masks, { window[1], window[2], 48, 48, masks = true }):flat()
        local b, wrong = part.masks:flat(), 0
        for i = 1, #a do
          wrong = wrong + (a[i] == b[i] and 0 or 1)
        end
        assert.is_true(wrong <= 0.001 * #a, wrong .. " pixels of the window differ")
      end
    end
    assert.is_true(held >= 29, held .. " of 30 windows hold what was promised")
  end)

  it("is looked at where the network was wrong", function()
    local wrong = pn.zeros { 96, 160, dtype = "u8" }
    wrong:set(1, 90, 150)
    local dreams = stream { whole = calm, focus = 1, camera = { degrees = 0, scale = { 1, 1 }, shift = 0, shake = 0 } }
    dreams:focus(wrong)
    for index = 1, 10 do
      local window = select(3, dreams:clip(index)).window
      assert.equal("focus", window.rule)
      assert.is_true(window[1] <= 90 and window[1] + 47 >= 90 and window[2] <= 150 and window[2] + 47 >= 150)
    end
    dreams:focus(nil)
    assert.not_equal("focus", select(3, dreams:clip(1)).window.rule)
    helper.failure(function() dreams:focus(pn.zeros { 5, 5, dtype = "u8" }) end, "a mask of 96 x 160 (height x width), got 5,5")
  end)

  it("serves objects of any shape: a dot, a line, a frame-wide strip", function()
    for _, box in ipairs { { 40, 70, 1, 1 }, { 10, 20, 1, 60 }, { 5, 80, 80, 1 }, { 30, 1, 20, 160 }, { 1, 1, 95, 160 } } do
      local m = pn.zeros { 96, 160, dtype = "u8" }
      for y = box[1], box[1] + box[3] - 1 do
        for x = box[2], box[2] + box[4] - 1 do
          m:set(1, y, x)
        end
      end
      local dreams = pn.lucid.stream(frame, m, { frames = 3, crop = 48, lucid = { hole = 0, deform = 1 } })
      for index = 1, 5 do
        dreams:clip(index)
      end
    end
  end)

  it("takes frames smaller than its window", function()
    local frames = stream(nil, { crop = 128 }):clip(1)
    helper.assert_shape(frames, 1, 3, 6, 128, 128)
  end)
end)

describe("lucid", function()
  it("says what is wrong", function()
    local function fails(a, b, cfg, ...)
      helper.failure(function() pn.lucid.stream(a, b, cfg) end, ...)
    end
    fails(frame, pn.zeros { 96, 160, dtype = "u8" }, {}, "the mask is empty: there is no object to dream of")
    fails(frame, nil, {}, "lucid: mask: expected a tensor, got nil")
    fails(frame, mask, { lucid = { anotated = 1 } }, "unknown option 'anotated'", "did you mean 'annotated'")
    fails(frame, mask, { lucid = { camera = { pan = 1 } } }, "lucid.camera: unknown option 'pan'")
    fails(frame, mask, { lucid = { crop = { size = 3 } } }, "lucid.crop: unknown option 'size'")
    fails(frame, mask, { lucid = { still = 2 } }, "still is 2, expects a probability")
    fails(frame, mask, { lucid = { speed = -1 } }, "speed is -1, expects 0 or more")
    fails(frame, mask, { lucid = { scale = { 0, 1 } } }, "a scale must be above 0")
    fails(frame, mask, { lucid = { points = 2 } }, "points is 2")
    fails(frame, mask, { lucid = 3 }, "expects its named arguments in a table")
    fails(frame, mask, { input = "bgr" }, "unknown input 'bgr' (known: bgr_01, rgb_pm1)")
    fails(frame, mask, { frames = 0 }, "frames is 0")
    fails(frame, mask, 3, "expects its settings in a table, got a number")
    fails(frame, image.resize(mask, { 48, 80 }), {}, "48 x 80")
    for _, make in ipairs { pn.lucid.check, function(picture, cfg) return pn.lucid.stream(picture, mask, cfg) end } do
      local message = "crop is %s, larger than the frame (96 x 160, height x width): expects no more than 160"
      helper.failure(function() make(frame, { crop = 161 }) end, message:format "161")
      helper.failure(function() make(frame, { crop = { 32, 200 } }) end, message:format "32,200")
      helper.failure(function() make(frame, { crop = 0 }) end, "lucid: crop is 0, expects a whole number from 1")
      helper.failure(function() make(frame, { lucid = { still = 2 } }) end, "still is 2, expects a probability")
      make(frame, { crop = 160 })
      make(frame, { crop = false })
    end
    helper.failure(function() stream():clip(-1) end, "index is -1")
    helper.failure(function() stream():clip(1, { crops = 3 }) end, "unknown option 'crops'", "did you mean 'crop'")
    helper.failure(function() stream():clip(1, { crop = 1.5 }) end, "crop is 1.5")
  end)
end)
