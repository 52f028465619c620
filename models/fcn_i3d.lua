--- FCN-I3D: an object's mask in every frame of a clip (Munukutla & Jain, "One Shot Learning for Video Object Segmentation using
-- Fully Convolutional I3D Network"). Clip (N,3,T,H,W) in; five masks out, each of the size of the clip.
--
--     clip -> 1a -> 2c -> 3c -> 4f          I3D up to the deepest skip
--              |     |     |     |
--             16    16    16    16          reduce: 1x1x1
--             / \   / \   / \   / \
--         score up score up ...             score 16 -> 1, up: a side mask;   up 16 -> 16
--                 \     \     \     \
--                  `-----`--- concat ---> fuse 1x1x1 -> the fused mask
--
-- All of this is a sum over scales: nothing there lets a coarse side say what the object is and a fine one where its edge runs.
-- With refine = 32 two 3x3 layers on the grid of the shallowest skip see its features beside what each side says, and what they
-- make of both is added to the fused mask (docs/experiments.md).
--
--     local net = require "models.fcn_i3d" { skips = { "1a", "2c", "3c", "4f" }, deconv_init = "bilinear" }
--     local masks = net(x)                      -- logits: masks.fused (N,1,T,H,W), masks.sides[1..]
--     local u8 = net:segment(clip, { stride = 3 })
--
-- Parameters: I3D's own names ("conv3d_1a.conv.weight" ...), "side_1a.reduce.weight", ".score.weight", ".score.bias",
-- ".up_score.weight", ".up_features.weight", ..., "fuse.weight", "fuse.bias"; "refine.reduce.weight", ".first", ".second",
-- ".score", ".up".
local pn = require "penumbra"
local nn = pn.nn
local i3d = require "models.i3d"
local infer = require "penumbra.infer"
local registered = require("penumbra.nn.registered").registered
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local sorted_keys = require "penumbra.base.sorted_keys"

-- Where a skip leaves the trunk, and its stride (t,h,w) there.
local skips = {
  { "1a", at = "conv3d_1a", stride = { 2, 2, 2 } },
  { "2c", at = "conv3d_2c", stride = { 2, 4, 4 } },
  { "3c", at = "mixed_3c", stride = { 2, 8, 8 } },
  { "4f", at = "mixed_4f", stride = { 4, 16, 16 } },
  { "5c", at = "mixed_5c", stride = { 8, 32, 32 } },
}

--- The keys it reads; a recipe's configuration may hold others beside them.
local defaults = {
  skips = { "1a", "2c", "3c", "4f" }, -- any of 1a, 2c, 3c, 4f, 5c (the paper's four; osvos-like: 2c, 3c, 4f, 5c)
  features = 16,                      -- channels of a side
  refine = 0,                         -- channels of the refinement of the fused mask; 0: none (the paper's)
  deconv_init = "bilinear",           -- bilinear | nearest | icnr | random
  deconv_time = "linear",             -- linear | repeat (the paper's) | repeat_gain1 | centre
  overlap = "2s",                     -- 2s | s: kernel of the transposed convolutions, in strides
  crop_align = "grid",                -- grid | centre | caffe
  batchnorm = "frozen",               -- frozen | running | batch | moving
  output = "fused",                   -- fused | sum_of_five | mean_of_sides: what segments
  input = "rgb_pm1",                  -- rgb_pm1 | bgr_01: how it wants its pixels
  width = 1,                          -- times the channels of I3D
  recompute = false,                  -- keep only what leaves each layer of the trunk; backward runs the layer again
  seed = 1,
}

local choices = {
  deconv_init = { "bilinear", "nearest", "icnr", "random" }, deconv_time = { "linear", "repeat", "repeat_gain1", "centre" },
  overlap = { "2s", "s" }, crop_align = { "grid", "centre", "caffe" }, batchnorm = { "frozen", "running", "batch", "moving" },
  output = { "fused", "sum_of_five", "mean_of_sides" }, input = { "rgb_pm1", "bgr_01" },
}

local function refuse(key, value, known)
  raise("fcn_i3d: %s is '%s'%s (known: %s)", key, tostring(value), nearest.hint(tostring(value), known),
    table.concat(known, ", "))
end

local function settings(cfg)
  local o = pn.config.pick("fcn_i3d", cfg, defaults)
  for key, known in pairs(choices) do
    local found = false
    for _, name in ipairs(known) do
      found = found or name == o[key]
    end
    if not found then
      refuse(key, o[key], known)
    end
  end
  -- In the order of depth, whatever the order they were written in.
  local wanted, known = {}, {}
  for _, name in ipairs(o.skips) do
    if wanted[name] then
      raise("fcn_i3d: skips has '%s' twice", tostring(name))
    end
    wanted[name] = true
  end
  o.sides = {}
  for _, skip in ipairs(skips) do
    known[#known + 1] = skip[1]
    if wanted[skip[1]] then
      table.insert(o.sides, skip)
    end
    wanted[skip[1]] = nil
  end
  if next(wanted) then
    refuse("skips", next(wanted), known)
  end
  if o.refine < 0 or o.refine % 2 ~= 0 then
    raise("fcn_i3d: refine is %g, expects an even number of channels, or 0", o.refine)
  end
  if not (o.width > 0 and o.width < math.huge) then
    raise("fcn_i3d: width is %g, expects more than 0", o.width)
  end
  if #o.sides == 0 then
    raise("fcn_i3d: skips is empty, expects some of %s", table.concat(known, ", "))
  end
  return o
end

-- ---- a side: features to a mask of its own, and to features of the size of the clip -----------------------------------------

local function up(channels, stride, o)
  return registered {
    channels = channels, stride = stride, overlap = o.overlap, init = o.deconv_init, time = o.deconv_time, align = o.crop_align,
  }
end

local Side = nn.class "side"

-- skip: its channels, `from`, and its stride; o: the network's settings.
function Side:new(skip)
  local stride, o = skip.stride, skip.o
  self:add("reduce", nn.conv3d { from = skip.from, to = o.features, kernel = 1, bias = false })
  self:add("score", nn.conv3d { from = o.features, to = 1, kernel = 1, bias = true, init = "xavier" })
  self:add("up_score", up(1, stride, o))
  self:add("up_features", up(o.features, stride, o))
end

-- Upsampling to features and fusing them are both linear: so the weights are joined, not the images, and 16 channels of the clip's
-- size are never made. Where upsampling is interpolation, the same for each channel, fusing comes first.
-- fuse (features): this side's part of the fusion.
--- @return this side's part of the fused logits (N,1,T,H,W); the side's own logits, the same shape, unless not wanted
function Side:forward(y, clip, fuse, wants_mask)
  y = self.reduce(y)
  local part
  if self.up_features:interpolates(y, clip) then
    part = self.up_features(pn.conv3d(y, pn.reshape(fuse, { shape = { 1, fuse:size(1), 1, 1, 1 } })), clip)
  else
    part = self.up_features(y, clip, pn.weighted_sum(self.up_features.weight, fuse, { axis = 2 })) -- (features,1,kt,kh,kw)
  end
  return part, wants_mask and self.up_score(self.score(y), clip) or nil
end

-- ---- the refinement: coarse logits and fine features together, which no sum over scales can weigh against each other ----------

local Refine = nn.class "refine"

function Refine:new(skip)
  local o = skip.o
  local n, half = o.refine, o.refine / 2
  self.stride = skip.stride
  self:add("reduce", nn.conv3d { from = skip.from, to = half, kernel = 1, bias = true })
  self:add("first", nn.conv3d { from = half + #o.sides, to = n, kernel = { 1, 3, 3 }, bias = true })
  self:add("second", nn.conv3d { from = n, to = n, kernel = { 1, 3, 3 }, bias = true })
  self:add("score", nn.conv3d { from = n, to = 1, kernel = 1, bias = true, init = 0 }) -- so that it begins by changing nothing
  self:add("up", up(1, skip.stride, o))
end

--- What there is to see at the shallowest skip, from its features (N,C,T',H',W').
function Refine:see(features)
  return pn.relu(self.reduce(features))
end

--- What a side says (N,1,T,H,W), on the grid of that skip, within -1 and 1.
function Refine:heed(part)
  return pn.tanh(pn.avg_pool3d(part, { kernel = self.stride }) * 0.25)
end

--- @param seen a list: what `see` gave, then what `heed` gave of each side
--- @param clip whose size the result has
--- @return what is to be added to the fused logits (N,1,T,H,W)
function Refine:forward(seen, clip)
  local y = pn.relu(self.first(pn.concat(unpack(seen))))
  y = pn.relu(self.second(y))
  return self.up(self.score(y), clip)
end

-- ---- the network --------------------------------------------------------------------------------------------------------------

local FCN = nn.class "fcn_i3d"
function FCN:new(cfg)
  local o = settings(cfg)
  self.input, self.output, self.sides = o.input, o.output, o.sides
  self.captured = {}
  for _, skip in ipairs(o.sides) do
    table.insert(self.captured, skip.at)
  end
  local deepest = o.sides[#o.sides]
  local channels = i3d.build(self, { to = deepest.at, batchnorm = o.batchnorm, width = o.width, recompute = o.recompute })
  for _, skip in ipairs(o.sides) do
    self:add("side_" .. skip[1], Side { from = channels[skip.at], stride = skip.stride, o = o })
  end
  self:add("fuse", nn.conv3d { from = o.features * #o.sides, to = 1, kernel = 1, bias = true, init = "xavier" })
  if o.refine > 0 then
    self:add("refine", Refine { from = channels[o.sides[1].at], stride = o.sides[1].stride, o = o })
  end
end

--- Loads weights, as I3D does, or a checkpoint of this network, which may have other sides: those that this one has not are
-- passed over, and the fusion of others than its own begins anew, and its refinement.
function FCN:load(path, options)
  return i3d.load(self, path, options, function(tensors)
    local theirs, ours = {}, {}
    for name in pairs(tensors) do
      local side = name:match "^(side_%w+)%."
      if side then
        theirs[side] = true
      end
    end
    for _, skip in ipairs(self.sides) do
      ours["side_" .. skip[1]] = true
    end
    local theirs_text = table.concat(sorted_keys(theirs), ",")
    if theirs_text ~= "" and theirs_text ~= table.concat(sorted_keys(ours), ",") then
      for _, name in ipairs(sorted_keys(tensors)) do
        if name:match "^fuse%." or name:match "^refine%." then
          tensors[name] = nil
        end
      end
    end
  end)
end

--- @param clip real (N,3,T,H,W), pixels as `input` says
-- @tparam ?table wants sides = false: the fused mask alone, which costs less
-- @treturn table fused = logits (N,1,T,H,W), sides = a list of logits of the same shape, shallow to deep
function FCN:forward(clip, wants)
  local wants_sides = not (wants and wants.sides == false)
  local fused, masks, width, i = nil, {}, self.fuse.n_from / #self.sides, 0
  local function add(part) -- in place where no gradient will come; the bias, which stays f32, makes the sum of narrow parts f32
    local in_place = not pn.recording() and fused:dtype() == part:dtype()
    fused = pn.add(fused, part, { into = in_place and fused or nil })
  end
  local seen = {}
  i3d.run(self, clip, self.captured, function(_, features) -- each side while its features are there
    i = i + 1
    local fuse = pn.reshape(self.fuse.weight, { shape = { self.fuse.n_from } }):slice(1, (i - 1) * width + 1, width)
    local part
    part, masks[i] = self["side_" .. self.sides[i][1]](features, clip, fuse, wants_sides)
    if self.refine then
      seen[1] = seen[1] or self.refine:see(features)
      seen[i + 1] = self.refine:heed(part)
    end
    if fused then
      add(part)
      pn.scope.drop(part)
    else
      fused = part
    end
  end)
  add(pn.reshape(self.fuse.bias, { shape = { 1, 1, 1, 1, 1 } }))
  if self.refine then
    add(self.refine(seen, clip))
  end
  return { fused = fused, sides = masks }
end

--- The logits (N,1,T,H,W) that segment, by the key `output`.
function FCN:logits(clip)
  if self.output == "fused" then
    return self(clip, { sides = false }).fused
  end
  local masks = self(clip)
  local sum = masks.sides[1]
  for i = 2, #masks.sides do
    sum = sum + masks.sides[i]
  end
  return self.output == "sum_of_five" and sum + masks.fused or sum * (1 / #masks.sides)
end

--- Its parameters for an optimiser, the refinement in a group of its own.
-- @tparam number refine_lr how many times the rate of the others it learns at: a parent may not have taught it, or little
-- @treturn table what penumbra.optim takes
function FCN:groups(refine_lr)
  if not self.refine then
    return self:parameters()
  end
  local trunk, refinement = { params = {} }, { params = {}, lr_scale = refine_lr }
  for _, entry in ipairs(self:parameters()) do
    table.insert(entry.name:match "^refine%." and refinement.params or trunk.params, entry)
  end
  return { trunk, refinement }
end

--- Masks of a whole clip; see `penumbra.infer`.
-- @param clip u8 (T,H,W,3) or a clip object
-- @treturn tensor u8 (T,H,W), 1 where the object is
function FCN:segment(clip, options)
  return infer.segment(self, clip, options)
end

--- Checks a configuration: in a recipe, before its run has a folder.
local function check(cfg)
  settings(cfg)
end

return setmetatable({ class = FCN, defaults = defaults, skips = skips, check = check }, {
  __call = function(_, cfg)
    cfg = cfg or {}
    return FCN(cfg):reset(cfg.seed or defaults.seed)
  end,
})
