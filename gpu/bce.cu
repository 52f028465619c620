/* bce.cu: see bce.h. */
#include "bce.h"
#include "kernels/curve.h"
#include "loop.h"

enum { BLOCK = 4096, THREADS = 256 };

/* Operands: what is written (x itself where the sums are taken: nothing), x, target; then dy of each element and void, where there are. */
enum { TO, X, TARGET };
typedef struct operands {
  pn_loop loop;
  int dy, is_void; /* which operands they are; 0: none, every element counts */
} operands;

static int add_operand(pn_loop *loop, const pn_tensor *t) {
  if (!t) return 0;
  pn_loop_add(loop, t);
  return loop->n_operands - 1;
}

static void open_operands(operands *o, const pn_call *call, const pn_tensor *to, const pn_tensor *dy) {
  pn_loop_start(&o->loop, call->x[0]->n_dims, call->x[0]->shape);
  pn_loop_add(&o->loop, to ? to : call->x[0]);
  for (int i = 0; i < 2; i++) pn_loop_add(&o->loop, call->x[i]);
  o->dy = add_operand(&o->loop, dy);
  o->is_void = add_operand(&o->loop, call->x[2]);
  pn_loop_plan(&o->loop);
}

PN_DEVICE bool counts(const operands *o, const int64_t *at) { return !o->is_void || !(pn_loop_get(&o->loop, o->is_void, at) != 0); }

/* What a thread has seen. */
typedef struct seen {
  double loss, loss_of_ones, kept, ones;
  unsigned long long outside;
} seen;

PN_DEVICE void add_seen(seen *to, const seen *from) {
  to->loss += from->loss;
  to->loss_of_ones += from->loss_of_ones;
  to->kept += from->kept;
  to->ones += from->ones;
  to->outside += from->outside;
}

/* The threads' sums into the first one's, in a tree. */
PN_DEVICE void join_threads(seen *room) {
  PN_BARRIER();
  for (int half = pn_threads / 2; half > 0; half /= 2) {
    if (pn_thread < half) add_seen(&room[pn_thread], &room[pn_thread + half]);
    PN_BARRIER();
  }
}

PN_KERNEL void sum_blocks(seen *partial, operands o, bool binary) {
  PN_SHARED_MEMORY(seen, room);
  const int64_t begin = pn_block * BLOCK, end = begin + BLOCK < o.loop.count ? begin + BLOCK : o.loop.count;
  seen sum = { 0, 0, 0, 0, 0 };
  for (int64_t i = begin + pn_thread; i < end; i += pn_threads) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&o.loop, i, at);
    if (!counts(&o, at)) continue;
    const real x = pn_loop_get(&o.loop, X, at), t = pn_loop_get(&o.loop, TARGET, at);
    const double loss = (double)pn_bce_of(x, t);
    sum.loss += loss;
    sum.loss_of_ones += loss * (double)t;
    sum.kept += 1;
    sum.ones += (double)t;
    sum.outside += binary ? t != 0 && t != 1 : !(t >= 0 && t <= 1);
  }
  room[pn_thread] = sum;
  join_threads(room);
  if (pn_thread == 0) partial[pn_block] = room[0];
}

/* One block: the blocks' sums, each thread a stretch of them, and what follows. */
PN_KERNEL void finish(real *y, double *weight, unsigned long long *outside, const seen *partial, int64_t n, pn_bce_rule rule) {
  PN_SHARED_MEMORY(seen, room);
  const int64_t share = (n + pn_threads - 1) / pn_threads;
  seen sum = { 0, 0, 0, 0, 0 };
  for (int64_t b = pn_thread * share; b < n && b < (pn_thread + 1) * share; b++) add_seen(&sum, &partial[b]);
  room[pn_thread] = sum;
  join_threads(room);
  if (pn_thread) return;
  sum = room[0];
  const pn_bce_sums sums = {
    {sum.loss - sum.loss_of_ones, sum.loss_of_ones},
    { sum.kept - sum.ones,        sum.ones        },
    0
  };
  const pn_bce_result r = pn_bce_join(&sums, rule);
  if (y) *y = (real)r.loss;
  if (weight) weight[0] = r.weight[0], weight[1] = r.weight[1];
  if (sum.outside) pn_report(outside, sum.outside);
}

/* norm none: what each element loses, by the weights that `finish` left. */
PN_KERNEL void losses(operands o, const double *weight) {
  const real w[2] = { (real)weight[0], (real)weight[1] };
  PN_EACH(i, o.loop.count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&o.loop, i, at);
    const real x = pn_loop_get(&o.loop, X, at), t = pn_loop_get(&o.loop, TARGET, at);
    pn_loop_put(&o.loop, TO, at, counts(&o, at) ? pn_bce_weighted_of(x, t, w) : 0);
  }
}

int pn_gpu_bce_forward(pn_call *call, bool balanced) {
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  pn_tensor *kept = NULL;
  const int64_t two = 2;
  const bool each = pn_bce_each(call);
  operands o;
  if (!gpu) return -1;
  unsigned long long *outside = pn_gpu_complaint(
      gpu, call->op->name, balanced ? "%lld of the targets are neither 0 nor 1" : "%lld of the targets are not in 0..1");
  if (!outside || ((call->recording || each) && pn_tensor_new(&kept, PN_F64, 1, &two, PN_ROWS, PN_CUDA0 + gpu->index))) return -1;
  if (kept) pn_call_save(call, 0, kept);
  open_operands(&o, call, NULL, NULL);
  const int64_t n = pn_ceil_div(o.loop.count, BLOCK);
  seen *partial = (seen *)pn_gpu_scratch(gpu, (size_t)pn_max64(n, 1) * sizeof *partial);
  if (!partial) return -1;
  int rc = n ? PN_LAUNCH_TEAM(gpu, sum_blocks, n, THREADS, THREADS * sizeof(seen), partial, o, balanced) : 0;
  double *weight = kept ? (double *)(void *)pn_bytes_of(kept) : NULL;
  if (!rc)
    rc = PN_LAUNCH_TEAM(gpu, finish, 1, THREADS, THREADS * sizeof(seen), each ? NULL : pn_real_of(call->y[0]), weight, outside,
                        partial, n, pn_bce_rule_of(call, balanced));
  if (!rc && each && n) {
    open_operands(&o, call, call->y[0], NULL);
    rc = PN_LAUNCH(gpu, losses, pn_gpu_blocks(gpu, o.loop.count, THREADS), THREADS, o, weight);
  }
  pn_gpu_scratch_free(gpu, partial);
  return rc;
}

/* dy: of the one loss; NULL where each element has its own. */
PN_KERNEL void slopes(operands o, bool fresh, const real *dy, const double *weight) {
  const double factor = dy ? (double)*dy : 1;
  const real w[2] = { (real)(weight[0] * factor), (real)(weight[1] * factor) };
  PN_EACH(i, o.loop.count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&o.loop, i, at);
    const real x = pn_loop_get(&o.loop, X, at), t = pn_loop_get(&o.loop, TARGET, at);
    const real slope = pn_bce_slope_of(x, t, w), d = !counts(&o, at) ? 0 : o.dy ? slope * pn_loop_get(&o.loop, o.dy, at) : slope;
    pn_loop_put(&o.loop, TO, at, fresh ? d : pn_loop_get(&o.loop, TO, at) + d);
  }
}

int pn_gpu_bce_backward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->dy[0]);
  pn_tensor *dx;
  bool fresh;
  operands o;
  if (!gpu || pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (!dx) return 0;
  const bool each = pn_bce_each(call);
  open_operands(&o, call, dx, each ? call->dy[0] : NULL);
  if (!o.loop.count) return 0;
  return PN_LAUNCH(gpu, slopes, pn_gpu_blocks(gpu, o.loop.count, 256), 256, o, fresh, each ? NULL : pn_real_of(call->dy[0]),
                   (const double *)(const void *)pn_bytes_of(call->saved[0]));
}
