--- batched_spec: several clips of a source as one batch.
local pn = require "penumbra"
local helper = require "spec.helper"

describe("batched", function()
  local directory = helper.directory(teardown)
  local root, dreams, clips

  setup(function()
    root = pn.data.toy.write(directory .. "/toy", {
      sequences = { "walk", "swap", "hop" }, frames = 8, height = 64, width = 96, seed = 1,
    })
    local clip = pn.data.davis(root):sequence "walk"
    dreams = pn.lucid.stream(clip:frame(1):keep(), clip:mask(1):keep(), { frames = 4, crop = 32, seed = 3 })
    clips = pn.data.clips(pn.data.davis(root), { sequences = { "walk", "swap", "hop" }, frames = 4, crop = 32, seed = 3 })
  end)

  local function same_part(whole, i, part, what)
    helper.assert_same_bits(whole.frames:slice(1, i, 1):contiguous "rows", part.frames:contiguous "rows", what)
    helper.assert_same_bits(whole.mask:slice(1, i, 1):contiguous "rows", part.mask:contiguous "rows", what)
  end

  it("joins the clips of an epoch, the last batch as many as are left", function()
    local two = pn.batched(clips, 2)
    assert.equal(2, two.per_epoch)
    for epoch = 1, 2 do
      local a, b = two:batch(epoch, 1), two:batch(epoch, 2)
      helper.assert_shape(a.frames, 2, 3, 4, 32, 32)
      helper.assert_shape(b.mask, 1, 1, 4, 32, 32)
      assert.is_true(a.frames:is_dense "channels_last")
      for i, at in ipairs { { a, 1 }, { a, 2 }, { b, 1 } } do
        same_part(at[1], at[2], clips:batch(epoch, i), ("epoch %d clip %d"):format(epoch, i))
      end
      local names = {}
      for i = 1, 3 do names[i] = clips:batch(epoch, i).params.sequence end
      assert.equal(names[1] .. "+" .. names[2], a.params.sequence)
      assert.equal(names[3], b.params.sequence)
      assert.equal(names[2], a.params[2].sequence)
    end
  end)

  it("takes other dreams in each epoch", function()
    local three = pn.batched(dreams, 3)
    assert.equal(1, three.per_epoch)
    for epoch = 1, 2 do
      local batch = three:batch(epoch)
      helper.assert_shape(batch.frames, 3, 3, 4, 32, 32)
      for i = 1, 3 do same_part(batch, i, dreams:batch((epoch - 1) * 3 + i), ("epoch %d dream %d"):format(epoch, i)) end
    end
  end)

  it("is what the key `batch` means, for any number of workers, and as bytes", function()
    for _, source in ipairs { dreams, clips } do
      local plain = pn.batched(source, 2)
      for _, workers in ipairs { 0, 2 } do
        for _, device in ipairs { "cpu", "cuda:0" } do
          local feed = pn.ahead(source, { batch = 2, workers = workers, epochs = 2, device = device })
          for epoch = 1, 2 do
            local batch = feed:batch(epoch, 1)
            if device ~= "cpu" then
              assert.equal("u8", batch.frames:dtype())
              batch = pn.device.bring(batch, "cpu") -- what comes as bytes is made numbers anywhere
            end
            local truth = plain:batch(epoch, 1)
            helper.assert_close(batch.frames, truth.frames, 1e-6)
            helper.assert_close(batch.mask:cast(pn.real), truth.mask, 0)
          end
          feed:close()
        end
      end
    end
  end)

  it("wants clips of one size", function()
    local odd = { per_epoch = 1, batch = function(_, epoch) return { frames = pn.zeros { 1, 3, 2, 4, 3 + epoch } } end }
    helper.failure(function() pn.batched(odd, 2):batch(1) end,
      "batched: frames of clip 1 is (1,3,2,4,4), of clip 2 (1,3,2,4,5); clips of one batch have one size (crop)")
  end)

  it("wants a source and a number", function()
    helper.failure(function() pn.batched(3, 2) end, "batched: expects a source with batch(epoch, i), got a number")
    helper.failure(function() pn.batched(dreams, 0) end, "batched: n")
    helper.failure(function() pn.ahead(dreams, { batch = 0.5 }) end, "ahead: batch")
  end)
end)
