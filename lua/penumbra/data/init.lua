--- Data: videos with masks.
--
--     local set  = pn.data.davis "davis2016"              -- a DAVIS tree
--     local clip = set:sequence "camel"                   -- frames and masks of one video
--     local own  = pn.data.folder("holiday", { mask = "holiday/first.png" })
--     local feed = pn.data.clips(set, { set = "train" })  -- training samples, replayable
--     pn.data.toy.write("toy", { sequences = { "walk" } }) -- a painted DAVIS tree

local davis = require "penumbra.data.davis"

return {
  davis = davis.open,
  folder = davis.folder,
  clips = require("penumbra.data.clips").new,
  toy = require "penumbra.data.toy",
}
