/* conv_transpose3d: the adjoint of conv3d in its input. x (N,C,T,H,W), weight (C,O/groups,kt,kh,kw), bias (O) -> y (N,O,T',H',W').
** T' = (T-1)*stride - pads + dilation*(kt-1) + 1 + output_pad; pad "same" gives T' = T*stride (+ output_pad). */
#include "../kernels/cells.h"
#include "../kernels/convolution.h"

static const pn_arg args[] = {
  {"stride",                                       PN_INT3, "1", 1, 4096, NULL, "step between the windows that are laid down" },
  { "pad",                                           PN_PAD3, "0", 0, 4096, NULL, "rows cut from the result" },
  { "output_pad",                                          PN_INT3, "0", 0, 4096, NULL, "rows added at the end of the result" },
  { "dilation", PN_INT3, "1", 1, 4096, NULL, "step between the taps of a window" },
  { "groups",                                         PN_INT, "1", 1, 1 << 20, NULL, "independent bands of channels" },
  { 0                                          },
};
static const char *const cases[] = {
  "1,3,2,3,4 3,2,4,4,4 stride=2 pad=1",
  "2,2,2,2,3 2,3,1,3,2 3 stride=1,3,2 output_pad=0,1,1",
  "1,4,3,3,2 4,3,2,3,3 stride=2,1,2 groups=2 dilation=1,2,1 pad=1,0,0,1,1,0",
  "1,1,2,3,3 1,1,4,8,8 stride=2,4,4 pad=same",
  "1,3,2,3,4 3,6,2,3,3 6 stride=2 pad=0,1,1 output_pad=0,1,0",
  0,
};

static int shape(pn_call *call) {
  pn_tensor *x = call->x[0], *w = call->x[1], *bias = call->x[2];
  pn_geometry g;
  pn_dtype dtype;
  if (pn_convolution_types(call, &dtype)) return -1;
  int64_t high[3], dims[5] = { x->shape[0], 0, 0, 0, 0 };
  const pn_value *extra = pn_call_arg(call, "output_pad");
  for (int d = 0; d < 3; d++)
    if (w->shape[2 + d] < 1) return pn_fail_shapes(call, "the kernel is empty");
  pn_convolution_geometry(call, x, true, &g, high);
  dims[1] = w->shape[1] * g.groups;
  if (w->shape[0] != x->shape[1])
    return pn_fail_shapes(call, "weight expects %lld input channels, x has %lld", (long long)w->shape[0], (long long)x->shape[1]);
  if (x->shape[1] % g.groups)
    return pn_fail_shapes(call, "%lld groups do not divide %lld channels", (long long)g.groups, (long long)x->shape[1]);
  if (bias && (bias->n_dims != 1 || bias->shape[0] != dims[1] || pn_need_real(call, 2)))
    return pn_fail_shapes(call, "bias must be %s of %lld values", pn_dtype_name(PN_REAL_DTYPE), (long long)dims[1]);
  int64_t taps = 1;
  for (int d = 0; d < 3; d++) {
    if (extra->i[d] >= pn_max64(g.stride[d], g.dilation[d]))
      return pn_fail_shapes(call, "output_pad %lld along %c must be below the stride or the dilation", (long long)extra->i[d],
                            "THW"[d]);
    dims[2 + d] = x->shape[2 + d] ? (x->shape[2 + d] - 1) * g.stride[d] - g.low[d] - high[d] + (g.kernel[d] - 1) * g.dilation[d] +
                                        1 + extra->i[d]
                                  : 0;
    if (dims[2 + d] < 1) return pn_fail_shapes(call, "the padding leaves nothing along %c", "THW"[d]);
    taps *= g.kernel[d];
  }
  pn_out_dims(&call->out[0], dtype, 5, dims);
  if ((call->out[0].has_grid = x->has_grid))
    for (int d = 0; d < 3; d++) {
      call->out[0].grid_stride[d] = x->grid_stride[d] / (double)g.stride[d];
      call->out[0].grid_centre[d] =
          x->grid_centre[d] - call->out[0].grid_stride[d] * (0.5 * (double)((g.kernel[d] - 1) * g.dilation[d]) - (double)g.low[d]);
    }
  call->flops = 2.0 * (double)pn_tensor_count(x) * (double)(taps * w->shape[1]);
  return 0;
}

typedef struct job {
  pn_pixels from;
  const real *w, *bias;
  pn_geometry g;
} job;

static int write_y(pn_pixels y, void *context) {
  const job *j = context;
  if (pn_cells_fit(y.c, &j->g)) return pn_cells_data(y, j->from, j->w, j->bias, &j->g);
  return pn_convolve_data(y, j->from, j->w, j->bias, false, &j->g);
}

static int write_dx(pn_pixels dx, void *context) {
  const job *j = context;
  return pn_convolve(dx, j->from, j->w, (pn_epilogue){ 0 }, &j->g);
}

static int run(pn_tensor *to, bool add, pn_pixels_fn *fn, pn_tensor *from, pn_tensor *weight, job *j) {
  pn_tensor *x, *w, *sum = NULL;
  if (pn_channels_last(&x, from)) return -1;
  int rc = pn_filter_of(&w, weight);
  if (!rc) {
    (void)pn_pixels_of(&j->from, x);
    j->w = pn_real_of(w);
    if (!add) rc = pn_write_pixels(to, false, fn, j);
    else { /* pn_convolve writes; a gradient that has begun is added to */
      rc = pn_tensor_new(&sum, to->dtype, 5, to->shape, PN_CHANNELS_LAST, pn_device_of(to));
      rc = rc ? rc : pn_write_pixels(sum, false, fn, j);
      rc = rc ? rc : pn_add_into(to, sum);
      pn_tensor_release(sum);
    }
    pn_tensor_release(w);
  }
  pn_tensor_release(x);
  return rc;
}

static int forward(pn_call *call) {
  int64_t high[3];
  pn_tensor *bias = NULL;
  job j = { .bias = NULL };
  pn_convolution_geometry(call, call->x[0], true, &j.g, high);
  if (call->x[2] && pn_tensor_contiguous(&bias, call->x[2], PN_ROWS)) return -1;
  if (bias) j.bias = pn_real_of(bias);
  int rc = run(call->y[0], false, write_y, call->x[0], call->x[1], &j);
  pn_tensor_release(bias);
  return rc;
}

/* Both gradients by cells, which reads dy once. */
typedef struct cells_job {
  pn_pixels dy, x;
  real *dw;
  const real *w;
  bool add;
  const pn_geometry *g;
} cells_job;

static int cells_back(pn_pixels dx, void *context) {
  const cells_job *j = context;
  return pn_cells_back(&dx, j->add, j->dw, j->dy, j->x, j->w, j->g);
}

static int backward_by_cells(pn_call *call, pn_tensor *dx, bool fresh, const pn_geometry *g) {
  pn_tensor *dw, *held[4] = { NULL };
  cells_job j = { .add = !fresh, .g = g };
  if (pn_call_dx(call, 1, &dw, NULL)) return -1;
  if (!dx && !dw) return 0;
  int rc = pn_channels_last(&held[0], call->dy[0]);
  rc = rc ? rc : pn_channels_last(&held[1], call->x[0]);
  rc = rc ? rc : pn_filter_of(&held[2], call->x[1]);
  if (!rc && dw) rc = pn_filter_open(&held[3], dw);
  if (!rc) {
    (void)pn_pixels_of(&j.dy, held[0]);
    (void)pn_pixels_of(&j.x, held[1]);
    j.w = pn_real_of(held[2]);
    j.dw = dw ? pn_real_of(held[3]) : NULL;
    rc = dx ? pn_write_pixels(dx, !fresh, cells_back, &j) : cells_back((pn_pixels){ .data = NULL }, &j);
  }
  if (held[3]) rc = pn_filter_close(held[3], dw, rc);
  for (int i = 0; i < 3; i++) pn_tensor_release(held[i]);
  return rc;
}

static int backward(pn_call *call) {
  pn_tensor *dx;
  int64_t high[3];
  bool fresh;
  job j = { .bias = NULL };
  pn_convolution_geometry(call, call->x[0], true, &j.g, high);
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (pn_cells_fit(call->dy[0]->shape[1], &j.g)) {
    if (backward_by_cells(call, dx, fresh, &j.g)) return -1;
  } else {
    if (dx && run(dx, !fresh, write_dx, call->dy[0], call->x[1], &j)) return -1;
    if (pn_convolution_weight_gradient(call, call->dy[0], call->x[0], &j.g)) return -1;
  }
  return pn_convolution_bias_gradient(call, call->dy[0]);
}

const pn_op pn_op_conv_transpose3d = {
  .name = "conv_transpose3d",
  .help = "transposed 3-D convolution, the adjoint of conv3d; upsamples by its stride",
  .inputs = "x weight bias?",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward},
  .real_inputs = { false,   true,     true },
};
