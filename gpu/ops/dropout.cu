/* dropout.cu: see core/ops/dropout.c. In the order of memory: each thread works out its element's own four words. */
#include "loop.h"
#include "philox.h"

typedef struct coins {
  uint64_t seed, stream, offset, bound;
  const int64_t *key;
  real scale;
  bool fresh;
} coins;

/* Operands: to, from, and the place of the element in row order. */
PN_KERNEL void toss(pn_loop loop, coins c) {
  const uint64_t seed = c.seed + (c.key ? (uint64_t)*c.key : 0);
  PN_EACH(i, loop.count) {
    int64_t at[PN_LOOP_OPERANDS];
    uint32_t word[4];
    pn_loop_at(&loop, i, at);
    pn_philox_words(seed, c.stream, c.offset + (uint64_t)at[2] / 4, word);
    const real value = word[at[2] % 4] >= c.bound ? pn_loop_get(&loop, 1, at) * c.scale : 0;
    pn_loop_put(&loop, 0, at, c.fresh ? value : pn_loop_get(&loop, 0, at) + value);
  }
}

static int launch(const pn_call *call, pn_tensor *to, const pn_tensor *from, bool fresh) {
  pn_gpu *gpu = pn_gpu_of(to);
  const double p = pn_arg_real(call, "p");
  int64_t rows[PN_MAX_DIMS];
  pn_loop loop;
  if (!gpu) return -1;
  pn_strides_of(to->n_dims, to->shape, PN_ROWS, rows);
  pn_loop_start(&loop, to->n_dims, to->shape);
  pn_loop_add(&loop, to);
  pn_loop_add(&loop, from);
  pn_loop_add_raw(&loop, NULL, 0, rows);
  pn_loop_plan(&loop);
  if (!loop.count) return 0;
  coins c = {};
  c.seed = (uint64_t)pn_arg_int(call, "seed");
  c.stream = (uint64_t)pn_arg_int(call, "stream");
  c.offset = (uint64_t)pn_arg_int(call, "offset");
  c.bound = pn_coin_bound(p);
  c.key = call->x[1] ? (const int64_t *)(const void *)pn_bytes_of(call->x[1]) : NULL;
  c.scale = (real)(1 / (1 - p));
  c.fresh = fresh;
  return PN_LAUNCH(gpu, toss, pn_gpu_blocks(gpu, loop.count, 256), 256, loop, c);
}

static int forward(pn_call *call) { return launch(call, call->y[0], call->x[0], true); }

static int backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  return dx ? launch(call, dx, call->dy[0], fresh) : 0;
}

PN_CUDA_KERNEL(dropout, forward, backward)
