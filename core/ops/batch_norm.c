/* batch_norm: y = (x - m) / sqrt(v + eps) + beta for each channel, then relu where asked. x (N,C,T,H,W); beta, mean, var (C).
** There is no gamma: I3D has none (METHOD 4).
**
** mode      m, v
**   frozen  the stored mean and var; constants
**   batch   mean and (biased) variance of this input over N,T,H,W; the gradient goes through them
**   moving  m = (1 - alpha) * mean + alpha * batch mean, v likewise; the gradient goes through the batch part,
**           so alpha = 1 is batch and alpha = 0 frozen
** update    (batch, moving) after normalising, stored = momentum * stored + (1 - momentum) * batch, in place, with the biased
**           variance, as TensorFlow's unfused layer does. It is no part of the graph.
**
** Passes over memory: forward reads x once (twice where it needs statistics) and writes y; backward reads x and dy once (twice),
** and writes dx, over dy where that is free. Only the statistics are kept for backward; relu's mask is found again from x. Statistics are taken block by block, each block's mean
** and spread about it, then joined in double in a fixed order (Chan, Golub, LeVeque 1979). */
#include <string.h>
#include "kernels/norm.h"
#include "kernels/norm_rules.h"
#include "kernels/pixels.h"

enum { FROZEN = PN_NORM_FROZEN, BATCH = PN_NORM_BATCH, INV = PN_NORM_INV, MEAN = PN_NORM_MEAN, CENTRE = PN_NORM_CENTRE };

static int shape(pn_call *call) {
  if (pn_need_dims(call, 0, 5)) return -1;
  static const char *const names[] = { "x", "beta", "mean", "var" };
  const pn_tensor *x = call->x[0];
  for (int i = 0; i < 4; i++) {
    if (pn_need_real(call, i)) return -1;
    const pn_tensor *t = call->x[i];
    if (i && (t->n_dims != 1 || t->shape[0] != x->shape[1]))
      return pn_fail_shapes(call, "%s needs one number for each of x's %lld channels", names[i], (long long)x->shape[1]);
  }
  int64_t mode = pn_arg_int(call, "mode");
  if (mode == FROZEN && pn_arg_int(call, "update"))
    return pn_fail_shapes(call, "update=true needs mode=batch or moving: frozen statistics stay");
  if (mode != FROZEN && pn_tensor_count(x) == 0) return pn_fail_shapes(call, "the statistics of no elements");
  pn_out_like(&call->out[0], x);
  call->out[0].layout = PN_CHANNELS_LAST;
  return 0;
}

/* ---- blocks of pixels: cut by the shape alone ------------------------------------------------------------------------- */

static int64_t rows_of(int64_t c) { return pn_min64(1024, pn_max64(16, 8192 / pn_max64(c, 1))); }

typedef struct job {
  pn_pixels x, y, dy, dx;
  int64_t count, rows; /* pixels; of a block */
  real *partial;       /* [block][2][c] */
  pn_norm_line line;
  bool add, want_dx, backwards;
  const real *slope, *centre, *level;
} job;

static int64_t n_blocks(const job *j) { return pn_ceil_div(j->count, j->rows); }

static void moments_blocks(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const pn_norm_kernels *kernels = pn_norm();
  int64_t c = j->x.c;
  for (int64_t b = begin; b < end; b++) {
    int64_t i = b * j->rows, stop = pn_min64(i + j->rows, j->count), run = pn_pixels_run(&j->x, i, stop);
    real *mean = j->partial + b * 2 * c, *m2 = mean + c;
    kernels->moments(mean, m2, pn_pixel_at(&j->x, i), j->x.sw, run, c);
    int64_t n = run;
    for (i += run; i < stop; i += run, n += run) { /* the rows of a crop are not evenly spaced: join them one by one */
      run = pn_pixels_run(&j->x, i, stop);
      const real *p = pn_pixel_at(&j->x, i);
      for (int64_t k = 0; k < c; k++) {
        for (int64_t r = 0; r < run; r++) {
          real d = p[r * j->x.sw + k] - mean[k];
          mean[k] += d / (real)(n + r + 1);
          m2[k] += d * (p[r * j->x.sw + k] - mean[k]);
        }
      }
    }
  }
}

static void affine_blocks(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  for (int64_t b = end - 1; b >= begin; b--) { /* backwards: what the statistics read last is still in the caches */
    for (int64_t i = b * j->rows, stop = pn_min64(i + j->rows, j->count), run; i < stop; i += run) {
      run = pn_min64(pn_pixels_run(&j->x, i, stop), pn_pixels_run(&j->y, i, stop));
      pn_norm()->affine(pn_pixel_at(&j->y, i), j->y.sw, pn_pixel_at(&j->x, i), j->x.sw, run, j->x.c, &j->line);
    }
  }
}

static void add_up(real *to, const real *from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] += from[i];
}

/* Sums of a block (where there is room for them), and dx of the same block (where it is wanted and needs no sums first). */
static int gradient_blocks(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const pn_norm_kernels *kernels = pn_norm();
  int64_t c = j->x.c;
  real *more = pn_alloc((size_t)(2 * c) * sizeof(real));
  if (!more) return -1;
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t b = j->backwards ? begin + end - 1 - unit : unit;
    real *sums = j->partial ? j->partial + b * 2 * c : NULL;
    bool first = true;
    for (int64_t i = b * j->rows, stop = pn_min64(i + j->rows, j->count), run; i < stop; i += run) {
      run = pn_min64(pn_pixels_run(&j->x, i, stop), pn_pixels_run(&j->dy, i, stop));
      if (j->want_dx) run = pn_min64(run, pn_pixels_run(&j->dx, i, stop));
      const real *x = pn_pixel_at(&j->x, i), *dy = pn_pixel_at(&j->dy, i);
      if (sums) {
        real *into = first ? sums : more;
        kernels->gradient_sums(into, j->centre ? into + c : NULL, x, j->x.sw, dy, j->dy.sw, run, c, &j->line, j->centre);
        if (!first) add_up(sums, more, j->centre ? 2 * c : c);
        first = false;
      }
      if (j->want_dx)
        kernels->gradient(pn_pixel_at(&j->dx, i), j->dx.sw, j->add, x, j->x.sw, dy, j->dy.sw, run, c, &j->line, j->slope, j->centre,
                          j->level);
    }
  }
  pn_free(more);
  return 0;
}

/* ---- statistics ----------------------------------------------------------------------------------------------------------- */

static real *at(pn_tensor *t, int64_t i) { return pn_real_of(t) + i * t->stride[0]; }

/* Mean and biased variance of each channel, in double. */
static int batch_statistics(job *j, double *mean, double *var) {
  int64_t c = j->x.c, blocks = n_blocks(j);
  j->partial = pn_alloc((size_t)(blocks * 2 * c) * sizeof(real));
  if (!j->partial) return -1;
  pn_parallel(blocks, pn_max64(1, 8192 / (j->rows * c)), moments_blocks, j);
  for (int64_t k = 0; k < c; k++) mean[k] = var[k] = 0;
  for (int64_t b = 0; b < blocks; b++) {
    const real *block_mean = j->partial + b * 2 * c, *m2 = block_mean + c;
    double before = (double)(b * j->rows), n = (double)(pn_min64((b + 1) * j->rows, j->count) - b * j->rows);
    for (int64_t k = 0; k < c; k++) pn_norm_join(&mean[k], &var[k], before, n, (double)block_mean[k], (double)m2[k]);
  }
  for (int64_t k = 0; k < c; k++) var[k] /= (double)j->count;
  pn_free(j->partial);
  j->partial = NULL;
  return 0;
}

/* Fills stats[PN_NORM_KEPT][c]; updates the stored statistics where asked. */
static int statistics(pn_call *call, job *j, real *stats) {
  pn_norm_rule rule = pn_norm_rule_of(call);
  int64_t c = j->x.c;
  double *mean = NULL;
  rule.update &= !pn_is_dry();
  if (rule.mode != FROZEN) {
    mean = pn_alloc((size_t)(2 * pn_max64(c, 1)) * sizeof(double));
    if (!mean) return -1;
    if (batch_statistics(j, mean, mean + c)) {
      pn_free(mean);
      return -1;
    }
  }
  for (int64_t k = 0; k < c; k++) {
    pn_norm_settle(&rule, mean ? mean[k] : 0, mean ? mean[c + k] : 0, at(call->x[2], k), at(call->x[3], k), &stats[INV * c + k],
                   &stats[MEAN * c + k], &stats[CENTRE * c + k]);
  }
  pn_free(mean);
  return 0;
}

static void set_line(const pn_call *call, job *j, real *stats) {
  int64_t c = j->x.c;
  real *shift = stats + PN_NORM_SHIFT * c;
  for (int64_t k = 0; k < c; k++) shift[k] = pn_norm_shift(*at(call->x[1], k), stats[MEAN * c + k], stats[INV * c + k]);
  j->line = (pn_norm_line){ stats + INV * c, shift, pn_arg_int(call, "relu") != 0 };
}

/* ---- forward and backward ---------------------------------------------------------------------------------------------------- */

static int forward_on(pn_call *call, job *j) {
  int64_t c = j->x.c;
  pn_tensor *kept = call->again ? call->saved[0] : NULL; /* the stored statistics have moved since */
  if (kept) pn_tensor_retain(kept);
  else if (pn_tensor_new(&kept, PN_REAL_DTYPE, 2, (int64_t[]){ PN_NORM_KEPT, c }, PN_ROWS, PN_CPU)) return -1;
  real *stats = pn_real_of(kept);
  int rc = kept == call->saved[0] ? 0 : statistics(call, j, stats);
  if (!rc) {
    set_line(call, j, stats);
    pn_parallel(n_blocks(j), pn_max64(1, 16384 / (j->rows * pn_max64(c, 1))), affine_blocks, j);
  }
  if (!rc && call->recording) {
    pn_call_save(call, 0, kept);
  } else {
    pn_tensor_release(kept);
  }
  return rc;
}

static int forward(pn_call *call) {
  job j = { 0 };
  pn_tensor *x, *y;
  if (pn_pixels_open(&j.x, &x, call->x[0])) return -1;
  if (pn_pixels_open(&j.y, &y, call->y[0])) {
    pn_tensor_release(x);
    return -1;
  }
  j.count = pn_pixels_count(&j.x);
  j.rows = rows_of(j.x.c);
  int rc = forward_on(call, &j);
  pn_pixels_close(x, call->x[0], false);
  pn_pixels_close(y, call->y[0], true);
  return rc;
}

/* Block sums to channel sums, in double: total[0..c-1] of g, total[c..2c-1] of g * (x - centre). */
static void join(const job *j, double *total) {
  int64_t n = j->centre ? 2 * j->x.c : j->x.c;
  for (int64_t i = 0; i < n; i++) total[i] = 0;
  for (int64_t b = 0; b < n_blocks(j); b++) {
    for (int64_t i = 0; i < n; i++) total[i] += (double)j->partial[b * 2 * j->x.c + i];
  }
}

static void through_statistics(const job *j, double alpha, const real *stats, const double *total, real *slope, real *level) {
  int64_t c = j->x.c;
  for (int64_t k = 0; k < c; k++)
    pn_norm_through(alpha, (double)j->count, stats[INV * c + k], stats[MEAN * c + k], stats[CENTRE * c + k], total[k], total[c + k],
                    &slope[k], &level[k]);
}

static int add_beta(pn_call *call, const double *total, int64_t c) {
  pn_tensor *dbeta;
  bool fresh;
  if (pn_call_dx(call, 1, &dbeta, &fresh)) return -1;
  for (int64_t k = 0; dbeta && k < c; k++) *at(dbeta, k) = (real)(total[k] + (fresh ? 0 : (double)*at(dbeta, k)));
  return 0;
}

static int backward_on(pn_call *call, job *j, real *room, double *total) {
  int64_t c = j->x.c, mode = pn_arg_int(call, "mode"), grain = pn_max64(1, 8192 / (j->rows * pn_max64(c, 1)));
  const real *stats = pn_real_of(call->saved[0]);
  real *slope = room, *level = room + c;
  bool want_dx = j->want_dx, want_beta = pn_call_wants(call, 1);
  j->line = (pn_norm_line){ stats + INV * c, stats + PN_NORM_SHIFT * c, pn_arg_int(call, "relu") != 0 };
  j->centre = mode == FROZEN ? NULL : stats + CENTRE * c;
  if ((mode != FROZEN && want_dx) || want_beta) {
    j->partial = pn_alloc((size_t)(n_blocks(j) * 2 * c) * sizeof(real));
    if (!j->partial) return -1;
  }
  j->want_dx = want_dx && mode == FROZEN; /* then one pass does both */
  int rc = pn_parallel_try(n_blocks(j), grain, gradient_blocks, j);
  if (!rc && j->partial) join(j, total);
  pn_free(j->partial);
  j->partial = NULL;
  if (!rc && want_beta) rc = add_beta(call, total, c);
  if (!rc && want_dx && mode != FROZEN) {
    through_statistics(j, pn_norm_rule_of(call).alpha, stats, total, slope, level);
    j->slope = slope;
    j->level = level;
    j->want_dx = j->backwards = true; /* from what the first pass left in the caches */
    rc = pn_parallel_try(n_blocks(j), grain, gradient_blocks, j);
  }
  return rc;
}

static int backward(pn_call *call) {
  job j = { 0 };
  pn_tensor *dx, *held_x = NULL, *held_dy = NULL, *held_dx = NULL;
  bool fresh = true;
  if (pn_tensor_is_dense(call->dy[0], PN_CHANNELS_LAST) && pn_call_dx_take(call, 0)) dx = call->dy[0];
  else if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  j.add = !fresh;
  j.want_dx = dx != NULL;
  int rc = pn_pixels_open(&j.x, &held_x, call->x[0]) || pn_pixels_open(&j.dy, &held_dy, call->dy[0]) ||
                   (dx && pn_pixels_open(&j.dx, &held_dx, dx))
               ? -1
               : 0;
  j.count = pn_pixels_count(&j.x);
  j.rows = rows_of(j.x.c);
  real *room = rc ? NULL : pn_alloc((size_t)pn_max64(2 * j.x.c, 1) * (sizeof(real) + sizeof(double)));
  rc = room ? backward_on(call, &j, (real *)((double *)room + 2 * j.x.c), (double *)room) : -1;
  pn_free(room);
  pn_tensor_release(held_x);
  pn_tensor_release(held_dy);
  if (held_dx) pn_pixels_close(held_dx, dx, true);
  return rc;
}

static const pn_arg args[] = {
  {"mode",                                PN_CHOICE, "frozen", .choices = "frozen|batch|moving", .help = "which statistics normalise" },
  { "eps",                             PN_REAL, "1e-3", 0, 1, .help = "added to the variance" },
  { "alpha", PN_REAL, "0.1", 0, 1, .help = "moving: the share of the batch in the statistics" },
  { "update",                                PN_BOOL, "false", .help = "move the stored statistics towards the batch's" },
  { "momentum",                               PN_REAL, "0.999", 0, 1, .help = "update: the share of the stored statistics that stays" },
  { "relu",                                    PN_BOOL, "false", .help = "relu on top, in the same pass" },
  { 0                                   },
};
static const char *const cases[] = { "2,3,2,3,5 3 3 3:+",
                                     "2,3,2,3,5 3 3 3:+ relu=true",
                                     "2,3,2,3,5 3 3 3:+ mode=batch",
                                     "2,5,2,3,4 5 5 5:+ mode=batch relu=true eps=1e-2",
                                     "2,3,2,3,5 3 3 3:+ mode=moving alpha=0.3 relu=true",
                                     "1,2,1,3,3 2 2 2:+ mode=moving alpha=1",
                                     0 };
const pn_op pn_op_batch_norm = {
  .name = "batch_norm",
  .help = "each channel to mean 0 and variance 1, plus beta",
  .inputs = "x beta mean var",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward },
  .constant_inputs = { false,      false, true, true },
  .real_inputs = { false,true, true, true },
  .lasting = { true  }
};
