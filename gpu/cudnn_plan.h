/* cudnn_plan.h: what cuDNN does for one convolution: its graph, the engines offered for it, a plan by one of them, a run of that.
** Private to cudnn_plan.c, which calls cuDNN, and cudnn_convolve.c, which chooses and keeps. Calls are made one at a time.
**
** What returns int: 0; PN_CUDNN_NONE when cuDNN is not able to; -1 when it failed. In the last two, pn_error() says why, and *out is
** NULL. */
#ifndef PENUMBRA_GPU_CUDNN_PLAN_H
#define PENUMBRA_GPU_CUDNN_PLAN_H
#include "cudnn_convolve.h"
#include "picks.h"

size_t pn_cudnn_version(void); /* 91900 for 9.19.0 */
/* Before the first graph for a device; does nothing when it was done. 0 or -1. */
PN_CHECKED int pn_cudnn_start(const pn_gpu *gpu);

typedef struct pn_cudnn_graph pn_cudnn_graph;
/* gpu NULL: for a device that need not be there, given as cuDNN's JSON. */
PN_CHECKED int pn_cudnn_graph_new(pn_cudnn_graph **out, const pn_gpu *gpu, const char *device, const pn_cudnn_problem *problem);
void pn_cudnn_graph_free(pn_cudnn_graph *graph); /* after its plans; NULL is fine */

/* The kinds of heuristics, in the order in which to ask. */
enum { PN_CUDNN_MODE_A, PN_CUDNN_MODE_B, PN_CUDNN_FALLBACK, PN_CUDNN_N_MODES };
enum { PN_CUDNN_MOST_OFFERS = 96 }; /* cuDNN 9.19 says at most 84 */
/* What one kind offers and suits the problem, the likely fastest first: *n of them, 0 on failure. */
PN_CHECKED int pn_cudnn_offers(const pn_cudnn_graph *graph, int mode, pn_pick *out, int *n);

typedef struct pn_cudnn_plan pn_cudnn_plan;
/* *workspace: the bytes that a run wants. */
PN_CHECKED int pn_cudnn_plan_new(pn_cudnn_plan **out, const pn_cudnn_graph *graph, const pn_pick *from, int64_t *workspace);
void pn_cudnn_plan_free(pn_cudnn_plan *plan); /* NULL is fine */

typedef struct pn_cudnn_buffers {
  void *x, *w, *y;
  const void *bias;
} pn_cudnn_buffers;
PN_CHECKED int pn_cudnn_plan_run(const pn_cudnn_plan *plan, const pn_cudnn_buffers *at, void *workspace);
#endif
