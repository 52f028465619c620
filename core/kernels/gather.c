/* gather.c: see gather.h.
**
**   forward   output o sees input  o*stride - low + k*dilation
**   data      by phase: inputs i = phase + stride*q of one residue see outputs q + (phase + low - k*dilation)/stride, for the
**             taps k where that is whole. A transposed convolution is this, so it too runs as dense phase convolutions. */
#include "gather.h"
#include <string.h>

void pn_find_panel(const pn_gather *g, int64_t first, int64_t count, pn_panel *p) {
  const pn_axis *t = &g->axis[0], *h = &g->axis[1], *w = &g->axis[2];
  int64_t ow = first % w->n_out, row = first / w->n_out;
  p->count = count;
  p->n_runs = 0;
  for (int64_t m = 0; m < count; row++, ow = 0) {
    int64_t oh = row % h->n_out, ot = row / h->n_out % t->n_out, n = row / h->n_out / t->n_out,
            length = pn_min64(count - m, w->n_out - ow);
    pn_run *r = &p->runs[p->n_runs++];
    *r = (pn_run){ m, length, ot * t->step, oh * h->step, ow * w->step, NULL };
    r->in = (const char *)g->in + g->size * (n * g->in_batch + r->t * t->in_stride + r->h * h->in_stride + r->w * w->in_stride);
    real *out = g->out + n * g->out_batch + ot * t->out_stride + oh * h->out_stride + ow * w->out_stride;
    for (int64_t i = 0; i < length; i++) p->out[m++] = !g->kept || ow + i < g->kept ? out + i * w->out_stride : NULL;
  }
}

void pn_look_through(const pn_gather *g, const pn_panel *p, int64_t tap, const void **to, const int32_t *at) {
  const pn_axis *t = &g->axis[0], *h = &g->axis[1], *w = &g->axis[2];
  int64_t dt = t->offset[tap / w->n_taps / h->n_taps], dh = h->offset[tap / w->n_taps % h->n_taps], dw = w->offset[tap % w->n_taps];
  uintptr_t by = (uintptr_t)((dt * t->in_stride + dh * h->in_stride + dw * w->in_stride) * g->size);
  uintptr_t step = (uintptr_t)(w->step * w->in_stride * g->size);
  for (const pn_run *r = p->runs; r < p->runs + p->n_runs; r++) {
    int64_t begin = 0, end = 0, first = r->w + dw; /* of the run, the pixels first + i*step within 0..n_in-1 */
    if ((uint64_t)(r->t + dt) < (uint64_t)t->n_in && (uint64_t)(r->h + dh) < (uint64_t)h->n_in) {
      begin = first >= 0 ? 0 : pn_min64(r->count, (-first + w->step - 1) / w->step);
      end = first >= w->n_in ? 0 : pn_min64(r->count, (w->n_in - 1 - first) / w->step + 1);
      if (end < begin) end = begin;
    }
    const int32_t *place = at + r->first;
    uintptr_t address = (uintptr_t)r->in + by;
    int64_t i = 0;
    for (; i < begin; i++) to[place[i]] = g->zeros;
    for (; i < end; i++) to[place[i]] = (const void *)(address + (uintptr_t)i * step);
    for (; i < r->count; i++) to[place[i]] = g->zeros;
  }
}

void pn_gather_tap(const pn_gather *g, int64_t tap, int64_t id[3]) {
  const pn_axis *a = g->axis;
  id[0] = a[0].id[tap / a[2].n_taps / a[1].n_taps];
  id[1] = a[1].id[tap / a[2].n_taps % a[1].n_taps];
  id[2] = a[2].id[tap % a[2].n_taps];
}

int64_t *pn_gather_room(const pn_geometry *g) {
  return pn_alloc(sizeof(int64_t) * 2 * (size_t)(g->kernel[0] + g->kernel[1] + g->kernel[2]));
}

static int64_t *axis_room(const pn_geometry *g, int d, int64_t *room) {
  for (int i = 0; i < d; i++) room += 2 * g->kernel[i];
  return room;
}

static void forward_axis(pn_axis *a, const pn_geometry *g, int d, int64_t n_out, int64_t n_in, int64_t in_stride,
                         int64_t out_stride, int64_t *room) {
  room = axis_room(g, d, room);
  *a = (pn_axis){ n_out, g->kernel[d], g->stride[d], n_in, in_stride, out_stride, room, room + g->kernel[d] };
  for (int64_t k = 0; k < g->kernel[d]; k++) a->offset[k] = k * g->dilation[d] - g->low[d], a->id[k] = k;
}

void pn_gather_forward(pn_gather *out, pn_pixels y, pn_pixels x, const pn_geometry *g, int64_t *room) {
  *out = (pn_gather){ .batch = y.n,
                      .in_batch = x.sn,
                      .out_batch = y.sn,
                      .in = x.data,
                      .size = sizeof(real),
                      .out = y.data,
                      .k = x.c / g->groups,
                      .n = y.c / g->groups };
  forward_axis(&out->axis[0], g, 0, y.t, x.t, x.st, y.st, room);
  forward_axis(&out->axis[1], g, 1, y.h, x.h, x.sh, y.sh, room);
  forward_axis(&out->axis[2], g, 2, y.w, x.w, x.sw, y.sw, room);
}

/* The inputs phase, phase + stride, ... along one axis: their taps, and which outputs they see. */
static void phase_axis(pn_axis *a, const pn_geometry *g, int d, int64_t phase, int64_t n_x, int64_t n_y, int64_t x_stride,
                       int64_t y_stride, int64_t *room) {
  int64_t s = g->stride[d];
  room = axis_room(g, d, room);
  *a = (pn_axis){ pn_ceil_div(n_x - phase, s), 0, 1, n_y, y_stride, x_stride * s, room, room + g->kernel[d] };
  for (int64_t k = 0; k < g->kernel[d]; k++) {
    int64_t at = phase + g->low[d] - k * g->dilation[d];
    if (at % s) continue;
    a->offset[a->n_taps] = at / s;
    a->id[a->n_taps++] = k;
  }
}

void pn_gather_phase(pn_gather *out, pn_pixels dx, pn_pixels dy, const pn_geometry *g, const int64_t phase[3], int64_t *room) {
  *out = (pn_gather){ .batch = dx.n,
                      .in_batch = dy.sn,
                      .out_batch = dx.sn,
                      .in = dy.data,
                      .size = sizeof(real),
                      .out = pn_pixel(dx, 0, phase[0], phase[1], phase[2]),
                      .k = dy.c / g->groups,
                      .n = dx.c / g->groups };
  phase_axis(&out->axis[0], g, 0, phase[0], dx.t, dy.t, dx.st, dy.st, room);
  phase_axis(&out->axis[1], g, 1, phase[1], dx.h, dy.h, dx.sh, dy.sh, room);
  phase_axis(&out->axis[2], g, 2, phase[2], dx.w, dy.w, dx.sw, dy.sw, room);
}

bool pn_fuses_rows(pn_pixels x, const pn_geometry *g) {
  enum { FEW_CHANNELS = 4 };
  return g->groups == 1 && x.c <= FEW_CHANNELS && g->kernel[2] > 1 && g->dilation[2] == 1;
}

int64_t pn_fused_width(pn_pixels y, const pn_geometry *g) { return (y.w - 1) * g->stride[2] + g->kernel[2]; }

typedef struct pad_job {
  pn_pixels from;
  real *to;
  int64_t low, width;
} pad_job;

static void pad_rows(void *context, int64_t begin, int64_t end) {
  const pad_job *j = context;
  const pn_pixels *x = &j->from;
  for (int64_t row = begin; row < end; row++) {
    const real *from = pn_pixel(*x, row / x->h / x->t, row / x->h % x->t, row % x->h, 0);
    real *to = j->to + row * j->width * x->c;
    memset(to, 0, sizeof(real) * (size_t)(j->width * x->c));
    for (int64_t w = 0; w < x->w; w++)
      if (w + j->low >= 0 && w + j->low < j->width) memcpy(to + (w + j->low) * x->c, from + w * x->sw, sizeof(real) * (size_t)x->c);
  }
}

real *pn_pad_rows(pn_pixels x, int64_t low, int64_t width) {
  real *to = pn_alloc(sizeof(real) * (size_t)(x.n * x.t * x.h * width * x.c));
  if (!to) return NULL;
  pad_job j = { x, to, low, width };
  pn_parallel(x.n * x.t * x.h, 16, pad_rows, &j);
  return to;
}

void pn_fuse_rows(pn_gather *out, const void *padded, int64_t row_elements, pn_pixels x, const pn_geometry *g) {
  pn_axis *w = &out->axis[2];
  out->in = padded;
  out->k = x.c * g->kernel[2];
  out->in_batch = x.t * x.h * row_elements;
  out->axis[0].in_stride = x.h * row_elements;
  out->axis[1].in_stride = row_elements;
  w->n_taps = 1;
  w->offset[0] = w->id[0] = 0;
  w->in_stride = x.c;
  w->n_in = (w->n_out - 1) * g->stride[2] + g->kernel[2];
}

pn_weights pn_weights_forward(const real *w, pn_pixels y, pn_pixels x, const pn_geometry *g, int64_t group) {
  int64_t matrix = x.c / g->groups * y.c;
  return (pn_weights){ w + group * (y.c / g->groups), g->kernel[1] * g->kernel[2] * matrix, g->kernel[2] * matrix, matrix, y.c, 1 };
}

pn_weights pn_weights_data(const real *w, pn_pixels dy, pn_pixels dx, const pn_geometry *g, int64_t group) {
  pn_weights ws = pn_weights_forward(w, dy, dx, g, group);
  return (pn_weights){ ws.w, ws.st, ws.sh, ws.sw, ws.sn, ws.sk };
}
