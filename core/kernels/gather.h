/* gather.h: which input pixel each output pixel of a convolution sees through each tap; shared by the engines of convolve.c.
**
** A gather is the geometry of one dense convolution, in pixels of channels: three axes, each with its taps. The forward is one
** gather; the data gradient is one for each phase of the strides. Inputs are elements of `size` bytes, so that the same
** gather walks f32 pixels and their bf16 copies. Sizes and strides are in elements. */
#ifndef PENUMBRA_GATHER_H
#define PENUMBRA_GATHER_H
#include "geometry.h"

enum { PN_MOST_PANEL = 256 };

typedef struct pn_axis {
  int64_t n_out, n_taps, step, n_in, in_stride, out_stride;
  int64_t *offset; /* input coordinate = output coordinate * step + offset[tap] */
  int64_t *id;     /* which kernel element the tap is */
} pn_axis;

typedef struct pn_gather {
  int64_t batch, in_batch, out_batch;
  pn_axis axis[3];
  const void *in;
  int64_t size; /* bytes of an element of in */
  real *out;
  int64_t k, n;      /* channels of in and out */
  const void *zeros; /* k elements of zero: what lies outside the input */
  int64_t kept;      /* where not 0: of a row of outputs only so many are wanted; others have no place, NULL */
} pn_gather;

static inline int64_t pn_gather_taps(const pn_gather *g) { return g->axis[0].n_taps * g->axis[1].n_taps * g->axis[2].n_taps; }
static inline int64_t pn_gather_pixels(const pn_gather *g) {
  return g->batch * g->axis[0].n_out * g->axis[1].n_out * g->axis[2].n_out;
}

/* Output pixels of a panel, in n,t,h,w order, as runs along w that share their row. */
typedef struct pn_run {
  int64_t first, count; /* within the panel */
  int64_t t, h, w;      /* input coordinates of its first pixel before the tap's offset */
  const void *in;       /* and its address */
} pn_run;

typedef struct pn_panel {
  pn_run runs[PN_MOST_PANEL];
  int n_runs;
  int64_t count;
  real *out[PN_MOST_PANEL];
} pn_panel;

void pn_find_panel(const pn_gather *g, int64_t first, int64_t count, pn_panel *p);
/* What each pixel of a panel sees through one tap: to[at[m]], zeros where that lies outside the input. */
void pn_look_through(const pn_gather *g, const pn_panel *p, int64_t tap, const void **to, const int32_t *at);
/* The kernel elements t,h,w of a tap. */
void pn_gather_tap(const pn_gather *g, int64_t tap, int64_t id[3]);

/* ---- geometry to gathers: `room` is pn_gather_room's, which the caller frees ------------------------------------------------- */

PN_CHECKED int64_t *pn_gather_room(const pn_geometry *g);
/* y = x * w: every tap of the kernel; in is x and out is y. The channels are those of one group. */
void pn_gather_forward(pn_gather *out, pn_pixels y, pn_pixels x, const pn_geometry *g, int64_t *room);
/* dx's pixels phase, phase + stride, ...: in is dy, out is dx. */
void pn_gather_phase(pn_gather *out, pn_pixels dx, pn_pixels dy, const pn_geometry *g, const int64_t phase[3], int64_t *room);
/* Few input channels (the 7x7x7 stem on RGB): over rows that hold their padding, kernel columns x channels are one run of k, so a
** tap is a row of the kernel. pn_fused_width is the pixels of such a row; pn_fuse_rows turns a forward gather into this one. */
bool pn_fuses_rows(pn_pixels x, const pn_geometry *g);
int64_t pn_fused_width(pn_pixels y, const pn_geometry *g);
real *pn_pad_rows(pn_pixels x, int64_t low, int64_t width); /* those rows; the caller frees them */
void pn_fuse_rows(pn_gather *out, const void *padded, int64_t row_elements, pn_pixels x, const pn_geometry *g);

/* ---- weights of one group: element (tap t,h,w; k; n) at t*st + h*sh + w*sw + k*sk + n*sn -------------------------------------- */

typedef struct pn_weights {
  const real *w;
  int64_t st, sh, sw, sk, sn;
} pn_weights;

pn_weights pn_weights_forward(const real *w, pn_pixels y, pn_pixels x, const pn_geometry *g, int64_t group);
pn_weights pn_weights_data(const real *w, pn_pixels dy, pn_pixels dx, const pn_geometry *g, int64_t group); /* transposed */
static inline const real *pn_weights_tap(const pn_weights *w, const int64_t id[3]) {
  return w->w + id[0] * w->st + id[1] * w->sh + id[2] * w->sw;
}

/* The channels of one group, c still those of all. */
static inline pn_pixels pn_group_of(pn_pixels p, int64_t group, int64_t groups) {
  p.data += group * (p.c / groups);
  return p;
}

#endif
