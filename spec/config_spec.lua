-- config_spec: pn.config against what METHOD's recipes ask of it: typed overrides, nearest names, files, --help, --print.
local config = require "penumbra.config"
local helper = require "spec.helper"

-- What a call raises, as text; fails when it raises nothing.
local function message_of(f, ...)
  local ok, problem = pcall(f, ...)
  assert.is_false(ok)
  return tostring(problem), type(problem) == "table" and problem.code
end

local function defaults()
  return {
    davis = "davis2016", sequence = "blackswan", frames = 16, flip = true, skips = { "1a", "2c", "3c", "4f" }, steps = { 1, 2.5 },
    optim = { lr = 1e-3, momentum = 0.9, inner = { deep = 1 } },
    side_weight = function(epoch, n) return 1 - epoch / n end,
    output = config.choice("fused", "sum_of_five"),
    note = config.optional("a remark"),
    limit = config.optional("seconds", "number"),
  }
end

local function resolve(...) return config.resolve(defaults(), { ... }, { name = "oneshot" }) end

local function with_file(ending, text, f)
  local path = os.tmpname() .. ending
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  local ok, problem = pcall(f, path)
  os.remove(path)
  if not ok then error(problem, 0) end
end

describe("config", function()
  it("keeps the defaults, and leaves the recipe's table alone", function()
    local table_of_recipe = defaults()
    local cfg = config.resolve(table_of_recipe, { "optim.lr=1", "skips=5c" }, { name = "x" })
    assert.equal("davis2016", cfg.davis)
    assert.equal(0.9, cfg.optim.momentum)
    assert.equal("fused", cfg.output)
    assert.is_nil(cfg.note)
    assert.equal(1e-3, table_of_recipe.optim.lr)
    assert.same({ "1a", "2c", "3c", "4f" }, table_of_recipe.skips)
  end)

  it("refuses to be asked for a key that is not declared, and names the nearest", function()
    local cfg = config.resolve({
      config.optional "CLIP: a file", note = config.optional "a remark", dice = 1, list = {},
      optim = { lr = 1, inner = { deep = 2 } },
    }, {}, { name = "x" })
    helper.failure(function() return cfg.dcie end, "config_spec.lua:", "the configuration has no 'dcie', did you mean 'dice'?")
    helper.failure(function() return cfg.optim.lrr end, "the configuration has no 'optim.lrr', did you mean 'lr'?")
    helper.failure(function() return cfg.optim.inner.depe end, "no 'optim.inner.depe', did you mean 'deep'?")
    helper.failure(function() return cfg.zzzzz end, "no 'zzzzz': pn.config declares its keys (pn.optional: one that need")
    assert.same({}, { cfg.note, cfg.threads, cfg[1], rawget(cfg, "dcie") })
    cfg.sequence, cfg.optim.more = "camel", 3
    assert.same({ "camel", 3 }, { cfg.sequence, cfg.optim.more })
    cfg.note = nil
    assert.is_nil(cfg.note)
    local plain = config.plain(cfg)
    assert.same({ { lr = 1, inner = { deep = 2 }, more = 3 }, "camel", {} }, { plain.optim, plain.sequence, plain.list })
    assert.truthy(tostring(cfg):find("optim.inner.deep = 2\noptim.lr = 1\n", 1, true))
  end)

  it("gives a model its keys, with defaults for what a recipe does not have", function()
    local cfg = config.resolve({ width = 3, seed = 7, other = 1 }, {}, { name = "x" })
    local known = { width = 8, depth = config.whole(2, 1), name = "a" }
    assert.same({ width = 3, depth = 2, name = "a" }, config.pick("tiny", cfg, known))
    assert.same({ width = 8, depth = 2, name = "a" }, config.pick("tiny", nil, known))
    helper.failure(function() config.pick("tiny", { width = "8" }, known) end, "tiny: width is a string, expects a number")
  end)

  it("gives the numbers of functions, and names the key of one that gives something else", function()
    local function at(text) return config.at(resolve("side_weight=" .. text), 3, 40) end
    assert.equal(1 - 3 / 40, at("linear").side_weight)
    for text, said in pairs {
      ["function() end"] = "nothing", ["function() return 'x' end"] = "'x'", ["function() return 0 / 0 end"] = "nan",
      ["function() return 1 / 0 end"] = "inf",
    } do
      helper.failure(function() return at(text).side_weight end, "config_spec.lua:",
        ("side_weight: its function gave %s at (3, 40), expects a number"):format(said))
    end
    helper.failure(function() return at("linear").frames end, "config.at: the key 'frames' holds no function")
  end)

  it("overrides each kind, typed by its default", function()
    local cfg = resolve("sequence=camel", "frames=8", "flip=off", "skips=1a,2c", "steps=3,4", "optim.lr=5e-3", "optim.inner.deep=2",
      "side_weight=function(e, n) return e * n end", "output=sum_of_five", "note=1", "limit=2.5")
    assert.same({ "camel", 8, false, 5e-3, 2, "sum_of_five" },
      { cfg.sequence, cfg.frames, cfg.flip, cfg.optim.lr, cfg.optim.inner.deep, cfg.output })
    assert.same({ "1a", "2c" }, cfg.skips)
    assert.same({ 3, 4 }, cfg.steps)
    assert.equal(12, cfg.side_weight(3, 4))
    assert.equal("1", cfg.note)
    assert.equal(2.5, cfg.limit)
  end)

  it("takes empty lists, Lua lists, values with '=', and groups written as tables", function()
    local cfg = resolve("skips=", "steps={10, 20}", "sequence=a=b", "optim={lr=2, inner={deep=3}}")
    assert.same({}, cfg.skips)
    assert.same({ 10, 20 }, cfg.steps)
    assert.equal("a=b", cfg.sequence)
    assert.same({ lr = 2, momentum = 0.9, inner = { deep = 3 } }, cfg.optim)
  end)

  it("knows the side weights by name, and schedules in expressions", function()
    assert.equal(0.75, resolve("side_weight=linear").side_weight(1, 4))
    assert.equal(1, resolve("side_weight=constant").side_weight(1, 4))
    local steps = resolve("side_weight=steps").side_weight
    assert.same({ 1, 1, 0.5, 0.5, 0, 0 }, { steps(1, 6), steps(2, 6), steps(3, 6), steps(4, 6), steps(5, 6), steps(6, 6) })
    assert.equal(3, resolve("side_weight=schedule.constant(3)").side_weight(1, 4))
    assert.equal("linear", config.plain(resolve("side_weight=linear")).side_weight)
  end)

  it("lets the last one win", function() assert.equal(3, resolve("frames=2", "frames=3").frames) end)

  it("has the keys of every run", function()
    assert.equal("there", resolve("out=there").out)
    assert.equal(5, resolve("checkpoint_every=5").checkpoint_every)
  end)

  it("takes a number for a function: the same all along, also in a run that goes on", function()
    local cfg = resolve "side_weight=0.25"
    assert.equal(.25, cfg.side_weight(3, 7))
    assert.equal("0.25", config.plain(cfg).side_weight)
    assert.truthy(tostring(cfg):find("side_weight = 0.25", 1, true))
    for _, text in ipairs { "return { side_weight = 0.5 }", 'return { side_weight = "0.5" }' } do
      with_file("lua", text, function(path)
        local half = resolve("config=" .. path)
        assert.equal(.5, half.side_weight())
        assert.equal("0.5", config.plain(half).side_weight)
      end)
    end
  end)

  describe("refuses", function()
    local cases = {
      { "sequnce=camel", "unknown key 'sequnce': the nearest is 'sequence' (penumbra oneshot --help lists all)" },
      { "optim.learning_rate=1", "unknown key 'optim.learning_rate': the nearest is 'optim.lr'" },
      { "lr=1", "unknown key 'lr': the nearest is 'optim.lr'" },
      { "optim.inner.depe=1", "unknown key 'optim.inner.depe': the nearest is 'optim.inner.deep'" },
      { "frames.x=1", "unknown key 'frames.x': the nearest is 'frames'" },
      { "optim={lrr=1}", "unknown key 'optim.lrr': the nearest is 'optim.lr'" },
      { "frames=many", "frames: expects a number, got 'many'" },
      { "flip=perhaps", "flip: expects true or false, got 'perhaps'" },
      { "steps=1,x", "steps: expects a list such as a,b,c, got '1,x' ('x' is not a number)" },
      { "optim=4", "optim: expects a table such as {key=value}, got '4'" },
      { "optim={lr='a'}", "optim.lr: expects a number, got 'a'" },
      { "side_weight=1 - ", "side_weight: expects a Lua function such as" },
      { "side_weight={7}", "a number, or one of constant, linear, steps, got '{7}'" },
      { "side_weight=1/0", "a number, or one of constant, linear, steps, got '1/0'" },
      { "side_weight=cosine", "or one of constant, linear, steps, got 'cosine'" },
      { "side_weight=nowhere.f", "its function uses 'nowhere', which it cannot see: it sees math, string, table, bit" },
      { "output=fuse", "output: expects one of fused, sum_of_five, got 'fuse': the nearest is 'fused'" },
      { "xyzzy=2", "unknown key 'xyzzy' (penumbra oneshot --help lists all)" },
      { "--fast", "unknown option '--fast': keys are given as key=value; --help lists them" },
      { "camel", "unexpected argument 'camel': keys are given as key=value; --help lists them" },
      { "config=/nowhere/x.lua", "config: /nowhere/x.lua: No such file or directory" },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        local message, code = message_of(resolve, case[1])
        assert.truthy(message:find(case[2], 1, true), message)
        assert.equal(2, code)
      end)
    end
  end)

  describe("declarations", function()
    it("demand what is required", function()
      local wanted = { optim = { lr = config.required("learning rate", "number") } }
      local message = message_of(config.resolve, wanted, {}, { name = "x" })
      assert.equal("optim.lr is required: learning rate; give optim.lr=...", message)
      assert.equal(3, config.resolve({ lr = config.required("rate", "number") }, { "lr=3" }, { name = "x" }).lr)
    end)

    it("name positional arguments", function()
      local table_of_recipe = { config.required "MASKS: a folder", config.rest "MORE: others", davis = "d" }
      local cfg = config.resolve(table_of_recipe, { "a", "davis=e", "b", "c" }, { name = "evaluate" })
      assert.same({ "a", "b", "c", "e" }, { cfg[1], cfg[2], cfg[3], cfg.davis })
      assert.equal("missing argument: MASKS: a folder", (message_of(config.resolve, table_of_recipe, {}, { name = "evaluate" })))
      local message = message_of(config.resolve, { config.optional "CLIP" }, { "a", "b" }, { name = "x" })
      assert.truthy(message:find("unexpected argument 'b'", 1, true))
    end)

    it("keep numbers in their range, wherever they come from", function()
      local wanted = { width = config.number(1, 1e-3), epochs = config.whole(400, 0), share = config.number(0.5, 0, 1) }
      local function with(...) return config.resolve(wanted, { ... }, { name = "x" }) end
      local cfg = with("width=0.5", "share=1", "checkpoint_every=3")
      assert.same({ 0.5, 400, 1, 3 }, { cfg.width, cfg.epochs, cfg.share, cfg.checkpoint_every })
      assert.equal(5, config.resolve({ checkpoint_every = 5 }, {}, { name = "x" }).checkpoint_every)
      for word, message in pairs {
        ["width=0"] = "width: expects a number from 0.001, got 0", ["width=nan"] = "width: expects a number from 0.001, got nan",
        ["share=2"] = "share: expects a number from 0 to 1, got 2",
        ["epochs=1.5"] = "epochs: expects a whole number from 0, got 1.5",
        ["epochs=inf"] = "epochs: expects a whole number from 0, got inf",
        ["checkpoint_every=-1"] = "checkpoint_every: expects a whole number from 0, got -1",
      } do
        local said, code = message_of(with, word)
        assert.equal(message, said)
        assert.equal(2, code)
      end
      assert.equal("checkpoint_every: expects a whole number from 0, got -2",
        (message_of(config.resolve, { checkpoint_every = 5 }, { "checkpoint_every=-2" }, { name = "x" })))
      assert.truthy(message_of(config.whole, "4"):find("pn.whole: expects numbers: its default, the least, the most", 1, true))
    end)

    it("refuse nonsense", function()
      assert.truthy(message_of(config.required):find("pn.required: expects a help text", 1, true))
      assert.truthy(message_of(config.optional, "x", "numbr"):find("pn.optional: unknown kind 'numbr'", 1, true))
      assert.truthy(message_of(config.choice, "one"):find("pn.choice: expects at least two choices", 1, true))
      assert.truthy(message_of(config.choice, 1, 2):find("pn.choice: expects strings", 1, true))
      assert.truthy(message_of(config.resolve, 5, {}, { name = "x" }):find("pn.config: expects a table", 1, true))
      assert.truthy(message_of(config.resolve, { "camel" }, {}, { name = "x" }):find("declared with pn.required", 1, true))
    end)
  end)

  describe("files", function()
    it("of Lua and of JSON override, in the order of the command line", function()
      with_file(".lua", "return { frames = 4, optim = { lr = 7 }, side_weight = function() return 9 end }", function(path)
        local cfg = resolve("frames=2", "config=" .. path, "optim.lr=8")
        assert.same({ 4, 8, 9 }, { cfg.frames, cfg.optim.lr, cfg.side_weight() })
      end)
      with_file(".json", '{ "frames": 4, "skips": ["5c"], "note": null, "side_weight": "function() return 3 end" }', function(path)
        local cfg = resolve("config=" .. path)
        assert.same({ 4, 3 }, { cfg.frames, cfg.side_weight() })
        assert.same({ "5c" }, cfg.skips)
      end)
    end)

    it("are held to the same rules", function()
      with_file(".lua", "return { frmes = 4 }", function(path)
        assert.equal(("config: %s: unknown key 'frmes': the nearest is 'frames' (penumbra oneshot --help lists all)"):format(path),
          (message_of(resolve, "config=" .. path)))
      end)
      with_file(".lua", "return { frames = 'four' }", function(path)
        assert.equal("frames: expects a number, got 'four'", (message_of(resolve, "config=" .. path)))
      end)
      with_file(".lua", "return { skips = 3 }", function(path)
        assert.equal("skips: expects a list such as a,b,c, got 3", (message_of(resolve, "config=" .. path)))
      end)
      with_file(".lua", "return 4", function(path)
        assert.truthy(message_of(resolve, "config=" .. path):find("expects a table of keys", 1, true))
      end)
      with_file(".lua", "return {", function(path)
        assert.truthy(message_of(resolve, "config=" .. path):find("unexpected symbol", 1, true)
          or message_of(resolve, "config=" .. path):find("'}' expected", 1, true))
      end)
      with_file(".json", "{ nonsense", function(path)
        assert.truthy(message_of(resolve, "config=" .. path):find(path .. ": Expected", 1, true))
      end)
    end)

    it("give no key of one run alone: out, resume, threads, workers; one written by hand is told", function()
      local told = {}
      local before = io.stderr
      io.stderr = { write = function(_, text) told[#told + 1] = text end } -- luacheck: ignore
      local ok, problem = pcall(function()
        with_file(".json", '{ "frames": 4, "out": "a", "resume": "b", "threads": 3, "workers": 2 }', function(path)
          local cfg = resolve("out=mine", "config=" .. path)
          assert.same({ 4, "mine" }, { cfg.frames, cfg.out })
          assert.same({}, { cfg.resume, cfg.threads, rawget(cfg, "workers") })
        end)
        assert.same({}, told)
        with_file(".lua", "return { frames = 4, threads = 3, out = 'a' }", function(path)
          local cfg = resolve("config=" .. path)
          assert.same({ 4 }, { cfg.frames, cfg.threads, cfg.out })
          assert.same({ ("config: %s: out, threads: left out, give such keys on the command line\n"):format(path) }, told)
          assert.equal("a", config.resolve({ out = "b", frames = 1 }, { "config=" .. path }, { name = "x" }).out) -- a recipe's own
        end)
      end)
      io.stderr = before -- luacheck: ignore
      assert(ok, problem)
    end)

    it("take back what a run wrote: config.plain, through JSON, resolves to the same", function()
      local cjson = require "cjson"
      local cfg = resolve("frames=3", "side_weight=function(e, n) return e + n end", "optim.lr=0.25", "skips=2c")
      with_file(".json", cjson.encode(config.plain(cfg)), function(path)
        local again = resolve("config=" .. path)
        assert.same(config.plain(cfg), config.plain(again))
        assert.equal(7, again.side_weight(3, 4))
      end)
    end)
  end)

  describe("of a run that goes on", function()
    local files = require "penumbra.base.files"
    local dir

    -- A run of the recipe: with a config.json of this text, and a checkpoint that knows of frames=5.
    local function make(text, recipe)
      local pn = require "penumbra"
      pn.save(dir .. "/checkpoint.safetensors", { w = pn.zeros { 1 } }, { format = "penumbra checkpoint 1",
        recipe = recipe or "oneshot", config = pn.json.line(config.plain(resolve("frames=5", "limit=2", "out=elsewhere"))) })
      if text then assert.is_nil(files.write(dir .. "/config.json", text)) else os.remove(dir .. "/config.json") end
    end

    before_each(function() dir = files.scratch() end)
    after_each(function() files.remove(dir) end)

    it("comes from its directory; the command line may change it", function()
      make(require("cjson").encode(config.plain(resolve("frames=3", "optim.lr=0.25", "out=elsewhere"))))
      local cfg = resolve("frames=4", "resume=" .. dir .. "/")
      assert.same({ 4, 0.25, dir .. "/" }, { cfg.frames, cfg.optim.lr, cfg.resume })
      assert.is_nil(cfg.out)
    end)

    it("comes from its checkpoint where config.json is missing or cannot be opened", function()
      make()
      local cfg = resolve("resume=" .. dir)
      assert.same({ 5, 2 }, { cfg.frames, cfg.limit })
      assert.is_nil(cfg.out)
      assert(require("lfs").mkdir(dir .. "/config.json"))
      assert.equal(5, resolve("resume=" .. dir).frames)
    end)

    it("is an error where config.json is damaged, or has a key that the recipe has not; it names the file", function()
      make '{"frames": 3'
      local message, code = message_of(resolve, "resume=" .. dir)
      assert.truthy(message:find(("resume: %s/config.json: Expected "):format(dir), 1, true), message)
      assert.truthy(message:find("; the checkpoint knows the keys too: remove the file", 1, true), message)
      assert.equal(2, code)
      make '{"frames": 3, "frmes": 3}'
      assert.equal(("resume: %s/config.json: unknown key 'frmes': the nearest is 'frames' (penumbra oneshot --help lists all)")
        :format(dir), (message_of(resolve, "resume=" .. dir)))
    end)

    it("says first what is no run, or of another recipe", function()
      assert.same({ ("resume: there is no %s/checkpoint.safetensors"):format(dir), 2 }, { message_of(resolve, "frmes=3",
        "resume=" .. dir) })
      make('{"sigma": 3}', "parent")
      assert.same({ ("resume: %s/checkpoint.safetensors: belongs to the recipe 'parent', this is 'oneshot': penumbra parent "
        .. "resume=%s goes on with it"):format(dir, dir), 2 }, { message_of(resolve, "resume=" .. dir) })
    end)

    it("names the command that goes on with a run of another recipe", function()
      make('{"sigma": 3}', "mine")
      files.make_directory(dir .. "/source")
      files.write(dir .. "/source/mine.lua", "")
      local copy = dir .. "/source/mine.lua"
      for word, known in pairs {
        ["mine.lua"] = copy, ["'my runs/mine.lua'"] = copy, ["spec/recipe.lua"] = "spec/recipe.lua", mine = "mine",
      } do
        local sessions = { {}, { command = ("penumbra %s epochs=3"):format(word) } }
        files.write(dir .. "/run.json", require("penumbra.json").line { sessions = sessions })
        local text = message_of(resolve, "resume=" .. dir)
        assert.truthy(text:find((": penumbra %s resume=%s goes on with it"):format(known, dir), 1, true), text)
      end
    end)

    it("says what is no checkpoint", function()
      assert.is_nil(files.write(dir .. "/checkpoint.safetensors", "nonsense"))
      assert.truthy(message_of(resolve, "resume=" .. dir):find(dir .. "/checkpoint.safetensors", 1, true))
      assert.equal("mine", config.resolve({ resume = "x" }, { "resume=mine" }, { name = "x" }).resume) -- a key of its own
    end)
  end)

  it("makes a function of a run again without a way to files or programs", function()
    local files, pn = require "penumbra.base.files", require "penumbra"
    local dir = files.scratch()
    local function resumed(text)
      pn.save(dir .. "/checkpoint.safetensors", { w = pn.zeros { 1 } },
        { format = "penumbra checkpoint 1", recipe = "x", config = pn.json.line { side_weight = text } })
      return config.resolve({ side_weight = function() return 1 end }, { "resume=" .. dir }, { name = "x" }).side_weight
    end
    assert.equal(0.75, resumed "function(e, n) local f = math.floor return 1 - f(e) / n end"(1, 4))
    assert.equal(0.5, resumed "schedule.constant and steps"(2, 4))
    local mark = dir .. "/mark"
    for _, name in ipairs { "os", "io", "require", "loadstring", "load", "dofile", "debug", "ffi", "jit", "package", "_G",
      "getfenv", "setfenv", "getmetatable", "setmetatable", "rawget", "newproxy", "coroutine", "pn", "print", "module" } do
      local made = resumed(("function() return %s end"):format(name))
      local problem = message_of(made)
      assert.truthy(problem:find(("side_weight: its function uses '%s', which it cannot see"):format(name), 1, true), problem)
      local message = message_of(resumed, ("(function() %s.execute('touch %s') return 7 end)()"):format(name, mark))
      assert.truthy(message:find(("its function uses '%s'"):format(name), 1, true), message)
    end
    assert.is_nil(files.read(mark))
    resumed "function() math.floor = nil string.format = nil table.concat = nil end"()
    assert.equal("1", ("%d"):format(math.floor(1.5)) .. table.concat {})
    files.remove(dir)
  end)

  it("says what differs from another, apart from where a run lies and its threads", function()
    local before = { lr = 0.5, optim = { momentum = 0.9, lr = 1 }, skips = { "1a" }, out = "a", threads = 2, workers = 1 }
    local now = { lr = 1, optim = { momentum = 0.9, lr = 2 }, skips = { "1a", "2c" }, out = "b", threads = 4, workers = 3 }
    assert.same({ "lr: 1, was 0.5", "optim.lr: 2, was 1", 'skips: ["1a", "2c"], was ["1a"]' }, config.changes(before, now))
    assert.same({ 'note: "x", was nothing', "optim.lr: nothing, was 1", "optim.momentum: nothing, was 0.9",
      'skips: nothing, was ["1a"]' }, config.changes(before, { lr = 0.5, resume = "a", note = "x" }))
  end)

  it("holds a directory to the keys that made what is there", function()
    config.hold("there", "a run", { lr = 1, out = "a" }, { lr = 1, out = "b" })
    local message, code = message_of(config.hold, "there", "a run", { lr = 1, n = 3 }, { lr = 2, n = 4 }, ", or wait")
    assert.equal("out: there holds a run with other keys (lr: 2, was 1; n: 4, was 3): choose another out=, or wait", message)
    assert.equal(2, code)
  end)

  describe("records functions", function()
    local files = require "penumbra.base.files"
    -- Defaults as a recipe file makes them; gives them, what is recorded of them, and how they print.
    local function of_file(text)
      local defaults_of_file, plain, printed
      with_file(".lua", text, function(path)
        defaults_of_file = assert(loadfile(path))()
        local cfg = config.resolve(defaults_of_file, {}, { name = "x" })
        plain, printed = config.plain(cfg), tostring(cfg)
      end)
      return defaults_of_file, plain, printed
    end

    -- What a run with such a record takes, of these defaults.
    local function taken(defaults_of_recipe, plain)
      local dir, pn = files.scratch(), require "penumbra"
      pn.save(dir .. "/checkpoint.safetensors", { w = pn.zeros { 1 } }, { format = "penumbra checkpoint 1", recipe = "x" })
      files.write(dir .. "/config.json", pn.json.pretty(plain))
      local ok, cfg = pcall(config.resolve, defaults_of_recipe, { "resume=" .. dir }, { name = "x" })
      files.remove(dir)
      if not ok then error(cfg, 0) end
      return cfg
    end

    it("that have a name, by their text", function()
      local recipe, plain = of_file("local function half(e, n)\n  return e / n\nend\nreturn { w = half, s = -- steps\n"
        .. "  require('penumbra.side_weight').steps }")
      assert.equal("function(e, n)\n  return e / n\nend", plain.w)
      assert.truthy(plain.s:find("^function%(epoch, n%)\n.* 0.5 or 0\nend$"), plain.s)
      for i = 1, 200 do recipe.w(i, 3) end -- compiled, too
      assert.equal(0.5, taken({ w = recipe.w, s = recipe.s }, plain).w(2, 4))
      assert.equal(recipe.s, taken(recipe, plain).s) -- the very default, by its text
      assert.equal(3, taken({ w = print, s = print }, plain).w(6, 2))
    end)

    it("of which two are on a line, each by its own text", function()
      local _, plain = of_file "return { a = function(e) return e end, b = function(e) return .25 end, c = print }"
      assert.same({ "function(e) return e end", "function(e) return .25 end" }, { plain.a, plain.b })
      assert.same({ ["function"] = "[C]:-1" }, plain.c)
    end)

    it("that use a local of the recipe, as the recipe's own", function()
      local recipe, plain, printed = of_file("local d = 2\nlocal function w(e) return e * d end\nreturn { w = w, x = {\n"
        .. "  a = function() return d end, b = function() return -d end } }")
      local place = plain.w["function"]:match "^(lua_%w+%.lua):2$"
      assert.truthy(place)
      assert.equal("function(e) return e * d end", plain.w.text)
      assert.same({ ["function"] = place .. ":4" }, plain.x.a)
      local cfg = taken(recipe, plain)
      assert.same({ 6, 2, -2 }, { cfg.w(3), cfg.x.a(), cfg.x.b() })
      assert.truthy(printed:find("w = function(e) return e * d end\nx.a = " .. place .. ":4\n", 1, true), printed)
      local message = message_of(taken, { w = config.required("a weight", "function"), x = recipe.x }, plain)
      assert.truthy(message:find(("config.json: w was the recipe's own function (%s:2), and the recipe has none now: give w=...")
        :format(place), 1, true), message)
    end)

    it("wherever in their file these stand", function()
      local function changes(a, b) return config.changes({ w = a }, { w = b }) end
      local here = { ["function"] = "a.lua:3", text = "function() return d end" }
      assert.same({}, changes(here, { ["function"] = "a.lua:40", text = here.text }))
      assert.equal(1, #changes(here, { ["function"] = "a.lua:3", text = "function() return 2 * d end" }))
      assert.equal(1, #changes(here, { ["function"] = "b.lua:3", text = here.text }))
      assert.equal(1, #changes(here, "function() return 2 end"))
      assert.equal(1, #changes(nil, here))
    end)

    it("and refuses those that are given and cannot be made again from their text", function()
      with_file(".lua", "local decay = 2\nreturn { side_weight = function(e) return e * decay end }", function(path)
        local message, code = message_of(resolve, "config=" .. path)
        assert.equal(("side_weight: the function of %s:2 uses 'decay' from outside itself, which a run cannot record: write its "
          .. "value into the function"):format(path:match "[^/]+$"), message)
        assert.equal(2, code)
      end)
      with_file(".lua", "return { side_weight = math.max }", function(path)
        assert.equal("side_weight: the text of the function of [C]:-1 cannot be told: give it lines of its own",
          (message_of(resolve, "config=" .. path)))
      end)
      local given = { inner = { weight = function() return 1 end } }
      local function group(text) return config.resolve(given, { "inner=" .. text }, { name = "x" }) end
      local cfg = group "{weight = function(e) return e + 1 end}"
      assert.equal("function(e) return e + 1 end", config.plain(cfg).inner.weight)
      assert.equal("inner.weight: the function of inner:1 uses 'k' from outside itself, which a run cannot record: write its value "
        .. "into the function", (message_of(group, "(function() local k = 2 return {weight = function() return k end} end)()")))
    end)
  end)

  it("knows the source of a default function", function()
    assert.equal("function(epoch, n) return 1 - epoch / n end", config.plain(resolve()).side_weight)
  end)

  it("prints as a sorted list", function()
    local text = tostring(resolve("frames=3"))
    assert.truthy(text:find("frames = 3\nlimit", 1, true) or text:find("frames = 3\noptim.inner.deep = 1\n", 1, true))
    assert.truthy(text:find("skips = 1a,2c,3c,4f", 1, true))
    local keys = {}
    for line in text:gmatch("[^\n]+") do keys[#keys + 1] = line:match("^(%S+) = ") end
    local sorted = { unpack(keys) }
    table.sort(sorted)
    assert.same(sorted, keys)
  end)
end)
