/* winograd_body.h: the line transforms of winograd.h in GCC's vector types. The including file defines WINOGRAD_BYTES (of a vector),
** WINOGRAD_TABLE, MASKED_LOAD(p, n) and MASKED_STORE(p, v, n) of the first n < VL floats (n <= 0: none). The points of F(2,3) are 0, 1, -1 and infinity. */
#include "kernels/winograd.h"

typedef float V __attribute__((vector_size(WINOGRAD_BYTES), aligned(4), may_alias));
typedef int32_t bits __attribute__((vector_size(WINOGRAD_BYTES)));
enum { VL = WINOGRAD_BYTES / 4 };
#define INLINE static inline __attribute__((always_inline))

INLINE void input_f23(const V *d, V *u) {
  u[0] = d[0] - d[2];
  u[1] = d[1] + d[2];
  u[2] = d[2] - d[1];
  u[3] = d[1] - d[3];
}
INLINE void output_f23(const V *z, V *y) {
  y[0] = z[0] + z[1] + z[2];
  y[1] = z[1] - z[2] - z[3];
}
INLINE void expand_f23(const V *y, V *e) {
  e[0] = y[0];
  e[1] = y[0] + y[1];
  e[2] = y[0] - y[1];
  e[3] = -y[1];
}
INLINE void filter_in_f23(const V *w, V *v) {
  V even = 0.5f * (w[0] + w[2]), odd = 0.5f * w[1];
  v[0] = w[0];
  v[1] = even + odd;
  v[2] = even - odd;
  v[3] = w[2];
}
INLINE void filter_out_f23(const V *v, V *w) {
  V even = 0.5f * (v[1] + v[2]);
  w[0] = v[0] + even;
  w[1] = 0.5f * (v[1] - v[2]);
  w[2] = even + v[3];
}

/* F(4,3) at 0, a, -a, b, -b, infinity. a = 5/8, b = 3/2 halve the rounding of the usual 1 and 2 in 2-D (a third of it in 3-D). */
#define PA 0.625f
#define PB 1.5f
static const float A2 = PA * PA, B2 = PB * PB, GA = (float)(0.5 / (PA * PA * (PA * PA - PB * PB))),
                   GB = (float)(0.5 / (PB * PB * (PB * PB - PA * PA))), G0 = (float)(1.0 / (PA * PA * PB * PB));

INLINE void input_f43(const V *d, V *u) {
  V even_a = d[4] - B2 * d[2], odd_a = d[3] - B2 * d[1], even_b = d[4] - A2 * d[2], odd_b = d[3] - A2 * d[1];
  u[0] = even_b - B2 * (d[2] - A2 * d[0]);
  u[1] = even_a + PA * odd_a;
  u[2] = even_a - PA * odd_a;
  u[3] = even_b + PB * odd_b;
  u[4] = even_b - PB * odd_b;
  u[5] = d[5] - A2 * d[3] - B2 * odd_b;
}
INLINE void output_f43(const V *z, V *y) {
  V sum_a = z[1] + z[2], odd_a = PA * (z[1] - z[2]), sum_b = z[3] + z[4], odd_b = PB * (z[3] - z[4]);
  y[0] = z[0] + sum_a + sum_b;
  y[1] = odd_a + odd_b;
  y[2] = A2 * sum_a + B2 * sum_b;
  y[3] = A2 * odd_a + B2 * odd_b + z[5];
}
INLINE void expand_f43(const V *y, V *e) {
  V even_a = y[0] + A2 * y[2], odd_a = PA * (y[1] + A2 * y[3]), even_b = y[0] + B2 * y[2], odd_b = PB * (y[1] + B2 * y[3]);
  e[0] = y[0];
  e[1] = even_a + odd_a;
  e[2] = even_a - odd_a;
  e[3] = even_b + odd_b;
  e[4] = even_b - odd_b;
  e[5] = y[3];
}
INLINE void filter_in_f43(const V *w, V *v) {
  V even_a = GA * (w[0] + A2 * w[2]), even_b = GB * (w[0] + B2 * w[2]);
  v[0] = G0 * w[0];
  v[1] = even_a + (GA * PA) * w[1];
  v[2] = even_a - (GA * PA) * w[1];
  v[3] = even_b + (GB * PB) * w[1];
  v[4] = even_b - (GB * PB) * w[1];
  v[5] = w[2];
}
INLINE void filter_out_f43(const V *v, V *w) {
  V sum_a = GA * (v[1] + v[2]), sum_b = GB * (v[3] + v[4]);
  w[0] = G0 * v[0] + sum_a + sum_b;
  w[1] = (GA * PA) * (v[1] - v[2]) + (GB * PB) * (v[3] - v[4]);
  w[2] = A2 * sum_a + B2 * sum_b + v[5];
}

/* F(3,4): the same points, so the same B'; one output less and one tap more. */
INLINE void output_f34(const V *z, V *y) {
  V sum_a = z[1] + z[2], sum_b = z[3] + z[4];
  y[0] = z[0] + sum_a + sum_b;
  y[1] = PA * (z[1] - z[2]) + PB * (z[3] - z[4]);
  y[2] = A2 * sum_a + B2 * sum_b + z[5];
}
INLINE void expand_f34(const V *y, V *e) {
  V even_a = y[0] + A2 * y[2], even_b = y[0] + B2 * y[2];
  e[0] = y[0];
  e[1] = even_a + PA * y[1];
  e[2] = even_a - PA * y[1];
  e[3] = even_b + PB * y[1];
  e[4] = even_b - PB * y[1];
  e[5] = y[2];
}
INLINE void filter_in_f34(const V *w, V *v) {
  V even_a = GA * (w[0] + A2 * w[2]), odd_a = (GA * PA) * (w[1] + A2 * w[3]), even_b = GB * (w[0] + B2 * w[2]),
    odd_b = (GB * PB) * (w[1] + B2 * w[3]);
  v[0] = G0 * w[0];
  v[1] = even_a + odd_a;
  v[2] = even_a - odd_a;
  v[3] = even_b + odd_b;
  v[4] = even_b - odd_b;
  v[5] = w[3];
}
INLINE void filter_out_f34(const V *v, V *w) {
  V sum_a = GA * (v[1] + v[2]), odd_a = (GA * PA) * (v[1] - v[2]), sum_b = GB * (v[3] + v[4]), odd_b = (GB * PB) * (v[3] - v[4]);
  w[0] = G0 * v[0] + sum_a + sum_b;
  w[1] = odd_a + odd_b;
  w[2] = A2 * sum_a + B2 * sum_b;
  w[3] = A2 * odd_a + B2 * odd_b + v[5];
}

INLINE V load_some(const float *p, int64_t n) { return (V)MASKED_LOAD(p, n); }
INLINE void store_some(float *p, V v, int64_t n) { MASKED_STORE(p, v, n); }
INLINE V load(const float *p, int64_t n) { return n >= VL ? *(const V *)p : load_some(p, n); }

/* What of v, channels i.. of the pass, goes to `to`. */
INLINE void write_to(const pn_winograd_pass *p, float *to, int64_t i, V v) {
  int64_t n = p->n - i;
  to += p->at + i;
  if (p->bias) v += load(p->bias + i, n);
  if (p->add) v += load(to, n);
  if (p->relu) v = (V)((bits)v & ~(bits)(v < 0)); /* NaN stays */
  if (n >= VL) *(V *)to = v;
  else store_some(to, v, n);
}

/* gathers, scatters, plainly (nothing but a store of whole vectors) are constants where this is expanded. */
INLINE void lines(const pn_winograd_pass *p, void (*transform)(const V *, V *), const int in, const int out, const bool gathers,
                  const bool scatters, const bool plainly) {
  for (int o = 0; o < p->outer; o++)
    for (int i = 0; i < p->inner; i++)
      for (int64_t c = 0; c < p->vectors * VL; c += VL) {
        V d[6], u[6];
#pragma GCC unroll 6
        for (int e = 0; e < in; e++) {
          int64_t at = (o * in + e) * p->inner + i;
          d[e] = gathers ? load(p->from[at] + p->at + c, p->n - c) : *(const V *)(p->src + at * p->src_step + c);
        }
        transform(d, u);
#pragma GCC unroll 6
        for (int e = 0; e < out; e++) {
          int64_t at = (o * out + e) * p->inner + i;
          if (!scatters) *(V *)(p->dst + at * p->dst_step + c) = u[e];
          else if (p->to[at]) {
            if (plainly) *(V *)(p->to[at] + p->at + c) = u[e];
            else write_to(p, p->to[at], c, u[e]);
          }
        }
      }
}

#define PASS(name, in, out)                                                                                                        \
  static void pass_##name(const pn_winograd_pass *p) {                                                                             \
    bool plainly = !p->bias && !p->add && !p->relu && p->n == p->vectors * VL;                                                     \
    if (!p->to) p->from ? lines(p, name, in, out, true, false, false) : lines(p, name, in, out, false, false, false);              \
    else if (p->from) lines(p, name, in, out, true, true, false);                                                                  \
    else plainly ? lines(p, name, in, out, false, true, true) : lines(p, name, in, out, false, true, false);                       \
  }
PASS(input_f23, 4, 4)
PASS(output_f23, 4, 2)
PASS(expand_f23, 2, 4)
PASS(filter_in_f23, 3, 4)
PASS(filter_out_f23, 4, 3)
PASS(input_f43, 6, 6)
PASS(output_f43, 6, 4)
PASS(expand_f43, 4, 6)
PASS(filter_in_f43, 3, 6)
PASS(filter_out_f43, 6, 3)
PASS(output_f34, 6, 3)
PASS(expand_f34, 3, 6)
PASS(filter_in_f34, 4, 6)
PASS(filter_out_f34, 6, 4)

const pn_winograd_kernels WINOGRAD_TABLE = {
  VL,
  {{ pass_input_f23, pass_output_f23, pass_expand_f23, pass_filter_in_f23, pass_filter_out_f23 },
    { pass_input_f43, pass_output_f43, pass_expand_f43, pass_filter_in_f43, pass_filter_out_f43 },
    { pass_input_f43, pass_output_f34, pass_expand_f34, pass_filter_in_f34, pass_filter_out_f34 }},
};
