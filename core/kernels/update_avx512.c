/* update_avx512.c: update_body.h for AVX-512. */
#define UPDATE_TABLE pn_updates_avx512
#include "kernels/update_body.h"
