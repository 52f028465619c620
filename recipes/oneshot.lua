-- recipes/oneshot.lua: learn one object from its first mask, then find it in every frame: penumbra oneshot sequence=camel
-- One's own: penumbra oneshot video=holiday.mp4 mask=first.png (a folder of frames will do; the mask is of the first frame)
-- All sequences of a set, one after another, in one table: penumbra each oneshot set=val
local pn = require "penumbra"

local cfg = pn.config{
  davis    = "davis2016",           -- root of the data set
  sequence = "blackswan",           -- whose first frame and mask are learnt
  video    = pn.config.optional "a video, or a folder of frames, in place of a sequence",
  mask     = pn.config.optional "of the first frame of video: a PNG, black where the object is not",
  object   = 0,                     -- whose number in the first mask; 0: any value but 0 is the object
  weights  = "i3d_rgb.safetensors", -- of I3D (penumbra fetch i3d brings them), or the checkpoint of a parent; "" for none
  seed     = 1,
  -- the network
  skips       = { "1a", "2c", "3c", "4f" }, -- any of 1a, 2c, 3c, 4f, 5c
  refine      = pn.whole(32, 0),    -- channels of the refinement of the fused mask, even; 0: none (the paper)
  deconv_init = "bilinear",         -- bilinear | nearest | icnr | random
  deconv_time = "linear",           -- linear | repeat | repeat_gain1 | centre
  overlap     = "2s",               -- 2s | s: kernel of the transposed convolutions, in strides
  crop_align  = "grid",             -- grid | centre | caffe
  batchnorm   = "frozen",           -- frozen | running | batch | moving
  recompute   = false,              -- true: less memory, about a third more time; the same bits
  output      = "fused",            -- fused | sum_of_five | mean_of_sides
  input       = "rgb_pm1",          -- rgb_pm1 | bgr_01
  width       = pn.number(1, 1e-3), -- times the channels of I3D
  -- training
  epochs = pn.whole(400, 0),        -- the paper: 200
  frames = pn.whole(16, 1),         -- of a dream
  crop   = pn.whole(224, 1),        -- side of the window that a dream is seen through, pixels
  batch  = pn.whole(1, 1),          -- dreams a step
  optim  = pn.optim.keys{ kind = pn.choice("adamw", "adam", "sgd"), lr = 1e-4, -- paper: sgd, 1e-2
                          momentum = 0.9, weight_decay = 2e-4 },
  refine_lr   = pn.number(10, 0),   -- times optim.lr, for the refinement, which has more to learn
  lr_scale    = function() return 1 end, -- of (epoch, n): times optim.lr
  side_weight = function(epoch, n) return 1 - epoch / n end,
  balance     = function(epoch, n) return 1 - epoch / n end, -- share of the class-balanced loss; the rest is the plain one
  loss_norm   = "mean",             -- mean | sum | batch
  lucid  = pn.lucid.defaults,       -- what dreams are made of
  mine_every = pn.whole(20, 0),     -- epochs from one search for background that looks like the object to the next; 0: none
  infer  = pn.infer.with{ keep = "connected", calibrate = 0 }, -- how the clip is segmented
  online = pn.online.defaults,      -- what is learnt on the way; every = 0: nothing
}

local clip   = pn.data.clip(cfg)
cfg.sequence = clip.name
-- What is wrong with these shows now: no run has begun, nothing has been learnt in vain.
pn.infer.with(cfg.infer)
pn.online.with(cfg.online)
pn.optim.check(cfg.optim)
pn.lucid.check(clip:frame(1), cfg)
local net    = pn.infer.check(require "models.fcn_i3d"(cfg))
if cfg.weights ~= "" then net:load(cfg.weights, { allow_missing = true }) end
local run    = pn.run(cfg)
if net.loaded then run:say(net.loaded.text) end
net:to(cfg.device)
local optim  = pn.optim.new(net:groups(cfg.refine_lr), cfg.optim)
local scaler = pn.optim.scaler{ on = cfg.precision == "fp16" } -- else it only passes the loss and the step on
local stream = pn.lucid.stream(clip:frame(1), clip:mask(1), cfg)
local dreams = pn.ahead(stream, cfg) -- rendered while the network learns
local norm   = { norm = cfg.loss_norm }

-- Forward and backward; on CUDA captured once, then launched as one (graph=false: kernel by kernel).
local step = pn.captured(function(frames, mask, side_weight, balance)
  local masks = net(frames)
  local loss  = balance * pn.loss.balanced(masks.fused, mask, norm) + (1 - balance) * pn.loss.bce(masks.fused, mask, norm)
  local fused = loss:detach()
  for _, side in ipairs(masks.sides) do
    loss = loss + side_weight * pn.loss.balanced(side, mask, norm)
  end
  optim:zero_grad()
  scaler:backward(loss)
  return loss:detach(), fused
end, cfg)

run:keep{ net = net, optim = optim, dreams = stream, scaler = scaler.on and scaler or nil }
for epoch, batch in run:epochs(cfg.epochs, dreams) do
  local at = pn.config.at(cfg, epoch, cfg.epochs) -- what the functions among the keys say of this epoch
  local loss, fused = step(batch.frames, batch.mask, at.side_weight, at.balance)
  run:guard(loss, function() return net(batch.frames) end)
  optim:set_lr(cfg.optim.lr * at.lr_scale)
  scaler:step(optim)
  local places, wrong
  if cfg.mine_every > 0 and epoch % cfg.mine_every == 0 then -- hard negatives: a share of the dreams then shows these places
    places, wrong = pn.infer.false_positives(net, clip:frame(1), clip:mask(1))
    stream:focus(places)
  end
  run:log{ loss = loss, fused_loss = fused, false_positives = wrong }
end

-- While the clip is segmented the network learns on: what it is sure of in the frames just seen, and dreams in between.
local recall = pn.captured(function(frames, mask, void)
  local loss = pn.loss.bce(net:logits(frames), mask, { norm = cfg.loss_norm, void = void })
  optim:zero_grad()
  scaler:backward(loss)
  return loss:detach()
end, cfg)

optim:set_lr(cfg.online.lr)
cfg.infer.after_frame = pn.online.learner(clip, stream, cfg, function(batch)
  recall(batch.frames, batch.mask, batch.void)
  scaler:step(optim)
end)
cfg.infer.first_mask, cfg.infer.progress = clip:mask(1), pn.infer.line()
local masks, probabilities, found = pn.infer.segment(net, clip, cfg.infer)
clip.found = found -- for scores.json
run:say("frame 1   J %.1f at threshold %.2f", 100 * found.first_j, found.threshold)
run:finish(masks, clip, probabilities)
