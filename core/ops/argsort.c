/* argsort: y = the places (i64, counted from 1) of the elements of x along an axis, in the order of their values; the first few of them,
** or all. Equal ones stay in their order; a NaN is larger than everything. Not differentiable: gather takes the values. */
#include <stdlib.h>
#include "kernels/lanes.h"

static int shape(pn_call *call) {
  const pn_tensor *x = call->x[0];
  const int64_t axis = pn_arg_int(call, "axis"), count = pn_arg_int(call, "count");
  int64_t sizes[PN_MAX_DIMS];
  if (pn_need_real(call, 0)) return -1;
  if (axis >= x->n_dims) return pn_fail_shapes(call, "there is no axis %lld", (long long)axis + 1);
  if (count > x->shape[axis])
    return pn_fail_shapes(call, "count is %lld, axis %lld has %lld", (long long)count, (long long)axis + 1,
                          (long long)x->shape[axis]);
  for (int d = 0; d < x->n_dims; d++) sizes[d] = d == axis && count ? count : x->shape[d];
  pn_out_dims(&call->out[0], PN_I64, x->n_dims, sizes);
  return 0;
}

enum { FEW = 64 };

typedef struct element {
  real value;
  int64_t place;
} element;

typedef struct job {
  bool descending;
  int64_t n, n_out, step[2];
  _Atomic bool failed;
} job;

static bool comes_before(const job *j, const element *a, const element *b) {
  return pn_comes_before(a->value, a->place, b->value, b->place, j->descending);
}

static int ascending(const void *a, const void *b) {
  const element *x = a, *y = b;
  return pn_comes_before(x->value, x->place, y->value, y->place, false) ? -1 : 1; /* no two are equal: their places differ */
}
static int descending(const void *a, const void *b) {
  const element *x = a, *y = b;
  return pn_comes_before(x->value, x->place, y->value, y->place, true) ? -1 : 1;
}

/* The first n_out of a lane, found in one pass: an element is compared with the last of those kept, and most go no further. */
static void keep_first(const job *j, element *kept, const real *x) {
  int64_t n_kept = 0;
  for (int64_t k = 0; k < j->n; k++) {
    const element e = { x[k * j->step[1]], k + 1 };
    if (n_kept == j->n_out && !comes_before(j, &e, &kept[n_kept - 1])) continue;
    int64_t at = n_kept < j->n_out ? n_kept++ : n_kept - 1;
    for (; at > 0 && comes_before(j, &e, &kept[at - 1]); at--) kept[at] = kept[at - 1];
    kept[at] = e;
  }
}

static void sort(const job *j, element *lane, const real *x) {
  for (int64_t k = 0; k < j->n; k++) lane[k] = (element){ x[k * j->step[1]], k + 1 };
  qsort(lane, (size_t)j->n, sizeof *lane, j->descending ? descending : ascending);
}

static void run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  job *j = context;
  const bool few = j->n_out <= FEW && j->n_out < j->n / 4;
  element *lane = pn_alloc((size_t)j->n * sizeof *lane);
  if (!lane) {
    j->failed = true;
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    int64_t *y = (int64_t *)(void *)at[0] + i * stride[0];
    const real *x = (const real *)(const void *)at[1] + i * stride[1];
    if (few) keep_first(j, lane, x);
    else sort(j, lane, x);
    for (int64_t k = 0; k < j->n_out; k++) y[k * j->step[0]] = lane[k].place;
  }
  pn_free(lane);
}

static int forward(pn_call *call) {
  const int axis = (int)pn_arg_int(call, "axis");
  job j = { .descending = pn_arg_int(call, "descending") != 0, .n = call->x[0]->shape[axis], .n_out = call->y[0]->shape[axis] };
  pn_loop loop;
  pn_loop_lanes(&loop, axis, 2, (const pn_tensor *const[]){ call->y[0], call->x[0] }, j.step);
  if (j.n) pn_loop_all(&loop, run, &j);
  return j.failed ? pn_fail_memory(j.n * (int64_t)sizeof(element), PN_CPU) : 0;
}

static const pn_arg args[] = {
  {"axis",                            PN_INT, .min = 0, .max = PN_MAX_DIMS - 1, .help = "the axis to sort along" },
  { "descending",                         PN_BOOL, "false", .help = "the largest first" },
  { "count", PN_INT, "0", 0, 1e15, .help = "how many of them, from the first on; 0: all" },
  { 0                    }
};
static const char *const cases[] = { "2,3,2,3,5:step axis=1", "2,3,4:step axis=2 descending=true count=2", "7 axis=0",
                                     "2,300:01 axis=1",       "2,300:01 axis=1 count=5 descending=true",   0 };
const pn_op pn_op_argsort = { .name = "argsort",
                              .help = "places of the elements along an axis, counted from 1, in the order of their values",
                              .inputs = "x",
                              .args = args,
                              .cases = cases,
                              .shape = shape,
                              .cpu = { .forward = forward } };
