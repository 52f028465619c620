/* softmax.c: softmax and its logarithm along one axis, shifted by the largest value; sums in double. See softmax.h.
** A loop walks all positions of the other axes; each position goes along the axis by itself, in order. */
#include "kernels/softmax.h"
#include <tgmath.h>
#include "kernels/formulas.h"
#include "kernels/lanes.h"

typedef struct job {
  bool logarithm, fresh;
  int64_t n, step[3]; /* along the axis: how far, and the strides of the operands */
} job;

int pn_softmax_shape(pn_call *call) {
  const pn_tensor *x = call->x[0];
  int64_t axis = pn_arg_int(call, "axis");
  if (pn_need_real(call, 0)) return -1;
  if (axis >= x->n_dims) return pn_fail_shapes(call, "there is no axis %lld", (long long)axis + 1);
  pn_out_like(&call->out[0], x);
  return 0;
}

/* The largest x, and the sum of e^(x - largest): kept apart, so that large x cost no digits. */
typedef struct shifted {
  real largest;
  double sum;
} shifted;

static shifted shifted_sum(const real *x, int64_t n, int64_t step) {
  shifted s = { x[0], 0 };
  for (int64_t k = 1; k < n; k++) s.largest = x[k * step] > s.largest ? x[k * step] : s.largest;
  for (int64_t k = 0; k < n; k++) s.sum += (double)exp(x[k * step] - s.largest);
  return s;
}

static void value_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const job *j = context;
  for (int64_t i = 0; i < n; i++) {
    real *y = (real *)(void *)at[0] + i * stride[0];
    const real *x = (const real *)(const void *)at[1] + i * stride[1];
    const shifted s = shifted_sum(x, j->n, j->step[1]);
    const real log_sum = (real)log(s.sum), inverse = (real)(1 / s.sum);
    for (int64_t k = 0; k < j->n; k++) {
      real v = x[k * j->step[1]] - s.largest;
      y[k * j->step[0]] = j->logarithm ? pn_log_softmax_value(v, log_sum) : pn_softmax_value(v, inverse);
    }
  }
}

static void slope_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const job *j = context;
  for (int64_t i = 0; i < n; i++) {
    real *dx = (real *)(void *)at[0] + i * stride[0];
    const real *dy = (const real *)(const void *)at[1] + i * stride[1], *x = (const real *)(const void *)at[2] + i * stride[2];
    const shifted s = shifted_sum(x, j->n, j->step[2]);
    const real inverse = (real)(1 / s.sum);
    double sum = 0;
    for (int64_t k = 0; k < j->n; k++) {
      double g = (double)dy[k * j->step[1]];
      sum += j->logarithm ? g : g * (double)pn_softmax_value(x[k * j->step[2]] - s.largest, inverse);
    }
    for (int64_t k = 0; k < j->n; k++) {
      real g = dy[k * j->step[1]], p = pn_softmax_value(x[k * j->step[2]] - s.largest, inverse);
      real d = j->logarithm ? pn_log_softmax_slope(p, g, (real)sum) : pn_softmax_slope(p, g, (real)sum);
      dx[k * j->step[0]] = j->fresh ? d : dx[k * j->step[0]] + d;
    }
  }
}

static void walk(job *j, int axis, int n, const pn_tensor *const *t, pn_run run) {
  pn_loop loop;
  pn_loop_lanes(&loop, axis, n, t, j->step);
  j->n = t[0]->shape[axis];
  if (j->n) pn_loop_all(&loop, run, j);
}

int pn_softmax_forward(pn_call *call, bool logarithm) {
  job j = { .logarithm = logarithm };
  walk(&j, (int)pn_arg_int(call, "axis"), 2, (const pn_tensor *const[]){ call->y[0], call->x[0] }, value_run);
  return 0;
}

int pn_softmax_backward(pn_call *call, bool logarithm) {
  job j = { .logarithm = logarithm };
  pn_tensor *dx;
  if (pn_call_dx(call, 0, &dx, &j.fresh)) return -1;
  if (dx) walk(&j, (int)pn_arg_int(call, "axis"), 3, (const pn_tensor *const[]){ dx, call->dy[0], call->x[0] }, slope_run);
  return 0;
}
