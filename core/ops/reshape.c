/* reshape: the elements of x, in row order, under another shape; one size may be -1 and follows from the others. A view where
** the strides of x allow it (squeezing and unsqueezing always), else a copy in row order. */
#include <string.h>
#include "kernels/views.h"

static int shape(pn_call *call) {
  const pn_tensor *x = call->x[0];
  const pn_value *want = pn_call_arg(call, "shape");
  int64_t sizes[PN_MAX_DIMS], count = pn_tensor_count(x), product = 1;
  int unknown = -1;
  for (int d = 0; d < want->n; d++) {
    sizes[d] = want->i[d];
    if (sizes[d] >= 0) {
      product *= sizes[d];
    } else if (unknown < 0) {
      unknown = d;
    } else {
      return pn_fail_shapes(call, "only one size can be -1");
    }
  }
  if (unknown >= 0 && product > 0) sizes[unknown] = count / product;
  if ((unknown >= 0 && product == 0) || (unknown >= 0 ? product * sizes[unknown] : product) != count) {
    char text[96];
    pn_format_shape(text, sizeof text, want->n, want->i);
    return pn_fail_shapes(call, "%lld elements do not fill the shape %s", (long long)count, text);
  }
  pn_out_dims(&call->out[0], x->dtype, want->n, sizes);
  call->out[0].layout = PN_ROWS;
  return 0;
}

static int view(pn_call *call) {
  if (shape(call)) return -1;
  pn_out *out = &call->out[0];
  return pn_tensor_count(call->x[0]) && pn_reshape_strides(call->x[0], out->n_dims, out->shape, out->stride) ? 0 : PN_NO_VIEW;
}

/* Copies between a tensor and the row order of its elements. */
static int forward(pn_call *call) {
  pn_tensor *x = call->x[0], *y = call->y[0], *as_x;
  int64_t stride[PN_MAX_DIMS];
  if (!pn_reshape_strides(y, x->n_dims, x->shape, stride)) return pn_fail_shapes(call, "the destination is not in row order");
  if (pn_tensor_on(&as_x, y->storage, y->dtype, x->n_dims, x->shape, stride, y->offset)) return -1;
  int rc = pn_copy_into(as_x, x);
  pn_tensor_release(as_x);
  return rc;
}

static int backward(pn_call *call) {
  pn_tensor *x = call->x[0], *rows, *as_x;
  int64_t stride[PN_MAX_DIMS];
  bool viewed = pn_reshape_strides(call->dy[0], x->n_dims, x->shape, stride);
  if (viewed) {
    rows = call->dy[0];
    pn_tensor_retain(rows);
  } else {
    if (pn_tensor_contiguous(&rows, call->dy[0], PN_ROWS)) return -1;
    pn_strides_of(x->n_dims, x->shape, PN_ROWS, stride);
  }
  int rc = pn_tensor_on(&as_x, rows->storage, rows->dtype, x->n_dims, x->shape, stride, rows->offset);
  if (!rc) {
    rc = pn_call_dx_give(call, 0, as_x);
    pn_tensor_release(as_x);
  }
  pn_tensor_release(rows);
  return rc;
}

static const pn_arg args[] = {
  {"shape",    PN_INTS, .min = -1, .max = 1e15, .help = "the new sizes; one may be -1" },
  { 0}
};
static const char *const cases[] = {
  "2,3,4 shape=6,4", "2,3,2,3,5 shape=2,-1", "2,1,3,1,5 shape=2,3,5", "6 shape=1,2,1,3", "1 shape=", 0
};
const pn_op pn_op_reshape = {
  .name = "reshape",
  .help = "the same elements under another shape",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .view = view,
  .cpu = {forward, backward}
};
