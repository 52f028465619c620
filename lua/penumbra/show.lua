--- A tensor as the prompt and print show it: shape, type, device, range, mean, and the values at its corners, in some lines.
--
--     tensor (2,20) f32 cpu, 0 to 0, mean 0
--       0  0  0  ...  0  0  0

local binding = require "penumbra.ffi"
local scope = require "penumbra.scope"
local tensor = require "penumbra.tensor"

-- The positions of an axis that are shown: all, or the first and last three.
local function shown(n)
  local list = {}
  for i = 1, n do
    if n <= 8 or i <= 3 or i > n - 3 then list[#list + 1] = i end
    if n > 8 and i == 3 then list[#list + 1] = false end
  end
  return list
end

local function cell(value) return value == nil and "..." or ("%.4g"):format(value) end

-- Rows and columns of the last two axes, the others at `index`.
local function matrix(t, index, indent)
  local n = t:dims()
  local rows, columns = n > 1 and shown(t:size(n - 1)) or { 1 }, shown(t:size(n))
  local lines, widths = {}, {}
  for r, row in ipairs(rows) do
    lines[r] = {}
    for c, column in ipairs(columns) do
      local value
      if row and column then
        local at = { unpack(index) }
        if n > 1 then at[#at + 1] = row end
        at[#at + 1] = column
        value = t:get(unpack(at))
      end
      lines[r][c] = cell(value)
      widths[c] = math.max(widths[c] or 0, #lines[r][c])
    end
  end
  for r, line in ipairs(lines) do
    for c, text in ipairs(line) do line[c] = (" "):rep(widths[c] - #text) .. text end
    lines[r] = indent .. table.concat(line, "  ")
  end
  return table.concat(lines, "\n")
end

local function text(t)
  local shape = t:shape()
  local head = ("tensor (%s) %s %s"):format(table.concat(shape, ","), t:dtype(), t:device())
  if t:count() == 0 then return head .. " empty" end
  if t:device() ~= "cpu" then t = t:to "cpu" end
  if t:dims() == 0 then return ("%s: %.9g"):format(head, t:item()) end
  if t:count() > 1 then
    local real = t:detach()
    if real:dtype() ~= binding.real then real = real:cast(binding.real) end
    tensor.no_grad(function()
      head = ("%s, %.4g to %.4g, mean %.4g"):format(head, -(-real):max():item(), real:max():item(), real:mean():item())
    end)
  end
  local n_bad = t:dtype():match "^[fb]" and t:count_bad() or 0
  if n_bad > 0 then head = ("%s, %d not finite"):format(head, n_bad) end
  if t:requires_grad() then head = head .. ", wants a gradient" end
  local index = {}
  for i = 1, t:dims() - 2 do index[i] = 1 end
  local where = #index > 0 and ("\n  at (%s,:,:)"):format(table.concat(index, ",")) or ""
  return head .. where .. "\n" .. matrix(t, index, "  ")
end

-- @param t a tensor, on any device
-- @treturn string
function tensor.show(t)
  return scope.run(text, t)
end

return tensor.show
