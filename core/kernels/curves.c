/* curves.c: curves_body.h for every CPU, and the choice among its variants. */
#define CURVES_TABLE pn_curves_plain
#include "kernels/curves_body.h"
#include "cpu.h"

const pn_curve_kernels *pn_curves(void) {
#if defined(__x86_64__)
  if (pn_cpu() >= PN_CPU_AVX512) return &pn_curves_avx512;
  if (pn_cpu() >= PN_CPU_AVX2) return &pn_curves_avx2;
#endif
  return &pn_curves_plain;
}
