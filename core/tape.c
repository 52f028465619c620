/* tape.c: recording and backward. Reverse-mode differentiation over the nodes that pn_apply recorded. */
#include <stdlib.h>
#include <string.h>
#include "backend.h"
#include "profile.h"
#include "tape.h"

static _Thread_local bool not_recording;

bool pn_recording(void) { return !not_recording; }

bool pn_set_recording(bool on) {
  bool was = !not_recording;
  not_recording = !on;
  return was;
}

bool pn_requires_grad(const pn_tensor *t) { return t->requires_grad; }

int pn_set_requires_grad(pn_tensor *t, bool on) {
  if (!t) return pn_fail("requires_grad: NULL");
  if (t->node) return pn_fail("requires_grad: this tensor is the result of %s; only leaves can be switched", t->node->op->name);
  if (on && t->dtype != PN_REAL_DTYPE && !(pn_is_short(t) && pn_takes_short(t)))
    return pn_fail("requires_grad: a tensor of %s has no gradient", pn_dtype_name(t->dtype));
  t->requires_grad = on;
  return 0;
}

int pn_tape_record(pn_call *call) {
  pn_node *node;
  if (pn_node_new(&node, call->op, call->x, call->n_x)) return -1;
  node->flops = call->flops;
  for (int i = 0; call->op->args && call->op->args[i].name; i++) node->arg[i] = call->arg[i];
  if (pn_keep_saved(node, call)) {
    pn_node_release(node);
    return -1;
  }
  pn_node_own(node, call->y, call->n_y);
  return 0;
}

int pn_check_write(const pn_tensor *t, const char *doing) {
  if (!t->node || not_recording) return 0;
  return pn_fail("%s: this tensor is the result of %s, and its gradient would be wrong: write inside no_grad, or into a copy",
                 doing, t->node->op->name);
}

/* ---- backward --------------------------------------------------------------------------------------------------------- */

/* Every node that the loss depends on. */
static int collect(pn_node_list *list, pn_node *root) {
  if (pn_nodes_behind(list, root, pn_next_pass(), 0)) return -1;
  pn_nodes_sort(list);
  for (size_t i = 0; i < list->n; i++)
    if (list->at[i]->spent)
      return pn_fail("backward: the graph behind %s was given back by an earlier backward (keep_graph keeps it)",
                     list->at[i]->op->name);
  return 0;
}

/* The gradient of a view: the same view of the gradient. */
static int view_backward(pn_call *call) {
  pn_tensor *dx, *part;
  if (pn_call_dx(call, 0, &dx, NULL)) return -1;
  if (!dx) return 0;
  pn_call again = *call;
  again.x[0] = dx;
  if (call->op->view(&again)) return -1;
  const pn_out *o = &again.out[0];
  if (pn_tensor_view(&part, dx, o->n_dims, o->shape, o->stride, o->offset)) return -1;
  int rc = pn_add_into(part, call->dy[0]);
  pn_tensor_release(part);
  return rc;
}

static int node_backward(pn_node *node) {
  pn_call call = { .op = node->op, .arg = node->arg, .n_x = node->n_x, .n_y = node->n_y, .flops = node->flops };
  bool any = false;
  for (int i = 0; i < node->n_y; i++) any |= (call.dy[i] = node->dy[i]) != NULL;
  if (!any) return 0;
  for (int i = 0; i < node->n_x; i++) {
    call.x[i] = node->x[i];
    if (call.x[i] && call.x[i]->storage->version != node->version[i])
      return pn_fail("backward: input %d of %s%s%s was changed in place after the forward", i + 1, node->op->name,
                     node->label[0] ? " in " : "", node->label);
  }
  memcpy(call.saved, node->saved, sizeof call.saved);
  pn_memory_set_label(node->label);
  const pn_kernel *kernel;
  pn_span span;
  pn_span_open_call(&span, &call, true);
  int rc = node->custom                                               ? pn_custom_run(node, &call)
           : !node->op->cpu.backward                                  ? view_backward(&call)
           : pn_kernel_on(node->op, pn_device_of(call.x[0]), &kernel) ? -1
                                                                      : kernel->backward(&call);
  pn_span_close(&span);
  if (rc) return -1;
  for (int i = 0; i < node->n_x && pn_trapping_nan() && !pn_is_dry(); i++) {
    int64_t bad = 0;
    pn_tensor *x = call.x[i], *dx = !pn_call_wants(&call, i) ? NULL : x->node ? x->node->dy[x->node_output] : x->grad;
    if (dx && pn_tensor_check_finite(dx, &bad)) return -1;
    if (bad)
      return pn_fail_shapes(&call, "backward%s%s: the gradient of input %d holds %lld values that are not finite",
                            node->label[0] ? " in " : "", node->label, i + 1, (long long)bad);
  }
  return 0;
}

static int seed_gradient(pn_tensor *loss, pn_tensor *seed) {
  pn_tensor **dy = &loss->node->dy[loss->node_output];
  if (seed && (!pn_same_shape(seed, loss) || seed->dtype != loss->dtype))
    return pn_fail("backward: the seed must have the loss's shape and element type");
  if (!seed && pn_tensor_count(loss) != 1) {
    char text[96];
    pn_format_shape(text, sizeof text, loss->n_dims, loss->shape);
    return pn_fail("backward: the loss has shape %s; one element is expected, or a seed", text);
  }
  pn_tensor_release(*dy);
  *dy = NULL;
  if (pn_tensor_like(dy, loss)) return -1;
  return seed ? pn_tensor_copy(*dy, seed) : pn_tensor_fill(*dy, 1);
}

int pn_backward(pn_tensor *loss, pn_tensor *seed, bool keep_graph) {
  if (!loss) return pn_fail("backward: NULL");
  if (!loss->node)
    return pn_fail(
        "backward: nothing was recorded behind this tensor (no input requires a gradient, or it was made inside no_grad)");
  pn_node_list list = { 0 };
  char label[64];
  snprintf(label, sizeof label, "%s", pn_memory_label());
  int rc = collect(&list, loss->node);
  rc = rc ? rc : seed_gradient(loss, seed);
  bool was = pn_set_recording(false);
  for (size_t i = 0; i < list.n; i++) {
    pn_node *node = list.at[i];
    if (!rc) rc = pn_recompute_for(&list, i) || node_backward(node) ? -1 : 0;
    for (int k = 0; k < PN_MAX_OUTPUTS; k++) pn_tensor_release(node->dy[k]), node->dy[k] = NULL;
    if (!keep_graph && !rc) pn_node_strip(node);
    pn_node_release(node);
  }
  (void)pn_set_recording(was);
  pn_memory_set_label(label);
  free(list.at);
  return rc;
}

/* ---- gradients of leaves -------------------------------------------------------------------------------------------------- */

int pn_grad(pn_tensor **out, pn_tensor *t) {
  if (!out || !t) return pn_fail("grad: NULL");
  pn_tensor_retain(t->grad);
  *out = t->grad;
  return 0;
}

int pn_set_grad(pn_tensor *t, pn_tensor *grad) {
  if (!t) return pn_fail("set_grad: NULL");
  if (grad && (!pn_same_shape(t, grad) || t->dtype != grad->dtype))
    return pn_fail("set_grad: the gradient must have the tensor's shape and element type");
  pn_capture_leaf(t);
  pn_tensor_retain(grad);
  pn_tensor_release(t->grad);
  t->grad = grad;
  return 0;
}
