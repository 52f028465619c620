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

static inline real passes(real y, real g) { return y > 0 ? g : 0; }

#define EACH(GRADIENT)                                                                                                             \
  for (int64_t r = 0; r < rows; r++) {                                                                                             \
    real *restrict to = dx + r * sdx;                                                                                              \
    const real *restrict from = x + r * sx, *restrict up = dy + r * sdy;                                                           \
    (void)from;                                                                                                                    \
    if (add) {                                                                                                                     \
      for (int64_t i = 0; i < c; i++) to[i] += (GRADIENT);                                                                         \
    } else {                                                                                                                       \
      for (int64_t i = 0; i < c; i++) to[i] = (GRADIENT);                                                                          \
    }                                                                                                                              \
  }
#define G passes(from[i] * scale[i] + shift[i], up[i])

static void gradient(real *dx, int64_t sdx, bool add, const real *x, int64_t sx, const real *dy, int64_t sdy, int64_t rows,
                     int64_t c, const pn_norm_line *line, const real *slope, const real *centre, const real *level) {
  const real *restrict scale = line->scale, *restrict shift = line->shift;
  if (slope && line->relu) {
    EACH(scale[i] * G + (slope[i] * (from[i] - centre[i]) + level[i]))
  } else if (slope) {
    EACH(scale[i] * up[i] + (slope[i] * (from[i] - centre[i]) + level[i]))
  } else if (line->relu) {
    EACH(scale[i] * G)
  } else {
    EACH(scale[i] * up[i])
  }
}

const pn_norm_kernels NORM_TABLE = { affine, moments, gradient_sums, gradient };
