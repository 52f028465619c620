/* optim.c: one step of an optimiser, in one pass over the memory of all parameters (SGD) or of each (Adam).
**
** SGD, with g = scale·grad + weight_decay·param:
**   torch   buffer = momentum·buffer + (1 - dampening)·g (the first time: g); d = buffer, or g + momentum·buffer (nesterov);
**           param -= lr·d. PyTorch's and Torch7's rule (they differ in the default of dampening, which the caller sets).
**   caffe   the rate is inside the buffer: new = momentum·buffer + lr·g; param -= new, or (1 + momentum)·new - momentum·buffer
**           (nesterov). A change of the rate then takes effect with the delay of the momentum.
** Adam (Kingma & Ba 2015): m and v are moving means of g and g²; param -= lr/(1-b1^t) · m / (sqrt(v/(1-b2^t)) + eps). The decay
** of weights is part of g, or applied to the parameter directly (decoupled; Loshchilov & Hutter 2019).
**
** All tensors have the shape of the parameter. A gradient in another memory order is brought into the parameter's first. */
#include <math.h>
#include "kernels/update.h"

enum { BLOCK = 16384 }; /* elements; blocks lie within one tensor */

static bool same_order(const pn_tensor *a, const pn_tensor *b) {
  for (int d = 0; d < a->n_dims; d++)
    if (a->shape[d] > 1 && a->stride[d] != b->stride[d]) return false;
  return true;
}

static int check_pair(const char *who, const char *name, const pn_tensor *param, const pn_tensor *t) {
  char a[96], b[96];
  if (pn_device_of(t) != pn_device_of(param)) return pn_fail("%s: the %s is on another device than the parameter", who, name);
  if (t->dtype != param->dtype)
    return pn_fail("%s: the %s is %s, the parameter %s", who, name, pn_dtype_name(t->dtype), pn_dtype_name(param->dtype));
  if (pn_same_shape(param, t)) return 0;
  pn_format_shape(a, sizeof a, t->n_dims, t->shape);
  pn_format_shape(b, sizeof b, param->n_dims, param->shape);
  return pn_fail("%s: the %s is %s, the parameter %s", who, name, a, b);
}

static int check_buffer(const char *who, const char *name, const pn_tensor *param, const pn_tensor *t) {
  if (check_pair(who, name, param, t)) return -1;
  return same_order(param, t)
             ? 0
             : pn_fail("%s: the %s has another memory order than the parameter (make it with pn_optim_buffer)", who, name);
}

/* The gradient in the parameter's memory order; a reference that the caller drops. */
static int aligned_grad(pn_tensor **out, const char *who, const pn_tensor *param, pn_tensor *grad) {
  if (pn_device_of(param) != PN_CPU) return pn_fail("%s: no kernel for this device", who);
  if (param->dtype != PN_REAL_DTYPE)
    return pn_fail("%s: the parameter is %s, expected %s", who, pn_dtype_name(param->dtype), pn_dtype_name(PN_REAL_DTYPE));
  if (!pn_is_plain(param)) return pn_fail("%s: the parameter has gaps between its elements", who);
  if (check_pair(who, "gradient", param, grad)) return -1;
  if (same_order(param, grad)) {
    pn_tensor_retain(grad);
    *out = grad;
    return 0;
  }
  pn_tensor *copy;
  if (pn_tensor_like(&copy, param)) return -1;
  if (pn_tensor_copy(copy, grad)) {
    pn_tensor_release(copy);
    return -1;
  }
  *out = copy;
  return 0;
}

int pn_optim_buffer(pn_tensor **out, pn_tensor *param) {
  if (!out || !param) return pn_fail("optim_buffer: NULL");
  pn_tensor *t;
  if (pn_tensor_like(&t, param)) return -1;
  if (pn_tensor_fill(t, 0)) {
    pn_tensor_release(t);
    return -1;
  }
  *out = t;
  return 0;
}

/* ---- many tensors as one range of blocks --------------------------------------------------------------------------------------- */

typedef struct piece {
  int64_t first, count; /* its first block; its elements */
  const real *grad;
  real *param, *buffer;
  pn_sgd_numbers numbers;
  pn_tensor *held; /* the gradient */
} piece;

typedef struct pieces {
  piece *at;
  int64_t n, n_blocks;
  double *partial; /* sums of squares, one a block */
} pieces;

static int pieces_new(pieces *p, int64_t n) {
  *p = (pieces){ .n = 0 };
  return (p->at = pn_alloc(sizeof *p->at * (size_t)pn_max64(n, 1))) ? 0 : -1;
}

static piece *pieces_add(pieces *p, pn_tensor *held, int64_t count) {
  piece *a = &p->at[p->n++];
  *a = (piece){ .first = p->n_blocks, .count = count, .grad = pn_real_of(held), .held = held };
  p->n_blocks += pn_ceil_div(count, BLOCK);
  return a;
}

static void pieces_free(pieces *p) {
  for (int64_t i = 0; i < p->n; i++) pn_tensor_release(p->at[i].held);
  pn_free(p->at);
}

/* The piece that block b lies in, and its elements there. */
static const piece *block_of(const pieces *p, int64_t b, int64_t *begin, int64_t *count) {
  int64_t low = 0, high = p->n - 1;
  while (low < high) { /* the last piece that begins at b or before it; those without elements share their block with the next */
    int64_t middle = (low + high + 1) / 2;
    if (p->at[middle].first <= b) low = middle;
    else high = middle - 1;
  }
  const piece *a = &p->at[low];
  *begin = (b - a->first) * BLOCK;
  *count = pn_min64(BLOCK, a->count - *begin);
  return a;
}

/* ---- SGD ------------------------------------------------------------------------------------------------------------------ */

static void sgd_blocks(void *context, int64_t begin, int64_t end) {
  const pieces *p = context;
  for (int64_t b = begin; b < end; b++) {
    int64_t at, n;
    const piece *a = block_of(p, b, &at, &n);
    pn_updates()->sgd(a->param + at, a->buffer ? a->buffer + at : NULL, a->grad + at, n, &a->numbers);
  }
}

static int add_sgd(pieces *p, const pn_sgd_entry *e, const pn_sgd *how) {
  pn_tensor *g;
  if (!e->param || !e->grad) return pn_fail("sgd_step: NULL");
  if (how->momentum != 0 && !e->buffer) return pn_fail("sgd_step: momentum needs a buffer");
  if (e->buffer && check_buffer("sgd_step", "buffer", e->param, e->buffer)) return -1;
  if (aligned_grad(&g, "sgd_step", e->param, e->grad)) return -1;
  piece *a = pieces_add(p, g, pn_tensor_count(e->param));
  a->param = pn_real_of(e->param);
  a->buffer = e->buffer ? pn_real_of(e->buffer) : NULL;
  a->numbers = (pn_sgd_numbers){ .rule = !e->buffer                        ? PN_RULE_PLAIN
                                         : how->convention == PN_SGD_CAFFE ? PN_RULE_CAFFE
                                         : e->first                        ? PN_RULE_TORCH_FIRST
                                                                           : PN_RULE_TORCH,
                                 .scale = (real)how->grad_scale,
                                 .decay = (real)e->weight_decay,
                                 .rate = (real)e->lr,
                                 .momentum = (real)how->momentum,
                                 .fresh = (real)(1 - how->dampening),
                                 .nesterov = how->nesterov };
  return 0;
}

int pn_sgd_step(const pn_sgd_entry *entries, int64_t n, const pn_sgd *how) {
  if (!entries || !how) return pn_fail("sgd_step: NULL");
  if (how->convention != PN_SGD_TORCH && how->convention != PN_SGD_CAFFE)
    return pn_fail("sgd_step: unknown convention %d", (int)how->convention);
  if (how->nesterov && (how->momentum == 0 || how->dampening != 0))
    return pn_fail("sgd_step: nesterov needs momentum and no dampening");
  pieces p;
  if (pieces_new(&p, n)) return -1;
  int rc = 0;
  for (int64_t i = 0; i < n && !rc; i++) rc = add_sgd(&p, &entries[i], how);
  if (!rc) pn_parallel(p.n_blocks, 1, sgd_blocks, &p);
  for (int64_t i = 0; i < n && !rc; i++) {
    pn_storage_wrote(entries[i].param->storage);
    if (entries[i].buffer) pn_storage_wrote(entries[i].buffer->storage);
  }
  pieces_free(&p);
  return rc;
}

/* ---- Adam ----------------------------------------------------------------------------------------------------------------- */

typedef struct adam {
  real *param, *mean, *square;
  const real *grad;
  pn_adam_numbers numbers;
} adam;

static void adam_range(void *context, int64_t begin, int64_t end) {
  const adam *s = context;
  pn_updates()->adam(s->param + begin, s->mean + begin, s->square + begin, s->grad + begin, end - begin, &s->numbers);
}

int pn_adam_step(pn_tensor *param, pn_tensor *grad, pn_tensor *mean, pn_tensor *square, const pn_adam *how) {
  if (!param || !grad || !mean || !square || !how) return pn_fail("adam_step: NULL");
  if (how->step < 1) return pn_fail("adam_step: step %lld, the first is 1", (long long)how->step);
  if (check_buffer("adam_step", "first moment", param, mean) || check_buffer("adam_step", "second moment", param, square))
    return -1;
  pn_tensor *g;
  if (aligned_grad(&g, "adam_step", param, grad)) return -1;
  double t = (double)how->step;
  adam s = {
    .param = pn_real_of(param),
    .mean = pn_real_of(mean),
    .square = pn_real_of(square),
    .grad = pn_real_of(g),
    .numbers = {.scale = (real)how->grad_scale,
                .decay = how->decoupled ? 0 : (real)how->weight_decay,
                .shrink = how->decoupled ? (real)(1 - how->lr * how->weight_decay) : 1,
                .rate = (real)(how->lr / (1 - pow(how->beta1, t))),
                .beta1 = (real)how->beta1,
                .beta2 = (real)how->beta2,
                .root = (real)(1 / sqrt(1 - pow(how->beta2, t))),
                .eps = (real)how->eps}
  };
  pn_parallel(pn_tensor_count(param), BLOCK, adam_range, &s);
  pn_tensor_release(g);
  pn_storage_wrote(param->storage);
  pn_storage_wrote(mean->storage);
  pn_storage_wrote(square->storage);
  return 0;
}

/* ---- norm: partial sums over fixed blocks, added in order, so that threads do not show --------------------------------------- */

static void squares_blocks(void *context, int64_t begin, int64_t end) {
  const pieces *p = context;
  for (int64_t b = begin; b < end; b++) {
    int64_t at, n;
    const piece *a = block_of(p, b, &at, &n);
    p->partial[b] = pn_updates()->sum_squares(a->grad + at, n);
  }
}

static int add_squares(pieces *p, pn_tensor *t) {
  pn_tensor *plain = t;
  if (!t) return pn_fail("sum_squares: NULL");
  if (pn_device_of(t) != PN_CPU) return pn_fail("sum_squares: no kernel for this device");
  if (t->dtype != PN_REAL_DTYPE)
    return pn_fail("sum_squares: %s, expected %s", pn_dtype_name(t->dtype), pn_dtype_name(PN_REAL_DTYPE));
  if (pn_is_plain(t)) pn_tensor_retain(t);
  else if (pn_tensor_contiguous(&plain, t, PN_ROWS)) return -1;
  (void)pieces_add(p, plain, pn_tensor_count(plain));
  return 0;
}

int pn_sum_squares(pn_tensor *const *list, int64_t n, double *sums) {
  if (!list || !sums) return pn_fail("sum_squares: NULL");
  pieces p;
  if (pieces_new(&p, n)) return -1;
  int rc = 0;
  for (int64_t i = 0; i < n && !rc; i++) rc = add_squares(&p, list[i]);
  if (!rc) rc = (p.partial = pn_alloc(sizeof *p.partial * (size_t)pn_max64(p.n_blocks, 1))) ? 0 : -1;
  if (!rc) pn_parallel(p.n_blocks, 1, squares_blocks, &p);
  for (int64_t i = 0; i < n && !rc; i++) {
    sums[i] = 0;
    for (int64_t b = p.at[i].first, end = b + pn_ceil_div(p.at[i].count, BLOCK); b < end; b++) sums[i] += p.partial[b];
    if (pn_is_dry()) sums[i] = 0;
    if (sums[i] != sums[i]) sums[i] = (double)NAN; /* LuaJIT would take the bits of some NaN for another type */
  }
  pn_free(p.partial);
  pieces_free(&p);
  return rc;
}
