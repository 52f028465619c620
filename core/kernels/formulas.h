/* formulas.h: what the element-by-element operations compute, once for the loops of the CPU and the kernels of gpu/.
**
** One input: pn_NAME_value of x, pn_NAME_slope of x and dy (the gradient of x); a and b are the operation's own arguments, in their
** order. Two inputs: pn_NAME_value of a and b, pn_NAME_slope_a and _slope_b with dy. Derivatives are of what core/ops/NAME.c says.
** Comparisons: pn_NAME_value of a and b, and pn_NAME_of_integers. */
#ifndef PENUMBRA_KERNELS_FORMULAS_H
#define PENUMBRA_KERNELS_FORMULAS_H
#ifdef __cplusplus
#include <math.h>
#else
#include <tgmath.h>
#endif
#include "internal.h"
#include "shared.h"

#define PN_FORMULA(name, VALUE, SLOPE)                                                                                             \
  PN_SHARED real pn_##name##_value(real x, real a, real b) {                                                                       \
    (void)a, (void)b;                                                                                                              \
    return VALUE;                                                                                                                  \
  }                                                                                                                                \
  PN_SHARED real pn_##name##_slope(real x, real dy, real a, real b) {                                                              \
    (void)x, (void)a, (void)b;                                                                                                     \
    return SLOPE;                                                                                                                  \
  }

#define PN_FORMULA_OF_TWO(name, VALUE, SLOPE_A, SLOPE_B)                                                                           \
  PN_SHARED real pn_##name##_value(real a, real b) { return VALUE; }                                                               \
  PN_SHARED real pn_##name##_slope_a(real a, real b, real dy) {                                                                    \
    (void)a, (void)b;                                                                                                              \
    return SLOPE_A;                                                                                                                \
  }                                                                                                                                \
  PN_SHARED real pn_##name##_slope_b(real a, real b, real dy) {                                                                    \
    (void)a, (void)b;                                                                                                              \
    return SLOPE_B;                                                                                                                \
  }

/* ---- one input --------------------------------------------------------------------------------------------------------------- */

PN_FORMULA(neg, -x, -dy)
PN_FORMULA(square, (x * x), (2 * dy * x))
PN_FORMULA(scale, (a * x + b), (dy * a))
PN_FORMULA(abs, fabs(x), (x > 0) ? dy : (x < 0) ? -dy : 0)
PN_FORMULA(relu, (x < 0) ? 0 : x, (x > 0) ? dy : 0)
PN_FORMULA(clamp, (x < a) ? a : (x > b) ? b : x, (x >= a && x <= b) ? dy : 0)
PN_FORMULA(exp, exp(x), (dy * exp(x)))
PN_FORMULA(log, log(x), (dy / x))
PN_FORMULA(sqrt, sqrt(x), (dy / (2 * sqrt(x))))
PN_FORMULA(pow, pow(x, a), ((a == 0) ? 0 : dy * a * pow(x, a - 1)))
PN_FORMULA(softplus, ((x < 0) ? 0 : x) + log1p(exp(-fabs(x))), dy / (1 + exp(-x)))

/* The sigmoid of x from e = e^-|x|, so that nothing overflows, and its slope from y. */
PN_SHARED real pn_sigmoid_from(real x, real e) {
  real low = e / (1 + e), high = 1 - low;
  return x < 0 ? low : high;
}
PN_SHARED real pn_sigmoid_slope_from(real y, real dy) { return y * (dy * (1 - y)); }

PN_SHARED real pn_tanh_slope_from(real y, real dy) { return dy * (1 - y * y); }
PN_FORMULA(tanh, tanh(x), pn_tanh_slope_from(tanh(x), dy))

/* The share of a normal distribution below x, by erfc, which loses no digits where it is small; and its density at x. */
PN_SHARED real pn_normal_below(real x) { return (real)0.5 * erfc(x * (real)-0.70710678118654752440); }
PN_SHARED real pn_normal_density(real x) { return (real)0.39894228040143267794 * exp((real)-0.5 * x * x); }
PN_FORMULA(gelu, (x * pn_normal_below(x)), (dy * (pn_normal_below(x) + x * pn_normal_density(x))))

/* Softmax and its logarithm of x, `shifted` by the largest, with the sum of all e^shifted; and the gradient of x from p, the
** softmax, and `sum`: of all dy * p, of the logarithm of all dy. */
PN_SHARED real pn_softmax_value(real shifted, real inverse_sum) { return exp(shifted) * inverse_sum; }
PN_SHARED real pn_softmax_slope(real p, real dy, real sum) { return p * (dy - sum); }
PN_SHARED real pn_log_softmax_value(real shifted, real log_sum) { return shifted - log_sum; }
PN_SHARED real pn_log_softmax_slope(real p, real dy, real sum) { return dy - p * sum; }

/* ---- two inputs -------------------------------------------------------------------------------------------------------------- */

PN_FORMULA_OF_TWO(add, (a + b), dy, dy)
PN_FORMULA_OF_TWO(sub, (a - b), dy, -dy)
PN_FORMULA_OF_TWO(mul, (a * b), (dy * b), (dy * a))
PN_FORMULA_OF_TWO(div, (a / b), (dy / b), (-dy * (a / b / b)))
PN_FORMULA_OF_TWO(maximum, (a >= b || a != a) ? a : b, (a >= b || a != a) ? dy : 0, (a >= b || a != a) ? 0 : dy)
PN_FORMULA_OF_TWO(minimum, (a <= b || a != a) ? a : b, (a <= b || a != a) ? dy : 0, (a <= b || a != a) ? 0 : dy)

/* ---- comparisons: 1 or 0 ------------------------------------------------------------------------------------------------------- */

#define PN_COMPARISON(name, OPERATOR)                                                                                              \
  PN_SHARED real pn_##name##_value(real a, real b) { return a OPERATOR b; }                                                        \
  PN_SHARED real pn_##name##_of_integers(int64_t a, int64_t b) { return a OPERATOR b; }

PN_COMPARISON(gt, >)
PN_COMPARISON(ge, >=)
PN_COMPARISON(lt, <)
PN_COMPARISON(le, <=)
PN_COMPARISON(eq, ==)
PN_COMPARISON(ne, !=)

/* ---- a choice -------------------------------------------------------------------------------------------------------------------- */

PN_SHARED real pn_where_value(real c, real a, real b) { return c != 0 ? a : b; }
PN_SHARED real pn_where_slope_a(real c, real dy) { return c != 0 ? dy : 0; }
PN_SHARED real pn_where_slope_b(real c, real dy) { return c != 0 ? 0 : dy; }
#endif
