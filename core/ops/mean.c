/* mean: y = mean of x over axes (all of them when none is named), added up in double and in a fixed order (kernels/reduce.h).
** Over the axes 2,3,4 it is the global average pool. */
#include "kernels/elementwise.h"
#include "kernels/reduce.h"

static int shape(pn_call *call) {
  if (pn_reduce_shape(call, PN_REAL_DTYPE)) return -1;
  return pn_tensor_count(call->x[0]) ? 0 : pn_fail_shapes(call, "the mean of no elements");
}

static double share(const pn_call *call, const pn_tensor *y) {
  return (double)pn_tensor_count(y) / (double)pn_tensor_count(call->x[0]);
}

static int forward(pn_call *call) {
  pn_tensor *y;
  if (pn_reduce_keep(&y, call, call->y[0])) return -1;
  int rc = pn_sum_into(y, call->x[0], share(call, y), true);
  pn_tensor_release(y);
  return rc;
}

static int backward(pn_call *call) { return pn_reduce_spread(call, share(call, call->dy[0])); }

static const pn_arg args[] = {
  {"axes",           PN_INTS, "", 0, PN_MAX_DIMS - 1, .help = "axes to average over; none: all" },
  { "keep",              PN_BOOL, "false", .help = "keep them as axes of size 1" },
  { 0},
};
static const char *const cases[] = { "2,3,2,3,5", "2,3,2,3,5 axes=2,3,4 keep=true", "2,3,4 axes=2", "3,4,5 axes=1,0", 0 };
const pn_op pn_op_mean = {
  .name = "mean",
  .help = "mean over axes",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
