-- How many threads there are, and that no other library adds its own to them.
local helper = require "spec.helper"
local pn = require "penumbra"
local program = require "penumbra.program"
local files = require "penumbra.base.files"
local shell = require "penumbra.base.shell"

local function output_of(environment, code)
  return (shell.run(("%s %s -e %s"):format(environment, shell.quote(program.exe), shell.quote(code))))
end

describe("the number of threads", function()
  local root = helper.directory(teardown)

  local function write(path, text)
    assert.is_nil(files.make_directory((root .. path):match "^(.*)/"))
    local file = assert(io.open(root .. path, "w"))
    file:write(text)
    file:close()
  end

  it("is what the affinity allows, unless it is given", function()
    if not shell.succeeds "taskset -c 0 true" then pending "no taskset" end
    assert.equal("1\n", output_of("env -u PENUMBRA_THREADS taskset -c 0", "print(pn.threads())"))
    assert.equal("3\n", output_of("PENUMBRA_THREADS=3 taskset -c 0", "print(pn.threads())"))
  end)

  it("is what the container is held to, or a group above it", function()
    local function quota(tree, group)
      return pn.C.pn_cpu_quota(root .. tree, group or "")
    end
    assert.equal(256, quota "/none")
    write("/v2/cpu.max", "max 100000\n")
    assert.equal(256, quota "/v2")
    write("/v2/cpu.max", "150000 100000\n")
    assert.equal(2, quota "/v2") -- one and a half
    write("/v2/a/b/cpu.max", "max 100000\n")
    write("/v2/a/cpu.max", "50000 100000\n")
    assert.equal(1, quota("/v2", "/a/b"))
    assert.equal(2, quota("/v2", "/c"))
    assert.equal(2, quota("/v2", "/"))
    write("/v1/cpu/cpu.cfs_quota_us", "-1\n")
    write("/v1/cpu/cpu.cfs_period_us", "100000\n")
    assert.equal(256, quota "/v1")
    write("/v1/cpu/docker/x/cpu.cfs_quota_us", "300000\n")
    write("/v1/cpu/docker/x/cpu.cfs_period_us", "50000\n")
    assert.equal(6, quota("/v1", "/docker/x"))
    write("/odd/cpu.max", "nonsense\n")
    assert.equal(256, quota "/odd")
    write("/huge/cpu.max", "99999999999 1000\n")
    assert.equal(256, quota "/huge")
  end)

  it("is not multiplied by OpenBLAS: with one thread, one thread works", function()
    local text = output_of("PENUMBRA_THREADS=1 OPENBLAS_NUM_THREADS=4", [[
      local a = pn.ones { 900, 900 }
      for _ = 1, 40 do pn.scope(function() pn.no_grad(pn.matmul, a, a) end) end
      for task in require("lfs").dir("/proc/self/task") do
        local file = task:match("^%d") and io.open("/proc/self/task/" .. task .. "/stat")
        local user = file and file:read("*a"):match("%) %u" .. (" %-?%d+"):rep(10) .. " (%d+)")
        if user then print(user) end
      end]])
    local ticks, most, sum = {}, 0, 0
    for user in text:gmatch "%d+" do
      ticks[#ticks + 1] = tonumber(user)
      most, sum = math.max(most, tonumber(user)), sum + tonumber(user)
    end
    assert.is_true(sum >= 5, text) -- hundredths of a second
    assert.is_true(sum - most <= 0.05 * sum, text)
  end)

  it("is refused where it makes no sense", function()
    helper.failure(function() pn.threads(0) end, "set_threads: 0 is not in 1..256")
    helper.failure(function() pn.threads(257) end, "set_threads: 257 is not in 1..256")
    helper.failure(function() pn.threads(1.5) end, "threads: expects a whole number, got 1.5")
  end)
end)
