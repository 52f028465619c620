/* warp.h: what the files of core/vision that move pixels share: reading between pixels, borders, pyramids, splines.
** Points are (x, y), pixel centres at integers. */
#ifndef PENUMBRA_WARP_H
#define PENUMBRA_WARP_H
#include <math.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include "../internal.h"

typedef float v4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

/* Four bytes (one RGBA pixel) as four floats, 0-255. The compilers make four single conversions of the plain loop. */
static inline v4 pn_pixel(const uint8_t *p) {
#ifdef __SSE2__
  int four;
  __builtin_memcpy(&four, p, 4);
  const __m128i zero = _mm_setzero_si128();
  return (v4)_mm_cvtepi32_ps(_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero));
#else
  return (v4){ p[0], p[1], p[2], p[3] };
#endif
}
static inline v4 pn_splat(float x) { return (v4){ x, x, x, x }; }

/* Mirrors an index into 0..n-1, the edge pixel twice: -1 -> 0, n -> n-1. */
static inline int64_t pn_reflect(int64_t i, int64_t n) {
  if ((uint64_t)i < (uint64_t)n) return i;
  int64_t period = 2 * n, r = i % period;
  if (r < 0) r += period;
  return r < n ? r : period - 1 - r;
}

/* floor for coordinates: exact, without a call. Maps are checked to stay within this range. */
static inline int64_t pn_floor(float x) {
  int64_t i = (int64_t)x;
  return i - ((float)i > x);
}

/* One image of bytes with interleaved channels, at a level of a pyramid: pixel (x, y) of the full image lies here at
** ((x + .5) / 2^level - .5, ...). */
typedef struct pn_plane {
  uint8_t *data; /* owned by whoever made it */
  int64_t h, w;
  int channels, level;
} pn_plane;

enum { PN_MAX_LEVELS = 6 };

/* Halves by the mean of 2 x 2 (rounded; the last odd row or column repeats). to->data must hold pn_half(h) * pn_half(w) * channels. */
static inline int64_t pn_half(int64_t n) { return (n + 1) / 2; }
void pn_plane_halve(const pn_plane *from, pn_plane *to);
/* from, and its halvings, into levels[0..n-1]; levels[0] shares from's bytes, the others are the caller's to pn_free. */
PN_CHECKED int pn_pyramid_new(pn_plane *levels, int n, const pn_plane *from);
void pn_pyramid_free(pn_plane *levels, int n);

/* How far apart neighbouring output pixels read (the square root of the area factor of a map), and the level for that. */
double pn_map_scale(const double *map);
int pn_level_for(double scale, int n_levels);
PN_CHECKED int pn_check_map(const double *map); /* finite, and small enough for pn_floor */

/* The same map for a level of a pyramid: its inputs are coordinates of that level. */
void pn_map_at_level(const double *map, int level, float *out);

/* Saturation and value through tables: three floats (0-255) in, out. */
typedef struct pn_light {
  bool identity;
  float saturation[257], value[257];
} pn_light;
PN_CHECKED int pn_light_of(pn_light *light, const double *six);
static inline float pn_light_curve(const float *table, float x) { /* x in 0..1 */
  float at = x * 256.0f;
  int i = (int)at;
  if (i > 255) i = 255;
  return table[i] + (table[i + 1] - table[i]) * (at - (float)i);
}
/* c' = V' (1 - S'/S (1 - c/V)): the hue never has to be known. */
static inline v4 pn_relight_pixel(const pn_light *light, v4 c) {
  float top = c[0] > c[1] ? c[0] : c[1], low = c[0] < c[1] ? c[0] : c[1];
  if (c[2] > top) top = c[2];
  if (c[2] < low) low = c[2];
  float value = pn_light_curve(light->value, top * (1 / 255.0f)) * 255.0f;
  if (top <= 0) return (v4){ value, value, value, c[3] };
  if (top - low <= 0) {
    float k = value / top;
    return (v4){ c[0] * k, c[1] * k, c[2] * k, c[3] };
  }
  float saturation = (top - low) / top, ratio = pn_light_curve(light->saturation, saturation) / saturation;
  float inverse = 1 / top;
  v4 out = pn_splat(value) * (pn_splat(1) - pn_splat(ratio) * (pn_splat(1) - c * pn_splat(inverse)));
  out[3] = c[3];
  return out;
}
static inline uint8_t pn_to_byte(float x) { return x <= 0 ? 0 : x >= 255 ? 255 : (uint8_t)(x + 0.5f); }
/* The same of four. */
static inline i4 pn_to_bytes(v4 x) {
#ifdef __SSE2__
  __m128 clamped = _mm_min_ps(_mm_max_ps((__m128)x, _mm_setzero_ps()), _mm_set1_ps(255));
  return (i4)_mm_cvttps_epi32(_mm_add_ps(clamped, _mm_set1_ps(0.5f)));
#else
  return (i4){ pn_to_byte(x[0]), pn_to_byte(x[1]), pn_to_byte(x[2]), pn_to_byte(x[3]) };
#endif
}

#endif
