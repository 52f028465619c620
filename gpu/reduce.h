/* reduce.h: sums over axes of tensors of any floating type, in an order that the shapes alone decide: each thread adds up to 8 packs in
** real, and those sums in double; the threads of a block in a tree; the blocks in a second launch. */
#ifndef PENUMBRA_GPU_REDUCE_H
#define PENUMBRA_GPU_REDUCE_H
#include "gpu.h"
#include "kernels/reduce.h"
#ifdef __cplusplus
extern "C" {
#endif

/* to (+)= factor * sum of from over the axes where `to` has size 1 (or none: shapes are aligned at their last axis), as pn_sum_into
** of the CPU. With fresh, `to` is written; else added to. Any strides; `to` may be smaller by no axis at all. */
PN_CHECKED int pn_gpu_sum_into(pn_tensor *to, const pn_tensor *from, double factor, bool fresh);
/* The same of from * with, element by element; `with` is broadcast to `from`. */
PN_CHECKED int pn_gpu_sum_products_into(pn_tensor *to, const pn_tensor *from, const pn_tensor *with, double factor, bool fresh);

/* Backward of sum and mean: dx (+)= factor * dy, spread over the reduced axes. */
PN_CHECKED int pn_gpu_spread(pn_call *call, double factor);

/* As pn_pick_largest and pn_pick_backward of the CPU. */
PN_CHECKED int pn_gpu_pick_largest(pn_call *call, pn_tensor *value, pn_tensor *winner, int64_t first);
PN_CHECKED int pn_gpu_pick_backward(pn_call *call, const pn_tensor *winner);

#ifdef __cplusplus
}
#endif
#endif
