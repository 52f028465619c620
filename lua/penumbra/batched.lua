--- Several clips of a source in one batch: the key `batch` of a training recipe. A device with many processors is then better used;
-- the step is one, of the mean loss.
--
--     local feed = pn.batched(pn.data.clips(set, cfg), 4)        -- frames (4,3,16,224,224), mask (4,1,16,224,224)
--
-- A source of several batches an epoch has a fourth as many; the last one of an epoch may have fewer clips. A source of one an
-- epoch (dreams) gives four other ones each time. pn.ahead does this when its configuration has `batch`.
-- @module penumbra.batched

local binding = require "penumbra.ffi"
local named = require "penumbra.base.named"
local ops = require "penumbra.ops"
local raise = require "penumbra.base.raise"
local tensor = require "penumbra.tensor"

local Batched = {}
Batched.__index = Batched

-- Clip i of a batch: its axis N first.
local function with_clips(key, value)
  return key == "frames" and value:dims() == 4 and ops.reshape(value, { shape = { 1, unpack(value:shape()) } }) or value
end

-- One tensor of several, along axis N, in the memory order of the first.
local function join(key, parts)
  local shape, n = with_clips(key, parts[1]):shape(), 0
  for i, part in ipairs(parts) do
    part = with_clips(key, part)
    parts[i], n = part, n + part:size(1)
    for d = 2, #shape do
      if part:dims() ~= #shape or part:size(d) ~= shape[d] then
        raise("batched: %s of clip 1 is (%s), of clip %d (%s); clips of one batch have one size (crop)", key,
          table.concat(shape, ","), i, table.concat(part:shape(), ","))
      end
    end
  end
  shape[1] = n
  shape.dtype = parts[1]:dtype()
  shape.layout = #shape == 5 and shape.dtype ~= "u8" and "channels_last" or "rows"
  local whole, at = tensor.empty(shape), 1
  for _, part in ipairs(parts) do
    whole:slice(1, at, part:size(1)):copy(part)
    at = at + part:size(1)
  end
  return whole
end

--- Batch i of an epoch.
-- @treturn table the tensors of the clips' batches joined along their first axis; params: the list of theirs, and `sequence`, their
--   names with + between them where they have one; what else there is: of the first
function Batched:batch(epoch, i)
  i = i or 1
  local first = self.each_epoch and (epoch - 1) * self.n or (i - 1) * self.n
  local last = self.each_epoch and first + self.n or math.min(first + self.n, self.source.per_epoch)
  local parts = {}
  for k = first + 1, last do
    parts[#parts + 1] = self.each_epoch and self.source:batch(k, 1) or self.source:batch(epoch, k)
  end
  local whole, names, params = {}, {}, {}
  for key, value in pairs(parts[1]) do
    if binding.is_tensor(value) then
      local list = {}
      for k, part in ipairs(parts) do list[k] = part[key] end
      whole[key] = join(key, list)
    else
      whole[key] = value
    end
  end
  for k, part in ipairs(parts) do
    params[k] = part.params
    names[#names + 1] = type(part.params) == "table" and part.params.sequence or nil
  end
  params.sequence = #names > 0 and table.concat(names, "+") or nil
  whole.params = params
  return whole
end

--- Ends what the source keeps going.
function Batched:close()
  if self.source.close then self.source:close() end
end

--- See the head of this page.
-- @param source what has batch(epoch, i) and per_epoch
-- @tparam int n clips a batch, from 1
-- @treturn Batched a source: batch(epoch, i), per_epoch
return function(source, n)
  if type(source) ~= "table" or type(source.batch) ~= "function" then
    raise("batched: expects a source with batch(epoch, i), got %s", source == nil and "nothing" or "a " .. type(source))
  end
  named.whole("batched", "n", n, 1, 4096)
  local per_epoch = source.per_epoch or 1
  return setmetatable({
    source = source, n = n, each_epoch = per_epoch == 1, per_epoch = math.ceil(per_epoch / n),
  }, Batched)
end
