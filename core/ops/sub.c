/* sub: y = a - b, each broadcast to the other (NumPy rules).
** The gradient of an input of full size is dy itself (b: -dy): nothing is computed for it where it can be handed on. */
#include "kernels/elementwise.h"

PN_BINARY_VALUE(sub)

static int backward(pn_call *call) { return pn_binary_pass_on(call, -1); }

static const char *const cases[] = { "2,3,2,3,5 2,3,2,3,5", "2,3,2,3,5 1,3,1,1,1", "3,1 4", "2,3,4 1", "4 3,1", 0 };
const pn_op pn_op_sub = {
  .name = "sub",
  .help = "difference, element by element",
  .inputs = "a b",
  .cases = cases,
  .shape = pn_binary_shape,
  .cpu = {forward, backward}
};
