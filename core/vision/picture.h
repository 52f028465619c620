/* picture.h: what the files of core/vision share: tensors seen as rows of pixels, files in memory, masks as bits. */
#ifndef PENUMBRA_PICTURE_H
#define PENUMBRA_PICTURE_H
#include "internal.h"

/* ---- tensors as pixels (image.c) ---------------------------------------------------------------------------------- */

enum { PN_IS_MASK = 1, PN_IS_IMAGE = 2, PN_IS_MASKS = 4, PN_IS_FRAMES = 8 }; /* (H,W); (H,W,C); (T,H,W); (T,H,W,C) */

/* n pictures of h x w x c u8 values, dense. held is ours to release. */
typedef struct pn_picture {
  pn_tensor *held;
  uint8_t *data;
  int64_t n, h, w, c;
} pn_picture;

/* Sees t as one of the kinds, copying when its strides are not dense. who: the function's name for messages. */
PN_CHECKED int pn_picture_of(pn_picture *out, pn_tensor *t, int kinds, const char *who);
/* Is t what a function of core/vision takes: u8 on the CPU, so many dims? 'channels' 0: any number in the last axis. */
PN_CHECKED int pn_need_image(const pn_tensor *t, const char *what, int n_dims, int64_t channels);
/* A new dense u8 tensor. */
PN_CHECKED int pn_u8_new(pn_tensor **out, int n_dims, const int64_t *shape);

/* ---- files (file.c) ------------------------------------------------------------------------------------------------- */

/* A regular file and its size; NULL after pn_fail. */
PN_CHECKED FILE *pn_file_open(const char *path, size_t *bytes);
PN_CHECKED int pn_file_read(uint8_t **data, size_t *bytes, const char *path); /* *data by pn_free */
/* Beside path, then renamed over it. */
PN_CHECKED int pn_file_replace(const char *path, const void *data, size_t bytes);

/* ---- images in files (image_jpeg.c, png.c) ------------------------------------------------------------------------ */

/* A decoded picture. path is for messages only. */
typedef struct pn_decoded {
  int64_t h, w, c;
  uint8_t *pixels; /* by pn_free */
} pn_decoded;
bool pn_is_jpeg(const uint8_t *data, size_t bytes);
size_t pn_jpeg_scan(const uint8_t *data, size_t bytes,
                    int64_t *size); /* offset past the header of the first scan, 0 when cut off; size may be NULL */
PN_CHECKED int pn_jpeg_decode(pn_decoded *out, const char *path, const uint8_t *data, size_t bytes,
                              int channels);                                                                      /* 0: as stored */
PN_CHECKED int pn_png_decode(pn_decoded *out, const char *path, const uint8_t *data, size_t bytes, int channels); /* 0: as stored */
PN_CHECKED int pn_png_decode_mask(pn_decoded *out, const char *path, const uint8_t *data, size_t bytes);
PN_CHECKED int pn_png_encode(uint8_t **data, size_t *bytes, const char *path, const uint8_t *pixels, int64_t h, int64_t w,
                             int64_t c, bool palette); /* *data by free() */
bool pn_is_png(const uint8_t *data, size_t bytes);

/* ---- masks as rows of bits (bits.c): bit x & 63 of word x >> 6; bits past the width are 0 ----------------------------- */

typedef struct pn_bits {
  uint64_t *row; /* words * h, by pn_free */
  int64_t h, w, words;
} pn_bits;
PN_CHECKED int pn_bits_new(pn_bits *out, int64_t h, int64_t w); /* all 0 */
void pn_bits_free(pn_bits *b);
void pn_bits_pack(pn_bits *b, const uint8_t *mask, int object); /* object < 0: any value but 0 */
void pn_bits_unpack(uint8_t *mask, const pn_bits *b);           /* 0 or 1 */
int64_t pn_bits_count(const pn_bits *b);
void pn_bits_boundary(pn_bits *out, const pn_bits *b);
/* Pixels of a that have a pixel of b within the disk. */
int64_t pn_bits_near(const pn_bits *a, const pn_bits *b, int64_t radius);
PN_CHECKED int pn_bits_dilate(pn_bits *out, const pn_bits *b, int64_t radius,
                              bool complement); /* complement: erode, by dilating what is not set */
/* Half the width of the disk of that radius at row dy: the largest x with x*x + dy*dy <= radius*radius. */
int64_t pn_disk_half(int64_t radius, int64_t dy);

#endif
