/* curve.h: exponentials of one number and what the losses and the sigmoid make of them, for the loops of curves_body.h and for kernels.
** In float they are polynomials, good to 2e-7 of the result, that compilers turn into vector code; in the f64 build the C library's. */
#ifndef PENUMBRA_KERNELS_CURVE_H
#define PENUMBRA_KERNELS_CURVE_H
#include "kernels/formulas.h"

#ifdef PN_F64_BUILD
PN_SHARED real pn_exp_of(real x) { return exp(x); }     /* x <= 0 */
PN_SHARED real pn_log1p_of(real e) { return log1p(e); } /* 0 <= e <= 1 */
#else
/* e^x for x <= 0: 2^n * e^r with n = round(x / log 2); the polynomial of Cephes' expf (Moshier), error 2 units in the last place.
** Below -87, where floats lose digits, 0. */
PN_SHARED real pn_exp_of(real x) {
  union {
    float f;
    uint32_t u;
  } t, two_to_n;
  float held = x < -87.0f ? -87.0f : x;
  t.f = held * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds, and leaves n in the low bits */
  float n = t.f - 12582912.0f;
  float r = (held - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1;
  two_to_n.u = (t.u << 23) + 0x3f800000u;
  float y = p * two_to_n.f;
  return x < -87.0f ? 0 : y;
}

/* log(1 + e) for 0 <= e <= 1: 2 atanh(s), s = e / (2 + e) <= 1/3, by its series. */
PN_SHARED real pn_log1p_of(real e) {
  float s = e / (2 + e), q = s * s;
  float p = 1.0f / 13;
  p = p * q + 1.0f / 11;
  p = p * q + 1.0f / 9;
  p = p * q + 1.0f / 7;
  p = p * q + 1.0f / 5;
  p = p * q + 1.0f / 3;
  return 2 * s + 2 * s * (p * q);
}
#endif

PN_SHARED real pn_sigmoid_of(real x) { return pn_sigmoid_from(x, pn_exp_of(-fabs(x))); }
PN_FORMULA(sigmoid, pn_sigmoid_of(x), pn_sigmoid_slope_from(pn_sigmoid_of(x), dy))

PN_SHARED real pn_bce_of(real x, real t) {
  real e = pn_exp_of(-fabs(x));
  return (x < 0 ? 0 : x) - x * t + pn_log1p_of(e);
}

/* pn_bce_of and its slope along x, weighted by the side that t is on. */
PN_SHARED real pn_bce_weighted_of(real x, real t, const real weight[2]) {
  return (t >= (real)0.5 ? weight[1] : weight[0]) * pn_bce_of(x, t);
}
PN_SHARED real pn_bce_slope_of(real x, real t, const real weight[2]) {
  return (t >= (real)0.5 ? weight[1] : weight[0]) * (pn_sigmoid_of(x) - t);
}
#endif
