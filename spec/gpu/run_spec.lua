--- Runs on a CUDA device: where batches go, when what the device found is read, going on from one device on another.

require "spec.gpu.device"
local pn = require "penumbra"
local config = require "penumbra.config"
local files = require "penumbra.base.files"
local helper = require "spec.helper"
local json = require "penumbra.json"
local log = require "penumbra.run.log"

local last = "cuda:" .. pn.C.pn_n_devices() - 1

describe("the key device", function()
  it("is a card where there is one, or what is asked for", function()
    for wanted, found in pairs { auto = "cuda:0", cpu = "cpu", cuda = "cuda:0", [last] = last } do
      assert.equal(found, pn.device.choose(wanted))
    end
    assert.equal("cuda:0", pn.device.choose())
    assert.is_nil(pn.device.describe "cpu")
    assert.matches("%S+, sm_%d+, [%d.]+ GiB$", pn.device.describe "cuda:0")
    local names, why = pn.device.list()
    assert.equal("cuda:0", names[1])
    assert.is_nil(why)
    pn.device.wait "cuda:0"
    pn.device.wait "cpu"
  end)

  it("refuses what is no device, and one that is not there", function()
    helper.failure(function() pn.device.choose "gpu" end, "device: expects auto, cpu, cuda or cuda:N, got 'gpu'")
    helper.failure(function() pn.device.choose(3) end, "device: expects auto, cpu, cuda or cuda:N, got '3'")
    local n = #pn.device.list()
    helper.failure(function() pn.device.choose("cuda:" .. n) end, ("device=cuda:%d: there "):format(n), "cuda:0")
  end)
end)

describe("a batch", function()
  it("goes to the device: tensors, and tables of them; pictures as bytes become numbers there", function()
    local t = pn.tensor { 1, 2 }
    local there = pn.device.bring(t, "cuda:0")
    assert.equal("cuda:0", there:device())
    assert.is_true(there == pn.device.bring(there, "cuda:0"))
    local frames = helper.random({ 3, 4, 5, 3 }, "frames", 0, 255):cast "u8"
    local given = { frames = frames, mask = pn.ones { 1, 1, 3, 4, 5, dtype = "u8" }, input = "bgr_01", params = { index = 7 } }
    local batch = pn.device.bring(given, "cuda:0")
    assert.equal("cuda:0", batch.frames:device())
    helper.assert_same_bits(batch.frames:to "cpu", pn.image.to_clip(frames, "bgr_01"))
    assert.equal("u8", batch.mask:dtype())
    assert.equal("cuda:0", batch.mask:device())
    assert.same({ index = 7 }, batch.params)
    assert.equal("cpu", given.frames:device())
    assert.equal(5, pn.device.bring(5, "cuda:0"))
  end)
end)

describe("a run on a device", function()
  local top = helper.directory(teardown)

  local function open(out, device, more)
    local defaults = { seed = 5, epochs = 6, quiet = true }
    for key, value in pairs(more or {}) do defaults[key] = value end
    local cfg = config.resolve(defaults, { "out=" .. top .. "/" .. out, "checkpoint_every=2", "device=" .. device },
      { name = "recipes/toy.lua" })
    return pn.run(cfg), cfg
  end

  -- A "network" of one weight and SGD with momentum: w moves against the batch.
  local function train(out, device, epochs, each)
    local run = open(out, device)
    local w = pn.tensor({ 1, 2 }):to(run.device):keep():requires_grad(true)
    local net = { w = w }
    function net:state() return { w = self.w } end
    function net:load_state(state) self.w:detach():copy(state.w) end
    local sgd = pn.optim.sgd({ { name = "w", tensor = w } }, { lr = 0.5, momentum = 0.5 })
    run:keep { net = net, optim = sgd }
    for epoch, batch in run:epochs(epochs, function(e) return pn.full { 2, value = e } end) do
      assert.equal(run.device, batch:device())
      if each then each(run, epoch, batch, w, sgd) end
      w:set_grad(batch)
      sgd:step()
      run:log { loss = w:detach():slice(1, 1, 1), note = "x" }
    end
    run:close()
    return run, w:detach():to "cpu", sgd
  end

  local function losses(out)
    local list = {}
    for i, line in ipairs(log.read(top .. "/" .. out .. "/log.jsonl")) do
      list[i] = { line.epoch, line.step, line.loss, line.note }
    end
    return list
  end

  it("writes the log of the CPU, a turn later", function()
    local _, w = train("here", "cpu", 5)
    local read = {}
    local run, there = train("there", "cuda", 5, function(_, epoch) read[epoch] = #losses "there" end)
    helper.assert_same_bits(w, there)
    assert.same(losses "here", losses "there")
    assert.equal(5, #losses "there")
    assert.same({ 0, 1, 2, 3, 4 }, read)
    local session = json.decode(files.read(run.dir .. "/run.json")).sessions[1]
    assert.equal("cuda:0", session.device)
    assert.equal(pn.device.describe "cuda:0", session.card)
    assert.equal("cuda", json.decode(files.read(run.dir .. "/config.json")).device)
  end)

  it("goes on from a checkpoint of another device", function()
    for _, way in ipairs { { "cpu", "cuda" }, { "cuda", "cpu" }, last ~= "cuda:0" and { "cuda", last } or nil } do
      local out = way[1] .. "-" .. way[2]:gsub(":", "")
      train(out, way[1], 3)
      local _, w = train(out, way[2], 6)
      local _, straight = train(out .. "-straight", way[1], 6)
      helper.assert_same_bits(straight, w)
      assert.same(losses(out .. "-straight"), losses(out))
      local names, others = pn.formats.load(top .. "/" .. out .. "/checkpoint.safetensors"),
        pn.formats.load(top .. "/" .. out .. "-straight/checkpoint.safetensors")
      for name, t in pairs(names) do helper.assert_same_bits(t, others[name], name) end
    end
  end)

  it("says which layer spoilt a loss, when the next turn begins; the weights are as they were", function()
    local weight
    local function spoil(run, epoch, batch, w)
      weight = w
      if epoch == 3 then batch:fill(0 / 0) end
      run:guard(batch:slice(1, 1, 1), function() -- its batch is still there
        local Layer = pn.nn.class "layer"
        function Layer.forward(_, x) return pn.relu(x) end
        return Layer {} (batch)
      end)
    end
    local message = helper.failure(function() train("spoilt", "cuda", 6, spoil) end,
      "loss is ", " at epoch 3: layer: relu: 2 of the 2 values it made are not finite")
    assert.truthy(message:find("nan", 1, true), message)
    assert.equal(0, weight:count_bad())
    assert.equal(2, #losses "spoilt")
  end)

  it("heeds an optimiser's step when the next turn begins", function()
    local seen
    local function spoil(_, epoch, batch, _, sgd)
      seen = epoch
      if epoch > 1 then assert.is_nil(sgd:step()) end
      if epoch == 2 then batch:fill(0 / 0) end
    end
    helper.failure(function() train("step", "cuda", 6, spoil) end, "sgd: the gradient of 'w' is not finite (step 3)")
    assert.equal(2, seen)
  end)

  it("without a loop logs at once", function()
    local run = open("loose", "cuda")
    run:log { loss = pn.tensor({ 3 }):to "cuda" }
    assert.equal(3, losses "loose"[1][3])
    helper.failure(function() run:guard(pn.tensor({ 0 / 0 }):to "cuda", function() return pn.ones { 1 } end) end,
      "every layer is finite, the loss itself is not")
    run:close()
  end)
end)
