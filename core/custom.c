/* custom.c: operations that a script defines, results and gradients both. Their nodes have an operation that is a name alone. */
#include <pthread.h>
#include <stdlib.h>
#include "tape.h"

int pn_fail_with(const char *text) { return pn_fail("%s", text ? text : "unknown"); }

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- names ------------------------------------------------------------------------------------------------------------------ */

typedef struct named {
  struct named *next;
  char name[48];
  pn_op op;
} named;

static named *all_named; /* they last: profiles and messages name them later */

static const pn_op *op_named(const char *name) {
  pthread_mutex_lock(&lock);
  named *n = all_named;
  while (n && strncmp(n->name, name, sizeof n->name - 1) != 0) n = n->next;
  if (!n && (n = calloc(1, sizeof *n))) {
    snprintf(n->name, sizeof n->name, "%s", name);
    n->op = (pn_op){ .name = n->name, .inputs = "x..." };
    n->next = all_named;
    all_named = n;
  }
  pthread_mutex_unlock(&lock);
  if (!n) (void)pn_fail_memory((int64_t)sizeof *n, PN_CPU);
  return n ? &n->op : NULL;
}

/* ---- what is not needed any more ---------------------------------------------------------------------------------------------- */

static pn_custom *forgotten;

/* The script cannot be called from here: its collector may be at work. It asks. */
static void forget(pn_custom *custom) {
  pthread_mutex_lock(&lock);
  custom->next = forgotten;
  forgotten = custom;
  pthread_mutex_unlock(&lock);
}

int64_t pn_custom_forgotten(pn_custom_backward *backward) {
  pthread_mutex_lock(&lock);
  pn_custom **link = &forgotten;
  while (*link && (*link)->backward != backward) link = &(*link)->next;
  pn_custom *custom = *link;
  if (custom) *link = custom->next;
  pthread_mutex_unlock(&lock);
  const int64_t id = custom ? custom->id : 0;
  free(custom);
  return id;
}

/* ---- the tape ------------------------------------------------------------------------------------------------------------------ */

static int check(const char *name, pn_tensor *const *x, int n_x, pn_tensor *const *y, int n_y) {
  if (n_x < 1 || n_x > PN_MAX_INPUTS) return pn_fail("%s: %d tensors, expects 1 to %d", name, n_x, PN_MAX_INPUTS);
  if (n_y < 1 || n_y > PN_MAX_OUTPUTS) return pn_fail("%s: %d results, expects 1 to %d", name, n_y, PN_MAX_OUTPUTS);
  for (int i = 0; i < n_x; i++)
    if (!x[i]) return pn_fail("%s: input %d is NULL", name, i + 1);
  for (int i = 0; i < n_y; i++) {
    if (!y[i] || y[i]->node || y[i]->requires_grad) return pn_fail("%s: result %d is not a fresh tensor", name, i + 1);
    if (pn_is_integer(y[i])) return pn_fail("%s: result %d is %s, which has no gradient", name, i + 1, pn_dtype_name(y[i]->dtype));
  }
  return 0;
}

int pn_tape_custom(const char *name, pn_tensor *const *x, int n_x, pn_tensor *const *y, int n_y, pn_custom_backward *backward,
                   int64_t id) {
  if (!name || !x || !y || !backward) return pn_fail("tape_custom: NULL");
  if (check(name, x, n_x, y, n_y)) return -1;
  const pn_op *op = op_named(name);
  pn_node *node;
  if (!op || pn_node_new(&node, op, x, n_x)) return -1;
  if (!(node->custom = malloc(sizeof *node->custom))) {
    pn_node_release(node);
    return pn_fail_memory((int64_t)sizeof(pn_custom), PN_CPU);
  }
  *node->custom = (pn_custom){ .backward = backward, .forget = forget, .id = id };
  pn_node_own(node, y, n_y);
  return 0;
}

static int add_gradient(pn_call *call, int i, pn_tensor *from) {
  const pn_tensor *x = call->x[i];
  pn_tensor *dx;
  bool fresh;
  if (!pn_same_shape(from, x) || from->dtype != x->dtype || pn_device_of(from) != pn_device_of(x)) {
    char a[96], b[96];
    pn_format_shape(a, sizeof a, from->n_dims, from->shape);
    pn_format_shape(b, sizeof b, x->n_dims, x->shape);
    return pn_fail("%s: backward gave %s %s for input %d, which is %s %s%s", call->op->name, pn_dtype_name(from->dtype), a, i + 1,
                   pn_dtype_name(x->dtype), b, pn_device_of(from) != pn_device_of(x) ? " on another device" : "");
  }
  if (pn_call_dx(call, i, &dx, &fresh)) return -1;
  return fresh ? pn_tensor_copy(dx, from) : pn_add_into(dx, from);
}

int pn_custom_run(pn_node *node, pn_call *call) {
  pn_tensor *dx[PN_MAX_INPUTS] = { 0 };
  int rc = node->custom->backward(node->custom->id, node->dy, node->n_y, dx, node->n_x);
  for (int i = 0; i < node->n_x; i++) {
    if (!rc && dx[i] && pn_call_wants(call, i)) rc = add_gradient(call, i, dx[i]);
    pn_tensor_release(dx[i]);
  }
  return rc;
}
