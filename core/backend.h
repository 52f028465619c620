/* backend.h: what a device brings. The CPU is built in; CUDA is libpenumbra_cuda.so, opened at the first call that wants it.
**
** The plug-in exports one function, pn_backend_open, which fills in a pn_backend or fails with a reason. Everything above
** this table (tensors, operations, the tape, Lua) is the same for every device. index: 0.., of this backend; tensors given to
** it are on its devices; everything is in the order of the device's stream, and only what says so waits for it. */
#ifndef PENUMBRA_BACKEND_H
#define PENUMBRA_BACKEND_H
#include "op.h"
#include "kernels/update.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { PN_BACKEND_VERSION = 5, PN_MOST_DEVICES = 17 }; /* the CPU and up to 16 CUDA devices */

typedef struct pn_backend {
  int version; /* PN_BACKEND_VERSION that the plug-in was built with */
  int n_devices;
  int (*describe)(int index, char *buffer, size_t bytes); /* "NVIDIA H100 80GB HBM3, sm_90, 79.2 GiB" */
  const pn_kernel *(*kernel)(int op);                     /* by place in ops.def; NULL when the operation has none */

  /* memory; the pool caches what is released, in the order of the stream */
  int (*allocate)(int index, size_t bytes, void **out);
  void (*release)(int index, void *memory, size_t bytes);
  int (*memory)(int index, pn_memory *add); /* adds cached, held and peak held bytes of its pool */
  void (*trim)(int index);
  int (*wait)(int index);                                                                /* until all work is done */
  int (*copy)(void *to, int to_device, const void *from, int from_device, size_t bytes); /* done on return where it leaves
                                                                                                     the device; else in order */
  int (*upload)(int index, const void *from, size_t bytes, void **out); /* allocates and copies, beside what the device computes */
  /* tensors without an operation; same shape, any strides, element types converted */
  int (*assign)(pn_tensor *to, const pn_tensor *from, bool add); /* add: to += from */
  int (*fill)(pn_tensor *t, double value);
  int (*count_bad)(const pn_tensor *t, int64_t *n_bad); /* NaN and infinities; waits */
  int (*random)(pn_tensor *rows, pn_distribution kind, double a, double b, uint64_t seed, uint64_t stream,
                uint64_t offset); /* f32 or f64, dense in ROWS order */

  /* work that is captured and done again; one at a time, by one thread */
  int (*capture_begin)(int index);
  int (*capture_end)(int index, bool keep, void **graph); /* keep false: forgets it */
  void (*capture_aside)(int index, bool on);              /* see pn_capture_aside */
  int (*graph_launch)(int index, void *graph);
  void (*graph_free)(int index, void *graph);

  /* moments of the stream, for profiles */
  int (*mark)(int index, void **out);
  int (*between)(int index, void *from, void *to, double *seconds); /* waits until both have passed */
  void (*unmark)(int index, void *mark);
  void (*picks)(int index, char *buffer, size_t bytes); /* of engines for convolutions, as text, a line each, cut to fit */

  /* optimisers */
  int (*update)(
      int index, bool adam, const pn_update *list, int64_t n, const void *numbers,
      const double *verdict); /* numbers: PN_STEP_BYTES a tensor, on the device, or NULL: those of the list; so the verdict */
  int (*sum_squares)(int index, const pn_update *list, int64_t n, double *sums);                /* of the gradients; waits */
  int (*judge)(int index, const pn_update *list, int64_t n, double clip_norm, double *verdict); /* see pn_grad_verdict */
} pn_backend;

/* Fails with a sentence in `why`: the plug-in is missing, its libraries are, or there is no device. */
typedef int pn_backend_open_fn(pn_backend *out, char *why, size_t bytes);

/* The CUDA backend, opened once; NULL with pn_error set when there is none. */
const pn_backend *pn_backend_cuda(void);
/* The backend of a device other than the CPU, with its index there. */
PN_CHECKED int pn_backend_of(int device, const pn_backend **backend, int *index);
/* The kernels of an operation on a device; fails with "no CUDA kernel for X". */
PN_CHECKED int pn_kernel_on(const pn_op *op, int device, const pn_kernel **out);
#ifdef __cplusplus
}
#endif
#endif
