/* recompute.c: results that are given back after the forward and computed again when backward comes to them
** (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): less memory for one more forward.
**
** The tape knows how each result was made: the operation, its arguments, its inputs. So a result whose memory nobody but the
** tape holds can be vacated (its storage keeps its place in the graph, without memory), and made again by running the same
** kernel on the same inputs: equal bits. Operations keep side effects to the first time (pn_call.again), and what could change
** in between in their lasting slots.
**
** What is vacated together, a segment, is computed again together, when backward reaches the last of its nodes. */
#include <stdlib.h>
#include <string.h>
#include "backend.h"
#include "profile.h"
#include "tape.h"

enum { SMALLEST = 512 }; /* bytes that are worth it */

/* ---- what only backward holds ---------------------------------------------------------------------------------------------- */

/* A holder of t: a node of the segment. */
static void count(pn_tensor *t, uint64_t pass) {
  pn_storage *s = t->storage;
  if (t->visited != pass) {
    t->visited = pass;
    t->seen = 0;
    if (s->visited != pass) {
      s->visited = pass;
      s->seen = 0;
      s->pinned = s->bytes < SMALLEST;
    }
    s->seen++;
  }
  t->seen++;
}

static bool is_view(const pn_node *node, const pn_tensor *y) {
  return node->op->view && node->x[0] && node->x[0]->storage == y->storage;
}

/* An input that cannot be made again: a leaf, the result of an older node or of a script, or what more than the segment holds. */
static void look_at(pn_tensor *t, uint64_t pass) {
  pn_storage *s = t->storage;
  bool ours = t->node && t->node->visited == pass && !t->node->custom;
  if (!ours || atomic_load(&t->refs) != t->seen || atomic_load(&s->refs) != s->seen) s->pinned = true;
}

static void count_holders(const pn_node_list *list, uint64_t pass) {
  for (size_t i = 0; i < list->n; i++) {
    pn_node *node = list->at[i];
    for (int k = 0; k < node->n_x; k++)
      if (node->x[k]) count(node->x[k], pass);
    for (int k = 0; k < PN_MAX_SAVED; k++)
      if (node->saved[k]) count(node->saved[k], pass);
  }
  for (size_t i = 0; i < list->n; i++) {
    pn_node *node = list->at[i];
    for (int k = 0; k < node->n_x; k++)
      if (node->x[k]) look_at(node->x[k], pass);
    for (int k = 0; k < PN_MAX_SAVED; k++) {
      pn_tensor *t = node->saved[k];
      if (t && (node->op->lasting[k] || atomic_load(&t->refs) != t->seen)) t->storage->pinned = true;
    }
  }
}

static void vacate(const pn_node_list *list, uint64_t segment) {
  for (size_t i = 0; i < list->n; i++) {
    pn_node *node = list->at[i];
    node->segment = segment;
    for (int k = 0; k < node->n_x; k++) {
      pn_tensor *x = node->x[k];
      if (!x || x->storage->pinned || pn_is_vacant(x->storage)) continue;
      if (!is_view(x->node, x)) x->node->vacant = true;
    }
  }
  for (size_t i = 0; i < list->n; i++) {
    pn_node *node = list->at[i];
    for (int k = 0; k < PN_MAX_SAVED && node->vacant; k++) {
      if (node->op->lasting[k]) continue;
      pn_tensor_release(node->saved[k]);
      node->saved[k] = NULL;
    }
  }
  for (size_t i = 0; i < list->n; i++) {
    pn_node *node = list->at[i];
    for (int k = 0; k < node->n_x; k++) {
      pn_storage *s = node->x[k] ? node->x[k]->storage : NULL;
      if (s && !s->pinned && !pn_is_vacant(s)) pn_storage_vacate(s);
    }
  }
}

int pn_recompute(pn_tensor *const *y, int n, uint64_t mark) {
  if (n && !y) return pn_fail("recompute: NULL");
  pn_node_list list = { 0 };
  uint64_t pass = pn_next_pass();
  int rc = 0;
  for (int i = 0; i < n && !rc; i++)
    if (y[i] && y[i]->node) rc = pn_nodes_behind(&list, y[i]->node, pass, mark);
  if (!rc) {
    count_holders(&list, pass);
    vacate(&list, pass);
  }
  for (size_t i = 0; i < list.n; i++) pn_node_release(list.at[i]);
  free(list.at);
  return rc;
}

/* ---- and again ------------------------------------------------------------------------------------------------------------- */

static int make_outputs(pn_call *call, pn_node *node) {
  for (int i = 0; i < node->n_y; i++) {
    pn_tensor *y = node->again[i];
    const pn_out *o = &call->out[i];
    if (!y && pn_tensor_new(&call->y[i], o->dtype, o->n_dims, o->shape, o->layout, pn_device_of(call->x[0]))) return -1;
    if (!y) continue;
    if (pn_is_vacant(y->storage) && pn_storage_furnish(y->storage)) return -1;
    pn_tensor_retain(call->y[i] = y);
  }
  return 0;
}

static int run_again(pn_node *node) {
  pn_call call = { .op = node->op, .arg = node->arg, .n_x = node->n_x, .n_y = node->n_y, .recording = true, .again = true };
  memcpy(call.x, node->x, sizeof call.x);
  memcpy(call.saved, node->saved, sizeof call.saved);
  memset(node->saved, 0, sizeof node->saved);
  pn_memory_set_label(node->label);
  const pn_kernel *kernel;
  int rc = node->op->shape(&call) || make_outputs(&call, node) || pn_kernel_on(node->op, pn_device_of(call.x[0]), &kernel) ? -1 : 0;
  if (!rc) {
    pn_span span;
    uint32_t version[PN_MAX_OUTPUTS];
    for (int i = 0; i < node->n_y; i++) version[i] = call.y[i]->storage->version;
    pn_span_open_call(&span, &call, false);
    rc = kernel->forward(&call);
    pn_span_close(&span);
    for (int i = 0; i < node->n_y; i++) call.y[i]->storage->version = version[i]; /* no change: the same values */
  }
  rc = rc ? rc : pn_keep_saved(node, &call);
  node->vacant = rc != 0;
  for (int i = 0; i < PN_MAX_SAVED; i++) {
    if (rc && node->op->lasting[i]) node->saved[i] = call.saved[i];
    else pn_tensor_release(call.saved[i]);
  }
  for (int i = 0; i < node->n_y; i++) pn_tensor_release(call.y[i]);
  return rc;
}

static bool lacks(const pn_node *node) {
  for (int k = 0; k < node->n_x; k++)
    if (node->x[k] && pn_is_vacant(node->x[k]->storage)) return true;
  for (int k = 0; k < PN_MAX_SAVED; k++)
    if (node->saved[k] && pn_is_vacant(node->saved[k]->storage)) return true;
  return node->vacant;
}

int pn_recompute_for(const pn_node_list *list, size_t i) {
  uint64_t segment = list->at[i]->segment;
  if (!segment || !lacks(list->at[i])) return 0;
  for (size_t k = i; k < list->n; k++) memset(list->at[k]->again, 0, sizeof list->at[k]->again);
  for (size_t k = i; k < list->n; k++)
    for (int j = 0; j < list->at[k]->n_x; j++) {
      pn_tensor *x = list->at[k]->x[j];
      if (x && x->node) x->node->again[x->node_output] = x;
    }
  for (size_t k = list->n; k-- > i;) /* in the order of the first time */
    if (list->at[k]->segment == segment && list->at[k]->vacant && run_again(list->at[k])) return -1;
  return 0;
}
