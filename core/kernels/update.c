/* update.c: update_body.h for every CPU, and the choice among its variants. */
#define UPDATE_TABLE pn_updates_plain
#include "kernels/update_body.h"
#include "cpu.h"

const pn_update_kernels *pn_updates(void) {
#if defined(__x86_64__)
  if (pn_cpu() >= PN_CPU_AVX512) return &pn_updates_avx512;
  if (pn_cpu() >= PN_CPU_AVX2) return &pn_updates_avx2;
#endif
  return &pn_updates_plain;
}
