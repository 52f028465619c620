-- Augmentation: the crop rule with its cap, fallback and report (METHOD 1, 6), and joint draws that replay.

local pn = require "penumbra"
local helper = require "spec.helper"

local augment, image = pn.augment, pn.image
local affine = augment.affine

local function stream(name, seed)
  return pn.random.stream(seed or 1, name)
end

-- A mask with one filled rectangle {top, left, height, width}.
local function filled(h, w, box)
  local mask = pn.zeros { h, w, dtype = "u8" }
  for y = box[1], box[1] + box[3] - 1 do
    for x = box[2], box[2] + box[4] - 1 do
      mask:set(1, y, x)
    end
  end
  return mask
end

describe("the crop rule", function()
  it("draws until more than the share is object, and reports", function()
    local mask = filled(100, 160, { 20, 30, 30, 40 })
    local rng = stream "crop"
    for _ = 1, 200 do
      local window = augment.crop(rng, mask, { size = 40, min_share = 0.25 })
      assert.is_true(window.accepted and not window.fallback)
      assert.is_true(window.share > 0.25)
      assert.equal(image.fraction(mask, window), window.share)
      assert.is_true(window[1] >= 1 and window[2] >= 1 and window[1] + 39 <= 100 and window[2] + 39 <= 160)
      assert.equal("object", window.rule)
    end
  end)

  it("takes all accepted positions alike, however often it tries", function()
    local mask = filled(12, 12, { 1, 1, 4, 4 })
    local rng, counts, n = stream "even", {}, 0
    for _ = 1, 6000 do
      local w = augment.crop(rng, mask, { size = 4, min_share = 0.3, tries = 10000 })
      local key = w[1] .. "," .. w[2]
      counts[key] = (counts[key] or 0) + 1
    end
    for _ in pairs(counts) do n = n + 1 end
    assert.equal(8, n)
    local expected = 0
    for r = 1, 9 do
      for c = 1, 9 do
        local overlap = math.max(0, 5 - r) * math.max(0, 5 - c)
        if overlap / 16 > 0.3 then
          expected = expected + 1
          assert.is_true(math.abs(counts[r .. "," .. c] - 6000 / 8) < 150, "position " .. r .. "," .. c)
        end
      end
    end
    assert.equal(8, expected)
  end)

  it("ends after its tries with the fullest window, and says so", function()
    local mask = filled(100, 160, { 90, 150, 6, 6 })
    local window = augment.crop(stream "fallback", mask, { size = 40, tries = 7 })
    assert.same({ true, false, 7 }, { window.fallback, window.accepted, window.tries })
    assert.equal(36 / 1600, window.share)
    assert.equal(36 / 1600, image.fraction(mask, window))
    window = augment.crop(stream "empty", pn.zeros { 50, 50, dtype = "u8" }, { size = 40, tries = 3 })
    assert.same({ true, false, 0 }, { window.fallback, window.accepted, window.share })
  end)

  it("also draws windows without a condition, and windows of background", function()
    local mask = filled(100, 160, { 1, 1, 50, 160 })
    local rng, rules, background, uniform = stream "rules", {}, 0, 0
    for _ = 1, 600 do
      local w = augment.crop(rng, mask, { size = 40, uniform = 0.3, background = 0.2 })
      rules[w.rule] = (rules[w.rule] or 0) + 1
      background = background + (w.rule == "background" and w.share or 0)
      uniform = uniform + (w.rule == "uniform" and w.share or 0)
    end
    assert.is_true(math.abs(rules.uniform - 180) < 45 and math.abs(rules.background - 120) < 40)
    assert.is_true(background / rules.background < 0.2 * uniform / rules.uniform)
  end)

  it("is of its random stream alone, and takes windows of any shape", function()
    local mask = filled(100, 160, { 20, 30, 30, 40 })
    local a, b = augment.crop(stream "same", mask, { size = { 20, 60 } }), augment.crop(stream "same", mask, { size = { 20, 60 } })
    assert.same(a, b)
    assert.same({ 20, 60 }, { a[3], a[4] })
  end)

  it("says what is wrong", function()
    local mask = filled(100, 160, { 20, 30, 30, 40 })
    local function fails(how, ...)
      helper.failure(function() augment.crop(stream "x", mask, how) end, ...)
    end
    fails({ size = 101 }, "a window of 101 x 101 (height x width) does not fit a frame of 100 x 160")
    fails(nil, "224 x 224 (height x width) does not fit")
    fails({ size = 40, tries = 0 }, "tries is 0")
    fails({ size = 40, min_share = 1 }, "min_share is 1, expects 0 to less than 1")
    fails({ size = 40, uniform = 2 }, "uniform is 2", "from 0 to 1")
    fails({ size = 40, uniform = 0.6, background = 0.6 }, "add up to more than 1")
    fails({ size = 40, min_shrae = 0.2 }, "unknown option 'min_shrae'", "did you mean 'min_share'")
    fails({ size = "big" }, "size is big")
  end)

  -- METHOD 6: share of accepted positions on the first frame at 480p, window 224, more than 10 % object.
  local davis = helper.shared "davis2016"
  local shares = { camel = 0.82, blackswan = 0.61, ["kite-surf"] = 0.17, soapbox = 0.11 }
  for name, expected in pairs(shares) do
    it("accepts as large a share of positions on " .. name .. " as METHOD says", function()
      if not davis then return pending "no ../shared/davis2016" end
      local mask = pn.data.davis(davis):sequence(name):mask(1)
      local exact = image.windows(mask, { 224, 224, threshold = 0.1 }).share
      assert.is_true(math.abs(exact - expected) <= 0.005, name .. ": " .. exact)
      -- The number of tries is geometric: its mean is one over the share.
      local rng, tries = stream(name), 0
      for _ = 1, 400 do
        local window = augment.crop(rng, mask, { tries = 1000 })
        assert.is_true(window.accepted)
        tries = tries + window.tries
      end
      assert.is_true(math.abs(400 / tries / exact - 1) < 0.2, ("%s: %g of %g"):format(name, 400 / tries, exact))
    end)
  end

  it("falls back on drift-chicane, whose fullest window holds 4.7 %", function()
    if not davis then return pending "no ../shared/davis2016" end
    local window = augment.crop(stream "drift", pn.data.davis(davis):sequence("drift-chicane"):mask(1))
    assert.same({ true, false, 100 }, { window.fallback, window.accepted, window.tries })
    assert.is_true(math.abs(window.share - 0.047) < 0.0005)
  end)

  it("falls back on drift-straight, whose fullest window holds 9.4 %", function()
    local there = davis and pcall(function() pn.data.davis(davis):sequence "drift-straight" end)
    if not there then return pending "no drift-straight in ../shared/davis2016" end
    local window = augment.crop(stream "drift", pn.data.davis(davis):sequence("drift-straight"):mask(1))
    assert.is_true(window.fallback and math.abs(window.share - 0.094) < 0.0005)
  end)
end)

describe("a change of the whole picture", function()
  it("maps the picture onto its canvas, corners to corners", function()
    local rng = stream "whole"
    for _ = 1, 50 do
      local whole = augment.whole(rng, 480, 854, { 224, 224 }, { rotate = 0, shrink = 0.5 })
      assert.is_true(whole.height >= 224 and whole.width >= 224)
      assert.is_true(math.abs(whole.height - 480 * whole.scale) <= 0.5 and math.abs(whole.width - 854 * whole.scale) <= 0.5)
      local x, y = affine.at(whole.map, whole.flip and 853.5 or -0.5, -0.5) -- the outer edge of the picture
      assert.is_true(math.abs(x + 0.5) <= 0.3 and math.abs(y + 0.5) <= 0.3, ("corner at %g, %g"):format(x, y))
    end
  end)

  it("shrinks no further than a window can be filled", function()
    local rng, least = stream "shrink", 9
    for _ = 1, 300 do
      local whole = augment.whole(rng, 480, 854, { 224, 224 }, { shrink = 1 })
      least = math.min(least, whole.scale)
      assert.is_true(whole.scale >= 224 / 480 - 1e-9 and whole.scale <= 1)
    end
    assert.is_true(least < 0.5)
  end)

  it("keeps the size of the picture where no window is cut", function()
    local whole = augment.whole(stream "full", 100, 150, nil, { resize = 1 })
    assert.same({ 100, 150 }, { whole.height, whole.width })
  end)

  it("says what is wrong", function()
    helper.failure(function() augment.whole(stream "x", 9, 9, nil, { scale = { 0, 1 } }) end, "scale must be above 0")
    helper.failure(function() augment.whole(stream "x", 9, 9, nil, { scale = { 2, 1 } }) end, "scale expects a pair", "{low, high}")
    helper.failure(function() augment.whole(stream "x", 9, 9, nil, { flip = -1 }) end, "flip is -1")
    helper.failure(function() augment.light(stream "x", { gain = 3 }) end, "gain expects a table")
    helper.failure(function() augment.light(stream "x", { gain = { 3 } }) end, "gain expects a pair")
  end)
end)

describe("a drawn augmentation", function()
  local function clip()
    local frames, masks = pn.zeros { 3, 60, 80, 3, dtype = "u8" }, pn.zeros { 3, 60, 80, dtype = "u8" }
    local f, m = frames:data(), masks:data()
    for t = 0, 2 do
      for y = 0, 59 do
        for x = 0, 79 do
          local inside = (x - 30 - 5 * t) ^ 2 + (y - 25) ^ 2 < 200
          local at = (t * 60 + y) * 80 + x
          m[at], f[3 * at], f[3 * at + 1] = inside and 1 or 0, inside and 250 or 0, 50 * t
        end
      end
    end
    return frames, masks
  end

  it("is one for all frames, replays from its stream, and tells what it did", function()
    local frames, masks = clip()
    local how = { light = 0, crop = { size = 32 } }
    local params = augment.draw(stream("clip 3"), masks, how)
    local f, m = augment.apply(params, frames, masks)
    helper.assert_shape(f, 3, 32, 32, 3)
    helper.assert_shape(m, 3, 32, 32)
    local again = augment.draw(stream("clip 3"), masks, how)
    assert.same(params, again)
    local f2, m2 = augment.apply(again, frames, masks)
    helper.assert_same_bits(f, f2)
    helper.assert_same_bits(m, m2)
    for _, key in ipairs { "flip", "degrees", "scale", "map" } do
      assert.not_nil(params.whole[key])
    end
    assert.same({ 32, 32 }, { params.window[3], params.window[4] })
    local order = params.reverse and { 100, 50, 0 } or { 0, 50, 100 }
    assert.same(order, { f:get(1, 9, 9, 2), f:get(2, 9, 9, 2), f:get(3, 9, 9, 2) })
  end)

  it("moves masks with frames, also when turned, mirrored, scaled and reversed", function()
    local frames, masks = clip()
    local wrong, n, accepted = 0, 0, 0
    for k = 1, 40 do
      local params = augment.draw(stream("joint " .. k), masks, {
        light = 0, crop = { size = 32 }, whole = { rotate = 1, degrees = 40 },
      })
      local f, m = augment.apply(params, frames, masks)
      f, m = f:data(), m:data()
      local first = 0
      for i = 0, 3 * 32 * 32 - 1 do
        wrong, n = wrong + ((f[3 * i] > 125) == (m[i] == 1) and 0 or 1), n + 1
        first = first + (i < 1024 and m[i] or 0)
      end
      accepted = accepted + (first / 1024 > 0.09 and 1 or 0) -- the rule judges a coarse mask
      assert.is_true(params.window.accepted)
    end
    assert.is_true(wrong < 0.01 * n, ("%d of %d disagree"):format(wrong, n))
    assert.is_true(accepted >= 39, accepted .. " of 40 windows hold what was promised")
  end)

  it("changes the light of frames alone, the same in all", function()
    local frames, masks = clip()
    local params = augment.draw(stream "light", masks, {
      light = 1, reverse = 0, crop = false, whole = { flip = 0, rotate = 0, resize = 0 },
    })
    assert.equal(6, #params.light)
    local f, m = augment.apply(params, frames, masks)
    helper.assert_same_bits(m, masks)
    helper.assert_same_bits(f, augment.relight(frames, params.light))
    assert.not_equal(f:crc32c(), frames:crc32c())
  end)

  it("says what is wrong", function()
    local _, masks = clip()
    helper.failure(function() augment.draw(stream "x", masks, { revers = 1 }) end, "did you mean 'reverse'")
    helper.failure(function() augment.draw(stream "x", image.frame(masks, 1), {}) end, "masks must be (T,H,W), have 2 axes")
    helper.failure(function() augment.draw(stream "x", masks, { light = 3 }) end, "light is 3")
  end)
end)
