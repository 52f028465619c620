--- Where the time goes: by operation, direction and layer.
--
--     local report = pn.profile(function() net(x).fused:sum():backward() end)
--     print(report)                       -- a table, the slowest first
--     report.rows[1]                      -- {op, label, calls, seconds, flops, bytes}

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local raise = require "penumbra.raise"
local scope = require "penumbra.scope"

local C = binding.C
local Report = {}
Report.__index = Report

local function read_rows()
  local size = 2 ^ 16
  while true do
    local buffer = ffi.new("char [?]", size)
    if C.pn_profile_report(buffer, size) == 0 then
      local rows = {}
      for line in ffi.string(buffer):gmatch("[^\n]+") do
        local op, label, calls, seconds, flops, bytes = line:match("^([^\t]*)\t([^\t]*)\t(%d+)\t(%S+)\t(%S+)\t(%S+)$")
        rows[#rows + 1] = {
          op = op, label = label, calls = tonumber(calls), seconds = tonumber(seconds), flops = tonumber(flops),
          bytes = tonumber(bytes),
        }
      end
      return rows
    elseif size >= 2 ^ 26 then
      raise("profile: %s", binding.message())
    end
    size = size * 4
  end
end

--- The seconds of all operations together.
function Report:seconds()
  local sum = 0
  for _, row in ipairs(self.rows) do
    sum = sum + row.seconds
  end
  return sum
end

--- The same rows added up by operation and direction, the slowest first.
function Report:by_operation()
  local sums, list = {}, {}
  for _, row in ipairs(self.rows) do
    local sum = sums[row.op]
    if not sum then
      sum = { op = row.op, label = "", calls = 0, seconds = 0, flops = 0, bytes = 0 }
      sums[row.op] = sum
      list[#list + 1] = sum
    end
    for _, key in ipairs { "calls", "seconds", "flops", "bytes" } do
      sum[key] = sum[key] + row[key]
    end
  end
  table.sort(list, function(a, b)
    return a.seconds > b.seconds
  end)
  return list
end

local function format_rows(rows, most)
  local lines = { ("%-26s %-36s %6s %9s %9s %9s"):format("operation", "layer", "calls", "ms", "GFLOP/s", "GB/s") }
  for i = 1, math.min(#rows, most) do
    local row = rows[i]
    local seconds = math.max(row.seconds, 1e-9)
    lines[#lines + 1] = ("%-26s %-36s %6d %9.2f %9.1f %9.1f"):format(row.op, row.label, row.calls, row.seconds * 1e3,
      row.flops / seconds / 1e9, row.bytes / seconds / 1e9)
  end
  return table.concat(lines, "\n")
end

function Report:__tostring()
  return ("%s\n\n%s\n%.1f ms in operations"):format(format_rows(self:by_operation(), 40), format_rows(self.rows, 40),
    self:seconds() * 1e3)
end

local function finish(ok, ...)
  C.pn_profile(false)
  if not ok then
    error((...), 0)
  end
  local rows = read_rows()
  table.sort(rows, function(a, b)
    return a.seconds > b.seconds
  end)
  return setmetatable({ rows = rows }, Report), ...
end

--- Runs f and reports the time of each operation in it.
-- @tparam function f
-- @param ... its arguments
-- @return the report, then the results of f
return function(f, ...)
  if type(f) ~= "function" then
    raise("profile: expects a function, got %s", type(f))
  end
  C.pn_profile(true)
  return finish(scope.protect(f, ...))
end
