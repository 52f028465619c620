/* abs: y = |x|. The gradient at 0 is 0. */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(abs)

static const char *const cases[] = { "2,3,2,3,5:step", "7:step", 0 };
const pn_op pn_op_abs = {
  .name = "abs", .help = "absolute value", .inputs = "x", .cases = cases, .shape = pn_unary_shape, .cpu = {forward, backward}
};
