/* gather: y has, along an axis, the elements of x at the places that `index` gives, counted from 1, as argmax and argsort give them.
** index has the axes of x (size 1 where it is the same all along), or one axis alone: the same places everywhere. The gradient of an
** element is the sum over the places where it went, in their order. A place that is not there is an error; a CUDA device, which is not
** waited for, gives NaN there. */
#include "kernels/lanes.h"

static int axis_of(const pn_call *call) { return (int)pn_arg_int(call, "axis"); }

static int shape(pn_call *call) {
  const pn_tensor *x = call->x[0], *index = call->x[1];
  const int axis = axis_of(call);
  pn_out *out = &call->out[0];
  if (pn_need_real(call, 0)) return -1;
  if (!pn_is_integer(index)) return pn_fail_shapes(call, "index is %s, expects u8, i32 or i64", pn_dtype_name(index->dtype));
  if (axis >= x->n_dims) return pn_fail_shapes(call, "there is no axis %d", axis + 1);
  if (index->n_dims != x->n_dims && index->n_dims != 1)
    return pn_fail_shapes(call, "index has other axes than x, and more than one");
  pn_out_like(out, x);
  for (int d = 0; d < x->n_dims && index->n_dims == x->n_dims; d++) {
    if (d != axis && index->shape[d] != x->shape[d] && index->shape[d] != 1)
      return pn_fail_shapes(call, "index is %lld along axis %d, expects %lld or 1", (long long)index->shape[d], d + 1,
                            (long long)x->shape[d]);
  }
  out->shape[axis] = index->shape[index->n_dims == x->n_dims ? axis : 0];
  if (axis >= 2) out->has_grid = false;
  return 0;
}

typedef struct job {
  int64_t n_x, n, step[3]; /* elements of a lane of x, and of y */
  pn_dtype index_dtype;
  _Atomic bool missed;
  int64_t missing; /* a place that is not there */
} job;

static int64_t place(const job *j, const char *index, int64_t k, int operand) {
  const char *at = index + k * j->step[operand] * pn_dtype_bytes(j->index_dtype);
  return j->index_dtype == PN_I64   ? *(const int64_t *)(const void *)at
         : j->index_dtype == PN_I32 ? *(const int32_t *)(const void *)at
                                    : *(const uint8_t *)at;
}

static void value_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  job *j = context;
  for (int64_t i = 0; i < n; i++) {
    real *y = (real *)(void *)at[0] + i * stride[0];
    const real *x = (const real *)(const void *)at[1] + i * stride[1];
    const char *index = at[2] + i * stride[2] * pn_dtype_bytes(j->index_dtype);
    for (int64_t k = 0; k < j->n; k++) {
      const int64_t from = place(j, index, k, 2);
      if (from >= 1 && from <= j->n_x) y[k * j->step[0]] = x[(from - 1) * j->step[1]];
      else j->missed = true;
    }
  }
}

static void slope_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const job *j = context;
  for (int64_t i = 0; i < n; i++) {
    real *dx = (real *)(void *)at[0] + i * stride[0];
    const real *dy = (const real *)(const void *)at[1] + i * stride[1];
    const char *index = at[2] + i * stride[2] * pn_dtype_bytes(j->index_dtype);
    for (int64_t k = 0; k < j->n; k++) dx[(place(j, index, k, 2) - 1) * j->step[0]] += dy[k * j->step[1]];
  }
}

static void missing_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  job *j = context;
  for (int64_t i = 0; i < n && !j->missing; i++) {
    for (int64_t k = 0; k < j->n && !j->missing; k++) {
      const int64_t from = place(j, at[2] + i * stride[2] * pn_dtype_bytes(j->index_dtype), k, 2);
      if (from < 1 || from > j->n_x) j->missing = from ? from : INT64_MIN; /* 0 says that there is none */
    }
  }
}

/* Operands: y or dx, x or dy, index. */
static void walk(job *j, pn_loop *loop, const pn_call *call, const pn_tensor *to, const pn_tensor *from) {
  const int axis = axis_of(call);
  const pn_tensor index = pn_gather_index(call->x[1], call->x[0], axis);
  pn_loop_lanes(loop, axis, 3, (const pn_tensor *const[]){ to, from, &index }, j->step);
  j->n_x = call->x[0]->shape[axis];
  j->n = index.shape[axis];
  j->index_dtype = index.dtype;
}

static int forward(pn_call *call) {
  job j = { .missed = false };
  pn_loop loop;
  walk(&j, &loop, call, call->y[0], call->x[0]);
  pn_loop_all(&loop, value_run, &j);
  if (!j.missed) return 0;
  pn_loop_range(&loop, 0, loop.count, missing_run, &j);
  return pn_fail_shapes(call, "index has %lld, expects 1 to %lld", (long long)(j.missing == INT64_MIN ? 0 : j.missing),
                        (long long)j.n_x);
}

static int backward(pn_call *call) {
  job j = { .missed = false };
  pn_loop loop;
  pn_tensor *dx;
  if (pn_call_dx(call, 0, &dx, NULL)) return -1;
  if (!dx) return 0;
  walk(&j, &loop, call, dx, call->dy[0]);
  pn_loop_all(&loop, slope_run, &j);
  return 0;
}

static const pn_arg args[] = {
  {"axis",    PN_INT, .min = 0, .max = PN_MAX_DIMS - 1, .help = "the axis along which to take" },
  { 0}
};
static const char *const cases[] = { "2,3,4 2,3,5:i64:12 axis=2", "2,3,2,3,5 3:i32:12 axis=1",         "2,3,4 1,3,1:u8:12 axis=0",
                                     "6 4:i64:12 axis=0",         "2,3,2,3,5 2,3,2,2,5:i64:12 axis=3", 0 };
const pn_op pn_op_gather = {
  .name = "gather",
  .help = "the elements of x at places along an axis, counted from 1",
  .inputs = "x index",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward},
  .constant_inputs = { false,  true    },
  .integer_inputs = { false,  true    }
};
