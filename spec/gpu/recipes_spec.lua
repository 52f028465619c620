--- Every recipe on a CUDA device, two steps each, through the program as a user calls it; against the CPU where that can be said.

local device = require "spec.gpu.device"
local files = require "penumbra.base.files"
local lfs = require "lfs"
local pn = require "penumbra"
local helper = require "spec.helper"

local recipe = require "spec.recipe"
local place = recipe.on(device.library)
local scratch, tree, run, succeeds, oneshot = place.scratch, place.tree, place.run, place.succeeds, place.oneshot
local json, log_lines = recipe.json, recipe.log_lines

-- The losses of a run beside those of another.
local function close_losses(a, b, tolerance)
  a, b = log_lines(a), log_lines(b)
  assert.equal(#a, #b)
  for i, line in ipairs(a) do
    assert.equal(line.step, b[i].step)
    assert.is_true(math.abs(line.loss - b[i].loss) <= tolerance * math.abs(line.loss), ("%g and %g"):format(line.loss, b[i].loss))
  end
end

-- How many pixels of two runs' masks differ.
local function mask_difference(a, b, name)
  local paths, others = pn.image.files(a .. "/masks/" .. name, "png"), pn.image.files(b .. "/masks/" .. name, "png")
  assert.equal(#paths, #others)
  local x, y = pn.image.read_masks(paths):cast(pn.real), pn.image.read_masks(others):cast(pn.real)
  return pn.mean(pn.abs(x - y)):item()
end

describe("recipes on a CUDA device", function()
  setup(function()
    pn.data.toy.write(tree, { sequences = { "walk", "stroll" }, frames = 6, height = 48, width = 64 })
  end)
  teardown(function() files.remove(scratch) end)

  it("oneshot says where it runs, and does what it does on the CPU", function()
    local here, there = scratch .. "/cpu", scratch .. "/cuda"
    assert.matches("run in %S+ on the CPU\n", succeeds(unpack(oneshot(here, "device=cpu", "epochs=5"))))
    local text = succeeds(unpack(oneshot(there, "device=cuda", "epochs=5"))) -- the third step is captured, two more are launched
    assert.matches("run in %S+ on cuda:0 %(.-, sm_%d+, [%d.]+ GiB%)\n", text)
    assert.equal("cuda:0", json(there .. "/run.json").sessions[1].device)
    close_losses(here, there, 1e-3)
    assert.is_true(mask_difference(here, there, "walk") < 0.02)
    assert.is_true(json(there .. "/scores.json").mean.J.mean >= 0)
  end)

  it("each learns one sequence after another, as alone, and gives the memory of the last one back", function()
    local all, alone = scratch .. "/each", scratch .. "/each-alone"
    local words = { "each", "oneshot", "davis=" .. tree, "out=" .. all, "device=cuda", unpack(recipe.small) }
    words[#words + 1] = "epochs=4"
    local text = succeeds(unpack(words))
    succeeds(unpack(oneshot(alone, "sequence=stroll", "device=cuda", "epochs=4")))
    assert.same(json(alone .. "/scores.json").sequences.stroll, json(all .. "/scores.json").sequences.stroll)
    local a, b = pn.formats.load(alone .. "/checkpoint.safetensors"), pn.formats.load(all .. "/stroll/checkpoint.safetensors")
    for name, t in pairs(a) do helper.assert_same_bits(t, b[name], name) end
    local live = {}
    for number in text:gmatch "4/4 [^\n]- took %S+  (%d+) MiB" do live[#live + 1] = tonumber(number) end
    assert.equal(2, #live, text)
    assert.is_true(live[2] <= live[1] + 1, text)
  end)

  it("auto is the card that is there", function()
    assert.matches("on cuda:0 ", succeeds(unpack(oneshot(scratch .. "/auto", "epochs=1"))))
  end)

  it("oneshot that was stopped goes on as if it had not been, bit for bit, and on the CPU", function()
    local straight, halting, moved = scratch .. "/straight", scratch .. "/halting", scratch .. "/moved"
    local falling = "function(epoch) return 1 - epoch / 4 end"
    local weight, balance = "side_weight=" .. falling, "balance=" .. falling
    succeeds(unpack(oneshot(straight, "device=cuda", "epochs=4", weight, balance)))
    succeeds(unpack(oneshot(halting, "device=cuda", "epochs=2", weight, balance)))
    os.execute(("cp -r '%s' '%s'"):format(halting, moved))
    succeeds(unpack(oneshot(halting, "device=cuda", "epochs=4", weight, balance)))
    local a, b = pn.formats.load(straight .. "/checkpoint.safetensors"), pn.formats.load(halting .. "/checkpoint.safetensors")
    local n = 0
    for name, t in pairs(a) do
      helper.assert_same_bits(t, b[name], name)
      n = n + 1
    end
    assert.is_true(n > 100)
    local text = succeeds(unpack(oneshot(moved, "device=cpu", "epochs=4", weight, balance)))
    assert.matches('going on after epoch 2 in %S+ on the CPU\n', text)
    assert.matches('with another device: "cpu", was "cuda"', text)
    close_losses(straight, moved, 1e-3)
  end)

  for _, precision in ipairs(pn.real == "f32" and { "tf32", "bf16", "fp16" } or {}) do
    it("oneshot in " .. precision, function()
      local out = scratch .. "/" .. precision
      succeeds(unpack(oneshot(out, "device=cuda", "precision=" .. precision, "epochs=4")))
      assert.equal(precision, json(out .. "/run.json").sessions[1].precision)
      local lines = log_lines(out)
      assert.equal(4, #lines)
      local state, metadata = pn.formats.load(out .. "/checkpoint.safetensors")
      assert.equal(precision == "fp16", metadata["@scaler/numbers/scale"] ~= nil)
      for name, t in pairs(state) do assert.equal(pn.real, t:dtype(), name) end
    end)
  end

  it("a precision that the device has not is refused", function()
    local code, text = run(unpack(oneshot(scratch .. "/none", "device=cpu", "precision=fp16")))
    assert.equal(1, code, text)
    assert.matches("fp16", text)
  end)

  it("oneshot segments in tiles, several at once", function()
    local out = { scratch .. "/tiles-cpu", scratch .. "/tiles-cuda" }
    for i, name in ipairs { "cpu", "cuda" } do
      succeeds(unpack(oneshot(out[i], "device=" .. name, "infer.mode=tiles", "infer.size=32", "infer.tile_stride=20",
        "infer.window=hann", "epochs=1")))
    end
    assert.is_true(mask_difference(out[1], out[2], "walk") < 0.02)
  end)

  it("parent learns from a set, goes on, and its checkpoint is a start for oneshot and segment", function()
    local out = scratch .. "/parent"
    local words = {
      "parent", "davis=" .. tree, "sequences=walk,stroll", "weights=", "width=0.0625", "epochs=1", "frames=4", "crop=32",
      "device=cuda", "out=" .. out, "batchnorm=moving",
    }
    succeeds(unpack(words))
    words[6] = "epochs=2"
    succeeds(unpack(words))
    assert.equal(4, #log_lines(out))
    local checkpoint = out .. "/checkpoint.safetensors"
    succeeds(unpack(oneshot(scratch .. "/child", "weights=" .. checkpoint, "epochs=1", "device=cuda")))
    for _, name in ipairs { "cpu", "cuda" } do
      succeeds("segment", tree .. "/JPEGImages/480p/walk", "checkpoint=" .. checkpoint, "infer.frames=4", "device=" .. name,
        "out=" .. scratch .. "/segment-" .. name)
    end
    assert.is_true(mask_difference(scratch .. "/segment-cpu", scratch .. "/segment-cuda", "walk") < 0.02)
  end)

  it("quickstart does the whole job", function()
    local code, text = run("quickstart", "epochs=2", "frames=4", "crop=32", "width=0.0625", "toy.frames=6", "toy.height=48",
      "toy.width=64", "infer.frames=4", "least=1", "device=cuda", "out=" .. scratch .. "/quickstart")
    assert.equal(1, code, text)
    assert.is_truthy(text:find("expected more than 100.0", 1, true), text)
    assert.equal("file", lfs.attributes(scratch .. "/quickstart/scores.json", "mode"))
  end)

  it("a profile shows the device's time", function()
    local words = { "profile" }
    for i, word in ipairs(oneshot(scratch .. "/profile", "steps=2", "warm=1", "epochs=9", "device=cuda", "trace=")) do
      if i ~= 4 then words[#words + 1] = word end
    end
    local text = succeeds(unpack(words))
    assert.matches("ms in operations on cuda:0", text)
    for _, word in ipairs { "conv3d.backward", "fcn_i3d.conv3d_1a.conv", "(turn)", "(adam)", "(upload)" } do
      assert.truthy(text:find(word, 1, true), word)
    end
  end)

  it("out of memory names the device, the layer and the largest holders", function()
    local net = require "models.fcn_i3d" { width = 1 / 16 }:to "cuda"
    local x = pn.zeros { 1, 3, 8, 64, 64, layout = "channels_last", device = "cuda" }
    pn.C.pn_memory_set_limit(1, pn.memory("cuda").live + 2 ^ 18)
    local message = helper.failure(function() net(x) end,
      "out of memory: ", " MiB wanted on cuda:0 by fcn_i3d.", "; largest holders: ")
    pn.C.pn_memory_set_limit(1, 0)
    assert.matches("^%S-:?%S* ?fcn_i3d%.", message)
    helper.assert_shape(net(x).fused, 1, 1, 8, 64, 64)
  end)
end)
