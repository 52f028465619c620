/* views.c: see views.h. */
#include "kernels/views.h"

bool pn_reshape_strides(const pn_tensor *t, int n_dims, const int64_t *shape, int64_t *stride) {
  int64_t size[PN_MAX_DIMS], step[PN_MAX_DIMS];
  int n = 0;
  if (!pn_tensor_count(t)) { /* no element, so any strides do */
    pn_strides_of(n_dims, shape, PN_ROWS, stride);
    return true;
  }
  for (int d = 0; d < t->n_dims; d++) { /* axes of size 1 say nothing; neighbours that walk on are one */
    if (t->shape[d] == 1) continue;
    if (n && step[n - 1] == t->stride[d] * t->shape[d]) {
      size[n - 1] *= t->shape[d];
      step[n - 1] = t->stride[d];
    } else {
      size[n] = t->shape[d];
      step[n++] = t->stride[d];
    }
  }
  int at = n - 1;
  int64_t inside = 1; /* how much of axis `at` is taken */
  for (int d = n_dims - 1; d >= 0; d--) {
    if (shape[d] == 1) {
      stride[d] = at >= 0 ? inside * step[at] : 1;
      continue;
    }
    if (at >= 0 && inside == size[at]) {
      at--;
      inside = 1;
    }
    if (at < 0 || size[at] % (inside * shape[d])) return false;
    stride[d] = inside * step[at];
    inside *= shape[d];
  }
  return true;
}
