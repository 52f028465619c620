--- One process at a time works in a directory: a lock (flock) on DIR/.lock, which says whose it is. The system takes it back when
-- the process ends, however that ends; the file stays. Within one process a lock is held once, by all that ask.
-- @module penumbra.run.lock
local ffi = require "ffi"
local files = require "penumbra.base.files"
local lfs = require "lfs"

local lock = {}

for _, declaration in ipairs {
  "int open(const char *path, int flags, ...);", "int flock(int fd, int operation);", "int ftruncate(int fd, long bytes);",
  "long write(int fd, const void *bytes, size_t n);", "int close(int fd);", "int getpid(void);",
} do pcall(ffi.cdef, declaration) end

-- Of Linux. A program that we start does not inherit the file, and with it the lock.
local RDONLY, RDWR, CREAT, CLOEXEC, EXCLUSIVE_AT_ONCE, EWOULDBLOCK = 0, 2, 0x40, 0x80000, 6, 11

local held = {} -- "device:inode" of the file -> its descriptor

local function path_of(dir) return dir .. "/.lock" end

-- The file that lies there now: a directory may have been removed and made again.
local function key_of(dir)
  local file = lfs.attributes(path_of(dir))
  return file and ("%s:%s"):format(file.dev, file.ino)
end

local function this_host() return (files.read "/proc/sys/kernel/hostname" or ""):match "%S+" or "?" end

local function holder(dir)
  local process, host = (files.read(path_of(dir)) or ""):match "^(%d+) (%S+)"
  if not process then return "another process" end
  return "process " .. process .. (host == this_host() and "" or " on " .. host)
end

--- Takes the lock of a directory, or has it already. Where the system or the directory allows none, there is none.
-- @tparam string dir
-- @tparam ?boolean make the file, and say whose it is; else nothing is written, and there is no lock where there is no file
-- @treturn ?string nil, or what went wrong: "DIR is in use by process 123"
-- @treturn boolean was it taken by this very call?
function lock.take(dir, make)
  local key = key_of(dir)
  local fd = key and held[key]
  local is_new = not fd
  if is_new then
    if not key and not make then return nil, false end
    fd = ffi.C.open(path_of(dir), RDWR + CLOEXEC + (make and CREAT or 0), ffi.new("int", 438)) -- rw for all but what umask takes
    if fd < 0 then fd = ffi.C.open(path_of(dir), RDONLY + CLOEXEC) end -- of another user
    if fd < 0 then return nil, false end
    local got = ffi.C.flock(fd, EXCLUSIVE_AT_ONCE) == 0
    local busy = not got and ffi.errno() == EWOULDBLOCK
    key = key_of(dir)
    if not got or not key then
      ffi.C.close(fd)
      return busy and ("%s is in use by %s"):format(dir, holder(dir)) or nil, false
    end
    held[key] = fd
  end
  if make then
    local text = ("%d %s\n"):format(ffi.C.getpid(), this_host())
    if ffi.C.ftruncate(fd, 0) == 0 then ffi.C.write(fd, text, #text) end
  end
  return nil, is_new
end

--- Gives the lock of a directory back; without one nothing happens.
-- @tparam string dir
function lock.release(dir)
  local key = key_of(dir)
  if not key or not held[key] then return end
  ffi.C.close(held[key])
  held[key] = nil
end

return lock
