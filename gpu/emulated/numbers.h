/* numbers.h: the 16-bit numbers of kernels on the CPU, under the names that CUDA's headers give their conversions. */
#ifndef PENUMBRA_EMULATED_NUMBERS_H
#define PENUMBRA_EMULATED_NUMBERS_H
#include "bf16.h"
#include "half.h"

typedef struct pn_half {
  uint16_t bits;
} pn_half;
typedef struct pn_brain {
  uint16_t bits;
} pn_brain;

static inline float __half2float(pn_half v) { return pn_f16_to_float(v.bits); }
static inline float __bfloat162float(pn_brain v) { return pn_bf16_to_float(v.bits); }
static inline pn_half __float2half_rn(float v) { return pn_half{ pn_f16_of(v) }; }
static inline pn_brain __float2bfloat16_rn(float v) { return pn_brain{ pn_bf16_of(v) }; }
#endif
