/* weighted_sum: y = sum over i of weight[i] * x[.., i, ..] along one axis, which stays, with size 1. x any shape, weight (n).
**
** In memory x is n slices of `inner` numbers, `outer` times over; so forward is one reading of x, backward one of x and one
** writing of dx. The gradient of the weights is summed in double over blocks cut by the shape alone. */
#include "kernels/taps.h"
#include "op.h"

static int shape(pn_call *call) {
  const pn_tensor *x = call->x[0], *w = call->x[1];
  int64_t axis = pn_arg_int(call, "axis");
  if (pn_need_real(call, 0) || pn_need_real(call, 1)) return -1;
  if (axis >= x->n_dims) return pn_fail_shapes(call, "there is no axis %lld", (long long)axis + 1);
  if (w->n_dims != 1 || w->shape[0] != x->shape[axis])
    return pn_fail_shapes(call, "weight needs one number for each of the %lld slices of x", (long long)x->shape[axis]);
  pn_out_like(&call->out[0], x);
  call->out[0].shape[axis] = 1;
  call->flops = 2.0 * (double)pn_tensor_count(x);
  return 0;
}

enum { ADDED = 1024, BLOCK = 32768 };

typedef struct job {
  const real *x, *dy, *weight;
  real *y, *dx;
  double *partial;               /* one n a block */
  int64_t outer, n, inner, rows; /* rows: of outer, a block */
  bool add;
} job;

static void sum_slices(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  int64_t offset[ADDED];
  for (int64_t o = begin; o < end; o++)
    for (int64_t first = 0; first < j->n || first == 0; first += ADDED) {
      int64_t n = pn_min64(ADDED, j->n - first);
      for (int64_t i = 0; i < n; i++) offset[i] = i * j->inner;
      pn_taps()->weighted(j->y + o * j->inner, first > 0, j->x + (o * j->n + first) * j->inner, offset, j->weight + first, n,
                          j->inner);
    }
}

static void spread_slices(void *context, int64_t begin, int64_t end) { /* units: slices */
  const job *j = context;
  const int64_t here = 0;
  for (int64_t s = begin; s < end; s++)
    pn_taps()->weighted(j->dx + s * j->inner, j->add, j->dy + s / j->n * j->inner, &here, j->weight + s % j->n, 1, j->inner);
}

static void dot_blocks(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  for (int64_t b = begin; b < end; b++) {
    double *sums = j->partial + b * j->n;
    for (int64_t o = b * j->rows, stop = pn_min64(o + j->rows, j->outer); o < stop; o++)
      for (int64_t i = 0; i < j->n; i++) {
        const real *x = j->x + (o * j->n + i) * j->inner, *dy = j->dy + o * j->inner;
        double sum[4] = { 0 };
        int64_t k = 0;
        for (; k + 4 <= j->inner; k += 4)
          for (int lane = 0; lane < 4; lane++) sum[lane] += (double)x[k + lane] * (double)dy[k + lane];
        for (; k < j->inner; k++) sum[0] += (double)x[k] * (double)dy[k];
        sums[i] += (sum[0] + sum[1]) + (sum[2] + sum[3]);
      }
  }
}

/* The layout in which x is dense, if any; in that order the axis has `inner` numbers a slice. */
static pn_layout layout_of(const pn_tensor *x) {
  if (x->n_dims != 5 || pn_tensor_is_dense(x, PN_ROWS)) return PN_ROWS;
  return pn_tensor_is_dense(x, PN_FILTER) ? PN_FILTER : PN_CHANNELS_LAST;
}

static void job_start(job *j, const pn_tensor *x, int64_t axis) {
  j->n = x->shape[axis];
  j->inner = j->n > 1 ? x->stride[axis] : 0;
  int64_t count = pn_tensor_count(x);
  if (j->n <= 1) j->inner = pn_max64(count, 1); /* the only slice is everything */
  j->outer = j->n ? count / j->n / j->inner : 0;
  j->rows = pn_max64(1, BLOCK / pn_max64(1, j->n * j->inner));
}

static int contiguous(pn_tensor **held, const real **data, pn_tensor *t, pn_layout layout) {
  if (pn_tensor_contiguous(held, t, layout)) return -1;
  *data = pn_real_of(*held);
  return 0;
}

static int forward(pn_call *call) {
  pn_tensor *x = NULL, *w = NULL, *y = NULL;
  pn_layout layout = layout_of(call->x[0]);
  job j = { .add = false };
  int rc = contiguous(&x, &j.x, call->x[0], layout);
  rc = rc ? rc : contiguous(&w, &j.weight, call->x[1], PN_ROWS);
  rc = rc ? rc : pn_tensor_contiguous(&y, call->y[0], layout);
  if (!rc) {
    job_start(&j, x, pn_arg_int(call, "axis"));
    j.y = pn_real_of(y);
    if (j.n == 0) rc = pn_tensor_fill(y, 0);
    else pn_parallel(j.outer, pn_max64(1, BLOCK / (j.n * j.inner)), sum_slices, &j);
    if (!rc && y != call->y[0]) rc = pn_tensor_copy(call->y[0], y);
  }
  pn_tensor_release(x);
  pn_tensor_release(w);
  pn_tensor_release(y);
  return rc;
}

static int back_weight(pn_call *call, job *j) {
  pn_tensor *dw;
  int64_t blocks = pn_ceil_div(j->outer, j->rows);
  if (pn_call_dx(call, 1, &dw, NULL)) return -1;
  if (!dw || !j->n) return 0;
  j->partial = pn_alloc_zero(sizeof(double) * (size_t)(pn_max64(1, blocks) * j->n));
  if (!j->partial) return -1;
  pn_parallel(blocks, 1, dot_blocks, j);
  for (int64_t i = 0; i < j->n; i++) {
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) sum += j->partial[b * j->n + i];
    pn_real_of(dw)[i * dw->stride[0]] += (real)sum;
  }
  pn_free(j->partial);
  return 0;
}

static int back_slices(pn_call *call, job *j, pn_layout layout) {
  pn_tensor *dx, *made = NULL;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (!dx || !j->n) return 0;
  bool direct = pn_tensor_is_dense(dx, layout);
  if (!direct && pn_tensor_new(&made, dx->dtype, dx->n_dims, dx->shape, layout, pn_device_of(dx))) return -1;
  j->dx = pn_real_of(direct ? dx : made);
  j->add = direct && !fresh;
  pn_parallel(j->outer * j->n, pn_max64(1, BLOCK / j->inner), spread_slices, j);
  int rc = direct ? 0 : fresh ? pn_tensor_copy(dx, made) : pn_add_into(dx, made);
  pn_tensor_release(made);
  return rc;
}

static int backward(pn_call *call) {
  pn_tensor *x = NULL, *w = NULL, *dy = NULL;
  pn_layout layout = layout_of(call->x[0]);
  job j = { .add = false };
  int rc = contiguous(&x, &j.x, call->x[0], layout);
  rc = rc ? rc : contiguous(&w, &j.weight, call->x[1], PN_ROWS);
  rc = rc ? rc : contiguous(&dy, &j.dy, call->dy[0], layout);
  if (!rc) {
    job_start(&j, x, pn_arg_int(call, "axis"));
    rc = back_weight(call, &j) || back_slices(call, &j, layout) ? -1 : 0;
  }
  pn_tensor_release(x);
  pn_tensor_release(w);
  pn_tensor_release(dy);
  return rc;
}

static const pn_arg args[] = {
  {"axis",    PN_INT, .min = 0, .max = PN_MAX_DIMS - 1, .help = "the axis to sum over" },
  { 0},
};
static const char *const cases[] = {
  "2,3,2,3,5 3 axis=1", "4,3,2,3,5 4 axis=0", "2,3,4 4 axis=2", "7 7 axis=0", "3,1,5 1 axis=1", 0
};
const pn_op pn_op_weighted_sum = {
  .name = "weighted_sum",
  .help = "sum of the slices of an axis, each times its weight",
  .inputs = "x weight",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
