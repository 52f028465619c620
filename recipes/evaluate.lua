-- recipes/evaluate.lua: score a folder of masks against DAVIS: penumbra evaluate MASKS davis=ROOT sequences=a,b json=FILE
local pn = require "penumbra"

local cfg = pn.config{
  pn.config.required "MASKS: the folder that holds a folder of masks for each sequence (PNG, 0/255 or palette)",
  davis      = "davis2016", -- root of the data set
  sequences  = {},          -- names, with commas between; none: every folder of masks
  resolution = "480p",      -- folder below Annotations
  objects    = false,       -- each object by itself (DAVIS 2017) instead of all as one
  tolerance  = 0.008,       -- of F: share of the diagonal, or pixels from 1
  json       = pn.config.optional "a file for the scores, values 0-1",
}
if cfg.threads then pn.threads(cfg.threads) end

local result = pn.measure.evaluate{
  masks = cfg[1], davis = cfg.davis, sequences = cfg.sequences, resolution = cfg.resolution, objects = cfg.objects,
  tolerance = cfg.tolerance, json = cfg.json,
}
pn.measure.print(result)
