-- scripts/instructions.lua [accept]: how many instructions a small training step takes, against scripts/instructions.json.
--
-- Time on a shared machine is noise; instructions counted by valgrind's callgrind are not. A narrow FCN-I3D takes two steps on
-- one thread, and the second is counted, in our library and the arithmetic it calls (OpenBLAS, libm); the interpreter, with
-- LuaJIT's compiler off, and libc, whose routines depend on the machine, are left out. More than 3 % above the reference fails,
-- and says which functions grew. `make instructions ACCEPT=1` writes what is now as the new reference, to be committed.
-- Valgrind knows no AVX-512, so the variants are avx2 and plain. The last line is "N passed, N failed, N skipped".
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local program = require "penumbra.program"
local shell = require "penumbra.base.shell"
local usage = require "penumbra.base.usage"

local TOLERANCE, LEAST = 0.03, 0.002 -- LEAST: share of the whole from which a function is kept by name
local reference_path = program.home .. "/scripts/instructions.json"
local cases = {
  { variant = "avx2", keys = "width=1/4 frames=8 size=64" },
  { variant = "plain", keys = "width=1/8 frames=4 size=32" },
}

-- ---- the step itself, under valgrind ---------------------------------------------------------------------------------------

local function step(arguments)
  jit.off()
  local pn = require "penumbra"
  local cfg = {}
  for _, text in ipairs(arguments) do
    local key, over, under = text:match "^(%w+)=(%d+)/?(%d*)$"
    cfg[key] = tonumber(over) / (tonumber(under) or 1)
  end
  pn.threads(1)
  local net = require "models.fcn_i3d" { batchnorm = "batch", width = cfg.width, features = 8 }
  local rng = pn.random.stream(0, "instructions")
  local x = rng:fill(pn.empty { 1, 3, cfg.frames, cfg.size, cfg.size, layout = "channels_last" }, "uniform", -1, 1)
  local y = rng:fill(pn.empty { 1, 1, cfg.frames, cfg.size, cfg.size, layout = "channels_last" }, "bernoulli", 0.2)
  local sgd = pn.optim.sgd(net:parameters(), { lr = 1e-3, momentum = 0.9, weight_decay = 2e-4 })
  for i = 1, 2 do
    if i == 2 then pn.C.pn_memory_reset_peak(0) end -- here callgrind begins anew (--zero-before)
    pn.scope(function()
      sgd:zero_grad()
      local out = net(x)
      local loss = pn.loss.balanced(out.fused, y)
      for _, side in ipairs(out.sides) do loss = loss + 0.5 * pn.loss.balanced(side, y) end
      loss:backward()
      sgd:step()
    end)
  end
end

-- ---- reading callgrind's file -----------------------------------------------------------------------------------------------

local counted = { "libpenumbra", "libopenblas", "libblas", "libm%.so", "libm%-" }

local function is_counted(object)
  for _, pattern in ipairs(counted) do
    if object:match("/" .. pattern) then return true end
  end
  return false
end

-- Own instructions of each function in the objects that count. Names are written once, then referred to by number: "fn=(3) name".
local function read_counts(path)
  local objects, names = {}, {}
  local object, name, skip
  local functions, total = {}, 0
  for line in io.lines(path) do
    local kind, number, text = line:match "^(%w+)=%((%d+)%)%s*(.*)$"
    if kind == "ob" or kind == "cob" then
      if text ~= "" then objects[number] = text end
      if kind == "ob" then object = objects[number] end
    elseif kind == "fn" or kind == "cfn" then
      if text ~= "" then names[number] = text end
      if kind == "fn" then name = names[number] end
    elseif line:match "^calls=" then
      skip = true -- the line that follows has what the callee took
    elseif line:match "^[%d+%-*]" then
      local count = not skip and tonumber(line:match "^%S+ (%d+)")
      skip = false
      if count and object and is_counted(object) then
        local plain = name:gsub("@.*$", ""):gsub("'%d+$", ""):gsub("%.[%w.]+$", "") -- f.part.0, f.constprop.1, f'2 are f
        functions[plain] = (functions[plain] or 0) + count
        total = total + count
      end
    end
  end
  return total, functions
end

local quote = shell.quote

-- The lines of a command, and whether it left with 0.
local function output_of(command)
  local output, code = shell.run(command)
  return output, code == 0
end

local function measure(case)
  local out = os.tmpname()
  local output, ok = output_of(("env -u PENUMBRA_LIB PENUMBRA_CPU=%s OPENBLAS_CORETYPE=Haswell valgrind --tool=callgrind "
    .. "--callgrind-out-file=%s --zero-before=pn_memory_reset_peak %s %s step %s"):format(case.variant, quote(out),
    quote(program.exe), quote(program.home .. "/scripts/instructions.lua"), case.keys))
  if not ok then
    os.remove(out)
    error(("%s: the step failed under valgrind:\n%s"):format(case.variant, output), 0)
  end
  local total, functions = read_counts(out)
  os.remove(out)
  if total == 0 then error(case.variant .. ": callgrind counted nothing in libpenumbra", 0) end
  return { total = total, functions = functions, keys = case.keys }
end

-- ---- comparing ----------------------------------------------------------------------------------------------------------------

local function millions(n) return ("%.2f M"):format(n / 1e6) end

-- The functions whose counts changed most in the direction of the sum, a line each.
local function changed(now, before, sign)
  local list = {}
  local floor = LEAST * before.total
  local function look(name)
    local a, b = before.functions[name] or 0, now.functions[name] or 0
    if sign * (b - a) > floor then list[#list + 1] = { name = name, a = a, b = b } end
  end
  for name in pairs(now.functions) do look(name) end
  for name in pairs(before.functions) do
    if not now.functions[name] then look(name) end
  end
  table.sort(list, function(p, q) return math.abs(p.b - p.a) > math.abs(q.b - q.a) end)
  local lines = {}
  for i = 1, math.min(#list, 8) do
    local row = list[i]
    lines[i] = ("  %-32s %12s -> %12s  (%+.1f %% of the step)"):format(row.name, millions(row.a), millions(row.b),
      100 * (row.b - row.a) / before.total)
  end
  return table.concat(lines, "\n")
end

--- Compares counts with the reference: true, or false and the reason.
local function judge(variant, now, before)
  if not before then return false, ("%s: no reference; make instructions ACCEPT=1 writes it"):format(variant) end
  if now.keys ~= before.keys then
    return false, ("%s: the reference is of another step (%s); make instructions ACCEPT=1 replaces it"):format(variant, before.keys)
  end
  local ratio = now.total / before.total
  local head = ("%s: %s instructions, the reference has %s (%+.1f %%)"):format(variant, millions(now.total), millions(before.total),
    100 * (ratio - 1))
  if ratio > 1 + TOLERANCE then
    return false, ("%s: more than %g %%; what grew:\n%s\n  meant to be so? make instructions ACCEPT=1, and commit %s"):format(head,
      100 * TOLERANCE, changed(now, before, 1), "scripts/instructions.json")
  end
  if ratio < 1 - TOLERANCE then
    return true, ("%s: fewer; make instructions ACCEPT=1 keeps the gain. What shrank:\n%s"):format(head, changed(now, before, -1))
  end
  return true, head
end

-- What is worth keeping: whole numbers, and the functions that matter.
local function shorten(now)
  local functions = {}
  for name, count in pairs(now.functions) do
    if count >= LEAST * now.total then functions[name] = count end
  end
  return { total = now.total, functions = functions, keys = now.keys }
end

local function main(arguments)
  local accept = arguments[1] == "accept"
  if arguments[1] and not accept then
    usage.fail("scripts/instructions.lua: unknown word '%s': accept, or nothing", arguments[1])
  end
  if not select(2, output_of "valgrind --version") then
    print "skipped: there is no valgrind"
    print "0 passed, 0 failed, 1 skipped"
    return 0
  end
  local compiler = require("penumbra").build_info():match "compiled by (.*)$"
  local reference = json.decode(files.read(reference_path) or "null") or { variants = {} }
  if not accept and reference.compiler ~= compiler then
    print(("skipped: the reference was compiled by %s, this is %s: counts cannot be compared"):format(
      tostring(reference.compiler), compiler))
    print "0 passed, 0 failed, 1 skipped"
    return 0
  end
  local fresh, n_failed = { compiler = compiler, variants = {} }, 0
  for _, case in ipairs(cases) do
    local now = measure(case)
    if accept then
      fresh.variants[case.variant] = shorten(now)
      print(("%s: %s instructions accepted"):format(case.variant, millions(now.total)))
    else
      local ok, text = judge(case.variant, now, reference.variants[case.variant])
      print(text)
      if not ok then n_failed = n_failed + 1 end
    end
  end
  if accept then
    local problem = files.write(reference_path, json.pretty(fresh))
    if problem then error(problem, 0) end
  end
  print(("%d passed, %d failed, 0 skipped"):format(#cases - n_failed, n_failed))
  return n_failed == 0 and 0 or 1
end

if arg and arg[0] and arg[0]:match "instructions%.lua$" then
  if arg[1] == "step" then
    return step { select(2, unpack(arg)) }
  end
  return main(arg)
end
return { judge = judge, read_counts = read_counts }
