--- Values as bytes and tensors, for messages between Lua states: nil, booleans, numbers (every bit), strings, tables of these,
-- tensors (by reference, never copied), and functions.
--
-- A function travels as its bytecode with a copy of each local it closes over, by these same rules; what a loaded module holds
-- (`pn`, `math.sin`, a function of your own module) travels by its name and is required on the other side. A recipe's cfg arrives
-- as the plain table of its values. What cannot travel is an error that says where it stands: objects (tables with a metatable: a
-- net, a clip, a random stream), tables that hold themselves, coroutines, C data.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local raise = require "penumbra.base.raise"

local C = binding.C
local pack = {}

local box = ffi.new "double [1]"
local function number_bytes(value)
  box[0] = value
  return ffi.string(box, 8)
end

-- ---- packing -----------------------------------------------------------------------------------------------------------------

local put -- of one value

-- A table with a metatable that is more than its values. A recipe's configuration is not: it arrives as a plain table.
local function is_object(value)
  local meta = getmetatable(value)
  return meta and not (type(meta) == "table" and rawget(meta, "travels_as_table"))
end

local function place(f)
  local info = debug.getinfo(f, "S")
  return ("function at %s:%d"):format(info.short_src, info.linedefined)
end

-- The loaded module that is this function, or the module and field that hold it; of several, the first by name.
local function name_of(f)
  local module, field
  for name, loaded in pairs(package.loaded) do
    if type(name) == "string" and (not module or name < module) then
      if loaded == f then
        module, field = name, nil
      elseif type(loaded) == "table" then
        for key, inner in next, loaded do
          if inner == f and type(key) == "string" then
            module, field = name, key
          end
        end
      end
    end
  end
  return module, field
end

local function put_function(to, f, path)
  if debug.getinfo(f, "S").what == "C" then
    raise("%s: a C function that no loaded module holds does not travel", path)
  end
  to[#to + 1] = "F"
  put(to, string.dump(f), path)
  for i = 1, 256 do
    local name, value = debug.getupvalue(f, i)
    if not name then
      break
    end
    if value == f then
      to[#to + 1] = "R"
    else
      put(to, value, ("%s, local '%s' of the %s"):format(path, name, place(f)))
    end
  end
  to[#to + 1] = "E"
end

local function put_table(to, value, path)
  if to.open[value] then
    raise("%s: a table that holds itself does not travel", path)
  end
  to.open[value] = true
  to[#to + 1] = "{"
  for key, inner in next, value do
    local is_name = type(key) == "string"
    if not is_name and type(key) ~= "number" and type(key) ~= "boolean" then
      raise("%s: a table whose keys are of type %s does not travel", path, type(key))
    end
    put(to, key, path)
    put(to, inner, is_name and path .. "." .. key or ("%s[%s]"):format(path, tostring(key)))
  end
  to[#to + 1] = "}"
  to.open[value] = nil
end

function put(to, value, path)
  local kind = type(value)
  if kind == "nil" then
    to[#to + 1] = "N"
  elseif kind == "boolean" then
    to[#to + 1] = value and "1" or "0"
  elseif kind == "number" then
    to[#to + 1] = "D"
    to[#to + 1] = number_bytes(value)
  elseif kind == "string" then
    to[#to + 1] = "S"
    to[#to + 1] = number_bytes(#value)
    to[#to + 1] = value
  elseif binding.is_tensor(value) then
    if C.pn_requires_grad(binding.ptr(value, path)) then
      raise("%s: a tensor that takes part in a graph does not travel; :detach() it first", path)
    end
    local n = #to.tensors + 1
    to.tensors[n] = value
    to[#to + 1] = "T"
    to[#to + 1] = number_bytes(n)
  elseif kind == "function" or kind == "table" then
    local module, field
    if kind == "function" then
      module, field = name_of(value)
    else
      module = to.modules[value]
    end
    if module then
      to[#to + 1] = field and "L" or "M"
      put(to, module, path)
      if field then
        put(to, field, path)
      end
    elseif kind == "function" then
      put_function(to, value, path)
    elseif is_object(value) then
      raise("%s: an object (a table with a metatable) does not travel; send what it is made of", path)
    else
      put_table(to, value, path)
    end
  else
    raise("%s: a value of type %s does not travel", path, kind)
  end
end

--- Packs values.
-- @tparam string what stands before the place of a value in messages: "submit"
-- @param ... the values
-- @treturn string bytes
-- @treturn {Tensor} the tensors that go with them
function pack.pack(what, ...)
  local modules = {}
  for name, loaded in pairs(package.loaded) do
    if type(loaded) == "table" and (not modules[loaded] or name < modules[loaded]) then
      modules[loaded] = name
    end
  end
  local to = { tensors = {}, open = {}, modules = modules }
  local n = select("#", ...)
  to[1] = number_bytes(n)
  for i = 1, n do
    put(to, (select(i, ...)), ("%s: value %d"):format(what, i))
  end
  return table.concat(to), to.tensors
end

-- ---- unpacking ---------------------------------------------------------------------------------------------------------------

local take -- one value

local readers = {
  N = function() return nil end,
  ["0"] = function() return false end,
  ["1"] = function() return true end,
  D = function(from)
    ffi.copy(box, from.bytes:sub(from.at, from.at + 7), 8)
    from.at = from.at + 8
    return box[0]
  end,
  M = function(from) return require(take(from)) end,
  L = function(from)
    local module = require(take(from))
    return module[take(from)]
  end,
  F = function(from)
    local f = assert(loadstring(take(from)))
    local i = 0
    while from.bytes:sub(from.at, from.at) ~= "E" do
      i = i + 1
      if from.bytes:sub(from.at, from.at) == "R" then
        from.at = from.at + 1
        debug.setupvalue(f, i, f)
      else
        debug.setupvalue(f, i, (take(from)))
      end
    end
    from.at = from.at + 1
    return f
  end,
  ["{"] = function(from)
    local value = {}
    while from.bytes:sub(from.at, from.at) ~= "}" do
      local key = take(from)
      value[key] = take(from)
    end
    from.at = from.at + 1
    return value
  end,
}
readers.S = function(from)
  local n = readers.D(from)
  local value = from.bytes:sub(from.at, from.at + n - 1)
  from.at = from.at + n
  return value
end
readers.T = function(from) return from.tensor(readers.D(from)) end

function take(from)
  local tag = from.bytes:sub(from.at, from.at)
  from.at = from.at + 1
  return readers[tag](from)
end

--- The values again.
-- @tparam string bytes of `pack`
-- @tparam function tensor number -> tensor handle
function pack.unpack(bytes, tensor)
  local from = { bytes = bytes, at = 1, tensor = tensor }
  local n = readers.D(from)
  local values = {}
  for i = 1, n do
    values[i] = take(from)
  end
  return unpack(values, 1, n)
end

--- Sends values into a channel of the C library.
function pack.send(channel, what, ...)
  local bytes, tensors = pack.pack(what, ...)
  local list = ffi.new("pn_tensor *[?]", math.max(#tensors, 1))
  for i, t in ipairs(tensors) do
    list[i - 1] = binding.ptr(t, what)
  end
  binding.check(C.pn_channel_send(channel, bytes, #bytes, list, #tensors))
end

--- The values of a message, which is freed; its tensors join the scope that is open.
function pack.open(message)
  local n = ffi.new "int64_t [1]"
  local bytes = C.pn_message_bytes(message, n)
  local text = ffi.string(bytes, n[0])
  local function finish(...)
    C.pn_message_free(message)
    return ...
  end
  return finish(pack.unpack(text, function(i)
    local p = C.pn_message_tensor(message, i - 1)
    C.pn_tensor_retain(p)
    return binding.wrap(p)
  end))
end

return pack
