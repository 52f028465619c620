/* few.cu: see few.h. With C channels in x, K taps and S = stride t x h x w:
**   forward  a thread an element of y: the K/S pixels of x that reach it, C products each; neighbours along w share the pixels
**   data     a thread a channel of a pixel of x, or several (lanes) that share its taps and add up in a tree
**   weight   a thread a tap and channel and a run of the pixels of x; the runs are then added in order, in double
** For FCN-I3D's sides (C = 16, 8 pixels an element) each is 0.1 GMAC and at most 10 MB from memory. */
#include "few.h"
#include "kernels/window.h"
#include "volume.h"

enum { MOST_FROM = 64, MOST_TO = 4, THREADS = 256, PACK = pn_per_pack<real>::COUNT };

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
  for (int d = 0; d < 3; d++) f.window.kernel[d] = g->kernel[d], f.window.stride[d] = g->stride[d], f.window.low[d] = g->low[d];
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

/* The sum over C channels, V at a time. */
template <typename T, int V> PN_DEVICE real dot(const T *x, const real *w, int64_t c) {
  real sum = 0;
  for (int64_t i = 0; i < c; i += V) {
    real a[V], b[V];
    pn_load<T, V>(a, x + i);
    pn_load<real, V>(b, w + i);
    for (int k = 0; k < V; k++) sum += a[k] * b[k];
  }
  return sum;
}

template <typename T, int V> PN_KERNEL void few_forward(const real *w, const real *bias, few f) {
  const int64_t pixels = pixels_of(&f.y), stride_t = f.window.stride[0], stride_h = f.window.stride[1],
                stride_w = f.window.stride[2];
  PN_EACH(i, pixels * f.y.c) {
    int64_t o = i / pixels;
    pixel p = pixel_of(i - o * pixels, &f.y);
    pn_span t = pn_span_seeing(&f.window, 0, p.t, f.x.t), h = pn_span_seeing(&f.window, 1, p.h, f.x.h),
            v = pn_span_seeing(&f.window, 2, p.w, f.x.w);
    real sum = bias ? bias[o] : 0;
    for (int64_t a = 0; a < t.n; a++)
      for (int64_t b = 0; b < h.n; b++)
        for (int64_t e = 0; e < v.n; e++) {
          const T *from = pn_volume_at<T>(&f.x, p.n, 0, t.at + a, h.at + b, v.at + e);
          int64_t tap = pn_window_place(&f.window, t.k - a * stride_t, h.k - b * stride_h, v.k - e * stride_w);
          sum += dot<T, V>(from, w + (tap * f.y.c + o) * f.x.c, f.x.c);
        }
    pn_to(pn_volume_at<T>(&f.y, p.n, o, p.t, p.h, p.w), sum);
  }
}

/* Lanes of a pixel's channel take the rows of its taps in turns. room: a real a thread. */
template <typename T> PN_KERNEL void few_data(bool add, const real *w, few f, int lanes) {
  PN_SHARED_MEMORY(real, room);
  int channels = (int)f.x.c, c = pn_thread % channels, lane = pn_thread / channels % lanes, group = pn_thread / channels / lanes;
  int64_t groups = pn_threads / (channels * lanes), pixels = pixels_of(&f.x);
  for (int64_t first = pn_block * groups; first < pixels; first += pn_blocks * groups) { /* the same turns for all of a block */
    bool mine = group < groups && first + group < pixels;
    pixel p = pixel_of(mine ? first + group : 0, &f.x);
    real sum = 0;
    if (mine) {
      pn_span t = pn_span_seen(&f.window, 0, p.t, f.y.t), h = pn_span_seen(&f.window, 1, p.h, f.y.h),
              v = pn_span_seen(&f.window, 2, p.w, f.y.w);
      int rows = t.n > 0 && h.n > 0 ? (int)(t.n * h.n) : 0, high = (int)h.n; /* padding may cut all of it */
      for (int row = lane; row < rows; row += lanes) {
        int a = row / high, b = row % high;
        const T *from = pn_volume_at<T>(&f.y, p.n, 0, t.at + a, h.at + b, v.at);
        const real *tap = w + pn_window_place(&f.window, t.k + a, h.k + b, v.k) * f.y.c * f.x.c + c;
        for (int64_t e = 0; e < v.n; e++)
          for (int64_t o = 0; o < f.y.c; o++) sum += pn_from(from[e * f.y.sw + o * f.y.sc]) * tap[(e * f.y.c + o) * f.x.c];
      }
    }
    room[pn_thread] = sum;
    PN_BARRIER();
    for (int half = lanes / 2; half > 0; half /= 2) {
      if (mine && lane < half) room[pn_thread] += room[pn_thread + half * channels];
      PN_BARRIER();
    }
    if (mine && lane == 0) {
      T *to = pn_volume_at<T>(&f.x, p.n, c, p.t, p.h, p.w);
      pn_to(to, add ? pn_from(*to) + room[pn_thread] : room[pn_thread]);
    }
    PN_BARRIER();
  }
}

/* partial[run][tap][o][c], over the pixels of a run. */
template <typename T> PN_KERNEL void few_weight(real *partial, few f, int64_t runs, int64_t length) {
  const pn_window *g = &f.window;
  int64_t each = g->kernel[0] * g->kernel[1] * g->kernel[2] * f.y.c * f.x.c, pixels = pixels_of(&f.x);
  PN_EACH(i, runs * each) {
    int64_t run = i / each, c = i % f.x.c, o = i / f.x.c % f.y.c, tap = i % each / f.x.c / f.y.c;
    int64_t kw = tap % g->kernel[2] - g->low[2], kh = tap / g->kernel[2] % g->kernel[1] - g->low[1],
            kt = tap / g->kernel[2] / g->kernel[1] - g->low[0], end = pn_min64(pixels, (run + 1) * length);
    real sum = 0;
    pixel p = pixel_of(run * length, &f.x);
    for (int64_t k = run * length; k < end; k++) {
      int64_t t = p.t * g->stride[0] + kt, h = p.h * g->stride[1] + kh, w = p.w * g->stride[2] + kw;
      if (t >= 0 && t < f.y.t && h >= 0 && h < f.y.h && w >= 0 && w < f.y.w)
        sum += pn_from(*pn_volume_at<T>(&f.x, p.n, c, p.t, p.h, p.w)) * pn_from(*pn_volume_at<T>(&f.y, p.n, o, t, h, w));
      if (++p.w == f.x.w) {
        p.w = 0;
        if (++p.h == f.x.h) {
          p.h = 0;
          if (++p.t == f.x.t) p.t = 0, p.n++;
        }
      }
    }
    partial[i] = sum;
  }
}

PN_KERNEL void few_join(real *dw, bool add, const real *partial, int64_t runs, int64_t each) {
  PN_EACH(i, each) {
    double sum = add ? (double)dw[i] : 0;
    for (int64_t run = 0; run < runs; run++) sum += (double)partial[run * each + i];
    dw[i] = (real)sum;
  }
}

/* ---- launches ---------------------------------------------------------------------------------------------------------------- */

static int refuse(const pn_tensor *t) { return pn_fail("few: no kernel for %s", pn_dtype_name(t->dtype)); }

int pn_few_forward(pn_gpu *gpu, pn_tensor *y, const pn_tensor *x, const real *w, const real *bias, const pn_geometry *g) {
  few f = few_of(x, y, g);
  int64_t count = pn_tensor_count(y), blocks = pn_gpu_blocks(gpu, count, THREADS);
  bool packs = pn_volume_packs(&f.x) && (uintptr_t)w % 16 == 0;
  if (!count) return 0;
  PN_BY_TYPE(x->dtype, return refuse(x), auto run = packs ? few_forward<T, PACK> : few_forward<T, 1>;
             return PN_LAUNCH(gpu, run, blocks, THREADS, w, bias, f));
}

int pn_few_data(pn_gpu *gpu, pn_tensor *dx, bool add, const pn_tensor *dy, const real *w, const pn_geometry *g) {
  few f = few_of(dx, dy, g);
  int64_t plane = g->kernel[0] * g->kernel[1], taps = plane * g->kernel[2];
  if (!pn_tensor_count(dx)) return 0;
  int lanes = 1;
  while (lanes * 2 * f.x.c <= THREADS && lanes * 2 <= plane && lanes * 64 < taps) lanes *= 2;
  int64_t groups = THREADS / (f.x.c * lanes),
          blocks = pn_min64(pn_ceil_div(pixels_of(&f.x), groups), (int64_t)gpu->processors * 16);
  PN_BY_TYPE(dx->dtype, return refuse(dx), auto run = few_data<T>;
             return PN_LAUNCH_TEAM(gpu, run, blocks, THREADS, THREADS * sizeof(real), add, w, f, lanes));
}

int pn_few_weight(pn_gpu *gpu, real *dw, bool add, const pn_tensor *x, const pn_tensor *dy, const pn_geometry *g) {
  few f = few_of(x, dy, g);
  int64_t each = g->kernel[0] * g->kernel[1] * g->kernel[2] * f.y.c * f.x.c, pixels = pixels_of(&f.x);
  int64_t runs = pn_max64(1, pn_min64(pn_ceil_div(1 << 18, each), pn_ceil_div(pixels, 64))), length = pn_ceil_div(pixels, runs);
  real *partial = (real *)pn_gpu_scratch(gpu, (size_t)(runs * each) * sizeof(real));
  int64_t blocks = pn_gpu_blocks(gpu, runs * each, THREADS);
  int rc = -1;
  if (!partial) return -1;
  PN_BY_TYPE(x->dtype, (void)refuse(x), auto run = few_weight<T>;
             rc = PN_LAUNCH(gpu, run, blocks, THREADS, partial, f, runs, length));
  rc = rc ? rc : PN_LAUNCH(gpu, few_join, pn_gpu_blocks(gpu, each, THREADS), THREADS, dw, add, partial, runs, each);
  pn_gpu_scratch_free(gpu, partial);
  return rc;
}
