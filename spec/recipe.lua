--- What the specs of recipes share: the program run as a user calls it, on a painted clip, and what a run leaves.

local pn = require "penumbra"
local files = require "penumbra.base.files"
local program = require "penumbra.program"
local shell = require "penumbra.base.shell"

local recipe = {}

--- Keys of a small network and small clips.
recipe.small = { "width=0.0625", "weights=", "epochs=2", "frames=4", "crop=32", "infer.frames=4", "infer.stride=4" }

--- A folder of its own, and a program that looks for its CUDA plug-in at `library`.
-- @treturn table scratch, tree: paths; run(...): exit code and all it said; succeeds(...): what it said; oneshot(out, ...): the
--   words of a small run of that recipe
function recipe.on(library)
  local self = { scratch = files.scratch() }
  self.tree = self.scratch .. "/toy"

  function self.run(...)
    local words = { ("PENUMBRA_CUDA_LIB='%s'"):format(library), shell.quote(program.exe) }
    for _, word in ipairs { ... } do
      words[#words + 1] = shell.quote(word)
    end
    local text, code = shell.run(table.concat(words, " "))
    return code, text
  end

  function self.succeeds(...)
    local code, text = self.run(...)
    assert(code == 0, text)
    return text
  end

  function self.oneshot(out, ...)
    local words = { "oneshot", "davis=" .. self.tree, "sequence=walk", "out=" .. out }
    for _, word in ipairs(recipe.small) do words[#words + 1] = word end
    for _, word in ipairs { ... } do
      if word:match "^video=" then words[3] = "seed=1" end -- in place of the sequence
      words[#words + 1] = word
    end
    return words
  end

  return self
end

function recipe.json(path) return pn.json.decode(assert(files.read(path))) end

--- The lines of a run's log.
function recipe.log_lines(dir)
  local lines = {}
  for line in io.lines(dir .. "/log.jsonl") do lines[#lines + 1] = pn.json.decode(line) end
  return lines
end

return recipe
