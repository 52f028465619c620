-- scripts/spec_output.lua: busted output for penumbra --spec: failures with place and message, then "N passed, N failed,
-- N skipped". With a tally file (-Xoutput FILE) the counts and the reasons of skipped specs go there for scripts/spec.lua.
local pretty = require "pl.pretty"

return function(options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()
  local tally_file = options.arguments and options.arguments[1]
  if tally_file == "" then tally_file = nil end

  local function place(t)
    local trace = t.element and t.element.trace or t.trace or {}
    return trace.short_src and ("%s:%s"):format(trace.short_src, tostring(trace.currentline)) or "?"
  end

  local function message_of(t)
    local message = t.message
    if message == nil then return "no message" end
    if type(message) == "table" and getmetatable(message) and getmetatable(message).__tostring then return tostring(message) end
    if type(message) ~= "string" then return pretty.write(message) end
    return message
  end

  local function show(t)
    io.write(("\nFAILED %s\n  %s\n"):format(place(t), t.name or "?"))
    io.write("  ", (message_of(t):gsub("\n", "\n  ")), "\n")
    local traceback = t.trace and t.trace.traceback
    if (t.isError or options.verbose) and traceback then io.write("  ", (traceback:gsub("^\n", ""):gsub("\n", "\n  ")), "\n") end
  end

  handler.testEnd = function(element)
    if options.verbose then
      io.write(("  %s (%.2f s)\n"):format(handler.getFullName(element), element.duration or 0))
      io.flush()
    end
    return nil, true
  end

  handler.suiteEnd = function()
    for _, t in ipairs(handler.failures) do show(t) end
    for _, t in ipairs(handler.errors) do show(t) end
    local failed = #handler.failures + #handler.errors
    local reasons = {}
    for _, t in ipairs(handler.pendings) do
      local reason = type(t.message) == "string" and t.message or t.name
      reasons[#reasons + 1] = (reason:gsub("^%S+%.lua:%d+: ", ""):gsub("%s+", " "))
    end
    if tally_file then
      local file = assert(io.open(tally_file, "w"))
      file:write(("passed %d\nfailed %d\nskipped %d\n"):format(handler.successesCount, failed, handler.pendingsCount))
      for _, reason in ipairs(reasons) do file:write("skip ", reason, "\n") end
      file:write("done 1\n")
      file:close()
    else
      for _, reason in ipairs(reasons) do io.write("skipped: ", reason, "\n") end
      io.write(("%d passed, %d failed, %d skipped\n"):format(handler.successesCount, failed, handler.pendingsCount))
    end
    io.flush()
    return nil, true
  end

  busted.subscribe({ "test", "end" }, handler.testEnd, { predicate = handler.cancelOnPending })
  busted.subscribe({ "suite", "end" }, handler.suiteEnd)
  return handler
end
