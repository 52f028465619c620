/* maximum: y = a where a >= b, else b; broadcast (NumPy rules). NaN in either gives NaN. The gradient goes to the one chosen: to a when equal. */
#include "kernels/elementwise.h"

PN_BINARY_KERNELS(maximum)

static const char *const cases[] = { "2,3,2,3,5:step 2,3,2,3,5", "2,3,5 3,1:step", "3,1:step 4", 0 };
const pn_op pn_op_maximum = {
  .name = "maximum",
  .help = "larger of two, element by element",
  .inputs = "a b",
  .cases = cases,
  .shape = pn_binary_shape,
  .cpu = {forward, backward}
};
