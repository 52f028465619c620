/* div: y = a / b, each broadcast to the other (NumPy rules). Division by zero gives what IEEE 754 says. */
#include "kernels/elementwise.h"

PN_BINARY_KERNELS(div)

static const char *const cases[] = { "2,3,2,3,5 2,3,2,3,5:+", "2,3,2,3,5 1,3,1,1,1:+", "3,1 4:+", "4:+ 3,1:+", 0 };
const pn_op pn_op_div = {
  .name = "div",
  .help = "quotient, element by element",
  .inputs = "a b",
  .cases = cases,
  .shape = pn_binary_shape,
  .cpu = {forward, backward}
};
