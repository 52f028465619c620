/* optim.c: one step of an optimiser, in one pass over the memory of all parameters.
**
** SGD, with g = scale·grad + weight_decay·param:
**   torch   buffer = momentum·buffer + (1 - dampening)·g (the first time: g); d = buffer, or g + momentum·buffer (nesterov);
**           param -= lr·d. PyTorch's and Torch7's rule (they differ in the default of dampening, which the caller sets).
**   caffe   the rate is inside the buffer: new = momentum·buffer + lr·g; param -= new, or (1 + momentum)·new - momentum·buffer
**           (nesterov). A change of the rate then takes effect with the delay of the momentum.
** Adam (Kingma & Ba 2015): m and v are moving means of g and g²; param -= lr/(1-b1^t) · m / (sqrt(v/(1-b2^t)) + eps). The decay
** of weights is part of g, or applied to the parameter directly (decoupled; Loshchilov & Hutter 2019).
**
** All tensors have the shape of the parameter. A gradient in another memory order is brought into the parameter's first.
**
** A step that is captured on a device and done again finds its rates in `numbers` and the norm of its gradients in `verdict`, memory of
** that device: the host sets the former before each time, kernels write the latter, and nothing waits. The CPU heeds both as well. */
#include <math.h>
#include "backend.h"
#include "kernels/update_rules.h"

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

typedef struct place {
  int64_t first;   /* block of the piece */
  pn_tensor *held; /* its gradient, in the memory order of the parameter */
} place;

typedef struct pieces {
  pn_update *at;
  place *places;
  int64_t n, n_blocks;
  int device;
  bool adam;
  const double *verdict;
  double *partial; /* sums of squares, one a block */
} pieces;

static int pieces_new(pieces *p, int64_t n) {
  *p = (pieces){ .n = 0 };
  if (!(p->at = pn_alloc(sizeof *p->at * (size_t)pn_max64(n, 1)))) return -1;
  if ((p->places = pn_alloc(sizeof *p->places * (size_t)pn_max64(n, 1)))) return 0;
  pn_free(p->at);
  return -1;
}

/* Takes the reference to the gradient. */
static int pieces_add(pieces *p, const char *who, pn_tensor *held, pn_update **out) {
  int device = pn_device_of(held);
  int64_t count = pn_tensor_count(held);
  p->places[p->n] = (place){ p->n_blocks, held };
  p->at[p->n] = (pn_update){ .grad = pn_real_of(held), .count = count };
  *out = &p->at[p->n++];
  p->n_blocks += pn_ceil_div(count, BLOCK);
  if (p->n == 1) p->device = device;
  return device == p->device ? 0 : pn_fail("%s: tensors of several devices", who);
}

static void pieces_free(pieces *p) {
  for (int64_t i = 0; i < p->n; i++) pn_tensor_release(p->places[i].held);
  pn_free(p->places);
  pn_free(p->at);
}

/* The piece that block b lies in, and its elements there. */
static const pn_update *block_of(const pieces *p, int64_t b, int64_t *begin, int64_t *count) {
  int64_t low = 0, high = p->n - 1;
  while (low < high) { /* the last piece that begins at b or before it; those without elements share their block with the next */
    int64_t middle = (low + high + 1) / 2;
    if (p->places[middle].first <= b) low = middle;
    else high = middle - 1;
  }
  *begin = (b - p->places[low].first) * BLOCK;
  *count = pn_min64(BLOCK, p->at[low].count - *begin);
  return &p->at[low];
}

static void update_blocks(void *context, int64_t begin, int64_t end) {
  const pieces *p = context;
  for (int64_t b = begin; b < end; b++) {
    int64_t at, n;
    const pn_update *a = block_of(p, b, &at, &n);
    real *first = a->state[0] ? a->state[0] + at : NULL;
    if (p->adam) pn_updates()->adam(a->param + at, first, a->state[1] + at, a->grad + at, n, &a->numbers.adam);
    else pn_updates()->sgd(a->param + at, first, a->grad + at, n, &a->numbers.sgd);
  }
}

/* ---- what lies on the device ---------------------------------------------------------------------------------------------------- */

_Static_assert(sizeof(pn_update_numbers) <= PN_STEP_BYTES, "the numbers of an entry fit");

static int check_numbers(const char *who, const pieces *p, const pn_tensor *numbers) {
  if (numbers->dtype == PN_U8 && numbers->n_dims == 2 && numbers->shape[0] == p->n && numbers->shape[1] == PN_STEP_BYTES &&
      pn_tensor_is_dense(numbers, PN_ROWS) && pn_device_of(numbers) == p->device)
    return 0;
  return pn_fail("%s: numbers must be u8 (%lld, %d) on the device of the parameters", who, (long long)p->n, PN_STEP_BYTES);
}

static int check_verdict(const char *who, const pieces *p, const pn_tensor *verdict) {
  if (verdict->dtype == PN_F64 && verdict->n_dims == 1 && verdict->shape[0] == PN_VERDICT_NUMBERS &&
      pn_tensor_is_dense(verdict, PN_ROWS) && (!p->n || pn_device_of(verdict) == p->device))
    return 0;
  return pn_fail("%s: the verdict must be f64 (%d) on the device of the gradients", who, PN_VERDICT_NUMBERS);
}

static double *doubles_of(const pn_tensor *t) { return (double *)(void *)pn_bytes_of(t); }

static int set_numbers(const char *who, const pieces *p, pn_tensor *numbers) {
  if (!numbers) return pn_fail("%s: NULL", who);
  if (check_numbers(who, p, numbers)) return -1;
  size_t bytes = (size_t)p->n * PN_STEP_BYTES;
  char *rows = pn_alloc_zero(bytes);
  if (!rows) return -1;
  for (int64_t i = 0; i < p->n; i++) memcpy(rows + i * PN_STEP_BYTES, &p->at[i].numbers, sizeof p->at[i].numbers);
  int rc = pn_tensor_write(numbers, rows, bytes);
  pn_free(rows);
  return rc;
}

static void scale_by_verdict(pieces *p) {
  for (int64_t i = 0; i < p->n; i++) {
    real *scale = p->adam ? &p->at[i].numbers.adam.scale : &p->at[i].numbers.sgd.scale;
    *scale = pn_verdict_scale(p->verdict, *scale);
  }
}

static int update(const char *who, pieces *p, pn_tensor *numbers, const pn_tensor *verdict) {
  const pn_backend *backend;
  int index;
  if (!p->n) return 0;
  if ((numbers && check_numbers(who, p, numbers)) || (verdict && check_verdict(who, p, verdict))) return -1;
  p->verdict = verdict ? doubles_of(verdict) : NULL;
  if (p->device != PN_CPU) {
    if (pn_backend_of(p->device, &backend, &index)) return -1;
    return backend->update(index, p->adam, p->at, p->n, numbers ? pn_bytes_of(numbers) : NULL, p->verdict);
  }
  for (int64_t i = 0; numbers && i < p->n; i++)
    memcpy(&p->at[i].numbers, pn_bytes_of(numbers) + i * PN_STEP_BYTES, sizeof p->at[i].numbers);
  if (!pn_is_dry() && !pn_verdict_allows(p->verdict)) return 0;
  if (p->verdict) scale_by_verdict(p);
  pn_parallel(p->n_blocks, 1, update_blocks, p);
  return 0;
}

/* The gradient as a piece; what is not in the parameter's memory order is copied into it. */
static int add_param(pieces *p, const char *who, pn_tensor *param, pn_tensor *grad, pn_update **out) {
  pn_tensor *held = grad;
  if (param->dtype != PN_REAL_DTYPE)
    return pn_fail("%s: the parameter is %s, expected %s", who, pn_dtype_name(param->dtype), pn_dtype_name(PN_REAL_DTYPE));
  if (!pn_is_plain(param)) return pn_fail("%s: the parameter has gaps between its elements", who);
  if (check_pair(who, "gradient", param, grad)) return -1;
  if (same_order(param, grad)) pn_tensor_retain(grad);
  else if (pn_tensor_like(&held, param)) return -1;
  if (pieces_add(p, who, held, out) || (held != grad && pn_tensor_copy(held, grad))) return -1;
  (*out)->param = pn_real_of(param);
  return 0;
}

/* ---- SGD ------------------------------------------------------------------------------------------------------------------ */

static int add_sgd(pieces *p, const char *who, const pn_sgd_entry *e, const pn_sgd *how) {
  pn_update *a;
  if (!e->param || !e->grad) return pn_fail("%s: NULL", who);
  if (how->momentum != 0 && !e->buffer) return pn_fail("%s: momentum needs a buffer", who);
  if (e->buffer && check_buffer(who, "buffer", e->param, e->buffer)) return -1;
  if (add_param(p, who, e->param, e->grad, &a)) return -1;
  a->state[0] = e->buffer ? pn_real_of(e->buffer) : NULL;
  a->numbers.sgd = (pn_sgd_numbers){ .rule = !e->buffer                        ? PN_RULE_PLAIN
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

static int add_all_sgd(pieces *p, const char *who, const pn_sgd_entry *entries, int64_t n, const pn_sgd *how) {
  if (!entries || !how) return pn_fail("%s: NULL", who);
  if (how->convention != PN_SGD_TORCH && how->convention != PN_SGD_CAFFE)
    return pn_fail("%s: unknown convention %d", who, (int)how->convention);
  if (how->nesterov && (how->momentum == 0 || how->dampening != 0))
    return pn_fail("%s: nesterov needs momentum and no dampening", who);
  if (pieces_new(p, n)) return -1;
  int rc = 0;
  for (int64_t i = 0; i < n && !rc; i++) rc = add_sgd(p, who, &entries[i], how);
  if (rc) pieces_free(p);
  return rc;
}

int pn_sgd_step(const pn_sgd_entry *entries, int64_t n, const pn_sgd *how) {
  pieces p;
  if (add_all_sgd(&p, "sgd_step", entries, n, how)) return -1;
  int rc = update("sgd_step", &p, how->numbers, how->verdict);
  for (int64_t i = 0; i < n && !rc; i++) {
    pn_storage_wrote(entries[i].param->storage);
    if (entries[i].buffer) pn_storage_wrote(entries[i].buffer->storage);
  }
  pieces_free(&p);
  return rc;
}

int pn_sgd_set(const pn_sgd_entry *entries, int64_t n, const pn_sgd *how) {
  pieces p;
  if (add_all_sgd(&p, "sgd_set", entries, n, how)) return -1;
  int rc = set_numbers("sgd_set", &p, how->numbers);
  pieces_free(&p);
  return rc;
}

/* ---- Adam ----------------------------------------------------------------------------------------------------------------- */

static int add_adam(pieces *p, const char *who, const pn_adam_entry *e, const pn_adam *how) {
  pn_update *a;
  if (!e->param || !e->grad || !e->mean || !e->square) return pn_fail("%s: NULL", who);
  if (e->step < 1) return pn_fail("%s: step %lld, the first is 1", who, (long long)e->step);
  if (check_buffer(who, "first moment", e->param, e->mean) || check_buffer(who, "second moment", e->param, e->square)) return -1;
  if (add_param(p, who, e->param, e->grad, &a)) return -1;
  const double t = (double)e->step;
  a->state[0] = pn_real_of(e->mean);
  a->state[1] = pn_real_of(e->square);
  a->numbers.adam = (pn_adam_numbers){ .scale = (real)how->grad_scale,
                                       .decay = how->decoupled ? 0 : (real)e->weight_decay,
                                       .shrink = how->decoupled ? (real)(1 - e->lr * e->weight_decay) : 1,
                                       .rate = (real)(e->lr / (1 - pow(how->beta1, t))),
                                       .beta1 = (real)how->beta1,
                                       .beta2 = (real)how->beta2,
                                       .root = (real)(1 / sqrt(1 - pow(how->beta2, t))),
                                       .eps = (real)how->eps };
  return 0;
}

static int add_all_adam(pieces *p, const char *who, const pn_adam_entry *entries, int64_t n, const pn_adam *how) {
  if (!entries || !how) return pn_fail("%s: NULL", who);
  if (pieces_new(p, n)) return -1;
  p->adam = true;
  int rc = 0;
  for (int64_t i = 0; i < n && !rc; i++) rc = add_adam(p, who, &entries[i], how);
  if (rc) pieces_free(p);
  return rc;
}

int pn_adam_step(const pn_adam_entry *entries, int64_t n, const pn_adam *how) {
  pieces p;
  if (add_all_adam(&p, "adam_step", entries, n, how)) return -1;
  int rc = update("adam_step", &p, how->numbers, how->verdict);
  for (int64_t i = 0; i < n && !rc; i++) {
    pn_storage_wrote(entries[i].param->storage);
    pn_storage_wrote(entries[i].mean->storage);
    pn_storage_wrote(entries[i].square->storage);
  }
  pieces_free(&p);
  return rc;
}

int pn_adam_set(const pn_adam_entry *entries, int64_t n, const pn_adam *how) {
  pieces p;
  if (add_all_adam(&p, "adam_set", entries, n, how)) return -1;
  int rc = set_numbers("adam_set", &p, how->numbers);
  pieces_free(&p);
  return rc;
}

/* ---- norm: partial sums over fixed blocks, added in order, so that threads do not show --------------------------------------- */

static void squares_blocks(void *context, int64_t begin, int64_t end) {
  const pieces *p = context;
  for (int64_t b = begin; b < end; b++) {
    int64_t at, n;
    const pn_update *a = block_of(p, b, &at, &n);
    p->partial[b] = pn_updates()->sum_squares(a->grad + at, n);
  }
}

static int add_squares(pieces *p, const char *who, pn_tensor *t) {
  pn_tensor *plain = t;
  pn_update *a;
  if (!t) return pn_fail("%s: NULL", who);
  if (t->dtype != PN_REAL_DTYPE) return pn_fail("%s: %s, expected %s", who, pn_dtype_name(t->dtype), pn_dtype_name(PN_REAL_DTYPE));
  if (pn_is_plain(t)) pn_tensor_retain(t);
  else if (pn_tensor_contiguous(&plain, t, PN_ROWS)) return -1;
  return pieces_add(p, who, plain, &a);
}

static int add_all_squares(pieces *p, const char *who, pn_tensor *const *list, int64_t n) {
  if (pieces_new(p, n)) return -1;
  int rc = 0;
  for (int64_t i = 0; i < n && !rc; i++) rc = add_squares(p, who, list[i]);
  if (rc) pieces_free(p);
  return rc;
}

static int squares_here(pieces *p, double *sums) {
  p->partial = pn_alloc(sizeof *p->partial * (size_t)pn_max64(p->n_blocks, 1));
  if (!p->partial) return -1;
  pn_parallel(p->n_blocks, 1, squares_blocks, p);
  for (int64_t i = 0; i < p->n; i++) {
    sums[i] = 0;
    for (int64_t b = p->places[i].first, end = b + pn_ceil_div(p->at[i].count, BLOCK); b < end; b++) sums[i] += p->partial[b];
    if (pn_is_dry()) sums[i] = 0;
  }
  pn_free(p->partial);
  return 0;
}

int pn_sum_squares(pn_tensor *const *list, int64_t n, double *sums) {
  const pn_backend *backend;
  pieces p;
  int index, rc;
  if (!list || !sums) return pn_fail("sum_squares: NULL");
  if (add_all_squares(&p, "sum_squares", list, n)) return -1;
  if (p.device == PN_CPU) rc = squares_here(&p, sums);
  else rc = pn_backend_of(p.device, &backend, &index) ? -1 : backend->sum_squares(index, p.at, n, sums);
  for (int64_t i = 0; i < n && !rc; i++)
    if (sums[i] != sums[i]) sums[i] = (double)NAN; /* LuaJIT would take the bits of some NaN for another type */
  pieces_free(&p);
  return rc;
}

static int judge_here(pieces *p, double clip_norm, double *verdict) {
  double *sums = pn_alloc(sizeof *sums * (size_t)pn_max64(p->n, 1)), sum = 0;
  int rc = sums ? squares_here(p, sums) : -1;
  for (int64_t i = 0; i < p->n && !rc; i++) sum += sums[i];
  if (!rc && !pn_is_dry()) pn_verdict_set(verdict, sum, clip_norm);
  pn_free(sums);
  return rc;
}

int pn_grad_verdict(pn_tensor *verdict, pn_tensor *const *list, int64_t n, double clip_norm) {
  const pn_backend *backend;
  pieces p;
  int index, rc;
  if (!verdict || !list) return pn_fail("grad_verdict: NULL");
  if (add_all_squares(&p, "grad_verdict", list, n)) return -1;
  rc = check_verdict("grad_verdict", &p, verdict);
  if (!rc && pn_device_of(verdict) == PN_CPU) rc = judge_here(&p, clip_norm, doubles_of(verdict));
  else if (!rc)
    rc = pn_backend_of(pn_device_of(verdict), &backend, &index) ? -1
                                                                : backend->judge(index, p.at, n, clip_norm, doubles_of(verdict));
  if (!rc) pn_storage_wrote(verdict->storage);
  pieces_free(&p);
  return rc;
}
