--- What the run that made a checkpoint had: its network, its settings of inference, and the threshold it found on its first frame.
-- So that a network is used as it was, and a clip is segmented as the run did it.
-- @module penumbra.infer.of_run

local config = require "penumbra.config"
local files = require "penumbra.base.files"
local formats = require "penumbra.formats"
local infer = require "penumbra.infer"
local json = require "penumbra.json"
local raise = require "penumbra.base.raise"
local sorted_keys = require "penumbra.base.sorted_keys"

local of_run = {}

-- A message without its place.
local function bare(problem)
  return (tostring(problem):gsub("^%S+:%d+: ", ""))
end

local function show(value)
  return type(value) == "number" and ("%.4g"):format(value) or tostring(value)
end

--- The keys of inference for a recipe's configuration, none of them set: what is then not nil was given.
-- @treturn table
function of_run.keys()
  local keys = {}
  for name, default in pairs(infer.defaults) do
    keys[name] = config.optional(("as in the run of the checkpoint, else %s"):format(show(default)), type(default))
  end
  return keys
end

--- The configuration of the run that made a checkpoint.
-- @tparam string path of the checkpoint
-- @treturn table
function of_run.recorded(path)
  local file = formats.open(path)
  local config_text = file.metadata.config
  file:close()
  if not config_text then
    raise("%s: not the checkpoint of a run: it does not say which network it holds", path)
  end
  return json.decode(config_text)
end

--- The network of a checkpoint, made of the keys of its run.
-- @tparam string path of the checkpoint
-- @tparam table recorded the configuration of its run
-- @tparam function make the model: a configuration to a module
-- @tparam string name of the model, for messages
-- @return the module
function of_run.network(path, recorded, make, name)
  local meta = type(make) == "table" and getmetatable(make)
  if type(make) ~= "function" and not (meta and meta.__call) then
    raise("model: %s gives %s, expects a model: a function from a configuration to a module (docs/models.md)", name,
      (make == nil or make == true) and "nothing" or "a " .. type(make))
  end
  local made, net = pcall(make, recorded)
  if not made then
    raise("model: %s cannot be made of the keys that the run of %s had: %s", name, path, bare(net))
  end
  infer.check(net)
  local loaded, problem = pcall(net.load, net, path)
  if not loaded then
    raise("checkpoint: %s holds another network than %s: model=FILE.lua names the one that its run taught (%s)", path, name,
      bare(problem))
  end
  return net
end

-- The threshold that a run found on the first frame of a clip: of the name, or of the only one it had. scores.json has it, beside
-- the checkpoint.
local function found_threshold(path, clip_name)
  local folder = path:match "^(.*/)[^/]*$" or ""
  local scores = json.decode(files.read(folder .. "scores.json") or "null")
  local first = type(scores) == "table" and scores.first_frame
  if type(first) ~= "table" then
    return nil
  end
  local only, value = next(first)
  if next(first, only) ~= nil then
    value = nil
  end
  local entry = first[clip_name] or value
  return type(entry) == "table" and tonumber(entry.threshold) or nil
end

--- The settings for a clip: what was given, else what the run of the checkpoint had, else the defaults.
-- @tparam string path of the checkpoint
-- @tparam table recorded the configuration of its run; its key infer is read
-- @tparam table given keys of infer.defaults
-- @tparam table about clip: its name; has_mask: whether there is a first mask, which says by itself where the threshold should be
-- @treturn table every key of infer.defaults, checked
-- @treturn ?string what was taken from the run and is not the default, as a line; nil where there is nothing
function of_run.settings(path, recorded, given, about)
  local from, resolved, taken = type(recorded.infer) == "table" and recorded.infer or {}, {}, {}
  local threshold = given.threshold == nil and not about.has_mask and found_threshold(path, about.clip)
  for _, name in ipairs(sorted_keys(infer.defaults)) do
    local default = infer.defaults[name]
    resolved[name] = given[name]
    if given[name] == nil and type(from[name]) == type(default) and not (name == "threshold" and threshold) then
      resolved[name] = from[name]
      if from[name] ~= default then
        taken[#taken + 1] = name .. "=" .. show(from[name])
      end
    end
  end
  if threshold then
    resolved.threshold = threshold
    taken[#taken + 1] = ("threshold=%s (found on its first frame)"):format(show(threshold))
  end
  return infer.with(resolved), #taken > 0 and table.concat(taken, " ") or nil
end

return of_run
