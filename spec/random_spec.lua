--- Random streams: the published vectors of Philox4x32-10, and that a stream depends on its name and place alone.

local pn = require "penumbra"
local helper = require "spec.helper"
local ffi = require "ffi"

describe("philox", function()
  -- Random123's known answers: counter = (offset, stream), key = seed.
  local answers = {
    { 0, 0, 0, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
    { -1, -1, -1, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
    { 0x299f31d0a4093822ULL, 0x0370734413198a2eULL, 0x85a308d3243f6a88ULL, { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
  }
  for i, answer in ipairs(answers) do
    it("gives the published numbers, " .. i, function()
      local out = ffi.new("uint32_t [4]")
      local function u64(value)
        return ffi.cast("uint64_t", type(value) == "number" and ffi.cast("int64_t", value) or value)
      end
      pn.C.pn_philox(u64(answer[1]), u64(answer[2]), u64(answer[3]), out)
      for k = 1, 4 do
        assert.equal(answer[4][k], out[k - 1])
      end
    end)
  end
end)

describe("a stream", function()
  local function draws(rng, n)
    local list = {}
    for i = 1, n or 10 do
      list[i] = rng:bits()
    end
    return list
  end

  it("is the same for the same seed and name, and no other", function()
    assert.same(draws(pn.random.stream(1, "a")), draws(pn.random.stream(1, "a")))
    assert.not_same(draws(pn.random.stream(1, "a")), draws(pn.random.stream(1, "b")))
    assert.not_same(draws(pn.random.stream(1, "a")), draws(pn.random.stream(2, "a")))
    assert.same(draws(pn.random.stream(1)), draws(pn.random.stream(1, 0)))
    assert.same(draws(pn.random.stream(1, "a"):child("b")), draws(pn.random.stream(1, "a"):child("b")))
    assert.not_same(draws(pn.random.stream(1, "a"):child("b")), draws(pn.random.stream(1, "a")))
  end)

  it("goes on from its state", function()
    for skipped = 0, 9 do
      local rng = pn.random.stream(3, "x")
      draws(rng, skipped)
      local state = rng:state()
      local expected = draws(rng)
      assert.same(expected, draws(pn.random.stream(9, "y"):set_state(state)))
    end
  end)

  it("draws what it says", function()
    local rng, seen, sum, square = pn.random.stream(4, "z"), {}, 0, 0
    for _ = 1, 4000 do
      local u = rng:uniform(2, 3)
      assert.is_true(u > 2 and u < 3)
      local k = rng:integer(-1, 2)
      seen[k] = (seen[k] or 0) + 1
      local n = rng:normal(1, 2)
      sum, square = sum + n, square + (n - 1) ^ 2
    end
    for k = -1, 2 do
      assert.is_true(math.abs(seen[k] - 1000) < 120, k .. ": " .. seen[k])
    end
    assert.is_true(math.abs(sum / 4000 - 1) < 0.15)
    assert.is_true(math.abs(square / 4000 - 4) < 0.4)
    assert.equal(5, rng:integer(5, 5))
    assert.is_true(rng:coin(1))
    assert.is_false(rng:coin(0))
    local heads = 0
    for _ = 1, 1000 do
      heads = heads + (rng:coin(0.3) and 1 or 0)
    end
    assert.is_true(math.abs(heads - 300) < 60)
    assert.equal("only", rng:pick { "only" })
  end)

  it("shuffles", function()
    local list = pn.random.stream(4, "s"):shuffle { 1, 2, 3, 4, 5, 6, 7, 8 }
    assert.not_same({ 1, 2, 3, 4, 5, 6, 7, 8 }, list)
    table.sort(list)
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8 }, list)
  end)

  it("fills tensors from where it stands, and moves on", function()
    local rng, again = pn.random.stream(5, "f"), pn.random.stream(5, "f")
    local a = rng:fill(pn.empty { 10 }, "uniform", -1, 1)
    local b = rng:fill(pn.empty { 10 }, "uniform", -1, 1)
    local both = again:fill(pn.empty { 22 }, "uniform", -1, 1):flat() -- 10 take three blocks of four
    assert.same({ unpack(both, 1, 10) }, a:totable())
    assert.same({ unpack(both, 13, 22) }, b:totable())
    for _, value in ipairs(a:totable()) do
      assert.is_true(value >= -1 and value < 1)
    end
    local ones = rng:fill(pn.empty { 4000 }, "bernoulli", 0.25):sum():item()
    assert.is_true(math.abs(ones - 1000) < 120)
    local normal = rng:fill(pn.empty { 4000 }, "normal", 3, 2)
    assert.is_true(math.abs(normal:mean():item() - 3) < 0.15)
  end)

  it("fills the same numbers in any memory order and on any number of threads", function()
    local threads = pn.threads()
    local rows = pn.random.stream(6, "m"):fill(pn.empty { 2, 3, 2, 40, 50 }, "normal")
    pn.threads(3)
    local last = pn.random.stream(6, "m"):fill(pn.empty { 2, 3, 2, 40, 50, layout = "channels_last" }, "normal")
    pn.threads(threads)
    assert.equal(rows:crc32c(), last:crc32c())
  end)

  it("says what is wrong", function()
    local rng = pn.random.stream(1)
    helper.failure(function() pn.random.stream(-1) end, "random: seed is -1, expects a whole number from 0")
    helper.failure(function() pn.random.stream("x") end, 'random: seed is "x"')
    helper.failure(function() pn.random.stream(1, 1.5) end, "random: stream is 1.5, expects a whole number from 0 or a name")
    helper.failure(function() rng:uniform(2, 1) end, "uniform: expects two numbers in order, got 2 and 1")
    helper.failure(function() rng:integer(1.5, 2) end, "integer: expects two whole numbers in order, got 1.5 and 2")
    helper.failure(function() rng:normal { 2, 2 } end, "normal: expects a mean, and a deviation from 0, got a table: "
      .. 'rng:fill(pn.empty{2, 2}, "normal") fills a tensor')
    helper.failure(function() rng:normal(0, -1) end, "normal: expects a mean, and a deviation from 0, got 0 and -1")
    helper.failure(function() rng:uniform { 2, 2 } end, 'got a table: rng:fill(pn.empty{2, 2}, "uniform") fills a tensor')
    helper.failure(function() rng:pick(3) end, "pick: expects a list, got a number")
    helper.failure(function() rng:shuffle(3) end, "shuffle: expects a list, got a number")
    helper.failure(function() rng:fill(pn.zeros { 1 }, "normal", {}) end, "fill: expects two numbers, got table")
    helper.failure(function() rng:coin(2) end, "coin: the probability is 2, expects 0 to 1")
    helper.failure(function() rng:pick {} end, "pick: the list is empty")
    helper.failure(function() rng:fill(pn.zeros { 1 }, "gauss") end, "fill: unknown distribution 'gauss'")
    helper.failure(function() rng:fill(3) end, "fill: expected a tensor, got number")
    helper.failure(function() rng:set_state { seed = 1 } end, "set_state: not a state of a random stream")
  end)
end)
