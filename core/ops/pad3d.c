/* pad3d: x (N,C,T,H,W) with `value` around it: pad elements below and above along t, h, w. Element 0 moves back along the grid. */
#include "op.h"

static int shape(pn_call *call) {
  const pn_value *pad = pn_call_arg(call, "pad");
  if (pn_need_dims(call, 0, 5) || pn_need_real(call, 0)) return -1;
  if (pad->same) return pn_fail_shapes(call, "pad=same has a meaning for windows only; name the numbers");
  pn_out *out = &call->out[0];
  pn_out_like(out, call->x[0]);
  for (int d = 0; d < 3; d++) {
    out->shape[2 + d] += pad->i[2 * d] + pad->i[2 * d + 1];
    out->grid_centre[d] -= (double)pad->i[2 * d] * out->grid_stride[d];
  }
  return 0;
}

static int inside(pn_tensor **out, const pn_call *call, const pn_tensor *y) {
  const pn_value *pad = pn_call_arg(call, "pad");
  int64_t offset = y->offset;
  for (int d = 0; d < 3; d++) offset += pad->i[2 * d] * y->stride[2 + d];
  return pn_tensor_on(out, y->storage, y->dtype, 5, call->x[0]->shape, y->stride, offset);
}

static int forward(pn_call *call) {
  pn_tensor *y = call->y[0], *part;
  if (pn_tensor_fill(y, pn_arg_real(call, "value")) || inside(&part, call, y)) return -1;
  int rc = pn_copy_into(part, call->x[0]);
  pn_tensor_release(part);
  return rc;
}

static int backward(pn_call *call) {
  pn_tensor *part;
  if (inside(&part, call, call->dy[0])) return -1;
  int rc = pn_call_dx_give(call, 0, part);
  pn_tensor_release(part);
  return rc;
}

static const pn_arg args[] = {
  {"pad",                                                 PN_PAD3, .min = 0, .max = 1e9, .help = "elements to add (t,h,w, or low,high pairs)" },
  { "value",                                             PN_REAL, "0", .help = "what they hold" },
  { 0},
};
static const char *const cases[] = { "2,3,2,3,4 pad=1,2,0 value=0.5", "1,2,3,2,3 pad=0,1,2,0,1,3", 0 };
const pn_op pn_op_pad3d = {
  .name = "pad3d",
  .help = "a clip with a constant border",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
