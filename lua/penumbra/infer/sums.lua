--- Where inference runs the network and adds up its probabilities, a sum a frame: on the host, or on a CUDA device, from which
-- only the finished sums come back. Of penumbra.infer, which says where windows and tiles stand.
--
-- A job: net; read(i, to, bytes), which writes frame i u8 (H,W,3) to an address; h, w; frames; tiles, a list of {top, left} from 0;
-- tile_h, tile_w; batch, how many tiles the network sees at once; weights of the frames of a window (from 1), weight_y and
-- weight_x of the pixels of a tile (from 0), uniform where all of these are 1; device.
-- @module penumbra.infer.sums

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local image = require "penumbra.image"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"
local tensor = require "penumbra.tensor"

local sums = {}

-- Calls visit(list of tiles) for each batch of them.
local function each_batch(job, visit)
  for first = 1, #job.tiles, job.batch do
    local some = {}
    for k = first, math.min(first + job.batch - 1, #job.tiles) do
      some[#some + 1] = job.tiles[k]
    end
    scope.run(visit, some)
  end
end

-- A model may give anything.
local function checked(logits, clip)
  if not binding.is_tensor(logits) then
    raise("infer: net:logits(x) gave %s, expects a tensor of logits (N,1,T,H,W)",
      logits == nil and "nothing" or "a " .. type(logits))
  end
  local given, shape = logits:shape(), clip:shape()
  shape[2] = 1
  if table.concat(given, ",") ~= table.concat(shape, ",") then
    raise("infer: net:logits(x) gave %s of a clip %s, expects logits %s: one for each pixel", table.concat(given, ","),
      table.concat(clip:shape(), ","), table.concat(shape, ","))
  end
  return logits
end

-- What the network says of a clip real (N,3,T,H,W) that it is shown so many times smaller: means of squares of pixels go in, what
-- comes out is interpolated. Real (N,1,T,H,W).
local function probabilities(net, clip, smaller)
  local h, w = clip:size(4), clip:size(5)
  if smaller > 1 then
    clip = ops.avg_pool3d(clip, { kernel = { 1, smaller, smaller }, pad = { { 0, 0 }, { 0, -h % smaller }, { 0, -w % smaller } } })
  end
  local logits = checked(net:logits(clip), clip)
  if logits:dtype() ~= binding.real then
    logits = logits:cast(binding.real)
  end
  if smaller > 1 then
    logits = ops.resize3d(logits, { scale = { 1, smaller, smaller } }):slice(4, 1, h):slice(5, 1, w)
  end
  return ops.sigmoid(logits):contiguous()
end

--- On the host.
-- @treturn table prepare(seen): reads the frames of a window to come; window(seen, smaller): runs it, shown so many times smaller,
--   and adds it up, seen[t] the frame of the clip at its place t; take(i): the sum of frame i, a float array, which then belongs to
--   the caller; spare(sum): gives it back; forget(first): no window to come looks at a frame before that one
function sums.on_host(job)
  local self, cache, kept, spare_frames, spare_sums = {}, {}, {}, {}, {}
  local pixels, tile_h, tile_w, w = job.h * job.w, job.tile_h, job.tile_w, job.w

  local function frame(i)
    local data = cache[i]
    if not data then
      data = table.remove(spare_frames) or ffi.new("uint8_t [?]", pixels * 3)
      job.read(i, data, pixels * 3)
      cache[i] = data
    end
    return data
  end

  local function add(probability, t, i, top, left)
    local sum = kept[i]
    if not sum then
      sum = table.remove(spare_sums) or ffi.new("float [?]", pixels)
      ffi.fill(sum, 4 * pixels)
      kept[i] = sum
    end
    local weight_y, weight_x = job.weight_y, job.weight_x
    for y = 0, tile_h - 1 do
      local wy = job.weights[t] * weight_y[y]
      local to, row = sum + (top + y) * w + left, probability + y * tile_w
      for x = 0, tile_w - 1 do
        to[x] = to[x] + wy * weight_x[x] * row[x]
      end
    end
  end

  function self.prepare()
  end

  function self.window(seen, smaller)
    each_batch(job, function(tiles)
      local frames = tensor.empty { #tiles, job.frames, tile_h, tile_w, 3, dtype = "u8" }
      local to = frames:data()
      for k, tile in ipairs(tiles) do
        for t = 1, job.frames do
          local from = frame(seen[t])
          for y = 0, tile_h - 1 do
            ffi.copy(to + (((k - 1) * job.frames + t - 1) * tile_h + y) * tile_w * 3,
              from + ((tile[1] + y) * w + tile[2]) * 3, tile_w * 3)
          end
        end
      end
      local probability = probabilities(job.net, image.to_clip(frames, job.net.input), smaller)
      for k, tile in ipairs(tiles) do
        for t = 1, job.frames do
          add(probability:data() + ((k - 1) * job.frames + t - 1) * tile_h * tile_w, t, seen[t], tile[1], tile[2])
        end
      end
    end)
  end

  function self.take(i)
    local sum = kept[i]
    kept[i] = nil
    return sum
  end

  function self.spare(sum)
    spare_sums[#spare_sums + 1] = sum
  end

  function self.forget(first)
    for i, data in pairs(cache) do
      if i < first then
        cache[i] = nil
        spare_frames[#spare_frames + 1] = data
      end
    end
  end

  return self
end

--- On a CUDA device. Frames travel once, as bytes; nothing waits but `take`.
function sums.on_device(job)
  local self, cache, kept, spare = {}, {}, {}, {}
  local h, w, device, n_frames, tile_h, tile_w = job.h, job.w, job.device, job.frames, job.tile_h, job.tile_w
  local whole_frames = #job.tiles == 1 and tile_h == h and tile_w == w

  local weight -- (tile_h,tile_w), where pixels of a tile differ
  if not job.uniform then
    weight = scope.run(function()
      local here = tensor.empty { tile_h, tile_w, dtype = "f32" }
      local to = here:data()
      for y = 0, tile_h - 1 do
        for x = 0, tile_w - 1 do
          to[y * tile_w + x] = job.weight_y[y] * job.weight_x[x]
        end
      end
      return here:cast(binding.real):to(device):keep()
    end)
  end

  local function frame(i)
    if not cache[i] then
      cache[i] = scope.run(function()
        local here = tensor.empty { h, w, 3, dtype = "u8" }
        job.read(i, here:data(), here:count())
        return here:to(device):keep()
      end)
    end
    return cache[i]
  end

  function self.prepare(seen)
    for t = 1, n_frames do
      frame(seen[t])
    end
  end

  -- The probabilities of some tiles: real (n,T,h,w).
  local function look(frames, tiles, smaller)
    local x = tensor.empty { #tiles, 3, n_frames, tile_h, tile_w, layout = "channels_last", device = device }
    for k, tile in ipairs(tiles) do
      local part = frames:slice(2, tile[1] + 1, tile_h):slice(3, tile[2] + 1, tile_w)
      ops.frames_to_clip(part, { rule = job.net.input, into = x:slot(1, k, 1) })
    end
    return ops.reshape(probabilities(job.net, x, smaller), { shape = { #tiles, n_frames, tile_h, tile_w } })
  end

  local function add(area, t, i)
    local part = ops.reshape(area:slice(1, t, 1), { shape = { h, w } })
    if kept[i] then
      ops.add(kept[i], part * job.weights[t], { into = kept[i] })
    else
      kept[i] = (part * job.weights[t]):keep()
    end
  end

  function self.window(seen, smaller)
    self.prepare(seen)
    scope.run(function()
      local frames = tensor.empty { n_frames, h, w, 3, dtype = "u8", device = device }
      for t = 1, n_frames do
        frames:slot(1, t, 1):copy(ops.reshape(frame(seen[t]), { shape = { 1, h, w, 3 } }))
      end
      local area
      if whole_frames then
        area = ops.reshape(look(frames, job.tiles, smaller), { shape = { n_frames, h, w } })
      else
        area = tensor.zeros { n_frames, h, w, device = device }
        each_batch(job, function(tiles)
          local probability = look(frames, tiles, smaller)
          for k, tile in ipairs(tiles) do
            local part = ops.reshape(probability:slice(1, k, 1), { shape = { n_frames, tile_h, tile_w } })
            local to = area:slot(2, tile[1] + 1, tile_h):slot(3, tile[2] + 1, tile_w)
            ops.add(to, weight and part * weight or part, { into = to })
          end
        end)
      end
      for t = 1, n_frames do
        add(area, t, seen[t])
      end
    end)
  end

  function self.take(i)
    local sum = table.remove(spare) or ffi.new("float [?]", h * w)
    scope.run(function()
      local here = kept[i]:to "cpu"
      if here:dtype() ~= "f32" then
        here = here:cast "f32"
      end
      ffi.copy(sum, here:data(), 4 * h * w)
    end)
    kept[i]:free()
    kept[i] = nil
    return sum
  end

  function self.spare(sum)
    spare[#spare + 1] = sum
  end

  function self.forget(first)
    for i, t in pairs(cache) do
      if i < first then
        t:free()
        cache[i] = nil
      end
    end
  end

  return self
end

return sums
