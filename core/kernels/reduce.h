/* reduce.h: sums over axes in a fixed order: blocks that depend on the shape alone, each added up in double, then the blocks
** one after the other. The number of threads changes nothing. */
#ifndef PENUMBRA_KERNELS_REDUCE_H
#define PENUMBRA_KERNELS_REDUCE_H
#include "op.h"
#ifdef __cplusplus
extern "C" {
#endif

/* to (+)= factor * sum of from over the axes where `to` has size 1 (or none: shapes are aligned at their last axis).
** With fresh, `to` is written; else added to. Both of the real type, any strides. */
PN_CHECKED int pn_sum_into(pn_tensor *to, const pn_tensor *from, double factor, bool fresh);

/* The axes of a reduction: those of the INTS argument "axes", all of them when it is empty. */
PN_CHECKED int pn_reduce_axes(const pn_call *call, bool *reduced);
/* Shape rule of reductions (arguments axes and keep). */
PN_CHECKED int pn_reduce_shape(pn_call *call, pn_dtype dtype);
/* y (or dy) with its reduced axes back as axes of size 1; a new tensor on the same memory. */
PN_CHECKED int pn_reduce_keep(pn_tensor **out, const pn_call *call, pn_tensor *y);
/* Backward of sum and mean: dx (+)= factor * dy, spread over the reduced axes. */
PN_CHECKED int pn_reduce_spread(pn_call *call, double factor);

/* The largest of x over the axes: its value into `value`, its index in row order of the reduced axes into `winner` (i64);
** either may be NULL. Ties: the first. A NaN is larger than everything. */
PN_CHECKED int pn_pick_check(const pn_call *call); /* there must be something to pick from */
PN_CHECKED int pn_pick_largest(pn_call *call, pn_tensor *value, pn_tensor *winner);
PN_CHECKED int pn_pick_backward(pn_call *call, const pn_tensor *winner); /* dy goes to the winners */

#ifdef __cplusplus
}
#endif
#endif
