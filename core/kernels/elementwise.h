/* elementwise.h: operations that work element by element: each supplies the run of a pn_loop (loop.h), written with the macros below,
** once for dense and once for strided data. */
#ifndef PENUMBRA_KERNELS_ELEMENTWISE_H
#define PENUMBRA_KERNELS_ELEMENTWISE_H
#include "kernels/formulas.h"
#include "kernels/loop.h"
#include "op.h"
#ifdef __cplusplus
extern "C" {
#endif

/* ---- operations of one input ------------------------------------------------------------------------------------ */
typedef struct pn_unary {
  real a, b;
  bool fresh;
} pn_unary; /* the first two arguments; is dx to be written or added to? */

PN_API int pn_unary_shape(pn_call *call);
PN_API pn_unary pn_unary_numbers(const pn_call *call);
int pn_unary_forward(pn_call *call, pn_run run);
int pn_unary_backward(pn_call *call, pn_run run);

/* forward and backward from the formulas of an operation. */
#define PN_UNARY_KERNELS(name)                                                                                                     \
  static void value_run(void *context, int64_t n, char *const *at, const int64_t *stride) {                                        \
    const pn_unary *k = context;                                                                                                   \
    const real a = k->a, b = k->b;                                                                                                 \
    real *restrict to = (real *)(void *)at[0];                                                                                     \
    const real *restrict from = (const real *)(const void *)at[1];                                                                 \
    const int64_t s0 = stride[0], s1 = stride[1];                                                                                  \
    if (s0 == 1 && s1 == 1) {                                                                                                      \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real x = from[i];                                                                                                    \
        to[i] = pn_##name##_value(x, a, b);                                                                                        \
      }                                                                                                                            \
    } else {                                                                                                                       \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real x = from[i * s1];                                                                                               \
        to[i * s0] = pn_##name##_value(x, a, b);                                                                                   \
      }                                                                                                                            \
    }                                                                                                                              \
  }                                                                                                                                \
  static void slope_run(void *context, int64_t n, char *const *at, const int64_t *stride) {                                        \
    const pn_unary *k = context;                                                                                                   \
    const real a = k->a, b = k->b;                                                                                                 \
    real *restrict to = (real *)(void *)at[0];                                                                                     \
    const real *restrict up = (const real *)(const void *)at[1];                                                                   \
    const real *restrict from = (const real *)(const void *)at[2];                                                                 \
    const int64_t s0 = stride[0], s1 = stride[1], s2 = stride[2];                                                                  \
    if (s0 == 1 && s1 == 1 && s2 == 1 && k->fresh) {                                                                               \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real x = from[i], dy = up[i];                                                                                        \
        to[i] = pn_##name##_slope(x, dy, a, b);                                                                                    \
      }                                                                                                                            \
    } else if (s0 == 1 && s1 == 1 && s2 == 1) {                                                                                    \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real x = from[i], dy = up[i];                                                                                        \
        to[i] += pn_##name##_slope(x, dy, a, b);                                                                                   \
      }                                                                                                                            \
    } else {                                                                                                                       \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real x = from[i * s2], dy = up[i * s1];                                                                              \
        const real dx = pn_##name##_slope(x, dy, a, b);                                                                            \
        to[i * s0] = k->fresh ? dx : to[i * s0] + dx;                                                                              \
      }                                                                                                                            \
    }                                                                                                                              \
  }                                                                                                                                \
  static int forward(pn_call *call) { return pn_unary_forward(call, value_run); }                                                  \
  static int backward(pn_call *call) { return pn_unary_backward(call, slope_run); }

/* ---- operations of two inputs, broadcast to each other ---------------------------------------------------------- */
int pn_binary_shape(pn_call *call);
/* The shape of all inputs broadcast to each other. The result looks like the first input that has it, so that layout and grid go on. */
int pn_broadcast_shape(pn_call *call, pn_dtype dtype);
int pn_binary_forward(pn_call *call, pn_run run);
int pn_binary_backward(pn_call *call, pn_run run_a, pn_run run_b);
/* Backward for input i, which may have been broadcast, by a run over what it adds into, dy, x[0] and x[1]. */
typedef struct pn_sloped {
  bool fresh;     /* is it to be written or added to? */
  pn_dtype dtype; /* of x[0] */
} pn_sloped;
int pn_broadcast_backward(pn_call *call, int i, pn_run run);
int pn_binary_pass_on(pn_call *call, double sign); /* backward of a + b and a - b: dy itself, times sign for b */

#define PN_BINARY_LOOP(CONDITION, SA, SB, VALUE)                                                                                   \
  if (CONDITION) {                                                                                                                 \
    for (int64_t i = 0; i < n; i++) {                                                                                              \
      const real a = pa[i * (SA)], b = pb[i * (SB)];                                                                               \
      to[i] = VALUE(a, b);                                                                                                         \
    }                                                                                                                              \
    return;                                                                                                                        \
  }
#define PN_BINARY_SLOPE(NAME, SLOPE)                                                                                               \
  static void NAME(void *context, int64_t n, char *const *at, const int64_t *stride) {                                             \
    const bool fresh = ((const pn_sloped *)context)->fresh;                                                                        \
    real *restrict to = (real *)(void *)at[0];                                                                                     \
    const real *restrict up = (const real *)(const void *)at[1];                                                                   \
    const real *restrict pa = (const real *)(const void *)at[2], *restrict pb = (const real *)(const void *)at[3];                 \
    const int64_t s0 = stride[0], s1 = stride[1], sa = stride[2], sb = stride[3];                                                  \
    if (s0 == 1 && s1 == 1 && sa == 1 && sb == 1 && fresh) {                                                                       \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real a = pa[i], b = pb[i], dy = up[i];                                                                               \
        to[i] = SLOPE(a, b, dy);                                                                                                   \
      }                                                                                                                            \
    } else if (s0 == 1 && s1 == 1 && sa == 1 && sb == 1) {                                                                         \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real a = pa[i], b = pb[i], dy = up[i];                                                                               \
        to[i] += SLOPE(a, b, dy);                                                                                                  \
      }                                                                                                                            \
    } else {                                                                                                                       \
      for (int64_t i = 0; i < n; i++) {                                                                                            \
        const real a = pa[i * sa], b = pb[i * sb], dy = up[i * s1];                                                                \
        const real d = SLOPE(a, b, dy);                                                                                            \
        to[i * s0] = fresh ? d : to[i * s0] + d;                                                                                   \
      }                                                                                                                            \
    }                                                                                                                              \
  }
/* forward from the formula of an operation. */
#define PN_BINARY_VALUE(name)                                                                                                      \
  static void value_run(void *context, int64_t n, char *const *at, const int64_t *stride) {                                        \
    (void)context;                                                                                                                 \
    real *restrict to = (real *)(void *)at[0];                                                                                     \
    const real *restrict pa = (const real *)(const void *)at[1], *restrict pb = (const real *)(const void *)at[2];                 \
    const int64_t s0 = stride[0], sa = stride[1], sb = stride[2];                                                                  \
    PN_BINARY_LOOP(s0 == 1 && sa == 1 && sb == 1, 1, 1, pn_##name##_value)                                                         \
    PN_BINARY_LOOP(s0 == 1 && sa == 1 && sb == 0, 1, 0, pn_##name##_value)                                                         \
    PN_BINARY_LOOP(s0 == 1 && sa == 0 && sb == 1, 0, 1, pn_##name##_value)                                                         \
    for (int64_t i = 0; i < n; i++) {                                                                                              \
      const real a = pa[i * sa], b = pb[i * sb];                                                                                   \
      to[i * s0] = pn_##name##_value(a, b);                                                                                        \
    }                                                                                                                              \
  }                                                                                                                                \
  static int forward(pn_call *call) { return pn_binary_forward(call, value_run); }

/* forward and backward. */
#define PN_BINARY_KERNELS(name)                                                                                                    \
  PN_BINARY_VALUE(name)                                                                                                            \
  PN_BINARY_SLOPE(slope_a, pn_##name##_slope_a)                                                                                    \
  PN_BINARY_SLOPE(slope_b, pn_##name##_slope_b)                                                                                    \
  static int backward(pn_call *call) { return pn_binary_backward(call, slope_a, slope_b); }

/* ---- comparisons of two inputs ------------------------------------------------------------------------------------
** Integers are compared as integers, whatever their types; an integer with a real as reals. No gradient. */
typedef struct pn_compared {
  pn_dtype a, b; /* element types */
  bool integers;
} pn_compared;
PN_API pn_compared pn_compared_of(const pn_call *call);
int pn_comparison_forward(pn_call *call, pn_run run);

#define PN_COMPARISON_KERNEL(name)                                                                                                 \
  static void value_run(void *context, int64_t n, char *const *at, const int64_t *stride) {                                        \
    const pn_compared *of = context;                                                                                               \
    const int64_t s0 = stride[0], sa = stride[1], sb = stride[2];                                                                  \
    for (int64_t i = 0; i < n; i += PN_CHUNK) {                                                                                    \
      const int64_t m = pn_min64(PN_CHUNK, n - i);                                                                                 \
      real *restrict to = (real *)(void *)at[0] + i * s0;                                                                          \
      const char *pa = at[1] + i * sa * pn_dtype_bytes(of->a), *pb = at[2] + i * sb * pn_dtype_bytes(of->b);                       \
      if (of->integers) {                                                                                                          \
        int64_t room_a[PN_CHUNK], room_b[PN_CHUNK];                                                                                \
        const int64_t *a = pn_as_integers(room_a, pa, of->a, sa, m), *b = pn_as_integers(room_b, pb, of->b, sb, m);                \
        for (int64_t k = 0; k < m; k++) to[k * s0] = pn_##name##_of_integers(a[k], b[k]);                                          \
      } else {                                                                                                                     \
        real room_a[PN_CHUNK], room_b[PN_CHUNK];                                                                                   \
        const real *a = pn_as_reals(room_a, pa, of->a, sa, m), *b = pn_as_reals(room_b, pb, of->b, sb, m);                         \
        if (s0 == 1)                                                                                                               \
          for (int64_t k = 0; k < m; k++) to[k] = pn_##name##_value(a[k], b[k]);                                                   \
        else                                                                                                                       \
          for (int64_t k = 0; k < m; k++) to[k * s0] = pn_##name##_value(a[k], b[k]);                                              \
      }                                                                                                                            \
    }                                                                                                                              \
  }                                                                                                                                \
  static int forward(pn_call *call) { return pn_comparison_forward(call, value_run); }

#ifdef __cplusplus
}
#endif
#endif
