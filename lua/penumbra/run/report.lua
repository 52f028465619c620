--- What a run leaves to look at: loss.png, curves of all else that was logged, and report.html, one file that holds configuration,
-- losses, scores and overlays.
-- @module penumbra.run.report
local bit = require "bit"
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local log = require "penumbra.run.log"
local raise = require "penumbra.base.raise"

local report = {}

-- What the log has of itself: no curves.
local OF_THE_LOG = { epoch = true, step = true, seconds = true, data = true }

-- Every number that was logged, by key: { x = epochs, y = values }; and the keys, sorted, of losses and of all else.
local function curves_of(dir)
  local curves, losses, others = {}, {}, {}
  for _, record in ipairs(log.read(dir .. "/log.jsonl")) do
    for key, value in pairs(record) do
      if type(value) == "number" and not OF_THE_LOG[key] then
        local curve = curves[key]
        if not curve then
          curve = { x = {}, y = {} }
          curves[key] = curve
          table.insert(key:match "loss$" and losses or others, key)
        end
        curve.x[#curve.x + 1], curve.y[#curve.y + 1] = record.epoch, value
      end
    end
  end
  table.sort(losses)
  table.sort(others)
  return curves, losses, others
end

-- Some of them in one picture, over the epochs: thin, with a running mean where they are long.
local function draw(path, title, curves, keys)
  local how = { path = path, title = title, x_label = "epoch", log_y = title == "loss" }
  local longest = 0
  for i, key in ipairs(keys) do
    how[i] = { key, curves[key].y, x = curves[key].x }
    longest = math.max(longest, #curves[key].y)
    for _, value in ipairs(curves[key].y) do how.log_y = how.log_y and value > 0 end
  end
  if longest < 2 then return nil end
  how.smooth = longest > 20 and 2 * math.floor(longest / 40) + 1 or 0
  return require("penumbra.plot").lines(how)
end

--- Draws the log of a run in its directory: loss.png, every key that ends in "loss", and curves/KEY.png for each other number that
-- was logged.
-- @tparam string dir
-- @treturn ?string the path of loss.png; nil when there is no loss to draw
function report.plot(dir)
  local curves, losses, others = curves_of(dir)
  for _, key in ipairs(others) do
    local problem = files.make_directory(dir .. "/curves")
    if problem then raise("%s", problem) end
    draw(("%s/curves/%s.png"):format(dir, key:gsub("[^%w_.-]", "_")), key, curves, { key })
  end
  return #losses > 0 and draw(dir .. "/loss.png", "loss", curves, losses) or nil
end

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(bytes)
  local out = {}
  for i = 1, #bytes, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local word = bit.bor(bit.lshift(a, 16), bit.lshift(b or 0, 8), c or 0)
    local text = ""
    for shift = 18, 0, -6 do
      local k = bit.band(bit.rshift(word, shift), 63) + 1
      text = text .. alphabet:sub(k, k)
    end
    out[#out + 1] = c and text or b and text:sub(1, 3) .. "=" or text:sub(1, 2) .. "=="
  end
  return table.concat(out)
end
report.base64 = base64

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
local function escape(text) return (tostring(text):gsub("[&<>\"]", entities)) end

local function picture(path, caption)
  local bytes = files.read(path)
  if not bytes then return "" end
  local kind = path:match "%.svg$" and "svg+xml" or path:match "%.jpg$" and "jpeg" or "png"
  return ('<figure><img alt="%s" src="data:image/%s;base64,%s"><figcaption>%s</figcaption></figure>\n'):format(escape(caption),
    kind, base64(bytes), escape(caption))
end

local style = [[
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #222; background: #fff }
h1, h2 { font-weight: 600 } table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } code, pre { font: 13px/1.5 ui-monospace, monospace }
tr + tr td { border-top: 1px solid #eee } .grid { display: grid; grid-template-columns: 1fr 1fr 1fr; gap: .8rem }
figure { margin: 0 } img { max-width: 100% } figcaption { color: #666; font-size: 13px }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } tr + tr td { border-color: #333 } }
]]

local function percent(value) return ("%.1f"):format(100 * value) end

local function scores_table(dir, result)
  local rows = { '<table><tr><th>sequence<th class="n">J mean<th class="n">recall<th class="n">decay<th class="n">F mean'
    .. '<th class="n">recall<th class="n">decay<th class="n">first mask copied: J<th class="n">F</tr>' }
  local function add(name, score, copied)
    local page = name .. "/report.html" -- of a sequence with a run of its own
    local link = files.exists(dir .. "/" .. page) and ('<a href="%s">%s</a>'):format(escape(page), escape(name)) or escape(name)
    local cells = { "<tr><td>" .. link }
    for _, which in ipairs { "J", "F" } do
      for _, key in ipairs { "mean", "recall", "decay" } do
        cells[#cells + 1] = ('<td class="n">%s'):format(percent(score[which][key]))
      end
    end
    cells[#cells + 1] = ('<td class="n">%s<td class="n">%s</tr>'):format(percent(copied.J.mean), percent(copied.F.mean))
    rows[#rows + 1] = table.concat(cells)
  end
  for _, name in ipairs(result.order) do add(name, result.sequences[name], result.baseline.sequences[name]) end
  if #result.order > 1 then add("mean", result.mean, result.baseline.mean) end
  local known, published = require "penumbra.measure.published", {}
  if not known.has_any(result.order) then return table.concat(rows, "\n") .. "</table>\n" end
  for i, row in ipairs(known.means) do
    published[i] = ("%s %s / %s"):format(escape(row[1]), percent(row[2]), percent(row[3]))
  end
  return table.concat(rows, "\n") .. "</table>\n<p>Published on the 20 validation sequences of DAVIS 2016 (J / F): "
    .. table.concat(published, ", ") .. ".</p>\n"
end

-- Up to six overlays of each sequence (three where there are many), evenly spread, at most half their size.
local function overlays(dir)
  local image = require "penumbra.image"
  local lfs = require "lfs"
  local scope = require "penumbra.scope"
  local top = dir .. "/overlays"
  if not files.exists(top, "directory") then return "" end
  local names, parts = {}, {}
  for name in lfs.dir(top) do
    if name:sub(1, 1) ~= "." then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local paths, frames = image.files(top .. "/" .. name, "png")
    parts[#parts + 1] = ("<h2>%s</h2>\n<div class=\"grid\">\n"):format(escape(name))
    local n = math.min(#names > 6 and 3 or 6, #paths)
    for k = 1, n do
      local i = n == 1 and 1 or 1 + math.floor((k - 1) * (#paths - 1) / (n - 1) + 0.5)
      local small = dir .. "/.report.png"
      scope.run(function()
        local full = image.read(paths[i])
        local h, w = full:size(1), full:size(2)
        local share = math.min(1, 427 / w)
        local function part(n_pixels) return math.max(1, math.floor(n_pixels * share + 0.5)) end
        image.write(small, image.resize(full, { part(h), part(w) }))
      end)
      parts[#parts + 1] = picture(small, frames[i])
      os.remove(small)
    end
    parts[#parts + 1] = "</div>\n"
  end
  return table.concat(parts)
end

--- Writes report.html in the directory of a run.
-- @tparam table run dir, seed, config_text; epoch, result (of measure.summary, with its baseline) where there are
-- @treturn string the path
function report.write(run)
  local head = '<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>%s</title>\n<style>%s</style>\n<h1>%s</h1>\n'
  local parts = { head:format(escape(run.dir), style, escape(run.dir)) }
  local record = json.decode(files.read(run.dir .. "/run.json") or "{}") or {}
  local session = record.sessions and record.sessions[#record.sessions] or {}
  parts[#parts + 1] = ("<p><code>%s</code><br>%sseed %s, commit %s, %s</p>\n"):format(escape(session.command or ""),
    run.epoch and run.epoch .. " epochs, " or "", escape(run.seed), escape(session.commit or "unknown"),
    escape(session.versions and session.versions.build or ""))
  if run.result then parts[#parts + 1] = "<h2>Scores</h2>\n" .. scores_table(run.dir, run.result) end
  if files.exists(run.dir .. "/loss.png") then
    parts[#parts + 1] = "<h2>Loss</h2>\n" .. picture(run.dir .. "/loss.png", "each loss, thin, with its running mean")
  end
  if files.exists(run.dir .. "/curves", "directory") then
    parts[#parts + 1] = "<h2>Also logged</h2>\n<div class=\"grid\">\n"
    for _, path in ipairs(require("penumbra.image").files(run.dir .. "/curves", "png")) do
      parts[#parts + 1] = picture(path, path:match "([^/]*)%.png$")
    end
    parts[#parts + 1] = "</div>\n"
  end
  parts[#parts + 1] = overlays(run.dir)
  parts[#parts + 1] = "<h2>Configuration</h2>\n<table>\n"
  for line in run.config_text:gmatch "[^\n]+" do
    local key, value = line:match "^(.-) = (.*)$"
    parts[#parts + 1] = ("<tr><td><code>%s</code><td><code>%s</code></tr>\n"):format(escape(key or line), escape(value or ""))
  end
  parts[#parts + 1] = "</table>\n</html>\n"
  local path = run.dir .. "/report.html"
  local problem = files.write(path, table.concat(parts))
  if problem then raise("%s", problem) end
  return path
end

return report
