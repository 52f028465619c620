/* pixels.c: see pixels.h. */
#include "kernels/pixels.h"
#include "kernels/loop.h"

int pn_pixels_open(pn_pixels *out, pn_tensor **held, pn_tensor *t) {
  if (pn_channels_last(held, t)) return -1;
  if (pn_pixels_of(out, *held)) return 0;
  pn_tensor_release(*held);
  return pn_fail("pixels: a tensor of %d axes is not N,C,T,H,W", t->n_dims);
}

void pn_pixels_close(pn_tensor *held, pn_tensor *t, bool written) {
  if (written && held != t) pn_copy_same(t, held);
  pn_tensor_release(held);
}
