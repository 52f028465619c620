/* norm_avx512.c: norm_body.h for AVX-512. */
#define NORM_BYTES 64
#define NORM_TABLE pn_norm_avx512
#include "kernels/norm_body.h"
