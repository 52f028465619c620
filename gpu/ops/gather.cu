/* gather.cu: see core/ops/gather.c. Forward a thread takes an element; backward a lane, so that what meets in one place is added in
** order. */
#include "kernels/lanes.h"
#include "loop.h"

typedef struct job {
  pn_loop loop;            /* of lanes: y, x, index; or dx, dy, index */
  int64_t n_x, n, step[3]; /* elements of a lane of x, and of y */
  bool along;              /* are neighbours in memory those of one lane? */
} job;

PN_DEVICE int64_t place(const job *j, const int64_t *at, int64_t k) {
  return pn_get_integer(j->loop.base[2], at[2] + k * j->step[2], j->loop.dtype[2]);
}

PN_KERNEL void gather_values(job j) {
  const pn_loop *l = &j.loop;
  PN_EACH(i, l->count * j.n) {
    const int64_t lane = j.along ? i / j.n : i % l->count, k = j.along ? i % j.n : i / l->count;
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(l, lane, at);
    const int64_t from = place(&j, at, k);
    const bool there = from >= 1 && from <= j.n_x;
    pn_put(l->base[0], at[0] + k * j.step[0], l->dtype[0],
           there ? pn_get(l->base[1], at[1] + (from - 1) * j.step[1], l->dtype[1]) : (real)NAN);
  }
}

PN_KERNEL void gather_slopes(job j) {
  const pn_loop *l = &j.loop;
  PN_EACH(lane, l->count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(l, lane, at);
    for (int64_t k = 0; k < j.n; k++) {
      const int64_t from = place(&j, at, k);
      if (from < 1 || from > j.n_x) continue;
      const int64_t to = at[0] + (from - 1) * j.step[0];
      pn_put(l->base[0], to, l->dtype[0],
             pn_get(l->base[0], to, l->dtype[0]) + pn_get(l->base[1], at[1] + k * j.step[1], l->dtype[1]));
    }
  }
}

static void plan(job *j, const pn_call *call, const pn_tensor *to, const pn_tensor *from) {
  const int axis = (int)pn_arg_int(call, "axis");
  const pn_tensor index = pn_gather_index(call->x[1], call->x[0], axis);
  const pn_tensor *const operands[] = { to, from, &index };
  pn_loop_lanes(&j->loop, axis, 3, operands, j->step);
  j->n_x = call->x[0]->shape[axis];
  j->n = index.shape[axis];
  j->along = j->step[0] == 1;
}

static int forward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  job j = {};
  if (!gpu) return -1;
  plan(&j, call, call->y[0], call->x[0]);
  const int64_t n = j.loop.count * j.n;
  return n ? PN_LAUNCH(gpu, gather_values, pn_gpu_blocks(gpu, n, 256), 256, j) : 0;
}

static int backward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->dy[0]);
  pn_tensor *dx;
  job j = {};
  if (!gpu || pn_call_dx(call, 0, &dx, NULL)) return -1;
  if (!dx) return 0;
  plan(&j, call, dx, call->dy[0]);
  const int64_t n = j.loop.count;
  return n && j.n ? PN_LAUNCH(gpu, gather_slopes, pn_gpu_blocks(gpu, n, 64), 64, j) : 0;
}

PN_CUDA_KERNEL(gather, forward, backward)
