/* winograd_avx512.c: winograd_body.h for AVX-512. */
#ifndef PN_F64_BUILD
#define WINOGRAD_BYTES 64
#define WINOGRAD_TABLE pn_winograd_avx512
#include "kernels/winograd_body.h"
#endif
