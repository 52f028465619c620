/* sigmoid: y = 1 / (1 + e^-x), from e^-|x| so that nothing overflows (kernels/curves.h). */
#include "kernels/curves.h"
#include "kernels/elementwise.h"

enum { CHUNK = 256 };

static void run(const pn_unary *k, int64_t n, char *const *at, const int64_t *stride, bool slope) {
  const pn_curve_kernels *kernels = pn_curves();
  real *to = (real *)(void *)at[0], room[CHUNK], y[CHUNK];
  const real *dy = (const real *)(const void *)at[1], *x = (const real *)(const void *)at[slope ? 2 : 1];
  const int64_t step = stride[slope ? 2 : 1];
  for (int64_t i = 0; i < n; i += CHUNK) {
    int64_t m = pn_min64(CHUNK, n - i);
    for (int64_t c = 0; step != 1 && c < m; c++) room[c] = x[(i + c) * step];
    kernels->sigmoid(!slope && stride[0] == 1 ? to + i : y, step == 1 ? x + i : room, m);
    if (slope) {
      for (int64_t c = 0; c < m; c++) y[c] = pn_sigmoid_slope_from(y[c], dy[(i + c) * stride[1]]);
      for (int64_t c = 0; c < m; c++) to[(i + c) * stride[0]] = k->fresh ? y[c] : to[(i + c) * stride[0]] + y[c];
    } else {
      for (int64_t c = 0; stride[0] != 1 && c < m; c++) to[(i + c) * stride[0]] = y[c];
    }
  }
}

static void value_run(void *context, int64_t n, char *const *at, const int64_t *stride) { run(context, n, at, stride, false); }
static void slope_run(void *context, int64_t n, char *const *at, const int64_t *stride) { run(context, n, at, stride, true); }
static int forward(pn_call *call) { return pn_unary_forward(call, value_run); }
static int backward(pn_call *call) { return pn_unary_backward(call, slope_run); }

static const char *const cases[] = { "2,3,2,3,5", "7", 0 };
const pn_op pn_op_sigmoid = {
  .name = "sigmoid",
  .help = "logistic function 1 / (1 + e^-x)",
  .inputs = "x",
  .cases = cases,
  .shape = pn_unary_shape,
  .cpu = {forward, backward}
};
