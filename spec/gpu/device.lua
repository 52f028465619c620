--- The CUDA device of the specs: the one at hand (PENUMBRA_CUDA_LIB names its plug-in), else the emulation, which runs the same
-- kernels on the CPU. Require it before anything asks for a device: a plug-in is opened once.

local binding = require "penumbra.ffi"
local ffi = require "ffi"

ffi.cdef "int setenv(const char *name, const char *value, int overwrite);"

local device = {}

local chosen = os.getenv "PENUMBRA_CUDA_LIB"
if not chosen or chosen == "" then
  chosen = ffi.string(binding.library_path):match("^(.*)/[^/]*$") .. "/libpenumbra_emulated.so"
  ffi.C.setenv("PENUMBRA_CUDA_LIB", chosen, 1)
end

--- Is it the emulation?
device.emulated = chosen:find("emulated", 1, true) ~= nil

--- The plug-in's path.
device.library = chosen

--- What a difference from the CPU may be, relative to the largest value, by what is computed in.
device.tolerance = { f64 = 1e-11, f32 = 2e-5, tf32 = 3e-3, f16 = 4e-3, bf16 = 3e-2 }

return device
