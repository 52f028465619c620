--- The C library as Lua sees it: finds it, hands its public header to LuaJIT, and turns failures into errors.
--
--     local binding = require "penumbra.ffi"
--     local C, check, wrap = binding.C, binding.check, binding.wrap
--     local out = binding.out()                       -- a fresh pn_tensor *[1]
--     check(C.pn_tensor_cast(out, binding.ptr(t), C.PN_U8))
--     return wrap(out[0])                             -- a handle that owns the reference
--
-- A tensor handle is a C struct of one pointer whose finalizer drops a reference; `penumbra.tensor` gives it its methods.

local ffi = require "ffi"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"

local binding = {}

local function readable(path)
  local file = io.open(path, "r")
  if file then
    file:close()
    return path
  end
end

-- .../lua/penumbra/ffi.lua -> ...; the source tree, or share/penumbra of an installation.
local here = debug.getinfo(1, "S").source:match("^@(.*)$") or ""
local lua_directory = here:match("^(.*)/penumbra/ffi%.lua$") or "lua"
local root = lua_directory:match("^(.*)/lua$") or "."
if lua_directory == "lua" then
  root = "."
end

--- The directory that holds lua/, models/ and recipes/.
binding.root = root

local function find_header()
  local tried = { root .. "/core/penumbra.h", root .. "/penumbra.h", root .. "/../../include/penumbra.h" }
  for _, path in ipairs(tried) do
    if readable(path) then
      return path
    end
  end
  error("penumbra: cannot find penumbra.h; looked at " .. table.concat(tried, ", "), 0)
end

local function find_library()
  local chosen = os.getenv("PENUMBRA_LIB")
  if chosen and chosen ~= "" then
    return chosen
  end
  for _, path in ipairs { root .. "/build/libpenumbra.so", root .. "/../../lib/libpenumbra.so" } do
    if readable(path) then
      return path
    end
  end
  return "penumbra" -- where the system's loader looks
end

--- The declarations of the public header: without preprocessor lines and what only C++ reads.
local function declarations(path)
  local file = assert(io.open(path, "r"))
  local text = file:read("*a")
  file:close()
  text = text:gsub("#ifdef __cplusplus.-#endif[^\n]*\n", "\n")
  text = ("\n" .. text):gsub("\n#[^\n]*", "\n")
  text = text:gsub("PN_API", ""):gsub("PN_CHECKED", "")
  return text
end

binding.header_path = find_header()
binding.library_path = find_library()
ffi.cdef(declarations(binding.header_path))
ffi.cdef "typedef struct pn_ref { pn_tensor *p; double scope; } pn_ref;"

local ok, library = pcall(ffi.load, binding.library_path)
if not ok then
  error(("penumbra: cannot load libpenumbra: %s (build it, or set PENUMBRA_LIB)"):format(library), 0)
end

--- The functions and constants of penumbra.h.
binding.C = library
local C = library

-- A variant that does not exist, or that this CPU cannot run, must not be passed over in silence. A worker finds it chosen.
local variant = not package.loaded["penumbra.in_worker"] and os.getenv("PENUMBRA_CPU")
if variant and variant ~= "" and C.pn_set_cpu_variant(variant) ~= 0 then
  error("PENUMBRA_CPU: " .. ffi.string(C.pn_error()), 0)
end

--- The C type of a tensor handle.
local Ref = ffi.typeof("pn_ref")
binding.Ref = Ref

--- Is this value a tensor handle?
function binding.is_tensor(value)
  return ffi.istype(Ref, value)
end
scope.is_tensor = binding.is_tensor

--- The message of the last failure in C on this thread.
function binding.message()
  return ffi.string(C.pn_error())
end

--- Raises the message of C when rc is not 0: at the user's line, or at `level` (1 is the caller of check) when given.
function binding.check(rc, level)
  if rc ~= 0 then
    if level then
      error(binding.message(), level + 1)
    end
    raise(binding.message())
  end
end

local notice = ffi.new "char [320]"

--- Writes on stderr, a line each and each once, what the library has to tell though nothing failed. Called after operations.
function binding.heed()
  while C.pn_take_notice(notice, 320) ~= 0 do
    io.stderr:write("penumbra: ", ffi.string(notice), "\n")
  end
end

local told = {}

--- The same for what this package has to tell.
-- @tparam string text
function binding.tell(text)
  if not told[text] then
    told[text] = true
    io.stderr:write("penumbra: ", text, "\n")
  end
end

local out_type = ffi.typeof("pn_tensor *[1]")

--- A fresh place for a function to leave a tensor in.
function binding.out()
  return out_type()
end

--- A handle that owns the reference p, listed in the current scope.
-- @return the handle; nil when p is NULL
function binding.wrap(p)
  if p == nil then
    return nil
  end
  local handle = Ref(p, 0)
  scope.adopt(handle)
  return handle
end

local function used_after_scope()
  raise("tensor used after its scope ended (return it from the scope or :keep() it)")
end

--- The `pn_tensor *` of a handle.
-- @param t a tensor
-- @tparam ?string what the argument it stands for, for the message
function binding.ptr(t, what)
  if not ffi.istype(Ref, t) then
    raise("%sexpected a tensor, got %s", what and what .. ": " or "", t == nil and "nil" or type(t))
  end
  local p = t.p
  if p == nil then
    used_after_scope()
  end
  return p
end

local dtype_names, dtype_numbers = {}, {}
for i = 0, tonumber(ffi.cast("int", C.PN_N_DTYPES)) - 1 do
  local name = ffi.string(C.pn_dtype_name(i))
  dtype_names[i] = name
  dtype_numbers[name] = i
end

-- Element types: number to name, and name to number.
binding.dtype_names, binding.dtype_numbers = dtype_names, dtype_numbers

--- The name of the element type that operations compute in: "f32", or "f64" in the f64 build.
binding.real = dtype_names[tonumber(ffi.cast("int", C.pn_real()))]

--- "cpu", "cuda" or "cuda:1" to the number of the device; raises on anything else.
function binding.device(name)
  if name == nil or name == "cpu" then
    return 0
  end
  if name == "cuda" then
    return 1
  end
  local index = type(name) == "string" and name:match("^cuda:(%d+)$")
  if not index then
    raise("unknown device %s (expects \"cpu\", \"cuda\" or \"cuda:N\")",
      type(name) == "string" and ("%q"):format(name) or tostring(name))
  end
  return 1 + tonumber(index)
end

--- The name of a device number.
function binding.device_name(device)
  return device == 0 and "cpu" or "cuda:" .. (device - 1)
end

return binding
