/* argsort.cu: see core/ops/argsort.c. Nothing is moved: each thread counts how many of its lane come before its own element, and that is
** where its place goes. The work grows with the square of the axis, but no thread waits for another's result. */
#include "kernels/lanes.h"
#include "loop.h"

enum { THREADS = 256 };

typedef struct job {
  pn_loop loop; /* of lanes: y, x */
  int64_t n, n_out, step[2], parts;
  bool descending;
} job;

PN_KERNEL void argsort_places(job j) {
  PN_SHARED_MEMORY(real, tile);
  const pn_loop *l = &j.loop;
  for (int64_t group = pn_block; group < l->count * j.parts; group += pn_blocks) {
    const int64_t own = group % j.parts * pn_threads + pn_thread;
    const bool here = own < j.n;
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(l, group / j.parts, at);
    const real value = here ? pn_get(l->base[1], at[1] + own * j.step[1], l->dtype[1]) : 0;
    int64_t before = 0;
    for (int64_t first = 0; first < j.n; first += pn_threads) {
      const int64_t mine = first + pn_thread, left = j.n - first;
      const int count = left < pn_threads ? (int)left : pn_threads;
      PN_BARRIER();
      if (mine < j.n) tile[pn_thread] = pn_get(l->base[1], at[1] + mine * j.step[1], l->dtype[1]);
      PN_BARRIER();
      for (int k = 0; here && k < count; k++) before += pn_comes_before(tile[k], first + k, value, own, j.descending);
    }
    if (here && before < j.n_out) ((int64_t *)l->base[0])[at[0] + before * j.step[0]] = own + 1;
  }
}

static int forward(pn_call *call) {
  const int axis = (int)pn_arg_int(call, "axis");
  const pn_tensor *const operands[] = { call->y[0], call->x[0] };
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  job j = {};
  if (!gpu) return -1;
  pn_loop_lanes(&j.loop, axis, 2, operands, j.step);
  j.n = call->x[0]->shape[axis];
  j.n_out = call->y[0]->shape[axis];
  j.parts = pn_ceil_div(j.n, THREADS);
  j.descending = pn_arg_int(call, "descending") != 0;
  const int64_t groups = j.loop.count * j.parts;
  if (!groups) return 0;
  return PN_LAUNCH_TEAM(gpu, argsort_places, pn_min64(groups, INT32_MAX), THREADS, THREADS * sizeof(real), j);
}

PN_CUDA_KERNEL(argsort, forward, NULL)
