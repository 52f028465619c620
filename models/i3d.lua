--- I3D, the inflated Inception-v1 (Carreira & Zisserman 2017, "Quo Vadis, Action Recognition?"; numbers of the table as in
-- deepmind/kinetics-i3d). Video (N,3,T,H,W) in, Kinetics logits (N,400) out, or the features of any endpoint.
--
--     local i3d = require "models.i3d"
--     local net = i3d { batchnorm = "frozen" }               -- with its head
--     local logits = net(x)                                   -- RGB in [-1,1]
--     local found = net:endpoints(x, { "mixed_3c", "mixed_4f" }) -- name -> features
--
-- Unit: convolution (TensorFlow's SAME, no bias) -> batch norm (beta only) -> ReLU. Parameters: "<endpoint>.conv.weight",
-- "<endpoint>.bn.beta", ".bn.mean", ".bn.var", endpoints conv3d_1a ... mixed_5c.branch3; "logits.conv.weight", ".bias".
local pn = require "penumbra"
local nn = pn.nn
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local formats = require "penumbra.formats"
local weights = require "penumbra.weights"
local sorted_keys = require "penumbra.base.sorted_keys"

-- One line a layer. unit = channels; pool; mixed = branch 0 | branch 1: 1x1x1, 3x3x3 | branch 2: 1x1x1, 3x3x3 | branch 3.
local layers = {
  { "conv3d_1a", unit = 64, kernel = { 7, 7, 7 }, stride = { 2, 2, 2 } },
  { "maxpool3d_2a", pool = { 1, 3, 3 }, stride = { 1, 2, 2 } },
  { "conv3d_2b", unit = 64, kernel = { 1, 1, 1 } },
  { "conv3d_2c", unit = 192, kernel = { 3, 3, 3 } },
  { "maxpool3d_3a", pool = { 1, 3, 3 }, stride = { 1, 2, 2 } },
  { "mixed_3b", mixed = { 64, 96, 128, 16, 32, 32 } },
  { "mixed_3c", mixed = { 128, 128, 192, 32, 96, 64 } },
  { "maxpool3d_4a", pool = { 3, 3, 3 }, stride = { 2, 2, 2 } },
  { "mixed_4b", mixed = { 192, 96, 208, 16, 48, 64 } },
  { "mixed_4c", mixed = { 160, 112, 224, 24, 64, 64 } },
  { "mixed_4d", mixed = { 128, 128, 256, 24, 64, 64 } },
  { "mixed_4e", mixed = { 112, 144, 288, 32, 64, 64 } },
  { "mixed_4f", mixed = { 256, 160, 320, 32, 128, 128 } },
  { "maxpool3d_5a", pool = { 2, 2, 2 }, stride = { 2, 2, 2 } },
  { "mixed_5b", mixed = { 256, 160, 320, 32, 128, 128 } },
  { "mixed_5c", mixed = { 384, 192, 384, 48, 128, 128 } },
}

local BN_EPS = 1e-3

-- ---- a unit, an inception block ------------------------------------------------------------------------------------------

local function unit(options, from, to, kernel, stride)
  return nn.unit { from = from, to = to, kernel = kernel or 1, stride = stride or 1, batchnorm = options.batchnorm, eps = BN_EPS }
end

-- Branches 0, 1a and 2a are 1x1x1 units of one input. As one product they would save 0.7 ms of 26 forward and 4 of 58 backward
-- (seven blocks at 16 x 224 x 224, one thread), and joining their weights costs 1: under a hundredth of a step, so they stay three.
local Mixed = nn.class "mixed"

function Mixed:new(o)
  local c = o.channels
  self:add("branch0", unit(o, o.from, c[1]))
  self:add("branch1a", unit(o, o.from, c[2]))
  self:add("branch1b", unit(o, c[2], c[3], 3))
  self:add("branch2a", unit(o, o.from, c[4]))
  self:add("branch2b", unit(o, c[4], c[5], 3))
  self:add("pool", nn.max_pool3d { kernel = 3, stride = 1 })
  self:add("branch3", unit(o, o.from, c[6]))
  self.n_from, self.n_to = o.from, c[1] + c[3] + c[5] + c[6]
end

function Mixed:forward(x)
  local whole = pn.empty {
    x:size(1), self.n_to, x:size(3), x:size(4), x:size(5), dtype = x:dtype(), layout = "channels_last",
    device = x:device(),
  }
  local first = 1
  local function run(branch, input) -- each branch writes its slice of the concatenation
    local y = branch(input, whole:slot(2, first, branch.n_to))
    first = first + branch.n_to
    return y
  end
  local parts = { run(self.branch0, x) }
  parts[2] = run(self.branch1b, self.branch1a(x))
  parts[3] = run(self.branch2b, self.branch2a(x))
  parts[4] = run(self.branch3, self.pool(x))
  return pn.concat(parts, { axis = 2, into = whole })
end

-- ---- the head --------------------------------------------------------------------------------------------------------------

local Head = nn.class "head"

function Head:new(o)
  self:add("pool", nn.avg_pool3d { kernel = { 2, 7, 7 }, stride = 1, pad = 0 })
  self:add("dropout", nn.dropout { p = o.dropout })
  self:add("conv", nn.conv3d { from = o.from, to = o.classes, kernel = 1, bias = true })
end

function Head:forward(x)
  return pn.mean(self.conv(self.dropout(self.pool(x))), { axes = { 3, 4, 5 } })
end

-- ---- the trunk, for any module that stands on it -----------------------------------------------------------------------------

local defaults = {
  from = 3,               -- input channels (flow: 2)
  to = "logits",          -- the last endpoint
  width = 1,              -- times the channels of every layer, for small experiments
  classes = 400,
  dropout = 0,            -- probability to drop, before the classifier
  batchnorm = "frozen",   -- frozen | running | batch | moving
  recompute = false,      -- keep only what leaves each layer; backward runs the layer again
}

local function unknown_endpoint(name, known)
  raise("i3d: no endpoint '%s'%s", tostring(name), nearest.hint(name, known))
end

local function names()
  local list = { "logits" }
  for _, layer in ipairs(layers) do
    list[#list + 1] = layer[1]
  end
  return list
end

local function is_endpoint(name)
  for _, known in ipairs(names()) do
    if known == name then
      return true
    end
  end
  return false
end

--- Adds the layers up to endpoint `options.to` to a module, under their names.
-- @param self a module in the making
-- @tparam table options as of I3D
-- @treturn table endpoint -> channels
local function build(self, options)
  local o = {}
  for name, value in pairs(defaults) do
    o[name] = options[name] == nil and value or options[name]
  end
  if not is_endpoint(o.to) then
    unknown_endpoint(o.to, names())
  end
  if not (o.width > 0 and o.width < math.huge) then
    raise("i3d: width is %g, expects more than 0", o.width)
  end
  local function channels(n)
    return math.max(1, math.floor(n * o.width + 0.5))
  end
  local from, counts = o.from, {}
  self.trunk, self.clip_channels = {}, o.from
  for _, layer in ipairs(layers) do
    local name = layer[1]
    if layer.unit then
      self:add(name, unit(o, from, channels(layer.unit), layer.kernel, layer.stride))
      from = channels(layer.unit)
    elseif layer.pool then
      self:add(name, nn.max_pool3d { kernel = layer.pool, stride = layer.stride })
    else
      local widths = {}
      for i, n in ipairs(layer.mixed) do
        widths[i] = channels(n)
      end
      self:add(name, Mixed { from = from, channels = widths, batchnorm = o.batchnorm })
      from = self[name].n_to
    end
    self[name]:recompute(o.recompute and not layer.pool)
    counts[name] = from
    table.insert(self.trunk, name)
    if name == o.to then
      return counts
    end
  end
  self:add("logits", Head { from = from, classes = o.classes, dropout = o.dropout })
  table.insert(self.trunk, "logits")
  return counts
end

local function check_clip(self, x)
  if pn.is_tensor(x) and x:dims() == 5 and x:size(2) == self.clip_channels then
    return
  end
  local got = pn.is_tensor(x) and ("%s (%s)"):format(table.concat(x:shape(), ","), x:dtype()) or tostring(x)
  raise("%s expects a clip (N,%d,T,H,W), got %s%s", self.trunk[1], self.clip_channels, got,
    pn.is_tensor(x) and x:dtype() == "u8" and "; pn.image.to_clip makes one of frames u8 (T,H,W,3)" or "")
end

--- Runs the layers that `build` added. What no later layer needs, nor a gradient, is freed on the way.
-- @tparam {string} capture endpoints whose features are wanted
-- @tparam ?function visit called as visit(endpoint, features) when the walk comes by, in place of keeping the features
-- @return the last layer's output; a table endpoint -> features, where there is no visit
local function run(self, x, capture, visit)
  check_clip(self, x)
  if not x:grid() then
    x:set_grid({ 1, 1, 1 }, { 0, 0, 0 }) -- the input stands on its own pixels
  end
  local found = {}
  for _, name in ipairs(capture or {}) do
    if not is_endpoint(name) then
      unknown_endpoint(name, self.trunk)
    end
    found[name] = true
  end
  local spent -- the layer's input, once nobody else wants it; never the caller's
  for _, name in ipairs(self.trunk) do
    x = self[name](x)
    if spent then
      pn.scope.drop(spent)
    end
    spent = (visit or not found[name]) and x
    if found[name] and visit then
      visit(name, x)
    elseif found[name] then
      found[name] = x
    end
  end
  return x, not visit and found or nil
end

local is_of_i3d = {}
for _, name in ipairs(weights.names()) do
  is_of_i3d[name] = true
end

-- The tensors of a file under our names; info.folded, info.ignored. A checkpoint of this very kind of module is read as it is.
local function read(self, path)
  local is_file, file = pcall(formats.open, path)
  local is_own = is_file and file:has "fuse.weight"
  for name in pairs(self:state()) do
    is_own = is_own or is_file and not is_of_i3d[name] and file:has(name)
  end
  if is_file then
    file:close()
  end
  if is_own then
    return formats.load(path), { folded = {}, ignored = {} }
  end
  return weights.load(path)
end

local function is_head(name)
  return name:match "^logits%." ~= nil
end

local function shape_text(t)
  return table.concat(t:shape(), ",")
end

-- Sorts what is in a file: what fits the state; names that only the file has; what fits but for its shape, as texts.
local function sort(tensors, ours, state, may_lack)
  local fitting, unused, misshapen = {}, {}, {}
  for _, name in ipairs(ours) do
    local t = tensors[name]
    if t and shape_text(t) == shape_text(state[name]) then
      fitting[name] = t
    elseif t and not (may_lack and is_head(name)) then -- a head of other classes is a new one
      misshapen[#misshapen + 1] = ("%s is %s, expected %s"):format(name, shape_text(t), shape_text(state[name]))
    end
  end
  for _, name in ipairs(sorted_keys(tensors)) do
    if not state[name] and not is_of_i3d[name] and name:sub(1, 1) ~= "@" then -- @: what else a run keeps
      unused[#unused + 1] = name
    end
  end
  return fitting, unused, misshapen
end

local function check_fit(self, path, fitting, misshapen, ours)
  if #misshapen > 0 then
    raise("weights: %s: %d tensor%s of other shapes than in the network: %s%s", path, #misshapen, #misshapen > 1 and "s" or "",
      table.concat(misshapen, "; ", 1, math.min(3, #misshapen)), #misshapen > 3 and ("; and %d more"):format(#misshapen - 3) or "")
  end
  local of_trunk = {}
  for _, layer in ipairs(self.trunk) do
    of_trunk[layer] = true
  end
  for _, name in ipairs(ours) do
    if of_trunk[name:match "^[^.]+"] and fitting[name] then
      return
    end
  end
  raise("weights: %s: it has nothing of the trunk (%s, ...)", path, ours[1])
end

--- Loads weights into a module that stands on the trunk: a file of I3D under any of its names (penumbra.weights), or a
-- checkpoint of the module itself. What the module lacks (deeper layers, another head) is passed over; a tensor of another shape
-- is an error, and so is a file without any of the trunk. What the file lacks is an error that lists it, unless allowed: then it
-- stays as it was initialised.
-- @tparam string path looked for here, then where `penumbra fetch` puts things
-- @tparam ?table options allow_missing = true
-- @tparam ?function sieve sieve(tensors) takes out of a file's tensors what is not to be loaded
-- @return the module; its `loaded` is then {path, loaded, missing, unused, text}: lists of names, and a line for a log
local function load(self, path, options, sieve)
  nn.check_options("load", options or {}, { "allow_missing" })
  local where, may_lack = weights.find(path), options and options.allow_missing
  self.loaded = pn.scope(function()
    local tensors, info = read(self, where)
    local in_file = sorted_keys(tensors)
    if sieve then
      sieve(tensors)
    end
    local ours = {}
    for _, list in ipairs { self:parameters(), self:buffers() } do
      for _, entry in ipairs(list) do
        ours[#ours + 1] = entry.name
      end
    end
    local fitting, unused, misshapen = sort(tensors, ours, self:state(), may_lack)
    check_fit(self, path, fitting, misshapen, ours)
    local report = self:load_state(fitting, { allow_missing = may_lack })
    local missing = {}
    for _, name in ipairs(ours) do
      missing[#missing + 1] = not fitting[name] and name or nil
    end
    for _, name in ipairs(info.ignored) do
      unused[#unused + 1], in_file[#in_file + 1] = name, name
    end
    local text = weights.describe {
      path = path, names = ours, loaded = report.loaded, missing = missing, unused = unused, in_file = in_file,
      folded = info.folded,
    }
    return { path = where, loaded = report.loaded, missing = missing, unused = unused, text = text }
  end)
  return self
end

local I3D = nn.class "i3d"
I3D.load = load

function I3D:new(options)
  local known = {}
  for name in pairs(defaults) do
    known[#known + 1] = name
  end
  nn.check_options("i3d", options, known)
  build(self, options)
end

function I3D:forward(x, capture)
  return run(self, x, capture)
end

--- Features of the endpoints named, as a table name -> tensor (N,C,T',H',W').
function I3D:endpoints(x, capture)
  local _, found = self(x, capture)
  return found
end

return setmetatable({ defaults = defaults, build = build, run = run, load = load, layers = layers, class = I3D }, {
  __call = function(_, options)
    return I3D(options)
  end,
})
