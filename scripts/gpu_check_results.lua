-- scripts/gpu_check_results.lua: what scripts/gpu_check.lua found, in results.json and, as the table for docs/gpu.md, results.md.
local files = require "penumbra.base.files"
local json = require "penumbra.json"

local function cell(text) return (text:gsub("|", "\\|"):gsub("%s+", " ")) end
local function ms(value) return value and ("%.2f ms"):format(1e3 * value) or "" end
local function gib(value) return value and ("%.2f GiB"):format(value) or "" end
local function ratio(a, b) return a and b and ("%.2f ×"):format(b / a) or "" end

-- `order`: of the stages.
local function table_of(results, order)
  local lines = {}
  local function add(format, ...) lines[#lines + 1] = format:format(...) end
  add("### %s, %s", results.card, results.date)
  add("")
  add("Driver %s, PyTorch %s, %s, %d threads, commit %s. Medians; ours and the twin's in turns.", results.driver or "?",
    results.torch or "none", results.processor or "?", results.threads, results.commit or "?")
  add("")
  local bench = results.stages.bench and results.stages.bench.found
  if bench and #bench > 0 then
    add("| 16 × 224² unless said | step | PyTorch | | forward | PyTorch | | peak | PyTorch |")
    add("|---|---|---|---|---|---|---|---|---|")
    for _, row in ipairs(bench) do
      local a, b = row.ours or {}, row.theirs or {}
      local name = row.problem and row.name .. ": " .. row.problem or row.name
      add("| %s | %s | %s | %s | %s | %s | %s | %s | %s |", cell(name), ms(a.step), ms(b.step), ratio(a.step, b.step),
        ms(a.forward), ms(b.forward), ratio(a.forward, b.forward), gib(a.peak), gib(b.peak))
    end
    add("")
  end
  add("| stage | | |")
  add("|---|---|---|")
  for _, name in ipairs(order) do
    local record = results.stages[name]
    if record then add("| %s | %s | %s |", name, record.state, cell(record.text or "")) end
  end
  return table.concat(lines, "\n") .. "\n"
end

local M = {}

--- Writes both into a directory, in place of what is there. Returns nil, or what went wrong.
function M.write(directory, results, order)
  return files.write(directory .. "/results.json", json.pretty(results))
    or files.write(directory .. "/results.md", table_of(results, order))
end

return M
