/* lanes.h: the lanes of an axis (what lies along it at one place of the others), and what gather and argsort do in one. */
#ifndef PENUMBRA_KERNELS_LANES_H
#define PENUMBRA_KERNELS_LANES_H
#include "kernels/loop.h"
#include "kernels/reduce.h"

/* Tensors walked together along all axes but one, t[0] the largest: an element of the loop is the first of a lane of each, step[k] leads
** from one element of it to the next. */
static inline void pn_loop_lanes(pn_loop *loop, int axis, int n, const pn_tensor *const *t, int64_t *step) {
  int64_t shape[PN_MAX_DIMS] = { 0 };
  for (int d = 0; d < t[0]->n_dims; d++) shape[d] = d == axis ? 1 : t[0]->shape[d];
  pn_loop_start(loop, t[0]->n_dims, shape);
  for (int k = 0; k < n; k++) {
    pn_tensor first = *t[k];
    first.shape[axis] = 1;
    pn_loop_add(loop, &first);
    step[k] = t[k]->stride[axis];
  }
  pn_loop_plan(loop);
}

/* The places that gather takes, with the axes of x: of one axis they are the same in every lane. A look at `index`, not to be released. */
static inline pn_tensor pn_gather_index(const pn_tensor *index, const pn_tensor *x, int axis) {
  pn_tensor seen = *index;
  if (index->n_dims == x->n_dims) return seen;
  seen.n_dims = x->n_dims;
  for (int d = 0; d < x->n_dims; d++) {
    seen.shape[d] = d == axis ? index->shape[0] : 1;
    seen.stride[d] = d == axis ? index->stride[0] : 0;
  }
  return seen;
}

/* Does a, the i-th of its lane, come before b, the k-th? Equal ones, and NaNs, which are larger than everything, stay in their order. */
PN_SHARED bool pn_comes_before(real a, int64_t i, real b, int64_t k, bool descending) {
  if (pn_is_larger(a, b)) return descending;
  if (pn_is_larger(b, a)) return !descending;
  return i < k;
}
#endif
