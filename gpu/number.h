/* number.h: the element types of tensors inside kernels. Everything is computed in `real`; what is stored may be narrower.
**
** pn_get and pn_put take the type at run time: one branch, the same for all threads. Kernels that move most of the bytes are
** templates over T instead, chosen by PN_BY_TYPE. */
#ifndef PENUMBRA_GPU_NUMBER_H
#define PENUMBRA_GPU_NUMBER_H
#include "launch.h"
#ifdef PN_EMULATED
#include "emulated/numbers.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
typedef __half pn_half;
typedef __nv_bfloat16 pn_brain;
#endif

PN_DEVICE real pn_from(float v) { return (real)v; }
PN_DEVICE real pn_from(double v) { return (real)v; }
PN_DEVICE real pn_from(pn_half v) { return (real)__half2float(v); }
PN_DEVICE real pn_from(pn_brain v) { return (real)__bfloat162float(v); }
PN_DEVICE real pn_from(uint8_t v) { return (real)v; }
PN_DEVICE void pn_to(float *p, real v) { *p = (float)v; }
PN_DEVICE void pn_to(double *p, real v) { *p = (double)v; }
PN_DEVICE void pn_to(pn_half *p, real v) { *p = __float2half_rn((float)v); }
PN_DEVICE void pn_to(pn_brain *p, real v) { *p = __float2bfloat16_rn((float)v); }

/* Element i as a real; integers too, for targets and masks. */
PN_DEVICE real pn_get(const void *p, int64_t i, int dtype) {
  switch (dtype) {
  case PN_F32: return (real)((const float *)p)[i];
  case PN_F64: return (real)((const double *)p)[i];
  case PN_F16: return pn_from(((const pn_half *)p)[i]);
  case PN_BF16: return pn_from(((const pn_brain *)p)[i]);
  case PN_I64: return (real)((const int64_t *)p)[i];
  case PN_I32: return (real)((const int32_t *)p)[i];
  default: return (real)((const uint8_t *)p)[i];
  }
}

/* Element i of a tensor of integers. */
PN_DEVICE int64_t pn_get_integer(const void *p, int64_t i, int dtype) {
  switch (dtype) {
  case PN_I64: return ((const int64_t *)p)[i];
  case PN_I32: return ((const int32_t *)p)[i];
  default: return ((const uint8_t *)p)[i];
  }
}

/* Floating types only. */
PN_DEVICE void pn_put(void *p, int64_t i, int dtype, real v) {
  switch (dtype) {
  case PN_F64: pn_to((double *)p + i, v); return;
  case PN_F16: pn_to((pn_half *)p + i, v); return;
  case PN_BF16: pn_to((pn_brain *)p + i, v); return;
  default: pn_to((float *)p + i, v); return;
  }
}

/* Runs STATEMENT with T the floating type of `dtype`; with any other type `otherwise` is run. */
#define PN_BY_TYPE(dtype, otherwise, ...)                                                                                          \
  switch (dtype) {                                                                                                                 \
  case PN_REAL_DTYPE: {                                                                                                            \
    typedef real T;                                                                                                                \
    __VA_ARGS__;                                                                                                                   \
    break;                                                                                                                         \
  }                                                                                                                                \
  case PN_F16: {                                                                                                                   \
    typedef pn_half T;                                                                                                             \
    __VA_ARGS__;                                                                                                                   \
    break;                                                                                                                         \
  }                                                                                                                                \
  case PN_BF16: {                                                                                                                  \
    typedef pn_brain T;                                                                                                            \
    __VA_ARGS__;                                                                                                                   \
    break;                                                                                                                         \
  }                                                                                                                                \
  default: otherwise;                                                                                                              \
  }
#endif
