/* reduce.h: sums over axes in a fixed order: blocks that depend on the shape alone, each added up in double, then the blocks
** one after the other. The number of threads changes nothing. */
#ifndef PENUMBRA_KERNELS_REDUCE_H
#define PENUMBRA_KERNELS_REDUCE_H
#include "op.h"
#include "shared.h"
#ifdef __cplusplus
extern "C" {
#endif

/* An axis that several tensors share: its size and their strides, in elements. Lists of axes go from the slowest to the fastest. */
typedef struct pn_axis {
  int64_t size, from, with, to;
} pn_axis;

/* Offsets of element `index` of n axes (0 <= index); the size of the result is 0. */
PN_SHARED pn_axis pn_axes_at(const pn_axis *a, int n, int64_t index) {
  pn_axis at = { 0, 0, 0, 0 };
  for (int d = n - 1; d >= 0; d--) {
    int64_t i = index;
    if (d > 0 && index <= UINT32_MAX && a[d].size <= UINT32_MAX) { /* divisions of 32 bits are several times faster */
      i = (uint32_t)index % (uint32_t)a[d].size;
      index = (uint32_t)index / (uint32_t)a[d].size;
    } else if (d > 0) {
      i = index % a[d].size;
      index /= a[d].size;
    }
    at.from += i * a[d].from;
    at.with += i * a[d].with;
    at.to += i * a[d].to;
  }
  return at;
}

/* How many of n axes are left where neighbours that every stride allows have become one. */
int pn_axes_merged(pn_axis *a, int n);

/* The axes of a sum: each element of `to` is one of the kept axes, and the sum over all of the reduced ones of `from` (times
** `with`, which may be NULL and is broadcast to `from`). Neighbours that every stride allows are one axis. */
typedef struct pn_sum_axes {
  int n_kept, n_reduced;
  pn_axis kept[PN_MAX_DIMS], reduced[PN_MAX_DIMS];
  int64_t kept_count, reduced_count;
} pn_sum_axes;
PN_API void pn_sum_axes_of(pn_sum_axes *out, const pn_tensor *to, const pn_tensor *from, const pn_tensor *with);

/* to (+)= factor * sum of from over the axes where `to` has size 1 (or none: shapes are aligned at their last axis).
** With fresh, `to` is written; else added to. Both of the real type, any strides. */
PN_CHECKED int pn_sum_into(pn_tensor *to, const pn_tensor *from, double factor, bool fresh);

/* The axes of a reduction: those of the INTS argument "axes", all of them when it is empty. */
PN_API PN_CHECKED int pn_reduce_axes(const pn_call *call, bool *reduced);
/* Shape rule of reductions (arguments axes and keep). */
PN_CHECKED int pn_reduce_shape(pn_call *call, pn_dtype dtype);
/* y (or dy) with its reduced axes back as axes of size 1; a new tensor on the same memory. */
PN_API PN_CHECKED int pn_reduce_keep(pn_tensor **out, const pn_call *call, pn_tensor *y);
/* Backward of sum and mean: dx (+)= factor * dy, spread over the reduced axes. */
PN_CHECKED int pn_reduce_spread(pn_call *call, double factor);

/* The largest of x over the axes: its value into `value`, its index in row order of the reduced axes into `winner` (i64),
** where `first` stands for the first; either may be NULL. Ties: the first. A NaN is larger than everything. */
PN_CHECKED int pn_pick_check(const pn_call *call); /* there must be something to pick from */
PN_SHARED bool pn_is_larger(real value, real largest) { return value > largest || (value != value && largest == largest); }
/* The axes of such a search, in row order: kept (from: of x, with: of value, to: of winner) and reduced (from). */
PN_API PN_CHECKED int pn_pick_axes(pn_sum_axes *out, const pn_call *call, const pn_tensor *x, const pn_tensor *value,
                                   const pn_tensor *winner);
PN_CHECKED int pn_pick_largest(pn_call *call, pn_tensor *value, pn_tensor *winner, int64_t first);
PN_CHECKED int pn_pick_backward(pn_call *call, const pn_tensor *winner); /* dy goes to the winners, counted from 0 */

#ifdef __cplusplus
}
#endif
#endif
