-- batch_norm: PyTorch's numbers, its three modes, the stored statistics, strided destinations, every CPU variant alike.
local pn = require "penumbra"
local helper = require "spec.helper"
local C = pn.C

local batch_y = {
  0, 0.00305303724, 1.37591073, 0, 0.739708384, 0, 0.103506039, 1.47636373, 0, 0.840161386, 0, 0.203959041,
  0.862471266, 0, 0.215297415, 0, 0, 0.964656611, 0, 0.31748276, 0, 0, 1.06684196, 0, 1.14152039, 0,
  0.505318046, 1.87817574, 0, 1.24197339, 0, 0.605771048, 1.97862874, 0, 1.34242639, 0, 0, 0, 0, 0.72622414, 0,
  0.0790502881, 0, 0, 0.828409485, 0, 0.181235633, 0,
}
local batch_d1 = {
  -0.0140488399, -1.31189552, -0.935525508, 0.0621353768, -0.532540293, -0.00366008306, -0.129555078,
  0.246814936, 0.0725241336, 0.649800151, 0.00672867376, 1.05278537, 1.15828376, -0.032024513, 1.6249496,
  -0.0422236175, -0.0202150236, -1.08818344, -0.0304141281, -0.621517604, -0.0406132326, -0.0186046387,
  0.1055893, -0.0288037432, 0.814903758, 0.0378949442, 1.21788897, 1.59425899, 0.114079161, -1.38467353,
  0.048283701, -0.98168831, -0.605318296, 0.124467918, -0.202333081, 0.0586724579, -0.0137734839,
  -0.0459811823, -0.0239725884, 0.71333342, -0.0341716929, 1.17999926, -0.0443707974, -0.0223622035,
  -1.53313378, -0.032561308, -1.06646795, -0.0427604125,
}
local batch_d2 = {
  -2.2, 0.3,
}
local frozen_y = {
  -1.30408161, -0.145584411, 1.01291279, -0.682448968, 0.476048235, -1.21931353, -0.0608163227, 1.09768088,
  -0.59768088, 0.560816323, -1.13454544, 0.0239517653, 0.178652868, -0.669663217, -0.089980559, -0.938296644,
  -0.358613986, 0.221068672, -0.627247413, -0.0475647547, -0.89588084, -0.316198182, 0.263484476, -0.584831608,
  0.815120587, -0.880241173, 0.278256029, 1.43675323, -0.258608528, 0.899888675, -0.795473085, 0.363024117,
  1.52152132, -0.17384044, 0.984656763, -0.710704997, -0.188950769, -1.03726685, -0.457584196, 0.122098462,
  -0.726217623, -0.146534965, -0.99485105, -0.415168392, 0.164514267, -0.683801818, -0.10411916, -0.952435245,
}
local frozen_d1 = {
  -1.41280147, -1.21500926, -1.01721706, -0.819424851, -0.621632645, -0.42384044, -0.226048235, -0.0282560293,
  0.169536176, 0.367328381, 0.565120587, 0.762912792, 0.480712448, 0.579682658, 0.678652868, -0.650375665,
  -0.551405455, -0.452435245, -0.353465035, -0.254494825, -0.155524616, -0.0565544057, 0.0424158042,
  0.141386014, 0.480352499, 0.678144704, 0.875936909, 1.07372911, 1.27152132, -1.38454544, -1.18675323,
  -0.988961027, -0.791168821, -0.593376616, -0.395584411, -0.197792205, 0, 0.0989702099, 0.19794042,
  0.29691063, 0.39588084, 0.49485105, 0.593821259, 0.692791469, -0.636237064, -0.537266854, -0.438296644,
  -0.339326434,
}
local frozen_d2 = {
  -3.58, 0.38,
}

local BATCH_MEAN, BATCH_VAR = { -0.0325, -0.04 }, { 0.3557604167, 0.3437666667 } -- of counted{2,2,2,2,3}, by channel, biased

local function stored()
  return pn.tensor { 0.1, -0.2 }, pn.tensor { 0.5, 2 }
end

describe("batch_norm", function()
  it("gives PyTorch's numbers from the statistics of the batch, relu on top", function()
    local mean, var = stored()
    local y, d = helper.with_gradients(function(x, beta)
      return pn.batch_norm(x, beta, mean, var, { mode = "batch", relu = true })
    end, helper.counted { 2, 2, 2, 2, 3 }, pn.tensor { 0.25, -0.5 })
    helper.assert_close(y, batch_y, 2e-6)
    helper.assert_close(d[1], batch_d1, 2e-6)
    helper.assert_close(d[2], batch_d2, 2e-6)
    helper.assert_close(mean, { 0.1, -0.2 })
    helper.assert_close(var, { 0.5, 2 })
  end)

  it("gives PyTorch's numbers from stored statistics", function()
    local mean, var = stored()
    local y, d = helper.with_gradients(function(x, beta)
      return pn.batch_norm(x, beta, mean, var)
    end, helper.counted { 2, 2, 2, 2, 3 }, pn.tensor { 0.25, -0.5 })
    helper.assert_close(y, frozen_y, 2e-6)
    helper.assert_close(d[1], frozen_d1, 2e-6)
    helper.assert_close(d[2], frozen_d2, 2e-6)
  end)

  it("blends them: alpha 1 is batch, alpha 0 is frozen, between lies the statistic between", function()
    local x, beta, mean, var = helper.counted { 2, 2, 2, 2, 3 }, pn.tensor { 0.25, -0.5 }, stored()
    local function norm(args)
      local y, d = helper.with_gradients(function(t) return pn.batch_norm(t, beta, mean, var, args) end, x)
      return y, d[1]:clone()
    end
    local ends = { [0] = "frozen", [1] = "batch" }
    for alpha, mode in pairs(ends) do
      local y, dx = norm { mode = "moving", alpha = alpha }
      local expected_y, expected_dx = norm { mode = mode }
      helper.assert_close(y, expected_y, 1e-6)
      helper.assert_close(dx, expected_dx, 1e-6)
    end
    local function blend(from, to)
      return pn.tensor { 0.7 * from[1] + 0.3 * to[1], 0.7 * from[2] + 0.3 * to[2] }
    end
    local between = pn.batch_norm(x, beta, blend({ 0.1, -0.2 }, BATCH_MEAN), blend({ 0.5, 2 }, BATCH_VAR))
    helper.assert_close(norm { mode = "moving", alpha = 0.3 }, between, 1e-6)
  end)

  it("moves the stored statistics on demand, with the biased variance", function()
    local mean, var = stored()
    pn.batch_norm(helper.counted { 2, 2, 2, 2, 3 }, pn.zeros { 2 }, mean, var, { mode = "batch", update = true, momentum = 0.9 })
    helper.assert_close(mean, { 0.09 + 0.1 * BATCH_MEAN[1], -0.18 + 0.1 * BATCH_MEAN[2] }, 1e-6)
    helper.assert_close(var, { 0.45 + 0.1 * BATCH_VAR[1], 1.8 + 0.1 * BATCH_VAR[2] }, 1e-6)
  end)

  it("keeps its figures where the mean dwarfs the spread", function()
    local x = helper.counted { 1, 1, 8, 20, 20 } * 0.01 + 1000
    local y = pn.batch_norm(x, pn.zeros { 1 }, pn.zeros { 1 }, pn.ones { 1 }, { mode = "batch", eps = 0 })
    local values, sum, squares = y:flat(), 0, 0
    for _, v in ipairs(values) do
      sum, squares = sum + v, squares + v * v
    end
    assert.is_true(math.abs(sum / #values) < 2e-2)
    assert.is_true(math.abs(squares / #values - 1) < 2e-2) -- x itself is only good to 6e-5 / 6e-3
  end)

  it("reads and writes slices of wider tensors, and crops", function()
    local beta, mean, var = helper.counted { 5 }, helper.counted({ 5 }, 31), pn.ones { 5 }
    local wide = pn.zeros { 1, 9, 2, 4, 6, layout = "channels_last" }
    local x = pn.contiguous(helper.counted { 1, 9, 4, 6, 8 }, { layout = "channels_last" }):slice(2, 3, 5)
    local crop = pn.crop3d(x, { first = { 2, 2, 2 }, size = { 2, 4, 6 } })
    for _, mode in ipairs { "frozen", "batch" } do
      local expected = pn.batch_norm(crop:clone(), beta, mean, var, { mode = mode, relu = true })
      pn.batch_norm(crop, beta, mean, var, { mode = mode, relu = true, into = wide:slot(2, 4, 5) })
      helper.assert_close(wide:slice(2, 4, 5), expected, 1e-6)
      assert.equal(0, pn.sum(pn.abs(wide:slice(2, 1, 3))):item() + pn.sum(pn.abs(wide:slice(2, 9, 1))):item())
    end
  end)

  it("writes its gradient over that of its result where no one else has begun one", function()
    local mean, var = pn.zeros { 37 }, pn.ones { 37 }
    local x, beta = helper.random({ 2, 37, 2, 5, 7 }, "x"), helper.random({ 37 }, "beta")
    for _, mode in ipairs { "frozen", "batch", "moving" } do
      local function norm(t)
        return pn.batch_norm(t, beta, mean, var, { mode = mode, relu = true })
      end
      local _, of_leaf = helper.with_gradients(norm, x)
      local leaf = of_leaf[1]:clone() -- the next run begins a new one
      local _, alone = helper.with_gradients(function(t) return norm(pn.contiguous(t * 1, { layout = "channels_last" })) end, x)
      helper.assert_close(alone[1], leaf, 1e-6, mode .. ": over dy")
      local _, both = helper.with_gradients(function(t)
        local z = pn.contiguous(t * 1, { layout = "channels_last" })
        return norm(z) + pn.square(z)
      end, x)
      local _, square = helper.with_gradients(function(t) return pn.square(t) end, x)
      helper.assert_close(both[1], leaf + square[1], 1e-6, mode .. ": added")
    end
  end)

  it("refuses what does not fit", function()
    local x = pn.zeros { 1, 3, 1, 2, 2 }
    helper.failure(function() pn.batch_norm(x, pn.zeros { 3 }, pn.zeros { 4 }, pn.ones { 3 }) end,
      "batch_norm: mean needs one number for each of x's 3 channels", "(x 1,3,1,2,2; beta 3; mean 4; var 3)")
    helper.failure(function() pn.batch_norm(x, pn.zeros { 3 }, pn.zeros { 3 }, pn.ones { 3 }, { update = true }) end,
      "batch_norm: update=true needs mode=batch or moving: frozen statistics stay")
    helper.failure(function()
      pn.batch_norm(pn.zeros { 0, 3, 1, 2, 2 }, pn.zeros { 3 }, pn.zeros { 3 }, pn.ones { 3 }, { mode = "batch" })
    end,
      "batch_norm: the statistics of no elements")
  end)

  local best = require("ffi").string(C.pn_cpu_variant())
  for _, variant in ipairs { "avx2", "avx512" } do
    it(variant .. " agrees with the plain definition for any number of channels", function()
      if C.pn_set_cpu_variant(variant) ~= 0 then
        pending("this CPU cannot run " .. variant)
        return
      end
      for _, channels in ipairs { 1, 5, 16, 37, 130 } do
        local x = helper.random({ 2, channels, 3, 5, 6 }, "x"):contiguous("channels_last")
        local beta, mean, var = helper.counted { channels } * 0.1, helper.counted({ channels }, 31), pn.ones { channels }
        beta = beta:detach():clone()
        for _, args in ipairs { { relu = true }, { mode = "batch" }, { mode = "batch", relu = true }, { mode = "moving" }, {} } do
          local made = {}
          for _, name in ipairs { "plain", variant } do
            assert(C.pn_set_cpu_variant(name) == 0)
            local y, d = helper.with_gradients(function(t, b) return pn.batch_norm(t, b, mean, var, args) end, x, beta)
            made[name] = { y, d[1]:clone(), d[2]:clone() }
          end
          assert(C.pn_set_cpu_variant(best) == 0)
          for i, what in ipairs { "y", "dx", "dbeta" } do
            helper.assert_close(made[variant][i], made.plain[i], 1e-5, channels .. " channels: " .. what)
          end
        end
      end
    end)
  end
end)
