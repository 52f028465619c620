--- The known name that a misspelt one most likely meant.
-- Every message about an unknown option, operation or key ends with it.

-- Letters to change, drop, add or swap with their neighbour (optimal string alignment).
local function distance(a, b)
  local two, one = nil, {}
  for j = 0, #b do
    one[j] = j
  end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local change = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(one[j] + 1, row[j - 1] + 1, one[j - 1] + change)
      if two and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], two[j - 2] + 1)
      end
    end
    two, one = one, row
  end
  return one[#b]
end

local function last_part(name)
  return name:match("([^.]+)$") or name
end

-- learning_rate -> lr
local function initials(name)
  return (name:gsub("(%a)[%a%d]*_?", "%1"))
end

-- How far a name is from a known one. Slips that are not of the finger count little: the path left out ("lr" for "optim.lr"),
-- initials ("learning_rate" for "lr"), a piece of the name.
local function slip(name, known)
  local d = distance(name, known)
  local a, b = last_part(name), last_part(known)
  d = math.min(d, distance(a, b) + 0.5)
  if #a > 1 and #b > 1 then
    if initials(a) == b or initials(b) == a then
      d = math.min(d, 1)
    end
    if #a > 2 and (b:find(a, 1, true) or a:find(b, 1, true)) then
      d = math.min(d, 1.5)
    end
  end
  return d
end

-- What PyTorch calls it -> what it is here, where that is among the candidates.
local aliases = {
  cat = "concat", stack = "concat", hstack = "concat", t = "permute", transpose = "permute", swapaxes = "permute",
  movedim = "permute",
  view = "reshape", view_as = "reshape", flatten = "reshape", ravel = "reshape", squeeze = "reshape", unsqueeze = "reshape",
  narrow = "slice", select = "slice", index_select = "slice", chunk = "slice", split = "slice", tile = "expand",
  expand_as = "expand", clip = "clamp", clamp_min = "clamp", clamp_max = "clamp", mm = "matmul", bmm = "matmul", dot = "matmul",
  interpolate = "resize3d", pad = "pad3d", conv2d = "conv3d", conv1d = "conv3d", max_pool2d = "max_pool3d",
  avg_pool2d = "avg_pool3d", batchnorm3d = "batch_norm", batchnorm2d = "batch_norm", convtranspose3d = "conv_transpose3d",
  multiply = "mul", subtract = "sub", divide = "div", negative = "neg", absolute = "abs", amax = "max", min = "minimum",
  binary_cross_entropy_with_logits = "bce_with_logits", float = "cast", double = "cast", half = "cast", long = "cast", int = "cast",
  byte = "cast", type = "cast", type_as = "cast", astype = "cast", numel = "count", nelement = "count", length = "count",
  ndim = "dims", dim = { "dims", "axis" }, axes = "axis", tolist = "totable", numpy = "totable", cpu = "to", cuda = "to",
  fill_ = "fill", zero_ = "fill", copy_ = "copy", requires_grad_ = "requires_grad", rand = "random", randn = "random",
  manual_seed = "random", from_numpy = "tensor", modulelist = "sequential",
}

-- What PyTorch has and Penumbra has not.
local lacking = {}
for _, name in ipairs { "gt", "ge", "lt", "le", "eq", "ne", "greater", "less", "where", "masked_fill" } do
  lacking[name] = "tensors are not compared element by element; clamp, maximum, relu and sigmoid may do"
end

local function aliased(name, candidates)
  local alias = aliases[name]
  for _, ours in ipairs(type(alias) == "table" and alias or { alias }) do
    for _, candidate in ipairs(candidates) do
      if candidate == ours then
        return ours
      end
    end
  end
end

-- How far is still near. Short names are near to much.
local function reach(name)
  return #name < 3 and 1 or #name == 3 and 1.5 or math.max(2, math.floor(#name / 3))
end

--- The nearest candidate: what PyTorch's name for it stands for, else the one with the fewest slips.
-- @tparam string name what was written
-- @tparam {string} candidates what is known
-- @treturn ?string the best candidate, or nil when none is near (more than 2 and a third of the letters away);
--   of equally near ones the alphabetically first, so that messages do not depend on table order
local function nearest(name, candidates)
  name = tostring(name):lower()
  local best, best_distance = aliased(name, candidates), 0
  if best then
    return best
  end
  for _, candidate in ipairs(candidates) do
    local d = slip(name, candidate:lower())
    if not best or d < best_distance or (d == best_distance and candidate < best) then
      best, best_distance = candidate, d
    end
  end
  return best and best_distance <= reach(name) and best or nil
end

--- How a message about an unknown name ends: ", did you mean 'stride'?", or "" when nothing is near.
local function hint(name, candidates)
  if lacking[name] then
    return ": " .. lacking[name]
  end
  local best = nearest(name, candidates)
  return best and (", did you mean '%s'?"):format(best) or ""
end

return setmetatable({ hint = hint }, { __call = function(_, ...) return nearest(...) end })
