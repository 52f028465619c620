/* tanh: y = hyperbolic tangent of x. */
#include <tgmath.h>
#include "kernels/elementwise.h"

static inline real slope(real x, real dy) {
  real y = tanh(x);
  return dy * (1 - y * y);
}

PN_UNARY_KERNELS(tanh(x), slope(x, dy))

static const char *const cases[] = { "2,3,2,3,5", "7", 0 };
const pn_op pn_op_tanh = {
  .name = "tanh", .help = "hyperbolic tangent", .inputs = "x", .cases = cases, .shape = pn_unary_shape, .cpu = {forward, backward}
};
