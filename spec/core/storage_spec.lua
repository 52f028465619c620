-- Where large blocks come from: reuse, joining, what is held, and what a training step costs in new pages.
local helper = require "spec.helper"
local pn = require "penumbra"
local C = pn.C

local MiB = 2 ^ 20

local function clean()
  collectgarbage()
  collectgarbage()
  C.pn_memory_trim(0)
  return pn.memory()
end

local function bytes(n)
  return pn.empty { n, dtype = "u8" }
end

describe("a large block", function()
  it("takes the place of one that is gone", function()
    clean()
    local a = bytes(8 * MiB)
    local place, held = a:data(), pn.memory().held
    a:free()
    assert.equal(held, pn.memory().held)
    assert.is_true(pn.memory().cached >= 8 * MiB)
    local b = bytes(8 * MiB)
    assert.is_true(place == b:data())
    assert.equal(held, pn.memory().held)
    b:free()
  end)

  it("takes the smallest place that fits, and neighbours that are gone are one place", function()
    clean()
    local kept, gone = {}, {}
    for i, size in ipairs { 3, 2, 4, 4 } do
      gone[i] = bytes(size * MiB)
      kept[i] = bytes(MiB)
    end
    local two = gone[2]:data()
    kept[3]:free()
    for i = 1, 4 do
      gone[i]:free()
    end
    local held = pn.memory().held
    local small, large = bytes(2 * MiB), bytes(9 * MiB) -- 4 + 1 + 4
    assert.is_true(small:data() == two)
    assert.equal(held, pn.memory().held)
    for _, t in ipairs { small, large, kept[1], kept[2], kept[4] } do
      t:free()
    end
  end)

  it("goes back to the system by a trim, with what is cached of small ones", function()
    local before = clean()
    assert.equal(0, before.cached)
    local a, b = bytes(40 * MiB), bytes(1000)
    a:free()
    b:free()
    assert.is_true(pn.memory().cached >= 40 * MiB + 1000)
    local after = clean()
    assert.same({ 0, before.held }, { after.cached, after.held })
    local c = bytes(40 * MiB):fill(7) -- pages that went are there again, and writable
    assert.equal(7, c:get(40 * MiB))
    c:free()
  end)

  it("larger than a chunk of addresses is one too; larger than the machine is an error", function()
    clean()
    local t = bytes(300 * MiB)
    t:set(1, 300 * MiB)
    assert.equal(1, t:get(300 * MiB))
    t:free()
    assert.error_matches(function()
      bytes(2 ^ 46)
    end, "out of memory: 67108864.0 MiB wanted", 1, true)
  end)

  it("is held at its peak until the peak is reset", function()
    clean()
    C.pn_memory_reset_peak(0)
    local before = pn.memory().peak_held
    bytes(16 * MiB):free()
    assert.equal(before + 16 * MiB, pn.memory().peak_held)
    clean()
    C.pn_memory_reset_peak(0)
    assert.equal(before, pn.memory().peak_held)
  end)
end)

describe("a training step", function()
  local net, x, y, sgd

  setup(function()
    net = require "models.fcn_i3d" { batchnorm = "batch", width = 0.25 }:train()
    x = helper.random({ 1, 3, 4, 64, 64 }, "clip"):contiguous("channels_last")
    y = pn.zeros { 1, 1, 4, 64, 64, layout = "channels_last" }
    y:slice(5, 10, 20):fill(1)
    sgd = pn.optim.sgd(net:parameters(), { lr = 1e-3, momentum = 0.9 })
  end)

  local function step()
    pn.scope(function()
      sgd:zero_grad()
      local out = net(x)
      local loss = pn.loss.balanced(out.fused, y)
      for _, side in ipairs(out.sides) do
        loss = loss + 0.5 * pn.loss.balanced(side, y)
      end
      loss:backward()
      sgd:step()
    end)
  end

  -- New pages of n steps. The collector runs outside the count, so that Lua's own heap does not grow within it.
  local function faults(n, f)
    local sum = 0
    for _ = 1, n do
      collectgarbage()
      local before = pn.process().page_faults
      f()
      sum = sum + pn.process().page_faults - before
    end
    return sum
  end

  it("meets no new pages from the third on, nor does inference", function()
    if (os.getenv "PENUMBRA_LIB" or ""):find "asan" then
      pending "the memory of the sanitizer grows"
    end
    local function infer()
      pn.scope(function()
        pn.no_grad(net, x)
      end)
    end
    faults(2, step)
    local n = faults(3, step)
    assert.is_true(n < 60, n .. " faults in three steps")
    faults(2, infer)
    n = faults(3, infer)
    assert.is_true(n < 60, n .. " faults in three inferences")
    -- The count counts: a step that finds nothing cached touches every page anew.
    C.pn_memory_trim(0)
    n = faults(1, step)
    assert.is_true(n > 100, n .. " faults in a step after a trim")
  end)
end)
