/* few.cu: see few.h. With C channels in x, K taps and S = stride t x h x w:
**   forward  a thread an element of y: the K/S pixels of x that reach it, C products each; neighbours along w share the pixels
**   data     a thread a channel of a pixel of x, or several (lanes) that share its taps and add up in a tree
**   weight   a thread a tap and channel and a run of the pixels of x; the runs are then added in order, in double
** For FCN-I3D's sides (C = 16, 8 pixels an element) each is 0.1 GMAC and at most 10 MB from memory. */
#include "few.h"
#include "kernels/transposed.h"
#include "pack.h"

enum { MOST_FROM = 64, MOST_TO = 4, THREADS = 256 };

bool pn_few_fit(int64_t c, int64_t o, const pn_geometry *g) {
  bool dilated = g->dilation[0] != 1 || g->dilation[1] != 1 || g->dilation[2] != 1;
  return c >= 1 && c <= MOST_FROM && o >= 1 && o <= MOST_TO && g->groups == 1 && !dilated;
}

typedef struct few {
  int64_t n, c, o, in[3], out[3]; /* sizes along t,h,w */
  int64_t kernel[3], stride[3], low[3];
  int64_t x_stride[4], y_stride[4]; /* n,t,h,w */
  int64_t y_channel;
} few;

static few few_of(const pn_tensor *x, const pn_tensor *y, const pn_geometry *g) {
  few f;
  f.n = x->shape[0], f.c = x->shape[1], f.o = y->shape[1];
  f.x_stride[0] = x->stride[0], f.y_stride[0] = y->stride[0], f.y_channel = y->stride[1];
  for (int d = 0; d < 3; d++) {
    f.in[d] = x->shape[2 + d], f.out[d] = y->shape[2 + d];
    f.x_stride[1 + d] = x->stride[2 + d], f.y_stride[1 + d] = y->stride[2 + d];
    f.kernel[d] = g->kernel[d], f.stride[d] = g->stride[d], f.low[d] = g->low[d];
  }
  return f;
}

typedef struct place {
  int64_t n, t, h, w;
} place;

PN_DEVICE place place_of(int64_t i, const int64_t *size) {
  place p;
  if (i <= UINT32_MAX) { /* divisions of 32 bits are several times faster */
    uint32_t rest = (uint32_t)i, t = (uint32_t)size[0], h = (uint32_t)size[1], w = (uint32_t)size[2];
    p.w = rest % w, rest /= w;
    p.h = rest % h, rest /= h;
    p.t = rest % t, p.n = rest / t;
    return p;
  }
  p.w = i % size[2], i /= size[2];
  p.h = i % size[1], i /= size[1];
  p.t = i % size[0], p.n = i / size[0];
  return p;
}

PN_DEVICE int64_t offset_of(const int64_t *stride, place p) {
  return p.n * stride[0] + p.t * stride[1] + p.h * stride[2] + p.w * stride[3];
}

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

template <typename T, int V> PN_KERNEL void few_forward(T *y, const T *x, const real *w, const real *bias, few f) {
  PN_EACH(i, f.n * f.o * f.out[0] * f.out[1] * f.out[2]) {
    int64_t o = i / (f.n * f.out[0] * f.out[1] * f.out[2]);
    place p = place_of(i - o * (f.n * f.out[0] * f.out[1] * f.out[2]), f.out);
    pn_reach t = pn_reach_of(p.t, f.in[0], f.kernel[0], f.stride[0], f.low[0]);
    pn_reach h = pn_reach_of(p.h, f.in[1], f.kernel[1], f.stride[1], f.low[1]);
    pn_reach v = pn_reach_of(p.w, f.in[2], f.kernel[2], f.stride[2], f.low[2]);
    real sum = bias ? bias[o] : 0;
    for (int64_t a = 0; a < t.n; a++)
      for (int64_t b = 0; b < h.n; b++)
        for (int64_t e = 0; e < v.n; e++) {
          place from = { p.n, t.first + a, h.first + b, v.first + e };
          int64_t tap = ((t.k - a * f.stride[0]) * f.kernel[1] + h.k - b * f.stride[1]) * f.kernel[2] + v.k - e * f.stride[2];
          sum += dot<T, V>(x + offset_of(f.x_stride, from), w + (tap * f.o + o) * f.c, f.c);
        }
    pn_to(y + offset_of(f.y_stride, p) + o * f.y_channel, sum);
  }
}

/* Lanes of a pixel's channel take the rows of its taps in turns. room: a real a thread. */
template <typename T> PN_KERNEL void few_data(T *dx, bool add, const T *dy, const real *w, few f, int lanes) {
  PN_SHARED_MEMORY(real, room);
  int c = pn_thread % (int)f.c, lane = pn_thread / (int)f.c % lanes, group = pn_thread / (int)f.c / lanes;
  int64_t groups = pn_threads / (f.c * lanes), pixels = f.n * f.in[0] * f.in[1] * f.in[2];
  for (int64_t first = pn_block * groups; first < pixels; first += pn_blocks * groups) { /* the same turns for all of a block */
    bool mine = group < groups && first + group < pixels;
    place p = place_of(mine ? first + group : 0, f.in);
    real sum = 0;
    if (mine) {
      int64_t t0, t1, h0, h1, w0, w1;
      pn_landing(p.t, f.out[0], f.kernel[0], f.stride[0], f.low[0], &t0, &t1);
      pn_landing(p.h, f.out[1], f.kernel[1], f.stride[1], f.low[1], &h0, &h1);
      pn_landing(p.w, f.out[2], f.kernel[2], f.stride[2], f.low[2], &w0, &w1);
      int high = (int)(h1 - h0), rows = t1 > t0 && h1 > h0 ? (int)(t1 - t0) * high : 0;
      for (int row = lane; row < rows; row += lanes) {
        int64_t kt = t0 + row / high, kh = h0 + row % high;
        const T *from = dy + p.n * f.y_stride[0] + (p.t * f.stride[0] - f.low[0] + kt) * f.y_stride[1] +
                        (p.h * f.stride[1] - f.low[1] + kh) * f.y_stride[2] + (p.w * f.stride[2] - f.low[2]) * f.y_stride[3];
        const real *tap = w + (kt * f.kernel[1] + kh) * f.kernel[2] * f.o * f.c + c;
        for (int64_t kw = w0; kw < w1; kw++)
          for (int64_t o = 0; o < f.o; o++) sum += pn_from(from[kw * f.y_stride[3] + o * f.y_channel]) * tap[(kw * f.o + o) * f.c];
      }
    }
    room[pn_thread] = sum;
    PN_BARRIER();
    for (int half = lanes / 2; half > 0; half /= 2) {
      if (mine && lane < half) room[pn_thread] += room[pn_thread + half * f.c];
      PN_BARRIER();
    }
    if (mine && lane == 0) {
      T *to = dx + offset_of(f.x_stride, p) + c;
      pn_to(to, add ? pn_from(*to) + room[pn_thread] : room[pn_thread]);
    }
    PN_BARRIER();
  }
}

/* partial[run][tap][o][c], over the pixels of a run. */
template <typename T> PN_KERNEL void few_weight(real *partial, const T *x, const T *dy, few f, int64_t runs, int64_t length) {
  int64_t taps = f.kernel[0] * f.kernel[1] * f.kernel[2], each = taps * f.o * f.c, pixels = f.n * f.in[0] * f.in[1] * f.in[2];
  PN_EACH(i, runs * each) {
    int64_t run = i / each, c = i % f.c, o = i / f.c % f.o, tap = i % each / f.c / f.o;
    int64_t kw = tap % f.kernel[2] - f.low[2], kh = tap / f.kernel[2] % f.kernel[1] - f.low[1],
            kt = tap / f.kernel[2] / f.kernel[1] - f.low[0], end = pn_min64(pixels, (run + 1) * length);
    real sum = 0;
    place p = place_of(run * length, f.in);
    for (int64_t k = run * length; k < end; k++) {
      int64_t t = p.t * f.stride[0] + kt, h = p.h * f.stride[1] + kh, w = p.w * f.stride[2] + kw;
      if (t >= 0 && t < f.out[0] && h >= 0 && h < f.out[1] && w >= 0 && w < f.out[2])
        sum += pn_from(x[offset_of(f.x_stride, p) + c]) *
               pn_from(dy[p.n * f.y_stride[0] + t * f.y_stride[1] + h * f.y_stride[2] + w * f.y_stride[3] + o * f.y_channel]);
      if (++p.w == f.in[2]) {
        p.w = 0;
        if (++p.h == f.in[1]) {
          p.h = 0;
          if (++p.t == f.in[0]) p.t = 0, p.n++;
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

/* May C channels be read V at a time, at each pixel? */
static bool in_packs(const pn_tensor *t, int64_t v) {
  bool even = t->shape[1] % v == 0 && (uintptr_t)pn_bytes_of(t) % (uintptr_t)(v * pn_dtype_bytes(t->dtype)) == 0;
  for (int d = 0; d < 5; d++) even = even && (d == 1 || t->shape[d] == 1 || t->stride[d] % v == 0);
  return even;
}

int pn_few_forward(pn_gpu *gpu, pn_tensor *y, const pn_tensor *x, const real *w, const real *bias, const pn_geometry *g) {
  few f = few_of(x, y, g);
  int64_t count = pn_tensor_count(y), blocks = pn_gpu_blocks(gpu, count, THREADS);
  bool packs = in_packs(x, 4);
  if (!count) return 0;
  PN_BY_TYPE(x->dtype, return refuse(x), auto run = packs ? few_forward<T, 4> : few_forward<T, 1>;
             return PN_LAUNCH(gpu, run, blocks, THREADS, (T *)pn_bytes_of(y), (const T *)pn_bytes_of(x), w, bias, f));
}

int pn_few_data(pn_gpu *gpu, pn_tensor *dx, bool add, const pn_tensor *dy, const real *w, const pn_geometry *g) {
  few f = few_of(dx, dy, g);
  int64_t taps = f.kernel[0] * f.kernel[1] * f.kernel[2], pixels = f.n * f.in[0] * f.in[1] * f.in[2];
  if (!pn_tensor_count(dx)) return 0;
  int lanes = 1;
  while (lanes * 2 * f.c <= THREADS && lanes * 2 <= f.kernel[0] * f.kernel[1] && lanes * 64 < taps) lanes *= 2;
  int64_t groups = THREADS / (f.c * lanes), blocks = pn_min64(pn_ceil_div(pixels, groups), (int64_t)gpu->processors * 16);
  PN_BY_TYPE(dx->dtype, return refuse(dx), auto run = few_data<T>;
             return PN_LAUNCH_TEAM(gpu, run, blocks, THREADS, THREADS * sizeof(real), (T *)pn_bytes_of(dx), add,
                                   (const T *)pn_bytes_of(dy), w, f, lanes));
}

int pn_few_weight(pn_gpu *gpu, real *dw, bool add, const pn_tensor *x, const pn_tensor *dy, const pn_geometry *g) {
  few f = few_of(x, dy, g);
  int64_t each = f.kernel[0] * f.kernel[1] * f.kernel[2] * f.o * f.c, pixels = f.n * f.in[0] * f.in[1] * f.in[2];
  int64_t runs = pn_max64(1, pn_min64(pn_ceil_div(1 << 18, each), pn_ceil_div(pixels, 64))), length = pn_ceil_div(pixels, runs);
  real *partial = (real *)pn_gpu_scratch(gpu, (size_t)(runs * each) * sizeof(real));
  int64_t blocks = pn_gpu_blocks(gpu, runs * each, THREADS);
  int rc = -1;
  if (!partial) return -1;
  PN_BY_TYPE(
      x->dtype, (void)refuse(x), auto run = few_weight<T>;
      rc = PN_LAUNCH(gpu, run, blocks, THREADS, partial, (const T *)pn_bytes_of(x), (const T *)pn_bytes_of(dy), f, runs, length));
  rc = rc ? rc : PN_LAUNCH(gpu, few_join, pn_gpu_blocks(gpu, each, THREADS), THREADS, dw, add, partial, runs, each);
  pn_gpu_scratch_free(gpu, partial);
  return rc;
}
