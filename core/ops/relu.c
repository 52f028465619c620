/* relu: y = x where x > 0, else 0. NaN stays NaN; the gradient at 0 is 0. */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(relu)

static const char *const cases[] = { "2,3,2,3,5:step", "7:step", 0 };
const pn_op pn_op_relu = {
  .name = "relu",
  .help = "x where positive, else 0",
  .inputs = "x",
  .cases = cases,
  .shape = pn_unary_shape,
  .cpu = {forward, backward}
};
