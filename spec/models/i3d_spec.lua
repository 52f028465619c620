local pn = require "penumbra"
local i3d = require "models.i3d"
local weights = require "penumbra.weights"
local image = require "penumbra.image"
local helper = require "spec.helper"

-- DeepMind's name of an endpoint -> ours.
local function ours(name)
  return (name:gsub("^Conv3d_(%w+)_.*$", "conv3d_%1"):gsub("^MaxPool3d_(%w+)_.*$", "maxpool3d_%1"):gsub("^Mixed", "mixed"):lower())
end

local function index_of(t)
  return t:cast "i64":totable()
end

-- The largest error of mean, deviation and 256 values of one endpoint, each relative to its own largest magnitude.
local function endpoint_error(y, expected, name)
  local shape = expected[name .. ".shape"]:cast("i64"):totable()
  helper.assert_shape(y, 1, shape[1], shape[2], shape[3], shape[4])
  local channels, positions = shape[1], shape[2] * shape[3] * shape[4]
  local rows = y:contiguous "channels_last"
  local p = rows:data()
  local mean, std = {}, {}
  for c = 0, channels - 1 do
    local sum, square = 0, 0
    for i = 0, positions - 1 do
      local v = p[i * channels + c]
      sum, square = sum + v, square + v * v
    end
    mean[c + 1] = sum / positions
    std[c + 1] = math.sqrt(math.max(0, square / positions - mean[c + 1] ^ 2))
  end
  local values = {}
  for i, at in ipairs(index_of(expected[name .. ".index"])) do
    values[i] = y:get(1, at[1] + 1, at[2] + 1, at[3] + 1, at[4] + 1)
  end
  return math.max(helper.relative_error(mean, expected[name .. ".mean"]), helper.relative_error(std, expected[name .. ".std"]),
    helper.relative_error(values, expected[name .. ".value"]))
end

local function complete_weights()
  local given = os.getenv "PENUMBRA_WEIGHTS"
  if given and given ~= "" then
    return given
  end
  local path = weights.home() .. "/i3d_rgb.safetensors"
  return os.rename(path, path) and path or nil
end

describe("I3D", function()
  it("has 57 units and 12,704,544 numbers with its head and moving statistics", function()
    local net = i3d {}
    local units, numbers = 0, 0
    for name, t in pairs(net:state()) do
      units = units + (name:match "%.bn%.beta$" and 1 or 0)
      numbers = numbers + t:count()
    end
    assert.equal(57, units)
    assert.equal(12704544, numbers)
  end)

  it("carries the grid: c = 1, 3, 7, 15, 23 for even sizes, 1, 1, 5, 5, 13 at width 854", function()
    local net = i3d { to = "mixed_5c", width = 1 / 32 }
    local names = { "conv3d_1a", "maxpool3d_2a", "maxpool3d_3a", "mixed_4b", "mixed_5c" }
    local function centres(t, h, w)
      local result = { {}, {}, {} }
      pn.no_grad(function()
        local found = net:endpoints(pn.zeros { 1, 3, t, h, w, layout = "channels_last" }, names)
        for i, name in ipairs(names) do
          local grid = found[name]:grid()
          for d = 1, 3 do
            result[d][i] = grid.centre[d]
          end
          assert.equal(2 ^ i, grid.stride[3])
        end
      end)
      return result
    end
    local even = centres(16, 96, 64)
    assert.same({ 1, 1, 1, 3, 5 }, even[1])
    assert.same({ 1, 3, 7, 15, 23 }, even[2])
    assert.same({ 1, 3, 7, 15, 23 }, even[3])
    assert.same({ 1, 1, 5, 5, 13 }, centres(16, 32, 854)[3])
  end)

  it("ends where it is told, and gives the endpoints it is asked for", function()
    local net = i3d { to = "mixed_3b", width = 1 / 16 }
    local y = net(pn.zeros { 1, 3, 4, 32, 32, layout = "channels_last" })
    helper.assert_shape(y, 1, 16, 2, 4, 4)
    helper.failure(function() i3d { to = "mixed_3d" } end, "i3d: no endpoint 'mixed_3d'", "did you mean 'mixed_3")
    helper.failure(function() net:endpoints(pn.zeros { 1, 3, 4, 32, 32 }, { "mixed_4" }) end, "no endpoint 'mixed_4'")
    helper.failure(function() i3d { widht = 2 } end, "unknown option 'widht'", "did you mean 'width'?")
  end)

  it("names the layer when a clip does not fit", function()
    local net = i3d { to = "mixed_3b", width = 1 / 16 }
    local flow = pn.zeros { 1, 2, 4, 32, 32, layout = "channels_last" }
    helper.failure(function() net(flow) end, "i3d: conv3d_1a expects a clip (N,3,T,H,W), got 1,2,4,32,32 (")
    helper.failure(function() net(pn.zeros { 4, 32, 32, 3, dtype = "u8" }) end,
      "got 4,32,32,3 (u8); pn.image.to_clip makes one of frames u8 (T,H,W,3)")
    local line = debug.getinfo(1, "l").currentline + 1
    local message = helper.failure(function() net(undefined) end) -- luacheck: ignore 113
    assert.equal(("spec/models/i3d_spec.lua:%d: i3d: conv3d_1a expects a clip (N,3,T,H,W), got nil"):format(line), message)
  end)
end)

describe("folded batch norm", function()
  it("leaves every endpoint of the real weights where it was", function()
    local path = complete_weights() or helper.shared "weights/i3d_rgb_imagenet"
    if not path then
      pending "no weights (penumbra fetch i3d, or PENUMBRA_WEIGHTS)"
    end
    local net = i3d { to = "mixed_4d" }:load(path):eval()
    local names = { "conv3d_1a", "conv3d_2c", "mixed_3b", "mixed_3c", "mixed_4b", "mixed_4c", "mixed_4d" }
    pn.no_grad(function()
      local x = helper.random({ 1, 3, 9, 70, 85 }, "clip")
      local folded = net:endpoints(x, names)
      local steps = 0
      net:hook("%.bn$", function() steps = steps + 1 end) -- each batch norm is a step of its own
      local apart = net:endpoints(x, names)
      assert.is_true(steps > 30)
      for _, name in ipairs(names) do
        helper.assert_close(folded[name], apart[name], 1e-5, name)
      end
    end)
  end)
end)

-- Frozen statistics and the same weights as DeepMind's: every endpoint of a real clip, against double precision.
describe("activations of the real weights", function()
  local sets = {
    { name = "rgb_imagenet (partial)", file = "endpoints_%s.npz", to = "mixed_4d", path = function()
      return helper.shared "weights/i3d_rgb_imagenet"
    end },
    { name = "rgb_scratch (complete)", file = "endpoints_scratch_%s.npz", to = "logits", path = complete_weights },
  }
  for _, set in ipairs(sets) do
    for _, size in ipairs { "16x224x224", "11x113x171" } do
      it(("equal the reference at every endpoint: %s, %s"):format(set.name, size), function()
        local path, reference = set.path(), helper.shared "reference/i3d"
        if not reference then
          pending "no ../shared/reference/i3d"
        end
        if not path then
          pending "no weights (penumbra fetch i3d, or PENUMBRA_WEIGHTS)"
        end
        local expected = pn.formats.load(reference .. "/" .. set.file:format(size))
        local has_logits = expected["Logits"] ~= nil
        local net = i3d { to = has_logits and "logits" or set.to == "logits" and "mixed_5c" or set.to }:load(path):eval()
        local names, wanted = {}, {}
        for key in pairs(expected) do
          local name = key:match "^(.*)%.shape$"
          if name then
            names[#names + 1] = name
            wanted[#wanted + 1] = ours(name)
          end
        end
        assert.is_true(#names >= 11)
        pn.no_grad(function()
          local x = image.to_clip(pn.formats.array(reference .. "/clip_" .. size .. ".npy"))
          local y, found = net(x, wanted)
          for i, name in ipairs(names) do
            local e = endpoint_error(found[wanted[i]], expected, name)
            assert.is_true(e < 1e-4, ("%s: relative error %.3g"):format(name, e))
          end
          if has_logits then
            helper.assert_close(y, expected["Logits"], 1e-4, "logits")
          end
        end)
      end)
    end
  end

  it("refuses a partial file, and lists what it lacks; allowed, keeps that as it was", function()
    local path = helper.shared "weights/i3d_rgb_imagenet"
    if not path then
      pending "no ../shared/weights/i3d_rgb_imagenet"
    end
    helper.failure(function() i3d { to = "mixed_4f" }:load(path) end, "8 missing", "mixed_4e.branch1b.conv.weight")
    local net = i3d { to = "mixed_4f" }:load(path, { allow_missing = true })
    assert.equal(8, #net.loaded.missing)
  end)
end)
