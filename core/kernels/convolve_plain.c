/* convolve_plain.c: what convolution is, in loops that can be read. Every fast kernel is compared with these. */
#include "convolve_plain.h"

typedef struct job {
  pn_pixels y, x;
  const real *w, *bias;
  real *dw;
  const pn_geometry *g;
  bool add, relu;
} job;

static const real *filter(const job *j, int64_t t, int64_t h, int64_t w) { /* the (I/groups) x O matrix of one tap */
  const pn_geometry *g = j->g;
  return j->w + ((t * g->kernel[1] + h) * g->kernel[2] + w) * (j->x.c / g->groups) * j->y.c;
}

static void forward_rows(void *context, int64_t begin, int64_t end) { /* rows of y: n,t,h */
  const job *j = context;
  const pn_geometry *g = j->g;
  int64_t in = j->x.c / g->groups, out = j->y.c / g->groups;
  for (int64_t row = begin; row < end; row++)
    for (int64_t w = 0; w < j->y.w; w++) {
      int64_t h = row % j->y.h, t = row / j->y.h % j->y.t, n = row / j->y.h / j->y.t, it, ih, iw;
      real *y = pn_pixel(j->y, n, t, h, w);
      for (int64_t o = 0; o < j->y.c; o++) y[o] = j->bias ? j->bias[o] : 0;
      for (int64_t a = 0; a < g->kernel[0]; a++)
        for (int64_t b = 0; b < g->kernel[1]; b++)
          for (int64_t c = 0; c < g->kernel[2]; c++) {
            if (!pn_sees(g, 0, t, a, j->x.t, &it) || !pn_sees(g, 1, h, b, j->x.h, &ih) || !pn_sees(g, 2, w, c, j->x.w, &iw))
              continue;
            const real *x = pn_pixel(j->x, n, it, ih, iw), *f = filter(j, a, b, c);
            for (int64_t o = 0; o < j->y.c; o += out)
              for (int64_t i = 0; i < in; i++)
                for (int64_t k = o; k < o + out; k++) y[k] += x[o / out * in + i] * f[i * j->y.c + k];
          }
      for (int64_t o = 0; o < j->y.c && j->relu; o++) y[o] = y[o] < 0 ? 0 : y[o];
    }
}

static void data_rows(void *context, int64_t begin, int64_t end) { /* rows of dx */
  const job *j = context;
  const pn_geometry *g = j->g;
  int64_t in = j->x.c / g->groups, out = j->y.c / g->groups;
  for (int64_t row = begin; row < end; row++)
    for (int64_t w = 0; w < j->x.w; w++) {
      int64_t h = row % j->x.h, t = row / j->x.h % j->x.t, n = row / j->x.h / j->x.t, ot, oh, ow;
      real *dx = pn_pixel(j->x, n, t, h, w);
      for (int64_t i = 0; i < j->x.c && !j->add; i++) dx[i] = j->bias ? j->bias[i] : 0;
      for (int64_t a = 0; a < g->kernel[0]; a++)
        for (int64_t b = 0; b < g->kernel[1]; b++)
          for (int64_t c = 0; c < g->kernel[2]; c++) {
            if (!pn_seen_by(g, 0, t, a, j->y.t, &ot) || !pn_seen_by(g, 1, h, b, j->y.h, &oh) ||
                !pn_seen_by(g, 2, w, c, j->y.w, &ow))
              continue;
            const real *dy = pn_pixel(j->y, n, ot, oh, ow), *f = filter(j, a, b, c);
            for (int64_t i = 0; i < j->x.c; i++) {
              real sum = 0;
              for (int64_t k = i / in * out; k < (i / in + 1) * out; k++) sum += dy[k] * f[i % in * j->y.c + k];
              dx[i] += sum;
            }
          }
    }
}

static void weight_taps(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const pn_geometry *g = j->g;
  int64_t in = j->x.c / g->groups, out = j->y.c / g->groups;
  for (int64_t tap = begin; tap < end; tap++) {
    int64_t c = tap % g->kernel[2], b = tap / g->kernel[2] % g->kernel[1], a = tap / g->kernel[2] / g->kernel[1], it, ih, iw;
    real *dw = j->dw + tap * in * j->y.c;
    for (int64_t n = 0; n < j->y.n; n++)
      for (int64_t t = 0; t < j->y.t; t++)
        for (int64_t h = 0; h < j->y.h; h++)
          for (int64_t w = 0; w < j->y.w; w++) {
            if (!pn_sees(g, 0, t, a, j->x.t, &it) || !pn_sees(g, 1, h, b, j->x.h, &ih) || !pn_sees(g, 2, w, c, j->x.w, &iw))
              continue;
            const real *x = pn_pixel(j->x, n, it, ih, iw), *dy = pn_pixel(j->y, n, t, h, w);
            for (int64_t i = 0; i < in; i++)
              for (int64_t k = 0; k < j->y.c; k++) dw[i * j->y.c + k] += x[k / out * in + i] * dy[k];
          }
  }
}

void pn_convolve_plain(pn_pixels y, pn_pixels x, const real *w, pn_epilogue end, const pn_geometry *g) {
  job j = { .y = y, .x = x, .w = w, .bias = end.bias, .relu = end.relu, .g = g };
  pn_parallel(y.n * y.t * y.h, 1, forward_rows, &j);
}

void pn_convolve_data_plain(pn_pixels dx, pn_pixels dy, const real *w, const real *bias, bool add, const pn_geometry *g) {
  job j = { .y = dy, .x = dx, .w = w, .bias = bias, .g = g, .add = add };
  pn_parallel(dx.n * dx.t * dx.h, 1, data_rows, &j);
}

void pn_convolve_weight_plain(real *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g) {
  job j = { .y = dy, .x = x, .dw = dw, .g = g };
  pn_parallel(g->kernel[0] * g->kernel[1] * g->kernel[2], 1, weight_taps, &j);
}
