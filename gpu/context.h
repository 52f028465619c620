/* context.h: what context.c, device.c, memory.c and graph.c know of a device. Private to them. */
#ifndef PENUMBRA_GPU_CONTEXT_H
#define PENUMBRA_GPU_CONTEXT_H
#include <pthread.h>
#include "gpu.h"
#include "pool.h"

enum { PN_STAGES = 4, PN_COMPLAINTS = 64 };
static const size_t pn_stage_bytes = 4 << 20;

typedef struct pn_scratch {
  struct pn_scratch *next;
  pn_storage *storage;
} pn_scratch;

/* Work that was captured, with the memory it uses: a pool of its own, which nobody else takes from. */
typedef struct pn_captured {
  struct pn_captured *next;
  pn_pool *pool;
  cudaGraphExec_t exec;
  void **deferred; /* memory of other pools, given back meanwhile: the work may read it */
  size_t n_deferred, room;
  struct pn_captured *doomed; /* while it is being captured: what was freed meanwhile; of that: the next */
  bool orphan;                /* freed, but some of its memory is still out */
  bool aside;                 /* what is allocated now is none of its own (pn_capture_aside) */
  pthread_t owner;            /* while it is being captured */
} pn_captured;

typedef struct pn_context {
  pn_gpu gpu; /* first: what others see is the context */
  bool ready;
  pn_pool *pool, *upload_pool; /* in the order of gpu.stream, and of uploads */
  cudaError_t refusal;         /* of the last segment that a pool asked for; under the lock */
  cudaStream_t uploads;
  cudaEvent_t uploaded, released; /* the last upload is there; the last memory of upload_pool that came back is done with */
  bool any_released;
  pn_scratch *scratches;
  struct {
    void *memory;
    cudaEvent_t free; /* passed when the copy out of it, or into it, is done */
  } stage[PN_STAGES];
  int next_stage, n_complaints;
  unsigned long long *counts; /* mapped host memory */
  struct {
    const char *op, *text;
  } complaint[PN_COMPLAINTS];
  pn_captured *capture, *captures; /* the one under way; all that hold memory */
} pn_context;

extern pthread_mutex_t pn_gpu_lock; /* of the contexts and all they hold */
/* Opened, and made current; NULL with pn_error set, also where another thread captures a step. */
pn_context *pn_context_at(int index);
pn_context *pn_context_opened(int index);      /* of what has been opened: no call that could fail, for what gives back and ends */
PN_CHECKED int pn_context_heed(pn_context *c); /* after a wait: what kernels found */
PN_CHECKED int pn_context_find(int *n, char *why, size_t bytes); /* how many devices there are; before all else */
pn_pool_source pn_context_source(pn_context *c, bool keeps);     /* the lock is held when a pool takes or gives */
bool pn_context_captures(const pn_context *c);                   /* does this thread capture a step there? The lock is held. */
/* Fails while another thread captures a step: what goes to the stream would become part of that. The lock is held. */
PN_CHECKED int pn_context_ours(const pn_context *c);
/* Fails inside a capture of this thread: what would wait cannot be replayed. Takes the lock. */
PN_CHECKED int pn_context_outside(const pn_context *c, const char *doing);

PN_CHECKED int pn_memory_allocate(int index, size_t bytes, void **out);
void pn_memory_release(int index, void *memory, size_t bytes);
PN_CHECKED int pn_memory_count(int index, pn_memory *add);
void pn_memory_flush(int index);
void pn_memory_give(pn_context *c, void *memory);  /* back to its pool; the lock is held, and nothing is captured */
PN_CHECKED int pn_memory_make_room(pn_context *c); /* waits, and gives what lies idle to the driver */
PN_CHECKED int pn_memory_copy(void *to, int to_device, const void *from, int from_device, size_t bytes);
PN_CHECKED int pn_memory_upload(int index, const void *from, size_t bytes, void **out);

PN_CHECKED int pn_capture_open(int index);
PN_CHECKED int pn_capture_close(int index, bool keep, void **out);
PN_CHECKED int pn_capture_launch(int index, void *graph);
void pn_capture_free(int index, void *graph);
void pn_capture_stand_aside(int index, bool on);
#endif
