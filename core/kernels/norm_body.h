/* norm_body.h: the sweeps of norm.h, in GCC's vector types. Define NORM_BYTES (of a vector) and NORM_TABLE before including it.
**
** Sums keep four vectors of channels in registers while they walk down the rows; channels that fill no vector go one by one. */
#include "kernels/norm.h"

enum { WIDE = NORM_BYTES / (int)sizeof(real), PAIR = 2 * WIDE };
typedef real vec __attribute__((vector_size(NORM_BYTES), aligned(sizeof(real)), may_alias));
#ifdef PN_F64_BUILD
typedef int64_t bits __attribute__((vector_size(NORM_BYTES)));
#else
typedef int32_t bits __attribute__((vector_size(NORM_BYTES)));
#endif
#define AT(p) (*(const vec *)(p))
#define TO(p) (*(vec *)(p))

static void affine(real *y, int64_t sy, const real *x, int64_t sx, int64_t rows, int64_t c, const pn_norm_line *line) {
  const real *restrict scale = line->scale, *restrict shift = line->shift;
  for (int64_t r = 0; r < rows; r++) {
    real *restrict to = y + r * sy;
    const real *restrict from = x + r * sx;
    if (line->relu) {
      for (int64_t i = 0; i < c; i++) {
        real v = from[i] * scale[i] + shift[i];
        to[i] = v < 0 ? 0 : v;
      }
    } else {
      for (int64_t i = 0; i < c; i++) to[i] = from[i] * scale[i] + shift[i];
    }
  }
}

static void moments(real *mean, real *m2, const real *x, int64_t sx, int64_t rows, int64_t c) {
  int64_t i = 0;
  for (; i + PAIR <= c; i += PAIR) {
    vec a = { 0 }, b = { 0 }, u = { 0 }, v = { 0 };
    for (int64_t r = 0; r < rows; r++) {
      const real *p = x + r * sx + i;
      a += AT(p);
      b += AT(p + WIDE);
    }
    a /= (real)rows;
    b /= (real)rows;
    for (int64_t r = 0; r < rows; r++) {
      const real *p = x + r * sx + i;
      vec da = AT(p) - a, db = AT(p + WIDE) - b;
      u += da * da;
      v += db * db;
    }
    TO(mean + i) = a, TO(mean + i + WIDE) = b, TO(m2 + i) = u, TO(m2 + i + WIDE) = v;
  }
  for (; i + WIDE <= c; i += WIDE) { /* one vector: rows take turns in two sums */
    vec a = { 0 }, b = { 0 }, u = { 0 }, v = { 0 };
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) {
      a += AT(x + r * sx + i);
      b += AT(x + (r + 1) * sx + i);
    }
    if (r < rows) a += AT(x + r * sx + i);
    a = (a + b) / (real)rows;
    for (r = 0; r + 2 <= rows; r += 2) {
      vec da = AT(x + r * sx + i) - a, db = AT(x + (r + 1) * sx + i) - a;
      u += da * da;
      v += db * db;
    }
    if (r < rows) u += (AT(x + r * sx + i) - a) * (AT(x + r * sx + i) - a);
    TO(mean + i) = a, TO(m2 + i) = u + v;
  }
  for (; i < c; i++) {
    real a = 0, u = 0;
    for (int64_t r = 0; r < rows; r++) a += x[r * sx + i];
    a /= (real)rows;
    for (int64_t r = 0; r < rows; r++) u += (x[r * sx + i] - a) * (x[r * sx + i] - a);
    mean[i] = a;
    m2[i] = u;
  }
}

static inline vec passed(vec g, vec x, vec scale, vec shift) { return (vec)((bits)g & (x * scale + shift > (vec){ 0 })); }

static void gradient_sums(real *sum, real *product, const real *x, int64_t sx, const real *dy, int64_t sdy, int64_t rows, int64_t c,
                          const pn_norm_line *line, const real *centre) {
  int64_t i = 0;
  if (product || line->relu) {
    for (; i + PAIR <= c; i += PAIR) {
      vec a = { 0 }, b = { 0 }, u = { 0 }, v = { 0 }, ca = { 0 }, cb = { 0 };
      const vec sa = AT(line->scale + i), sb = AT(line->scale + i + WIDE), ha = AT(line->shift + i),
                hb = AT(line->shift + i + WIDE);
      if (product) ca = AT(centre + i), cb = AT(centre + i + WIDE);
      for (int64_t r = 0; r < rows; r++) {
        const real *p = x + r * sx + i, *q = dy + r * sdy + i;
        vec xa = AT(p), xb = AT(p + WIDE), ga = AT(q), gb = AT(q + WIDE);
        if (line->relu) ga = passed(ga, xa, sa, ha), gb = passed(gb, xb, sb, hb);
        a += ga;
        b += gb;
        u += ga * (xa - ca);
        v += gb * (xb - cb);
      }
      TO(sum + i) = a, TO(sum + i + WIDE) = b;
      if (product) TO(product + i) = u, TO(product + i + WIDE) = v;
    }
  }
  for (; i + PAIR <= c; i += PAIR) {
    vec a = { 0 }, b = { 0 };
    for (int64_t r = 0; r < rows; r++) {
      const real *q = dy + r * sdy + i;
      a += AT(q);
      b += AT(q + WIDE);
    }
    TO(sum + i) = a, TO(sum + i + WIDE) = b;
  }
  for (; i + WIDE <= c; i += WIDE) {
    const vec scale = AT(line->scale + i), shift = AT(line->shift + i), middle = product ? AT(centre + i) : (vec){ 0 };
    vec a = { 0 }, u = { 0 };
    for (int64_t r = 0; r < rows; r++) {
      vec g = AT(dy + r * sdy + i), v = product || line->relu ? AT(x + r * sx + i) : (vec){ 0 };
      if (line->relu) g = passed(g, v, scale, shift);
      a += g;
      u += g * (v - middle);
    }
    TO(sum + i) = a;
    if (product) TO(product + i) = u;
  }
  for (; i < c; i++) {
    real a = 0, u = 0;
    for (int64_t r = 0; r < rows; r++) {
      real g = dy[r * sdy + i];
      if (line->relu && !(x[r * sx + i] * line->scale[i] + line->shift[i] > 0)) g = 0;
      a += g;
      if (product) u += g * (x[r * sx + i] - centre[i]);
    }
    sum[i] = a;
    if (product) product[i] = u;
  }
}

/* dx may be dy itself: each number is read before it is written. */
static inline __attribute__((always_inline)) void gradient_rows(real *dx, int64_t sdx, const bool add, const real *x, int64_t sx,
                                                                const real *dy, int64_t sdy, int64_t rows, int64_t c,
                                                                const pn_norm_line *line, const real *slope, const real *centre,
                                                                const real *level, const bool relu) {
  const real *scale = line->scale, *shift = line->shift;
  for (int64_t r = 0; r < rows; r++, dx += sdx, x += sx, dy += sdy) {
    int64_t i = 0;
    for (; i + WIDE <= c; i += WIDE) {
      vec g = AT(dy + i), d = { 0 };
      if (relu) g = passed(g, AT(x + i), AT(scale + i), AT(shift + i));
      if (slope) d = AT(slope + i) * (AT(x + i) - AT(centre + i)) + AT(level + i);
      d = AT(scale + i) * g + d;
      if (add) d += AT(dx + i);
      TO(dx + i) = d;
    }
    for (; i < c; i++) {
      real g = relu && !(x[i] * scale[i] + shift[i] > 0) ? 0 : dy[i];
      real d = scale[i] * g + (slope ? slope[i] * (x[i] - centre[i]) + level[i] : 0);
      dx[i] = add ? dx[i] + d : d;
    }
  }
}

#define GRADIENT(add, slope, relu) gradient_rows(dx, sdx, add, x, sx, dy, sdy, rows, c, line, slope, centre, level, relu)

static void gradient(real *dx, int64_t sdx, bool add, const real *x, int64_t sx, const real *dy, int64_t sdy, int64_t rows,
                     int64_t c, const pn_norm_line *line, const real *slope, const real *centre, const real *level) {
  if (slope && line->relu && add) GRADIENT(true, slope, true);
  else if (slope && line->relu) GRADIENT(false, slope, true);
  else if (slope) GRADIENT(add, slope, false);
  else if (line->relu) GRADIENT(add, NULL, true);
  else GRADIENT(add, NULL, false);
}

/* One vector of channels down the rows; dz may be dy itself: each number is read before it is written. */
static inline __attribute__((always_inline)) vec end_column(real *dz, int64_t sdz, const real *y, int64_t sy, const real *dy,
                                                            int64_t sdy, int64_t rows, vec scale, const bool relu,
                                                            const bool wanted) {
  vec sum = { 0 };
  for (int64_t r = 0; r < rows; r++) {
    vec g = AT(dy + r * sdy);
    if (relu) g = (vec)((bits)g & (AT(y + r * sy) > (vec){ 0 }));
    sum += g;
    if (wanted) TO(dz + r * sdz) = scale * g;
  }
  return sum;
}

static void end_gradient(real *sum, real *dz, int64_t sdz, const real *y, int64_t sy, const real *dy, int64_t sdy, int64_t rows,
                         int64_t c, const real *scale) {
  int64_t i = 0;
  for (; i + WIDE <= c; i += WIDE) {
    vec s = (vec){ 0 } + 1;
    if (scale) s = AT(scale + i);
    if (y && dz) TO(sum + i) = end_column(dz + i, sdz, y + i, sy, dy + i, sdy, rows, s, true, true);
    else if (y) TO(sum + i) = end_column(NULL, 0, y + i, sy, dy + i, sdy, rows, s, true, false);
    else if (dz) TO(sum + i) = end_column(dz + i, sdz, NULL, 0, dy + i, sdy, rows, s, false, true);
    else TO(sum + i) = end_column(NULL, 0, NULL, 0, dy + i, sdy, rows, s, false, false);
  }
  for (; i < c; i++) {
    real total = 0;
    for (int64_t r = 0; r < rows; r++) {
      real g = !y || y[r * sy + i] > 0 ? dy[r * sdy + i] : 0;
      total += g;
      if (dz) dz[r * sdz + i] = scale ? scale[i] * g : g;
    }
    sum[i] = total;
  }
}

const pn_norm_kernels NORM_TABLE = { affine, moments, gradient_sums, gradient, end_gradient };
