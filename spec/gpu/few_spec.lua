--- Transposed convolutions onto a few channels, by kernels of their own: against the CPU over shapes that meet every branch.

local device = require "spec.gpu.device"
local mixed = require "spec.gpu.mixed"
local pn = require "penumbra"
local helper = require "spec.helper"

-- Result and the three gradients of a transposed convolution of random numbers, on a device; `short`: of pixels in that type.
local function all_of(where, x, w, b, dy, arguments, view, short)
  local function leaf(t) return t and t:to(where):detach():clone():requires_grad(true) end
  local lx, lw, lb = leaf(short and x:cast(short) or x), leaf(w), leaf(b)
  local y = pn.conv_transpose3d(view and view(lx) or lx, lw, lb, arguments)
  assert.equal(short or pn.real, y:dtype())
  y:backward(dy:to(where):cast(y:dtype()))
  return { y:detach(), lx:grad(), lw:grad(), lb and lb:grad() }
end

local function compare(from, to, size, arguments, options)
  options = options or {}
  local short = options.short
  local function make(shape, name)
    local t = helper.random(shape, name)
    if short then t = t:cast(short):cast(pn.real) end -- numbers that the shorter type has, too
    return #shape == 5 and t:contiguous(options.layout or "channels_last") or t
  end
  local x = make({ options.n or 2, from, size[1], size[2], size[3] }, "x")
  local k = arguments.kernel
  local w, b = make({ from, to, k[1], k[2], k[3] }, "w"), options.bias ~= false and make({ to }, "b") or nil
  local passed = { stride = arguments.stride, pad = arguments.pad, output_pad = arguments.output_pad }
  local shape = pn.conv_transpose3d(options.view and options.view(x) or x, w, b, passed):shape()
  local dy = make(shape, "dy")
  local here = all_of("cpu", x, w, b, dy, passed, options.view)
  local there = all_of("cuda", x, w, b, dy, passed, options.view, short)
  local again = mixed(function() return all_of("cuda", x, w, b, dy, passed, options.view, short) end)
  for i, name in ipairs { "y", "dx", "dw", "db" } do
    if here[i] then
      local what = ("%s of %d to %d"):format(name, from, to)
      helper.assert_close(there[i]:to("cpu"):cast(pn.real), here[i], device.tolerance[short or pn.real], what)
      assert.equal(there[i]:crc32c(), again[i]:crc32c(), what)
    end
  end
end

describe("a transposed convolution onto few channels", function()
  local sides = { kernel = { 4, 8, 8 }, stride = { 2, 4, 4 }, pad = { 1, 2, 2 } }

  it("has the CPU's result and gradients, for every number of channels", function()
    for _, from in ipairs { 1, 2, 3, 4, 8, 16, 17, 64 } do
      for to = 1, 4 do compare(from, to, { 2, 3, 2 }, sides) end
    end
  end)

  it("has them with many taps, which threads share", function()
    compare(16, 1, { 2, 2, 3 }, { kernel = { 8, 32, 32 }, stride = { 4, 16, 16 }, pad = { 2, 8, 8 } })
    compare(1, 1, { 1, 2, 2 }, { kernel = { 8, 32, 32 }, stride = { 4, 16, 16 }, pad = { 2, 8, 8 } }, { n = 1 })
  end)

  it("has them with many pixels, in runs", function()
    compare(16, 1, { 3, 16, 17 }, { kernel = { 2, 2, 3 }, stride = { 1, 2, 2 }, pad = { 0, 0, 1 } }, { n = 1 })
  end)

  it("has them in 16 bits, eight channels at a time where they come in eights", function()
    if pn.real == "f64" then return end -- which has no shorter products
    finally(function() pn.precision("f32", "cuda") end)
    for precision, short in pairs { bf16 = "bf16", fp16 = "f16" } do
      pn.precision(precision, "cuda")
      for _, from in ipairs { 1, 8, 12, 24, 64 } do compare(from, from == 24 and 3 or 1, { 2, 3, 9 }, sides, { short = short }) end
      compare(16, 1, { 2, 2, 3 }, { kernel = { 8, 32, 32 }, stride = { 4, 16, 16 }, pad = { 2, 8, 8 } }, { short = short })
    end
  end)

  it("has them where windows do not meet, and where the padding cuts deep", function()
    compare(4, 2, { 2, 3, 3 }, { kernel = { 1, 2, 2 }, stride = { 2, 3, 3 }, pad = 0, output_pad = { 1, 2, 0 } })
    compare(4, 2, { 3, 4, 4 }, { kernel = { 3, 5, 4 }, stride = { 1, 2, 2 }, pad = { { 2, 2 }, { 0, 3 }, { 3, 1 } } })
  end)

  it("has them without bias, from rows, and from a part of wider pixels", function()
    compare(8, 1, { 2, 3, 3 }, sides, { bias = false })
    compare(8, 2, { 2, 3, 3 }, sides, { layout = "rows" })
    compare(8, 1, { 2, 3, 3 }, sides, {
      view = function(x) return pn.concat({ x, x }, { axis = 2 }):slice(2, 5, 8) end,
    })
  end)

  it("adds to a gradient that has begun, in any memory order", function()
    local function gradients(where, layout)
      local x = helper.random({ 1, 4, 2, 2, 2 }, "x"):contiguous(layout):to(where):requires_grad(true)
      local w = helper.random({ 4, 1, 2, 2, 2 }, "w"):contiguous(layout):to(where):requires_grad(true)
      for _ = 1, 2 do
        local y = pn.conv_transpose3d(x, w, { stride = 2 })
        y:backward(pn.ones { 1, 1, 4, 4, 4, device = where })
      end
      return x:grad(), w:grad()
    end
    for _, layout in ipairs { "rows", "channels_last", "filter" } do
      local x, w = gradients("cuda", layout)
      local cpu_x, cpu_w = gradients("cpu", layout)
      helper.assert_close(x:to "cpu", cpu_x, device.tolerance[pn.real], layout)
      helper.assert_close(w:to "cpu", cpu_w, device.tolerance[pn.real], layout)
    end
  end)
end)
