-- cli_spec: the program as a user meets it: commands, messages, exit codes, --help of a recipe, time to start.
local program = require "penumbra.program"
local files = require "penumbra.base.files"
local shell = require "penumbra.base.shell"

local quote = shell.quote

-- Runs the program; returns output (both streams) and exit code.
local function run(arguments, environment)
  local words = {}
  for i, word in ipairs(arguments) do words[i] = quote(word) end
  return shell.run(("%s %s %s"):format(environment or "", quote(program.exe), table.concat(words, " ")))
end

local dir

local function write(name, text)
  local path = dir .. "/" .. name
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

local toy = [[
-- toy.lua: a recipe for the specs.
-- It has two lines of description.
local config = require "penumbra.config"
package.preload.json_of_nothing = function() return { y = 2, x = { z = 1 } } end
local cfg = config {
  config.required "CLIP: a folder of frames",
  frames = 16, -- frames of a clip
  -- the optimiser
  optim = { lr = 1e-3, -- step length
    momentum = 0.9 },
  quoted = "-- no comment", name = "camel", -- which one
  pair = { b = 1, a = 2 }, -- a pair
  far = require("json_of_nothing"), -- from elsewhere
  weight = function(e) if e then return "}" end end,
  extra = config.optional("seconds", "number"),
}
print("lr " .. cfg.optim.lr .. " clip " .. cfg[1])
]]

describe("penumbra", function()
  setup(function()
    dir = files.scratch()
  end)
  teardown(function() files.remove(dir) end)

  it("prints its version and its help", function()
    local output, code = run { "--version" }
    assert.equal("penumbra " .. program.version .. "\n", output)
    assert.equal(0, code)
    output, code = run { "help" }
    assert.truthy(output:find("usage: penumbra FILE.lua key=value ...", 1, true))
    assert.truthy(output:find("fetch i3d", 1, true))
    assert.equal(0, code)
    assert.equal(output, (run { "--help" }))
    assert.equal(2, select(2, run {}))
  end)

  it("names the nearest of what it does not know, with exit code 2", function()
    local output, code = run { "evalute" }
    assert.equal("penumbra: no command, recipe or file 'evalute': the nearest is 'evaluate' (penumbra help lists all)\n", output)
    assert.equal(2, code)
    assert.equal("penumbra: unknown option '--sepc' (penumbra help lists all)\n", (run { "--sepc" }))
    assert.equal("penumbra: no file 'nowhere.lua'\n", (run { "nowhere.lua" }))
    assert.equal("penumbra: -e: expects a line of Lua\n", (run { "-e" }))
    assert.equal("penumbra: --spec: no file or directory 'nowhere'\n", (run { "--spec", "nowhere" }))
    assert.equal(("penumbra: --spec: no *_spec.lua in %s\n"):format(dir), (run { "--spec", dir }))
  end)

  it("runs a line of Lua, with exit code 1 and the message alone when it fails", function()
    assert.same({ "3\n", 0 }, { run { "-e", "print(1 + 2)" } })
    assert.same({ "penumbra: -e:1: oh\n", 1 }, { run { "-e", "error 'oh'" } })
    assert.same({ "penumbra: -e:1: '=' expected near '<eof>'\n", 1 }, { run { "-e", "x" } })
    assert.same({ "penumbra: table\n", 1 }, { run { "-e", "error {}" } })
    assert.same({ "", 7 }, { run { "-e", "return 7" } })
    assert.same({ "", 130 }, { run { "-e", "require('penumbra.base.usage').leave(130)" } })
    local output = run({ "-e", "error 'oh'" }, "PENUMBRA_TRACEBACK=1")
    assert.truthy(output:find("stack traceback:", 1, true))
  end)

  it("runs a file with its arguments, and modules beside the user come first", function()
    write("mine.lua", "return { word = 'mine' }")
    local path = write("script.lua", "print(arg[0], arg[1], (...), require('mine').word)")
    local output, code = run({ path, "a b" }, "cd " .. quote(dir) .. " &&")
    assert.equal(path .. "\ta b\ta b\tmine\n", output)
    assert.equal(0, code)
    output, code = run { write("broken.lua", "local = 1") }
    assert.truthy(output:find("broken.lua:1:", 1, true))
    assert.equal(1, code)
  end)

  it("finds its home from any directory", function()
    assert.equal(program.home .. "\n", (run({ "-e", "print(require('penumbra.program').home)" }, "cd / &&")))
  end)

  it("says so when the output cannot be written", function()
    assert.same({ "penumbra: cannot write to the standard output: No space left on device\n", 1 },
      { shell.run(quote(program.exe) .. " --version >/dev/full") })
  end)

  it("derives --help of a recipe from its table and comments", function()
    local path = write("toy.lua", toy)
    local output, code = run { path, "--help" }
    assert.equal(0, code)
    local expected = {
      ("usage: penumbra %s CLIP key=value ..."):format(path), "toy.lua: a recipe for the specs.",
      "It has two lines of description.",
      "  CLIP: a folder of frames", "",
      "  frames            16                frames of a clip",
      "  -- the optimiser",
      "  optim.lr          0.001             step length",
      "  optim.momentum    0.9",
      "  quoted            -- no comment     which one", -- a comment is of all keys of its line
      "  name              camel             which one",
      "  pair.b            1                 a pair",
      "  pair.a            2",
      "  far.x.z           1                 from elsewhere",
      "  far.y             2",
      "  weight            function(e) if e then return \"}\" end end",
      "  extra             (none)            seconds",
      "  -- keys of the run",
    }
    local lines = {}
    for line in output:gmatch("([^\n]*)\n") do lines[#lines + 1] = line:gsub("%s+", " ") end
    for i, line in ipairs(expected) do assert.equal((line:gsub("%s+", " ")), lines[i]) end
  end)

  it("takes the comments of a group's keys from the module that holds its defaults", function()
    local output = run { "oneshot", "--help" }
    local text = output:gsub(" +", " ")
    for _, line in ipairs {
      "\n -- lucid: what dreams are made of\n lucid.annotated 0.35 share of dreams that begin",
      "\n lucid.camera.degrees 3 most turn of its first and last view, either way\n lucid.camera.scale 0.95,1.05 of its first",
      " as far as frame 1 loses no more than 5 points of J; 0: not at all\n", -- of a comment of two lines
      "\n -- online: what is learnt on the way; every = 0: nothing\n online.dreams 1 how many of each are learnt then\n",
      "\n online.windows 1 how many of each are learnt then\n",
    } do assert.truthy(text:find(line, 1, true), line .. "\n" .. text) end
    local help = run { "parent", "--help" }
    assert.truthy(help:find("augment.search +8 +draws of the first frame"))
    assert.truthy(help:find("optim.kind +sgd %(or adam, adamw%)")) -- the default, and what else there is
  end)

  it("says of a model that info takes it", function()
    local text = "penumbra: 'fcn_i3d' is a model, no recipe or command: penumbra info fcn_i3d --help lists its keys, penumbra info "
      .. "fcn_i3d its layers\n"
    assert.same({ text, 2 }, { run { "help", "fcn_i3d" } })
    assert.same({ text, 2 }, { run { "fcn_i3d", "width=1" } })
  end)

  it("finds what stands beside a script, after all else, and says in a line what it does not find", function()
    files.make_directory(dir .. "/beside/models")
    write("beside/models/own_one.lua", "return 7")
    write("beside/ffi.lua", "error 'not this one'")
    local path = write("beside/main.lua", 'require "ffi"\nprint(require "models.own_one")\nrequire "models.onw"')
    local output, code = run { path }
    assert.equal(1, code)
    assert.truthy(output:find(("^7\npenumbra: %%S+/beside/main.lua:3: no module 'models.onw': looked for models/onw.lua in %%., "
      .. ".*, %s/beside, and for models/onw.so where Lua keeps its libraries\n$"):format((dir:gsub("%p", "%%%0")))), output)
  end)

  it("runs a recipe with overrides, prints its configuration, and refuses what it does not know", function()
    local path = write("toy.lua", toy)
    assert.same({ "lr 0.5 clip there\n", 0 }, { run { path, "there", "optim.lr=0.5" } })
    local output, code = run { path, "there", "--print" }
    assert.truthy(output:find("frames = 16\nname = camel\noptim.lr = 0.001\n", 1, true))
    assert.equal(0, code)
    output, code = run { path, "there", "optim.lrr=1" }
    assert.truthy(output:find("penumbra: unknown key 'optim.lrr': the nearest is 'optim.lr'", 1, true))
    assert.equal(2, code)
    assert.same({ "penumbra: missing argument: CLIP: a folder of frames\n", 2 }, { run { path } })
  end)

  it("runs specs: counts, failures, crashes and reasons of skipping", function()
    write("good_spec.lua", "it('is', function() end) it('waits', function() pending 'no moon' end)")
    write("bad_spec.lua", "describe('bad', function() it('is', function() assert.equal(1, 2) end) end)")
    write("crash_spec.lua", "local ffi = require 'ffi'\nit('falls', function() ffi.cast('int *', 0)[0] = 1 end)")
    write("global_spec.lua", "it('leaks', function() setfenv(function() leaked = 1 end, _G.getfenv(0))() end)")
    local output, code = run { "--spec", dir .. "/good_spec.lua" }
    assert.equal("skipped: no moon\n1 passed, 0 failed, 1 skipped\n", output)
    assert.equal(0, code)
    output, code = run { "--spec", dir }
    assert.equal(1, code)
    assert.truthy(output:find("Expected objects to be equal.", 1, true))
    assert.truthy(output:find("crash_spec.lua: ended with exit code %d+ before its end"), output)
    assert.truthy(output:find("global 'leaked' written: a 'local' is missing", 1, true))
    assert.truthy(output:find("    1  no moon\n", 1, true))
    assert.truthy(output:find("\n1 passed, 3 failed, 1 skipped\n$"))
  end)

  it("has its first tensor within 30 ms of its start", function()
    local ffi = require "ffi"
    pcall(ffi.cdef, "typedef struct { long s, us; } penumbra_spec_time; int gettimeofday(penumbra_spec_time *t, void *zone);")
    local t = ffi.new("penumbra_spec_time")
    local function now()
      ffi.C.gettimeofday(t, nil)
      return tonumber(t.s) + tonumber(t.us) * 1e-6
    end
    local best = math.huge
    for _ = 1, 7 do
      local began = now()
      assert.same({ "", 0 }, { run { "-e", "pn.zeros { 1 }" } })
      best = math.min(best, now() - began)
    end
    if os.getenv "LD_PRELOAD" then return end -- a sanitizer starts slowly
    assert.is_true(best <= 0.03, ("%.1f ms"):format(best * 1e3))
  end)
end)
