/* flip: x with the order of its elements reversed along axes; new memory. */
#include <string.h>
#include "op.h"

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

/* x seen from its far end along the flipped axes: for the time of a copy, as tensors have no negative strides. */
static int far_end(pn_tensor **out, const pn_call *call, const pn_tensor *x) {
  bool flipped[PN_MAX_DIMS];
  int64_t stride[PN_MAX_DIMS], offset = x->offset;
  if (marked(call, flipped)) return -1;
  for (int d = 0; d < x->n_dims; d++) {
    stride[d] = flipped[d] ? -x->stride[d] : x->stride[d];
    if (flipped[d]) offset += pn_max64(x->shape[d] - 1, 0) * x->stride[d];
  }
  return pn_tensor_on(out, x->storage, x->dtype, x->n_dims, x->shape, stride, offset);
}

static int walk(const pn_call *call, pn_tensor *to, const pn_tensor *from, bool add) {
  pn_tensor *seen;
  if (far_end(&seen, call, from)) return -1;
  int rc = add ? pn_add_into(to, seen) : pn_copy_into(to, seen);
  pn_tensor_release(seen);
  return rc;
}

static int forward(pn_call *call) { return walk(call, call->y[0], call->x[0], false); }

static int backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  return dx ? walk(call, dx, call->dy[0], !fresh) : 0;
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
