/* cells.c: transposed convolution onto few channels, by cells.
**
** With stride s and a kernel of J strides, pixel b of the large side lies in cell Q = (b + low) / s at place p = (b + low) % s, and
**     x[s Q + p - low] = sum over j < J of y[Q - j] * w[s j + p]
** The places of a cell, times the channels, are thus the channels of a dense convolution of J taps without stride: vectors
** run over places where single channels would leave them empty, a 16 -> 1 channel layer becomes a product with 8 to 1024
** columns, and a gradient reads its pixels once. (Shi et al. 2016 call the last step, from cells to pixels, a pixel shuffle.)
**
** Cells lie in memory as n, Q along t, h, w, then the places p along t, h, w and the channels of x. Where a cell would be wider
** than MOST_PLACES, places along t are taken in groups, one after the other. */
#include <string.h>
#include "../cpu.h"
#include "cells.h"

enum { FEW_CHANNELS = 4, LEAST_PLACES = 4, MOST_PLACES = 1024, WIDE_CELL = 256, GAP = 16, LEAST_VECTOR = 8 };

bool pn_cells_fit(int64_t x_channels, const pn_geometry *g) {
  if (pn_cpu() == PN_CPU_PLAIN || g->groups != 1 || x_channels < 1 || x_channels > FEW_CHANNELS) return false;
  for (int d = 0; d < 3; d++)
    if (g->dilation[d] != 1 || g->kernel[d] % g->stride[d] || g->low[d] < 0) return false;
  int64_t plane = g->stride[1] * g->stride[2] * x_channels;
  return plane <= MOST_PLACES && plane * g->stride[0] >= LEAST_PLACES;
}

typedef struct shuffle {
  pn_pixels x, cells;
  const pn_geometry *g;
  int64_t first[3]; /* Q of the first cell */
  int64_t phase;    /* and of its places, the first along t; cells hold n_phases of them */
  int64_t n_phases;
} shuffle;

/* The cells of x with places phase .. phase + n_phases - 1 along t. seen_by not 0: along w all the cells that so many pixels of y
** see, also those that hold nothing of x: a pixel's cells along w are then one run of channels. */
static int cells_new(shuffle *s, pn_tensor **held, pn_pixels x, const pn_geometry *g, int64_t phase, int64_t n_phases,
                     int64_t seen_by) {
  *s = (shuffle){ .x = x, .g = g, .phase = phase, .n_phases = n_phases };
  const int64_t size[3] = { x.t, x.h, x.w };
  int64_t width = n_phases * g->stride[1] * g->stride[2] * x.c, shape[5] = { x.n, width + (width >= WIDE_CELL ? GAP : 0) };
  for (int d = 0; d < 3; d++) {
    s->first[d] = g->low[d] / g->stride[d];
    shape[2 + d] = (size[d] - 1 + g->low[d]) / g->stride[d] - s->first[d] + 1;
  }
  if (seen_by) s->first[2] = 0, shape[4] = seen_by + g->kernel[2] / g->stride[2] - 1;
  if (pn_tensor_new(held, PN_REAL_DTYPE, 5, shape, PN_CHANNELS_LAST, PN_CPU)) return -1;
  (void)pn_pixels_of(&s->cells, *held);
  s->cells.c = width;
  return 0;
}

/* Row (n, t, h) of x, where there is one, between its places in a row of cells; `at` is the first of them. */
static inline __attribute__((always_inline)) void move_whole(real *cell, int64_t pitch, real *pixel, int64_t count, int64_t run,
                                                             bool to_cells) {
  for (int64_t q = 0; q < count; q++, cell += pitch, pixel += run)
    for (int64_t i = 0; i < run; i++) *(to_cells ? &cell[i] : &pixel[i]) = *(to_cells ? &pixel[i] : &cell[i]);
}

static void move_row(const shuffle *s, real *cell, real *row, bool to_cells) {
  const int64_t step = s->g->stride[2], c = s->x.c, pitch = s->cells.sw, n_w = s->x.w, sw = s->x.sw;
  int64_t w = s->first[2] * step - s->g->low[2], end = s->cells.w;
  for (int64_t q = 0; q < end; q++, w += step, cell += pitch) {
    int64_t whole = sw == c && w >= 0 ? pn_min64((n_w - w) / step, end - q) : 0;
    if (whole > 0) {
      real *pixel = row + w * c;
      switch (step * c) { /* runs of a known length become vector moves */
      case 2: move_whole(cell, pitch, pixel, whole, 2, to_cells); break;
      case 4: move_whole(cell, pitch, pixel, whole, 4, to_cells); break;
      case 8: move_whole(cell, pitch, pixel, whole, 8, to_cells); break;
      case 16: move_whole(cell, pitch, pixel, whole, 16, to_cells); break;
      default: move_whole(cell, pitch, pixel, whole, step * c, to_cells);
      }
      q += whole - 1, w += (whole - 1) * step, cell += (whole - 1) * pitch;
      continue;
    }
    for (int64_t p = 0; p < step; p++)
      for (int64_t i = 0; i < c; i++) {
        bool there = w + p >= 0 && w + p < n_w;
        if (!to_cells && there) row[(w + p) * sw + i] = cell[p * c + i];
        if (to_cells) cell[p * c + i] = there ? row[(w + p) * sw + i] : 0;
      }
  }
}

static real *row_of(const shuffle *s, int64_t n, int64_t t, int64_t h) { /* NULL outside x */
  return t >= 0 && t < s->x.t && h >= 0 && h < s->x.h ? pn_pixel(s->x, n, t, h, 0) : NULL;
}

static void shuffle_rows(const shuffle *s, int64_t begin, int64_t end, bool to_cells) { /* units: rows of cells */
  const int64_t *step = s->g->stride, run = step[2] * s->x.c;
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t h = unit % s->cells.h, t = unit / s->cells.h % s->cells.t, n = unit / s->cells.h / s->cells.t;
    real *cell = pn_pixel(s->cells, n, t, h, 0);
    for (int64_t pt = 0; pt < s->n_phases; pt++)
      for (int64_t ph = 0; ph < step[1]; ph++, cell += run) {
        real *row = row_of(s, n, (s->first[0] + t) * step[0] + s->phase + pt - s->g->low[0],
                           (s->first[1] + h) * step[1] + ph - s->g->low[1]);
        if (row) move_row(s, cell, row, to_cells);
        else if (to_cells)
          for (int64_t q = 0; q < s->cells.w; q++) memset(cell + q * s->cells.sw, 0, sizeof(real) * (size_t)run);
      }
  }
}

static void read_rows(void *context, int64_t begin, int64_t end) { shuffle_rows(context, begin, end, true); }
static void write_rows(void *context, int64_t begin, int64_t end) { shuffle_rows(context, begin, end, false); }

static void all_rows(shuffle *s, void (*fn)(void *, int64_t, int64_t)) {
  int64_t row = pn_max64(1, s->cells.w * s->cells.c);
  pn_parallel(s->cells.n * s->cells.t * s->cells.h, pn_max64(1, 16384 / row), fn, s);
}

/* ---- weights: the same runs of s_w * channels * n numbers, in another order -------------------------------------------------- */

/* Between w (t,h,w,I,O) and its cells' (j_t, j_h, j_w, places, O): taps of one dense convolution. add: to w, from the cells'. */
static void weights(real *of_cells, real *w, const real *from_w, const shuffle *s, int64_t n) {
  const int64_t *k = s->g->kernel, *step = s->g->stride;
  size_t run = (size_t)(step[2] * s->x.c * n);
  for (int64_t t = 0; t < k[0] / step[0]; t++)
    for (int64_t h = 0; h < k[1] / step[1]; h++)
      for (int64_t i = 0; i < k[2] / step[2]; i++)
        for (int64_t pt = 0; pt < s->n_phases; pt++)
          for (int64_t ph = 0; ph < step[1]; ph++, of_cells += run) {
            int64_t at = (((t * step[0] + s->phase + pt) * k[1] + h * step[1] + ph) * (k[2] / step[2]) + i) * step[2] * s->x.c * n;
            if (from_w) memcpy(of_cells, from_w + at, run * sizeof(real));
            else
              for (size_t e = 0; e < run; e++) w[at + (int64_t)e] += of_cells[e];
          }
}

static void dense_geometry(pn_geometry *out, const shuffle *s) {
  *out = (pn_geometry){ .groups = 1 };
  for (int d = 0; d < 3; d++) {
    out->kernel[d] = s->g->kernel[d] / s->g->stride[d];
    out->stride[d] = out->dilation[d] = 1;
    out->low[d] = s->first[d];
  }
}

static int64_t taps_of(const pn_geometry *g) { return g->kernel[0] * g->kernel[1] * g->kernel[2]; }

/* How many places along t at a time. */
static int64_t phases_at_once(int64_t channels, const pn_geometry *g) {
  return pn_min64(g->stride[0], MOST_PLACES / (g->stride[1] * g->stride[2] * channels));
}

/* ---- forward ------------------------------------------------------------------------------------------------------------------ */

static int data_phases(const shuffle *s, pn_pixels y, const real *w, const real *bias) {
  pn_geometry dense;
  dense_geometry(&dense, s);
  int64_t n_w = taps_of(&dense) * s->cells.c * y.c;
  real *room = pn_alloc(sizeof(real) * (size_t)(n_w + s->cells.c));
  if (!room) return -1;
  weights(room, NULL, w, s, y.c);
  for (int64_t i = 0; bias && i < s->cells.c; i++) room[n_w + i] = bias[i % s->x.c];
  int rc = pn_convolve_data(s->cells, y, room, bias ? room + n_w : NULL, false, &dense);
  pn_free(room);
  return rc;
}

int pn_cells_data(pn_pixels x, pn_pixels y, const real *w, const real *bias, const pn_geometry *g) {
  int64_t many = phases_at_once(x.c, g);
  for (int64_t phase = 0; phase < g->stride[0]; phase += many) {
    shuffle s;
    pn_tensor *held;
    if (cells_new(&s, &held, x, g, phase, pn_min64(many, g->stride[0] - phase), 0)) return -1;
    int rc = data_phases(&s, y, w, bias);
    if (!rc) all_rows(&s, write_rows);
    pn_tensor_release(held);
    if (rc) return rc;
  }
  return 0;
}

/* ---- backward ----------------------------------------------------------------------------------------------------------------- */

/* Cells as a pixel of y sees them: without gaps the taps along w are one run of channels, in the order of their weights. */
static pn_pixels runs_of(const shuffle *s, pn_geometry *dense) {
  pn_pixels cells = s->cells;
  if (cells.sw != cells.c) return cells;
  cells.c *= dense->kernel[2];
  cells.w -= dense->kernel[2] - 1;
  dense->kernel[2] = 1;
  return cells;
}

static int back_small(const shuffle *s, pn_pixels dy, const real *w, pn_geometry dense) {
  real *room = pn_alloc(sizeof(real) * (size_t)(taps_of(&dense) * s->cells.c * dy.c));
  if (!room) return -1;
  weights(room, NULL, w, s, dy.c);
  pn_pixels cells = runs_of(s, &dense);
  int rc = pn_convolve(dy, cells, room, (pn_epilogue){ 0 }, &dense);
  pn_free(room);
  return rc;
}

/* Vectors run over y's channels; where these are few, over places: seen from the cells, cell Q looks at y[Q - j], which is a
** convolution of y with its taps in reverse. */
static int back_weight(const shuffle *s, real *dw, pn_pixels y, pn_geometry dense) {
  int64_t taps = taps_of(&dense), matrix = s->cells.c * y.c;
  real *room = pn_alloc_zero(sizeof(real) * (size_t)(2 * taps * matrix)), *sums = room;
  if (!room) return -1;
  int rc;
  if (y.c >= LEAST_VECTOR) {
    pn_pixels cells = runs_of(s, &dense);
    rc = pn_convolve_weight(sums, cells, y, &dense);
  } else {
    real *seen = room + taps * matrix; /* tap, y's channel, place */
    pn_geometry from_cells = dense;
    for (int d = 0; d < 3; d++) from_cells.low[d] = dense.kernel[d] - 1 - dense.low[d];
    rc = pn_convolve_weight(seen, y, s->cells, &from_cells);
    for (int64_t tap = 0; tap < taps; tap++)
      for (int64_t p = 0; p < s->cells.c; p++)
        for (int64_t c = 0; c < y.c; c++)
          sums[(tap * s->cells.c + p) * y.c + c] = seen[((taps - 1 - tap) * y.c + c) * s->cells.c + p];
  }
  if (!rc) weights(sums, dw, NULL, s, y.c);
  pn_free(room);
  return rc;
}

static void add_pixels(pn_pixels to, pn_pixels from) {
  for (int64_t n = 0; n < to.n; n++)
    for (int64_t t = 0; t < to.t; t++)
      for (int64_t h = 0; h < to.h; h++)
        for (int64_t w = 0; w < to.w; w++)
          for (int64_t c = 0; c < to.c; c++) pn_pixel(to, n, t, h, w)[c] += pn_pixel(from, n, t, h, w)[c];
}

static int back_phases(const shuffle *s, const pn_pixels *dy, bool add, real *dw, pn_pixels y, const real *w) {
  pn_geometry dense;
  dense_geometry(&dense, s);
  if (dw && back_weight(s, dw, y, dense)) return -1;
  if (!dy->data || !add) return dy->data ? back_small(s, *dy, w, dense) : 0;
  pn_tensor *held; /* pn_convolve writes; a gradient that has begun is added to */
  pn_pixels sum;
  if (pn_tensor_new(&held, PN_REAL_DTYPE, 5, (int64_t[]){ dy->n, dy->c, dy->t, dy->h, dy->w }, PN_CHANNELS_LAST, PN_CPU)) return -1;
  (void)pn_pixels_of(&sum, held);
  int rc = back_small(s, sum, w, dense);
  if (!rc) add_pixels(*dy, sum);
  pn_tensor_release(held);
  return rc;
}

int pn_cells_back(const pn_pixels *dy, bool add, real *dw, pn_pixels dx, pn_pixels y, const real *w, const pn_geometry *g) {
  int64_t many = phases_at_once(dx.c, g);
  for (int64_t phase = 0; phase < g->stride[0]; phase += many) {
    shuffle s;
    pn_tensor *held;
    if (cells_new(&s, &held, dx, g, phase, pn_min64(many, g->stride[0] - phase), y.w)) return -1;
    all_rows(&s, read_rows);
    int rc = back_phases(&s, dy, add || phase > 0, dw, y, w);
    pn_tensor_release(held);
    if (rc) return rc;
  }
  return 0;
}
