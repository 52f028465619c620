/* curves_avx512.c: curves_body.h for AVX-512. */
#define CURVES_TABLE pn_curves_avx512
#include "kernels/curves_body.h"
