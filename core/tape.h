/* tape.h: what a forward leaves behind for backward. */
#ifndef PENUMBRA_TAPE_H
#define PENUMBRA_TAPE_H
#include "op.h"

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
  uint64_t visited; /* the backward pass that has it on its list */
};

PN_CHECKED int pn_tape_record(pn_call *call);
#endif
