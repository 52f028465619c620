/* clamp: y = x held within min..max. NaN stays NaN. The gradient passes where min <= x <= max. */
#include "kernels/elementwise.h"

PN_UNARY_KERNELS(clamp)

static int shape(pn_call *call) {
  double low = pn_arg_real(call, "min"), high = pn_arg_real(call, "max");
  if (!(low <= high)) return pn_fail_shapes(call, "min %g must not exceed max %g", low, high);
  return pn_unary_shape(call);
}

static const pn_arg args[] = {
  {"min",    PN_REAL, "-3e38", .help = "smallest value that stays" },
  { "max", PN_REAL, "3e38", .help = "largest value that stays" },
  { 0      },
};
static const char *const cases[] = { "2,3,2,3,5:step min=-0.4 max=0.7", "7:step min=0.1", 0 };
const pn_op pn_op_clamp = {
  .name = "clamp",
  .help = "x held within min and max",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
