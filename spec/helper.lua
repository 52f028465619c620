--- What specs share: closeness of tensors, shapes, seeded tensors, errors, the reference data beside the tree.

local files = require "penumbra.base.files"
local pn = require "penumbra"
local helper = {}

--- Where the material beside the tree lies, or nil: `helper.shared("davis2016")`.
function helper.shared(path)
  local full = "../shared/" .. path
  return os.rename(full, full) and full or nil
end

--- A fresh directory for the files of one spec, gone when the spec ends: `local directory = helper.directory(teardown)`.
function helper.directory(teardown)
  local path = files.scratch()
  teardown(function() files.remove(path) end)
  return path
end

--- A clip u8 (n,h,w,3) whose frame t shows a bright square at (t, 2t).
function helper.moving_square(n, h, w)
  local clip = pn.zeros { n, h, w, 3, dtype = "u8" }
  for t = 1, n do
    for y = 1, 6 do
      for x = 1, 8 do
        clip:set(255, t, (t + y - 1) % h + 1, (2 * t + x - 1) % w + 1, 1)
      end
    end
  end
  return clip
end

--- A clip u8 (T,h,w,3) of a bright square on black whose side in each frame is given; its corner stays at `corner` (from 0).
function helper.growing_square(sides, h, w, corner)
  local clip = pn.zeros { #sides, h, w, 3, dtype = "u8" }
  for t, side in ipairs(sides) do
    for y = 1, side do
      for x = 1, side do
        clip:set(255, t, corner + y, corner + x, 1)
      end
    end
  end
  return clip
end

--- A tensor of numbers in [a, b) that depend on the name alone.
function helper.random(shape, name, a, b, dtype)
  local spec = { dtype = dtype }
  for i, size in ipairs(shape) do
    spec[i] = size
  end
  return pn.random.stream(7, name or "spec"):fill(pn.empty(spec), "uniform", a or -1, b or 1)
end

--- A tensor of numbers in [-1, 1] that anyone can work out: element i (from 0, in row order) is (i * k mod 101) / 50 - 1.
function helper.counted(shape, k)
  local count, values = 1, {}
  for _, size in ipairs(shape) do
    count = count * size
  end
  for i = 0, count - 1 do
    values[i + 1] = (i * (k or 7919) % 101) / 50 - 1
  end
  return pn.reshape(pn.tensor(values), { shape = shape }):clone()
end

--- y = f(x...) and, for dy = counted(shape of y, 613), the gradients of every x, in a table.
function helper.with_gradients(f, ...)
  local inputs, gradients = { ... }, {}
  for _, x in ipairs(inputs) do
    x:set_grad(nil)
    x:requires_grad(true)
  end
  local y = f(...)
  y:backward(helper.counted(y:shape(), 613))
  for i, x in ipairs(inputs) do
    gradients[i] = x:grad()
  end
  return y, gradients
end

--- The grid of a tensor, as stride, centre.
function helper.grid(t)
  local grid = t:grid()
  return grid.stride, grid.centre
end

local function flat(value)
  if pn.is_tensor(value) then
    return value:flat()
  end
  local list = {}
  local function walk(v)
    if type(v) == "table" then
      for _, inner in ipairs(v) do
        walk(inner)
      end
    else
      list[#list + 1] = v
    end
  end
  walk(value)
  return list
end

--- The largest difference, relative to the largest magnitude of `expected` (both tensors, nested tables or numbers).
function helper.relative_error(actual, expected)
  local a, b = flat(actual), flat(expected)
  assert(#a == #b, ("%d elements against %d"):format(#a, #b))
  local worst, scale = 0, 0
  for i = 1, #b do
    if a[i] ~= a[i] or b[i] ~= b[i] then
      return math.huge
    end
    worst = math.max(worst, math.abs(a[i] - b[i]))
    scale = math.max(scale, math.abs(b[i]))
  end
  return scale > 0 and worst / scale or worst
end

--- Fails unless actual is within tolerance (relative to the largest magnitude; default 1e-5) of expected.
function helper.assert_close(actual, expected, tolerance, what)
  local e = helper.relative_error(actual, expected)
  if e > (tolerance or 1e-5) then
    error(("%srelative error %.3g, allowed %.3g"):format(what and what .. ": " or "", e, tolerance or 1e-5), 2)
  end
end

--- Fails unless the shape is the one given: `helper.assert_shape(t, 1, 64, 8)`.
function helper.assert_shape(t, ...)
  local actual, expected = table.concat(t:shape(), ","), table.concat({ ... }, ",")
  if actual ~= expected then
    error(("shape %s, expected %s"):format(actual, expected), 2)
  end
end

--- Fails unless two tensors agree in every bit.
function helper.assert_same_bits(a, b, what)
  local same = table.concat(a:shape(), ",") == table.concat(b:shape(), ",") and a:dtype() == b:dtype() and a:crc32c() == b:crc32c()
  if not same then
    error((what or "tensors") .. ": bits differ", 2)
  end
end

--- Runs f, which must fail; returns the message. With patterns (plain text), each must stand in it.
function helper.failure(f, ...)
  local ok, message = pcall(f)
  if ok then
    error("it did not fail", 2)
  end
  message = tostring(message)
  for i = 1, select("#", ...) do
    local text = select(i, ...)
    if not message:find(text, 1, true) then
      error(("the message lacks %q:\n%s"):format(text, message), 2)
    end
  end
  return message
end

--- Fails unless f made no global.
function helper.assert_no_globals(f)
  local before = {}
  for key in pairs(_G) do
    before[key] = true
  end
  f()
  for key in pairs(_G) do
    if not before[key] then
      error("a global appeared: " .. tostring(key), 2)
    end
  end
end

return helper
