-- scripts/i3d_checksums.lua: writes lua/penumbra/weights/i3d_checksums.lua from the index of DeepMind's release.
--
--     build/penumbra scripts/i3d_checksums.lua rgb_scratch.ckpt.index > lua/penumbra/weights/i3d_checksums.lua
--
-- The index (data/checkpoints/rgb_scratch of deepmind/kinetics-i3d) gives shape and CRC-32C of each of its 230 tensors.
local formats = require "penumbra.formats"
local units = require "penumbra.weights.i3d_names"

local arg = rawget(_G, "arg")
local index = formats.open(arg[1] or error("usage: penumbra scripts/i3d_checksums.lua INDEX", 0))
local suffixes = {
  { "conv.weight", "conv_3d/w" }, { "conv.bias", "conv_3d/b" }, { "bn.beta", "batch_norm/beta" },
  { "bn.mean", "batch_norm/moving_mean" }, { "bn.var", "batch_norm/moving_variance" },
}

print [[
--- CRC-32C of the 230 tensors of I3D RGB, Kinetics-400 from scratch, in DeepMind's byte order: convolutions as (T,H,W,I,O).
--
-- Source: deepmind/kinetics-i3d, data/checkpoints/rgb_scratch/model.ckpt.index (Apache-2.0); written by
-- scripts/i3d_checksums.lua. Names are ours (penumbra.weights.i3d_names).
-- luacheck: no max line length

return {]]
local n = 0
for _, unit in ipairs(units) do
  for _, suffix in ipairs(suffixes) do
    for _, tf in ipairs { unit.tf, unit.also } do
      local name = ("RGB/inception_i3d/%s/%s"):format(tf, suffix[2])
      if index:has(name) then
        n = n + 1
        print(("  [%q] = { crc32c = 0x%08x, shape = { %s } },"):format(unit.name .. "." .. suffix[1], index:crc32c(name),
          table.concat(index:shape(name), ", ")))
      end
    end
  end
end
print "}"
assert(n == #index.names, ("%d of the %d tensors have a name of ours"):format(n, #index.names))
