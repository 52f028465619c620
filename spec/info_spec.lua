--- What a network takes: the prediction of a dry run against the measurement, and the command that prints both.
local helper = require "spec.helper"
local shell = require "penumbra.base.shell"
local pn = require "penumbra"
local program = require "penumbra.program"

local MiB = 2 ^ 20
-- Under the address sanitizer memory has shadows, which no prediction knows; those of a huge dry run are more than a machine has.
local sanitized = (os.getenv "PENUMBRA_LIB" or ""):find "asan" ~= nil

local function within(predicted, measured, share, what)
  local text = ("%s: %.2f MiB predicted, %.2f MiB measured"):format(what, predicted / MiB, measured / MiB)
  assert.is_true(math.abs(predicted - measured) <= share * measured, text)
end

local function crcs(net)
  local list = {}
  for name, t in pairs(net:state()) do
    list[name] = t:crc32c()
  end
  return list
end

-- What earlier specs left goes now: compiled traces hold closures, and with them networks, whose bytes would count in one of the
-- runs.
local function clear()
  jit.flush()
  for _ = 1, 3 do collectgarbage() end
end

describe("a footprint", function()
  before_each(clear)
  local fcn, i3d = require "models.fcn_i3d", require "models.i3d"

  for what, make in pairs {
    ["statistics of the batch"] = function() return fcn { width = 0.25, batchnorm = "batch" } end,
    ["frozen statistics"] = function() return fcn { width = 0.25 } end,
    ["recompute"] = function() return fcn { width = 0.25, batchnorm = "moving", recompute = true } end,
    ["dropout and a head"] = function() return i3d { width = 0.125, dropout = 0.5, classes = 20, batchnorm = "batch" } end,
  } do
    it("is predicted within a tenth: " .. what, function()
      local threads = pn.threads()
      finally(function() pn.threads(threads) end)
      pn.threads(1) -- two of them need not hold their scratch at the same moment: the prediction has them do so
      local net = make()
      local shape = { 1, 3, 16, 224, 224 }
      local predicted = pn.footprint(net, { shape = shape, dry = true })
      local measured = pn.footprint(net, { shape = shape })
      for _, mode in ipairs { "infer", "train" } do
        within(predicted[mode].peak, measured[mode].peak, 0.1, mode .. ", peak")
        within(predicted[mode].held, measured[mode].held, 0.15, mode .. ", held") -- gaps between blocks are luck
      end
      assert.same(measured.kept, predicted.kept) -- what backward waits for, layer by layer: to the byte
      assert.same(measured.shapes, predicted.shapes)
      for label, flops in pairs(measured.flops) do
        assert.equal(flops, predicted.flops[label], label)
      end
    end)
  end

  it("of two threads is no less than what is measured", function()
    local threads = pn.threads()
    finally(function() pn.threads(threads) end)
    pn.threads(2)
    local net, shape = fcn { width = 0.25 }, { 1, 3, 16, 112, 112 }
    local predicted = pn.footprint(net, { shape = shape, dry = true })
    local measured = pn.footprint(net, { shape = shape })
    for _, mode in ipairs { "infer", "train" } do
      assert.is_true(predicted[mode].peak >= measured[mode].peak)
      within(predicted[mode].peak, measured[mode].peak, 0.3, mode)
    end
  end)

  it("is that of another size for another clip, and less with recompute", function()
    local function kept(net, shape)
      local sum = 0
      for _, bytes in pairs(pn.footprint(net, { shape = shape, dry = true }).kept) do
        sum = sum + bytes
      end
      return sum
    end
    local net = fcn { width = 0.25, batchnorm = "batch" }
    local small = kept(net, { 1, 3, 8, 112, 112 })
    assert.is_true(kept(net, { 2, 3, 16, 112, 112 }) > 2.5 * small) -- the weights' part does not grow
    assert.is_true(kept(fcn { width = 0.25, batchnorm = "batch", recompute = true }, { 1, 3, 16, 224, 224 })
      < 0.8 * kept(net, { 1, 3, 16, 224, 224 }))
  end)

  it("by a dry run changes nothing, computes nothing and touches no memory, however large", function()
    local net = fcn { width = 0.25, batchnorm = "batch" }:train()
    collectgarbage()
    collectgarbage()
    local before, live, resident = crcs(net), pn.memory().live, pn.process().peak_resident
    local began = os.clock() -- of the processor, whatever else runs there
    local found = pn.footprint(net, { shape = { 1, 3, 64, 480, 864 }, dry = true })
    local seconds = os.clock() - began
    assert.is_true(found.train.peak > 4096 * MiB)
    assert.same(before, crcs(net))
    assert.is_true(pn.memory().live <= live, "it left tensors behind") -- less: what a spec before it left went late
    assert.is_true(net.training)
    if sanitized then return end
    assert.is_true(pn.process().peak_resident - resident < 128 * MiB, "it touched memory")
    assert.is_true(seconds < 5, seconds .. " s")
    -- What runs after it is real again.
    pn.scope(function()
      assert.equal(3, (pn.ones { 100000 } + 2):get(77777))
    end)
  end)

  it("of a failure leaves the dry run, and says what failed", function()
    local net = pn.nn.conv3d { from = 4, to = 2 }
    collectgarbage()
    collectgarbage()
    local before = pn.memory().live
    helper.failure(function()
      pn.footprint(net, { shape = { 1, 3, 4, 8, 8 }, dry = true })
    end, "weight expects 4 input channels, x has 3")
    assert.equal(1, pn.ones({ 5 }):get(2))
    collectgarbage()
    collectgarbage()
    assert.equal(before, pn.memory().live)
    helper.failure(function() pn.footprint(net, { shap = {} }) end, "footprint: unknown option 'shap', did you mean 'shape'?")
  end)
end)

describe("penumbra info MODEL", function()
  local scratch = helper.directory(teardown)

  local function run(...)
    local words = { shell.quote(program.exe) .. " info" }
    for _, word in ipairs { ... } do
      words[#words + 1] = shell.quote(word)
    end
    return shell.run(table.concat(words, " "))
  end

  local function write(name, text)
    local path = scratch .. "/" .. name
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return path
  end

  local function fails(message, ...)
    local output, code = run(...)
    assert.same({ "penumbra: " .. message .. "\n", 2 }, { output, code })
  end

  it("prints a line a layer, predicted and measured, and the sums", function()
    local output, code = run("models/fcn_i3d.lua", "frames=4", "size=64x96", "width=0.25", "batchnorm=batch", "threads=1")
    assert.equal(0, code, output)
    assert.matches("^models/fcn_i3d.lua: fcn_i3d, clip 1,3,4,64,96, f32, [%w_]+ kernels, 1 thread\n", output)
    assert.matches("\nconv3d_1a +1,3,4,64,96 %-> 1,16,2,32,48 +16,480 +0.051 +%d+.%d +%d+.%d\n", output)
    assert.matches("\nmixed_4f.branch1b +1,40,1,4,6 %-> 1,80,1,4,6 +86,480 ", output)
    assert.matches("\nmixed_4f %(itself%) ", output)
    assert.matches("\nin all +2,940,645 +%d+.%d+ +%d+.%d +%d+.%d\n", output)
    for _, line in ipairs { "inference, peak", "training step, peak", not sanitized and "resident, peak" or nil } do
      local predicted, measured = output:match("\n" .. line .. " +(%d+%.%d) MiB +(%d+%.%d) MiB")
      within(tonumber(predicted) * MiB, tonumber(measured) * MiB, 0.1, line)
    end
    assert.matches("of it the program itself", output)
  end)

  it("takes a name, a file of one's own, a recipe and its keys; predicts alone where asked, or where memory is short", function()
    local output = run("i3d", "frames=16", "width=0.125", "measure=false", "train=false")
    assert.matches("^models/i3d.lua: i3d, clip 1,3,16,224,224", output)
    assert.matches("\nlogits.conv +1,128,1,1,1 %-> 1,400,1,1,1 +51,600 ", output)
    assert.is_nil(output:find "training step")
    local own = write("own.lua", [[
      local nn = require("penumbra").nn
      return function(cfg) return nn.sequential { nn.conv3d { from = 3, to = 8 }, nn.relu() } end]])
    output = run(own, "frames=2", "size=8")
    assert.matches("sequential, clip 1,3,2,8,8", output)
    assert.matches("\nin all +32 ", output)
    output = run("oneshot", "width=0.0625", "crop=48", "frames=8", "recompute=true", "measure=false")
    assert.matches("clip 1,3,8,48,48", output)
    if sanitized then return end
    output = run("fcn_i3d", "frames=400", "size=1080x1920")
    assert.matches("\nnot measured: %d+%.%d GiB are needed, %d+%.%d GiB are free\n$", output)
  end)

  it("names what is wrong", function()
    fails("unknown key 'widht': the nearest is 'width' (penumbra info models/fcn_i3d.lua --help lists all)", "fcn_i3d", "widht=1")
    fails("info: size is '3x', expects pixels such as 224 or 480x864", "fcn_i3d", "size=3x")
    fails("info: frames is 0, expects a whole number from 1", "fcn_i3d", "frames=0")
    fails("info: batch is 1.5, expects a whole number from 1", "fcn_i3d", "batch=1.5")
    fails("measure: expects true or false, got 'maybe'", "fcn_i3d", "measure=maybe")
    fails("info: the first word is a model or a recipe, got 'frames=3'", "frames=3")
    fails("no file 'models/none.lua'", "models/none.lua")
    fails("info: recipes/evaluate.lua names no model (a recipe does so by require \"models.NAME\")", "evaluate")
    local keyless = write("keyless.lua", 'local nn = require("penumbra").nn\nreturn function() return nn.relu() end')
    fails(("info: unknown key 'width': %s returns a model without `defaults`, the table of its keys (docs/models.md)"):format(
      keyless), keyless, "frames=4", "width=8")
    local path = write("nothing.lua", "local x = 1")
    local expects = "expects a model (a function from a configuration to a module) or a recipe (pn.config)"
    fails(("info: %s returns nothing, %s"):format(path, expects), path)
    path = write("number.lua", "return function() return 3 end")
    fails("info: " .. path .. " makes a number, expects a module", path)
    path = write("lost.lua", "local pn = require 'penumbra'; local cfg = pn.config{}; require 'models.lost_one'(cfg)")
    fails("info: there is no models/lost_one.lua", path)
    local output, code = run("fcn_i3d", "batchnorm=frosen")
    assert.equal(1, code)
    assert.matches("batchnorm is 'frosen', did you mean 'frozen'?", output, 1, true)
    assert.matches("no command, recipe or file 'fcn_i3'", (run "fcn_i3"), 1, true)
  end)

  it("helps", function()
    local output, code = run "--help"
    assert.equal(0, code)
    assert.matches("size= +pixels: 224, or 480x864", output)
    output = run("fcn_i3d", "--help")
    assert.matches("recompute +false +keep only what leaves each layer", output)
    assert.matches("measure +true +run it as well", output)
  end)
end)
