--- shell_spec: commands of the system, and folders for a while.
local files = require "penumbra.files"
local shell = require "penumbra.shell"
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
