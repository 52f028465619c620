/* flip: x with the order of its elements reversed along axes; new memory. */
#include <string.h>
#include "kernels/elementwise.h"

static int marked(const pn_call *call, bool *flipped) {
  const pn_value *axes = pn_call_arg(call, "axes");
  memset(flipped, 0, PN_MAX_DIMS * sizeof *flipped);
  for (int i = 0; i < axes->n; i++) {
    if (axes->i[i] >= call->x[0]->n_dims) return pn_fail_shapes(call, "there is no axis %lld", (long long)axes->i[i] + 1);
    if (flipped[axes->i[i]]) return pn_fail_shapes(call, "axis %lld is named twice", (long long)axes->i[i] + 1);
    flipped[axes->i[i]] = true;
  }
  return 0;
}

static int shape(pn_call *call) {
  bool flipped[PN_MAX_DIMS];
  if (marked(call, flipped)) return -1;
  pn_out_like(&call->out[0], call->x[0]);
  for (int d = 2; d < call->x[0]->n_dims; d++) {
    if (flipped[d]) call->out[0].has_grid = false; /* a mirrored grid has no positive stride */
  }
  return 0;
}

/* x seen from its far end along the flipped axes. */
static void far_end(const pn_tensor *x, const bool *flipped, char **base, int64_t *stride) {
  int64_t offset = 0;
  for (int d = 0; d < x->n_dims; d++) {
    stride[d] = flipped[d] ? -x->stride[d] : x->stride[d];
    if (flipped[d]) offset += pn_max64(x->shape[d] - 1, 0) * x->stride[d];
  }
  *base = pn_bytes_of(x) + offset * pn_dtype_bytes(x->dtype);
}

static void run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  int64_t bytes = *(const int64_t *)context;
  if (bytes == sizeof(real)) {
    for (int64_t i = 0; i < n; i++) ((real *)(void *)at[0])[i * stride[0]] = ((const real *)(const void *)at[1])[i * stride[1]];
  } else {
    for (int64_t i = 0; i < n; i++) memcpy(at[0] + i * stride[0] * bytes, at[1] + i * stride[1] * bytes, (size_t)bytes);
  }
}

static void add_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  (void)context;
  for (int64_t i = 0; i < n; i++) ((real *)(void *)at[0])[i * stride[0]] += ((const real *)(const void *)at[1])[i * stride[1]];
}

static int walk(pn_call *call, const pn_tensor *to, const pn_tensor *from, pn_run what) {
  bool flipped[PN_MAX_DIMS];
  char *base;
  int64_t stride[PN_MAX_DIMS], bytes = pn_dtype_bytes(from->dtype);
  if (marked(call, flipped)) return -1;
  far_end(from, flipped, &base, stride);
  pn_loop loop;
  pn_loop_start(&loop, to->n_dims, to->shape);
  pn_loop_add(&loop, to);
  pn_loop_add_raw(&loop, base, bytes, stride);
  pn_loop_plan(&loop);
  pn_loop_all(&loop, what, &bytes);
  return 0;
}

static int forward(pn_call *call) { return walk(call, call->y[0], call->x[0], run); }

static int backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  return dx ? walk(call, dx, call->dy[0], fresh ? run : add_run) : 0;
}

static const pn_arg args[] = {
  {"axes",    PN_INTS, .min = 0, .max = PN_MAX_DIMS - 1, .help = "axes to reverse" },
  { 0}
};
static const char *const cases[] = { "2,3,2,3,5 axes=4", "2,3,4 axes=0,2", "5 axes=0", 0 };
const pn_op pn_op_flip = {
  .name = "flip",
  .help = "x reversed along axes",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
