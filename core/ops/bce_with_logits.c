/* bce_with_logits: binary cross entropy of logits x with targets in 0..1 (real or u8), one number. void, where given, is not 0
** at elements that do not count. norm: mean over those that count, sum, or batch: the sum over the size of the first axis. */
#include "kernels/bce.h"

static int forward(pn_call *call) {
  pn_bce_sums s;
  pn_tensor *counted;
  if (pn_bce_sum(call, false, &s)) return -1;
  double divisor = pn_bce_divisor(call, s.n[0] + s.n[1]);
  *pn_real_of(call->y[0]) = (real)((s.loss[0] + s.loss[1]) / divisor);
  if (!call->recording) return 0;
  if (pn_tensor_new(&counted, PN_F64, 0, NULL, PN_ROWS, PN_CPU)) return -1;
  *(double *)(void *)pn_bytes_of(counted) = 1 / divisor;
  pn_call_save(call, 0, counted);
  return 0;
}

static int backward(pn_call *call) {
  double weight = *(const double *)(const void *)pn_bytes_of(call->saved[0]);
  return pn_bce_back(call, (double[]){ weight, weight });
}

static const pn_arg args[] = {
  {"norm",  PN_CHOICE, "mean", .choices = "mean|sum|batch", .help = "what the sum is divided by" },
  { 0}
};
static const char *const cases[] = { "2,1,2,3,4 2,1,2,3,4:01", "7 7:01 norm=sum", "2,1,2,3,4 2,1,2,3,4:01 2,1,2,3,4:u8 norm=batch",
                                     "2,3 2,3:01 2,3:01", 0 };
const pn_op pn_op_bce_with_logits = {
  .name = "bce_with_logits",
  .help = "binary cross entropy of logits",
  .inputs = "x target void?",
  .args = args,
  .cases = cases,
  .shape = pn_bce_shape,
  .cpu = {forward, backward},
  .constant_inputs = { false,   true,     true }
};
