--- The interactive prompt: penumbra repl. History in ~/.penumbra_history, tab completion of names, results printed: tensors
-- with their corner values and range, tables key by key. `pn` is at hand, help(x) tells of a function, a layer or a module; names
-- set at the prompt stay. Without a terminal it reads lines from the standard input.
-- @module penumbra.commands.repl
local ffi = require "ffi"
local explained = require "penumbra.base.unknown_call"
local show = require "penumbra.show"
local usage = require "penumbra.base.usage"

local repl = {}

-- ---- printing ---------------------------------------------------------------------------------------------------------

local function show_table(t, depth)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  if #keys == 0 then return "{}" end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
    return type(a) < type(b)
  end)
  local lines = {}
  for i, key in ipairs(keys) do
    if i > 40 then
      lines[i] = ("  ... %d more"):format(#keys - 40)
      break
    end
    lines[i] = ("  %s = %s"):format(tostring(key), repl.format(t[key], depth + 1))
  end
  return "{\n" .. table.concat(lines, "\n") .. "\n}"
end

--- A value as the prompt prints it.
-- @param value anything
-- @tparam ?number depth of nesting; what lies inside a table is printed in short
-- @treturn string
function repl.format(value, depth)
  depth = depth or 0
  local pn = require "penumbra"
  if pn.is_tensor(value) then return depth == 0 and show(value) or tostring(value) end
  if type(value) == "string" then -- a text of several lines is there to be read
    return depth == 0 and value:find("\n", 1, true) and value or ("%q"):format(value)
  end
  local meta = getmetatable(value)
  if type(value) == "table" and not (type(meta) == "table" and meta.__tostring) then
    if depth > 0 then return "table" end
    return show_table(value, depth)
  end
  return tostring(value)
end

-- ---- completion -------------------------------------------------------------------------------------------------------

-- The names behind a value with a dot or colon: keys of a table and of what it inherits.
local function names_of(value)
  local names, seen = {}, {}
  local pn = require "penumbra"
  local function add(key)
    if type(key) == "string" and key:match "^[%a_][%w_]*$" and not seen[key] then
      seen[key] = true
      names[#names + 1] = key
    end
  end
  if pn.is_tensor(value) then
    for key in pairs(require("penumbra.tensor").methods) do add(key) end
  end
  if value == pn then
    for _, name in ipairs(pn.ops.names()) do add(name) end
    local found, lfs = pcall(require, "lfs")
    local dir = found and pn.ffi.root .. "/lua/penumbra"
    if dir and lfs.attributes(dir, "mode") == "directory" then
      for entry in lfs.dir(dir) do add((entry:gsub("%.lua$", ""))) end
    end
  end
  for _ = 1, 8 do
    if type(value) ~= "table" then break end
    for key in next, value do add(key) end
    local meta = getmetatable(value)
    value = type(meta) == "table" and meta.__index
  end
  return names
end

--- What a word at the prompt may become.
-- @tparam string word such as "pn.ze" or "t:si"
-- @tparam table scope the names of the prompt
-- @treturn table sorted list of whole words
function repl.complete(word, scope)
  local path, sign, last = word:match "^(.*)([.:])([%w_]*)$"
  local matches = {}
  local names = {}
  if path then
    local value = scope
    for part in path:gmatch "[^.:]+" do
      local ok, inner = pcall(function() return value[part] end)
      if not ok or inner == nil then return {} end
      value = inner
    end
    names = names_of(value)
  else
    last = word
    for key in pairs(scope) do names[#names + 1] = key end
    for key in pairs(_G) do names[#names + 1] = key end
    for key in ("and break do else elseif end false for function if in local nil not or repeat return then true until while")
      :gmatch "%a+" do
      names[#names + 1] = key
    end
  end
  for _, name in ipairs(names) do
    if type(name) == "string" and name:sub(1, #last) == last then
      matches[#matches + 1] = (path and path .. sign or "") .. name
    end
  end
  table.sort(matches)
  return matches
end

-- ---- Ctrl-C on a line that is being written --------------------------------------------------------------------------------

-- As in a shell it drops the line and what stood before it of the statement: while readline reads, the terminal makes no signal of
-- the key, and readline calls us. The place of the key in struct termios is Linux's.
-- @treturn function read(prompt) -> line, whether it was dropped; as `read` itself where it cannot be arranged
local function with_interrupt(read)
  local found, library = pcall(ffi.load, "libreadline.so.8")
  if not found or jit.os ~= "Linux" then return read end
  local VINTR = 17 -- after four flags of 4 bytes and c_line
  pcall(ffi.cdef, [[
    int tcgetattr(int fd, uint8_t *termios);
    int tcsetattr(int fd, int when, const uint8_t *termios);
    int rl_initialize(void);
    int rl_bind_key(int key, int (*f)(int count, int key));
    void rl_replace_line(const char *text, int clear_undo);
    int rl_newline(int count, int key);
  ]])
  local termios = ffi.new "uint8_t [256]"
  if ffi.C.tcgetattr(0, termios) ~= 0 or termios[VINTR] == 0 then return read end
  local key, dropped = termios[VINTR], false
  local function set_key(value)
    if ffi.C.tcgetattr(0, termios) == 0 then
      termios[VINTR] = value
      ffi.C.tcsetattr(0, 0, termios)
    end
  end
  local on_key = ffi.cast("int (*)(int, int)", function()
    dropped = true
    library.rl_replace_line("", 0)
    return library.rl_newline(1, 13)
  end)
  library.rl_initialize()
  library.rl_bind_key(key, on_key)
  return function(prompt)
    dropped = false
    set_key(0)
    local ok, line = pcall(read, prompt)
    set_key(key)
    if not ok then error(line, 0) end
    return line, dropped
  end
end

-- ---- the loop ------------------------------------------------------------------------------------------------------------

local function is_unfinished(problem) return problem:match "<eof>'?$" ~= nil end

-- An expression, or statements. Where neither can be read, the problem is that of what it looks like: no statement begins with "1".
local function compile(text, scope)
  local chunk, problem = loadstring("return " .. text, "=prompt")
  if not chunk then
    local of_expression = problem
    chunk, problem = loadstring(text, "=prompt")
    local near = problem and problem:match "near '(.*)'$"
    if near and text:match("^%s*(.*)$"):sub(1, #near) == near then problem = of_expression end
  end
  if chunk then
    setfenv(chunk, scope)
    jit.off(chunk, true) -- compiled code does not look for Ctrl-C
  end
  return chunk, problem
end

local function listed(...) return { n = select("#", ...), ... } end

-- Whether it came to its end, and its results, or the problem. No function of ours stands between: a message would name its line.
local function call(chunk)
  return listed(xpcall(chunk, function(message)
    message = explained(message)
    if os.getenv "PENUMBRA_TRACEBACK" then return debug.traceback(tostring(message), 2) end
    return message
  end))
end

--- Runs the prompt until the end of its input.
function repl.run()
  local pn = require "penumbra"
  local found, program = pcall(require, "penumbra.program")
  pcall(ffi.cdef, "int isatty(int fd);")
  local terminal = ffi.C.isatty(0) == 1
  local leaving = false
  local function leave() leaving = true end
  local scope = setmetatable({
    pn = pn, exit = leave, quit = leave, help = function(...) print(require("penumbra.help").text(...)) end,
  }, { __index = _G })
  rawset(_G, "arg", {}) -- the word `repl` is no argument of a recipe that runs here

  local read, remember = function() return io.read "*l" end, function() end
  if terminal then
    local has_readline, readline = pcall(require, "readline")
    if has_readline then
      readline.set_options { histfile = "~/.penumbra_history", keeplines = 2000, completion = true, auto_add = true }
      readline.set_readline_name "penumbra"
      readline.set_complete_function(function(text, from, to) return repl.complete(text:sub(from, to), scope) end)
      pcall(readline.set_completion_append_character, "")
      read, remember = with_interrupt(readline.readline), readline.save_history
    else
      read = function(prompt)
        io.write(prompt)
        return io.read "*l"
      end
    end
    print(("penumbra %s on %s: pn is at hand, help(x) tells, Tab completes, Ctrl-C drops a line, Ctrl-D leaves"):format(
      pn.version, jit.version))
  end

  local function report(problem)
    if type(problem) == "table" and problem.code and not problem.message then return end -- --help, Ctrl-C: all is said
    if type(problem) == "table" and getmetatable(problem) == nil then problem = repl.format(problem) end
    io.stderr:write(tostring(problem), "\n")
  end

  local text, told_of_locals = "", false
  while not leaving do
    local line, dropped = read(text == "" and "> " or ">> ")
    if line == nil then break end
    if dropped then text, line = "", "" end
    text = text == "" and line or text .. "\n" .. line
    local source = text:match "^%s*=%s*(.*)$" or text
    local word = source:match "^%s*(%a+)%s*$"
    if word == "exit" or word == "quit" then -- without the brackets of a call
      text = ""
      break
    end
    local topic = source:match "^%s*help%s+([%a_][%w_.]*)%s*$"
    if topic then source = ("help %q"):format(topic) end
    local chunk, problem = compile(source, scope)
    if not chunk and is_unfinished(problem) then -- luacheck: ignore 542
      -- read on
    else
      text = ""
      if not chunk then
        report(problem)
      elseif source:match "%S" then
        if found and terminal then program.catch_interrupt "raise" end
        local results = call(chunk)
        if found and terminal then program.catch_interrupt "off" end
        if results[1] then
          for i = 2, results.n do
            local shown_ok, shown_text = pcall(repl.format, results[i])
            print(shown_text)
            if not shown_ok then break end
          end
          if source:match "^%s*local%s" and not told_of_locals then
            told_of_locals = true
            print "(a local is gone with its line; without `local` the name stays)"
          end
        else
          report(results[2])
        end
      end
    end
  end
  if text ~= "" then usage.fail("the input ends in the middle of a statement") end
  if terminal then
    print ""
    pcall(remember)
  end
end

return repl
