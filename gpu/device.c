/* device.c: the CUDA plug-in's door and its memory: devices, allocation, copies. The only file that calls the CUDA runtime for these.
**
** Kernels come one a file in gpu/ops under the names of core/ops; core/ops.def says which there are (CPU_GPU). */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>
#include "backend.h"

/* The kernels that ops.def declares: one that is missing is a link error here. */
#define DECLARE_CPU(name)
#define DECLARE_CPU_GPU(name) extern const pn_kernel pn_cuda_##name;
#define OP(name, devices) DECLARE_##devices(name)
#include "ops.def"
#undef OP
#define ENTRY_CPU(name) NULL,
#define ENTRY_CPU_GPU(name) &pn_cuda_##name,
#define OP(name, devices) ENTRY_##devices(name)
static const pn_kernel *const kernels[] = {
#include "ops.def"
  NULL
};
#undef OP

static int fail(cudaError_t code, const char *doing) {
  (void)cudaGetLastError(); /* the next call must not see this one's error */
  return pn_fail("CUDA: cannot %s: %s", doing, cudaGetErrorString(code));
}

static int allocate(int index, size_t bytes, void **out) {
  cudaError_t rc = cudaSetDevice(index);
  if (rc == cudaSuccess) rc = cudaMalloc(out, bytes);
  return rc == cudaSuccess ? 0 : fail(rc, "allocate");
}

static void release(int index, void *memory, size_t bytes) {
  (void)bytes;
  if (cudaSetDevice(index) == cudaSuccess) (void)cudaFree(memory);
}

static int copy(void *to, int to_device, const void *from, int from_device, size_t bytes) {
  cudaError_t rc = cudaSetDevice((to_device == PN_CPU ? from_device : to_device) - PN_CUDA0);
  if (rc == cudaSuccess) rc = cudaMemcpy(to, from, bytes, cudaMemcpyDefault);
  return rc == cudaSuccess ? 0 : fail(rc, "copy");
}

static int describe(int index, char *buffer, size_t bytes) {
  struct cudaDeviceProp p;
  cudaError_t rc = cudaGetDeviceProperties(&p, index);
  if (rc != cudaSuccess) return fail(rc, "describe the device");
  snprintf(buffer, bytes, "%s, sm_%d%d, %.1f GiB", p.name, p.major, p.minor, (double)p.totalGlobalMem / 1073741824.0);
  return 0;
}

static const pn_kernel *kernel(int op) { return kernels[op]; }

__attribute__((visibility("default"))) int pn_backend_open(pn_backend *out, char *why, size_t bytes);

int pn_backend_open(pn_backend *out, char *why, size_t bytes) {
  int n = 0;
  cudaError_t rc = cudaGetDeviceCount(&n);
  if (rc != cudaSuccess || n < 1) {
    snprintf(why, bytes, "%s", rc == cudaSuccess ? "no device" : cudaGetErrorString(rc));
    return -1;
  }
  *out = (pn_backend){ PN_BACKEND_VERSION, n, allocate, release, copy, describe, kernel };
  return 0;
}
