/* group_norm: y = (x - m) / sqrt(v + eps) * weight + bias. x (N,C,...) of 2 to 5 axes, its channels in `groups` groups of neighbours; m
** and v are the mean and the (biased) variance of a group of one n, over its channels and all that follows them; weight, bias (C), each
** may be absent (Wu & He 2018). With one group and x (rows,C) it is layer norm (Ba, Kiros & Hinton 2016): nn.layer_norm is that.
**
** Why it is no composition: of subtraction, square, mean, root, two products and a sum, five keep a tensor of x's size for backward, and
** each goes over memory once more. Here two numbers a group are kept. Backward of weight makes one such tensor for its time.
**
** A group is cut into parts by its size alone. Each part's mean and spread about it are taken in double, and joined in order
** (kernels/norm_rules.h). */
#include "kernels/elementwise.h"
#include "kernels/groups.h"
#include "kernels/norm_rules.h"
#include "kernels/reduce.h"

enum { PART = 1 << 15, LANES = 8, GRAIN = 1 << 14 };

static int shape(pn_call *call) {
  static const char *const names[] = { "x", "weight", "bias" };
  const pn_tensor *x = call->x[0];
  if (x->n_dims < 2 || x->n_dims > 5) return pn_fail_shapes(call, "x has %d axes, expected 2 to 5", x->n_dims);
  for (int i = 0; i < 3; i++) {
    const pn_tensor *t = call->x[i];
    if (!t) continue;
    if (pn_need_real(call, i)) return -1;
    if (i && (t->n_dims != 1 || t->shape[0] != x->shape[1]))
      return pn_fail_shapes(call, "%s needs one number for each of x's %lld channels", names[i], (long long)x->shape[1]);
  }
  const int64_t groups = pn_arg_int(call, "groups");
  if (x->shape[1] % groups)
    return pn_fail_shapes(call, "groups %lld do not divide %lld channels", (long long)groups, (long long)x->shape[1]);
  pn_out_like(&call->out[0], x);
  return 0;
}

/* ---- a walk over groups ---------------------------------------------------------------------------------------------------- */

typedef struct job {
  pn_loop loop; /* over the elements of the first group; the operands are those of the pass */
  int64_t n, groups, count, part, parts;
  int64_t by_n[PN_LOOP_OPERANDS], by_group[PN_LOOP_OPERANDS]; /* strides of the operands */
  double *partial;                                            /* [group][part][2] */
  real *stats, *sums;                                         /* [group][2]: mean and inv; means of g and of g * normal */
  double eps;
  bool fresh;
} job;

/* What a pass has for the elements of a part. */
typedef struct pass {
  const job *j;
  const real *stats, *sums;
  double centre, first, second;
} pass;

static void start(job *j, const pn_tensor *x) {
  j->n = x->shape[0];
  j->groups = x->shape[1];
  pn_loop_start(&j->loop, x->n_dims - 2, x->shape + 2);
  j->count = j->loop.count;
  j->part = pn_min64(pn_max64(j->count, 1), PART);
  j->parts = pn_max64(1, pn_ceil_div(j->count, j->part));
}

/* A pass over these views, (N,G,C/G,...); what is absent is `instead`, one number for all. */
static void operands(job *j, const pn_tensor *first, int n, pn_tensor *const *t, const real *instead) {
  static const int64_t nowhere[PN_MAX_DIMS] = { 0 };
  pn_loop_start(&j->loop, first->n_dims - 2, first->shape + 2);
  for (int i = 0; i < n; i++) {
    int64_t stride[PN_MAX_DIMS] = { 0 };
    for (int d = 0; t[i] && d < t[i]->n_dims; d++) stride[d] = t[i]->shape[d] == 1 ? 0 : t[i]->stride[d];
    j->by_n[i] = stride[0];
    j->by_group[i] = stride[1];
    if (t[i]) pn_loop_add_raw(&j->loop, pn_bytes_of(t[i]), sizeof(real), stride + 2);
    else pn_loop_add_raw(&j->loop, (void *)(uintptr_t)&instead[i], sizeof(real), nowhere);
  }
  pn_loop_plan(&j->loop);
}

static void walk(const job *j, int64_t task, pn_run run, pass *p) {
  const int64_t group = task / j->parts, begin = task % j->parts * j->part;
  pn_loop loop = j->loop;
  for (int i = 0; i < loop.n_operands; i++)
    loop.base[i] += (group / j->groups * j->by_n[i] + group % j->groups * j->by_group[i]) * (int64_t)sizeof(real);
  p->j = j;
  p->stats = j->stats ? j->stats + group * PN_GROUP_KEPT : NULL;
  p->sums = j->sums ? j->sums + group * 2 : NULL;
  pn_loop_range(&loop, begin, pn_min64(begin + j->part, j->count), run, p);
}

static void all_tasks(job *j, void (*fn)(void *, int64_t, int64_t)) {
  pn_parallel(j->n * j->groups * j->parts, pn_max64(1, GRAIN / j->part), fn, j);
}

/* ---- forward --------------------------------------------------------------------------------------------------------------- */

static double total(const double *lane) {
  double sum = 0;
  for (int l = 0; l < LANES; l++) sum += lane[l];
  return sum;
}

static void sum_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  pass *p = context;
  const real *x = (const real *)(const void *)at[0];
  double lane[LANES] = { 0 };
  int64_t i = 0;
  if (stride[0] == 1)
    for (; i + LANES <= n; i += LANES)
      for (int l = 0; l < LANES; l++) lane[l] += (double)x[i + l];
  for (; i < n; i++) lane[0] += (double)x[i * stride[0]];
  p->first += total(lane);
}

static void spread_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  pass *p = context;
  const real *x = (const real *)(const void *)at[0];
  const double centre = p->centre;
  double lane[LANES] = { 0 };
  int64_t i = 0;
  if (stride[0] == 1)
    for (; i + LANES <= n; i += LANES)
      for (int l = 0; l < LANES; l++) lane[l] += ((double)x[i + l] - centre) * ((double)x[i + l] - centre);
  for (; i < n; i++) lane[0] += ((double)x[i * stride[0]] - centre) * ((double)x[i * stride[0]] - centre);
  p->second += total(lane);
}

static int64_t size_of(const job *j, int64_t part) { return pn_min64(j->part, j->count - part * j->part); }

static void moments(void *context, int64_t begin, int64_t end) {
  job *j = context;
  for (int64_t task = begin; task < end; task++) {
    pass p = { 0 };
    walk(j, task, sum_run, &p);
    p.centre = p.first / (double)size_of(j, task % j->parts);
    walk(j, task, spread_run, &p);
    j->partial[2 * task] = p.centre;
    j->partial[2 * task + 1] = p.second;
  }
}

static void settle(void *context, int64_t begin, int64_t end) {
  job *j = context;
  for (int64_t g = begin; g < end; g++) {
    const double *of = j->partial + g * j->parts * 2;
    double mean = 0, spread = 0;
    for (int64_t p = 0; p < j->parts; p++)
      pn_norm_join(&mean, &spread, (double)(p * j->part), (double)size_of(j, p), of[2 * p], of[2 * p + 1]);
    j->stats[g * PN_GROUP_KEPT + PN_GROUP_MEAN] = (real)mean;
    j->stats[g * PN_GROUP_KEPT + PN_GROUP_INV] = pn_group_inv(spread / (double)j->count, j->eps);
  }
}

static inline void value_line(const pass *p, int64_t n, char *const *at, int64_t sy, int64_t sx, int64_t sw, int64_t sb) {
  real *restrict y = (real *)(void *)at[0];
  const real *restrict x = (const real *)(const void *)at[1];
  const real *weight = (const real *)(const void *)at[2], *bias = (const real *)(const void *)at[3];
  const real mean = p->stats[PN_GROUP_MEAN], inv = p->stats[PN_GROUP_INV];
  for (int64_t i = 0; i < n; i++) y[i * sy] = pn_group_value(pn_group_normal(x[i * sx], mean, inv), weight[i * sw], bias[i * sb]);
}

static void value_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  if (stride[0] == 1 && stride[1] == 1 && stride[2] == 1 && stride[3] == 1) value_line(context, n, at, 1, 1, 1, 1);
  else if (stride[0] == 1 && stride[1] == 1 && stride[2] == 0 && stride[3] == 0) value_line(context, n, at, 1, 1, 0, 0);
  else value_line(context, n, at, stride[0], stride[1], stride[2], stride[3]);
}

static void values(void *context, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; task++) {
    pass p = { 0 };
    walk(context, task, value_run, &p);
  }
}

static const real one_and_zero[PN_LOOP_OPERANDS] = { 1, 1, 1, 0,
                                                     0 }; /* a weight, as operand 2, of 1, and a bias, as operand 3, of 0 */

static void forward_on(job *j, pn_tensor *y, pn_tensor *x, pn_tensor *weight, pn_tensor *bias) {
  operands(j, x, 1, (pn_tensor *const[]){ x }, NULL);
  all_tasks(j, moments);
  pn_parallel(j->n * j->groups, pn_max64(1, GRAIN / j->parts), settle, j);
  operands(j, y, 4, (pn_tensor *const[]){ y, x, weight, bias }, one_and_zero);
  all_tasks(j, values);
}

static int forward(pn_call *call) {
  pn_tensor *y = NULL, *x = NULL, *weight = NULL, *bias = NULL, *kept = NULL;
  job j = { .eps = pn_arg_real(call, "eps") };
  if (!pn_tensor_count(call->x[0])) return 0;
  int rc = pn_group_view(&y, call, call->y[0]) || pn_group_view(&x, call, call->x[0]) ||
                   (call->x[1] && pn_group_channels(&weight, call, call->x[1])) ||
                   (call->x[2] && pn_group_channels(&bias, call, call->x[2]))
               ? -1
               : 0;
  if (!rc) {
    start(&j, x);
    rc = pn_tensor_new(&kept, PN_REAL_DTYPE, 2, (int64_t[]){ j.n * j.groups, PN_GROUP_KEPT }, PN_ROWS, PN_CPU);
    j.partial = rc ? NULL : pn_alloc((size_t)(j.n * j.groups * j.parts * 2) * sizeof(double));
    if (!j.partial) rc = -1;
  }
  if (!rc) {
    j.stats = pn_real_of(kept);
    forward_on(&j, y, x, weight, bias);
  }
  pn_free(j.partial);
  if (!rc && call->recording) pn_call_save(call, 0, kept);
  else pn_tensor_release(kept);
  pn_tensor_release(y);
  pn_tensor_release(x);
  pn_tensor_release(weight);
  pn_tensor_release(bias);
  return rc;
}

/* ---- backward -------------------------------------------------------------------------------------------------------------- */

static void products_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  pass *p = context;
  const real *dy = (const real *)(const void *)at[0], *x = (const real *)(const void *)at[1],
             *weight = (const real *)(const void *)at[2];
  const real mean = p->stats[PN_GROUP_MEAN], inv = p->stats[PN_GROUP_INV];
  double first = 0, second = 0;
  for (int64_t i = 0; i < n; i++) {
    const double g = (double)(dy[i * stride[0]] * weight[i * stride[2]]);
    first += g;
    second += g * (double)pn_group_normal(x[i * stride[1]], mean, inv);
  }
  p->first += first;
  p->second += second;
}

static void products(void *context, int64_t begin, int64_t end) {
  job *j = context;
  for (int64_t task = begin; task < end; task++) {
    pass p = { 0 };
    walk(j, task, products_run, &p);
    j->partial[2 * task] = p.first;
    j->partial[2 * task + 1] = p.second;
  }
}

static void join(void *context, int64_t begin, int64_t end) {
  job *j = context;
  for (int64_t g = begin; g < end; g++) {
    double first = 0, second = 0;
    for (int64_t p = 0; p < j->parts; p++) {
      first += j->partial[(g * j->parts + p) * 2];
      second += j->partial[(g * j->parts + p) * 2 + 1];
    }
    j->sums[2 * g] = (real)(first / (double)j->count);
    j->sums[2 * g + 1] = (real)(second / (double)j->count);
  }
}

static void slope_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const pass *p = context;
  real *dx = (real *)(void *)at[0];
  const real *dy = (const real *)(const void *)at[1], *x = (const real *)(const void *)at[2],
             *weight = (const real *)(const void *)at[3];
  const real mean = p->stats[PN_GROUP_MEAN], inv = p->stats[PN_GROUP_INV];
  for (int64_t i = 0; i < n; i++) {
    const real normal = pn_group_normal(x[i * stride[2]], mean, inv), g = dy[i * stride[1]] * weight[i * stride[3]];
    const real d = pn_group_slope(normal, g, inv, p->sums[0], p->sums[1]);
    dx[i * stride[0]] = p->j->fresh ? d : dx[i * stride[0]] + d;
  }
}

static void slopes(void *context, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; task++) {
    pass p = { 0 };
    walk(context, task, slope_run, &p);
  }
}

/* dy * normal, of which the gradient of weight is the sum. */
static void weight_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const pass *p = context;
  real *to = (real *)(void *)at[0];
  const real *dy = (const real *)(const void *)at[1], *x = (const real *)(const void *)at[2];
  const real mean = p->stats[PN_GROUP_MEAN], inv = p->stats[PN_GROUP_INV];
  for (int64_t i = 0; i < n; i++) to[i * stride[0]] = dy[i * stride[1]] * pn_group_normal(x[i * stride[2]], mean, inv);
}

static void weights(void *context, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; task++) {
    pass p = { 0 };
    walk(context, task, weight_run, &p);
  }
}

static int back_to_x(pn_call *call, job *j, pn_tensor *dy, pn_tensor *x, pn_tensor *weight) {
  static const real one[PN_LOOP_OPERANDS] = { 1, 1, 1, 1, 1 };
  pn_tensor *dx, *view = NULL;
  if (pn_call_dx(call, 0, &dx, &j->fresh)) return -1;
  if (!dx || !pn_tensor_count(dx)) return 0;
  const size_t n = (size_t)(j->n * j->groups);
  j->partial = pn_alloc(n * (size_t)j->parts * 2 * sizeof(double));
  j->sums = pn_alloc(n * 2 * sizeof(real));
  int rc = j->partial && j->sums ? pn_group_view(&view, call, dx) : -1;
  if (!rc) {
    operands(j, x, 3, (pn_tensor *const[]){ dy, x, weight }, one);
    all_tasks(j, products);
    pn_parallel(j->n * j->groups, pn_max64(1, GRAIN / j->parts), join, j);
    operands(j, x, 4, (pn_tensor *const[]){ view, dy, x, weight }, one);
    all_tasks(j, slopes);
  }
  pn_free(j->partial);
  pn_free(j->sums);
  j->sums = NULL;
  pn_tensor_release(view);
  return rc;
}

static int back_to_weight(pn_call *call, job *j, pn_tensor *dy, pn_tensor *x) {
  pn_tensor *dweight, *along = NULL, *product = NULL, *view = NULL;
  bool fresh;
  if (pn_call_dx(call, 1, &dweight, &fresh)) return -1;
  if (!dweight) return 0;
  int rc = pn_group_along(&along, call, dweight);
  rc = rc ? rc : pn_tensor_like(&product, call->dy[0]);
  rc = rc ? rc : pn_group_view(&view, call, product);
  if (!rc && j->stats) {
    operands(j, view, 3, (pn_tensor *const[]){ view, dy, x }, NULL);
    all_tasks(j, weights);
  }
  rc = rc ? rc : pn_sum_into(along, product, 1, fresh);
  pn_tensor_release(view);
  pn_tensor_release(product);
  pn_tensor_release(along);
  return rc;
}

static int back_to_bias(pn_call *call) {
  pn_tensor *dbias, *along;
  bool fresh;
  if (pn_call_dx(call, 2, &dbias, &fresh)) return -1;
  if (!dbias) return 0;
  if (pn_group_along(&along, call, dbias)) return -1;
  int rc = pn_sum_into(along, call->dy[0], 1, fresh);
  pn_tensor_release(along);
  return rc;
}

static int backward(pn_call *call) {
  pn_tensor *dy = NULL, *x = NULL, *weight = NULL;
  job j = { 0 };
  int rc = pn_group_view(&dy, call, call->dy[0]) || pn_group_view(&x, call, call->x[0]) ||
                   (call->x[1] && pn_group_channels(&weight, call, call->x[1]))
               ? -1
               : 0;
  if (!rc) {
    start(&j, x);
    j.stats = call->saved[0] ? pn_real_of(call->saved[0]) : NULL;
    rc = back_to_x(call, &j, dy, x, weight) || back_to_weight(call, &j, dy, x) || back_to_bias(call) ? -1 : 0;
  }
  pn_tensor_release(dy);
  pn_tensor_release(x);
  pn_tensor_release(weight);
  return rc;
}

static const pn_arg args[] = {
  {"groups", PN_INT, "1", 1, 65536, NULL, "groups of neighbouring channels" },
  { "eps",     PN_REAL, "1e-5", 0, 1, NULL, "added to the variance" },
  { 0  },
};
static const char *const cases[] = { "2,6,2,3,4 6 6 groups=3", "4,5 5 5",   "3,4,5 - - groups=2 eps=1e-2",
                                     "2,4,3,3 4 - groups=4",   "2,4,3 - 4", 0 };
const pn_op pn_op_group_norm = {
  .name = "group_norm",
  .help = "groups of channels to mean 0 and variance 1, times weight, plus bias",
  .inputs = "x weight? bias?",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward},
  .real_inputs = { false,   true,     true }
};
