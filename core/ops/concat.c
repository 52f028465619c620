/* concat: the inputs one after the other along an axis. An input that already is its part of the destination (pn_tensor_slot)
** is not copied: the branches of an inception block write theirs in place. Backward hands out views of dy. */
#include <string.h>
#include "op.h"

static int shape(pn_call *call) {
  int64_t axis = pn_arg_int(call, "axis"), total = 0;
  const pn_tensor *x0 = call->x[0];
  if (axis >= x0->n_dims)
    return pn_fail_shapes(call, "there is no axis %lld (axis is 2 by default: { axis = 1 } is the first)", (long long)axis + 1);
  for (int i = 0; i < call->n_x; i++) {
    const pn_tensor *x = call->x[i];
    bool fits = x->n_dims == x0->n_dims;
    for (int d = 0; fits && d < x->n_dims; d++) fits = d == axis || x->shape[d] == x0->shape[d];
    if (!fits) return pn_fail_shapes(call, "x%d and x1 differ in more than axis %lld", i + 1, (long long)axis + 1);
    if (x->dtype != x0->dtype)
      return pn_fail_shapes(call, "x%d is %s, x1 %s", i + 1, pn_dtype_name(x->dtype), pn_dtype_name(x0->dtype));
    total += x->shape[axis];
  }
  pn_out_like(&call->out[0], x0);
  call->out[0].shape[axis] = total;
  return 0;
}

static int part_of(pn_tensor **out, const pn_tensor *whole, int64_t axis, int64_t first, int64_t count) {
  int64_t sizes[PN_MAX_DIMS];
  memcpy(sizes, whole->shape, sizeof sizes);
  sizes[axis] = count;
  return pn_tensor_on(out, whole->storage, whole->dtype, whole->n_dims, sizes, whole->stride,
                      whole->offset + first * whole->stride[axis]);
}

static bool same_place(const pn_tensor *a, const pn_tensor *b) {
  if (a->storage != b->storage || a->offset != b->offset) return false;
  for (int d = 0; d < a->n_dims; d++) {
    if (a->shape[d] > 1 && a->stride[d] != b->stride[d]) return false;
  }
  return true;
}

static int forward(pn_call *call) {
  int64_t axis = pn_arg_int(call, "axis"), first = 0;
  for (int i = 0; i < call->n_x; i++) {
    pn_tensor *part;
    int64_t count = call->x[i]->shape[axis];
    if (part_of(&part, call->y[0], axis, first, count)) return -1;
    int rc = same_place(part, call->x[i]) ? 0 : pn_copy_into(part, call->x[i]);
    pn_tensor_release(part);
    if (rc) return -1;
    first += count;
  }
  return 0;
}

static int backward(pn_call *call) {
  int64_t axis = pn_arg_int(call, "axis"), first = 0;
  for (int i = 0; i < call->n_x; i++) {
    pn_tensor *part;
    int64_t count = call->x[i]->shape[axis];
    if (pn_call_wants(call, i)) {
      if (part_of(&part, call->dy[0], axis, first, count)) return -1;
      int rc = pn_call_dx_give(call, i, part);
      pn_tensor_release(part);
      if (rc) return -1;
    }
    first += count;
  }
  return 0;
}

static const pn_arg args[] = {
  {"axis", PN_INT, "1", 0, PN_MAX_DIMS - 1, .help = "the axis along which they follow each other" },
  { 0  }
};
static const char *const cases[] = { "2,3,2,3,4 2,1,2,3,4 2,5,2,3,4", "2,3 4,3 axis=0", "2,3,4 2,3,1 axis=2", "3,2 axis=0", 0 };
const pn_op pn_op_concat = {
  .name = "concat",
  .help =
      "tensors one after the other along an axis: pn.concat(a, b, { axis = 1 }), or of a list pn.concat({ a, b }, { axis = 1 })",
  .inputs = "x...",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
