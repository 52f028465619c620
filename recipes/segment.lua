-- recipes/segment.lua: masks for a video, or a folder of frames, by a network that a run of oneshot or parent has trained:
-- penumbra segment CLIP checkpoint=out/RUN
-- It is segmented as that run segmented its own clip; any key of infer that is given here comes first.
-- By the network of a recipe of one's own: penumbra segment CLIP checkpoint=out/RUN model=models/mine.lua
local pn = require "penumbra"
local of_run = require "penumbra.infer.of_run"

local cfg = pn.config{
  pn.config.required "CLIP: a video, or a folder of pictures, in the order of their names and numbers",
  checkpoint = pn.config.required "checkpoint.safetensors of a run, or its folder; it knows the keys of its network",
  model  = "fcn_i3d", -- what network the run taught: a name in models/, or FILE.lua; made of the keys of the run (docs/models.md)
  mask   = pn.config.optional "mask of the first frame, for infer.keep=connected, and to know the size and the best threshold",
  object = 0, -- whose number in the mask; 0: any value but 0 is the object
  -- how the clip is segmented
  infer  = of_run.keys(),
}

local clip = pn.data.own(cfg[1], { mask = cfg.mask, object = cfg.object })
local path = pn.weights.find(cfg.checkpoint)
local recorded = of_run.recorded(path)
local taken
cfg.infer, taken = of_run.settings(path, recorded, cfg.infer, { clip = clip.name, has_mask = cfg.mask ~= nil })
local function model_of(name)
  if name:match "%.lua$" then return (assert(loadfile(name))()) end
  return (require("models." .. name))
end
local net = of_run.network(path, recorded, model_of(cfg.model), cfg.model)

local run = pn.run(cfg)
if taken then run:say("as the run of the checkpoint: %s", taken) end
if net.loaded then run:say(net.loaded.text) end
net:to(cfg.device)

cfg.infer.first_mask = cfg.mask and clip:mask(1)
cfg.infer.progress = pn.infer.line()
local masks, probabilities = pn.infer.segment(net, clip, cfg.infer)
run:save_masks(masks, clip, probabilities)
