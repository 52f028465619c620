-- Plots: what is drawn where, judged by the pixels; and the errors.

local pn = require "penumbra"
local helper = require "spec.helper"

local plot, image = pn.plot, pn.image

local directory = helper.directory(teardown)

local function read(name)
  local file = assert(io.open(name, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local blue, orange = { 0, 115, 179 }, { 214, 94, 0 }

-- The pixels near a colour: their number and box { top, left, bottom, right }.
local function find(picture, colour, tolerance)
  local data, h, w = picture:data(), picture:size(1), picture:size(2)
  local n, box = 0, { h, w, 0, 0 }
  for y = 1, h do
    for x = 1, w do
      local at, far = 3 * ((y - 1) * w + x - 1), 0
      for c = 1, 3 do
        far = math.max(far, math.abs(data[at + c - 1] - colour[c]))
      end
      if far <= (tolerance or 8) then
        n = n + 1
        box = { math.min(box[1], y), math.min(box[2], x), math.max(box[3], y), math.max(box[4], x) }
      end
    end
  end
  return n, box
end

-- Below the legend, so that only the data is met.
local function drawn(how)
  how.path = directory .. "/plot.png"
  local picture = image.read(plot.lines(how))
  return image.crop(picture, { 80, 1, picture:size(1) - 80, picture:size(2) })
end

describe("lines", function()
  it("go through their points", function()
    local picture = drawn { width = 400, height = 300, y_min = 0, y_max = 1, { "up", { 0, 1 } } }
    local n, box = find(picture, blue)
    assert.is_true(n > 100)
    assert.is_true(box[4] - box[2] > 250 and box[3] - box[1] > 150)
    local left = find(image.crop(picture, { 120, 1, 100, 120 }), blue)
    assert.is_true(left > 0) -- it starts at the bottom on the left
    assert.equal(0, (find(image.crop(picture, { 1, 1, 60, 150 }), blue)))
  end)

  it("have a size and a white ground", function()
    local file = plot.lines { path = directory .. "/a.png", { "one", { 1, 2, 3 } } }
    assert.same({ 540, 960, 3 }, { image.size(file) })
    assert.same({ 255, 255, 255 }, image.read(file):totable()[1][1])
    plot.lines { path = directory .. "/a.png", width = 300, height = 200, { "one", { 1, 2, 3 } } }
    assert.same({ 200, 300, 3 }, { image.size(directory .. "/a.png") })
  end)

  it("are told apart by colour, and named", function()
    local all = image.read(plot.lines { path = directory .. "/two.png", { "a", { 1, 2, 3 } }, { "b", { 3, 2, 1 } } })
    assert.is_true(find(all, blue) > 500 and find(all, orange) > 500)
    local legend = image.crop(all, { 1, 1, 60, 960 })
    assert.is_true(find(legend, blue) > 20 and find(legend, orange) > 20)
  end)

  it("break at values that are not finite, and at those a log axis cannot hold", function()
    local values = {}
    for i = 1, 100 do
      values[i] = 1
    end
    local function across(more)
      more.width, more.height, more.y_min, more.y_max = 400, 300, 0.5, 2
      more[1] = { "flat", values }
      return (find(drawn(more), blue))
    end
    local whole, whole_log = across {}, across { log_y = true }
    for i = 30, 70 do
      values[i] = i % 2 == 0 and 0 / 0 or math.huge
    end
    assert.is_true(across {} < 0.7 * whole)
    for i = 30, 70 do
      values[i] = i % 2 == 0 and 0 or -1
    end
    assert.is_true(across { log_y = true } < 0.7 * whole_log)
  end)

  it("show a value alone as a dot, and nothing at all as empty axes", function()
    assert.is_true(find(drawn { { "dot", { 3 } } }, blue) > 5)
    assert.equal(0, (find(drawn { { "none", {} } }, blue)))
    assert.equal(0, (find(drawn { { "nan", { 0 / 0, 0 / 0 } } }, blue)))
    assert.is_true(find(drawn { log_x = true, log_y = true, { "log", { 1, 100, 1e6 }, x = { 1e-9, 1, 1e9 } } }, blue) > 100)
    assert.is_true(find(drawn { { "flat", { 5, 5, 5 } } }, blue) > 100)
  end)

  it("are smoothed, with the raw values faint behind", function()
    local values = {}
    for i = 1, 200 do
      values[i] = i % 2
    end
    local _, raw = find(drawn { { "raw", values } }, blue)
    local n, smooth = find(drawn { smooth = 21, { "smooth", values } }, blue)
    assert.is_true(n > 100)
    assert.is_true(smooth[3] - smooth[1] < 0.75 * (raw[3] - raw[1]) or smooth[2] < 60)
    local faint = find(drawn { smooth = 21, { "smooth", values } }, { 178, 213, 232 }, 12)
    assert.is_true(faint > 500)
  end)

  it("are written as SVG too, with text as text or glyphs", function()
    local file = plot.lines { path = directory .. "/a.svg", title = "loss", { "one", { 1, 2, 3 } } }
    local text = read(file)
    assert.truthy(text:find("<svg", 1, true))
    assert.truthy(text:find("</svg>", 1, true))
  end)

  it("refuse what cannot be drawn, by name", function()
    local good = { "one", { 1, 2 } }
    local function lines(how)
      return function() plot.lines(how) end
    end
    helper.failure(lines { good }, "plot.lines: path is missing")
    helper.failure(lines { path = directory .. "/a.pdf", good }, "a.pdf: a plot is written as .png or .svg")
    helper.failure(lines { path = directory .. "/no/a.png", good }, "no/a.png: cannot write")
    helper.failure(lines { path = directory .. "/a.png", width = 20, good }, "200..10000 by 150..10000 pixels, got 20 x 540")
    helper.failure(lines { path = directory .. "/a.png", titel = "x", good }, "unknown option 'titel', did you mean 'title'?")
    helper.failure(lines { path = directory .. "/a.png", title = 7, good }, "title expects a string, got a number")
    helper.failure(lines { path = directory .. "/a.png", "one" }, "series 1: expects { name, values }, got string")
    helper.failure(lines { path = directory .. "/a.png", { { 1, 2 } } }, "series 1: expects { name, values }; the name is a table")
    helper.failure(lines { path = directory .. "/a.png", { "one", { 1, "2" } } }, "series 1 (one): value 2 is a string")
    helper.failure(lines { path = directory .. "/a.png", { "one", { 1, 2 }, x = { 1 } } }, "1 x-values for 2 y-values")
    helper.failure(lines { path = directory .. "/a.png", { "one" } }, "series 1 (one): expects a list of numbers, got nil")
  end)
end)

describe("bars", function()
  it("stand on zero, as high as their values", function()
    local file = plot.bars { path = directory .. "/bars.png", groups = { "a", "b" }, y_max = 1, { "ours", { 0.5, 1 } } }
    local picture = image.read(file)
    local low = image.crop(picture, { 70, 1, 470, 480 }) -- the left half, below the legend
    local high = image.crop(picture, { 70, 520, 470, 400 })
    local _, a = find(low, { 26, 129, 187 }, 12)
    local _, b = find(high, { 26, 129, 187 }, 12)
    assert.near(0.5, (a[3] - a[1]) / (b[3] - b[1]), 0.02)
    assert.near(a[3], b[3], 1)
  end)

  it("refuse other numbers of values than groups", function()
    helper.failure(function()
      plot.bars { path = directory .. "/bars.png", groups = { "a", "b" }, { "ours", { 0.5 } } }
    end, "bars.png: series 1 has 1 values for 2 groups of bars")
    helper.failure(function() plot.bars { path = directory .. "/bars.png", { "ours", { 0.5 } } } end,
      "plot.bars: groups is missing")
    helper.failure(function()
      plot.bars { path = directory .. "/bars.png", groups = { 1 }, { "ours", { 0.5 } } }
    end, "groups expects a list of names; entry 1 is a number")
  end)
end)
