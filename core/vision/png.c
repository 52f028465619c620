/* png.c: PNG through libspng: images, and masks whose palette indices are object numbers.
** Masks: DAVIS 2016 stores 0/255 in grey (one file of the release has an alpha channel besides), DAVIS 2017 indices with the
** palette of PASCAL VOC. METHOD 8. Of coloured ones any colour but black is the object. What is transparent is background.
** Checksums are checked: a damaged file is an error. */
#include <spng.h>
#include <stdlib.h>
#include <string.h>
#include "picture.h"

enum { MAX_SIDE = 1 << 16, MAX_CHUNK = 1 << 26 }; /* MAX_CHUNK: texts and profiles, unpacked, all together */

bool pn_is_png(const uint8_t *data, size_t bytes) { return bytes >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0; }

void pn_davis_colour(int object, uint8_t *rgb) {
  unsigned id = (unsigned)object & 255;
  rgb[0] = rgb[1] = rgb[2] = 0;
  for (int bit = 7; bit >= 0; bit--, id >>= 3) { /* the bits of the number, three at a time, from the top of each channel down */
    for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(rgb[c] | ((id >> c) & 1) << bit);
  }
}

static int fail_png(const char *path, const char *doing, int code) {
  return pn_fail("%s: cannot %s PNG: %s", path, doing, spng_strerror(code));
}

static int open_png(spng_ctx **out, struct spng_ihdr *header, const char *path, const uint8_t *data, size_t bytes) {
  spng_ctx *ctx = spng_ctx_new(0);
  if (!ctx) return pn_fail("%s: cannot decode PNG: no memory", path);
  int code = spng_set_image_limits(ctx, MAX_SIDE, MAX_SIDE);
  if (code == 0) code = spng_set_png_buffer(ctx, data, bytes);
  if (code == 0) code = spng_set_chunk_limits(ctx, MAX_CHUNK, MAX_CHUNK);
  if (code == 0) code = spng_get_ihdr(ctx, header);
  size_t packed = 0; /* the pixels as they are packed in the file */
  if (code == 0) code = spng_decoded_image_size(ctx, SPNG_FMT_RAW, &packed);
  if (code != 0) {
    spng_ctx_free(ctx);
    return fail_png(path, "decode", code);
  }
  if (packed / 1032 > bytes) { /* more than deflate can reach */
    spng_ctx_free(ctx);
    return pn_fail("%s: cannot decode PNG: it says it is %u x %u (height x width), too much for its %zu bytes", path,
                   header->height, header->width, bytes);
  }
  *out = ctx;
  return 0;
}

/* The pixels in that format; *size bytes, by pn_free. */
static uint8_t *pixels_of(spng_ctx *ctx, const char *path, int format, size_t *size) {
  int code = spng_decoded_image_size(ctx, format, size);
  if (code != 0) {
    (void)fail_png(path, "decode", code);
    return NULL;
  }
  uint8_t *pixels = pn_alloc(*size);
  if (!pixels) return NULL;
  code = spng_decode_image(ctx, pixels, *size, format, 0);
  if (code == 0) code = spng_decode_chunks(ctx); /* what follows the pixels: a file that ends early is not whole */
  if (code != 0) {
    (void)fail_png(path, "decode", code);
    pn_free(pixels);
    return NULL;
  }
  return pixels;
}

int pn_png_decode(pn_decoded *out, const char *path, const uint8_t *data, size_t bytes, int channels) {
  spng_ctx *ctx;
  struct spng_ihdr header;
  if (open_png(&ctx, &header, path, data, bytes) != 0) return -1;
  bool alpha = header.color_type == SPNG_COLOR_TYPE_TRUECOLOR_ALPHA, grey = !(header.color_type & 2);
  int64_t c = channels ? channels : alpha ? 4 : grey ? 1 : 3;
  size_t size, n = (size_t)header.width * header.height;
  uint8_t *p = pixels_of(ctx, path, c == 4 ? SPNG_FMT_RGBA8 : SPNG_FMT_RGB8, &size);
  spng_ctx_free(ctx);
  if (!p) return -1;
  if (c == 1) { /* luma in place, as JPEG defines it; equal channels keep their value */
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)((77 * p[3 * i] + 150 * p[3 * i + 1] + 29 * p[3 * i + 2] + 128) >> 8);
  }
  *out = (pn_decoded){ .h = header.height, .w = header.width, .c = c, .pixels = p };
  return 0;
}

/* One index or grey value a byte, from rows packed with 1, 2, 4 or 8 bits a pixel. */
static void unpack(uint8_t *to, const uint8_t *from, const struct spng_ihdr *header) {
  size_t w = header->width, depth = header->bit_depth, row = (w * depth + 7) / 8, mask = (1u << depth) - 1;
  if (depth == 8) {
    memcpy(to, from, w * header->height);
    return;
  }
  for (size_t y = 0; y < header->height; y++) {
    for (size_t x = 0; x < w; x++) {
      size_t bit = x * depth;
      to[y * w + x] = (uint8_t)(from[y * row + bit / 8] >> (8 - depth - bit % 8) & mask);
    }
  }
}

int pn_png_decode_mask(pn_decoded *out, const char *path, const uint8_t *data, size_t bytes) {
  spng_ctx *ctx;
  struct spng_ihdr header;
  if (open_png(&ctx, &header, path, data, bytes) != 0) return -1;
  size_t n = (size_t)header.width * header.height, size;
  int type = header.color_type;
  bool alpha = type == SPNG_COLOR_TYPE_TRUECOLOR_ALPHA, colour = type == SPNG_COLOR_TYPE_TRUECOLOR || alpha;
  if (!colour && header.bit_depth == 16) {
    spng_ctx_free(ctx);
    return pn_fail("%s: a mask of 16 bits a pixel; object numbers take 8", path);
  }
  uint8_t *p = pixels_of(ctx, path, alpha ? SPNG_FMT_RGBA8 : colour ? SPNG_FMT_RGB8 : SPNG_FMT_PNG, &size);
  spng_ctx_free(ctx);
  if (!p) return -1;
  uint8_t *ids = pn_alloc(n);
  if (!ids) {
    pn_free(p);
    return -1;
  }
  if (alpha) {
    for (size_t i = 0; i < n; i++) ids[i] = p[4 * i + 3] != 0 && (p[4 * i] | p[4 * i + 1] | p[4 * i + 2]) != 0;
  } else if (colour) {
    for (size_t i = 0; i < n; i++) ids[i] = (p[3 * i] | p[3 * i + 1] | p[3 * i + 2]) != 0;
  } else if (type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA) {
    for (size_t i = 0; i < n; i++) ids[i] = p[2 * i + 1] != 0 ? p[2 * i] : 0;
  } else unpack(ids, p, &header);
  pn_free(p);
  if (!colour && type != SPNG_COLOR_TYPE_INDEXED) { /* black and white: one object */
    uint8_t white = (uint8_t)((1 << header.bit_depth) - 1);
    int other = 0;
    for (size_t i = 0; i < n; i++) other |= (ids[i] != 0) & (ids[i] != white);
    for (size_t i = 0; i < n && !other; i++) ids[i] = ids[i] != 0;
  }
  *out = (pn_decoded){ .h = header.height, .w = header.width, .c = 1, .pixels = ids };
  return 0;
}

int pn_png_encode(uint8_t **data, size_t *bytes, const char *path, const uint8_t *pixels, int64_t h, int64_t w, int64_t c,
                  bool palette) {
  spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
  if (!ctx) return pn_fail("%s: cannot encode PNG: no memory", path);
  struct spng_ihdr header = { .width = (uint32_t)w, .height = (uint32_t)h, .bit_depth = 8 };
  header.color_type = palette  ? SPNG_COLOR_TYPE_INDEXED
                      : c == 1 ? SPNG_COLOR_TYPE_GRAYSCALE
                      : c == 3 ? SPNG_COLOR_TYPE_TRUECOLOR
                               : SPNG_COLOR_TYPE_TRUECOLOR_ALPHA;
  int code = spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1);
  /* Of a picture of 854 x 480, level 6 and every filter tried take 97 ms for 605 KB; these 17 ms for 637 KB. */
  if (code == 0) code = spng_set_option(ctx, SPNG_IMG_COMPRESSION_LEVEL, c == 1 ? 6 : 1);
  if (code == 0 && c > 1) code = spng_set_option(ctx, SPNG_FILTER_CHOICE, SPNG_FILTER_CHOICE_SUB);
  if (code == 0) code = spng_set_ihdr(ctx, &header);
  if (code == 0 && palette) {
    struct spng_plte table = { .n_entries = 256 };
    for (int i = 0; i < 256; i++) {
      uint8_t rgb[3];
      pn_davis_colour(i, rgb);
      table.entries[i] = (struct spng_plte_entry){ .red = rgb[0], .green = rgb[1], .blue = rgb[2] };
    }
    code = spng_set_plte(ctx, &table);
  }
  if (code == 0) code = spng_encode_image(ctx, pixels, (size_t)(h * w * c), SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
  uint8_t *made = code == 0 ? spng_get_png_buffer(ctx, bytes, &code) : NULL;
  spng_ctx_free(ctx);
  if (!made) return fail_png(path, "encode", code);
  *data = made;
  return 0;
}

typedef struct writing {
  const char *const *paths;
  pn_picture p;
  bool palette;
} writing;

static int write_range(void *context, int64_t begin, int64_t end) {
  const writing *k = context;
  int rc = 0;
  for (int64_t i = begin; i < end && rc == 0; i++) {
    uint8_t *data = NULL;
    size_t bytes = 0;
    rc = pn_png_encode(&data, &bytes, k->paths[i], k->p.data + i * k->p.h * k->p.w * k->p.c, k->p.h, k->p.w, k->p.c, k->palette);
    if (rc == 0) rc = pn_file_replace(k->paths[i], data, bytes);
    free(data);
  }
  return rc;
}

static int write_all(const char *const *paths, int64_t n, pn_tensor *pictures, int kinds, bool palette, const char *who) {
  for (int64_t i = 0; i < n; i++)
    if (!paths || !paths[i]) return pn_fail("%s: expected a path, got nothing", who);
  writing k = { .paths = paths, .palette = palette };
  if (pn_picture_of(&k.p, pictures, kinds, who) != 0) return -1;
  int rc = 0;
  if (n != k.p.n) rc = pn_fail("%s: %lld paths for %lld pictures", who, (long long)n, (long long)k.p.n);
  else if (palette && (pictures->n_dims == 4 || (pictures->n_dims == 3 && kinds & PN_IS_IMAGE)))
    rc = pn_fail("%s: only a mask (H,W) is written with the palette; this has %d channels", paths[0], (int)k.p.c);
  else if (k.p.h < 1 || k.p.w < 1 || k.p.h > MAX_SIDE || k.p.w > MAX_SIDE)
    rc = pn_fail("%s: cannot encode PNG: the picture is %d x %d (height x width)", paths[0], (int)k.p.h, (int)k.p.w);
  if (rc == 0) rc = pn_parallel_try(n, 1, write_range, &k);
  pn_tensor_release(k.p.held);
  return rc;
}

int pn_png_write(const char *path, pn_tensor *image, bool palette) {
  return write_all(&path, 1, image, PN_IS_MASK | PN_IS_IMAGE, palette, "png_write");
}

int pn_frames_write(const char *const *paths, int64_t n, pn_tensor *pictures, bool palette) {
  if (n < 1) return pn_fail("frames_write: expected at least one path, got none");
  return write_all(paths, n, pictures, PN_IS_MASKS | PN_IS_FRAMES, palette, "frames_write");
}
