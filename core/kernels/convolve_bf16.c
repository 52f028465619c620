/* convolve_bf16.c: convolution and its adjoints as gathered products of bf16 (product_bf16.h), structured like convolve.c.
**
**   forward, data   the gathered pixels are rounded once into a dense copy, k channels rounded up to the kernels' step; weights
**                   while they are packed. Sums, bias, and what is written stay f32.
**   weight          sums[n][tap, k] over pairs of neighbouring pixels; dy is paired once a panel, x once a panel and tap, both
**                   straight from f32. Columns tap, k run through, so that an odd number of channels wastes nothing.
** Few input channels: the padded rows of convolve.c, in bf16. The plain variant rounds copies and runs the plain definition. */
#include <string.h>
#include "convolve_bf16.h"
#include "convolve_plain.h"
#include "gather.h"
#include "product_bf16.h"

#ifdef PN_F64_BUILD

bool pn_takes_bf16(pn_pixels y, pn_pixels x, const pn_geometry *g) { return (void)y, (void)x, (void)g, false; }
double pn_bf16_cost(void) { return 1; }
int pn_convolve_bf16(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g) {
  return pn_convolve_plain(y, x, w, end, g), 0;
}
int pn_convolve_data_bf16(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g) {
  return pn_convolve_data_plain(dx, dy, w, bias, add, g), 0;
}
int pn_convolve_weight_bf16(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g) {
  return pn_convolve_weight_plain(dw, x, dy, g), 0;
}

#else

enum {
  PANEL = 96,
  TAPS = 32,
  PIXELS = 256,
  PAIRS = PIXELS / 2,
  WEIGHT_BLOCK = 96 << 10,
  MOST_BLOCKS = 64,
  VL = PN_BF16_VL,
  LINE = 64 / sizeof(float)
};

static const pn_bf16_kernels *kernels(void) {
  if (pn_emulated_amx()) return &pn_product_amx_emulated;
  if (pn_cpu() == PN_CPU_AMX) return &pn_product_amx;
  return pn_cpu() >= PN_CPU_AVX512_BF16 ? &pn_product_avx512_bf16 : NULL;
}

bool pn_takes_bf16(pn_pixels y, pn_pixels x, const pn_geometry *g) {
  enum { FEW = 2 }; /* a channel or two: bound by memory, and the f32 kernels for single channels read it only once */
  return pn_in_bf16() && y.c / g->groups > FEW && x.c / g->groups > FEW;
}

/* By the rates of plain matrix products: twice that of f32 (Zen 4), and seven times by AMX (Sapphire Rapids). */
double pn_bf16_cost(void) { return pn_cpu() == PN_CPU_AMX || pn_emulated_amx() ? 1.0 / 7 : 0.5; }

static int64_t round_up(int64_t n, int64_t to) { return pn_ceil_div(n, to) * to; }

/* ---- the plain definition ---------------------------------------------------------------------------------------------------------- */

/* A dense copy of pixels, rounded but still f32; the caller frees its data. */
static int rounded_pixels(pn_pixels *out, pn_pixels p) {
  *out = (pn_pixels){ NULL, p.n, p.c, p.t, p.h, p.w, p.t * p.h * p.w * p.c, p.h * p.w * p.c, p.w * p.c, p.c };
  real *to = out->data = pn_alloc(sizeof(real) * (size_t)(p.n * out->sn));
  if (!to) return -1;
  for (int64_t pixel = 0; pixel < p.n * p.t * p.h * p.w; pixel++) {
    const real *from = pn_pixel(p, pixel / p.w / p.h / p.t, pixel / p.w / p.h % p.t, pixel / p.w % p.h, pixel % p.w);
    for (int64_t c = 0; c < p.c; c++) *to++ = pn_bf16_to_float(pn_bf16_of(from[c]));
  }
  return 0;
}

static real *rounded_weights(const real *w, int64_t n) {
  real *to = pn_alloc(sizeof(real) * (size_t)n);
  for (int64_t i = 0; to && i < n; i++) to[i] = pn_bf16_to_float(pn_bf16_of(w[i]));
  return to;
}

static int64_t weights_of(pn_pixels y, pn_pixels x, const pn_geometry *g) {
  return g->kernel[0] * g->kernel[1] * g->kernel[2] * (x.c / g->groups) * y.c;
}

static int plain_forward(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g) {
  pn_pixels in;
  if (rounded_pixels(&in, x)) return -1;
  real *ws = rounded_weights(w, weights_of(y, x, g));
  if (ws) pn_convolve_plain(y, in, ws, end, g);
  pn_free(in.data);
  pn_free(ws);
  return ws ? 0 : -1;
}

static int plain_data(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g) {
  pn_pixels in;
  if (rounded_pixels(&in, dy)) return -1;
  real *ws = rounded_weights(w, weights_of(dy, dx, g));
  if (ws) pn_convolve_data_plain(dx, in, ws, bias, add, g);
  pn_free(in.data);
  pn_free(ws);
  return ws ? 0 : -1;
}

static int plain_weight(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g) {
  pn_pixels a, b = { .data = NULL };
  int rc = rounded_pixels(&a, x);
  rc = rc ? rc : rounded_pixels(&b, dy);
  if (!rc) pn_convolve_weight_plain(dw, a, b, g);
  pn_free(a.data);
  pn_free(b.data);
  return rc;
}

/* ---- pixels, rounded into a dense copy ----------------------------------------------------------------------------------------------- */

typedef struct round_job {
  const pn_bf16_kernels *kernels;
  pn_pixels from; /* c: of one group */
  pn_bf16 *to;
  int64_t kp;                       /* bf16 a pixel, the last of them zeros */
  int64_t low, width, row_elements; /* fused rows: pixels of padding, of the row with it, and its bf16 */
} round_job;

static void round_rows(void *context, int64_t begin, int64_t end) { /* rows n,t,h */
  const round_job *j = context;
  const pn_pixels *x = &j->from;
  for (int64_t row = begin; row < end; row++) {
    const real *from = pn_pixel(*x, row / x->h / x->t, row / x->h % x->t, row % x->h, 0);
    pn_bf16 *to = j->to + row * x->w * j->kp;
    if (x->sw == x->c && j->kp == x->c) j->kernels->round(to, from, x->w * x->c);
    else
      for (int64_t w = 0; w < x->w; w++, to += j->kp) {
        j->kernels->round(to, from + w * x->sw, x->c);
        for (int64_t c = x->c; c < j->kp; c++) to[c] = 0;
      }
  }
}

static void round_padded_rows(void *context, int64_t begin, int64_t end) {
  const round_job *j = context;
  const pn_pixels *x = &j->from;
  for (int64_t row = begin; row < end; row++) {
    const real *from = pn_pixel(*x, row / x->h / x->t, row / x->h % x->t, row % x->h, 0);
    pn_bf16 *to = j->to + row * j->row_elements;
    memset(to, 0, sizeof *to * (size_t)j->row_elements);
    int64_t first = pn_max64(0, -j->low), last = pn_min64(x->w, j->width - j->low);
    if (x->sw == x->c && last > first) j->kernels->round(to + (first + j->low) * x->c, from + first * x->c, (last - first) * x->c);
    else
      for (int64_t w = first; w < last; w++) j->kernels->round(to + (w + j->low) * x->c, from + w * x->sw, x->c);
  }
}

static int64_t pixels_of(pn_pixels p) { return p.n * p.t * p.h * p.w; }

/* A copy of x for each group, one after another; the caller frees it. */
static pn_bf16 *round_pixels(pn_pixels x, int64_t groups, int64_t kp) {
  pn_bf16 *to = pn_alloc(sizeof *to * (size_t)(groups * pixels_of(x) * kp));
  for (int64_t group = 0; to && group < groups; group++) {
    round_job j = { .kernels = kernels(), .from = pn_group_of(x, group, groups), .to = to + group * pixels_of(x) * kp, .kp = kp };
    j.from.c = x.c / groups;
    pn_parallel(x.n * x.t * x.h, 16, round_rows, &j);
  }
  return to;
}

/* Turns a gather of x into one of its copy. */
static void gather_copy(pn_gather *g, const pn_bf16 *copy, pn_pixels x, int64_t kp) {
  g->in = copy;
  g->size = sizeof *copy;
  g->in_batch = x.t * x.h * x.w * kp;
  g->axis[0].in_stride = x.h * x.w * kp;
  g->axis[1].in_stride = x.w * kp;
  g->axis[2].in_stride = kp;
}

/* ---- planes that hold their padding ------------------------------------------------------------------------------------------------------ */

typedef struct plane_job {
  const pn_bf16_kernels *kernels;
  pn_pixels from; /* c: of one group */
  pn_bf16 *to;
  int64_t kp, low[2], size[2]; /* of a plane, h and w */
} plane_job;

static void round_planes(void *context, int64_t begin, int64_t end) { /* rows of the planes */
  const plane_job *j = context;
  const pn_pixels *x = &j->from;
  for (int64_t row = begin; row < end; row++) {
    int64_t h = row % j->size[0] - j->low[0], plane = row / j->size[0];
    pn_bf16 *to = j->to + row * j->size[1] * j->kp;
    memset(to, 0, sizeof *to * (size_t)(j->size[1] * j->kp));
    if (h < 0 || h >= x->h) continue;
    const real *from = pn_pixel(*x, plane / x->t, plane % x->t, h, 0);
    int64_t first = pn_max64(0, -j->low[1]), last = pn_min64(x->w, j->size[1] - j->low[1]);
    for (int64_t w = first; w < last; w++) j->kernels->round(to + (w + j->low[1]) * j->kp, from + w * x->sw, x->c);
  }
}

/* Where the kernels like pixels at one distance: planes of x with the padding that the taps see, and a gather that runs through
** them without a gap, from one row on to the next. The columns between rows are computed and thrown away. The caller frees. */
static bool wants_planes(const pn_gather *g) {
  return kernels()->even && g->axis[1].step == 1 && g->axis[2].step == 1 && g->axis[1].n_taps > 0 && g->axis[2].n_taps > 0 &&
         g->axis[1].n_taps * g->axis[2].n_taps > 1;
}

static pn_bf16 *gather_planes(pn_gather *g, pn_pixels x, int64_t kp) {
  plane_job j = { .kernels = kernels(), .from = x, .kp = kp };
  j.from.c = g->k;
  int64_t span[2];
  for (int d = 0; d < 2; d++) {
    pn_axis *a = &g->axis[1 + d];
    int64_t least = a->offset[0], most = a->offset[0];
    for (int64_t i = 1; i < a->n_taps; i++) least = pn_min64(least, a->offset[i]), most = pn_max64(most, a->offset[i]);
    for (int64_t i = 0; i < a->n_taps; i++) a->offset[i] -= least;
    j.low[d] = -least;
    span[d] = most - least;
    j.size[d] = a->n_out + span[d];
  }
  int64_t rows = x.n * x.t * j.size[0], elements = rows * j.size[1] * kp, beyond = span[1] * kp;
  pn_bf16 *to = j.to = pn_alloc(sizeof *to * (size_t)(elements + beyond));
  if (!to) return NULL;
  memset(to + elements, 0, sizeof *to * (size_t)beyond);
  pn_parallel(rows, 16, round_planes, &j);
  g->in = to;
  g->size = sizeof *to;
  g->kept = g->axis[2].n_out;
  g->axis[2].n_out = j.size[1];
  g->axis[2].n_in = j.size[1] + span[1]; /* what is seen past a row goes to a column that is thrown away */
  g->axis[1].n_in = j.size[0];
  g->axis[2].in_stride = kp;
  g->axis[1].in_stride = j.size[1] * kp;
  g->axis[0].in_stride = j.size[0] * j.size[1] * kp;
  g->in_batch = x.t * g->axis[0].in_stride;
  return to;
}

/* ---- weights, packed in pairs --------------------------------------------------------------------------------------------------------- */

typedef struct block {
  int nv;               /* vectors of channels */
  int64_t first, count; /* channels */
  int64_t at, tap_size; /* its place in the packed weights, and the pairs of one tap there */
} block;

/* n channels as even blocks of at most `most` vectors; returns how many, or 0 when there would be too many. */
static int cut_blocks(int64_t n, int64_t n_pairs, int most, int64_t n_taps, block *out, int64_t *total) {
  int64_t vectors = pn_ceil_div(n, VL), n_blocks = pn_ceil_div(vectors, most), at = 0, first = 0;
  if (n_blocks > MOST_BLOCKS) return 0;
  for (int64_t i = 0; i < n_blocks; i++) {
    int nv = (int)(vectors / n_blocks + (i < vectors % n_blocks));
    out[i] = (block){ nv, first, pn_min64(n - first, nv * VL), at, n_pairs * nv * VL };
    first += nv * VL;
    at += n_taps * out[i].tap_size;
  }
  *total = at;
  return (int)n_blocks;
}

typedef struct product {
  pn_gather g;
  pn_weights w;
  const pn_bf16_kernels *kernels;
  block blocks[MOST_BLOCKS];
  int n_blocks;
  int64_t n_taps, kp;
  pn_pair *packed;
  real *bias;          /* padded like a row of blocks; NULL for none */
  const real *nothing; /* zeros */
  bool add, relu;
} product;

static int pack_taps(void *context, int64_t begin, int64_t end) { /* units: block x tap */
  const product *p = context;
  const pn_gather *g = &p->g;
  int64_t k = g->k, n_pairs = p->kp / 2;
  pn_bf16 *rows = NULL;
  if (p->w.sn != 1 && !(rows = pn_alloc_zero(sizeof *rows * (size_t)(VL * p->kp)))) return -1;
  for (int64_t unit = begin; unit < end; unit++) {
    const block *b = &p->blocks[unit / p->n_taps];
    int64_t tap = unit % p->n_taps, width = b->nv * VL, id[3];
    pn_gather_tap(g, tap, id);
    const real *from = pn_weights_tap(&p->w, id) + b->first * p->w.sn;
    pn_pair *to = p->packed + b->at + tap * b->tap_size;
    memset(to, 0, sizeof *to * (size_t)b->tap_size);
    if (p->w.sn == 1)
      for (int64_t i = 0; i < k; i += 2) {
        const void *two[2] = { from + i * p->w.sk, i + 1 < k ? from + (i + 1) * p->w.sk : p->nothing };
        p->kernels->pairs(to + i / 2 * width, width, two, 0, b->count, 1);
      }
    else /* k runs along memory: rows of n, rounded, then turned */
      for (int64_t n = 0; n < b->count; n += VL) {
        int64_t count = pn_min64(VL, b->count - n);
        for (int64_t i = 0; i < count; i++) p->kernels->round(rows + i * p->kp, from + (n + i) * p->w.sn, k);
        p->kernels->transpose(to + n, width, (const pn_pair *)(const void *)rows, n_pairs, count, n_pairs);
      }
  }
  pn_free(rows);
  return 0;
}

/* ---- the product ------------------------------------------------------------------------------------------------------------------------- */

static void multiply_panel(const product *p, int64_t index, const block *blocks, int n_blocks) {
  const pn_gather *g = &p->g;
  pn_panel here;
  const void *rows[TAPS * (PANEL + PN_BF16_MOST_MR)];
  real spare[PN_BF16_MOST_NV * VL], *out[PN_BF16_MOST_MR];
  int32_t at[PANEL];
  int64_t first = index * PANEL;
  int64_t most_taps = pn_max64(1, pn_min64(TAPS, WEIGHT_BLOCK / (int64_t)sizeof(pn_pair) / pn_max64(1, blocks[0].tap_size)));
  if (p->n_taps) most_taps = pn_ceil_div(p->n_taps, pn_ceil_div(p->n_taps, most_taps)); /* in even parts */
  pn_find_panel(g, first, pn_min64(PANEL, pn_gather_pixels(g) - first), &here);
  int64_t tap = 0, count = here.count;
  do { /* also with no taps at all: then only the start value is written */
    int64_t n_taps = pn_min64(most_taps, p->n_taps - tap);
    int mr = 0;
    for (int b = 0; b < n_blocks; b++) {
      const block *to = &blocks[b];
      if (mr != p->kernels->mr[to->nv]) { /* rows in the order in which tiles of this height read them: tile, tap, pixel */
        mr = p->kernels->mr[to->nv];
        for (int64_t m = 0; m < count; m++) at[m] = (int32_t)(m / mr * mr * n_taps + m % mr);
        for (int64_t i = 0; i < n_taps; i++) {
          pn_look_through(g, &here, tap + i, rows + i * mr, at);
          for (int64_t m = count; m % mr; m++) rows[m / mr * mr * n_taps + i * mr + m % mr] = g->zeros;
        }
      }
      for (int64_t m = 0; m < count; m += mr) {
        for (int64_t i = 0; i < mr; i++) out[i] = m + i < count && here.out[m + i] ? here.out[m + i] + to->first : spare;
        p->kernels->tile[to->nv](out, rows + m * n_taps, n_taps, p->kp, p->packed + to->at + tap * to->tap_size,
                                 p->bias && tap == 0 ? p->bias + to->first : NULL, to->count, p->add || tap > 0,
                                 p->relu && tap + n_taps == p->n_taps);
      }
    }
    tap += n_taps;
  } while (tap < p->n_taps);
}

static void multiply_panels(void *context, int64_t begin, int64_t end) {
  const product *p = context;
  if (p->kernels->begin) p->kernels->begin();
  for (int64_t i = begin; i < end; i++) multiply_panel(p, i, p->blocks, p->n_blocks);
  if (p->kernels->end) p->kernels->end();
}

static void multiply_blocks(void *context, int64_t begin, int64_t end) { /* few panels: a unit is one block of one panel */
  const product *p = context;
  if (p->kernels->begin) p->kernels->begin();
  for (int64_t i = begin; i < end; i++) multiply_panel(p, i / p->n_blocks, &p->blocks[i % p->n_blocks], 1);
  if (p->kernels->end) p->kernels->end();
}

/* The gather's rows hold kp elements each, those past k zeros or met by zero weights. */
static int multiply(const pn_gather *g, int64_t kp, const pn_weights *w, pn_epilogue end, bool add) {
  product p = { .g = *g, .w = *w, .kernels = kernels(), .n_taps = pn_gather_taps(g), .kp = kp, .add = add, .relu = end.relu };
  int64_t total, pixels = pn_gather_pixels(g);
  if (!pixels || !g->n) return 0;
  p.n_blocks = cut_blocks(g->n, kp / 2, p.kernels->most_nv, p.n_taps, p.blocks, &total);
  if (!p.n_blocks) return pn_fail("convolution: %lld output channels are too many", (long long)g->n);
  int64_t padded = round_up(g->n, VL), zeros = round_up(pn_max64(kp, g->n), LINE);
  real *memory = pn_alloc(sizeof(real) * (size_t)(total + padded + zeros));
  if (!memory) return -1;
  p.packed = (pn_pair *)(void *)memory;
  if (end.bias) {
    p.bias = memory + total;
    memset(p.bias, 0, sizeof(real) * (size_t)padded);
    memcpy(p.bias, end.bias, sizeof(real) * (size_t)g->n);
  }
  p.g.zeros = p.nothing = memset(memory + total + padded, 0, sizeof(real) * (size_t)zeros);
  int rc = pn_parallel_try(p.n_blocks * p.n_taps, 4, pack_taps, &p);
  int64_t panels = pn_ceil_div(pixels, PANEL);
  if (rc) {
  } else if (panels >= 8 * pn_threads()) pn_parallel(panels, 1, multiply_panels, &p);
  else pn_parallel(panels * p.n_blocks, 1, multiply_blocks, &p);
  pn_free(memory);
  return rc;
}

int pn_convolve_bf16(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g) {
  if (!kernels()) return plain_forward(y, x, w, end, g);
  int64_t *room = pn_gather_room(g), step = kernels()->k_step, kp, row = 0;
  bool fused = pn_fuses_rows(x, g);
  pn_bf16 *copy = NULL;
  int rc = room ? 0 : -1;
  if (fused) { /* a row ends in zeros, for the last pixel's k rounded up */
    kp = round_up(x.c * g->kernel[2], step);
    row = pn_fused_width(y, g) * x.c + kp - x.c * g->kernel[2];
    if (!rc && !(copy = pn_alloc(sizeof *copy * (size_t)(x.n * x.t * x.h * row)))) rc = -1;
    round_job j = {
      .kernels = kernels(), .from = x, .to = copy, .low = g->low[2], .width = pn_fused_width(y, g), .row_elements = row
    };
    if (!rc) pn_parallel(x.n * x.t * x.h, 16, round_padded_rows, &j);
  } else kp = round_up(x.c / g->groups, step);
  for (int64_t group = 0; group < g->groups && !rc; group++) {
    pn_gather at;
    pn_weights ws = pn_weights_forward(w, y, x, g, group);
    pn_gather_forward(&at, pn_group_of(y, group, g->groups), x, g, room);
    pn_bf16 *planes = NULL;
    if (fused) {
      at.size = sizeof *copy;
      pn_fuse_rows(&at, copy, row, x, g);
    } else if (wants_planes(&at)) {
      if (!(planes = gather_planes(&at, pn_group_of(x, group, g->groups), kp))) rc = -1;
    } else if (copy || (copy = round_pixels(x, g->groups, kp))) gather_copy(&at, copy + group * pixels_of(x) * kp, x, kp);
    else rc = -1;
    rc = rc ? rc : multiply(&at, kp, &ws, (pn_epilogue){ end.bias ? end.bias + group * at.n : NULL, end.relu }, false);
    pn_free(planes);
  }
  pn_free(copy);
  pn_free(room);
  return rc;
}

typedef struct data_job {
  pn_pixels dx, dy;
  const real *w, *bias;
  bool add;
  const pn_geometry *g;
  int64_t phases[3], kp;
  const pn_bf16 *copy; /* of dy; NULL where it comes in planes */
} data_job;

static int data_phases(void *context, int64_t begin, int64_t end) { /* units: group x phase */
  const data_job *j = context;
  const pn_geometry *g = j->g;
  const int64_t *s = j->phases;
  int64_t *room = pn_gather_room(g);
  if (!room) return -1;
  int rc = 0;
  for (int64_t unit = begin; unit < end && !rc; unit++) {
    int64_t group = unit / s[2] / s[1] / s[0], phase[3] = { unit / s[2] / s[1] % s[0], unit / s[2] % s[1], unit % s[2] };
    pn_weights ws = pn_weights_data(j->w, j->dy, j->dx, g, group);
    pn_gather at;
    pn_gather_phase(&at, pn_group_of(j->dx, group, g->groups), j->dy, g, phase, room);
    if (j->add && !pn_gather_taps(&at)) continue;
    pn_bf16 *planes = NULL;
    if (j->copy) gather_copy(&at, j->copy + group * pixels_of(j->dy) * j->kp, j->dy, j->kp);
    else if (!(planes = gather_planes(&at, pn_group_of(j->dy, group, g->groups), j->kp))) rc = -1;
    rc = rc ? rc : multiply(&at, j->kp, &ws, (pn_epilogue){ .bias = j->bias ? j->bias + group * at.n : NULL }, j->add);
    pn_free(planes);
  }
  pn_free(room);
  return rc;
}

int pn_convolve_data_bf16(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g) {
  if (!kernels()) return plain_data(dx, dy, w, bias, add, g);
  int64_t kp = round_up(dy.c / g->groups, kernels()->k_step);
  bool planes = kernels()->even && g->stride[1] == 1 && g->stride[2] == 1 && g->kernel[1] * g->kernel[2] > 1;
  pn_bf16 *copy = planes ? NULL : round_pixels(dy, g->groups, kp);
  if (!planes && !copy) return -1;
  data_job j = {
    dx, dy, w, bias, add, g, {pn_min64(g->stride[0], dx.t), pn_min64(g->stride[1], dx.h), pn_min64(g->stride[2], dx.w)},
          kp, copy
  };
  int64_t units = g->groups * j.phases[0] * j.phases[1] * j.phases[2];
  int rc = units >= 4 * pn_threads() ? pn_parallel_try(units, 1, data_phases, &j) /* many small products: threads take whole ones */
                                     : data_phases(&j, 0, units);
  pn_free(copy);
  return rc;
}

/* ---- the outer products --------------------------------------------------------------------------------------------------------------------- */

typedef struct outer_job {
  pn_gather g; /* in is x, out is dy, read only */
  const pn_bf16_kernels *kernels;
  const block *blocks; /* of columns; units */
  int64_t np, ld;      /* n and columns, rounded up to tiles */
  real *sums;          /* np x ld */
} outer_job;

/* Channels of dy lie in bands: a vector of them, or as many as a tile takes. */
static int64_t band_of(const pn_bf16_kernels *kernel) { return pn_max64(VL, kernel->outer_mi); }

static int outer_units(void *context, int64_t begin, int64_t end) {
  const outer_job *j = context;
  const pn_gather *g = &j->g;
  const pn_bf16_kernels *kernel = j->kernels;
  const int64_t most = kernel->outer_most_nv * VL, mi = kernel->outer_mi, band = band_of(kernel);
  int64_t pixels = pn_gather_pixels(g), k = g->k, columns = pn_gather_taps(g) * k;
  pn_panel here;
  const void *rows[PIXELS + 1]; /* an odd one is paired with zeros */
  int32_t at[PIXELS];
  for (int32_t i = 0; i < PIXELS; i++) at[i] = i;
  int64_t dy_pairs = PAIRS * j->np, turned = kernel->transposed ? dy_pairs : 0;
  pn_pair *memory = pn_alloc_zero(sizeof(pn_pair) * (size_t)(dy_pairs + turned + PAIRS * most));
  if (!memory) return -1;
  pn_pair *dy = memory, *dy_turned = memory + dy_pairs, *x = memory + dy_pairs + turned;
  if (kernel->begin) kernel->begin();
  int64_t panel = round_up(pn_ceil_div(pixels, pn_ceil_div(pixels, PIXELS)), 32); /* of even size */
  for (int64_t first = 0; first < pixels; first += panel) {
    int64_t count = pn_min64(panel, pixels - first), n_pairs = pn_ceil_div(count, 2), padded = round_up(n_pairs, 16);
    pn_find_panel(g, first, count, &here);
    for (int64_t i = 0; i < count; i++) rows[i] = here.out[i];
    rows[count] = g->zeros;
    for (int64_t n = 0; n < j->np; n += band) { /* [band][pair][channel], and turned [channel][pair] */
      pn_pair *to = dy + n * PAIRS;
      kernel->pairs(to, band, rows, n, pn_min64(band, g->n - n), n_pairs);
      memset(to + n_pairs * band, 0, sizeof *to * (size_t)((padded - n_pairs) * band));
      if (kernel->transposed) kernel->transpose(dy_turned + n * PAIRS, PAIRS, to, band, padded, band);
    }
    int64_t seen = -1;
    for (int64_t unit = begin; unit < end; unit++) {
      const block *b = &j->blocks[unit];
      int64_t width = b->nv * VL, last = pn_min64(b->first + b->count, columns);
      for (int64_t c = b->first; c < last;) {
        int64_t tap = c / k, i0 = c % k, n = pn_min64(k - i0, last - c);
        if (tap != seen) pn_look_through(g, &here, tap, rows, at);
        seen = tap;
        kernel->pairs(x + c - b->first, width, rows, i0, n, n_pairs);
        c += n;
      }
      for (int64_t p = 0; last < b->first + width && p < n_pairs; p++)
        memset(x + p * width + last - b->first, 0, sizeof *x * (size_t)(b->first + width - last));
      memset(x + n_pairs * width, 0, sizeof *x * (size_t)((padded - n_pairs) * width));
      for (int64_t n = 0; n < g->n; n += mi)
        kernel->outer[b->nv](j->sums + n * j->ld + b->first, j->ld,
                             kernel->transposed ? dy_turned + n * PAIRS : dy + n / band * band * PAIRS + n % band,
                             kernel->transposed ? PAIRS : band, x, width, kernel->transposed ? padded : n_pairs);
    }
  }
  if (kernel->end) kernel->end();
  pn_free(memory);
  return 0;
}

typedef struct add_job {
  real *dw;
  const real *sums;
  int64_t n, ld_dw, ld_sums;
} add_job;

static void add_turned(void *context, int64_t begin, int64_t end) { /* rows of dw: columns of the sums */
  enum { SIDE = 16 };
  const add_job *j = context;
  for (int64_t r0 = begin; r0 < end; r0 += SIDE)
    for (int64_t n0 = 0; n0 < j->n; n0 += SIDE)
      for (int64_t r = r0; r < pn_min64(end, r0 + SIDE); r++)
        for (int64_t n = n0; n < pn_min64(j->n, n0 + SIDE); n++) j->dw[r * j->ld_dw + n] += j->sums[n * j->ld_sums + r];
}

/* dw[tap, k][n] += the outer products of one group. */
static int outer_products(real *dw, int64_t ld_dw, const pn_gather *g) {
  outer_job j = { .g = *g, .kernels = kernels() };
  int64_t columns = pn_gather_taps(g) * g->k, vectors = pn_ceil_div(columns, VL);
  if (!columns || !g->n) return 0;
  /* Units of at most outer_most_nv vectors, of even size; some for every thread where there are few. A sum does not depend on it. */
  int64_t n_units = pn_ceil_div(vectors, j.kernels->outer_most_nv);
  if (n_units < 4 * pn_threads()) n_units = pn_min64(vectors, round_up(n_units, pn_threads()));
  j.np = round_up(g->n, band_of(j.kernels));
  j.ld = vectors * VL;
  int64_t n_sums = j.np * j.ld, zeros = round_up(pn_max64(g->k, g->n) + VL, LINE);
  real *memory = pn_alloc_zero(sizeof(real) * (size_t)(n_sums + zeros));
  block *blocks = memory ? pn_alloc(sizeof *blocks * (size_t)n_units) : NULL;
  int rc = blocks ? 0 : -1;
  if (!rc) {
    int64_t first = 0;
    for (int64_t i = 0; i < n_units; i++) {
      int nv = (int)(vectors / n_units + (i < vectors % n_units));
      blocks[i] = (block){ .nv = nv, .first = first, .count = nv * VL };
      first += nv * VL;
    }
    j.blocks = blocks;
    j.sums = memory;
    j.g.zeros = memory + n_sums;
    rc = pn_parallel_try(n_units, 1, outer_units, &j);
  }
  if (!rc) {
    add_job add = { dw, j.sums, g->n, ld_dw, j.ld };
    pn_parallel(columns, 64, add_turned, &add);
  }
  pn_free(blocks);
  pn_free(memory);
  return rc;
}

int pn_convolve_weight_bf16(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g) {
  if (!kernels()) return plain_weight(dw, x, dy, g);
  int64_t *room = pn_gather_room(g), width = pn_fused_width(dy, g);
  bool fused = pn_fuses_rows(x, g);
  real *padded = NULL;
  int rc = room ? 0 : -1;
  if (!rc && fused && !(padded = pn_pad_rows(x, g->low[2], width))) rc = -1;
  for (int64_t group = 0; group < g->groups && !rc; group++) {
    pn_gather at;
    pn_gather_forward(&at, pn_group_of(dy, group, g->groups), pn_group_of(x, group, g->groups), g, room);
    if (fused) pn_fuse_rows(&at, padded, width * x.c, x, g);
    rc = outer_products(dw + group * at.n, dy.c, &at);
  }
  pn_free(padded);
  pn_free(room);
  return rc;
}

#endif
