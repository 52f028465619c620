/* views.h: when strides allow another shape. */
#ifndef PENUMBRA_KERNELS_VIEWS_H
#define PENUMBRA_KERNELS_VIEWS_H
#include "op.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Strides under which `shape` (of the same count) walks t in the same row order; false when there are none. */
bool pn_reshape_strides(const pn_tensor *t, int n_dims, const int64_t *shape, int64_t *stride);

#ifdef __cplusplus
}
#endif
#endif
