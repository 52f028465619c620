/* expand: x broadcast to a shape (NumPy rules; -1 keeps the size of x); a view with stride 0 along the axes that grew. */
#include "kernels/reduce.h"

static int view(pn_call *call) {
  const pn_tensor *x = call->x[0];
  const pn_value *want = pn_call_arg(call, "shape");
  int lead = want->n - x->n_dims;
  if (lead < 0) return pn_fail_shapes(call, "%d sizes are named, x has %d axes", want->n, x->n_dims);
  int64_t shape[PN_MAX_DIMS], stride[PN_MAX_DIMS];
  for (int d = 0; d < want->n; d++) {
    int64_t n = d < lead ? 1 : x->shape[d - lead];
    shape[d] = want->i[d] < 0 ? n : want->i[d];
    if (shape[d] != n && n != 1)
      return pn_fail_shapes(call, "axis %d of size %lld does not expand to %lld", d + 1, (long long)n, (long long)shape[d]);
    stride[d] = d < lead || shape[d] != n ? 0 : x->stride[d - lead];
  }
  pn_out *out = &call->out[0];
  pn_out_dims(out, x->dtype, want->n, shape);
  for (int d = 0; d < want->n; d++) out->stride[d] = stride[d];
  return 0;
}

static int backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  return dx ? pn_sum_into(dx, call->dy[0], 1, fresh) : 0;
}

static const pn_arg args[] = {
  {"shape",    PN_INTS, .min = -1, .max = 1e15, .help = "the new sizes; -1 keeps that of x" },
  { 0}
};
static const char *const cases[] = { "1,3,1,1,1 shape=2,3,2,3,5", "3,1 shape=2,-1,4", "5 shape=5", 0 };
const pn_op pn_op_expand = { .name = "expand",
                             .help = "x broadcast to a shape, as a view",
                             .inputs = "x",
                             .args = args,
                             .cases = cases,
                             .view = view,
                             .cpu = { .backward = backward } };
