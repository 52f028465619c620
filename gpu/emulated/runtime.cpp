/* runtime.cpp: the CUDA runtime of the emulation: devices of host memory, streams as queues, events as places in them, graphs as
** lists of tasks, kernels as loops. Strict where CUDA is: what is not allocated is refused, what is freed is overwritten.
**
** PENUMBRA_EMULATED_DEVICES (2), PENUMBRA_EMULATED_MEMORY (bytes a device, 2 GiB), PENUMBRA_EMULATED_FAIL=call:nth. */
#include <ucontext.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>
#include "emulated/launch.h"

namespace {

typedef std::shared_ptr<double> moment; /* when an event's place was passed; 0 until then */

struct allocation {
  size_t bytes;
  int device; /* -1: pinned host memory */
};

std::recursive_mutex lock;
std::map<const char *, allocation> live;
std::map<std::string, long long> calls;
std::string fault_call;
int fault_left;
thread_local int current;
thread_local cudaError_t last_error;

double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

long long setting(const char *name, long long otherwise) {
  const char *text = getenv(name);
  return text && *text ? atoll(text) : otherwise;
}

int n_devices(void) { return (int)setting("PENUMBRA_EMULATED_DEVICES", 2); }
size_t device_bytes(void) { return (size_t)setting("PENUMBRA_EMULATED_MEMORY", 2ll << 30); }

size_t used(int device) {
  size_t sum = 0;
  for (auto &a : live) sum += a.second.device == device ? a.second.bytes : 0;
  return sum;
}

cudaError_t said(cudaError_t code) {
  if (code != cudaSuccess) last_error = code;
  return code;
}

} /* namespace */

enum { QUEUE = 4096, STACK = 96 << 10 };

struct pn_fake_graph {
  std::vector<pn_fake_task> tasks;
};
struct pn_fake_graph_exec {
  std::vector<pn_fake_task> tasks;
};
struct pn_fake_stream {
  std::deque<pn_fake_task> queue;
  unsigned long long done = 0, given = 0; /* tasks */
  bool running = false;
  pn_fake_graph *capture = nullptr;
};
struct pn_fake_event {
  cudaStream_t stream = nullptr;
  unsigned long long place = 0;
  moment passed;
};

/* ---- faults ---------------------------------------------------------------------------------------------------------------- */

extern "C" {
__attribute__((visibility("default"))) void pn_emulated_fail(const char *call, int nth);
__attribute__((visibility("default"))) long long pn_emulated_calls(const char *call);
}

void pn_emulated_fail(const char *call, int nth) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  fault_call = call ? call : "";
  fault_left = nth;
}

long long pn_emulated_calls(const char *call) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  return calls[call];
}

bool pn_fake_fails(const char *call) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  static bool read;
  if (!read) {
    read = true;
    const char *text = getenv("PENUMBRA_EMULATED_FAIL"), *colon = text ? strchr(text, ':') : nullptr;
    if (colon) pn_emulated_fail(std::string(text, colon).c_str(), atoi(colon + 1));
  }
  calls[call]++;
  if (fault_left <= 0 || (fault_call != call && fault_call != "*")) return false;
  return --fault_left == 0;
}

#define FAULT(code)                                                                                                                \
  std::lock_guard<std::recursive_mutex> hold(lock);                                                                                \
  if (pn_fake_fails(__func__)) return said(code)

/* ---- devices and memory -------------------------------------------------------------------------------------------------------- */

bool pn_fake_owns(const void *p, size_t bytes) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  auto after = live.upper_bound((const char *)p);
  if (after == live.begin()) return false;
  --after;
  return (const char *)p + bytes <= after->first + after->second.bytes;
}

cudaError_t cudaGetDeviceCount(int *count) {
  FAULT(cudaErrorUnknown);
  *count = n_devices();
  return *count > 0 ? cudaSuccess : said(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  FAULT(cudaErrorInvalidDevice);
  if (device < 0 || device >= n_devices()) return said(cudaErrorInvalidDevice);
  current = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
  *device = current;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device) {
  FAULT(cudaErrorInvalidDevice);
  memset(prop, 0, sizeof *prop);
  snprintf(prop->name, sizeof prop->name, "emulated device %d", device);
  prop->totalGlobalMem = device_bytes();
  prop->sharedMemPerBlockOptin = 100 << 10;
  prop->major = 9;
  prop->multiProcessorCount = 2;
  prop->l2CacheSize = 1 << 20;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  FAULT(cudaErrorUnknown);
  *total = device_bytes();
  *free = *total - used(current);
  return cudaSuccess;
}

static cudaError_t take(void **p, size_t bytes, int device) {
  size_t room = (bytes + 255) / 256 * 256;
  char *made = (char *)aligned_alloc(256, room ? room : 256);
  if (!made) return said(cudaErrorMemoryAllocation);
  memset(made, 0xff, room);
  live[made] = allocation{ bytes, device };
  *p = made;
  return cudaSuccess;
}

static cudaError_t give(void *p) {
  auto found = live.find((const char *)p);
  if (!p) return cudaSuccess;
  if (found == live.end()) return said(cudaErrorInvalidValue);
  memset(p, 0xff, found->second.bytes);
  live.erase(found);
  free(p);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
  FAULT(cudaErrorMemoryAllocation);
  if (bytes > device_bytes() || used(current) > device_bytes() - bytes) return said(cudaErrorMemoryAllocation);
  return take(p, bytes, current);
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags) {
  (void)flags;
  FAULT(cudaErrorMemoryAllocation);
  return take(p, bytes, -1);
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
  (void)flags;
  FAULT(cudaErrorInvalidValue);
  *device = host;
  return cudaSuccess;
}

/* ---- streams -------------------------------------------------------------------------------------------------------------------------- */

static std::vector<cudaStream_t> all_streams;

static void run_until(cudaStream_t s, unsigned long long place) {
  while (s->done < place && !s->queue.empty()) {
    pn_fake_task task = std::move(s->queue.front());
    s->queue.pop_front();
    s->done++;
    task();
  }
}

static void run_all(void) {
  for (cudaStream_t s : all_streams) run_until(s, s->given);
}

cudaError_t cudaFree(void *p) {
  FAULT(cudaErrorInvalidValue);
  run_all(); /* as CUDA does: it waits for the device */
  return give(p);
}

cudaError_t cudaFreeHost(void *p) {
  FAULT(cudaErrorInvalidValue);
  run_all();
  return give(p);
}

cudaError_t pn_fake_push(cudaStream_t s, pn_fake_task task) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  if (!s) return said(cudaErrorInvalidValue); /* the backend names its streams */
  if (s->capture) {
    s->capture->tasks.push_back(std::move(task));
    return cudaSuccess;
  }
  s->queue.push_back(std::move(task));
  s->given++;
  if (s->queue.size() > QUEUE) run_until(s, s->given);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  (void)flags;
  FAULT(cudaErrorUnknown);
  *stream = new pn_fake_stream;
  all_streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  FAULT(cudaErrorUnknown);
  run_until(stream, stream->given);
  for (size_t i = 0; i < all_streams.size(); i++)
    if (all_streams[i] == stream) all_streams.erase(all_streams.begin() + (long)i--);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  FAULT(cudaErrorUnknown);
  if (stream->capture) return said(cudaErrorStreamCaptureUnsupported);
  run_until(stream, stream->given);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  FAULT(cudaErrorInvalidValue);
  bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if ((to_device && !pn_fake_owns(to, bytes)) || (from_device && !pn_fake_owns(from, bytes))) return said(cudaErrorInvalidValue);
  bool pageable =
      (to_device && !from_device && !pn_fake_owns(from, bytes)) || (from_device && !to_device && !pn_fake_owns(to, bytes));
  if (pageable && stream->capture) return said(cudaErrorStreamCaptureUnsupported);
  cudaError_t rc = pn_fake_push(stream, [=] { memcpy(to, from, bytes); });
  if (pageable) run_until(stream, stream->given); /* pageable host memory: staged, so done on return */
  return rc;
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes, cudaStream_t stream) {
  (void)to_device, (void)from_device;
  FAULT(cudaErrorInvalidValue);
  if (!pn_fake_owns(to, bytes) || !pn_fake_owns(from, bytes)) return said(cudaErrorInvalidValue);
  return pn_fake_push(stream, [=] { memcpy(to, from, bytes); });
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream) {
  FAULT(cudaErrorInvalidValue);
  if (!pn_fake_owns(p, bytes)) return said(cudaErrorInvalidValue);
  return pn_fake_push(stream, [=] { memset(p, value, bytes); });
}

/* ---- events ----------------------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  (void)flags;
  FAULT(cudaErrorUnknown);
  *event = new pn_fake_event;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  FAULT(cudaErrorUnknown);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  FAULT(cudaErrorUnknown);
  moment passed = std::make_shared<double>(0);
  event->passed = passed;
  event->stream = stream;
  cudaError_t rc = pn_fake_push(stream, [passed] { *passed = now(); });
  event->place = stream->given;
  return rc;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  FAULT(cudaErrorUnknown);
  return !event->stream || event->stream->done >= event->place ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  FAULT(cudaErrorUnknown);
  if (event->stream) run_until(event->stream, event->place);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  (void)flags;
  FAULT(cudaErrorUnknown);
  cudaStream_t other = event->stream;
  unsigned long long place = event->place;
  if (!other || other == stream) return cudaSuccess;
  return pn_fake_push(stream, [=] { run_until(other, place); });
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end) {
  FAULT(cudaErrorUnknown);
  if (!begin->passed || !end->passed || *begin->passed == 0 || *end->passed == 0) return said(cudaErrorNotReady);
  *ms = (float)(*end->passed - *begin->passed);
  return cudaSuccess;
}

/* ---- graphs ----------------------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  (void)mode;
  FAULT(cudaErrorStreamCaptureUnsupported);
  if (stream->capture) return said(cudaErrorStreamCaptureUnsupported);
  stream->capture = new pn_fake_graph;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  FAULT(cudaErrorStreamCaptureUnsupported);
  if (!stream->capture) return said(cudaErrorStreamCaptureUnsupported);
  *graph = stream->capture;
  stream->capture = nullptr;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  FAULT(cudaErrorUnknown);
  *status = stream->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
  (void)flags;
  FAULT(cudaErrorUnknown);
  *exec = new pn_fake_graph_exec{ graph->tasks };
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  FAULT(cudaErrorUnknown);
  for (const pn_fake_task &task : exec->tasks) (void)pn_fake_push(stream, task);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  FAULT(cudaErrorUnknown);
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  FAULT(cudaErrorUnknown);
  delete exec;
  return cudaSuccess;
}

/* ---- errors ------------------------------------------------------------------------------------------------------------------------------ */

cudaError_t cudaGetLastError(void) {
  cudaError_t code = last_error;
  last_error = cudaSuccess;
  return code;
}

const char *cudaGetErrorString(cudaError_t code) {
  switch (code) {
  case cudaSuccess: return "no error";
  case cudaErrorInvalidValue: return "invalid argument";
  case cudaErrorMemoryAllocation: return "out of memory";
  case cudaErrorInvalidConfiguration: return "invalid configuration argument";
  case cudaErrorNoDevice: return "no CUDA-capable device is detected";
  case cudaErrorInvalidDevice: return "invalid device ordinal";
  case cudaErrorNotReady: return "device not ready";
  case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
  default: return "unknown error";
  }
}

/* ---- kernels ----------------------------------------------------------------------------------------------------------------------------- */

thread_local pn_fake_place pn_fake_now;

namespace {

struct team {
  const char *kernel;
  pn_fake_task *body;
  ucontext_t home;
  std::vector<ucontext_t> threads;
  std::vector<char> finished;
  int running;
} * playing;

void thread_main(void) {
  (*playing->body)();
  playing->finished[(size_t)playing->running] = 1;
  swapcontext(&playing->threads[(size_t)playing->running], &playing->home);
}

void run_team(const char *kernel, pn_fake_task &body, int n, std::vector<char> &stacks) {
  team t;
  t.kernel = kernel;
  t.body = &body;
  t.threads.resize((size_t)n);
  t.finished.assign((size_t)n, 0);
  playing = &t;
  for (int i = 0; i < n; i++) {
    getcontext(&t.threads[(size_t)i]);
    t.threads[(size_t)i].uc_stack.ss_sp = stacks.data() + (size_t)i * STACK;
    t.threads[(size_t)i].uc_stack.ss_size = STACK;
    t.threads[(size_t)i].uc_link = nullptr;
    makecontext(&t.threads[(size_t)i], thread_main, 0);
  }
  for (int left = n; left;) {
    int waiting = 0;
    for (int i = 0; i < n; i++) { /* each to its next barrier, or its end */
      if (t.finished[(size_t)i]) continue;
      t.running = pn_fake_now.thread = i;
      swapcontext(&t.home, &t.threads[(size_t)i]);
      if (!t.finished[(size_t)i]) waiting++;
    }
    if (waiting && waiting != left) {
      fprintf(stderr, "penumbra: emulated kernel %s: %d threads of a block wait at a barrier, %d left without it\n", kernel,
              waiting, left - waiting);
      abort();
    }
    left = waiting;
  }
  playing = nullptr;
}

void run_grid(const char *kernel, int64_t blocks, int threads, size_t shared, bool meet, pn_fake_task &body) {
  std::vector<double> room((shared + 7) / 8 + 2);
  std::vector<char> stacks(meet ? (size_t)threads * STACK : 0);
  for (int64_t b = 0; b < blocks; b++) {
    memset(room.data(), 0xff, room.size() * sizeof(double)); /* shared memory begins as anything */
    pn_fake_now = pn_fake_place{ b, blocks, 0, threads, (void *)(((uintptr_t)room.data() + 15) / 16 * 16) };
    if (meet) run_team(kernel, body, threads, stacks);
    else
      for (int i = 0; i < threads; i++) {
        pn_fake_now.thread = i;
        body();
      }
  }
}

} /* namespace */

void pn_fake_barrier(void) {
  if (!playing) {
    fprintf(stderr, "penumbra: an emulated kernel meets a barrier but was launched with PN_LAUNCH; it needs PN_LAUNCH_TEAM\n");
    abort();
  }
  team *t = playing;
  swapcontext(&t->threads[(size_t)t->running], &t->home);
}

cudaError_t pn_fake_launch(cudaStream_t stream, const char *kernel, int64_t blocks, int threads, size_t shared, bool meet,
                           pn_fake_task body) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  if (pn_fake_fails("launch")) return said(cudaErrorUnknown);
  if (blocks < 1 || blocks > 0x7fffffff || threads < 1 || threads > 1024 || shared > (100u << 10))
    return said(cudaErrorInvalidConfiguration);
  return pn_fake_push(stream, [=]() mutable { run_grid(kernel, blocks, threads, shared, meet, body); });
}
