-- recipes/quickstart.lua: the whole job with nothing to download: paint a clip, learn its creature from the first mask, find it in
-- every frame, score and show it. A small network, from scratch; fails (exit code 1) when J stays below 80.
local pn = require "penumbra"

local cfg = pn.config{
  seed = 1,
  toy  = { frames = 40, height = 240, width = 426 }, -- the painted clip
  -- the network: two stages of I3D, narrow, untrained, so its batch norm uses the clip's own statistics
  width = pn.number(0.25, 1e-3), skips = { "1a", "2c", "3c" }, batchnorm = "batch",
  -- training
  epochs = pn.whole(150, 0), frames = pn.whole(8, 1), crop = pn.whole(160, 1),
  optim  = { kind = pn.config.choice("sgd", "adam", "adamw"), lr = 1e-2, momentum = 0.9, weight_decay = 2e-4 },
  side_weight = function(epoch, n) return 1 - epoch / n end,
  balance     = function(epoch, n) return 1 - epoch / n end, -- share of the class-balanced loss; the rest is the plain one
  lucid  = pn.lucid.defaults,
  infer  = pn.infer.with{ frames = 8, stride = 6, keep = "connected" },
  least  = 0.8, -- J that counts as success
}

-- What is wrong with these shows now: no run has begun.
pn.infer.with(cfg.infer)
pn.optim.check(cfg.optim)
pn.lucid.check(pn.empty{ cfg.toy.height, cfg.toy.width, 3, dtype = "u8" }, cfg)
local net    = pn.infer.check(require "models.fcn_i3d"(cfg))
local run    = pn.run(cfg)
net:to(cfg.device)
local root   = pn.data.toy.write(run.dir .. "/toy", {
  sequences = { "walk" }, frames = cfg.toy.frames, height = cfg.toy.height, width = cfg.toy.width, seed = cfg.seed,
})
local clip   = pn.data.davis(root):sequence "walk"
local optim  = pn.optim.new(net:parameters(), cfg.optim)
local scaler = pn.optim.scaler{ on = cfg.precision == "fp16" } -- else it only passes the loss and the step on
local dreams = pn.ahead(pn.lucid.stream(clip:frame(1), clip:mask(1), cfg), cfg) -- rendered while the network learns

-- Forward and backward; on CUDA captured once, then launched as one.
local step = pn.captured(function(frames, mask, side_weight, balance)
  local masks = net(frames)
  local loss  = balance * pn.loss.balanced(masks.fused, mask) + (1 - balance) * pn.loss.bce(masks.fused, mask)
  for _, side in ipairs(masks.sides) do
    loss = loss + side_weight * pn.loss.balanced(side, mask)
  end
  optim:zero_grad()
  scaler:backward(loss)
  return loss:detach()
end, cfg)

run:keep{ net = net, optim = optim, scaler = scaler.on and scaler or nil }
for epoch, batch in run:epochs(cfg.epochs, dreams) do
  local at = pn.config.at(cfg, epoch, cfg.epochs) -- what the functions among the keys say of this epoch
  local loss = step(batch.frames, batch.mask, at.side_weight, at.balance)
  run:guard(loss, function() return net(batch.frames) end)
  scaler:step(optim)
  run:log{ loss = loss }
end

cfg.infer.first_mask, cfg.infer.progress = clip:mask(1), pn.infer.line()
local masks, probabilities = pn.infer.segment(net, clip, cfg.infer)
local score = run:score(run:save_masks(masks, clip, probabilities), clip)
if score.J.mean <= cfg.least then
  error(("J is %.1f, expected more than %.1f"):format(100 * score.J.mean, 100 * cfg.least), 0)
end
print(("J %.1f. Look at %s/overlays/walk, or open %s/report.html"):format(100 * score.J.mean, run.dir, run.dir))
