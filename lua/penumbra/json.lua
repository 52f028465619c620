--- JSON that is pleasant to read and exact: keys sorted, numbers with as many digits as they need, no number that JSON lacks.
-- @module penumbra.json
local cjson = require "cjson"
local is_list = require "penumbra.base.is_list"

local json = {}

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\b"] = "\\b", ["\f"] = "\\f" }

local function text_of(value)
  return '"' .. value:gsub('[%c"\\]', function(c) return escapes[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

local function number_of(value)
  if value ~= value or value == math.huge or value == -math.huge then return "null" end
  local short = ("%.14g"):format(value)
  return tonumber(short) == value and short or ("%.17g"):format(value)
end

local function encode(value, indent, pad, first)
  local kind = type(value)
  if kind == "string" then return text_of(value) end
  if kind == "number" then return number_of(value) end
  if kind == "boolean" then return tostring(value) end
  if value == nil or value == cjson.null then return "null" end
  if kind ~= "table" then error(("json: cannot write a %s"):format(kind), 0) end

  local parts, inner = {}, pad and pad .. indent
  if is_list(value) then
    local flat = true
    for i, element in ipairs(value) do
      parts[i] = encode(element, indent, inner)
      flat = flat and type(element) ~= "table"
    end
    if not pad or flat or #parts == 0 then return "[" .. table.concat(parts, ", ") .. "]" end
    return "[\n" .. inner .. table.concat(parts, ",\n" .. inner) .. "\n" .. pad .. "]"
  end
  local rank = {}
  for i, key in ipairs(first or {}) do rank[key] = i end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = tostring(key) end
  table.sort(keys, function(a, b)
    local ra, rb = rank[a] or math.huge, rank[b] or math.huge
    if ra ~= rb then return ra < rb end
    return a < b
  end)
  for i, key in ipairs(keys) do
    local element = value[key]
    if element == nil then element = value[tonumber(key)] end
    parts[i] = text_of(key) .. ": " .. encode(element, indent, inner)
  end
  if not pad then return "{" .. table.concat(parts, ", ") .. "}" end
  return "{\n" .. inner .. table.concat(parts, ",\n" .. inner) .. "\n" .. pad .. "}"
end

--- A value as one line of JSON. NaN and infinities become null.
-- @param value nil, boolean, number, string, list, or table with string keys
-- @tparam ?table first keys to put first, in this order; the others are sorted
-- @treturn string
function json.line(value, first) return encode(value, "", nil, first) end

--- A value as JSON over several lines, two blanks a level, ending in a newline.
-- @param value as for line
-- @treturn string
function json.pretty(value) return encode(value, "  ", "") .. "\n" end

--- The value of a JSON text; null becomes nil in tables.
-- @tparam string text
-- @return value, or nil and what is wrong
function json.decode(text)
  local ok, value = pcall(cjson.decode, text)
  if not ok then return nil, tostring(value) end
  local function drop_null(t)
    for key, element in pairs(t) do
      if element == cjson.null then t[key] = nil elseif type(element) == "table" then drop_null(element) end
    end
    return t
  end
  if type(value) == "table" then return drop_null(value) end
  if value == cjson.null then return nil end
  return value
end

return json
