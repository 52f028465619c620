local files = require "penumbra.base.files"
local lfs = require "lfs"
local pn = require "penumbra"
local helper = require "spec.helper"

-- Every recipe on a painted clip, two steps each, through the program as a user calls it.
local recipe = require "spec.recipe"
local here = recipe.on "/nowhere" -- on the CPU, whatever card there is; spec/gpu/recipes_spec.lua has the devices
local scratch, tree, run, succeeds, oneshot = here.scratch, here.tree, here.run, here.succeeds, here.oneshot
local json, log_lines = recipe.json, recipe.log_lines

describe("recipes", function()
  setup(function()
    pn.data.toy.write(tree, { sequences = { "walk", "stroll" }, frames = 6, height = 48, width = 64 })
  end)
  teardown(function()
    files.remove(scratch)
  end)

  it("oneshot trains, segments every frame, scores, and leaves a run to look at", function()
    local out = scratch .. "/oneshot"
    local text = succeeds(unpack(oneshot(out)))
    local lines = log_lines(out)
    assert.equal(2, #lines)
    assert.is_true(lines[2].loss > 0 and lines[2].fused_loss > 0)
    local masks = pn.image.files(out .. "/masks/walk", "png")
    assert.equal(6, #masks)
    local scores = json(out .. "/scores.json")
    assert.is_true(scores.sequences.walk.J.mean >= 0 and scores.mean.F.mean <= 1)
    assert.same({ 4, 4 }, { #scores.sequences.walk.J.per_frame, #scores.sequences.walk.F.per_frame })
    local first = scores.first_frame.walk
    assert.truthy(text:find(("frame 1   J %.1f at threshold %.2f"):format(100 * first.J, first.threshold), 1, true), text)
    for _, name in ipairs { "config.json", "run.json", "checkpoint.safetensors", "loss.png", "report.html", "source/oneshot.lua",
      "source/models/fcn_i3d.lua" } do
      assert.equal("file", lfs.attributes(out .. "/" .. name, "mode"), name)
    end
  end)

  it("a profile of oneshot adds up to its turns, and its trace is JSON", function()
    local out, trace = scratch .. "/profile.txt", scratch .. "/trace.json"
    local words = { "profile" }
    for i, word in ipairs(oneshot(out)) do
      if i ~= 4 then -- the run directory is the profile's own
        words[#words + 1] = word
      end
    end
    for _, word in ipairs { "steps=2", "warm=1", "epochs=9", "crop=64", "trace=" .. trace } do
      words[#words + 1] = word
    end
    local text = succeeds(unpack(words))
    local turn = tonumber(text:match "2 turns, ([%d.]+) ms each")
    local inside, outside = text:match "([%d.]+) ms in operations, ([%d.]+) ms outside"
    assert.is_true(math.abs(inside + outside - turn) < 0.151, text) -- three figures, rounded to 0.1 ms
    for _, word in ipairs { "conv3d.backward", "fcn_i3d.conv3d_1a.conv", "(loop)", "(turn)", "(batch)", "(adam)", "GFLOP/s" } do
      assert.truthy(text:find(word, 1, true), word)
    end
    local turns, inside_turns, loop, dir = 0, 0, nil, text:match "run in (%S+)"
    for _, e in ipairs(json(trace).traceEvents) do
      if e.name == "turn" then turns, inside_turns = turns + 1, inside_turns + e.dur end
      if e.name == "loop" then loop = e.dur end
    end
    assert.equal(2, turns)
    assert.is_true(math.abs(loop / 2e3 - turn) < 0.051 and inside_turns <= loop, text)
    assert.is_nil(lfs.attributes(dir))
  end)

  it("a profile says what is wrong", function()
    local trace = "trace=" .. scratch .. "/t.json"
    for _, case in ipairs {
      { 2, "usage: penumbra profile RECIPE" },
      { 0, "steps=5", "--help" },
      { 2, "profile: the first word is a recipe or FILE.lua, got 'steps=3'", "steps=3" },
      { 2, "the nearest is 'oneshot'", "oneshott" },
      { 2, "no file 'none.lua'", "none.lua" },
      { 2, "profile: steps is '0', expects a whole number from 1", "oneshot", "steps=0" },
      { 2, "profile: warm is 'x', expects a whole number from 0", "oneshot", "warm=x" },
      { 2, "profile: trace: cannot write /nowhere/t.json", "oneshot", "trace=/nowhere/t.json" },
      { 2, "unknown key 'epochz': the nearest is 'epochs'", "oneshot", "epochz=3", trace },
    } do
      local code, text = run("profile", unpack(case, 3))
      assert.equal(case[1], code, text)
      assert.truthy(text:find(case[2], 1, true), text)
    end
    local words = oneshot(scratch .. "/short", "warm=5", trace)
    local code, text = run("profile", unpack(words))
    assert.equal(1, code, text)
    assert.truthy(text:find("the loop ended after 2 turn(s), all of them warm-up (warm=5)", 1, true), text)
    assert.is_nil(lfs.attributes(scratch .. "/t.json"))
    -- A script without a loop is recorded as a whole.
    local script = scratch .. "/plain.lua"
    local file = assert(io.open(script, "w"))
    file:write 'local pn = require "penumbra"; pn.config{}; pn.exp(pn.ones { 1000 })'
    file:close()
    text = succeeds("profile", script, trace)
    assert.truthy(text:find("the whole run (it has no loop)", 1, true), text)
    assert.truthy(text:find("exp.forward", 1, true), text)
  end)

  it("oneshot in bf16 says so, or says why it stays in f32", function()
    local out = scratch .. "/oneshot-bf16"
    local text = succeeds(unpack(oneshot(out, "precision=bf16")))
    local precision = json(out .. "/run.json").sessions[1].precision
    if precision == "f32" then assert.matches("precision: bf16 wants a CPU with AVX%-512%-BF16 or AMX", text)
    else assert.equal("bf16", precision) end
    assert.equal(2, #log_lines(out))
    local code, message = run("oneshot", "precision=f8")
    assert.equal(2, code)
    assert.matches("precision: expects one of f32, tf32, bf16, fp16, got 'f8'", message)
  end)

  it("oneshot that was stopped goes on as if it had not been, bit for bit", function()
    local straight, halting = scratch .. "/straight", scratch .. "/halting"
    succeeds(unpack(oneshot(straight, "epochs=4")))
    local falling = "function(epoch) return 1 - epoch / 4 end"
    local weight, balance = "side_weight=" .. falling, "balance=" .. falling
    succeeds(unpack(oneshot(halting, "epochs=2", weight, balance)))
    local words = oneshot(halting, "epochs=4", weight, balance)
    succeeds(unpack(words))
    local a = pn.formats.load(straight .. "/checkpoint.safetensors")
    local b = pn.formats.load(halting .. "/checkpoint.safetensors")
    local n = 0
    for name, t in pairs(a) do
      helper.assert_same_bits(t, b[name], name)
      n = n + 1
    end
    assert.is_true(n > 100)
  end)

  it("says what is wrong with resume= before it opens the data set", function()
    local at = scratch .. "/oneshot"
    local code, text = run("oneshot", "resume=" .. scratch .. "/nothing")
    assert.same({ 2, ("penumbra: resume: there is no %s/nothing/checkpoint.safetensors\n"):format(scratch) }, { code, text })
    code, text = run("quickstart", "resume=" .. at)
    assert.same({ 2, ("penumbra: resume: %s/checkpoint.safetensors: belongs to the recipe 'oneshot', this is 'quickstart': "
      .. "penumbra oneshot resume=%s goes on with it\n"):format(at, at) }, { code, text })
    assert.truthy(succeeds("oneshot", "resume=" .. scratch .. "/nothing", "--help"):find("usage: penumbra oneshot", 1, true))
  end)

  it("oneshot leaves nothing behind where its sequence is misspelt", function()
    local out = scratch .. "/misspelt"
    local code, text = run(unpack(oneshot(out, "sequence=wakl")))
    assert.equal(1, code)
    assert.truthy(text:find("has no sequence 'wakl', did you mean 'walk'?", 1, true), text)
    assert.is_false(files.exists(out, "directory"))
  end)

  it("oneshot says what is wrong with infer before it trains", function()
    local out = scratch .. "/infer"
    local code, text = run(unpack(oneshot(out, "infer.slow=0")))
    assert.equal(1, code)
    assert.truthy(text:find("infer: slow is 0, expects a whole number from 1", 1, true), text)
    assert.is_false(files.exists(out, "directory"))
  end)

  it("oneshot and parent refuse what makes no sense before there is a run", function()
    local out = scratch .. "/senseless"
    for _, case in ipairs {
      { "width=0", "width: expects a number from 0.001, got 0" }, { "width=-1", "width: expects a number from 0.001, got -1" },
      { "crop=0", "crop: expects a whole number from 1, got 0" }, { "crop=1.5", "crop: expects a whole number from 1, got 1.5" },
      { "epochs=inf", "epochs: expects a whole number from 0, got inf" }, { "skips=1a,1a", "fcn_i3d: skips has '1a' twice" },
      { "frames=0", "frames: expects a whole number from 1, got 0" }, { "batch=0", "batch: expects a whole number from 1, got 0" },
      { "checkpoint_every=1.5", "checkpoint_every: expects a whole number from 0, got 1.5" },
      { "crop=10000", "crop is 10000, larger than the frame (48 x 64, height x width): expects no more than 64", oneshot = true },
      { "mine_every=1.5", "mine_every: expects a whole number from 0, got 1.5", oneshot = true },
      { "infer.threshold=-1", "infer: threshold is -1, expects 0 to 1", oneshot = true },
      { "infer.downscale=3", "infer: downscale is 3, expects a power of 2", oneshot = true },
    } do
      local code, text = run(unpack(oneshot(out, case[1])))
      assert.is_true(code ~= 0 and text:find(case[2], 1, true) ~= nil, text)
      if not case.oneshot then
        code, text = run("parent", "davis=" .. tree, "sequences=walk", "weights=", "out=" .. out, case[1])
        assert.is_true(code ~= 0 and text:find(case[2], 1, true) ~= nil, text)
      end
    end
    assert.is_false(files.exists(out, "directory"))
  end)

  it("recipes tell what is wrong with their network, weights and set before there is a run", function()
    local out = scratch .. "/deep/nowhere"
    assert.is_nil(files.write(scratch .. "/corrupt.safetensors", "nonsense"))
    pn.save(scratch .. "/other.safetensors", { ["head.weight"] = pn.zeros { 1 } })
    local parent = { "parent", "davis=" .. tree, "weights=", "out=" .. out }
    for _, case in ipairs {
      { "fcn_i3d: skips is '9z'", "quickstart", "out=" .. out, "skips=1a,9z" },
      { "fcn_i3d: batchnorm is 'instance'", "quickstart", "out=" .. out, "batchnorm=instance" },
      { "crop is 10000, larger than the frame (240 x 426, height x width)", "quickstart", "out=" .. out, "crop=10000" },
      { "optim.lr is -1", "quickstart", "out=" .. out, "optim.lr=-1" },
      { "has no set 'trian'", parent[1], parent[2], parent[3], parent[4], "set=trian" },
      { "weights: there is no " .. scratch .. "/none", unpack(oneshot(out, "weights=" .. scratch .. "/none")) },
      { "corrupt.safetensors", unpack(oneshot(out, "weights=" .. scratch .. "/corrupt.safetensors")) },
      { "other.safetensors: none of its 1 tensors is named as in I3D", unpack(oneshot(out,
        "weights=" .. scratch .. "/other.safetensors")) },
    } do
      local code, text = run(unpack(case, 2))
      assert.equal(1, code, text)
      assert.truthy(text:find(case[1], 1, true), text)
      assert.is_nil(text:find("run in", 1, true), text)
      assert.is_false(files.exists(scratch .. "/deep", "directory"))
    end
  end)

  it("oneshot names the key whose function gives no number", function()
    local out = scratch .. "/no-number"
    for key, said in pairs { side_weight = "nothing", balance = "nothing", lr_scale = "'x'" } do
      local text = said == "nothing" and "function() return nil end" or "function() return 'x' end"
      local code, message = run(unpack(oneshot(out, ("%s=%s"):format(key, text))))
      assert.equal(1, code)
      assert.truthy(message:find(("%s: its function gave %s at (1, 2), expects a number\n"):format(key, said), 1, true), message)
      assert.is_false(files.exists(out, "directory"))
    end
  end)

  it("a run whose script fails before anything is done leaves no folder", function()
    local path = scratch .. "/failing.lua"
    local function fails(text, out)
      files.write(path, 'local pn = require "penumbra"\nlocal run = pn.run(pn.config{})\n' .. text)
      local code, said = run(path, "out=" .. out)
      assert.equal(1, code, said)
      assert.truthy(said:find("failing.lua:%d: boo\n"), said)
    end
    fails("for _ in run:epochs(3) do error 'boo' end", scratch .. "/fail/a/b")
    assert.is_false(files.exists(scratch .. "/fail", "directory"))
    files.make_directory(scratch .. "/fail/a")
    fails("error 'boo'", scratch .. "/fail/a/b")
    assert.is_false(files.exists(scratch .. "/fail/a/b", "directory"))
    assert.is_true(files.exists(scratch .. "/fail/a", "directory")) -- it was there
    fails("error 'boo'", scratch .. "/fail/a")
    assert.is_true(files.exists(scratch .. "/fail/a/run.json"))
    fails("for epoch in run:epochs(3) do if epoch == 2 then error 'boo' end end", scratch .. "/fail/c") -- a turn is done
    assert.is_true(files.exists(scratch .. "/fail/c/config.json"))
    fails("io.open(run.dir .. '/mine', 'w'):close() error 'boo'", scratch .. "/fail/d")
    assert.is_true(files.exists(scratch .. "/fail/d/mine"))
  end)

  it("segment takes the checkpoint in the folder of a run, and says what does not fit its model", function()
    local frames, at, out = tree .. "/JPEGImages/480p/walk", scratch .. "/oneshot", scratch .. "/segment/new"
    local keys = { "infer.frames=4", "infer.stride=4", "out=" .. out }
    local function fails(expected, ...)
      local words = { "segment", frames, ... }
      for _, key in ipairs(keys) do words[#words + 1] = key end
      local code, text = run(unpack(words))
      assert.equal(1, code, text)
      assert.truthy(text:find(expected, 1, true), text)
      assert.is_false(files.exists(scratch .. "/segment", "directory"))
    end
    local function model(name, text)
      files.write(("%s/%s.lua"):format(scratch, name), 'local nn = require("penumbra").nn\n' .. text)
      return ("model=%s/%s.lua"):format(scratch, name)
    end
    local layer = "nn.conv3d { from = 3, to = 1, kernel = 1 }"
    local checkpoint = ("checkpoint=%s/checkpoint.safetensors"):format(at)
    local small = model("small", ("local Small = nn.class 'small'\nfunction Small:new(o) self.head = %s end\n"
      .. "function Small:logits(x) return self.head(x) end\nreturn function(cfg) return Small(cfg) end"):format(layer))
    local another = ("checkpoint.safetensors holds another network than %s/small.lua: model=FILE.lua names the one that its run "
      .. "taught (small: load_state: "):format(scratch)
    fails(another, checkpoint, small)
    fails("infer: the module 'conv3d' has no method logits; inference calls net:logits(x)", checkpoint,
      model("layer", "return function() return " .. layer .. " end"))
    fails(("model: %s/nothing.lua gives nothing, expects a model"):format(scratch), checkpoint, model("nothing", ""))
    fails(("model: %s/picky.lua cannot be made of the keys that the run of %s/checkpoint.safetensors had: no such depth"):format(
      scratch, at), checkpoint, model("picky", "return function() error 'no such depth' end"))
    fails("no module 'models.none'", checkpoint, "model=none")
    pn.save(scratch .. "/small.safetensors", { ["head.weight"] = pn.zeros { 1 } }, { config = "{}" })
    fails("another network than fcn_i3d: model=FILE.lua names the one", "checkpoint=" .. scratch .. "/small.safetensors")
    succeeds("segment", frames, "checkpoint=" .. at, unpack(keys))
    assert.equal(6, #pn.image.files(out .. "/masks/walk", "png"))
  end)

  it("oneshot learns on while it segments, to the same masks each time", function()
    local function masks(name, ...)
      local out = scratch .. "/online-" .. name
      succeeds(unpack(oneshot(out, "batchnorm=batch", ...)))
      return pn.image.read_masks(pn.image.files(out .. "/masks/walk", "png"))
    end
    local off = masks("off", "online.every=0")
    local on = masks("on", "online.lr=0.01")
    assert.not_equal(off:crc32c(), on:crc32c())
    assert.equal(on:crc32c(), masks("again", "online.lr=0.01", "workers=0"):crc32c())
    local checkpoint = "/checkpoint.safetensors" -- is of the training alone
    local a, b = pn.formats.load(scratch .. "/online-off" .. checkpoint), pn.formats.load(scratch .. "/online-on" .. checkpoint)
    for name, t in pairs(a) do helper.assert_same_bits(t, b[name], name) end
    local code, text = run(unpack(oneshot(scratch .. "/online-wrong", "online.near=2")))
    assert.equal(1, code)
    assert.truthy(text:find("online: near is 2, expects a probability from 0 to 1", 1, true), text)
    assert.is_false(files.exists(scratch .. "/online-wrong", "directory"))
  end)

  it("oneshot learns a clip of one's own, as it learns a sequence, and segment takes it too", function()
    if not pn.video.available() then return pending "ffmpeg is not installed" end
    local frames, mask = tree .. "/JPEGImages/480p/walk", scratch .. "/first.png"
    local video = pn.video.write { path = scratch .. "/my clip.mp4", frames = frames }
    local first = pn.image.read_mask(tree .. "/Annotations/480p/walk/00000.png"):clone()
    first:set(4, 1, 1)
    pn.image.write(mask, first)
    local out = scratch .. "/own"
    local text = succeeds(unpack(oneshot(out, "video=" .. video, "mask=" .. mask)))
    assert.truthy(text:find(mask .. " marks 2 objects (1, 4), taken as one; object=N takes one of them", 1, true), text)
    assert.truthy(text:find("my clip: frame 2 has no mask: nothing to score against", 1, true), text)
    for _, name in ipairs { "masks/my clip/00005.png", "overlays/my clip/00000.png", "my clip.mp4", "report.html" } do
      assert.is_true(files.exists(out .. "/" .. name), name)
    end
    assert.same({ "my clip", video }, { json(out .. "/config.json").sequence, json(out .. "/config.json").video })
    local found = json(out .. "/scores.json")
    assert.same({}, found.sequences)
    assert.is_nil(found.mean)
    assert.is_true(found.first_frame["my clip"].J >= 0 and found.first_frame["my clip"].threshold > 0)
    -- The folder with the same mask as the sequence has: the same bits.
    text = succeeds(unpack(oneshot(scratch .. "/own-folder", "video=" .. frames, "mask=" .. mask, "object=1")))
    assert.is_nil(text:find("objects", 1, true), text)
    succeeds(unpack(oneshot(scratch .. "/own-sequence")))
    local a = pn.formats.load(scratch .. "/own-folder/checkpoint.safetensors")
    local b = pn.formats.load(scratch .. "/own-sequence/checkpoint.safetensors")
    for name, t in pairs(a) do helper.assert_same_bits(t, b[name], name) end
    succeeds("segment", video, "checkpoint=" .. out .. "/checkpoint.safetensors", "infer.frames=4", "mask=" .. mask, "object=4",
      "out=" .. scratch .. "/own-segment")
    assert.equal(6, #pn.image.files(scratch .. "/own-segment/masks/my clip", "png"))
    for _, case in ipairs {
      { "needs mask=FILE.png", "video=" .. video },
      { "object 3 is not in the mask of the first frame (objects there: 1, 4)", "video=" .. video, "mask=" .. mask, "object=3" },
      { "object 3 is not in the mask of the first frame (objects there: 1)", "object=3" },
    } do
      local code, message = run(unpack(oneshot(scratch .. "/own-wrong", unpack(case, 2))))
      assert.equal(1, code)
      assert.truthy(message:find(case[1], 1, true), message)
      assert.is_false(files.exists(scratch .. "/own-wrong", "directory"))
    end
  end)

  it("segment does as the run of its checkpoint did, but for what is given", function()
    local out, frames = scratch .. "/as", tree .. "/JPEGImages/480p/walk"
    succeeds(unpack(oneshot(out, "online.every=0", "infer.ends=hold", "infer.calibrate=0.5")))
    local function segment(name, ...)
      local text = succeeds("segment", frames, "checkpoint=" .. out .. "/checkpoint.safetensors",
        "out=" .. scratch .. "/as-" .. name, ...)
      return text, pn.image.read_masks(pn.image.files(scratch .. "/as-" .. name .. "/masks/walk", "png"))
    end
    local text, masks = segment("same", "mask=" .. tree .. "/Annotations/480p/walk/00000.png")
    helper.assert_same_bits(masks, pn.image.read_masks(pn.image.files(out .. "/masks/walk", "png")))
    local taken = "as the run of the checkpoint: ends=hold frames=4 keep=connected stride=4"
    assert.truthy(text:find(taken .. "\n", 1, true), text)
    text = segment "without"
    local threshold = json(out .. "/scores.json").first_frame.walk.threshold
    assert.truthy(text:find(("%s threshold=%.4g (found on its first frame)"):format(taken, threshold), 1, true), text)
    assert.equal(threshold, json(scratch .. "/as-without/config.json").infer.threshold)
    text = segment("given", "infer.frames=16", "infer.stride=12", "infer.keep=all", "infer.ends=mirror", "infer.threshold=0.5")
    assert.is_nil(text:find("as the run", 1, true), text)
    assert.equal(16, json(scratch .. "/as-given/config.json").infer.frames)
  end)

  it("oneshot and parent take every option of an optimiser, and a scale of the rate", function()
    local out = scratch .. "/options"
    succeeds(unpack(oneshot(out, "optim.clip_norm=1", "optim.beta2=0.95", "optim.eps=1e-6")))
    local optim = json(out .. "/config.json").optim
    assert.same({ 1, 0.95, 1e-6 }, { optim.clip_norm, optim.beta2, optim.eps })
    assert.not_equal(log_lines(out)[2].loss, log_lines(scratch .. "/oneshot")[2].loss)
    out = scratch .. "/still"
    succeeds(unpack(oneshot(out, "optim.kind=sgd", "optim.nesterov=true", "lr_scale=function(epoch, n) return epoch - epoch end")))
    local begun = require "models.fcn_i3d" { width = 0.0625, seed = 1 }
    local ended = pn.formats.load(out .. "/checkpoint.safetensors")
    for _, entry in ipairs(begun:parameters()) do helper.assert_same_bits(entry.tensor, ended[entry.name], entry.name) end
    out = scratch .. "/momentum"
    local code, text = run(unpack(oneshot(out, "optim.momentum=2")))
    assert.equal(1, code)
    assert.truthy(text:find("optim.momentum (Adam's beta1) is 2, expects a number from 0 to 1", 1, true), text)
    code, text = run("parent", "davis=" .. tree, "sequences=walk", "weights=", "out=" .. out, "optim.momentum=2")
    assert.equal(1, code)
    assert.truthy(text:find("optim.momentum is 2, expects a number from 0 to 1", 1, true), text)
    assert.is_false(files.exists(out, "directory"))
  end)

  it("oneshot searches for hard negatives, and goes on with them as if it had not been stopped", function()
    local straight, halting = scratch .. "/mined", scratch .. "/mined-halting"
    local keys = { "mine_every=1", "lucid.focus=1", "batchnorm=batch", "side_weight=constant", "balance=constant" }
    succeeds(unpack(oneshot(straight, "epochs=4", unpack(keys))))
    succeeds(unpack(oneshot(halting, "epochs=2", unpack(keys))))
    succeeds(unpack(oneshot(halting, "epochs=4", unpack(keys))))
    local lines, again, found = log_lines(straight), log_lines(halting), 0
    for i, line in ipairs(lines) do
      found = found + line.false_positives
      assert.equal(line.loss, again[i].loss)
      assert.equal(line.false_positives, again[i].false_positives)
    end
    assert.is_true(found > 0)
    succeeds(unpack(oneshot(scratch .. "/unmined", "epochs=4", "mine_every=0", unpack(keys, 2))))
    local plain = log_lines(scratch .. "/unmined")
    assert.equal(lines[1].loss, plain[1].loss)
    assert.not_equal(lines[4].loss, plain[4].loss)
    assert.is_nil(plain[4].false_positives)
  end)

  -- What a researcher edits: a key of the table, here from the command line.
  for _, edit in ipairs {
    { name = "another skip set", "skips=2c,3c,4f,5c", has = "side_5c.reduce.weight", lacks = "side_1a.reduce.weight" },
    { name = "another deconvolution init", "deconv_init=icnr", differs = "side_3c.up_features.weight" },
    { name = "another schedule of the side losses", "side_weight=function(epoch, n) return epoch > n / 2 and 0 or 1 end",
      differs = "side_3c.score.weight" },
    { name = "the class-balanced loss to the end", "balance=constant", differs = "side_1a.reduce.weight" },
  } do
    it("oneshot with " .. edit.name, function()
      local out = scratch .. "/edit" .. #edit.name
      succeeds(unpack(oneshot(out, edit[1])))
      local state = pn.formats.load(out .. "/checkpoint.safetensors")
      local before = pn.formats.load(scratch .. "/oneshot/checkpoint.safetensors")
      assert.is_true(not edit.has or state[edit.has] ~= nil)
      assert.is_true(not edit.lacks or state[edit.lacks] == nil)
      assert.is_true(not edit.differs or state[edit.differs]:crc32c() ~= before[edit.differs]:crc32c())
    end)
  end

  it("parent learns from a set, resumes, and its checkpoint is a start for oneshot and segment", function()
    local out = scratch .. "/parent"
    local words = {
      "parent", "davis=" .. tree, "sequences=walk,stroll", "weights=", "width=0.0625", "epochs=1", "frames=4", "crop=32",
      "out=" .. out,
    }
    succeeds(unpack(words))
    words[6] = "epochs=2"
    succeeds(unpack(words))
    local lines, seen = log_lines(out), {}
    assert.equal(4, #lines)
    for _, line in ipairs(lines) do
      seen[line.sequence] = true
    end
    assert.is_true(seen.walk and seen.stroll)
    local checkpoint = out .. "/checkpoint.safetensors"
    local child = succeeds(unpack(oneshot(scratch .. "/child", "weights=" .. checkpoint, "epochs=1")))
    assert.truthy(child:find(("weights   %s: 202 of 211 tensors; new: refine\n"):format(checkpoint), 1, true), child)
    words[4], words[6], words[#words] = "weights=" .. checkpoint, "epochs=0", "out=" .. scratch .. "/grandparent"
    words[#words + 1] = "skips=1a,5c"
    local other = succeeds(unpack(words))
    local line = "; new: mixed_5b, mixed_5c, side_5c, fuse; unused: side_2c, side_3c, side_4f\n"
    assert.truthy(other:find(line, 1, true), other)
    local code, refusal = run(unpack(oneshot(scratch .. "/wide", "weights=" .. checkpoint, "width=0.125")))
    assert.equal(1, code)
    assert.truthy(refusal:find("tensors of other shapes than in the network: conv3d_1a.conv.weight is 4,3,7,7,7, expected 8,", 1,
      true), refusal)
    local frames = tree .. "/JPEGImages/480p/walk"
    local said = succeeds("segment", frames, "checkpoint=" .. checkpoint, "infer.frames=4", "out=" .. scratch .. "/segment")
    assert.truthy(said:find("checkpoint.safetensors: 202 of 202 tensors\n", 1, true), said)
    assert.equal(6, #pn.image.files(scratch .. "/segment/masks/walk", "png"))
  end)

  it("quickstart does the whole job, and fails when J is too low", function()
    local code, text = run("quickstart", "epochs=2", "frames=4", "crop=32", "width=0.0625", "toy.frames=6", "toy.height=48",
      "toy.width=64", "infer.frames=4", "least=1", "out=" .. scratch .. "/quickstart")
    assert.equal(1, code, text)
    assert.is_truthy(text:find("expected more than 100.0", 1, true), text)
    assert.equal("file", lfs.attributes(scratch .. "/quickstart/scores.json", "mode"))
  end)

  it("classify says what a clip shows: playing cricket", function()
    local clip = helper.shared "reference/i3d/clip_16x224x224.npy"
    local given = os.getenv "PENUMBRA_WEIGHTS"
    local path = given and given ~= "" and given or pn.weights.home() .. "/i3d_rgb.safetensors"
    if not clip or not lfs.attributes(path) then
      pending "no ../shared/reference/i3d, or no weights (penumbra fetch i3d, or PENUMBRA_WEIGHTS)"
    end
    local text = succeeds("classify", clip, "weights=" .. path, "top=3")
    local first, second, third = text:match "frames of 224 x 224\n(.-)\n(.-)\n(.-)\n"
    assert.is_truthy(first:find("14.94%d%d  playing cricket"), text)
    assert.is_truthy(second:find("10.61%d%d  archery"), text)
    assert.is_truthy(third:find("10.15%d%d  robot dancing"), text)
    assert.is_truthy(text:find(("weights   %s: 230 of 230 tensors\n"):format(path), 1, true), text)
  end)

  it("says what is wrong with what it is given", function()
    local code, text = run("oneshot", "davis=" .. tree, "sequence=walk", "skip=1a")
    assert.equal(2, code)
    assert.is_truthy(text:find("skips", 1, true), text)
    code, text = run("oneshot", "davis=" .. tree, "sequence=wolk", "out=" .. scratch .. "/none", "weights=")
    assert.is_true(code ~= 0)
    assert.is_truthy(text:find("walk", 1, true), text)
    code, text = run("oneshot", "davis=" .. tree, "sequence=walk", "crop=48", "out=" .. scratch .. "/none2",
      "weights=absent.safetensors")
    assert.is_true(code ~= 0)
    assert.is_truthy(text:find("penumbra fetch i3d", 1, true), text)
    assert.is_truthy(text:find "penumbra: [^\n]*recipes/oneshot.lua:%d+: weights: there is no absent", text)
    code, text = run("classify", scratch .. "/nothing.gif")
    assert.is_true(code ~= 0)
    assert.is_truthy(text:find("no such file or folder", 1, true), text)
    for key, value in pairs { frames = "0", size = "-3", top = "1.5" } do
      code, text = run("classify", tree .. "/JPEGImages/480p/walk", key .. "=" .. value, "weights=absent.safetensors")
      assert.equal(2, code)
      assert.is_truthy(text:find(("%s: expects a whole number from 1, got %s"):format(key, value), 1, true), text)
    end
    code, text = run("segment", tree .. "/JPEGImages/480p/walk", "checkpoint=" .. tree .. "/ImageSets/2016/val.txt",
      "out=" .. scratch .. "/none3")
    assert.is_true(code ~= 0, text)
  end)
end)

describe("the bench of a step", function()
  it("prints a line in the format of the twin", function()
    local text = succeeds("bench/step.lua", "frames=4", "size=32", "runs=1", "threads=1")
    local us = "%d+%." .. ("%d"):rep(6) -- microseconds: on a card a forward takes two thousand of them
    local figures = "forward " .. us .. " s, train step " .. us .. " s, peak %d+%.%d+ GiB\n"
    assert.is_truthy(text:find("^penumbra [%d.]+ cpu ndhwc fp32 full T4 S32: " .. figures), text)
    text = succeeds("bench/step.lua", "frames=4", "size=32x48", "runs=1", "part=backbone", "infer=true")
    assert.is_truthy(text:find "backbone T4 S32x48: forward [%d.]+ s, train step %-?nan s", text)
    local code, problem = run("bench/step.lua", "precision=f16")
    assert.is_true(code ~= 0 and problem:find("expects one of f32, tf32, bf16, fp16", 1, true) ~= nil, problem)
  end)
end)
