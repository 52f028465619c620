-- bench/all.lua: what it costs, in one table, beside PyTorch where that is installed: make bench ARGS="full=true"
-- Every distinct convolution of FCN-I3D, forward and both gradients; whole step, backbone, 480p inference, memory, threads.
-- Each measurement is a process of its own, ours and the peer's in turns (A B, with full=true A B A B; the better turn counts,
-- each a median of `runs` after warm-ups). Ends with a comparison with the newest run of another commit on this machine.
local history = require "bench.history"
local about = require "penumbra.about"
local config = require "penumbra.config"
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local program = require "penumbra.program"
local shell = require "penumbra.base.shell"
local usage = require "penumbra.base.usage"
local pn = require "penumbra"

local order = { "convs", "step", "modes", "backbone", "infer", "bf16", "threads", "start", "ops", "images", "dreams", "oneshot" }
local quick = { convs = true, step = true, backbone = true, infer = true, threads = true, start = true }

local cfg = pn.config{
  what     = {},     -- of convs, step, modes, backbone, infer, bf16, threads, start, ops, images, dreams, oneshot; none: the quick
  full     = false,  -- all but oneshot, every CPU variant, twice in turns
  frames   = 16,
  size     = 224,    -- pixels of a training clip
  infer    = "480x864", -- pixels of inference
  runs     = 5,      -- timings of each turn, after warm-ups
  turns    = config.optional("how often each side has its turn; default 1, with full=true 2", "number"),
  variants = {},     -- CPU variants besides the best; with full=true avx2
  only     = "",     -- part of a layer's name: only those convolutions
  peer     = true,   -- beside PyTorch, where it is installed
  peers    = "",     -- the folder of make peers; default $PENUMBRA_PEERS, else ../peers
  twin     = "../shared/peers/fcn_i3d_torch.py", -- FCN-I3D in PyTorch
  davis    = "../shared/davis2016", -- for oneshot: a sequence of 50 frames, the whole recipe
  history  = history.directory(), -- where runs are kept; "" for nowhere
}

-- ---- what to do ----------------------------------------------------------------------------------------------------------------

local n_threads = cfg.threads or pn.threads()
local n_turns = cfg.turns or (cfg.full and 2 or 1)
local wanted = {}
for _, name in ipairs(order) do wanted[name] = #cfg.what == 0 and (cfg.full and name ~= "oneshot" or quick[name]) or nil end
for _, name in ipairs(cfg.what) do
  local known
  for _, part in ipairs(order) do known = known or part == name end
  if not known then
    usage.fail("what: there is no part '%s'%s (%s)", name, usage.nearest(name, order), table.concat(order, ", "))
  end
  wanted[name] = true
end

local quote = shell.quote

-- The variants: environment of ours and of the peer.
local forced = {
  avx2 = { ours = "PENUMBRA_CPU=avx2 OPENBLAS_CORETYPE=Haswell",
    peer = "ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 ATEN_CPU_CAPABILITY=avx2" },
  avx512 = { ours = "PENUMBRA_CPU=avx512 OPENBLAS_CORETYPE=SkylakeX",
    peer = "ONEDNN_MAX_CPU_ISA=AVX512_CORE ATEN_CPU_CAPABILITY=avx512" },
  plain = { ours = "PENUMBRA_CPU=plain", peer = "" },
}
local best = require("ffi").string(pn.C.pn_cpu_variant())
local variants = { { name = best, ours = "", peer = "" } }
for _, name in ipairs(#cfg.variants > 0 and cfg.variants or cfg.full and { "avx2" } or {}) do
  if not forced[name] then usage.fail("variants: there is no '%s' (avx2, avx512, plain)", name) end
  if name ~= best then variants[#variants + 1] = { name = name, ours = forced[name].ours, peer = forced[name].peer } end
end

-- The peer: its Python and its twin, or a word on why not.
local python, twin
local function find_peer()
  local folder = cfg.peers ~= "" and cfg.peers or os.getenv "PENUMBRA_PEERS" or program.home .. "/../peers"
  local path = folder .. "/v/bin/python"
  if not files.exists(path) then return print(("peer: no %s (make peers installs PyTorch there)"):format(path)) end
  local version = shell.run(quote(path) .. " -c 'import torch; print(torch.__version__)'"):match "^[^\n]*"
  if not version:match "^%d" then return print(("peer: %s has no torch: %s"):format(path, version)) end
  python = path
  for _, base in ipairs { "", program.home .. "/" } do
    if files.exists(base .. cfg.twin) then twin = twin or base .. cfg.twin end
  end
  print("peer: PyTorch " .. version .. (twin and ", " .. cfg.twin or ("; no %s (twin=), so no whole steps"):format(cfg.twin)))
end

-- ---- processes -----------------------------------------------------------------------------------------------------------------

-- The lines of a command's standard output; on failure a word, and nil.
local function lines_of(title, command)
  local errors = os.tmpname()
  local pipe = assert(io.popen(("{ %s; } 2>%s; echo \"#$?\""):format(command, quote(errors))))
  local lines = {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  pipe:close()
  local code = (table.remove(lines) or ""):match "^#(%d+)$"
  local text = files.read(errors) or ""
  os.remove(errors)
  if code == "0" then return lines end
  print(("  %s failed: %s"):format(title, text:match "([^\n]+)%s*$" or "exit code " .. tostring(code)))
end

local function ours(variant, script, keys)
  return lines_of(script, ("env %s %s %s/bench/%s %s"):format(variant.ours, quote(program.exe), quote(program.home), script, keys))
end

local function peers(variant, script, options, input)
  return lines_of(script:match "[^/]+$", ("%senv %s OMP_NUM_THREADS=%d %s %s --threads %d %s"):format(
    input and "cat " .. quote(input) .. " | " or "", variant.peer, n_threads, quote(python), quote(script), n_threads, options))
end

-- A B A B: f() and, where there is one, g() in turns; each may return nil.
local function in_turns(f, g)
  local a, b = {}, {}
  for _ = 1, n_turns do
    a[#a + 1] = f()
    if g then b[#b + 1] = g() end
  end
  return a, b
end

-- The least of a field.
local function least(list, name)
  local value
  for _, record in ipairs(list) do
    local v = record[name]
    if v and v == v and (not value or v < value) then value = v end
  end
  return value
end

-- ---- the table -----------------------------------------------------------------------------------------------------------------

local rows, sgemm = {}, {}

local function heading(title)
  print(("\n%-34s %-44s %9s %8s %6s %9s %7s"):format(title, "sizes", "ms", "GFLOP/s", "share", "peer ms", "ratio"))
end

-- value in `unit`: seconds are shown and kept as ms. flops and the variant's sgemm give rate and share.
local function add(part, variant, operation, sizes, unit, value, options)
  if not value then return end
  options = options or {}
  local peer = options.peer
  local row = { key = ("%s/%s/%s %s"):format(variant.name, part, operation, sizes), part = part, variant = variant.name,
    operation = operation, sizes = sizes, unit = unit, value = value, peer = peer }
  if unit == "ms" then
    row.value, row.peer = 1e3 * value, peer and 1e3 * peer
    row.gflops = options.flops and options.flops > 0 and options.flops / value / 1e9 or nil
    row.share = row.gflops and sgemm[variant.name] and row.gflops / sgemm[variant.name]
  end
  rows[#rows + 1] = row
  local function cell(format, number) return number and format:format(number) or "" end
  local shown = unit == "ms" and ("%.2f"):format(row.value) or ("%.2f %s"):format(row.value, unit)
  local head = ("%-34s %s"):format(operation, sizes)
  print(("%-79s %9s %8s %6s %9s %7s"):format(head, shown, cell("%.1f", row.gflops), cell("%.2f", row.share),
    cell("%.2f", row.peer), cell("%.2f", row.peer and row.peer / row.value)))
end

-- "1,64,8,56,56 192,64,3,3,3 -" -> "64,8,56,56 * 192,64,3,3,3 /2,2,2"
local function sizes_of(conv)
  local x, w = conv.shapes:match "^(%S+) (%S+)"
  local stride = conv.args:match "stride=(%S+)"
  return x:gsub("^1,", "") .. " * " .. w .. (stride ~= "1,1,1" and " /" .. stride or "")
end

-- ---- the parts -----------------------------------------------------------------------------------------------------------------

local clip = ("frames=%d size=%d"):format(cfg.frames, cfg.size)
local twin_clip = ("--frames %d --size %d"):format(cfg.frames, cfg.size)
local work = { forward = 0, step = 0 }

-- One process of convs.lua: its convolutions in order, and by what they are.
local function read_convs(lines)
  local found = { list = {} }
  for _, line in ipairs(lines or {}) do
    local record = json.decode(line)
    if record and record.kind == "machine" then
      found.machine = record
    elseif record then
      found.list[#found.list + 1] = record
      found[record.op .. record.shapes .. record.args] = record
    end
  end
  return found
end

local function measure_convs(variant)
  local keys = ("json=true threads=%d frames=%d size=%d only=%s"):format(n_threads, cfg.frames, cfg.size, quote(cfg.only))
  local shapes = os.tmpname()
  local list = wanted.convs and ours(variant, "convs.lua", keys .. " list=shapes") or {}
  files.write(shapes, table.concat(list, "\n") .. "\n")
  local runs = math.max(1, cfg.full and cfg.runs or math.min(cfg.runs, 3))
  if not wanted.convs then keys = keys .. " list=rate" end
  local a, b = in_turns(function()
    return read_convs(ours(variant, "convs.lua", keys .. " runs=" .. runs))
  end, python and wanted.convs and function()
    return read_convs(peers(variant, program.home .. "/bench/peer_convs.py", "--runs " .. runs, shapes))
  end)
  os.remove(shapes)
  local rate = 0
  for _, turn in ipairs(a) do
    if turn.machine then -- the last of the process, after its convolutions
      rate, work.forward, work.step = math.max(rate, turn.machine.sgemm), turn.machine.forward_flops, turn.machine.step_flops
    end
  end
  if rate == 0 then return end
  sgemm[variant.name] = rate
  heading(variant.name .. ", " .. n_threads .. " threads")
  add("sgemm", variant, "sgemm, OpenBLAS", "2048 * 2048 * 2048", "ms", 2 * 2048 ^ 3 / rate / 1e9, { flops = 2 * 2048 ^ 3 })
  if not wanted.convs then return end
  local sum = {}
  local titles = { { "forward", "forward" }, { "dx", "input gradient" }, { "dw", "weight gradient" } }
  for _, conv in ipairs(a[1].list) do
    local key, group = conv.op .. conv.shapes .. conv.args, { {}, {} }
    for side, turns in ipairs { a, b } do
      for _, turn in ipairs(turns) do group[side][#group[side] + 1] = turn[key] end
    end
    for _, title in ipairs(titles) do
      local mine, other = least(group[1], title[1]), least(group[2], title[1])
      add("convs", variant, conv.label .. " " .. title[1], sizes_of(conv), "ms", mine, { flops = conv.flops, peer = other })
      if not (title[1] == "dx" and conv.label == "conv3d_1a") then -- the clip wants no gradient
        local s = sum[title[1]] or { mine = 0, other = 0, flops = 0 }
        s.mine, s.other, s.flops = s.mine + conv.n * mine, s.other + conv.n * (other or 0 / 0), s.flops + conv.n * conv.flops
        sum[title[1]] = s
      end
    end
  end
  for _, title in ipairs(titles) do
    local s = sum[title[1]]
    if s then
      local which = "as in the network, " .. clip .. (cfg.only ~= "" and " " .. cfg.only or "")
      add("convs", variant, "all, " .. title[2], which, "ms", s.mine,
        { flops = s.flops, peer = s.other == s.other and s.other or nil })
    end
  end
  for _, name in ipairs { "forward", "step" } do
    add("roof", variant, "direct roof, " .. name, "products at sgemm's rate, " .. clip, "ms", work[name] / rate / 1e9)
  end
end

--- The line that bench/step.lua and the twin print: {forward =, train =, peak =}; nil when it is none.
local function read_step(line)
  local forward, train, peak = line:match ": forward (%S+) s, train step (%S+) s, peak (%S+) GiB$"
  if forward then return { forward = tonumber(forward), train = tonumber(train), peak = tonumber(peak) } end
end

-- Our step and the twin's in turns; rows of what was asked.
local function measure_step(part, variant, title, keys, options, wants)
  local runs = wants.runs or cfg.runs
  local function read(lines)
    local found
    for _, line in ipairs(lines or {}) do found = read_step(line) or found end
    return found
  end
  local a, b = in_turns(function()
    return read(ours(variant, "step.lua", ("%s threads=%d runs=%d"):format(keys, wants.threads or n_threads, runs)))
  end, twin and options and function()
    return read(peers(variant, twin, ("--layout ndhwc %s --runs %d"):format(options, runs)))
  end)
  local direct = part == "step" or part == "bf16"
  local sizes = keys:gsub("infer=true ", ""):gsub("precision=bf16 ", ""):gsub("part=backbone ", "")
  if wants.train then
    add(part, variant, title .. "train step", sizes, "ms", least(a, "train"), { peer = least(b, "train"),
      flops = direct and work.step })
  end
  add(part, variant, title .. "forward", sizes, "ms", least(a, "forward"), { peer = least(b, "forward"),
    flops = direct and work.forward })
  local mine, other = least(a, "peak"), least(b, "peak")
  add(part, variant, title .. "peak resident", sizes, "GiB", mine, { peer = other })
  return least(a, "train"), least(b, "train")
end

-- The scripts that print "title  1.23 ms", or "title  forward 1.23 ms, with backward 4.56 ms": a row for each number.
local function measure_lines(part, variant)
  local a = in_turns(function() return ours(variant, part .. ".lua", ("threads=%d runs=%d"):format(n_threads, cfg.runs)) end)
  local values, names = {}, {}
  for _, lines in ipairs(a) do
    for _, line in ipairs(lines) do
      local title
      for text, number in line:gmatch "(.-)([%d.]+) ms" do
        local name = text:gsub("%s+", " "):gsub("^[ ,]+", ""):gsub(" $", "")
        name, title = title and title .. " " .. name or name, title or name:gsub(" forward$", "")
        if not values[name] then names[#names + 1] = name end
        values[name] = math.min(values[name] or math.huge, tonumber(number))
      end
    end
  end
  for _, name in ipairs(names) do
    local title, sizes = name:match "^([^:]+): (.+)$"
    add(part, variant, title or name, sizes or "", "ms", values[name] / 1e3)
  end
end

-- The program from its start to its first tensor, interpreter, library and all.
local function measure_start(variant)
  local seconds = {}
  for i = 1, 2 * cfg.runs do
    local began = pn.clock()
    local done = shell.succeeds(("env %s %s -e 'pn.zeros{1}'"):format(variant.ours, quote(program.exe)))
    seconds[i] = done and { time = pn.clock() - began } or nil
  end
  add("start", variant, "start to first tensor", "penumbra -e 'pn.zeros{1}'", "ms", least(seconds, "time"))
end

local ONESHOT_STEPS = 400

local AS_PEER = "refine=0 optim.kind=sgd optim.lr=1e-2 online.every=0"

-- The one-shot recipe from start to scores, untrained and by SGD: beside it, as many bare training steps of the peer, SGD too.
local function measure_oneshot(variant, peer_step)
  local out = files.scratch()
  local davis = files.exists(cfg.davis, "directory") and cfg.davis or program.home .. "/" .. cfg.davis
  if not files.exists(davis, "directory") then return print(("oneshot: there is no %s (davis=)"):format(cfg.davis)) end
  local began = pn.clock()
  local done = lines_of("oneshot", ("env %s %s oneshot davis=%s sequence=blackswan weights= epochs=%d threads=%d out=%s %s"):format(
    variant.ours, quote(program.exe), quote(davis), ONESHOT_STEPS, n_threads, quote(out), AS_PEER))
  local seconds = pn.clock() - began
  files.remove(out)
  if done then
    add("oneshot", variant, "oneshot, whole recipe", ("blackswan; peer: %d bare steps"):format(ONESHOT_STEPS), "ms", seconds,
      { peer = peer_step and ONESHOT_STEPS * peer_step })
  end
end

local function measure(variant, is_best)
  measure_convs(variant)
  if not sgemm[variant.name] then return end
  heading "the network"
  local train, peer_train
  if wanted.step then
    train, peer_train = measure_step("step", variant, "FCN-I3D ", clip, twin_clip, { train = true })
  end
  if wanted.modes then -- frozen statistics: as the recipes train; the twin has none of these
    for _, mode in ipairs { "batchnorm=frozen", "recompute=true", "exact=true" } do
      measure_step("modes", variant, mode .. " ", clip .. " " .. mode, nil, { train = true })
    end
  end
  if wanted.backbone then
    measure_step("backbone", variant, "I3D to 4f ", "part=backbone " .. clip, "--part backbone " .. twin_clip, { train = true })
  end
  if wanted.infer then
    measure_step("infer", variant, "inference ", ("infer=true frames=%d size=%s"):format(cfg.frames, cfg.infer),
      ("--infer --frames %d --size %s"):format(cfg.frames, cfg.infer), { runs = math.min(cfg.runs, cfg.full and 5 or 2) })
  end
  if not is_best then return end
  if wanted.bf16 then
    measure_step("bf16", variant, "bf16 ", "precision=bf16 " .. clip, "--precision bf16 " .. twin_clip, { train = true })
  end
  if wanted.threads and n_threads > 1 then
    local alone = measure_step("threads", variant, "one thread ", clip, nil, { train = true, threads = 1 })
    train = train or measure_step("threads", variant, n_threads .. " threads ", clip, nil, { train = true })
    if alone and train then
      add("threads", variant, "threads 1 to " .. n_threads, clip, "x", alone / train)
    end
  end
  if wanted.start then measure_start(variant) end
  if wanted.oneshot then measure_oneshot(variant, peer_train) end
  for _, part in ipairs { "ops", "images", "dreams" } do
    if wanted[part] then
      heading(part)
      measure_lines(part, variant)
    end
  end
end

local run = {
  date = os.date "!%Y-%m-%dT%H:%M:%SZ", commit = about.commit() or "unknown", build = pn.build_info(),
  machine = { processor = about.processor() or "unknown", threads = n_threads, variant = best },
  keys = config.plain(cfg), rows = rows,
}
print(("%s, %s, %d threads, %s"):format(run.machine.processor, best, n_threads, run.commit))
run.load = tonumber((files.read "/proc/loadavg" or ""):match "^%S+") or 0
if run.load > n_threads / 2 then
  print(("other work runs here (load %.1f): times are too long, and ratios favour who waits better"):format(run.load))
end
if cfg.peer then find_peer() end
run.peer = python and (twin or "convolutions only") or nil
for i, variant in ipairs(variants) do measure(variant, i == 1) end
if #rows == 0 then error("nothing was measured", 0) end
if cfg.history ~= "" then
  local before = history.before(cfg.history, run)
  local path = history.write(cfg.history, run)
  print("\nkept in " .. path)
  print(before and history.text(before, run) or "no run of another commit on this machine to compare with")
end
