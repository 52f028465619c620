--- Threads that run Lua, each with a LuaJIT state of its own, for work beside the step: decoding, augmentation, writing pictures.
--
--     local pool = pn.worker.pool(2)
--     local ticket = pool:submit("penumbra.image", "write", "look.png", picture) -- module, function, arguments; returns at once
--     pool:collect(ticket)                                                     -- its results, or its error, here
--     pool:close()
--
-- Arguments and results are what penumbra.worker.pack lets travel: plain values, tensors by reference, functions. Tensors are
-- shared: neither side may write into one that it sent. Gradients never cross. In a worker an operation runs on that one thread,
-- at a low priority: it fills what the main thread leaves idle and takes no share of its threads.

local ffi = require "ffi"
local binding = require "penumbra.ffi"
local modules = require "penumbra.base.modules"
local named = require "penumbra.base.named"
local pack = require "penumbra.worker.pack"
local raise = require "penumbra.base.raise"
local scope = require "penumbra.scope"

local C, check = binding.C, binding.check
local worker = {}

pcall(ffi.cdef, [[
typedef struct pn_worker pn_worker;
pn_worker *pn_worker_start(const char *path, const char *cpath, void *jobs, void *results, void (*close)(void *), int nice);
const char *pn_worker_failure(pn_worker *w);
bool pn_worker_stop(pn_worker *w);
]])

local NICE = 10 -- of the scale to 19: beside a busy thread about a tenth of a core

local library
local function threads()
  if not library then
    -- It lies beside the library, under its own name.
    local path = binding.library_path:match("^(.*/)[^/]*$")
    path = path and path .. "libpenumbra_worker.so" or "penumbra_worker"
    local ok, loaded = pcall(ffi.load, path)
    if not ok then
      raise("worker: cannot load libpenumbra_worker: %s", (tostring(loaded):gsub("^%S+%.lua:%d+: ", "")))
    end
    library = loaded
  end
  return library
end

-- ---- in a worker ----------------------------------------------------------------------------------------------------------------

-- A job: ticket, module, function, arguments. An answer: ticket, true, results; or ticket, false, message, traceback.
local function perform(module, name, ...)
  local loaded = require(module)
  local f = name == nil and loaded or type(loaded) == "table" and loaded[name]
  if type(f) ~= "function" then
    error(("worker: module '%s' has no function '%s'"):format(module, tostring(name)), 0)
  end
  return f(...)
end

local function answer(results, ticket, ok, ...)
  if ok then
    ok = scope.protect(pack.send, results, "worker: result", ticket, true, ...)
    if ok then
      return
    end
    local _, problem = pcall(pack.pack, "worker: result", ...)
    pack.send(results, "worker", ticket, false, tostring(problem), scope.traceback() or "")
    return
  end
  pack.send(results, "worker", ticket, false, tostring((...)), scope.traceback() or "")
end

local function run_job(results, message)
  local function begin(ticket, ...)
    scope.note_traceback(nil)
    answer(results, ticket, scope.protect(perform, ...))
  end
  begin(pack.open(message))
end

--- What a thread of libpenumbra_worker runs: jobs in, answers out, until the channel is closed.
function worker.serve(jobs, results)
  jobs, results = ffi.cast("pn_channel *", jobs), ffi.cast("pn_channel *", results)
  C.pn_run_alone(true)
  require "penumbra" -- handles get their methods there
  modules.speak_plainly()
  while true do
    local message = C.pn_channel_receive(jobs, math.huge)
    if message == nil or C.pn_channel_closed(jobs) then
      C.pn_message_free(message)
      return
    end
    scope.push()
    run_job(results, message)
    scope.unwind(0)
  end
end

-- ---- in the main state ----------------------------------------------------------------------------------------------------------

local Pool = {}
Pool.__index = Pool

local function new_channel()
  local c = ffi.new "pn_channel *[1]"
  check(C.pn_channel_new(c))
  return ffi.gc(c[0], C.pn_channel_release)
end

local function stop(lib, handle, jobs, results)
  ffi.gc(handle, nil)
  if lib.pn_worker_stop(handle) then -- one that is left behind keeps its channels
    C.pn_channel_release(jobs)
    C.pn_channel_release(results)
  end
end

local function start(jobs, results)
  local lib = threads()
  C.pn_channel_retain(jobs)
  C.pn_channel_retain(results)
  local close = ffi.cast("void (*)(void *)", C.pn_channel_close)
  local handle = lib.pn_worker_start(package.path, package.cpath, jobs, results, close, NICE)
  if handle == nil then
    C.pn_channel_release(jobs)
    C.pn_channel_release(results)
    raise("worker: cannot start a thread (error %d of the system)", ffi.errno())
  end
  local j, r = ffi.cast("pn_channel *", jobs), ffi.cast("pn_channel *", results) -- without the finalizer of the pool's own
  return ffi.gc(handle, function(h) stop(lib, h, j, r) end)
end

--- How many workers a run has when it is not told: none where there is one thread, one, and two from eight threads on. Where a CUDA
-- device computes the threads of this process have nothing else to do: all but one, 12 at most, at least one.
-- @tparam ?string device "cpu" by default
function worker.default(device)
  local n = C.pn_threads()
  if device and device ~= "cpu" then
    return math.max(1, math.min(n - 1, 12))
  end
  return n == 1 and 0 or n < 8 and 1 or 2
end

--- Workers that share a queue of jobs.
-- @tparam ?int n how many, 0-64 (default worker.default()); 0: none, jobs then run when they are collected
-- @treturn Pool
function worker.pool(n)
  n = named.whole("worker.pool", "workers", n or worker.default(), 0, 64)
  local self = setmetatable({ n_workers = n, jobs = new_channel(), results = new_channel(), workers = {}, answers = {},
    waiting = {}, last = 0 }, Pool)
  for i = 1, n do
    self.workers[i] = start(self.jobs, self.results)
  end
  return self
end

--- Queues a job.
-- @tparam string module "penumbra.image", or your own "mine.blur"
-- @tparam ?string name of one of its functions; nil: the module is the function
-- @param ... its arguments
-- @treturn int a ticket for `collect`
function Pool:submit(module, name, ...)
  if not self.workers then
    raise("worker: the pool is closed")
  end
  if type(module) ~= "string" or name ~= nil and type(name) ~= "string" then
    raise("worker: submit expects the names of a module and of a function in it")
  end
  pack.send(self.jobs, "submit", self.last + 1, module, name, ...)
  self.last = self.last + 1
  self.waiting[self.last] = true
  return self.last
end

-- The ticket of a message: the first of its values, after their number and its tag.
local function ticket_of(message)
  local n = ffi.new "int64_t [1]"
  local bytes, number = C.pn_message_bytes(message, n), ffi.new "double [1]"
  ffi.copy(number, bytes + 9, 8)
  return number[0]
end

local function failure_of(self)
  for _, handle in ipairs(self.workers) do
    local text = threads().pn_worker_failure(handle)
    if text ~= nil then
      return ffi.string(text)
    end
  end
end

-- Takes one answer into the pool, waiting so long; false when none came.
local function take(self, seconds)
  if self.n_workers == 0 then
    local message = C.pn_channel_receive(self.jobs, 0)
    if message ~= nil then
      scope.run(run_job, self.results, message)
    end
  end
  local message = C.pn_channel_receive(self.results, seconds)
  if message == nil then
    return false
  end
  local ticket = ticket_of(message)
  if self.waiting[ticket] then
    self.answers[ticket] = ffi.gc(message, C.pn_message_free)
  else
    C.pn_message_free(message) -- it was dropped meanwhile
  end
  return true
end

local function results_of(_, ok, ...)
  if ok then
    return ...
  end
  local message, traceback = ...
  scope.note_traceback(traceback)
  raise("%s", message)
end

--- Waits for a job and gives its results; its error is raised here, with the traceback of the worker.
-- @tparam int ticket of `submit`
function Pool:collect(ticket)
  if not self.waiting[ticket] then
    raise("worker: there is no job %s to collect", tostring(ticket))
  end
  while not self.answers[ticket] do
    if not self.workers then
      raise("worker: the pool was closed before job %d was collected", ticket)
    end
    if not take(self, 0.2) then
      local problem = failure_of(self)
      if problem then
        self:close()
        raise("worker: a thread ended: %s", problem)
      end
    end
  end
  local message = self.answers[ticket]
  self.answers[ticket], self.waiting[ticket] = nil, nil
  return results_of(pack.open(ffi.gc(message, nil)))
end

--- Has this job come to its end?
function Pool:is_done(ticket)
  while self.workers and take(self, 0) do end
  return self.answers[ticket] ~= nil
end

--- Gives up a job: its results are freed when they come.
function Pool:drop(ticket)
  local message = self.answers[ticket]
  self.answers[ticket], self.waiting[ticket] = nil, nil
  if message then
    C.pn_message_free(ffi.gc(message, nil))
  end
end

--- Ends the workers, after the jobs at hand; what was not begun is dropped. The end of the program does the same.
function Pool:close()
  for _, handle in ipairs(self.workers or {}) do
    stop(threads(), handle, ffi.cast("pn_channel *", self.jobs), ffi.cast("pn_channel *", self.results))
  end
  self.workers = nil
  for ticket in pairs(self.waiting) do
    self:drop(ticket)
  end
  while true do -- what came too late, and what never began
    local message = C.pn_channel_receive(self.results, 0)
    if message == nil then message = C.pn_channel_receive(self.jobs, 0) end
    if message == nil then return end
    C.pn_message_free(message)
  end
end

return worker
