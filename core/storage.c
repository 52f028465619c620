/* storage.c: reference-counted blocks of memory, by device; a cache of freed blocks; byte accounting; the fault switches of the tests.
**
** Blocks come in size classes (eight steps an octave), so a training step finds the blocks of the step before and
** touches no new pages. live_bytes counts what tensors hold, cached_bytes what waits for reuse. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "backend.h"

enum { ALIGNMENT = 64, SMALLEST = 256, N_CLASSES = 8 * 48, LABEL = 64, HUGE_PAGE = 2 << 20 };

typedef struct cached {
  struct cached *next;
} cached;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pn_memory all_stats[PN_MOST_DEVICES]; /* by device; only the CPU has a cache here */
static pn_storage *live_list;
static cached *bins[N_CLASSES];
static uint64_t next_id = 1;
static atomic_llong fail_nth;
static atomic_bool poison;
static _Thread_local char label[LABEL];

void pn_memory_set_label(const char *text) {
  if (!text) text = "";
  size_t n = strlen(text);
  if (n >= LABEL) text += n - (LABEL - 1); /* the end of a module path says more than its start */
  strcpy(label, text);
}

const char *pn_memory_label(void) { return label; }

void pn_debug_fail_alloc(int64_t nth) { atomic_store(&fail_nth, nth); }
void pn_debug_poison(bool on) { atomic_store(&poison, on); }

static bool fault(void) {
  if (atomic_load_explicit(&fail_nth, memory_order_relaxed) <= 0) return false;
  return atomic_fetch_sub(&fail_nth, 1) == 1;
}

void *pn_alloc(size_t bytes) {
  if (bytes < ALIGNMENT) bytes = ALIGNMENT;
  bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  void *p = fault() ? NULL : aligned_alloc(ALIGNMENT, bytes);
  if (!p && pn_fail_memory((int64_t)bytes, PN_CPU)) return NULL;
  return p;
}

void *pn_alloc_zero(size_t bytes) {
  void *p = pn_alloc(bytes);
  if (p) memset(p, 0, bytes);
  return p;
}

void pn_free(void *p) { free(p); }

/* The class of a size, and the size of a class: 2^e * (8 + k) / 8. */
static int class_of(size_t bytes, size_t *block) {
  if (bytes < SMALLEST) bytes = SMALLEST;
  int e = 63 - __builtin_clzll((unsigned long long)bytes);
  size_t step = (size_t)1 << (e - 3);
  size_t k = (bytes - ((size_t)1 << e) + step - 1) / step;
  *block = ((size_t)1 << e) + k * step;
  int c = e * 8 + (int)k;
  return c < N_CLASSES ? c : -1;
}

static void trim_locked(void) {
  for (int c = 0; c < N_CLASSES; c++)
    while (bins[c]) {
      cached *b = bins[c];
      bins[c] = b->next;
      free(b);
    }
  all_stats[PN_CPU].cached_bytes = 0;
}

static void *block_new(size_t block) {
  size_t alignment = block >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
  void *p = aligned_alloc(alignment, (block + alignment - 1) / alignment * alignment);
  if (p && block >= HUGE_PAGE) (void)madvise(p, block, MADV_HUGEPAGE); /* only a hint: fewer page faults and TLB misses */
  return p;
}

/* A block of the CPU: from the cache, else new; a failed allocation gives the cache back, then tries once more. */
static void *cpu_block(size_t block, int c) {
  pn_memory *m = &all_stats[PN_CPU];
  void *data = NULL;
  if (fault()) return NULL; /* whatever the cache holds: the failure is for those who asked */
  pthread_mutex_lock(&lock);
  if (bins[c]) {
    data = bins[c];
    bins[c] = bins[c]->next;
    m->cached_bytes -= (int64_t)block;
  }
  bool has_cache = m->cached_bytes > 0;
  pthread_mutex_unlock(&lock);
  if (!data) data = block_new(block);
  if (!data && has_cache) {
    pn_memory_trim(PN_CPU);
    data = block_new(block);
  }
  return data;
}

int pn_storage_new(pn_storage **out, size_t bytes, int device) {
  const pn_backend *backend = NULL;
  int index = 0;
  if (device != PN_CPU && pn_backend_of(device, &backend, &index)) return -1;
  size_t block;
  int c = class_of(bytes, &block);
  if (c < 0) return pn_fail_memory((int64_t)bytes, device);
  pn_storage *s = calloc(1, sizeof *s);
  if (!s) return pn_fail_memory((int64_t)sizeof *s, device);
  pn_memory *m = &all_stats[device];
  pthread_mutex_lock(&lock);
  bool over = m->limit_bytes && m->live_bytes + (int64_t)block > m->limit_bytes;
  pthread_mutex_unlock(&lock);
  if (!over && !backend) s->data = cpu_block(block, c);
  if (!over && backend && backend->allocate(index, block, &s->data)) s->data = NULL;
  if (!s->data) {
    free(s);
    return pn_fail_memory((int64_t)bytes, device);
  }
  atomic_init(&s->refs, 1);
  s->device = device;
  s->bytes = bytes;
  s->block = block;
  strcpy(s->label, label);
  pthread_mutex_lock(&lock);
  s->id = next_id++;
  s->next = live_list;
  if (live_list) live_list->previous = s;
  live_list = s;
  m->n_live++;
  m->live_bytes += (int64_t)block;
  m->peak_bytes = pn_max64(m->peak_bytes, m->live_bytes);
  pthread_mutex_unlock(&lock);
  *out = s;
  return 0;
}

void pn_storage_retain(pn_storage *s) { atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed); }

void pn_storage_release(pn_storage *s) {
  if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
  pn_memory *m = &all_stats[s->device];
  const pn_backend *backend;
  int index;
  if (s->device != PN_CPU) {
    if (!pn_backend_of(s->device, &backend, &index)) backend->release(index, s->data, s->block);
  } else if (atomic_load_explicit(&poison, memory_order_relaxed)) memset(s->data, 0xff, s->bytes);
  size_t block;
  int c = class_of(s->bytes, &block);
  pthread_mutex_lock(&lock);
  if (s->next) s->next->previous = s->previous;
  if (s->previous) s->previous->next = s->next;
  else live_list = s->next;
  m->n_live--;
  m->live_bytes -= (int64_t)block;
  if (s->device == PN_CPU) {
    cached *b = s->data;
    b->next = bins[c];
    bins[c] = b;
    m->cached_bytes += (int64_t)block;
  }
  pthread_mutex_unlock(&lock);
  free(s);
}

static bool known(int device) { return device >= PN_CPU && device < PN_MOST_DEVICES; }

int pn_memory_stats(int device, pn_memory *out) {
  if (!out) return pn_fail("memory_stats: out is NULL");
  if (!known(device)) return pn_fail("memory_stats: no device %d", device);
  pthread_mutex_lock(&lock);
  *out = all_stats[device];
  pthread_mutex_unlock(&lock);
  return 0;
}

void pn_memory_reset_peak(int device) {
  if (!known(device)) return;
  pthread_mutex_lock(&lock);
  all_stats[device].peak_bytes = all_stats[device].live_bytes;
  pthread_mutex_unlock(&lock);
}

void pn_memory_trim(int device) {
  if (device != PN_CPU) return;
  pthread_mutex_lock(&lock);
  trim_locked();
  pthread_mutex_unlock(&lock);
}

void pn_memory_set_limit(int device, int64_t bytes) {
  if (!known(device)) return;
  pthread_mutex_lock(&lock);
  all_stats[device].limit_bytes = pn_max64(bytes, 0);
  pthread_mutex_unlock(&lock);
}

int pn_memory_holders(int device, char *buffer, size_t bytes) {
  enum { MOST = 64, SHOWN = 5 };
  struct {
    const char *label;
    int64_t bytes;
  } sums[MOST];
  int n = 0;
  if (!buffer || !bytes) return pn_fail("memory_holders: no buffer");
  buffer[0] = 0;
  pthread_mutex_lock(&lock);
  for (pn_storage *s = live_list; s; s = s->next) {
    int i = 0;
    if (s->device != device) continue;
    while (i < n && strcmp(sums[i].label, s->label)) i++;
    if (i == n) {
      if (n == MOST) continue;
      sums[n].label = s->label;
      sums[n++].bytes = 0;
    }
    sums[i].bytes += (int64_t)s->block;
  }
  size_t used = 0;
  for (int shown = 0; shown < SHOWN; shown++) {
    int best = -1;
    for (int i = 0; i < n; i++)
      if (sums[i].bytes && (best < 0 || sums[i].bytes > sums[best].bytes)) best = i;
    if (best < 0) break;
    int k = snprintf(buffer + used, bytes - used, "%s%s %.1f MiB", shown ? "\n" : "",
                     sums[best].label[0] ? sums[best].label : "(no layer)", (double)sums[best].bytes / 1048576.0);
    if (k < 0 || (size_t)k >= bytes - used) break;
    used += (size_t)k;
    sums[best].bytes = 0;
  }
  pthread_mutex_unlock(&lock);
  return 0;
}
