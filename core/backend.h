/* backend.h: what a device brings. The CPU is built in; CUDA is libpenumbra_cuda.so, opened at the first call that wants it.
**
** The plug-in exports one function, pn_backend_open, which fills in a pn_backend or fails with a reason. Everything above
** this table (tensors, operations, the tape, Lua) is the same for every device. */
#ifndef PENUMBRA_BACKEND_H
#define PENUMBRA_BACKEND_H
#include "op.h"

enum { PN_BACKEND_VERSION = 1, PN_MOST_DEVICES = 17 }; /* the CPU and up to 16 CUDA devices */

typedef struct pn_backend {
  int version; /* PN_BACKEND_VERSION that the plug-in was built with */
  int n_devices;
  int (*allocate)(int index, size_t bytes, void **out); /* index: 0.., of this backend */
  void (*release)(int index, void *memory, size_t bytes);
  int (*copy)(void *to, int to_device, const void *from, int from_device,
              size_t bytes);                              /* devices as in penumbra.h; finished on return */
  int (*describe)(int index, char *buffer, size_t bytes); /* "NVIDIA H100 80GB HBM3, sm_90, 79.2 GiB" */
  const pn_kernel *(*kernel)(int op);                     /* by place in ops.def; NULL when the operation has none */
} pn_backend;

/* Fails with a sentence in `why`: the plug-in is missing, its libraries are, or there is no device. */
typedef int pn_backend_open_fn(pn_backend *out, char *why, size_t bytes);

/* The CUDA backend, opened once; NULL with pn_error set when there is none. */
const pn_backend *pn_backend_cuda(void);
/* The backend of a device other than the CPU, with its index there. */
PN_CHECKED int pn_backend_of(int device, const pn_backend **backend, int *index);
/* The kernels of an operation on a device; fails with "no CUDA kernel for X". */
PN_CHECKED int pn_kernel_on(const pn_op *op, int device, const pn_kernel **out);
#endif
