/* half.h: IEEE half precision by its bits: 1 sign, 5 exponent, 10 fraction; rounding to nearest, ties to even. */
#ifndef PENUMBRA_HALF_H
#define PENUMBRA_HALF_H
#include <stdint.h>
#include <string.h>

static inline float pn_f16_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023, bits;
  if (exponent == 31) bits = sign | 0x7f800000u | fraction << 13;
  else if (exponent) bits = sign | (exponent + 112) << 23 | fraction << 13;
  else { /* zero or subnormal */ float f = (float)fraction * 0x1p-24f;
    return sign ? -f : f;
  }
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static inline uint16_t pn_f16_of(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00);  /* NaN */
  if (bits >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* rounds to infinity */
  if (bits < 0x38800000u) {                                  /* subnormal: the float addition rounds to even */
    float magic, value;
    uint32_t m = 0x3f000000u;
    memcpy(&magic, &m, 4);
    memcpy(&value, &bits, 4);
    value += magic;
    memcpy(&bits, &value, 4);
    return (uint16_t)(sign | (bits - m));
  }
  bits += 0xfffu + (bits >> 13 & 1);
  return (uint16_t)(sign | ((bits - 0x38000000u) >> 13));
}
#endif
