--- Learning on while segmenting: a network that was taught one frame meets background and poses which that frame did not show.
-- What it is sure of in the frames it has just segmented is taught to it as well, in turns with dreams, so that it does not
-- forget the annotated frame (Voigtlaender & Leibe, "Online Adaptation of Convolutional Neural Networks for Video Object
-- Segmentation", BMVC 2017; docs/experiments.md has what it is worth).
--
--     local stream = pn.lucid.stream(clip:frame(1), clip:mask(1), cfg)
--     cfg.infer.after_frame = pn.online.learner(clip, stream, cfg, function(batch)
--       local loss = pn.loss.bce(net:logits(batch.frames), batch.mask, { void = batch.void })
--       optim:zero_grad(); loss:backward(); optim:step()
--     end)
--     local masks = net:segment(clip, cfg.infer)
--
-- Sure is: object, where the mask is and the probability is at least sure[2]; background, where that is at most sure[1], and
-- where the mask is further away than `far` times the size of its box (the root of height x width), within `far_pixels`. Whatever
-- lies between is left out of the loss. So a look-alike far from the object is background before the object comes near it.
--
-- A window has as many shown frames as a dream: the last few of the clip, each `infer.slow` times. Where windows show the object
-- smaller (infer.downscale), it is cut from that many times larger a part of the frame. Windows are a pure function of (seed,
-- index) and of what was seen.
-- @module penumbra.online

local ffi = require "ffi"
local ahead = require "penumbra.ahead"
local device = require "penumbra.device"
local image = require "penumbra.image"
local infer = require "penumbra.infer"
local lucid = require "penumbra.lucid"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"
local random = require "penumbra.random"
local scope = require "penumbra.scope"
local tensor = require "penumbra.tensor"

local online = {}

--- The defaults of `cfg.online`; a recipe overrides any.
-- @field defaults
online.defaults = {
  every = 1,                  -- frames from one time to the next; 0: what was learnt before is all
  windows = 1, dreams = 1,    -- how many of each are learnt then
  lr = 5e-5,                  -- the rate, for the recipe
  sure = { 0, 0.97 },         -- most probability of what is taken for background near the mask, least of what is taken for object
  far = 0.5,                  -- least distance from the mask of what is taken for background, of the size of its box,
  far_pixels = { 40, 200 },   -- and no less and no more than that
  wrong = 0.5, near = 0.35,   -- shares of windows on background that looks like the object, where there is some; on the object;
                              -- the others lie anywhere
}

local VOID = 255
local WRONG = 0.3 -- probability from which background looks like the object

local Windows = {}
Windows.__index = Windows

--- The defaults with changes, checked: `online = pn.online.with { windows = 2 }` in a recipe's configuration.
-- @tparam ?table changes
-- @treturn table
function online.with(changes)
  local how = named("online", changes, online.defaults)
  for name, least in pairs { every = 0, windows = 0, dreams = 0 } do
    named.whole("online", name, how[name], least)
  end
  named.range("online", "sure", how.sure, 0, 1)
  named.share("online", "wrong", how.wrong)
  named.share("online", "near", how.near)
  if how.wrong + how.near > 1 then
    raise("online: the shares wrong and near are %g and %g, expects no more than 1 together", how.wrong, how.near)
  end
  for _, name in ipairs { "lr", "far" } do
    if how[name] < 0 then
      raise("online: %s is %g, expects 0 or more", name, how[name])
    end
  end
  named.range("online", "far_pixels", how.far_pixels, 0, 1000)
  return how
end

-- ---- what is sure of a frame ----------------------------------------------------------------------------------------------------

-- u8 (H,W): 1 object, 0 background, VOID in between; and the background that looks like the object, int32_t [n] of places, n.
local function labelled(how, mask, probability, box)
  local size = math.sqrt(box[3] * box[4])
  local distance = math.max(how.far_pixels[1], math.min(how.far_pixels[2], how.far * size))
  local near = image.dilate(mask, math.floor(distance + 0.5))
  local label = tensor.empty_like(mask)
  local pixels = mask:count()
  local to, inside, close, chance = label:data(), mask:data(), near:data(), probability:data()
  local wrong, n = ffi.new("int32_t [?]", pixels), 0
  local most, least = unpack(how.sure)
  for p = 0, pixels - 1 do
    if close[p] == 0 then
      to[p] = 0
      if chance[p] > WRONG then
        wrong[n] = p
        n = n + 1
      end
    else
      to[p] = inside[p] ~= 0 and chance[p] >= least and 1 or chance[p] <= most and 0 or VOID
    end
  end
  return label, wrong, n
end

--- Takes note of a frame that was segmented; one without a mask is not learnt from.
-- @tparam table seen what infer.segment gives its after_frame: index, mask u8 (H,W), probability f32 (H,W), smaller
function Windows:see(seen)
  self.n_seen = self.n_seen + 1
  local box = image.box(seen.mask)
  if not box then
    return
  end
  scope.run(function()
    local label, wrong, n = labelled(self.how, seen.mask:contiguous(), seen.probability, box)
    table.insert(self.recent, {
      frame = self.clip:frame(seen.index):contiguous():detach():keep(), label = label:detach():keep(), box = box,
      smaller = seen.smaller, wrong = wrong, n_wrong = n,
    })
  end)
  while #self.recent > math.max(1, math.ceil(self.n_frames / self.slow)) do
    table.remove(self.recent, 1)
  end
end

-- ---- windows -----------------------------------------------------------------------------------------------------------------

-- Top and left, from 1, of a window of so many pixels.
local function place(self, rng, last, height, width)
  local h, w = last.frame:size(1), last.frame:size(2)
  local how, box, drawn = self.how, last.box, rng:uniform(0, 1)
  local y, x
  if last.n_wrong > 0 and drawn < how.wrong then
    local p = last.wrong[rng:integer(0, last.n_wrong - 1)]
    y, x = math.floor(p / w), p % w
  elseif drawn < how.wrong + how.near then
    y, x = box[1] - 1 + rng:uniform(0, box[3]), box[2] - 1 + rng:uniform(0, box[4])
  else
    y, x = rng:uniform(0, h), rng:uniform(0, w)
  end
  local function first(at, size, all)
    return math.max(1, math.min(all - size + 1, math.floor(at + rng:uniform(-0.3, 0.3) * size - size / 2) + 1))
  end
  local top = first(y, height, h)
  return top, first(x, width, w)
end

--- A window of the frames seen last, or nil where there was none with a mask.
-- @treturn ?table frames u8 (T,h,w,3); mask and void u8 (1,1,T,h,w); input, the rule of the pixels
function Windows:next()
  local last = self.recent[#self.recent]
  if not last then
    return nil
  end
  self.n_windows = self.n_windows + 1
  local rng = random.stream(self.seed, ("online %d"):format(self.n_windows))
  local smaller, whole_h, whole_w = last.smaller, last.frame:size(1), last.frame:size(2)
  local h = math.floor(math.min(self.size and smaller * self.size[1] or math.huge, whole_h) / smaller)
  local w = math.floor(math.min(self.size and smaller * self.size[2] or math.huge, whole_w) / smaller)
  local top, left = place(self, rng, last, smaller * h, smaller * w)
  local cut = { top, left, smaller * h, smaller * w }
  local some = {} -- frames that are shown as the last one is
  for _, entry in ipairs(self.recent) do
    if entry.smaller == smaller then
      table.insert(some, entry)
    end
  end
  local n = self.n_frames
  local batch = {
    frames = tensor.empty { n, h, w, 3, dtype = "u8" }, mask = tensor.empty { 1, 1, n, h, w, dtype = "u8" },
    void = tensor.empty { 1, 1, n, h, w, dtype = "u8" }, input = self.input,
  }
  local frames, mask, void, pixels = batch.frames:data(), batch.mask:data(), batch.void:data(), h * w
  for k, entry in ipairs(some) do
    scope.run(function()
      local frame, label = image.crop(entry.frame, cut), image.crop(entry.label, cut)
      if smaller > 1 then
        frame, label = image.resize(frame, { h, w }), image.resize(label, { h, w })
      end
      local object, between = label:eq(1):cast "u8", label:eq(VOID):cast "u8"
      for t = math.ceil((k - 1) * n / #some), math.ceil(k * n / #some) - 1 do
        ffi.copy(frames + t * pixels * 3, frame:data(), pixels * 3)
        ffi.copy(mask + t * pixels, object:data(), pixels)
        ffi.copy(void + t * pixels, between:data(), pixels)
      end
    end)
  end
  return batch
end

--- Windows of a clip that is being segmented: `see` each frame, then `next`.
-- @param clip with :frame(i) -> u8 (H,W,3)
-- @tparam ?table cfg as for `learner`
-- @treturn Windows
function online.windows(clip, cfg)
  cfg = cfg or {}
  local crop = cfg.crop
  if crop == nil then
    crop = 224
  end
  return setmetatable({
    clip = clip, how = online.with(cfg.online), n_frames = named.whole("online", "frames", cfg.frames or 16, 1),
    size = lucid.crop_size(crop), slow = cfg.infer and cfg.infer.slow or infer.defaults.slow, input = cfg.input or "rgb_pm1",
    seed = cfg.seed or 1, recent = {}, n_seen = 0, n_windows = 0,
  }, Windows)
end

-- ---- the door ----------------------------------------------------------------------------------------------------------------

--- What infer.segment is to call after each frame (its option after_frame), so that the network learns on the way.
-- @param clip with n_frames and :frame(i) -> u8 (H,W,3)
-- @param stream the source of dreams that the network learnt from (penumbra.lucid)
-- @tparam table cfg online: any key of online.defaults; epochs = 0: dreams after those are taken; frames = 16 of a window;
--   crop = 224 (a number, {height, width}, or false: whole frames); input = "rgb_pm1"; seed = 1; device = "cpu"; infer.slow = 4;
--   batch = 1 and workers, of dreams, as for penumbra.ahead. Other keys are left alone, so a recipe's configuration will do
-- @tparam function learn learn(batch): one step. batch: frames real (N,3,T,h,w); mask and void (N,1,T,h,w), void where a pixel does
--   not count; on the device, freed after the step
-- @treturn ?function nil where online.every is 0
function online.learner(clip, stream, cfg, learn)
  local windows = online.windows(clip, cfg)
  local how, where, done = windows.how, cfg.device or "cpu", cfg.epochs or 0
  if how.every == 0 then
    return nil
  end
  local dreams
  local function dream()
    dreams = dreams or ahead(stream, {
      seed = cfg.seed, device = cfg.device, workers = cfg.workers, batch = cfg.batch,
      epochs = done + how.dreams * math.floor(clip.n_frames / how.every),
    })
    done = done + 1
    local batch = device.bring(dreams:batch(done), where)
    batch.void = tensor.zeros_like(batch.mask)
    learn(batch)
  end
  return function(seen)
    windows:see(seen)
    if windows.n_seen % how.every ~= 0 then
      return
    end
    for _ = 1, how.windows do
      scope.run(function()
        local batch = windows:next()
        if batch then
          learn(device.bring(batch, where))
        end
      end)
    end
    for _ = 1, how.dreams do
      scope.run(dream)
    end
  end
end

return online
