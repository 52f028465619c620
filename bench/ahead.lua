-- bench/ahead.lua: what its data costs a training step of FCN-I3D: penumbra bench/ahead.lua davis=davis2016 steps=8 rounds=3
-- The same step on one batch again and again (bare), on dreams and on clips, made in line (0 workers) and ahead, in turns. A line
-- each: the mean step of its best turn, and the median of how long a step waited. Without davis= on a painted clip.
local pn = require "penumbra"
local files = require "penumbra.base.files"

local cfg = pn.config{
  davis     = "",
  sequence  = "camel",
  frames    = 16,
  crop      = 224,
  width     = 1,
  precision = pn.choice("f32", "bf16"),
  steps     = 6,        -- of each kind in a turn
  rounds    = 4,
  workers   = { 0, 1, 2 },
  sources   = { "dreams", "clips" },
}
if cfg.threads then pn.threads(cfg.threads) end

local root, made = cfg.davis, nil
if root == "" then
  root, cfg.sequence = files.scratch(), "walk"
  made = root
  pn.data.toy.write(root, { frames = 2 * cfg.frames, height = 480, width = 854, sequences = { "walk" } })
end
local set = pn.data.davis(root)
local clip = set:sequence(cfg.sequence)
local net = require "models.fcn_i3d" { width = cfg.width, batchnorm = "batch" }
local sgd = pn.optim.sgd(net:parameters(), { lr = 1e-4, momentum = 0.9, weight_decay = 2e-4 })

local function step(batch)
  local masks = net(batch.frames)
  local loss = pn.loss.balanced(masks.fused, batch.mask)
  for _, side in ipairs(masks.sides) do loss = loss + 0.5 * pn.loss.balanced(side, batch.mask) end
  sgd:zero_grad()
  loss:backward()
  sgd:step()
end

local makers = {
  dreams = function() return pn.lucid.stream(clip:frame(1), clip:mask(1), cfg) end,
  clips = function()
    return pn.data.clips(set, { sequences = made and { "walk" } or set:sequences(), frames = cfg.frames, crop = cfg.crop })
  end,
}
local kinds = { { name = "bare", batch = function(self) return self.one end, one = makers.dreams():batch(1) } }
for _, source in ipairs(cfg.sources) do
  for _, workers in ipairs(cfg.workers) do
    local feed = pn.ahead(makers[source](), { workers = workers, ahead = workers })
    kinds[#kinds + 1] = {
      name = ("%s, %d worker%s"):format(source, workers, workers == 1 and "" or "s"),
      batch = function(_, i) return feed:batch(math.floor((i - 1) / feed.per_epoch) + 1, (i - 1) % feed.per_epoch + 1) end,
    }
  end
end

for _, kind in ipairs(kinds) do kind.best, kind.waits, kind.n = math.huge, {}, 0 end
for round = 0, cfg.rounds do -- the first warms up
  for _, kind in ipairs(kinds) do
    local turn, n_steps = pn.clock(), round == 0 and 2 or cfg.steps
    for _ = 1, n_steps do
      pn.scope(function()
        local begin = pn.clock()
        kind.n = kind.n + 1
        local batch = kind:batch(kind.n)
        if round > 0 then table.insert(kind.waits, pn.clock() - begin) end
        step(batch)
      end)
    end
    if round > 0 then kind.best = math.min(kind.best, (pn.clock() - turn) / n_steps) end
  end
end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end
print(("%d threads, %d frames of %d, best of %d turns of %d steps"):format(pn.threads(), cfg.frames, cfg.crop, cfg.rounds,
  cfg.steps))
for _, kind in ipairs(kinds) do
  print(("%-20s %.4f s/step  %+5.1f %%  data %5.1f ms"):format(kind.name, kind.best, 100 * (kind.best / kinds[1].best - 1),
    1e3 * median(kind.waits)))
end
if made then files.remove(made) end
