/* conv_transpose3d.cu: see core/ops/conv_transpose3d.c: the adjoint of conv3d, so the result is the large side of the geometry.
**
** cuDNN is slow where the result has a channel or a few (FCN-I3D's upsampling: 1 channel at the size of the clip), for its tensor cores
** take 8 or 16 at a time; core/kernels/cells.c shows the way for these. A kernel of their own would stand in `result`. */
#include "convolution.h"
#include "launch.h"

/* The geometry whose adjoint this is. output_pad adds rows at the end that the last window does not reach; where that is more than
** a stride leaves room for, they come off the padding. */
static void geometry(const pn_call *call, pn_gpu_geometry *g) {
  const pn_value *extra = pn_call_arg(call, "output_pad");
  pn_convolution_geometry(call, call->x[0], true, &g->g, g->high);
  for (int d = 0; d < 3; d++) g->high[d] -= pn_max64(0, extra->i[d] - (g->g.stride[d] - 1));
}

static int result(pn_call *call, const pn_gpu_geometry *g) {
  pn_tensor *y = call->y[0];
  return pn_gpu_convolve_data(y, false, call->x[0], call->x[1], call->x[2], g, y->dtype);
}

static int forward(pn_call *call) {
  pn_gpu_geometry g;
  geometry(call, &g);
  return result(call, &g);
}

static int backward(pn_call *call) {
  pn_gpu_geometry g;
  pn_tensor *dx, *dy, *made = NULL, *to;
  bool fresh;
  geometry(call, &g);
  if (pn_gpu_end_gradient(call, &dy, call->dy[0], NULL, NULL)) return -1; /* of the bias */
  int rc = pn_call_dx(call, 0, &dx, &fresh);
  if (!rc && dx) { /* a convolution writes; a gradient that has begun is added to */
    to = dx;
    if (!fresh && !(rc = pn_tensor_new(&made, dx->dtype, 5, dx->shape, PN_CHANNELS_LAST, pn_device_of(dx)))) to = made;
    rc = rc ? rc : pn_gpu_convolve(to, dy, call->x[1], NULL, NULL, false, &g, dy->dtype);
    if (!rc && made) rc = pn_add_into(dx, made);
    pn_tensor_release(made);
  }
  rc = rc ? rc : pn_gpu_convolve_weight(call, dy, call->x[0], &g, dy->dtype);
  pn_tensor_release(dy);
  return rc;
}

PN_CUDA_KERNEL(conv_transpose3d, forward, backward)
