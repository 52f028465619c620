/* cublas.h: matrix products on a device, by cuBLASLt. */
#ifndef PENUMBRA_GPU_CUBLAS_H
#define PENUMBRA_GPU_CUBLAS_H
#include "gpu.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Strides in elements, of rows and of columns; one of them is 1. So a transpose is the same matrix with its axes exchanged. In a batch
** the next matrix lies `step` elements on; 0: one stands for all. */
typedef struct pn_matrix {
  void *data;
  pn_dtype dtype;
  int64_t size[2], stride[2], step;
} pn_matrix;

/* The last two axes of a tensor as they lie; false when it must be copied first: neither stride is 1, elements share a place, or its
** matrices, one for each place of the axes before, do not lie behind each other at one step. */
bool pn_matrix_of(pn_matrix *out, const pn_tensor *t);
static inline pn_matrix pn_matrix_turned(pn_matrix m) {
  pn_matrix t = m;
  t.size[0] = m.size[1], t.size[1] = m.size[0];
  t.stride[0] = m.stride[1], t.stride[1] = m.stride[0];
  return t;
}

/* y = a b, or y += a b, for each of a batch; its y do not touch each other. No size is 0. a and b have one type, y has it too, or is
** real where they are of 16 bits. Sums are in real; in precision tf32 numbers of f32 are rounded to it first. The same bits for the same
** shapes. */
PN_CHECKED int pn_cublas_products(pn_gpu *gpu, pn_matrix y, pn_matrix a, pn_matrix b, int64_t batch, bool add);

#ifdef __cplusplus
}
#endif
#endif
