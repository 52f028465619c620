/* contiguous: x in dense memory of a chosen order; x itself, as a view, where it already is. */
#include <string.h>
#include "op.h"

static int shape(pn_call *call) {
  pn_out_like(&call->out[0], call->x[0]);
  call->out[0].layout = (pn_layout)pn_arg_int(call, "layout");
  if (call->out[0].layout != PN_ROWS && call->x[0]->n_dims != 5)
    return pn_fail_shapes(call, "channels_last and filter are orders of five axes");
  return 0;
}

static int view(pn_call *call) {
  if (shape(call)) return -1;
  const pn_tensor *x = call->x[0];
  memcpy(call->out[0].stride, x->stride, sizeof x->stride);
  return pn_tensor_is_dense(x, call->out[0].layout) ? 0 : PN_NO_VIEW;
}

static int forward(pn_call *call) { return pn_copy_into(call->y[0], call->x[0]); }

static int backward(pn_call *call) { return pn_call_dx_give(call, 0, call->dy[0]); }

static const pn_arg args[] = {
  {"layout", PN_CHOICE, "rows", .choices = "rows|channels_last|filter", .help = "memory order" },
  { 0 }
};
static const char *const cases[] = { "2,3,2,3,5 layout=rows", "2,3,2,3,5 layout=channels_last", "2,3,2,3,5 layout=filter", "2,3",
                                     0 };
const pn_op pn_op_contiguous = {
  .name = "contiguous",
  .help = "x in dense memory of a chosen order",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .view = view,
  .cpu = {forward, backward}
};
