/* device.c: the CUDA plug-in's door: devices and what their kernels complain of. Memory and copies are in memory.c, captured work in
** graph.c; the three are the only callers of the CUDA runtime but for launches.
**
** Each device has one stream for all computation and one for uploads. Kernels come one a file in gpu/ops under the names of
** core/ops; core/ops.def says which there are (CPU_GPU). */
#include "context.h"
#include <stdlib.h>
#include <string.h>
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

enum { MOST = PN_MOST_DEVICES - 1 };

pthread_mutex_t pn_gpu_lock = PTHREAD_MUTEX_INITIALIZER;
static pn_context contexts[MOST];
static int n_found;

/* What a kernel does wrong is told to whoever calls next. */
static const char *blame(cudaError_t code) {
  bool older = code == cudaErrorIllegalAddress || code == cudaErrorLaunchTimeout || code == cudaErrorAssert ||
               (code >= cudaErrorHardwareStackError && code <= cudaErrorLaunchFailure);
  return older ? " (of work begun before; CUDA_LAUNCH_BLOCKING=1 shows where, graph=false outside a graph)" : "";
}

int pn_gpu_check(cudaError_t code, const char *doing) {
  if (code == cudaSuccess) return 0;
  (void)cudaGetLastError(); /* the next call must not see this one's error */
  return pn_fail("CUDA: cannot %s: %s%s", doing, cudaGetErrorString(code), blame(code));
}

int pn_gpu_launched(const char *kernel) {
  cudaError_t code = cudaGetLastError();
  return code == cudaSuccess ? 0
                             : pn_fail("CUDA: cannot launch the kernel %s: %s%s", kernel, cudaGetErrorString(code), blame(code));
}

/* ---- a device ------------------------------------------------------------------------------------------------------------- */

static int open_device(pn_context *c, int index) {
  struct cudaDeviceProp p;
  if (pn_gpu_check(cudaGetDeviceProperties(&p, index), "read the properties of the device")) return -1;
  c->gpu = (pn_gpu){
    .index = index, .processors = p.multiProcessorCount, .arch = p.major * 10 + p.minor, .shared_bytes = p.sharedMemPerBlockOptin
  };
  if (pn_gpu_check(cudaStreamCreateWithFlags(&c->gpu.stream, cudaStreamNonBlocking), "make a stream") ||
      pn_gpu_check(cudaStreamCreateWithFlags(&c->uploads, cudaStreamNonBlocking), "make a stream") ||
      pn_gpu_check(cudaEventCreateWithFlags(&c->uploaded, cudaEventDisableTiming), "make an event") ||
      pn_gpu_check(cudaEventCreateWithFlags(&c->released, cudaEventDisableTiming), "make an event"))
    return -1;
  for (int i = 0; i < PN_STAGES; i++)
    if (pn_gpu_check(cudaHostAlloc(&c->stage[i].memory, pn_stage_bytes, cudaHostAllocDefault), "pin host memory") ||
        pn_gpu_check(cudaEventCreateWithFlags(&c->stage[i].free, cudaEventDisableTiming), "make an event"))
      return -1;
  void *words;
  if (pn_gpu_check(cudaHostAlloc(&words, PN_COMPLAINTS * sizeof *c->counts, cudaHostAllocMapped), "pin host memory")) return -1;
  c->counts = memset(words, 0, PN_COMPLAINTS * sizeof *c->counts);
  if (pn_context_pools(c)) return -1;
  c->ready = true;
  return 0;
}

/* What a failed opening leaves is of no use to the next try. */
static void close_device(pn_context *c) {
  for (int i = 0; i < PN_STAGES; i++) {
    if (c->stage[i].memory) (void)pn_gpu_try(cudaFreeHost(c->stage[i].memory));
    if (c->stage[i].free) (void)pn_gpu_try(cudaEventDestroy(c->stage[i].free));
  }
  if (c->counts) (void)pn_gpu_try(cudaFreeHost(c->counts));
  if (c->uploaded) (void)pn_gpu_try(cudaEventDestroy(c->uploaded));
  if (c->released) (void)pn_gpu_try(cudaEventDestroy(c->released));
  if (c->uploads) (void)pn_gpu_try(cudaStreamDestroy(c->uploads));
  if (c->gpu.stream) (void)pn_gpu_try(cudaStreamDestroy(c->gpu.stream));
  memset(c, 0, sizeof *c);
}

pn_context *pn_context_at(int index) {
  if (index < 0 || index >= n_found || index >= MOST) {
    (void)pn_fail("no device cuda:%d (%d found)", index, n_found);
    return NULL;
  }
  pn_context *c = &contexts[index];
  if (pn_gpu_check(cudaSetDevice(index), "choose the device")) return NULL;
  pthread_mutex_lock(&pn_gpu_lock);
  int rc = c->ready ? pn_context_ours(c) : open_device(c, index);
  if (!c->ready) close_device(c);
  pthread_mutex_unlock(&pn_gpu_lock);
  return rc ? NULL : c;
}

pn_context *pn_context_opened(int index) { return &contexts[index]; }

pn_gpu *pn_gpu_at(int index) {
  pn_context *c = pn_context_at(index);
  return c ? &c->gpu : NULL;
}

pn_gpu *pn_gpu_of(const pn_tensor *t) { return pn_gpu_at(pn_device_of(t) - PN_CUDA0); }

static int describe(int index, char *buffer, size_t bytes) {
  struct cudaDeviceProp p;
  if (pn_gpu_check(cudaGetDeviceProperties(&p, index), "describe the device")) return -1;
  snprintf(buffer, bytes, "%s, sm_%d%d, %.1f GiB", p.name, p.major, p.minor, (double)p.totalGlobalMem / 1073741824.0);
  return 0;
}

/* ---- complaints ------------------------------------------------------------------------------------------------------------- */

unsigned long long *pn_gpu_complaint(pn_gpu *gpu, const char *op, const char *text) {
  pn_context *c = (pn_context *)gpu;
  int i = 0;
  pthread_mutex_lock(&pn_gpu_lock);
  while (i < c->n_complaints && (c->complaint[i].op != op || c->complaint[i].text != text)) i++;
  bool fits = i < PN_COMPLAINTS;
  if (fits && i == c->n_complaints) {
    c->complaint[i].op = op;
    c->complaint[i].text = text;
    c->n_complaints++;
  }
  pthread_mutex_unlock(&pn_gpu_lock);
  if (!fits) {
    (void)pn_fail("%s: more than %d kinds of complaint", op, PN_COMPLAINTS);
    return NULL;
  }
  void *word;
  return pn_gpu_check(cudaHostGetDevicePointer(&word, &c->counts[i], 0), "map host memory") ? NULL : word;
}

int pn_context_heed(pn_context *c) {
  for (int i = 0; i < c->n_complaints; i++) {
    unsigned long long n = c->counts[i];
    if (!n) continue;
    char text[256];
    memset(c->counts, 0, PN_COMPLAINTS * sizeof *c->counts);
    snprintf(text, sizeof text, "%s", c->complaint[i].text);
    char *place = strstr(text, "%lld");
    if (place) *place = 0;
    return pn_fail("%s: %s%lld%s (found by the device after the call)", c->complaint[i].op, text, (long long)n,
                   place ? place + strlen("%lld") : "");
  }
  return 0;
}

int pn_gpu_wait(pn_gpu *gpu) {
  pn_context *c = (pn_context *)gpu;
  if (pn_context_outside(c, "wait for the device")) return -1;
  return pn_gpu_check(cudaStreamSynchronize(gpu->stream), "wait for the device") ? -1 : pn_context_heed(c);
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
  int n = 0;
  cudaError_t rc = cudaGetDeviceCount(&n);
  if (rc != cudaSuccess || n < 1) {
    (void)cudaGetLastError();
    snprintf(why, bytes, "%s", rc == cudaSuccess ? "no device" : cudaGetErrorString(rc));
    return -1;
  }
  n_found = n < MOST ? n : MOST;
  *out = (pn_backend){ .version = PN_BACKEND_VERSION,
                       .n_devices = n_found,
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
