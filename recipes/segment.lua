-- recipes/segment.lua: masks for a video, or a folder of frames, by a network that a run of oneshot or parent has trained:
-- penumbra segment CLIP checkpoint=out/RUN/checkpoint.safetensors
-- It is segmented as that run segmented its own clip; any key of infer that is given here comes first.
local pn = require "penumbra"
local of_run = require "penumbra.infer.of_run"

local cfg = pn.config{
  pn.config.required "CLIP: a video, or a folder of pictures, in the order of their names and numbers",
  checkpoint = pn.config.required "checkpoint.safetensors of a run of oneshot or parent; it knows its own network",
  mask   = pn.config.optional "mask of the first frame, for infer.keep=connected, and to know the size and the best threshold",
  object = 0, -- whose number in the mask; 0: any value but 0 is the object
  -- how the clip is segmented
  infer  = of_run.keys(),
}

local clip = pn.data.own(cfg[1], { mask = cfg.mask, object = cfg.object })
local path = pn.weights.find(cfg.checkpoint)
local file = pn.formats.open(path)
if not file.metadata.config then
  error(("%s: not the checkpoint of a run: it does not say which network it holds"):format(cfg.checkpoint), 0)
end
local recorded = pn.json.decode(file.metadata.config)
file:close()
local taken
cfg.infer, taken = of_run.settings(path, recorded, cfg.infer, { clip = clip.name, has_mask = cfg.mask ~= nil })

local run = pn.run(cfg)
if taken then run:say("as the run of the checkpoint: %s", taken) end
local net = require "models.fcn_i3d"(recorded):to(cfg.device):load(cfg.checkpoint)
run:say(net.loaded.text)

cfg.infer.first_mask = cfg.mask and clip:mask(1)
cfg.infer.progress = pn.infer.line()
local masks, probabilities = net:segment(clip, cfg.infer)
run:save_masks(masks, clip, probabilities)
