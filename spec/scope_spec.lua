--- Scopes: what they free, what they let live, and how memory is kept in bounds.

local pn = require "penumbra"
local helper = require "spec.helper"

local function live()
  collectgarbage()
  collectgarbage()
  return pn.memory().live
end

describe("a scope", function()
  it("frees what was made and not returned", function()
    local before = live()
    local inner
    local kept = pn.scope(function()
      inner = pn.zeros { 1000 }
      return pn.ones { 10 }
    end)
    assert.equal(10, kept:count())
    helper.failure(function() inner:size(1) end, "tensor used after its scope ended (return it from the scope or :keep() it)")
    kept:free()
    assert.equal(before, pn.memory().live)
  end)

  it("passes arguments and results, and looks into tables", function()
    local a, b, c = pn.scope(function(x, y)
      local t = { deep = { x + 1 } }
      t.loop = t
      return t, y, nil
    end, pn.ones { 2 }, "text")
    assert.same({ 2, 2 }, a.deep[1]:totable())
    assert.equal("text", b)
    assert.is_nil(c)
  end)

  it("can be stepped out of, for what must outlive it", function()
    local outlives, inside
    pn.scope(function()
      outlives = pn.scope.outside(function(value)
        assert.equal(0, pn.scope.depth())
        return pn.full { 2, value = value }
      end, 5)
      assert.equal(1, pn.scope.depth())
      helper.failure(function()
        pn.scope.outside(function()
          pn.scope.push()
          error("within")
        end)
      end, "within")
      assert.equal(1, pn.scope.depth())
      inside = pn.zeros { 1 }
    end)
    assert.same({ 5, 5 }, outlives:totable())
    helper.failure(function() inside:count() end, "tensor used after its scope ended")
  end)

  it("nests: what leaves the inner one belongs to the outer", function()
    local middle
    local out = pn.scope(function()
      middle = pn.scope(function()
        return pn.ones { 3 }
      end)
      assert.same({ 1, 1, 1 }, middle:totable())
      return middle * 2
    end)
    assert.same({ 2, 2, 2 }, out:totable())
    helper.failure(function() middle:size(1) end, "used after its scope ended")
  end)

  it("does not touch what was made outside", function()
    local outside = pn.ones { 2 }
    pn.scope(function()
      return outside + 1
    end)
    assert.same({ 1, 1 }, outside:totable())
  end)

  it("lets live what is kept", function()
    local kept
    pn.scope(function()
      kept = pn.ones({ 2 }):keep()
    end)
    assert.same({ 1, 1 }, kept:totable())
  end)

  it("is closed by an error, which keeps its text and its place", function()
    local before, depth = live(), pn.scope.depth()
    local inner
    local message = helper.failure(function()
      pn.scope(function()
        inner = pn.zeros { 1000 }
        pn.scope(function()
          error("it broke")
        end)
      end)
    end, "it broke")
    assert.is_truthy(message:find("scope_spec.lua:%d+: it broke"))
    assert.equal(1, select(2, message:gsub("scope_spec", "")))
    assert.is_truthy(pn.traceback():find("it broke", 1, true))
    helper.failure(function() inner:size(1) end, "used after its scope ended")
    assert.equal(depth, pn.scope.depth())
    assert.equal(before, pn.memory().live)
  end)

  it("passes on an error that is no text", function()
    local ok, value = pcall(pn.scope, function()
      error({ code = 7 })
    end)
    assert.is_false(ok)
    assert.same({ code = 7 }, value)
  end)

  it("can be opened and closed by hand", function()
    pn.scope.push()
    local a, b = pn.ones { 1 }, pn.ones { 1 }
    assert.equal(b, (pn.scope.pop(b)))
    assert.equal(1, b:item())
    helper.failure(function() a:item() end, "used after its scope ended")
    helper.failure(function() pn.scope(function() pn.scope.push() end) end, "1 scope(s) were pushed inside and not popped")
    while pn.scope.depth() > 0 do
      pn.scope.pop()
    end
    helper.failure(function() pn.scope.pop() end, "scope.pop: no scope is open")
    helper.failure(function() pn.scope(3) end, "scope: expects a function, got number")
  end)

  it("leaves to the tape what backward needs", function()
    local x = pn.tensor({ 1, 2, 3 }):requires_grad(true)
    local loss = pn.scope(function()
      local y = x * x
      local z = y * y
      return z:sum()
    end)
    loss:backward()
    assert.same({ 4, 32, 108 }, x:grad():totable())
  end)

  it("of each step keeps the memory of a loop flat", function()
    local x = pn.ones({ 1000 }):requires_grad(true)
    local function step()
      pn.scope(function()
        (x * x * x):sum():backward()
        x:set_grad(nil)
      end)
    end
    step()
    local before = live()
    for _ = 1, 50 do
      step()
      assert.equal(before, pn.memory().live)
    end
  end)
end)

describe("memory", function()
  local mebibyte = 2 ^ 20

  it("is counted", function()
    local before = live()
    local t = pn.zeros { mebibyte, dtype = "u8" }
    assert.equal(before + mebibyte, pn.memory().live)
    assert.is_true(pn.memory().peak >= before + mebibyte)
    t:free()
    assert.equal(before, pn.memory().live)
  end)

  it("of dropped tensors is collected, in and out of scopes, though Lua cannot see it", function()
    local limit = pn.soft_limit()
    pn.soft_limit(live() + 64 * mebibyte)
    pn.C.pn_memory_reset_peak(0)
    for _ = 1, 200 do
      pn.zeros { 4 * mebibyte, dtype = "u8" }
    end
    pn.scope(function()
      for _ = 1, 200 do
        pn.zeros { 4 * mebibyte, dtype = "u8" }
      end
    end)
    local peak = pn.memory().peak
    pn.soft_limit(limit)
    assert.is_true(peak < live() + 80 * mebibyte, ("peak %.0f MiB"):format(peak / mebibyte))
  end)

  it("that runs out is collected and asked for once more", function()
    live()
    local base = pn.memory().live
    pn.C.pn_memory_trim(0)
    pn.C.pn_memory_set_limit(0, base + 40 * mebibyte)
    local ok, message = pcall(function()
      for _ = 1, 20 do
        pn.zeros { 16 * mebibyte, dtype = "u8" }
        local x = pn.zeros { 4 * mebibyte / pn.C.pn_dtype_bytes(pn.C.pn_real()) }
        assert.equal(1, (x + 1):get(1))
      end
    end)
    pn.C.pn_memory_set_limit(0, 0)
    assert.is_true(ok, message)
  end)

  it("that is not there is an error that says how much was wanted", function()
    local base = live()
    pn.C.pn_memory_set_limit(0, base + 4 * mebibyte)
    local ok, message = pcall(function()
      return pn.zeros { 16 * mebibyte, dtype = "u8" }
    end)
    pn.C.pn_memory_set_limit(0, 0)
    assert.is_false(ok)
    assert.is_truthy(message:find("out of memory: 16.0 MiB wanted", 1, true), message)
  end)

  it("refuses a limit that is none", function()
    helper.failure(function() pn.soft_limit(-1) end, "soft_limit: expects a number of bytes, got -1")
  end)
end)
