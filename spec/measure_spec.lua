-- The measures of DAVIS: values by hand, by definition, and the official scores of OSVOS's masks.

local lfs = require "lfs"
local cjson = require "cjson"
local pn = require "penumbra"
local helper = require "spec.helper"

local measure, image = pn.measure, pn.image

local function u8(values)
  return pn.tensor(values, { dtype = "u8" })
end

local function random_masks(t, h, w, name)
  local noise = helper.random({ t, h, w }, name, 0, 1)
  local masks = pn.zeros { t, h, w, dtype = "u8" }
  local from, to = noise:data(), masks:data()
  for i = 0, t * h * w - 1 do
    to[i] = from[i] < 0.1 and 1 or from[i] < 0.15 and 2 or 0
  end
  return image.dilate(masks, 2), masks
end

local directory = helper.directory(teardown)

-- Three frames or more: measure.sequence leaves the first and last out, so frame 2 is what `first` and `last` stand around.
local function framed(mask)
  return u8 { mask, mask, mask }
end

describe("J", function()
  it("is the intersection over the union", function()
    local s = measure.sequence(framed { { 1, 1, 0, 0 } }, framed { { 0, 1, 1, 1 } })
    assert.equal(0.25, s.J.mean)
    assert.equal(1, s.frames)
    assert.same({ 0.25 }, s.J.per_frame)
  end)

  it("is told of the annotated frame too, outside the means", function()
    local s = measure.sequence(u8 { { { 1, 1 } }, { { 1, 0 } }, { { 0, 0 } } }, u8 { { { 1, 0 } }, { { 1, 0 } }, { { 1, 1 } } })
    assert.equal(0.5, s.first.J)
    assert.equal(1, s.J.mean)
    assert.equal(1, s.F.mean)
  end)

  it("is 1 where both are empty and 0 where one is", function()
    local none, some = framed { { 0, 0 } }, framed { { 0, 1 } }
    assert.equal(1, measure.sequence(none, none).J.mean)
    assert.equal(0, measure.sequence(some, none).J.mean)
    assert.equal(0, measure.sequence(none, some).J.mean)
    assert.equal(1, measure.sequence(none, none).F.mean)
    assert.equal(0, measure.sequence(some, none).F.mean)
    assert.equal(0, measure.sequence(none, some).F.mean)
  end)

  it("takes any value as object, or one number alone", function()
    local a, b = framed { { 1, 2, 2, 0 } }, framed { { 2, 2, 0, 0 } }
    assert.near(2 / 3, measure.sequence(a, b).J.mean, 1e-12)
    assert.near(1 / 3, measure.sequence(a, b, { object = 2 }).J.mean, 1e-12)
    assert.equal(0, measure.sequence(a, b, { object = 1 }).J.mean)
  end)
end)

describe("F", function()
  -- The definition: boundary maps, each dilated by the disk, share of the other that it covers.
  local function by_definition(mask, truth, r)
    local a, b = image.boundary(mask), image.boundary(truth)
    local near_a, near_b = image.dilate(a, r):flat(), image.dilate(b, r):flat()
    local fa, fb = a:flat(), b:flat()
    local hit_a, hit_b, n_a, n_b = 0, 0, 0, 0
    for i = 1, #fa do
      n_a, n_b = n_a + fa[i], n_b + fb[i]
      hit_a, hit_b = hit_a + fa[i] * near_b[i], hit_b + fb[i] * near_a[i]
    end
    local p, q = hit_a / n_a, hit_b / n_b
    return p + q > 0 and 2 * p * q / (p + q) or 0
  end

  it("is what dilating the boundaries gives", function()
    for _, size in ipairs { { 20, 31 }, { 25, 130 }, { 12, 64 } } do
      local masks, truth = random_masks(4, size[1], size[2], "a" .. size[2]), random_masks(4, size[1], size[2], "b" .. size[2])
      for _, r in ipairs { 1, 2, 5, 40 } do
        local s = measure.sequence(masks, truth, { tolerance = r })
        for i = 1, 2 do
          local expected = by_definition(image.frame(masks, i + 1), image.frame(truth, i + 1), r)
          assert.near(expected, s.F.per_frame[i], 1e-12)
        end
      end
    end
  end)

  it("tolerates 0.8 % of the diagonal, rounded up", function()
    -- A vertical edge moved by d pixels at 480 x 854: within 8 everything agrees, beyond nothing does.
    local function edge(at)
      local masks = pn.zeros { 3, 480, 854, dtype = "u8" }
      local data = masks:data()
      for row = 0, 3 * 480 - 1 do
        for x = 0, at - 1 do
          data[row * 854 + x] = 1
        end
      end
      return masks
    end
    assert.equal(1, measure.sequence(edge(400), edge(408)).F.mean)
    assert.equal(0, measure.sequence(edge(400), edge(409)).F.mean)
    assert.equal(1, measure.sequence(edge(400), edge(409), { tolerance = 9 }).F.mean)
  end)
end)

describe("statistics", function()
  local function of(values)
    -- A frame whose J is k/16: k of the 16 pixels of the truth are hit.
    local masks, truth = { {} }, { {} }
    for x = 1, 16 do
      masks[1][x], truth[1][x] = 0, 1
    end
    masks, truth = { masks }, { truth }
    for i, v in ipairs(values) do
      local row, full = {}, {}
      for x = 1, 16 do
        row[x], full[x] = x <= v * 16 and 1 or 0, 1
      end
      masks[i + 1], truth[i + 1] = { row }, { full }
    end
    masks[#masks + 1], truth[#truth + 1] = masks[1], truth[1]
    return measure.sequence(u8(masks), u8(truth)).J
  end

  it("are mean, recall above 0.5, and decay between the quarters, which share their ends", function()
    local s = of { 1, 0.75, 0.5, 0.25, 0 }
    assert.equal(0.5, s.mean)
    assert.equal(0.4, s.recall) -- 0.5 itself does not count
    assert.equal(0.875 - 0.125, s.decay) -- bins 1..2 and 4..5
    -- n = 10: cuts 1, 3.25, 5.5, 7.75, 10 round to 1, 3, 6, 8, 10
    s = of { 1, 1, 0.5, 0, 0, 0, 0, 0.5, 0.25, 0 }
    assert.near((1 + 1 + 0.5) / 3 - (0.5 + 0.25 + 0) / 3, s.decay, 1e-12)
    -- n = 3: cuts 1, 1.5, 2, 2.5, 3 round to 1, 2, 2, 3, 3 (halves go up)
    assert.near((1 + 0.5) / 2 - 0, of({ 1, 0.5, 0 }).decay, 1e-12)
    assert.equal(0, of({ 0.5 }).decay)
  end)

  it("need a frame between the first and the last", function()
    local two = u8 { { { 1 } }, { { 1 } } }
    helper.failure(function() measure.sequence(two, two) end, "measure.sequence: 2 frames; the first and the last are left out")
    local one = u8 { { { 1 } } }
    helper.failure(function() measure.copied(one) end, "measure.copied: 1 frame; the first and the last are left out")
  end)
end)

it("refuses what does not fit", function()
  local a = pn.zeros { 3, 4, 5, dtype = "u8" }
  helper.failure(function() measure.sequence(a, pn.zeros { 3, 4, 6, dtype = "u8" }) end,
    "the masks are 3 of 4 x 5 (frames of height x width)", "the truth 3 of 4 x 6")
  helper.failure(function() measure.sequence(pn.zeros { 4, 4, 5, dtype = "u8" }, a) end, "the masks are 4 of 4 x 5")
  helper.failure(function() measure.sequence(pn.zeros { 3, 4, 5 }, a) end, "jaccard: expected element type u8, got " .. pn.real)
  helper.failure(function() measure.sequence(pn.zeros { 4, 5, dtype = "u8" }, a) end,
    "jaccard: expected masks (T,H,W), got shape 4,5")
  helper.failure(function() measure.sequence(a, a, { object = 256 }) end, "object is 256, expects a whole number from 1 to 255")
  helper.failure(function() measure.sequence(a, a, { tolerance = -1 }) end, "tolerance must be 0..10000 pixels", "got -1")
  helper.failure(function() measure.sequence(a, a, { tolarance = 3 }) end, "unknown option 'tolarance', did you mean 'tolerance'?")
end)

it("does not depend on the threads, nor on the strides", function()
  local masks, truth = random_masks(9, 60, 70, "m"), random_masks(9, 60, 70, "t")
  local before = pn.threads()
  local results = {}
  for _, n in ipairs { 1, 2, 5 } do
    pn.threads(n)
    local s = measure.sequence(masks, truth)
    results[#results + 1] = { s.J.per_frame, s.F.per_frame }
  end
  pn.threads(before)
  assert.same(results[1], results[2])
  assert.same(results[1], results[3])
  local wide = pn.zeros { 9, 60, 80, dtype = "u8" }
  for t = 1, 9 do
    for y = 1, 60 do
      for x = 1, 70 do
        wide:set(masks:get(t, y, x), t, y, x + 5)
      end
    end
  end
  local s = measure.sequence(wide:slice(3, 6, 70), truth)
  assert.same(results[1], { s.J.per_frame, s.F.per_frame })
end)

it("copies the first mask as the floor", function()
  local truth = random_masks(5, 30, 40, "truth")
  local copies = pn.zeros { 5, 30, 40, dtype = "u8" }
  for t = 1, 5 do
    image.frame(copies, t):copy(image.frame(truth, 1))
  end
  assert.same(measure.sequence(copies, truth), measure.copied(truth))
end)

describe("evaluate", function()
  -- A data set of two sequences of 4 and 3 frames, 6 x 8 pixels, and masks for it.
  local root, masks
  local function mask(shift, id)
    local m = pn.zeros { 6, 8, dtype = "u8" }
    for y = 2, 4 do
      for x = 2 + shift, 4 + shift do
        m:set(id or 1, y, x)
      end
    end
    return m
  end
  local turn = 0
  before_each(function()
    turn = turn + 1
    root, masks = directory .. "/davis" .. turn, directory .. "/masks" .. turn
    os.execute(("mkdir -p '%s'/Annotations/480p/{bird,boat} '%s'/{bird,boat}"):format(root, masks):gsub("^(.*)$", 'bash -c "%1"'))
    for name, n in pairs { bird = 4, boat = 3 } do
      for i = 0, n - 1 do
        image.write(("%s/Annotations/480p/%s/%05d.png"):format(root, name, i), mask(i))
        image.write(("%s/%s/%05d.png"):format(masks, name, i), mask(name == "bird" and i or 1, 1), { palette = name == "bird" })
      end
    end
  end)

  it("scores folders, averages sequences, and writes JSON", function()
    image.write(masks .. "/bird/00002.png", mask(1)) -- one pixel column of three off: J = 6 / 12
    local json = directory .. "/scores.json"
    local result = measure.evaluate { masks = masks, davis = root, json = json }
    assert.same({ "bird", "boat" }, result.order)
    assert.same({ 1, 0.5 }, result.sequences.bird.J.per_frame)
    assert.equal(0.75, result.sequences.bird.J.mean)
    assert.equal(0.5, result.sequences.bird.J.recall)
    assert.equal(1, result.sequences.boat.J.mean)
    assert.equal(0.875, result.mean.J.mean)
    -- the first mask, 1 and 2 columns off in bird, 1 in boat: J = 1/2, 1/5; 1/2
    assert.near((0.5 + 0.2) / 2, result.baseline.sequences.bird.J.mean, 1e-12)
    assert.near(0.5, result.baseline.sequences.boat.J.mean, 1e-12)
    assert.same({}, result.notes)
    local read = cjson.decode(assert(io.open(json)):read "*a")
    assert.same({ "mean", "sequences" }, (function()
      local keys = {}
      for key in pairs(read) do
        keys[#keys + 1] = key
      end
      table.sort(keys)
      return keys
    end)())
    assert.near(0.75, read.sequences.bird.J.mean, 1e-9)
    for _, which in ipairs { "J", "F" } do
      for _, key in ipairs { "mean", "recall", "decay" } do
        assert.near(result.sequences.boat[which][key], read.sequences.boat[which][key], 1e-9)
        assert.near(result.mean[which][key], read.mean[which][key], 1e-9)
      end
      assert.same(result.sequences.bird[which].per_frame, read.sequences.bird[which].per_frame)
    end
    assert.is_nil(lfs.attributes(json .. ".part"))
  end)

  it("writes what was found on first frames, also where nothing was scored", function()
    local result = { order = {}, first_frame = { ["a \"b\""] = { J = 0.5, threshold = 0.75 }, a = { threshold = 0.25 } } }
    local read = cjson.decode(measure.json(result))
    assert.same({ sequences = {}, first_frame = result.first_frame }, read)
    result = measure.evaluate { masks = masks, davis = root }
    result.first_frame = { bird = { J = 1, threshold = 0.5 } }
    read = cjson.decode(measure.json(result))
    assert.same({ 1, 0.5 }, { read.first_frame.bird.J, read.first_frame.bird.threshold })
    assert.equal(result.mean.J.mean, read.mean.J.mean)
  end)

  it("needs only the masks that count, and notes the others", function()
    os.remove(masks .. "/bird/00000.png")
    os.remove(masks .. "/bird/00003.png")
    image.write(masks .. "/bird/00009.png", mask(1))
    lfs.mkdir(masks .. "/frog")
    local result = measure.evaluate { masks = masks, davis = root }
    assert.equal(1, result.mean.J.mean)
    assert.equal(2, #result.notes)
    assert.truthy(result.notes[1]:find("frog", 1, true))
    assert.truthy(result.notes[2]:find("/bird: 1 file not of the sequence, left out: 00009.png", 1, true))
  end)

  it("takes a list, or names with commas between", function()
    assert.same({ "boat" }, measure.evaluate({ masks = masks, davis = root, sequences = { "boat" } }).order)
    assert.same({ "boat", "bird" }, measure.evaluate({ masks = masks, davis = root, sequences = "boat,bird" }).order)
  end)

  it("scores each object by itself when asked", function()
    local both = mask(0, 1)
    both:set(2, 6, 8)
    for i = 0, 2 do
      image.write(("%s/Annotations/480p/boat/%05d.png"):format(root, i), both)
      image.write(("%s/boat/%05d.png"):format(masks, i), mask(0, 1))
    end
    local result = measure.evaluate { masks = masks, davis = root, sequences = "boat", objects = true }
    assert.same({ "boat_1", "boat_2" }, result.order)
    assert.equal(1, result.sequences.boat_1.J.mean)
    assert.equal(0, result.sequences.boat_2.J.mean)
    assert.equal(0.5, result.mean.J.mean)
    assert.near(0.9, measure.evaluate({ masks = masks, davis = root, sequences = "boat" }).mean.J.mean, 1e-12)
  end)

  it("finds truth that lies in Annotations itself", function()
    os.rename(root .. "/Annotations", root .. "/x")
    os.rename(root .. "/x/480p", root .. "/Annotations")
    assert.equal(1, measure.evaluate({ masks = masks, davis = root, sequences = "boat" }).mean.J.mean)
  end)

  it("says what is missing or does not fit, by name", function()
    local function evaluate(more)
      local how = { masks = masks, davis = root }
      for key, value in pairs(more or {}) do
        how[key] = value
      end
      return function() measure.evaluate(how) end
    end
    helper.failure(evaluate { sequences = "bard" }, "no sequence 'bard' in " .. root, "did you mean 'bird'?")
    helper.failure(evaluate { masks = directory .. "/none" }, "masks=" .. directory .. "/none: no such folder")
    helper.failure(evaluate { davis = masks }, masks .. ": no folder Annotations there")
    helper.failure(evaluate { resolution = "1080p" }, "/Annotations: no folder 1080p there")
    helper.failure(evaluate { masks = root }, "no folder there has the name of a sequence")
    helper.failure(evaluate { sequences = 3 }, "sequences expects a list of names, got a number")
    helper.failure(evaluate { json = directory .. "/no/such.json" }, directory .. "/no/such.json: cannot write the scores")
    helper.failure(function() measure.evaluate { masks = masks } end, "davis is missing")
    os.remove(masks .. "/bird/00001.png")
    helper.failure(evaluate(), masks .. "/bird/00001.png: no such mask")
    os.remove(masks .. "/bird/00002.png")
    helper.failure(evaluate(), masks .. "/bird/00001.png: no such mask (2 of 2 are missing)")
    image.write(masks .. "/bird/00001.png", mask(1))
    image.write(masks .. "/bird/00002.png", pn.zeros { 6, 7, dtype = "u8" })
    helper.failure(evaluate(), masks .. "/bird/00002.png is 6 x 7 (height x width)",
      root .. "/Annotations/480p/bird/00002.png is 6 x 8")
    os.execute("rm -r '" .. masks .. "/bird'")
    helper.failure(evaluate { sequences = "bird" }, masks .. "/bird: no such folder; the masks of sequence bird are missing")
    os.remove(root .. "/Annotations/480p/boat/00002.png")
    helper.failure(evaluate { sequences = "boat" }, "/boat: 2 frames; the first and the last are left out")
  end)

  it("prints a table, with the floor and published results beside", function()
    local text = measure.format(measure.evaluate { masks = masks, davis = root })
    assert.truthy(text:find("bird%s+100%.0%s+100%.0%s+0%.0%s+100%.0%s+100%.0%s+0%.0%s+35%.0"))
    assert.truthy(text:find "mean of 2%s+100%.0")
    assert.is_nil(text:find("OSVOS   ", 1, true)) -- nothing published on these sequences,
    assert.is_nil(text:find("OnAVOS", 1, true)) -- whose scores stand beside none of DAVIS
    local result = measure.evaluate { masks = masks, davis = root, sequences = "bird" }
    for _, what in ipairs { result, result.baseline } do
      what.order, what.sequences = { "camel" }, { camel = what.sequences.bird }
    end
    text = measure.format(result)
    assert.truthy(text:find("OnAVOS 86.1 / 84.9", 1, true))
    assert.truthy(text:find("FCN-I3D (the paper) 37.8 / 40.7", 1, true))
    for line in text:gmatch "[^\n]+" do
      assert.is_true(#line <= 120 or line:match "^note" ~= nil, line)
    end
  end)

  it("looks first whether the scores can be written", function()
    local failed = helper.failure(function()
      measure.evaluate { masks = masks, davis = root, sequences = "bird,nothing", json = directory .. "/nosuch/x.json" }
    end, directory .. "/nosuch/x.json: cannot write the scores: No such file or directory")
    assert.is_nil(failed:find("sequence", 1, true))
    helper.failure(function()
      measure.evaluate { masks = masks, davis = root, sequences = "nothing", json = directory .. "/x.json" }
    end, "no sequence 'nothing'")
    for name in require("lfs").dir(directory) do assert.is_nil(name:match "^x%.json") end
  end)

  it("is behind the program's door", function()
    local json = directory .. "/door.json"
    local command = ("build/penumbra evaluate '%s' davis='%s' sequences=bird,boat json='%s' >'%s/door.txt' 2>&1"):format(masks,
      root,
      json, directory)
    assert.equal(0, os.execute(command))
    assert.equal(1, cjson.decode(assert(io.open(json)):read "*a").sequences.boat.J.mean)
    assert.truthy(assert(io.open(directory .. "/door.txt")):read("*a"):find "boat%s+100%.0")
  end)
end)

it("equals the official scores of OSVOS to 1e-6", function()
  local scores, truth = helper.shared "reference/davis/expected_scores.csv", helper.shared "davis2016"
  if not scores or not truth then
    pending "no ../shared/reference/davis or ../shared/davis2016"
    return
  end
  local result = measure.evaluate { masks = "../shared/reference/davis/osvos_2017_masks", davis = truth }
  local n = 0
  for line in io.lines(scores) do
    local fields = {}
    for field in line:gmatch "[^,]+" do
      fields[#fields + 1] = field
    end
    if fields[1] ~= "sequence" then
      local s = result.sequences[fields[1]]
      n = n + 1
      for i, key in ipairs { "mean", "recall", "decay" } do
        assert.near(tonumber(fields[1 + i]), s.J[key], 1e-6, fields[1] .. " J " .. key)
        assert.near(tonumber(fields[4 + i]), s.F[key], 1e-6, fields[1] .. " F " .. key)
      end
    end
  end
  assert.equal(10, n)
  assert.equal(10, #result.order)
end)

it("prints published scores that agree with their own means", function()
  local published = require "penumbra.measure.published"
  local sums, n = { 0, 0, 0, 0 }, 0
  for _, row in pairs(published.per_sequence) do
    n = n + 1
    for i = 1, 4 do
      sums[i] = sums[i] + row[i]
    end
  end
  assert.equal(20, n)
  for m, method in ipairs(published.methods) do
    for _, row in ipairs(published.means) do
      if row[1] == method then
        assert.near(row[2], sums[2 * m - 1] / n, 0.0006)
        assert.near(row[3], sums[2 * m] / n, 0.0006)
      end
    end
  end
end)
