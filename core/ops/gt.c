/* gt: y = 1 where a > b, else 0; broadcast (NumPy rules). As in C: with NaN it is 0. No gradient.
**
** What holds of all comparisons: a and b are real (f16 and bf16 on a CUDA device), u8, i32 or i64. Two integer tensors are compared as
** integers, exactly; an integer with a real one as reals. The result is of the type that a + b would have, and real where integers take
** part: so sums, products and where take it as it is. */
#include "kernels/elementwise.h"

PN_COMPARISON_KERNEL(gt)

static const char *const cases[] = { "2,3,2,3,5 2,3,2,3,5", "2,3,5:u8 3,1:u8", "3,1:i64 7:i32", "2,3:u8 3", 0 };
const pn_op pn_op_gt = {
  .name = "gt",
  .help = "is a larger than b? 1 or 0, element by element",
  .inputs = "a b",
  .cases = cases,
  .shape = pn_binary_shape,
  .cpu = {.forward = forward},
  .integer_inputs = { true,              true }
};
