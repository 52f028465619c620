--- Where a run computes: the key `device` of a recipe, and what there is to choose from.
--
--     local where = pn.device.choose "auto"      -- "cuda:0" where there is a card, else "cpu"
--     pn.device.describe(where)                  -- "NVIDIA H100 80GB HBM3, sm_90, 79.2 GiB"
--     pn.device.bring(batch, where)              -- tensors of a table, there; frames u8 as the network reads them
-- @module penumbra.device

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local image = require "penumbra.image"
local raise = require "penumbra.base.raise"
local usage = require "penumbra.base.usage"

local C = binding.C
local device = {}

--- The CUDA devices at hand.
-- @treturn {string} "cuda:0", "cuda:1", ...
-- @treturn ?string why there is none
function device.list()
  local names = {}
  for i = 1, C.pn_n_devices() do
    names[i] = binding.device_name(i)
  end
  return names, #names == 0 and binding.message() or nil
end

--- What a device is: for a card its name, compute capability and memory; for the CPU nil.
-- @tparam string name "cpu", "cuda:0", ...
-- @treturn ?string
function device.describe(name)
  local number = binding.device(name)
  if number == 0 then
    return nil
  end
  local buffer = ffi.new "char [256]"
  binding.check(C.pn_device_describe(number, buffer, 256))
  return ffi.string(buffer)
end

--- Resolves the key: "auto" is the first card where there is one, else the CPU. A name that is none is a mistake of usage; a card
-- that is not there is an error with the reason.
-- @tparam ?string wanted "auto" (the default), "cpu", "cuda" or "cuda:N"
-- @treturn string "cpu" or "cuda:N"
function device.choose(wanted)
  wanted = wanted or "auto"
  if wanted == "auto" then
    return C.pn_n_devices() > 0 and "cuda:0" or "cpu"
  end
  local ok, number = pcall(binding.device, wanted)
  if not ok then
    usage.fail("device: expects auto, cpu, cuda or cuda:N, got '%s'", tostring(wanted))
  end
  if number > 0 then
    local n = C.pn_n_devices()
    if n == 0 then
      raise("device=%s: %s", wanted, binding.message())
    elseif number > n then
      raise("device=%s: there %s cuda:0%s", wanted, n == 1 and "is only" or "are", n == 1 and "" or " to cuda:" .. n - 1)
    end
  end
  return binding.device_name(number)
end

--- Waits until a device has done all its work; what its kernels found wrong is raised here.
function device.wait(name)
  binding.check(C.pn_device_wait(binding.device(name)))
end

local function moved(value, where)
  if not binding.is_tensor(value) or value:device() == where then
    return value
  end
  return value:to(where)
end

--- A batch on a device: a tensor, or a table whose tensors are taken there (what else it holds stays, and so does the table given).
-- Pictures travel as bytes where the source has them so: `frames` u8 (T,H,W,3) become what the network reads, by the rule `input`
-- of the batch.
-- @param batch a tensor, or a table
-- @tparam string where "cpu", "cuda:0", ...
-- @return the same on the device
function device.bring(batch, where)
  if type(batch) ~= "table" then
    return moved(batch, where)
  end
  local there = {}
  for key, value in pairs(batch) do
    there[key] = moved(value, where)
  end
  local frames = there.frames
  if binding.is_tensor(frames) and frames:dtype() == "u8" and frames:dims() >= 4 then
    there.frames = image.to_clip(frames, batch.input)
    if frames ~= batch.frames then
      frames:free()
    end
  end
  return there
end

return device
