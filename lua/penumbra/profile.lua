--- Where the time goes: by operation, direction and layer, and event by event for a trace.
--
--     local report = pn.profile(function() net(x).fused:sum():backward() end)
--     print(report)                       -- by operation, then by layer, the slowest first
--     report.rows[1]                      -- {op, label, shapes, args, calls, seconds, flops, bytes}
--     report:write_trace "trace.json"     -- for chrome://tracing or ui.perfetto.dev: a row a thread
--
-- On a CUDA device seconds are those of the device, between the moments at which its stream comes to an operation and leaves it
-- (`report.device` is its name then, and a row's `host` the seconds that the host took to ask for it). Nothing waits for that, and
-- captured steps run as written, so what the host is slow to ask for shows as time of the operation or part it came late for.
--
-- A part of the work may have a name: `profile.part("draw", f, ...)` is then a row of its own, with the seconds that no operation
-- inside took. `penumbra profile RECIPE` does all this for a few turns of a recipe's loop (profile.watch): what lies between them,
-- such as a checkpoint, is in the row "loop". Rows are of the thread that profiles; what workers do beside it is in the trace.
-- @module penumbra.profile

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"

local C = binding.C
local profile = {}
local Report = {}
Report.__index = Report

-- ---- reading what the library recorded -----------------------------------------------------------------------------------

local FIELDS = "^([^\t]*)\t([^\t]*)\t(%d+)\t(%S+)\t(%S+)\t(%S+)\t([^\t]*)\t([^\t]*)\t(%S+)$"

-- The rows in the order of the library, which events refer to; a row without calls only names the pieces of an operation.
local function read_rows()
  local size = 2 ^ 16
  while true do
    local buffer = ffi.new("char [?]", size)
    if C.pn_profile_report(buffer, size) == 0 then
      local rows = {}
      for line in ffi.string(buffer):gmatch("[^\n]+") do
        local op, label, calls, seconds, flops, bytes, shapes, args, device_seconds = line:match(FIELDS)
        rows[#rows + 1] = {
          op = op, label = label, shapes = shapes, args = args, calls = tonumber(calls), seconds = tonumber(seconds),
          flops = tonumber(flops), bytes = tonumber(bytes), device_seconds = tonumber(device_seconds),
          is_part = shapes == "" and not op:find(".", 1, true),
        }
      end
      return rows
    elseif size >= 2 ^ 26 then
      raise("profile: %s", binding.message())
    end
    size = size * 4
  end
end

local function read_events(rows)
  local out = ffi.new("const pn_profile_event *[1]")
  local n, events = tonumber(C.pn_profile_events(out)), {}
  for i = 0, n - 1 do
    local e = out[0][i]
    events[i + 1] = { row = rows[e.row + 1], thread = e.thread, piece = e.piece, begin = e.begin, seconds = e.seconds }
  end
  return events
end

local function slowest_first(rows)
  table.sort(rows, function(a, b)
    return a.seconds > b.seconds
  end)
  return rows
end

--- Begins to record; what was recorded before is forgotten.
function profile.start()
  C.pn_profile(true)
end

--- Ends the recording.
-- @treturn table the report
function profile.stop()
  C.pn_profile(false)
  local all = read_rows()
  local rows, events, device = {}, read_events(all), nil
  for _, event in ipairs(events) do
    if event.thread < 0 then
      device = binding.device_name(-event.thread)
    end
  end
  for _, row in ipairs(all) do
    if row.calls > 0 then
      rows[#rows + 1] = row
    end
    if device then
      row.host, row.seconds = row.seconds, row.device_seconds
    end
    row.device_seconds = nil
  end
  return setmetatable({ rows = slowest_first(rows), events = events, turns = 1, device = device }, Report)
end

--- Runs f as a part of the work under a name: a row of the profile, when one is taken.
-- @tparam string name
-- @tparam function f
-- @param ... its arguments
-- @return the results of f
function profile.part(name, f, ...)
  binding.check(C.pn_profile_begin(name))
  local function finish(ok, ...)
    C.pn_profile_end()
    if not ok then
      error((...), 0)
    end
    return ...
  end
  return finish(scope.protect(f, ...))
end

-- ---- the report ----------------------------------------------------------------------------------------------------------

--- The seconds of all operations together, and those that named parts spent outside them.
-- @treturn number in operations
-- @treturn number outside
function Report:seconds()
  local inside, outside = 0, 0
  for _, row in ipairs(self.rows) do
    if row.is_part then
      outside = outside + row.seconds
    else
      inside = inside + row.seconds
    end
  end
  return inside, outside
end

local function add_up(rows, key_of)
  local sums, list = {}, {}
  for _, row in ipairs(rows) do
    local key = key_of(row)
    local sum = sums[key]
    if not sum then
      sum = { op = row.op, label = row.label, is_part = row.is_part, calls = 0, seconds = 0, flops = 0, bytes = 0, backward = 0 }
      sums[key] = sum
      list[#list + 1] = sum
    end
    for _, name in ipairs { "calls", "seconds", "flops", "bytes" } do
      sum[name] = sum[name] + row[name]
    end
    sum.backward = sum.backward + (row.op:match("%.backward$") and row.seconds or 0)
  end
  return slowest_first(list)
end

--- The rows added up by operation and direction, the slowest first: {op, calls, seconds, flops, bytes}.
function Report:by_operation()
  return add_up(self.rows, function(row)
    return row.op
  end)
end

--- The operations added up by layer, both directions, the slowest first: {label, calls, seconds, flops, bytes, backward = seconds}.
function Report:by_layer()
  local rows = {}
  for _, row in ipairs(self.rows) do
    if not row.is_part then
      rows[#rows + 1] = row
    end
  end
  return add_up(rows, function(row)
    return row.label
  end)
end

--- The report as text: a line an operation, then a line a layer, a turn (see `turns`) each.
-- @tparam ?number most lines of each table; default 40
function Report:text(most)
  most = most or 40
  local n, lines = self.turns, {}
  local inside, outside = self:seconds()
  local all = math.max(inside + outside, 1e-12)
  local function add(format, ...)
    lines[#lines + 1] = format:format(...)
  end
  local function rates(row)
    local seconds = math.max(row.seconds, 1e-9)
    return row.flops / seconds / 1e9, row.bytes / n / 1e6, row.bytes / seconds / 1e9
  end
  local function rest(rows, count)
    local seconds = 0
    for i = count + 1, #rows do
      seconds = seconds + rows[i].seconds
    end
    if seconds > 0 then
      add("%-44s %7s %9.2f", ("and %d more"):format(#rows - count), "", seconds * 1e3 / n)
    end
  end

  local rows = self:by_operation()
  add("%-44s %7s %9s %6s %9s %9s %7s", "operation", "calls", "ms", "%", "GFLOP/s", "MB", "GB/s")
  for i = 1, math.min(#rows, most) do
    local row = rows[i]
    local name = row.is_part and "(" .. row.op .. ")" or row.op
    add("%-44s %7.4g %9.2f %6.1f %9.1f %9.1f %7.1f", name, row.calls / n, row.seconds * 1e3 / n, 100 * row.seconds / all,
      rates(row))
  end
  rest(rows, most)
  rows = self:by_layer()
  add("\n%-44s %7s %9s %6s %9s %9s %7s %9s %9s", "layer", "calls", "ms", "%", "GFLOP/s", "MB", "GB/s", "forward", "backward")
  for i = 1, math.min(#rows, most) do
    local row = rows[i]
    local name = row.label == "" and "(no layer)" or row.label
    local a, b, c = rates(row)
    add("%-44s %7.4g %9.2f %6.1f %9.1f %9.1f %7.1f %9.2f %9.2f", name, row.calls / n, row.seconds * 1e3 / n,
      100 * row.seconds / all, a, b, c, (row.seconds - row.backward) * 1e3 / n, row.backward * 1e3 / n)
  end
  rest(rows, most)
  add("%.1f ms in operations%s, %.1f ms outside: in brackets, by part", inside * 1e3 / n,
    self.device and " on " .. self.device or "", outside * 1e3 / n)
  return table.concat(lines, "\n")
end

function Report:__tostring()
  return self:text()
end

-- ---- the trace -----------------------------------------------------------------------------------------------------------

local DEVICES = 10000 -- row of device k in a trace: 10000 + k

local function track(number) return number < 0 and DEVICES - 1 - number or number end

local function thread_name(number)
  if number == 0 then
    return "main"
  elseif number < 0 then
    return binding.device_name(-number)
  end
  return number < 1000 and "worker " .. number or "other " .. number - 999
end

--- Writes the events as a Chrome trace (JSON, complete events, microseconds from the first one): open it in chrome://tracing or
-- ui.perfetto.dev. A row a thread; below an operation lie the pieces that the threads did of it.
-- @tparam string path
-- @treturn number how many events
function Report:write_trace(path)
  local json = require "penumbra.json"
  local file, problem = io.open(path, "wb")
  if not file then
    raise("trace: cannot write %s", problem)
  end
  local origin, threads = math.huge, {}
  for _, e in ipairs(self.events) do
    origin = math.min(origin, e.begin)
    threads[e.thread] = true
  end
  local parts = { json.line { ph = "M", pid = 1, name = "process_name", args = { name = "penumbra" } } }
  for number in pairs(threads) do
    local tid = track(number)
    parts[#parts + 1] = json.line { ph = "M", pid = 1, tid = tid, name = "thread_name", args = { name = thread_name(number) } }
    parts[#parts + 1] = json.line { ph = "M", pid = 1, tid = tid, name = "thread_sort_index", args = { sort_index = tid } }
  end
  local text_of = {} -- what all events of a row share, piece or whole
  local ok, why = file:write('{"displayTimeUnit": "ms", "traceEvents": [\n', table.concat(parts, ",\n"))
  for _, e in ipairs(self.events) do
    if not ok then
      break
    end
    local row = e.row
    local text = text_of[row]
    if not text then
      local name = row.label ~= "" and row.op .. " " .. row.label or row.op
      local args = {}
      if row.shapes ~= "" or row.calls > 0 and not row.is_part then
        args.layer, args.shapes, args.args = row.label, row.shapes, row.args
        if row.calls > 0 then
          args.mflop, args.mbytes = row.flops / row.calls / 1e6, row.bytes / row.calls / 1e6
        end
      end
      text = ('"name": %s, "cat": %s, "ph": "X", "pid": 1, "args": %s'):format(json.line(name),
        json.line(e.piece and "piece" or row.is_part and "part" or "operation"), next(args) and json.line(args) or "{}")
      text_of[row] = text
    end
    ok, why = file:write((',\n{%s, "tid": %d, "ts": %.3f, "dur": %.3f}'):format(text, track(e.thread), (e.begin - origin) * 1e6,
      e.seconds * 1e6))
  end
  if ok then
    ok, why = file:write "\n]}\n"
  end
  local closed, why_closed = file:close()
  if not (ok and closed) then
    raise("trace: cannot write %s: %s", path, tostring(why or why_closed))
  end
  return #self.events
end

-- ---- the turns of a recipe's loop ----------------------------------------------------------------------------------------

--- Watches the loop of a recipe: after `warm` turns of run:epochs, `steps` are recorded, then the recipe is left.
-- @tparam table how steps, warm, out (the run directory, where the recipe is given none)
-- @tparam function f runs the recipe
-- @treturn table report, whose `turns` says how many turns it holds (1 where f has no loop: then the whole of it), and `loop`
--   whether there was one; `wall` is the seconds from the beginning of the first to the end of the last; on the CPU its rows add
--   up to that
function profile.watch(how, f)
  local watch = { out = how.out, n = 0, n_recorded = 0 }
  local done = {}

  function watch.loop_begins()
    if watch.in_loop then
      return
    end
    watch.in_loop = true
    C.pn_profile(false)
  end

  function watch.turn_begins()
    if watch.n == 0 or watch.n == how.warm then -- recorded from the first turn on, so that a device is known by then
      profile.start()
    end
    if watch.n == how.warm then
      binding.check(C.pn_profile_begin "loop")
    end
    if watch.n >= how.warm then
      binding.check(C.pn_profile_begin "turn")
      watch.in_turn = true
    end
  end

  function watch.turn_ends()
    watch.n = watch.n + 1
    if watch.n > how.warm then
      C.pn_profile_end()
      watch.in_turn = false
      watch.n_recorded = watch.n_recorded + 1
    end
    if watch.n == how.warm + how.steps then
      watch.wall = C.pn_profile_end()
      error(done, 0)
    end
  end

  local function must_have_turns()
    if watch.n_recorded == 0 then
      C.pn_profile(false)
      raise("profile: the loop ended after %d turn(s), all of them warm-up (warm=%d)", watch.n, how.warm)
    end
  end

  function watch.loop_ends()
    must_have_turns()
    watch.wall = C.pn_profile_end()
    error(done, 0)
  end

  profile.watching = watch
  profile.start()
  binding.check(C.pn_profile_begin "run")
  local ok, problem = xpcall(f, function(message)
    if message ~= done and type(message) == "string" then
      scope.note_traceback(debug.traceback(message, 2))
    end
    return message
  end)
  profile.watching = nil
  if not watch.in_loop then
    watch.wall = C.pn_profile_end()
  end
  if not ok and problem ~= done then
    C.pn_profile(false)
    error(problem, 0)
  end
  if not watch.wall then -- a break left the loop: what came after it is of the row "loop" too
    must_have_turns()
    if watch.in_turn then
      C.pn_profile_end()
    end
    watch.wall = C.pn_profile_end()
  end
  scope.unwind(0)
  local report = profile.stop()
  report.loop, report.turns, report.wall = watch.in_loop or false, math.max(watch.n_recorded, 1), watch.wall
  return report
end

-- ---- one function ----------------------------------------------------------------------------------------------------------

local function finish(ok, ...)
  local report = profile.stop()
  if not ok then
    error((...), 0)
  end
  return report, ...
end

--- Runs f and reports the time of each operation in it: `pn.profile(f, ...)`.
-- @tparam function f
-- @param ... its arguments
-- @return the report, then the results of f
function profile.of(f, ...)
  if type(f) ~= "function" then
    raise("profile: expects a function, got %s", type(f))
  end
  profile.start()
  return finish(scope.protect(f, ...))
end

return setmetatable(profile, {
  __call = function(_, f, ...)
    return profile.of(f, ...)
  end,
})
