--- How good masks are: J and F of DAVIS, over a sequence or over folders of masks.
--
--     local score  = pn.measure.sequence(masks, truth)     -- u8 (T,H,W) both; score.J.mean, score.F.recall, ...
--     local result = pn.measure.evaluate{ masks = "out/masks", davis = "davis2016", sequences = { "camel", "goat" } }
--     pn.measure.print(result)
--
-- J is the intersection over the union, F the agreement of the boundaries within 0.8 % of the diagonal. The first frame (it is
-- given) and the last are left out. Mean; recall: the share of frames above 0.5; decay: the mean of the first quarter less that
-- of the last. All values 0-1. Perazzi et al., CVPR 2016.

local folders = require "penumbra.measure.folders"
local sequence = require "penumbra.measure.sequence"
local text = require "penumbra.measure.text"

local measure = {
  tolerance = sequence.tolerance, sequence = sequence.sequence, copied = sequence.copied, summary = sequence.summary,
  evaluate = folders.evaluate, format = text.format, json = text.json, write_json = text.write_json,
}

--- Prints `format` of a result.
function measure.print(result)
  io.write(text.format(result))
end

return measure
