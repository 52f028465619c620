/* profile.h: the recorder of what ran, when, and on which thread. pn_apply and backward open a span for each operation. */
#ifndef PENUMBRA_PROFILE_H
#define PENUMBRA_PROFILE_H
#include "op.h"

/* A span lives on the stack of who opens it; spans of a thread nest. */
typedef struct pn_span {
  struct pn_span *outer;
  const char *name; /* lives for ever */
  const pn_call *call;
  bool on, backward;
  char label[64];
  double begin, inner; /* inner: seconds of the spans inside */
  int64_t moments;     /* its place among the moments of the device's stream; -1: none */
} pn_span;
void pn_span_open(pn_span *s, const char *name);
/* Opens one for an operation; its shapes, arguments and work are read when it closes. */
void pn_span_open_call(pn_span *s, const pn_call *call, bool backward);
double pn_span_close(pn_span *s); /* its seconds, with those inside; 0 where it is not recorded */

/* The piece that a thread of the pool did of the span that was open in the caller. */
const pn_span *pn_span_current(void);
void pn_profile_piece(const pn_span *of, int thread, double begin, double end);
#endif
