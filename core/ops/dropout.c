/* dropout: y = x / (1 - p) where a coin with probability 1 - p says so, else 0. Element i (in row order) takes word i % 4 of
** Philox at counter offset + i / 4 of the stream, and stays where word / 2^32 >= p: the same elements for the same numbers, on
** any thread count and in backward, which tosses again instead of keeping a mask. */
#include "kernels/elementwise.h"

static int shape(pn_call *call) {
  if (pn_arg_real(call, "p") >= 1) return pn_fail_shapes(call, "p must be smaller than 1: nothing would be left");
  return pn_unary_shape(call);
}

typedef struct job {
  const pn_tensor *from, *to;
  uint64_t seed, stream, offset;
  double p;
  bool fresh;
} job;

static void elements(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const real *from = pn_real_of(j->from);
  real *to = pn_real_of(j->to), scale = (real)(1 / (1 - j->p));
  uint32_t word[4];
  for (int64_t i = begin; i < end; i++) {
    if (i == begin || i % 4 == 0) pn_philox(j->seed, j->stream, j->offset + (uint64_t)i / 4, word);
    int64_t at_from = 0, at_to = 0, rest = i;
    for (int d = j->to->n_dims - 1; d >= 0; d--) {
      int64_t index = rest % j->to->shape[d];
      rest /= j->to->shape[d];
      at_from += index * j->from->stride[d];
      at_to += index * j->to->stride[d];
    }
    real value = (double)word[i % 4] >= j->p * 4294967296.0 ? from[at_from] * scale : 0;
    to[at_to] = j->fresh ? value : to[at_to] + value;
  }
}

static void toss(const pn_call *call, pn_tensor *to, const pn_tensor *from, bool fresh) {
  job j = { from,
            to,
            (uint64_t)pn_arg_int(call, "seed"),
            (uint64_t)pn_arg_int(call, "stream"),
            (uint64_t)pn_arg_int(call, "offset"),
            pn_arg_real(call, "p"),
            fresh };
  pn_parallel(pn_tensor_count(to), 4096, elements, &j);
}

static int forward(pn_call *call) {
  toss(call, call->y[0], call->x[0], true);
  return 0;
}

static int backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (dx) toss(call, dx, call->dy[0], fresh);
  return 0;
}

static const pn_arg args[] = {
  {"p",     PN_REAL, "0.5", 0, 1, .help = "probability of 0" },
  { "seed",  PN_INT, .help = "key of Philox" },
  { "stream",      PN_INT, "0", .help = "stream of Philox" },
  { "offset",      PN_INT, "0", .help = "its first counter; a call uses count / 4 of them, rounded up" },
  { 0},
};
static const char *const cases[] = { "2,3,2,3,5 p=0.3 seed=7", "11 seed=1 stream=5 offset=100", "3 p=0 seed=0", 0 };
const pn_op pn_op_dropout = {
  .name = "dropout",
  .help = "elements set to 0 by a replayable coin",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
