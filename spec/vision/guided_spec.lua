-- The guided filter against its definition, window by window.

local pn = require "penumbra"
local helper = require "spec.helper"

local image = pn.image

describe("the guided filter", function()
  -- By its definition: a plane over the colours for each window, then the mean of the planes of the windows that hold a pixel.
  local function solve(m, v) -- 3 equations by elimination
    local rows = {}
    for i = 1, 3 do rows[i] = { m[i][1], m[i][2], m[i][3], v[i] } end
    for i = 1, 3 do
      for k = 1, 3 do
        local by = k ~= i and rows[k][i] / rows[i][i] or 0
        for c = i, 4 do rows[k][c] = rows[k][c] - by * rows[i][c] end
      end
    end
    return { rows[1][4] / rows[1][1], rows[2][4] / rows[2][2], rows[3][4] / rows[3][3] }
  end
  local function by_definition(values, guide, radius, eps)
    local h, w, p, colours = #values, #values[1], values, guide
    local function each(y, x, visit)
      local n = 0
      for v = math.max(1, y - radius), math.min(h, y + radius) do
        for u = math.max(1, x - radius), math.min(w, x + radius) do
          visit(v, u)
          n = n + 1
        end
      end
      return n
    end
    local planes, result = {}, {}
    for y = 1, h do
      planes[y] = {}
      for x = 1, w do
        local colour, value = { 0, 0, 0 }, 0
        local n = each(y, x, function(v, u)
          for c = 1, 3 do colour[c] = colour[c] + colours[v][u][c] / 255 end
          value = value + p[v][u]
        end)
        for c = 1, 3 do colour[c] = colour[c] / n end
        value = value / n
        local cov, with = { { eps, 0, 0 }, { 0, eps, 0 }, { 0, 0, eps } }, { 0, 0, 0 }
        each(y, x, function(v, u)
          for c = 1, 3 do
            local d = colours[v][u][c] / 255 - colour[c]
            with[c] = with[c] + d * (p[v][u] - value) / n
            for k = 1, 3 do cov[c][k] = cov[c][k] + d * (colours[v][u][k] / 255 - colour[k]) / n end
          end
        end)
        local a = solve(cov, with)
        planes[y][x] = { a[1], a[2], a[3], value - a[1] * colour[1] - a[2] * colour[2] - a[3] * colour[3] }
      end
    end
    for y = 1, h do
      result[y] = {}
      for x = 1, w do
        local sum, here = 0, colours[y][x]
        local n = each(y, x, function(v, u)
          local a = planes[v][u]
          sum = sum + a[1] * here[1] / 255 + a[2] * here[2] / 255 + a[3] * here[3] / 255 + a[4]
        end)
        result[y][x] = sum / n
      end
    end
    return result
  end
  local function random(h, w)
    return helper.random({ h, w }, "values", 0, 1):cast "f32", helper.random({ h, w, 3 }, "guide", 0, 255):cast "u8"
  end

  it("is what it is defined as, also where windows are larger than the picture", function()
    for _, case in ipairs { { 9, 14, 2, 1e-2 }, { 70, 6, 3, 1e-3 }, { 5, 4, 9, 1e-1 }, { 1, 7, 1, 1e-2 }, { 140, 3, 66, 1e-3 } } do
      local values, guide = random(case[1], case[2])
      local found = image.guided(values, guide, { radius = case[3], eps = case[4] }):totable()
      local expected = by_definition(values:totable(), guide:totable(), case[3], case[4])
      for y = 1, case[1] do
        for x = 1, case[2] do
          assert.is_true(math.abs(found[y][x] - expected[y][x]) < 2e-5, ("%d,%d of %d"):format(y, x, case[1]))
        end
      end
    end
  end)

  it("makes a blurred step follow the edge of the picture, and leaves what is flat", function()
    local guide, values = pn.full { 20, 40, 3, dtype = "u8", value = 50 }, pn.zeros { 20, 40, dtype = "f32" }
    for y = 1, 20 do
      for x = 1, 40 do
        if x > 20 then guide:set(200, y, x, 2) end
        values:set(math.max(0, math.min(1, (x - 17) / 8)), y, x) -- from 0 at 17 to 1 at 25
      end
    end
    local row = image.guided(values, guide, { radius = 4, eps = 1e-4 }):totable()[10]
    assert.is_true(row[20] < 0.2 and row[21] > 0.7 and math.abs(row[5]) < 1e-4 and math.abs(row[35] - 1) < 1e-4)
    assert.same({ 0.375, 0.5 }, { values:get(10, 20), values:get(10, 21) })
  end)

  it("does not depend on the threads, nor on the order in memory", function()
    local values, guide = random(200, 60)
    local part = values:slice(2, 6, 50)
    values, guide = part:contiguous(), guide:slice(2, 6, 50)
    local before = pn.threads()
    pn.threads(1)
    local one = image.guided(values, guide:contiguous())
    pn.threads(3)
    local three = image.guided(part, guide)
    pn.threads(before)
    helper.assert_same_bits(one, three)
  end)

  it("names what is wrong", function()
    local values, guide = random(6, 8)
    helper.failure(function() image.guided(values, guide, { radius = 0 }) end, "guided: radius is 0, expects a whole number from 1")
    helper.failure(function() image.guided(values, guide, { radius = 1001 }) end, "radius must be 1..1000 pixels, got 1001")
    helper.failure(function() image.guided(values, guide, { eps = 0 }) end, "eps must be above 0, got 0")
    helper.failure(function() image.guided(values, guide, { eps = 0 / 0 }) end, "eps must be above 0, got")
    helper.failure(function() image.guided(pn.zeros { 6, 7, dtype = "f32" }, guide) end,
      "values are f32 (6,7), expects f32 (6,8) on the CPU, as the guide")
    helper.failure(function() image.guided(pn.zeros { 6, 8, dtype = "u8" }, guide) end, "values are u8 (6,8)")
    helper.failure(function() image.guided(values, pn.zeros { 6, 8, dtype = "u8" }) end, "guided_filter: guide")
  end)
end)
