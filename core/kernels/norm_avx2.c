/* norm_avx2.c: norm_body.h for AVX2. */
#define NORM_BYTES 32
#define NORM_TABLE pn_norm_avx2
#include "kernels/norm_body.h"
