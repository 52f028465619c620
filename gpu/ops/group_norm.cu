/* group_norm.cu: see core/ops/group_norm.c. Sums are those of reduce.h, over x as (N,G,C/G,...); what is summed has a tensor of x's size, in
** real, for its time: x less its mean, and in backward the normalised x. */
#include "kernels/groups.h"
#include "loop.h"
#include "reduce.h"

/* Numbers of a group beside what is kept: the variance until inv is there, then the means that backward wants. */
enum { SUMS = 2 };

/* Tensors in views (N,G,C/G,...), made for a call and let go together. */
typedef struct room {
  pn_call *call;
  pn_gpu *gpu;
  pn_tensor *x, *dy, *weight, *bias, *stats, *sums, *full;
  pn_tensor *part[2 * PN_GROUP_KEPT]; /* of stats, then of sums: (N,G,1,...) */
  double share;                       /* 1 / elements of a group */
} room;

static int view(room *r, pn_tensor **out, pn_tensor *t) { return pn_group_view(out, r->call, t); }
static int channels(room *r, pn_tensor **out, pn_tensor *t) { return t ? pn_group_channels(out, r->call, t) : 0; }

/* Number `which` of each group in `of`, (N,G,2), as (N,G,1,...). */
static int number(pn_tensor **out, const room *r, pn_tensor *of, int which) {
  const int64_t n = r->x->shape[0], g = r->x->shape[1];
  const int64_t shape[PN_MAX_DIMS] = { n, g, 1, 1, 1, 1 }, stride[PN_MAX_DIMS] = { g * SUMS, SUMS };
  return pn_tensor_on(out, of->storage, of->dtype, r->x->n_dims, shape, stride, of->offset + which);
}

/* The numbers of groups: `kept` from before, or new. */
static int open_room(room *r, pn_call *call, pn_tensor *kept) {
  const int device = pn_device_of(call->x[0]);
  r->call = call;
  if (!(r->gpu = pn_gpu_of(call->x[0])) || view(r, &r->x, call->x[0])) return -1;
  const int64_t shape[] = { r->x->shape[0], r->x->shape[1], SUMS };
  r->share = (double)(shape[0] * shape[1]) / (double)pn_max64(1, pn_tensor_count(r->x));
  if (kept) pn_tensor_retain(r->stats = kept);
  else if (pn_tensor_new(&r->stats, PN_REAL_DTYPE, 3, shape, PN_ROWS, device)) return -1;
  if (pn_tensor_new(&r->sums, PN_REAL_DTYPE, 3, shape, PN_ROWS, device)) return -1;
  for (int i = 0; i < 2 * PN_GROUP_KEPT; i++)
    if (number(&r->part[i], r, i < PN_GROUP_KEPT ? r->stats : r->sums, i % PN_GROUP_KEPT)) return -1;
  return pn_tensor_new(&r->full, PN_REAL_DTYPE, r->x->n_dims, r->x->shape, PN_ROWS, device);
}

static void close_room(room *r) {
  pn_tensor *const all[] = { r->x, r->dy, r->weight, r->bias, r->stats, r->sums, r->full };
  for (size_t i = 0; i < PN_LENGTH(all); i++) pn_tensor_release(all[i]);
  for (int i = 0; i < 2 * PN_GROUP_KEPT; i++) pn_tensor_release(r->part[i]);
}

/* ---- kernels ---------------------------------------------------------------------------------------------------------------- */

struct less_mean {
  enum { INPUTS = 2 };
  PN_DEVICE real of(const real *x, pn_unary) { return x[0] - x[1]; }
};
struct normal {
  enum { INPUTS = 3 };
  PN_DEVICE real of(const real *x, pn_unary) { return pn_group_normal(x[0], x[1], x[2]); }
};

static int map_normal(room *r) {
  const pn_tensor *const t[] = { r->full, r->x, r->part[PN_GROUP_MEAN], r->part[PN_GROUP_INV] };
  pn_loop loop;
  pn_loop_start(&loop, r->x->n_dims, r->x->shape);
  for (int i = 0; i < 4; i++) pn_loop_add(&loop, t[i]);
  return pn_loop_map<normal>(r->gpu, &loop, pn_unary{ 0, 0, true });
}

PN_KERNEL void settle(real *stats, const real *variance, int64_t n, double eps) {
  PN_EACH(i, n) stats[i * PN_GROUP_KEPT + PN_GROUP_INV] = pn_group_inv((double)variance[i * SUMS], eps);
}

PN_DEVICE real at_or(const pn_loop *l, int k, const int64_t *at, real instead) {
  return l->base[k] ? pn_loop_get(l, k, at) : instead;
}

/* y, x, stats, weight, bias */
PN_KERNEL void values(pn_loop l) {
  PN_EACH(i, l.count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&l, i, at);
    const real *stats = (const real *)(const void *)l.base[2] + at[2];
    const real x = pn_group_normal(pn_loop_get(&l, 1, at), stats[PN_GROUP_MEAN], stats[PN_GROUP_INV]);
    pn_loop_put(&l, 0, at, pn_group_value(x, at_or(&l, 3, at, 1), at_or(&l, 4, at, 0)));
  }
}

/* dx, dy, the normalised x, the numbers of the group, weight. */
PN_KERNEL void slopes(pn_loop l, const real *stats, const real *sums, bool fresh) {
  PN_EACH(i, l.count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&l, i, at);
    const real g = pn_loop_get(&l, 1, at) * at_or(&l, 4, at, 1);
    const real d = pn_group_slope(pn_loop_get(&l, 2, at), g, stats[at[3] + PN_GROUP_INV], sums[at[3]], sums[at[3] + 1]);
    pn_loop_put(&l, 0, at, fresh ? d : pn_loop_get(&l, 0, at) + d);
  }
}

static void add_or_none(pn_loop *l, const pn_tensor *t) {
  static const int64_t nowhere[PN_MAX_DIMS] = { 0 };
  if (t) pn_loop_add(l, t);
  else pn_loop_add_raw(l, NULL, sizeof(real), nowhere);
}

static int64_t blocks_of(const room *r, const pn_loop *l) { return pn_gpu_blocks(r->gpu, l->count, 256); }

/* ---- forward and backward ----------------------------------------------------------------------------------------------------- */

static int forward_on(room *r, pn_tensor *y) {
  const pn_tensor *const centred[] = { r->full, r->x, r->part[PN_GROUP_MEAN] };
  const int64_t groups = r->x->shape[0] * r->x->shape[1];
  pn_loop loop, each;
  pn_loop_start(&loop, r->x->n_dims, r->x->shape);
  for (int i = 0; i < 3; i++) pn_loop_add(&loop, centred[i]);
  pn_tensor *variance = r->part[PN_GROUP_KEPT];
  if (pn_gpu_sum_into(r->part[PN_GROUP_MEAN], r->x, r->share, true) ||
      pn_loop_map<less_mean>(r->gpu, &loop, pn_unary{ 0, 0, true }) ||
      pn_gpu_sum_products_into(variance, r->full, r->full, r->share, true) ||
      PN_LAUNCH(r->gpu, settle, pn_gpu_blocks(r->gpu, groups, 256), 256, pn_real_of(r->stats), pn_real_of(r->sums), groups,
                pn_arg_real(r->call, "eps")))
    return -1;
  pn_loop_start(&each, r->x->n_dims, r->x->shape);
  pn_loop_add(&each, y);
  pn_loop_add(&each, r->x);
  pn_loop_add(&each, r->part[PN_GROUP_MEAN]);
  add_or_none(&each, r->weight);
  add_or_none(&each, r->bias);
  pn_loop_plan(&each);
  return PN_LAUNCH(r->gpu, values, blocks_of(r, &each), 256, each);
}

static int forward(pn_call *call) {
  room r = {};
  pn_tensor *y = NULL;
  if (!pn_tensor_count(call->x[0])) return 0;
  int rc = open_room(&r, call, NULL) || channels(&r, &r.weight, call->x[1]) || channels(&r, &r.bias, call->x[2]) ||
                   view(&r, &y, call->y[0])
               ? -1
               : 0;
  rc = rc ? rc : forward_on(&r, y);
  if (!rc && call->recording) {
    pn_tensor_retain(r.stats);
    pn_call_save(call, 0, r.stats);
  }
  pn_tensor_release(y);
  close_room(&r);
  return rc;
}

/* For each channel the sum of dy (times the normalised x) over what follows it, (N,G,C/G,1,...). */
static int sum_of_channels(pn_tensor **out, const room *r, bool times) {
  const int64_t *s = r->x->shape, shape[PN_MAX_DIMS] = { s[0], s[1], s[2], 1, 1, 1 };
  if (pn_tensor_new(out, PN_REAL_DTYPE, r->x->n_dims, shape, PN_ROWS, pn_device_of(r->x))) return -1;
  return times ? pn_gpu_sum_products_into(*out, r->full, r->dy, 1, true) : pn_gpu_sum_into(*out, r->dy, 1, true);
}

/* The gradient of weight or bias, input i, from such sums. */
static int gather(room *r, int i, const pn_tensor *of) {
  pn_tensor *d, *along;
  bool fresh;
  if (pn_call_dx(r->call, i, &d, &fresh)) return -1;
  if (!d) return 0;
  if (pn_group_channels(&along, r->call, d)) return -1;
  const int rc = pn_gpu_sum_into(along, of, 1, fresh);
  pn_tensor_release(along);
  return rc;
}

static int mean_of(const room *r, int which, const pn_tensor *of) {
  pn_tensor *to = r->part[PN_GROUP_KEPT + which];
  return r->weight ? pn_gpu_sum_products_into(to, of, r->weight, r->share, true) : pn_gpu_sum_into(to, of, r->share, true);
}

static int back_to_x(room *r) {
  pn_tensor *dx, *to;
  bool fresh;
  if (pn_call_dx(r->call, 0, &dx, &fresh)) return -1;
  if (!dx) return 0;
  if (view(r, &to, dx)) return -1;
  pn_loop loop;
  pn_loop_start(&loop, r->x->n_dims, r->x->shape);
  pn_loop_add(&loop, to);
  pn_loop_add(&loop, r->dy);
  pn_loop_add(&loop, r->full);
  pn_loop_add(&loop, r->part[PN_GROUP_MEAN]);
  add_or_none(&loop, r->weight);
  pn_loop_plan(&loop);
  const int rc = PN_LAUNCH(r->gpu, slopes, blocks_of(r, &loop), 256, loop, pn_real_of(r->stats), pn_real_of(r->sums), fresh);
  pn_tensor_release(to);
  return rc;
}

static int backward_on(room *r) {
  pn_tensor *plain = NULL, *product = NULL;
  int rc = map_normal(r) || sum_of_channels(&plain, r, false) || sum_of_channels(&product, r, true) ? -1 : 0;
  rc = rc ? rc : gather(r, 1, product);
  rc = rc ? rc : gather(r, 2, plain);
  if (!rc && pn_call_wants(r->call, 0)) rc = mean_of(r, 0, plain) || mean_of(r, 1, product) || back_to_x(r) ? -1 : 0;
  pn_tensor_release(plain);
  pn_tensor_release(product);
  return rc;
}

/* Of no elements: the gradients are 0. */
static int nothing(pn_call *call) {
  for (int i = 0; i < call->n_x; i++) {
    pn_tensor *d;
    if (pn_call_dx(call, i, &d, NULL)) return -1;
  }
  return 0;
}

static int backward(pn_call *call) {
  room r = {};
  if (!pn_tensor_count(call->x[0])) return nothing(call);
  int rc = open_room(&r, call, call->saved[0]) || channels(&r, &r.weight, call->x[1]) || view(&r, &r.dy, call->dy[0]) ? -1 : 0;
  rc = rc ? rc : backward_on(&r);
  close_room(&r);
  return rc;
}

PN_CUDA_KERNEL(group_norm, forward, backward)
