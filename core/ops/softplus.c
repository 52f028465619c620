/* softplus: y = log(1 + e^x), as max(x, 0) + log(1 + e^-|x|), which never overflows. */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(softplus)

static const char *const cases[] = { "2,3,2,3,5", "7", 0 };
const pn_op pn_op_softplus = {
  .name = "softplus", .help = "log(1 + e^x)", .inputs = "x", .cases = cases, .shape = pn_unary_shape, .cpu = {forward, backward}
};
