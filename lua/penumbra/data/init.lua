--- Data: videos with masks.
--
--     local set  = pn.data.davis "davis2016"              -- a DAVIS tree
--     local clip = set:sequence "camel"                   -- frames and masks of one video
--     local own  = pn.data.folder("holiday", { mask = "holiday/first.png" })

local davis = require "penumbra.data.davis"

return {
  davis = davis.open,
  folder = davis.folder,
}
