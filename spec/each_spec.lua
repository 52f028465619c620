--- each_spec: a recipe on every sequence of a set: the table, going on, failures, and what is refused before anything runs.
local lfs = require "lfs"
local pn = require "penumbra"
local files = require "penumbra.base.files"
local recipe = require "spec.recipe"

local here = recipe.on "/nowhere" -- on the CPU
local scratch, tree, run = here.scratch, here.tree, here.run
local json = recipe.json

-- A small oneshot on each sequence; more words follow.
local function each(out, ...)
  local words = { "each", "oneshot", "davis=" .. tree, "out=" .. out }
  for _, list in ipairs { recipe.small, { ... } } do
    for _, word in ipairs(list) do words[#words + 1] = word end
  end
  return run(unpack(words))
end

describe("each", function()
  setup(function()
    pn.data.toy.write(tree, { sequences = { "walk", "stroll", "amble" }, frames = 6, height = 48, width = 64 })
  end)
  teardown(function() files.remove(scratch) end)

  it("runs a recipe on every sequence, as one by one, and makes one table", function()
    local out, alone = scratch .. "/each", scratch .. "/alone"
    local code, text = each(out, "infer.probabilities=true")
    assert.equal(0, code, text)
    for _, line in ipairs { "[1 of 3] walk", "[3 of 3] amble", "mean of 3", "3 sequences in 0:" } do
      assert.truthy(text:find(line, 1, true), text)
    end
    local all = json(out .. "/scores.json")
    here.succeeds(unpack(here.oneshot(alone, "sequence=stroll")))
    local one = json(alone .. "/scores.json")
    assert.same(one.sequences.stroll, all.sequences.stroll)
    assert.same(one, json(out .. "/stroll/scores.json"))
    assert.truthy(one.first_frame.stroll.threshold)
    local sum = 0
    for _, name in ipairs { "walk", "stroll", "amble" } do
      sum = sum + all.sequences[name].J.mean
      assert.truthy(text:find(("%s: J %.1f  F %.1f"):format(name, 100 * all.sequences[name].J.mean,
        100 * all.sequences[name].F.mean), 1, true), text)
      for _, file in ipairs { "checkpoint.safetensors", "report.html", "masks/" .. name .. "/00005.png",
        "probabilities/" .. name .. "/00005.png" } do
        assert.truthy(files.exists(("%s/%s/%s"):format(out, name, file)), file)
      end
    end
    assert.is_true(math.abs(sum / 3 - all.mean.J.mean) < 1e-6)
    -- The masks lie together as the measure wants them, and say the same.
    here.succeeds("evaluate", out .. "/masks", "davis=" .. tree, "json=" .. scratch .. "/evaluated.json")
    assert.same(all, json(scratch .. "/evaluated.json"))
    local page = files.read(out .. "/report.html")
    local parts = { '<a href="stroll/report.html">stroll</a>', "<h2>amble</h2>", "<code>epochs</code>",
      ("penumbra each oneshot davis=%s out=%s "):format(tree, out) }
    for _, part in ipairs(parts) do
      assert.truthy(page:find(part, 1, true), part)
    end
    assert.equal("oneshot", json(out .. "/config.json").recipe)
    assert.equal("stroll", json(out .. "/stroll/config.json").sequence)
  end)

  it("goes on where it was: what is done stays, what was begun goes on, another sequence joins", function()
    local out = scratch .. "/more"
    local code, text = each(out, "sequences=stroll")
    assert.equal(0, code, text)
    local before = lfs.attributes(out .. "/stroll/checkpoint.safetensors", "modification")
    here.succeeds(unpack(here.oneshot(out .. "/amble", "sequence=amble"))) -- learnt, but its scores are lost
    os.remove(out .. "/amble/scores.json")
    code, text = each(out, "sequences=walk,stroll,amble", "threads=1")
    assert.equal(0, code, text)
    assert.truthy(text:find("[2 of 3] stroll: done before, J ", 1, true), text)
    assert.truthy(text:find("going on after epoch 2 in " .. out .. "/amble", 1, true), text)
    assert.truthy(text:find("2 sequences in ", 1, true), text)
    assert.equal(before, lfs.attributes(out .. "/stroll/checkpoint.safetensors", "modification"))
    local n = 0
    for _ in pairs(json(out .. "/scores.json").sequences) do n = n + 1 end
    assert.equal(3, n)
  end)

  it("refuses other keys in a directory that holds runs", function()
    local out = scratch .. "/other"
    assert.equal(0, (each(out, "sequences=walk")))
    local code, text = each(out, "sequences=stroll", "optim.lr=0.5")
    assert.equal(2, code, text)
    assert.truthy(text:find(out .. " holds runs with other keys (optim.lr: 0.5, was 0.0001): choose another out=", 1, true), text)
    assert.is_false(files.exists(out .. "/stroll", "directory"))
  end)

  it("names a sequence that fails, goes on with the others, and tries it again", function()
    local broken = scratch .. "/broken"
    pn.data.toy.write(broken, { sequences = { "walk", "stroll" }, frames = 6, height = 48, width = 64 })
    local frame = broken .. "/JPEGImages/480p/walk/00003.jpg"
    local bytes = files.read(frame)
    assert.is_nil(files.write(frame, bytes:sub(1, #bytes / 2)))
    local out = scratch .. "/failing"
    local code, text = each(out, "davis=" .. broken) -- what shows when it is opened shows before anything runs
    assert.equal(1, code, text)
    assert.truthy(text:find("walk/00003.jpg: the file is cut off", 1, true), text)
    assert.is_false(files.exists(out, "directory"))
    assert.is_nil(files.write(frame, (bytes:gsub("\255\196", "\255\254")))) -- without its tables
    code, text = each(out, "davis=" .. broken)
    assert.equal(1, code, text)
    assert.truthy(text:find("walk: failed: ", 1, true), text)
    local last = "1 of 2 sequences failed: walk; the same command with out=" .. out .. " tries them again"
    assert.truthy(text:find(last, 1, true), text)
    local scores = json(out .. "/scores.json").sequences
    assert.truthy(scores.stroll)
    assert.is_nil(scores.walk)
    assert.is_nil(files.write(frame, bytes))
    code, text = each(out, "davis=" .. broken)
    assert.equal(0, code, text)
    assert.truthy(text:find("stroll: done before", 1, true), text)
    assert.truthy(json(out .. "/scores.json").sequences.walk)
  end)

  it("names a sequence whose masks a worker could not write", function()
    local out = scratch .. "/unwritable"
    assert.is_nil(files.make_directory(out .. "/walk"))
    assert.is_nil(files.write(out .. "/walk/masks", "in the way"))
    local code, text = each(out, "sequences=walk,stroll")
    assert.equal(1, code, text)
    assert.truthy(text:find("walk: failed: ", 1, true), text)
    assert.truthy(text:find("it is a file", 1, true), text)
    assert.truthy(json(out .. "/scores.json").sequences.stroll)
  end)

  it("tells what has no masks to score against", function()
    local bare = scratch .. "/bare"
    pn.data.toy.write(bare, { sequences = { "walk" }, frames = 6, height = 48, width = 64 })
    os.remove(bare .. "/Annotations/480p/walk/00003.png")
    local out = scratch .. "/unscored"
    local code, text = each(out, "davis=" .. bare)
    assert.equal(0, code, text)
    assert.truthy(text:find("walk: frame 4 has no mask: nothing to score against", 1, true), text)
    assert.is_false(files.exists(out .. "/scores.json"))
    assert.truthy(files.exists(out .. "/masks/walk/00005.png"))
  end)

  it("scores the object that is asked for, also beside its first mask, and what was done before", function()
    local pair, out = scratch .. "/pair", scratch .. "/object"
    pn.data.toy.write(pair, { sequences = { "walk" }, frames = 6, height = 48, width = 64 })
    for i, path in ipairs(pn.image.files(pair .. "/Annotations/480p/walk")) do
      local mask = pn.image.read_mask(path)
      for x = 1, 6 do mask:set(2, i, x + i) end
      pn.image.write(path, mask)
    end
    local rows = {}
    for k = 1, 2 do
      local code, text = each(out, "davis=" .. pair, "object=2")
      assert.equal(0, code, text)
      assert.equal(k == 1, text:find("done before", 1, true) == nil)
      rows[k] = files.read(out .. "/report.html"):match "report.html\">walk</a>([^\n]*)"
    end
    assert.truthy(rows[1])
    assert.equal(rows[1], rows[2])
  end)

  it("stops at Ctrl-C with what is done", function()
    local out = scratch .. "/stopped"
    assert.is_nil(files.write(scratch .. "/stop.lua",
      'return {\n  side_weight = function(epoch) if epoch == 3 then io.popen("kill -INT $PPID"):close() end return 1 end,\n}\n'))
    local code, text = each(out, "sequences=walk,stroll", "epochs=1000000", "config=" .. scratch .. "/stop.lua")
    assert.equal(130, code, text)
    assert.truthy(text:find("stopped after epoch 3", 1, true), text)
    assert.truthy(text:find("go on with the same command and out=" .. out, 1, true), text)
    assert.truthy(files.exists(out .. "/walk/checkpoint.safetensors"))
    assert.is_false(files.exists(out .. "/stroll", "directory"))
  end)

  it("says what is wrong before anything runs", function()
    local unlisted = scratch .. "/unlisted"
    pn.data.toy.write(unlisted, { sequences = { "walk" }, frames = 3, height = 48, width = 64 })
    for _, folder in ipairs { "480p", "2016" } do
      assert.is_nil(files.write(("%s/ImageSets/%s/val.txt"):format(unlisted, folder), "walk\nstroll\namble\n"))
    end
    local out = "out=" .. scratch .. "/nothing"
    local davis = "davis=" .. tree
    for _, case in ipairs {
      { 2, "usage: penumbra each RECIPE" },
      { 0, "set=val", "--help" },
      { 2, "each: the first word is a recipe or FILE.lua, got 'set=val'", "set=val" },
      { 2, "the nearest is 'oneshot'", "oneshott" },
      { 2, "recipes/parent.lua has no key 'sequence': it cannot be run on the sequences of a set", "parent", davis, out },
      { 2, "each: sequence= is not given here: sequences=a,b or set=NAME", "oneshot", davis, out, "sequence=walk" },
      { 2, "each: resume= is not given here: the same out= goes on", "oneshot", davis, "resume=x" },
      { 2, "each: video= is one clip, not the sequences of a set: penumbra oneshot video=x.mp4", "oneshot", davis, "video=x.mp4" },
      { 2, "unknown key 'epochz': the nearest is 'epochs'", "oneshot", davis, out, "epochz=3" },
      { 1, "has no set 'vall', did you mean 'val'?", "oneshot", davis, out, "set=vall" },
      { 1, "has no sequence 'wakl', did you mean 'walk'?", "oneshot", davis, out, "sequences=stroll,wakl" },
      { 2, "has 1 of the 3 sequences of set val; missing: stroll, amble. sequences=a,b names those to run", "oneshot",
        "davis=" .. unlisted, out },
      { 2, "out: /proc/nothing: cannot make the directory", "oneshot", davis, "out=/proc/nothing" },
    } do
      local code, text = run("each", unpack(case, 3))
      assert.equal(case[1], code, text)
      assert.truthy(text:find(case[2], 1, true), text)
    end
    assert.is_false(files.exists(scratch .. "/nothing", "directory"))
  end)
end)
