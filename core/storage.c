/* storage.c: reference-counted blocks of memory, by device; scratch of kernels; byte accounting; the fault switches of the tests.
**
** Large blocks come from the arena, small ones from a cache by size class (eight steps an octave): a training step finds the
** blocks of the step before and touches no new pages. live_bytes counts what tensors and scratch hold, cached_bytes what waits
** for reuse, held_bytes both. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "arena.h"
#include "backend.h"

enum { ALIGNMENT = 64, SMALLEST = 256, LARGE = 64 << 10, N_CLASSES = 8 * 16 + 1, LABEL = 64 };

typedef struct cached {
  struct cached *next;
} cached;

/* Scratch that came from the arena. */
typedef struct scratch {
  struct scratch *next;
  pn_block *place;
} scratch;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pn_memory all_stats[PN_MOST_DEVICES]; /* by device; only the CPU has a cache here */
static pn_storage *live_list;
static scratch *scratch_list;
static cached *bins[N_CLASSES];
static size_t binned; /* bytes in bins */
static uint64_t next_id = 1;
static atomic_llong fail_nth;
static atomic_bool poison;
static _Thread_local char label[LABEL];
static _Thread_local bool dry;
static _Thread_local int64_t scratch_now, scratch_most; /* in a dry run */

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

/* The class of a small size, and the size of a class: 2^e * (8 + k) / 8. */
static int class_of(size_t bytes, size_t *block) {
  if (bytes < SMALLEST) bytes = SMALLEST;
  int e = 63 - __builtin_clzll((unsigned long long)bytes);
  size_t step = (size_t)1 << (e - 3);
  size_t k = (bytes - ((size_t)1 << e) + step - 1) / step;
  *block = ((size_t)1 << e) + k * step;
  return e * 8 + (int)k;
}

/* ---- accounts; the caller holds the lock --------------------------------------------------------------------------------- */

static void count(pn_memory *m, int64_t bytes) {
  m->live_bytes += bytes;
  m->peak_bytes = pn_max64(m->peak_bytes, m->live_bytes);
}

static void count_held(void) {
  pn_memory *m = &all_stats[PN_CPU];
  m->held_bytes = m->small_bytes + (int64_t)(binned + pn_arena_held());
  m->cached_bytes = m->held_bytes - m->live_bytes;
  m->peak_held_bytes = pn_max64(m->peak_held_bytes, m->held_bytes);
}

static bool beyond_limit(const pn_memory *m, size_t bytes) {
  return m->limit_bytes && (bytes > (size_t)m->limit_bytes || m->live_bytes > m->limit_bytes - (int64_t)bytes);
}

static void trim_locked(void) {
  for (int c = 0; c < N_CLASSES; c++)
    while (bins[c]) {
      cached *b = bins[c];
      bins[c] = b->next;
      free(b);
    }
  binned = 0;
  pn_arena_trim();
  count_held();
}

/* ---- large blocks: tensors and scratch ------------------------------------------------------------------------------------ */

/* Counted as live. A failure gives back what is cached, then tries once more. */
static pn_block *large_take(size_t bytes) {
  if (fault()) return NULL; /* whatever is cached: the failure is for those who asked */
  pthread_mutex_lock(&lock);
  pn_memory *m = &all_stats[PN_CPU];
  pn_block *s = beyond_limit(m, bytes) && !dry ? NULL : pn_arena_take(bytes, dry);
  if (!s && !beyond_limit(m, bytes) && m->cached_bytes > 0) {
    trim_locked();
    s = pn_arena_take(bytes, false);
  }
  if (s) {
    count(m, (int64_t)pn_block_bytes(s));
    count_held();
  }
  pthread_mutex_unlock(&lock);
  return s;
}

static void large_give(pn_block *s) {
  pthread_mutex_lock(&lock);
  all_stats[PN_CPU].live_bytes -= (int64_t)pn_block_bytes(s);
  pn_arena_give(s);
  count_held();
  pthread_mutex_unlock(&lock);
}

/* ---- dry runs ------------------------------------------------------------------------------------------------------------- */

bool pn_is_dry(void) { return dry; }

void pn_dry_run(bool on) {
  if (on == dry) return;
  pthread_mutex_lock(&lock);
  if (on) pn_arena_remember();
  else pn_arena_forget();
  count_held();
  pthread_mutex_unlock(&lock);
  dry = on;
  scratch_now = scratch_most = 0;
}

int64_t pn_scratch_now(void) { return scratch_now; }

int64_t pn_scratch_most(bool reset) {
  if (reset) scratch_most = scratch_now;
  return scratch_most;
}

/* ---- scratch ----------------------------------------------------------------------------------------------------------------- */

void *pn_alloc(size_t bytes) {
  if (bytes < LARGE) {
    bytes = (bytes < ALIGNMENT ? ALIGNMENT : bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    void *p = fault() ? NULL : aligned_alloc(ALIGNMENT, bytes);
    if (!p && pn_fail_memory((int64_t)bytes, PN_CPU)) return NULL;
    return p;
  }
  scratch *made = malloc(sizeof *made);
  pn_block *s = made ? large_take(bytes) : NULL;
  if (!s) {
    free(made);
    (void)pn_fail_memory((int64_t)bytes, PN_CPU);
    return NULL;
  }
  made->place = s;
  scratch_now += dry ? (int64_t)pn_block_bytes(s) : 0;
  scratch_most = pn_max64(scratch_most, scratch_now);
  pthread_mutex_lock(&lock);
  made->next = scratch_list;
  scratch_list = made;
  pthread_mutex_unlock(&lock);
  return pn_block_data(s);
}

void *pn_alloc_zero(size_t bytes) {
  void *p = pn_alloc(bytes);
  if (p && bytes < LARGE) memset(p, 0, bytes);
  else if (p) pn_clear(p, bytes);
  return p;
}

void pn_free(void *p) {
  scratch *found = NULL;
  if ((uintptr_t)p % 4096 == 0) { /* what the arena gives begins a page; few small blocks do */
    pthread_mutex_lock(&lock);
    scratch **link = &scratch_list;
    while (*link && pn_block_data((*link)->place) != p) link = &(*link)->next;
    found = *link;
    if (found) *link = found->next;
    pthread_mutex_unlock(&lock);
  }
  if (!found) {
    free(p);
    return;
  }
  scratch_now -= dry ? (int64_t)pn_block_bytes(found->place) : 0;
  large_give(found->place);
  free(found);
}

/* ---- storages ---------------------------------------------------------------------------------------------------------------- */

/* A small block of the CPU, from the cache, else new. */
static void *small_take(size_t bytes, size_t *block) {
  int c = class_of(bytes, block);
  if (fault()) return NULL;
  pthread_mutex_lock(&lock);
  pn_memory *m = &all_stats[PN_CPU];
  void *data = NULL;
  if (!beyond_limit(m, *block)) {
    if (bins[c]) {
      data = bins[c];
      bins[c] = bins[c]->next;
      binned -= *block;
    } else data = aligned_alloc(ALIGNMENT, (*block + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
  }
  if (data) {
    m->small_bytes += (int64_t)*block;
    count(m, (int64_t)*block);
    count_held();
  }
  pthread_mutex_unlock(&lock);
  return data;
}

static void small_give(void *data, size_t bytes) {
  size_t block;
  int c = class_of(bytes, &block);
  pthread_mutex_lock(&lock);
  cached *b = data;
  b->next = bins[c];
  bins[c] = b;
  binned += block;
  all_stats[PN_CPU].small_bytes -= (int64_t)block;
  all_stats[PN_CPU].live_bytes -= (int64_t)block;
  count_held();
  pthread_mutex_unlock(&lock);
}

static int host_memory(pn_storage *s) {
  if (s->bytes < LARGE) {
    s->data = small_take(s->bytes, &s->block);
  } else if ((s->place = large_take(s->bytes))) {
    s->data = pn_block_data(s->place);
    s->block = pn_block_bytes(s->place);
  }
  return s->data ? 0 : -1;
}

/* from: what it will hold, on the CPU; NULL for nothing. */
static int device_memory(pn_storage *s, const void *from) {
  const pn_backend *backend;
  int index;
  pn_memory *m = &all_stats[s->device];
  if (pn_backend_of(s->device, &backend, &index)) return -1;
  s->block = s->bytes < SMALLEST ? SMALLEST : (s->bytes + SMALLEST - 1) / SMALLEST * SMALLEST;
  pthread_mutex_lock(&lock);
  bool over = beyond_limit(m, s->block);
  pthread_mutex_unlock(&lock);
  if (over || fault()) return pn_fail_memory((int64_t)s->bytes, s->device);
  if (from ? backend->upload(index, from, s->bytes, &s->data) : backend->allocate(index, s->bytes ? s->bytes : 1, &s->data))
    return strstr(pn_error(), "no room for") ? pn_fail_memory((int64_t)s->bytes, s->device) : -1;
  pthread_mutex_lock(&lock);
  count(m, (int64_t)s->block);
  pthread_mutex_unlock(&lock);
  return 0;
}

static int make(pn_storage **out, size_t bytes, int device, const void *from) {
  pn_storage *s = calloc(1, sizeof *s);
  if (!s) return pn_fail_memory((int64_t)sizeof *s, device);
  atomic_init(&s->refs, 1);
  s->device = device;
  s->bytes = bytes;
  strcpy(s->label, label);
  if (device == PN_CPU ? host_memory(s) && pn_fail_memory((int64_t)bytes, device) : device_memory(s, from)) {
    free(s);
    return -1;
  }
  pthread_mutex_lock(&lock);
  s->id = next_id++;
  s->next = live_list;
  if (live_list) live_list->previous = s;
  live_list = s;
  all_stats[device].n_live++;
  pthread_mutex_unlock(&lock);
  *out = s;
  return 0;
}

int pn_storage_new(pn_storage **out, size_t bytes, int device) { return make(out, bytes, device, NULL); }

int pn_storage_upload(pn_storage **out, const void *from, size_t bytes, int device) {
  if (device == PN_CPU || !bytes) return pn_fail("storage_upload: %s", bytes ? "from the CPU to itself" : "nothing");
  return make(out, bytes, device, from);
}

static void vacate_device(pn_storage *s) {
  const pn_backend *backend;
  int index;
  pthread_mutex_lock(&lock);
  all_stats[s->device].live_bytes -= (int64_t)s->block;
  pthread_mutex_unlock(&lock);
  if (!pn_backend_of(s->device, &backend, &index)) backend->release(index, s->data, s->block);
}

void pn_storage_vacate(pn_storage *s) {
  if (s->device != PN_CPU) {
    vacate_device(s);
    s->data = NULL;
    s->block = 0;
    return;
  }
  if (atomic_load_explicit(&poison, memory_order_relaxed) && !dry) memset(s->data, 0xff, s->bytes);
  if (s->place) large_give(s->place);
  else small_give(s->data, s->bytes);
  s->data = NULL;
  s->place = NULL;
  s->block = 0;
}

int pn_storage_furnish(pn_storage *s) {
  if (s->device != PN_CPU) return device_memory(s, NULL);
  return host_memory(s) ? pn_fail_memory((int64_t)s->bytes, s->device) : 0;
}

uint64_t pn_storage_next_id(void) {
  pthread_mutex_lock(&lock);
  uint64_t id = next_id;
  pthread_mutex_unlock(&lock);
  return id;
}

void pn_storage_retain(pn_storage *s) { atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed); }

void pn_storage_release(pn_storage *s) {
  if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
  pthread_mutex_lock(&lock);
  if (s->next) s->next->previous = s->previous;
  if (s->previous) s->previous->next = s->next;
  else live_list = s->next;
  all_stats[s->device].n_live--;
  pthread_mutex_unlock(&lock);
  if (!pn_is_vacant(s)) pn_storage_vacate(s);
  free(s);
}

static bool known(int device) { return device >= PN_CPU && device < PN_MOST_DEVICES; }

int pn_memory_stats(int device, pn_memory *out) {
  if (!out) return pn_fail("memory_stats: out is NULL");
  if (!known(device)) return pn_fail("memory_stats: no device %d", device);
  pthread_mutex_lock(&lock);
  *out = all_stats[device];
  pthread_mutex_unlock(&lock);
  const pn_backend *backend;
  int index;
  bool used = device != PN_CPU && out->peak_bytes; /* asking must not open what nobody has touched */
  return used && (pn_backend_of(device, &backend, &index) || backend->memory(index, out)) ? -1 : 0;
}

int pn_process_stats(pn_process *out) {
  struct rusage usage;
  if (!out) return pn_fail("process_stats: out is NULL");
  if (getrusage(RUSAGE_SELF, &usage)) return pn_fail_errno("the process", "read the use");
  *out = (pn_process){ (int64_t)usage.ru_maxrss * 1024, (int64_t)usage.ru_minflt }; /* KiB on Linux */
  return 0;
}

void pn_memory_reset_peak(int device) {
  if (!known(device)) return;
  pthread_mutex_lock(&lock);
  all_stats[device].peak_bytes = all_stats[device].live_bytes;
  all_stats[device].peak_held_bytes = all_stats[device].held_bytes;
  pthread_mutex_unlock(&lock);
}

void pn_memory_trim(int device) {
  if (!known(device)) return;
  if (device != PN_CPU) {
    const pn_backend *backend;
    int index;
    if (all_stats[device].peak_bytes && !pn_backend_of(device, &backend, &index)) backend->trim(index);
    return;
  }
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

int pn_memory_labels(int device, char *buffer, size_t bytes) {
  if (!buffer || !bytes) return pn_fail("memory_labels: no buffer");
  size_t used = 0;
  bool fits = true;
  buffer[0] = 0;
  pthread_mutex_lock(&lock);
  for (pn_storage *s = live_list; s && fits; s = s->next) {
    if (s->device != device || pn_is_vacant(s)) continue;
    int n = snprintf(buffer + used, bytes - used, "%s\t%zu\n", s->label, s->block);
    fits = n >= 0 && (size_t)n < bytes - used;
    used += fits ? (size_t)n : 0;
  }
  pthread_mutex_unlock(&lock);
  return fits ? 0 : pn_fail("memory_labels: %zu bytes are too few", bytes);
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

int pn_fail_memory(int64_t bytes, int device) {
  char holders[768] = "", where[32] = "the CPU";
  pn_memory m = { 0 };
  if (pn_memory_stats(device, &m) || pn_memory_holders(device, holders, sizeof holders)) holders[0] = 0;
  pn_one_line(holders);
  if (device != PN_CPU) snprintf(where, sizeof where, "cuda:%d", device - PN_CUDA0);
  return pn_fail("out of memory: %.1f MiB wanted on %s by %s; %.1f MiB live%s%.*s", (double)bytes / 1048576.0, where,
                 pn_memory_label()[0] ? pn_memory_label() : "(no layer)", (double)m.live_bytes / 1048576.0,
                 holders[0] ? "; largest holders: " : "", (int)sizeof holders, holders);
}
