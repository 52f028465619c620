-- ahead_spec: batches made ahead by workers: the same ones, in order, within their bound.
local pn = require "penumbra"
local helper = require "spec.helper"
local source_of = require("spec.fixtures.jobs").source

local frame, mask, root
local strength = 0.25

local function same_batch(a, b)
  helper.assert_same_bits(a.frames, b.frames, "frames")
  if a.mask then helper.assert_same_bits(a.mask, b.mask, "masks") end
  if a.params then assert.same(a.params, b.params) end
end

-- The batches (epoch, i) of a list from one source, with so many workers.
local function batches(make, workers, list, cfg, change)
  cfg = cfg or {}
  cfg.workers = workers
  local feed = pn.ahead(make(), cfg, change)
  local made = {}
  for k, at in ipairs(list) do
    made[k] = feed:batch(at[1], at[2])
  end
  feed:close()
  return made
end

local function assert_same_for_any_number(make, list, cfg, change)
  local truth = batches(make, 0, list, cfg, change)
  for _, workers in ipairs { 1, 3 } do
    local made = batches(make, workers, list, cfg, change)
    for k = 1, #list do
      same_batch(truth[k], made[k])
    end
  end
  return truth
end

describe("ahead", function()
  local directory = helper.directory(teardown)

  setup(function()
    root = pn.data.toy.write(directory .. "/toy", { sequences = { "walk", "swap" }, frames = 8, height = 64, width = 96, seed = 1 })
    local clip = pn.data.davis(root):sequence "walk"
    frame, mask = clip:frame(1):keep(), clip:mask(1):keep()
  end)

  local function dreams()
    return pn.lucid.stream(frame, mask, { frames = 4, crop = 32, seed = 3 })
  end

  local function clips()
    return pn.data.clips(pn.data.davis(root), { sequences = { "walk", "swap" }, frames = 4, crop = 32, seed = 3 })
  end

  it("gives the same dreams for any number of workers, in order, repeated, and with jumps", function()
    assert_same_for_any_number(dreams, { { 1 }, { 2 }, { 3 }, { 7 }, { 8 }, { 2 }, { 2 } }, { epochs = 8 })
  end)

  it("gives the same clips", function()
    assert_same_for_any_number(clips, { { 1, 1 }, { 1, 2 }, { 2, 1 }, { 2, 2 }, { 5, 2 } })
  end)

  it("gives bytes for a device, from which the same batches are made; with a change, numbers", function()
    for _, make in ipairs { dreams, clips } do
      local list, device = { { 1, 1 }, { 2, 1 } }, require "penumbra.device"
      local truth = batches(make, 0, list)
      for _, workers in ipairs { 0, 1 } do
        for k, batch in ipairs(batches(make, workers, list, { device = "cuda:0" })) do
          assert.equal("u8", batch.frames:dtype())
          local there = device.bring(batch, "cpu") -- the numbers are the same on every device
          helper.assert_same_bits(truth[k].frames, there.frames)
          helper.assert_same_bits(truth[k].mask, there.mask:cast(pn.real))
          assert.same(truth[k].params, there.params)
        end
      end
      for _, batch in ipairs(batches(make, 0, list, { device = "cuda:0" }, function(b) return b end)) do
        assert.equal(pn.real, batch.frames:dtype())
      end
    end
  end)

  it("runs a function of one's own, with what it closes over and chance of its own", function()
    local function noisy(batch, rng)
      local noise = rng:fill(pn.empty_like(batch.frames), "normal", 0, strength)
      batch.frames = batch.frames + noise
      return batch
    end
    local list = { { 1 }, { 2 }, { 4 } }
    local made = assert_same_for_any_number(dreams, list, { epochs = 4, seed = 9 }, noisy)
    local plain = batches(dreams, 0, list)
    assert.is_true((made[1].frames - plain[1].frames):abs():mean():item() > 0.1)
    local other = batches(dreams, 0, list, { seed = 10 }, noisy)
    assert.is_true((made[1].frames - other[1].frames):abs():mean():item() > 0.1)
  end)

  it("copies what a function closes over when it is made, in line too", function()
    local bias
    for _, workers in ipairs { 0, 1 } do
      bias = 1
      local feed = pn.ahead(source_of(1, 0), { workers = workers }, function(batch)
        batch.bias = bias
        return batch
      end)
      bias = 2
      assert.equal(1, feed:batch(1).bias)
      feed:close()
    end
  end)

  it("runs a function by its name", function()
    local made = {}
    for _, workers in ipairs { 0, 2 } do
      local feed = pn.ahead(source_of(2, 0.5), { workers = workers, seed = 4 }, "spec.fixtures.jobs.blur")
      made[#made + 1] = feed:batch(3, 2).chance
      feed:close()
    end
    assert.equal(made[1], made[2])
    assert.equal(pn.random.stream(4, "change 3 2"):integer(1, 1e6), made[1])
    helper.failure(function() pn.ahead(dreams(), {}, "spec.fixtures.jobs.sharpen") end, "ahead_spec.lua:",
      "ahead: change 'spec.fixtures.jobs.sharpen' is neither a module that returns a function nor a function of a module")
    helper.failure(function() pn.ahead(dreams(), {}, "spec.fixtures.jobs") end,
      "ahead: module 'spec.fixtures.jobs' returns a table, expects a function")
  end)

  it("takes a source of one's own, and a function", function()
    local function make() return source_of(3, 0.5) end
    local made = assert_same_for_any_number(make, { { 1, 1 }, { 1, 3 }, { 2, 1 } })
    assert.equal("2/1", made[3].name)
    local double = 2
    local function count() return function(epoch, i) return { frames = pn.full { 1, value = double * epoch + i } } end end
    made = assert_same_for_any_number(count, { { 1 }, { 4 } })
    assert.equal(9, made[2].frames:item())
  end)

  it("lets a source hold tensors for as long as it is needed", function()
    local given = pn.full { 2, value = 3 }
    local list = { { 1 }, { 2 }, { 3 }, { 4 } }
    local made = assert_same_for_any_number(function() return require("spec.fixtures.jobs").holding(given) end, list)
    assert.same({ 12.5, 12.5 }, made[4].frames:totable())
    made = assert_same_for_any_number(function() return function(epoch) return { frames = given * epoch } end end, list)
    assert.same({ 12, 12 }, made[4].frames:totable())
  end)

  it("makes a source anew that has changed", function()
    local places = pn.zeros { 64, 96, dtype = "u8" }
    places:set(1, 50, 80)
    local truth, made = {}, {}
    for workers, into in pairs { [0] = truth, [2] = made } do
      local stream = pn.lucid.stream(frame, mask, { frames = 2, crop = 32, seed = 3, lucid = { focus = 1 } })
      local feed = pn.ahead(stream, { workers = workers })
      into[1] = feed:batch(1)
      stream:focus(places)
      into[2], into[3] = feed:batch(2), feed:batch(3)
      stream:focus(nil)
      into[4] = feed:batch(4)
      feed:close()
    end
    for k = 1, 4 do
      same_batch(truth[k], made[k])
    end
    assert.equal("focus", made[2].params.window.rule)
  end)

  it("has no more under way than it is told, and nothing beyond the last epoch", function()
    local feed = pn.ahead(dreams(), { workers = 2, ahead = 3, epochs = 6 })
    local function under_way()
      local n = 0
      for _ in pairs(feed.tickets) do n = n + 1 end
      return n
    end
    feed:batch(1)
    assert.equal(3, under_way())
    feed:batch(5) -- a jump: what lay between is dropped
    assert.equal(1, under_way())
    feed:batch(6)
    assert.equal(0, under_way())
    assert.is_nil(feed.pool) -- its threads have ended
    same_batch(dreams():batch(2), feed:batch(2)) -- and begin again when they are asked
    feed:close()
  end)

  it("holds no more memory than its batches, and gives it back", function()
    local function settled()
      collectgarbage()
      collectgarbage()
      return pn.memory("cpu").live
    end
    local before = settled()
    local feed = pn.ahead(function() return { frames = pn.zeros { 256, 1024 } } end, { workers = 2, ahead = 4 }) -- 1 MiB each
    for epoch = 1, 40 do
      pn.scope(function() feed:batch(epoch) end)
    end
    local real = pn.real == "f64" and 2 or 1
    assert.is_true(settled() - before <= (4 + 2 + 1) * 2 ^ 20 * real)
    feed:close()
    assert.is_true(settled() - before < 2 ^ 19)
  end)

  it("raises what fails in a worker at the line that asks for the batch", function()
    for _, workers in ipairs { 0, 2 } do
      local feed = pn.ahead(source_of(1, 0), { workers = workers, ahead = workers })
      feed:batch(97)
      helper.failure(function() feed:batch(99) end, "jobs.lua:", "no such epoch")
      assert.equal("100/1", feed:batch(100).name) -- a failure spoils nothing else
      feed:close()
      local careless = pn.ahead(source_of(1, 0), { workers = workers }, function() end)
      helper.failure(function() careless:batch(1) end, "ahead: the change returned nothing, expects the batch")
      careless:close()
    end
  end)

  it("takes a change that closes over the recipe's cfg", function()
    local cfg = pn.config.resolve({ strength = 3 }, {}, { name = "x" })
    assert_same_for_any_number(dreams, { { 1 }, { 2 } }, nil, function(batch)
      return { frames = batch.frames * cfg.strength }
    end)
  end)

  it("is what run:epochs takes; waiting is logged, and going on gives the same", function()
    local function train(name, epochs, resume, workers)
      local run = pn.run { seed = 1, epochs = epochs, quiet = true, checkpoint_every = 1, workers = workers,
        out = not resume and directory .. "/" .. name or nil, resume = resume and directory .. "/" .. name or nil }
      local weight = pn.nn.conv3d { from = 3, to = 1, kernel = 1 }
      run:keep { net = weight }
      local seen = {}
      for epoch, batch in run:epochs(epochs, pn.ahead(dreams(), { workers = workers, epochs = epochs })) do
        seen[epoch] = batch.frames:crc32c()
        run:log { loss = 1 }
      end
      return seen
    end
    local whole = train("whole", 4, false, 0)
    local first, rest = train("parts", 2, false, 2), train("parts", 4, true, 1)
    assert.same(whole, { first[1], first[2], rest[3], rest[4] })
    for _, record in ipairs(require("penumbra.run.log").read(directory .. "/parts/log.jsonl")) do
      assert.is_true(record.data >= 0 and record.data <= record.seconds + 0.01)
    end
  end)

  it("says what is wrong", function()
    helper.failure(function() pn.ahead() end, "ahead: expects a source with batch(epoch, i), or a function(epoch, i), got nothing")
    helper.failure(function() pn.ahead(dreams(), { workers = 65 }) end, "ahead: workers is 65, expects a whole number from 0 to 64")
    helper.failure(function() pn.ahead(dreams(), { workers = 1, ahead = 0 }) end,
      "ahead: ahead is 0, expects a whole number from 1")
    helper.failure(function() pn.ahead(dreams(), {}, 7) end,
      "ahead: the change is a number, expects a function(batch, rng) or its name")
    helper.failure(function() pn.ahead({ batch = function() end }, { workers = 1 }) end,
      "ahead: this source has no made_by() to make it again in a worker; give it one, or workers = 0")
    local other = { sequence = function() return pn.data.davis(root):sequence "walk" end }
    local own = pn.data.clips(other, { sequences = { "a" }, crop = 32 })
    helper.failure(function() pn.ahead(own, { workers = 1 }) end,
      "clips: the data set has no made_by() to open it again in a worker; give it one, or workers = 0")
    local net = pn.nn.relu()
    helper.failure(function() pn.ahead(dreams(), { workers = 1 }, function(batch) return net(batch) end) end, "ahead: change",
      "local 'net' of the function at", "an object (a table with a metatable) does not travel")
  end)
end)
