/* winograd_avx2.c: winograd_body.h for AVX2. */
#ifndef PN_F64_BUILD
#define WINOGRAD_BYTES 32
#define WINOGRAD_TABLE pn_winograd_avx2
#include "kernels/winograd_body.h"
#endif
