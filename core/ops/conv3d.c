/* conv3d: y = x * weight + bias, then relu where asked. x (N,C,T,H,W), weight (O,C/groups,kt,kh,kw), bias (O) -> y (N,O,T',H',W').
** T' = floor((T + pads - dilation*(kt-1) - 1) / stride) + 1; pad "same" is the TensorFlow rule (T' = ceil(T/stride)).
** relu is part of the write-back: no second pass, and its gradient needs only the sign of y. */
#include "../kernels/convolution.h"
#include "../kernels/pixels.h"

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
  0,
};

static int shape(pn_call *call) {
  pn_tensor *x = call->x[0], *w = call->x[1], *bias = call->x[2];
  if (pn_need_dims(call, 0, 5) || pn_need_dims(call, 1, 5) || pn_need_real(call, 0) || pn_need_real(call, 1)) return -1;
  pn_geometry g;
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
  for (int d = 0; d < 3; d++) {
    int64_t span = x->shape[2 + d] + g.low[d] + high[d] - (g.kernel[d] - 1) * g.dilation[d] - 1;
    if (span < 0)
      return pn_fail_shapes(call, "the kernel spans %lld along %c, the padded input has %lld",
                            (long long)((g.kernel[d] - 1) * g.dilation[d] + 1), "THW"[d],
                            (long long)(x->shape[2 + d] + g.low[d] + high[d]));
    dims[2 + d] = span / g.stride[d] + 1;
    taps *= g.kernel[d];
  }
  pn_out_dims(&call->out[0], x->dtype, 5, dims);
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

static int forward(pn_call *call) {
  pn_tensor *x, *w, *bias = NULL;
  int64_t high[3];
  job j = { .end.relu = pn_arg_int(call, "relu") != 0 };
  pn_convolution_geometry(call, call->x[0], false, &j.g, high);
  if (pn_channels_last(&x, call->x[0])) return -1;
  int rc = call->x[2] ? pn_tensor_contiguous(&bias, call->x[2], PN_ROWS) : 0;
  if (bias) j.end.bias = pn_real_of(bias);
  rc = rc ? rc : pn_filter_of(&w, call->x[1]);
  if (!rc) {
    (void)pn_pixels_of(&j.x, x);
    j.w = pn_real_of(w);
    rc = pn_write_pixels(call->y[0], false, write_y, &j);
    pn_tensor_release(w);
  }
  pn_tensor_release(bias);
  pn_tensor_release(x);
  if (!rc && call->recording && j.end.relu) {
    pn_tensor_retain(call->y[0]);
    pn_call_save(call, 0, call->y[0]);
  }
  return rc;
}

/* ---- backward ---------------------------------------------------------------------------------------------------------- */

typedef struct mask_job {
  pn_pixels y, dy, to;
} mask_job;

static void mask_rows(void *context, int64_t begin, int64_t end) {
  const mask_job *j = context;
  for (int64_t i = begin, run; i < end; i += run) {
    run = pn_min64(pn_pixels_run(&j->y, i, end), pn_min64(pn_pixels_run(&j->dy, i, end), pn_pixels_run(&j->to, i, end)));
    const real *y = pn_pixel_at(&j->y, i), *dy = pn_pixel_at(&j->dy, i);
    real *to = pn_pixel_at(&j->to, i);
    for (int64_t r = 0; r < run; r++, y += j->y.sw, dy += j->dy.sw, to += j->to.sw) {
      if (to == dy)
        for (int64_t c = 0; c < j->y.c; c++) to[c] = y[c] > 0 ? to[c] : 0;
      else
        for (int64_t c = 0; c < j->y.c; c++) to[c] = y[c] > 0 ? dy[c] : 0;
    }
  }
}

/* dy before relu (retained): what of it passes where y > 0. In dy's own memory where nobody else can see it. */
static int gradient_before_relu(pn_call *call, pn_tensor **out) {
  pn_tensor *dy, *y = call->saved[0], *held = NULL;
  if (pn_channels_last(&dy, call->dy[0])) return -1;
  *out = dy;
  if (!y) return 0;
  mask_job j;
  bool alone = atomic_load(&dy->refs) == (dy == call->dy[0] ? 2 : 1) && atomic_load(&dy->storage->refs) == 1;
  int rc = pn_pixels_open(&j.y, &held, y);
  if (!rc && !alone) rc = pn_tensor_new(out, dy->dtype, 5, dy->shape, PN_CHANNELS_LAST, pn_device_of(dy));
  if (!rc) {
    (void)pn_pixels_of(&j.dy, dy);
    (void)pn_pixels_of(&j.to, *out);
    pn_parallel(pn_pixels_count(&j.y), pn_max64(1, 16384 / pn_max64(j.y.c, 1)), mask_rows, &j);
  }
  pn_tensor_release(held);
  if (rc || !alone) pn_tensor_release(dy);
  return rc;
}

static int backward(pn_call *call) {
  pn_tensor *dx, *dy, *w;
  int64_t high[3];
  bool fresh;
  job j = { .end = { 0 } };
  pn_convolution_geometry(call, call->x[0], false, &j.g, high);
  if (gradient_before_relu(call, &dy)) return -1;
  int rc = pn_call_dx(call, 0, &dx, &fresh);
  if (!rc && dx && !(rc = pn_filter_of(&w, call->x[1]))) {
    (void)pn_pixels_of(&j.x, dy);
    j.w = pn_real_of(w);
    j.add = !fresh;
    rc = pn_write_pixels(dx, !fresh, write_dx, &j);
    pn_tensor_release(w);
  }
  rc = rc ? rc : pn_convolution_weight_gradient(call, call->x[0], dy, &j.g);
  rc = rc ? rc : pn_convolution_bias_gradient(call, dy);
  pn_tensor_release(dy);
  return rc;
}

const pn_op pn_op_conv3d = {
  .name = "conv3d",
  .help = "3-D convolution (cross-correlation); 2-D is T = 1 with a kernel of 1 along time",
  .inputs = "x weight bias?",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward},
};
