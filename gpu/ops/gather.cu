/* gather.cu: see core/ops/gather.c. Forward a thread takes an element. Backward what meets in one place is added in order: by a thread a
** lane where there are many; where they are few, or long, by a thread a place, after the places have been sorted. */
#include "kernels/lanes.h"
#include "loop.h"
#include "sort.h"

typedef struct job {
  pn_loop loop;            /* of lanes: y, x, index; or dx, dy, index, and the order of index */
  int64_t n_x, n, step[4]; /* elements of a lane of x, and of y */
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

/* The k-th in the order of its lane of index: does its place begin there? Then it sums all that went to it. */
PN_KERNEL void gather_sums(job j) {
  const pn_loop *l = &j.loop;
  PN_EACH(i, l->count * j.n) {
    int64_t at[PN_LOOP_OPERANDS], k = i % j.n;
    pn_loop_at(l, i / j.n, at);
    const int64_t *order = (const int64_t *)l->base[3] + at[3];
    const int64_t from = place(&j, at, order[k * j.step[3]] - 1);
    if (from < 1 || from > j.n_x || (k > 0 && place(&j, at, order[(k - 1) * j.step[3]] - 1) == from)) continue;
    const int64_t to = at[0] + (from - 1) * j.step[0];
    real sum = pn_get(l->base[0], to, l->dtype[0]);
    for (; k < j.n; k++) {
      const int64_t one = order[k * j.step[3]] - 1;
      if (place(&j, at, one) != from) break;
      sum += pn_get(l->base[1], at[1] + one * j.step[1], l->dtype[1]);
    }
    pn_put(l->base[0], to, l->dtype[0], sum);
  }
}

/* order: of index, or NULL. */
static void plan(job *j, const pn_call *call, const pn_tensor *to, const pn_tensor *from, const pn_tensor *index,
                 const pn_tensor *order) {
  const int axis = (int)pn_arg_int(call, "axis");
  const pn_tensor *const operands[] = { to, from, index, order };
  pn_loop_lanes(&j->loop, axis, order ? 4 : 3, operands, j->step);
  j->n_x = call->x[0]->shape[axis];
  j->n = index->shape[axis];
  j->along = j->step[0] == 1;
}

static pn_tensor index_of(const pn_call *call) { return pn_gather_index(call->x[1], call->x[0], (int)pn_arg_int(call, "axis")); }

static int forward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  const pn_tensor index = index_of(call);
  job j = {};
  if (!gpu) return -1;
  plan(&j, call, call->y[0], call->x[0], &index, NULL);
  const int64_t n = j.loop.count * j.n;
  return n ? PN_LAUNCH(gpu, gather_values, pn_gpu_blocks(gpu, n, 256), 256, j) : 0;
}

static int by_place(pn_gpu *gpu, const pn_call *call, const pn_tensor *dx, const pn_tensor *index) {
  pn_tensor *order;
  job j = {};
  if (pn_tensor_new(&order, PN_I64, index->n_dims, index->shape, PN_ROWS, PN_CUDA0 + gpu->index)) return -1;
  int rc = pn_gpu_sort(gpu, order, index, (int)pn_arg_int(call, "axis"), false);
  if (!rc) {
    plan(&j, call, dx, call->dy[0], index, order);
    rc = PN_LAUNCH(gpu, gather_sums, pn_gpu_blocks(gpu, j.loop.count * j.n, 256), 256, j);
  }
  pn_tensor_release(order);
  return rc;
}

static int backward(pn_call *call) {
  enum { MANY = 1 << 14, SHORT = 32 };
  pn_gpu *gpu = pn_gpu_of(call->dy[0]);
  const pn_tensor index = index_of(call);
  pn_tensor *dx;
  job j = {};
  if (!gpu || pn_call_dx(call, 0, &dx, NULL)) return -1;
  if (!dx) return 0;
  plan(&j, call, dx, call->dy[0], &index, NULL);
  const int64_t n = j.loop.count;
  if (!n || !j.n) return 0;
  if (n < MANY && j.n > SHORT) return by_place(gpu, call, dx, &index);
  return PN_LAUNCH(gpu, gather_slopes, pn_gpu_blocks(gpu, n, 64), 64, j);
}

PN_CUDA_KERNEL(gather, forward, backward)
