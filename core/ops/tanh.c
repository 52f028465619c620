/* tanh: y = hyperbolic tangent of x. */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(tanh)

static const char *const cases[] = { "2,3,2,3,5", "7", 0 };
const pn_op pn_op_tanh = {
  .name = "tanh", .help = "hyperbolic tangent", .inputs = "x", .cases = cases, .shape = pn_unary_shape, .cpu = {forward, backward}
};
