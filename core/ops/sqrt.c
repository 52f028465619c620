/* sqrt: y = square root of x; NaN below 0. The gradient at 0 is infinite. */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(sqrt)

static const char *const cases[] = { "2,3,2,3,5:+", "7:+", 0 };
const pn_op pn_op_sqrt = {
  .name = "sqrt", .help = "square root", .inputs = "x", .cases = cases, .shape = pn_unary_shape, .cpu = {forward, backward}
};
