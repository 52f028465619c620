/* log_softmax: y = x - log(sum of e^x) along an axis, shifted by the largest x so that nothing overflows. */
#include "kernels/softmax.h"

static int forward(pn_call *call) { return pn_softmax_forward(call, true); }
static int backward(pn_call *call) { return pn_softmax_backward(call, true); }

static const pn_arg args[] = {
  {"axis", PN_INT, "1", 0, PN_MAX_DIMS - 1, .help = "the axis that sums to 1" },
  { 0  }
};
static const char *const cases[] = { "2,3,2,3,5", "2,3,4 axis=2", "5 axis=0", "2,3,2,3,5 axis=3", 0 };
const pn_op pn_op_log_softmax = {
  .name = "log_softmax",
  .help = "logarithm of softmax along an axis",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = pn_softmax_shape,
  .cpu = {forward, backward}
};
