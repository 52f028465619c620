/* sub: y = a - b, each broadcast to the other (NumPy rules).
** The gradient of an input of full size is dy itself (b: -dy): nothing is computed for it where it can be handed on. */
#include "kernels/elementwise.h"
#include "kernels/reduce.h"

static void run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  (void)context;
  real *restrict to = (real *)(void *)at[0];
  const real *restrict pa = (const real *)(const void *)at[1], *restrict pb = (const real *)(const void *)at[2];
  const int64_t s0 = stride[0], sa = stride[1], sb = stride[2];
  PN_BINARY_LOOP(s0 == 1 && sa == 1 && sb == 1, 1, 1, a - b)
  PN_BINARY_LOOP(s0 == 1 && sa == 1 && sb == 0, 1, 0, a - b)
  PN_BINARY_LOOP(s0 == 1 && sa == 0 && sb == 1, 0, 1, a - b)
  for (int64_t i = 0; i < n; i++) {
    const real a = pa[i * sa], b = pb[i * sb];
    to[i * s0] = a - b;
  }
}

static int forward(pn_call *call) { return pn_binary_forward(call, run); }

static int gather(pn_call *call, int i, double factor) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, i, &dx, &fresh)) return -1;
  return dx ? pn_sum_into(dx, call->dy[0], factor, fresh) : 0;
}

static int backward(pn_call *call) {
  if (pn_call_wants(call, 1) && gather(call, 1, -1)) return -1;
  if (!pn_call_wants(call, 0)) return 0;
  return pn_same_shape(call->x[0], call->dy[0]) ? pn_call_dx_give(call, 0, call->dy[0]) : gather(call, 0, 1);
}

static const char *const cases[] = { "2,3,2,3,5 2,3,2,3,5", "2,3,2,3,5 1,3,1,1,1", "3,1 4", "2,3,4 1", "4 3,1", 0 };
const pn_op pn_op_sub = {
  .name = "sub",
  .help = "difference, element by element",
  .inputs = "a b",
  .cases = cases,
  .shape = pn_binary_shape,
  .cpu = {forward, backward}
};
