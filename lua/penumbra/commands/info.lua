--- `penumbra info MODEL key=value ...`: a network, a line a layer, and the memory it takes: predicted by a dry run, then measured.
--
-- MODEL is models/NAME.lua or NAME, a file of one's own that returns such a model, or a recipe, whose keys then set the model.
-- @module penumbra.commands.info
local config = require "penumbra.config"
local usage = require "penumbra.base.usage"

local keys = {
  { "frames", 16, "of a clip" },
  { "size", false, "pixels: 224, or 480x864 (height x width); default 224, or the recipe's crop" },
  { "batch", 1, "clips at a time" },
  { "train", true, "the training step too; false: inference alone" },
  { "device", "cpu", "where it is measured: cpu, cuda, cuda:1 ...; the prediction is the CPU's" },
  { "measure", true, "run it as well, where there is memory enough; false: predict only" },
}

local function print_help()
  print "usage: penumbra info                          version, threads, memory, libraries"
  print "       penumbra info MODEL key=value ...      a network, a line a layer: models/NAME.lua, one's own file, or a recipe\n"
  for _, key in ipairs(keys) do print(("  %-14s %s"):format(("%s=%s"):format(key[1], tostring(key[2] or "")), key[3])) end
  print "\nand every key of the model or the recipe (penumbra info MODEL --help lists them)."
end

-- ---- what is meant -------------------------------------------------------------------------------------------------------------

local function source_of(path)
  local file = assert(io.open(path, "r"))
  local text = file:read "*a"
  file:close()
  return text
end

local function exists(path)
  local file = io.open(path, "r")
  if file then file:close() end
  return file ~= nil
end

-- The user's own models/ first, then ours.
local function model_file(name)
  for _, home in ipairs { ".", require("penumbra.program").home } do
    local path = home .. "/models/" .. name .. ".lua"
    if exists(path) then return (path:gsub("^%./", "")) end
  end
end

local function script_of(word, find) return word:match "^[%w_]+$" and model_file(word) or find(word) end

-- The keys, and a function from a configuration to a module.
local function open(path, run_file)
  local text = source_of(path)
  local declared = text:find("pn.config", 1, true) and config.declared(function() run_file(path, { [0] = path }) end)
  if declared then
    local name = text:match "require%s*%(?%s*[\"']models%.([%w_]+)[\"']"
    if not name then usage.fail("info: %s names no model (a recipe does so by require \"models.NAME\")", path) end
    path = model_file(name)
    if not path then usage.fail("info: there is no models/%s.lua", name) end
    return declared, run_file(path, { [0] = path })
  end
  local model = run_file(path, { [0] = path })
  local meta = getmetatable(model)
  if type(model) ~= "function" and not (type(model) == "table" and meta and meta.__call) then
    usage.fail("info: %s returns %s, expects a model (a function from a configuration to a module) or a recipe (pn.config)",
      path, model == nil and "nothing" or "a " .. type(model))
  end
  return type(model) == "table" and model.defaults or {}, model, type(model) ~= "table" or not model.defaults
end

-- A model that does not say its keys cannot be given any.
local function check_keys(path, arguments)
  local is_ours = {}
  for _, key in ipairs(keys) do is_ours[key[1]] = true end
  for _, text in ipairs(arguments) do
    local name = text:match "^([%a_][%w_.]*)="
    if name and not is_ours[name] and name ~= "threads" and name ~= "config" then
      usage.fail("info: unknown key '%s': %s returns a model without `defaults`, the table of its keys (docs/models.md)", name,
        path)
    end
  end
end

local function whole(name, value)
  if value < 1 or value ~= math.floor(value) then
    usage.fail("info: %s is %s, expects a whole number from 1", name, tostring(value))
  end
end

local function size_of(text)
  local height, width = text:match "^(%d+)x(%d+)$"
  if not height then height = text:match "^%d+$" end
  if not height or tonumber(height) < 1 then usage.fail("info: size is '%s', expects pixels such as 224 or 480x864", text) end
  return tonumber(height), tonumber(width or height)
end

-- ---- the table --------------------------------------------------------------------------------------------------------------

local LABEL = 63 -- what the library keeps of a label: its end

local function label_of(path) return #path > LABEL and path:sub(-LABEL) or path end

local function thousands(n)
  local text = ("%d"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
  return text
end

local function mib(bytes) return ("%.1f"):format(bytes / 2 ^ 20) end

local function shape_text(shape) return shape and table.concat(shape, ",") or "several" end

-- The lines of a module and all below it: each stands for its own label, or for all labels below where it is one line.
local function lines_below(module, name, path, visit)
  local children = module:children()
  local whole_line = module.one_line or #children == 0
  if not whole_line then
    for _, child in ipairs(children) do
      lines_below(child.module, name == "" and child.name or name .. "." .. child.name, path .. "." .. child.name, visit)
    end
  end
  visit(module, name == "" and module.name or name, path, whole_line)
end

local function sum_of(map, path, below)
  local sum = map[label_of(path)] or 0
  for label, value in pairs(below and map or {}) do
    if label:sub(1, #path + 1) == path .. "." then sum = sum + value end
  end
  return sum
end

local function count_of(list)
  local sum = 0
  for _, entry in ipairs(list) do sum = sum + entry.tensor:count() end
  return sum
end

local function print_columns(rows, right)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, #cell) end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      cells[i] = ((right[i] and "%" or "%-") .. widths[i] .. "s"):format(cell)
    end
    print((table.concat(cells, "  "):gsub("%s+$", "")))
  end
end

local function print_layers(net, predicted, measured)
  local trains = predicted.kept ~= nil
  local rows = { { "layer", "in -> out", "parameters", "GMAC" } }
  if trains then rows[1][5], rows[1][6] = "kept, MiB: predicted", "measured" end
  local flops, kept, seen = 0, 0, 0
  lines_below(net, "", net.name, function(module, name, path, whole_line)
    local shapes = predicted.shapes[module] or {}
    local mine = sum_of(predicted.flops, path, whole_line)
    local held = trains and sum_of(predicted.kept, path, whole_line) or 0
    local found = measured and trains and sum_of(measured.kept, path, whole_line) or 0
    local own = whole_line and count_of(module:parameters()) or 0
    for _, entry in ipairs(whole_line and {} or module:parameters()) do
      if entry.module == module then own = own + entry.tensor:count() end
    end
    flops, kept, seen = flops + mine, kept + held, seen + found
    if not whole_line and mine + held + found + own == 0 then return end
    local row = {
      name .. (whole_line and "" or " (itself)"),
      shapes.input and ("%s -> %s"):format(shape_text(shapes.input), shape_text(shapes.output)) or "",
      own > 0 and thousands(own) or "",
      mine > 0 and ("%.3f"):format(mine / 2e9) or "",
    }
    if trains then row[5], row[6] = mib(held), measured and mib(found) or "" end
    rows[#rows + 1] = row
  end)
  local total = { "in all", "", thousands(count_of(net:parameters())), ("%.3f"):format(flops / 2e9) }
  if trains then total[5], total[6] = mib(kept), measured and mib(seen) or "" end
  rows[#rows + 1] = total
  print_columns(rows, { false, false, true, true, true, true })
end

local function print_totals(predicted, measured, program)
  local rows = { { "", "predicted", "measured", "" } }
  local function add(name, key, what)
    rows[#rows + 1] = {
      name, mib(predicted[key].peak) .. " MiB", measured and mib(measured[key].peak) .. " MiB" or "", what,
    }
  end
  add("inference, peak", "infer", "tensors and scratch, the weights among them")
  if predicted.train then add("training step, peak", "train", "with gradients and the optimiser's buffers") end
  local most = math.max(predicted.infer.held, predicted.train and predicted.train.held or 0)
  rows[#rows + 1] = {
    "resident, peak", mib(program + most) .. " MiB", measured and mib(measured.resident) .. " MiB" or "",
    ("the whole process: %.1f MiB of it the program itself"):format(program / 2 ^ 20),
  }
  print_columns(rows, { false, true, true, false })
end

-- ---- the command ------------------------------------------------------------------------------------------------------------

-- Bytes that the system can still give, or infinity where it does not say.
local function bytes_free()
  local file = io.open("/proc/meminfo", "r")
  local text = file and file:read "*a" or ""
  if file then file:close() end
  return (tonumber(text:match "MemAvailable:%s*(%d+) kB") or math.huge) * 1024
end

local function settings_of(path, declared, arguments)
  local defaults, help = {}, {}
  for key, value in pairs(declared) do
    if type(key) == "string" then defaults[key] = value end
  end
  for _, key in ipairs(keys) do
    local name, value = key[1], key[2]
    if name == "size" then value = config.optional(key[3], "string") end
    if name == "frames" and declared.frames then value = declared.frames end
    defaults[name], help[name] = value, key[3]
  end
  for name, value in pairs(defaults) do -- what a recipe must be given, a network need not
    if type(value) == "table" and value.what == "required" and value.kind then
      defaults[name] = config.optional(value.help, value.kind)
    end
  end
  return config.resolve(defaults, arguments, { name = "info " .. path, file = path, help = help })
end

--- @tparam table arguments of the command
-- @tparam function find path of a recipe or script by its name; fails with the nearest
-- @tparam function run_file runs a script with a list of arguments
local function run(arguments, find, run_file)
  local word, code = usage.subject("info", "a model or a recipe", arguments, print_help)
  if not word then return code end
  local path = script_of(word, find)
  local pn = require "penumbra"
  local declared, model, is_keyless = open(path, run_file)
  local rest = {}
  for i = 2, #arguments do rest[#rest + 1] = arguments[i] end
  if is_keyless then check_keys(path, rest) end
  local cfg = settings_of(path, declared, rest)
  for _, name in ipairs { "frames", "batch" } do whole(name, cfg[name]) end
  local height, width = size_of(cfg.size or type(cfg.crop) == "number" and ("%d"):format(cfg.crop) or "224")
  if cfg.threads then pn.threads(cfg.threads) end
  local device = pn.device.choose(cfg.device)
  if cfg.precision then pn.precision(cfg.precision, device) end
  if cfg.exact ~= nil then pn.exact(cfg.exact) end

  local wanted = {}
  for key in pairs(type(model) == "table" and model.defaults or declared) do wanted[key] = cfg[key] end
  local net = model(wanted)
  if not pn.nn.is_module(net) then usage.fail("info: %s makes a %s, expects a module", path, type(net)) end
  local shape = { cfg.batch, tonumber(wanted.from) or 3, cfg.frames, height, width }
  local how = { shape = shape, train = cfg.train, optim = type(cfg.optim) == "table" and cfg.optim or nil }
  pn.C.pn_memory_trim(pn.C.PN_CPU)
  local program = pn.process().peak_resident - pn.memory().peak_held
  how.dry = true
  local predicted = pn.footprint(net, how)
  local needs = math.max(predicted.infer.held, predicted.train and predicted.train.held or 0)
  local measured, free = nil, bytes_free()
  if cfg.measure and (device ~= "cpu" or needs < 0.9 * free) then
    how.dry = false
    measured = pn.footprint(net:to(device), how)
    measured.resident = pn.process().peak_resident
  end
  local where = device ~= "cpu" and ("%s (%s)"):format(device, pn.device.describe(device))
    or ("%s kernels, %d thread%s"):format(require("ffi").string(pn.C.pn_cpu_variant()), pn.threads(),
      pn.threads() == 1 and "" or "s")
  print(("%s: %s, clip %s, %s, %s\n"):format(path, net.name, shape_text(shape), pn.precision(nil, device), where))
  print_layers(net, predicted, measured)
  print ""
  print_totals(predicted, measured, program)
  if cfg.measure and not measured then
    print(("\nnot measured: %.1f GiB are needed, %.1f GiB are free"):format(needs / 2 ^ 30, free / 2 ^ 30))
  end
end

return { run = run }
