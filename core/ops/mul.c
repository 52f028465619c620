/* mul: y = a * b, each broadcast to the other (NumPy rules). */
#include "kernels/elementwise.h"

PN_BINARY_KERNELS(mul)

static const char *const cases[] = { "2,3,2,3,5 2,3,2,3,5", "2,3,2,3,5 1,3,1,1,1", "3,1 4", "2,3,4 1", 0 };
const pn_op pn_op_mul = {
  .name = "mul",
  .help = "product, element by element",
  .inputs = "a b",
  .cases = cases,
  .shape = pn_binary_shape,
  .cpu = {forward, backward}
};
