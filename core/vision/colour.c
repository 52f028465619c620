/* colour.c: light of photographs: changes of saturation and value.
** Source: the illumination step of Lucid Data Dreaming (Khoreva et al. 2017, section 3; METHOD 7): HSV, S and V each
** x <- gain x^gamma + offset. Shapes: u8 (...,3) in, same out. */
#include <string.h>
#include "picture.h"
#include "warp.h"

int pn_light_of(pn_light *light, const double *six) {
  static const double none[6] = { 1, 1, 0, 1, 1, 0 };
  for (int i = 0; i < 6; i++)
    if (!isfinite(six[i])) return pn_fail("light: number %d of 6 is not finite", i + 1);
  if (six[1] <= 0 || six[4] <= 0) return pn_fail("light: gamma must be above 0, got %g and %g", six[1], six[4]);
  light->identity = !memcmp(six, none, sizeof none);
  for (int i = 0; i <= 256; i++) {
    double x = i / 256.0;
    /* The offset of saturation fades in over 0-0.1: grey stays grey, and the colour noise of JPEG is not blown up. */
    double s = six[0] * pow(x, six[1]) + six[2] * fmin(1, 10 * x), v = six[3] * pow(x, six[4]) + six[5];
    light->saturation[i] = (float)fmin(1, fmax(0, s));
    light->value[i] = (float)fmin(1, fmax(0, v));
  }
  return 0;
}

typedef struct relight_job {
  const uint8_t *from;
  uint8_t *to;
  const pn_light *light;
} relight_job;

static void relight_range(void *context, int64_t begin, int64_t end) {
  const relight_job *job = context;
  for (int64_t i = begin; i < end; i++) {
    const uint8_t *p = job->from + 3 * i;
    v4 c = pn_relight_pixel(job->light, (v4){ p[0], p[1], p[2], 0 });
    for (int k = 0; k < 3; k++) job->to[3 * i + k] = pn_to_byte(c[k]);
  }
}

int pn_relight(pn_tensor **out, pn_tensor *x, const double *light) {
  pn_light tables;
  if (pn_need_image(x, "relight: x", 0, 3) || pn_light_of(&tables, light)) return -1;
  pn_tensor *from, *to;
  if (pn_tensor_contiguous(&from, x, PN_ROWS)) return -1;
  if (pn_tensor_new(&to, PN_U8, from->n_dims, from->shape, PN_ROWS, PN_CPU)) {
    pn_tensor_release(from);
    return -1;
  }
  if (tables.identity) {
    memcpy(pn_bytes_of(to), pn_bytes_of(from), (size_t)pn_tensor_count(from));
  } else {
    relight_job job = { (const uint8_t *)pn_bytes_of(from), (uint8_t *)pn_bytes_of(to), &tables };
    pn_parallel(pn_tensor_count(from) / 3, 4096, relight_range, &job);
  }
  pn_tensor_release(from);
  *out = to;
  return 0;
}
