/* overlay.c: pictures for people: objects drawn over a frame, and many pictures on one sheet with captions (cairo).
** Shapes: image u8 (H,W,3), mask u8 (H,W) of object numbers. Colours are brighter than the DAVIS palette, whose first is a dark red
** that vanishes on dark frames. */
#include <cairo.h>
#include <string.h>
#include "picture.h"

static const uint8_t bright[][3] = {
  {255,  64,  64 },
  { 64,  200, 255},
  { 255, 210, 50 },
  { 110, 230, 100},
  { 220, 110, 255},
  { 255, 150, 60 },
  { 70,  235, 205},
  { 255, 130, 190}
};

int pn_overlay(pn_tensor **out, pn_tensor *image, pn_tensor *mask, double alpha, int64_t thickness) {
  if (!(alpha >= 0 && alpha <= 1)) return pn_fail("overlay: alpha must be 0..1, got %g", alpha);
  if (thickness < 0 || thickness > 64) return pn_fail("overlay: thickness must be 0..64 pixels, got %lld", (long long)thickness);
  pn_picture p, m;
  if (pn_picture_of(&p, image, PN_IS_IMAGE, "overlay") != 0) return -1;
  if (pn_picture_of(&m, mask, PN_IS_MASK, "overlay") != 0) {
    pn_tensor_release(p.held);
    return -1;
  }
  pn_tensor *y = NULL;
  pn_bits inner = { 0 }, core = { 0 };
  int rc = 0;
  if (p.c != 3) rc = pn_fail("overlay: expected an image of 3 channels, got %d", (int)p.c);
  else if (p.h != m.h || p.w != m.w)
    rc = pn_fail("overlay: the mask is %d x %d (height x width), the image %d x %d", (int)m.h, (int)m.w, (int)p.h, (int)p.w);
  if (rc == 0) rc = pn_u8_new(&y, 3, (int64_t[]){ p.h, p.w, 3 });
  if (rc == 0) rc = pn_bits_new(&inner, p.h, p.w);
  if (rc == 0) rc = pn_bits_new(&core, p.h, p.w);
  if (rc == 0) {
    uint8_t *to = (uint8_t *)pn_bytes_of(y);
    memcpy(to, p.data, (size_t)(p.h * p.w * 3));
    bool present[256] = { false };
    for (int64_t i = 0; i < p.h * p.w; i++) present[m.data[i]] = true;
    int64_t a = (int64_t)(alpha * 256 + 0.5);
    for (int id = 1; id < 256 && rc == 0; id++) {
      if (!present[id]) continue;
      const uint8_t *colour = bright[(size_t)(id - 1) % PN_LENGTH(bright)];
      pn_bits_pack(&inner, m.data, id);
      rc = pn_bits_dilate(&core, &inner, thickness, true); /* what the outline leaves */
      for (int64_t i = 0; i < p.h * p.w && rc == 0; i++) {
        if (m.data[i] != id) continue;
        int64_t x = i % p.w, k = i / p.w * core.words + (x >> 6);
        int64_t strength = core.row[k] >> (x & 63) & 1 ? a : 256;
        for (int c = 0; c < 3; c++)
          to[3 * i + c] = (uint8_t)((p.data[3 * i + c] * (256 - strength) + colour[c] * strength + 128) >> 8);
      }
    }
  }
  if (rc == 0) *out = y;
  else pn_tensor_release(y);
  pn_bits_free(&inner);
  pn_bits_free(&core);
  pn_tensor_release(m.held);
  pn_tensor_release(p.held);
  return rc;
}

/* ---- contact sheet -------------------------------------------------------------------------------------------------------- */

enum { CAPTION = 24 }; /* height of a caption, pixels */

static int draw_captions(uint8_t *to, int64_t h, int64_t w, const char *const *captions, int n, int columns, int gap,
                         int64_t cell_h, int64_t cell_w) {
  cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)w, (int)h);
  cairo_t *cr = cairo_create(surface);
  unsigned char *pixels = cairo_image_surface_get_data(surface);
  int stride = cairo_image_surface_get_stride(surface);
  int rc = cairo_status(cr) == CAIRO_STATUS_SUCCESS ? 0 : pn_fail("contact_sheet: %s", cairo_status_to_string(cairo_status(cr)));
  if (rc == 0) {
    cairo_set_source_rgb(cr, 1, 1, 1);
    cairo_paint(cr);
    cairo_select_font_face(cr, "sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, 13);
    cairo_set_source_rgb(cr, 0.2, 0.2, 0.22);
    for (int i = 0; i < n; i++) {
      if (!captions[i] || !*captions[i]) continue;
      double x = (double)(gap + i % columns * (cell_w + gap)), y = (double)(gap + i / columns * (cell_h + CAPTION + gap));
      cairo_save(cr);
      cairo_rectangle(cr, x, y, (double)cell_w, CAPTION); /* a caption stays over its picture */
      cairo_clip(cr);
      cairo_move_to(cr, x, y + CAPTION - 8);
      cairo_show_text(cr, captions[i]);
      cairo_restore(cr);
    }
    cairo_surface_flush(surface);
    for (int64_t y = 0; y < h; y++) {
      for (int64_t x = 0; x < w; x++) {
        uint32_t v;
        memcpy(&v, pixels + y * stride + 4 * x, 4);
        for (int c = 0; c < 3; c++) to[3 * (y * w + x) + c] = (uint8_t)(v >> (16 - 8 * c));
      }
    }
  }
  cairo_destroy(cr);
  cairo_surface_destroy(surface);
  return rc;
}

int pn_contact_sheet(pn_tensor **out, pn_tensor *const *images, const char *const *captions, int n, int columns, int gap) {
  if (!images || n < 1) return pn_fail("contact_sheet: expected at least one image, got none");
  if (columns < 1) return pn_fail("contact_sheet: columns must be at least 1, got %d", columns);
  if (gap < 0 || gap > 1000) return pn_fail("contact_sheet: gap must be 0..1000 pixels, got %d", gap);
  if (columns > n) columns = n;
  int64_t cell_h = 0, cell_w = 0;
  for (int i = 0; i < n; i++) {
    pn_picture p;
    if (pn_picture_of(&p, images[i], PN_IS_IMAGE, "contact_sheet") != 0) return -1;
    cell_h = pn_max64(cell_h, p.h);
    cell_w = pn_max64(cell_w, p.w);
    int rc = p.c == 4 ? pn_fail("contact_sheet: picture %d has 4 channels; expected 1 or 3", i + 1) : 0;
    pn_tensor_release(p.held);
    if (rc != 0) return -1;
  }
  bool written = false;
  for (int i = 0; captions && i < n; i++) written = written || (captions[i] && *captions[i]);
  int64_t rows = pn_ceil_div(n, columns), line = cell_h + (written ? CAPTION : 0);
  int64_t h = gap + rows * (line + gap), w = gap + columns * (cell_w + gap);
  if (h > 32767 || w > 32767)
    return pn_fail("contact_sheet: the sheet would be %lld x %lld pixels (height x width); 32767 is the most", (long long)h,
                   (long long)w);
  pn_tensor *sheet;
  if (pn_u8_new(&sheet, 3, (int64_t[]){ h, w, 3 }) != 0) return -1;
  uint8_t *to = (uint8_t *)pn_bytes_of(sheet);
  memset(to, 255, (size_t)(h * w * 3));
  int rc = written ? draw_captions(to, h, w, captions, n, columns, gap, cell_h, cell_w) : 0;
  for (int i = 0; i < n && rc == 0; i++) {
    pn_picture p;
    rc = pn_picture_of(&p, images[i], PN_IS_IMAGE, "contact_sheet");
    if (rc != 0) break;
    int64_t top = gap + i / columns * (line + gap) + (line - cell_h), left = gap + i % columns * (cell_w + gap);
    for (int64_t y = 0; y < p.h; y++) {
      for (int64_t x = 0; x < p.w; x++) {
        uint8_t *q = to + 3 * ((top + y) * w + left + x);
        const uint8_t *v = p.data + (y * p.w + x) * p.c;
        for (int c = 0; c < 3; c++) q[c] = v[p.c == 3 ? c : 0];
      }
    }
    pn_tensor_release(p.held);
  }
  if (rc == 0) *out = sheet;
  else pn_tensor_release(sheet);
  return rc;
}
