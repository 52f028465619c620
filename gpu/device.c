/* device.c: the CUDA plug-in's door: the table of what a device brings. What is kept of one is in context.c, memory and copies in
** memory.c, captured work in graph.c; the four are the only callers of the CUDA runtime but for launches.
**
** Each device has one stream for all computation and one for uploads. Kernels come one a file in gpu/ops under the names of
** core/ops; core/ops.def says which there are (CPU_GPU). */
#include "context.h"
#include "cudnn_convolve.h"
#include "tensor.h"
#include "update.h"

/* The kernels that ops.def declares: one that is missing is a link error here. */
#define DECLARE_CPU(name)
#define DECLARE_CPU_GPU(name) extern const pn_kernel pn_cuda_##name;
#define DECLARE_ANY(name)
#define OP(name, devices) DECLARE_##devices(name)
#include "ops.def"
#undef OP
#define ENTRY_CPU(name) NULL,
#define ENTRY_CPU_GPU(name) &pn_cuda_##name,
#define ENTRY_ANY(name) NULL,
#define OP(name, devices) ENTRY_##devices(name)
static const pn_kernel *const kernels[] = {
#include "ops.def"
  NULL
};
#undef OP

static int describe(int index, char *buffer, size_t bytes) {
  struct cudaDeviceProp p;
  if (pn_gpu_check(cudaGetDeviceProperties(&p, index), "describe the device")) return -1;
  snprintf(buffer, bytes, "%s, sm_%d%d, %.1f GiB", p.name, p.major, p.minor, (double)p.totalGlobalMem / 1073741824.0);
  return 0;
}

static int wait_for(int index) {
  pn_gpu *gpu = pn_gpu_at(index);
  return gpu ? pn_gpu_wait(gpu) : -1;
}

/* ---- moments, for profiles ---------------------------------------------------------------------------------------------------- */

static int mark(int index, void **out) {
  pn_gpu *gpu = pn_gpu_at(index);
  cudaEvent_t event;
  if (!gpu || pn_gpu_check(cudaEventCreateWithFlags(&event, cudaEventDefault), "make an event")) return -1;
  if (pn_gpu_check(cudaEventRecord(event, gpu->stream), "record an event")) {
    (void)pn_gpu_try(cudaEventDestroy(event));
    return -1;
  }
  *out = event;
  return 0;
}

static int between(int index, void *from, void *to, double *seconds) {
  float ms;
  if (!pn_gpu_at(index) || pn_gpu_check(cudaEventSynchronize(from), "wait for an event") ||
      pn_gpu_check(cudaEventSynchronize(to), "wait for an event") ||
      pn_gpu_check(cudaEventElapsedTime(&ms, from, to), "read an event's time"))
    return -1;
  *seconds = (double)ms * 1e-3;
  return 0;
}

static void unmark(int index, void *event) {
  (void)index;
  (void)pn_gpu_try(cudaEventDestroy(event));
}

/* ---- the door ------------------------------------------------------------------------------------------------------------------------ */

static const pn_kernel *kernel(int op) { return kernels[op]; }

__attribute__((visibility("default"))) int pn_backend_open(pn_backend *out, char *why, size_t bytes);

int pn_backend_open(pn_backend *out, char *why, size_t bytes) {
  int n;
  if (pn_context_find(&n, why, bytes)) return -1;
  *out = (pn_backend){ .version = PN_BACKEND_VERSION,
                       .n_devices = n,
                       .describe = describe,
                       .kernel = kernel,
                       .allocate = pn_memory_allocate,
                       .release = pn_memory_release,
                       .memory = pn_memory_count,
                       .trim = pn_memory_flush,
                       .wait = wait_for,
                       .copy = pn_memory_copy,
                       .upload = pn_memory_upload,
                       .assign = pn_gpu_assign,
                       .fill = pn_gpu_fill,
                       .count_bad = pn_gpu_count_bad,
                       .picks = pn_cudnn_picks,
                       .random = pn_gpu_random,
                       .capture_begin = pn_capture_open,
                       .capture_end = pn_capture_close,
                       .capture_aside = pn_capture_stand_aside,
                       .graph_launch = pn_capture_launch,
                       .graph_free = pn_capture_free,
                       .mark = mark,
                       .between = between,
                       .unmark = unmark,
                       .update = pn_gpu_update,
                       .sum_squares = pn_gpu_sum_squares,
                       .judge = pn_gpu_judge };
  return 0;
}
