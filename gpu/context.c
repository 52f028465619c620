/* context.c: what is kept of a device while it is in use (context.h): its streams, pools and pinned buffers, who captures on it, and what
** its kernels complain of. */
#include "context.h"
#include <stdlib.h>
#include <string.h>

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

/* ---- its memory ------------------------------------------------------------------------------------------------------------ */

static void *take_segment(void *context, size_t bytes) {
  pn_context *c = context;
  void *p;
  c->refusal = cudaMalloc(&p, bytes);
  return pn_gpu_try(c->refusal) ? p : NULL;
}

static void give_segment(void *unused, void *memory) {
  (void)unused;
  (void)pn_gpu_try(cudaFree(memory));
}

pn_pool_source pn_context_source(pn_context *c, bool keeps) {
  const char *how = getenv("PENUMBRA_MEMORY");
  return (pn_pool_source){ take_segment, give_segment, c, how && *how, keeps };
}

static int open_pools(pn_context *c) {
  const char *how = getenv("PENUMBRA_MEMORY");
  if (how && *how && strcmp(how, "exact")) return pn_fail("CUDA: cannot use PENUMBRA_MEMORY=%s: only 'exact' is known", how);
  c->pool = pn_pool_new(pn_context_source(c, false));
  c->upload_pool = c->pool ? pn_pool_new(pn_context_source(c, false)) : NULL;
  if (c->upload_pool) return 0;
  pn_pool_free(c->pool);
  c->pool = NULL;
  return pn_fail_memory(0, PN_CPU);
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
  if (open_pools(c)) return -1;
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

int pn_context_find(int *n, char *why, size_t bytes) {
  cudaError_t rc = cudaGetDeviceCount(n);
  if (rc == cudaSuccess && *n > 0) {
    *n = n_found = *n < MOST ? *n : MOST;
    return 0;
  }
  (void)cudaGetLastError();
  snprintf(why, bytes, "%s", rc == cudaSuccess ? "no device" : cudaGetErrorString(rc));
  return -1;
}

/* ---- who captures ------------------------------------------------------------------------------------------------------------- */

bool pn_context_captures(const pn_context *c) { return c->capture && pthread_equal(c->capture->owner, pthread_self()); }

int pn_context_ours(const pn_context *c) {
  if (!c->capture || pn_context_captures(c)) return 0;
  return pn_fail("cuda:%d: another thread captures a step there; what this one did would become part of it", c->gpu.index);
}

int pn_context_outside(const pn_context *c, const char *doing) {
  pthread_mutex_lock(&pn_gpu_lock);
  const bool inside = pn_context_captures(c);
  pthread_mutex_unlock(&pn_gpu_lock);
  return inside ? pn_fail("cannot %s inside a captured step: it would not be done again when the step is", doing) : 0;
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
    c->counts[i] = 0; /* others are told at the next wait */
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
