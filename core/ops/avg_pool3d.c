/* avg_pool3d: mean of each window. x (N,C,T,H,W) -> y (N,C,T',H',W'). Padding does not count, unless count_include_pad, where it
** counts as zeros. */
#include "kernels/pool.h"

static int forward(pn_call *call) {
  pn_window w = pn_window_of(call);
  return pn_avg_pool(&w, pn_arg_int(call, "count_include_pad") != 0, call->y[0], call->x[0]);
}

static int backward(pn_call *call) {
  pn_window w = pn_window_of(call);
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  return dx ? pn_avg_pool_back(&w, pn_arg_int(call, "count_include_pad") != 0, dx, !fresh, call->dy[0]) : 0;
}

static const pn_arg args[] = {
  {"kernel",                              PN_INT3, .min = 1, .max = 4096, .help = "size of the window (t,h,w)" },
  { "stride",                             PN_INT3, "=kernel", 1, 1e9, .help = "from one window to the next (t,h,w)" },
  { "pad", PN_PAD3, "same", 0, 1e9, .help = "same (TensorFlow's rule) or numbers" },
  { "count_include_pad",                             PN_BOOL, "false", .help = "padding counts as zeros" },
  { 0                           },
};
static const char *const cases[] = { "2,3,4,6,6 kernel=1,3,3 stride=1,2,2",
                                     "1,2,5,7,4 kernel=3,3,3 stride=2,2,2 count_include_pad=true",
                                     "1,2,4,5,6 kernel=2,2,2",
                                     "1,2,3,5,7 kernel=2,3,2 stride=1,3,2 pad=1,0,0,2,1,1",
                                     "1,1,5,5,5 kernel=1,2,1 stride=2,3,2 pad=0",
                                     0 };
const pn_op pn_op_avg_pool3d = {
  .name = "avg_pool3d",
  .help = "mean of each window",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = pn_window_shape,
  .cpu = {forward, backward}
};
