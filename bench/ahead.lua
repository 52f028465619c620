-- bench/ahead.lua: what its data costs a training step of FCN-I3D: penumbra bench/ahead.lua davis=davis2016 steps=8 rounds=3
-- The same step on one batch again and again (bare), on dreams and on clips, made in line (0 workers) and ahead; in turns, a
-- line each: median step, and how long it waited. Without davis= on a painted clip of that size.
local pn = require "penumbra"

local cfg = pn.config{
  davis     = "",
  sequence  = "camel",
  frames    = 16,
  crop      = 224,
  width     = 1,
  precision = pn.choice("f32", "bf16"),
  steps     = 6,        -- of each kind in a round
  rounds    = 3,
  workers   = { 0, 1, 2 },
  sources   = { "dreams", "clips" },
}
if cfg.threads then pn.threads(cfg.threads) end

local root, made = cfg.davis, nil
if root == "" then
  root, cfg.sequence = os.tmpname(), "walk"
  os.remove(root)
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
    local feed = pn.ahead(makers[source](), { workers = workers })
    kinds[#kinds + 1] = {
      name = ("%s, %d worker%s"):format(source, workers, workers == 1 and "" or "s"),
      batch = function(_, i) return feed:batch(math.floor((i - 1) / feed.per_epoch) + 1, (i - 1) % feed.per_epoch + 1) end,
    }
  end
end

for _, kind in ipairs(kinds) do kind.steps, kind.waits, kind.n = {}, {}, 0 end
for round = 0, cfg.rounds do -- the first warms up
  for _, kind in ipairs(kinds) do
    for _ = 1, round == 0 and 2 or cfg.steps do
      pn.scope(function()
        local begin = pn.clock()
        kind.n = kind.n + 1
        local batch = kind:batch(kind.n)
        local ready = pn.clock()
        step(batch)
        if round > 0 then
          table.insert(kind.waits, ready - begin)
          table.insert(kind.steps, pn.clock() - begin)
        end
      end)
    end
  end
end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end
print(("%d threads, %d frames of %d, medians of %d"):format(pn.threads(), cfg.frames, cfg.crop, #kinds[1].steps))
local bare = median(kinds[1].steps)
for _, kind in ipairs(kinds) do
  local each = median(kind.steps)
  print(("%-20s %.4f s/step  %+5.1f %%  data %5.1f ms"):format(kind.name, each, 100 * (each / bare - 1), 1e3 * median(kind.waits)))
end
if made then os.execute("rm -rf '" .. made .. "'") end
