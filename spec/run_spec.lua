-- run_spec: the directory of a run, its log and checkpoints, going on bit for bit, and every way a run can end badly.
local pn = require "penumbra"
local config = require "penumbra.config"
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local log = require "penumbra.run.log"
local progress = require "penumbra.run.progress"
local helper = require "spec.helper"
local lfs = require "lfs"
local shell = require "penumbra.base.shell"

local quote = shell.quote

local top

-- What resolves a word such as "out=..." as the program would.
local function resolved(word, more)
  local defaults = { seed = 5, epochs = 6, optim = { lr = 0.5 }, side_weight = function(e) return 1 / e end, quiet = true }
  for key, value in pairs(more or {}) do defaults[key] = value end
  return config.resolve(defaults, { word, "checkpoint_every=2", "device=cpu" }, { name = "recipes/toy.lua" })
end

local function configuration(out, more) return resolved("out=" .. top .. "/" .. out, more) end

-- Every file of a directory with its text.
local function contents(dir)
  local found = {}
  for name in lfs.dir(dir) do
    if files.exists(dir .. "/" .. name) then found[name] = files.read(dir .. "/" .. name) end
  end
  return found
end

-- Runs f; gives what it said on the standard error.
local function said(f)
  local lines, before = {}, io.stderr
  io.stderr = { write = function(_, ...) lines[#lines + 1] = table.concat { ... } end } -- luacheck: ignore
  local ok, problem = pcall(f)
  io.stderr = before -- luacheck: ignore
  assert(ok, problem)
  return table.concat(lines)
end

-- A part with state: a weight that moves by noise, an optimiser with a buffer and a step, a random stream.
local function toy(run)
  local net = { w = pn.tensor { { 1, 2 }, { 3, 4 } }:keep(), running = pn.tensor { 0.5 }:keep() }
  function net:state() return { ["layer.weight"] = self.w, ["layer.running"] = self.running } end
  function net:load_state(state)
    self.w:copy(state["layer.weight"])
    self.running:copy(state["layer.running"])
  end
  local optim = { step = 0, momentum = pn.zeros({ 2, 2 }):keep(), name = "toy", nesterov = true, rates = { 0.1, 1 / 3 } }
  function optim:state()
    return {
      step = self.step, buffers = { self.momentum }, name = self.name, nesterov = self.nesterov, rates = self.rates, none = {},
    }
  end
  function optim:load_state(state)
    self.step, self.name, self.nesterov, self.rates = state.step, state.name, state.nesterov, state.rates
    self.momentum:copy(state.buffers[1])
    assert(next(state.none) == nil)
  end
  local rng = run:random "noise"
  return net, optim, rng
end

-- The loop that every spec of going on runs; `stop` leaves it early.
local function train(out, epochs, stop, more)
  local run = pn.run(type(out) == "table" and out or configuration(out, more))
  local net, optim, rng = toy(run)
  run:keep { net = net, optim = optim, rng = rng }
  local seen = {}
  for epoch, batch in run:epochs(epochs, function(e) return pn.full { 2, 2, value = e } end) do
    seen[#seen + 1] = epoch
    local noise = rng:fill(pn.empty { 2, 2 }, "normal", 0, 1)
    optim.momentum:copy(optim.momentum * 0.9 + batch * noise)
    net.w:copy(net.w - optim.momentum * 0.125)
    optim.step = optim.step + 1
    run:log { loss = pn.mean(net.w * net.w), note = "x", rate = 1 / epoch }
    if epoch == stop then break end
  end
  run:close()
  return net, optim, rng, seen, run
end

describe("a run", function()
  setup(function()
    top = files.scratch()
  end)
  teardown(function() files.remove(top) end)

  it("leaves a directory with all that it takes to repeat it", function()
    local _, _, _, seen, run = train("whole", 6)
    assert.same({ 1, 2, 3, 4, 5, 6 }, seen)
    assert.equal(top .. "/whole", run.dir)
    local cfg = json.decode(files.read(run.dir .. "/config.json"))
    assert.equal(0.5, cfg.optim.lr)
    assert.equal("function(e) return 1 / e end", cfg.side_weight)
    local record = json.decode(files.read(run.dir .. "/run.json"))
    assert.equal("toy", record.recipe)
    assert.equal(5, record.seed)
    assert.equal(pn.version, record.sessions[1].versions.penumbra)
    assert.equal(0, record.sessions[1].from_epoch)
    local records = log.read(run.dir .. "/log.jsonl")
    assert.equal(6, #records)
    assert.equal(6, records[6].epoch)
    assert.equal("x", records[6].note)
    assert.equal("number", type(records[6].loss))
    assert.truthy(files.exists(run.dir .. "/loss.png"))
    assert.truthy(files.exists(run.dir .. "/curves/rate.png")) -- all else that is a number
    assert.equal(1, #pn.image.files(run.dir .. "/curves"))
    local tensors, metadata = pn.load(run.dir .. "/checkpoint.safetensors")
    assert.truthy(tensors["layer.weight"])
    assert.equal("6", metadata.epoch)
    assert.is_false(files.exists(run.dir .. "/checkpoint.safetensors.tmp"))
  end)

  it("keeps the best of its states", function()
    local function go(values, options)
      local run = pn.run(configuration "best")
      local net = toy(run)
      run:keep { net = net }
      local seen, from = {}, run.epoch
      for epoch in run:epochs(from + #values) do
        net.w:fill(epoch)
        seen[#seen + 1] = run:best(values[epoch - from], options)
      end
      run:close()
      return seen
    end
    local function best()
      local tensors, metadata = pn.load(top .. "/best/best.safetensors")
      return { tensors["layer.weight"]:get(1, 1), tonumber(metadata.best), tonumber(metadata.epoch) }
    end
    assert.same({ false, true, true, false, false }, go { 0 / 0, .3, .5, .4, .5 })
    assert.same({ 3, .5, 3 }, best())
    assert.same({ false, true }, go { .45, .6 }) -- it goes on, and remembers
    assert.same({ 7, .6, 7 }, best())
    assert.same({ true, false }, go({ .2, .3 }, { lower = true }))
    assert.same({ 8, .2, 8 }, best())
    local run = pn.run(configuration "unkept")
    helper.failure(function() run:best(1) end, "run:best: nothing is kept: run:keep{ net = net } names what a checkpoint holds")
    helper.failure(function() run:best() end, "run:best: the value is a nil, expects a number")
    helper.failure(function() run:best(1, { higher = true }) end, "run:best: unknown option 'higher' (known: lower)")
    run:close()
  end)

  it("that goes on equals one that never stopped, bit for bit", function()
    local net, optim, rng = train("never", 6)
    train("twice", 6, 5) -- leaves in epoch 5: the checkpoint is that of epoch 4, the log knows of 5
    local net2, optim2, rng2, seen = train("twice", 6)
    assert.same({ 5, 6 }, seen)
    helper.assert_same_bits(net.w, net2.w)
    helper.assert_same_bits(net.running, net2.running)
    helper.assert_same_bits(optim.momentum, optim2.momentum)
    for _, field in ipairs { "step", "name", "nesterov", "rates" } do assert.same(optim[field], optim2[field]) end
    assert.same(rng:state(), rng2:state())
    local function losses(out)
      local list = {}
      for i, record in ipairs(log.read(top .. "/" .. out .. "/log.jsonl")) do list[i] = { record.epoch, record.loss } end
      return list
    end
    assert.same(losses "never", losses "twice")
    local record = json.decode(files.read(top .. "/twice/run.json"))
    assert.same({ 0, 4 }, { record.sessions[1].from_epoch, record.sessions[2].from_epoch })
  end)

  it("of layers and SGD goes on bit for bit too, and net:load_state reads the checkpoint", function()
    local function learn(out, epochs)
      local run = pn.run(configuration(out))
      local net = pn.nn.sequential { pn.nn.conv3d { from = 2, to = 3, kernel = 3 }, pn.nn.relu {},
        pn.nn.conv3d { from = 3, to = 1, kernel = 1 } }
      net:reset(3)
      local sgd = pn.optim.sgd(net:parameters(), { lr = 0.05, momentum = 0.9, weight_decay = 1e-3 })
      run:keep { net = net, optim = sgd }
      for epoch in run:epochs(epochs) do
        local x = helper.random({ 1, 2, 3, 5, 5 }, "x" .. epoch)
        local loss = pn.mean(pn.square(net(x)))
        sgd:zero_grad()
        loss:backward()
        sgd:step()
        run:log { loss = loss }
      end
      run:close()
      return net
    end
    local whole = learn("layers", 4)
    learn("layers2", 2)
    local again = learn("layers2", 4)
    local n = 0
    for name, t in pairs(whole:state()) do
      helper.assert_same_bits(t, again:state()[name], name)
      n = n + 1
    end
    assert.equal(4, n)
    local state = pn.load(top .. "/layers2/checkpoint.safetensors")
    local net_state = {}
    for name, t in pairs(state) do
      if name:sub(1, 1) ~= "@" then net_state[name] = t end
    end
    again:load_state(net_state)
  end)

  it("with more epochs goes on after the last", function()
    train("longer", 4)
    local _, _, _, seen = train("longer", 6)
    assert.same({ 5, 6 }, seen)
    local _, _, _, none = train("longer", 6)
    assert.same({}, none)
  end)

  describe("of which out= names the directory again", function()
    before_each(function()
      files.remove(top .. "/again")
      train("again", 4, nil, { epochs = 4 })
    end)

    it("is refused with other keys, and stays as it was", function()
      local before = contents(top .. "/again")
      local message = "out: %s/again holds a run with other keys (optim.lr: 0.25, was 0.5): choose another out=, or give "
        .. "resume=%s/again to go on with these"
      helper.failure(function() train("again", 4, nil, { epochs = 4, optim = { lr = 0.25 } }) end, message:format(top, top))
      helper.failure(function() train("again", 2, nil, { epochs = 2 }) end, "(epochs: 2, was 4)")
      helper.failure(function() train("again", 4, nil, { epochs = 4, note = "x" }) end, '(note: "x", was nothing)')
      local weight = function(e) return 2 / e end
      helper.failure(function() train("again", 4, nil, { epochs = 4, side_weight = weight }) end,
        '(side_weight: "function(e) return 2 / e end", was "function(e) return 1 / e end")')
      assert.same(before, contents(top .. "/again"))
    end)

    it("goes on where epochs alone has grown", function()
      local text = said(function()
        train("aloud", 4, nil, { epochs = 4, quiet = false })
        local _, _, _, seen = train("aloud", 6, nil, { epochs = 6, quiet = false })
        assert.same({ 5, 6 }, seen)
      end)
      assert.truthy(text:find("with another epochs: 6, was 4", 1, true), text)
      assert.equal(6, json.decode(files.read(top .. "/aloud/config.json")).epochs)
    end)

    it("takes other keys with resume=; they are on record once a turn is done", function()
      local function lr() return json.decode(files.read(top .. "/again/config.json")).optim.lr end
      local cfg = resolved("resume=" .. top .. "/again")
      cfg.optim.lr, cfg.epochs, cfg.quiet = 0.125, 4, false
      local text = said(function() train(cfg, 4) end)
      assert.truthy(text:find("with another optim.lr: 0.125, was 0.5\n", 1, true), text)
      assert.truthy(text:find("nothing left to train: 4 of 4 epochs are done\n", 1, true), text)
      assert.equal(0.5, lr())
      cfg.quiet = true
      helper.failure(function()
        for _ in pn.run(cfg):epochs(5) do error "in the first turn" end
      end, "in the first turn")
      assert.equal(0.5, lr())
      train(cfg, 5)
      assert.equal(0.125, lr())
      assert.equal(top .. "/again", cfg.resume)
      assert.is_nil(files.read(top .. "/again/config.json"):find("resume", 1, true))
      assert.is_nil(select(2, pn.load(top .. "/again/checkpoint.safetensors")).config:find("resume", 1, true))
      local sessions = json.decode(files.read(top .. "/again/run.json")).sessions
      assert.same({ "optim.lr: 0.125, was 0.5" }, sessions[#sessions].changes)
      assert.is_nil(sessions[1].changes)
    end)

    it("says nothing of a device that it was not given", function()
      local defaults = { seed = 5, epochs = 4, quiet = false }
      local function cfg(word) return config.resolve(defaults, { word .. top .. "/again" }, { name = "recipes/toy.lua" }) end
      files.remove(top .. "/again")
      local text = said(function()
        train(cfg "out=", 4)
        train(cfg "resume=", 4)
        train(cfg "out=", 4)
      end)
      assert.truthy(text:find("going on after epoch 4", 1, true), text)
      assert.is_nil(text:find("with another", 1, true), text)
      assert.equal("auto", json.decode(files.read(top .. "/again/config.json")).device)
    end)

    it("goes on on another device", function()
      local cfg = configuration("again", { epochs = 4, quiet = true })
      cfg.device = "auto"
      local _, _, _, seen = train(cfg, 6)
      assert.same({ 5, 6 }, seen)
    end)

    it("does not take another directory in resume=", function()
      local cfg = configuration "other"
      cfg.resume = top .. "/again/"
      helper.failure(function() pn.run(cfg) end, ("out=%s/other and resume=%s/again: a run goes on in its own directory; give one "
        .. "of the two"):format(top, top))
      assert.is_false(files.exists(top .. "/other", "directory"))
      cfg.out = top .. "/again"
      pn.run(cfg):close()
    end)
  end)

  describe("holds its directory alone", function()
    local program = require "penumbra.program"
    -- Another process: opens a run in `out`, says so, and waits to be killed.
    local function other(out)
      local script, noted = top .. "/other.lua", top .. "/other-process"
      os.remove(noted)
      assert.is_nil(files.write(script, ([[
        local pn = require "penumbra"
        pn.run(pn.config { out = %q, quiet = true })
        io.popen("sleep 60 & echo $PPID $! >%s.tmp; mv %s.tmp %s", "w") -- a child that outlives us has no part in it
        while true do os.execute "sleep 0.1" end
      ]]):format(out, noted, noted, noted)))
      os.execute(quote(program.exe) .. " " .. quote(script) .. " >/dev/null 2>&1 &")
      for _ = 1, 200 do
        if files.exists(noted) then break end
        os.execute "sleep 0.05"
      end
      return files.read(noted):match "(%d+) (%d+)"
    end

    it("against other processes, until they end, however they end", function()
      local dir = top .. "/mine"
      local process, child = other(dir)
      local before = contents(dir)
      helper.failure(function() pn.run(configuration "mine") end, ("out: %s is in use by process %s"):format(dir, process))
      assert.same(before, contents(dir))
      os.execute("kill -9 " .. process)
      local ok, run
      for _ = 1, 100 do -- until the system has ended it
        ok, run = pcall(pn.run, configuration "mine")
        if ok then break end
        os.execute "sleep 0.02"
      end
      assert.is_true(ok, tostring(run))
      assert.truthy(shell.succeeds("kill -0 " .. child))
      os.execute("kill " .. child)
      local each = ("%s each oneshot davis=%s sequences=walk out=%s"):format(quote(program.exe), quote(top .. "/set"), quote(dir))
      pn.data.toy.write(top .. "/set", { sequences = { "walk" }, frames = 3, height = 48, width = 64 })
      local text, code = shell.run(each)
      assert.equal(2, code)
      local mine = files.read "/proc/self/stat":match "^%d+"
      assert.truthy(text:find(("out: %s is in use by process %s\n"):format(dir, mine), 1, true), text)
      run:close()
      assert.is_nil((shell.run(each .. " weights=nowhere.safetensors")):find("in use", 1, true))
    end)

    it("and names the machine of another's, where it is another", function()
      local dir = top .. "/afar"
      local process, child = other(dir)
      assert.is_nil(files.write(top .. "/text", "77 elsewhere\n"))
      os.execute(("cat %s >%s/.lock"):format(quote(top .. "/text"), quote(dir)))
      helper.failure(function() pn.run(resolved("out=" .. dir)) end, dir .. " is in use by process 77 on elsewhere")
      os.execute((": >%s/.lock"):format(quote(dir)))
      helper.failure(function() pn.run(resolved("out=" .. dir)) end, dir .. " is in use by another process")
      os.execute(("kill -9 %s; kill %s"):format(process, child))
    end)

    it("but not against its own", function()
      local function is_free()
        return shell.succeeds(("flock -n %s/.lock true"):format(quote(top .. "/twofold")))
      end
      local first = pn.run(configuration "twofold")
      first:keep { net = (toy(first)) }
      first:checkpoint()
      helper.failure(function() pn.run(configuration("twofold", { epochs = 3 })) end, "holds a run with other keys")
      assert.is_false(is_free())
      pn.run(configuration "twofold"):close()
      assert.is_true(is_free())
      helper.failure(function() pn.run(configuration("twofold", { epochs = 3 })) end, "holds a run with other keys")
      assert.is_true(is_free())
      first:close()
      files.remove(top .. "/twofold")
      pn.run(configuration "twofold"):close()
    end)
  end)

  it("goes on without its config.json, by the keys in its checkpoint", function()
    train("bare", 4, nil, { optim = { lr = 0.25 } })
    os.remove(top .. "/bare/config.json")
    local cfg = resolved("resume=" .. top .. "/bare")
    assert.equal(0.25, cfg.optim.lr)
    local _, _, _, seen = train(cfg, 6)
    assert.same({ 5, 6 }, seen)
    assert.equal(0.25, json.decode(files.read(top .. "/bare/config.json")).optim.lr)
  end)

  it("goes on with the functions of its recipe, which may use the recipe's locals", function()
    local program = require "penumbra.program"
    local script = top .. "/closures.lua"
    assert.is_nil(files.write(script, [[
      local pn = require "penumbra"
      local decay = 2
      local function weight(epoch) return decay * epoch end
      local cfg = pn.config { epochs = 2, weight = weight, a = function() return decay end, b = function() return -decay end }
      local run = pn.run(cfg)
      local net = { w = pn.zeros({ 1 }):keep(), state = function(self) return { w = self.w } end, load_state = function() end }
      run:keep { net = net }
      for epoch in run:epochs(cfg.epochs) do print(epoch, cfg.weight(epoch), cfg.a(), cfg.b()) end
    ]]))
    local function go(words) return shell.run(("%s %s %s 2>/dev/null"):format(quote(program.exe), quote(script), words)) end
    assert.same({ "1\t2\t2\t-2\n2\t4\t2\t-2\n", 0 }, { go("out=" .. quote(top .. "/closures")) })
    assert.same({ "3\t6\t2\t-2\n", 0 }, { go("epochs=3 resume=" .. quote(top .. "/closures")) })
    assert.same({ "4\t8\t2\t-2\n", 0 }, { go("epochs=4 out=" .. quote(top .. "/closures")) })
  end)

  it("keeps its recipe and what that required, and says what has changed when it goes on", function()
    local program = require "penumbra.program"
    local home, out = top .. "/theirs", top .. "/theirs/out"
    assert.is_nil(files.make_directory(home .. "/lib/deep"))
    local function write(name, text) assert.is_nil(files.write(home .. "/" .. name, text)) end
    local function kept(name) return files.read(out .. "/" .. name) end
    local recipe = [[
      local pn = require "penumbra"
      local cfg = pn.config { epochs = 2 }
      local run = pn.run(cfg)
      local net = { w = pn.zeros({ 1 }):keep(), state = function(self) return { w = self.w } end, load_state = function() end }
      run:keep { net = net }
      local step, deep = require "lib.step", require "lib.deep" -- once the run is there
      for epoch in run:epochs(cfg.epochs) do net.w:fill(step(epoch) + deep) end
    ]]
    write("mine.lua", recipe)
    write("lib/step.lua", "return function(epoch) return epoch end")
    write("lib/deep/init.lua", "return 1")
    write("lib/unused.lua", "return 2")
    local function go(words)
      local text, code = shell.run(("cd %s && %s mine.lua %s"):format(quote(home), quote(program.exe), words))
      assert.equal(0, code, text)
      return text
    end
    assert.is_nil(go("out=out"):find("changed", 1, true))
    assert.equal(recipe, kept "source/mine.lua")
    assert.equal("return function(epoch) return epoch end", kept "source/lib/step.lua")
    assert.equal("return 1", kept "source/lib/deep/init.lua")
    for _, name in ipairs { "lib/unused.lua", "penumbra/run/init.lua", "penumbra/init.lua" } do
      assert.is_nil(kept("source/" .. name))
    end
    local list = json.decode(kept "run.json").sessions[1].source
    assert.same({ "lib/deep/init.lua", "lib/step.lua", "mine.lua" }, { list[1].file, list[2].file, list[3].file })
    assert.equal(pn.formats.sha256(home .. "/mine.lua"), list[3].sha256)
    assert.equal("lib.step", list[2].module)

    assert.is_nil(go("resume=out epochs=3"):find("changed", 1, true))
    write("mine.lua", recipe .. "-- edited")
    write("lib/step.lua", "return function(epoch) return 2 * epoch end")
    assert.truthy(go("resume=out"):find("  changed since: lib/step.lua, mine.lua\n", 1, true)) -- nothing is left to train
    assert.equal(recipe, kept "source/mine.lua")
    os.remove(home .. "/lib/deep/init.lua")
    write("mine.lua", (recipe:gsub(', deep = require "lib.step", require "lib.deep"', ' = require "lib.step" local deep = 1')))
    assert.truthy(go("resume=out epochs=4"):find("  changed since: lib/deep/init.lua (gone), lib/step.lua, mine.lua\n", 1, true))
    assert.equal("return function(epoch) return 2 * epoch end", kept "source/lib/step.lua")
    assert.equal("return function(epoch) return epoch end", kept "source-to-epoch-3/lib/step.lua")
    assert.equal(recipe, kept "source-to-epoch-3/mine.lua")
    assert.is_nil(go("resume=out epochs=5"):find("changed", 1, true))
    assert.is_false(files.exists(out .. "/source-to-epoch-4", "directory"))

    files.remove(out)
    assert.is_nil(files.make_directory(out))
    write("out/source", "in the way")
    local text, code = shell.run(("cd %s && %s mine.lua out=out"):format(quote(home), quote(program.exe)))
    assert.equal(1, code)
    assert.truthy(text:find("out/source: cannot make the directory: it is a file", 1, true), text)
  end)

  it("records its keys when something was made with them, not before", function()
    local function recorded(out) return files.exists(top .. "/" .. out .. "/config.json") end
    helper.failure(function()
      for _ in pn.run(configuration "early"):epochs(2) do error "in the first turn" end
    end, "in the first turn")
    assert.is_false(recorded "early")
    local run = pn.run(configuration "early")
    for epoch in run:epochs(2) do assert.equal(epoch == 2, recorded "early") end
    run:close()
    pn.run(configuration "loopless"):close()
    assert.is_true(recorded "loopless")
    pn.run(configuration "own_loop"):log { loss = 1 }
    assert.is_true(recorded "own_loop")
    for _ in pn.run(configuration "turnless"):epochs(0) do error "a turn" end
    assert.is_true(recorded "turnless")
  end)

  it("frees what a turn made", function()
    local run = pn.run(configuration "scopes")
    collectgarbage() -- what earlier specs left would go meanwhile
    collectgarbage()
    local before = pn.memory("cpu").live
    for _ in run:epochs(3) do pn.zeros { 64, 64 } end
    assert.equal(before, pn.memory("cpu").live)
    local held
    for _ in run:epochs(4, { "a" }) do held = pn.zeros { 4 } end
    assert.truthy(helper.failure(function() held:item() end))
    run:close()
  end)

  it("gives batches from a function, a list, or an object, several an epoch where it says so", function()
    local run = pn.run(configuration "sources")
    local seen = {}
    for epoch, batch in run:epochs(3, { "a", "b" }) do seen[#seen + 1] = epoch .. batch end
    local object = { per_epoch = 2, batch = function(_, epoch, i) return epoch * 10 + i end }
    for _, batch, i in run:epochs(5, object) do seen[#seen + 1] = batch .. ":" .. i end
    assert.same({ "1a", "2b", "3a", "41:1", "42:2", "51:1", "52:2" }, seen)
    helper.failure(function() run:epochs(6, 7)() end, "run:epochs: the source is a function of the epoch")
    run:close()
  end)

  it("names itself by recipe, sequence and time when it is not told", function()
    local here = lfs.currentdir()
    assert(lfs.chdir(top))
    local ok, problem = pcall(function()
      local cfg = config.resolve({ sequence = "car/shadow", quiet = true }, {}, { name = "recipes/oneshot.lua" })
      local first, second = pn.run(cfg), pn.run(cfg)
      assert.truthy(first.dir:match "^out/oneshot%-car%-shadow%-%d+%-%d+$")
      assert.are_not.equal(first.dir, second.dir)
      first:close()
      second:close()
    end)
    assert(lfs.chdir(here))
    assert(ok, problem)
  end)

  describe("ends with a clear error:", function()
    it("the directory cannot be made", function()
      local file = top .. "/afile"
      assert.is_nil(files.write(file, "x"))
      helper.failure(function() pn.run(configuration "afile") end, "out: " .. file .. ": cannot make the directory: it is a file")
      helper.failure(function() pn.run(configuration "afile/below/it") end, "out: " .. file, "cannot make the directory")
      local cfg = config.resolve({}, { "out=/proc/nowhere" }, { name = "toy" })
      helper.failure(function() pn.run(cfg) end, "out: /proc/nowhere: cannot make the directory: ")
    end)

    it("the directory cannot be written", function()
      if shell.line "id -u" == "0" then
        local cfg = config.resolve({}, { "out=/proc" }, { name = "toy" })
        helper.failure(function() pn.run(cfg) end, "cannot write /proc/run.json: ")
      else
        assert(lfs.mkdir(top .. "/sealed"))
        os.execute("chmod 555 " .. quote(top .. "/sealed"))
        helper.failure(function() pn.run(configuration "sealed") end,
          "cannot write " .. top .. "/sealed/run.json: Permission denied")
      end
    end)

    it("the disk is full when the log is written; a checkpoint is kept", function()
      local run = pn.run(configuration "full")
      local net, optim, rng = toy(run)
      run:keep { net = net, optim = optim, rng = rng }
      run.journal:close()
      run.journal.file = assert(io.open("/dev/full", "w"))
      run.journal.path = "/dev/full"
      helper.failure(function()
        for _ in run:epochs(3) do run:log { loss = 1 } end
      end, "cannot write /dev/full: No space left on device; go on with resume=" .. run.dir)
      run:close()
      assert.equal("0", select(2, pn.load(run.dir .. "/checkpoint.safetensors")).epoch)
    end)

    it("the checkpoint cannot be written; the one before stands", function()
      local run = pn.run(configuration "stuck")
      local net, optim, rng = toy(run)
      run:keep { net = net, optim = optim, rng = rng }
      run:checkpoint()
      local path = run.checkpoint_path
      run.checkpoint_path = top .. "/gone/checkpoint.safetensors"
      helper.failure(function() run:checkpoint() end, "cannot write " .. top .. "/gone/checkpoint.safetensors: ",
        "the checkpoint of epoch 0 still stands: make room and go on with resume=" .. run.dir)
      assert.truthy(pn.load(path))
      run:close()
    end)

    it("there is nothing to go on with", function()
      helper.failure(function() pn.run { resume = top .. "/nowhere" } end,
        "resume: there is no " .. top .. "/nowhere/checkpoint.safetensors")
    end)

    it("the checkpoint is damaged, of something else, of another recipe, or holds another net", function()
      train("damaged", 2)
      local path = top .. "/damaged/checkpoint.safetensors"
      local text = files.read(path)
      local other = config.resolve({ quiet = true }, { "out=" .. top .. "/damaged" }, { name = "recipes/parent.lua" })
      helper.failure(function() pn.run(other) end, path .. ": belongs to the recipe 'toy', this is 'parent': choose another out=")
      local run = pn.run(configuration "damaged")
      helper.failure(function() run:keep { other = toy(run) } end, path .. ": holds nothing for 'other'")
      run:close()
      assert.is_nil(files.write(path, text:sub(1, #text - 7)))
      helper.failure(function() pn.run(configuration "damaged") end, path)
      pn.save(path, { w = pn.zeros { 1 } })
      helper.failure(function() pn.run(configuration "damaged") end, path .. ": not a checkpoint of a run")
    end)

    it("a loss is not finite: the log names the loss, the guard the layer", function()
      local run = pn.run(configuration "nan")
      helper.failure(function()
        for epoch in run:epochs(3) do run:log { side_loss = epoch == 2 and 0 / 0 or 1 } end
      end, "side_loss is nan at epoch 2", "run:guard(loss, function() return net(...) end) before the backward pass names the")
      helper.failure(function()
        for _ in run:epochs(3) do run:log { loss = pn.tensor(math.huge) } end
      end, "loss is inf at epoch")

      local x = pn.tensor { 1, -1 }
      local loss = pn.mean(pn.log(x))
      helper.failure(function() run:guard(loss, function() return pn.exp(pn.log(x)) end) end, "loss is nan at epoch", "log: ")
      assert.is_false(pn.C.pn_trapping_nan())
      helper.failure(function() run:guard(loss, function() return x end) end, "every layer is finite, the loss itself is not")
      local fine = pn.tensor(1)
      assert.equal(fine, run:guard(fine, error))

      local net = toy(run)
      run:keep { net = net }
      net.w:set(0 / 0, 1, 1)
      helper.failure(function() run:guard(loss, error) end, "the values of layer.weight are not finite")
      helper.failure(function() run:log { loss = loss } end, "the values of layer.weight are no longer finite")
      run:close()
    end)

    it("wrong arguments", function()
      helper.failure(function() pn.run(5) end, "pn.run: expects a configuration, got number")
      local run = pn.run(configuration "wrong")
      helper.failure(function() run:keep(3) end, "run:keep: expects a table of named parts, got number")
      helper.failure(function() run:keep { net = {} } end, "run:keep: net has no state()")
      helper.failure(function() run:log(3) end, "run:log: expects a table, got number")
      helper.failure(function() run:log { loss = pn.zeros { 2 } } end, "run:log: loss has 2 elements, expects one")
      helper.failure(function() run:log { loss = {} } end, "run:log: loss is a table")
      helper.failure(function() run:epochs(1.5) end, "run:epochs: expects the number of epochs, got 1.5")
      helper.failure(function() for _ in run:epochs(2) do pn.scope.push() end end, "run:epochs: 1 scope(s) were pushed in the loop")
      run:unwind()
      helper.failure(function() run:save_masks(3, {}) end, "run:save_masks: expects masks u8 (T,H,W), got number")
      local masks = pn.zeros { 1, 2, 2, dtype = "u8" }
      helper.failure(function() run:save_masks(masks, 3) end, "run:save_masks: expects a clip, got number")
      helper.failure(function() run:finish(masks, {}, 3) end, "run:finish: expects probabilities u8 (T,H,W), got number")
      helper.failure(function() run:finish(masks, {}, pn.zeros { 1, 2, 3, dtype = "u8" }) end,
        "run:finish: probabilities are 1,2,3, the masks 1,2,2")
      helper.failure(function() run:checkpoint { bad = { state = function() return { f = print } end } } end,
        "checkpoint: @bad/f is a function, which a checkpoint cannot hold")
      run:close()
    end)
  end)

  it("keeps nothing, writes nothing", function()
    local run = pn.run(configuration "nothing")
    assert.is_nil(run:checkpoint())
    run:close()
  end)

  describe("that is told to stop", function()
    local program = require "penumbra.program"
    local script
    local notice = "stopping after this epoch; Ctrl-C again stops at once\n"

    -- In epoch 3, of two batches, comes a signal, so many times. Gives what the program said, its exit code, and the line to go on.
    local function stop(signal, times, words, before)
      local out = top .. "/stopped"
      files.remove(out)
      local output, code = shell.run(("%s %s %s signal=%s times=%d out=%s %s; exit $?"):format(before or "", quote(program.exe),
        quote(script), signal, times, quote(out), words or ""))
      return output, code, ("stopped after epoch 3; go on with: penumbra %s resume=%s\n"):format(script, out)
    end

    setup(function()
      script = top .. "/stop.lua"
      assert.is_nil(files.write(script, [[
        local pn = require "penumbra"
        local cfg = pn.config { signal = "INT", times = 1, epochs = 1000 }
        local run = pn.run(cfg)
        local net = { w = pn.zeros({ 1 }):keep(), state = function(self) return { w = self.w } end, load_state = function() end }
        run:keep { net = net }
        for epoch, _, i in run:epochs(cfg.epochs, { per_epoch = 2, batch = function() end }) do
          if epoch == 3 and i == 1 then
            for _ = 1, cfg.times do io.popen("kill -" .. cfg.signal .. " $PPID"):close() end
            io.stderr:write "still here\n"
          end
          net.w:fill(epoch)
        end
        print "the end"
      ]]))
    end)

    for _, signal in ipairs { "INT", "TERM", "HUP" } do
      it("by SIG" .. signal .. " ends the epoch at hand, with a checkpoint and the line to go on with", function()
        local output, code, advice = stop(signal, 1)
        assert.equal(notice .. "still here\n" .. advice, output:sub(-#notice - #advice - 11))
        assert.equal(130, code)
        assert.equal(3, pn.load(top .. "/stopped/checkpoint.safetensors").w:item())
      end)
    end

    it("a second time stops at once", function()
      for signal, number in pairs { INT = 2, TERM = 15 } do
        local output, code = stop(signal, 2)
        assert.equal(128 + number, code)
        assert.truthy(output:find(notice, 1, true), output)
        assert.is_nil(output:find("still here", 1, true), output)
        assert.is_false(files.exists(top .. "/stopped/checkpoint.safetensors"))
      end
    end)

    it("in its last epoch does not go on to what follows", function()
      local output, code, advice = stop("INT", 1, "epochs=3")
      assert.equal(advice, output:sub(-#advice))
      assert.equal(130, code)
    end)

    it("by SIGHUP goes on where nohup has it ignored", function()
      local output, code = stop("HUP", 2, "epochs=5", "trap '' HUP;")
      assert.equal("the end\n", output:match "[^\n]*\n$")
      assert.equal(0, code)
    end)
  end)
end)

describe("masks and scores", function()
  local function clip_of(n, with_masks)
    return {
      name = "toy", n_frames = n, height = 8, width = 10, frame_name = function(_, i) return ("%05d"):format(i - 1) end,
      frame = function() return pn.full { 8, 10, 3, dtype = "u8", value = 90 } end,
      has_mask = function() return with_masks end,
      masks = function()
        local masks = pn.zeros { n, 8, 10, dtype = "u8" }
        for t = 1, n do
          for y = 2, 5 do for x = 1 + t, 4 + t do masks:set(1, t, y, x) end end
        end
        return masks
      end,
    }
  end

  setup(function()
    top = files.scratch()
  end)
  teardown(function() files.remove(top) end)

  it("are written as DAVIS reads them, scored, and shown in one page", function()
    local run = pn.run(configuration "scored")
    for epoch in run:epochs(3) do run:log { loss = 1 / epoch } end
    local clip = clip_of(5, true)
    local score = run:score(run:save_masks(clip:masks(), clip), clip)
    assert.equal(1, score.J.mean)
    local again = pn.image.read_mask(top .. "/scored/masks/toy/00002.png")
    assert.same({ 0, 1 }, { again:get(2, 3), again:get(2, 4) })
    assert.truthy(files.exists(top .. "/scored/overlays/toy/00004.png"))
    local scores = json.decode(files.read(top .. "/scored/scores.json"))
    assert.equal(1, scores.sequences.toy.F.mean)
    assert.equal(1, scores.mean.J.recall)
    local page = files.read(top .. "/scored/report.html")
    local wanted = { "data:image/png;base64,", "<td>toy<td class=\"n\">100.0", "<code>optim.lr</code>" }
    for _, text in ipairs(wanted) do
      assert.truthy(page:find(text, 1, true), text)
    end
    assert.is_false(files.exists(top .. "/scored/.report.png"))
    run:close()
  end)

  it("are scored before pictures are made, for which there may be no room", function()
    local clip = clip_of(5, true)
    local run = pn.run(configuration "crowded")
    assert.is_nil(files.write(run.dir .. "/masks", "in the way"))
    helper.failure(function() run:finish(clip:masks(), clip) end, "crowded/masks", "cannot make the directory")
    assert.equal(1, json.decode(files.read(run.dir .. "/scores.json")).sequences.toy.J.mean)
    run:close()
    local place = { dir = top .. "/crowded-work", quiet = true } -- what a worker does
    assert.is_nil(files.make_directory(place.dir) or files.write(place.dir .. "/masks", "in the way"))
    package.loaded["spec.toy"] = { clip = clip_of }
    helper.failure(function() require("penumbra.run.results").work(place, clip:masks(), nil, "spec.toy", "clip", 5, true) end,
      "crowded-work/masks", "cannot make the directory")
    package.loaded["spec.toy"] = nil
    assert.equal(1, json.decode(files.read(place.dir .. "/scores.json")).sequences.toy.J.mean)
  end)

  it("are not scored where there is nothing to score against", function()
    local run = pn.run(configuration "unscored")
    local clip = clip_of(3, false)
    assert.is_nil(run:score(clip:masks(), clip))
    assert.truthy(files.exists(run.dir .. "/config.json")) -- it has no loop
    clip = clip_of(1, true)
    assert.is_nil(run:score(clip:masks(), clip))
    assert.is_false(files.exists(run.dir .. "/scores.json"))
    helper.failure(function() run:score(clip:masks(), clip_of(2, true)) end,
      "run:score: masks are 1,8,10, the clip toy is 2,8,10")
    run:close()
  end)
end)

describe("progress", function()
  local function line(terminal, width, waited)
    local now, text = 0, ""
    local p = progress.new {
      total = 200, clock = function() return now end, terminal = terminal, width = width,
      write = function(piece) text = text .. piece end, memory = function() return 600 * 2 ^ 20, 1.7 * 2 ^ 30 end,
    }
    for i = 1, 50 do
      now = now + 2
      p:loss(0.25)
      if waited then p:wait(waited) end
      p:update(i)
    end
    return text
  end

  it("updates a line on a terminal, within its width", function()
    local text = line(true, 100)
    local last = text:match "\r([^\r]*)\27%[K\r$"
    assert.truthy(last:find("^epoch  50/200 ━+"))
    assert.truthy(last:find("loss 0.25  2.00 s/step  5:00 to go  600 MiB (peak 1.7 GiB)", 1, true))
    assert.is_nil(text:find("\n", 1, true))
    for narrow in line(true, 50):gmatch "\r([^\r]*)\27" do assert.is_true(#narrow < 50) end
  end)

  it("says how long a step waits for its data, where that is worth a word", function()
    assert.truthy(line(true, 120, 0.0031):find("2.00 s/step  data 3.1 ms  5:00 to go", 1, true))
    assert.truthy(line(true, 120, 0.25):find("2.00 s/step  data 250 ms  5:00 to go", 1, true))
    assert.is_nil(line(true, 120, 0.00001):find("data", 1, true))
  end)

  it("writes a line now and then elsewhere", function()
    local _, n = line(false):gsub("\n", "\n")
    assert.is_true(n >= 4 and n <= 8, n .. " lines")
    assert.is_nil(line(false):find("\27", 1, true))
  end)

  it("reads durations and sizes aloud", function()
    assert.same({ "0:07", "12:30", "3:05:00" }, { progress.duration(7.2), progress.duration(750), progress.duration(11100) })
    assert.same({ "512 MiB", "1.7 GiB" }, { progress.size(2 ^ 29), progress.size(1.7 * 2 ^ 30) })
  end)
end)

describe("json and files", function()
  it("write what reads back the same", function()
    local value = { a = { 1, 2.5, 1 / 3 }, b = { c = "x\"\n\1", d = true }, e = {}, f = 1e300 }
    assert.same(value, json.decode(json.line(value)))
    assert.same(value, json.decode(json.pretty(value)))
    assert.equal('{"b": null, "a": 1}', json.line({ a = 1, b = 0 / 0 }, { "b" }))
    local nothing, problem = json.decode "{"
    assert.is_nil(nothing)
    assert.truthy(problem)
    assert.truthy(helper.failure(function() json.line { print } end, "json: cannot write a function"))
  end)

  it("say why they cannot", function()
    assert.equal("cannot write /nowhere/x: No such file or directory", files.write("/nowhere/x", "text"))
    assert.equal("cannot write /proc/x: No such file or directory", files.write("/proc/x", "text"))
    assert.is_nil(files.read "/nowhere/x")
    helper.failure(function() log.open "/nowhere/log" end, "cannot write /nowhere/log: No such file or directory")
  end)
end)
