--- One line that says how far a run is: bar, epoch, loss (smoothed), seconds a step, how long a step waits for its data, time to
-- go, memory. On a terminal it updates in place; elsewhere a line appears now and then.
--
--     epoch  37/200 ━━━━━━━╸────────────────────  loss 0.0431  1.82 s/step  data 3.1 ms  4:57 to go  0.6 GiB (peak 1.7)
-- @module penumbra.run.progress
local ffi = require "ffi"

pcall(ffi.cdef, "int isatty(int fd);")
pcall(ffi.cdef, "int ioctl(int fd, unsigned long request, ...);")

local Progress = {}
Progress.__index = Progress

local progress = {}

--- "0:07", "12:30", "3:05:00"
-- @tparam number seconds
function progress.duration(seconds)
  seconds = math.max(0, math.floor(seconds + 0.5))
  local h, m, s = math.floor(seconds / 3600), math.floor(seconds / 60) % 60, seconds % 60
  if h > 0 then return ("%d:%02d:%02d"):format(h, m, s) end
  return ("%d:%02d"):format(m, s)
end

--- "512 MiB", "1.7 GiB"
-- @tparam number bytes
function progress.size(bytes)
  if bytes >= 2 ^ 30 then return ("%.1f GiB"):format(bytes / 2 ^ 30) end
  return ("%.0f MiB"):format(bytes / 2 ^ 20)
end

local function terminal_width()
  local size = ffi.new("unsigned short [4]")
  if ffi.C.ioctl(2, 0x5413, size) == 0 and size[1] > 0 then return size[1] end -- TIOCGWINSZ of Linux
  return tonumber(os.getenv "COLUMNS") or 80
end

--- A progress line.
-- @tparam table options total = (epochs), done = (0 at the start), clock = (seconds; a function), what = ("epoch"),
--   write = (function of text; standard error), terminal = (boolean; asks the system), width = (columns), every = (seconds
--   between lines where there is no terminal; 30), memory = (function that returns live and peak bytes)
function progress.new(options)
  local is_terminal = options.terminal
  if is_terminal == nil then is_terminal = ffi.C.isatty(2) == 1 and os.getenv "TERM" ~= "dumb" end
  local self = setmetatable({
    total = options.total, done = options.done or 0, first = options.done or 0, what = options.what or "epoch",
    clock = options.clock, terminal = is_terminal, width = options.width, every = options.every or 30, memory = options.memory,
    write = options.write or function(text) io.stderr:write(text) end, weight = 0, smooth = 0,
    waited = 0, wait_weight = 0,
  }, Progress)
  self.began = self.clock()
  self.shown = -math.huge
  self.tenth = -1
  return self
end

--- Takes a loss into the smoothed one (exponential average, unbiased at the start).
function Progress:loss(value)
  self.smooth = 0.9 * self.smooth + 0.1 * value
  self.weight = 0.9 * self.weight + 0.1
end

--- Takes the seconds that a step waited for its data; they are smoothed as the loss is.
function Progress:wait(seconds)
  self.waited, self.wait_weight = 0.9 * self.waited + 0.1 * seconds, 0.9 * self.wait_weight + 0.1
end

local function bar(share, width)
  local full = math.floor(share * width * 2 + 1e-9)
  local text = ("━"):rep(math.floor(full / 2))
  local used = math.floor(full / 2)
  if full % 2 == 1 then text, used = text .. "╸", used + 1 end
  return text .. ("─"):rep(width - used)
end

-- The figures, and how many columns they take (all of them plain ASCII).
local function figures(self, now)
  local parts = {}
  if self.weight > 0 then parts[#parts + 1] = ("loss %.4g"):format(self.smooth / self.weight) end
  local steps = self.done - self.first
  if steps > 0 then
    local each = (now - self.began) / steps
    parts[#parts + 1] = each < 0.1 and ("%.1f ms/step"):format(each * 1e3) or ("%.2f s/step"):format(each)
    local data = self.wait_weight > 0 and self.waited / self.wait_weight * 1e3 or 0
    if data >= 0.05 then parts[#parts + 1] = (data < 10 and "data %.1f ms" or "data %.0f ms"):format(data) end
    if self.done < self.total then
      parts[#parts + 1] = progress.duration(each * (self.total - self.done)) .. " to go"
    else
      parts[#parts + 1] = "took " .. progress.duration(now - self.began)
    end
  end
  if self.memory then
    local live, peak = self.memory()
    parts[#parts + 1] = ("%s (peak %s)"):format(progress.size(live), progress.size(peak))
  end
  return table.concat(parts, "  ")
end

local function line_of(self, now)
  local digits = #tostring(self.total)
  local head = ("%s %" .. digits .. "d/%d "):format(self.what, self.done, self.total)
  local tail = figures(self, now)
  if not self.terminal then return head .. tail end
  local columns = (self.width or terminal_width()) - 1
  local room = math.min(30, columns - #head - #tail - 2)
  if room < 5 then return (head .. tail):sub(1, columns) end
  return head .. bar(self.total > 0 and self.done / self.total or 1, room) .. "  " .. tail
end

--- Shows the line when it is due.
-- @tparam number done how many are done
function Progress:update(done)
  self.done = done
  local now = self.clock()
  if self.terminal then
    if now - self.shown < 0.05 and done < self.total then return end
    -- The cursor waits at the start: a message that follows overwrites the line.
    self.write("\r" .. line_of(self, now) .. "\27[K\r")
    self.shown = now
  else
    local tenth = self.total > 0 and math.floor(10 * done / self.total) or 10
    if tenth == self.tenth and now - self.shown < self.every then return end
    self.write(line_of(self, now) .. "\n")
    self.shown, self.tenth = now, tenth
  end
end

--- Leaves the last state of the line standing.
function Progress:finish()
  if self.terminal then self.write("\r" .. line_of(self, self.clock()) .. "\27[K\n") end
end

return progress
