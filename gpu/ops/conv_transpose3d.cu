/* conv_transpose3d.cu: see core/ops/conv_transpose3d.c: the adjoint of conv3d, so the result is the large side of the geometry.
**
** Onto a few channels (FCN-I3D's upsampling: 1 channel at the size of the clip) by kernels of its own, few.h; else by cuDNN. */
#include "convolution.h"
#include "few.h"
#include "launch.h"
#include "precision.h"

/* The geometry whose adjoint this is. output_pad adds rows at the end that the last window does not reach; where that is more than
** a stride leaves room for, they come off the padding. */
static void geometry(const pn_call *call, pn_gpu_geometry *g) {
  const pn_value *extra = pn_call_arg(call, "output_pad");
  pn_convolution_geometry(call, call->x[0], true, &g->g, g->high);
  for (int d = 0; d < 3; d++) g->high[d] -= pn_max64(0, extra->i[d] - (g->g.stride[d] - 1));
}

/* ---- onto a few channels ------------------------------------------------------------------------------------------------------- */

static bool onto_few(const pn_call *call, int64_t channels, const pn_gpu_geometry *g) {
  return pn_few_fit(call->x[0]->shape[1], channels, &g->g) && !pn_engine_policy_now().plain;
}

static int few_result(pn_call *call, const pn_gpu_geometry *g) {
  pn_tensor *x, *w = NULL, *bias = NULL, *y = call->y[0];
  pn_gpu *gpu = pn_gpu_of(y);
  if (!gpu || pn_gpu_read_as(&x, call->x[0], y->dtype)) return -1;
  int rc = pn_tensor_contiguous(&w, call->x[1], PN_FILTER);
  if (!rc && call->x[2]) rc = pn_tensor_contiguous(&bias, call->x[2], PN_ROWS);
  rc = rc ? rc : pn_few_forward(gpu, y, x, pn_real_of(w), bias ? pn_real_of(bias) : NULL, &g->g);
  pn_tensor_release(x);
  pn_tensor_release(w);
  pn_tensor_release(bias);
  return rc;
}

/* dx in its own memory where its channels lie together, else in room of its own that is then added. */
static int few_dx(pn_gpu *gpu, pn_tensor *dx, bool fresh, pn_tensor *dy, const real *w, const pn_gpu_geometry *g) {
  pn_tensor *to = dx, *from;
  bool direct = dx->shape[1] == 1 || dx->stride[1] == 1;
  if (pn_gpu_read_as(&from, dy, dx->dtype)) return -1;
  int rc = direct ? 0 : pn_tensor_new(&to, dx->dtype, 5, dx->shape, PN_CHANNELS_LAST, pn_device_of(dx));
  if (!rc) {
    rc = pn_few_data(gpu, to, direct && !fresh, from, w, &g->g);
    if (!direct) {
      rc = rc ? rc : fresh ? pn_tensor_copy(dx, to) : pn_add_into(dx, to);
      pn_tensor_release(to);
    }
  }
  pn_tensor_release(from);
  return rc;
}

static int few_dw(pn_gpu *gpu, pn_tensor *dw, bool fresh, pn_tensor *x, pn_tensor *dy, const pn_gpu_geometry *g) {
  pn_tensor *to = dw, *px;
  bool direct = pn_tensor_is_dense(dw, PN_FILTER);
  if (pn_gpu_read_as(&px, x, dy->dtype)) return -1;
  int rc = direct ? 0 : pn_tensor_new(&to, dw->dtype, 5, dw->shape, PN_FILTER, pn_device_of(dw));
  if (!rc) {
    rc = pn_few_weight(gpu, pn_real_of(to), direct && !fresh, px, dy, &g->g);
    if (!direct) {
      rc = rc ? rc : fresh ? pn_tensor_copy(dw, to) : pn_add_into(dw, to);
      pn_tensor_release(to);
    }
  }
  pn_tensor_release(px);
  return rc;
}

static int few_backward(pn_call *call, pn_tensor *dy, const pn_gpu_geometry *g) {
  pn_tensor *dx, *dw, *w;
  bool fresh_x, fresh_w;
  pn_gpu *gpu = pn_gpu_of(dy);
  if (!gpu || pn_call_dx(call, 0, &dx, &fresh_x) || pn_call_dx(call, 1, &dw, &fresh_w)) return -1;
  int rc = 0;
  if (dx && !(rc = pn_tensor_contiguous(&w, call->x[1], PN_FILTER))) {
    rc = few_dx(gpu, dx, fresh_x, dy, pn_real_of(w), g);
    pn_tensor_release(w);
  }
  return !rc && dw ? few_dw(gpu, dw, fresh_w, call->x[0], dy, g) : rc;
}

/* ---- by cuDNN ------------------------------------------------------------------------------------------------------------------- */

static int backward_of(pn_call *call, pn_tensor *dy, const pn_gpu_geometry *g) {
  pn_tensor *dx, *made = NULL, *to, *filter;
  bool fresh;
  int rc = pn_call_dx(call, 0, &dx, &fresh);
  if (!rc && dx && !(rc = pn_gpu_filter_kept(&filter, call, dy->dtype))) { /* a gradient that has begun is added to */
    to = dx;
    if (!fresh && !(rc = pn_tensor_new(&made, dx->dtype, 5, dx->shape, PN_CHANNELS_LAST, pn_device_of(dx)))) to = made;
    rc = rc ? rc : pn_gpu_convolve(to, dy, filter, NULL, false, g);
    if (!rc && made) rc = pn_add_into(dx, made);
    pn_tensor_release(made);
    pn_tensor_release(filter);
  }
  return rc ? rc : pn_gpu_convolve_weight(call, dy, call->x[0], g, dy->dtype);
}

static int forward(pn_call *call) {
  pn_gpu_geometry g;
  pn_tensor *y = call->y[0], *filter;
  geometry(call, &g);
  if (onto_few(call, y->shape[1], &g)) return few_result(call, &g);
  if (pn_gpu_filter(&filter, call->x[1], NULL, y->dtype)) return -1;
  int rc = pn_gpu_convolve_data(y, false, call->x[0], filter, call->x[2], &g);
  if (rc) pn_tensor_release(filter);
  else pn_gpu_filter_keep(call, filter);
  return rc;
}

static int backward(pn_call *call) {
  pn_gpu_geometry g;
  pn_tensor *dy;
  geometry(call, &g);
  if (pn_gpu_end_gradient(call, &dy, call->dy[0], NULL, NULL)) return -1; /* of the bias */
  int rc = onto_few(call, dy->shape[1], &g) ? few_backward(call, dy, &g) : backward_of(call, dy, &g);
  pn_tensor_release(dy);
  return rc;
}

PN_CUDA_KERNEL(conv_transpose3d, forward, backward)
