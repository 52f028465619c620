/* optim.c: one step of an optimiser on one parameter, in one pass over its memory.
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
#include "internal.h"

enum { GRAIN = 16384 };

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

/* ---- SGD ------------------------------------------------------------------------------------------------------------------ */

typedef struct sgd {
  real *param, *buffer;
  const real *grad;
  real scale, decay, rate, momentum, fresh; /* fresh: the weight of g in the buffer */
  bool nesterov;
} sgd;

static void sgd_plain(void *context, int64_t begin, int64_t end) {
  const sgd *s = context;
  for (int64_t i = begin; i < end; i++) s->param[i] -= s->rate * (s->scale * s->grad[i] + s->decay * s->param[i]);
}

static void sgd_torch(void *context, int64_t begin, int64_t end) {
  const sgd *s = context;
  real through = s->nesterov ? 1 : 0, kept = s->nesterov ? s->momentum : 1;
  for (int64_t i = begin; i < end; i++) {
    real g = s->scale * s->grad[i] + s->decay * s->param[i];
    real b = s->momentum * s->buffer[i] + s->fresh * g;
    s->buffer[i] = b;
    s->param[i] -= s->rate * (through * g + kept * b);
  }
}

static void sgd_torch_first(void *context, int64_t begin, int64_t end) {
  const sgd *s = context;
  real all = s->nesterov ? 1 + s->momentum : 1;
  for (int64_t i = begin; i < end; i++) {
    real g = s->scale * s->grad[i] + s->decay * s->param[i];
    s->buffer[i] = g;
    s->param[i] -= s->rate * (all * g);
  }
}

static void sgd_caffe(void *context, int64_t begin, int64_t end) {
  const sgd *s = context;
  real ahead = s->nesterov ? 1 + s->momentum : 1, back = s->nesterov ? s->momentum : 0;
  for (int64_t i = begin; i < end; i++) {
    real g = s->scale * s->grad[i] + s->decay * s->param[i], old = s->buffer[i];
    real b = s->momentum * old + s->rate * g;
    s->buffer[i] = b;
    s->param[i] -= ahead * b - back * old;
  }
}

int pn_sgd_step(pn_tensor *param, pn_tensor *grad, pn_tensor *buffer, const pn_sgd *how) {
  if (!param || !grad || !how) return pn_fail("sgd_step: NULL");
  if (how->momentum != 0 && !buffer) return pn_fail("sgd_step: momentum needs a buffer");
  if (how->convention != PN_SGD_TORCH && how->convention != PN_SGD_CAFFE)
    return pn_fail("sgd_step: unknown convention %d", (int)how->convention);
  if (how->nesterov && (how->momentum == 0 || how->dampening != 0))
    return pn_fail("sgd_step: nesterov needs momentum and no dampening");
  if (buffer && check_buffer("sgd_step", "buffer", param, buffer)) return -1;
  pn_tensor *g;
  if (aligned_grad(&g, "sgd_step", param, grad)) return -1;
  sgd s = { .param = pn_real_of(param),
            .buffer = buffer ? pn_real_of(buffer) : NULL,
            .grad = pn_real_of(g),
            .scale = (real)how->grad_scale,
            .decay = (real)how->weight_decay,
            .rate = (real)how->lr,
            .momentum = (real)how->momentum,
            .fresh = (real)(1 - how->dampening),
            .nesterov = how->nesterov };
  bool caffe = how->convention == PN_SGD_CAFFE;
  pn_parallel(pn_tensor_count(param), GRAIN,
              !buffer      ? sgd_plain
              : caffe      ? sgd_caffe
              : how->first ? sgd_torch_first
                           : sgd_torch,
              &s);
  pn_tensor_release(g);
  param->storage->version++;
  if (buffer) buffer->storage->version++;
  return 0;
}

/* ---- Adam ----------------------------------------------------------------------------------------------------------------- */

typedef struct adam {
  real *param, *mean, *square;
  const real *grad;
  real scale, decay, shrink, rate, beta1, beta2, root, eps; /* rate: lr/(1-b1^t); root: 1/sqrt(1-b2^t) */
} adam;

static void adam_range(void *context, int64_t begin, int64_t end) {
  const adam *s = context;
  for (int64_t i = begin; i < end; i++) {
    real p = s->param[i] * s->shrink;
    real g = s->scale * s->grad[i] + s->decay * p;
    real m = s->beta1 * s->mean[i] + (1 - s->beta1) * g;
    real v = s->beta2 * s->square[i] + (1 - s->beta2) * g * g;
    s->mean[i] = m;
    s->square[i] = v;
    s->param[i] = p - s->rate * m / ((real)sqrt(v) * s->root + s->eps);
  }
}

int pn_adam_step(pn_tensor *param, pn_tensor *grad, pn_tensor *mean, pn_tensor *square, const pn_adam *how) {
  if (!param || !grad || !mean || !square || !how) return pn_fail("adam_step: NULL");
  if (how->step < 1) return pn_fail("adam_step: step %lld, the first is 1", (long long)how->step);
  if (check_buffer("adam_step", "first moment", param, mean) || check_buffer("adam_step", "second moment", param, square))
    return -1;
  pn_tensor *g;
  if (aligned_grad(&g, "adam_step", param, grad)) return -1;
  double t = (double)how->step;
  adam s = { .param = pn_real_of(param),
             .mean = pn_real_of(mean),
             .square = pn_real_of(square),
             .grad = pn_real_of(g),
             .scale = (real)how->grad_scale,
             .decay = how->decoupled ? 0 : (real)how->weight_decay,
             .shrink = how->decoupled ? (real)(1 - how->lr * how->weight_decay) : 1,
             .rate = (real)(how->lr / (1 - pow(how->beta1, t))),
             .beta1 = (real)how->beta1,
             .beta2 = (real)how->beta2,
             .root = (real)(1 / sqrt(1 - pow(how->beta2, t))),
             .eps = (real)how->eps };
  pn_parallel(pn_tensor_count(param), GRAIN, adam_range, &s);
  pn_tensor_release(g);
  param->storage->version++;
  mean->storage->version++;
  square->storage->version++;
  return 0;
}

/* ---- norm: partial sums over fixed blocks, added in order, so that threads do not show --------------------------------------- */

typedef struct squares {
  const real *data;
  double *partial;
  int64_t count;
} squares;

static void squares_range(void *context, int64_t begin, int64_t end) {
  const squares *s = context;
  for (int64_t b = begin; b < end; b++) {
    double sum = 0;
    for (int64_t i = b * GRAIN; i < pn_min64((b + 1) * GRAIN, s->count); i++) sum += (double)s->data[i] * (double)s->data[i];
    s->partial[b] = sum;
  }
}

int pn_sum_squares(pn_tensor *t, double *out) {
  if (!t || !out) return pn_fail("sum_squares: NULL");
  if (pn_device_of(t) != PN_CPU) return pn_fail("sum_squares: no kernel for this device");
  if (t->dtype != PN_REAL_DTYPE)
    return pn_fail("sum_squares: %s, expected %s", pn_dtype_name(t->dtype), pn_dtype_name(PN_REAL_DTYPE));
  pn_tensor *plain = t;
  if (pn_is_plain(t)) pn_tensor_retain(t);
  else if (pn_tensor_contiguous(&plain, t, PN_ROWS)) return -1;
  int64_t count = pn_tensor_count(plain), blocks = pn_ceil_div(count, GRAIN);
  double *partial = pn_alloc(sizeof *partial * (size_t)pn_max64(blocks, 1)), sum = 0;
  if (partial) {
    pn_parallel(blocks, 1, squares_range, &(squares){ pn_real_of(plain), partial, count });
    for (int64_t b = 0; b < blocks; b++) sum += partial[b];
    *out = sum;
    pn_free(partial);
  }
  pn_tensor_release(plain);
  return partial ? 0 : -1;
}
