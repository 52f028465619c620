/* cpu.h: the CPU variants, best last. A kernel table has an entry for each; a missing entry means the one before. */
#ifndef PENUMBRA_CPU_H
#define PENUMBRA_CPU_H
#include "internal.h"
enum { PN_CPU_PLAIN, PN_CPU_AVX2, PN_CPU_AVX512, PN_CPU_AVX512_BF16, PN_CPU_AMX, PN_N_CPU_VARIANTS };
int pn_cpu(void);           /* the variant in force */
int pn_best_cpu(void);      /* and the best that this CPU can run */
bool pn_in_bf16(void);      /* convolutions round their inputs to bf16 */
bool pn_emulated_amx(void); /* for specs: the AMX kernels over emulated tiles */
#endif
