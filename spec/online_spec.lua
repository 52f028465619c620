local pn = require "penumbra"
local online = require "penumbra.online"
local helper = require "spec.helper"

-- Paints rectangles {top, left, height, width, colour...} on a picture u8 (H,W,3) or a mask u8 (H,W); the first pixel is 1.
local function paint(picture, rectangles)
  for _, r in ipairs(rectangles) do
    for y = r[1], r[1] + r[3] - 1 do
      for x = r[2], r[2] + r[4] - 1 do
        if picture:dims() == 2 then
          picture:set(r[5] or 1, y, x)
        else
          for c = 1, 3 do picture:set(r[4 + c] or 0, y, x, c) end
        end
      end
    end
  end
  return picture
end

-- A clip of n black frames, each with its number in blue, and what `of(i)` paints on it.
local function clip_of(n, h, w, of)
  local clip = { n_frames = n, reads = 0 }
  function clip.frame(_, i)
    clip.reads = clip.reads + 1
    return paint(pn.zeros { h, w, 3, dtype = "u8" }, { { 1, 1, h, w, 0, 0, i }, unpack(of and of(i) or {}) })
  end
  return clip
end

-- What infer.segment says of frame i; where no probability is painted the network does not know.
local function seen_of(i, h, w, mask, probability, smaller)
  return {
    index = i, mask = paint(pn.zeros { h, w, dtype = "u8" }, mask), smaller = smaller or 1,
    probability = paint(pn.full { h, w, dtype = "f32", value = 0.2 }, probability),
  }
end

local small = { frames = 4, crop = false, online = { far_pixels = { 0, 1000 }, sure = { 0.1, 0.9 } }, infer = { slow = 2 } }

local function with(changes)
  local cfg = {}
  for key, value in pairs(small) do cfg[key] = value end
  for key, value in pairs(changes) do cfg[key] = value end
  return cfg
end

describe("windows of what was segmented", function()
  it("say object where the mask is sure, background where it is far or sure, and nothing in between", function()
    local h, w = 30, 40
    local windows = online.windows(clip_of(1, h, w), small)
    -- a mask of 8 x 18 (size 12, so that background begins beyond 6 pixels), whose lower half is not sure; a sure place outside it
    windows:see(seen_of(1, h, w, { { 4, 5, 8, 18 } }, {
      { 4, 5, 4, 18, 0.95 }, { 8, 5, 4, 18, 0.6 }, { 25, 35, 2, 2, 1 }, { 13, 5, 1, 4, 0.05 }, { 13, 9, 1, 4, 0.15 },
    }))
    local batch = windows:next()
    assert.same({ 4, h, w, 3 }, batch.frames:shape())
    assert.same({ 1, 1, 4, h, w }, batch.mask:shape())
    assert.same({ 1, 1, 4, h, w }, batch.void:shape())
    assert.equal("rgb_pm1", batch.input)
    for _, at in ipairs {
      { 4, 5, 1, 0 }, { 7, 22, 1, 0 }, -- y, x, mask, void
      { 8, 5, 0, 1 }, { 11, 22, 0, 1 }, -- of the mask, but not sure
      { 4, 28, 0, 1 }, { 17, 10, 0, 1 }, -- 6 pixels away
      { 13, 8, 0, 0 }, { 13, 9, 0, 1 }, -- near, and sure or not that it is background
      { 4, 29, 0, 0 }, { 18, 10, 0, 0 }, { 30, 40, 0, 0 }, { 25, 35, 0, 0 },
    } do
      for t = 1, 4 do
        assert.equal(at[3], batch.mask:get(1, 1, t, at[1], at[2]), at[1] .. "," .. at[2])
        assert.equal(at[4], batch.void:get(1, 1, t, at[1], at[2]), at[1] .. "," .. at[2])
      end
    end
    assert.equal(4 * 18 * 4, batch.mask:cast(pn.real):sum():item())
  end)

  it("keep the distance within far_pixels", function()
    for _, case in ipairs { { { 9, 20 }, 9 }, { { 0, 3 }, 3 } } do
      local windows = online.windows(clip_of(1, 30, 40), with { online = { far_pixels = case[1] } })
      windows:see(seen_of(1, 30, 40, { { 1, 1, 12, 12 } }, {})) -- size 12, so 6
      local void = windows:next().void
      assert.equal(1, void:get(1, 1, 1, 1, 12 + case[2]))
      assert.equal(0, void:get(1, 1, 1, 1, 12 + case[2] + 1))
    end
  end)

  it("show the last frames, each as often as the network is shown it", function()
    local windows = online.windows(clip_of(5, 6, 8), small)
    local function shown()
      local frames, list = windows:next().frames, {}
      for t = 1, 4 do list[t] = frames:get(t, 1, 1, 3) end
      return list
    end
    assert.is_nil(windows:next())
    local mask = { { 1, 1, 2, 2 } }
    windows:see(seen_of(1, 6, 8, mask, {}))
    assert.same({ 1, 1, 1, 1 }, shown())
    windows:see(seen_of(2, 6, 8, mask, {}))
    assert.same({ 1, 1, 2, 2 }, shown())
    windows:see(seen_of(3, 6, 8, {}, {})) -- nothing found: not learnt from
    assert.same({ 1, 1, 2, 2 }, shown())
    windows:see(seen_of(4, 6, 8, mask, {}))
    assert.same({ 2, 2, 4, 4 }, shown())
    windows:see(seen_of(5, 6, 8, mask, {}, 2)) -- shown smaller from here on: no mixture
    assert.same({ 5, 5, 5, 5 }, shown())
    local smaller = windows:next()
    assert.same({ 4, 3, 4, 3 }, smaller.frames:shape())
  end)

  it("lie on what was wrong, on the object, or anywhere, and are repeatable", function()
    local h, w = 64, 96
    local function drawn(changes, seed)
      changes.far_pixels = { 0, 1000 }
      local windows = online.windows(clip_of(1, h, w, function()
        return { { 1, 1, 8, 8, 255 }, { 60, 90, 2, 2, 0, 255 } } -- the object red, what looks like it green
      end), with { crop = 16, seed = seed, online = changes })
      windows:see(seen_of(1, h, w, { { 1, 1, 8, 8 } }, { { 1, 1, h, w, 0 }, { 1, 1, 8, 8, 1 }, { 60, 90, 2, 2, 0.4 } }))
      local n = { 0, 0 }
      local text = {}
      for k = 1, 40 do
        local frames = windows:next().frames
        assert.same({ 4, 16, 16, 3 }, frames:shape())
        local has = { false, false }
        for y = 1, 16 do
          for x = 1, 16 do
            for c = 1, 2 do has[c] = has[c] or frames:get(1, y, x, c) == 255 end
          end
        end
        for c = 1, 2 do n[c] = n[c] + (has[c] and 1 or 0) end
        text[k] = tostring(has[1]) .. tostring(has[2])
      end
      return n[1], n[2], table.concat(text)
    end
    local on_object, on_wrong = drawn { wrong = 1, near = 0 }
    assert.is_true(on_object == 0 and on_wrong >= 38, on_wrong)
    on_object, on_wrong = drawn { wrong = 0, near = 1 }
    assert.is_true(on_object == 40 and on_wrong == 0, on_object)
    local object, wrong, text = drawn { wrong = 0.4, near = 0.3 }
    assert.is_true(object > 4 and wrong > 8 and object + wrong < 40, object .. " " .. wrong)
    assert.equal(text, select(3, drawn { wrong = 0.4, near = 0.3 }))
    assert.not_equal(text, select(3, drawn({ wrong = 0.4, near = 0.3 }, 2)))
  end)
end)

describe("a learner", function()
  local stream = { per_epoch = 1, asked = {} }
  function stream:batch(epoch)
    self.asked[#self.asked + 1] = epoch
    return { frames = pn.full { 1, 3, 4, 6, 8, value = -epoch }, mask = pn.ones { 1, 1, 4, 6, 8 } }
  end

  local function learnt(how, n, masks)
    stream.asked = {}
    local list = {}
    how.far_pixels = { 0, 1000 }
    local cfg = with { online = how, epochs = 7, workers = 0 }
    local learn = online.learner(clip_of(n, 6, 8), stream, cfg, function(batch)
      local first = batch.frames:get(1, 3, 4, 1, 1)
      list[#list + 1] = first < -1.5 and ("dream %d"):format(-first) or ("frame %d"):format((first + 1) * 127.5 + 0.5)
      assert.same(batch.mask:shape(), batch.void:shape())
      assert.equal(first < -1.5 and 0 or 1, batch.void:get(1, 1, 1, 1, 1))
    end)
    for i = 1, n do
      learn(seen_of(i, 6, 8, masks and masks[i] or { { 1, 1, 2, 2 } }, {}))
    end
    return list
  end

  it("takes windows, then dreams that the training had not", function()
    assert.same({ "frame 1", "dream 8", "frame 2", "dream 9" }, learnt({}, 2))
    assert.same({ "frame 2", "frame 2", "dream 8" }, learnt({ every = 2, windows = 2 }, 3))
    assert.same({ "dream 8", "dream 9", "frame 2", "dream 10", "dream 11" }, learnt({ dreams = 2 }, 2, { {} }))
    assert.same({ 8, 9, 10, 11 }, stream.asked)
    assert.same({ "frame 1", "frame 2" }, learnt({ dreams = 0 }, 2))
  end)

  it("is none where nothing is to be learnt", function()
    assert.is_nil(online.learner(clip_of(2, 6, 8), stream, with { online = { every = 0 } }, error))
  end)

  -- A pixel is all that this network sees. Frame 1 has taught it that what is red is the object. A yellow thing that comes
  -- into view far away is red as well; learnt as background, it is told apart before it reaches the object.
  it("tells a look-alike from the object", function()
    local h, w, n = 24, 64, 12
    local clip = clip_of(n, h, w, function(i)
      return { { 9, 5, 8, 8, 255 }, i > 1 and { 9, 61 - 4 * i, 8, 8, 255, 255 } or nil }
    end)
    local function wrong_pixels(every)
      local net = pn.nn.sequential { pn.nn.conv3d { from = 3, to = 1, kernel = 1, bias = true } }
      net.logits, net.input = function(self, x) return self(x) end, "rgb_pm1"
      local weight, bias
      for _, p in ipairs(net:parameters()) do
        if p.name:find "weight" then weight = p.tensor else bias = p.tensor end
      end
      weight:fill(0)
      weight:data()[0] = 4
      bias:fill(1)
      local optim = pn.optim.adam(net:parameters(), { lr = 0.5 })
      local dream = {
        batch = function()
          local masks = paint(pn.zeros { h, w, dtype = "u8" }, { { 9, 5, 8, 8 } })
          return { frames = pn.image.to_clip(clip:frame(1)), mask = pn.image.masks_to_clip(masks) }
        end,
      }
      local cfg = { frames = 4, crop = false, workers = 0, online = { every = every, far_pixels = { 6, 6 } }, infer = { slow = 2 } }
      local found = pn.infer.segment(net, clip, {
        slow = 2, frames = 4, stride = 2, calibrate = 0, first_mask = paint(pn.zeros { h, w, dtype = "u8" }, { { 9, 5, 8, 8 } }),
        downscale = 1, keep = "connected",
        after_frame = online.learner(clip, dream, cfg, function(batch)
          local loss = pn.loss.bce(net:logits(batch.frames), batch.mask, { void = batch.void })
          optim:zero_grad()
          loss:backward()
          optim:step()
        end),
      })
      local last, wrong = pn.image.frame(found, n), 0
      for y = 1, h do
        for x = 1, w do
          local object = y >= 9 and y <= 16 and x >= 5 and x <= 12
          wrong = wrong + (last:get(y, x) ~= (object and 1 or 0) and 1 or 0)
        end
      end
      return wrong
    end
    assert.equal(64, wrong_pixels(0))
    assert.equal(0, wrong_pixels(1))
  end)

  it("says what is wrong with its settings", function()
    local function fails(how, ...)
      helper.failure(function() online.with(how) end, ...)
    end
    fails({ window = 1 }, "online: unknown option 'window', did you mean 'windows'?")
    fails({ every = -1 }, "online: every is -1, expects a whole number from 0")
    fails({ dreams = 1.5 }, "online: dreams is 1.5, expects a whole number from 0")
    fails({ sure = { 0, 2 } }, "online: sure expects a pair of numbers in order {low, high}, from 0 to 1")
    fails({ near = 2 }, "online: near is 2, expects a probability from 0 to 1")
    fails({ wrong = 0.8, near = 0.4 }, "online: the shares wrong and near are 0.8 and 0.4, expects no more than 1 together")
    fails({ lr = -1 }, "online: lr is -1, expects 0 or more")
    fails({ far = -0.5 }, "online: far is -0.5, expects 0 or more")
    for _, pair in ipairs { { 1 }, { 5, 4 }, { -1, 4 }, { 1, 1001 }, { "a", 4 }, { 1, 2, 3 } } do
      fails({ far_pixels = pair }, "online: far_pixels expects a pair of numbers in order {low, high}, from 0 to 1000")
    end
    helper.failure(function() online.windows(clip_of(1, 6, 8), with { frames = 0 }) end, "online: frames is 0")
  end)
end)
