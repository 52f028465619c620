/* permute: axis d of the result is axis axes[d] of x; a view. */
#include "op.h"

static int view(pn_call *call) {
  const pn_tensor *x = call->x[0];
  const pn_value *axes = pn_call_arg(call, "axes");
  if (axes->n != x->n_dims) return pn_fail_shapes(call, "%d axes are named, x has %d", axes->n, x->n_dims);
  pn_out *out = &call->out[0];
  bool used[PN_MAX_DIMS] = { false };
  int64_t shape[PN_MAX_DIMS];
  for (int d = 0; d < x->n_dims; d++) {
    int64_t from = axes->i[d];
    if (from >= x->n_dims || used[from])
      return pn_fail_shapes(call, "axis %lld is %s", (long long)from + 1, from >= x->n_dims ? "not there" : "named twice");
    used[from] = true;
    shape[d] = x->shape[from];
  }
  pn_out_dims(out, x->dtype, x->n_dims, shape);
  for (int d = 0; d < x->n_dims; d++) out->stride[d] = x->stride[axes->i[d]];
  return 0;
}

static const pn_arg args[] = {
  {"axes",    PN_INTS, .min = 0, .max = PN_MAX_DIMS - 1, .help = "for each axis of the result, the axis of x" },
  { 0}
};
static const char *const cases[] = { "2,3,4 axes=2,0,1", "2,3,2,3,5 axes=0,2,3,4,1", "3,2 axes=1,0", 0 };
const pn_op pn_op_permute = {
  .name = "permute", .help = "axes in another order, as a view", .inputs = "x", .args = args, .cases = cases, .view = view
};
