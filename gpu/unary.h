/* unary.h: operations of one input, element by element: forward and backward from VALUE of x and SLOPE of x and dy, and of two numbers a
** and b from the arguments. The expressions are those of core/ops/NAME.c. */
#ifndef PENUMBRA_GPU_UNARY_H
#define PENUMBRA_GPU_UNARY_H
#include "loop.h"

#define PN_CUDA_UNARY(name, VALUE, SLOPE, A, B)                                                                                    \
  PN_KERNEL void value_of(pn_loop loop, real a, real b) {                                                                          \
    (void)a, (void)b;                                                                                                              \
    PN_EACH(i, loop.count) {                                                                                                       \
      int64_t at[PN_LOOP_OPERANDS];                                                                                                \
      pn_loop_at(&loop, i, at);                                                                                                    \
      const real x = pn_loop_get(&loop, 1, at);                                                                                    \
      pn_loop_put(&loop, 0, at, (VALUE));                                                                                          \
    }                                                                                                                              \
  }                                                                                                                                \
  PN_KERNEL void slope_of(pn_loop loop, bool fresh, real a, real b) {                                                              \
    (void)a, (void)b;                                                                                                              \
    PN_EACH(i, loop.count) {                                                                                                       \
      int64_t at[PN_LOOP_OPERANDS];                                                                                                \
      pn_loop_at(&loop, i, at);                                                                                                    \
      const real dy = pn_loop_get(&loop, 1, at), x = pn_loop_get(&loop, 2, at), d = (SLOPE);                                       \
      (void)x, (void)dy;                                                                                                           \
      pn_loop_put(&loop, 0, at, fresh ? d : pn_loop_get(&loop, 0, at) + d);                                                        \
    }                                                                                                                              \
  }                                                                                                                                \
  static int forward(pn_call *call) {                                                                                              \
    pn_gpu *gpu = pn_gpu_of(call->y[0]);                                                                                           \
    pn_loop loop;                                                                                                                  \
    if (!gpu) return -1;                                                                                                           \
    pn_loop_start(&loop, call->y[0]->n_dims, call->y[0]->shape);                                                                   \
    pn_loop_add(&loop, call->y[0]);                                                                                                \
    pn_loop_add(&loop, call->x[0]);                                                                                                \
    pn_loop_plan(&loop);                                                                                                           \
    if (!loop.count) return 0;                                                                                                     \
    return PN_LAUNCH(gpu, value_of, pn_gpu_blocks(gpu, loop.count, 256), 256, loop, (real)(A), (real)(B));                         \
  }                                                                                                                                \
  static int backward(pn_call *call) {                                                                                             \
    pn_gpu *gpu = pn_gpu_of(call->dy[0]);                                                                                          \
    pn_tensor *dx;                                                                                                                 \
    bool fresh;                                                                                                                    \
    pn_loop loop;                                                                                                                  \
    if (!gpu || pn_call_dx(call, 0, &dx, &fresh)) return -1;                                                                       \
    if (!dx) return 0;                                                                                                             \
    pn_loop_start(&loop, dx->n_dims, dx->shape);                                                                                   \
    pn_loop_add(&loop, dx);                                                                                                        \
    pn_loop_add(&loop, call->dy[0]);                                                                                               \
    pn_loop_add(&loop, call->x[0]);                                                                                                \
    pn_loop_plan(&loop);                                                                                                           \
    if (!loop.count) return 0;                                                                                                     \
    return PN_LAUNCH(gpu, slope_of, pn_gpu_blocks(gpu, loop.count, 256), 256, loop, fresh, (real)(A), (real)(B));                  \
  }                                                                                                                                \
  PN_CUDA_KERNEL(name, forward, backward)
#endif
