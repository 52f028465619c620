-- scripts/gpu_clock.lua: how long the whole experiment takes on a device, from its parts: penumbra scripts/gpu_clock.lua
-- device=cuda Steps of the parent and of a one-shot as the recipes run them, with their data (painted clips of 480p); a frame of
-- inference; J and F. From these: 700 epochs on 30 sequences, then 20 sequences, each 200 steps, inference of all frames, scores.
-- Prints a line of JSON after each part, the last with all.
local pn = require "penumbra"
local files = require "penumbra.base.files"

local cfg = pn.config{
  device    = "cuda",
  precision = pn.choice("f32", "tf32", "bf16", "fp16"),
  width     = 1,      -- times the channels of I3D
  frames    = 16, crop = 224, batch = 1,
  height    = 480, clip_width = 854, clip_frames = 24, -- of the painted clips
  steps     = 60,     -- that are timed of each kind; the first third warms up
  epochs    = 700, sequences = 30, shots = 20, shot_steps = 200, -- the experiment, with the paper's steps
  shot_frames = 1376, -- of DAVIS 2016 val together
  checkpoint_every = 0,
}
cfg.device, cfg.quiet = pn.device.choose(cfg.device), true
local precision = pn.precision(cfg.precision, cfg.device)

local folder = files.scratch()
local root = pn.data.toy.write(folder, {
  sequences = { "walk", "swap", "hop" }, frames = cfg.clip_frames, height = cfg.height, width = cfg.clip_width,
})
local set = pn.data.davis(root)
local clip = set:sequence "walk"

-- Seconds a step: forward, five losses, backward, SGD, the batch from its source, the log.
-- `plain`: the share of the plain loss, which a one-shot has.
local function train(name, source, plain)
  cfg.out = folder .. "/" .. name
  local run = pn.run(cfg)
  local net = require "models.fcn_i3d" { width = cfg.width, refine = plain and 32 or 0 }:to(cfg.device) -- as the recipes
  local sgd = pn.optim.sgd(net:parameters(), { lr = 1e-3, momentum = 0.9, weight_decay = 2e-4 })
  local scaler = pn.optim.scaler { on = precision == "fp16" }
  local step = pn.captured(function(frames, mask, weight)
    local masks = net(frames)
    local loss = pn.loss.balanced(masks.fused, mask)
    if plain then loss = (1 - plain) * loss + plain * pn.loss.bce(masks.fused, mask) end
    for _, side in ipairs(masks.sides) do loss = loss + weight * pn.loss.balanced(side, mask) end
    sgd:zero_grad()
    scaler:backward(loss)
    return loss:detach()
  end, cfg)
  local feed = pn.ahead(source, cfg)
  local epochs = math.ceil(cfg.steps / feed.per_epoch)
  local warm, done, waited, began = math.floor(epochs * feed.per_epoch / 3), 0, 0, nil
  for _, batch in run:epochs(epochs, feed) do
    if done >= warm then waited = waited + run.waited end
    local loss = step(batch.frames, batch.mask, 0.5)
    run:guard(loss, function() return net(batch.frames) end)
    scaler:step(sgd)
    run:log { loss = loss }
    done = done + 1
    if done == warm then
      pn.device.wait(cfg.device)
      began = pn.clock()
    end
  end
  pn.device.wait(cfg.device)
  run:close()
  return net, (pn.clock() - began) / (done - warm), waited / (done - warm)
end

local found = { device = cfg.device, precision = precision }
local function part(fields)
  for name, value in pairs(fields) do found[name] = value end
  print(pn.json.line(found))
  io.flush()
end

local function measure()
  local how = { frames = cfg.frames, crop = cfg.crop, seed = 1 }
  local shot_net, shot, shot_data = train("shot", pn.lucid.stream(clip:frame(1):keep(), clip:mask(1):keep(), how), 0.5)
  part { step_shot = shot, waited_shot = shot_data, one_shot = cfg.shot_steps * shot }
  how.sequences = { "walk", "swap", "hop" }
  local _, parent, parent_data = train("parent", pn.data.clips(set, how))
  local epoch = math.ceil(cfg.sequences / cfg.batch) * parent
  part { step_parent = parent, waited_parent = parent_data, epoch_parent = epoch }
  local began, windows
  local masks = shot_net:segment(clip, {
    frames = cfg.frames, first_mask = clip:mask(1), keep = "connected",
    progress = function(done, total) -- the first window warms up
      if done == 1 then began, windows = pn.clock(), total end
    end,
  })
  local frame = (pn.clock() - began) / math.max(windows - 1, 1) * windows / clip.n_frames
  part { frame = frame }
  began = pn.clock()
  pn.measure.sequence(masks, clip:masks())
  local score = (pn.clock() - began) / clip.n_frames
  local all = {
    parent = cfg.epochs * epoch, shots = cfg.shots * cfg.shot_steps * shot, inference = cfg.shot_frames * frame,
    scores = cfg.shot_frames * score,
  }
  part {
    frame_scores = score, experiment = all, experiment_minutes = (all.parent + all.shots + all.inference + all.scores) / 60,
  }
end

local ok, problem = pcall(measure)
files.remove(folder)
if not ok then error(problem, 0) end
