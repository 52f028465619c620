/* product_tiles.h: the micro-kernels of product.h, written once over a vector type. The including file defines
**   V, VL, v_zero() v_load(p) v_store(p,v) v_set1(x) v_add(a,b) v_relu(v) v_fma(a,b,c) v_load_n(p,n) v_store_n(p,v,n) v_sum(v)
** and then TILE(mr, nv), DOT(mr) and OUTER(mi, nv) for the shapes that fill its registers. */

static inline __attribute__((always_inline)) void tile(float *const *c, const void *const *a, int64_t n_taps, int64_t k,
                                                       const float *w, const float *bias, int64_t n, bool add, bool relu,
                                                       const int mr, const int nv) {
  V acc[PN_MOST_MR][PN_MOST_NV];
#pragma GCC unroll 16
  for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) acc[m][v] = bias ? v_load(bias + v * VL) : v_zero();
  for (int64_t tap = 0; tap < n_taps; tap++, a += mr) {
    const float *row[PN_MOST_MR];
#pragma GCC unroll 16
    for (int m = 0; m < mr; m++) row[m] = a[m];
    for (int64_t i = 0; i < k; i++, w += nv * VL) {
      V b[PN_MOST_NV];
#pragma GCC unroll 4
      for (int v = 0; v < nv; v++) b[v] = v_load(w + v * VL);
#pragma GCC unroll 16
      for (int m = 0; m < mr; m++) {
        V x = v_set1(row[m][i]);
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) acc[m][v] = v_fma(x, b[v], acc[m][v]);
      }
    }
  }
  if (n == (int64_t)nv * VL) {
#pragma GCC unroll 16
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
      for (int v = 0; v < nv; v++) {
        V sum = add ? v_add(acc[m][v], v_load(c[m] + v * VL)) : acc[m][v];
        v_store(c[m] + v * VL, relu ? v_relu(sum) : sum);
      }
  } else {
#pragma GCC unroll 16
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
      for (int v = 0; v < nv; v++) {
        int64_t left = n - v * VL;
        if (left > VL) left = VL;
        if (left <= 0) continue;
        V sum = add ? v_add(acc[m][v], v_load_n(c[m] + v * VL, left)) : acc[m][v];
        v_store_n(c[m] + v * VL, relu ? v_relu(sum) : sum, left);
      }
  }
}

#define TILE(mr, nv)                                                                                                               \
  static void tile_##mr##x##nv(float *const *c, const void *const *a, int64_t n_taps, int64_t k, const float *w,                   \
                               const float *bias, int64_t n, bool add, bool relu) {                                                \
    tile(c, a, n_taps, k, w, bias, n, add, relu, mr, nv);                                                                          \
  }

static inline __attribute__((always_inline)) void outer(float *g, int64_t ldg, const void *const *a, int64_t first_row,
                                                        const float *b, int64_t n_p, const int mi, const int nv) {
  V acc[PN_MOST_MR][PN_MOST_NV];
#pragma GCC unroll 16
  for (int i = 0; i < mi; i++)
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) acc[i][v] = v_zero();
  for (int64_t p = 0; p < n_p; p++, b += nv * VL) {
    const float *x = (const float *)a[p] + first_row;
    V y[PN_MOST_NV];
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) y[v] = v_load(b + v * VL);
#pragma GCC unroll 16
    for (int i = 0; i < mi; i++) {
      V s = v_set1(x[i]);
#pragma GCC unroll 4
      for (int v = 0; v < nv; v++) acc[i][v] = v_fma(s, y[v], acc[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < mi; i++)
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) v_store(g + i * ldg + v * VL, v_add(v_load(g + i * ldg + v * VL), acc[i][v]));
}

/* One channel: c[m][0] = start + sum over taps and k, vectors along k. */
static inline __attribute__((always_inline)) void dot(float *const *c, const void *const *a, int64_t n_taps, int64_t k,
                                                      const float *w, const float *bias, bool add, bool relu, const int mr) {
  V acc[PN_MOST_MR];
#pragma GCC unroll 16
  for (int m = 0; m < mr; m++) acc[m] = v_zero();
  for (int64_t tap = 0; tap < n_taps; tap++, a += mr) {
    int64_t i = 0;
    for (; i + VL <= k; i += VL, w += VL) {
      V b = v_load(w);
#pragma GCC unroll 16
      for (int m = 0; m < mr; m++) acc[m] = v_fma(v_load((const float *)a[m] + i), b, acc[m]);
    }
    if (i < k) {
      V b = v_load(w);
#pragma GCC unroll 16
      for (int m = 0; m < mr; m++) acc[m] = v_fma(v_load_n((const float *)a[m] + i, k - i), b, acc[m]);
      w += VL;
    }
  }
  for (int m = 0; m < mr; m++) {
    float sum = (bias ? bias[0] : 0) + v_sum(acc[m]);
    if (add) sum += c[m][0];
    c[m][0] = relu && sum < 0 ? 0 : sum;
  }
}

#define DOT(mr)                                                                                                                    \
  static void dot_##mr(float *const *c, const void *const *a, int64_t n_taps, int64_t k, const float *w, const float *bias,        \
                       int64_t n, bool add, bool relu) {                                                                           \
    (void)n;                                                                                                                       \
    dot(c, a, n_taps, k, w, bias, add, relu, mr);                                                                                  \
  }

/* The full height has a kernel of its own; fewer rows (an input of few channels) go one by one. */
#define OUTER(rows, nv)                                                                                                            \
  static void outer_##rows##x##nv(float *g, int64_t ldg, const void *const *a, int64_t first_row, const float *b, int64_t n_p,     \
                                  int64_t mi) {                                                                                    \
    if (mi == rows) outer(g, ldg, a, first_row, b, n_p, rows, nv);                                                                 \
    else                                                                                                                           \
      for (int64_t i = 0; i < mi; i++) outer(g + i * ldg, ldg, a, first_row + i, b, n_p, 1, nv);                                   \
  }
