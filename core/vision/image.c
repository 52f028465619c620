/* image.c: tensors seen as pixels; between frames and the clips that networks read; flips.
** Shapes: image u8 (H,W,C), frames (T,H,W,C), mask (H,W), masks (T,H,W); clip real (1,C,T,H,W), channels-last, so its memory is
** that of the frames and the conversion is one pass. Values: METHOD 2 (rgb_pm1 is what I3D's weights expect). */
#include <math.h>
#include <string.h>
#include "picture.h"

static const char *kinds_text(int kinds) {
  switch (kinds) {
  case PN_IS_MASK: return "a mask (H,W)";
  case PN_IS_IMAGE: return "an image (H,W,C)";
  case PN_IS_MASKS: return "masks (T,H,W)";
  case PN_IS_FRAMES: return "frames (T,H,W,C)";
  case PN_IS_MASK | PN_IS_IMAGE: return "a mask (H,W) or an image (H,W,C)";
  case PN_IS_MASK | PN_IS_MASKS: return "masks (H,W) or (T,H,W)";
  case PN_IS_IMAGE | PN_IS_FRAMES: return "an image (H,W,C) or frames (T,H,W,C)";
  default: return "a picture";
  }
}

int pn_u8_new(pn_tensor **out, int n_dims, const int64_t *shape) {
  return pn_tensor_new(out, PN_U8, n_dims, shape, PN_ROWS, PN_CPU);
}

int pn_picture_of(pn_picture *out, pn_tensor *t, int kinds, const char *who) {
  if (!t) return pn_fail("%s: expected %s, got nothing", who, kinds_text(kinds));
  char shape[128];
  pn_format_shape(shape, sizeof shape, t->n_dims, t->shape);
  int kind = 0;
  if (t->n_dims == 2) kind = kinds & PN_IS_MASK;
  if (t->n_dims == 3) kind = kinds & (PN_IS_IMAGE | PN_IS_MASKS);
  if (t->n_dims == 4) kind = kinds & PN_IS_FRAMES;
  if (!kind) return pn_fail("%s: expected %s, got shape %s", who, kinds_text(kinds), shape);
  if (t->dtype != PN_U8) return pn_fail("%s: expected element type u8, got %s (shape %s)", who, pn_dtype_name(t->dtype), shape);
  if (pn_device_of(t) != PN_CPU) return pn_fail("%s: pictures live on the CPU; this one is on device %d", who, pn_device_of(t));
  pn_picture p = { .n = 1, .c = 1 };
  const int64_t *s = t->shape;
  if (kind == PN_IS_FRAMES || kind == PN_IS_MASKS) p.n = *s++;
  p.h = s[0];
  p.w = s[1];
  if (kind == PN_IS_FRAMES || kind == PN_IS_IMAGE) {
    p.c = s[2];
    if (p.c != 1 && p.c != 3 && p.c != 4)
      return pn_fail("%s: an image has 1, 3 or 4 channels, in its last axis; got shape %s", who, shape);
  }
  if (pn_tensor_contiguous(&p.held, t, PN_ROWS) != 0) return -1;
  p.data = (uint8_t *)pn_bytes_of(p.held);
  *out = p;
  return 0;
}

int pn_need_image(const pn_tensor *t, const char *what, int n_dims, int64_t channels) {
  char shape[96];
  if (!t) return pn_fail("%s is missing", what);
  pn_format_shape(shape, sizeof shape, t->n_dims, t->shape);
  if (t->dtype != PN_U8) return pn_fail("%s must be u8, is %s (%s)", what, pn_dtype_name(t->dtype), shape);
  if (pn_device_of(t) != PN_CPU) return pn_fail("%s must be on the cpu (%s)", what, shape);
  if (n_dims && t->n_dims != n_dims) return pn_fail("%s must have %d dims, has %d (%s)", what, n_dims, t->n_dims, shape);
  if (channels && (t->n_dims < 1 || t->shape[t->n_dims - 1] != channels))
    return pn_fail("%s must have %lld channels in its last dim (%s)", what, (long long)channels, shape);
  for (int i = 0; i < t->n_dims; i++)
    if (t->shape[i] < 1) return pn_fail("%s is empty (%s)", what, shape);
  return 0;
}

/* ---- frames and clips ------------------------------------------------------------------------------------------- */

static int check_rule(pn_pixel_rule rule, const char *who) {
  if (rule != PN_RGB_PM1 && rule != PN_BGR_01)
    return pn_fail("%s: unknown pixel rule %d; there are rgb_pm1 and bgr_01", who, (int)rule);
  return 0;
}

typedef struct from_clip {
  uint8_t *to;
  const real *from;
  int64_t width;
  bool swap;
  real scale, shift;
} from_clip;

static void from_clip_rows(void *context, int64_t begin, int64_t end) {
  const from_clip *k = context;
  for (int64_t i = begin * k->width; i < end * k->width; i++) {
    for (int c = 0; c < 3; c++) {
      real v = k->from[3 * i + (k->swap ? 2 - c : c)] * k->scale + k->shift;
      k->to[3 * i + c] = (uint8_t)(v > 0 ? (v < 255 ? v + (real)0.5 : 255) : 0); /* NaN to 0 */
    }
  }
}

static int check_clip(pn_tensor *clip, int64_t channels, const char *who) {
  if (!clip) return pn_fail("%s: expected a clip (1,%d,T,H,W), got nothing", who, (int)channels);
  char shape[128];
  pn_format_shape(shape, sizeof shape, clip->n_dims, clip->shape);
  if (clip->n_dims != 5 || clip->shape[0] != 1 || clip->shape[1] != channels)
    return pn_fail("%s: expected a clip (1,%d,T,H,W), got shape %s", who, (int)channels, shape);
  if (clip->dtype != PN_REAL_DTYPE)
    return pn_fail("%s: expected element type %s, got %s", who, pn_dtype_name(PN_REAL_DTYPE), pn_dtype_name(clip->dtype));
  if (pn_device_of(clip) != PN_CPU)
    return pn_fail("%s: move the clip to the CPU first; it is on device %d", who, pn_device_of(clip));
  return 0;
}

int pn_clip_to_frames(pn_tensor **out, pn_tensor *clip, pn_pixel_rule rule) {
  if (check_rule(rule, "clip_to_frames") != 0 || check_clip(clip, 3, "clip_to_frames") != 0) return -1;
  pn_tensor *dense, *frames;
  if (pn_tensor_contiguous(&dense, clip, PN_CHANNELS_LAST) != 0) return -1;
  const int64_t *s = clip->shape;
  int rc = pn_u8_new(&frames, 4, (int64_t[]){ s[2], s[3], s[4], 3 });
  if (rc == 0) {
    from_clip k = { .to = (uint8_t *)pn_bytes_of(frames), .from = pn_real_of(dense), .width = s[4], .swap = rule == PN_BGR_01 };
    k.scale = rule == PN_RGB_PM1 ? (real)127.5 : 255;
    k.shift = rule == PN_RGB_PM1 ? (real)127.5 : 0;
    pn_parallel(s[2] * s[3], 64, from_clip_rows, &k);
    *out = frames;
  }
  pn_tensor_release(dense);
  return rc;
}

int pn_masks_to_clip(pn_tensor **out, pn_tensor *masks) {
  pn_picture p;
  if (pn_picture_of(&p, masks, PN_IS_MASK | PN_IS_MASKS, "masks_to_clip") != 0) return -1;
  pn_tensor *clip;
  int rc = pn_tensor_new(&clip, PN_REAL_DTYPE, 5, (int64_t[]){ 1, 1, p.n, p.h, p.w }, PN_CHANNELS_LAST, PN_CPU);
  if (rc == 0) {
    real *to = pn_real_of(clip);
    for (int64_t i = 0; i < p.n * p.h * p.w; i++) to[i] = p.data[i] != 0;
    *out = clip;
  }
  pn_tensor_release(p.held);
  return rc;
}

int pn_clip_to_masks(pn_tensor **out, pn_tensor *clip, double threshold) {
  if (check_clip(clip, 1, "clip_to_masks") != 0) return -1;
  pn_tensor *dense, *masks;
  if (pn_tensor_contiguous(&dense, clip, PN_ROWS) != 0) return -1;
  int rc = pn_u8_new(&masks, 3, clip->shape + 2);
  if (rc == 0) {
    const real *from = pn_real_of(dense);
    uint8_t *to = (uint8_t *)pn_bytes_of(masks);
    for (int64_t i = 0, n = pn_tensor_count(masks); i < n; i++) to[i] = from[i] > (real)threshold;
    *out = masks;
  }
  pn_tensor_release(dense);
  return rc;
}

/* ---- flips ------------------------------------------------------------------------------------------------------ */

int pn_image_flip(pn_tensor **out, pn_tensor *x, bool vertical, bool masks) {
  if (!x) return pn_fail("flip: expected a picture, got nothing");
  if (x->n_dims < 2 || x->n_dims > 4)
    return pn_fail("flip: expected a mask (H,W), an image (H,W,C) or frames (T,H,W,C), got %d axes", x->n_dims);
  if (pn_device_of(x) != PN_CPU) return pn_fail("flip: pictures live on the CPU; this one is on device %d", pn_device_of(x));
  pn_tensor *dense, *y;
  if (pn_tensor_contiguous(&dense, x, PN_ROWS) != 0) return -1;
  if (pn_tensor_new(&y, x->dtype, x->n_dims, x->shape, PN_ROWS, PN_CPU) != 0) {
    pn_tensor_release(dense);
    return -1;
  }
  bool leading = x->n_dims == 4 || (x->n_dims == 3 && masks);
  const int64_t *s = x->shape + leading;
  bool channels = x->n_dims - leading == 3;
  int64_t n = leading ? x->shape[0] : 1, h = s[0], w = s[1];
  size_t pixel = (size_t)pn_dtype_bytes(x->dtype) * (size_t)(channels ? s[2] : 1), row = pixel * (size_t)w;
  const char *from = pn_bytes_of(dense);
  char *to = pn_bytes_of(y);
  for (int64_t i = 0; i < n * h; i++) {
    int64_t frame = i / h, line = i % h;
    const char *a = from + (size_t)(frame * h + (vertical ? h - 1 - line : line)) * row;
    char *b = to + (size_t)i * row;
    if (vertical) memcpy(b, a, row);
    else
      for (int64_t k = 0; k < w; k++) memcpy(b + (size_t)k * pixel, a + (size_t)(w - 1 - k) * pixel, pixel);
  }
  pn_tensor_release(dense);
  *out = y;
  return 0;
}
