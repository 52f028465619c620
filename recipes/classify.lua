-- recipes/classify.lua: what a clip shows, by I3D and the 400 classes of Kinetics: penumbra classify clip.gif
-- The short side is brought to 224 pixels and the middle 224 x 224 looked at; a clip already of that size is taken as it is.
local lfs = require "lfs"
local pn = require "penumbra"
local files = require "penumbra.base.files"

local cfg = pn.config{
  pn.config.required "CLIP: a video or GIF (through ffmpeg), a folder of frames, or an npy of u8 (T,H,W,3)",
  weights = "i3d_rgb.safetensors", -- of I3D (penumbra fetch i3d brings them)
  top     = pn.whole(5, 1),        -- how many classes to name
  frames  = pn.whole(256, 1),      -- looked at in one piece; the logits of several pieces are averaged
  size    = pn.whole(224, 1),      -- pixels
  device  = "auto",                -- cpu, cuda, cuda:1 ...; auto: cuda where there is a card, else cpu
  precision = pn.choice("f32", "tf32", "bf16", "fp16"), -- what convolutions multiply in (tf32, fp16 on CUDA)
}
if cfg.threads then pn.threads(cfg.threads) end
local device = pn.device.choose(cfg.device)
pn.precision(cfg.precision, device)

local function folder_of(path)
  if lfs.attributes(path, "mode") == "directory" then return path end
  local folder = files.scratch()
  pn.video.read{ path = path, directory = folder, extension = "png" }
  return folder, true
end

local function read(path)
  if not lfs.attributes(path, "mode") then error(path .. ": no such file or folder", 0) end
  if path:match "%.npy$" then return pn.formats.array(path) end
  local folder, temporary = folder_of(path)
  local paths = pn.image.files(folder)
  if #paths == 0 then error(path .. ": no frames in it", 0) end
  local frames = pn.image.read_frames(paths)
  if temporary then files.remove(folder) end
  return frames
end

-- The middle square, the short side brought to `size`.
local function fit(frames, size)
  local h, w = frames:size(2), frames:size(3)
  local scale = size / math.min(h, w)
  if scale ~= 1 then
    h, w = math.floor(h * scale + 0.5), math.floor(w * scale + 0.5)
    frames = pn.image.resize(frames, { h, w })
  end
  if h == size and w == size then return frames end
  return pn.image.crop(frames, { math.floor((h - size) / 2) + 1, math.floor((w - size) / 2) + 1, size, size })
end

-- Frames first, first + 1, ..., the last repeated where the clip ends: I3D needs 9 of them.
local function piece(frames, first, count)
  local n = frames:size(1)
  local whole = pn.empty { math.max(count, 9), frames:size(2), frames:size(3), 3, dtype = "u8" }
  for i = 1, whole:size(1) do
    pn.image.frame(whole, i):copy(pn.image.frame(frames, math.min(n, first + i - 1)))
  end
  return whole
end

local frames = fit(read(cfg[1]), cfg.size)
local net = require "models.i3d" {}:to(device):load(cfg.weights):eval()
io.stderr:write(net.loaded.text, "\n")
local n, logits = frames:size(1), nil
pn.no_grad(function()
  local pieces = math.ceil(n / cfg.frames)
  for k = 0, pieces - 1 do
    local first, last = math.floor(n * k / pieces) + 1, math.floor(n * (k + 1) / pieces)
    local part = net(pn.image.to_clip(piece(frames, first, last - first + 1):to(device))) * ((last - first + 1) / n)
    logits = logits and logits + part or part
  end
end)

local labels = require "penumbra.kinetics400"
local chance, value, order = pn.softmax(logits, { axis = 2 }):flat(), logits:flat(), {}
for i = 1, #labels do order[i] = i end
table.sort(order, function(a, b) return value[a] > value[b] end)
print(("%d frames of %d x %d"):format(n, frames:size(2), frames:size(3)) .. (device == "cpu" and "" or " on " .. device))
for i = 1, math.min(cfg.top, #order) do
  print(("%6.2f %%  %8.4f  %s"):format(100 * chance[order[i]], value[order[i]], labels[order[i]]))
end
