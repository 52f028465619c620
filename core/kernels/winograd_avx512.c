/* winograd_avx512.c: winograd_body.h for AVX-512. */
#ifndef PN_F64_BUILD
#include <immintrin.h>
#define WINOGRAD_BYTES 64
#define WINOGRAD_TABLE pn_winograd_avx512
#define FIRST(n) ((__mmask16)((n) > 0 ? (1u << (n)) - 1 : 0))
#define MASKED_LOAD(p, n) _mm512_maskz_loadu_ps(FIRST(n), p)
#define MASKED_STORE(p, v, n) _mm512_mask_storeu_ps(p, FIRST(n), (__m512)(v))
#include "kernels/winograd_body.h"
#endif
