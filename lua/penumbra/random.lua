--- Random numbers: streams of one counter-based generator (Philox4x32-10; Salmon et al., "Parallel random numbers: as easy
-- as 1, 2, 3", SC 2011). A stream is named by (seed, stream); what it gives depends on nothing else: not on the device, the
-- number of threads, or what other streams did. The state of a stream is a position, so saving and resuming it is exact.

local ffi = require "ffi"
local bit = require "bit"
local binding = require "penumbra.ffi"
local raise = require "penumbra.base.raise"

local C, check, ptr = binding.C, binding.check, binding.ptr

local random = {}
local Stream = {}
Stream.__index = Stream

local function is_whole(value)
  return type(value) == "number" and value == math.floor(value) and value >= 0 and value < 2 ^ 53
end

--- FNV-1a of a text, 64 bits: the number of the stream of that name.
-- @treturn cdata uint64_t
function random.hash(text)
  local h = 0xcbf29ce484222325ULL
  for i = 1, #text do
    h = bit.bxor(h, text:byte(i)) * 0x100000001b3ULL
  end
  return h
end

local function key(value, what)
  if type(value) == "string" then
    return random.hash(value)
  end
  if ffi.istype("uint64_t", value) then
    return value
  end
  if not is_whole(value) then
    raise("random: %s is %s, expects a whole number from 0%s", what, tostring(value), what == "stream" and " or a name" or "")
  end
  return ffi.cast("uint64_t", value)
end

--- A stream of random numbers.
-- @tparam number seed a whole number from 0
-- @param stream its name, or a whole number; 0 when left out
function random.stream(seed, stream)
  if type(seed) == "string" then
    raise("random: seed is %q, expects a whole number from 0", seed)
  end
  return setmetatable({
    seed = key(seed, "seed"), number = key(stream or 0, "stream"), offset = 0, lane = 4, block = ffi.new("uint32_t [4]"),
  }, Stream)
end

-- What was given in place of numbers; a shape is meant for a tensor.
local function given(what, ...)
  for i = 1, 2 do
    if type((select(i, ...))) == "table" then
      return ("a table: rng:fill(pn.empty{2, 2}, %q) fills a tensor"):format(what)
    end
  end
  return ("%s and %s"):format(tostring((...)), tostring((select(2, ...))))
end

--- The next 32 random bits, as a number from 0 to 2^32 - 1.
function Stream:bits()
  if self.lane == 4 then
    C.pn_philox(self.seed, self.number, self.offset, self.block)
    self.offset = self.offset + 1
    self.lane = 0
  end
  local value = self.block[self.lane]
  self.lane = self.lane + 1
  return tonumber(value)
end

--- A number in the open interval (a, b); (0, 1) by default. 32 random bits.
function Stream:uniform(a, b)
  a, b = a or 0, b or 1
  if type(a) ~= "number" or type(b) ~= "number" or a > b or a ~= a or b ~= b then
    raise("uniform: expects two numbers in order, got %s", given("uniform", a, b))
  end
  return a + (b - a) * ((self:bits() + 0.5) / 4294967296)
end

--- A whole number from lo to hi, both included, each equally likely.
function Stream:integer(lo, hi)
  if type(lo) ~= "number" or type(hi) ~= "number" or lo ~= math.floor(lo) or hi ~= math.floor(hi) or lo > hi
    or hi - lo >= 2 ^ 32 then
    raise("integer: expects two whole numbers in order, got %s and %s", tostring(lo), tostring(hi))
  end
  local span = hi - lo + 1
  local bound = 4294967296 - 4294967296 % span -- what lies beyond would favour the small ones
  local value
  repeat
    value = self:bits()
  until value < bound
  return lo + value % span
end

--- A normal deviate (Box-Muller); mean 0 and deviation 1 by default. Always takes two draws.
function Stream:normal(mean, deviation)
  mean, deviation = mean or 0, deviation or 1
  if type(mean) ~= "number" or type(deviation) ~= "number" or deviation < 0
    or deviation ~= deviation then
    raise("normal: expects a mean, and a deviation from 0, got %s", given("normal", mean, deviation))
  end
  local u = (self:bits() + 0.5) / 4294967296
  local v = (self:bits() + 0.5) / 4294967296
  return mean + deviation * math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)
end

--- true with probability p; 1/2 by default.
function Stream:coin(p)
  p = p or 0.5
  if type(p) ~= "number" or p < 0 or p > 1 then
    raise("coin: the probability is %s, expects 0 to 1", tostring(p))
  end
  return (self:bits() + 0.5) / 4294967296 < p
end

--- One of the elements of a list.
function Stream:pick(list)
  if type(list) ~= "table" or #list == 0 then
    raise("pick: %s", type(list) == "table" and "the list is empty" or "expects a list, got a " .. type(list))
  end
  return list[self:integer(1, #list)]
end

--- Shuffles a list in place (Fisher-Yates) and returns it.
function Stream:shuffle(list)
  if type(list) ~= "table" then
    raise("shuffle: expects a list, got a %s", type(list))
  end
  for i = #list, 2, -1 do
    local j = self:integer(1, i)
    list[i], list[j] = list[j], list[i]
  end
  return list
end

local kinds = { uniform = { C.PN_UNIFORM, 0, 1 }, normal = { C.PN_NORMAL, 0, 1 }, bernoulli = { C.PN_BERNOULLI, 0.5, 0 } }

--- Fills a tensor: "uniform" in [a, b), "normal" of mean a and deviation b, "bernoulli" 1 with probability a. Returns it.
function Stream:fill(t, kind, a, b)
  local spec = kinds[kind or "uniform"]
  if not spec then
    raise("fill: unknown distribution '%s' (known: bernoulli, normal, uniform)", tostring(kind))
  end
  local p = ptr(t, "fill")
  a, b = a or spec[2], b or spec[3]
  if type(a) ~= "number" or type(b) ~= "number" then
    raise("fill: expects two numbers, got %s and %s", tostring(a), tostring(b))
  end
  check(C.pn_check_write(p, "fill"))
  check(C.pn_random_fill(p, spec[1], a, b, self.seed, self.number, self.offset))
  self.offset = self.offset + math.ceil(tonumber(C.pn_tensor_count(p)) / 4)
  self.lane = 4
  return t
end

--- A stream of its own below this one: the same seed, a number made of this one's and the name. Draws nothing here.
function Stream:child(name)
  local number = random.hash(("%s/%s"):format(tostring(self.number), tostring(name)))
  return random.stream(self.seed, number)
end

--- The position, as a table that JSON can hold.
function Stream:state()
  return { seed = tostring(self.seed), stream = tostring(self.number), offset = self.offset, lane = self.lane }
end

local function parse_u64(text)
  local value = 0ULL
  for digit in text:gmatch("%d") do
    value = value * 10ULL + tonumber(digit)
  end
  return value
end

--- Goes to a position that `state` gave.
function Stream:set_state(state)
  if type(state) ~= "table" or type(state.seed) ~= "string" or type(state.stream) ~= "string" or not is_whole(state.offset)
    or not is_whole(state.lane) or state.lane > 4 then
    raise("set_state: not a state of a random stream")
  end
  self.seed, self.number = parse_u64(state.seed), parse_u64(state.stream)
  self.offset, self.lane = state.offset, state.lane
  if self.lane < 4 then
    C.pn_philox(self.seed, self.number, self.offset - 1, self.block)
  end
  return self
end

return random
