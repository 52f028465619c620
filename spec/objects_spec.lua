--- objects_spec: a recipe on every object of the first mask: whose a pixel is, the files, going on, and what is refused.
local pn = require "penumbra"
local files = require "penumbra.base.files"
local recipe = require "spec.recipe"

local here = recipe.on "/nowhere" -- on the CPU
local scratch, tree, run = here.scratch, here.tree, here.run
local json = recipe.json
local image = pn.image

-- A recipe that finds each object grown by 4 pixels and is as sure of it as `sure` says.
local guess = [[
local pn = require "penumbra"
local cfg = pn.config{
  davis = "davis2016", sequence = "walk", video = pn.config.optional "", mask = pn.config.optional "", object = 0, seed = 1,
  infer = pn.infer.defaults, sure = { 100, 0, 200 }, writes = true,
}
local clip = pn.data.clip(cfg)
local run = pn.run(cfg)
local masks, probabilities = pn.zeros { 6, 48, 64, dtype = "u8" }, pn.zeros { 6, 48, 64, dtype = "u8" }
for i = 1, 6 do
  local grown = pn.image.dilate(clip:mask(i), 4)
  pn.image.frame(masks, i):copy(grown)
  for p = 0, grown:count() - 1 do
    pn.image.frame(probabilities, i):data()[p] = grown:data()[p] * cfg.sure[cfg.object]
  end
end
assert(cfg.infer.probabilities, "nobody asked for probabilities")
run:finish(masks, clip, cfg.writes and probabilities or nil)
]]

local function mask_path(root, i) return ("%s/Annotations/480p/walk/%05d.png"):format(root, i - 1) end

-- The left half of the creature is object 1, the right one object 3.
local function part(root)
  for i = 1, 6 do
    local mask = image.read_mask(mask_path(root, i))
    local box, data = image.box(mask), mask:data()
    for p = 0, mask:count() - 1 do
      if data[p] ~= 0 then data[p] = p % 64 < box[2] - 1 + box[4] / 2 and 1 or 3 end
    end
    image.write(mask_path(root, i), mask)
  end
end

describe("objects", function()
  local guess_path = scratch .. "/guess.lua"
  local function objects(out, ...) return run("objects", guess_path, "davis=" .. tree, "out=" .. out, ...) end

  setup(function()
    pn.data.toy.write(tree, { sequences = { "walk" }, frames = 6, height = 48, width = 64 })
    part(tree)
    assert.is_nil(files.write(guess_path, guess))
  end)
  teardown(function() files.remove(scratch) end)

  it("gives a pixel to the object that is surest of it, and scores each", function()
    local out = scratch .. "/two"
    local code, text = objects(out)
    assert.equal(0, code, text)
    for _, line in ipairs { "[1 of 2] object 1 of walk", "[2 of 2] object 3 of walk", "mean of 2",
      "certainty " .. out .. "/walk_3/probabilities/walk" } do
      assert.truthy(text:find(line, 1, true), text)
    end
    local both = 0
    for i = 1, 6 do
      local truth, found = image.read_mask(mask_path(tree, i)), image.read_mask(("%s/masks/walk/%05d.png"):format(out, i - 1))
      local one, three = image.dilate(image.select(truth, 1), 4), image.dilate(image.select(truth, 3), 4)
      for p = 0, truth:count() - 1 do
        local a, b = one:data()[p], three:data()[p]
        both = both + a * b
        assert.equal(b == 1 and 3 or a, found:data()[p])
      end
    end
    assert.is_true(both > 100) -- they did overlap
    local scores = json(out .. "/scores.json")
    here.succeeds("evaluate", out .. "/masks", "davis=" .. tree, "objects=true", "json=" .. scratch .. "/evaluated.json")
    assert.same(json(scratch .. "/evaluated.json"), scores)
    assert.is_true(scores.sequences.walk_3.J.mean > scores.sequences.walk_1.J.mean)
    local page = files.read(out .. "/report.html")
    assert.truthy(page:find('<a href="walk_3/report.html">walk_3</a>', 1, true))
    assert.equal(3, json(out .. "/walk_3/config.json").object)
    assert.is_nil(json(out .. "/config.json").object)
    local other = scratch .. "/other"
    code, text = objects(other, "sure=200,0,100", "objects=3,1")
    assert.equal(0, code, text)
    assert.is_true(json(other .. "/scores.json").sequences.walk_1.J.mean > scores.sequences.walk_1.J.mean)
  end)

  it("names an object that fails, goes on with the others, and tries it again", function()
    local out = scratch .. "/failing"
    local broken = guess:gsub("local masks", 'if cfg.object == 1 then error("broken by hand", 0) end\n%0', 1)
    assert.is_nil(files.write(scratch .. "/once.lua", broken))
    local words = { "objects", scratch .. "/once.lua", "davis=" .. tree, "out=" .. out }
    local code, text = run(unpack(words))
    assert.equal(1, code, text)
    assert.truthy(text:find("object 1: failed: broken by hand", 1, true), text)
    assert.truthy(text:find("1 of 2 objects failed: 1; the same command with out=" .. out .. " tries them again", 1, true), text)
    assert.is_false(files.exists(out .. "/masks", "directory"))
    assert.is_nil(files.write(scratch .. "/once.lua", guess))
    code, text = run(unpack(words))
    assert.equal(0, code, text)
    assert.truthy(text:find("object 3 of walk: done before", 1, true), text)
    assert.truthy(files.exists(out .. "/masks/walk/00005.png"))
  end)

  it("says what a recipe did not write", function()
    local out = scratch .. "/silent"
    local code, text = objects(out, "writes=false", "objects=3")
    assert.equal(1, code, text)
    assert.truthy(text:find("object 3: failed: " .. out .. "/walk_3/probabilities/walk/00000.png: the recipe did not write it; "
      .. "run:finish(masks, clip, probabilities) does", 1, true), text)
  end)

  it("follows the objects of one's own frames, which have no masks to score against", function()
    local out = scratch .. "/own"
    local words = { "objects", "oneshot", "video=" .. tree .. "/JPEGImages/480p/walk", "mask=" .. mask_path(tree, 1) }
    words[#words + 1] = "out=" .. out
    for _, word in ipairs(recipe.small) do words[#words + 1] = word end
    local code, text = run(unpack(words))
    assert.equal(0, code, text)
    local left = { "masks/walk/00005.png", "walk_1/checkpoint.safetensors", "walk_3/probabilities/walk/00000.png",
      "report.html" }
    for _, file in ipairs(left) do
      assert.truthy(files.exists(out .. "/" .. file), file)
    end
    assert.is_false(files.exists(out .. "/scores.json"))
  end)

  it("refuses what it cannot do before anything runs", function()
    local out = scratch .. "/refused"
    for words, message in pairs {
      ["objects=1,2"] = "objects: walk has no object '2' in its first mask (there: 1, 3)",
      ["objects=x"] = "objects: walk has no object 'x' in its first mask (there: 1, 3)",
      ["object=1"] = "objects: object= is not given here: objects=1,2 names those to follow",
      ["resume=out/run"] = "objects: resume= is not given here: the same out= goes on",
      ["sequence=wolk"] = "wolk",
    } do
      local code, text = objects(out, words)
      assert.is_true(code ~= 0, text)
      assert.truthy(text:find(message, 1, true), text)
    end
    local code, text = run("objects", "evaluate", "out=" .. out)
    assert.equal(2, code, text)
    assert.truthy(text:find("has no key 'object': it cannot be run on the objects of a mask", 1, true), text)
    local grey = pn.zeros { 48, 64, dtype = "u8" }
    for i = 0, 59 do grey:data()[i * 48] = 4 * i end
    image.write(scratch .. "/grey.png", grey, { palette = false })
    code, text = run("objects", "oneshot", "video=" .. tree .. "/JPEGImages/480p/walk", "mask=" .. scratch .. "/grey.png",
      "out=" .. out)
    assert.equal(2, code, text)
    assert.truthy(text:find("objects: the first mask of walk has 59 values (4, 8, 12, 16, 20, 24, 28, 32, 36, 40, ...): are these "
      .. "the grey edges of a drawing? objects=1,2 names those to follow", 1, true), text)
    assert.is_false(files.exists(out, "directory"))
    code, text = run "objects"
    assert.equal(2, code, text)
    assert.truthy(text:find("usage: penumbra objects RECIPE", 1, true), text)
  end)
end)
