/* norm.c: norm_body.h for every CPU, and the choice among its variants. */
#define NORM_BYTES 16
#define NORM_TABLE pn_norm_plain
#include "kernels/norm_body.h"
#include "cpu.h"

const pn_norm_kernels *pn_norm(void) {
#if defined(__x86_64__)
  if (pn_cpu() >= PN_CPU_AVX512) return &pn_norm_avx512;
  if (pn_cpu() >= PN_CPU_AVX2) return &pn_norm_avx2;
#endif
  return &pn_norm_plain;
}
