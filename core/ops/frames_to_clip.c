/* frames_to_clip: pictures as a network reads them. frames u8 (H,W,3), (T,H,W,3) or (N,T,H,W,3) -> y real (N,3,T,H,W), channels-last.
** Rules: rgb_pm1, v/127.5 - 1; bgr_01, v/255 with blue first. Not differentiable. */
#include "kernels/clip.h"
#include "op.h"

static int shape(pn_call *call) {
  const pn_tensor *x = call->x[0];
  if (x->dtype != PN_U8) return pn_fail_shapes(call, "frames are %s, expected u8", pn_dtype_name(x->dtype));
  if (x->n_dims < 3 || x->n_dims > 5)
    return pn_fail_shapes(call, "expected an image (H,W,C) or frames (T,H,W,C) or (N,T,H,W,C), got %d axes", x->n_dims);
  const int64_t *last = x->shape + x->n_dims - 3;
  if (last[2] != 3) return pn_fail_shapes(call, "expected 3 channels, got %lld", (long long)last[2]);
  int64_t n = x->n_dims == 5 ? x->shape[0] : 1, t = x->n_dims > 3 ? last[-1] : 1;
  pn_out_dims(&call->out[0], PN_REAL_DTYPE, 5, (int64_t[]){ n, 3, t, last[0], last[1] });
  return 0;
}

int pn_frames_as_clip(pn_tensor **out, pn_tensor *x, bool bgr) {
  int last = x->n_dims - 3; /* the axis of rows */
  int64_t c = x->stride[last + 2];
  int64_t shape[5] = { last > 1 ? x->shape[0] : 1, 3, last ? x->shape[last - 1] : 1, x->shape[last], x->shape[last + 1] };
  int64_t stride[5] = { last > 1 ? x->stride[0] : 0, bgr ? -c : c, last ? x->stride[last - 1] : 0, x->stride[last],
                        x->stride[last + 1] };
  return pn_tensor_view(out, x, 5, shape, stride, bgr ? 2 * c : 0);
}

typedef struct job {
  const pn_tensor *x, *y;
  real value[256];
} job;

static void rows(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const int64_t *shape = j->y->shape, *xs = j->x->stride, *ys = j->y->stride;
  for (int64_t i = begin; i < end; i++) {
    int64_t h = i % shape[3], t = i / shape[3] % shape[2], n = i / shape[3] / shape[2];
    const uint8_t *from = (const uint8_t *)pn_bytes_of(j->x) + n * xs[0] + t * xs[2] + h * xs[3];
    real *to = pn_real_of(j->y) + n * ys[0] + t * ys[2] + h * ys[3];
    for (int64_t w = 0; w < shape[4]; w++)
      for (int64_t c = 0; c < 3; c++) to[w * ys[4] + c * ys[1]] = j->value[from[w * xs[4] + c * xs[1]]];
  }
}

static int forward(pn_call *call) {
  pn_tensor *x, *y = call->y[0];
  bool bgr = pn_arg_int(call, "rule") == PN_BGR_01;
  if (pn_frames_as_clip(&x, call->x[0], bgr)) return -1;
  job j = { .x = x, .y = y };
  for (int v = 0; v < 256; v++) j.value[v] = pn_pixel_value(v, bgr);
  pn_parallel(y->shape[0] * y->shape[2] * y->shape[3], 64, rows, &j);
  pn_tensor_release(x);
  return 0;
}

static const pn_arg args[] = {
  {"rule",     PN_CHOICE, "rgb_pm1", .choices = "rgb_pm1|bgr_01", .help = "v/127.5 - 1, or v/255 with blue first" },
  { 0}
};
static const char *const cases[] = { "3,4,3:u8", "2,3,4,3:u8 rule=bgr_01", "2,3,5,7,3:u8", "2,0,4,3:u8", 0 };
const pn_op pn_op_frames_to_clip = { .name = "frames_to_clip",
                                     .help = "pictures u8 (N,T,H,W,3) as a network reads them, real (N,3,T,H,W)",
                                     .inputs = "frames",
                                     .args = args,
                                     .cases = cases,
                                     .shape = shape,
                                     .cpu = { .forward = forward } };
