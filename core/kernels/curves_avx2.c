/* curves_avx2.c: curves_body.h for AVX2. */
#define CURVES_TABLE pn_curves_avx2
#include "kernels/curves_body.h"
