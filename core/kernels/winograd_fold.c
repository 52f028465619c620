/* winograd_fold.c: strides of 2 folded into channels, so that minimal filtering serves there too (winograd.h).
**
** Output o sees input 2o - low + k. With k = 2j + p that is element o + j of phase p, where phase p holds inputs 2i + p - low:
** all phases side by side are the channels of an image at stride 1, whose kernel has ceil(k/2) taps (an odd k: one of them 0).
** x' is [t'][h'][w'][phase t][phase h][phase w][channel], padding written out; worth its copy where channels are few: the stem. */
#include <string.h>
#include "winograd.h"

#ifndef PN_F64_BUILD

enum { FOLDED_CHANNELS = 8 };

pn_fold pn_fold_choose(pn_pixels y, pn_pixels x, const pn_geometry *g) {
  pn_fold f = { .tile = { { 0, 0, 0 } } };
  pn_winograd_tile tile;
  int strides = 0;
  if (pn_winograd_off() || g->groups != 1 || x.c > FOLDED_CHANNELS || y.c < 8) return f;
  for (int d = 0; d < 3; d++) {
    int64_t k = g->kernel[d], s = g->stride[d];
    if (g->dilation[d] != 1 || s > 2) return f;
    strides += s == 2;
    f.phases[d] = (int)s;
    f.kernel[d] = (int)pn_ceil_div(k, s);
    tile.m[d] = f.kernel[d] == 4 ? 3 : f.kernel[d] == 3 ? 4 : 0;
    if (f.kernel[d] != 4 && f.kernel[d] != 3 && k != 1) return f;
    if (k == 1 && s != 1) return f;
  }
  if (!strides || (!tile.m[0] && !tile.m[1] && !tile.m[2])) return f;
  pn_pixels folded = x;
  folded.c = x.c * f.phases[0] * f.phases[1] * f.phases[2];
  if (pn_winograd_cost(tile, y, folded) < pn_direct_cost(y, x, g)) f.tile = tile;
  return f;
}

typedef struct fold_job {
  pn_pixels x, to;
  const pn_geometry *g;
  const pn_fold *f;
  const float *w;
  float *folded, *dw;
  int64_t out;
} fold_job;

static void fold_rows(void *context, int64_t begin, int64_t end) { /* units: rows of x' */
  const fold_job *j = context;
  const pn_pixels *x = &j->x, *to = &j->to;
  const int *p = j->f->phases;
  int64_t run = p[2] * x->c, shift = j->g->low[2];
  for (int64_t row = begin; row < end; row++) {
    int64_t h = row % to->h, t = row / to->h % to->t, n = row / to->h / to->t;
    for (int a = 0; a < p[0]; a++)
      for (int b = 0; b < p[1]; b++) {
        int64_t it = t * p[0] + a - j->g->low[0], ih = h * p[1] + b - j->g->low[1];
        float *place = pn_pixel(*to, n, t, h, 0) + (a * p[1] + b) * run;
        bool there = it >= 0 && it < x->t && ih >= 0 && ih < x->h;
        const float *from = there ? pn_pixel(*x, n, it, ih, 0) : NULL;
        for (int64_t w = 0; w < to->w; w++, place += to->sw)
          for (int c = 0; c < p[2]; c++) {
            int64_t iw = w * p[2] + c - shift;
            if (there && iw >= 0 && iw < x->w) memcpy(place + c * x->c, from + iw * x->sw, sizeof(float) * (size_t)x->c);
            else memset(place + c * x->c, 0, sizeof(float) * (size_t)x->c);
          }
      }
  }
}

/* The place in w of row (tap, channel) of the folded filters, or -1 where that tap is none of the kernel's. */
static int64_t unfolded(const fold_job *j, int64_t row) {
  const int *p = j->f->phases, *k = j->f->kernel;
  int64_t channels = p[0] * p[1] * p[2] * j->x.c, tap = row / channels, c = row % channels, at = 0;
  int64_t taps[3] = { tap / k[2] / k[1], tap / k[2] % k[1], tap % k[2] },
          phase[3] = { c / j->x.c / p[2] / p[1], c / j->x.c / p[2] % p[1], c / j->x.c % p[2] };
  for (int d = 0; d < 3; d++) {
    int64_t i = taps[d] * p[d] + phase[d];
    if (i >= j->g->kernel[d]) return -1;
    at = at * j->g->kernel[d] + i;
  }
  return (at * j->x.c + c % j->x.c) * j->out;
}

static int64_t filter_rows(const fold_job *j) {
  const int *p = j->f->phases, *k = j->f->kernel;
  return (int64_t)k[0] * k[1] * k[2] * p[0] * p[1] * p[2] * j->x.c;
}

/* x', with room for folded filters behind it; the caller frees to.data. */
static int fold(fold_job *j, pn_pixels x, pn_pixels y, const pn_geometry *g, const pn_fold *f) {
  *j = (fold_job){ .x = x, .g = g, .f = f, .out = y.c };
  pn_pixels *to = &j->to;
  *to = (pn_pixels){ .n = y.n,
                     .c = x.c * f->phases[0] * f->phases[1] * f->phases[2],
                     .t = y.t + f->kernel[0] - 1,
                     .h = y.h + f->kernel[1] - 1,
                     .w = y.w + f->kernel[2] - 1 };
  to->sw = to->c, to->sh = to->sw * to->w, to->st = to->sh * to->h, to->sn = to->st * to->t;
  to->data = pn_alloc(sizeof(float) * (size_t)(to->n * to->sn + filter_rows(j) * y.c));
  if (!to->data) return -1;
  j->folded = to->data + to->n * to->sn;
  pn_parallel(to->n * to->t * to->h, 8, fold_rows, j);
  return 0;
}

static pn_geometry folded_geometry(const pn_fold *f) {
  return (pn_geometry){
    .kernel = {f->kernel[0], f->kernel[1], f->kernel[2]},
      { 1,           1,            1           },
      { 1,           1,            1           },
      { 0,           0,            0           },
      1
  };
}

int pn_fold_convolve(pn_pixels y, pn_pixels x, const float *w, pn_epilogue end, const pn_geometry *g, const pn_fold *f) {
  fold_job j;
  pn_geometry flat = folded_geometry(f);
  if (fold(&j, x, y, g, f)) return -1;
  for (int64_t row = 0; row < filter_rows(&j); row++) {
    int64_t at = unfolded(&j, row);
    if (at < 0) memset(j.folded + row * y.c, 0, sizeof(float) * (size_t)y.c);
    else memcpy(j.folded + row * y.c, w + at, sizeof(float) * (size_t)y.c);
  }
  int rc = pn_winograd_convolve(y, j.to, j.folded, end, false, false, &flat, f->tile);
  pn_free(j.to.data);
  return rc;
}

int pn_fold_weight(float *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g, const pn_fold *f) {
  fold_job j;
  pn_geometry flat = folded_geometry(f);
  if (fold(&j, x, dy, g, f)) return -1;
  memset(j.folded, 0, sizeof(float) * (size_t)(filter_rows(&j) * dy.c));
  int rc = pn_winograd_weight(j.folded, j.to, dy, &flat, f->tile);
  for (int64_t row = 0; row < filter_rows(&j) && !rc; row++) {
    int64_t at = unfolded(&j, row);
    for (int64_t c = 0; c < dy.c && at >= 0; c++) dw[at + c] += j.folded[row * dy.c + c];
  }
  pn_free(j.to.data);
  return rc;
}

#endif
