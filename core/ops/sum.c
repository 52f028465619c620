/* sum: y = sum of x over axes (all of them when none is named), in double and in a fixed order (kernels/reduce.h). */
#include "kernels/elementwise.h"
#include "kernels/reduce.h"

static int shape(pn_call *call) { return pn_reduce_shape(call, PN_REAL_DTYPE); }

static int forward(pn_call *call) {
  pn_tensor *y;
  if (pn_reduce_keep(&y, call, call->y[0])) return -1;
  int rc = pn_sum_into(y, call->x[0], 1, true);
  pn_tensor_release(y);
  return rc;
}

static int backward(pn_call *call) { return pn_reduce_spread(call, 1); }

static const pn_arg args[] = {
  {"axes",           PN_INTS, "", 0, PN_MAX_DIMS - 1, .help = "axes to sum over; none: all" },
  { "keep",              PN_BOOL, "false", .help = "keep them as axes of size 1" },
  { 0},
};
static const char *const cases[] = { "2,3,2,3,5",        "2,3,2,3,5 axes=0,2,3,4 keep=true",
                                     "2,3,4 axes=2",     "3,4,5 axes=1,0",
                                     "2,3,2,3,5 axes=1", 0 };
const pn_op pn_op_sum = {
  .name = "sum", .help = "sum over axes", .inputs = "x", .args = args, .cases = cases, .shape = shape, .cpu = {forward, backward}
};
