-- formats_spec: files that other libraries wrote are read to the exact values, hostile and damaged ones are refused by name
-- and fault, and a write leaves the old file or the new one, never half of one.
local pn = require "penumbra"
local files = require "penumbra.base.files"
local ffi = require "ffi"
local bit = require "bit"
local lfs = require "lfs"
local formats = require "penumbra.formats"
local helper = require "spec.helper"

ffi.cdef "int compress(uint8_t *to, unsigned long *n_to, const uint8_t *from, unsigned long n_from);"
local zlib = ffi.load "z"

local FOREIGN = helper.shared "reference/formats"
local dir

local function temporary(name) return dir .. "/" .. name end

local function write(name, bytes)
  local path = temporary(name)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  return path
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read "*a"
  file:close()
  return bytes
end

local function foreign(name)
  if not FOREIGN then
    pending "no ../shared/reference/formats"
    return nil
  end
  return FOREIGN .. "/" .. name
end

local function bytes_of(n, width) -- little endian
  local out = {}
  for i = 1, width do
    out[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(out)
end

local function safetensors(header, data)
  return bytes_of(#header, 8) .. header .. (data or "")
end

local function fails(bytes, ...)
  local path = write("file.safetensors", bytes)
  return helper.failure(function() formats.load(path) end, path, ...)
end

before_each(function()
  dir = files.scratch()
end)

after_each(function() files.remove(dir) end)

-- ---- what the foreign files hold: ../shared/reference/formats/README.md ----------------------------------------------------

local base = {}
for i = 0, 1 do
  base[i + 1] = {}
  for j = 0, 2 do
    base[i + 1][j + 1] = {}
    for k = 0, 3 do base[i + 1][j + 1][k + 1] = i * 12 + j * 4 + k end
  end
end

local function map(values, f)
  if type(values) == "number" then return f(values) end
  local out = {}
  for i, value in ipairs(values) do out[i] = map(value, f) end
  return out
end

local conv = map(base, function(v) return v * 0.5 - 3 end)
local seven = { -2, -1.3333333333333333, -0.66666666666666663, 0, 0.66666666666666652, 1.333333333333333, 2 }
local transposed = {}
for k = 1, 4 do
  transposed[k] = {}
  for j = 1, 3 do transposed[k][j] = { base[1][j][k], base[2][j][k] } end
end

local pairs_of_rows = {}
for j = 1, 3 do pairs_of_rows[j] = { base[1][j], base[2][j] } end

local function same(t, dtype, expected, what)
  assert.equal(dtype, t:dtype(), what)
  assert.same(expected, t:dims() == 0 and t:item() or t:totable(), what)
end

-- The values of the state dict that three versions of PyTorch wrote.
local function check_state_dict(tensors, axes_swapped)
  same(tensors["conv.weight"], "f32", conv)
  if axes_swapped == "first and last" then same(tensors["view.transposed"], "f32", transposed)
  else same(tensors["view.transposed"], "f32", pairs_of_rows) end
  same(tensors["view.slice"], "f32", { base[1][2], base[2][2] })
  same(tensors.double, "f64", { 0, 0.25, 0.5, 0.75, 1 })
  same(tensors["bn.num_batches_tracked"], "i64", 7)
  same(tensors.u8, "u8", { 0, 1, 2, 3, 4, 5 })
  same(tensors.bool, "u8", { 1, 0, 1 })
  same(tensors.scalar, "f32", 3.25)
  helper.assert_shape(tensors.empty, 0, 3)
  assert.equal("f16", tensors.half:dtype())
  assert.equal("bf16", tensors.bf16:dtype())
  helper.assert_close(tensors.half, seven, 1e-3)
  helper.assert_close(tensors.bf16, seven, 4e-3)
  local n = 0
  for _ in pairs(tensors) do n = n + 1 end
  assert.equal(11, n)
end

describe("files of other libraries", function()
  it("safetensors: every element type, metadata with quotes and UTF-8", function()
    local path = foreign "good.safetensors"
    if not path then return end
    local tensors, metadata = formats.load(path)
    same(tensors["conv.weight"], "f32", conv)
    same(tensors.double, "f64", { 0, 0.25, 0.5, 0.75, 1 })
    same(tensors["bn.num_batches_tracked"], "i64", 7)
    same(tensors.i32, "i32", { -1, 2 })
    same(tensors.u8, "u8", { 0, 1, 2, 3, 4, 5 })
    same(tensors.bool, "u8", { 1, 0, 1 })
    helper.assert_shape(tensors.empty, 0, 3)
    helper.assert_close(tensors.half, seven, 1e-3)
    helper.assert_close(tensors.bf16, seven, 4e-3)
    assert.same({ note = "δ \"quoted\" \\ text", format = "pt" }, metadata)
  end)

  it("PyTorch, since 1.6 and before: shared storages, strides, every element type", function()
    if not foreign "state_dict_zip.pt" then return end
    check_state_dict(formats.load(foreign "state_dict_zip.pt"), "first and last")
    check_state_dict(formats.load(foreign "state_dict_legacy.pt"), "first and last")
    check_state_dict(formats.load(foreign "state_dict_torch2.pt"), "first two")
  end)

  it("PyTorch: finds the state dict in a checkpoint, keeps what stands beside it", function()
    local path = foreign "checkpoint_zip.pt"
    if not path then return end
    local tensors, metadata = formats.load(path)
    check_state_dict(tensors, "first and last")
    assert.same({ epoch = "12" }, metadata)
  end)

  it("NumPy: C and Fortran order, big endian, whole numbers", function()
    if not foreign "f32_c.npy" then return end
    same(formats.array(foreign "f32_c.npy"), "f32", base)
    same(formats.array(foreign "f32_fortran.npy"), "f32", base)
    same(formats.array(foreign "f64_be.npy"), "f64", { 0, 0.25, 0.5, 0.75, 1 })
    same(formats.array(foreign "i64.npy"), "i64", { -3, -2, -1, 0, 1, 2 })
    same(formats.array(foreign "u8.npy"), "u8", { { 0, 1, 2, 3 }, { 4, 5, 6, 7 }, { 8, 9, 10, 11 } })
    for _, name in ipairs { "many.npz", "many_deflate.npz" } do
      local tensors = formats.load(foreign(name))
      same(tensors.a, "f32", base)
      same(tensors.b, "i64", { 0, 1, 2, 3, 4 })
    end
  end)

  it("TensorFlow bundle: by its prefix or its index, 306 tensors, each against its CRC-32C", function()
    if not foreign "bundle.ckpt.index" then return end
    for _, name in ipairs { "bundle.ckpt", "bundle.ckpt.index" } do
      local tensors = formats.load(foreign(name))
      same(tensors["RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"], "f32", conv)
      same(tensors["RGB/inception_i3d/Conv3d_1a_7x7/batch_norm/beta"], "f32", { -1, -0.5, 0, 0.5, 1 })
      same(tensors.step, "i64", 7)
      same(tensors.double, "f64", { 0, 0.25, 0.5, 0.75, 1 })
      helper.assert_shape(tensors.empty, 0, 3)
      helper.assert_close(tensors.half, seven, 1e-3)
      for i = 0, 299 do same(tensors[("many/tensor_%03d/w"):format(i)], "f32", { i, i, i }) end
    end
    local archive = formats.open(foreign "bundle.ckpt")
    local w = "RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"
    assert.equal(archive:load(w):crc32c(), archive:crc32c(w))
    assert.equal(306, #archive.names)
  end)

  it("an index without its data lists names, sizes and checksums", function()
    local path = helper.shared "weights/rgb_scratch.ckpt.index"
    if not path then return pending "no ../shared/weights" end
    local archive = formats.open(path)
    assert.equal(230, #archive.names)
    local name = "RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"
    assert.same({ 7, 7, 7, 3, 64 }, archive:shape(name))
    assert.equal("f32", archive:dtype(name))
    assert.equal(0xb59b4ccd, archive:crc32c(name))
    helper.failure(function() archive:load(name) end, name, "cannot be read", ".data-00000-of-00001: cannot open")
  end)
end)

describe("hostile and damaged files of other libraries", function()
  local refused = {
    ["evil_backwards.safetensors"] = "tensor a ends (0) before it begins (16)",
    ["evil_deep_json.safetensors"] = "the header does not begin with {",
    ["evil_dtype.safetensors"] = "tensor a has the unknown element type F31",
    ["evil_duplicate.safetensors"] = "two tensors are named a",
    ["evil_empty.safetensors"] = "the file has 0 bytes, too few for a header",
    ["evil_header_past_end.safetensors"] = "the header reaches past the end of the file (5000 bytes of 81)",
    ["evil_header_too_long.safetensors"] = "the header says it has 1152921504606846976 bytes",
    ["evil_hole.safetensors"] = "a hole of 16 bytes before tensor b",
    ["evil_json.safetensors"] = "] expected at byte",
    ["evil_negative_shape.safetensors"] = "a size or an offset is negative",
    ["evil_offset_past_end.safetensors"] = "tensor a reaches past the end of the file",
    ["evil_overlap.safetensors"] = "tensor b overlaps another",
    ["evil_shape_overflow.safetensors"] = "tensor a: its shape overflows",
    ["evil_short.safetensors"] = "the file has 3 bytes, too few for a header",
    ["evil_size_mismatch.safetensors"] = "tensor a: its shape needs 36 bytes, its offsets give 16",
    ["evil_trailing.safetensors"] = "16 bytes follow the last tensor",
    ["evil_pickle.pt"] = "refuses global posix.system",
    ["evil_zip.pt"] = "refuses global posix.system",
    ["truncated_zip.pt"] = "the end of the archive is missing: the file is cut off",
    ["evil_bundle.ckpt.index"] = "tensor RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w: its CRC-32C does not match",
    ["bundle.ckpt.data-00000-of-00001"] = "name its .index file",
    ["README.md"] = "is no file of tensors",
  }
  for name, fault in pairs(refused) do
    it("refuses " .. name, function()
      local path = foreign(name)
      if path then helper.failure(function() formats.load(path) end, path, fault) end
    end)
  end

  it("knows every evil file there is", function()
    if not foreign "good.safetensors" then return end
    for name in lfs.dir(FOREIGN) do
      assert(not name:match "^evil" or refused[name] or name == "evil_bundle.ckpt.data-00000-of-00001", name)
    end
  end)

  it("runs nothing: the command in the evil pickles leaves no trace", function()
    if not foreign "evil_pickle.pt" then return end
    os.remove "/tmp/pwned"
    pcall(formats.load, foreign "evil_pickle.pt")
    pcall(formats.load, foreign "evil_zip.pt")
    assert.is_nil(lfs.attributes "/tmp/pwned")
  end)
end)

-- ---- safetensors, by hand --------------------------------------------------------------------------------------------------

describe("safetensors", function()
  local one = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
  local two = "\0\0\128\63\0\0\0\64" -- 1, 2

  it("reads the smallest file, blanks and escapes", function()
    local t = formats.load(write("a.safetensors", safetensors(' {} ' and '{ }', "")))
    assert.is_nil(next(t))
    local header = '{"\\u00e9\\ud83d\\ude00\\n" : { "shape" : [ 2 ] , "dtype":"F32","data_offsets":[0, 8] } }   '
    t = formats.load(write("b.safetensors", safetensors(header, two)))
    assert.same({ 1, 2 }, t["é😀\n"]:totable())
  end)

  it("widens i8, i16, u16 and u32", function()
    local header = '{"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U16","shape":[1],"data_offsets":[2,4]},' ..
      '"c":{"dtype":"U32","shape":[1],"data_offsets":[4,8]},"d":{"dtype":"I16","shape":[1],"data_offsets":[8,10]}}'
    local t = formats.load(write("a.safetensors", safetensors(header, "\255\2\255\255\255\255\255\255\254\255")))
    same(t.a, "i32", { -1, 2 })
    same(t.b, "i32", { 65535 })
    same(t.c, "i64", { 4294967295 })
    same(t.d, "i32", { -2 })
  end)

  it("lists what it cannot load, and says why", function()
    local header = '{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},' ..
      '"b":{"dtype":"U8","shape":[1,1,1,1,1,1,1],"data_offsets":[2,3]}}'
    local path = write("a.safetensors", safetensors(header, "123"))
    local archive = formats.open(path)
    assert.same({ "a", "b" }, archive.names)
    helper.failure(function() archive:load "a" end, path, "tensor a has the element type F8_E4M3, which no tensor has")
    helper.failure(function() archive:load "b" end, path, "tensor b has 7 axes; a tensor has at most 6")
    assert.equal("has the element type F8_E4M3, which no tensor has", archive:refusal "a")
    helper.failure(function() formats.load(path) end, path, "tensor a has the element type F8_E4M3, which no tensor has")
  end)

  it("loads what else is in a file with tensors that it cannot load, and tells of these once", function()
    local header = '{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},' ..
      '"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}'
    local path = write("some.safetensors", safetensors(header, "123"))
    local told, before = {}, io.stderr
    io.stderr = { write = function(_, ...) told[#told + 1] = table.concat { ... } end } -- luacheck: ignore
    local ok, tensors = pcall(formats.load, path)
    pcall(formats.load, path)
    io.stderr = before -- luacheck: ignore
    assert(ok, tensors)
    assert.is_nil(tensors.a)
    assert.same({ 51 }, tensors.b:totable())
    assert.same({ ("penumbra: %s: 1 of 2 tensors left out: a has the element type F8_E4M3, which no tensor has\n"):format(path) },
      told)
    local archive = formats.open(path)
    assert.is_nil(archive:refusal "b")
  end)

  it("refuses what the reference implementation refuses", function()
    local function header(text) return safetensors(text, two) end
    fails(header(one .. "x"), "the end of the header expected")
    fails(header(one:gsub('"F32"', '"F32","dtype":"F32"')), "tensor a has the key dtype twice")
    fails(header(one:gsub('"dtype":"F32",', "")), "tensor a lacks its dtype")
    fails(header(one:gsub('"shape":%[2%],', "")), "tensor a lacks its shape")
    fails(header(one:gsub(',"data_offsets":%[0,8%]', "")), "tensor a lacks its data_offsets")
    fails(header(one:gsub("%[0,8%]", "[0,8,9]")), "tensor a has 3 data offsets, not 2")
    fails(header(one:gsub("%[2%]", "[02]")), "a whole number expected")
    fails(header(one:gsub("%[2%]", "[2.0]")), "] expected")
    fails(header(one:gsub("%[2%]", "[99999999999999999999]")), "a size or an offset is too large")
    fails(header(one:gsub("}}", ',"extra":1}}')), "tensor a has the unknown key extra")
    fails(header(one:gsub('"a"', '"a\\x"')), "an escape expected")
    fails(header(one:gsub('"a"', '"a\\ud800"')), "a surrogate pair expected")
    fails(header(one:gsub('"a"', '"a\\ud800\\u0041"')), "a surrogate pair expected")
    fails(header(one:gsub('"a"', '"a\\u00g0"')), "a hexadecimal digit expected")
    fails(header(one:gsub('"a"', '"a\\u0000"')), "contains a NUL byte")
    fails(header(one:gsub('"a"', '"\255"')), "UTF-8 expected")
    fails(header(one:gsub('"a"', '"a\1"')), "the end of a string expected")
    fails(header(one:gsub("^{", '{"__metadata__":{"k":"v","k":"w"},')), "the metadata have the key k twice")
    fails(header(one:gsub("^{", '{"__metadata__":{},"__metadata__":{},')), "__metadata__ twice")
    fails(header(one:gsub("^{", '{"__metadata__":{"k":1},')), "a string expected")
    fails(header(one:gsub("^{", '{"__metadata__":{"k":"\\u0000"},')), "the metadata contain a NUL byte")
    fails(header(one:gsub("%[2%]", "[" .. ("1,"):rep(1001) .. "1]")), "fewer axes expected")
    fails(header(one:gsub("%[2%]", "[" .. ("1,"):rep(64) .. "2]")), "tensor a has 65 axes")
  end)

  it("survives every truncation and many flipped bytes of a good file", function()
    local whole = safetensors('{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},' ..
      '"b":{"dtype":"BOOL","shape":[],"data_offsets":[8,9]}}', two .. "\1")
    assert.truthy(formats.load(write("a.safetensors", whole)).b)
    for n = 0, #whole - 1 do
      assert(not pcall(formats.load, write("a.safetensors", whole:sub(1, n))), "accepted when cut to " .. n)
    end
    for i = 1, #whole do
      for _, mask in ipairs { 1, 128 } do
        local damaged = whole:sub(1, i - 1) .. string.char(bit.bxor(whole:byte(i), mask)) .. whole:sub(i + 1)
        pcall(formats.load, write("a.safetensors", damaged)) -- no crash; what is still well-formed may load
      end
    end
  end)
end)

-- ---- pickles, by hand: an opcode at a time --------------------------------------------------------------------------------

describe("pickles", function()
  local function text(s) return "X" .. bytes_of(#s, 4) .. s end
  local function global(module, name) return "c" .. module .. "\n" .. name .. "\n" end
  local minus_one = "J\255\255\255\255"
  local dtype = global("numpy", "dtype") .. text "f4" .. "\137\136\135R(K\3" .. text "<" .. "NNN" .. minus_one:rep(2) .. "K\0tb"
  local function array(shape, data, order)
    return global("numpy.core.multiarray", "_reconstruct") .. global("numpy", "ndarray") .. "K\0\133C\1b\135R(K\1" .. shape ..
      dtype .. (order or "\137") .. data .. "tb"
  end
  local two = "C\8\0\0\128\63\0\0\0\64"
  local function pickle(body) return "\128\2" .. body .. "." end
  local function load(body) return formats.load(write("a.pkl", pickle(body))) end
  local function refuses(body, ...)
    local path = write("a.pkl", pickle(body))
    helper.failure(function() formats.load(path) end, path, ...)
  end

  it("joins the keys of nested dictionaries with a slash", function()
    local list = "]" .. array("K\1K\2\134", two) .. "a"
    local t = load("}" .. text "p" .. "}" .. text "k" .. array("K\2\133", two) .. "ss" .. text "l" .. list .. "s")
    assert.same({ 1, 2 }, t["p/k"]:totable())
    assert.same({ { 1, 2 } }, t["l/0"]:totable())
    assert.same({ 1, 2 }, load(array("K\2\133", two)).data:totable())
  end)

  it("refuses every name that is not a tensor's", function()
    for _, name in ipairs {
      "os system", "builtins eval", "__builtin__ getattr", "torch._utils _rebuild_tensor_v3", "numpy load", "torch.nn Linear",
    } do
      local module, function_name = name:match "^(%S+) (%S+)$"
      refuses(global(module, function_name) .. ")R", ("refuses global %s.%s"):format(module, function_name))
      refuses(text(module) .. text(function_name) .. "\147)R", ("refuses global %s.%s"):format(module, function_name))
    end
    refuses("cos\nsys\27[31mtem\n)R", "refuses global os.sys?[31mtem") -- no control characters in a message
  end)

  it("refuses arguments that the known names never have", function()
    refuses(global("numpy", "dtype") .. ")R", "refuses a call of numpy.dtype")
    refuses(global("collections", "OrderedDict") .. "K\1\133R", "refuses a call of collections.OrderedDict")
    refuses(global("torch._utils", "_rebuild_tensor_v2") .. ")R", "refuses a call of torch._utils._rebuild_tensor_v2")
    refuses(global("numpy", "ndarray") .. ")R", "refuses a call of numpy.ndarray")
    refuses("K\1)R", "it calls what is no function")
    refuses(text "storage" .. "Q", "a reference is not to the storage of a tensor")
    refuses("}K\1b" .. text "x" .. "K\1b", "an object is given a state that it never has")
  end)

  it("refuses a damaged stack, memory or opcode", function()
    refuses("", "its stack is empty")
    refuses("K\1a", "its stack is empty")
    refuses("e", "a mark is missing")
    refuses("K\1K\2a", "items are added to what cannot hold them")
    refuses("}(K\1u", "items are added to what cannot hold them")
    refuses("(K\1d", "a key lacks its value")
    refuses("h\5", "it recalls what it never remembered")
    refuses("K\1r\255\255\255\255", "its memory is too large")
    refuses("P1\n", "refuses pickle opcode 0x50")
    refuses("\130\1", "refuses pickle opcode 0x82")
    refuses("\151", "its buffers are outside the pickle")
    refuses("\139\255\255\0\0", "a whole number is too long")
    refuses("K\1K\2\147", "a name is not text")
    refuses("c" .. ("m"):rep(300) .. "\nn\n", "a name is too long")
    refuses("X\255\255\255\255abc", "the pickle ends too soon")
    refuses("B\255\255\255\127abc", "the pickle ends too soon")
    refuses("\141" .. ("\255"):rep(8), "the pickle ends too soon")
    refuses("\128\9N", "pickle protocol 9; 2 to 5 are read")
  end)

  it("refuses arrays that do not fit their data", function()
    refuses(array("K\3\133", two), "tensor data: its data do not fit its shape")
    refuses(array(minus_one .. "\133", two), "tensor data: an impossible shape")
    refuses(array("(" .. ("\138\8\0\0\0\0\0\0\0\1"):rep(3) .. "t", two), "tensor data: an impossible shape")
    refuses(array("(" .. ("K\1"):rep(65) .. "t", two), "tensor data: an impossible shape")
    refuses("}" .. text "a" .. "K\1s", "no state dict is found; the keys are: a")
    refuses("K\1", "it holds no tensors")
    refuses("}" .. "N" .. array("K\2\133", two) .. "s", "is neither text nor a whole number")
    refuses("}" .. text "a\0b" .. array("K\2\133", two) .. "s", "contains a NUL byte")
    refuses("}" .. text(("n"):rep(5000)) .. array("K\2\133", two) .. "s", "the name of a tensor is too long")
    refuses("}" .. text "a" .. array("K\2\133", two) .. "s" .. text "a" .. array("K\2\133", two) .. "s", "two tensors are named a")
  end)

  it("refuses small files that stand for large trees", function()
    -- A list that holds itself.
    refuses("]q\0h\0a" .. array("K\2\133", two) .. "a", "dictionaries nest deeper than 32")
    -- Thirty dictionaries, each holding the one before twice: 2^30 arrays.
    local body = "}" .. text "x" .. array("K\2\133", two) .. "sq\0"
    for _ = 1, 30 do body = body .. "0}" .. text "a" .. "h\0s" .. text "b" .. "h\0s" .. "q\0" end
    refuses(body, "too many tensors: refused")
    refuses((body:gsub("}X\1%z%z%zx.-sq%z", "]q\0", 1)), "too many objects: refused") -- as many empty lists
    -- The same text encoded again and again.
    local big = global("_codecs", "encode") .. "q\1" .. text(("x"):rep(60000)) .. "q\2" .. text "latin1" .. "q\3"
    refuses(big .. ("h\1h\2h\3\134R0"):rep(5000) .. "N", "its objects need more than")
    -- One list of 100000 nothings, in 128 places.
    body = "](N" .. ("2"):rep(99999) .. "eq\0"
    for _ = 1, 7 do body = body .. "0]h\0ah\0aq\0" end
    refuses(body, "too many objects: refused")
    -- The same text under 2000 keys: of the array that it is there is one copy, and as metadata it is refused.
    local key = function(i) return text(("%04d"):format(i)) .. "h\1" end
    local many = {}
    for i = 1, 2000 do many[i] = key(i) end
    many = table.concat(many)
    local encoded = global("_codecs", "encode") .. text(("x"):rep(1e5)) .. text "latin1" .. "\134R"
    local wide = array("J" .. bytes_of(1e5, 4) .. "\133", encoded):gsub("f4", "u1")
    local before = pn.memory().live
    local archive = formats.open(write("a.pkl", pickle("}(" .. text "x" .. wide .. "q\1" .. many .. "u")))
    assert.equal(2001, #archive.names)
    assert(pn.memory().live - before < 1e6)
    assert.same({ 120, 120 }, { archive:load("x"):totable()[1], archive:load("1999"):totable()[1e5] })
    archive:close()
    local storage = "(" .. text "storage" .. global("torch", "ByteStorage") .. text "0" .. text "cpu" .. "K\2tQ"
    local tensor = global("torch._utils", "_rebuild_tensor_v2") .. "(" .. storage .. "K\0K\2\133K\1\133\137NtR"
    local function legacy(metadata)
      local root = "}(" .. text "state_dict" .. "}" .. text "w" .. tensor .. "s" .. metadata .. "u"
      return write("a.pt", pickle "\138\10\108\252\156\70\249\32\106\168\80\25" .. pickle "M\233\3" .. pickle "}" ..
        pickle(root) .. pickle("]" .. text "0" .. "a") .. bytes_of(2, 8) .. "ab")
    end
    local _, metadata = formats.load(legacy(text "note" .. text "short"))
    assert.same({ note = "short" }, metadata)
    local path = legacy(text "note" .. text(("x"):rep(1e5)) .. "q\1" .. many)
    helper.failure(function() formats.open(path) end, path, "its metadata need more than")
    -- Depth without end.
    refuses(("("):rep(5000000), "its stack is too deep")
    refuses("K\1" .. ("2"):rep(5000000), "its stack is too deep")
  end)

  it("survives every truncation and flipped byte", function()
    local whole = pickle("}" .. text "p" .. "}" .. text "k" .. array("K\2\133", two) .. "ss")
    for n = 0, #whole - 1 do
      assert(not pcall(formats.load, write("a.pkl", whole:sub(1, n))), "accepted when cut to " .. n)
    end
    for i = 1, #whole do
      for _, mask in ipairs { 1, 16, 255 } do
        pcall(formats.load, write("a.pkl", whole:sub(1, i - 1) .. string.char(bit.bxor(whole:byte(i), mask)) .. whole:sub(i + 1)))
      end
    end
  end)
end)

describe("TensorFlow bundles, by hand", function()
  local function checked(block) -- kind 0, then the masked CRC-32C
    local crc = pn.tensor({ (block .. "\0"):byte(1, -1) }, { dtype = "u8" }):crc32c()
    local rotated = bit.bor(bit.rshift(crc, 15), bit.lshift(crc, 17)) % 2 ^ 32
    return block .. "\0" .. bytes_of((rotated + 0xa282ead8) % 2 ^ 32, 4)
  end
  local function entry(key, value) return "\0" .. string.char(#key, #value) .. key .. value end
  local restart = bytes_of(0, 4) .. bytes_of(1, 4)
  local function index(n_times) -- a block with the header, then an empty one, met so many times
    local first, empty = entry("", "\8\1") .. restart, restart
    local bytes = checked(first) .. checked(empty)
    local handles = entry("a", string.char(0, #first))
      .. entry("b", string.char(#first + 5, #empty)):rep(n_times)
    local table_of = handles .. restart
    local footer = string.char(0, 0, #bytes, #table_of)
    return bytes .. checked(table_of) .. footer .. ("\0"):rep(40 - #footer) .. "\87\251\128\139\36\117\71\219"
  end

  it("refuses an index that names a block twice", function()
    assert.same({}, formats.open(write("a.index", index(1))).names)
    local path = write("a.index", index(2))
    helper.failure(function() formats.open(path) end, path, "the blocks of the index are not in order")
  end)
end)

describe("damage", function()
  -- A counter-based stream chooses the byte: the same damage on every machine.
  local function damaged(bytes, rng)
    local kind, at = rng:integer(1, 3), rng:integer(1, #bytes)
    if kind == 1 then return bytes:sub(1, at - 1) end
    if kind == 2 then return bytes:sub(1, at - 1) .. string.char(rng:integer(0, 255)) .. bytes:sub(at + 1) end
    return bytes:sub(1, at - 1) .. string.char(bit.bxor(bytes:byte(at), 2 ^ rng:integer(0, 7))) .. bytes:sub(at + 1)
  end

  for _, name in ipairs {
    "state_dict_zip.pt", "state_dict_legacy.pt", "checkpoint_zip.pt", "many.npz", "many_deflate.npz", "f32_fortran.npy",
    "bundle.ckpt.index",
  } do
    it("of " .. name .. " never crashes, and checksums find it", function()
      local path = foreign(name)
      if not path then return end
      local bytes, rng = read(path), pn.random.stream(11, name)
      if name:match "index$" then write("b.ckpt.data-00000-of-00001", read(foreign "bundle.ckpt.data-00000-of-00001")) end
      for _ = 1, 150 do
        local copy = write(name:match "index$" and "b.ckpt.index" or "a", damaged(bytes, rng))
        local ok, problem = pcall(formats.load, copy)
        if not ok then assert(tostring(problem):find(copy:gsub("%.index$", ""), 1, true), problem) end
      end
    end)
  end

  it("of a bundle's index is found by the CRC-32C of its blocks", function()
    local path = foreign "bundle.ckpt.index"
    if not path then return end
    local bytes = read(path)
    local copy = write("b.ckpt.index", bytes:sub(1, 99) .. string.char(bit.bxor(bytes:byte(100), 4)) .. bytes:sub(101))
    helper.failure(function() formats.open(copy) end, copy, "the CRC-32C of a block of the index does not match")
  end)

  it("of a stored or deflated member is found by its CRC-32", function()
    for _, name in ipairs { "many.npz", "many_deflate.npz" } do
      local path = foreign(name)
      if not path then return end
      local bytes = read(path)
      local copy = write("a.npz", bytes:sub(1, 100) .. string.char(bit.bxor(bytes:byte(101), 1)) .. bytes:sub(102))
      helper.failure(function() formats.load(copy) end, copy, "member a.npy")
    end
  end)
end)

-- ---- npy and zip, by hand --------------------------------------------------------------------------------------------------

describe("npy", function()
  local function npy(header, data, version)
    header = header .. "\n"
    return "\147NUMPY" .. string.char(version or 1) .. "\0" .. bytes_of(#header, version == 2 and 4 or 2) .. header .. (data or "")
  end
  local two = "\0\0\128\63\0\0\0\64"
  local function refuses(bytes, ...)
    local path = write("a.npy", bytes)
    helper.failure(function() formats.load(path) end, path, ...)
  end

  it("reads versions 1 and 2, any order of keys, and what Python 2 wrote", function()
    same(formats.array(write("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", two))), "f32", { 1, 2 })
    same(formats.array(write("a.npy", npy('{"shape": (2L,), "fortran_order": False, "descr": "<f4"}', two, 2))), "f32", { 1, 2 })
    same(formats.array(write("a.npy", npy("{'descr': '>i2', 'fortran_order': True, 'shape': ()}", "\255\254"))), "i32", -2)
  end)

  it("refuses what NumPy does not write", function()
    refuses(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", two), "tensor data reaches past the end of its data")
    refuses(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4), }", two), "impossible shape")
    refuses(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }"), "is not one that NumPy writes")
    refuses(npy("{'descr': '<f4', 'fortran_order': maybe, 'shape': (2,), }", two), "is not one that NumPy writes")
    refuses(npy("{'descr': '<f4', 'shape': (2,), }", two), "is not one that NumPy writes")
    refuses(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", two), "holds records, not numbers")
    refuses(npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", two), "has the element type <c8, which no tensor has")
    refuses("\147NUMPY\9\0" .. ("x"):rep(20), "is not an npy file of version 1, 2 or 3")
    refuses("\147NUMPY\1\0\255\255" .. ("x"):rep(20), "reaches past its end")
  end)
end)

describe("zip", function()
  -- One member, stored, without the right to be anything; copies of it follow it, or with shared are the same bytes.
  local function zip(name, data, change)
    local m = { flags = 0, method = 0, packed = #data, size = #data, crc = 0, offset = 0, members = 1, directory = nil }
    for key, value in pairs(change or {}) do m[key] = value end
    local sizes = bytes_of(m.crc, 4) .. bytes_of(m.packed, 4) .. bytes_of(m.size, 4)
    local common = bytes_of(m.flags, 2) .. bytes_of(m.method, 2) .. "\0\0\0\0" .. sizes .. bytes_of(#name, 2)
    local first = "PK\3\4\20\0" .. common .. "\0\0" .. name .. data
    local central = ""
    for i = 1, m.copies or 1 do
      local offset = m.offset + (m.shared and 0 or (i - 1) * #first)
      local named = m.shared and name:gsub("^.", tostring(i % 10)) or name
      central = central .. "PK\1\2\20\0\20\0" .. common .. ("\0"):rep(12) .. bytes_of(offset, 4) .. named
    end
    first = first:rep(m.shared and 1 or m.copies or 1)
    return first .. central .. "PK\5\6\0\0\0\0" .. bytes_of(m.members, 2):rep(2) .. bytes_of(#central, 4) ..
      bytes_of(m.directory or #first, 4) .. "\0\0"
  end
  local function refuses(bytes, ...)
    local path = write("a.npz", bytes)
    helper.failure(function() formats.load(path) end, path, ...)
  end
  local header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n"
  local npy = "\147NUMPY\1\0" .. bytes_of(#header, 2) .. header .. "\5\6"

  it("reads a stored member", function()
    same(formats.load(write("a.npz", zip("x.npy", npy))).x, "u8", { 5, 6 })
  end)

  it("refuses what it cannot trust", function()
    refuses(zip("x.npy", npy, { flags = 1 }), "member x.npy is encrypted")
    refuses(zip("x.npy", npy, { method = 12 }), "member x.npy is packed by method 12")
    refuses(zip("x.npy", npy, { size = 10 }), "its directory is damaged or cut off")
    refuses(zip("x.npy", npy, { offset = 5 }), "its directory is damaged or cut off")
    refuses(zip("x.npy", npy, { directory = 2 ^ 31 }), "its directory is damaged or cut off")
    refuses(zip("x.npy", npy, { members = 50 }), "its directory is damaged or cut off")
    refuses(zip("x.npy", npy, { crc = 77 }), "member x.npy: its CRC-32 does not match")
    refuses(zip("x.npy", npy, { method = 8, size = 2 ^ 31 }), "refused")
    refuses(zip("x.npy", npy, { method = 8, size = 200 }), "member x.npy")
    refuses(zip("x.npy", npy, { copies = 2, members = 2 }), "two tensors are named x")
    refuses(zip("x.npy", npy, { copies = 2, members = 2, shared = true }), "the members 1.npy and 2.npy overlap")
    refuses(zip("x.txt", "hello"), "neither an npz")
    refuses(zip("m/data.pkl", "\128\2N."), "it holds no tensors")
    -- A pickle of 8 KB, packed, that unpacks to 8 MB and then asks for 160 MB.
    local text = "X" .. bytes_of(8e6, 4) .. ("x"):rep(8e6)
    local whole = "\128\2c_codecs\nencode\nq\1" .. text .. "q\2X\6\0\0\0latin1q\3" .. ("h\1h\2h\3\134R0"):rep(19) .. "N."
    local n, packed = ffi.new("unsigned long [1]", #whole), ffi.new("uint8_t [?]", #whole)
    assert(zlib.compress(packed, n, whole, #whole) == 0)
    local raw = ffi.string(packed, n[0]):sub(3, -5)
    refuses(zip("m/data.pkl", raw, { method = 8, size = #whole }), "its objects need more than")
    refuses(zip("m/data.pkl", "\128\2N.", { copies = 2, members = 2 }), "there are two members named data.pkl")
  end)
end)

-- ---- opening and asking ----------------------------------------------------------------------------------------------------

describe("PyTorch", function()
  -- The legacy format: five pickles, then the one storage, a float; `offset`, `shape` and `stride` as pickled.
  local function legacy(offset, shape, stride)
    local function text(s) return "X" .. bytes_of(#s, 4) .. s end
    local storage = "(" .. text "storage" .. "ctorch\nFloatStorage\n" .. text "0" .. text "cpu" .. "K\1NtQ"
    local tensor = "ctorch._utils\n_rebuild_tensor_v2\n(" .. storage .. offset .. shape .. stride ..
      "\137ccollections\nOrderedDict\n)RtR"
    local parts = { "\138\10\108\252\156\70\249\32\106\168\80\25", "M\233\3", "}", "}" .. text "w" .. tensor .. "s",
                    "]" .. text "0" .. "a" }
    return "\128\2" .. table.concat(parts, ".\128\2") .. "." .. bytes_of(1, 8) .. "\0\0\192\63"
  end

  it("an empty part of a tensor may begin behind its storage, one with elements not", function()
    same(formats.load(write("a.pt", legacy("K\0", "K\1K\1\134", "K\1K\1\134"))).w, "f32", { { 1.5 } })
    helper.assert_shape(formats.load(write("a.pt", legacy("K\5", "K\0K\5\134", "K\5K\1\134"))).w, 0, 5)
    local path = write("a.pt", legacy("K\1", "K\1K\1\134", "K\1K\1\134"))
    helper.failure(function() formats.load(path) end, path, "tensor w reaches past the end of its data")
  end)
end)

describe("open", function()
  it("says what is wrong with a path", function()
    helper.failure(function() formats.open(temporary "nothing") end, "nothing: cannot open: No such file")
    helper.failure(function() formats.open(dir) end, dir, "is a directory, not a file")
    helper.failure(function() formats.open "/dev/zero" end, "/dev/zero: is a device or pipe, not a file")
    helper.failure(function() formats.open(write("empty", "")) end, "empty: is empty")
    helper.failure(function() formats.open() end, "open: expects a path, got nothing")
    helper.failure(function() formats.load(7) end, "open: expects a path, got a number")
  end)

  it("guesses the tensor that was meant, and knows when it is closed", function()
    local path = temporary "a.safetensors"
    formats.save(path, { ["conv.weight"] = pn.zeros { 2, 3 } })
    local archive = formats.open(path)
    assert.truthy(archive:has "conv.weight")
    assert.falsy(archive:has "conv.bias")
    assert.is_nil(archive:crc32c "conv.weight")
    helper.failure(function() archive:load "conv.wieght" end, path, "there is no tensor 'conv.wieght', did you mean 'conv.weight'?")
    archive:close()
    helper.failure(function() archive:load "conv.weight" end, path, "the file is closed")
    formats.save(path, { a = pn.zeros { 1 }, b = pn.zeros { 1 } })
    helper.failure(function() formats.array(path) end, path, "holds 2 tensors, expected one")
  end)
end)

-- ---- writing ---------------------------------------------------------------------------------------------------------------

describe("save", function()
  it("keeps every element type, shape, name and metadata to the bit", function()
    local path, tensors = temporary "a.safetensors", {}
    for _, dtype in ipairs { "f32", "f64", "f16", "bf16", "i64", "i32", "u8" } do
      tensors["t." .. dtype] = helper.random({ 3, 5 }, dtype, 0, 100, "f32"):cast(dtype)
    end
    tensors.scalar, tensors.empty = pn.tensor(3.25), pn.zeros { 0, 3 }
    tensors['é "\\\n'] = pn.ones { 2 }
    formats.save(path, tensors, { text = 'δ "quoted" \\\n', number = 0.1, yes = true })
    local back, metadata = pn.load(path)
    for name, t in pairs(tensors) do helper.assert_same_bits(t, back[name], name) end
    for name in pairs(back) do assert.truthy(tensors[name], name) end
    assert.same({ text = 'δ "quoted" \\\n', number = "0.10000000000000001", yes = "true" }, metadata)
  end)

  it("writes any memory order as rows, and the same bytes for the same contents", function()
    local x = helper.random({ 2, 3, 2, 2, 2 }, "x")
    local like = pn.empty { 2, 3, 2, 2, 2, layout = "channels_last" }
    like:copy(x)
    formats.save(temporary "a.safetensors", { x = x, y = pn.ones { 1 } })
    formats.save(temporary "b.safetensors", { y = pn.ones { 1 }, x = like })
    assert.equal(read(temporary "a.safetensors"), read(temporary "b.safetensors"))
    local data_bytes = 25 * pn.C.pn_dtype_bytes(pn.C.pn_real())
    assert.equal(0, (#read(temporary "a.safetensors") - data_bytes) % 8) -- where the data begin
    formats.save(temporary "a.npy", like)
    helper.assert_same_bits(x, formats.array(temporary "a.npy"))
  end)

  it("writes npy that reads back, of every shape", function()
    local cases = { f32 = {}, f64 = { 5 }, f16 = { 2, 3 }, i64 = { 0, 4 }, i32 = { 1, 2, 3, 4, 5, 6 }, u8 = { 7, 1 } }
    for dtype, shape in pairs(cases) do
      local t = helper.random(shape, "npy", 0, 100, "f32"):cast(dtype)
      formats.save(temporary "a.npy", t)
      helper.assert_same_bits(t, formats.array(temporary "a.npy"))
      assert.equal(0, (#read(temporary "a.npy") - t:count() * pn.C.pn_dtype_bytes(pn.ffi.dtype_numbers[dtype])) % 64)
    end
  end)

  it("replaces what a link points at, not the link", function()
    formats.save(temporary "a.safetensors", { x = pn.ones { 1 } })
    assert(lfs.link(temporary "a.safetensors", temporary "link.safetensors", true))
    formats.save(temporary "link.safetensors", { x = pn.full { 1, value = 7 } })
    assert.equal("link", lfs.symlinkattributes(temporary "link.safetensors", "mode"))
    assert.equal(7, pn.load(temporary "a.safetensors").x:item())
  end)

  it("says what it cannot write", function()
    local path, x = temporary "a.safetensors", pn.ones { 1 }
    helper.failure(function() formats.save() end, "save: expects a path, got nothing")
    helper.failure(function() formats.save("", { x = x }) end, "cannot write: the path is empty")
    helper.failure(function() formats.save(path) end, path, "expects a table of tensors, got nothing")
    helper.failure(function() formats.save(path, pn.ones { 1 }) end, path, "tensors need names: { name = t }")
    helper.failure(function() formats.save(path, { x }) end, path, "tensors need names, '1' is a number")
    helper.failure(function() formats.save(path, { x = 3 }) end, path, "x: expected a tensor, got number")
    helper.failure(function() formats.save(path, { ["a\0b"] = x }) end, path, "contains a NUL byte")
    helper.failure(function() formats.save(path, { ["\255"] = x }) end, path, "is not UTF-8")
    helper.failure(function() formats.save(path, { __metadata__ = x }) end, path, "no tensor may be named __metadata__")
    helper.failure(function() formats.save(path, { x = x }, { a = {} }) end, path,
      "metadata 'a' is a table, expects text, a number or a boolean")
    helper.failure(function() formats.save(path, { x = x }, { "v" }) end, path, "a key of the metadata is a number, expects text")
    helper.failure(function() formats.save(path, { x = x }, { a = "\0" }) end, path, "metadata 'a' contains a NUL byte")
    helper.failure(function() formats.save(temporary "a.pt", { x = x }) end, "safetensors and npy are written, not .pt")
    helper.failure(function() formats.save(temporary "a.npy", { x = x }) end, "an npy file holds one tensor, got a table")
    helper.failure(function() formats.save(temporary "a.npy", x, {}) end, "an npy file has no metadata")
    helper.failure(function() formats.save(temporary "a.npy", x:cast "bf16") end, "cannot write: NumPy has no bf16")
    assert.is_nil(lfs.attributes(path))
  end)

  it("leaves no file, and no other, where it cannot write", function()
    local x = { x = pn.ones { 1 } }
    helper.failure(function() formats.save(temporary "no/a.safetensors", x) end,
      "no/a.safetensors: cannot write: No such file or directory")
    helper.failure(function() formats.save(dir, x) end, dir, "cannot write: it is a directory")
    helper.failure(function() formats.save("/dev/full", x) end, "/dev/full: cannot write: it is not a regular file")
    helper.failure(function() formats.save("/proc/penumbra.safetensors", x) end, "/proc/penumbra.safetensors: cannot write: ")
    for name in lfs.dir(dir) do assert(name == "." or name == "..", name) end
  end)

  it("leaves the old file whole when the disk is full", function()
    local path = temporary "a.safetensors"
    formats.save(path, { x = pn.full { 1, value = 5 } })
    -- A limit on the size of files stands in for a full disk: the write fails in the middle.
    ffi.cdef [[
      typedef struct pn_spec_limit { unsigned long now, most; } pn_spec_limit;
      int getrlimit(int what, pn_spec_limit *limit);
      int setrlimit(int what, const pn_spec_limit *limit);
      void (*signal(int number, void (*handler)(int)))(int);
    ]]
    local FSIZE, XFSZ = 1, 25
    local before, small = ffi.new "pn_spec_limit", ffi.new "pn_spec_limit"
    ffi.C.getrlimit(FSIZE, before)
    small.now, small.most = 100000, before.most
    local handler = ffi.C.signal(XFSZ, ffi.cast("void (*)(int)", 1)) -- ignored: write() then fails with EFBIG
    ffi.C.setrlimit(FSIZE, small)
    local ok, problem = pcall(formats.save, path, { x = pn.zeros { 1000000, dtype = "f32" } })
    ffi.C.setrlimit(FSIZE, before)
    ffi.C.signal(XFSZ, handler)
    assert.falsy(ok)
    assert(problem:find(path .. ": cannot write: File too large", 1, true), problem)
    assert.equal(5, pn.load(path).x:item())
    for name in lfs.dir(dir) do assert(name == "." or name == ".." or name == "a.safetensors", name) end
  end)
end)

-- ---- memory ----------------------------------------------------------------------------------------------------------------

describe("when memory runs out", function()
  -- The nth allocation fails, for every n that there is: each time an error, nothing lost, nothing half-written.
  local function each_failure(f)
    for n = 1, 2000 do
      pn.C.pn_debug_fail_alloc(n)
      local ok, problem = pcall(f)
      local spent = ok
      pn.C.pn_debug_fail_alloc(0)
      if spent then return n end
      assert(tostring(problem):find "memory", problem)
    end
    error "it never succeeded"
  end

  it("reading fails cleanly", function()
    local names = { "good.safetensors", "state_dict_zip.pt", "state_dict_legacy.pt", "many_deflate.npz", "f32_fortran.npy" }
    for _, name in ipairs(names) do
      local path = foreign(name)
      if not path then return end
      collectgarbage()
      local live = pn.memory().live
      assert.truthy(each_failure(function() pn.scope(function() formats.load(path) end) end) > 3)
      collectgarbage()
      assert.equal(live, pn.memory().live)
    end
  end)

  it("writing fails cleanly and keeps the old file", function()
    local path, x = temporary "a.safetensors", pn.empty { 1, 2, 1, 1, 2, layout = "channels_last" }:fill(3)
    formats.save(path, { x = pn.ones { 1 } })
    local before = read(path)
    each_failure(function()
      local ok, problem = pcall(formats.save, path, { x = x, y = pn.C and x }, { k = "v" })
      if not ok then
        assert.equal(before, read(path))
        error(problem, 0)
      end
    end)
    assert.equal(3, pn.load(path).y:get(1, 1, 1, 1, 1))
    for name in lfs.dir(dir) do assert(name == "." or name == ".." or name == "a.safetensors", name) end
  end)
end)

describe("sums", function()
  it("SHA-256 as FIPS 180-4 has it, of files and tensors", function()
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", formats.sha256(write("a", "abc")))
    assert.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", formats.sha256(write("a", "")))
    assert.equal("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
      formats.sha256(write("a", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")))
    assert.equal("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", formats.sha256(write("a", ("a"):rep(1000000))))
    assert.equal(formats.sha256(write("a", "abc")), formats.sha256(pn.tensor({ 97, 98, 99 }, { dtype = "u8" })))
    helper.failure(function() formats.sha256(temporary "none") end, "none: cannot open")
  end)

  it("CRC-32C as RFC 3720 has it", function()
    assert.equal(0xE3069283, tonumber(pn.C.pn_crc32c(0, "123456789", 9)))
    assert.equal(0x8A9136AA, tonumber(pn.C.pn_crc32c(0, ("\0"):rep(32), 32)))
    assert.equal(0x62A8AB43, tonumber(pn.C.pn_crc32c(0, ("\255"):rep(32), 32)))
    assert.equal(0xE3069283, tonumber(pn.C.pn_crc32c(pn.C.pn_crc32c(0, "1234", 4), "56789", 5)))
    local x = helper.random({ 2, 3, 2, 2, 2 }, "crc")
    local like = pn.empty { 2, 3, 2, 2, 2, layout = "channels_last" }
    assert.equal(x:crc32c(), like:copy(x):crc32c())
  end)
end)
