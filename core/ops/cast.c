/* cast: x in another element type, rounded to nearest even; whole numbers are cut off towards zero and saturate as
** pn_tensor_copy does. The gradient is cast back. */
#include "op.h"

static int shape(pn_call *call) {
  pn_out_like(&call->out[0], call->x[0]);
  call->out[0].dtype = (pn_dtype)pn_arg_int(call, "dtype");
  return 0;
}

static int forward(pn_call *call) { return pn_tensor_copy(call->y[0], call->x[0]); }

static int backward(pn_call *call) {
  pn_tensor *back;
  if (!pn_call_wants(call, 0)) return 0;
  if (pn_tensor_cast(&back, call->dy[0], call->x[0]->dtype)) return -1;
  int rc = pn_call_dx_give(call, 0, back);
  pn_tensor_release(back);
  return rc;
}

static const pn_arg args[] = {
  {"dtype",                                   PN_CHOICE, .choices = "f32|f64|f16|bf16|i64|i32|u8", .help = "the element type of the result" },
  { 0}
};
static const char *const cases[] = { "2,3,2,3,5 dtype=f64", 0 };
const pn_op pn_op_cast = {
  .name = "cast",
  .help = "x in another element type",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
