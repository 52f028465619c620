/* capture.c: work that a device does once and does again at one call: what a CUDA graph is, seen from the tensors.
**
** Between begin and end this thread's operations on the device are recorded and not done: their results have memory but no values until
** the work is launched. Launching does it all again on the same memory; so the results, and what was written in place, are then new, and
** the versions of those storages grow as they did the first time. Leaves whose gradients were set meanwhile have those again, whatever
** other work has given them since. */
#include <stdlib.h>
#include "backend.h"

typedef struct leaf {
  pn_tensor *tensor, *grad; /* retained */
} leaf;

struct pn_graph {
  int device;
  void *work;
  uint64_t first_id;    /* of the storages that are made meanwhile: their versions are nobody's concern */
  pn_storage **written; /* older ones, retained */
  size_t n_written, room;
  leaf *leaves;
  size_t n_leaves, leaf_room;
  bool lost; /* no memory to remember one */
};

static _Thread_local pn_graph *under_way;

void pn_storage_wrote(pn_storage *s) {
  s->version++;
  pn_graph *g = under_way;
  if (!g || s->device != g->device || s->id >= g->first_id) return;
  if (g->n_written == g->room) {
    size_t room = g->room ? 2 * g->room : 64;
    pn_storage **more = realloc(g->written, room * sizeof *more);
    if (!more) {
      g->lost = true;
      return;
    }
    g->written = more;
    g->room = room;
  }
  pn_storage_retain(s);
  g->written[g->n_written++] = s;
}

void pn_capture_leaf(pn_tensor *t) {
  pn_graph *g = under_way;
  if (!g || pn_device_of(t) != g->device) return;
  for (size_t i = 0; i < g->n_leaves; i++)
    if (g->leaves[i].tensor == t) return;
  if (g->n_leaves == g->leaf_room) {
    size_t room = g->leaf_room ? 2 * g->leaf_room : 64;
    leaf *more = realloc(g->leaves, room * sizeof *more);
    if (!more) {
      g->lost = true;
      return;
    }
    g->leaves = more;
    g->leaf_room = room;
  }
  pn_tensor_retain(t);
  g->leaves[g->n_leaves++] = (leaf){ t, NULL };
}

static void forget(pn_graph *g) {
  for (size_t i = 0; i < g->n_written; i++) pn_storage_release(g->written[i]);
  for (size_t i = 0; i < g->n_leaves; i++) {
    pn_tensor_release(g->leaves[i].tensor);
    pn_tensor_release(g->leaves[i].grad);
  }
  free(g->written);
  free(g->leaves);
  free(g);
}

bool pn_capturing(void) { return under_way != NULL; }

int pn_capture_begin(int device) {
  const pn_backend *backend;
  int index;
  if (device == PN_CPU) return pn_fail("capture: the CPU has no captured steps");
  if (under_way) return pn_fail("capture: one is under way");
  if (pn_backend_of(device, &backend, &index)) return -1;
  pn_graph *g = calloc(1, sizeof *g);
  if (!g) return pn_fail_memory(sizeof *g, PN_CPU);
  g->device = device;
  g->first_id = pn_storage_next_id();
  if (backend->capture_begin(index)) {
    free(g);
    return -1;
  }
  under_way = g;
  return 0;
}

static int end(pn_graph *g, bool keep) {
  const pn_backend *backend;
  int index;
  under_way = NULL;
  int rc = pn_backend_of(g->device, &backend, &index) || backend->capture_end(index, keep, &g->work) ? -1 : 0;
  return rc;
}

int pn_capture_end(pn_graph **out) {
  pn_graph *g = under_way;
  if (!out || !g) return pn_fail("capture: %s", out ? "none is under way" : "NULL");
  if (end(g, !g->lost)) {
    forget(g);
    return -1;
  }
  if (g->lost) {
    forget(g);
    return pn_fail_memory(sizeof(pn_storage *), PN_CPU);
  }
  for (size_t i = 0; i < g->n_leaves; i++) pn_tensor_retain(g->leaves[i].grad = g->leaves[i].tensor->grad);
  *out = g;
  return 0;
}

void pn_capture_abort(void) {
  pn_graph *g = under_way;
  if (!g) return;
  (void)end(g, false);
  forget(g);
}

void pn_capture_aside(bool on) {
  const pn_backend *backend;
  int index;
  if (under_way && !pn_backend_of(under_way->device, &backend, &index)) backend->capture_aside(index, on);
}

int pn_graph_launch(pn_graph *g) {
  const pn_backend *backend;
  int index;
  if (!g) return pn_fail("graph_launch: NULL");
  if (under_way) return pn_fail("capture: a captured step cannot be part of another");
  if (pn_backend_of(g->device, &backend, &index) || backend->graph_launch(index, g->work)) return -1;
  for (size_t i = 0; i < g->n_written; i++) g->written[i]->version++;
  for (size_t i = 0; i < g->n_leaves; i++) {
    pn_tensor *t = g->leaves[i].tensor;
    pn_tensor_retain(g->leaves[i].grad);
    pn_tensor_release(t->grad);
    t->grad = g->leaves[i].grad;
  }
  return 0;
}

void pn_graph_free(pn_graph *g) {
  const pn_backend *backend;
  int index;
  if (!g) return;
  if (!pn_backend_of(g->device, &backend, &index)) backend->graph_free(index, g->work);
  forget(g);
}
