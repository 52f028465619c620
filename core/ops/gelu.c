/* gelu: y = x times the share of a normal distribution below x, x/2 (1 + erf(x/sqrt(2))): the exact form (Hendrycks & Gimpel 2016). */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(gelu)

static const char *const cases[] = { "2,3,2,3,5", "7", 0 };
const pn_op pn_op_gelu = {
  .name = "gelu",
  .help = "x/2 (1 + erf(x/sqrt(2))), the exact form",
  .inputs = "x",
  .cases = cases,
  .shape = pn_unary_shape,
  .cpu = {forward, backward}
};
