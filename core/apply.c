/* apply.c: pn_apply, the one door of computation. What kernels may ask of a call is in call.c.
**
** Checks, shapes, memory, the kernel, the tape, the clock and the NaN trap each happen here, once, for every operation. */
#include <stdarg.h>
#include <string.h>
#include "op.h"
#include "backend.h"
#include "profile.h"
#include "tape.h"

static int check_inputs(pn_call *call) {
  char name[32];
  bool optional;
  for (int i = 0; i < call->n_x || pn_input_name(call->op, i, name, sizeof name, &optional); i++) {
    if (i >= PN_MAX_INPUTS) return pn_fail("%s: more than %d inputs", call->op->name, PN_MAX_INPUTS);
    if (!pn_input_name(call->op, i, name, sizeof name, &optional))
      return pn_fail("%s takes %d tensors (%s), not %d", call->op->name, i, call->op->inputs, call->n_x);
    if (i >= call->n_x || !call->x[i]) {
      bool in_list = i < call->n_x && strstr(call->op->inputs, "..."); /* a list has no gaps */
      if (!optional || in_list) return pn_fail("%s: %s is missing (takes %s)", call->op->name, name, call->op->inputs);
      if (i >= call->n_x) {
        if (strstr(call->op->inputs, "...")) break;
        call->x[call->n_x++] = NULL;
      }
      continue;
    }
    if (pn_device_of(call->x[i]) != pn_device_of(call->x[0]))
      return pn_fail("%s: %s is on another device than the first input", call->op->name, name);
  }
  return 0;
}

static int check_destination(const pn_call *call, int i) {
  const pn_tensor *y = call->y[i];
  const pn_out *o = &call->out[i];
  if (y->n_dims != o->n_dims || memcmp(y->shape, o->shape, sizeof(int64_t) * (size_t)o->n_dims) != 0 || y->dtype != o->dtype) {
    char a[96], b[96];
    pn_format_shape(a, sizeof a, y->n_dims, y->shape);
    pn_format_shape(b, sizeof b, o->n_dims, o->shape);
    return pn_fail_shapes(call, "the destination is %s %s, the result %s %s", pn_dtype_name(y->dtype), a, pn_dtype_name(o->dtype),
                          b);
  }
  if (call->n_x && pn_device_of(y) != pn_device_of(call->x[0]))
    return pn_fail("%s: the destination is on another device than the inputs", call->op->name);
  if ((call->recording && y->requires_grad) || (y->node && pn_recording()))
    return pn_fail("%s: the destination already takes part in a gradient; write it inside no_grad", call->op->name);
  return 0;
}

static int make_output(pn_call *call, int i) {
  const pn_out *o = &call->out[i];
  if (call->is_view) {
    if (call->y[i]) return pn_fail("%s re-describes memory and takes no destination", call->op->name);
    if (pn_tensor_view(&call->y[i], call->x[0], o->n_dims, o->shape, o->stride, o->offset)) return -1;
  } else if (call->y[i]) {
    if (check_destination(call, i)) return -1;
    pn_tensor_retain(call->y[i]);
  } else if (pn_tensor_new(&call->y[i], o->dtype, o->n_dims, o->shape, o->layout, pn_device_of(call->x[0]))) return -1;
  if (o->has_grid) pn_tensor_set_grid(call->y[i], o->grid_stride, o->grid_centre);
  return 0;
}

static int trap(pn_call *call) {
  for (int i = 0; i < call->n_y; i++) {
    int64_t bad;
    if (pn_tensor_check_finite(call->y[i], &bad)) return -1;
    if (bad)
      return pn_fail_shapes(call, "%lld of the %lld values it made are not finite", (long long)bad,
                            (long long)pn_tensor_count(call->y[i]));
  }
  return 0;
}

static int run(pn_call *call) {
  const pn_op *op = call->op;
  const pn_kernel *kernel;
  pn_span span;
  pn_span_open_call(&span, call, false);
  int rc = !call->is_view && (pn_kernel_on(op, pn_device_of(call->y[0]), &kernel) || kernel->forward(call)) ? -1 : 0;
  pn_span_close(&span);
  if (rc) return -1;
  if (pn_trapping_nan() && !pn_is_dry() && trap(call)) return -1;
  return call->recording ? pn_tape_record(call) : 0;
}

int pn_apply(const pn_op *op, pn_tensor *const *x, int n_x, const pn_value *args, pn_tensor **y, int *n_y) {
  if (!op || !y || !n_y || (n_x && !x) || (op->args && op->args[0].name && !args)) return pn_fail("apply: NULL");
  if (n_x < 0 || n_x > PN_MAX_INPUTS) return pn_fail("%s: %d inputs", op->name, n_x);
  pn_call call = { .op = op, .arg = args, .n_x = n_x, .n_y = 1 };
  pn_tensor *destination[PN_MAX_OUTPUTS];
  if (n_x) memcpy(call.x, x, sizeof *x * (size_t)n_x);
  memcpy(destination, y, sizeof destination);
  if (check_inputs(&call)) return -1;
  for (int i = 0; i < call.n_x && pn_recording() && pn_op_differentiable(op); i++) call.recording |= pn_call_wants(&call, i);
  int viewed = op->view ? op->view(&call) : PN_NO_VIEW;
  if (viewed < 0 || (viewed == PN_NO_VIEW && op->shape(&call))) return -1;
  call.is_view = viewed == 0;
  for (int i = 0; i < call.n_y; i++)
    if (pn_check_shape(call.out[i].n_dims, call.out[i].shape)) return pn_fail_shapes(&call, "%s", pn_error());
  int rc = 0, made = 0;
  for (; made < call.n_y && !rc; made++) {
    call.y[made] = destination[made];
    rc = make_output(&call, made);
    if (rc) break;
    if (destination[made] && !destination[made]->is_slot) pn_storage_wrote(destination[made]->storage);
  }
  rc = rc ? rc : run(&call);
  for (int i = 0; i < PN_MAX_SAVED; i++) pn_tensor_release(call.saved[i]);
  if (rc) {
    for (int i = 0; i < made; i++) pn_tensor_release(call.y[i]);
    return -1;
  }
  memcpy(y, call.y, sizeof *y * (size_t)call.n_y);
  *n_y = call.n_y;
  return 0;
}

int pn_apply1(pn_tensor **y, const pn_op *op, const char *args, int n_x, ...) {
  pn_value values[PN_MAX_ARGS];
  pn_tensor *x[PN_MAX_INPUTS], *made[PN_MAX_OUTPUTS] = { 0 };
  va_list ap;
  va_start(ap, n_x);
  for (int i = 0; i < n_x && i < PN_MAX_INPUTS; i++) x[i] = va_arg(ap, pn_tensor *);
  va_end(ap);
  int n_y;
  if (pn_op_parse(op, args, values) || pn_apply(op, x, n_x, values, made, &n_y)) return -1;
  *y = made[0];
  return 0;
}
