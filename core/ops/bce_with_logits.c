/* bce_with_logits: binary cross entropy of logits x with targets in 0..1 (real or u8). void, where given, is not 0
** at elements that do not count. norm: mean over those that count, sum, or batch: the sum over the size of the first axis; one number.
** norm none: the loss of each element, of the shape of x; 0 where it is void. */
#include "kernels/bce.h"

static int forward(pn_call *call) { return pn_bce_forward(call, false); }

static const pn_arg args[] = {
  {"norm",  PN_CHOICE, "mean", .choices = "mean|sum|batch|none",
   .help = "what the sum is divided by; none: no sum, the loss of each element" },
  { 0}
};
static const char *const cases[] = { "2,1,2,3,4 2,1,2,3,4:01",
                                     "7 7:01 norm=sum",
                                     "2,1,2,3,4 2,1,2,3,4:01 2,1,2,3,4:u8 norm=batch",
                                     "2,3 2,3:01 2,3:01",
                                     "2,1,2,3,4 2,1,2,3,4:01 norm=none",
                                     "2,7 2,7:01 2,7:u8 norm=none",
                                     0 };
const pn_op pn_op_bce_with_logits = {
  .name = "bce_with_logits",
  .help = "binary cross entropy of logits",
  .inputs = "x target void?",
  .args = args,
  .cases = cases,
  .shape = pn_bce_shape,
  .cpu = {forward, pn_bce_backward},
  .constant_inputs = { false,   true,            true }
};
