/* conv3d: y = (x * weight) scale + bias, then relu where asked. x (N,C,T,H,W), weight (O,C/groups,kt,kh,kw), bias (O) -> y (N,O,T',H',W').
** T' = floor((T + pads - dilation*(kt-1) - 1) / stride) + 1; pad "same" is the TensorFlow rule (T' = ceil(T/stride)).
** scale (O), constants, is joined with the weights; relu is part of the write-back and its gradient needs only the sign of y. So
** a convolution with batch norm of stored statistics behind it is one pass. */
#include "../kernels/convolution.h"
#include "../kernels/norm.h"

static const pn_arg args[] = {
  {"stride",                PN_INT3, "1", 1, 4096, NULL, "step between windows" },
  { "pad",                    PN_PAD3, "same", 0, 4096, NULL, "zeros around x" },
  { "dilation",                   PN_INT3, "1", 1, 4096, NULL, "step between the taps of a window" },
  { "groups", PN_INT, "1", 1, 1 << 20, NULL, "independent bands of channels" },
  { "relu",                  PN_BOOL, "false", .help = "relu on top, in the same pass" },
  { 0                },
};
static const char *const cases[] = {
  "2,3,4,6,5 4,3,3,3,3",
  "1,3,5,9,8 4,3,3,5,5 4 stride=2,2,2",
  "1,4,4,5,6 6,2,2,3,1 6 stride=1,2,1 groups=2 pad=1,0,2",
  "1,5,3,7,7 3,5,1,3,3 stride=1,2,2 dilation=1,2,1 pad=0,0,1,2,0,1",
  "1,18,2,3,4 35,18,1,1,1 pad=0",
  "2,3,3,4,5 5,3,3,3,3 5 relu=true",
  "2,3,3,4,5 5,3,3,3,3 5 5 relu=true",
  "1,4,2,4,5 6,2,1,3,3 - 6 groups=2",
  0,
};

static int shape(pn_call *call) {
  pn_tensor *x = call->x[0], *w = call->x[1], *bias = call->x[2], *scale = call->x[3];
  pn_geometry g;
  pn_dtype dtype;
  if (pn_convolution_types(call, &dtype)) return -1;
  int64_t high[3], channels = x->shape[1], to = w->shape[0], dims[5] = { x->shape[0], to, 0, 0, 0 }, taps = 1;
  for (int d = 0; d < 3; d++)
    if (w->shape[2 + d] < 1) return pn_fail_shapes(call, "the kernel is empty");
  pn_convolution_geometry(call, x, false, &g, high);
  if (channels % g.groups || to % g.groups)
    return pn_fail_shapes(call, "%lld groups divide neither or only one of %lld input and %lld output channels",
                          (long long)g.groups, (long long)channels, (long long)to);
  if (w->shape[1] != channels / g.groups)
    return pn_fail_shapes(call, "weight expects %lld input channels, x has %lld", (long long)(w->shape[1] * g.groups),
                          (long long)channels);
  if (bias && (bias->n_dims != 1 || bias->shape[0] != to || pn_need_real(call, 2)))
    return pn_fail_shapes(call, "bias must be %s of %lld values", pn_dtype_name(PN_REAL_DTYPE), (long long)to);
  if (scale && (scale->n_dims != 1 || scale->shape[0] != to || pn_need_real(call, 3)))
    return pn_fail_shapes(call, "scale must be %s of %lld values", pn_dtype_name(PN_REAL_DTYPE), (long long)to);
  for (int d = 0; d < 3; d++) {
    int64_t span = x->shape[2 + d] + g.low[d] + high[d] - (g.kernel[d] - 1) * g.dilation[d] - 1;
    if (span < 0)
      return pn_fail_shapes(call, "the kernel spans %lld along %c, the padded input has %lld",
                            (long long)((g.kernel[d] - 1) * g.dilation[d] + 1), "THW"[d],
                            (long long)(x->shape[2 + d] + g.low[d] + high[d]));
    dims[2 + d] = span / g.stride[d] + 1;
    taps *= g.kernel[d];
  }
  pn_out_dims(&call->out[0], dtype, 5, dims);
  if ((call->out[0].has_grid = x->has_grid))
    for (int d = 0; d < 3; d++) {
      call->out[0].grid_stride[d] = x->grid_stride[d] * (double)g.stride[d];
      call->out[0].grid_centre[d] =
          x->grid_centre[d] + x->grid_stride[d] * (0.5 * (double)((g.kernel[d] - 1) * g.dilation[d]) - (double)g.low[d]);
    }
  call->flops = 2.0 * (double)(dims[0] * to * dims[2] * dims[3] * dims[4]) * (double)(taps * w->shape[1]);
  return 0;
}

typedef struct job {
  pn_pixels x;
  const real *w;
  pn_epilogue end;
  bool add;
  pn_geometry g;
} job;

static int write_y(pn_pixels y, void *context) {
  const job *j = context;
  return pn_convolve(y, j->x, j->w, j->end, &j->g);
}

static int write_dx(pn_pixels dx, void *context) {
  const job *j = context;
  return pn_convolve_data(dx, j->x, j->w, NULL, j->add, &j->g);
}

/* The weights in FILTER memory, times scale where there is one. */
typedef struct scaling {
  real *to;
  const real *from;
  int64_t c;
  pn_norm_line line;
} scaling;

static void scale_rows(void *context, int64_t begin, int64_t end) {
  const scaling *s = context;
  pn_norm()->affine(s->to + begin * s->c, s->c, s->from + begin * s->c, s->c, end - begin, s->c, &s->line);
}

static int scaled_filter(pn_tensor **out, pn_tensor *weight, const real *scale) {
  pn_tensor *w, *made = NULL;
  if (pn_filter_of(&w, weight)) return -1;
  *out = w;
  if (!scale) return 0;
  scaling s = { .from = pn_real_of(w), .c = w->shape[0] };
  real *zeros = pn_alloc_zero(sizeof(real) * (size_t)s.c);
  int rc = zeros ? pn_tensor_new(&made, w->dtype, 5, w->shape, PN_FILTER, pn_device_of(w)) : -1;
  if (!rc) {
    s.to = pn_real_of(made);
    s.line = (pn_norm_line){ scale, zeros, false };
    pn_parallel(pn_tensor_count(w) / pn_max64(s.c, 1), pn_max64(1, 16384 / pn_max64(s.c, 1)), scale_rows, &s);
    *out = made;
  }
  pn_free(zeros);
  pn_tensor_release(w);
  return rc;
}

static int row_of(pn_tensor **out, pn_tensor *t) { /* an optional vector, dense; NULL for none */
  *out = NULL;
  return t ? pn_tensor_contiguous(out, t, PN_ROWS) : 0;
}

static int forward(pn_call *call) {
  pn_tensor *x, *w, *bias = NULL, *scale = NULL;
  int64_t high[3];
  job j = { .end.relu = pn_arg_int(call, "relu") != 0 };
  pn_convolution_geometry(call, call->x[0], false, &j.g, high);
  if (pn_channels_last(&x, call->x[0])) return -1;
  int rc = row_of(&bias, call->x[2]);
  rc = rc ? rc : row_of(&scale, call->x[3]);
  if (bias) j.end.bias = pn_real_of(bias);
  rc = rc ? rc : scaled_filter(&w, call->x[1], scale ? pn_real_of(scale) : NULL);
  if (!rc) {
    (void)pn_pixels_of(&j.x, x);
    j.w = pn_real_of(w);
    rc = pn_write_pixels(call->y[0], false, write_y, &j);
    pn_tensor_release(w);
  }
  pn_tensor_release(bias);
  pn_tensor_release(scale);
  pn_tensor_release(x);
  if (!rc && call->recording && j.end.relu) {
    pn_tensor_retain(call->y[0]);
    pn_call_save(call, 0, call->y[0]);
  }
  return rc;
}

/* dz, the gradient of the bare product (retained), and the bias gradient. */
static int product_gradient(pn_call *call, pn_tensor **dz) {
  pn_tensor *dy, *scale;
  if (pn_channels_last(&dy, call->dy[0])) return -1;
  *dz = dy;
  if (!call->saved[0] && !call->x[3]) {
    int rc = pn_convolution_bias_gradient(call, dy);
    if (rc) pn_tensor_release(dy);
    return rc;
  }
  if (row_of(&scale, call->x[3])) {
    pn_tensor_release(dy);
    return -1;
  }
  int rc = pn_convolution_end_gradient(call, dz, dy, call->saved[0], scale ? pn_real_of(scale) : NULL);
  pn_tensor_release(scale);
  return rc;
}

static int backward(pn_call *call) {
  pn_tensor *dx, *dz, *w;
  int64_t high[3];
  bool fresh;
  job j = { .end = { 0 } };
  pn_convolution_geometry(call, call->x[0], false, &j.g, high);
  if (product_gradient(call, &dz)) return -1;
  int rc = pn_call_dx(call, 0, &dx, &fresh);
  if (!rc && dx && !(rc = pn_filter_of(&w, call->x[1]))) {
    (void)pn_pixels_of(&j.x, dz);
    j.w = pn_real_of(w);
    j.add = !fresh;
    rc = pn_write_pixels(dx, !fresh, write_dx, &j);
    pn_tensor_release(w);
  }
  rc = rc ? rc : pn_convolution_weight_gradient(call, call->x[0], dz, &j.g);
  pn_tensor_release(dz);
  return rc;
}

const pn_op pn_op_conv3d = {
  .name = "conv3d",
  .help = "3-D convolution (cross-correlation); 2-D is T = 1 with a kernel of 1 along time",
  .inputs = "x weight bias? scale?",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward},
  .constant_inputs = {  false, false,      false, true },
  .real_inputs = { false, true,       true, true },
};
