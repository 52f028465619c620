/* log: y = natural logarithm of x; -inf at 0, NaN below. */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(log)

static const char *const cases[] = { "2,3,2,3,5:+", "7:+", 0 };
const pn_op pn_op_log = {
  .name = "log", .help = "natural logarithm", .inputs = "x", .cases = cases, .shape = pn_unary_shape, .cpu = {forward, backward}
};
