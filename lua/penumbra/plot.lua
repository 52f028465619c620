--- Plots, written as PNG or SVG by the end of the path.
--
--     pn.plot.lines{ path = "loss.svg", title = "loss", x_label = "epoch", log_y = true, smooth = 9,
--       { "fused", losses }, { "4f", side_losses }, { "val", scores, x = epochs } }
--     pn.plot.bars{ path = "scores.png", title = "J per sequence", groups = { "camel", "goat" }, { "ours", { 0.84, 0.81 } } }
--
-- A series is { name, y-values, x = x-values }; x counts from 1 when not given. A value that is not finite breaks its line.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"

local C, check = binding.C, binding.check

local plot = {}
local doubles = ffi.typeof "double [?]"

local function numbers(what, values, n)
  if type(values) ~= "table" then
    raise("%s: expects a list of numbers, got %s", what, type(values))
  end
  n = n or #values
  local list = doubles(math.max(n, 1))
  for i = 1, n do
    if type(values[i]) ~= "number" then
      raise("%s: value %d is %s, expects a number", what, i, values[i] == nil and "missing" or "a " .. type(values[i]))
    end
    list[i - 1] = values[i]
  end
  return list, n
end

-- The mean over a centred window of `width` values; those that are not finite are left out.
local function smoothed(list, n, width)
  local half = math.floor(width / 2)
  local result = doubles(math.max(n, 1))
  for i = 0, n - 1 do
    local sum, count = 0, 0
    local reach = math.min(half, i, n - 1 - i) -- symmetric up to the ends, so that a slope stays where it is
    for k = i - reach, i + reach do
      local v = list[k]
      if v == v and math.abs(v) ~= math.huge then
        sum, count = sum + v, count + 1
      end
    end
    result[i] = count > 0 and sum / count or 0 / 0
  end
  return result
end

local function write(what, kind, how, given)
  local hold = {} -- what C reads must live until it has
  local n = #given
  local series = ffi.new("pn_series [?]", math.max(n, 1))
  for i, s in ipairs(given) do
    local label = ("%s: series %d"):format(what, i)
    if type(s) ~= "table" then
      raise("%s: expects { name, values }, got %s", label, type(s))
    end
    local x = named(label, s, { x = named.optional }).x
    local name = s[1]
    if type(name) ~= "string" then
      raise("%s: expects { name, values }; the name is a %s", label, type(name))
    end
    local y, count = numbers(label .. " (" .. name .. ")", s[2])
    hold[#hold + 1] = name
    hold[#hold + 1] = y
    local entry = series[i - 1]
    entry.name, entry.y, entry.n = name, y, count
    if x ~= nil then
      if type(x) == "table" and #x ~= count then
        raise("%s (%s): %d x-values for %d y-values", label, name, #x, count)
      end
      local list = numbers(label .. " (" .. name .. "): x", x, count)
      hold[#hold + 1] = list
      entry.x = list
    end
    if how.smooth and how.smooth > 1 and count > 2 then
      local mean = smoothed(y, count, how.smooth)
      hold[#hold + 1] = mean
      entry.y, entry.faint = mean, y
    end
  end
  local nan = 0 / 0
  local p = ffi.new "pn_plot"
  p.kind, p.title, p.x_label, p.y_label = kind, how.title, how.x_label, how.y_label
  p.width, p.height = named.whole(what, "width", how.width, 0), named.whole(what, "height", how.height, 0)
  p.log_x, p.log_y = how.log_x or false, how.log_y
  p.x_min, p.x_max, p.y_min, p.y_max = how.x_min or nan, how.x_max or nan, how.y_min or nan, how.y_max or nan
  if how.groups then
    local groups = ffi.new("const char *[?]", math.max(#how.groups, 1))
    for i, name in ipairs(how.groups) do
      if type(name) ~= "string" then
        raise("%s: groups expects a list of names; entry %d is a %s", what, i, type(name))
      end
      groups[i - 1] = name
    end
    hold[#hold + 1] = groups
    p.groups, p.n_groups = groups, #how.groups
  end
  check(C.pn_plot_write(how.path, p, series, n))
  assert(hold, how.path) -- alive until here
  return how.path
end

local function options(extra)
  local all = {
    path = named.required, title = "", x_label = "", y_label = "", width = 0, height = 0, log_y = false,
    y_min = named.optional, y_max = named.optional,
  }
  for key, value in pairs(extra) do
    all[key] = value
  end
  return all
end

local line_options = options { log_x = false, x_min = named.optional, x_max = named.optional, smooth = 0 }
local bar_options = options { groups = named.required }

--- Lines over a common x axis; returns the path.
-- @tparam table how path (.png or .svg), title, x_label, y_label, width and height in pixels (960 x 540), log_x, log_y, x_min,
--   x_max, y_min, y_max, smooth (values in a centred mean, with the raw line behind it; 0: none); in the list part the series
function plot.lines(how)
  return write("plot.lines", C.PN_PLOT_LINES, named("plot.lines", how, line_options), how)
end

--- Groups of bars; returns the path.
-- @tparam table how path, groups (their names), title, y_label, width, height, log_y, y_min, y_max; in the list part the series
function plot.bars(how)
  return write("plot.bars", C.PN_PLOT_BARS, named("plot.bars", how, bar_options), how)
end

return plot
