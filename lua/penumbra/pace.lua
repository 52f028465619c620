--- When to collect dropped tensors. LuaJIT counts the bytes of handles, not those of the tensors behind them, so left to itself
-- it would collect too late: the binding looks at the live bytes after each allocation and sets the pace here.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local raise = require "penumbra.base.raise"

local C = binding.C
local pace = {}

local MINIMUM = 256 * 2 ^ 20 -- below it nothing is worth a collection
local soft
local thresholds = {} -- device -> live bytes at which the next collection is due
local stats = ffi.new("pn_memory")

local function read_number(path, pattern)
  local file = io.open(path, "r")
  if not file then
    return nil
  end
  local text = file:read("*a")
  file:close()
  return tonumber(text:match(pattern))
end

local function memory_of_machine()
  local total = read_number("/proc/meminfo", "MemTotal:%s*(%d+)")
  total = total and total * 1024 or 4 * 2 ^ 30
  local limit = read_number("/sys/fs/cgroup/memory.max", "^(%d+)")
  return math.min(total, limit or total)
end

--- The bytes of memory that the machine, or the container, has.
pace.machine_bytes = memory_of_machine()

--- The bytes of live tensors, on any one device, above which dropped handles are collected at every allocation that finds more
-- (default: three quarters of the machine's memory). Below it they are collected each time the live bytes have doubled, from
-- 256 MiB.
-- @tparam ?number bytes sets it
-- @treturn number the limit in force
function pace.soft_limit(bytes)
  if bytes ~= nil then
    if type(bytes) ~= "number" or bytes <= 0 then
      raise("soft_limit: expects a number of bytes, got %s", tostring(bytes))
    end
    soft, thresholds = bytes, {}
  end
  return soft
end
pace.soft_limit(0.75 * pace.machine_bytes)

--- Collects every handle that was dropped.
function pace.collect()
  collectgarbage("collect")
  collectgarbage("collect") -- what the finalizers of the first round let go
end

--- Collects when there is reason to. Called after whatever allocates tensor memory.
-- @tparam number device where it was allocated
function pace.mind(device)
  local threshold = thresholds[device] or math.min(MINIMUM, soft)
  if C.pn_memory_stats(device, stats) ~= 0 or tonumber(stats.live_bytes) <= threshold then
    return
  end
  pace.collect()
  if C.pn_memory_stats(device, stats) == 0 then
    local live = tonumber(stats.live_bytes)
    -- Where the live set itself is near the limit, a small margin keeps this from running at each call.
    thresholds[device] = math.max(math.min(math.max(2 * live, MINIMUM), soft), 1.125 * live)
  end
end

return pace
