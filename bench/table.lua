-- bench/table.lua: a run that make bench kept, as the tables of docs/speed.md: penumbra bench/table.lua RUN.json into=docs/speed.md
-- Without a file the newest run. `into` replaces what stands between the lines <!-- bench --> and <!-- /bench --> of a page;
-- without it the tables are printed.
local history = require "bench.history"
local files = require "penumbra.base.files"
local json = require "penumbra.json"
local usage = require "penumbra.base.usage"
local lfs = require "lfs"
local pn = require "penumbra"

local cfg = pn.config{
  pn.optional "RUN.json: a run that make bench kept; default the newest",
  history = history.directory(), -- where to look for it
  into    = "",                  -- a page with the lines <!-- bench --> and <!-- /bench -->
}

local function newest()
  if not files.exists(cfg.history, "directory") then usage.fail("there is no %s: make bench", cfg.history) end
  local best
  for name in lfs.dir(cfg.history) do
    if name:match "%.json$" and (not best or name > best) then best = name end
  end
  return cfg.history .. "/" .. (best or usage.fail("no run in %s: make bench", cfg.history))
end

local path = cfg[1] or newest()
local text, problem = files.read(path)
local run = text and json.decode(text)
if not (run and run.rows) then usage.fail("%s: not a run of make bench%s", path, problem and ": " .. problem or "") end

local out = {}
local function say(format, ...) out[#out + 1] = select("#", ...) > 0 and format:format(...) or format end

local variants, of, parts = {}, {}, {}
for _, row in ipairs(run.rows) do
  if not of[row.variant] then
    variants[#variants + 1] = row.variant
    of[row.variant] = {}
  end
  table.insert(of[row.variant], row)
  parts[row.part] = true
end

local function number(value, unit)
  if not value then return "" end
  if unit ~= "ms" then return ("%.2f %s"):format(value, unit) end
  return (value >= 100 and "%.0f" or value >= 10 and "%.1f" or "%.2f"):format(value)
end

local function ratio(row) return row.peer and ("%.2f"):format(row.peer / row.value) or "" end

say("%s, %d threads, commit %s, %s%s.", run.machine.processor, run.machine.threads, run.commit, run.date:sub(1, 10),
  run.peer and ", beside PyTorch" or "")
for _, variant in ipairs(variants) do
  say("\n### %s\n", variant)
  say "| | sizes | ours, ms | GFLOP/s | share of sgemm | PyTorch, ms | PyTorch / ours |\n|---|---|---|---|---|---|---|"
  for _, row in ipairs(of[variant]) do
    if row.part ~= "convs" or row.operation:match "^all, " then
      say("| %s | %s | %s | %s | %s | %s | %s |", row.operation, row.sizes, number(row.value, row.unit),
        row.gflops and ("%.0f"):format(row.gflops) or "", row.share and ("%.2f"):format(row.share) or "",
        number(row.peer, row.unit), ratio(row))
    end
  end
end
for _, variant in ipairs(parts.convs and variants or {}) do
  say("\n### Every convolution, %s\n", variant)
  say "Milliseconds, ours / PyTorch's, and our share of the rate of sgemm.\n"
  say "| layer | x * weight / stride | forward | share | input gradient | share | weight gradient | share |"
  say "|---|---|---|---|---|---|---|---|"
  local line = {}
  for _, row in ipairs(of[variant]) do
    local label, direction = row.operation:match "^(%S+) (%a+)$"
    if row.part == "convs" and label then
      line[#line + 1] = ("%s%s | %s"):format(number(row.value, "ms"), row.peer and " / " .. number(row.peer, "ms") or "",
        row.share and ("%.2f"):format(row.share) or "")
      if direction == "dw" then
        say("| %s | %s | %s |", label, row.sizes, table.concat(line, " | "))
        line = {}
      end
    end
  end
end
local tables = table.concat(out, "\n") .. "\n"
if cfg.into == "" then return io.write(tables) end
local page, why = files.read(cfg.into)
if not page then usage.fail("into: %s", why) end
local before, after = page:match "^(.-<!%-%- bench %-%->\n).*(<!%-%- /bench %-%->.*)$"
if not before then usage.fail("into: %s lacks the lines <!-- bench --> and <!-- /bench -->", cfg.into) end
problem = files.write(cfg.into, before .. "\n" .. tables .. "\n" .. after)
if problem then error(problem, 0) end
