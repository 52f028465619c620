/* places.cpp: where kernels find the elements of tensors that are too large for a spec to make. */
#include "emulated/emulated.h"
#include "kernels/reduce.h"
#include "loop.h"

long long pn_emulated_loop_at(int n_dims, const long long *size, const long long *stride, long long i) {
  pn_loop loop = {};
  int64_t at[PN_LOOP_OPERANDS];
  loop.n_dims = n_dims;
  loop.count = 1;
  for (int d = 0; d < n_dims; d++) {
    loop.size[d] = size[d];
    loop.count *= size[d];
    loop.stride[PN_LOOP_OPERANDS - 1][d] = stride[d];
  }
  pn_loop_at(&loop, i, at);
  return at[PN_LOOP_OPERANDS - 1];
}

long long pn_emulated_axes_at(int n, const long long *size, const long long *stride, long long i) {
  pn_axis axes[PN_MAX_DIMS] = {};
  for (int d = 0; d < n; d++) axes[d].size = size[d], axes[d].from = stride[d];
  return pn_axes_at(axes, n, i).from;
}
