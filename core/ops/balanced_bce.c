/* balanced_bce: class-balanced binary cross entropy (OSVOS, Caelles et al. 2017; METHOD 5). Logits x, targets 0 or 1 (real or u8).
**
**   L = (N/T) sum over y=1 of l + (P/T) sum over y=0 of l,    l = max(x,0) - x*y + log(1 + e^-|x|)
**
** with P and N the numbers of ones and zeros over the whole input and T = P + N. The weights are constants in the gradient.
** void, where given, is not 0 at elements left out of P, N and T.
** norm: sum is L; mean is L / T; batch is L over the size of the first axis; none: the terms of L, of the shape of x, 0 where void.
** empty: when there are no ones (or no zeros) L would be 0 without gradient: unweighted takes the plain sum instead, zero keeps
** that. With every element void the loss is 0. */
#include "kernels/bce.h"

static int forward(pn_call *call) { return pn_bce_forward(call, true); }

static const pn_arg args[] = {
  {"norm",                                                                 PN_CHOICE, "mean", .choices = "mean|sum|batch|none",
   .help = "what the balanced sum is divided by; none: no sum, its terms" },
  { "empty",                                                                PN_CHOICE, "unweighted", .choices = "unweighted|zero", .help = "the loss when all targets are of one class" },
  { 0},
};
static const char *const cases[] = { "2,1,2,3,4 2,1,2,3,4:01",
                                     "13 13:01 norm=sum",
                                     "2,1,2,3,4 2,1,2,3,4:01 2,1,2,3,4:01 norm=batch",
                                     "2,7 2,7:01 2,7:01 empty=zero",
                                     "2,1,2,3,4 2,1,2,3,4:01 norm=none",
                                     "2,7 2,7:01 2,7:u8 norm=none",
                                     0 };
const pn_op pn_op_balanced_bce = {
  .name = "balanced_bce",
  .help = "class-balanced binary cross entropy of logits",
  .inputs = "x target void?",
  .args = args,
  .cases = cases,
  .shape = pn_bce_shape,
  .cpu = {forward, pn_bce_backward},
  .constant_inputs = { false,   true,            true }
};
