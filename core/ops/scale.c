/* scale: y = a * x + b with numbers a and b. */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(scale)

static const pn_arg args[] = {
  {"a",  PN_REAL, "1", .help = "factor" },
  { "b", PN_REAL, "0", .help = "summand" },
  { 0  }
};
static const char *const cases[] = { "2,3,2,3,5 a=-1.5 b=0.25", "7 a=2", "3 b=1", 0 };
const pn_op pn_op_scale = {
  .name = "scale",
  .help = "a * x + b with numbers a and b",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = pn_unary_shape,
  .cpu = {forward, backward}
};
