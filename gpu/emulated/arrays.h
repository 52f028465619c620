/* arrays.h: numbers of any floating type in memory, as doubles, for the emulated libraries. */
#ifndef PENUMBRA_EMULATED_ARRAYS_H
#define PENUMBRA_EMULATED_ARRAYS_H
#include <math.h>
#include <string.h>
#include <stddef.h>
#include <stdint.h>
#include "bf16.h"
#include "half.h"

namespace fake { /* its types are not those of a kernel by the same name */

enum class number { f32, f64, f16, bf16 };

static inline size_t size_of(number type) { return type == number::f64 ? 8 : type == number::f32 ? 4 : 2; }

static inline double get(const void *p, int64_t i, number type) {
  switch (type) {
  case number::f32: return (double)((const float *)p)[i];
  case number::f64: return ((const double *)p)[i];
  case number::f16: return (double)pn_f16_to_float(((const uint16_t *)p)[i]);
  default: return (double)pn_bf16_to_float(((const uint16_t *)p)[i]);
  }
}

/* To the nearest number of the type; by way of float for 16 bits, as the libraries that add in float do. */
static inline void put(void *p, int64_t i, number type, double v) {
  switch (type) {
  case number::f32: ((float *)p)[i] = (float)v; return;
  case number::f64: ((double *)p)[i] = v; return;
  case number::f16: ((uint16_t *)p)[i] = pn_f16_of((float)v); return;
  default: ((uint16_t *)p)[i] = pn_bf16_of((float)v); return;
  }
}

/* What tensor cores see of a float: 10 bits of fraction. */
static inline double to_tf32(double v) {
  float f = (float)v;
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  if ((bits & 0x7f800000u) == 0x7f800000u) return v;
  bits = (bits + 0x1000u) & ~0x1fffu;
  memcpy(&f, &bits, sizeof f);
  return (double)f;
}

} /* namespace fake */
#endif
