/* update_avx2.c: update_body.h for AVX2. */
#define UPDATE_TABLE pn_updates_avx2
#include "kernels/update_body.h"
