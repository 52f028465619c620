/* convolution.c: between tensors of any strides and the pixels that convolve.c works on. */
#include "convolution.h"

void pn_convolution_geometry(const pn_call *call, const pn_tensor *spatial, bool transposed, pn_geometry *g, int64_t *high) {
  const pn_value *stride = pn_call_arg(call, "stride"), *pad = pn_call_arg(call, "pad"), *dilation = pn_call_arg(call, "dilation");
  g->groups = pn_arg_int(call, "groups");
  for (int d = 0; d < 3; d++) g->kernel[d] = call->x[1]->shape[2 + d], g->stride[d] = stride->i[d], g->dilation[d] = dilation->i[d];
  if (!transposed) {
    pn_resolve_pad(pad, spatial->shape + 2, g->kernel, g->stride, g->dilation, g->low, high);
    return;
  }
  for (int d = 0; d < 3; d++) { /* same: the result is stride times as large */
    int64_t total = pn_max64((g->kernel[d] - 1) * g->dilation[d] + 1 - g->stride[d], 0);
    g->low[d] = pad->same ? total / 2 : pad->i[2 * d];
    high[d] = pad->same ? total - total / 2 : pad->i[2 * d + 1];
  }
}

int pn_write_pixels(pn_tensor *t, bool add, pn_pixels_fn *fn, void *context) {
  pn_pixels p;
  if (pn_pixels_of(&p, t)) return fn(p, context);
  pn_tensor *made;
  if (pn_tensor_new(&made, t->dtype, t->n_dims, t->shape, PN_CHANNELS_LAST, pn_device_of(t))) return -1;
  int rc = add ? pn_tensor_fill(made, 0) : 0;
  (void)pn_pixels_of(&p, made);
  rc = rc ? rc : fn(p, context);
  rc = rc ? rc : add ? pn_add_into(t, made) : pn_tensor_copy(t, made);
  pn_tensor_release(made);
  return rc;
}

int pn_filter_open(pn_tensor **dense, pn_tensor *dw) {
  if (pn_tensor_is_dense(dw, PN_FILTER)) return pn_tensor_retain(*dense = dw), 0;
  if (pn_tensor_new(dense, dw->dtype, 5, dw->shape, PN_FILTER, pn_device_of(dw))) return -1;
  if (!pn_tensor_fill(*dense, 0)) return 0;
  pn_tensor_release(*dense);
  return -1;
}

int pn_filter_close(pn_tensor *dense, pn_tensor *dw, int rc) {
  if (!rc && dense != dw) rc = pn_add_into(dw, dense);
  pn_tensor_release(dense);
  return rc;
}

int pn_convolution_weight_gradient(pn_call *call, pn_tensor *big, pn_tensor *small, const pn_geometry *g) {
  pn_tensor *dw, *x = NULL, *y = NULL, *dense;
  if (pn_call_dx(call, 1, &dw, NULL)) return -1;
  if (!dw) return 0;
  int rc = pn_channels_last(&x, big);
  rc = rc ? rc : pn_channels_last(&y, small);
  if (!rc && !(rc = pn_filter_open(&dense, dw))) {
    pn_pixels px, py;
    (void)pn_pixels_of(&px, x);
    (void)pn_pixels_of(&py, y);
    rc = pn_filter_close(dense, dw, pn_convolve_weight(pn_real_of(dense), px, py, g));
  }
  pn_tensor_release(x);
  pn_tensor_release(y);
  return rc;
}

int pn_convolution_bias_gradient(pn_call *call, pn_tensor *dy) {
  pn_tensor *db, *rows;
  if (pn_call_dx(call, 2, &db, NULL)) return -1;
  if (!db) return 0;
  if (pn_channels_last(&rows, dy)) return -1;
  pn_pixels p;
  (void)pn_pixels_of(&p, rows);
  int rc = pn_convolve_bias(pn_real_of(db), p);
  pn_tensor_release(rows);
  return rc;
}
