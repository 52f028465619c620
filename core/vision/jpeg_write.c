/* jpeg_write.c: frames as DAVIS has them. The encoder is stb_image_write (baseline; 4:2:0 up to quality 90, 4:4:4 above).
** Shapes: u8 (H,W,1|3). */
#include <string.h>
#include "picture.h"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#pragma GCC diagnostic push /* of the encoder only one function is used */
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

typedef struct growing {
  uint8_t *data;
  size_t used, held;
  bool failed;
} growing;

static void append(void *context, void *data, int bytes) {
  growing *g = context;
  size_t n = (size_t)bytes;
  if (g->failed) return;
  if (g->used + n > g->held) {
    size_t held = 2 * (g->used + n) + 65536;
    uint8_t *larger = pn_alloc(held);
    if (!larger) {
      g->failed = true;
      return;
    }
    if (g->used) memcpy(larger, g->data, g->used);
    pn_free(g->data);
    g->data = larger;
    g->held = held;
  }
  memcpy(g->data + g->used, data, n);
  g->used += n;
}

int pn_jpeg_write(const char *path, pn_tensor *image, int quality) {
  pn_picture picture;
  if (quality < 1 || quality > 100) return pn_fail("%s: quality must be in 1..100, got %d", path, quality);
  if (pn_picture_of(&picture, image, PN_IS_IMAGE, "jpeg_write")) return -1;
  growing g = { 0 };
  int rc = -1;
  if (picture.c != 1 && picture.c != 3) pn_fail("%s: a JPEG has 1 or 3 channels, the image has %lld", path, (long long)picture.c);
  else if (picture.h > 65535 || picture.w > 65535) pn_fail("%s: a JPEG is at most 65535 pixels high and wide", path);
  else if (!stbi_write_jpg_to_func(append, &g, (int)picture.w, (int)picture.h, (int)picture.c, picture.data, quality) && !g.failed)
    pn_fail("%s: cannot encode", path);
  else if (!g.failed) rc = pn_file_replace(path, g.data, g.used);
  pn_free(g.data);
  pn_tensor_release(picture.held);
  return rc;
}
