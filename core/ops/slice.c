/* slice: elements first, first + step, ... (count of them) of one axis; a view. Along T, H, W the grid goes on: the result's
** stride is step times that of x, its element 0 is centred where element `first` of x is. */
#include <string.h>
#include "op.h"

static int view(pn_call *call) {
  const pn_tensor *x = call->x[0];
  int64_t axis = pn_arg_int(call, "axis"), first = pn_arg_int(call, "first"), count = pn_arg_int(call, "count"),
          step = pn_arg_int(call, "step");
  if (axis >= x->n_dims) return pn_fail_shapes(call, "there is no axis %lld", (long long)axis + 1);
  int64_t n = x->shape[axis];
  if (count < 0) count = first < n ? pn_ceil_div(n - first, step) : 0;
  if (first > n || (count > 0 && first + (count - 1) * step >= n)) {
    return pn_fail_shapes(call, "first %lld, count %lld, step %lld leaves axis %lld of size %lld", (long long)first + 1,
                          (long long)count, (long long)step, (long long)axis + 1, (long long)n);
  }
  pn_out *out = &call->out[0];
  pn_out_like(out, x);
  memcpy(out->stride, x->stride, sizeof out->stride);
  out->shape[axis] = count;
  out->stride[axis] *= step;
  out->offset = count ? first * x->stride[axis] : 0;
  if (out->has_grid && x->n_dims == 5 && axis >= 2) {
    out->grid_centre[axis - 2] += (double)first * out->grid_stride[axis - 2];
    out->grid_stride[axis - 2] *= (double)step;
  }
  return 0;
}

static const pn_arg args[] = {
  {"axis",                     PN_INT, .min = 0, .max = PN_MAX_DIMS - 1, .help = "the axis to cut" },
  { "first",                  PN_INT, "0", 0, 1e15, .help = "its first element to keep" },
  { "count", PN_INT, "-1", -1, 1e15, .help = "how many elements; -1: to the end" },
  { "step",                   PN_INT, "1", 1, 1e15, .help = "from one kept element to the next" },
  { 0                      },
};
static const char *const cases[] = { "2,3,4,5,6 axis=3 first=1 count=3", "7 axis=0 first=2", "2,3,7 axis=2 first=1 count=3 step=2",
                                     "2,5,2,3,3 axis=1 first=4 count=1", 0 };
const pn_op pn_op_slice = {
  .name = "slice", .help = "part of an axis, as a view", .inputs = "x", .args = args, .cases = cases, .view = view
};
