/* philox.h: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and the distributions
** made of it, for the CPU and for kernels. Uniform numbers and coins are the same bits everywhere; a normal deviate goes through log,
** sin and cos in double, which CUDA and the C library round apart by a unit or two in the last place: seldom one of f32. */
#ifndef PENUMBRA_PHILOX_H
#define PENUMBRA_PHILOX_H
#include <math.h>
#include "penumbra.h"
#include "shared.h"

/* The four words at counter (offset, stream) under the key seed. */
PN_SHARED void pn_philox_words(uint64_t seed, uint64_t stream, uint64_t offset, uint32_t *out) {
  uint32_t c0 = (uint32_t)offset, c1 = (uint32_t)(offset >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)b;
    c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* Four numbers of a distribution (pn_random_fill says what a and b are) from four words. */
PN_SHARED void pn_draw_four(pn_distribution kind, double a, double b, const uint32_t *word, double *v) {
  const double unit = 1.0 / 4294967296;
  for (int k = 0; k < 4; k++) {
    if (kind == PN_UNIFORM) v[k] = pn_add_product(a, b - a, (double)word[k] * unit);
    else if (kind == PN_BERNOULLI) v[k] = (double)word[k] * unit < a;
    else if (k % 2 == 0) { /* Box-Muller, a pair at a time */
      double radius = sqrt(-2 * log((double)word[k] * unit + unit / 2)), angle = 6.283185307179586 * ((double)word[k + 1] * unit);
      v[k] = a + b * radius * cos(angle);
      v[k + 1] = a + b * radius * sin(angle);
    }
  }
}

/* One of them as a float: rounding must not reach the open end. */
PN_SHARED float pn_draw_to_float(pn_distribution kind, double a, double b, double v) {
  float f = (float)v;
  return kind == PN_UNIFORM && f >= (float)b && b > a ? nextafterf((float)b, (float)a) : f;
}

/* A coin that falls on 0 with probability p: a word at or above this bound is 1. */
PN_SHARED uint64_t pn_coin_bound(double p) { return (uint64_t)ceil(p * 4294967296.0); }
#endif
