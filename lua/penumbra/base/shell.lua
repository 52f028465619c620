--- Other programs, through the system's shell.
--
--     local output, code = shell.run("tar -xzf " .. shell.quote(path))
-- @module penumbra.base.shell
local shell = {}

--- A text as one word of a command.
function shell.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

--- Runs a command without input.
-- @tparam string command
-- @treturn string all it said, on both streams
-- @treturn int its exit code
function shell.run(command)
  local pipe = assert(io.popen(("(%s\n) 2>&1 </dev/null; echo \"#$?\""):format(command)))
  local text = pipe:read "*a"
  pipe:close()
  local output, code = text:match "^(.*)#(%d+)\n$"
  return output, tonumber(code)
end

--- Runs a program for so many seconds at most. Then, and when the group of processes that we are in is told to end, it ends with
-- all that it began: `timeout` gives it a group of its own, which signals to ours do not reach.
-- @tparam number seconds whole ones
-- @tparam string command a program and its words, no more of the shell's language
-- @treturn string all it said, on both streams
-- @treturn int its exit code
-- @treturn boolean whether it was ended for taking longer
function shell.within(seconds, command)
  local began = os.time()
  local output, code = shell.run(("timeout -k 5 %d %s & it=$!; trap 'kill $it' TERM INT HUP; wait $it"):format(seconds, command))
  -- 137 alone says that something killed it: `timeout`, when it would not go, or the system, for its memory.
  return output, code, code == 124 or code == 137 and os.time() - began >= seconds
end

--- Does a command leave with 0? What it says is dropped.
function shell.succeeds(command) return select(2, shell.run("(" .. command .. "\n) >/dev/null 2>&1")) == 0 end

--- The first line that a command writes to its standard output; nil where there is none.
function shell.line(command) return shell.run("(" .. command .. "\n) 2>/dev/null"):match "^([^\n]+)" end

return shell
