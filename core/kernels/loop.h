/* loop.h: one loop for everything that works element by element, with NumPy broadcasting.
**
** A pn_loop walks up to PN_LOOP_OPERANDS arrays of one (broadcast) shape together. Planning drops axes of size 1, orders the
** rest by the strides of operand 0 and merges neighbours, so same-shape dense operands become one long run, and
** (N,C,T,H,W) with (1,C,1,1,1) on channels-last data becomes runs of C. Whoever uses it supplies the run: n elements, an address
** and a stride (in elements) per operand. */
#ifndef PENUMBRA_KERNELS_LOOP_H
#define PENUMBRA_KERNELS_LOOP_H
#include "internal.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { PN_LOOP_OPERANDS = 5 };

typedef struct pn_loop {
  int n_operands, n_dims;
  int64_t count;
  int64_t size[PN_MAX_DIMS];
  char *base[PN_LOOP_OPERANDS];
  int64_t bytes[PN_LOOP_OPERANDS]; /* of one element */
  int dtype[PN_LOOP_OPERANDS];     /* PN_N_DTYPES for what is no tensor */
  int64_t stride[PN_LOOP_OPERANDS][PN_MAX_DIMS];
} pn_loop;

typedef void (*pn_run)(void *context, int64_t n, char *const *at, const int64_t *stride);

PN_API void pn_loop_start(pn_loop *loop, int n_dims, const int64_t *shape);
PN_API void pn_loop_add(pn_loop *loop, const pn_tensor *t); /* t must broadcast to the shape of the loop */
PN_API void pn_loop_add_raw(pn_loop *loop, void *base, int64_t bytes, const int64_t *stride);
PN_API void pn_loop_plan(pn_loop *loop);                                                        /* after the last operand */
void pn_loop_range(const pn_loop *loop, int64_t begin, int64_t end, pn_run run, void *context); /* elements begin..end-1, here */
void pn_loop_all(const pn_loop *loop, pn_run run, void *context);                               /* all of them, threaded */

/* n <= PN_CHUNK elements of any type that the CPU computes or asks with, as adjacent reals (as integers): where they lie, or in `room`. */
enum { PN_CHUNK = 256 };
const real *pn_as_reals(real *room, const char *p, pn_dtype dtype, int64_t stride, int64_t n);
const int64_t *pn_as_integers(int64_t *room, const char *p, pn_dtype dtype, int64_t stride, int64_t n);

void pn_copy_same(pn_tensor *to, const pn_tensor *from); /* same shape and element type, any strides; no version change */

#ifdef __cplusplus
}
#endif
#endif
