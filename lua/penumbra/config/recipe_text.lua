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

--- Walks the text of pn.config{...}: each key with its path, the comment on its line, and the comment lines above it. A comment is
-- of all keys of its line, and goes on in the lines below it that hold nothing else and begin in the same column.
-- @tparam {string} lines
-- @tparam ?string defaults walk the table of that name of a module instead: "defaults", "light_defaults"
-- @treturn table notes: path -> { comment, above }
-- @treturn {string} the paths, in their order
function recipe_text.annotate(lines, defaults)
  local notes, order = {}, {}
  local text = table.concat(lines, "\n")
  local at = not defaults and (text:match("()config%s*%b{}") or text:match("()config%s*%(%s*%b{}"))
    or text:match("()%f[%w_]" .. (defaults or "defaults") .. "%s*=%s*%b{}") -- of a model, too
  if not at then return notes, order end
  local i = text:find("{", at, true)
  local prefix, depth, curly = {}, 0, {}
  local pending, this_line, expects_key = {}, {}, false
  local function is_block_comment(position) return text:match("^%-%-%[=*%[", position) end
  local head = text:sub(1, i):match("([^\n]*)$")
  local line_start, commented, last = i - #head, false, nil -- last: the keys whose comment may go on, and its column
  while i <= #text do
    local c = text:sub(i, i)
    local word = text:match("^[%a_][%w_]*", i)
    if is_block_comment(i) then
      local level = text:match("^%-%-%[(=*)%[", i)
      i = (select(2, text:find("]" .. level .. "]", i, true)) or #text) + 1
    elseif text:match("^%-%-", i) then
      local comment, stop = text:match("^%-%-+%s*([^\n]*)()", i)
      -- After a closed group the comment is the group's, else the last key's.
      local of = this_line[#this_line]
      for k = #this_line, 1, -1 do
        if depth == 1 and not this_line[k]:find(".", 1, true) then
          of = this_line[k]
          break
        end
      end
      local column = i - line_start
      commented = true
      if of then -- and of the keys beside it
        last = { column = column }
        for _, path in ipairs(this_line) do
          if path:match "^.*%." == of:match "^.*%." then last[#last + 1] = path end
        end
        for _, path in ipairs(last) do notes[path].comment = comment end
      elseif last and last.column == column then
        for _, path in ipairs(last) do notes[path].comment = notes[path].comment .. " " .. comment end
      elseif depth == 1 and not head then
        pending[#pending + 1] = comment
      end
      i = stop
    elseif c == "\n" then
      if #this_line == 0 and not head and text:match("^%s*\n", i + 1) then pending = {} end
      if not commented then last = nil end
      head, this_line, commented = nil, {}, false
      i = i + 1
      line_start = i
    elseif c == '"' or c == "'" then
      local j = i + 1
      while j <= #text and text:sub(j, j) ~= c do j = j + (text:sub(j, j) == "\\" and 2 or 1) end
      i, expects_key = j + 1, false
    elseif text:match("^%[=*%[", i) then
      local level = text:match("^%[(=*)%[", i)
      i = (select(2, text:find("]" .. level .. "]", i, true)) or #text) + 1
    elseif c == "{" then
      depth = depth + 1
      curly[depth], expects_key = prefix.next or "", true
      prefix.next = nil
      i = i + 1
    elseif c == "}" then
      depth = depth - 1
      if depth == 0 then break end
      i, expects_key = i + 1, false
    elseif c == "," or c == ";" then
      i, expects_key, prefix.next = i + 1, true, nil
    elseif word then
      local after = text:match("^%s*=[^=]()", i + #word)
      if word == "function" then -- to its end: a function's body has no keys
        local nested, j = 1, i + #word
        while nested > 0 and j <= #text do
          local w = text:match("^[%a_][%w_]*", j)
          if w then
            if w == "function" or w == "if" or w == "do" or w == "repeat" then nested = nested + 1
            elseif w == "end" or w == "until" then nested = nested - 1 end
            j = j + #w
          else
            j = j + 1
          end
        end
        i = j
      else
        if expects_key and after and curly[depth] ~= false then
          local path = curly[depth] .. word
          notes[path] = { above = depth == 1 and #pending > 0 and pending or nil }
          order[#order + 1] = path
          this_line[#this_line + 1] = path
          if depth == 1 then pending = {} end
          prefix.next = path .. "."
          head = nil
        end
        i = i + #word
      end
      expects_key = false
    else
      if not c:match("%s") then expects_key = expects_key and c == "[" end
      i = i + 1
    end
  end
  return notes, order
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
