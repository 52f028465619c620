/* image_file.c: reading images and masks, one or a clip's worth by threads.
** Decoders: image_jpeg.c and png.c, told apart by content. */
#include <string.h>
#include "picture.h"

static int decode(pn_decoded *out, const char *path, int channels, bool mask) {
  uint8_t *data;
  size_t bytes;
  if (pn_file_read(&data, &bytes, path) != 0) return -1;
  int rc;
  if (bytes == 0) rc = pn_fail("%s: cannot decode: the file is empty", path);
  else if (pn_is_png(data, bytes))
    rc = mask ? pn_png_decode_mask(out, path, data, bytes) : pn_png_decode(out, path, data, bytes, channels);
  else if (mask) rc = pn_fail("%s: a mask must be a PNG%s", path, pn_is_jpeg(data, bytes) ? "; this is a JPEG" : "");
  else if (pn_is_jpeg(data, bytes)) rc = pn_jpeg_decode(out, path, data, bytes, channels);
  else rc = pn_fail("%s: neither a JPEG nor a PNG", path);
  pn_free(data);
  return rc;
}

static int check_channels(int channels, bool stored) {
  if (channels == 1 || channels == 3 || channels == 4 || (stored && channels == 0)) return 0;
  return pn_fail("read: channels must be 1, 3 or 4, got %d", channels);
}

static int read_one(pn_tensor **out, const char *path, int channels, bool mask) {
  pn_decoded d;
  if (decode(&d, path, channels, mask) != 0) return -1;
  pn_tensor *t;
  int rc = pn_u8_new(&t, mask ? 2 : 3, (int64_t[]){ d.h, d.w, d.c });
  if (rc == 0) {
    memcpy(pn_bytes_of(t), d.pixels, (size_t)(d.h * d.w * d.c));
    *out = t;
  }
  pn_free(d.pixels);
  return rc;
}

int pn_image_read(pn_tensor **out, const char *path, int channels) {
  return check_channels(channels, true) != 0 ? -1 : read_one(out, path, channels, false);
}

int pn_mask_read(pn_tensor **out, const char *path) { return read_one(out, path, 1, true); }

typedef struct reading {
  const char *const *paths;
  uint8_t *to;
  int64_t h, w;
  int channels;
  bool mask;
} reading;

static int read_range(void *context, int64_t begin, int64_t end) {
  const reading *k = context;
  size_t size = (size_t)(k->h * k->w * k->channels);
  for (int64_t i = begin + 1; i <= end; i++) { /* the first is there already */
    pn_decoded d;
    if (decode(&d, k->paths[i], k->channels, k->mask) != 0) return -1;
    bool fits = d.h == k->h && d.w == k->w;
    if (fits) memcpy(k->to + (size_t)i * size, d.pixels, size);
    pn_free(d.pixels);
    if (!fits)
      return pn_fail("%s is %d x %d (height x width), but %s is %d x %d: the frames of a clip have one size", k->paths[i], (int)d.h,
                     (int)d.w, k->paths[0], (int)k->h, (int)k->w);
  }
  return 0;
}

static int read_many(pn_tensor **out, const char *const *paths, int64_t n, int channels, bool mask) {
  if (!paths || n < 1) return pn_fail("read: expected at least one path, got none");
  pn_decoded first;
  if (decode(&first, paths[0], channels, mask) != 0) return -1;
  reading k = { .paths = paths, .h = first.h, .w = first.w, .channels = channels, .mask = mask };
  pn_tensor *t;
  int rc = pn_u8_new(&t, mask ? 3 : 4, (int64_t[]){ n, k.h, k.w, channels });
  if (rc == 0) {
    k.to = (uint8_t *)pn_bytes_of(t);
    memcpy(k.to, first.pixels, (size_t)(k.h * k.w * channels));
    reading rest = k;
    rc = n == 1 ? 0 : pn_parallel_try(n - 1, 1, read_range, &rest);
    if (rc == 0) *out = t;
    else pn_tensor_release(t);
  }
  pn_free(first.pixels);
  return rc;
}

int pn_frames_read(pn_tensor **out, const char *const *paths, int64_t n, int channels) {
  return check_channels(channels, false) != 0 ? -1 : read_many(out, paths, n, channels, false);
}

int pn_masks_read(pn_tensor **out, const char *const *paths, int64_t n) { return read_many(out, paths, n, 1, true); }

int pn_image_size(const char *path, int64_t *size) {
  if (!path) return pn_fail("size: expected a path, got nothing");
  size_t bytes;
  FILE *f = pn_file_open(path, &bytes);
  if (!f) return -1;
  uint8_t head[4096]; /* the frame header of most JPEGs lies within */
  size_t n = fread(head, 1, sizeof head, f);
  int rc = 0;
  if (pn_is_png(head, n) && n >= 26) {
    static const uint8_t channels[7] = { 1, 0, 3, 3, 1, 0, 4 }; /* by colour type; a palette decodes to colour */
    size[0] = (int64_t)head[20] << 24 | head[21] << 16 | head[22] << 8 | head[23];
    size[1] = (int64_t)head[16] << 24 | head[17] << 16 | head[18] << 8 | head[19];
    size[2] = channels[head[25] < 7 ? head[25] : 1];
  } else if (pn_is_jpeg(head, n)) {
    uint8_t *data = NULL;
    int64_t got[3] = { 0, 0, 0 };
    (void)pn_jpeg_scan(head, n, got);
    if (got[0] <= 0 || got[1] <= 0) {
      rc = pn_file_read(&data, &bytes, path);
      if (rc == 0) (void)pn_jpeg_scan(data, bytes, got);
      pn_free(data);
    }
    if (rc == 0) {
      if (got[0] <= 0 || got[1] <= 0) rc = pn_fail("%s: cannot find the size of this JPEG: the header is cut off", path);
      else memcpy(size, got, sizeof got);
    }
  } else rc = pn_fail("%s: neither a JPEG nor a PNG", path);
  fclose(f);
  return rc;
}
