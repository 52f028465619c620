--- Data: videos with masks.
--
--     local set  = pn.data.davis "davis2016"              -- a DAVIS tree
--     local clip = set:sequence "camel"                   -- frames and masks of one video
--     local own  = pn.data.own("holiday.mp4", { mask = "first.png" }) -- one's own video, or folder of frames
--     local clip = pn.data.clip(cfg)                      -- what a recipe's keys name: a sequence, or a clip of one's own
--     local feed = pn.data.clips(set, { set = "train" })  -- training samples, replayable
--     pn.data.toy.write("toy", { sequences = { "walk" } }) -- a painted DAVIS tree

local davis = require "penumbra.data.davis"
local own = require "penumbra.data.own"

return {
  davis = davis.open,
  folder = davis.folder,
  own = own.open,
  clip = own.clip,
  clips = require("penumbra.data.clips").new,
  toy = require "penumbra.data.toy",
}
