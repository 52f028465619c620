-- bench/oracle.lua: the best a side mask could be: the truth itself, seen through the grid of each skip (METHOD 4).
-- penumbra bench/oracle.lua davis=ROOT sequences=camel,goat
--
-- The masks of a whole sequence are averaged over one stride (t,h,w) around the centre of each element of the layer, brought
-- back by the decoder's own transposed convolution (bilinear, linear in time), and cut at one half: once registered by the
-- grid, once by a centre crop. J / F as DAVIS takes them (without the first and last frame), sequences averaged last.
local pn = require "penumbra"

local cfg = pn.config{
  davis     = "davis2016", -- root of the data set
  set       = "val-dev",   -- a set of the tree
  sequences = {},          -- or these by name
  width     = 0,           -- pixels to which frames are widened (their borders held); 0: as they are
  skips     = { "1a", "2c", "3c", "4f", "5c" },
}
if cfg.threads then pn.threads(cfg.threads) end

local registered = require("penumbra.nn.registered").registered
local fcn = require "models.fcn_i3d"
local i3d = require "models.i3d"

-- The stride and centre of a skip on a clip of some size, as the network's own tensors carry them.
local trunk = i3d { to = "mixed_5c", width = 1 / 64 }
local function grids(t, h, w)
  local found = {}
  local function along(d, n) -- an axis at a time: the other two as small as can be
    local shape = { 1, 1, 1 }
    shape[d] = n
    pn.scope(function()
      pn.no_grad(function()
        local x = pn.zeros { 1, 3, shape[1], shape[2], shape[3], layout = "channels_last" }
        local names = {}
        for i, skip in ipairs(fcn.skips) do names[i] = skip.at end
        local y = trunk:endpoints(x, names)
        for _, skip in ipairs(fcn.skips) do
          found[skip[1]] = found[skip[1]] or { stride = skip.stride, centre = {}, size = {} }
          found[skip[1]].centre[d] = y[skip.at]:grid().centre[d]
          found[skip[1]].size[d] = y[skip.at]:size(d + 2)
        end
      end)
    end)
  end
  along(1, t)
  along(2, h)
  along(3, w)
  return found
end

-- The mean over one stride around each centre, along axis d; at the borders over what is there.
local function pool(x, d, grid)
  local s, n, size = grid.stride[d], x:size(d + 2), grid.size[d]
  local first = grid.centre[d] - s / 2
  local kernel = { 1, 1, 1, 1, 1 }
  kernel[d + 2] = s + 1
  local weight = pn.full { kernel[1], kernel[2], kernel[3], kernel[4], kernel[5], value = 1 }
  for _, at in ipairs { 1, s + 1 } do
    local index = { 1, 1, 1, 1, 1 }
    index[d + 2] = at
    weight:set(0.5, unpack(index))
  end
  local low, high = math.max(0, -first), math.max(0, first + (size - 1) * s + s + 1 - n)
  local pad, stride = { { 0, 0 }, { 0, 0 }, { 0, 0 } }, { 1, 1, 1 }
  pad[d], stride[d] = { low, high }, s
  local function run(y)
    if first > 0 then y = y:slice { axis = d + 2, first = first + 1, count = n - first } end
    return pn.conv3d(y, weight, nil, { stride = stride, pad = pad }):slice { axis = d + 2, first = 1, count = size }
  end
  local ones = { 1, 1, 1, 1, 1 }
  ones[d + 2] = n
  return run(x) / run(pn.full { ones[1], ones[2], ones[3], ones[4], ones[5], value = 1, layout = "channels_last" })
end

local function widen(masks, width)
  local n, h, w = masks:size(1), masks:size(2), masks:size(3)
  if width <= w then return masks end
  local wide, left = pn.empty { n, h, width, dtype = "u8" }, math.floor((width - w) / 2)
  local from, to = masks:data(), wide:data()
  for row = 0, n * h - 1 do
    for x = 0, width - 1 do to[row * width + x] = from[row * w + math.max(0, math.min(w - 1, x - left))] end
  end
  return wide
end

local set = pn.data.davis(cfg.davis)
local sequences = #cfg.sequences > 0 and cfg.sequences or set:sequences(cfg.set)
local sums = {}
for _, name in ipairs(sequences) do
  pn.scope(function()
    pn.no_grad(function()
      local truth = widen(set:sequence(name):masks(), cfg.width)
      local target = pn.image.masks_to_clip(truth):set_grid({ 1, 1, 1 }, { 0, 0, 0 })
      local all = grids(truth:size(1), truth:size(2), truth:size(3))
      for _, skip in ipairs(cfg.skips) do
        local grid = all[skip]
        if not grid then error(("skips: there is no '%s'"):format(skip), 0) end
        pn.scope(function()
          local y = target
          for d = 1, 3 do y = pool(y, d, grid) end
          y = (y - 0.5):set_grid(grid.stride, grid.centre)
          local row = sums[skip] or {}
          sums[skip] = row
          for k, align in ipairs { "grid", "centre" } do
            local up = registered { channels = 1, stride = grid.stride, align = align }
            local score = pn.measure.sequence(pn.image.clip_to_masks(up(y, target)), truth)
            row[2 * k - 1] = (row[2 * k - 1] or 0) + 100 * score.J.mean / #sequences
            row[2 * k] = (row[2 * k] or 0) + 100 * score.F.mean / #sequences
          end
        end)
      end
    end)
  end)
  io.stderr:write(name, "\n")
end

print(("%d sequences, J / F\nskip  registered     centre crop"):format(#sequences))
for _, skip in ipairs(cfg.skips) do
  local row = sums[skip]
  print(("%-4s  %5.1f / %5.1f  %5.1f / %5.1f"):format(skip, row[1], row[2], row[3], row[4]))
end
