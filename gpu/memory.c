/* memory.c: a device's memory, and the ways into and out of it.
**
** Tensors come from a pool in the order of the computing stream. What is uploaded whole (pn_memory_upload) has a stream and a pool of
** its own: it travels while the device computes, and only what is launched after it waits for it. Pageable memory goes through a ring
** of pinned buffers: an upload returns as soon as it is copied there, a download waits. */
#include "context.h"
#include <stdlib.h>
#include <string.h>
#include "emulated/lend.h"

/* ---- pools ----------------------------------------------------------------------------------------------------------------------- */

/* Idle segments of both pools go back to the driver. The lock is held. */
static void flush(pn_context *c) {
  pn_pool_trim(c->pool);
  pn_pool_trim(c->upload_pool);
}

/* Before a request fails, what lies idle is given back, but not while work is captured: cudaFree waits for the device. The lock is
** held. */
static int take(pn_context *c, pn_pool *pool, size_t bytes, void **out) {
  c->refusal = cudaSuccess;
  *out = pn_pool_take(pool, bytes + PN_MARGIN);
  if (!*out && c->refusal == cudaErrorMemoryAllocation && !c->capture) {
    flush(c);
    *out = pn_pool_take(pool, bytes + PN_MARGIN);
  }
  if (*out) return 0;
  if (c->refusal != cudaSuccess && c->refusal != cudaErrorMemoryAllocation) return pn_gpu_check(c->refusal, "allocate memory");
  return pn_fail("CUDA: no room for %zu bytes", bytes);
}

int pn_memory_allocate(int index, size_t bytes, void **out) {
  pn_context *c = pn_context_at(index);
  if (!c) return -1;
  pthread_mutex_lock(&pn_gpu_lock);
  bool captured = pn_context_captures(c), aside = captured && c->capture->aside;
  int rc = pn_context_ours(c);
  rc = rc ? rc : take(c, captured && !aside ? c->capture->pool : c->pool, bytes, out);
  if (!rc) pn_fake_lend(c->gpu.stream, *out, bytes, aside);
  pthread_mutex_unlock(&pn_gpu_lock);
  return rc;
}

/* While work is captured, what is older than it stays: the work may read it each time. */
static bool defer(pn_captured *g, void *memory) {
  if (g->n_deferred == g->room) {
    size_t room = g->room ? 2 * g->room : 64;
    void **more = realloc(g->deferred, room * sizeof *more);
    if (!more) return false;
    g->deferred = more;
    g->room = room;
  }
  g->deferred[g->n_deferred++] = memory;
  return true;
}

void pn_memory_give(pn_context *c, void *memory) {
  pn_fake_reclaim(c->gpu.stream, memory);
  if (pn_pool_give(c->pool, memory)) return;
  if (pn_pool_give(c->upload_pool, memory)) { /* uploads that take this memory wait until what reads it has run */
    if (pn_gpu_try(cudaEventRecord(c->released, c->gpu.stream))) c->any_released = true;
    else (void)pn_gpu_try(cudaStreamSynchronize(c->gpu.stream)); /* then nothing reads it any more */
    return;
  }
  for (pn_captured **link = &c->captures, *g; (g = *link); link = &g->next) {
    if (!pn_pool_give(g->pool, memory)) continue;
    if (!g->orphan || pn_pool_counts(g->pool).used) return;
    *link = g->next;
    pn_pool_free(g->pool);
    free(g);
    return;
  }
}

void pn_memory_release(int index, void *memory, size_t bytes) {
  pn_context *c = pn_context_opened(index);
  (void)bytes;
  (void)pn_gpu_try(cudaSetDevice(index)); /* a thread that never used CUDA would open device 0 for the events */
  pthread_mutex_lock(&pn_gpu_lock);
  bool ours = pn_context_captures(c) && pn_pool_give(c->capture->pool, memory);
  if (ours) pn_fake_reclaim(c->gpu.stream, memory);
  else if (!(c->capture && defer(c->capture, memory))) pn_memory_give(c, memory); /* whichever thread captures */
  pthread_mutex_unlock(&pn_gpu_lock);
}

int pn_memory_count(int index, pn_memory *add) {
  pn_context *c = pn_context_opened(index);
  pthread_mutex_lock(&pn_gpu_lock);
  pn_pool_count n = pn_pool_counts(c->pool), u = pn_pool_counts(c->upload_pool);
  int64_t held = n.held + u.held, used = n.used + u.used, peak = n.peak_held + u.peak_held;
  for (const pn_captured *g = c->captures; g; g = g->next) {
    pn_pool_count k = pn_pool_counts(g->pool);
    held += k.held, used += k.used, peak += k.peak_held;
  }
  pthread_mutex_unlock(&pn_gpu_lock);
  add->held_bytes += held;
  add->peak_held_bytes += peak;
  add->cached_bytes += held - used;
  return 0;
}

void pn_memory_flush(int index) {
  pn_context *c = pn_context_at(index);
  if (!c) return;
  pthread_mutex_lock(&pn_gpu_lock);
  if (!c->capture && pn_gpu_try(cudaStreamSynchronize(c->gpu.stream))) flush(c);
  pthread_mutex_unlock(&pn_gpu_lock);
}

int pn_memory_make_room(pn_context *c) {
  pthread_mutex_lock(&pn_gpu_lock);
  int rc = pn_gpu_check(cudaStreamSynchronize(c->gpu.stream), "wait for the device");
  if (!rc) flush(c);
  pthread_mutex_unlock(&pn_gpu_lock);
  return rc;
}

void *pn_gpu_scratch(pn_gpu *gpu, size_t bytes) {
  pn_context *c = (pn_context *)gpu;
  pn_scratch *made = malloc(sizeof *made);
  if (!made || pn_storage_new(&made->storage, bytes, PN_CUDA0 + gpu->index)) {
    if (!made) (void)pn_fail_memory((int64_t)sizeof *made, PN_CPU);
    free(made);
    return NULL;
  }
  pthread_mutex_lock(&pn_gpu_lock);
  made->next = c->scratches;
  c->scratches = made;
  pthread_mutex_unlock(&pn_gpu_lock);
  return made->storage->data;
}

void pn_gpu_scratch_free(pn_gpu *gpu, void *p) {
  pn_context *c = (pn_context *)gpu;
  if (!p) return;
  pthread_mutex_lock(&pn_gpu_lock);
  pn_scratch **link = &c->scratches;
  while (*link && (*link)->storage->data != p) link = &(*link)->next;
  pn_scratch *found = *link;
  if (found) *link = found->next;
  pthread_mutex_unlock(&pn_gpu_lock);
  if (!found) return;
  pn_storage_release(found->storage);
  free(found);
}

/* ---- copies ---------------------------------------------------------------------------------------------------------------------- */

/* In pieces through the ring; the lock is held. */
static int send(pn_context *c, cudaStream_t stream, void *to, const void *from, size_t bytes) {
  int rc = pn_context_ours(c);
  for (size_t done = 0, n; done < bytes && !rc; done += n) {
    int i = c->next_stage;
    c->next_stage = (i + 1) % PN_STAGES;
    n = bytes - done < pn_stage_bytes ? bytes - done : pn_stage_bytes;
    rc = pn_gpu_check(cudaEventSynchronize(c->stage[i].free), "wait for a copy");
    if (rc) break;
    memcpy(c->stage[i].memory, (const char *)from + done, n);
    rc = pn_gpu_check(cudaMemcpyAsync((char *)to + done, c->stage[i].memory, n, cudaMemcpyHostToDevice, stream),
                      "copy to the device");
    rc = rc ? rc : pn_gpu_check(cudaEventRecord(c->stage[i].free, stream), "record an event");
  }
  return rc;
}

int pn_gpu_upload(pn_gpu *gpu, void *to, const void *from, size_t bytes) {
  pn_context *c = (pn_context *)gpu;
  if (pn_context_outside(c, "take numbers to the device")) return -1;
  pthread_mutex_lock(&pn_gpu_lock);
  int rc = send(c, gpu->stream, to, from, bytes);
  pthread_mutex_unlock(&pn_gpu_lock);
  return rc;
}

int pn_memory_upload(int index, const void *from, size_t bytes, void **out) {
  pn_context *c = pn_context_at(index);
  if (!c || pn_context_outside(c, "take a tensor to the device")) return -1;
  pthread_mutex_lock(&pn_gpu_lock);
  void *p = NULL;
  int rc = pn_context_ours(c);
  rc = rc ? rc : take(c, c->upload_pool, bytes, &p);
  if (!rc && c->any_released) rc = pn_gpu_check(cudaStreamWaitEvent(c->uploads, c->released, 0), "order two streams");
  if (!rc) pn_fake_lend(c->uploads, p, bytes, false);
  rc = rc ? rc : send(c, c->uploads, p, from, bytes);
  rc = rc ? rc : pn_gpu_check(cudaEventRecord(c->uploaded, c->uploads), "record an event");
  rc = rc ? rc : pn_gpu_check(cudaStreamWaitEvent(c->gpu.stream, c->uploaded, 0), "order two streams");
  if (rc && p) {
    pn_fake_reclaim(c->uploads, p);
    (void)pn_pool_give(c->upload_pool, p);
  }
  pthread_mutex_unlock(&pn_gpu_lock);
  if (!rc) *out = p;
  return rc;
}

/* A piece is copied out of its buffer while the next one travels. */
int pn_gpu_download(pn_gpu *gpu, void *to, const void *from, size_t bytes) {
  pn_context *c = (pn_context *)gpu;
  int older = -1;
  if (pn_context_outside(c, "read from the device")) return -1;
  size_t older_at = 0, older_n = 0;
  pthread_mutex_lock(&pn_gpu_lock);
  int rc = pn_context_ours(c);
  for (size_t done = 0, n = 0; (done < bytes || older >= 0) && !rc; done += n) {
    int i = -1;
    n = bytes - done < pn_stage_bytes ? bytes - done : pn_stage_bytes;
    if (n) {
      i = c->next_stage;
      c->next_stage = (i + 1) % PN_STAGES;
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
  pthread_mutex_unlock(&pn_gpu_lock);
  return rc ? rc : pn_context_heed(c);
}

static int copy_within(pn_context *c, void *to, const void *from, size_t bytes) {
  pthread_mutex_lock(&pn_gpu_lock);
  int rc = pn_context_ours(c);
  rc = rc ? rc : pn_gpu_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, c->gpu.stream), "copy on the device");
  pthread_mutex_unlock(&pn_gpu_lock);
  return rc;
}

int pn_memory_copy(void *to, int to_device, const void *from, int from_device, size_t bytes) {
  pn_context *c = pn_context_at((from_device == PN_CPU ? to_device : from_device) - PN_CUDA0);
  if (!c) return -1;
  if (!bytes) return from_device == PN_CPU ? 0 : to_device == PN_CPU ? pn_gpu_wait(&c->gpu) : 0;
  if (from_device == PN_CPU) return pn_gpu_upload(&c->gpu, to, from, bytes);
  if (to_device == PN_CPU) return pn_gpu_download(&c->gpu, to, from, bytes);
  if (to_device == from_device) return copy_within(c, to, from, bytes);
  /* from one device to another: each side's stream must have come so far */
  pn_gpu *there = pn_gpu_at(to_device - PN_CUDA0);
  if (!there || pn_gpu_wait(there) || !pn_context_at(from_device - PN_CUDA0)) return -1;
  if (pn_gpu_check(cudaMemcpyPeerAsync(to, there->index, from, c->gpu.index, bytes, c->gpu.stream), "copy between devices"))
    return -1;
  return pn_gpu_wait(&c->gpu);
}
