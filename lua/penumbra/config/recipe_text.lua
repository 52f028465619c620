--- The text of a recipe, read for what Lua does not keep: the comments beside its keys, its head, and the source of its functions.
-- @module penumbra.config.recipe_text
local recipe_text = {}

--- The lines of a file; none where it cannot be read.
function recipe_text.lines(file)
  local handle = file and io.open(file, "r")
  if not handle then return {} end
  local lines = {}
  for line in handle:lines() do lines[#lines + 1] = line end
  handle:close()
  return lines
end

-- The code of a function without names and lines; equal for equal texts that use no local from outside.
local function code_of(f)
  local ok, code = pcall(string.dump, f, true)
  return ok and code or nil
end

-- The texts of functions that begin on the first line of a piece of source and end on its last; a name is left out.
local function candidates(text)
  local found = {}
  local _, n_lines = text:gsub("\n", "")
  for start, after in text:gmatch("%f[%w_]()function%s*[%w_.]*%s*()%(") do
    if text:find("\n", 1, true) and start > text:find("\n", 1, true) then break end
    local from = text:match("^function%s*%(", start) and start or nil
    local rest = from and text:sub(from) or "function" .. text:sub(after)
    -- The shortest piece that compiles is the function itself.
    for stop in rest:gmatch("%f[%w_]end()%f[^%w_]") do
      local piece = rest:sub(1, stop - 1)
      local chunk = loadstring("return " .. piece)
      if chunk then
        if select(2, piece:gsub("\n", "")) == n_lines then found[#found + 1] = { text = piece, value = chunk() } end
        break
      end
    end
  end
  return found
end

--- The text of a function, where it can be told for certain: of several on its line it is the one with the same code.
-- @tparam function f
-- @tparam ?string source of the chunk that made it; else its file is read
-- @treturn ?string nil where it cannot be told
-- @treturn string where it was written: "mine.lua:12"
-- @treturn ?string the first local from outside that it uses; its text alone does not make it again
function recipe_text.of_function(f, source)
  local info = debug.getinfo(f, "Su")
  local file = info.source:match("^@(.*)")
  local place = ("%s:%d"):format((info.short_src:gsub("^.*/", "")), info.linedefined)
  local outside = info.nups > 0 and debug.getupvalue(f, 1) or nil
  local lines = {}
  if file then
    lines = recipe_text.lines(file)
  elseif source then
    for line in (source .. "\n"):gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
  end
  if info.what == "C" or not lines[info.lastlinedefined] then return nil, place, outside end
  local found = candidates(table.concat(lines, "\n", info.linedefined, info.lastlinedefined))
  if outside then return #found == 1 and found[1].text or nil, place, outside end
  local code = code_of(f)
  for _, candidate in ipairs(found) do
    if code and code_of(candidate.value) == code then return candidate.text, place end
  end
  return nil, place
end

-- ---- the comments of a table ---------------------------------------------------------------------------------------------------

local function closing(text, level, from) return select(2, text:find("]" .. level .. "]", from, true)) or #text end

local opens = { ["function"] = true, ["if"] = true, ["do"] = true, ["repeat"] = true }
local closes = { ["end"] = true, ["until"] = true }

-- Where the function ends whose first word ends before i: no key stands in it.
local function behind_function(text, i)
  local nested = 1
  while nested > 0 and i <= #text do
    local word = text:match("^[%a_][%w_]*", i)
    if word then nested = nested + (opens[word] and 1 or closes[word] and -1 or 0) end
    i = i + #(word or " ")
  end
  return i
end

-- The piece of Lua at i: its kind ("remark": a long comment; "comment", "text", "function", "word", or the character that it is),
-- where it ends, and what a comment or a word says.
local function piece(text, i)
  local level = text:match("^%-%-%[(=*)%[", i)
  if level then return "remark", closing(text, level, i) + 1 end
  local said, stop = text:match("^%-%-+%s*([^\n]*)()", i)
  if said then return "comment", stop, said end
  level = text:match("^%[(=*)%[", i)
  if level then return "text", closing(text, level, i) + 1 end
  local c = text:sub(i, i)
  if c == '"' or c == "'" then
    i = i + 1
    while i <= #text and text:sub(i, i) ~= c do i = i + (text:sub(i, i) == "\\" and 2 or 1) end
    return "text", i + 1
  end
  local word = text:match("^[%a_][%w_]*", i)
  if word == "function" then return word, behind_function(text, i + #word) end
  return word and "word" or c, i + #(word or c), word
end

-- What is known on the way through a table: `notes` and `order` of all keys so far; the depth of braces and, for each, what its
-- keys begin with; the keys of this line; comment lines that wait for a key (`pending`); the keys whose comment may go on
-- (`last`, with its column).
local Notes = {}
Notes.__index = Notes

-- Whose is a comment at the end of this line? After a closed group the group's, else the last key's.
function Notes:commented_key()
  for k = #self.line, 1, -1 do
    if self.depth == 1 and not self.line[k]:find(".", 1, true) then return self.line[k] end
  end
  return self.line[#self.line]
end

function Notes:comment(said, column)
  local of = self:commented_key()
  self.has_comment = true
  if of then -- and of the keys beside it
    self.last = { column = column }
    for _, path in ipairs(self.line) do
      if path:match "^.*%." == of:match "^.*%." then table.insert(self.last, path) end
    end
    for _, path in ipairs(self.last) do self.notes[path].comment = said end
  elseif self.last and self.last.column == column then
    for _, path in ipairs(self.last) do self.notes[path].comment = self.notes[path].comment .. " " .. said end
  elseif self.depth == 1 and not self.is_first_line then
    table.insert(self.pending, said)
  end
end

-- The line ends; is the next one empty?
function Notes:line_end(before_empty)
  if #self.line == 0 and not self.is_first_line and before_empty then self.pending = {} end
  if not self.has_comment then self.last = nil end
  self.is_first_line, self.line, self.has_comment = false, {}, false
end

function Notes:key(name)
  local path = self.begins[self.depth] .. name
  self.notes[path] = { above = self.depth == 1 and #self.pending > 0 and self.pending or nil }
  table.insert(self.order, path)
  table.insert(self.line, path)
  if self.depth == 1 then self.pending = {} end
  self.group, self.is_first_line = path .. ".", false
end

-- A piece that is no comment and no end of a line. Whether the table is closed by it.
function Notes:take(kind, word, is_assigned)
  if kind == "{" then
    self.depth = self.depth + 1
    self.begins[self.depth], self.group, self.expects_key = self.group or "", nil, true
  elseif kind == "}" then
    self.depth, self.expects_key = self.depth - 1, false
    return self.depth == 0
  elseif kind == "," or kind == ";" then
    self.expects_key, self.group = true, nil
  elseif not kind:match "^%s$" then
    if kind == "word" and self.expects_key and is_assigned then self:key(word) end
    self.expects_key = self.expects_key and kind == "["
  end
  return false
end

--- Walks the text of pn.config{...}: each key with its path, the comment on its line, and the comment lines above it. A comment is
-- of all keys of its line, and goes on in the lines below it that hold nothing else and begin in the same column.
-- @tparam {string} lines
-- @tparam ?string defaults walk the table of that name of a module instead: "defaults", "light_defaults"
-- @treturn table notes: path -> { comment, above }
-- @treturn {string} the paths, in their order
function recipe_text.annotate(lines, defaults)
  local text = table.concat(lines, "\n")
  local at = not defaults and (text:match("()config%s*%b{}") or text:match("()config%s*%(%s*%b{}"))
    or text:match("()%f[%w_]" .. (defaults or "defaults") .. "%s*=%s*%b{}") -- of a model, too
  if not at then return {}, {} end
  local i = text:find("{", at, true)
  local self = setmetatable({ notes = {}, order = {}, depth = 0, begins = {}, line = {}, pending = {} }, Notes)
  local line_start, closed = i - #text:sub(1, i):match("([^\n]*)$"), false
  self.is_first_line = true
  while i <= #text and not closed do
    local kind, stop, said = piece(text, i)
    if kind == "comment" then
      self:comment(said, i - line_start)
    elseif kind == "\n" then
      self:line_end(text:match("^%s*\n", stop))
      line_start = stop
    elseif kind ~= "remark" then
      closed = self:take(kind, said, kind == "word" and text:match("^%s*=[^=]", stop))
    end
    i = stop
  end
  return self.notes, self.order
end

--- The comment lines that a file begins with.
function recipe_text.head(lines)
  local head = {}
  for i, line in ipairs(lines) do
    local text = line:match("^%-%-%-?%s?(.*)$")
    if not text and not (i == 1 and line:match("^#!")) then break end
    if text then head[#head + 1] = text end
  end
  return head
end

return recipe_text
