/* elementwise.h: one loop for every operation that works element by element, with NumPy broadcasting.
**
** A pn_loop walks up to PN_LOOP_OPERANDS arrays of one (broadcast) shape together. Planning drops axes of size 1, orders the
** rest by the strides of operand 0 and merges neighbours, so same-shape dense operands become one long run, and
** (N,C,T,H,W) with (1,C,1,1,1) on channels-last data becomes runs of C. An operation supplies the run: n elements, an address
** and a stride (in elements) per operand. Runs are written with the macros below, once for dense and once for strided data.
*/
#ifndef PENUMBRA_KERNELS_ELEMENTWISE_H
#define PENUMBRA_KERNELS_ELEMENTWISE_H
#include "op.h"
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

void pn_copy_same(pn_tensor *to, const pn_tensor *from); /* same shape and element type, any strides; no version change */

/* ---- operations of one input ------------------------------------------------------------------------------------ */
typedef struct pn_unary {
  real a, b;
  bool fresh;
} pn_unary; /* two numbers from the arguments; is dx to be written or added to? */

PN_API int pn_unary_shape(pn_call *call);
int pn_unary_forward(pn_call *call, pn_run run, double a, double b);
int pn_unary_backward(pn_call *call, pn_run run, double a, double b);

/* forward and backward from two expressions: VALUE of x (and a, b), SLOPE of x and dy (and a, b). A and B may use `call`. */
#define PN_UNARY_KERNELS_WITH(VALUE, SLOPE, A, B)                                                                                  \
  static void value_run(void *context, int64_t n, char *const *at, const int64_t *stride) {                                        \
    const pn_unary *k = context;                                                                                                   \
    const real a = k->a, b = k->b;                                                                                                 \
    (void)a, (void)b;                                                                                                              \
    real *restrict to = (real *)(void *)at[0];                                                                                     \
    const real *restrict from = (const real *)(const void *)at[1];                                                                 \
    const int64_t s0 = stride[0], s1 = stride[1];                                                                                  \
    if (s0 == 1 && s1 == 1) {                                                                                                      \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real x = from[i];                                                                                                    \
        to[i] = (VALUE);                                                                                                           \
      }                                                                                                                            \
    } else {                                                                                                                       \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real x = from[i * s1];                                                                                               \
        to[i * s0] = (VALUE);                                                                                                      \
      }                                                                                                                            \
    }                                                                                                                              \
  }                                                                                                                                \
  static void slope_run(void *context, int64_t n, char *const *at, const int64_t *stride) {                                        \
    const pn_unary *k = context;                                                                                                   \
    const real a = k->a, b = k->b;                                                                                                 \
    (void)a, (void)b;                                                                                                              \
    real *restrict to = (real *)(void *)at[0];                                                                                     \
    const real *restrict up = (const real *)(const void *)at[1];                                                                   \
    const real *restrict from = (const real *)(const void *)at[2];                                                                 \
    const int64_t s0 = stride[0], s1 = stride[1], s2 = stride[2];                                                                  \
    if (s0 == 1 && s1 == 1 && s2 == 1 && k->fresh) {                                                                               \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real x = from[i], dy = up[i];                                                                                        \
        (void)x;                                                                                                                   \
        to[i] = (SLOPE);                                                                                                           \
      }                                                                                                                            \
    } else if (s0 == 1 && s1 == 1 && s2 == 1) {                                                                                    \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real x = from[i], dy = up[i];                                                                                        \
        (void)x;                                                                                                                   \
        to[i] += (SLOPE);                                                                                                          \
      }                                                                                                                            \
    } else {                                                                                                                       \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real x = from[i * s2], dy = up[i * s1];                                                                              \
        (void)x;                                                                                                                   \
        const real dx = (SLOPE);                                                                                                   \
        to[i * s0] = k->fresh ? dx : to[i * s0] + dx;                                                                              \
      }                                                                                                                            \
    }                                                                                                                              \
  }                                                                                                                                \
  static int forward(pn_call *call) { return pn_unary_forward(call, value_run, (A), (B)); }                                        \
  static int backward(pn_call *call) { return pn_unary_backward(call, slope_run, (A), (B)); }

#define PN_UNARY_KERNELS(VALUE, SLOPE) PN_UNARY_KERNELS_WITH(VALUE, SLOPE, 0, 0)

/* ---- operations of two inputs, broadcast to each other ---------------------------------------------------------- */
int pn_binary_shape(pn_call *call);
int pn_binary_forward(pn_call *call, pn_run run);
int pn_binary_backward(pn_call *call, pn_run run_a, pn_run run_b);

#define PN_BINARY_LOOP(CONDITION, SA, SB, VALUE)                                                                                   \
  if (CONDITION) {                                                                                                                 \
    for (int64_t i = 0; i < n; i++) {                                                                                              \
      const real a = pa[i * (SA)], b = pb[i * (SB)];                                                                               \
      to[i] = (VALUE);                                                                                                             \
    }                                                                                                                              \
    return;                                                                                                                        \
  }
#define PN_BINARY_SLOPE(NAME, SLOPE)                                                                                               \
  static void NAME(void *context, int64_t n, char *const *at, const int64_t *stride) {                                             \
    const bool fresh = *(const bool *)context;                                                                                     \
    real *restrict to = (real *)(void *)at[0];                                                                                     \
    const real *restrict up = (const real *)(const void *)at[1];                                                                   \
    const real *restrict pa = (const real *)(const void *)at[2], *restrict pb = (const real *)(const void *)at[3];                 \
    const int64_t s0 = stride[0], s1 = stride[1], sa = stride[2], sb = stride[3];                                                  \
    if (s0 == 1 && s1 == 1 && sa == 1 && sb == 1 && fresh) {                                                                       \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real a = pa[i], b = pb[i], dy = up[i];                                                                               \
        (void)a, (void)b;                                                                                                          \
        to[i] = (SLOPE);                                                                                                           \
      }                                                                                                                            \
    } else if (s0 == 1 && s1 == 1 && sa == 1 && sb == 1) {                                                                         \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real a = pa[i], b = pb[i], dy = up[i];                                                                               \
        (void)a, (void)b;                                                                                                          \
        to[i] += (SLOPE);                                                                                                          \
      }                                                                                                                            \
    } else {                                                                                                                       \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real a = pa[i * sa], b = pb[i * sb], dy = up[i * s1];                                                                \
        (void)a, (void)b;                                                                                                          \
        const real d = (SLOPE);                                                                                                    \
        to[i * s0] = fresh ? d : to[i * s0] + d;                                                                                   \
      }                                                                                                                            \
    }                                                                                                                              \
  }
/* forward and backward from VALUE of a and b, and the gradients DA and DB from a, b and dy. */
#define PN_BINARY_KERNELS(VALUE, DA, DB)                                                                                           \
  static void value_run(void *context, int64_t n, char *const *at, const int64_t *stride) {                                        \
    (void)context;                                                                                                                 \
    real *restrict to = (real *)(void *)at[0];                                                                                     \
    const real *restrict pa = (const real *)(const void *)at[1], *restrict pb = (const real *)(const void *)at[2];                 \
    const int64_t s0 = stride[0], sa = stride[1], sb = stride[2];                                                                  \
    PN_BINARY_LOOP(s0 == 1 && sa == 1 && sb == 1, 1, 1, VALUE)                                                                     \
    PN_BINARY_LOOP(s0 == 1 && sa == 1 && sb == 0, 1, 0, VALUE)                                                                     \
    PN_BINARY_LOOP(s0 == 1 && sa == 0 && sb == 1, 0, 1, VALUE)                                                                     \
    for (int64_t i = 0; i < n; i++) {                                                                                              \
      const real a = pa[i * sa], b = pb[i * sb];                                                                                   \
      to[i * s0] = (VALUE);                                                                                                        \
    }                                                                                                                              \
  }                                                                                                                                \
  PN_BINARY_SLOPE(slope_a, DA)                                                                                                     \
  PN_BINARY_SLOPE(slope_b, DB)                                                                                                     \
  static int forward(pn_call *call) { return pn_binary_forward(call, value_run); }                                                 \
  static int backward(pn_call *call) { return pn_binary_backward(call, slope_a, slope_b); }

#ifdef __cplusplus
}
#endif
#endif
