-- recipes/parent.lua: teach the network what objects are, on the training sequences of DAVIS: penumbra parent out=out/parent
-- Its checkpoint is then a start for the one-shot phase: penumbra oneshot weights=out/parent/checkpoint.safetensors
-- Goes on where it was stopped: penumbra parent davis=ROOT resume=out/parent
local pn = require "penumbra"

local cfg = pn.config{
  davis     = "davis2016",           -- root of the data set
  set       = "train",               -- the sequences to learn from: a set of the tree
  sequences = {},                    -- or these by name
  weights   = "i3d_rgb.safetensors", -- of I3D (penumbra fetch i3d brings them); "" for none
  seed      = 1,
  -- the network
  skips       = { "1a", "2c", "3c", "4f" }, -- any of 1a, 2c, 3c, 4f, 5c
  refine      = pn.whole(0, 0),      -- channels of the refinement of the fused mask, even; 0: none (the one-shot brings its own)
  deconv_init = "bilinear",          -- bilinear | nearest | icnr | random
  deconv_time = "linear",            -- linear | repeat | repeat_gain1 | centre
  overlap     = "2s",                -- 2s | s: kernel of the transposed convolutions, in strides
  crop_align  = "grid",              -- grid | centre | caffe
  batchnorm   = "frozen",            -- frozen | running | batch | moving
  recompute   = false,               -- true: less memory, about a third more time; the same bits
  output      = "fused",             -- fused | sum_of_five | mean_of_sides
  input       = "rgb_pm1",           -- rgb_pm1 | bgr_01
  width       = pn.number(1, 1e-3),  -- times the channels of I3D
  -- training
  epochs = pn.whole(700, 0),         -- an epoch is one window of each sequence
  frames = pn.whole(16, 1),          -- of a window
  crop   = pn.whole(224, 1),         -- its side, pixels
  batch  = pn.whole(1, 1),           -- clips a step
  optim  = pn.optim.keys{ kind = pn.choice("sgd", "adam", "adamw"), lr = 1e-2, momentum = 0.9, weight_decay = 2e-4 },
  refine_lr   = pn.number(3, 0),     -- times optim.lr, for the refinement, which has more to learn
  lr_scale    = function(epoch, n) return epoch > 0.7 * n and 0.1 or 1 end,
  side_weight = function(epoch, n) return 1 - epoch / n end,
  loss_norm   = "mean",              -- mean | sum | batch
  augment = require("penumbra.data.clips").defaults, -- flips, turns, scales, light, time, and which windows
  checkpoint_every = 1,
}

local set  = pn.data.davis(cfg.davis)
-- What is wrong with these shows now, not after the run has a folder.
pn.optim.check(cfg.optim)
local clips = pn.data.clips(set, {
  set = cfg.set, sequences = #cfg.sequences > 0 and cfg.sequences or nil, frames = cfg.frames, crop = cfg.crop, input = cfg.input,
  seed = cfg.seed, augment = cfg.augment,
})
local net  = require "models.fcn_i3d"(cfg)
if cfg.weights ~= "" then net:load(cfg.weights, { allow_missing = true }) end
local run  = pn.run(cfg)
if net.loaded then run:say(net.loaded.text) end
net:to(cfg.device)
local optim = pn.optim.new(net:groups(cfg.refine_lr), cfg.optim)
local scaler = pn.optim.scaler{ on = cfg.precision == "fp16" } -- else it only passes the loss and the step on
local feed = pn.ahead(clips, cfg) -- decoded and augmented while the network learns
local norm = { norm = cfg.loss_norm }

-- Forward and backward; on CUDA captured once, then launched as one (graph=false: kernel by kernel).
local step = pn.captured(function(frames, mask, side_weight)
  local masks = net(frames)
  local loss  = pn.loss.balanced(masks.fused, mask, norm)
  local fused = loss:detach()
  for _, side in ipairs(masks.sides) do
    loss = loss + side_weight * pn.loss.balanced(side, mask, norm)
  end
  optim:zero_grad()
  scaler:backward(loss)
  return loss:detach(), fused
end, cfg)

run:keep{ net = net, optim = optim, scaler = scaler.on and scaler or nil }
for epoch, batch in run:epochs(cfg.epochs, feed) do
  local at = pn.config.at(cfg, epoch, cfg.epochs) -- what the functions among the keys say of this epoch
  local loss, fused = step(batch.frames, batch.mask, at.side_weight)
  run:guard(loss, function() return net(batch.frames) end)
  optim:set_lr(cfg.optim.lr * at.lr_scale)
  scaler:step(optim)
  run:log{ loss = loss, fused_loss = fused, sequence = batch.params.sequence }
end
