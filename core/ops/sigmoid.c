/* sigmoid: y = 1 / (1 + e^-x). For very negative x, e^-x is infinite and y the right limit, 0. */
#include <tgmath.h>
#include "kernels/elementwise.h"

static inline real sigmoid(real x) { return 1 / (1 + exp(-x)); }
static inline real slope(real x, real dy) {
  real y = sigmoid(x);
  return dy * y * (1 - y);
}

PN_UNARY_KERNELS(sigmoid(x), slope(x, dy))

static const char *const cases[] = { "2,3,2,3,5", "7", 0 };
const pn_op pn_op_sigmoid = {
  .name = "sigmoid",
  .help = "logistic function 1 / (1 + e^-x)",
  .inputs = "x",
  .cases = cases,
  .shape = pn_unary_shape,
  .cpu = {forward, backward}
};
