/* node.c: who holds what. A result holds the node that made it, a node its inputs and what it saved; so a graph goes when its last
** result goes. And lists of nodes, for those who walk the graph. */
#include <stdlib.h>
#include "tape.h"

static atomic_ullong next_number = 1, next_pass = 1;

/* ---- tensors and nodes -------------------------------------------------------------------------------------------------- */

void pn_tensor_retain(pn_tensor *t) {
  if (t) atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
}

void pn_tensor_release(pn_tensor *t) {
  if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) return;
  pn_storage_release(t->storage);
  pn_tensor_release(t->grad);
  pn_node_release(t->node);
  free(t);
}

int pn_node_new(pn_node **out, const pn_op *op, pn_tensor *const *x, int n_x) {
  pn_node *node = calloc(1, sizeof *node);
  if (!node) return pn_fail_memory((int64_t)sizeof *node, PN_CPU);
  atomic_init(&node->refs, 1);
  node->number = atomic_fetch_add(&next_number, 1);
  node->op = op;
  node->n_x = n_x;
  snprintf(node->label, sizeof node->label, "%s", pn_memory_label());
  for (int i = 0; i < n_x; i++) {
    pn_tensor_retain(x[i]);
    node->x[i] = x[i];
    node->version[i] = x[i] ? x[i]->storage->version : 0;
  }
  *out = node;
  return 0;
}

void pn_node_own(pn_node *node, pn_tensor *const *y, int n_y) {
  atomic_store(&node->refs, n_y);
  node->n_y = n_y;
  for (int i = 0; i < n_y; i++) {
    y[i]->node = node;
    y[i]->node_output = i;
    y[i]->requires_grad = true;
  }
}

uint64_t pn_tape_mark(void) { return atomic_load(&next_number); }

/* Gives back what the node holds. A long chain of nodes that die together is walked with a list, not with the stack. */
void pn_node_strip(pn_node *node) {
  node->spent = true;
  if (node->custom) node->custom->forget(node->custom), node->custom = NULL;
  for (int i = 0; i < PN_MAX_SAVED; i++) pn_tensor_release(node->saved[i]), node->saved[i] = NULL;
  for (int i = 0; i < PN_MAX_OUTPUTS; i++) pn_tensor_release(node->dy[i]), node->dy[i] = NULL;
  for (int i = 0; i < node->n_x; i++) pn_tensor_release(node->x[i]), node->x[i] = NULL;
}

void pn_node_release(pn_node *node) {
  static _Thread_local pn_node *waiting[64];
  static _Thread_local int n_waiting;
  static _Thread_local bool busy;
  if (!node || atomic_fetch_sub_explicit(&node->refs, 1, memory_order_acq_rel) != 1) return;
  if (busy && n_waiting < (int)PN_LENGTH(waiting)) {
    waiting[n_waiting++] = node;
    return;
  }
  bool outer = !busy;
  busy = true;
  pn_node_strip(node);
  free(node);
  while (outer && n_waiting) {
    pn_node *next = waiting[--n_waiting];
    pn_node_strip(next);
    free(next);
  }
  if (outer) busy = false;
}

int pn_keep_saved(pn_node *node, pn_call *call) {
  for (int i = 0; i < PN_MAX_SAVED; i++) { /* a saved result would own its own node: save another view of the same memory */
    pn_tensor *t = call->saved[i];
    for (int k = 0; t && k < call->n_y; k++)
      if (t == call->y[k]) {
        if (pn_detach(&node->saved[i], t)) return -1;
        pn_tensor_release(t);
        t = NULL;
      }
    if (t) node->saved[i] = t;
    call->saved[i] = NULL;
  }
  return 0;
}

/* ---- lists of nodes ----------------------------------------------------------------------------------------------------- */

static int list_push(pn_node_list *list, pn_node *node) {
  if (list->n == list->room) {
    size_t more = list->room ? 2 * list->room : 512;
    pn_node **grown = realloc(list->at, sizeof *grown * more);
    if (!grown) return pn_fail_memory((int64_t)(sizeof *grown * more), PN_CPU);
    list->at = grown, list->room = more;
  }
  list->at[list->n++] = node;
  atomic_fetch_add_explicit(&node->refs, 1, memory_order_relaxed);
  return 0;
}

static int later_first(const void *a, const void *b) {
  const pn_node *const *p = a, *const *q = b;
  return (*p)->number < (*q)->number ? 1 : (*p)->number > (*q)->number ? -1 : 0;
}

uint64_t pn_next_pass(void) { return atomic_fetch_add(&next_pass, 1); }

int pn_nodes_behind(pn_node_list *list, pn_node *root, uint64_t pass, uint64_t least) {
  if (root->visited == pass || root->number < least) return 0;
  root->visited = pass;
  size_t i = list->n; /* the list grows while it is read, so it is its own queue */
  if (list_push(list, root)) return -1;
  for (; i < list->n; i++) {
    pn_node *node = list->at[i];
    for (int k = 0; k < node->n_x; k++) {
      pn_node *from = node->x[k] ? node->x[k]->node : NULL;
      if (!from || from->visited == pass || from->number < least || node->op->constant_inputs[k]) continue;
      from->visited = pass;
      if (list_push(list, from)) return -1;
    }
  }
  return 0;
}

void pn_nodes_sort(pn_node_list *list) { qsort(list->at, list->n, sizeof *list->at, later_first); }
