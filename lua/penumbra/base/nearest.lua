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

-- Is `piece` whole parts of `name`, as "size" is of "crop_size"?
local function is_part(piece, name)
  return ("_" .. name .. "_"):find("_" .. piece .. "_", 1, true) ~= nil
end

-- How far a name is from a known one. Slips that are not of the finger count little: the path left out ("lr" for "optim.lr"),
-- initials ("learning_rate" for "lr"), a part of the name ("size" for "crop_size"), most of it ("conv" for "conv3d").
local function slip(name, known)
  local d = distance(name, known)
  local a, b = last_part(name), last_part(known)
  d = math.min(d, distance(a, b) + 0.5)
  if #a > 1 and #b > 1 then
    if initials(a) == b or initials(b) == a then
      d = math.min(d, 1)
    end
    local short, long = a, b
    if #a > #b then
      short, long = b, a
    end
    if #short > 2 and (is_part(short, long) or #short > 0.6 * #long and long:find(short, 1, true)) then
      d = math.min(d, 1.5)
    end
  end
  return d
end

-- What PyTorch or NumPy calls it -> what it is here, where that is among the candidates.
local aliases = {
  cat = "concat", hstack = "concat", concatenate = "concat", t = "permute", transpose = "permute", swapaxes = "permute",
  movedim = "permute", moveaxis = "permute",
  view = "reshape", view_as = "reshape", flatten = "reshape", ravel = "reshape",
  expand_dims = "unsqueeze", unflatten = "reshape",
  narrow = "slice", chunk = "split", tile = "expand", broadcast_to = "expand",
  expand_as = "expand", clip = "clamp", clamp_min = "clamp", clamp_max = "clamp", clamp_ = "clamp",
  mm = "matmul", bmm = "matmul", dot = "matmul", addmm = "matmul", linear = "matmul",
  interpolate = "resize3d", pad = "pad3d", conv2d = "conv3d", conv1d = "conv3d", max_pool2d = "max_pool3d",
  avg_pool2d = "avg_pool3d", batchnorm1d = "batch_norm", batchnorm2d = "batch_norm", batchnorm3d = "batch_norm",
  groupnorm = "group_norm", layernorm = "layer_norm", conv_transpose2d = "conv_transpose3d",
  convtranspose2d = "conv_transpose3d", convtranspose3d = "conv_transpose3d",
  multiply = "mul", subtract = "sub", divide = "div", true_divide = "div", negative = "neg", absolute = "abs", power = "pow",
  index_select = "gather", take_along_dim = "gather", take = "gather", median = "quantile", percentile = "quantile",
  amax = "max", amin = "min", dstack = "stack", vstack = "stack", dropout2d = "dropout", dropout3d = "dropout",
  greater = "gt", greater_equal = "ge", less = "lt", less_equal = "le", equal = "eq", not_equal = "ne", masked_fill = "where",
  binary_cross_entropy_with_logits = "bce_with_logits", bcewithlogitsloss = { "bce", "bce_with_logits" },
  float = "cast", double = "cast", half = "cast", bfloat16 = "cast", long = "cast", int = "cast",
  byte = "cast", type = "cast", type_as = "cast", astype = "cast", numel = "count", nelement = "count", length = "count",
  ndim = "dims", dim = { "dims", "axis", "axes" }, axes = "axis", tolist = "totable", numpy = "totable", cpu = "to",
  cuda = { "to", "device" },
  fill_ = "fill", zero_ = "fill", copy_ = "copy", requires_grad_ = "requires_grad",
  from_numpy = "tensor", as_tensor = "tensor", modulelist = "sequential", lr_scheduler = "schedule",
  imread = { "read", "image" }, imwrite = { "write", "image" }, encode = "line", dumps = "line",
  stringify = "line", loads = "decode", parse = "decode", load = "read", save = "write",
  multiheadattention = "attention", multi_head_attention = "attention", scaled_dot_product_attention = "attention",
}

-- What PyTorch or NumPy has by that name -> what says it here, and the names which that needs: told where they are all known.
local said_otherwise = {
  LeakyReLU = { "an nn.class whose forward gives pn.maximum(x, 0.01 * x)", "class" },
  Identity = { "an nn.class whose forward gives x", "class" },
  MSELoss = { "pn.mean(pn.square(x - y))", "class" },
  SiLU = { "an nn.class whose forward gives x * pn.sigmoid(x)", "class" },
  arange = { "a table makes it: pn.tensor{1, 2, 3}", "tensor" },
  all = { "pn.sum(mask):item() == mask:count(), of a real mask of 0 and 1", "sum", "matmul" },
  any = { "pn.max(mask):item() > 0, of a real mask of 0 and 1", "max", "matmul" },
  cdist = { "pn.sqrt(pn.sum(pn.square(x:unsqueeze(2) - y:unsqueeze(1)), { 3 })), rows of x and y", "sqrt", "sum", "unsqueeze" },
  ceil = { "t + pn.lt(t, x), where t = x:cast(\"i64\"):cast(\"real\")", "lt", "cast" },
  compile = { "pn.captured(step, cfg) launches a step as one on CUDA", "precision" },
  cross_entropy = { "pn.loss.cross_entropy(x, labels), of classes from 1", "log_softmax" },
  einsum = { "permute, reshape and matmul say it", "permute", "reshape", "matmul" },
  floor = { "t - pn.gt(t, x), where t = x:cast(\"i64\"):cast(\"real\")", "gt", "cast" },
  expm1 = { "pn.exp(x) - 1", "exp" },
  grid_sample = { "pn.augment.warp moves pixels of frames and masks, without a gradient; pn.resize3d has one", "resize3d" },
  isfinite = { "pn.lt(pn.abs(x), math.huge)", "lt", "abs" },
  isinf = { "pn.eq(pn.abs(x), math.huge)", "eq", "abs" },
  isnan = { "pn.ne(x, x)", "ne" },
  kl_div = { "pn.sum(p * (pn.log(p) - pn.log(q))), of probabilities", "sum", "log" },
  l1_loss = { "pn.mean(pn.abs(x - y))", "mean", "abs" },
  leaky_relu = { "pn.maximum(x, 0.01 * x)", "maximum" },
  linspace = { "a table makes it: pn.tensor{0, 0.5, 1}", "tensor" },
  log10 = { "pn.log(x) / math.log(10)", "log" },
  log1p = { "pn.log(x + 1)", "log" },
  log2 = { "pn.log(x) / math.log(2)", "log" },
  mse_loss = { "pn.mean(pn.square(x - y))", "mean", "square" },
  one_hot = { "pn.eq(labels:unsqueeze(-1), pn.tensor{1, 2, 3}), labels of real numbers", "eq", "unsqueeze", "tensor" },
  manual_seed = { "a stream has its own seed: pn.random.stream(seed, \"name\")", "random", "tensor" },
  prod = { "pn.exp(pn.sum(pn.log(x))) where all are above 0", "exp", "sum", "log" },
  rand = { "pn.random.stream(seed):fill(pn.empty{2, 3})", "random", "tensor" },
  randint = { "pn.random.stream(seed):integer(from, to) draws a number", "random", "tensor" },
  randn = { "pn.random.stream(seed):fill(pn.empty{2, 3}, \"normal\")", "random", "tensor" },
  register_forward_hook = { "net:hook(pattern, function(module, name, y) ... end) sees what modules give", "hook" },
  register_hook = { "net:hook(pattern, function(module, name, y) ... end) sees what modules give", "hook" },
  roll = { "pn.concat(x:slice(a, n - k + 1), x:slice(a, 1, n - k), { axis = a }), by k along axis a of n", "concat", "slice" },
  rsqrt = { "1 / pn.sqrt(x)", "sqrt", "matmul" },
  sign = { "pn.gt(x, 0) - pn.lt(x, 0)", "gt", "lt" },
  silu = { "x * pn.sigmoid(x)", "sigmoid" },
}
for other, one in pairs {
  float32 = '"f32"', float64 = '"f64"', float16 = '"f16"', uint8 = '"u8"', int64 = '"i64"', int32 = '"i32"',
  bfloat16 = '"bf16"',
} do
  said_otherwise[other] = { "an element type is a name: { dtype = " .. one .. " }", "empty", "tensor" }
end
for _, made in ipairs {
  "argmin", "min", "norm", "quantile", "select", "sort", "split", "squeeze", "stack", "std", "topk", "unsqueeze", "var",
} do
  said_otherwise[made] = { "pn." .. made .. " is made of operations", "argsort", "reshape" } -- where operations alone are known
end

-- What PyTorch has by that name, and nothing here: what looks like it is something else.
local nothing_alike = { cumprod = true, cumsum = true, fft = true, hub = true, jit = true }

local function is_among(name, candidates)
  for _, candidate in ipairs(candidates) do
    if candidate == name then
      return true
    end
  end
  return false
end

local function aliased(name, candidates)
  local alias = aliases[name]
  for _, ours in ipairs(type(alias) == "table" and alias or { alias }) do
    if is_among(ours, candidates) then
      return ours
    end
  end
end

local function otherwise(name, candidates)
  local entry = said_otherwise[name]
  for i = 2, entry and #entry or 0 do
    if not is_among(entry[i], candidates) then
      return nil
    end
  end
  return entry and entry[1]
end

-- How far is still near: one slip in a short name, one in three letters of a long one.
local function reach(name)
  return #name < 3 and 1 or #name < 5 and 1.5 or math.max(2, math.floor(#name / 3))
end

--- The nearest candidate: what PyTorch's name for it stands for, else the one with the fewest slips.
-- @tparam string name what was written
-- @tparam {string} candidates what is known
-- @treturn ?string the best candidate, or nil when none is near (more than two slips, in a short name one, and a third of the
--   letters away); of equally near ones the alphabetically first, so that messages do not depend on table order
local function nearest(name, candidates)
  name = tostring(name):lower()
  local best, best_distance = nil, math.huge
  for _, candidate in ipairs(candidates) do
    local d = slip(name, candidate:lower())
    if not best or d < best_distance or (d == best_distance and candidate < best) then
      best, best_distance = candidate, d
    end
  end
  if best_distance > 0 and nothing_alike[name] then
    return nil
  end
  return best_distance > 0 and aliased(name, candidates) or best_distance <= reach(name) and best or nil
end

--- How a message about an unknown name ends: ", did you mean 'stride'?", ": " and how it is said here, or "" when nothing is near.
local function hint(name, candidates)
  local text = otherwise(name, candidates)
  if text then
    return ": " .. text
  end
  local best = nearest(name, candidates)
  return best and (", did you mean '%s'?"):format(best) or ""
end

return setmetatable({ hint = hint, otherwise = otherwise }, { __call = function(_, ...) return nearest(...) end })
