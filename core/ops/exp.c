/* exp: y = e to the power x. */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(exp)

static const char *const cases[] = { "2,3,2,3,5", "7", 0 };
const pn_op pn_op_exp = {
  .name = "exp", .help = "e to the power x", .inputs = "x", .cases = cases, .shape = pn_unary_shape, .cpu = {forward, backward}
};
