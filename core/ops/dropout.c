/* dropout: y = x / (1 - p) where a coin with probability 1 - p says so, else 0. Element i (in row order) takes word i % 4 of
** Philox at counter offset + i / 4 of the stream, and stays where word / 2^32 >= p: the same elements for the same numbers, on
** any device and thread count and in backward, which tosses again instead of keeping a mask.
**
** key, where given, is one i64 on the device of x, added to the seed when the kernel runs. So a captured step that is replayed
** drops other elements each time: whoever replays it writes the next key first, and the numbers are those of a step that is not
** captured. Backward reads it too: it must not change in between. */
#include "kernels/elementwise.h"
#include "philox.h"

static int shape(pn_call *call) {
  if (pn_arg_real(call, "p") >= 1) return pn_fail_shapes(call, "p must be smaller than 1: nothing would be left");
  const pn_tensor *key = call->x[1];
  if (key && key->dtype != PN_I64) return pn_fail_shapes(call, "key is %s, expected i64", pn_dtype_name(key->dtype));
  if (key && pn_tensor_count(key) != 1)
    return pn_fail_shapes(call, "key has %lld numbers, expected one", (long long)pn_tensor_count(key));
  return pn_unary_shape(call);
}

typedef struct job {
  const pn_tensor *from, *to;
  uint64_t seed, stream, offset, bound;
  real scale;
  bool fresh;
} job;

static void elements(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const real *from = pn_real_of(j->from);
  real *to = pn_real_of(j->to);
  uint32_t word[4];
  for (int64_t i = begin; i < end; i++) {
    if (i == begin || i % 4 == 0) pn_philox_words(j->seed, j->stream, j->offset + (uint64_t)i / 4, word);
    int64_t at_from = 0, at_to = 0, rest = i;
    for (int d = j->to->n_dims - 1; d >= 0; d--) {
      int64_t index = rest % j->to->shape[d];
      rest /= j->to->shape[d];
      at_from += index * j->from->stride[d];
      at_to += index * j->to->stride[d];
    }
    real value = word[i % 4] >= j->bound ? from[at_from] * j->scale : 0;
    to[at_to] = j->fresh ? value : to[at_to] + value;
  }
}

static void toss(const pn_call *call, pn_tensor *to, const pn_tensor *from, bool fresh) {
  const pn_tensor *key = pn_is_dry() ? NULL : call->x[1];
  double p = pn_arg_real(call, "p");
  job j = { .from = from,
            .to = to,
            .seed = (uint64_t)pn_arg_int(call, "seed") + (key ? *(const uint64_t *)(const void *)pn_bytes_of(key) : 0),
            .stream = (uint64_t)pn_arg_int(call, "stream"),
            .offset = (uint64_t)pn_arg_int(call, "offset"),
            .bound = pn_coin_bound(p),
            .scale = (real)(1 / (1 - p)),
            .fresh = fresh };
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
static const char *const cases[] = { "2,3,2,3,5 p=0.3 seed=7", "11 seed=1 stream=5 offset=100", "3 p=0 seed=0",
                                     "2,3,1,2,5 1:i64 p=0.6 seed=3", 0 };
const pn_op pn_op_dropout = {
  .name = "dropout",
  .help = "elements set to 0 by a replayable coin",
  .inputs = "x key?",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward},
  .constant_inputs = { false,  true    }
};
