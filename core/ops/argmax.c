/* argmax: y = index (i64) of the largest value of x over axes, counted from 1, as Lua counts everything, in row order of the reduced
** axes; one axis is the usual case. Ties: the first wins. Not differentiable. */
#include "kernels/reduce.h"

static int shape(pn_call *call) { return pn_reduce_shape(call, PN_I64) || pn_pick_check(call) ? -1 : 0; }
static int forward(pn_call *call) { return pn_pick_largest(call, NULL, call->y[0], 1); }

static const pn_arg args[] = {
  {"axes",           PN_INTS, "", 0, PN_MAX_DIMS - 1, .help = "axes to search; none: all" },
  { "keep",              PN_BOOL, "false", .help = "keep them as axes of size 1" },
  { 0},
};
static const char *const cases[] = { "2,3,2,3,5:step axes=1", "2,3,4:step axes=2,0 keep=true", "7:step", 0 };
const pn_op pn_op_argmax = { .name = "argmax",
                             .help = "index of the largest value over axes, counted from 1, in row order of these axes",
                             .inputs = "x",
                             .args = args,
                             .cases = cases,
                             .shape = shape,
                             .cpu = { .forward = forward } };
