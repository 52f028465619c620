--- Files of named tensors: safetensors, npy, npz, PyTorch (before and since 1.6), pickled dictionaries of NumPy arrays and
-- TensorFlow bundles are read; safetensors and npy are written.
--
--     local tensors, metadata = pn.load "checkpoint.safetensors"
--     pn.save("checkpoint.safetensors", { ["conv.weight"] = w, step = pn.tensor(7) }, { epoch = "12" })
--
-- The format is told by content. No code of a file ever runs; a damaged or hostile file is an error that names it.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local named = require "penumbra.base.named"
local nearest = require "penumbra.base.nearest"
local raise = require "penumbra.base.raise"
local sorted_keys = require "penumbra.base.sorted_keys"
require "penumbra.tensor" -- gives handles their methods

local C, check, out, wrap, ptr = binding.C, binding.check, binding.out, binding.wrap, binding.ptr

local formats = {}

local archive_out = ffi.typeof "pn_archive *[1]"
local strings = ffi.typeof "const char *[?]"
local tensors_type = ffi.typeof "pn_tensor *[?]"

-- ---- reading ------------------------------------------------------------------------------------------------------------

--- What `formats.open` returns.
-- @field path string
-- @field format string "safetensors", "npy", "npz", "pytorch", "pickle" or "tensorflow bundle"
-- @field names {string} the tensors, in the order of the file
-- @field metadata {[string]=string} of a safetensors file; the numbers and texts beside a state dict
local Archive = {}
Archive.__index = Archive

local function handle_of(archive)
  local handle = archive.handle
  if not handle then
    raise("%s: the file is closed", archive.path)
  end
  return handle
end

local function index_of(archive, name)
  local handle = handle_of(archive)
  local i = type(name) == "string" and C.pn_archive_find(handle, name) or -1
  if i < 0 then
    raise("%s: there is no tensor '%s'%s", archive.path, tostring(name), nearest.hint(name, archive.names))
  end
  return handle, i
end

--- Is there a tensor of this name?
function Archive:has(name)
  return C.pn_archive_find(handle_of(self), name) >= 0
end

--- The sizes of a tensor, without reading it.
-- @treturn {number}
function Archive:shape(name)
  local handle, i = index_of(self, name)
  local shape = {}
  for axis = 1, C.pn_archive_dims(handle, i) do
    shape[axis] = tonumber(C.pn_archive_size(handle, i, axis - 1))
  end
  return shape
end

--- The element type that a tensor has when it is loaded: bool becomes u8; i8, i16 and u16 become i32; u32 becomes i64.
function Archive:dtype(name)
  local handle, i = index_of(self, name)
  return binding.dtype_names[tonumber(ffi.cast("int", C.pn_archive_dtype(handle, i)))]
end

--- The CRC-32C that the file gives for a tensor; nil where the format has none (only TensorFlow bundles do).
-- It is checked by `load`.
function Archive:crc32c(name)
  local handle, i = index_of(self, name)
  local value = ffi.new "uint32_t [1]"
  return C.pn_archive_crc32c(handle, i, value) and tonumber(value[0]) or nil
end

--- Why a tensor cannot be loaded: "has the element type F8_E4M3, which no tensor has"; nil where it can.
function Archive:refusal(name)
  local handle, i = index_of(self, name)
  local text = C.pn_archive_refusal(handle, i)
  return text ~= nil and ffi.string(text) or nil
end

--- Reads one tensor.
-- @return a tensor on the CPU, last axis fastest
function Archive:load(name)
  local handle, i = index_of(self, name)
  local p = out()
  check(C.pn_archive_load(p, handle, i))
  return wrap(p[0])
end

--- Closes the file; the collector does it too.
function Archive:close()
  if self.handle then
    C.pn_archive_close(ffi.gc(self.handle, nil))
    self.handle = nil
  end
end

--- Opens a file of tensors and reads its list.
-- @tparam string path a file, or the prefix of a TensorFlow bundle
-- @treturn Archive
function formats.open(path)
  named.text("open", path)
  local p = archive_out()
  check(C.pn_archive_open(p, path))
  local handle = ffi.gc(p[0], C.pn_archive_close)
  local archive = setmetatable({ handle = handle, path = path, names = {}, metadata = {} }, Archive)
  archive.format = ffi.string(C.pn_archive_format(handle))
  for i = 1, C.pn_archive_count(handle) do
    archive.names[i] = ffi.string(C.pn_archive_name(handle, i - 1))
  end
  for i = 0, C.pn_archive_n_metadata(handle) - 1 do
    archive.metadata[ffi.string(C.pn_archive_key(handle, i))] = ffi.string(C.pn_archive_value(handle, i))
  end
  return archive
end

-- Is a tensor one that no tensor here can be, rather than one whose bytes are not there?
local function is_alien(archive, name)
  local refusal = archive:refusal(name)
  return refusal ~= nil and not refusal:match "^cannot be read"
end

local function tell_of(archive, left_out)
  local texts = {}
  for i = 1, math.min(#left_out, 3) do
    texts[i] = ("%s %s"):format(left_out[i], archive:refusal(left_out[i]))
  end
  binding.tell(("%s: %d of %d tensors left out: %s%s"):format(archive.path, #left_out, #archive.names, table.concat(texts, "; "),
    #left_out > 3 and "; ..." or ""))
end

--- Reads every tensor of a file. One of an element type (or with more axes) than tensors have is left out, with a notice that names
-- it, unless it is all that the file holds.
-- @tparam string path
-- @treturn {[string]=tensor} by name; keys of nested dictionaries join with '.' (PyTorch) or '/' (NumPy); the one array of
--   an npy file is `data`
-- @treturn {[string]=string} metadata
function formats.load(path)
  local archive = formats.open(path)
  local tensors, left_out = {}, {}
  for _, name in ipairs(archive.names) do
    if is_alien(archive, name) then
      left_out[#left_out + 1] = name
    else
      tensors[name] = archive:load(name)
    end
  end
  if #left_out > 0 and next(tensors) == nil then
    archive:load(left_out[1]) -- fails
  elseif #left_out > 0 then
    tell_of(archive, left_out)
  end
  archive:close()
  return tensors, archive.metadata
end

--- Reads a file of a single tensor, such as an npy.
-- @return the tensor
function formats.array(path)
  local archive = formats.open(path)
  if #archive.names ~= 1 then
    raise("%s: holds %d tensors, expected one", path, #archive.names)
  end
  local t = archive:load(archive.names[1])
  archive:close()
  return t
end

-- ---- writing ------------------------------------------------------------------------------------------------------------

local function metadata_text(path, key, value)
  if type(key) ~= "string" then
    raise("save: %s: a key of the metadata is a %s, expects text", path, type(key))
  end
  if type(value) == "number" then
    return ("%.17g"):format(value)
  end
  if type(value) == "boolean" then
    return tostring(value)
  end
  if type(value) ~= "string" then
    raise("save: %s: metadata '%s' is a %s, expects text, a number or a boolean", path, key, type(value))
  end
  if value:find("\0", 1, true) or key:find("\0", 1, true) then
    raise("save: %s: metadata '%s' contains a NUL byte", path, (key:gsub("%z.*", "")))
  end
  return value
end

--- Writes tensors to a file: safetensors, or npy for one tensor when the path ends in .npy.
-- The file is written under another name, brought to disk and renamed: it is there whole, or as it was before.
-- @tparam string path
-- @tparam table tensors name to tensor (any memory order, any device); for npy a tensor
-- @tparam ?table metadata text to text; numbers and booleans are written as text
function formats.save(path, tensors, metadata)
  named.text("save", path)
  local extension = path:match "%.(%w+)$"
  if extension == "npy" then
    if metadata ~= nil then
      raise("save: %s: an npy file has no metadata", path)
    end
    if not binding.is_tensor(tensors) then
      raise("save: %s: an npy file holds one tensor, got a %s", path, type(tensors))
    end
    return check(C.pn_npy_write(path, ptr(tensors)))
  end
  if extension == "npz" or extension == "pt" or extension == "pth" or extension == "ckpt" then
    raise("save: %s: safetensors and npy are written, not .%s", path, extension)
  end
  if binding.is_tensor(tensors) then
    raise("save: %s: tensors need names: { name = t } (one without a name is saved as .npy)", path)
  end
  if type(tensors) ~= "table" then
    raise("save: %s: expects a table of tensors, got %s", path, tensors == nil and "nothing" or "a " .. type(tensors))
  end
  for name in pairs(tensors) do
    if type(name) ~= "string" then
      raise("save: %s: tensors need names, '%s' is a %s", path, tostring(name), type(name))
    end
    if name:find("\0", 1, true) then
      raise("save: %s: the name of a tensor contains a NUL byte", path)
    end
  end
  local names, keys, values = sorted_keys(tensors), {}, {}
  for key, value in pairs(metadata or {}) do
    metadata_text(path, key, value)
  end
  keys = sorted_keys(metadata or keys)
  for i, key in ipairs(keys) do
    values[i] = metadata_text(path, key, metadata[key])
  end
  local pointers = tensors_type(math.max(#names, 1))
  for i, name in ipairs(names) do
    pointers[i - 1] = ptr(tensors[name], ("save: %s: %s"):format(path, name))
  end
  check(C.pn_safetensors_write(path, #names, strings(#names + 1, names), pointers, #keys, strings(#keys + 1, keys),
    strings(#keys + 1, values)))
end

--- The SHA-256, in hexadecimal, of a file (a path) or of the bytes of a tensor (last axis fastest).
function formats.sha256(what)
  local hex = ffi.new("char [65]")
  if binding.is_tensor(what) then
    check(C.pn_tensor_sha256(ptr(what), hex))
  else
    check(C.pn_sha256_file(named.text("sha256", what), hex))
  end
  return ffi.string(hex)
end

return formats
