/* eq: y = 1 where a equals b, else 0; broadcast (NumPy rules). NaN equals nothing. No gradient. Types: see gt.c.
** In Lua it is pn.eq(a, b) or a:eq(b): a == b there cannot give a tensor, it asks whether both are the same one. */
#include "kernels/elementwise.h"

PN_COMPARISON_KERNEL(eq)

static const char *const cases[] = { "2,3,2,3,5:01 2,3,2,3,5:01", "2,3,5:u8 3,1:u8", "3,1:i64 7:i32", "2,3:u8 3:01", 0 };
const pn_op pn_op_eq = {
  .name = "eq",
  .help = "is a equal to b? 1 or 0, element by element (== in Lua asks whether both are one tensor)",
  .inputs = "a b",
  .cases = cases,
  .shape = pn_binary_shape,
  .cpu = {.forward = forward},
  .integer_inputs = { true,              true }
};
