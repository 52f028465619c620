/* square: y = x * x. */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(square)

static const char *const cases[] = { "2,3,2,3,5", "7", 0 };
const pn_op pn_op_square = {
  .name = "square", .help = "x times x", .inputs = "x", .cases = cases, .shape = pn_unary_shape, .cpu = {forward, backward}
};
