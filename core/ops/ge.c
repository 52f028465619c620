/* ge: y = 1 where a >= b, else 0; broadcast (NumPy rules). As in C: with NaN it is 0. No gradient. Types: see gt.c. */
#include "kernels/elementwise.h"

PN_COMPARISON_KERNEL(ge)

static const char *const cases[] = { "2,3,2,3,5:01 3,1,1,1:01", "2,3,5:u8 2,3,5:u8", "3,1:i64 3,4:u8", "4:u8 3,1", 0 };
const pn_op pn_op_ge = {
  .name = "ge",
  .help = "is a at least b? 1 or 0, element by element",
  .inputs = "a b",
  .cases = cases,
  .shape = pn_binary_shape,
  .cpu = {.forward = forward},
  .integer_inputs = { true,              true }
};
