/* device.c: the CUDA plug-in's door: devices, their memory, copies and complaints. With gpu/graph.c the only caller of the CUDA runtime.
**
** Each device has one stream for everything, a pool of memory in the order of that stream, and a ring of pinned buffers through
** which pageable memory travels: an upload returns as soon as it is copied there, a download waits. Kernels come one a file in
** gpu/ops under the names of core/ops; core/ops.def says which there are (CPU_GPU). */
#include "gpu.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "pool.h"
#include "tensor.h"

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

enum { MOST = PN_MOST_DEVICES - 1, STAGES = 4, COMPLAINTS = 64 };
static const size_t stage_bytes = 4 << 20;

typedef struct scratch {
  struct scratch *next;
  pn_storage *storage;
} scratch;

typedef struct context {
  pn_gpu gpu; /* first: what others see is the context */
  bool ready;
  pn_pool *pool;
  scratch *scratches;
  struct {
    void *memory;
    cudaEvent_t free; /* passed when the copy out of it is done */
  } stage[STAGES];
  int next_stage, n_complaints;
  unsigned long long *counts; /* mapped host memory */
  struct {
    const char *op, *text;
  } complaint[COMPLAINTS];
} context;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the contexts and all they hold */
static context contexts[MOST];
static int n_found;

int pn_gpu_check(cudaError_t code, const char *doing) {
  if (code == cudaSuccess) return 0;
  (void)cudaGetLastError(); /* the next call must not see this one's error */
  return pn_fail("CUDA: cannot %s: %s", doing, cudaGetErrorString(code));
}

int pn_gpu_launched(const char *kernel) {
  cudaError_t code = cudaGetLastError();
  return code == cudaSuccess ? 0 : pn_fail("CUDA: cannot launch the kernel %s: %s", kernel, cudaGetErrorString(code));
}

/* ---- a device ------------------------------------------------------------------------------------------------------------- */

static void *take_segment(void *unused, size_t bytes) {
  void *p;
  (void)unused;
  if (cudaMalloc(&p, bytes) == cudaSuccess) return p;
  (void)cudaGetLastError();
  return NULL;
}

static void give_segment(void *unused, void *memory) {
  (void)unused;
  (void)cudaFree(memory);
}

static int open_device(context *c, int index) {
  struct cudaDeviceProp p;
  if (pn_gpu_check(cudaGetDeviceProperties(&p, index), "read the properties of the device")) return -1;
  c->gpu = (pn_gpu){
    .index = index, .processors = p.multiProcessorCount, .arch = p.major * 10 + p.minor, .shared_bytes = p.sharedMemPerBlockOptin
  };
  if (pn_gpu_check(cudaStreamCreateWithFlags(&c->gpu.stream, cudaStreamNonBlocking), "make a stream")) return -1;
  for (int i = 0; i < STAGES; i++)
    if (pn_gpu_check(cudaHostAlloc(&c->stage[i].memory, stage_bytes, cudaHostAllocDefault), "pin host memory") ||
        pn_gpu_check(cudaEventCreateWithFlags(&c->stage[i].free, cudaEventDisableTiming), "make an event"))
      return -1;
  void *words;
  if (pn_gpu_check(cudaHostAlloc(&words, COMPLAINTS * sizeof *c->counts, cudaHostAllocMapped), "pin host memory")) return -1;
  c->counts = memset(words, 0, COMPLAINTS * sizeof *c->counts);
  c->pool = pn_pool_new((pn_pool_source){ take_segment, give_segment, NULL });
  if (!c->pool) return pn_fail_memory(0, PN_CPU);
  c->ready = true;
  return 0;
}

/* What a failed opening leaves is of no use to the next try. */
static void close_device(context *c) {
  for (int i = 0; i < STAGES; i++) {
    if (c->stage[i].memory) (void)cudaFreeHost(c->stage[i].memory);
    if (c->stage[i].free) (void)cudaEventDestroy(c->stage[i].free);
  }
  if (c->counts) (void)cudaFreeHost(c->counts);
  if (c->gpu.stream) (void)cudaStreamDestroy(c->gpu.stream);
  memset(c, 0, sizeof *c);
}

static context *context_at(int index) {
  if (index < 0 || index >= n_found || index >= MOST) {
    (void)pn_fail("no device cuda:%d (%d found)", index, n_found);
    return NULL;
  }
  context *c = &contexts[index];
  if (pn_gpu_check(cudaSetDevice(index), "choose the device")) return NULL;
  pthread_mutex_lock(&lock);
  int rc = c->ready ? 0 : open_device(c, index);
  if (rc) close_device(c);
  pthread_mutex_unlock(&lock);
  return rc ? NULL : c;
}

pn_gpu *pn_gpu_at(int index) {
  context *c = context_at(index);
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
  context *c = (context *)gpu;
  int i = 0;
  pthread_mutex_lock(&lock);
  while (i < c->n_complaints && (c->complaint[i].op != op || c->complaint[i].text != text)) i++;
  bool fits = i < COMPLAINTS;
  if (fits && i == c->n_complaints) {
    c->complaint[i].op = op;
    c->complaint[i].text = text;
    c->n_complaints++;
  }
  pthread_mutex_unlock(&lock);
  if (!fits) {
    (void)pn_fail("%s: more than %d kinds of complaint", op, COMPLAINTS);
    return NULL;
  }
  void *word;
  return pn_gpu_check(cudaHostGetDevicePointer(&word, &c->counts[i], 0), "map host memory") ? NULL : word;
}

/* After a wait: what kernels found. */
static int heed(context *c) {
  for (int i = 0; i < c->n_complaints; i++) {
    unsigned long long n = c->counts[i];
    if (!n) continue;
    char text[256];
    memset(c->counts, 0, COMPLAINTS * sizeof *c->counts);
    snprintf(text, sizeof text, "%s", c->complaint[i].text);
    char *place = strstr(text, "%lld");
    if (place) *place = 0;
    return pn_fail("%s: %s%lld%s (found by the device after the call)", c->complaint[i].op, text, (long long)n,
                   place ? place + strlen("%lld") : "");
  }
  return 0;
}

int pn_gpu_wait(pn_gpu *gpu) {
  return pn_gpu_check(cudaStreamSynchronize(gpu->stream), "wait for the device") ? -1 : heed((context *)gpu);
}

static int wait_for(int index) {
  pn_gpu *gpu = pn_gpu_at(index);
  return gpu ? pn_gpu_wait(gpu) : -1;
}

/* ---- memory -------------------------------------------------------------------------------------------------------------------- */

static int allocate(int index, size_t bytes, void **out) {
  context *c = context_at(index);
  if (!c) return -1;
  pthread_mutex_lock(&lock);
  *out = pn_pool_take(c->pool, bytes);
  pthread_mutex_unlock(&lock);
  return *out ? 0 : pn_fail("CUDA: no room for %zu bytes", bytes);
}

static void release(int index, void *memory, size_t bytes) {
  context *c = context_at(index);
  (void)bytes;
  if (!c) return;
  pthread_mutex_lock(&lock);
  (void)pn_pool_give(c->pool, memory);
  pthread_mutex_unlock(&lock);
}

static int memory(int index, pn_memory *add) {
  context *c = context_at(index);
  if (!c) return -1;
  pthread_mutex_lock(&lock);
  pn_pool_count n = pn_pool_counts(c->pool);
  pthread_mutex_unlock(&lock);
  add->held_bytes += n.held;
  add->peak_held_bytes += n.peak_held;
  add->cached_bytes += n.held - n.used;
  return 0;
}

static void trim(int index) {
  context *c = context_at(index);
  if (!c || cudaStreamSynchronize(c->gpu.stream) != cudaSuccess) return;
  pthread_mutex_lock(&lock);
  pn_pool_trim(c->pool);
  pthread_mutex_unlock(&lock);
}

void *pn_gpu_scratch(pn_gpu *gpu, size_t bytes) {
  context *c = (context *)gpu;
  scratch *made = malloc(sizeof *made);
  if (!made || pn_storage_new(&made->storage, bytes, PN_CUDA0 + gpu->index)) {
    if (!made) (void)pn_fail_memory((int64_t)sizeof *made, PN_CPU);
    free(made);
    return NULL;
  }
  pthread_mutex_lock(&lock);
  made->next = c->scratches;
  c->scratches = made;
  pthread_mutex_unlock(&lock);
  return made->storage->data;
}

void pn_gpu_scratch_free(pn_gpu *gpu, void *p) {
  context *c = (context *)gpu;
  if (!p) return;
  pthread_mutex_lock(&lock);
  scratch **link = &c->scratches;
  while (*link && (*link)->storage->data != p) link = &(*link)->next;
  scratch *found = *link;
  if (found) *link = found->next;
  pthread_mutex_unlock(&lock);
  if (!found) return;
  pn_storage_release(found->storage);
  free(found);
}

/* ---- copies ---------------------------------------------------------------------------------------------------------------------- */

int pn_gpu_upload(pn_gpu *gpu, void *to, const void *from, size_t bytes) {
  context *c = (context *)gpu;
  int rc = 0;
  pthread_mutex_lock(&lock);
  for (size_t done = 0, n; done < bytes && !rc; done += n) {
    int i = c->next_stage;
    c->next_stage = (i + 1) % STAGES;
    n = bytes - done < stage_bytes ? bytes - done : stage_bytes;
    rc = pn_gpu_check(cudaEventSynchronize(c->stage[i].free), "wait for a copy");
    if (rc) break;
    memcpy(c->stage[i].memory, (const char *)from + done, n);
    rc = pn_gpu_check(cudaMemcpyAsync((char *)to + done, c->stage[i].memory, n, cudaMemcpyHostToDevice, gpu->stream),
                      "copy to the device");
    rc = rc ? rc : pn_gpu_check(cudaEventRecord(c->stage[i].free, gpu->stream), "record an event");
  }
  pthread_mutex_unlock(&lock);
  return rc;
}

/* A piece is copied out of its buffer while the next one travels. */
int pn_gpu_download(pn_gpu *gpu, void *to, const void *from, size_t bytes) {
  context *c = (context *)gpu;
  int rc = 0, older = -1;
  size_t older_at = 0, older_n = 0;
  pthread_mutex_lock(&lock);
  for (size_t done = 0, n = 0; (done < bytes || older >= 0) && !rc; done += n) {
    int i = -1;
    n = bytes - done < stage_bytes ? bytes - done : stage_bytes;
    if (n) {
      i = c->next_stage;
      c->next_stage = (i + 1) % STAGES;
      rc = pn_gpu_check(cudaEventSynchronize(c->stage[i].free), "wait for a copy");
      rc = rc ? rc
              : pn_gpu_check(
                    cudaMemcpyAsync(c->stage[i].memory, (const char *)from + done, n, cudaMemcpyDeviceToHost, c->gpu.stream),
                    "copy from the device");
      rc = rc ? rc : pn_gpu_check(cudaEventRecord(c->stage[i].free, c->gpu.stream), "record an event");
    }
    if (older >= 0 && !rc) {
      rc = pn_gpu_check(cudaEventSynchronize(c->stage[older].free), "wait for a copy");
      if (!rc) memcpy((char *)to + older_at, c->stage[older].memory, older_n);
    }
    older = i;
    older_at = done;
    older_n = n;
  }
  pthread_mutex_unlock(&lock);
  return rc ? rc : heed(c);
}

static int copy(void *to, int to_device, const void *from, int from_device, size_t bytes) {
  context *c = context_at((from_device == PN_CPU ? to_device : from_device) - PN_CUDA0);
  if (!c) return -1;
  if (!bytes) return from_device == PN_CPU ? 0 : to_device == PN_CPU ? pn_gpu_wait(&c->gpu) : 0;
  if (from_device == PN_CPU) return pn_gpu_upload(&c->gpu, to, from, bytes);
  if (to_device == PN_CPU) return pn_gpu_download(&c->gpu, to, from, bytes);
  if (to_device == from_device)
    return pn_gpu_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, c->gpu.stream), "copy on the device");
  /* from one device to another: each side's stream must have come so far */
  pn_gpu *there = pn_gpu_at(to_device - PN_CUDA0);
  if (!there || pn_gpu_wait(there) || !context_at(from_device - PN_CUDA0)) return -1;
  if (pn_gpu_check(cudaMemcpyPeerAsync(to, there->index, from, c->gpu.index, bytes, c->gpu.stream), "copy between devices"))
    return -1;
  return pn_gpu_wait(&c->gpu);
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
                       .allocate = allocate,
                       .release = release,
                       .memory = memory,
                       .trim = trim,
                       .wait = wait_for,
                       .copy = copy,
                       .assign = pn_gpu_assign,
                       .fill = pn_gpu_fill,
                       .count_bad = pn_gpu_count_bad };
  return 0;
}
