--- Training samples from a set of videos: K frames of a random sequence, augmented as one, cut by the crop rule.
--
--     local feed = pn.data.clips(pn.data.davis "davis2016", { set = "train", frames = 16, crop = 224, seed = 1 })
--     for epoch, batch in run:epochs(700, feed) do ... end      -- feed:batch(epoch, i), feed.per_epoch
--
-- An epoch visits every sequence once, in an order of its own. A sample is a pure function of (seed, epoch, index).

local image = require "penumbra.image"
local named = require "penumbra.base.named"
local ops = require "penumbra.ops"
local random = require "penumbra.random"
local raise = require "penumbra.base.raise"
local augment = require "penumbra.augment"

local clips = {}
local Clips = {}
Clips.__index = Clips

--- How samples are drawn; any key can be given in cfg.augment.
-- @field defaults
clips.defaults = {
  steps = { 1, 2 },        -- the frames of a sample are this far apart (from, to); video rates vary
  slow = 0,                -- share in slow motion, as infer.slow shows a clip
  slow_by = 4,             -- how many times each frame is shown in slow motion
  reverse = augment.defaults.reverse, -- share whose time runs backwards
  light = augment.defaults.light, -- probability of another light
  lights = augment.light_defaults,
  whole = {                -- a change of the whole picture
    flip = 0.5,            -- probability of a mirror image, left for right
    rotate = 0.5,          -- probability of a turn
    degrees = 10,          -- the most of that turn, either way
    resize = 0.5,          -- probability of another scale
    scale = { 0.8, 1.25 }, -- from which that scale is drawn
    shrink = 0.25,         -- probability of a scale from the smallest that still fills the window up to 1
  },
  crop = {                 -- which window of the picture
    min_share = 0.1,       -- least share of object in it, in the first frame
    tries = 100,           -- draws of a window until one has that; then the fullest there is
    uniform = 0.15,        -- probability of a window anywhere, whatever it shows
    background = 0,         -- probability of the emptiest of 8 windows
  },
  search = 8,              -- draws of the first frame until it shows the object at all
}

--- A feed of training samples.
-- @tparam Dataset dataset of pn.data.davis
-- @tparam ?table cfg set = "train", or sequences: a list of names; frames = 16; crop = 224 (a number, {height, width} or false);
--   input = "rgb_pm1" or "bgr_01"; seed = 1; augment: any key of clips.defaults. Other keys are left alone, so a recipe's
--   configuration will do
-- @treturn Clips fields: names, per_epoch (the number of sequences)
function clips.new(dataset, cfg)
  if type(dataset) ~= "table" or type(dataset.sequence) ~= "function" then
    raise("clips: expects a data set of pn.data.davis, got %s", dataset == nil and "nothing" or "a " .. type(dataset))
  end
  cfg = cfg or {}
  local how = named("clips", cfg.augment, clips.defaults)
  local steps = named.range("clips", "steps", how.steps)
  named.whole("clips", "steps", steps[1], 1)
  named.whole("clips", "steps", steps[2], 1)
  named.share("clips", "slow", how.slow)
  named.whole("clips", "slow_by", how.slow_by, 1)
  how.whole = named("clips.whole", how.whole, clips.defaults.whole)
  how.crop = named("clips.crop", how.crop, clips.defaults.crop)
  local names = cfg.sequences
  if type(names) ~= "table" then
    names = dataset:sequences(cfg.set or "train")
  end
  if #names == 0 then
    raise("clips: the list of sequences is empty")
  end
  local input = cfg.input or "rgb_pm1"
  if input ~= "rgb_pm1" and input ~= "bgr_01" then
    raise("clips: unknown input '%s' (known: bgr_01, rgb_pm1)", tostring(input))
  end
  local crop = cfg.crop
  if crop == nil then
    crop = 224
  end
  local feed = setmetatable({
    names = names, per_epoch = #names, n_frames = named.whole("clips", "frames", cfg.frames or 16, 1, 1000), crop = crop,
    input = input, seed = cfg.seed or 1, how = how, videos = {}, dataset = dataset,
  }, Clips)
  if not cfg.checked then -- what is wrong with a video shows now, not in the middle of the training
    for _, name in ipairs(names) do
      feed:video(name)
    end
  end
  return feed
end

--- How to make this feed again, in another Lua state (penumbra.ahead).
function Clips:made_by()
  if type(self.dataset.made_by) ~= "function" then
    raise("clips: the data set has no made_by() to open it again in a worker; give it one, or workers = 0")
  end
  local module, name, root, how = self.dataset:made_by()
  return "penumbra.data.clips", "again", { module, name, root, how }, {
    sequences = self.names, frames = self.n_frames, crop = self.crop, input = self.input, seed = self.seed, augment = self.how,
    checked = true,
  }
end

--- A feed from what `made_by` says.
function clips.again(dataset, cfg)
  return clips.new(require(dataset[1])[dataset[2]](dataset[3], dataset[4]), cfg)
end

--- The video of that name, opened and checked when it is first asked for.
function Clips:video(name)
  local video = self.videos[name]
  if not video then
    video = self.dataset:sequence(name)
    for i = 1, video.n_frames do
      if not video:has_mask(i) then
        raise("clips: frame %d of %s has no mask", i, name)
      end
    end
    self.videos[name] = video
  end
  return video
end

--- The sequence that sample `index` of an epoch comes from.
function Clips:sequence_of(epoch, index)
  named.whole("clips", "epoch", epoch, 1)
  named.whole("clips", "index", index, 1, self.per_epoch)
  if self.order_of ~= epoch then
    local order = {}
    for i, name in ipairs(self.names) do
      order[i] = name
    end
    self.order, self.order_of = random.stream(self.seed, ("clips order %d"):format(epoch)):shuffle(order), epoch
  end
  return self.order[index]
end

local function is_empty(mask)
  return image.box(mask) == nil
end

-- The frames of a sample: a run through the video, every `step`-th frame, each `slow` times, turning round at its ends.
local function visits(first, step, slow, count, n)
  local list = {}
  local at, way = first, 1
  for k = 1, count do
    list[k] = at
    if n > 1 and k % slow == 0 then
      for _ = 1, step do
        if at + way < 1 or at + way > n then
          way = -way
        end
        at = at + way
      end
    end
  end
  return list
end

--- One sample as pictures.
-- @treturn Tensor frames u8 (K,h,w,3)
-- @treturn Tensor masks u8 (K,h,w)
-- @treturn table params: sequence, visits (frame numbers), slow (how many times each is shown), and all of augment.draw
function Clips:sample(epoch, index)
  local name = self:sequence_of(epoch, index)
  local video = self:video(name)
  local rng = random.stream(self.seed, ("clips %d %d"):format(epoch, index))
  local step = rng:integer(self.how.steps[1], self.how.steps[2])
  local reverse = rng:coin(self.how.reverse)
  local slow = self.how.slow > 0 and rng:coin(self.how.slow) and self.how.slow_by or 1
  local reach = (math.ceil(self.n_frames / slow) - 1) * step
  local list
  for _ = 1, self.how.search do
    list = visits(rng:integer(1, math.max(1, video.n_frames - reach)), step, slow, self.n_frames, video.n_frames)
    if not is_empty(video:mask(reverse and list[#list] or list[1])) then
      break
    end
  end
  local frames, masks = video:gather(list)
  local params = augment.draw(rng, masks, {
    reverse = reverse and 1 or 0, light = self.how.light, lights = self.how.lights, whole = self.how.whole,
    crop = self.crop ~= false and {
      size = self.crop, min_share = self.how.crop.min_share, tries = self.how.crop.tries, uniform = self.how.crop.uniform,
      background = self.how.crop.background,
    },
  })
  params.sequence, params.visits, params.slow = name, list, slow
  frames, masks = augment.apply(params, frames, masks)
  return frames, masks, params
end

--- Sample `index` of an epoch as the network reads it.
-- @treturn Tensor frames real (1,3,K,h,w), channels-last
-- @treturn Tensor mask real (1,1,K,h,w), 0 and 1
-- @treturn table params as of `sample`
function Clips:clip(epoch, index)
  local frames, masks, params = self:sample(epoch, index)
  return image.to_clip(frames, self.input), image.masks_to_clip(masks), params
end

--- What a training loop asks for: { frames, mask, params } of sample i of an epoch.
function Clips:batch(epoch, i)
  local frames, mask, params = self:clip(epoch, i or 1)
  return { frames = frames, mask = mask, params = params }
end

--- The same batch as bytes, a quarter of the size, for a device that turns them into numbers itself (`penumbra.device.bring`).
-- @treturn table frames u8 (K,h,w,3), mask u8 (1,1,K,h,w), 0 and 1, input (the rule of the pixels), params
function Clips:bytes(epoch, i)
  local frames, masks, params = self:sample(epoch, i or 1)
  local mask = ops.reshape(image.select(masks), { shape = { 1, 1, unpack(masks:shape()) } })
  return { frames = frames, mask = mask, input = self.input, params = params }
end

return clips
