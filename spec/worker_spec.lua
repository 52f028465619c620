-- worker_spec: threads that run Lua: results, errors, tensors by reference, the end.
local pn = require "penumbra"
local helper = require "spec.helper"
local shell = require "penumbra.base.shell"
local ffi = require "ffi"

local jobs = "spec.fixtures.jobs"
local worker = pn.worker

-- What `penumbra -e code` prints, both streams, and its exit code.
local function said(code)
  return ("%sexit %d\n"):format(shell.run("build/penumbra -e " .. shell.quote(code)))
end

for _, n in ipairs { 0, 1, 3 } do
  describe(("a pool of %d"):format(n), function()
    local pool
    before_each(function() pool = worker.pool(n) end)
    after_each(function() pool:close() end)

    it("gives each job its results, in any order", function()
      local tickets = {}
      for i = 1, 20 do
        tickets[i] = pool:submit(jobs, "add", i, 0.5)
      end
      for i = 20, 1, -1 do
        assert.equal(i + 0.5, pool:collect(tickets[i]))
      end
      assert.same({ 3, nil, "x" }, { select(1, pool:collect(pool:submit(jobs, "values", nil, "x", nil))) })
    end)

    it("passes tensors by reference, both ways", function()
      local t = pn.full { 2, 2, value = 3 }
      local twice, same = pool:collect(pool:submit(jobs, "tensor", t))
      assert.same({ 6, 6, 6, 6 }, twice:totable())
      assert.equal(tonumber(pn.C.pn_tensor_storage_id(pn.ffi.ptr(t))), tonumber(pn.C.pn_tensor_storage_id(pn.ffi.ptr(same))))
    end)

    it("raises the error of a job at the line that collects it, with the traceback of the worker", function()
      local ticket = pool:submit(jobs, "fail", "it broke")
      helper.failure(function() pool:collect(ticket) end, "worker_spec.lua:", "jobs.lua:", "it broke")
      assert.matches("in function 'f?ail'", (pn.traceback():gsub("in function <[^>]*jobs.lua:%d+>", "in function 'fail'")))
      assert.matches("jobs.lua:%d+", pn.traceback())
      helper.failure(function() pool:collect(pool:submit(jobs, "leave")) end, "an odd error")
      assert.equal(3, pool:collect(pool:submit(jobs, "add", 1, 2))) -- it goes on
    end)

    it("names what is not there", function()
      helper.failure(function() pool:collect(pool:submit("no.such.module", "f")) end,
        "no module 'no.such.module': looked for no/such/module.lua in ")
      helper.failure(function() pool:collect(pool:submit(jobs, "nothing")) end,
        "worker: module 'spec.fixtures.jobs' has no function 'nothing'")
      helper.failure(function() pool:submit(jobs, 7) end, "worker: submit expects the names of a module and of a function in it")
      helper.failure(function() pool:collect(77) end, "worker: there is no job 77 to collect")
      helper.failure(function() pool:submit(jobs, "add", pn.nn.relu()) end, "submit: value 4: an object")
    end)

    it("says when a result cannot travel", function()
      helper.failure(function() pool:collect(pool:submit(jobs, "unsendable")) end, "worker: result: value 1: an object")
    end)

    it("frees what nobody collects", function()
      pn.ffi.C.pn_memory_trim(0)
      collectgarbage()
      collectgarbage()
      local before = pn.memory("cpu").live
      for _ = 1, 8 do
        pn.scope(function() pool:drop(pool:submit(jobs, "tensor", pn.zeros { 1024, 1024 })) end)
      end
      pool:submit(jobs, "tensor", pn.zeros { 1024, 1024 })
      pool:close()
      collectgarbage()
      collectgarbage()
      assert.is_true(pn.memory("cpu").live - before < 2 ^ 20)
      helper.failure(function() pool:submit(jobs, "add", 1, 2) end, "worker: the pool is closed")
    end)
  end)
end

describe("workers", function()
  it("have a state and a thread of their own", function()
    rawset(_G, "is_main", true)
    local pool = worker.pool(1)
    pn.no_grad(function()
      local recording, is_main = pool:collect(pool:submit(jobs, "threads"))
      assert.is_true(recording)
      assert.is_nil(is_main)
    end)
    rawset(_G, "is_main", nil)
    pool:close()
  end)

  it("are counted", function()
    helper.failure(function() worker.pool(-1) end, "worker.pool: workers is -1, expects a whole number from 0 to 64")
    local before = pn.threads()
    for threads, n in pairs { [1] = 0, [2] = 1, [8] = 2 } do
      pn.threads(threads)
      assert.equal(n, worker.default())
    end
    pn.threads(before)
  end)

  it("leave the CPU variant as it was chosen", function()
    local text = said([[package.path = "./?.lua;" .. package.path
      local pn, ffi = require "penumbra", require "ffi"
      assert(pn.C.pn_set_cpu_variant("plain") == 0)
      ffi.cdef "int setenv(const char *, const char *, int);"
      ffi.C.setenv("PENUMBRA_CPU", "nonsense", 1)
      local pool = pn.worker.pool(1)
      print(pool:collect(pool:submit("spec.fixtures.jobs", "variant")))]])
    assert.equal("plain\nexit 0\n", text)
  end)

  it("tell whether a job is done", function()
    local pool = worker.pool(1)
    local path = os.tmpname()
    local ticket = pool:submit(jobs, "after", path)
    assert.is_false(pool:is_done(ticket))
    os.remove(path)
    while not pool:is_done(ticket) do end
    assert.equal("done", pool:collect(ticket))
    pool:close()
  end)

  it("that are closed with a job waiting say so", function()
    local pool = worker.pool(1)
    local ticket = pool:submit(jobs, "slow", 0)
    pool:close()
    helper.failure(function() pool:collect(ticket) end, "there is no job 1 to collect")
  end)

  it("that cannot begin say why", function()
    local path = package.path
    package.path = "/nowhere/?.lua"
    local pool = worker.pool(1)
    package.path = path
    helper.failure(function() pool:collect(pool:submit(jobs, "add", 1, 2)) end, "worker: a thread ended: ",
      "module 'penumbra.worker' not found")
  end)

  it("end with the program: done, failed, or in the middle", function()
    local begin = [[package.path = "./?.lua;" .. package.path; local pn = require "penumbra"; local p = pn.worker.pool(3);
      for i = 1, 6 do p:submit("spec.fixtures.jobs", "slow", 0.05) end; ]]
    assert.equal("exit 0\n", said(begin))
    assert.matches("boom\nexit 1\n$", said(begin .. 'error "boom"'))
    assert.equal("exit 3\n", said(begin .. "os.exit(3)"))
    assert.matches("exit 130\n$", said(begin .. [[io.popen("kill -INT " .. io.open("/proc/self/stat"):read "*n"):close()
      p:collect(6)]]))
  end)
end)

describe("channels", function()
  local C = pn.C
  local function channel()
    local c = ffi.new "pn_channel *[1]"
    pn.ffi.check(C.pn_channel_new(c))
    return ffi.gc(c[0], C.pn_channel_release)
  end

  it("keep order, wait no longer than they are told, and close", function()
    local c, n = channel(), ffi.new "int64_t [1]"
    for i = 1, 3 do
      assert.equal(0, C.pn_channel_send(c, tostring(i), 1, nil, 0))
    end
    assert.equal(3, tonumber(C.pn_channel_count(c)))
    C.pn_channel_close(c)
    assert.is_true(C.pn_channel_closed(c))
    for i = 1, 3 do
      local m = C.pn_channel_receive(c, math.huge)
      assert.equal(tostring(i), ffi.string(C.pn_message_bytes(m, n), n[0]))
      assert.equal(0, C.pn_message_n_tensors(m))
      assert.is_true(C.pn_message_tensor(m, 0) == nil)
      C.pn_message_free(m)
    end
    assert.is_true(C.pn_channel_receive(c, math.huge) == nil)
    local open, began = channel(), pn.clock()
    assert.is_true(C.pn_channel_receive(open, 0.05) == nil)
    assert.is_true(pn.clock() - began >= 0.049)
  end)

  it("refuse", function()
    local c = channel()
    local list = ffi.new "pn_tensor *[1]"
    assert.equal(-1, C.pn_channel_send(c, nil, 3, nil, 0))
    assert.equal("send: NULL", pn.ffi.message())
    assert.equal(-1, C.pn_channel_send(c, "", 0, list, 1))
    assert.equal("send: tensor 1 is NULL", pn.ffi.message())
    local t = pn.zeros { 2 }
    t:requires_grad(true)
    list[0] = pn.ffi.ptr(t)
    assert.equal(-1, C.pn_channel_send(c, "", 0, list, 1))
    assert.equal("send: tensor 1 takes part in a graph, which stays with its thread; detach it first", pn.ffi.message())
    C.pn_channel_close(c)
    assert.equal(-1, C.pn_channel_send(c, "", 0, nil, 0))
    assert.equal("send: the channel is closed", pn.ffi.message())
  end)
end)
