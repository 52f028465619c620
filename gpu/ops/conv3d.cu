/* conv3d.cu: see core/ops/conv3d.c. Backward: dz, the gradient of the bare product, is scale (dy where y is positive); from it come the
** gradients of x and of the weights, as there.
**
** The stem (3 channels, 7x7x7, stride 2) goes to cuDNN as it is. In 16 bits its kernels take channels in eights, 2744 products a result;
** folding the stride into channels, as core/kernels/winograd_fold.c does, would make that 1536. To be measured on a card. */
#include "convolution.h"
#include "launch.h"

static int forward(pn_call *call) {
  pn_gpu_geometry g;
  bool relu = pn_arg_int(call, "relu") != 0;
  pn_tensor *y = call->y[0], *filter, *scale = call->x[3];
  pn_convolution_geometry(call, call->x[0], false, &g.g, g.high);
  if (pn_gpu_filter(&filter, call->x[1], scale, y->dtype)) return -1;
  int rc = pn_gpu_convolve(y, call->x[0], filter, call->x[2], relu, &g);
  if (rc || scale) pn_tensor_release(filter);
  else pn_gpu_filter_keep(call, filter);
  if (!rc && call->recording && relu) {
    pn_tensor_retain(y);
    pn_call_save(call, 0, y);
  }
  return rc;
}

static int backward(pn_call *call) {
  pn_gpu_geometry g;
  pn_tensor *dz, *dx, *filter, *scale = call->x[3];
  bool fresh;
  pn_convolution_geometry(call, call->x[0], false, &g.g, g.high);
  if (pn_gpu_end_gradient(call, &dz, call->dy[0], call->saved[0], scale)) return -1;
  int rc = pn_call_dx(call, 0, &dx, &fresh);
  if (!rc && dx && !(rc = pn_gpu_filter_kept(&filter, call, dz->dtype))) {
    rc = pn_gpu_convolve_data(dx, !fresh, dz, filter, NULL, &g);
    pn_tensor_release(filter);
  }
  rc = rc ? rc : pn_gpu_convolve_weight(call, call->x[0], dz, &g, dz->dtype);
  pn_tensor_release(dz);
  return rc;
}

PN_CUDA_KERNEL(conv3d, forward, backward)
