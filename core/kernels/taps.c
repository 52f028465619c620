/* taps.c: the choice among the variants of taps.h. */
#include "kernels/taps.h"
#include "cpu.h"

const pn_tap_kernels *pn_taps(void) {
#if defined(__x86_64__) && !defined(PN_F64_BUILD)
  if (pn_cpu() >= PN_CPU_AVX512) return &pn_taps_avx512;
  if (pn_cpu() >= PN_CPU_AVX2) return &pn_taps_avx2;
#endif
  return &pn_taps_plain;
}
