--- compare_spec: runs beside each other: settings, means over what is in common, spread over seeds, and what is refused.
local lfs = require "lfs"
local pn = require "penumbra"
local files = require "penumbra.base.files"
local compare = require "penumbra.compare"
local recipe = require "spec.recipe"

local here = recipe.on "/nowhere" -- on the CPU
local scratch = here.scratch

-- What a run leaves, by hand: its keys, seed, scores { sequence = { J, F } }, losses.
local function record(dir, given)
  assert(lfs.mkdir(dir))
  local config = { seed = given.seed or 1, epochs = 2, sequence = given.sequence, out = dir, threads = given.threads }
  for key, value in pairs(given.keys or {}) do config[key] = value end
  local sequences = {}
  for name, score in pairs(given.scores or {}) do
    sequences[name] = { J = { mean = score[1], recall = 1, decay = 0 }, F = { mean = score[2], recall = 1, decay = 0 } }
  end
  local session = { commit = given.commit or "abc", source = { { file = "mine.lua", sha256 = given.source or ("0"):rep(64) } } }
  assert(not files.write(dir .. "/config.json", pn.json.pretty(config)))
  assert(not files.write(dir .. "/run.json", pn.json.pretty { recipe = given.recipe or "oneshot", sessions = { session } }))
  if given.scores then assert(not files.write(dir .. "/scores.json", pn.json.pretty { sequences = sequences })) end
  local lines = {}
  for i, loss in ipairs(given.losses or { 1, 0.5 }) do
    lines[i] = pn.json.line { epoch = i, step = i, loss = loss, seconds = given.seconds and given.seconds[i] or i }
  end
  assert(not files.write(dir .. "/log.jsonl", table.concat(lines, "\n") .. "\n" .. (given.half or "")))
end

local function folder(name)
  local dir = scratch .. "/" .. name
  assert(lfs.mkdir(dir))
  return dir
end

local function holds(text, ...)
  for _, part in ipairs { ... } do assert.truthy(text:find(part, 1, true), ("no '%s' in\n%s"):format(part, text)) end
end

describe("compare", function()
  teardown(function() files.remove(scratch) end)

  it("makes one setting of what differs in seed and sequence alone, and holds the others against the first", function()
    local dir = folder "seeds"
    local function keys(lr) return { optim = { lr = lr }, skips = { "1a", "2c" } } end
    record(dir .. "/a1", { keys = keys(1e-4), seed = 1, scores = { goat = { 0.80, 0.70 } }, threads = 1 })
    record(dir .. "/a2", { keys = keys(1e-4), seed = 2, scores = { goat = { 0.84, 0.72 } } })
    record(dir .. "/b1", { keys = keys(1e-3), seed = 1, scores = { goat = { 0.90, 0.60 } } })
    local found = compare.settings(compare.read { dir })
    assert.same({ "optim.lr" }, found.differ)
    assert.same({ "goat" }, found.sequences)
    assert.equal(2, #found.settings)
    local a, b = found.settings[1], found.settings[2]
    assert.equal("A", a.name)
    assert.equal(2, #a.runs)
    assert.near(0.82, a.mean.J, 1e-12)
    assert.near(0.71, a.mean.F, 1e-12)
    assert.near(0.02, a.mean.error.J, 1e-12) -- deviation 0.02 * sqrt 2, of a mean of two
    assert.near(0.90, b.mean.J, 1e-12)
    assert.is_nil(b.mean.error.J)
    holds(compare.format(found), "3 runs, 2 settings, 1 sequence in common; 4 keys the same", "optim.lr", "0.0001", "0.001",
      "82.0 ±2.0", "71.0 ±1.0", "+8.0  -11.0", "goat    82.0 / 71.0   90.0 / 60.0")
  end)

  it("takes means over the sequences that all settings have, and tells on how many J is better", function()
    local dir = folder "common"
    record(dir .. "/a-camel", { sequence = "camel", scores = { camel = { 0.5, 0.5 } } })
    record(dir .. "/a-goat", { sequence = "goat", scores = { goat = { 0.7, 0.9 } } })
    record(dir .. "/a-libby", { sequence = "libby", scores = { libby = { 0.1, 0.1 } } })
    record(dir .. "/b-camel", { sequence = "camel", keys = { skips = { "5c" } }, scores = { camel = { 0.6, 0.4 } } })
    record(dir .. "/b-goat", { sequence = "goat", keys = { skips = { "5c" } }, scores = { goat = { 0.6, 0.6 } } })
    local found = compare.settings(compare.read { dir })
    assert.same({ "skips" }, found.differ)
    assert.same({ "camel", "goat" }, found.sequences)
    assert.near(0.6, found.settings[1].mean.J, 1e-12)
    assert.near(0.7, found.settings[1].mean.F, 1e-12)
    assert.near(0.6, found.settings[2].mean.J, 1e-12)
    holds(compare.format(found), "J, F against A")
    holds(compare.format(found), 'B  5c', "+0.0  -20.0  (J better on 1 of 2)", "libby   10.0 / 10.0             -")
  end)

  it("finds runs of folders, and of `each`, once each and in natural order; masks and links are not searched", function()
    local dir = folder "tree"
    record(dir .. "/run10", { scores = { goat = { 0.1, 0.1 } } })
    record(dir .. "/run9", { scores = { goat = { 0.2, 0.2 } } })
    assert(lfs.mkdir(dir .. "/each"))
    assert(not files.write(dir .. "/each/config.json", "{}\n"))
    record(dir .. "/each/goat", { scores = { goat = { 0.3, 0.3 } } })
    assert(lfs.link("../run9", dir .. "/again", true))
    local runs, names = compare.read { dir .. "/run9/", dir }, {}
    for i, run in ipairs(runs) do names[i] = run.dir:sub(#dir + 2) end
    assert.same({ "run9", "each/goat", "run10" }, names)
  end)

  it("tells what figures alone would hide: edited files, commits, runs that are not done, long values", function()
    local dir = folder "notes"
    local long = "function(epoch, n) return epoch < n / 2 and 1 or 0 end"
    record(dir .. "/a", { scores = { goat = { 0.5, 0.5 } }, commit = "one" })
    record(dir .. "/b", { scores = { goat = { 0.6, 0.5 } }, source = "1234567" .. ("0"):rep(57), commit = "two" })
    record(dir .. "/c", { keys = { side_weight = long }, commit = "two", losses = { 3 }, half = '{"epoch": 2, "lo' })
    local found = compare.settings(compare.read { dir })
    assert.same({ "side_weight", "source of mine.lua" }, found.differ)
    holds(compare.format(found), "source of mine.lua", "1234567", "function(epoch, n) return...", "note: C: side_weight = " .. long,
      "note: made by different commits: one, two", ("note: without scores: %s/c (epoch 1 of 2)"):format(dir), "+10.0  +0.0\n")
    assert.is_nil(found.settings[3].mean)
  end)

  it("gives the last tenth's mean loss, and the time of all sessions together", function()
    local dir, losses, seconds = folder "time", {}, {}
    for i = 1, 20 do
      losses[i], seconds[i] = i <= 18 and 9 or i - 18, i <= 10 and 3 * i or i - 10 -- stopped after 30 s, then 10 s more
    end
    record(dir .. "/a", { losses = losses, seconds = seconds })
    local run = compare.read({ dir })[1]
    assert.near(1.5, run.loss, 1e-12)
    assert.near(40, run.seconds, 1e-12)
    assert.equal(20, run.epoch)
    holds(compare.format(compare.settings { run }), "1 run, 1 setting, 0 sequences in common", "1.5", "0:40")
    assert.is_nil(compare.format(compare.settings { run }):find("against A", 1, true))
  end)

  it("is a command, with a plot and JSON", function()
    local dir = folder "command"
    record(dir .. "/a", { scores = { goat = { 0.5, 0.5 } } })
    record(dir .. "/b", { scores = { goat = { 0.25, 0.5 } }, keys = { width = 0.5 } })
    local text = here.succeeds("compare", dir .. "/a", dir .. "/b", "plot=" .. dir .. "/losses.svg", "json=" .. dir .. "/all.json")
    holds(text, "width", "-25.0  +0.0", "J and F in percent")
    holds(files.read(dir .. "/losses.svg"), "<svg")
    local all = recipe.json(dir .. "/all.json")
    assert.same({ "width" }, all.differ)
    assert.same({ dir .. "/b" }, all.settings[2].runs)
    assert.equal("0.5", all.settings[2].keys.width)
    assert.equal(0.25, all.settings[2].mean.J)
    holds(here.succeeds("compare", "--help"), "usage: penumbra compare DIR", "plot=FILE", "json=FILE")
  end)

  it("names what is wrong", function()
    local dir = folder "wrong"
    local function refuses(expected, wanted, ...)
      local code, text = here.run("compare", ...)
      assert.equal(wanted, code, text)
      holds(text, expected)
    end
    refuses("usage: penumbra compare DIR", 2)
    refuses("compare: no directory '/nowhere'", 1, "/nowhere")
    refuses(("compare: %s holds no run: none of its directories has a config.json and a log or checkpoint"):format(dir), 1, dir)
    refuses("compare: no key 'plto': the nearest is 'plot'", 2, dir, "plto=a.png")
    refuses("compare: expects a directory of runs, got plot=a.png", 2, "plot=a.png")
    record(dir .. "/a", { losses = {} })
    refuses("compare: none of the runs has logged a loss to plot", 2, dir, "plot=" .. dir .. "/a.png")
    refuses("compare: cannot write /nowhere/a.json: ", 1, dir, "json=/nowhere/a.json")
    assert(not files.write(dir .. "/a/scores.json", "{"))
    refuses("compare: " .. dir .. "/a/scores.json: ", 1, dir)
  end)
end)
