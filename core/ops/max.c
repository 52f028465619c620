/* max: y = largest value of x over axes (all of them when none is named). Ties: the first in row order of the reduced axes
** wins, and it alone gets the gradient. A NaN wins over everything. */
#include "kernels/reduce.h"

static int shape(pn_call *call) { return pn_reduce_shape(call, call->x[0]->dtype) || pn_pick_check(call) ? -1 : 0; }

static int forward(pn_call *call) {
  pn_tensor *winners = NULL;
  if (call->recording && pn_tensor_new(&winners, PN_I64, call->y[0]->n_dims, call->y[0]->shape, PN_ROWS, PN_CPU)) return -1;
  if (winners) pn_call_save(call, 0, winners);
  return pn_pick_largest(call, call->y[0], winners, 0);
}

static int backward(pn_call *call) { return pn_pick_backward(call, call->saved[0]); }

static const pn_arg args[] = {
  {"axes",           PN_INTS, "", 0, PN_MAX_DIMS - 1, .help = "axes to take the largest over; none: all" },
  { "keep",              PN_BOOL, "false", .help = "keep them as axes of size 1" },
  { 0},
};
static const char *const cases[] = { "2,3,2,3,5:step", "2,3,2,3,5:step axes=0,2,4 keep=true", "2,3,4:step axes=2",
                                     "3,4,5:step axes=1,0", 0 };
const pn_op pn_op_max = {
  .name = "max",
  .help = "largest value over axes",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
