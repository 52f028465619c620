/* parallel.c: one pool of worker threads for everything. Work is a range; each thread gets one contiguous piece.
**
** The caller is thread 0. A call from inside a body, or while another thread uses the pool, runs inline. The number of
** threads is PENUMBRA_THREADS, else the smaller of the affinity mask and the container's CPU quota (cgroup v2 or v1). */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include "profile.h"

#if defined(__x86_64__) || defined(__i386__)
#define relax() __builtin_ia32_pause()
#else
#define relax() atomic_thread_fence(memory_order_acquire)
#endif

enum { MOST_THREADS = 256, SPIN = 4000 };

typedef struct job {
  void (*fn)(void *, int64_t, int64_t);
  void *context;
  int64_t n;
  int pieces;
  const pn_span *span; /* what the caller does, when it is profiled */
} job;

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER; /* held by the caller of a running job */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static job current;
static atomic_uint generation;
static atomic_int pending;
static atomic_int n_threads;
static int n_started;
static _Thread_local bool inside;

/* The limit of one group, in CPUs: cgroup v2, else v1; MOST_THREADS where there is none. */
static int quota_in(const char *root, const char *group) {
  char path[1024];
  long long max = -1, period = 100000;
  snprintf(path, sizeof path, "%s%s/cpu.max", root, group);
  FILE *f = fopen(path, "r");
  if (f) {
    char word[32];
    if (fscanf(f, "%31s %lld", word, &period) == 2 && strcmp(word, "max") != 0) max = atoll(word);
    fclose(f);
  } else {
    snprintf(path, sizeof path, "%s/cpu%s/cpu.cfs_quota_us", root, group);
    if ((f = fopen(path, "r"))) {
      if (fscanf(f, "%lld", &max) != 1) max = -1;
      fclose(f);
    }
    snprintf(path, sizeof path, "%s/cpu%s/cpu.cfs_period_us", root, group);
    if ((f = fopen(path, "r"))) {
      if (fscanf(f, "%lld", &period) != 1) period = 100000;
      fclose(f);
    }
  }
  return max > 0 && period > 0 ? (int)pn_min64((max + period - 1) / period, MOST_THREADS) : MOST_THREADS;
}

int pn_cpu_quota(const char *root, const char *group) {
  char name[512];
  snprintf(name, sizeof name, "%s", group);
  int least = quota_in(root, "");
  for (char *end; (end = strrchr(name, '/')); *end = 0) /* a group and all above it */
    if (name[1]) least = (int)pn_min64(least, quota_in(root, name));
  return least;
}

static int quota(void) {
  char line[512], *group = NULL;
  FILE *f = fopen("/proc/self/cgroup", "r"); /* "0::/group" (v2), "4:cpu,cpuacct:/group" (v1) */
  int least = pn_cpu_quota("/sys/fs/cgroup", "");
  while (f && fgets(line, sizeof line, f)) {
    line[strcspn(line, "\n")] = 0;
    group = strchr(line, ':');
    group = group ? strchr(group + 1, ':') : NULL;
    if (group) least = (int)pn_min64(least, pn_cpu_quota("/sys/fs/cgroup", group + 1));
  }
  if (f) fclose(f);
  return least;
}

static int default_threads(void) {
  const char *text = getenv("PENUMBRA_THREADS");
  int n = text ? atoi(text) : 0;
  if (n < 1) {
    cpu_set_t set;
    n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    int q = quota();
    if (q < n) n = q;
  }
  return n < 1 ? 1 : n > MOST_THREADS ? MOST_THREADS : n;
}

int pn_threads(void) {
  if (!n_threads) n_threads = default_threads();
  return n_threads;
}

int pn_set_threads(int n) {
  if (n < 1 || n > MOST_THREADS) return pn_fail("set_threads: %d is not in 1..%d", n, MOST_THREADS);
  n_threads = n;
  return 0;
}

void pn_run_alone(bool on) { inside = on; }

static void run_piece(const job *j, int piece) {
  int64_t begin = j->n * piece / j->pieces, end = j->n * (piece + 1) / j->pieces;
  if (begin >= end) return;
  double start = pn_profiling() ? pn_clock() : 0;
  j->fn(j->context, begin, end);
  if (start > 0) pn_profile_piece(j->span, piece, start, pn_clock());
}

static void *worker(void *argument) {
  int index = (int)(intptr_t)argument; /* 1.. */
  unsigned seen = 0;
  inside = true;
  for (;;) {
    for (int i = 0; i < SPIN && atomic_load_explicit(&generation, memory_order_acquire) == seen; i++) relax();
    if (atomic_load_explicit(&generation, memory_order_acquire) == seen) {
      pthread_mutex_lock(&lock);
      while (atomic_load_explicit(&generation, memory_order_acquire) == seen) pthread_cond_wait(&wake, &lock);
      pthread_mutex_unlock(&lock);
    }
    seen = atomic_load_explicit(&generation, memory_order_acquire);
    if (index < current.pieces) run_piece(&current, index);
    if (atomic_fetch_sub_explicit(&pending, 1, memory_order_acq_rel) == 1) {
      pthread_mutex_lock(&lock);
      pthread_cond_signal(&done);
      pthread_mutex_unlock(&lock);
    }
  }
  return NULL;
}

static void start_workers(int n) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  while (n_started < n - 1) {
    pthread_t id;
    if (pthread_create(&id, &attributes, worker, (void *)(intptr_t)(n_started + 1))) break; /* fewer threads, same results */
    n_started++;
  }
  pthread_attr_destroy(&attributes);
}

/* A dry run: the body's scratch, once for each thread that would hold some at the same time. */
static void rehearse(int64_t pieces, void (*fn)(void *, int64_t, int64_t), void *context) {
  int64_t before = pn_scratch_now(), one;
  (void)pn_scratch_most(true);
  fn(context, 0, 0);
  one = pn_scratch_most(false) - before;
  if (pieces < 2 || !one) return;
  void *others = pn_alloc((size_t)(one * (pieces - 1)));
  fn(context, 0, 0);
  pn_free(others);
}

void pn_parallel(int64_t n, int64_t grain, void (*fn)(void *, int64_t, int64_t), void *context) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  int64_t pieces = pn_min64(pn_threads(), pn_max64(n / grain, 1));
  if (pn_is_dry()) {
    rehearse(inside ? 1 : pieces, fn, context);
    return;
  }
  if (pieces == 1 || inside || pthread_mutex_trylock(&pool_lock)) {
    fn(context, 0, n);
    return;
  }
  start_workers((int)pieces);
  pieces = pn_min64(pieces, n_started + 1);
  current = (job){ fn, context, n, (int)pieces, pn_span_current() };
  atomic_store(&pending, n_started);
  pthread_mutex_lock(&lock);
  atomic_fetch_add_explicit(&generation, 1, memory_order_release);
  pthread_cond_broadcast(&wake);
  pthread_mutex_unlock(&lock);
  inside = true;
  run_piece(&current, 0);
  inside = false;
  for (int i = 0; i < SPIN && atomic_load_explicit(&pending, memory_order_acquire); i++) relax();
  if (atomic_load_explicit(&pending, memory_order_acquire)) {
    pthread_mutex_lock(&lock);
    while (atomic_load_explicit(&pending, memory_order_acquire)) pthread_cond_wait(&done, &lock);
    pthread_mutex_unlock(&lock);
  }
  pthread_mutex_unlock(&pool_lock);
}

typedef struct try_job {
  int (*fn)(void *, int64_t, int64_t);
  void *context;
  pthread_mutex_t lock;
  int64_t first;
  char message[1024];
} try_job;

static void try_piece(void *context, int64_t begin, int64_t end) {
  try_job *t = context;
  if (!t->fn(t->context, begin, end)) return;
  pthread_mutex_lock(&t->lock);
  if (t->first < 0 || begin < t->first) { /* the lowest range wins, whatever the order */
    t->first = begin;
    snprintf(t->message, sizeof t->message, "%s", pn_error());
  }
  pthread_mutex_unlock(&t->lock);
}

int pn_parallel_try(int64_t n, int64_t grain, int (*fn)(void *, int64_t, int64_t), void *context) {
  try_job t = { .fn = fn, .context = context, .first = -1 };
  pthread_mutex_init(&t.lock, NULL);
  pn_parallel(n, grain, try_piece, &t);
  pthread_mutex_destroy(&t.lock);
  return t.first < 0 ? 0 : pn_fail("%s", t.message);
}
