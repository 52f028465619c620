/* cublas.h: matrix products on a device, by cuBLASLt. */
#ifndef PENUMBRA_GPU_CUBLAS_H
#define PENUMBRA_GPU_CUBLAS_H
#include "gpu.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Strides in elements, of rows and of columns; one of them is 1. So a transpose is the same matrix with its axes exchanged. */
typedef struct pn_matrix {
  void *data;
  pn_dtype dtype;
  int64_t size[2], stride[2];
} pn_matrix;

/* A tensor of two axes as it lies; false when it must be copied first: neither stride is 1, or elements share a place. */
bool pn_matrix_of(pn_matrix *out, const pn_tensor *t);
static inline pn_matrix pn_matrix_turned(pn_matrix m) {
  pn_matrix t = m;
  t.size[0] = m.size[1], t.size[1] = m.size[0];
  t.stride[0] = m.stride[1], t.stride[1] = m.stride[0];
  return t;
}

/* y = a b, or y += a b. No size is 0. a and b have one type, y has it too, or is real where they are of 16 bits. Sums are in
** real; in precision tf32 numbers of f32 are rounded to it first. The same bits for the same shapes. */
PN_CHECKED int pn_cublas_product(pn_gpu *gpu, pn_matrix y, pn_matrix a, pn_matrix b, bool add);

#ifdef __cplusplus
}
#endif
#endif
