--- shell_spec: commands of the system, and folders for a while.
local files = require "penumbra.base.files"
local program = require "penumbra.program"
local shell = require "penumbra.base.shell"
local lfs = require "lfs"

describe("shell", function()
  it("quotes a text as one word, whatever is in it", function()
    for _, text in ipairs { "plain", "two words", "it's", "$HOME `id` \\ \"x\"", "a\nb", "" } do
      assert.equal(text .. "\n", (shell.run("printf '%s\\n' " .. shell.quote(text))))
    end
  end)

  it("runs a command without input: both streams and the exit code", function()
    local output, code = shell.run "echo out; echo err >&2; cat; exit 3"
    assert.same({ "out\nerr\n", 3 }, { output, code })
    assert.same({ "#7\n#", 0 }, { shell.run "printf '#7\\n#'" }) -- what looks like a code is none
    assert.same({ "", 0 }, { shell.run "true # a comment" })
    assert.equal(127, select(2, shell.run "no-such-program"))
  end)

  it("says whether a command succeeds, and its first line", function()
    assert.is_true(shell.succeeds "echo quiet")
    assert.is_false(shell.succeeds "false")
    assert.equal("one", shell.line "echo one; echo two")
    assert.is_nil(shell.line "echo not this >&2")
  end)

  -- A program in a group of its own (timeout's) that began another; the number of that one comes into a file.
  it("ends what takes too long with all that it began, and when it is ended itself", function()
    local file = os.tmpname()
    finally(function() os.remove(file) end)
    local sleeper = "sh -c " .. shell.quote(("sleep 60 & echo $! >%s; wait"):format(file))
    local function gone()
      local number = files.read(file):match "%d+"
      assert.truthy(number)
      -- One that has ended has no command line, though its parent may not have asked yet.
      return shell.succeeds(([[for i in $(seq 50); do
        [ -n "$(tr '\0' ' ' </proc/%s/cmdline)" ] || exit 0; sleep 0.1; done; exit 1]]):format(number))
    end
    assert.same({ "in time\n", 3, false }, { shell.within(60, "sh -c 'echo in time; exit 3'") })
    assert.same({ 137, false }, { select(2, shell.within(60, "sh -c 'kill -KILL $$'")) })
    -- f(seconds), with more of them where a busy machine did not come to the sleep.
    local function in_sleep(f)
      local results
      for _, seconds in ipairs { 1, 5, 25 } do
        files.write(file, "")
        results = { f(seconds) }
        if files.read(file) ~= "" then break end
      end
      return results
    end
    assert.same({ "", 124, true }, in_sleep(function(seconds) return shell.within(seconds, sleeper) end))
    assert.is_true(gone())
    local script = ("require 'penumbra.base.shell'.within(60, %q)"):format(sleeper)
    assert.same({ 124 }, in_sleep(function(seconds)
      return select(2, shell.run(("timeout %d %s -e %s"):format(seconds, shell.quote(program.exe), shell.quote(script))))
    end))
    assert.is_true(gone())
  end)
end)

describe("a scratch folder", function()
  it("is new and empty, and goes with all in it, but not what its links point to", function()
    local kept, folder = files.scratch(), files.scratch()
    assert.not_equal(kept, folder)
    assert.is_nil(files.write(kept .. "/file", "stays"))
    assert.is_nil(files.make_directory(folder .. "/a/b"))
    assert.is_nil(files.write(folder .. "/a/b/c", "goes"))
    assert(lfs.link(kept, folder .. "/link", true))
    files.remove(folder)
    assert.is_nil(lfs.attributes(folder))
    assert.equal("stays", files.read(kept .. "/file"))
    files.remove(kept)
    files.remove(kept) -- gone already
    assert.is_nil(lfs.attributes(kept))
  end)
end)
