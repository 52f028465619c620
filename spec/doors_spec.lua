-- doors_spec: the scripts behind the doors of the Makefile: floors, circles, dependencies, the tally of specs, operations.md,
-- install.
local program = require "penumbra.program"
local files = require "penumbra.base.files"
local shell = require "penumbra.base.shell"

local quote, run = shell.quote, shell.run

local home = program.home
local top

local function write(name, text, mode)
  local path = top .. "/" .. name
  assert.is_nil(files.make_directory(path:match "^(.*)/"))
  assert.is_nil(files.write(path, text))
  if mode then os.execute(("chmod %s %s"):format(mode, quote(path))) end
  return path
end

local function in_checkout() return files.exists(home .. "/Makefile") end

describe("doors", function()
  before_each(function()
    top = files.scratch()
  end)
  after_each(function() files.remove(top) end)

  it("are all in the Makefile, and each says what it does", function()
    assert.is_true(in_checkout())
    local output, code = run("make -s -C " .. quote(home) .. " help")
    assert.equal(0, code)
    local doors = { "build", "demo", "test", "check", "instructions", "bench", "peers", "docs", "fmt", "lint", "install" }
    for _, door in ipairs(doors) do
      assert.truthy(output:find("make " .. door .. "%s+%S"), door)
      assert.equal(0, select(2, run("make -n -C " .. quote(home) .. " " .. door)))
    end
  end)

  describe("floors", function()
    local function floors() return run(("%s %s/scripts/floors.lua %s"):format(quote(program.exe), quote(home), quote(top))) end

    it("hold in this tree", function()
      local output, code = run(("%s %s/scripts/floors.lua"):format(quote(program.exe), quote(home)))
      assert.equal(0, code, output)
      assert.truthy(output:find("^%d+ arrows, none points up\n$"))
    end)

    it("let arrows point down", function()
      write("core/tensor.h", "")
      write("core/ops/relu.c", '#include "tensor.h"\n#include "../tensor.h"\n#include <math.h>\n')
      write("gpu/pool.cu", '#include "core/tensor.h"\n#include <cuda_runtime.h>\n')
      write("lua/main.c", "#include <lua.h>\n")
      write("lua/penumbra/nn.lua", 'local t = require "penumbra.tensor"\nlocal c = require("cjson")\n')
      write("models/i3d.lua", 'local pn = require "penumbra"\n')
      write("recipes/one.lua", 'local net = require "models.i3d"\nlocal pn = require("penumbra")\n')
      write("spec/one_spec.lua", 'require "models.i3d" require "spec.helper"\n')
      local output, code = floors()
      assert.equal(0, code, output)
    end)

    for name, case in pairs {
      ["core to gpu"] = { "core/a.c", '#include "gpu/pool.h"\n', "core/a.c:1: core may not reach gpu ('gpu/pool.h')" },
      ["core to Lua"] = { "core/a.c", "\n#include <lua.h>\n", "core/a.c:2: core may not reach lua ('lua.h')" },
      ["core to CUDA"] = { "core/a.c", "#include <cuda_runtime.h>\n", "core/a.c:1: core may not reach gpu ('cuda_runtime.h')" },
      ["lua to models"] = { "lua/penumbra/a.lua", 'local m = require "models.i3d"\n', "lua may not reach models ('models.i3d')" },
      ["lua to recipes"] = { "lua/penumbra/a.lua", "require('recipes.one')\n", "lua may not reach recipes ('recipes.one')" },
      ["models to recipes"] = { "models/a.lua", 'require "recipes.one"\n', "models may not reach recipes ('recipes.one')" },
      ["recipes to spec"] = { "recipes/a.lua", 'require("spec.helper")\n', "recipes may not reach spec ('spec.helper')" },
      ["recipes to bench"] = { "recipes/a.lua", 'require "bench.step"\n', "recipes may not reach bench ('bench.step')" },
    } do
      it("refuse " .. name, function()
        write(case[1], case[2])
        local output, code = floors()
        assert.equal(1, code)
        assert.truthy(output:find(case[3], 1, true), output)
      end)
    end
  end)

  describe("circles", function()
    local function circles(root)
      return run(("%s %s/scripts/circles.lua %s"):format(quote(program.exe), quote(home), quote(root)))
    end

    -- Compiles what `sources` holds by path, and writes of it what CMake would.
    local function build(sources)
      local commands = {}
      for path, text in pairs(sources) do
        local file, object = write(path, text), path:gsub("/", "_") .. ".o"
        write("build/.keep", "")
        local output, code = run(("cc -c -o %s %s"):format(quote(top .. "/build/" .. object), quote(file)))
        assert.equal(0, code, output)
        commands[#commands + 1] = ('{ "directory": "%s/build", "command": "cc -o %s -c %s", "file": "%s" }'):format(top, object,
          file, file)
      end
      write("build/compile_commands.json", "[" .. table.concat(commands, ",") .. "]")
      assert.is_nil(files.make_directory(top .. "/lua"))
    end

    it("are not in this tree", function()
      local output, code = circles(home)
      assert.equal(0, code, output)
      assert.truthy(output:find "^%d+ arrows, no circle\n$")
    end)

    it("are shown, the shortest way round, with the names that close them", function()
      build {
        ["core/a.c"] = "int b(void); int a(void) { return b(); }\n",
        ["core/b.c"] = "int c(void); int d(void); int b(void) { return c() + d(); }\n",
        ["core/c.c"] = "int a(void); int c(void) { return a(); }\n",
        ["core/d.c"] = "int d(void) { return 1; }\n",
      }
      local output, code = circles(top)
      assert.equal(1, code)
      assert.equal("circle: core/a.c -> core/b.c (b)\n        core/b.c -> core/c.c (c)\n        core/c.c -> core/a.c (a)\n", output)
    end)

    it("are no matter of the registry, which lists operations and calls none", function()
      build {
        ["core/op.c"] = "extern int pn_op_relu; int *pn_op_at(void) { return &pn_op_relu; }\n",
        ["core/ops/relu.c"] = "int *pn_op_at(void); int pn_op_relu; int *first(void) { return pn_op_at(); }\n",
      }
      local output, code = circles(top)
      assert.equal(0, code, output)
      assert.equal("1 arrows, no circle\n", output)
    end)

    it("of modules are seen wherever they are required", function()
      build { ["core/d.c"] = "int d(void) { return 1; }\n" }
      write("lua/penumbra/nn/init.lua", 'local loss = require "penumbra.loss"\n')
      write("lua/penumbra/loss.lua", '-- require "penumbra.sgd"\nreturn function() return require("penumbra.nn") end\n')
      write("lua/penumbra/sgd.lua", 'return require "penumbra.nn"\n')
      local output, code = circles(top)
      assert.equal(1, code)
      assert.equal("circle: lua/penumbra/loss.lua -> lua/penumbra/nn/init.lua (penumbra.nn)\n" ..
        "        lua/penumbra/nn/init.lua -> lua/penumbra/loss.lua (penumbra.loss)\n", output)
    end)
  end)

  describe("dependencies", function()
    -- A world of its own: `have` are the installed packages, root or not, sudo or not; apt-get notes what it is asked.
    local function deps(what, have, uid, sudo)
      write("bin/dpkg-query", ([[#!/bin/bash
for p in %s; do [ "$p" = "${@: -1}" ] && { echo "install ok installed"; exit 0; }; done; exit 1]]):format(have), "755")
      write("bin/id", "#!/bin/bash\necho " .. uid, "755")
      write("bin/sudo", ([[#!/bin/bash
[ %s = yes ] || exit 1
[ "$1" = -n ] && shift
exec "$@"]]):format(sudo and "yes" or "no"), "755")
      write("bin/apt-get", ([[#!/bin/bash
echo "$@" >> %s/asked
case " $* " in *" broken "*) echo "E: Unable to locate package broken"; exit 100;; esac]]):format(quote(top)), "755")
      local output, code = run(("PATH=%s/bin:$PATH %s/scripts/deps.sh %s"):format(quote(top), quote(home), what))
      return output, code, files.read(top .. "/asked") or ""
    end

    it("are not touched when all is there", function()
      local all = "gcc g++ make cmake pkg-config libc6-dev luajit libluajit-5.1-dev lua-cjson lua-filesystem lua-readline "
        .. "libopenblas-dev libspng-dev libcairo2-dev libstb-dev zlib1g-dev"
      assert.same({ "", 0, "" }, { deps("build", all, 0) })
    end)

    it("are installed by root, and through sudo", function()
      for _, world in ipairs { { 0, false }, { 1000, true } } do
        os.remove(top .. "/asked")
        local output, code, asked = deps("build", "gcc g++ make cmake pkg-config libc6-dev luajit", world[1], world[2])
        assert.equal(0, code, output)
        assert.truthy(output:find("^Installing: libluajit%-5.1%-dev lua%-cjson"))
        assert.truthy(asked:find("^install %-y %-q %-%-no%-install%-recommends libluajit%-5.1%-dev lua%-cjson"))
        assert.is_nil(asked:find(" gcc", 1, true))
      end
    end)

    it("are named, with the line to run, to those who may not install", function()
      local output, code, asked = deps("test", "gcc g++", 1000, false)
      assert.equal(1, code)
      assert.equal("", asked)
      assert.truthy(output:find("  sudo apt-get install -y --no-install-recommends make cmake", 1, true))
      assert.truthy(output:find("lua-busted", 1, true))
    end)

    it("that cannot be installed are an error that shows why", function()
      local script = files.read(home .. "/scripts/deps.sh"):gsub("libstb%-dev", "broken")
      write("scripts/deps.sh", script, "755")
      local before = home
      home = top
      local output, code = deps("build", "gcc", 0)
      home = before
      assert.equal(1, code)
      assert.truthy(output:find("E: Unable to locate package broken", 1, true))
      assert.truthy(output:find("The installation failed; the line was: ", 1, true))
    end)

    it("are of a known kind", function()
      local output, code = run(quote(home) .. "/scripts/deps.sh nonsense")
      assert.same({ "usage: scripts/deps.sh build|test|check|lint|docs\n", 2 }, { output, code })
    end)
  end)

  it("peers: keeps PyTorch where it is, and shows why an installation failed", function()
    local function peers()
      return run(("PATH=%s/bin:$PATH PENUMBRA_PEERS=%s/peers %s/scripts/peers.sh"):format(quote(top), quote(top), quote(home)))
    end
    write("bin/python3", "#!/bin/bash\necho ensurepip is not available; exit 1", "755")
    local output, code = peers()
    assert.equal(1, code)
    assert.truthy(output:find("apt-get install python3-venv. It said:\nensurepip is not available", 1, true), output)
    write("bin/python3", [[#!/bin/bash
mkdir -p "$3/bin"
printf '#!/bin/bash\nif [ "$1" = -c ]; then exit 1; fi\necho no space left; exit 1\n' >"$3/bin/python"
chmod +x "$3/bin/python"]], "755")
    output, code = peers()
    assert.equal(1, code)
    assert.truthy(output:find("The installation failed; the end of " .. top .. "/peers/pip.log:\nno space left", 1, true), output)
    write("peers/v/bin/python", "#!/bin/bash\n[ \"$1\" = -c ] && echo 9.9.9", "755")
    assert.same({ "PyTorch 9.9.9 is in " .. top .. "/peers\n", 0 }, { peers() })
  end)

  describe("the tally of specs", function()
    local function tally(release, f64, one_card)
      write("scripts/test.sh", files.read(home .. "/scripts/test.sh"), "755")
      write("spec/a_spec.lua", "-- tolerances by pn.real")
      write("build/penumbra", ([[#!/bin/bash
if [ -n "$PENUMBRA_LIB" ]; then %s; elif [ "$PENUMBRA_EMULATED_DEVICES" = 1 ]; then %s; else %s; fi]]):format(f64,
        one_card or "echo '1 passed, 0 failed, 0 skipped'", release), "755")
      return run("unset PENUMBRA_LIB; " .. quote(top) .. "/scripts/test.sh")
    end

    it("adds the builds up", function()
      local output, code = tally("echo x; echo '5 passed, 0 failed, 2 skipped'", "echo '7 passed, 0 failed, 0 skipped'")
      assert.equal(0, code)
      assert.truthy(output:find("\n13 passed, 0 failed, 2 skipped\n$"))
    end)

    it("fails with any of them, and when one ends without a word", function()
      local output, code = tally("echo '5 passed, 1 failed, 0 skipped'", "echo '7 passed, 0 failed, 0 skipped'")
      assert.equal(1, code)
      assert.truthy(output:find("\n13 passed, 1 failed, 0 skipped\n$"))
      output, code = tally("echo '5 passed, 0 failed, 0 skipped'", "echo dead; exit 3")
      assert.equal(1, code)
      assert.truthy(output:find("dead\n6 passed, 1 failed, 0 skipped\n$"))
      output, code = tally("echo '5 passed, 0 failed, 0 skipped'", "echo '7 passed, 0 failed, 0 skipped'",
        "echo '1 passed, 2 failed, 0 skipped'")
      assert.equal(1, code)
      assert.truthy(output:find("\n13 passed, 2 failed, 0 skipped\n$"))
      output, code = tally("echo '0 passed, 0 failed, 3 skipped'", "echo '0 passed, 0 failed, 0 skipped'",
        "echo '0 passed, 0 failed, 0 skipped'")
      assert.equal(1, code)
      assert.truthy(output:find("\n0 passed, 0 failed, 3 skipped\n$"))
    end)
  end)

  describe("the count of instructions", function()
    local instructions = require "scripts.instructions"
    local function count(total, functions) return { total = total, functions = functions, keys = "width=1" } end
    local before = count(100e6, { sum = 60e6, tile = 40e6 })

    it("passes what is within 3 %, and below with a word", function()
      local ok, text = instructions.judge("avx2", count(102e6, { sum = 62e6, tile = 40e6 }), before)
      assert.same({ true, "avx2: 102.00 M instructions, the reference has 100.00 M (+2.0 %)" }, { ok, text })
      ok, text = instructions.judge("avx2", count(80e6, { sum = 40e6, tile = 40e6 }), before)
      assert.is_true(ok)
      assert.truthy(text:find("fewer; make instructions ACCEPT=1 keeps the gain. What shrank:\n  sum ", 1, true), text)
    end)

    it("fails above, and says which functions grew, by how much, and how to accept it", function()
      local ok, text = instructions.judge("avx2", count(110e6, { sum = 55e6, tile = 45e6, copy = 10e6 }), before)
      assert.is_false(ok)
      assert.truthy(text:find("(+10.0 %): more than 3 %; what grew:\n  copy ", 1, true), text)
      assert.truthy(text:find("40.00 M ->      45.00 M  (+5.0 % of the step)", 1, true), text)
      assert.truthy(text:find("make instructions ACCEPT=1", 1, true), text)
      assert.is_nil(text:find("\n  sum", 1, true), text)
    end)

    it("needs a reference of the same step", function()
      local ok, text = instructions.judge("avx2", before, nil)
      assert.same({ false, "avx2: no reference; make instructions ACCEPT=1 writes it" }, { ok, text })
      ok, text = instructions.judge("avx2", before, { total = 1, functions = {}, keys = "width=2" })
      assert.is_false(ok)
      assert.truthy(text:find("the reference is of another step (width=2)", 1, true), text)
      for _, variant in ipairs { "avx2", "plain" } do -- what is on record is of the steps that are taken
        local record = require("penumbra.json").decode(files.read(home .. "/scripts/instructions.json"))
        assert.truthy(record.compiler and record.variants[variant].total > 1e6)
      end
    end)

    it("reads callgrind's file: own instructions, names by number, calls left out", function()
      local path = write("callgrind.out", table.concat({ "version: 1", "positions: line", "events: Ir", "",
        "ob=(1) /lib/libpenumbra.so", "fl=(1) a.c", "fn=(1) tile.part.0", "10 5", "+1 7", "fi=(2) b.h", "* 3",
        "cob=(2) /lib/libc.so.6", "cfn=(2) memcpy", "calls=2 40 ", "+3 1000", "-2 4", "",
        "ob=(2)", "fn=(2)", "1 900", "", "ob=(1)", "fn=(3) tile", "5 1", "totals: 920" }, "\n") .. "\n")
      local total, functions = instructions.read_counts(path)
      assert.equal(20, total)
      assert.same({ tile = 20 }, functions)
    end)

    it("knows its words", function()
      local output, code = run(("%s %s/scripts/instructions.lua acept"):format(quote(program.exe), quote(home)))
      assert.same({ "penumbra: scripts/instructions.lua: unknown word 'acept': accept, or nothing\n", 2 }, { output, code })
    end)
  end)

  it("docs/operations.md has a row for each operation, from the registry", function()
    local pn = require "penumbra"
    local text = require("penumbra.about").operations_markdown()
    local n = 0
    for name in text:gmatch "\n| `([%w_]+)` |" do
      n = n + 1
      assert.truthy(pn.ops.describe(name))
    end
    assert.equal(#pn.ops.names(), n)
    assert.truthy(text:find("| `conv3d` | x weight bias? scale? → y |", 1, true))
  end)

  it("install what runs from anywhere", function()
    local there = top .. "/prefix"
    local output, code = run(("PREFIX=%s LUADIR=%s/lib %s/scripts/install.sh"):format(quote(there), quote(top), quote(home)))
    assert.equal(0, code, output)
    local line = ("cd / && %s/bin/penumbra -e 'print(pn.zeros{2}:count(), pn.ffi.root)'"):format(quote(there))
    assert.same({ "2\t" .. there .. "/share/penumbra\n", 0 }, { run("unset PENUMBRA_LIB; " .. line) })
    line = ("cd / && LUA_PATH='%s/lib/?.lua;;' luajit -e 'print(require(\"penumbra\").zeros{3}:count())'"):format(top)
    assert.same({ "3\n", 0 }, { run("unset PENUMBRA_LIB; " .. line) })
    output, code = run(("%s/bin/penumbra --spec"):format(quote(there)))
    assert.equal(2, code)
    assert.truthy(output:find("--spec: works in a checkout", 1, true))
  end)

  it("info and ops speak from the library", function()
    local output, code = run(quote(program.exe) .. " info")
    assert.equal(0, code)
    for _, word in ipairs { "penumbra    " .. program.version, "threads     ", "library     ", "memory      " } do
      assert.truthy(output:find(word, 1, true), word)
    end
    output = run(quote(program.exe) .. " ops conv3d")
    assert.truthy(output:find("conv3d: 3-D convolution", 1, true))
    assert.truthy(run(quote(program.exe) .. " ops"):find("\nconv3d ", 1, true))
    output, code = run(quote(program.exe) .. " ops conv3")
    assert.same({ "penumbra: no operation 'conv3': the nearest is 'conv3d' (penumbra ops lists all)\n", 2 }, { output, code })
  end)

  it("the prompt prints values, goes on after errors, and completes names", function()
    local input = write("input", "x = 3\nx * 2\nfor i = 1, 2 do\nprint(i)\nend\npn.zeros{2,20}\nnil + 1\n= \"a\"\n{ k = x }\n")
    local output = run(("%s repl <%s"):format(quote(program.exe), quote(input)))
    for _, text in ipairs { "6\n1\n2\ntensor (2,20) ", "0  0  0  ...  0  0  0\n", "attempt to perform arithmetic on a nil value",
      '"a"\n', "{\n  k = 3\n}\n" } do
      assert.truthy(output:find(text, 1, true), text)
    end
    local unfinished = write("unfinished", "for i = 1, 2 do\n")
    assert.same({ "penumbra: the input ends in the middle of a statement\n", 2 },
      { run(("%s repl <%s"):format(quote(program.exe), quote(unfinished))) })

    local function typed(...) -- what is said, without the prompt
      return (run(("%s repl <%s"):format(quote(program.exe), quote(write("lines", table.concat({ ... }, "\n") .. "\n")))))
    end
    assert.equal("boo\nprompt:1: boo\nprompt:1: boo\n", typed('error("boo")', 'do error("boo") end', 'x = error("boo")'))
    assert.equal("prompt:1: unexpected symbol near '*'\n", typed "1 +* 2")
    assert.equal("prompt:1: unexpected symbol near '='\n", typed "x = = 2")
    assert.equal("3\n", typed("1 +", "2")) -- goes on in the next line
    for _, word in ipairs { "exit", " quit ", "exit()", "quit()" } do assert.equal("1\n", typed("1", word, "2")) end
    local repl = require "penumbra.commands.repl"
    local pn = require "penumbra"
    assert.same({ "pn.zeros", "pn.zeros_like" }, repl.complete("pn.zero", { pn = pn }))
    assert.same({ "pn.measure" }, repl.complete("pn.meas", { pn = pn }))
    assert.same({ "t:requires_grad" }, repl.complete("t:requ", { t = pn.zeros { 1 } }))
    assert.same({ "string.format" }, repl.complete("string.form", setmetatable({}, { __index = _G })))
    assert.same({}, repl.complete("nowhere.x", {}))
  end)

  it("the prompt runs recipes, can be interrupted, and helps", function()
    local function typed(...)
      return run(("%s repl <%s"):format(quote(program.exe), quote(write("typed", table.concat({ ... }, "\n") .. "\n"))))
    end
    local mine = write("mine.lua", 'local cfg = require "penumbra".config { epochs = 3 }; print("epochs", cfg.epochs)\n')
    local said = typed("cfg = pn.config { frames = 7 }", "=cfg.frames", ("dofile %q"):format(mine),
      "pn.config { pn.required 'CLIP' }")
    assert.truthy(said:find("7\n", 1, true) and said:find("epochs\t3\n", 1, true), said)
    assert.truthy(said:find("missing argument: CLIP\n", 1, true), said)
    -- Ctrl-C is seen in interpreted code alone.
    said = typed("seen, source = 0, function(f) return require('jit.util').funcinfo(f).source end",
      "jit.attach(function(what, _, f) if what == 'start' and source(f) == '=prompt' then seen = seen + 1 end end, 'trace')",
      "for i = 1, 1e5 do x = i end", "function f() for i = 1, 1e5 do x = i end end", "f()", "print('compiled', seen)")
    assert.truthy(said:find("compiled\t0\n", 1, true), said)
    said = typed("help(pn.relu)", "help 'lucid.stream'", "help(pn.nn.conv3d)", "help(pn.lucid)", "help(3)", "help 'lucid.straem'",
      "help 'fcn_i3d'", "=pn.ops.help 'exp'", "exit()", "print 'still here'")
    for _, text in ipairs { "relu: ", "\nfunction lucid.stream(frame, mask, cfg)\nA stream of dreams of one frame.\n@tparam",
      "function Conv3d:new(options)\n3-D convolution.", "\nDreams of the first frame: clips of one coherent motion",
      "a number: help takes a function, a tensor, a layer, a module, or the name of one in pn or of a recipe",
      "help: there is no lucid.straem in pn, did you mean 'stream'?",
      "\nFCN-I3D: an object's mask in every frame of a clip",
      "\nexp: " } do
      assert.truthy(said:find(text, 1, true), text .. "\n" .. said)
    end
    assert.is_nil(said:find("still here", 1, true))
    local real = require("penumbra").real
    said = typed("x = pn.ones{2,3}", "help(x.slice)", "help(x)", "help()", "help(nosuch)", "help quickstart", "help exp")
    for _, text in ipairs { "\nPart of an axis, as a view that gradients flow through", "slice: part of an axis, as a view\n",
      ("tensor 2,3 %s cpu {{1, 1, 1}, {1, 1, 1}}\nIts methods, and the operations on it"):format(real), "\nOperations\n  add ",
      "nil: help takes", 'a name goes in quotes: help "conv3d"', "\nusage: penumbra quickstart key=value ...\n", "\nexp: " } do
      assert.truthy(said:find(text, 1, true), text .. "\n" .. said)
    end
    said = typed("local y = 1", "local y = 1; print(y)", "=y")
    assert.equal(1, select(2, said:gsub("a local is gone with its line; without `local` the name stays", "")), said)
  end)

  it("--help has a text for each key of a module's defaults", function()
    for recipe, group in pairs { parent = "augment", oneshot = "lucid" } do
      local output, n = run(quote(program.exe) .. " " .. recipe .. " --help"), 0
      for key, text in output:gmatch("\n  (" .. group .. "%.%S+) +%S+([^\n]*)") do
        assert.truthy(text:match "^ +%a", key)
        n = n + 1
      end
      assert.is_true(n >= 19, output)
      assert.truthy(output:find("%.slow_by +4 +how many times each frame is shown"))
      assert.truthy(output:find("%.lights%.gamma +0%.8,1%.2 +another light"))
    end
  end)

  it("commands have a --help", function()
    for _, how in ipairs { "ops --help", "ops -h", "help ops" } do
      assert.same({ "usage: penumbra ops [NAME]\nthe operations, or the help of one\n", 0 },
        { run(quote(program.exe) .. " " .. how) })
    end
    for _, how in ipairs { "repl --help", "help repl" } do
      assert.same({ "usage: penumbra repl\nan interactive prompt, with history and completion\n", 0 },
        { run(quote(program.exe) .. " " .. how) })
    end
    local output, code = run(quote(program.exe) .. " help quickstart")
    assert.truthy(code == 0 and output:find("usage: penumbra quickstart key=value ...", 1, true), output)
    assert.same({ run(quote(program.exe) .. " info --help") }, { run(quote(program.exe) .. " help info") })
    output, code = run(quote(program.exe) .. " ops einsum")
    assert.same({ "penumbra: no operation 'einsum': permute, reshape and matmul say it (penumbra ops lists all)\n", 2 },
      { output, code })
  end)
end)
