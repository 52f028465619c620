--- Methods of every module that tell of it: its layers as a table, and a run on zeros that shows their shapes.

local binding = require "penumbra.ffi"
local fields = require "penumbra.nn.fields"
local scope = require "penumbra.scope"

local C = binding.C

local methods = {}

local function count_of(list)
  local n = 0
  for _, entry in ipairs(list) do
    n = n + entry.tensor:count()
  end
  return n
end

local function thousands(n)
  local text = ("%d"):format(n)
  local grouped = text:reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (grouped:gsub("^,", ""))
end

local function triple(values)
  return ("%g,%g,%g"):format(values[1], values[2], values[3])
end

local COLUMNS = { "layer", "", "in -> out", "parameters", "output", "stride", "centre" }
local RIGHT = { [4] = true }

local function row_of(name, module)
  local last, own = module.own.last, count_of(module:parameters())
  local channels = ""
  if module.n_from and module.n_to then
    channels = ("%d -> %d"):format(module.n_from, module.n_to)
  elseif last.input and last.output and #last.input > 1 and #last.output > 1 then
    channels = ("%d -> %d"):format(last.input[2], last.output[2])
  end
  return {
    name == "" and module.name or name, module.kind .. (module.describe and " " .. module:describe() or ""), channels,
    own > 0 and thousands(own) or "", last.output and table.concat(last.output, ",") or "",
    last.grid and triple(last.grid.stride) or "", last.grid and triple(last.grid.centre) or "",
  }
end

local function lines_below(module, name, rows)
  local children = fields.children_of(module)
  if module.one_line or #children == 0 or #module.own.parameters > 0 then
    rows[#rows + 1] = row_of(name, module)
  end
  if not module.one_line then
    for _, child in ipairs(children) do
      lines_below(child.module, name == "" and child.name or name .. "." .. child.name, rows)
    end
  end
  if #children > 0 and module.total_line then -- what the lines above join to
    rows[#rows + 1] = row_of(name, module)
    rows.n_totals = (rows.n_totals or 0) + 1
  end
end

local function align(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i = 1, #COLUMNS do
      widths[i] = math.max(widths[i] or 0, #row[i])
    end
  end
  local lines = {}
  for i, row in ipairs(rows) do
    local cells = {}
    for k = 1, #COLUMNS do
      if widths[k] > 0 then
        cells[#cells + 1] = (RIGHT[k] and "%" or "%-") .. widths[k] .. "s"
        cells[#cells] = cells[#cells]:format(row[k])
      end
    end
    lines[i] = table.concat(cells, "  "):gsub("%s+$", "")
  end
  return lines
end

--- A line a layer: name, kind, channels in -> out, parameters, and what the last forward showed of it: shape of the output, stride
-- and centre in input pixels (t,h,w). Totals at the end. With a shape, a forward on zeros of that shape is run first.
-- @tparam ?table shape of an input, {1, 3, 16, 64, 64}
-- @treturn string
function methods:summary(shape)
  if shape then
    self:dry_run(shape)
  end
  local rows = { COLUMNS }
  lines_below(self, "", rows)
  local lines = align(rows)
  local parameters, learning = self:parameters(), {}
  for _, entry in ipairs(parameters) do
    if entry.tensor:requires_grad() then
      learning[#learning + 1] = entry
    end
  end
  local total, buffers = count_of(parameters), count_of(self:buffers())
  local bytes = (total + buffers) * C.pn_dtype_bytes(C.pn_real())
  local n_layers = #rows - 1 - (rows.n_totals or 0)
  lines[#lines + 1] = ("%d layers, %s parameters (%s learn), %s in buffers, %.1f MiB"):format(n_layers, thousands(total),
    thousands(count_of(learning)), thousands(buffers), bytes / 2 ^ 20)
  return table.concat(lines, "\n")
end

--- Runs it once on zeros, in evaluation mode and without recording, so that shapes, strides and centres are known. Returns it.
-- @tparam table shape of the input, {N, C, T, H, W}
function methods:dry_run(shape)
  local tensor = require "penumbra.tensor"
  local modes = {}
  for _, entry in ipairs(self:modules()) do
    modes[entry.module] = entry.module.training
  end
  self:eval()
  local spec = { layout = #shape == 5 and "channels_last" or "rows" }
  for i, size in ipairs(shape) do
    spec[i] = size
  end
  local ok, message = pcall(scope.run, function()
    local x = tensor.zeros(spec)
    if #shape == 5 then
      x:set_grid({ 1, 1, 1 }, { 0, 0, 0 })
    end
    tensor.no_grad(self, x)
  end)
  for module, training in pairs(modes) do
    module.training = training
  end
  if not ok then
    error(message, 0)
  end
  return self
end

return methods
