/* team.h: blocks that work out `across` results at once, each by `along` threads.
**
** Where what a result is made of lies together in memory, neighbouring threads take neighbouring summands; where the results lie
** together (the channels of a bias), `columns`, neighbouring results. All follows from counts: a sum has the same order on any card. */
#ifndef PENUMBRA_GPU_TEAM_H
#define PENUMBRA_GPU_TEAM_H
#include "launch.h"

enum { PN_TEAM_THREADS = 256 };

typedef struct pn_team {
  int across, along; /* powers of two, at most PN_TEAM_THREADS together */
  bool columns;
  int64_t groups; /* of `across` results */
} pn_team;

static inline int64_t pn_power_of_two(int64_t n) { /* the least that is not below n */
  int64_t p = 1;
  while (p < n) p *= 2;
  return p;
}

/* For so many results of so many summands; a thread takes per_result results and per_summand summands at a time. */
static inline pn_team pn_team_for(int64_t results, int64_t summands, bool columns, int64_t per_result, int64_t per_summand) {
  const int64_t r = pn_power_of_two(pn_ceil_div(results, per_result)), s = pn_power_of_two(pn_ceil_div(summands, per_summand));
  int64_t across, along;
  if (columns) {
    across = pn_min64(r, 32);
    along = pn_min64(s, PN_TEAM_THREADS / across);
    across = pn_min64(r, PN_TEAM_THREADS / along);
  } else {
    along = pn_min64(s, r < PN_TEAM_THREADS ? PN_TEAM_THREADS : 32);
    across = pn_min64(r, PN_TEAM_THREADS / along);
  }
  pn_team t = { (int)across, (int)along, columns, pn_ceil_div(results, across * per_result) };
  return t;
}

static inline int pn_team_threads(const pn_team *t) { return t->across * t->along; }

/* Where a thread stands in its block. */
PN_DEVICE int pn_team_across(const pn_team *t) { return t->columns ? pn_thread % t->across : pn_thread / t->along; }
PN_DEVICE int pn_team_along(const pn_team *t) { return t->columns ? pn_thread / t->across : pn_thread % t->along; }

/* The N values of each thread, joined along by Join::of(a, b) in a tree whose shape never varies; all threads along get them. All threads
** of the block must come. room: N * pn_threads elements of shared memory. */
template <typename Join, int N, typename T> PN_DEVICE void pn_team_join(const pn_team *t, T *room, T *value) {
  if (t->along == 1) return;
  const int across = pn_team_across(t), along = pn_team_along(t), mine = along * t->across + across;
  for (int n = 0; n < N; n++) room[n * pn_threads + mine] = value[n];
  PN_BARRIER();
  for (int half = t->along / 2; half > 0; half /= 2) {
    if (along < half)
      for (int n = 0; n < N; n++) {
        T *at = &room[n * pn_threads + mine];
        *at = Join::of(*at, at[half * t->across]);
      }
    PN_BARRIER();
  }
  for (int n = 0; n < N; n++) value[n] = room[n * pn_threads + across];
  PN_BARRIER();
}

struct pn_added {
  template <typename T> PN_DEVICE T of(T a, T b) { return a + b; }
};
#endif
