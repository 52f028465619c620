/* image_jpeg.c: JPEG through stb_image. It hands out grey where a file is cut off, so the end marker is looked for first; and it
** has no way to read a size without the data at hand, so the segments are walked here (ITU T.81, annex B). */
#include <string.h>
#include "picture.h"

#pragma GCC diagnostic ignored "-Wunused-function" /* the header declares its other decoders all the same */
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#include <stb/stb_image.h>

bool pn_is_jpeg(const uint8_t *d, size_t n) { return n >= 3 && d[0] == 0xff && d[1] == 0xd8 && d[2] == 0xff; }

/* Walks the segments. Returns the offset just past the header of the first scan (0: cut off before it); size, when not NULL and
** a frame header was met, gets height, width, channels. */
size_t pn_jpeg_scan(const uint8_t *d, size_t n, int64_t *size) {
  size_t i = 2;
  while (i + 4 <= n) {
    if (d[i] != 0xff) return 0;
    uint8_t kind = d[i + 1];
    if (kind == 0xff) {
      i++;
      continue;
    }
    size_t length = (size_t)d[i + 2] << 8 | d[i + 3];
    bool frame = kind >= 0xc0 && kind <= 0xcf && kind != 0xc4 && kind != 0xc8 && kind != 0xcc;
    if (frame && size && i + 10 <= n) {
      size[0] = d[i + 5] << 8 | d[i + 6];
      size[1] = d[i + 7] << 8 | d[i + 8];
      size[2] = d[i + 9];
    }
    if (length < 2) return 0;
    i += 2 + length;
    if (kind == 0xda) return i <= n ? i : 0;
  }
  return 0;
}

/* Do all Huffman tables have the 256 values at most that there is room for? stb_image before 2.29 writes past the room. It meets no
** table but those that are met here: between the scans too it takes segments as they follow one another. */
static bool tables_fit(const uint8_t *d, size_t n) {
  size_t i = 2;
  while (i + 4 <= n) {
    uint8_t kind = d[i + 1];
    if (d[i] != 0xff || kind == 0 || kind == 0xff || (kind >= 0xd0 && kind <= 0xd7)) { /* data of a scan, or fill bytes */
      const uint8_t *next = memchr(d + i + 1, 0xff, n - i - 1);
      if (!next) return true;
      i = (size_t)(next - d);
      continue;
    }
    if (kind == 0xd9) return true;
    size_t end = i + 2 + ((size_t)d[i + 2] << 8 | d[i + 3]);
    for (size_t at = i + 4; kind == 0xc4 && at < end && at < n;) {
      size_t values = 0;
      for (size_t k = 1; k <= 16 && at + k < n; k++) values += d[at + k];
      if (values > 256) return false;
      at += 17 + values;
    }
    i = end;
  }
  return true;
}

int pn_jpeg_decode(pn_decoded *out, const char *path, const uint8_t *data, size_t bytes, int channels) {
  enum { DENSEST = 2048 }; /* pixels a byte: a block of 8 x 8 takes a bit at least, and stands for 16 x 16 at most */
  int64_t size[3] = { 0, 0, 0 };
  size_t scan = pn_jpeg_scan(data, bytes, size);
  bool whole = false;
  for (size_t i = bytes; scan && i > scan + 1 && !whole; i--) whole = data[i - 2] == 0xff && data[i - 1] == 0xd9;
  if (!whole) return pn_fail("%s: cannot decode JPEG: the file is cut off (%zu bytes, no end marker)", path, bytes);
  if (size[0] * size[1] / DENSEST > (int64_t)bytes)
    return pn_fail("%s: cannot decode JPEG: it says it is %d x %d (height x width), too much for its %zu bytes", path, (int)size[0],
                   (int)size[1], bytes);
  if (!tables_fit(data, bytes)) return pn_fail("%s: cannot decode JPEG: a Huffman table of more than 256 values", path);
  int w, h, stored;
  if (bytes > INT32_MAX) return pn_fail("%s: cannot decode JPEG: larger than 2 GiB", path);
  /* Its colour conversion is vectorised for four bytes a pixel only: three of them are taken here. */
  uint8_t *pixels = stbi_load_from_memory(data, (int)bytes, &w, &h, &stored, channels == 3 ? 4 : channels);
  if (!pixels) return pn_fail("%s: cannot decode JPEG: %s", path, stbi_failure_reason());
  *out = (pn_decoded){ .h = h, .w = w, .c = channels ? channels : stored };
  size_t n = (size_t)(out->h * out->w), all = n * (size_t)out->c;
  out->pixels = pn_alloc(all);
  if (out->pixels && channels == 3) {
    size_t i = 0;
    uint8_t *to = out->pixels;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; i + 4 <= n; i += 4, to += 12) { /* four pixels in three words */
      uint32_t four[4], three[3];
      memcpy(four, pixels + 4 * i, 16);
      three[0] = (four[0] & 0xffffff) | four[1] << 24;
      three[1] = (four[1] >> 8 & 0xffff) | four[2] << 16;
      three[2] = (four[2] >> 16 & 0xff) | four[3] << 8;
      memcpy(to, three, 12);
    }
#endif
    for (; i < n; i++, to += 3) memcpy(to, pixels + 4 * i, 3);
  } else if (out->pixels) memcpy(out->pixels, pixels, all);
  stbi_image_free(pixels);
  return out->pixels ? 0 : -1;
}
