/* bf16.h: the upper half of a float: 8 bits of exponent, 8 of precision. Rounded to nearest, ties to even; NaN stays NaN. */
#ifndef PENUMBRA_BF16_H
#define PENUMBRA_BF16_H
#include <stdint.h>
#include <string.h>

typedef uint16_t pn_bf16;

static inline float pn_bf16_to_float(pn_bf16 b) {
  uint32_t bits = (uint32_t)b << 16;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

static inline pn_bf16 pn_bf16_of(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  if ((bits & 0x7fffffff) > 0x7f800000u) return (pn_bf16)(bits >> 16 | 0x40);
  return (pn_bf16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

#endif
