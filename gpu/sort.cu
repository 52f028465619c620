/* sort.cu: see sort.h. Lanes, or runs of SLOTS elements of a longer one, are sorted in shared memory (a bitonic network: Batcher 1968);
** then two runs at a time become one. There a thread takes an element to its place: its own in its run, and past those of the other run
** that come before it, which it counts by bisection. Of each run only what can be among the first is kept and merged.
**
** No two elements are equal, for where they agree their places decide: so the order of each pass is the only one. */
#include "sort.h"
#include "kernels/lanes.h"
#include "loop.h"

enum { SLOTS = 512, THREADS = SLOTS / 2 };

typedef struct job {
  pn_loop loop;              /* of lanes: places, keys */
  int64_t n, n_out, step[2]; /* elements of a lane, how many of them are asked for */
  int64_t slots;             /* of a run when it is first sorted: a power of two, at most SLOTS */
  bool descending;
} job;

/* What is sorted: `runs` a lane, `width` elements in each but the last, of which the first `kept` are there. */
typedef struct stage {
  int64_t runs, width, kept;
} stage;

template <typename K> struct items { /* of a stage: lane by lane, run by run, `kept` in each */
  K *key;
  int64_t *place; /* counted from 0 */
};

PN_DEVICE bool is_larger(real a, real b) { return pn_is_larger(a, b); }
PN_DEVICE bool is_larger(int64_t a, int64_t b) { return a > b; }
PN_DEVICE void read_key(real *key, const void *base, int64_t at, int dtype) { *key = pn_get(base, at, dtype); }
PN_DEVICE void read_key(int64_t *key, const void *base, int64_t at, int dtype) { *key = pn_get_integer(base, at, dtype); }

/* A place of n stands for no element, and comes after all. */
template <typename K> PN_DEVICE bool comes_before(const job *j, K a, int64_t i, K b, int64_t k) {
  if (i < j->n && k < j->n) {
    if (is_larger(a, b)) return j->descending;
    if (is_larger(b, a)) return !j->descending;
  }
  return i < k;
}

PN_DEVICE void put_place(const job *j, int64_t lane, int64_t rank, int64_t place) {
  int64_t at[PN_LOOP_OPERANDS];
  pn_loop_at(&j->loop, lane, at);
  ((int64_t *)j->loop.base[0])[at[0] + rank * j->step[0]] = place + 1;
}

/* A tile of SLOTS: as many whole runs, of any lanes. */
template <typename K> PN_KERNEL void sort_tiles(job j, stage s, items<K> to) {
  PN_SHARED_MEMORY(int64_t, place);
  K *key = (K *)(void *)(place + SLOTS);
  const int64_t total = j.loop.count * s.runs * j.slots;
  for (int64_t first = pn_block * SLOTS; first < total; first += pn_blocks * SLOTS) {
    PN_BARRIER();
    for (int i = pn_thread; i < SLOTS; i += THREADS) {
      const int64_t run = (first + i) / j.slots, lane = run / s.runs, k = run % s.runs * j.slots + (first + i) % j.slots;
      place[i] = j.n;
      key[i] = 0;
      if (lane >= j.loop.count || k >= j.n) continue;
      int64_t at[PN_LOOP_OPERANDS];
      pn_loop_at(&j.loop, lane, at);
      read_key(&key[i], j.loop.base[1], at[1] + k * j.step[1], j.loop.dtype[1]);
      place[i] = k;
    }
    PN_BARRIER();
    for (int size = 2; size <= j.slots; size *= 2)
      for (int gap = size / 2; gap > 0; gap /= 2) {
        const int low = 2 * pn_thread - (pn_thread & (gap - 1)), high = low + gap;
        const bool rising = !(low & (j.slots - 1) & size);
        if (comes_before(&j, key[high], place[high], key[low], place[low]) == rising) {
          const K k = key[low];
          const int64_t p = place[low];
          key[low] = key[high], place[low] = place[high];
          key[high] = k, place[high] = p;
        }
        PN_BARRIER();
      }
    for (int i = pn_thread; i < SLOTS; i += THREADS) {
      const int64_t run = (first + i) / j.slots, rank = (first + i) % j.slots;
      if (place[i] >= j.n || rank >= s.kept) continue;
      if (s.runs == 1) put_place(&j, run, rank, place[i]);
      else to.key[run * s.kept + rank] = key[i], to.place[run * s.kept + rank] = place[i];
    }
  }
}

PN_DEVICE int64_t length_of(const job *j, const stage *s, int64_t run) {
  return run < s->runs ? pn_min64(s->kept, j->n - run * s->width) : 0;
}

template <typename K> PN_KERNEL void merge_runs(job j, stage s, items<K> from, stage next, items<K> to) {
  PN_EACH(i, j.loop.count * s.runs * s.kept) {
    const int64_t own = i % s.kept, run = i / s.kept % s.runs, lane = i / s.kept / s.runs;
    if (own >= length_of(&j, &s, run)) continue;
    const K key = from.key[i];
    const int64_t place = from.place[i], other = (lane * s.runs + (run ^ 1)) * s.kept;
    int64_t low = 0, high = length_of(&j, &s, run ^ 1);
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (comes_before(&j, from.key[other + middle], from.place[other + middle], key, place)) low = middle + 1;
      else high = middle;
    }
    const int64_t rank = own + low, at = (lane * next.runs + run / 2) * next.kept + rank;
    if (rank >= next.kept) continue;
    if (next.runs == 1) put_place(&j, lane, rank, place);
    else to.key[at] = key, to.place[at] = place;
  }
}

static stage stage_of(const job *j, int64_t width) {
  const stage s = { pn_ceil_div(j->n, width), width, pn_min64(width, j->n_out) };
  return s;
}

/* Items of a lane that any stage with more than one run holds. */
static int64_t most_items(const job *j) {
  int64_t most = 0;
  for (stage s = stage_of(j, j->slots); s.runs > 1; s = stage_of(j, 2 * s.width)) most = pn_max64(most, s.runs * s.kept);
  return most;
}

template <typename K> static int sort_lanes(pn_gpu *gpu, const job *j) {
  auto tiles = sort_tiles<K>;
  auto merge = merge_runs<K>;
  stage s = stage_of(j, j->slots);
  const int64_t n_tiles = pn_ceil_div(j->loop.count * s.runs * j->slots, SLOTS), room = j->loop.count * most_items(j);
  char *scratch = room ? (char *)pn_gpu_scratch(gpu, (size_t)(2 * room) * (sizeof(int64_t) + sizeof(K))) : NULL;
  if (room && !scratch) return -1;
  int64_t *places = (int64_t *)(void *)scratch;
  K *keys = (K *)(void *)(places + 2 * room);
  items<K> from = { keys, places }, to = { keys + room, places + room };
  int rc = PN_LAUNCH_TEAM(gpu, tiles, pn_min64(n_tiles, INT32_MAX), THREADS, SLOTS * (sizeof(int64_t) + sizeof(K)), *j, s, from);
  while (!rc && s.runs > 1) {
    const stage next = stage_of(j, 2 * s.width);
    rc = PN_LAUNCH(gpu, merge, pn_gpu_blocks(gpu, j->loop.count * s.runs * s.kept, 256), 256, *j, s, from, next, to);
    const items<K> done = from;
    from = to, to = done, s = next;
  }
  pn_gpu_scratch_free(gpu, scratch);
  return rc;
}

int pn_gpu_sort(pn_gpu *gpu, const pn_tensor *places, const pn_tensor *keys, int axis, bool descending) {
  const pn_tensor *const operands[] = { places, keys };
  job j = {};
  pn_loop_lanes(&j.loop, axis, 2, operands, j.step);
  j.n = keys->shape[axis];
  j.n_out = places->shape[axis];
  j.descending = descending;
  for (j.slots = 2; j.slots < SLOTS && j.slots < j.n;) j.slots *= 2;
  if (!j.loop.count || !j.n_out) return 0;
  return pn_is_integer(keys) ? sort_lanes<int64_t>(gpu, &j) : sort_lanes<real>(gpu, &j);
}
