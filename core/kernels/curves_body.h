/* curves_body.h: the loops of curves.h. Define CURVES_TABLE before including it. */
#include <string.h>
#include <tgmath.h>
#include "kernels/curves.h"

enum { LANES = 16 };

#ifdef PN_F64_BUILD
static inline real exp_of(real x) { return exp(x); }     /* x <= 0 */
static inline real log1p_of(real e) { return log1p(e); } /* 0 <= e <= 1 */
#else
/* e^x for x <= 0: 2^n * e^r with n = round(x / log 2); the polynomial of Cephes' expf (Moshier), error 2 units in the last place.
** Below -87, where floats lose digits, 0. */
static inline real exp_of(real x) {
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
static inline real log1p_of(real e) {
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

static inline real sigmoid_of(real x) {
  real e = exp_of(-fabs(x)), low = e / (1 + e), high = 1 - low;
  return x < 0 ? low : high;
}

static inline real bce_of(real x, real t) {
  real e = exp_of(-fabs(x));
  return (x < 0 ? 0 : x) - x * t + log1p_of(e);
}

static void sigmoid(real *restrict y, const real *restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = sigmoid_of(x[i]);
}

static void bce(pn_bce_run *sums, const real *restrict x, const real *restrict t, const real *restrict keep, int64_t n) {
  double loss[LANES] = { 0 }, loss_of_ones[LANES] = { 0 }, kept[LANES] = { 0 }, ones[LANES] = { 0 };
  for (int64_t i = 0; i < n; i += LANES) {
    real l[LANES] = { 0 }, y[LANES] = { 0 }, k[LANES] = { 0 };
    int64_t live = n - i < LANES ? n - i : LANES;
    if (live == LANES) {
      for (int j = 0; j < LANES; j++) l[j] = bce_of(x[i + j], t[i + j]);
      for (int j = 0; j < LANES; j++) y[j] = t[i + j];
      for (int j = 0; j < LANES; j++) k[j] = 1;
      for (int j = 0; keep && j < LANES; j++) k[j] = keep[i + j];
    } else {
      for (int64_t j = 0; j < live; j++) l[j] = bce_of(x[i + j], t[i + j]), y[j] = t[i + j], k[j] = keep ? keep[i + j] : 1;
    }
    for (int j = 0; j < LANES; j++) {
      l[j] = k[j] != 0 ? l[j] : 0;
      y[j] = k[j] != 0 ? y[j] : 0;
    }
    for (int j = 0; j < LANES; j++) {
      loss[j] += (double)l[j];
      loss_of_ones[j] += (double)(l[j] * y[j]);
      kept[j] += (double)k[j];
      ones[j] += (double)y[j];
    }
  }
  for (int j = 0; j < LANES; j++) {
    sums->loss += loss[j];
    sums->loss_of_ones += loss_of_ones[j];
    sums->kept += kept[j];
    sums->ones += ones[j];
  }
}

const pn_curve_kernels CURVES_TABLE = { sigmoid, bce };
