/* where: y = a where c is not 0, else b; all three broadcast (NumPy rules). c: real (f16 and bf16 on a CUDA device), u8, i32 or i64; its
** NaN is not 0. The gradient goes to the one chosen, the other gets 0: what was not chosen, NaN and infinities too, spreads nowhere. */
#include "kernels/elementwise.h"

static int shape(pn_call *call) {
  for (int i = 0; i < 3; i++)
    if (pn_need_real(call, i)) return -1;
  return pn_broadcast_shape(call, pn_joint_dtype(call->x[1], call->x[2]));
}

static const real *reals(real *room, const char *p, pn_dtype dtype, int64_t stride, int64_t first, int64_t n) {
  return pn_as_reals(room, p + first * stride * pn_dtype_bytes(dtype), dtype, stride, n);
}

static void value_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const pn_dtype dtype = *(const pn_dtype *)context;
  real room_c[PN_CHUNK], room_a[PN_CHUNK], room_b[PN_CHUNK];
  for (int64_t i = 0; i < n; i += PN_CHUNK) {
    const int64_t m = pn_min64(PN_CHUNK, n - i), s0 = stride[0];
    const real *c = reals(room_c, at[1], dtype, stride[1], i, m);
    const real *a = reals(room_a, at[2], PN_REAL_DTYPE, stride[2], i, m), *b = reals(room_b, at[3], PN_REAL_DTYPE, stride[3], i, m);
    real *restrict y = (real *)(void *)at[0] + i * s0;
    if (s0 == 1)
      for (int64_t k = 0; k < m; k++) y[k] = pn_where_value(c[k], a[k], b[k]);
    else
      for (int64_t k = 0; k < m; k++) y[k * s0] = pn_where_value(c[k], a[k], b[k]);
  }
}

static int forward(pn_call *call) {
  pn_dtype dtype = call->x[0]->dtype;
  const pn_tensor *y = call->y[0];
  pn_loop loop;
  pn_loop_start(&loop, y->n_dims, y->shape);
  pn_loop_add(&loop, y);
  for (int i = 0; i < 3; i++) pn_loop_add(&loop, call->x[i]);
  pn_loop_plan(&loop);
  pn_loop_all(&loop, value_run, &dtype);
  return 0;
}

#define SLOPE_RUN(NAME, SLOPE)                                                                                                     \
  static void NAME(void *context, int64_t n, char *const *at, const int64_t *stride) {                                             \
    const pn_sloped *k = context;                                                                                                  \
    real room_c[PN_CHUNK], room_dy[PN_CHUNK];                                                                                      \
    for (int64_t i = 0; i < n; i += PN_CHUNK) {                                                                                    \
      const int64_t m = pn_min64(PN_CHUNK, n - i), s0 = stride[0];                                                                 \
      const real *dy = reals(room_dy, at[1], PN_REAL_DTYPE, stride[1], i, m),                                                      \
                 *c = reals(room_c, at[2], k->dtype, stride[2], i, m);                                                             \
      real *restrict dx = (real *)(void *)at[0] + i * s0;                                                                          \
      for (int64_t e = 0; e < m; e++) dx[e * s0] = k->fresh ? SLOPE(c[e], dy[e]) : dx[e * s0] + SLOPE(c[e], dy[e]);                \
    }                                                                                                                              \
  }
SLOPE_RUN(slope_a, pn_where_slope_a)
SLOPE_RUN(slope_b, pn_where_slope_b)

static int backward(pn_call *call) {
  return pn_broadcast_backward(call, 1, slope_a) || pn_broadcast_backward(call, 2, slope_b) ? -1 : 0;
}

static const char *const cases[] = { "2,3,2,3,5:01 2,3,2,3,5 2,3,2,3,5", "2,3,5:u8 3,1 1,5", "3,1:i64 4 2,3,4", "2,3,1:01 2,1,4 1",
                                     0 };
const pn_op pn_op_where = {
  .name = "where",
  .help = "a where c is not 0, else b",
  .inputs = "c a b",
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward },
  .constant_inputs = { true     },
  .integer_inputs = { true }
};
