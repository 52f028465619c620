-- scripts/gpu_leak.lua: many steps of training on a device, and whether its memory and the host's stay what they were after the
-- first: penumbra scripts/gpu_leak.lua device=cuda steps=500
-- Prints JSON. A part of `make gpu-check`; fails (exit code 1) when something grew.
local pn = require "penumbra"

local cfg = pn.config{
  device = "cuda",
  steps  = 500,
  warm   = 100,       -- steps after which nothing may grow
  width  = 0.25, frames = 8, crop = 64,
  slack  = 8,         -- MiB that the host's resident memory may grow by
  graph  = true,      -- captured steps
}
cfg.device = pn.device.choose(cfg.device)

local function resident()
  local file = assert(io.open("/proc/self/statm"))
  local pages = file:read("*a"):match "^%d+ (%d+)"
  file:close()
  return tonumber(pages) * 4096
end

local size = 2 * cfg.crop
local world, masks = pn.data.toy.clip { frames = 1, height = size, width = size, seed = 1, name = "walk" }
local net = require "models.fcn_i3d" { width = cfg.width, batchnorm = "batch", skips = { "1a", "2c", "3c" } }:to(cfg.device)
local sgd = pn.optim.sgd(net:parameters(), { lr = 1e-3, momentum = 0.9 })
local dreams = pn.ahead(pn.lucid.stream(pn.image.frame(world, 1), pn.image.frame(masks, 1),
  { frames = cfg.frames, crop = cfg.crop, seed = 1 }), { device = cfg.device, epochs = cfg.steps })

local step = pn.captured(function(frames, mask, weight)
  local out = net(frames)
  local loss = pn.loss.balanced(out.fused, mask)
  for _, side in ipairs(out.sides) do loss = loss + weight * pn.loss.balanced(side, mask) end
  sgd:zero_grad()
  loss:backward()
  return loss:detach()
end, cfg)

-- Live bytes and tensors, those held, and what is resident on the host; the collector's own pace must not show.
local function account()
  collectgarbage()
  collectgarbage()
  pn.device.wait(cfg.device)
  local m, host = pn.memory(cfg.device), pn.memory()
  return { live = m.live, held = m.held, tensors = m.tensors, host_live = host.live, resident = resident() }
end

local first, loss
for i = 1, cfg.steps do
  pn.scope(function()
    local batch = pn.device.bring(dreams:batch(i), cfg.device)
    local l = step(batch.frames, batch.mask, 1 - i / cfg.steps)
    sgd:step()
    if i % 50 == 0 then -- also what runs without being captured
      loss = l:item()
      pn.no_grad(net, batch.frames)
    end
  end)
  if i == cfg.warm then first = account() end
end
dreams:close()
local last = account()
local grown = {}
for name, value in pairs(last) do grown[name] = value - first[name] end
local ok = loss == loss and grown.live <= 0 and grown.held <= 0 and grown.tensors <= 0 and grown.host_live <= 2 ^ 20
  and grown.resident <= cfg.slack * 2 ^ 20
print(pn.json.line { device = cfg.device, steps = cfg.steps, grown = grown, last = last, loss = loss, ok = ok })
return ok and 0 or 1
