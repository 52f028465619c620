-- bench_spec: make bench as a user meets it, at sizes of a toy: the table, the peer beside it, the history and its comparison.
local program = require "penumbra.program"
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local shell = require "penumbra.base.shell"
local helper = require "spec.helper"
local history = require "bench.history"
local lfs = require "lfs"

local quote = shell.quote

local function bench(script, ...)
  local words = { "env -u PENUMBRA_PEERS -u PENUMBRA_CPU", quote(program.exe), quote(program.home .. "/bench/" .. script) }
  for _, word in ipairs { ... } do words[#words + 1] = quote(word) end
  return shell.run(table.concat(words, " "))
end

describe("bench", function()
  local top = helper.directory(teardown)

  local function write(name, text)
    local path = top .. "/" .. name
    assert.is_nil(files.make_directory(path:match "^(.*)/"))
    assert.is_nil(files.write(path, text))
    os.execute("chmod 755 " .. quote(path))
    return path
  end

  -- A peer whose every convolution takes 1, 2 and 3 s, and whose step takes 20.
  setup(function()
    write("peers/v/bin/python", [[#!/bin/bash
case "$1" in
  -c) echo 9.9.9 ;;
  *peer_convs.py) sed -n 's/"kind": "conv"/"kind": "conv", "forward": 1, "dx": 2, "dw": 3/p' ;;
  */twin.py) echo "torch 9.9.9 $*: forward 10.0 s, train step 20.0 s, peak 3.00 GiB" ;;
esac]])
    write("twin.py", "")
  end)

  it("step prints the line of its twin", function()
    local line = "^penumbra %S+ cpu ndhwc fp32 (%S+) T2 S(%S+): forward [%d.]+ s, train step (%S+) s, peak [%d.]+ GiB\n$"
    local output = bench("step.lua", "frames=2", "size=32", "runs=1")
    local part, size, train = output:match(line)
    assert.same({ "full", "32" }, { part, size }, output)
    assert.is_true(tonumber(train) > 0)
    output = bench("step.lua", "frames=2", "size=32x48", "runs=1", "part=backbone", "infer=true")
    part, size, train = output:match(line)
    assert.same({ "backbone", "32x48", "nan" }, { part, size, train }, output)
    local code
    output, code = bench("step.lua", "part=half")
    assert.same({ "penumbra: part is 'half', expects full or backbone\n", 1 }, { output, code })
    output, code = bench("step.lua", "size=big")
    assert.same({ "penumbra: size is 'big', expects pixels such as 224 or 480x864\n", 1 }, { output, code })
    output = bench("step.lua", "frames=2", "size=32", "runs=1", "profile=true")
    assert.truthy(output:find("conv3d.backward", 1, true), output)
  end)

  it("convs takes its shapes from the network itself, each once", function()
    local output = bench("convs.lua", "list=shapes", "json=true", "frames=4", "size=64")
    local seen, total, macs = {}, 0, 0
    for line in output:gmatch "[^\n]+" do
      local record = json.decode(line)
      if record.kind == "machine" then
        total = record.forward_flops
      else
        local key = record.op .. record.shapes .. record.args
        assert.is_nil(seen[key], key)
        seen[key] = true
        macs = macs + record.n * record.flops
      end
    end
    assert.truthy(output:find('"shapes": "1,3,4,64,64 64,3,7,7,7 -', 1, true))
    assert.is_true(macs > 0 and math.abs(macs - total) < 1e-6 * total) -- they are all the products of a forward pass
  end)

  it("all prints the table beside the peer, keeps it, and compares it with another commit", function()
    local kept = top .. "/kept"
    local function all(...)
      return bench("all.lua", "frames=2", "size=32", "infer=32x48", "runs=1", "threads=2", "history=" .. kept,
        "peers=" .. top .. "/peers", "twin=" .. top .. "/twin.py", ...)
    end
    local output, code = all("what=convs,step,infer,threads,start", "only=mixed_3b.branch1")
    assert.equal(0, code, output)
    assert.truthy(output:find("peer: PyTorch 9.9.9", 1, true), output)
    local function row(title)
      for line in output:gmatch "[^\n]+" do
        if line:sub(1, #title + 1) == title .. " " then return line end
      end
      error(title .. ": no such row in\n" .. output, 2)
    end
    for title, peer in pairs { ["mixed_3b.branch1b forward"] = "1000.00", ["mixed_3b.branch1b dx"] = "2000.00",
      ["mixed_3b.branch1b dw"] = "3000.00", ["FCN-I3D train step"] = "20000.00", ["inference forward"] = "10000.00" } do
      local line = row(title)
      assert.truthy(line:find(" " .. peer .. " ", 1, true), line)
    end
    assert.truthy(row("FCN-I3D peak resident"):match " [%d.]+ GiB .* 3.00 ")
    assert.truthy(row("threads 1 to 2"):match " [%d.]+ x")
    row "sgemm, OpenBLAS"
    row "direct roof, step"
    assert.truthy(row("start to first tensor"):match " [%d.]+%s*$")
    assert.truthy(output:find("no run of another commit on this machine to compare with", 1, true))

    local path = output:match "kept in (%S+)"
    local run = json.decode((files.read(path)))
    assert.truthy(run.date:match "^%d+%-%d+%-%d+T" and run.commit and run.machine.processor and run.machine.variant)
    assert.equal(2, run.machine.threads)
    local keys = {}
    for _, r in ipairs(run.rows) do
      assert.is_nil(keys[r.key], r.key)
      keys[r.key] = r
      assert.is_true(r.value > 0, r.key)
    end
    -- As the tables of a page:
    local page = write("page.md", "# Speed\n<!-- bench -->\n<!-- /bench -->\nend\n")
    bench("table.lua", "history=" .. kept, "into=" .. page) -- once into the empty page, once over what stands there
    output, code = bench("table.lua", "history=" .. kept, "into=" .. page)
    assert.same({ "", 0 }, { output, code })
    local tables = files.read(page)
    assert.truthy(tables:match "^# Speed\n<!%-%- bench %-%->\n\n.*\n<!%-%- /bench %-%->\nend\n$", tables)
    assert.equal(1, select(2, tables:gsub("### Every convolution", "")))
    local cells = "| mixed_3b.branch1b | [^|]+ | [%d.]+ / 1000 | [%d.]+ | [%d.]+ / 2000 | [%d.]+ | [%d.]+ / 3000 | [%d.]+ |\n"
    assert.truthy(tables:match(cells), tables)
    assert.truthy(tables:match "| FCN%-I3D train step | frames=2 size=32 | [%d.]+ | %d+ | [%d.]+ | 20000 | [%d.]+ |\n", tables)
    assert.truthy(tables:match "| FCN%-I3D peak resident | [^|]+ | [%d.]+ GiB |  |  | 3.00 GiB | [%d.]+ |\n", tables)
    output, code = bench("table.lua", path, "into=" .. top .. "/twin.py")
    assert.equal(2, code)
    assert.equal("penumbra: into: " .. top .. "/twin.py lacks the lines <!-- bench --> and <!-- /bench -->\n", output)
    output, code = bench("table.lua", page)
    assert.same({ 2, "penumbra: " .. page .. ": not a run of make bench\n" }, { code, output })
    output, code = bench("table.lua", "history=" .. top .. "/none")
    assert.same({ 2, "penumbra: there is no " .. top .. "/none: make bench\n" }, { code, output })
    -- Made into an earlier run of another commit that was a hundred times faster:
    run.commit, run.date = "earlier", "2000-01-01T00:00:00Z"
    for _, r in ipairs(run.rows) do r.value = r.unit == "ms" and r.value / 100 or r.value end
    assert.is_nil(files.write(path, json.pretty(run)))
    output, code = all("what=step", "peer=false")
    assert.equal(0, code, output)
    assert.truthy(output:find("against earlier of 2000-01-01T00:00:00Z: 4 rows", 1, true), output)
    assert.truthy(output:match "/step/FCN%-I3D train step frames=2 size=32 .* SLOWER", output)
    assert.is_nil(output:find("peer:", 1, true))
  end)

  it("all says what is missing, and goes on", function()
    local output, code = bench("all.lua", "what=step", "frames=2", "size=32", "runs=1", "history=", "peers=" .. top .. "/none")
    assert.equal(0, code, output)
    assert.truthy(output:find("peer: no " .. top .. "/none/v/bin/python (make peers installs PyTorch there)", 1, true), output)
    assert.is_nil(output:find("kept in", 1, true))
    write("broken/v/bin/python", "#!/bin/bash\necho no module named torch; exit 1")
    write("failing/v/bin/python", "#!/bin/bash\n[ \"$1\" = -c ] && echo 9.9.9 && exit 0\necho too little memory >&2; exit 1")
    output = bench("all.lua", "what=step", "frames=2", "size=32", "runs=1", "history=", "peers=" .. top .. "/broken")
    assert.truthy(output:find("has no torch: no module named torch", 1, true), output)
    output = bench("all.lua", "what=step", "frames=2", "size=32", "runs=1", "history=", "peers=" .. top .. "/failing",
      "twin=" .. top .. "/none.py")
    assert.truthy(output:find("; no " .. top .. "/none.py (twin=), so no whole steps", 1, true), output)
    output, code = bench("all.lua", "what=step", "frames=2", "size=32", "runs=1", "history=", "peers=" .. top .. "/failing",
      "twin=" .. top .. "/twin.py")
    assert.truthy(output:find("twin.py failed: too little memory", 1, true), output)
    assert.equal(0, code)
    output = bench("all.lua", "what=oneshot", "peer=false", "history=", "davis=" .. top .. "/none")
    assert.truthy(output:find("oneshot: there is no " .. top .. "/none (davis=)", 1, true), output)
    output, code = bench("all.lua", "what=stepp")
    assert.equal(2, code)
    assert.truthy(output:find("what: there is no part 'stepp': the nearest is 'step'", 1, true), output)
    output, code = bench("all.lua", "variants=sse")
    assert.same({ "penumbra: variants: there is no 'sse' (avx2, avx512, plain)\n", 2 }, { output, code })
    output, code = bench("all.lua", "what=step", "frames=0", "peer=false", "history=")
    assert.equal(1, code)
    assert.truthy(output:find("convs.lua failed: ", 1, true), output)
    assert.truthy(output:find("penumbra: nothing was measured", 1, true), output)
  end)

  it("compares with the newest run of another commit on the same machine", function()
    local dir = top .. "/runs"
    local function run(date, commit, processor, threads, rows)
      local list = {}
      for key, value in pairs(rows) do list[#list + 1] = { key = key, value = value, unit = key == "scaling" and "x" or "ms" } end
      return { date = date, commit = commit, machine = { processor = processor, threads = threads }, rows = list }
    end
    for _, r in ipairs {
      run("2025-01-01T10:00:00Z", "old", "EPYC", 2, { a = 1, b = 1 }),
      run("2025-01-02T10:00:00Z", "newer", "EPYC", 2, { a = 2, b = 2, scaling = 2, gone = 1 }),
      run("2025-01-03T10:00:00Z", "other-rows", "EPYC", 2, { c = 1 }),
      run("2025-01-04T10:00:00Z", "other-threads", "EPYC", 4, { a = 1 }),
      run("2025-01-05T10:00:00Z", "other-machine", "Xeon", 2, { a = 1 }),
      run("2025-01-06T10:00:00Z", "now", "EPYC", 2, { a = 1 }),
      run("2025-02-06T10:00:00Z", "later", "EPYC", 2, { a = 1 }),
    } do
      history.write(dir, r)
    end
    write("runs/damaged.json", "{")
    local now = run("2025-01-07T10:00:00Z", "now", "EPYC", 2, { a = 2.1, b = 1, scaling = 1.5, fresh = 1 })
    local before = history.before(dir, now)
    assert.equal("newer", before.commit)
    assert.is_nil(history.before(dir, run("2025-01-07T10:00:00Z", "now", "Arm", 2, { a = 1 })))
    assert.is_nil(history.before(top .. "/nowhere", now))
    local list = history.compare(before, now)
    assert.equal(3, #list)
    assert.same({ "scaling", true, "a", false, "b", false },
      { list[1].key, list[1].slower, list[2].key, list[2].slower, list[3].key, list[3].slower })
    assert.is_true(math.abs(list[1].ratio - 2 / 1.5) < 1e-12 and list[3].ratio == 0.5)
    local text = history.text(before, now)
    local head = "against newer of 2025-01-02T10:00:00Z: 3 rows, mean ratio 0.888, 1 slower by more than 10 %"
    assert.truthy(text:find(head, 1, true), text)
    assert.truthy(text:match "scaling[^\n]*x 1.33   SLOWER\n")
    assert.truthy(text:match "  b [^\n]*x 0.50$")
    assert.truthy(lfs.attributes(dir .. "/2025-01-06T10-00-00Z_now_EPYC.json"))
    assert.truthy(history.directory():match "/penumbra/bench$")
    local message = helper.failure(function() history.write("/proc/nowhere/deep", now) end, "/proc/nowhere")
    assert.truthy(message:find("cannot make the directory", 1, true))
  end)
end)
