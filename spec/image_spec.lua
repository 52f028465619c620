-- Images, masks and clips: core/vision through penumbra.image. PNG files of every kind are put together here, byte by byte, so
-- that the decoder is judged by the format and not by its own encoder.

local ffi = require "ffi"
local lfs = require "lfs"
local pn = require "penumbra"
local disk = require "penumbra.base.files"
local helper = require "spec.helper"

local image = pn.image

ffi.cdef [[
int compress(uint8_t *to, unsigned long *n_to, const uint8_t *from, unsigned long n_from);
unsigned long crc32(unsigned long crc, const uint8_t *data, unsigned int n);
]]
local zlib = ffi.load "z"

local directory = helper.directory(teardown)
local function path(name)
  return directory .. "/" .. name
end

local function save(name, bytes)
  local file = assert(io.open(path(name), "wb"))
  file:write(bytes)
  file:close()
  return path(name)
end

local function load_bytes(name)
  local file = assert(io.open(name, "rb"))
  local bytes = file:read "*a"
  file:close()
  return bytes
end

local function be32(v)
  return string.char(math.floor(v / 2 ^ 24) % 256, math.floor(v / 2 ^ 16) % 256, math.floor(v / 256) % 256, v % 256)
end

local function chunk(kind, data)
  return be32(#data) .. kind .. data .. be32(tonumber(zlib.crc32(0, kind .. data, #data + 4)))
end

local function compressed(bytes)
  local n = ffi.new("unsigned long [1]", #bytes + 200)
  local packed = ffi.new("uint8_t [?]", #bytes + 200)
  assert(zlib.compress(packed, n, bytes, #bytes) == 0)
  return ffi.string(packed, n[0])
end

-- A PNG of these rows (strings of packed bytes), each with filter 0.
local function png(width, height, depth, colour_type, rows, extra)
  local raw = {}
  for i, row in ipairs(rows) do
    raw[i] = "\0" .. row
  end
  local header = be32(width) .. be32(height) .. string.char(depth, colour_type, 0, 0, 0)
  local data = compressed(table.concat(raw))
  return "\137PNG\r\n\26\n" .. chunk("IHDR", header) .. (extra or "") .. chunk("IDAT", data) .. chunk("IEND", "")
end

local function u8(values)
  return pn.tensor(values, { dtype = "u8" })
end

local function random_mask(h, w, name, p)
  local t = helper.random({ h, w }, name, 0, 1)
  local mask = pn.zeros { h, w, dtype = "u8" }
  local from, to = t:data(), mask:data()
  for i = 0, h * w - 1 do
    to[i] = from[i] < p and 1 or 0
  end
  return mask
end

-- Values of a mask by y, x from 0; nil outside.
local function reader(mask)
  local data, h, w = mask:data(), mask:size(1), mask:size(2)
  return function(y, x)
    if y >= 0 and y < h and x >= 0 and x < w then
      return data[y * w + x]
    end
  end, h, w
end

describe("reading masks", function()
  it("keeps the indices of a palette", function()
    local palette = chunk("PLTE", "\0\0\0" .. "\200\0\0" .. "\0\200\0" .. "\9\9\9")
    local file = save("p8.png", png(3, 2, 8, 3, { "\0\1\2", "\3\2\0" }, palette))
    assert.same({ { 0, 1, 2 }, { 3, 2, 0 } }, image.read_mask(file):totable())
  end)

  it("unpacks palettes and grey of less than 8 bits", function()
    local palette = chunk("PLTE", ("\1\2\3"):rep(16))
    local four = chunk("PLTE", ("\1\2\3"):rep(4))
    assert.same({ { 1, 15, 4 } }, image.read_mask(save("p4.png", png(3, 1, 4, 3, { "\31\64" }, palette))):totable())
    assert.same({ { 3, 0, 1, 2, 3 } }, image.read_mask(save("p2.png", png(5, 1, 2, 3, { "\198\192" }, four))):totable())
    assert.same({ { 1, 0, 1, 0, 0, 0, 0, 0, 1 } }, image.read_mask(save("g1.png", png(9, 1, 1, 0, { "\160\128" }))):totable())
    assert.same({ { 1, 0, 1 } }, image.read_mask(save("g4w.png", png(3, 1, 4, 0, { "\240\240" }))):totable())
    assert.same({ { 2, 0, 15 } }, image.read_mask(save("g4.png", png(3, 1, 4, 0, { "\32\240" }))):totable())
  end)

  it("makes 0/255 in grey one object, and keeps other values as numbers", function()
    assert.same({ { 0, 1 }, { 1, 0 } }, image.read_mask(save("g.png", png(2, 2, 8, 0, { "\0\255", "\255\0" }))):totable())
    assert.same({ { 0, 255 }, { 2, 1 } }, image.read_mask(save("ids.png", png(2, 2, 8, 0, { "\0\255", "\2\1" }))):totable())
    assert.same({ { 0, 0 } }, image.read_mask(save("none.png", png(2, 1, 8, 0, { "\0\0" }))):totable())
  end)

  it("takes the first of two channels, and any colour but black; what is transparent is background", function()
    assert.same({ { 0, 1 } }, image.read_mask(save("ga.png", png(2, 1, 8, 4, { "\0\255\255\255" }))):totable())
    assert.same({ { 0, 1, 1 } }, image.read_mask(save("rgb.png", png(3, 1, 8, 2, { "\0\0\0\0\0\1\255\255\255" }))):totable())
    assert.same({ { 0, 0, 1, 1 } },
      image.read_mask(save("rgba.png", png(4, 1, 8, 6, { "\0\0\0\255\9\9\9\0\9\0\0\255\0\0\9\1" }))):totable())
    assert.same({ { 0, 2, 0 } }, image.read_mask(save("ga0.png", png(3, 1, 8, 4, { "\0\255\2\255\3\0" }))):totable())
  end)

  it("says what is wrong with a file, and which", function()
    helper.failure(function() image.read_mask(path "nowhere.png") end, "nowhere.png: cannot read", "No such file")
    helper.failure(function() image.read_mask(directory) end, directory .. ": cannot read", "directory")
    helper.failure(function() image.read_mask(save("empty.png", "")) end, "empty.png: cannot decode: the file is empty")
    helper.failure(function() image.read_mask(save("text.png", "hello, this is not a picture")) end,
      "text.png: a mask must be a PNG")
    helper.failure(function() image.read_mask "spec/fixtures/ramp.jpg" end, "ramp.jpg: a mask must be a PNG; this is a JPEG")
    helper.failure(function() image.read_mask(save("deep.png", png(1, 1, 16, 0, { "\1\2" }))) end,
      "deep.png: a mask of 16 bits a pixel")
    local whole = png(40, 40, 8, 0, (function()
      local rows = {}
      for i = 1, 40 do
        rows[i] = string.char(unpack((function()
          local r = {}
          for x = 1, 40 do
            r[x] = (i * i * 7 + x * x * 13) % 256
          end
          return r
        end)()))
      end
      return rows
    end)())
    for _, part in ipairs { 0.2, 0.5, 0.9 } do
      helper.failure(function() image.read_mask(save("cut.png", whole:sub(1, math.floor(#whole * part)))) end,
        "cut.png: cannot decode PNG")
    end
    local middle = math.floor(#whole / 2)
    local damaged = whole:sub(1, middle - 1) .. string.char((whole:byte(middle) + 1) % 256) .. whole:sub(middle + 1)
    helper.failure(function() image.read_mask(save("damaged.png", damaged)) end, "damaged.png: cannot decode PNG")
    helper.failure(function() image.read_mask() end, "read_mask: expects a path, got nothing")
  end)

  it("reads many at once, and wants one size", function()
    local a = save("a.png", png(2, 1, 8, 0, { "\0\255" }))
    local b = save("b.png", png(2, 1, 8, 0, { "\255\255" }))
    local c = save("c.png", png(1, 1, 8, 0, { "\255" }))
    assert.same({ { { 0, 1 } }, { { 1, 1 } }, { { 0, 1 } } }, image.read_masks({ a, b, a }):totable())
    helper.failure(function() image.read_masks { a, b, c } end, "c.png is 1 x 1 (height x width)", "a.png is 1 x 2", "one size")
    helper.failure(function() image.read_masks { a, path "lost.png" } end, "lost.png: cannot read")
    helper.failure(function() image.read_masks {} end, "read_masks: expects a list of at least one path")
  end)

  it("reads every kind of the DAVIS release", function()
    local root = helper.shared "davis2016"
    if not root then
      pending "no ../shared/davis2016"
      return
    end
    local two = image.read_mask(root .. "/Annotations/480p/bear/00077.png") -- the one with two channels
    assert.same({ 480, 854 }, two:shape())
    assert.equal(46035, image.box(two).area) -- counted by another decoder
    local paths = image.files(root .. "/Annotations/480p/goat", "png")
    assert.same({ #paths, 480, 854 }, image.read_masks(paths):shape())
  end)
end)

describe("reading images", function()
  it("decodes JPEG", function()
    local t = image.read "spec/fixtures/ramp.jpg"
    assert.same({ 16, 24, 3 }, t:shape())
    for y = 1, 16, 5 do
      for x = 1, 24, 5 do
        assert.near(10 * (x - 1), t:get(y, x, 1), 6)
        assert.near(15 * (y - 1), t:get(y, x, 2), 6)
        assert.near(128, t:get(y, x, 3), 6)
      end
    end
    assert.same({ 16, 24, 3 }, { image.size "spec/fixtures/ramp.jpg" })
    local grey = image.read("spec/fixtures/ramp.jpg", { channels = 1 })
    assert.same({ 16, 24, 1 }, grey:shape())
    assert.near(0.299 * 100 + 0.587 * 75 + 0.114 * 128, grey:get(6, 11, 1), 6)
  end)

  it("decodes PNG to the channels asked for", function()
    local file = save("c.png", png(2, 1, 8, 2, { "\10\20\30\200\100\0" }))
    assert.same({ { { 10, 20, 30 }, { 200, 100, 0 } } }, image.read(file):totable())
    assert.same({ { { 10, 20, 30, 255 }, { 200, 100, 0, 255 } } }, image.read(file, { channels = 4 }):totable())
    assert.same({ { { 18 }, { 119 } } }, image.read(file, { channels = 1 }):totable())
    assert.same({ 1, 2, 3 }, { image.size(file) })
    local palette = save("c8.png", png(2, 1, 8, 3, { "\1\0" }, chunk("PLTE", "\1\2\3\4\5\6")))
    assert.same({ { { 4, 5, 6 }, { 1, 2, 3 } } }, image.read(palette):totable())
    local grey = save("g8.png", png(2, 1, 8, 0, { "\7\9" }))
    assert.same({ { { 7 }, { 9 } } }, image.read(grey, { channels = 0 }):totable())
    assert.same({ { { 7, 7, 7 }, { 9, 9, 9 } } }, image.read(grey):totable())
    assert.same({ 1, 2, 1 }, { image.size(grey) })
    local clear = save("ga8.png", png(2, 1, 8, 4, { "\7\255\9\0" }))
    assert.same({ { { 7 }, { 9 } } }, image.read(clear, { channels = 0 }):totable())
    assert.same({ 1, 2, 1 }, { image.size(clear) })
    assert.same({ 1, 2, 3 }, image.read_frames({ file }):slice(1, 1, 1):shape() and image.frame(image.read_frames { file,
      palette }, 2):shape())
  end)

  it("knows a JPEG that is cut off", function()
    local whole = load_bytes "spec/fixtures/ramp.jpg"
    for _, part in ipairs { 0.1, 0.5, 0.99 } do
      helper.failure(function() image.read(save("cut.jpg", whole:sub(1, math.floor(#whole * part)))) end,
        "cut.jpg: cannot decode JPEG: the file is cut off")
    end
    helper.failure(function() image.size(save("head.jpg", whole:sub(1, 30))) end, "head.jpg: cannot find the size")
  end)

  it("knows from its end whether a file is whole", function()
    local files = { jpg = load_bytes "spec/fixtures/ramp.jpg", png = png(2, 1, 8, 0, { "\7\9" }) }
    for kind, whole in pairs(files) do
      image.check_end(save("whole." .. kind, whole))
      image.check_end(save("longer." .. kind, whole .. ("\0"):rep(5000)))
      for _, part in ipairs { 0.3, 0.8 } do
        local size = math.floor(#whole * part)
        helper.failure(function() image.check_end(save("short." .. kind, whole:sub(1, size))) end,
          ("short.%s: the file is cut off (%d bytes, no end marker)"):format(kind, size))
      end
    end
    helper.failure(function() image.check_end(save("text.jpg", "hello")) end, "text.jpg: neither a JPEG nor a PNG")
    helper.failure(function() image.check_end(save("empty.jpg", "")) end, "empty.jpg: neither a JPEG nor a PNG")
    helper.failure(function() image.check_end(path "nowhere.jpg") end, "cannot read ", "nowhere.jpg: No such file")
    helper.failure(function() image.check_end() end, "check_end: expects a path, got nothing")
  end)

  it("says what is wrong with a file, and which", function()
    helper.failure(function() image.read(path "nowhere.jpg") end, "nowhere.jpg: cannot read", "No such file")
    helper.failure(function() image.read(save("text.jpg", "hello, this is not a picture")) end,
      "text.jpg: neither a JPEG nor a PNG")
    helper.failure(function() image.size(save("text.jpg", "hello, this is not a picture")) end,
      "text.jpg: neither a JPEG nor a PNG")
    helper.failure(function() image.size(path "nowhere.jpg") end, "nowhere.jpg: cannot read")
    helper.failure(function() image.read(directory) end, directory .. ": cannot read: Is a directory")
    assert.equal(0, os.execute("mkfifo " .. path "pipe.png")) -- nobody writes into it: reading must not wait
    for _, read in ipairs { image.read, image.read_mask, image.size } do
      helper.failure(function() read(path "pipe.png") end, "pipe.png: is a device or pipe, not a file")
    end
    helper.failure(function() image.check_end(path "pipe.png") end, "pipe.png: is a named pipe, not a file")
    helper.failure(function() image.read("spec/fixtures/ramp.jpg", { channels = 2 }) end, "channels must be 1, 3 or 4, got 2")
    helper.failure(function() image.read_frames({ "spec/fixtures/ramp.jpg" }, { channels = 0 }) end,
      "channels must be 1, 3 or 4, got 0")
    helper.failure(function() image.read("spec/fixtures/ramp.jpg", { chanels = 3 }) end,
      "unknown option 'chanels', did you mean 'channels'?")
    local bad = load_bytes "spec/fixtures/ramp.jpg"
    bad = bad:gsub("\255\218", "\255\192", 1)
    helper.failure(function() image.read(save("bad.jpg", bad)) end, "bad.jpg: cannot decode JPEG")
    -- A Huffman table of 16 x 255 values, before the first scan and behind it.
    local whole = load_bytes "spec/fixtures/ramp.jpg"
    local table_of = "\255\196\16\3\19" .. ("\255"):rep(16) .. ("\1"):rep(16 * 255)
    for _, marker in ipairs { "\255\218", "\255\217" } do
      local at = whole:find(marker, 1, true)
      local wide = save("wide.jpg", whole:sub(1, at - 1) .. table_of .. whole:sub(at))
      helper.failure(function() image.read(wide) end, "wide.jpg: cannot decode JPEG: a Huffman table of more than 256 values")
    end
  end)

  it("refuses small files that stand for large pictures", function()
    local huge = save("huge.png", png(65535, 65535, 8, 2, { "\1\2\3" }))
    for _, read in ipairs { image.read, image.read_mask } do
      helper.failure(function() read(huge) end,
        "huge.png: cannot decode PNG: it says it is 65535 x 65535 (height x width), too much")
    end
    local jpeg = load_bytes "spec/fixtures/ramp.jpg"
    local tall = jpeg:gsub("(\255\192%z\17\8)%z\16%z\24", "%1\80\0\60\0", 1)
    helper.failure(function() image.read(save("tall.jpg", tall)) end,
      "tall.jpg: cannot decode JPEG: it says it is 20480 x 15360 (height x width), too much")
    assert.truthy(image.read(save("black.png", png(2000, 2000, 8, 0, { ("\0"):rep(2001 * 2000 - 1) })))) -- as small as deflate gets
    -- A text that unpacks to 80 MB.
    local text = chunk("zTXt", "a\0\0" .. compressed(("\0"):rep(80e6)))
    helper.failure(function() image.read(save("text.png", png(2, 1, 8, 0, { "\7\9" }, text))) end,
      "text.png: cannot decode PNG: reached chunk/cache limits")
  end)

  it("lists the pictures of a folder by name", function()
    lfs.mkdir(path "list")
    for _, name in ipairs { "b.png", "a.JPG", "c.jpeg", "note.txt", ".hidden.png" } do
      save("list/" .. name, "x")
    end
    local paths, names = image.files(path "list")
    assert.same({ "a", "b", "c" }, names)
    assert.equal(path "list/b.png", paths[2])
    assert.same({ "b" }, select(2, image.files(path "list", "png")))
    helper.failure(function() image.files(path "nolist") end, "nolist: no such directory")
  end)

  it("lists them in the order of their numbers, however these are written", function()
    lfs.mkdir(path "numbers")
    local order = {
      "1", "02", "2", "9", "10", "1234567890123456789", "12345678901234567890", "f", "f0", "f1", "f1.5", "f3b2", "f3b11",
      "f3c1", "f11", "f-1", "g1",
    }
    for i = #order, 1, -1 do
      save("numbers/" .. order[i] .. ".png", "x")
    end
    save("numbers/f1.jpg", "x")
    local paths, names = image.files(path "numbers")
    table.insert(order, 10, "f1")
    assert.same(order, names)
    assert.same({ path "numbers/f1.jpg", path "numbers/f1.png" }, { paths[10], paths[11] })
  end)
end)

describe("the size of a JPEG", function()
  local beside = helper.directory(teardown)

  it("is found behind a long comment", function()
    local file = assert(io.open("spec/fixtures/ramp.jpg", "rb"))
    local bytes = file:read "*a"
    file:close()
    local comment = beside .. "/comment.jpg"
    file = assert(io.open(comment, "wb"))
    file:write(bytes:sub(1, 2), "\255\254\39\16", ("c"):rep(9998), bytes:sub(3)) -- a segment of 10000 bytes before all others
    file:close()
    assert.same({ image.size "spec/fixtures/ramp.jpg" }, { image.size(comment) })
    helper.assert_same_bits(image.read "spec/fixtures/ramp.jpg", image.read(comment))
  end)
end)

describe("writing pictures", function()
  it("is in the format that the name ends in", function()
    local frame = pn.full { 16, 24, 3, value = 200, dtype = "u8" }
    image.write(path "j.jpg", frame)
    image.write(path "j.JPEG", frame, { quality = 20 })
    image.write(path "none", frame)
    for name, magic in pairs { ["j.jpg"] = "\255\216\255", ["j.JPEG"] = "\255\216\255", none = "\137PNG" } do
      assert.equal(magic, disk.read(path(name)):sub(1, #magic), name)
    end
    helper.assert_close(image.read(path "j.jpg"):cast(pn.real), frame:cast(pn.real), .02)
    assert.is_true(#disk.read(path "j.JPEG") < #disk.read(path "j.jpg"))
    for _, case in ipairs {
      { function() image.write(path "a.bmp", frame) end, "a.bmp: pictures are written as .png or .jpg" },
      { function() image.write(path "a.jpg", pn.zeros { 4, 4, dtype = "u8" }) end, "a mask would not keep its values in a JPEG" },
      { function() image.write(path "a.jpg", pn.zeros { 4, 4, 4, dtype = "u8" }) end,
        "a JPEG has 1 or 3 channels, the image has 4" },
      { function() image.write(path "a.jpg", frame, { quality = 0 }) end,
        "write: quality is 0, expects a whole number from 1 to 100" },
      { function() image.write_frames({ path "a.jpg" }, pn.zeros { 1, 4, 4, 3, dtype = "u8" }) end, "a.jpg: writes PNGs alone" },
    } do helper.failure(case[1], case[2]) end
    assert.is_false(disk.exists(path "a.jpg"))
  end)
end)

describe("writing PNG", function()
  it("gives back what was written", function()
    local frame = helper.random({ 7, 5, 3 }, "frame", 0, 255):cast "u8"
    image.write(path "w.png", frame)
    helper.assert_same_bits(image.read(path "w.png"), frame)
    local mask = u8 { { 0, 1, 2 }, { 255, 4, 0 } }
    image.write(path "wm.png", mask)
    assert.same(mask:totable(), image.read_mask(path "wm.png"):totable())
    assert.same({ { 0, 0, 0 }, { 128, 0, 0 }, { 0, 128, 0 } }, image.read(path "wm.png"):totable()[1])
    image.write(path "wg.png", mask, { palette = false })
    assert.same({ { 0, 1, 2 }, { 255, 4, 0 } }, image.read_mask(path "wg.png"):totable())
    local four = helper.random({ 3, 4, 4 }, "rgba", 0, 255):cast "u8"
    image.write(path "w4.png", four)
    helper.assert_same_bits(image.read(path "w4.png", { channels = 4 }), four)
    image.write(path "view.png", image.crop(frame, { 2, 2, 3, 3 }))
    assert.same(frame:totable()[3][4], image.read(path "view.png"):totable()[2][3])
  end)

  it("uses the palette of DAVIS", function()
    assert.same({ 0, 0, 0 }, { image.davis_colour(0) })
    assert.same({ 128, 0, 0 }, { image.davis_colour(1) })
    assert.same({ 0, 128, 128 }, { image.davis_colour(6) })
    assert.same({ 64, 0, 0 }, { image.davis_colour(8) })
    assert.same({ 224, 224, 192 }, { image.davis_colour(255) })
  end)

  it("leaves nothing half-written behind", function()
    local frame = pn.full { 4, 4, 3, dtype = "u8", value = 9 }
    helper.failure(function() image.write(path "no/such/w.png", frame) end, "no/such/w.png: cannot write", "No such file")
    lfs.mkdir(path "taken.png")
    helper.failure(function() image.write(path "taken.png", frame) end, "taken.png: cannot write")
    for name in lfs.dir(directory) do
      assert.is_nil(name:match "part")
    end
  end)

  it("says when the disk is full", function()
    if lfs.attributes("/dev/full", "mode") ~= "char device" then
      pending "no /dev/full"
      return
    end
    -- The new file is written beside the path; a link there that leads to the full device is as a full disk.
    local name = path "full.png"
    image.write(name, pn.full { 4, 4, 3, dtype = "u8", value = 7 })
    local before = load_bytes(name)
    local pid = tonumber((load_bytes "/proc/self/stat"):match "^(%d+)")
    for turn = 0, 200 do
      lfs.link("/dev/full", ("%s.part-%d-%d"):format(name, pid, turn), true)
    end
    helper.failure(function() image.write(name, pn.full { 4, 4, 3, dtype = "u8", value = 8 }) end,
      "full.png: cannot write", "No space left")
    assert.equal(before, load_bytes(name))
  end)

  it("takes pictures only", function()
    helper.failure(function() image.write(path "x.png", pn.zeros { 2, 2, 2, dtype = "u8" }) end, "1, 3 or 4 channels", "2,2,2")
    helper.failure(function() image.write(path "x.png", pn.zeros { 2, 2, 3 }) end, "element type u8, got " .. pn.real)
    helper.failure(function() image.write(path "x.png", pn.zeros { 2, dtype = "u8" }) end,
      "a mask (H,W) or an image (H,W,C)", "shape 2")
    helper.failure(function() image.write(path "x.png", pn.zeros { 2, 2, 3, dtype = "u8" }, { palette = true }) end, "only a mask")
    helper.failure(function() image.write(path "x.png", pn.zeros { 0, 2, 3, dtype = "u8" }) end,
      "x.png: cannot encode PNG: the picture is 0 x 2 (height x width)")
    local two = pn.zeros { 2, 3, 4, 3, dtype = "u8" }
    helper.failure(function() image.write_frames({ path "x.png" }, two) end, "frames_write: 1 paths for 2 pictures")
    helper.failure(function() image.write_frames({}, two) end, "write_frames: expects a list of at least one path")
    helper.failure(function() image.write_frames({ path "x.png", path "no/such/y.png" }, two) end, "no/such/y.png: cannot write")
    helper.failure(function() image.write_frames({ path "x.png", path "y.png" }, two, { palette = true }) end,
      "only a mask (H,W) is written with the palette; this has 3 channels")
  end)

  it("are written many at a time as one by one, by any number of threads", function()
    local frames = pn.random.stream(1, "frames"):fill(pn.empty { 5, 9, 11, 3 }, "uniform", 0, 256):cast "u8"
    local masks = pn.random.stream(1, "masks"):fill(pn.empty { 5, 9, 11 }, "uniform", 0, 3):cast "u8"
    local threads = pn.threads()
    for _, n in ipairs { 1, 3 } do
      pn.threads(n)
      for kind, all in pairs { frame = frames, mask = masks } do
        local paths = {}
        for i = 1, 5 do paths[i] = path(kind .. i .. ".png") end
        image.write_frames(paths, all)
        for i = 1, 5 do
          image.write(path "one.png", image.frame(all, i))
          assert.equal(load_bytes(path "one.png"), load_bytes(paths[i]))
        end
      end
    end
    pn.threads(threads)
  end)
end)

describe("resize", function()
  it("averages what a pixel covers", function()
    local x = u8 { { 0, 10, 20, 30 }, { 40, 50, 60, 70 } }
    assert.same({ { 25, 45 } }, image.resize(x, { 1, 2, filter = "area" }):totable())
    assert.same({ { { 5 } } }, image.resize(u8 { { { 4 } }, { { 5 } } }, { 1, 1 }):totable()) -- 4.5, rounded
    local y = pn.tensor { { { 1 }, { 2 }, { 4 } } }
    helper.assert_close(image.resize(y, { 1, 2 }), { 4 / 3, 10 / 3 }, 1e-6) -- the middle pixel goes half to each
    local big = helper.random({ 30, 44, 3 }, "big", 0, 255)
    local small = image.resize(big, { 7, 13 })
    local a, b = 0, 0
    for _, v in ipairs(big:flat()) do a = a + v end
    for _, v in ipairs(small:flat()) do b = b + v end
    assert.near(a / (30 * 44), b / (7 * 13), 1e-3) -- the mean stays
  end)

  it("is bilinear on half-pixel centres", function()
    helper.assert_close(image.resize(pn.tensor { { { 0 }, { 4 } } }, { 1, 4, filter = "bilinear" }), { 0, 1, 3, 4 }, 1e-6)
    helper.assert_close(image.resize(pn.tensor { { { 0 }, { 4 }, { 8 } } }, { 1, 2, filter = "bilinear" }), { 1, 7 }, 1e-6)
    helper.assert_close(image.resize(pn.tensor { { { 0 }, { 4 } } }, { 1, 4 }), { 0, 1, 3, 4 }, 1e-6) -- area, where an axis grows
  end)

  it("takes the nearest, by default for masks", function()
    local m = u8 { { 1, 2 }, { 3, 4 } }
    assert.same({ { 1, 1, 2, 2 }, { 1, 1, 2, 2 }, { 3, 3, 4, 4 }, { 3, 3, 4, 4 } }, image.resize(m, { 4, 4 }):totable())
    assert.same({ { 5 } }, image.resize(u8 { { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 } }, { 1, 1 }):totable())
    local masks = u8 { { { 1, 2, 9 } }, { { 3, 4, 9 } } } -- (T,H,W) = (2,1,3): the last axis is not channels
    assert.same({ { { 1, 1, 2, 2, 9, 9 } }, { { 3, 3, 4, 4, 9, 9 } } }, image.resize(masks, { 1, 6, masks = true }):totable())
  end)

  it("keeps a picture of the same size, and each frame by itself", function()
    local frames = helper.random({ 3, 9, 8, 3 }, "frames", 0, 255):cast "u8"
    for _, filter in ipairs { "area", "bilinear", "nearest" } do
      helper.assert_same_bits(image.resize(frames, { 9, 8, filter = filter }), frames, filter)
      local all = image.resize(frames, { 5, 11, filter = filter })
      local second = image.resize(image.frame(frames, 2), { 5, 11, filter = filter })
      helper.assert_same_bits(image.frame(all, 2):contiguous(), second, filter)
    end
  end)

  it("does not depend on the threads", function()
    local frames = helper.random({ 2, 90, 70, 3 }, "frames", 0, 255):cast "u8"
    local before = pn.threads()
    pn.threads(1)
    local one = image.resize(frames, { 61, 33 })
    pn.threads(3)
    local three = image.resize(frames, { 61, 33 })
    pn.threads(before)
    helper.assert_same_bits(one, three)
  end)

  it("refuses what cannot be", function()
    local x = pn.zeros { 4, 4, 3, dtype = "u8" }
    helper.failure(function() image.resize(x, { 0, 4 }) end, "resize: height is 0")
    helper.failure(function() image.resize(x, { 4 }) end, "resize: width is nil")
    helper.failure(function() image.resize(x, { 70000, 4 }) end, "must be 1..65536, got 70000 x 4")
    helper.failure(function() image.resize(x, { 4, 4, filter = "linear" }) end, "unknown filter 'linear', did you mean 'bilinear'?")
    helper.failure(function() image.resize(pn.zeros { 4, dtype = "u8" }, { 4, 4 }) end, "resize: expected a mask (H,W)", "shape 4")
    helper.failure(function() image.resize(pn.zeros { 4, 4, dtype = "i64" }, { 4, 4 }) end,
      "resize: expected element type u8 or", "i64")
    helper.failure(function() image.resize(pn.zeros { 0, 4, 3, dtype = "u8" }, { 4, 4 }) end, "resize: the picture is empty")
  end)
end)

describe("crop, frame and flip", function()
  local x = u8 { { 1, 2, 3 }, { 4, 5, 6 } }

  it("cuts windows", function()
    assert.same({ { 5, 6 } }, image.crop(x, { 2, 2, 1, 2 }):totable())
    local frames = helper.random({ 2, 6, 5, 3 }, "frames", 0, 255):cast "u8"
    assert.same(frames:totable()[2][3][4], image.crop(frames, { 2, 3, 4, 2 }):totable()[2][2][2])
    local masks = u8 { { { 1, 2, 3 } }, { { 4, 5, 6 } } }
    assert.same({ { { 2, 3 } }, { { 5, 6 } } }, image.crop(masks, { 1, 2, 1, 2, masks = true }):totable())
    helper.failure(function() image.crop(x, { 2, 2, 2, 2 }) end, "crop: top is 2, expects a whole number from 1 to 1")
    helper.failure(function() image.crop(x, { 1, 1, 1, 4 }) end, "crop: width is 4, expects a whole number from 1 to 3")
    helper.failure(function() image.crop(pn.zeros { 3 }, { 1, 1, 1, 1 }) end, "crop: expects a mask")
  end)

  it("shows one frame without a copy", function()
    local frames = pn.zeros { 2, 3, 4, 3, dtype = "u8" }
    image.frame(frames, 2):fill(7)
    assert.equal(0, frames:get(1, 1, 1, 1))
    assert.equal(7, frames:get(2, 3, 4, 3))
    helper.failure(function() image.frame(frames, 3) end, "frame: index is 3, expects a whole number from 1 to 2")
    helper.failure(function() image.frame(x, 1) end, "frame: expects frames (T,H,W,C)")
  end)

  it("mirrors", function()
    assert.same({ { 3, 2, 1 }, { 6, 5, 4 } }, image.flip(x):totable())
    assert.same({ { 4, 5, 6 }, { 1, 2, 3 } }, image.flip(x, { vertical = true }):totable())
    local three = u8 { { { 1, 2, 3 }, { 4, 5, 6 } } } -- one row of two pixels, or one mask of two rows
    assert.same({ { { 4, 5, 6 }, { 1, 2, 3 } } }, image.flip(three):totable())
    assert.same({ { { 3, 2, 1 }, { 6, 5, 4 } } }, image.flip(three, { masks = true }):totable())
    helper.failure(function() image.flip(pn.zeros { 2 }) end, "flip: expected a mask (H,W)")
  end)
end)

describe("clips", function()
  it("are what I3D reads: [-1,1], red first", function()
    local frames = u8 { { { { 0, 255, 51 } } } }
    local clip = image.to_clip(frames)
    assert.same({ 1, 3, 1, 1, 1 }, clip:shape())
    assert.is_true(clip:is_dense "channels_last")
    helper.assert_close(clip, { -1, 1, -0.6 }, 1e-6)
    helper.assert_close(image.to_clip(frames, "bgr_01"), { 0.2, 1, 0 }, 1e-6)
  end)

  it("place pixels where they belong, and go back", function()
    local frames = helper.random({ 3, 5, 4, 3 }, "frames", 0, 255):cast "u8"
    for _, rule in ipairs { "rgb_pm1", "bgr_01" } do
      local clip = image.to_clip(frames, rule)
      local v = frames:get(2, 4, 3, 1)
      assert.near(rule == "rgb_pm1" and v / 127.5 - 1 or v / 255, clip:get(1, rule == "rgb_pm1" and 1 or 3, 2, 4, 3), 1e-6)
      helper.assert_same_bits(image.from_clip(clip, rule), frames, rule)
    end
    assert.same({ 1, 3, 1, 5, 4 }, image.to_clip(image.frame(frames, 1)):shape())
    local loud = pn.full { 1, 3, 1, 1, 1, value = 3, layout = "channels_last" }
    assert.same({ { { { 255, 255, 255 } } } }, image.from_clip(loud):totable())
    assert.same({ { { { 0, 0, 0 } } } }, image.from_clip(loud:fill(-3)):totable())
    assert.same({ { { { 0, 0, 0 } } } }, image.from_clip(loud:fill(0 / 0)):totable())
  end)

  it("carry masks both ways", function()
    local masks = u8 { { { 0, 1 }, { 7, 0 } }, { { 1, 1 }, { 0, 0 } } }
    local clip = image.masks_to_clip(masks)
    assert.same({ 1, 1, 2, 2, 2 }, clip:shape())
    assert.same({ 0, 1, 1, 0, 1, 1, 0, 0 }, clip:flat())
    assert.same({ { { 0, 1 }, { 1, 0 } }, { { 1, 1 }, { 0, 0 } } }, image.clip_to_masks(clip, 0.5):totable())
    assert.same({ { { 1, 0 } } }, image.clip_to_masks(pn.tensor { { { { { 0.1, 0 } } } } }):totable())
  end)

  it("refuse other shapes and types", function()
    helper.failure(function() image.to_clip(pn.zeros { 2, 2, 4, dtype = "u8" }) end, "frames_to_clip: expected 3 channels, got 4")
    helper.failure(function() image.to_clip(pn.zeros { 2, 2, dtype = "u8" }) end, "an image (H,W,C) or frames (T,H,W,C)", "2,2")
    helper.failure(function() image.to_clip(pn.zeros { 2, 2, 3, dtype = "u8" }, "rgb") end, "unknown pixel rule 'rgb'")
    helper.failure(function() image.from_clip(pn.zeros { 1, 1, 2, 2, 2 }) end, "expected a clip (1,3,T,H,W), got shape 1,1,2,2,2")
    helper.failure(function() image.from_clip(pn.zeros { 1, 3, 2, 2, 2, dtype = "u8" }) end,
      "expected element type " .. pn.real .. ", got u8")
    helper.failure(function() image.clip_to_masks(pn.zeros { 1, 3, 2, 2, 2 }) end, "expected a clip (1,1,T,H,W)")
    helper.failure(function() image.to_clip "frames" end, "to_clip: expected a tensor, got string")
    helper.failure(function() image.masks_to_clip(pn.zeros { 1, 2, 2, 2, dtype = "u8" }) end, "masks (H,W) or (T,H,W)")
  end)
end)

describe("masks as shapes", function()
  -- The definition: some pixel of the disk is set (dilate); every pixel of the disk inside the image is set (erode).
  local function by_definition(mask, r, erode)
    local at, h, w = reader(mask)
    local result = {}
    for y = 0, h - 1 do
      for x = 0, w - 1 do
        local value = erode and 1 or 0
        for dy = -r, r do
          for dx = -r, r do
            local v = dx * dx + dy * dy <= r * r and at(y + dy, x + dx)
            if v and (v == 0) == erode then
              value = erode and 0 or 1
            end
          end
        end
        result[#result + 1] = value
      end
    end
    return result
  end

  it("grow and shrink by a disk", function()
    for _, size in ipairs { { 9, 11 }, { 13, 64 }, { 7, 65 }, { 20, 130 }, { 1, 1 } } do
      for _, p in ipairs { 0.02, 0.5, 0.97 } do
        local mask = random_mask(size[1], size[2], "disk" .. size[2] .. p, p)
        for _, r in ipairs { 0, 1, 2, 3, 7, 19 } do
          assert.same(by_definition(mask, r, false), image.dilate(mask, r):flat())
          assert.same(by_definition(mask, r, true), image.erode(mask, r):flat())
        end
      end
    end
    assert.equal(29, select(2, table.concat(image.dilate(u8 { { 0, 0, 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0, 0,
      0 },
      { 0, 0, 0, 9, 0, 0, 0 }, { 0, 0, 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0, 0, 0 } }, 3):flat()):gsub("1",
        "")))
    for _, x in ipairs { 1, 64 } do -- a pixel at the end of a word, whose disk is cut off
      local mask = pn.zeros { 40, 64, dtype = "u8" }
      mask:set(1, 20, x)
      assert.same(by_definition(mask, 13, false), image.dilate(mask, 13):flat())
    end
    helper.failure(function() image.dilate(u8 { { 1 } }, 1001) end, "dilate: radius must be 0..1000 pixels, got 1001")
    helper.failure(function() image.erode(u8 { { 1 } }, -1) end, "erode: radius is -1")
  end)

  it("take each frame by itself", function()
    local masks = u8 { { { 0, 1, 0 } }, { { 0, 0, 0 } }, { { 1, 0, 0 } } }
    assert.same({ { { 1, 1, 1 } }, { { 0, 0, 0 } }, { { 1, 1, 0 } } }, image.dilate(masks, 1):totable())
  end)

  it("have the boundary that DAVIS defines", function()
    local mask = random_mask(17, 70, "boundary", 0.6)
    local at, h, w = reader(mask)
    local expected = {}
    for y = 0, h - 1 do
      for x = 0, w - 1 do
        local v, e, s, se = at(y, x), at(y, x + 1), at(y + 1, x), at(y + 1, x + 1)
        local differs
        if y == h - 1 and x == w - 1 then
          differs = false
        elseif y == h - 1 then
          differs = v ~= e
        elseif x == w - 1 then
          differs = v ~= s
        else
          differs = v ~= e or v ~= s or v ~= se
        end
        expected[#expected + 1] = differs and 1 or 0
      end
    end
    assert.same(expected, image.boundary(mask):flat())
  end)

  it("are told apart by number", function()
    local mask = u8 { { 0, 1, 2 }, { 255, 2, 0 } }
    assert.same({ { 0, 0, 1 }, { 0, 1, 0 } }, image.select(mask, 2):totable())
    assert.same({ { 0, 1, 1 }, { 1, 1, 0 } }, image.select(mask):totable())
    assert.same({ { { 1, 0 } }, { { 0, 0 } } }, image.select(u8 { { { 0, 3 } }, { { 4, 4 } } }, 0):totable())
    helper.failure(function() image.select(mask, 256) end, "select: object is 256, expects a whole number from 0 to 255")
    helper.failure(function() image.select(pn.zeros { 2, 2 }) end, "select: expected element type u8, got f")
  end)

  it("say which objects they hold", function()
    assert.same({ 2, 7, 255 }, image.objects(pn.tensor({ { 7, 0, 2 }, { 255, 2, 2 } }, { dtype = "u8" })))
    assert.same({}, image.objects(pn.zeros { 2, 3, dtype = "u8" }))
    helper.failure(function() image.objects "a.png" end, "objects: ")
  end)

  it("fall into components, the largest first", function()
    local mask = u8 {
      { 1, 0, 0, 1, 1, 0, 1 },
      { 0, 1, 0, 0, 0, 0, 1 },
      { 0, 0, 1, 0, 1, 0, 1 },
      { 0, 0, 0, 0, 1, 1, 1 },
    }
    local labels, n = image.components(mask)
    assert.equal(3, n)
    assert.same({ { 2, 0, 0, 3, 3, 0, 1 }, { 0, 2, 0, 0, 0, 0, 1 }, { 0, 0, 2, 0, 1, 0, 1 }, { 0, 0, 0, 0, 1, 1, 1 } },
      labels:totable())
    assert.equal("i32", labels:dtype())
    assert.same({ { 0, 0, 0, 0, 0, 0, 1 }, { 0, 0, 0, 0, 0, 0, 1 }, { 0, 0, 0, 0, 1, 0, 1 }, { 0, 0, 0, 0, 1, 1, 1 } },
      image.largest(mask):totable())
    local two = image.largest(u8 { { { 1, 0, 2 } }, { { 0, 0, 0 } } })
    assert.same({ { { 1, 0, 0 } }, { { 0, 0, 0 } } }, two:totable()) -- the first of equals; an empty one stays empty
  end)

  it("have components as a flood fill finds them", function()
    local mask = random_mask(40, 67, "components", 0.42)
    local at, h, w = reader(mask)
    local seen, areas = {}, {}
    for start = 0, h * w - 1 do
      if at(math.floor(start / w), start % w) == 1 and not seen[start] then
        local stack, area = { start }, 0
        seen[start] = #areas + 1
        while #stack > 0 do
          local i = table.remove(stack)
          area = area + 1
          for dy = -1, 1 do
            for dx = -1, 1 do
              local y, x = math.floor(i / w) + dy, i % w + dx
              if at(y, x) == 1 and not seen[y * w + x] then
                seen[y * w + x] = #areas + 1
                stack[#stack + 1] = y * w + x
              end
            end
          end
        end
        areas[#areas + 1] = { area = area, found = #areas + 1 }
      end
    end
    table.sort(areas, function(a, b)
      return a.area > b.area or a.area == b.area and a.found < b.found
    end)
    local rank = {}
    for i, entry in ipairs(areas) do
      rank[entry.found] = i
    end
    local labels, n = image.components(mask)
    assert.equal(#areas, n)
    for i, label in ipairs(labels:flat()) do
      assert.equal(seen[i - 1] and rank[seen[i - 1]] or 0, label)
    end
  end)

  it("have a box", function()
    local mask = pn.zeros { 6, 9, dtype = "u8" }
    assert.is_nil(image.box(mask))
    mask:set(1, 3, 4)
    mask:set(5, 5, 8)
    assert.same({ 3, 4, 3, 5, area = 2 }, image.box(mask))
    helper.failure(function() image.box(pn.zeros { 2, 2, 2, dtype = "u8" }) end, "box: expected a mask (H,W), got shape 2,2,2")
  end)

  it("are counted in windows", function()
    local mask = random_mask(20, 30, "windows", 0.3)
    local best, n_accepted, top, left = -1, 0, nil, nil
    for y = 1, 20 - 7 + 1 do
      for x = 1, 30 - 9 + 1 do
        local share = image.fraction(mask, { y, x, 7, 9 })
        if share > best then
          best, top, left = share, y, x
        end
        n_accepted = n_accepted + (share > 0.3 and 1 or 0)
      end
    end
    assert.same({ best = best, top = top, left = left, share = n_accepted / (14 * 22) }, image.windows(mask, { 7, 9,
      threshold = 0.3 }))
    assert.equal(0.75, image.fraction(u8 { { 1, 1 }, { 0, 3 } }, { 1, 1, 2, 2 }))
    helper.failure(function() image.windows(mask, { 21, 9 }) end, "windows: a window of 21 x 9", "does not fit a mask of 20 x 30")
    helper.failure(function() image.fraction(mask, { 15, 1, 7, 9 }) end, "fraction: a window of 7 x 9 at 14,0", "does not fit")
  end)

  it("give the figures of the crop rule on DAVIS", function()
    local root = helper.shared "davis2016/Annotations/480p"
    if not root then
      pending "no ../shared/davis2016"
      return
    end
    for name, share in pairs { camel = 0.82, blackswan = 0.61, ["kite-surf"] = 0.17, soapbox = 0.11 } do
      local found = image.windows(image.read_mask(root .. "/" .. name .. "/00000.png"), { 224, 224, threshold = 0.1 })
      assert.near(share, found.share, 0.006, name)
    end
    local chicane = image.windows(image.read_mask(root .. "/drift-chicane/00000.png"), { 224, 224, threshold = 0.1 })
    assert.near(0.047, chicane.best, 0.0005)
    assert.equal(0, chicane.share)
  end)
end)

describe("pictures", function()
  it("show the object filled and outlined", function()
    local frame = pn.full { 9, 9, 3, dtype = "u8", value = 100 }
    local mask = pn.zeros { 9, 9, dtype = "u8" }
    image.crop(mask, { 1, 1, 1, 1 })
    for y = 3, 7 do
      for x = 3, 7 do
        mask:set(1, y, x)
      end
    end
    local shown = image.overlay(frame, mask, { alpha = 0.5, thickness = 1 })
    assert.same({ 100, 100, 100 }, shown:totable()[2][5]) -- outside: as it was
    assert.same({ 255, 64, 64 }, shown:totable()[3][5]) -- the outline, in full
    assert.same({ 178, 82, 82 }, shown:totable()[5][5]) -- the fill, half
    mask:set(2, 5, 5)
    assert.same({ 64, 200, 255 }, image.overlay(frame, mask, { alpha = 0.5, thickness = 1 }):totable()[5][5])
    helper.assert_same_bits(image.overlay(frame, pn.zeros { 9, 9, dtype = "u8" }), frame)
    helper.failure(function() image.overlay(frame, pn.zeros { 9, 8, dtype = "u8" }) end, "the mask is 9 x 8 (height x width)",
      "the image 9 x 9")
    helper.failure(function() image.overlay(frame, mask, { alpha = 2 }) end, "alpha must be 0..1, got 2")
    helper.failure(function() image.overlay(frame, mask, { thickness = 65 }) end, "thickness must be 0..64 pixels, got 65")
    helper.failure(function() image.overlay(pn.zeros { 9, 9, 1, dtype = "u8" }, mask) end, "an image of 3 channels, got 1")
  end)

  it("stand on one sheet", function()
    local a, b = pn.full { 4, 6, 3, dtype = "u8", value = 10 }, pn.full { 5, 3, 1, dtype = "u8", value = 20 }
    local sheet = image.sheet({ a, b, a }, { columns = 2, gap = 2 })
    assert.same({ 2 + 2 * (5 + 2), 2 + 2 * (6 + 2), 3 }, sheet:shape())
    assert.same({ 10, 10, 10 }, sheet:totable()[3][3])
    assert.same({ 20, 20, 20 }, sheet:totable()[3][11])
    assert.same({ 255, 255, 255 }, sheet:totable()[3][14])
    assert.same({ 10, 10, 10 }, sheet:totable()[10][3])
    local written = image.sheet({ pn.full { 4, 60, 3, dtype = "u8", value = 10 } }, { captions = { "frame 1" } })
    assert.same({ 8 + 24 + 4 + 8, 76, 3 }, written:shape())
    local dark = 0
    for i, v in ipairs(image.crop(written, { 9, 9, 24, 60 }):flat()) do
      dark = dark + ((i % 3 == 1 and v < 128) and 1 or 0)
    end
    assert.is_true(dark > 20) -- the caption is there
    helper.failure(function() image.sheet {} end, "sheet: expects a list of at least one image")
    helper.failure(function() image.sheet({ a }, { columns = 0 }) end, "sheet: columns is 0")
    helper.failure(function() image.sheet({ a }, { captions = { 7 } }) end, "sheet: captions: expects texts, got a number")
    helper.failure(function() image.sheet({ a }, { gap = 2000 }) end, "gap must be 0..1000 pixels, got 2000")
    helper.failure(function() image.sheet { pn.zeros { 2, 2, 4, dtype = "u8" } } end, "picture 1 has 4 channels")
    helper.failure(function() image.sheet({ pn.zeros { 2, 30000, 3, dtype = "u8" }, a }, { columns = 2 }) end, "32767 is the most")
  end)
end)

it("gives all memory back, also when an allocation fails", function()
  local frame, mask = pn.full { 40, 40, 3, dtype = "u8", value = 3 }, random_mask(40, 40, "memory", 0.5)
  local name = path "memory.png"
  image.write(name, frame)
  local jobs = {
    function() image.write(path "memory2.png", frame) end,
    function() image.read(name):free() end,
    function() image.read_frames({ name, name }):free() end,
    function() image.resize(frame, { 20, 20 }):free() end,
    function() image.guided(pn.zeros { 40, 40, dtype = "f32" }, frame):free() end,
    function() image.dilate(mask, 3):free() end,
    function() image.largest(mask):free() end,
    function() image.components(mask):free() end,
    function() image.windows(mask, { 5, 5 }) end,
    function() image.overlay(frame, mask):free() end,
    function() image.sheet({ frame, frame }):free() end,
  }
  collectgarbage()
  collectgarbage()
  local before = pn.memory().live
  for i, job in ipairs(jobs) do
    job()
    local failures = 0
    for nth = 1, 30 do
      pn.C.pn_memory_trim(0) -- a cached block is no allocation
      pn.C.pn_debug_fail_alloc(nth)
      local ok, message = pcall(job)
      pn.C.pn_debug_fail_alloc(0)
      failures = failures + (ok and 0 or 1)
      assert.is_true(ok or message:find "memory" ~= nil, tostring(message))
    end
    collectgarbage()
    collectgarbage()
    assert.equal(before, pn.memory().live, "job " .. i)
    assert.is_true(failures > 0, "job " .. i .. " never failed")
  end
end)
