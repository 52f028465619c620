/* groups.c: see groups.h. */
#include "kernels/groups.h"

int pn_group_view(pn_tensor **out, const pn_call *call, pn_tensor *x) {
  const int64_t groups = pn_arg_int(call, "groups"), each = x->shape[1] / groups;
  int64_t shape[PN_MAX_DIMS] = { x->shape[0], groups, each },
          stride[PN_MAX_DIMS] = { x->stride[0], each * x->stride[1], x->stride[1] };
  for (int d = 2; d < x->n_dims; d++) shape[d + 1] = x->shape[d], stride[d + 1] = x->stride[d];
  return pn_tensor_on(out, x->storage, x->dtype, x->n_dims + 1, shape, stride, x->offset);
}

int pn_group_channels(pn_tensor **out, const pn_call *call, pn_tensor *of) {
  const int64_t groups = pn_arg_int(call, "groups"), each = of->shape[0] / groups;
  const int64_t shape[PN_MAX_DIMS] = { 1, groups, each, 1, 1, 1 }, stride[PN_MAX_DIMS] = { 0, each * of->stride[0], of->stride[0] };
  return pn_tensor_on(out, of->storage, of->dtype, call->x[0]->n_dims + 1, shape, stride, of->offset);
}

int pn_group_along(pn_tensor **out, const pn_call *call, pn_tensor *of) {
  const int64_t shape[PN_MAX_DIMS] = { 1, of->shape[0], 1, 1, 1, 1 }, stride[PN_MAX_DIMS] = { 0, of->stride[0] };
  return pn_tensor_on(out, of->storage, of->dtype, call->x[0]->n_dims, shape, stride, of->offset);
}
