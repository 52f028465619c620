/* ne: y = 1 where a and b differ, else 0; broadcast (NumPy rules). NaN differs from everything. No gradient. Types: see gt.c. */
#include "kernels/elementwise.h"

PN_COMPARISON_KERNEL(ne)

static const char *const cases[] = { "2,3,2,3,5:01 3,1,1,1:01", "2,3,5:u8 2,3,5:u8", "3,1:i64 3,4:i64", "4:u8 3,1:01", 0 };
const pn_op pn_op_ne = {
  .name = "ne",
  .help = "is a other than b? 1 or 0, element by element",
  .inputs = "a b",
  .cases = cases,
  .shape = pn_binary_shape,
  .cpu = {.forward = forward},
  .integer_inputs = { true,              true }
};
