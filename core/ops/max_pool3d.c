/* max_pool3d: largest value of each window. x (N,C,T,H,W) -> y (N,C,T',H',W'); padding is -inf.
** Ties: the first in t,h,w order wins, and it alone gets the gradient. NaN wins over everything.
** Backward keeps the winner's place in its window, one byte an output. */
#include "kernels/pool.h"

static int shape(pn_call *call) {
  const int64_t *k = pn_call_arg(call, "kernel")->i;
  if (k[0] * k[1] * k[2] > PN_POOL_TAPS) {
    return pn_fail_shapes(call, "kernel %lld,%lld,%lld has %lld places, at most %d are possible", (long long)k[0], (long long)k[1],
                          (long long)k[2], (long long)(k[0] * k[1] * k[2]), PN_POOL_TAPS);
  }
  return pn_window_shape(call);
}

static int forward(pn_call *call) {
  pn_window w = pn_window_of(call);
  pn_tensor *winners = NULL;
  if (call->recording) {
    if (pn_tensor_new(&winners, PN_U8, 5, call->y[0]->shape, PN_CHANNELS_LAST, PN_CPU)) return -1;
    pn_call_save(call, 0, winners);
  }
  return pn_max_pool(&w, call->y[0], winners ? (uint8_t *)pn_bytes_of(winners) : NULL, call->x[0]);
}

static int backward(pn_call *call) {
  pn_window w = pn_window_of(call);
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  return dx ? pn_max_pool_back(&w, dx, !fresh, call->dy[0], (const uint8_t *)pn_bytes_of(call->saved[0])) : 0;
}

static const pn_arg args[] = {
  {"kernel",                              PN_INT3, .min = 1, .max = PN_POOL_TAPS, .help = "size of the window (t,h,w)" },
  { "stride",                             PN_INT3, "=kernel", 1, 1e9, .help = "from one window to the next (t,h,w)" },
  { "pad", PN_PAD3, "same", 0, 1e9, .help = "same (TensorFlow's rule) or numbers" },
  { 0                            },
};
static const char *const cases[] = { "2,3,4,6,6:step kernel=1,3,3 stride=1,2,2",
                                     "1,2,5,7,4:step kernel=3,3,3 stride=2,2,2",
                                     "1,3,3,4,5:step kernel=3,3,3 stride=1",
                                     "1,2,4,5,6:step kernel=2,2,2",
                                     "1,2,3,5,7:step kernel=2,3,2 stride=1,3,2 pad=1,0,0,2,1,1",
                                     "1,1,5,5,5:step kernel=1,2,1 stride=2,3,2 pad=0",
                                     0 };
const pn_op pn_op_max_pool3d = {
  .name = "max_pool3d",
  .help = "largest value of each window",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
