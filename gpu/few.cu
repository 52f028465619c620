/* few.cu: see few.h. With C channels in x, K taps and S = stride t x h x w:
**   forward  a thread an element of y: the K/S pixels of x that reach it, C products each; neighbours along w share the pixels
**   data     a thread a group of V channels of a pixel of x, or several (lanes) that share its taps and add up in a tree
**   weight   a thread a tap, a group of V channels and a run of the pixels of x; the runs are then added in order, in double
** V channels are 16 bytes of x where memory allows, else 1: what a tap or a pixel costs serves V products. Inside, addresses move by
** steps along w; multiplications and divisions of 64 bits, which cost several products each, are left to each row.
** For FCN-I3D's sides (C = 16, 8 pixels an element) each is 0.1 GMAC and at most 10 MB from memory. */
#include "few.h"
#include "kernels/window.h"
#include "volume.h"

enum { MOST_FROM = 64, MOST_TO = 4, THREADS = 256, JOINED = 32, LINES = THREADS / JOINED };

bool pn_few_fit(int64_t c, int64_t o, const pn_geometry *g) {
  bool dilated = g->dilation[0] != 1 || g->dilation[1] != 1 || g->dilation[2] != 1;
  return c >= 1 && c <= MOST_FROM && o >= 1 && o <= MOST_TO && g->groups == 1 && !dilated;
}

typedef struct few {
  pn_window window; /* of y, as one that x's pixels are the results of */
  pn_volume x, y;
} few;

static few few_of(const pn_tensor *x, const pn_tensor *y, const pn_geometry *g) {
  few f;
  f.x = pn_volume_of(x), f.y = pn_volume_of(y);
  for (int d = 0; d < 3; d++) pn_window_set(&f.window, d, g->kernel[d], g->stride[d], g->low[d]);
  return f;
}

typedef struct pixel {
  int64_t n, t, h, w;
} pixel;

/* Pixel i of a volume, in the order N,T,H,W. */
PN_DEVICE pixel pixel_of(int64_t i, const pn_volume *v) {
  pixel p;
  if (i <= UINT32_MAX) { /* divisions of 32 bits are several times faster */
    uint32_t rest = (uint32_t)i, t = (uint32_t)v->t, h = (uint32_t)v->h, w = (uint32_t)v->w;
    p.w = rest % w, rest /= w;
    p.h = rest % h, rest /= h;
    p.t = rest % t, p.n = rest / t;
    return p;
  }
  p.w = i % v->w, i /= v->w;
  p.h = i % v->h, i /= v->h;
  p.t = i % v->t, p.n = i / v->t;
  return p;
}

PN_SHARED int64_t pixels_of(const pn_volume *v) { return v->n * v->t * v->h * v->w; }

/* The sum over c channels, V at a time. */
template <typename T, int V> PN_DEVICE real dot(const T *x, const real *w, int c) {
  real sum = 0;
  for (int i = 0; i < c; i += V) {
    real a[V], b[V];
    pn_load<T, V>(a, x + i);
    pn_load_reals<V>(b, w + i);
    for (int k = 0; k < V; k++) sum += a[k] * b[k];
  }
  return sum;
}

template <typename T, int V> PN_KERNEL void few_forward(const real *w, const real *bias, few f) {
  const int64_t pixels = pixels_of(&f.y), tap = f.y.c * f.x.c, step_w = f.window.stride[2] * tap,
                step_h = f.window.stride[1] * f.window.kernel[2] * tap,
                step_t = f.window.stride[0] * f.window.kernel[1] * f.window.kernel[2] * tap;
  const int c = (int)f.x.c;
  PN_EACH(i, pixels * f.y.c) {
    int64_t o = f.y.c == 1 ? 0 : i / pixels;
    pixel p = pixel_of(i - o * pixels, &f.y);
    pn_span t = pn_span_seeing(&f.window, 0, p.t, f.x.t), h = pn_span_seeing(&f.window, 1, p.h, f.x.h),
            v = pn_span_seeing(&f.window, 2, p.w, f.x.w);
    const T *first = pn_volume_at<T>(&f.x, p.n, 0, t.at, h.at, v.at);
    const real *top = w + pn_window_place(&f.window, t.k, h.k, v.k) * tap + o * f.x.c;
    real sum = bias ? bias[o] : 0;
    for (int a = 0; a < (int)t.n; a++)
      for (int b = 0; b < (int)h.n; b++) {
        const T *from = first + a * f.x.st + b * f.x.sh;
        const real *at = top - a * step_t - b * step_h;
        for (int e = 0; e < (int)v.n; e++, from += f.x.sw, at -= step_w) sum += dot<T, V>(from, at, c);
      }
    pn_to(pn_volume_at<T>(&f.y, p.n, o, p.t, p.h, p.w), sum);
  }
}

/* Lanes of a pixel's V channels take the rows of its taps in turns. room: V reals a thread. */
template <typename T, int V> PN_KERNEL void few_data(bool add, const real *w, few f, int lanes) {
  PN_SHARED_MEMORY(real, room);
  const int packs = (int)f.x.c / V, c = pn_thread % packs * V, lane = pn_thread / packs % lanes, group = pn_thread / packs / lanes;
  const int64_t groups = pn_threads / (packs * lanes), pixels = pixels_of(&f.x), tap = f.y.c * f.x.c;
  for (int64_t first = pn_block * groups; first < pixels; first += pn_blocks * groups) { /* the same turns for all of a block */
    const bool mine = group < groups && first + group < pixels;
    const pixel p = pixel_of(mine ? first + group : 0, &f.x);
    real sum[V] = {};
    if (mine) {
      pn_span t = pn_span_seen(&f.window, 0, p.t, f.y.t), h = pn_span_seen(&f.window, 1, p.h, f.y.h),
              v = pn_span_seen(&f.window, 2, p.w, f.y.w);
      const int rows = t.n > 0 && h.n > 0 ? (int)(t.n * h.n) : 0, high = (int)h.n, wide = (int)v.n; /* padding may cut all of it */
      for (int row = lane; row < rows; row += lanes) {
        const int a = row / high, b = row % high;
        for (int o = 0; o < (int)f.y.c; o++) {
          const T *from = pn_volume_at<T>(&f.y, p.n, o, t.at + a, h.at + b, v.at);
          const real *at = w + pn_window_place(&f.window, t.k + a, h.k + b, v.k) * tap + o * f.x.c + c;
          for (int e = 0; e < wide; e++, from += f.y.sw, at += tap) {
            const real y = pn_from(*from);
            real taps[V];
            pn_load_reals<V>(taps, at);
            for (int k = 0; k < V; k++) sum[k] += y * taps[k];
          }
        }
      }
    }
    for (int k = 0; k < V && lanes > 1; k++) room[k * pn_threads + pn_thread] = sum[k];
    PN_BARRIER();
    for (int half = lanes / 2; half > 0; half /= 2) {
      for (int k = 0; k < V && mine && lane < half; k++)
        room[k * pn_threads + pn_thread] += room[k * pn_threads + pn_thread + half * packs];
      PN_BARRIER();
    }
    if (mine && lane == 0) {
      T *to = pn_volume_at<T>(&f.x, p.n, c, p.t, p.h, p.w);
      real all[V] = {};
      if (add) pn_load<T, V>(all, to);
      for (int k = 0; k < V; k++) all[k] += lanes > 1 ? room[k * pn_threads + pn_thread] : sum[k];
      pn_store<T, V>(to, all);
    }
    PN_BARRIER();
  }
}

/* partial[run][tap][o][c], over the pixels of a run. */
template <typename T, int V> PN_KERNEL void few_weight(real *partial, few f, int64_t runs, int64_t length) {
  const pn_window *g = &f.window;
  const int64_t packs = f.x.c / V, units = g->kernel[0] * g->kernel[1] * g->kernel[2] * f.y.c * packs, pixels = pixels_of(&f.x),
                step_x = f.x.sw, step_y = g->stride[2] * f.y.sw;
  PN_EACH(i, runs * units) {
    const int64_t run = i / units, c = i % packs * V, o = i / packs % f.y.c, tap = i % units / packs / f.y.c;
    const int64_t kw = tap % g->kernel[2] - g->low[2], kh = tap / g->kernel[2] % g->kernel[1] - g->low[1],
                  kt = tap / g->kernel[2] / g->kernel[1] - g->low[0], end = pn_min64(pixels, (run + 1) * length);
    /* pixels from .. to-1 of a row of x meet y along w */
    const int64_t from = kw < 0 ? (-kw + g->stride[2] - 1) / g->stride[2] : 0,
                  to = kw < f.y.w ? pn_min64(f.x.w, (f.y.w - 1 - kw) / g->stride[2] + 1) : 0;
    real sum[V] = {};
    if (run * length < end) {
      pixel p = pixel_of(run * length, &f.x);
      for (int64_t k = run * length; k < end;) { /* what the run has of one row: p.w .. stop-1 */
        const int64_t t = p.t * g->stride[0] + kt, h = p.h * g->stride[1] + kh, stop = pn_min64(f.x.w, p.w + end - k);
        const int64_t a = pn_max64(p.w, from);
        const int n = t >= 0 && t < f.y.t && h >= 0 && h < f.y.h ? (int)(pn_min64(stop, to) - a) : 0;
        if (n > 0) {
          const T *x = pn_volume_at<T>(&f.x, p.n, c, p.t, p.h, a);
          const T *y = pn_volume_at<T>(&f.y, p.n, o, t, h, a * g->stride[2] + kw);
          for (int e = 0; e < n; e++, x += step_x, y += step_y) {
            const real b = pn_from(*y);
            real v[V];
            pn_load<T, V>(v, x);
            for (int j = 0; j < V; j++) sum[j] += v[j] * b;
          }
        }
        k += stop - p.w;
        p.w = 0;
        if (++p.h == f.x.h) {
          p.h = 0;
          if (++p.t == f.x.t) p.t = 0, p.n++;
        }
      }
    }
    for (int k = 0; k < V; k++) partial[i * V + k] = sum[k];
  }
}

/* dw = or += the sum over the runs: a block for JOINED numbers, each of whose LINES adds every LINES-th run in order. */
PN_KERNEL void few_join(real *dw, bool add, const real *partial, int64_t runs, int64_t each) {
  PN_SHARED_MEMORY(double, room);
  const int64_t i = pn_block * JOINED + pn_thread % JOINED;
  double sum = 0;
  for (int64_t run = pn_thread / JOINED; run < runs && i < each; run += LINES) sum += (double)partial[run * each + i];
  room[pn_thread] = sum;
  PN_BARRIER();
  if (pn_thread >= JOINED || i >= each) return;
  for (int line = 1; line < LINES; line++) sum += room[line * JOINED + pn_thread];
  dw[i] = (real)(add ? (double)dw[i] + sum : sum);
}

/* ---- launches ---------------------------------------------------------------------------------------------------------------- */

static int refuse(const pn_tensor *t) { return pn_fail("few: no kernel for %s", pn_dtype_name(t->dtype)); }

/* Can the filters, which lie dense, be read 16 bytes at a time? */
static bool filters_pack(const real *w) { return (uintptr_t)w % 16 == 0; }

int pn_few_forward(pn_gpu *gpu, pn_tensor *y, const pn_tensor *x, const real *w, const real *bias, const pn_geometry *g) {
  few f = few_of(x, y, g);
  int64_t count = pn_tensor_count(y), blocks = pn_gpu_blocks(gpu, count, THREADS);
  const bool packs = pn_volume_packs(&f.x) && filters_pack(w);
  if (!count) return 0;
  PN_BY_TYPE(x->dtype, return refuse(x), {
    auto run = packs ? few_forward<T, pn_per_pack<T>::COUNT> : few_forward<T, 1>;
    return PN_LAUNCH(gpu, run, blocks, THREADS, w, bias, f);
  });
}

int pn_few_data(pn_gpu *gpu, pn_tensor *dx, bool add, const pn_tensor *dy, const real *w, const pn_geometry *g) {
  few f = few_of(dx, dy, g);
  const int64_t plane = g->kernel[0] * g->kernel[1], taps = plane * g->kernel[2];
  const bool packs = pn_volume_packs(&f.x) && filters_pack(w);
  if (!pn_tensor_count(dx)) return 0;
  PN_BY_TYPE(dx->dtype, return refuse(dx), {
    const int v = packs ? pn_per_pack<T>::COUNT : 1;
    const int64_t across = f.x.c / v; /* threads of a lane */
    int lanes = 1;
    while (lanes * 2 * across <= THREADS && lanes * 2 <= plane && lanes * 64 < taps) lanes *= 2;
    const int64_t groups = THREADS / (across * lanes),
                  blocks = pn_min64(pn_ceil_div(pixels_of(&f.x), groups), (int64_t)gpu->processors * 16);
    auto run = packs ? few_data<T, pn_per_pack<T>::COUNT> : few_data<T, 1>;
    return PN_LAUNCH_TEAM(gpu, run, blocks, THREADS, sizeof(real) * THREADS * (size_t)v, add, w, f, lanes);
  });
}

int pn_few_weight(pn_gpu *gpu, real *dw, bool add, const pn_tensor *x, const pn_tensor *dy, const pn_geometry *g) {
  few f = few_of(x, dy, g);
  const bool packs = pn_volume_packs(&f.x);
  const int64_t each = g->kernel[0] * g->kernel[1] * g->kernel[2] * f.y.c * f.x.c, pixels = pixels_of(&f.x);
  int rc = -1;
  PN_BY_TYPE(x->dtype, return refuse(x), {
    const int64_t units = each / (packs ? pn_per_pack<T>::COUNT : 1);
    const int64_t runs = pn_max64(1, pn_min64(pn_ceil_div(1 << 17, units), pn_ceil_div(pixels, 64)));
    real *partial = (real *)pn_gpu_scratch(gpu, (size_t)(runs * each) * sizeof(real));
    if (!partial) return -1;
    auto run = packs ? few_weight<T, pn_per_pack<T>::COUNT> : few_weight<T, 1>;
    rc = PN_LAUNCH(gpu, run, pn_gpu_blocks(gpu, runs * units, THREADS), THREADS, partial, f, runs, pn_ceil_div(pixels, runs));
    rc = rc ? rc
            : PN_LAUNCH_TEAM(gpu, few_join, pn_ceil_div(each, JOINED), THREADS, THREADS * sizeof(double), dw, add, partial, runs,
                             each);
    pn_gpu_scratch_free(gpu, partial);
  });
  return rc;
}
