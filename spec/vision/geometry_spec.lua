-- core/vision: warps against their definition, thin-plate splines, light, inpainting, JPEG writing, scenes.

local ffi = require "ffi"
local pn = require "penumbra"
local helper = require "spec.helper"

local augment, image = pn.augment, pn.image
local affine = augment.affine
local C, check, ptr = pn.C, pn.ffi.check, pn.ffi.ptr

-- Soft noise of bytes: neighbours are alike, so that reading between pixels is well posed.
local function picture(h, w, name)
  local noise = helper.random({ math.ceil(h / 4), math.ceil(w / 4), 3 }, name, 0, 255):cast("u8")
  return image.resize(noise, { h, w, filter = "bilinear" })
end

local function reflect(i, n)
  i = i % (2 * n)
  return i < n and i or 2 * n - 1 - i
end

-- The definition: one channel of one frame, at (x, y) counted from 0.
local function bilinear(t, x, y, c)
  local h, w = t:size(1), t:size(2)
  local x0, y0 = math.floor(x), math.floor(y)
  local sum = 0
  for j = 0, 1 do
    for i = 0, 1 do
      local weight = (i == 1 and x - x0 or 1 - x + x0) * (j == 1 and y - y0 or 1 - y + y0)
      sum = sum + weight * t:get(reflect(y0 + j, h) + 1, reflect(x0 + i, w) + 1, c)
    end
  end
  return sum
end

describe("affine maps", function()
  it("compose, and are undone", function()
    local a, b = affine.pose(20, 1.3, { 3, 4 }, { 10, -2 }), affine.after(affine.mirror(17), affine.shift(2, 5))
    local x, y = affine.at(affine.after(a, b), 1.5, -2.5)
    local u, v = affine.at(b, 1.5, -2.5)
    u, v = affine.at(a, u, v)
    helper.assert_close({ x, y }, { u, v }, 1e-12)
    helper.assert_close({ affine.at(affine.invert(a), affine.at(a, 7, 8)) }, { 7, 8 }, 1e-12)
    helper.assert_close({ affine.at(a, 3, 4) }, { 10, -2 }, 1e-12)
    helper.assert_close({ affine.at(affine.mirror(10), 0, 3) }, { 9, 3 })
  end)

  it("that flatten the plane cannot be undone", function()
    helper.failure(function() affine.invert { 1, 2, 0, 2, 4, 0 } end, "flattens the plane")
  end)
end)

describe("warp", function()
  it("is the definition: every pixel of an affine map with a spline, mirrored at the edge", function()
    local t = picture(23, 31, "warp")
    local points = { { 2, 3 }, { 25, 4 }, { 14, 20 }, { 5, 15 } }
    local moves = { { 1, -0.5 }, { -0.7, 0.3 }, { 0.2, 0.9 }, { -0.4, -0.6 } }
    local map = affine.pose(12, 0.8, { 15, 11 }, { 13, 12.5 })
    local out = augment.warp(t, { map = map, points = points, moves = moves, height = 19, width = 27 })
    helper.assert_shape(out, 19, 27, 3)
    local flat, values, coefficients = ffi.new "double [8]", ffi.new "double [8]", ffi.new "double [14]"
    for i = 1, 4 do
      flat[2 * i - 2], flat[2 * i - 1], values[2 * i - 2], values[2 * i - 1] = points[i][1], points[i][2], moves[i][1], moves[i][2]
    end
    check(C.pn_tps_fit(4, flat, values, 2, coefficients))
    local move, worst = ffi.new "double [2]", 0
    for y = 0, 18 do
      for x = 0, 26 do
        C.pn_tps_at(4, flat, coefficients, 2, x, y, move)
        local u, v = affine.at(map, x, y)
        for c = 1, 3 do
          worst = math.max(worst, math.abs(out:get(y + 1, x + 1, c) - bilinear(t, u + move[0], v + move[1], c)))
        end
      end
    end
    assert.is_true(worst <= 0.51, "differs by " .. worst) -- rounding alone
  end)

  it("that moves nothing gives the same bits, and whole shifts move whole pixels", function()
    local t = picture(20, 24, "still")
    helper.assert_same_bits(augment.warp(t, {}), t)
    local moved = augment.warp(t, { map = affine.shift(3, -2), height = 10, width = 12 })
    for _, at in ipairs { { 3, 1 }, { 10, 12 }, { 5, 7 } } do
      assert.equal(t:get(at[1] - 2, at[2] + 3, 2), moved:get(at[1], at[2], 2))
    end
    assert.equal(t:get(2, 4, 1), moved:get(1, 1, 1)) -- row -2 mirrored
  end)

  it("knows three borders", function()
    local t = pn.tensor({ { 10, 20, 30 }, { 40, 50, 60 } }, { dtype = "u8" })
    local function row(border)
      return augment.warp(t, { map = affine.shift(-2, 0), width = 6, border = border }):slice(1, 1, 1):flat()
    end
    assert.same({ 20, 10, 10, 20, 30, 30 }, row "reflect")
    assert.same({ 10, 10, 10, 20, 30, 30 }, row "replicate")
    assert.same({ 0, 0, 10, 20, 30, 0 }, row "zero")
  end)

  it("keeps ids of masks, and moves all frames alike", function()
    local masks = pn.zeros { 3, 12, 12, dtype = "u8" }
    for t = 1, 3 do
      masks:set(200 + t, t, 6, 6)
      masks:set(7, t, 2, 9)
    end
    local map = affine.invert(affine.pose(30, 2, { 5.5, 5.5 }, { 11, 11 }))
    local out = augment.warp(masks, { map = map, height = 24, width = 24, masks = true })
    helper.assert_shape(out, 3, 24, 24)
    local seen = {}
    for _, v in ipairs(out:flat()) do
      seen[v] = (seen[v] or 0) + 1
    end
    assert.is_true(seen[201] > 0 and seen[201] == seen[202] and seen[202] == seen[203])
    for id in pairs(seen) do
      assert.is_true(id == 0 or id == 7 or id > 200, "id " .. id .. " appeared")
    end
  end)

  it("does not alias: a fine checkerboard made small is grey", function()
    local board = pn.zeros { 64, 64, dtype = "u8" }
    for y = 1, 64 do
      for x = 1 + y % 2, 64, 2 do
        board:set(255, y, x)
      end
    end
    local small = augment.warp(board, { map = { 4, 0, 1.5, 0, 4, 1.5 }, height = 16, width = 16, filter = "bilinear" })
    for _, v in ipairs(small:flat()) do
      assert.is_true(math.abs(v - 128) <= 1, "value " .. v)
    end
  end)

  it("does not depend on the number of threads", function()
    local t, before = picture(90, 120, "threads"), pn.threads()
    local how = {
      map = affine.pose(9, 1.1, { 50, 50 }), points = { { 0, 0 }, { 90, 5 }, { 40, 80 } },
      moves = { { 1, 2 }, { -2, 1 }, { 3, 0 } },
    }
    pn.threads(1)
    local one = augment.warp(t, how)
    pn.threads(2)
    local two = augment.warp(t, how)
    pn.threads(before)
    helper.assert_same_bits(one, two)
  end)

  it("says what is wrong", function()
    local t = picture(8, 8, "wrong")
    local function fails(how, ...)
      helper.failure(function() augment.warp(t, how) end, ...)
    end
    fails({ map = { 1, 0, 0 / 0, 0, 1, 0 } }, "number 3 of the map", "finite")
    fails({ map = { 1, 0 } }, "number 3 of the map is nil")
    fails({ points = { { 1, 1 } } }, "1 points but 0 moves")
    fails({ points = { { 1, 1 } }, moves = { { 0, 0 } } }, "at least 3 points, got 1")
    fails({ points = { { 1 } }, moves = { { 0, 0 } } }, "point 1 is not a pair")
    fails({ filter = "nearst" }, "unknown filter 'nearst'", "did you mean 'nearest'")
    fails({ border = "mirror" }, "unknown border 'mirror'")
    fails({ hieght = 3 }, "unknown option 'hieght'", "did you mean 'height'")
    fails({ height = 2 ^ 21 }, "cannot make frames of 2097152 x 8")
    helper.failure(function() augment.warp(pn.zeros { 8, 8 }, {}) end, "must be u8")
    helper.failure(function() augment.warp(pn.zeros { 8, dtype = "u8" }, {}) end, "got 1 axes")
    helper.failure(function() augment.warp(pn.zeros { 1, 2, 2, 17, dtype = "u8" }, {}) end, "at most 16 channels, clip has 17")
    local out, map = pn.ffi.out(), ffi.new("double [6]", affine.identity())
    local clip = pn.zeros { 1, 4, 4, 3, dtype = "u8" }
    helper.failure(function() check(C.pn_warp(out, ptr(clip), map, 0, nil, nil, 4, 4, C.PN_AREA, C.PN_BORDER_ZERO)) end,
      "bilinear or nearest")
  end)
end)

describe("thin-plate splines", function()
  local function fit(points, values)
    local n = #points
    local p, v, c = ffi.new("double [?]", 2 * n), ffi.new("double [?]", n), ffi.new("double [?]", n + 3)
    for i = 1, n do
      p[2 * i - 2], p[2 * i - 1], v[i - 1] = points[i][1], points[i][2], values[i]
    end
    check(C.pn_tps_fit(n, p, v, 1, c))
    return function(x, y)
      local out = ffi.new "double [1]"
      C.pn_tps_at(n, p, c, 1, x, y, out)
      return out[0]
    end, c
  end
  local points = { { 100, 200 }, { 150, 210 }, { 120, 260 }, { 170, 255 }, { 135, 230 }, { 90, 240 } }

  it("pass through their points, with weights that balance", function()
    local values = { 3, -1, 2, 5, 0, 1 }
    local f, c = fit(points, values)
    local sum, moment_x, moment_y = 0, 0, 0
    for i, p in ipairs(points) do
      assert.is_true(math.abs(f(p[1], p[2]) - values[i]) < 1e-9)
      sum, moment_x, moment_y = sum + c[i - 1], moment_x + c[i - 1] * p[1], moment_y + c[i - 1] * p[2]
    end
    assert.is_true(math.abs(sum) < 1e-12 and math.abs(moment_x) < 1e-10 and math.abs(moment_y) < 1e-10)
  end)

  it("have the energy of Bookstein's example: his five points and their bending", function()
    -- "Principal warps", figure 5: a square of corners with its middle lifted bends as 1 / (2 (U(2) - ...)): by symmetry all
    -- four corner weights are equal and the middle carries minus their sum.
    local f, c = fit({ { 1, 0 }, { 0, 1 }, { -1, 0 }, { 0, -1 }, { 0, 0 } }, { 0, 0, 0, 0, 1 })
    for i = 1, 3 do
      assert.is_true(math.abs(c[i] - c[0]) < 1e-12)
    end
    assert.is_true(math.abs(c[4] + 4 * c[0]) < 1e-12)
    -- f(corner) = a0 + c0 (2 U(sqrt 2) + U(2)) + c4 U(1) = 0 and f(0) = a0 + 4 c0 U(1) = 1, with U(1) = 0
    local u = 2 * math.log(2) + 4 * math.log(2)
    assert.is_true(math.abs(c[0] + 1 / u) < 1e-12 and math.abs(f(0, 0) - 1) < 1e-12)
  end)

  it("are affine where the values are", function()
    local values = {}
    for i, p in ipairs(points) do
      values[i] = 2 + 0.5 * p[1] - 0.25 * p[2]
    end
    local f = fit(points, values)
    assert.is_true(math.abs(f(-300, 77) - (2 - 150 - 19.25)) < 1e-8)
  end)

  it("say what is wrong", function()
    helper.failure(function() fit({ { 0, 0 }, { 1, 1 }, { 2, 2 }, { 3, 3 } }, { 1, 2, 3, 4 }) end, "4 points lie on a line")
    helper.failure(function() fit({ { 0, 0 }, { 1, 5 }, { 0, 0 }, { 3, 3 } }, { 1, 2, 3, 4 }) end, "two of them coincide")
    helper.failure(function() fit({ { 4, 4 }, { 4, 4 }, { 4, 4 } }, { 1, 2, 3 }) end, "all 3 points are the same")
    helper.failure(function() fit({ { 4, 4 }, { 4, 1 / 0 }, { 4, 4 } }, { 1, 2, 3 }) end, "point 2 is not finite")
    helper.failure(function() fit({ { 4, 4 } }, { 1 }) end, "at least 3 points, got 1")
    local many = ffi.new "double [2002]"
    helper.failure(function() check(C.pn_tps_fit(1001, many, many, 1, many)) end, "at most 1000 points")
    helper.failure(function() check(C.pn_tps_fit(3, many, many, 0, many)) end, "at least one value per point")
  end)
end)

describe("relight", function()
  it("changes value and saturation as said, and not the hue", function()
    local t = pn.tensor({ { { 200, 100, 50 }, { 80, 80, 80 }, { 0, 0, 0 }, { 255, 255, 255 }, { 30, 60, 90 } } }, { dtype = "u8" })
    local out = augment.relight(t, { 0.9, 1.1, 0.02, 1.03, 0.8, -0.04 })
    for i = 1, 5 do
      local r, g, b = t:get(1, i, 1), t:get(1, i, 2), t:get(1, i, 3)
      local v, low = math.max(r, g, b) / 255, math.min(r, g, b) / 255
      local s = v > 0 and (v - low) / v or 0
      local to_v = math.max(0, math.min(1, 1.03 * v ^ 0.8 - 0.04))
      local to_s = s > 0 and math.min(1, 0.9 * s ^ 1.1 + 0.02 * math.min(1, 10 * s)) or 0
      for c, x in ipairs { r, g, b } do
        local expected = s > 0 and to_v * (1 - to_s / s * (1 - x / 255 / v)) or to_v -- the same place between low and high
        assert.is_true(math.abs(out:get(1, i, c) - 255 * expected) < 1, ("pixel %d channel %d: %g, expected %g"):format(i, c,
          out:get(1, i, c), 255 * expected))
      end
    end
    helper.assert_same_bits(augment.relight(t, { 1, 1, 0, 1, 1, 0 }), t)
  end)

  it("says what is wrong", function()
    local t = pn.zeros { 2, 2, 3, dtype = "u8" }
    helper.failure(function() augment.relight(t, { 1, 1 }) end, "six numbers")
    helper.failure(function() augment.relight(t, { 1, 0, 0, 1, 1, 0 }) end, "gamma must be above 0")
    helper.failure(function() augment.relight(t, { 1 / 0, 1, 0, 1, 1, 0 }) end, "number 1 of 6 is not finite")
    helper.failure(function() augment.relight(pn.zeros { 2, 2, dtype = "u8" }, { 1, 1, 0, 1, 1, 0 }) end, "must have 3 channels")
    helper.failure(function() augment.relight(pn.zeros { 0, 2, 3, dtype = "u8" }, { 1, 1, 0, 1, 1, 0 }) end, "is empty")
  end)
end)

describe("inpaint", function()
  it("changes nothing outside the hole, and fills a slope with the slope", function()
    local t = pn.zeros { 60, 80, 3, dtype = "u8" }
    for y = 1, 60 do
      for x = 1, 80 do
        t:set(2 * x + 20, y, x, 1)
        t:set(3 * y, y, x, 2)
        t:set(100, y, x, 3)
      end
    end
    local hole = pn.zeros { 60, 80, dtype = "u8" }
    for y = 20, 40 do
      for x = 30, 55 do
        hole:set(9, y, x)
      end
    end
    local out = augment.inpaint(t, hole, { grain = 0 })
    local worst = 0
    for y = 1, 60 do
      for x = 1, 80 do
        for c = 1, 3 do
          local d = math.abs(out:get(y, x, c) - t:get(y, x, c))
          if hole:get(y, x) == 0 then
            assert.equal(0, d)
          end
          worst = math.max(worst, d)
        end
      end
    end
    assert.is_true(worst < 8, "the slope is off by " .. worst)
  end)

  it("has the grain of the surroundings, by seed", function()
    local t = helper.random({ 96, 96, 3 }, "grain", 96, 160):cast("u8")
    local hole = pn.zeros { 96, 96, dtype = "u8" }
    for y = 30, 70 do
      for x = 30, 70 do
        hole:set(1, y, x)
      end
    end
    local function deviation(picture_)
      local n, sum, square = 0, 0, 0
      for y = 34, 66 do
        for x = 34, 66 do
          local v = picture_:get(y, x, 1)
          n, sum, square = n + 1, sum + v, square + v * v
        end
      end
      return math.sqrt(square / n - (sum / n) ^ 2)
    end
    local with, without = augment.inpaint(t, hole, { seed = 3 }), augment.inpaint(t, hole, { grain = 0 })
    local truth = deviation(t)
    assert.is_true(math.abs(deviation(with) / truth - 1) < 0.2, "deviation " .. deviation(with) .. " for " .. truth)
    assert.is_true(deviation(without) < 0.3 * truth)
    helper.assert_same_bits(augment.inpaint(t, hole, { seed = 3 }), with)
    assert.not_equal(with:crc32c(), augment.inpaint(t, hole, { seed = 4 }):crc32c())
  end)

  it("leaves a picture without a hole alone, and says what is wrong", function()
    local t, hole = picture(16, 16, "whole"), pn.zeros { 16, 16, dtype = "u8" }
    helper.assert_same_bits(augment.inpaint(t, hole), t)
    helper.failure(function() augment.inpaint(t, pn.ones { 16, 16, dtype = "u8" }) end, "covers the whole image of 16 x 16")
    helper.failure(function() augment.inpaint(t, pn.ones { 16, 15, dtype = "u8" }) end, "the hole is 16 x 15, the image 16 x 16")
    helper.failure(function() augment.inpaint(t, hole, { grain = 9 }) end, "grain must be in 0..4")
    helper.failure(function() augment.inpaint(t, pn.ones { 16, 16, 1, dtype = "u8" }) end, "hole must have 2 dims")
  end)
end)

describe("JPEG writing", function()
  local path = os.tmpname()
  after_each(function() os.remove(path) end)

  it("comes back nearly as it was", function()
    local t = picture(48, 64, "jpeg")
    check(C.pn_jpeg_write(path, ptr(t), 95))
    local back = image.read(path)
    local worst, a, b = 0, t:flat(), back:flat()
    for i = 1, #a do
      worst = math.max(worst, math.abs(a[i] - b[i]))
    end
    assert.is_true(worst < 24, "off by " .. worst)
    helper.assert_shape(back, 48, 64, 3)
  end)

  it("says what is wrong, and leaves what stood there", function()
    local t = picture(8, 8, "jpeg")
    helper.failure(function() check(C.pn_jpeg_write(path, ptr(t), 0)) end, "quality must be in 1..100, got 0")
    local four, wide = pn.zeros { 4, 4, 4, dtype = "u8" }, pn.zeros { 1, 65536, 1, dtype = "u8" }
    helper.failure(function() check(C.pn_jpeg_write(path, ptr(four), 90)) end, "1 or 3 channels", "has 4")
    helper.failure(function() check(C.pn_jpeg_write(path, ptr(wide), 90)) end, "at most 65535")
    helper.failure(function() check(C.pn_jpeg_write("/no/such/place.jpg", ptr(t), 90)) end, "/no/such/place.jpg")
  end)
end)

describe("scenes", function()
  local h, w = 40, 60
  local red, blue = { 210, 20, 30 }, { 20, 40, 200 }

  -- A red disk on blue, and the blue behind it.
  local function disk()
    local frame, background = pn.zeros { h, w, 3, dtype = "u8" }, pn.zeros { h, w, 3, dtype = "u8" }
    local mask = pn.zeros { h, w, dtype = "u8" }
    for y = 1, h do
      for x = 1, w do
        local inside = (x - 25) ^ 2 + (y - 18) ^ 2 <= 64
        mask:set(inside and 3 or 0, y, x)
        for c = 1, 3 do
          frame:set(inside and red[c] or blue[c], y, x, c)
          background:set(blue[c], y, x, c)
        end
      end
    end
    return frame, mask, background
  end

  local function scene_of(...)
    local p = ffi.new "pn_scene *[1]"
    local t = { ... }
    check(C.pn_scene_new(p, ptr(t[1]), ptr(t[2]), ptr(t[3])))
    return ffi.gc(p[0], C.pn_scene_free)
  end

  local function poses_of(list)
    local poses = ffi.new("pn_pose [?]", #list)
    for t, maps in ipairs(list) do
      for i = 1, 6 do
        poses[t - 1].background[i - 1], poses[t - 1].object[i - 1] = maps[1][i], maps[2][i]
        poses[t - 1].background_light[i - 1], poses[t - 1].light[i - 1] = i % 3 == 0 and 0 or 1, i % 3 == 0 and 0 or 1
      end
    end
    return poses
  end

  local function render(scene, list, points, moves)
    local n = #list
    local frames, masks = pn.zeros { n, h, w, 3, dtype = "u8" }, pn.zeros { n, h, w, dtype = "u8" }
    check(C.pn_scene_render(scene, n, poses_of(list), points and 4 or 0, points, moves, ptr(frames), ptr(masks), C.PN_RGB_PM1))
    return frames, masks
  end
  local identity = affine.identity()

  it("give the annotation back: the mask exactly, and the object where it does not blend", function()
    local frame, mask, background = disk()
    local frames, masks = render(scene_of(frame, mask, background), { { identity, identity } })
    local inner, outer = image.erode(mask, 2), image.dilate(mask, 2)
    for y = 1, h do
      for x = 1, w do
        assert.equal(mask:get(y, x) > 0 and 1 or 0, masks:get(1, y, x))
        if inner:get(y, x) == 1 or outer:get(y, x) == 0 then
          for c = 1, 3 do
            assert.equal(frame:get(y, x, c), frames:get(1, y, x, c))
          end
        end
      end
    end
  end)

  it("have no halo: moved, every pixel lies between the object's colour and the background's", function()
    local frame, mask, background = disk()
    local list = {}
    for k = 1, 5 do
      list[k] = { affine.shift(-k, 0.4 * k), affine.pose(11 * k, 1 + 0.07 * k, { 24, 17 }, { 20 + 1.3 * k, 19 }) }
    end
    local frames, masks = render(scene_of(frame, mask, background), list)
    for t = 1, 5 do
      local n = 0
      local here = image.frame(masks, t)
      local inner, outer = image.erode(here, 3), image.dilate(here, 3)
      for y = 1, h do
        for x = 1, w do
          local k = (frames:get(t, y, x, 1) - blue[1]) / (red[1] - blue[1])
          for c = 2, 3 do
            assert.is_true(math.abs(blue[c] + k * (red[c] - blue[c]) - frames:get(t, y, x, c)) < 3)
          end
          assert.is_true(inner:get(y, x) == 0 or k > 0.99)
          assert.is_true(outer:get(y, x) == 1 or k < 0.01)
          n = n + here:get(y, x)
        end
      end
      local scale = 1 / (1 + 0.07 * t) -- the map leads from the output to the frame
      local area = image.box(mask).area * scale * scale
      assert.is_true(math.abs(n - area) < 0.06 * area + 4, ("%d pixels for %g"):format(n, area))
    end
  end)

  it("shift masks by whole pixels exactly", function()
    local frame, mask, background = disk()
    local _, masks = render(scene_of(frame, mask, background), { { identity, affine.shift(-6, 5) } })
    for y = 1, h - 5 do
      for x = 7, w do
        assert.equal(mask:get(y + 5, x - 6) > 0 and 1 or 0, masks:get(1, y, x))
      end
    end
  end)

  it("bend the object as the spline says", function()
    local frame, mask, background = disk()
    local points = ffi.new("double [8]", { 16, 9, 33, 9, 16, 26, 33, 26 })
    local moves = ffi.new("double [8]", { 4, 0, 4, 0, 4, 0, 4, 0 }) -- everything reads 4 pixels to the right
    local scene = scene_of(frame, mask, background)
    local _, bent = render(scene, { { identity, identity } }, points, moves)
    local _, moved = render(scene, { { identity, affine.shift(4, 0) } })
    helper.assert_same_bits(bent, moved)
    moves = ffi.new("double [8]", { 2, 1, -2, 1, 2, -1, -2, -1 }) -- squeezed towards the middle: reads nearer, so looks larger
    local _, larger = render(scene, { { identity, identity } }, points, moves)
    assert.is_true(image.box(image.frame(larger, 1)).area > 1.1 * image.box(mask).area)
  end)

  it("write what networks read, the same as through bytes, from any number of threads", function()
    local frame, mask, background = disk()
    local scene = scene_of(frame, mask, background)
    local list = { { affine.shift(1.5, 0), affine.pose(10, 1.2, { 24, 17 }) }, { identity, affine.shift(3.3, 1.1) } }
    local before = pn.threads()
    pn.threads(1)
    local frames, masks = render(scene, list)
    pn.threads(2)
    for rule, number in pairs { rgb_pm1 = C.PN_RGB_PM1, bgr_01 = C.PN_BGR_01 } do
      local x = pn.zeros { 1, 3, 2, h, w, layout = "channels_last" }
      local y = pn.zeros { 1, 1, 2, h, w, layout = "channels_last" }
      check(C.pn_scene_render(scene, 2, poses_of(list), 0, nil, nil, ptr(x), ptr(y), number))
      helper.assert_same_bits(x, image.to_clip(frames, rule), rule)
      helper.assert_same_bits(y, image.masks_to_clip(masks), rule)
    end
    pn.threads(before)
  end)

  it("say what is wrong", function()
    local frame, mask, background = disk()
    helper.failure(function() scene_of(frame, pn.zeros { h, w, dtype = "u8" }, background) end, "the mask is empty")
    helper.failure(function() scene_of(frame, pn.ones { h, w - 1, dtype = "u8" }, background) end,
      "the mask is 40 x 59, the frame 40 x 60")
    helper.failure(function() scene_of(frame, mask, pn.zeros { h - 1, w, 3, dtype = "u8" }) end, "the background is 39 x 60")
    helper.failure(function() scene_of(frame, mask, pn.zeros { h, w, 3 }) end, "background must be u8, is " .. pn.real)
    local scene = scene_of(frame, mask, background)
    local function fails(n, points, moves, x, y, rule, ...)
      local list = {}
      for i = 1, math.max(n, 1) do
        list[i] = { identity, identity }
      end
      local words = { ... }
      helper.failure(function()
        check(C.pn_scene_render(scene, n, poses_of(list), points, moves, moves, x and ptr(x), y and ptr(y), rule))
      end, unpack(words))
    end
    local x, y = pn.zeros { 1, h, w, 3, dtype = "u8" }, pn.zeros { 1, h, w, dtype = "u8" }
    fails(2, 0, nil, x, y, C.PN_RGB_PM1, "2 poses, but frames is for 1")
    fails(0, 0, nil, x, y, C.PN_RGB_PM1, "cannot render 0 frames")
    fails(1, 0, nil, x, pn.zeros { 1, h, 9, dtype = "u8" }, C.PN_RGB_PM1, "masks (1,40,9) have not the size of the frames, 40 x 60")
    fails(1, 0, nil, pn.zeros { 1, h, w, dtype = "u8" }, y, C.PN_RGB_PM1, "frames must be u8 (K,h,w,3) or real (1,3,K,h,w)")
    fails(1, 0, nil, x, pn.zeros { 2, 1, 1, h, w }, C.PN_RGB_PM1, "masks must be u8 (K,h,w) or real (1,1,K,h,w)")
    fails(1, 0, nil, x, y, 7, "unknown pixel rule 7")
    fails(1, 2, ffi.new "double [4]", x, y, C.PN_RGB_PM1, "a deformation needs 3 to 64 points, got 2")
    fails(1, 3, ffi.new "double [6]", x, y, C.PN_RGB_PM1, "points are the same")
    helper.failure(function() check(C.pn_scene_render(nil, 1, nil, 0, nil, nil, nil, nil, 0)) end, "nothing to render")
    local points, far = ffi.new("double [6]", { 0, 0, 9, 0, 0, 9 }), ffi.new("double [6]", { 1e300, 0, 0, 0, 0, 0 })
    helper.failure(function()
      check(C.pn_scene_render(scene, 1, poses_of { { identity, identity } }, 3, points, far, ptr(x), ptr(y), C.PN_RGB_PM1))
    end, "the deformation of frame 1 is not finite")
  end)
end)

describe("painted pictures", function()
  it("are of the seed, and as large as asked for", function()
    local function paint(fn, h, w, seed)
      local out = pn.ffi.out()
      check(fn(out, h, w, seed))
      return pn.ffi.wrap(out[0])
    end
    local a = paint(C.pn_paint_landscape, 40, 60, 5)
    helper.assert_shape(a, 40, 60, 3)
    helper.assert_same_bits(a, paint(C.pn_paint_landscape, 40, 60, 5))
    assert.not_equal(a:crc32c(), paint(C.pn_paint_landscape, 40, 60, 6):crc32c())
    local creature = paint(C.pn_paint_creature, 40, 60, 5)
    local n = 0
    for y = 1, 40 do
      for x = 1, 60 do
        local alpha = creature:get(y, x, 4)
        assert.is_true(alpha == 0 or alpha == 255)
        n = n + alpha / 255
      end
    end
    assert.is_true(n > 300 and n < 1600, n .. " pixels of creature")
    helper.failure(function() paint(C.pn_paint_landscape, 4, 60, 5) end, "landscape: height and width must be in 8..8192", "4 x 60")
    helper.failure(function() paint(C.pn_paint_creature, 40, 9000, 5) end, "creature: height and width")
  end)
end)

describe("when memory runs out", function()
  -- Lets the first allocation fail, then the second, ...; returns how many of these failures came through (a tensor's memory is
  -- asked for once more after the cache was given back, so some do not). Nothing may be left behind by a failure.
  local function hurt(f)
    f()
    collectgarbage() -- or handles of other specs would go in between
    collectgarbage()
    local before, failures = pn.memory().live, 0
    for nth = 1, 40 do
      C.pn_debug_fail_alloc(nth)
      local rc = f()
      C.pn_debug_fail_alloc(0)
      assert.equal(before, pn.memory().live, "allocation " .. nth .. " failed, and bytes stayed")
      if rc ~= 0 then
        assert.truthy(pn.ffi.message():find("out of memory", 1, true))
        failures = failures + 1
      end
    end
    return failures
  end

  local t, hole = picture(40, 50, "memory"), pn.zeros { 40, 50, dtype = "u8" }
  for y = 10, 20 do
    for x = 10, 30 do
      hole:set(1, y, x)
    end
  end
  t:keep()
  hole:keep()

  -- Calls fn with a place for a tensor first, and drops what it left there.
  local function dropped(fn, ...)
    local out = pn.ffi.out()
    local rc = fn(out, ...)
    if rc == 0 then
      C.pn_tensor_release(out[0])
    end
    return rc
  end

  it("every step of a warp, an inpainting and a scene fails whole", function()
    local clip = t:clone()
    local four = pn.empty { 1, 40, 50, 3, dtype = "u8" }
    check(C.pn_tensor_copy(ptr(image.frame(four, 1)), ptr(clip)))
    local shrinking = ffi.new("double [6]", { 3, 0, 0, 0, 3, 0 })
    local points, moves = ffi.new("double [6]", { 0, 0, 9, 0, 0, 9 }), ffi.new("double [6]", { 1, 0, 0, 1, 0, 0 })
    assert.is_true(hurt(function()
      return dropped(C.pn_warp, ptr(four), shrinking, 3, points, moves, 13, 16, C.PN_BILINEAR, C.PN_BORDER_REFLECT)
    end) >= 4)
    assert.is_true(hurt(function() return dropped(C.pn_inpaint, ptr(t), ptr(hole), 1, 0) end) >= 6)
    local scene = ffi.new "pn_scene *[1]"
    assert.is_true(hurt(function()
      local rc = C.pn_scene_new(scene, ptr(t), ptr(hole), ptr(t))
      if rc == 0 then
        C.pn_scene_free(scene[0])
      end
      return rc
    end) >= 20)
    check(C.pn_scene_new(scene, ptr(t), ptr(hole), ptr(t)))
    local frames, masks, poses = pn.empty { 1, 9, 9, 3, dtype = "u8" }, pn.empty { 1, 9, 9, dtype = "u8" }, ffi.new "pn_pose [1]"
    for i = 0, 5 do
      poses[0].background[i], poses[0].object[i] = i % 4 == 0 and 1 or 0, i % 4 == 0 and 1 or 0
      poses[0].background_light[i], poses[0].light[i] = i % 3 == 2 and 0 or 1, i % 3 == 2 and 0 or 1
    end
    assert.is_true(hurt(function()
      return C.pn_scene_render(scene[0], 1, poses, 3, points, moves, ptr(frames), ptr(masks), C.PN_RGB_PM1)
    end) >= 6)
    C.pn_scene_free(scene[0])
  end)
end)
