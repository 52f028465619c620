/* runtime.cpp: the CUDA runtime of the emulation: devices of host memory, streams as queues, events as places in them, graphs as
** lists of tasks.
**
** Strict where CUDA is, and a little more: a handle that was destroyed, memory that is not the device's or not that large are refused;
** what is allocated begins as NaN and what is freed is overwritten, in the order of the stream where a pool gives it out. A capture is
** lost, in every mode, to a wait for its stream, its device or an event of it, to an event that crosses its border, to a copy from or to
** pageable memory, and (which CUDA may allow) to cudaFree and cudaGraphExecDestroy on its device; but for a relaxed one also to
** allocations and queries anywhere. What goes wrong inside a task is found by the next call that waits, and then forgotten, where a true
** device would not recover; with the setting STICKY every later call fails, as there, but for those that only choose a device. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>
#include "emulated/emulated.h"
#include "emulated/lend.h"
#include "emulated/runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, bytes) (void)0
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes) (void)0
#endif

/* ---- what there is ---------------------------------------------------------------------------------------------------------- */

struct queued {
  const char *what; /* for complaints */
  pn_fake_task run;
};
struct pn_fake_graph {
  int device;
  std::vector<queued> tasks;
};
struct pn_fake_graph_exec {
  int device;
  std::vector<queued> tasks;
};
struct pn_fake_stream {
  int device;
  std::deque<queued> queue;
  unsigned long long done, given; /* tasks */
  enum cudaStreamCaptureStatus capture;
  enum cudaStreamCaptureMode mode;
  pn_fake_graph *graph;      /* that is being captured */
  unsigned long long number; /* of the capture under way; 0: none */
};
struct pn_fake_event {
  cudaStream_t stream;
  unsigned long long place;
  unsigned long long within;      /* the capture it was recorded in, which may have ended; 0: none */
  std::shared_ptr<double> passed; /* milliseconds; 0 until then */
};

namespace {

struct allocation {
  size_t bytes;
  int device; /* -1: pinned host memory */
  bool cut;   /* a pool gives out pieces of it */
};

std::recursive_mutex lock; /* of everything; tasks run under it */
std::map<const char *, allocation> live;
std::map<const char *, size_t> pieces;
std::map<int, size_t> used;
std::set<cudaStream_t> streams;
std::set<cudaEvent_t> events;
std::set<cudaGraph_t> graphs;
std::set<cudaGraphExec_t> execs;
/* What tasks are called that are done also after a failure, for the order of what follows; no faults are injected into the first. */
const char watch[] = "a watch over memory", waiting[] = "a wait";
std::string complaint;
unsigned long long last_capture;
bool broken; /* a task has failed, and no one has been told */
thread_local int current;
thread_local cudaError_t last_error;

double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

cudaError_t said(cudaError_t code) {
  if (code != cudaSuccess) last_error = code;
  return code;
}

int n_devices(void) { return (int)pn_fake_setting("DEVICES", 2); }
size_t device_bytes(void) { return (size_t)pn_fake_setting("MEMORY", 2ll << 30); }

} /* namespace */

/* ---- settings and faults ------------------------------------------------------------------------------------------------------ */

namespace {
std::map<std::string, long long> settings, calls, alive;
long long all_calls;
std::string fault_call;
int fault_left;
} /* namespace */

void pn_emulated_set(const char *setting, long long value) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  settings[setting] = value;
}

long long pn_fake_setting(const char *name, long long otherwise) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  auto found = settings.find(name);
  if (found != settings.end()) return found->second;
  const char *text = getenv((std::string("PENUMBRA_EMULATED_") + name).c_str());
  return settings[name] = text && *text ? atoll(text) : otherwise;
}

void pn_emulated_fail(const char *call, int nth) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  fault_call = call ? call : "";
  fault_left = nth;
}

int pn_emulated_pending(void) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  return fault_left;
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
  all_calls++;
  if (fault_left <= 0 || (fault_call != call && fault_call != "*")) return false;
  return --fault_left == 0;
}

long long pn_emulated_calls(const char *call) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  if (!strcmp(call, "*")) return all_calls;
  auto found = calls.find(call);
  return found == calls.end() ? 0 : found->second;
}

size_t pn_emulated_list_calls(char *buffer, size_t bytes) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  std::string text;
  for (auto &entry : calls) text += entry.first + " " + std::to_string(entry.second) + "\n";
  if (buffer && bytes) snprintf(buffer, bytes, "%s", text.c_str());
  return text.size();
}

void pn_emulated_forget(void) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  calls.clear();
  all_calls = 0;
}

void pn_fake_alive(const char *kind, long long more) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  alive[kind] += more;
}

long long pn_emulated_alive(const char *kind) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  auto found = alive.find(kind);
  return found == alive.end() ? 0 : found->second;
}

long long pn_emulated_waiting(void) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  long long n = 0;
  for (cudaStream_t s : streams) n += (long long)s->queue.size();
  return n;
}

const char *pn_emulated_complaint(void) { return complaint.c_str(); }

void pn_fake_complain(const char *format, ...) {
  char text[512];
  va_list ap;
  va_start(ap, format);
  vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  if (!broken) complaint = text; /* the first says most */
  broken = true;
}

/* ---- what may not be done now ---------------------------------------------------------------------------------------------------- */

/* Calls that a capture forbids end it. Those that wait or may wait for something else end all but the relaxed. */
static bool is_capturing(void) {
  bool found = false;
  for (cudaStream_t s : streams)
    if (s->capture != cudaStreamCaptureStatusNone && s->mode != cudaStreamCaptureModeRelaxed) {
      s->capture = cudaStreamCaptureStatusInvalidated;
      found = true;
    }
  return found;
}

/* Those that touch what is captured end it in every mode. */
static bool is_captured(cudaStream_t s) {
  if (s->capture == cudaStreamCaptureStatusNone) return false;
  s->capture = cudaStreamCaptureStatusInvalidated;
  return true;
}

static bool is_captured_on(int device) {
  bool found = false;
  for (cudaStream_t s : streams)
    if (s->device == device && is_captured(s)) found = true;
  return found;
}

/* Whatever became of its capture, an event that was recorded there can be neither waited for nor asked. */
static bool is_captured_event(cudaEvent_t event) {
  if (event->within && streams.count(event->stream) && event->stream->number == event->within) (void)is_captured(event->stream);
  return event->within != 0;
}

static bool is_sticky(void) { return pn_fake_setting("STICKY", 0) != 0; }
static bool is_dead(void) { return broken && is_sticky(); }

/* What a task has left behind. */
static cudaError_t outcome(void) {
  if (!broken) return cudaSuccess;
  broken = is_sticky();
  return said(cudaErrorLaunchFailure);
}

/* At the head of a call: one at a time, and the fault injected for it; CALL for those that a dead device refuses. UNSAFE ones may not be
** made during a capture. */
#define CALL_ANYHOW(status)                                                                                                        \
  std::lock_guard<std::recursive_mutex> hold(lock);                                                                                \
  if (pn_fake_fails(__func__)) return said(status)
#define CALL(status)                                                                                                               \
  CALL_ANYHOW(status);                                                                                                             \
  if (is_dead()) return said(cudaErrorLaunchFailure)
#define REFUSE(capturing)                                                                                                          \
  if (capturing) return said(cudaErrorStreamCaptureUnsupported)
#define UNSAFE() REFUSE(is_capturing())
#define NEED(set, handle)                                                                                                          \
  if (!(set).count(handle)) return said(cudaErrorInvalidResourceHandle)

/* ---- devices ------------------------------------------------------------------------------------------------------------------------ */

cudaError_t cudaGetDeviceCount(int *count) {
  CALL(cudaErrorUnknown);
  *count = n_devices();
  return *count > 0 ? cudaSuccess : said(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  CALL_ANYHOW(cudaErrorInvalidDevice);
  if (device < 0 || device >= n_devices()) return said(cudaErrorInvalidDevice);
  current = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
  CALL_ANYHOW(cudaErrorUnknown);
  *device = current;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device) {
  CALL(cudaErrorInvalidDevice);
  if (device < 0 || device >= n_devices()) return said(cudaErrorInvalidDevice);
  memset(prop, 0, sizeof *prop);
  snprintf(prop->name, sizeof prop->name, "emulated device %d", device);
  prop->totalGlobalMem = device_bytes();
  prop->sharedMemPerBlockOptin = 100 << 10;
  prop->major = 9;
  prop->multiProcessorCount = 2 + 5 * device; /* nothing may depend on it */
  prop->l2CacheSize = 1 << 20;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  CALL(cudaErrorUnknown);
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
  CALL(cudaErrorUnknown);
  *version = 13000;
  return cudaSuccess;
}

/* ---- memory --------------------------------------------------------------------------------------------------------------------------- */

/* The entry of a map by address that [p, p + bytes) lies in, or its end. */
template <typename Map>
static typename Map::iterator around(Map &map, const void *p, size_t bytes, size_t (*size)(const typename Map::mapped_type &)) {
  auto found = map.upper_bound((const char *)p);
  if (found == map.begin()) return map.end();
  --found;
  return (const char *)p + bytes <= found->first + size(found->second) ? found : map.end();
}

static size_t size_of_allocation(const allocation &a) { return a.bytes; }
static size_t size_of_piece(const size_t &bytes) { return bytes; }

/* The device whose memory this is; -1: pinned; -2: none's. */
static int owner(const void *p, size_t bytes) {
  auto found = around(live, p, bytes, size_of_allocation);
  if (found == live.end()) return -2;
  return found->second.cut && around(pieces, p, bytes, size_of_piece) == pieces.end() ? -2 : found->second.device;
}

/* The device of what was allocated at p; -2: nothing was. */
static int owner_of_whole(const void *p) {
  auto found = live.find((const char *)p);
  return found == live.end() ? -2 : found->second.device;
}

bool pn_fake_owns(cudaStream_t stream, const void *p, size_t bytes) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  return streams.count(stream) && owner(p, bytes) == stream->device;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  CALL(cudaErrorUnknown);
  *total = device_bytes();
  *free = *total - used[current];
  return cudaSuccess;
}

static cudaError_t take(void **p, size_t bytes, int device) {
  size_t room = (bytes + 511) / 512 * 512;
  char *made = bytes ? (char *)aligned_alloc(512, room) : nullptr;
  if (!made) return said(bytes ? cudaErrorMemoryAllocation : cudaErrorInvalidValue);
  memset(made, 0xff, room);
  live[made] = allocation{ bytes, device, false };
  used[device] += bytes;
  pn_fake_alive(device < 0 ? "cudaHostAlloc" : "cudaMalloc", (long long)bytes);
  *p = made;
  return cudaSuccess;
}

static void run_until(cudaStream_t s, unsigned long long place);

static cudaError_t give(void *p, bool pinned) {
  if (!p) return cudaSuccess;
  auto found = live.find((const char *)p);
  if (found == live.end() || (found->second.device < 0) != pinned) return said(cudaErrorInvalidValue);
  for (cudaStream_t s : streams) run_until(s, s->given); /* as CUDA does: it waits for the device */
  allocation a = found->second;
  live.erase(found);
  pieces.erase(pieces.lower_bound((char *)p), pieces.lower_bound((char *)p + a.bytes));
  used[a.device] -= a.bytes;
  pn_fake_alive(pinned ? "cudaHostAlloc" : "cudaMalloc", -(long long)a.bytes);
  ASAN_UNPOISON_MEMORY_REGION(p, a.bytes);
  memset(p, 0xff, a.bytes);
  free(p);
  return cudaSuccess; /* what has failed is told to those who wait on purpose */
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
  CALL(cudaErrorMemoryAllocation);
  UNSAFE();
  if (bytes > device_bytes() || used[current] > device_bytes() - bytes) return said(cudaErrorMemoryAllocation);
  return take(p, bytes, current);
}

cudaError_t cudaFree(void *p) {
  CALL(cudaErrorInvalidValue);
  UNSAFE();
  REFUSE(p && is_captured_on(owner_of_whole(p)));
  return give(p, false);
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags) {
  CALL(cudaErrorMemoryAllocation);
  UNSAFE();
  (void)flags;
  return take(p, bytes, -1);
}

cudaError_t cudaFreeHost(void *p) {
  CALL(cudaErrorInvalidValue);
  UNSAFE();
  return give(p, true);
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
  CALL(cudaErrorInvalidValue);
  (void)flags;
  if (owner(host, 1) != -1) return said(cudaErrorInvalidValue);
  *device = host;
  return cudaSuccess;
}

void pn_fake_lend(cudaStream_t stream, void *p, size_t bytes, bool aside) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  auto found = around(live, p, bytes + PN_MARGIN, size_of_allocation);
  if (found == live.end()) {
    pn_fake_complain("a pool gives out memory that it has not");
    return;
  }
  if (!found->second.cut) {
    found->second.cut = true;
    ASAN_POISON_MEMORY_REGION(found->first, found->second.bytes);
  }
  pieces[(char *)p] = bytes;
  cudaStreamCaptureStatus capture = stream->capture;
  if (aside) stream->capture = cudaStreamCaptureStatusNone;
  (void)pn_fake_push(stream, watch, [=] {
    ASAN_UNPOISON_MEMORY_REGION(p, bytes + PN_MARGIN);
    memset(p, 0xff, bytes + PN_MARGIN);
    ASAN_POISON_MEMORY_REGION((char *)p + bytes, PN_MARGIN);
  });
  stream->capture = capture;
}

void pn_fake_reclaim(cudaStream_t stream, void *p) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  auto found = pieces.find((char *)p);
  if (found == pieces.end()) return;
  size_t bytes = found->second;
  pieces.erase(found);
  (void)pn_fake_push(stream, watch, [=] {
    ASAN_UNPOISON_MEMORY_REGION(p, bytes + PN_MARGIN);
    const unsigned char *margin = (const unsigned char *)p + bytes;
    for (size_t i = 0; i < PN_MARGIN; i++)
      if (margin[i] != 0xff) {
        pn_fake_complain("something wrote %zu bytes behind the end of a tensor or scratch of %zu bytes", i, bytes);
        break;
      }
    memset(p, 0xff, bytes + PN_MARGIN);
    ASAN_POISON_MEMORY_REGION(p, bytes + PN_MARGIN);
  });
}

/* ---- streams -------------------------------------------------------------------------------------------------------------------------- */

static void run_until(cudaStream_t s, unsigned long long place) {
  while (s->done < place && !s->queue.empty()) {
    queued task = std::move(s->queue.front());
    s->queue.pop_front();
    s->done++;
    if (task.what != watch && !broken && pn_fake_fails("task")) pn_fake_complain("%s: an injected fault", task.what);
    /* After a failure a device does no more work until the host has heard of it. But its streams keep their order, else a piece of
    ** memory comes back in one of them before the other has lent it. */
    if (!broken || task.what == watch || task.what == waiting) task.run();
  }
}

cudaError_t pn_fake_push(cudaStream_t s, const char *what, pn_fake_task task) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  NEED(streams, s);
  if (s->capture == cudaStreamCaptureStatusInvalidated) return said(cudaErrorStreamCaptureInvalidated);
  if (s->capture == cudaStreamCaptureStatusActive) {
    s->graph->tasks.push_back(queued{ what, std::move(task) });
    return cudaSuccess;
  }
  s->queue.push_back(queued{ what, std::move(task) });
  s->given++;
  if ((long long)s->queue.size() > pn_fake_setting("QUEUE", 4096)) run_until(s, s->given);
  return cudaSuccess;
}

cudaError_t pn_fake_start(cudaStream_t stream, const char *kernel, cudaError_t refused, pn_fake_task task) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  if (pn_fake_fails("cudaLaunchKernel")) return said(cudaErrorUnknown);
  if (is_dead()) return said(cudaErrorLaunchFailure);
  if (refused != cudaSuccess) return said(refused);
  NEED(streams, stream);
  if (stream->device != current) return said(cudaErrorInvalidResourceHandle);
  return pn_fake_push(stream, kernel, std::move(task));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  CALL(cudaErrorUnknown);
  (void)flags;
  *stream = new pn_fake_stream{ current, {}, 0, 0, cudaStreamCaptureStatusNone, cudaStreamCaptureModeGlobal, nullptr, 0 };
  streams.insert(*stream);
  pn_fake_alive("cudaStream", 1);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  CALL(cudaErrorUnknown);
  NEED(streams, stream);
  run_until(stream, stream->given);
  streams.erase(stream);
  delete stream->graph;
  delete stream;
  pn_fake_alive("cudaStream", -1);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  CALL(cudaErrorUnknown);
  NEED(streams, stream);
  REFUSE(is_captured(stream));
  UNSAFE();
  run_until(stream, stream->given);
  return outcome();
}

cudaError_t cudaDeviceSynchronize(void) {
  CALL(cudaErrorUnknown);
  REFUSE(is_captured_on(current));
  UNSAFE();
  for (cudaStream_t s : streams)
    if (s->device == current) run_until(s, s->given);
  return outcome();
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  CALL(cudaErrorInvalidValue);
  NEED(streams, stream);
  int there = owner(to, bytes), here = owner(from, bytes);
  bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind == cudaMemcpyDefault || kind == cudaMemcpyHostToHost) return said(cudaErrorInvalidValue); /* the backend says which */
  if (to_device != (there >= 0) || from_device != (here >= 0)) return said(cudaErrorInvalidValue);
  bool pageable = there == -2 || here == -2;
  REFUSE(pageable && (is_captured(stream) || is_capturing()));
  cudaError_t rc = pn_fake_push(stream, "a copy", [=] { memcpy(to, from, bytes); });
  if (!pageable || rc != cudaSuccess) return rc;
  run_until(stream, stream->given); /* done on return */
  return outcome();
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes, cudaStream_t stream) {
  CALL(cudaErrorInvalidValue);
  NEED(streams, stream);
  if (owner(to, bytes) != to_device || owner(from, bytes) != from_device) return said(cudaErrorInvalidValue);
  return pn_fake_push(stream, "a copy", [=] { memcpy(to, from, bytes); });
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream) {
  CALL(cudaErrorInvalidValue);
  NEED(streams, stream);
  if (owner(p, bytes) < 0) return said(cudaErrorInvalidValue);
  return pn_fake_push(stream, "a memset", [=] { memset(p, value, bytes); });
}

/* ---- events ----------------------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  CALL(cudaErrorUnknown);
  (void)flags;
  *event = new pn_fake_event{ nullptr, 0, 0, nullptr };
  events.insert(*event);
  pn_fake_alive("cudaEvent", 1);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  CALL(cudaErrorUnknown);
  NEED(events, event);
  events.erase(event);
  delete event;
  pn_fake_alive("cudaEvent", -1);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  CALL(cudaErrorUnknown);
  NEED(events, event);
  NEED(streams, stream);
  if (stream->capture == cudaStreamCaptureStatusInvalidated) return said(cudaErrorStreamCaptureInvalidated);
  event->within = stream->number;
  event->stream = stream;
  if (event->within) return cudaSuccess;
  auto passed = std::make_shared<double>(0);
  event->passed = passed;
  cudaError_t rc = pn_fake_push(stream, "an event", [passed] { *passed = now(); });
  event->place = stream->given;
  return rc;
}

/* Its stream may have gone, with everything done. */
static bool is_waiting(cudaEvent_t event) { return streams.count(event->stream) && event->stream->done < event->place; }

cudaError_t cudaEventQuery(cudaEvent_t event) {
  CALL(cudaErrorUnknown);
  NEED(events, event);
  if (is_captured_event(event)) return said(cudaErrorCapturedEvent);
  UNSAFE();
  return is_waiting(event) ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  CALL(cudaErrorUnknown);
  NEED(events, event);
  if (is_captured_event(event)) return said(cudaErrorCapturedEvent);
  UNSAFE();
  if (is_waiting(event)) run_until(event->stream, event->place);
  return outcome();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  CALL(cudaErrorUnknown);
  NEED(events, event);
  NEED(streams, stream);
  (void)flags;
  cudaStream_t other = event->stream;
  unsigned long long place = event->place;
  if (stream->capture == cudaStreamCaptureStatusInvalidated) return said(cudaErrorStreamCaptureInvalidated);
  if (other && event->within != stream->number) { /* nor does a capture spread to other streams here */
    (void)is_captured(stream);
    (void)is_captured_event(event);
    return said(cudaErrorStreamCaptureIsolation);
  }
  if (!is_waiting(event) || other == stream) return cudaSuccess;
  return pn_fake_push(stream, waiting, [=] {
    if (streams.count(other)) run_until(other, place);
  });
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end) {
  CALL(cudaErrorUnknown);
  NEED(events, begin);
  NEED(events, end);
  if (!begin->passed || !end->passed) return said(cudaErrorInvalidResourceHandle);
  if (*begin->passed == 0 || *end->passed == 0) return said(cudaErrorNotReady);
  *ms = (float)(*end->passed - *begin->passed);
  return cudaSuccess;
}

/* ---- graphs ----------------------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  CALL(cudaErrorUnknown);
  NEED(streams, stream);
  if (stream->capture != cudaStreamCaptureStatusNone) return said(cudaErrorStreamCaptureUnsupported);
  stream->capture = cudaStreamCaptureStatusActive;
  stream->mode = mode;
  stream->graph = new pn_fake_graph{ stream->device, {} };
  stream->number = ++last_capture;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  NEED(streams, stream);
  if (is_dead()) return said(cudaErrorLaunchFailure);
  enum cudaStreamCaptureStatus was = pn_fake_fails(__func__) ? cudaStreamCaptureStatusInvalidated : stream->capture;
  pn_fake_graph *made = stream->graph;
  stream->capture = cudaStreamCaptureStatusNone;
  stream->graph = nullptr;
  stream->number = 0;
  *graph = nullptr;
  if (was == cudaStreamCaptureStatusNone) return said(cudaErrorStreamCaptureUnsupported);
  if (was == cudaStreamCaptureStatusInvalidated) {
    delete made;
    return said(cudaErrorStreamCaptureInvalidated);
  }
  *graph = made;
  graphs.insert(made);
  pn_fake_alive("cudaGraph", 1);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  CALL(cudaErrorUnknown);
  NEED(streams, stream);
  *status = stream->capture;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
  CALL(cudaErrorUnknown);
  NEED(graphs, graph);
  (void)flags;
  *exec = new pn_fake_graph_exec{ graph->device, graph->tasks };
  execs.insert(*exec);
  pn_fake_alive("cudaGraphExec", 1);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  CALL(cudaErrorUnknown);
  NEED(execs, exec);
  NEED(streams, stream);
  cudaError_t rc = cudaSuccess;
  for (size_t i = 0; i < exec->tasks.size() && rc == cudaSuccess; i++)
    rc = pn_fake_push(stream, exec->tasks[i].what, exec->tasks[i].run);
  return rc;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  CALL(cudaErrorUnknown);
  NEED(graphs, graph);
  graphs.erase(graph);
  delete graph;
  pn_fake_alive("cudaGraph", -1);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  CALL(cudaErrorUnknown);
  NEED(execs, exec);
  REFUSE(is_captured_on(exec->device));
  execs.erase(exec);
  delete exec;
  pn_fake_alive("cudaGraphExec", -1);
  return cudaSuccess;
}

/* ---- errors ------------------------------------------------------------------------------------------------------------------------------ */

cudaError_t cudaGetLastError(void) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  if (is_dead()) return cudaErrorLaunchFailure;
  cudaError_t code = last_error;
  last_error = cudaSuccess;
  return code;
}

#define ERRORS(_)                                                                                                                  \
  _(cudaSuccess, "no error")                                                                                                       \
  _(cudaErrorInvalidValue, "invalid argument")                                                                                     \
  _(cudaErrorMemoryAllocation, "out of memory")                                                                                    \
  _(cudaErrorInitializationError, "initialization error")                                                                          \
  _(cudaErrorInvalidConfiguration, "invalid configuration argument")                                                               \
  _(cudaErrorNoDevice, "no CUDA-capable device is detected")                                                                       \
  _(cudaErrorInvalidDevice, "invalid device ordinal")                                                                              \
  _(cudaErrorInvalidResourceHandle, "invalid resource handle")                                                                     \
  _(cudaErrorNotReady, "device not ready")                                                                                         \
  _(cudaErrorIllegalAddress, "an illegal memory access was encountered")                                                           \
  _(cudaErrorLaunchTimeout, "the launch timed out and was terminated")                                                             \
  _(cudaErrorAssert, "device-side assert triggered")                                                                               \
  _(cudaErrorHardwareStackError, "hardware stack error")                                                                           \
  _(cudaErrorLaunchFailure, "unspecified launch failure")                                                                          \
  _(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")                                         \
  _(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")                                  \
  _(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream")                                    \
  _(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream")                             \
  _(cudaErrorUnknown, "unknown error")

const char *cudaGetErrorName(cudaError_t code) {
  switch (code) {
#define NAME(name, text)                                                                                                           \
  case name: return #name;
    ERRORS(NAME)
#undef NAME
  }
  return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t code) {
  switch (code) {
#define TEXT(name, text)                                                                                                           \
  case name: return text;
    ERRORS(TEXT)
#undef TEXT
  }
  return "unrecognized error code";
}
