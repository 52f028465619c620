/* convolve.c: convolution and its adjoints as gathered products (product.h).
**
**   forward   a product over the gather of x (gather.h)
**   data      a product for each phase of the strides over the gather of dy, with the matrices transposed
**   weight    for each tap, the outer products of the pixels it sees with dy, over pixels in blocks that stay in L1
** Few input channels (the 7x7x7 stem on RGB): rows are padded once and kernel columns x channels become one run of k. */
#include <stdlib.h>
#include <string.h>
#include "convolve.h"
#include "convolve_plain.h"
#include "convolve_bf16.h"
#include "gather.h"
#include "product.h"
#include "winograd.h"

#ifdef PN_F64_BUILD

int pn_convolve(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g) {
  return pn_convolve_plain(y, x, w, end, g), 0;
}
int pn_convolve_data(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g) {
  return pn_convolve_data_plain(dx, dy, w, bias, add, g), 0;
}
int pn_convolve_weight(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g) {
  return pn_convolve_weight_plain(dw, x, dy, g), 0;
}

#else

enum { PANEL = 96, TAPS = 32, PIXELS = 128, WEIGHT_BLOCK = 96 << 10, MOST_BLOCKS = 64 };

static const pn_product_kernels *kernels(void) {
  static const pn_product_kernels *const table[PN_N_CPU_VARIANTS] = { NULL, &pn_product_avx2, &pn_product_avx512 };
  int variant = pn_cpu();
  while (variant > PN_CPU_PLAIN && !table[variant]) variant--;
  const pn_product_kernels *k = table[variant];
  return k && k->vl ? k : NULL;
}

/* Few columns leave the longest vectors half empty: then shorter ones, of which a core does twice as many. */
static const pn_product_kernels *kernels_for(int64_t columns) {
  const pn_product_kernels *best = kernels();
  return best == &pn_product_avx512 && columns <= pn_product_avx2.vl ? &pn_product_avx2 : best;
}

/* ---- weights, packed into panels of NV vectors ------------------------------------------------------------------------------- */

typedef struct block {
  int nv;               /* vectors of channels; 0: a single channel, vectors along k */
  int64_t first, count; /* channels */
  int64_t at, tap_size; /* its place in the packed weights, and the floats of one tap there */
} block;

typedef struct product {
  pn_gather g;
  pn_weights w;
  const pn_product_kernels *kernels;
  block blocks[MOST_BLOCKS];
  int n_blocks;
  int64_t n_taps;
  real *packed, *bias; /* bias padded like a row of blocks; NULL for none */
  bool add, relu;
} product;

/* n channels as even blocks of at most `most` vectors, or, where vectors of channels would be mostly empty, as single channels.
** Returns how many, or 0 when there would be too many. */
static int cut_blocks(int64_t n, int64_t k, int vl, int most, int64_t n_taps, bool singles, block *out, int64_t *total) {
  bool single = singles && n <= 2 && 2 * k >= vl;
  int64_t vectors = pn_ceil_div(n, vl), n_blocks = single ? n : pn_ceil_div(vectors, most), at = 0, first = 0;
  if (n_blocks > MOST_BLOCKS) return 0;
  for (int64_t i = 0; i < n_blocks; i++) {
    int nv = single ? 0 : (int)(vectors / n_blocks + (i < vectors % n_blocks));
    int64_t tap_size = single ? pn_ceil_div(k, vl) * vl : k * nv * vl;
    out[i] = (block){ nv, first, single ? 1 : pn_min64(n - first, nv * vl), at, tap_size };
    first += single ? 1 : nv * vl;
    at += n_taps * tap_size;
  }
  *total = at;
  return (int)n_blocks;
}

static void pack_taps(void *context, int64_t begin, int64_t end) { /* units: block x tap */
  const product *p = context;
  const pn_gather *g = &p->g;
  int vl = p->kernels->vl;
  for (int64_t unit = begin; unit < end; unit++) {
    const block *b = &p->blocks[unit / p->n_taps];
    int64_t tap = unit % p->n_taps, width = b->nv * vl, k = g->k;
    int64_t id[3];
    pn_gather_tap(g, tap, id);
    const real *from = pn_weights_tap(&p->w, id) + b->first * p->w.sn;
    real *to = p->packed + b->at + tap * b->tap_size;
    if (b->nv == 0) {
      for (int64_t i = 0; i < b->tap_size; i++) to[i] = i < k ? from[i * p->w.sk] : 0;
    } else if (p->w.sn == 1)
      for (int64_t i = 0; i < k; i++) {
        memcpy(to + i * width, from + i * p->w.sk, sizeof(real) * (size_t)b->count);
        for (int64_t n = b->count; n < width; n++) to[i * width + n] = 0;
      }
    else {
      for (int64_t n = 0; n < b->count; n++)
        for (int64_t i = 0; i < k; i++) to[i * width + n] = from[i * p->w.sk + n * p->w.sn];
      for (int64_t n = b->count; n < width; n++)
        for (int64_t i = 0; i < k; i++) to[i * width + n] = 0;
    }
  }
}

/* ---- the product ----------------------------------------------------------------------------------------------------------------- */

static void multiply_panel(const product *p, int64_t index, const block *blocks, int n_blocks) {
  const pn_gather *g = &p->g;
  pn_panel here;
  const void *rows[TAPS * (PANEL + PN_MOST_MR)];
  real spare[PN_MOST_NV * PN_MOST_VL], *out[PN_MOST_MR];
  int32_t at[PANEL];
  int64_t first = index * PANEL;
  int64_t most_taps = pn_max64(1, pn_min64(TAPS, WEIGHT_BLOCK / (int64_t)sizeof(real) / pn_max64(1, blocks[0].tap_size)));
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
        for (int64_t i = 0; i < mr; i++) out[i] = m + i < count ? here.out[m + i] + to->first : spare;
        p->kernels->tile[to->nv](out, rows + m * n_taps, n_taps, g->k, p->packed + to->at + tap * to->tap_size,
                                 p->bias && tap == 0 ? p->bias + to->first : NULL, to->count, p->add || tap > 0,
                                 p->relu && tap + n_taps == p->n_taps);
      }
    }
    tap += n_taps;
  } while (tap < p->n_taps);
}

static void multiply_panels(void *context, int64_t begin, int64_t end) {
  const product *p = context;
  for (int64_t i = begin; i < end; i++) multiply_panel(p, i, p->blocks, p->n_blocks);
}

static void multiply_blocks(void *context, int64_t begin, int64_t end) { /* few panels: a unit is one block of one panel */
  const product *p = context;
  for (int64_t i = begin; i < end; i++) multiply_panel(p, i / p->n_blocks, &p->blocks[i % p->n_blocks], 1);
}

static int multiply(const pn_gather *g, const pn_weights *w, pn_epilogue end, bool add) {
  product p = {
    .g = *g, .w = *w, .kernels = kernels_for(g->n > 2 ? g->n : g->k / 2), .n_taps = pn_gather_taps(g), .add = add, .relu = end.relu
  };
  int64_t total, vl = p.kernels->vl, pixels = pn_gather_pixels(g);
  if (!pixels || !g->n) return 0;
  p.n_blocks = cut_blocks(g->n, g->k, (int)vl, p.kernels->most_nv, p.n_taps, true, p.blocks, &total);
  if (!p.n_blocks) return pn_fail("convolution: %lld output channels are too many", (long long)g->n);
  int64_t padded = pn_ceil_div(g->n, vl) * vl;
  real *memory = pn_alloc(sizeof(real) * (size_t)(total + padded + g->k + vl));
  if (!memory) return -1;
  p.packed = memory;
  if (end.bias) {
    p.bias = memory + total;
    memset(p.bias, 0, sizeof(real) * (size_t)padded);
    memcpy(p.bias, end.bias, sizeof(real) * (size_t)g->n);
  }
  real *zeros = memory + total + padded;
  memset(zeros, 0, sizeof(real) * (size_t)(g->k + vl));
  p.g.zeros = zeros;
  pn_parallel(p.n_blocks * p.n_taps, 4, pack_taps, &p);
  int64_t panels = pn_ceil_div(pixels, PANEL);
  if (panels >= 8 * pn_threads()) pn_parallel(panels, 1, multiply_panels, &p);
  else pn_parallel(panels * p.n_blocks, 1, multiply_blocks, &p);
  pn_free(memory);
  return 0;
}

/* ---- the outer products ------------------------------------------------------------------------------------------------------------ */

typedef struct outer_job {
  pn_gather g; /* out is dy, read only */
  const pn_product_kernels *kernels;
  block blocks[MOST_BLOCKS];
  int n_blocks;
  int64_t k_rows, k_groups; /* a unit is one tap and k_rows rows of its matrix */
  real *sums;               /* taps x k x ld */
  int64_t ld;
} outer_job;

static void outer_rows(const outer_job *j, const block *b, real *sums, const void *const *rows, const real *dy, int64_t count,
                       int64_t k0, int64_t k1) {
  int mi = j->kernels->outer_mi;
  pn_outer_fn *fn = j->kernels->outer[b->nv];
  real *at = sums + b->first;
  int64_t k = k0;
  for (; k + mi <= k1; k += mi) fn(at + k * j->ld, j->ld, rows, k, dy, count, mi);
  if (k == k1) return;
  if (k1 < mi) { /* too few channels for a whole tile */
    fn(at + k * j->ld, j->ld, rows, k, dy, count, k1 - k);
    return;
  }
  real spare[PN_MOST_MR * PN_MOST_NV * PN_MOST_VL] = { 0 }; /* a whole tile that ends at k1; only its last rows are new */
  int64_t width = b->nv * j->kernels->vl;
  fn(spare, width, rows, k1 - mi, dy, count, mi);
  for (; k < k1; k++)
    for (int64_t n = 0; n < width; n++) at[k * j->ld + n] += spare[(k - k1 + mi) * width + n];
}

static int outer_units(void *context, int64_t begin, int64_t end) {
  const outer_job *j = context;
  const pn_gather *g = &j->g;
  int64_t vl = j->kernels->vl, pixels = begin < end ? pn_gather_pixels(g) : 0;
  pn_panel here;
  const void *rows[PIXELS];
  int32_t at[PIXELS];
  for (int32_t i = 0; i < PIXELS; i++) at[i] = i;
  real *dy = pn_alloc(sizeof(real) * (size_t)(PIXELS * j->ld));
  if (!dy) return -1;
  for (int64_t first = 0; first < pixels; first += PIXELS) {
    int64_t count = pn_min64(PIXELS, pixels - first);
    pn_find_panel(g, first, count, &here);
    for (int b = 0; b < j->n_blocks; b++) { /* dy in panels: block x pixel x channel, padded with zeros */
      const block *of = &j->blocks[b];
      int64_t width = of->nv * vl;
      real *to = dy + PIXELS * of->first;
      for (int64_t i = 0; i < count; i++, to += width) {
        memcpy(to, here.out[i] + of->first, sizeof(real) * (size_t)of->count);
        for (int64_t n = of->count; n < width; n++) to[n] = 0;
      }
    }
    int64_t tap = -1;
    for (int64_t unit = begin; unit < end; unit++) {
      if (tap != unit / j->k_groups) {
        tap = unit / j->k_groups;
        pn_look_through(g, &here, tap, rows, at);
      }
      int64_t k0 = unit % j->k_groups * j->k_rows, k1 = pn_min64(k0 + j->k_rows, g->k);
      for (int b = 0; b < j->n_blocks; b++)
        outer_rows(j, &j->blocks[b], j->sums + tap * g->k * j->ld, rows, dy + PIXELS * j->blocks[b].first, count, k0, k1);
    }
  }
  pn_free(dy);
  return 0;
}

/* sums[tap][k][n]; the caller frees it. ld is n rounded up to vectors. */
static int outer_products(const pn_gather *g, real **sums, int64_t *ld) {
  outer_job j = { .g = *g, .kernels = kernels_for(g->n) };
  int64_t total;
  j.n_blocks = cut_blocks(g->n, 1, j.kernels->vl, j.kernels->outer_most_nv, 1, false, j.blocks, &total);
  if (!j.n_blocks) return pn_fail("convolution: %lld output channels are too many", (long long)g->n);
  j.ld = total;
  j.k_rows = pn_max64(1, 32 / j.kernels->outer_mi) * j.kernels->outer_mi;
  j.k_groups = pn_ceil_div(g->k, j.k_rows);
  int64_t rows = pn_gather_taps(g) * g->k;
  real *memory = pn_alloc_zero(sizeof(real) * (size_t)(rows * j.ld + g->k + 16));
  if (!memory) return -1;
  j.sums = memory;
  j.g.zeros = memory + rows * j.ld;
  if (pn_parallel_try(pn_gather_taps(g) * j.k_groups, 1, outer_units, &j)) {
    pn_free(memory);
    return -1;
  }
  *sums = memory;
  *ld = j.ld;
  return 0;
}

/* The gather over padded rows: one tap a row of the kernel, k = kernel width x channels. */
static int fuse_rows(pn_gather *out, pn_pixels y, pn_pixels x, const pn_geometry *g, int64_t *room, real **padded) {
  int64_t width = pn_fused_width(y, g);
  *padded = pn_pad_rows(x, g->low[2], width);
  if (!*padded) return -1;
  pn_gather_forward(out, y, x, g, room);
  pn_fuse_rows(out, *padded, width * x.c, x, g);
  return 0;
}

/* ---- which engine ------------------------------------------------------------------------------------------------------------------------- */

typedef enum way { BY_DEFINITION, DIRECTLY, IN_BF16, BY_WINOGRAD, FOLDED } way;

/* The one place that decides, for all three: y and x are the pixels that are not, and those that are seen through the taps. fold:
** where a fold will do. Minimal filtering stays f32 also in precision bf16, where it is faster than direct products: with rounded
** products it would gain a sixth and lose a hundredth of accuracy in each layer. Against AMX it never is. */
static way choose(pn_pixels y, pn_pixels x, const pn_geometry *g, pn_winograd_tile *tile, pn_fold *fold) {
  *tile = pn_winograd_choose(y, x, g);
  if (!pn_winograd_direct(*tile)) return BY_WINOGRAD;
  if (fold) *fold = pn_fold_choose(y, x, g);
  if (fold && !pn_winograd_direct(fold->tile)) return FOLDED;
  return pn_takes_bf16(y, x, g) ? IN_BF16 : kernels() ? DIRECTLY : BY_DEFINITION;
}

/* ---- the three ---------------------------------------------------------------------------------------------------------------------------- */

int pn_convolve(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g) {
  pn_winograd_tile tile;
  pn_fold fold;
  switch (choose(y, x, g, &tile, &fold)) {
  case BY_DEFINITION: return pn_convolve_plain(y, x, w, end, g), 0;
  case FOLDED: return pn_fold_convolve(y, x, w, end, g, &fold);
  case BY_WINOGRAD: return pn_winograd_convolve(y, x, w, end, false, false, g, tile);
  case IN_BF16: return pn_convolve_bf16(y, x, w, end, g);
  case DIRECTLY: break;
  }
  int64_t *room = pn_gather_room(g);
  if (!room) return -1;
  int rc = 0;
  real *padded = NULL;
  for (int64_t group = 0; group < g->groups && !rc; group++) {
    pn_gather at;
    pn_weights ws = pn_weights_forward(w, y, x, g, group);
    if (pn_fuses_rows(x, g)) rc = fuse_rows(&at, y, x, g, room, &padded);
    else pn_gather_forward(&at, pn_group_of(y, group, g->groups), pn_group_of(x, group, g->groups), g, room);
    if (!rc) rc = multiply(&at, &ws, (pn_epilogue){ end.bias ? end.bias + group * at.n : NULL, end.relu }, false);
  }
  pn_free(padded);
  pn_free(room);
  return rc;
}

typedef struct data_job {
  pn_pixels dx, dy;
  const real *w, *bias;
  bool add;
  const pn_geometry *g;
  int64_t phases[3];
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
    pn_gather_phase(&at, pn_group_of(j->dx, group, g->groups), pn_group_of(j->dy, group, g->groups), g, phase, room);
    if (j->add && !pn_gather_taps(&at)) continue;
    rc = multiply(&at, &ws, (pn_epilogue){ .bias = j->bias ? j->bias + group * at.n : NULL }, j->add);
  }
  pn_free(room);
  return rc;
}

int pn_convolve_data(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g) {
  pn_winograd_tile tile;
  switch (choose(dx, dy, g, &tile, NULL)) {
  case BY_DEFINITION: return pn_convolve_data_plain(dx, dy, w, bias, add, g), 0;
  case BY_WINOGRAD: return pn_winograd_convolve(dx, dy, w, (pn_epilogue){ .bias = bias }, add, true, g, tile);
  case IN_BF16: return pn_convolve_data_bf16(dx, dy, w, bias, add, g);
  case FOLDED:
  case DIRECTLY: break;
  }
  data_job j = {
    dx, dy, w, bias, add, g, {pn_min64(g->stride[0], dx.t), pn_min64(g->stride[1], dx.h), pn_min64(g->stride[2], dx.w)}
  };
  int64_t units = g->groups * j.phases[0] * j.phases[1] * j.phases[2];
  if (units >= 4 * pn_threads())
    return pn_parallel_try(units, 1, data_phases, &j); /* many small products: threads take whole ones */
  return data_phases(&j, 0, units);
}

typedef struct add_job {
  real *dw;
  const real *sums;
  int64_t n, to_ld, from_ld;
} add_job;

static void add_rows(void *context, int64_t begin, int64_t end) {
  const add_job *j = context;
  for (int64_t r = begin; r < end; r++)
    for (int64_t n = 0; n < j->n; n++) j->dw[r * j->to_ld + n] += j->sums[r * j->from_ld + n];
}

int pn_convolve_weight(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g) {
  pn_winograd_tile tile;
  pn_fold fold, *may = pn_takes_bf16(dy, x, g) ? NULL : &fold; /* directly in bf16 this is faster than folded */
  switch (choose(dy, x, g, &tile, may)) {
  case BY_DEFINITION: return pn_convolve_weight_plain(dw, x, dy, g), 0;
  case FOLDED: return pn_fold_weight(dw, x, dy, g, &fold);
  case BY_WINOGRAD: return pn_winograd_weight(dw, x, dy, g, tile);
  case IN_BF16: return pn_convolve_weight_bf16(dw, x, dy, g);
  case DIRECTLY: break;
  }
  int64_t *room = pn_gather_room(g);
  if (!room) return -1;
  int rc = 0;
  real *padded = NULL;
  for (int64_t group = 0; group < g->groups && !rc; group++) {
    pn_gather at;
    real *sums = NULL;
    int64_t ld = 0;
    if (pn_fuses_rows(x, g)) rc = fuse_rows(&at, dy, x, g, room, &padded);
    else pn_gather_forward(&at, pn_group_of(dy, group, g->groups), pn_group_of(x, group, g->groups), g, room);
    rc = rc ? rc : outer_products(&at, &sums, &ld);
    if (rc) break;
    add_job j = { dw + group * at.n, sums, at.n, dy.c, ld };
    pn_parallel(pn_gather_taps(&at) * at.k, 64, add_rows, &j);
    pn_free(sums);
  }
  pn_free(padded);
  pn_free(room);
  return rc;
}

#endif
