/* tape.h: what a forward leaves behind for backward: nodes (node.c), written and read by tape.c and recompute.c. */
#ifndef PENUMBRA_TAPE_H
#define PENUMBRA_TAPE_H
#include "op.h"

/* What a script knows an operation of its own by (custom.c). */
typedef struct pn_custom {
  struct pn_custom *next; /* among those that are forgotten */
  pn_custom_backward *backward;
  void (*forget)(struct pn_custom *custom);
  int64_t id;
} pn_custom;

/* One applied operation. It owns its inputs and what forward saved; the results own it. Nodes are numbered as they are
** recorded, so descending numbers are a valid order for backward. */
struct pn_node {
  atomic_int refs;
  uint64_t number;
  const pn_op *op;
  pn_value arg[PN_MAX_ARGS];
  int n_x, n_y;
  pn_tensor *x[PN_MAX_INPUTS];
  uint32_t version[PN_MAX_INPUTS];
  pn_tensor *saved[PN_MAX_SAVED];
  pn_tensor *dy[PN_MAX_OUTPUTS]; /* what has flowed into the results so far */
  double flops;
  bool spent; /* its inputs were given back by an earlier backward */
  char label[64];
  uint64_t visited;                 /* the backward pass that has it on its list */
  uint64_t segment;                 /* what is recomputed together (recompute.c); 0: nothing */
  bool vacant;                      /* a result of it waits to be computed again */
  pn_tensor *again[PN_MAX_OUTPUTS]; /* recompute.c: those of its results that are still wanted; borrowed */
  pn_custom *custom;                /* of an operation that a script defines; NULL: one of the registry */
};

typedef struct pn_node_list {
  pn_node **at;
  size_t n, room;
} pn_node_list;

/* Adds the nodes numbered `least` or later that root depends on, each once a pass, retained. */
PN_CHECKED int pn_nodes_behind(pn_node_list *list, pn_node *root, uint64_t pass, uint64_t least);
void pn_nodes_sort(pn_node_list *list); /* the last recorded first */
uint64_t pn_next_pass(void);
/* A node for op on x, for the caller to fill in; then its results become its owners. */
PN_CHECKED int pn_node_new(pn_node **out, const pn_op *op, pn_tensor *const *x, int n_x);
void pn_node_own(pn_node *node, pn_tensor *const *y, int n_y);
void pn_node_release(pn_node *node);
void pn_node_strip(pn_node *node);                          /* gives back what it holds */
PN_CHECKED int pn_keep_saved(pn_node *node, pn_call *call); /* from the call to the node */

/* Backward of a node that a script defined: adds into call's gradients. */
PN_CHECKED int pn_custom_run(pn_node *node, pn_call *call);

/* Before backward of list->at[i]: computes again what it, and the nodes after it in the list, have lost. */
PN_CHECKED int pn_recompute_for(const pn_node_list *list, size_t i);

PN_CHECKED int pn_tape_record(pn_call *call);
#endif
