/* sort.h: the order of the elements of each lane of an axis. */
#ifndef PENUMBRA_GPU_SORT_H
#define PENUMBRA_GPU_SORT_H
#include "gpu.h"
#ifdef __cplusplus
extern "C" {
#endif

/* places: i64, along the axis the places of the first elements of `keys` in their order, counted from 1: as many as it has room for,
** keys->shape[axis] at most; along the others of the shape of keys. keys: integers, compared as such, or any numbers. Equal ones stay
** in their order; a NaN is larger than everything. */
PN_CHECKED int pn_gpu_sort(pn_gpu *gpu, const pn_tensor *places, const pn_tensor *keys, int axis, bool descending);

#ifdef __cplusplus
}
#endif
#endif
