/* pow: y = x to the power `exponent`, a number. x < 0 needs a whole exponent (else NaN). */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(pow)

static const pn_arg args[] = {
  {"exponent",           PN_REAL, .help = "the power" },
  { 0}
};
static const char *const cases[] = { "2,3,2,3,5:+ exponent=1.7", "7 exponent=3", "4:+ exponent=-0.5", 0 };
const pn_op pn_op_pow = {
  .name = "pow",
  .help = "x to the power of a number",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = pn_unary_shape,
  .cpu = {forward, backward}
};
