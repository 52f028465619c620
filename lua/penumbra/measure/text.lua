--- Scores as text: a table for people, and JSON.
-- @module penumbra.measure.text
local published = require "penumbra.measure.published"
local raise = require "penumbra.base.raise"
local sorted_keys = require "penumbra.base.sorted_keys"

local text = {}

local keys = { "mean", "recall", "decay" }

local function json_number(value)
  return value == value and math.abs(value) ~= math.huge and ("%.9g"):format(value) or "null"
end

local function json_score(s)
  local parts = {}
  for _, which in ipairs { "J", "F" } do
    local fields = {}
    for i, key in ipairs(keys) do
      fields[i] = ('"%s": %s'):format(key, json_number(s[which][key]))
    end
    local frames = s[which].per_frame
    if frames then
      local values = {}
      for i, value in ipairs(frames) do
        values[i] = json_number(value)
      end
      fields[#fields + 1] = ('"per_frame": [%s]'):format(table.concat(values, ", "))
    end
    parts[#parts + 1] = ('"%s": {%s}'):format(which, table.concat(fields, ", "))
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function json_string(name)
  return '"' .. name:gsub('[%c"\\]', function(c)
    return ("\\u%04x"):format(c:byte())
  end) .. '"'
end

-- "name": { rows }, a row a line.
local function json_rows(name, rows)
  return ('  "%s": {%s}'):format(name, #rows > 0 and "\n" .. table.concat(rows, ",\n") .. "\n  " or "")
end

--- A result as JSON: {"sequences": {"camel": {"J": {"mean":, "recall":, "decay":, "per_frame": []}, "F": {...}}, ...},
-- "mean": {...}}, values 0-1; per_frame begins with the second frame. And {"first_frame": {"camel": {"J":, "threshold":}}} where
-- the result has first_frame: of each sequence what infer.segment found there. The mean is left out where there are no sequences.
function text.json(result)
  local rows, first_rows, parts = {}, {}, {}
  for i, name in ipairs(result.order) do
    rows[i] = ("    %s: %s"):format(json_string(name), json_score(result.sequences[name]))
  end
  for i, name in ipairs(sorted_keys(result.first_frame or {})) do
    local found = result.first_frame[name]
    first_rows[i] = ('    %s: {%s"threshold": %s}'):format(json_string(name),
      found.J and ('"J": %s, '):format(json_number(found.J)) or "", json_number(found.threshold))
  end
  parts[1] = json_rows("sequences", rows)
  parts[#parts + 1] = #rows > 0 and ('  "mean": %s'):format(json_score(result.mean)) or nil
  parts[#parts + 1] = #first_rows > 0 and json_rows("first_frame", first_rows) or nil
  return "{\n" .. table.concat(parts, ",\n") .. "\n}\n"
end

local function refuse(path, problem)
  raise("%s: cannot write the scores%s", path, problem and problem:gsub("^.*: ", ": ") or "")
end

-- What is written beside a path first.
local function unfinished(path)
  return path .. ".part"
end

--- Fails where a result could not be written: before it is worked out.
function text.check_path(path)
  local file, problem = io.open(unfinished(path), "w")
  if not file then
    refuse(path, problem)
  end
  file:close()
  os.remove(unfinished(path))
end

--- Writes a result as JSON; what stood at the path stays whole until the new file is complete.
function text.write_json(path, result)
  local file, problem = io.open(unfinished(path), "w")
  local written = file and file:write(text.json(result))
  local closed = file and file:close()
  if not (written and closed and os.rename(unfinished(path), path)) then
    os.remove(unfinished(path))
    refuse(path, problem)
  end
end

local function percent(value)
  return (("%7.1f"):format(100 * value):gsub("%-0%.0$", " 0.0"))
end

-- What stands to the right of a result's own columns: a list of {title, values(name)}, where values gives the J and F of a
-- sequence, without a name the means; nil where nothing is known.
local function columns_beside(result)
  local beside = {}
  if result.baseline then
    beside[1] = { "copied", function(name)
      local s = name and result.baseline.sequences[name] or result.baseline.mean
      return s.J.mean, s.F.mean
    end }
  end
  for m, method in ipairs(published.methods) do
    local sum_J, sum_F, n = 0, 0, 0
    local function values(name)
      local row = published.per_sequence[name]
      if row then
        return row[2 * m - 1], row[2 * m]
      elseif not name and n == #result.order then -- a mean over other sequences would mislead
        return sum_J / n, sum_F / n
      end
    end
    for _, name in ipairs(result.order) do
      local J, F = values(name)
      if J then
        sum_J, sum_F, n = sum_J + J, sum_F + F, n + 1
      end
    end
    if n > 0 then
      beside[#beside + 1] = { method, values }
    end
  end
  return beside
end

-- The two lines above the rows.
local function heads(width, beside)
  local head, under = { (" "):rep(width), ("%21s"):format "J      ", ("%24s"):format "F      " }, { (" "):rep(width) }
  under[2] = "   mean recall  decay      mean recall  decay"
  for _, column in ipairs(beside) do
    local title = column[1]
    local left = math.floor((17 - #title) / 2)
    head[#head + 1] = (" "):rep(left + 1) .. title .. (" "):rep(16 - left - #title)
    under[#under + 1] = "        J      F"
  end
  return (table.concat(head):gsub("%s+$", "")), table.concat(under)
end

-- A row: of a sequence by its name, of the mean without one.
local function row(label, width, s, beside, name)
  local line = { label .. (" "):rep(width - #label) }
  line[2] = percent(s.J.mean) .. percent(s.J.recall) .. percent(s.J.decay)
  line[3] = "   " .. percent(s.F.mean) .. percent(s.F.recall) .. percent(s.F.decay)
  for _, column in ipairs(beside) do
    local J, F = column[2](name)
    line[#line + 1] = J and "  " .. percent(J) .. percent(F) or (" "):rep(16)
  end
  return (table.concat(line):gsub("%s+$", ""))
end

-- The published means, in lines of at most 110 letters, appended to `lines`.
local function add_published(lines)
  local line = " "
  for i, method in ipairs(published.means) do
    local entry = ("%s %.1f / %.1f%s"):format(method[1], 100 * method[2], 100 * method[3], i < #published.means and "," or "")
    if #line + 1 + #entry > 110 then
      lines[#lines + 1] = line
      line = " "
    end
    line = line .. " " .. entry
  end
  lines[#lines + 1] = line
end

--- A result as a table for people, in percent: each sequence beside the first mask copied and, where known, published methods;
-- below, where one is of DAVIS 2016's, the published means. Returns the text.
function text.format(result)
  local width = #"mean of 99"
  for _, name in ipairs(result.order) do
    width = math.max(width, #name)
  end
  local beside = columns_beside(result)
  local lines = { heads(width, beside) }
  for _, name in ipairs(result.order) do
    lines[#lines + 1] = row(name, width, result.sequences[name], beside, name)
  end
  if #result.order > 1 then
    lines[#lines + 1] = ("-"):rep(#lines[2])
    lines[#lines + 1] = row("mean of " .. #result.order, width, result.mean, beside)
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "Percent. Recall: frames above 50; decay: first quarter less last; copied: the first mask in every frame."
  if published.has_any(result.order) then
    lines[#lines + 1] = "Published means over the 20 validation sequences of DAVIS 2016 (J / F):"
    add_published(lines)
  end
  for _, note in ipairs(result.notes or {}) do
    lines[#lines + 1] = "note: " .. note
  end
  return table.concat(lines, "\n") .. "\n"
end

return text
