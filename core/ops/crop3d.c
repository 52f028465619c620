/* crop3d: the box of `size` (t,h,w) elements at `first` (t,h,w) of x (N,C,T,H,W); a view that carries the grid:
** element 0 of the result is centred where element `first` of x is. */
#include <string.h>
#include "op.h"

static int view(pn_call *call) {
  if (pn_need_dims(call, 0, 5)) return -1;
  const pn_tensor *x = call->x[0];
  const int64_t *first = pn_call_arg(call, "first")->i, *size = pn_call_arg(call, "size")->i;
  pn_out *out = &call->out[0];
  pn_out_like(out, x);
  memcpy(out->stride, x->stride, sizeof out->stride);
  for (int d = 0; d < 3; d++) {
    int64_t n = x->shape[2 + d], count = size[d] < 0 ? n - first[d] : size[d];
    if (first[d] + count > n || count < 1) {
      return pn_fail_shapes(call, "first %lld and size %lld leave the %c axis of size %lld", (long long)first[d] + 1,
                            (long long)size[d], "thw"[d], (long long)n);
    }
    out->shape[2 + d] = count;
    out->offset += first[d] * x->stride[2 + d];
    out->grid_centre[d] += (double)first[d] * out->grid_stride[d];
  }
  return 0;
}

static const pn_arg args[] = {
  {"first", PN_INT3, "0", 0, 1e15, .help = "first element to keep (t,h,w)" },
  { "size",    PN_INT3, "-1", -1, 1e15, .help = "elements to keep (t,h,w); -1: to the end" },
  { 0  },
};
static const char *const cases[] = { "2,3,4,5,6 first=1,0,2 size=2,5,3", "1,2,3,4,5 first=0,1,1", 0 };
const pn_op pn_op_crop3d = {
  .name = "crop3d", .help = "a box of a clip, as a view", .inputs = "x", .args = args, .cases = cases, .view = view
};
