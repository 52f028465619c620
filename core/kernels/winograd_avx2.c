/* winograd_avx2.c: winograd_body.h for AVX2. */
#ifndef PN_F64_BUILD
#include <immintrin.h>
#define WINOGRAD_BYTES 32
#define WINOGRAD_TABLE pn_winograd_avx2
#define FIRST(n) _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#define MASKED_LOAD(p, n) _mm256_maskload_ps(p, FIRST(n))
#define MASKED_STORE(p, v, n) _mm256_maskstore_ps(p, FIRST(n), (__m256)(v))
#include "kernels/winograd_body.h"
#endif
