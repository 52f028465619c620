/* graph.c: work that is captured once and done again at one call, without the host's part: CUDA graphs.
**
** What is captured takes its memory from a pool of its own, so that each time finds it where it was; what other pools get back
** meanwhile is kept until the work is freed. A captured step must not wait, read or send: memory.c refuses it with a sentence. What
** another thread sends to the stream meanwhile would be captured too: context.c and memory.c refuse its copies, allocations and operations.
** Nor may anything wait for a stream that is captured: older work that the collector frees meanwhile is ended when the capture has. */
#include <stdlib.h>
#include "context.h"

int pn_capture_open(int index) {
  pn_context *c = pn_context_at(index);
  if (!c) return -1;
  if (c->capture) return pn_fail("a captured step cannot begin inside another");
  /* Nothing is given back to the driver during the capture: what two calls as written have cached would stand beside its own. */
  if (pn_memory_make_room(c)) return -1;
  pn_captured *g = calloc(1, sizeof *g);
  if (!g || !(g->pool = pn_pool_new(pn_context_source(c, true)))) {
    free(g);
    return pn_fail_memory(sizeof *g, PN_CPU);
  }
  g->owner = pthread_self();
  pthread_mutex_lock(&pn_gpu_lock);
  int rc = pn_gpu_check(cudaStreamBeginCapture(c->gpu.stream, cudaStreamCaptureModeRelaxed), "begin to capture a step");
  if (!rc) c->capture = g;
  pthread_mutex_unlock(&pn_gpu_lock);
  if (!rc) return 0;
  pn_pool_free(g->pool);
  free(g);
  return -1;
}

/* The work is done for and nothing is captured; the lock is held. Its memory goes: what lies idle now, and all of it when nobody holds
** a result any more. */
static void drop(pn_context *c, pn_captured *g) {
  if (g->exec) (void)pn_gpu_try(cudaGraphExecDestroy(g->exec));
  void **deferred = g->deferred;
  size_t n = g->n_deferred;
  g->deferred = NULL;
  g->orphan = true;
  pn_captured **link = &c->captures;
  while (*link != g) link = &(*link)->next;
  if (!pn_pool_counts(g->pool).used) {
    *link = g->next;
    pn_pool_free(g->pool);
    free(g);
  } else {
    pn_pool_trim(g->pool);
  }
  for (size_t i = 0; i < n; i++) pn_memory_give(c, deferred[i]);
  free(deferred);
}

int pn_capture_close(int index, bool keep, void **out) {
  pn_context *c = pn_context_opened(index);
  pn_captured *g = c->capture, *doomed;
  cudaGraph_t graph = NULL;
  if (!g) return pn_fail("no step is being captured");
  pthread_mutex_lock(&pn_gpu_lock);
  int rc = pn_gpu_check(cudaStreamEndCapture(c->gpu.stream, &graph), "end the capture of a step");
  c->capture = NULL;
  g->next = c->captures;
  c->captures = g;
  if ((doomed = g->doomed)) { /* they may be running */
    cudaError_t waited = cudaStreamSynchronize(c->gpu.stream);
    if (!pn_gpu_try(waited) && !rc) rc = pn_gpu_check(waited, "wait for the device");
  }
  g->doomed = NULL;
  for (pn_captured *next; doomed; doomed = next) {
    next = doomed->doomed;
    drop(c, doomed);
  }
  if (!rc && keep) rc = pn_gpu_check(cudaGraphInstantiate(&g->exec, graph, 0), "make a captured step ready");
  if (graph) (void)pn_gpu_try(cudaGraphDestroy(graph));
  if (rc || !keep) drop(c, g);
  else *out = g;
  pthread_mutex_unlock(&pn_gpu_lock);
  return rc;
}

int pn_capture_launch(int index, void *graph) {
  pn_context *c = pn_context_at(index);
  pn_captured *g = graph;
  return c ? pn_gpu_check(cudaGraphLaunch(g->exec, c->gpu.stream), "launch a captured step") : -1;
}

void pn_capture_free(int index, void *graph) {
  pn_context *c = pn_context_opened(index);
  pn_captured *g = graph;
  pthread_mutex_lock(&pn_gpu_lock);
  if (c->capture) {
    g->doomed = c->capture->doomed;
    c->capture->doomed = g;
  } else {
    (void)pn_gpu_try(cudaStreamSynchronize(c->gpu.stream)); /* it may be running */
    drop(c, g);
  }
  pthread_mutex_unlock(&pn_gpu_lock);
}

void pn_capture_stand_aside(int index, bool on) {
  pn_context *c = pn_context_opened(index);
  if (c->capture) c->capture->aside = on;
}
