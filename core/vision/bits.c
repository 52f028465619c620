/* bits.c: masks as rows of bits, 64 pixels a word.
** Why: the boundary measure and the disk morphology look at each pixel's neighbourhood; on bits a neighbourhood of 17 pixels
** is one shift and one test, so a 480p pair costs well under a millisecond and needs no distance transform. */
#include <string.h>
#include "picture.h"

int pn_bits_new(pn_bits *out, int64_t h, int64_t w) {
  int64_t words = (w + 63) / 64;
  uint64_t *row = pn_alloc_zero((size_t)pn_max64(1, h * words) * sizeof *row);
  if (!row) return -1;
  *out = (pn_bits){ .row = row, .h = h, .w = w, .words = words };
  return 0;
}

void pn_bits_free(pn_bits *b) {
  pn_free(b->row);
  b->row = NULL;
}

/* Eight bytes 0 or 1 to eight bits: the multiplication gathers byte k into bit 56 + k. */
static inline uint64_t gather(uint64_t bytes01) { return (bytes01 * UINT64_C(0x0102040810204080)) >> 56; }

void pn_bits_pack(pn_bits *b, const uint8_t *mask, int object) {
  const uint64_t ones = UINT64_C(0x0101010101010101), low7 = UINT64_C(0x7f7f7f7f7f7f7f7f);
  const uint64_t want = object < 0 ? 0 : ones * (uint64_t)(uint8_t)object;
  for (int64_t y = 0; y < b->h; y++) {
    const uint8_t *m = mask + y * b->w;
    uint64_t *row = b->row + y * b->words;
    for (int64_t word = 0; word < b->words; word++) {
      uint64_t bits = 0;
      int64_t x = word * 64, end = pn_min64(x + 64, b->w);
      int shift = 0;
      for (; x + 8 <= end; x += 8, shift += 8) {
        uint64_t v;
        memcpy(&v, m + x, 8);
        v ^= want;
        v = (((v & low7) + low7) | v) >> 7 & ones; /* 1 where the byte is not 0 */
        if (object >= 0) v ^= ones;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        v = __builtin_bswap64(v);
#endif
        bits |= gather(v) << shift;
      }
      for (; x < end; x++, shift++) bits |= (uint64_t)(object < 0 ? m[x] != 0 : m[x] == object) << shift;
      row[word] = bits;
    }
  }
}

void pn_bits_unpack(uint8_t *mask, const pn_bits *b) {
  for (int64_t y = 0; y < b->h; y++) {
    for (int64_t x = 0; x < b->w; x++) mask[y * b->w + x] = (uint8_t)(b->row[y * b->words + (x >> 6)] >> (x & 63) & 1);
  }
}

int64_t pn_bits_count(const pn_bits *b) {
  int64_t n = 0;
  for (int64_t i = 0; i < b->h * b->words; i++) n += __builtin_popcountll(b->row[i]);
  return n;
}

/* The word of row r shifted so that bit x shows pixel x + 1. */
static inline uint64_t east(const uint64_t *r, int64_t word, int64_t words) {
  return r[word] >> 1 | (word + 1 < words ? r[word + 1] << 63 : 0);
}

void pn_bits_boundary(pn_bits *out, const pn_bits *b) {
  if (b->h == 0 || b->w == 0) return;
  const uint64_t last = UINT64_C(1) << ((b->w - 1) & 63);
  for (int64_t y = 0; y < b->h; y++) {
    const uint64_t *r = b->row + y * b->words, *s = y + 1 < b->h ? r + b->words : NULL;
    uint64_t *o = out->row + y * b->words;
    for (int64_t k = 0; k < b->words; k++) {
      uint64_t v = r[k], differs = v ^ east(r, k, b->words);
      if (s) differs |= (v ^ s[k]) | (v ^ east(s, k, b->words));
      if (k == b->words - 1) { /* the last column looks south only, its last pixel nowhere */
        differs &= last - 1;
        if (s) differs |= (v ^ s[k]) & last;
      }
      o[k] = differs;
    }
  }
}

int64_t pn_disk_half(int64_t radius, int64_t dy) {
  int64_t x = radius;
  while (x * x + dy * dy > radius * radius) x--;
  return x;
}

/* Any bit set in columns first..last (clipped) of a row? */
static inline bool any_between(const uint64_t *row, int64_t w, int64_t first, int64_t last) {
  first = pn_max64(first, 0);
  last = pn_min64(last, w - 1);
  int64_t a = first >> 6, z = last >> 6;
  uint64_t head = ~UINT64_C(0) << (first & 63), tail = ~UINT64_C(0) >> (63 - (last & 63));
  if (a == z) return (row[a] & head & tail) != 0;
  if (row[a] & head) return true;
  for (int64_t k = a + 1; k < z; k++) {
    if (row[k]) return true;
  }
  return (row[z] & tail) != 0;
}

int64_t pn_bits_near(const pn_bits *a, const pn_bits *b, int64_t radius) {
  int64_t n = 0, reach = pn_min64(radius, pn_max64(b->h, b->w)); /* beyond the image nothing can be met */
  for (int64_t y = 0; y < a->h; y++) {
    const uint64_t *row = a->row + y * a->words;
    for (int64_t k = 0; k < a->words; k++) {
      for (uint64_t left = row[k]; left; left &= left - 1) {
        int64_t x = k * 64 + __builtin_ctzll(left), half = radius;
        bool met = any_between(b->row + y * b->words, b->w, x - radius, x + radius);
        for (int64_t dy = 1; dy <= reach && !met; dy++) { /* from the middle outwards: most have a neighbour at once */
          while (half * half + dy * dy > radius * radius) half--;
          if (y - dy >= 0) met = any_between(b->row + (y - dy) * b->words, b->w, x - half, x + half);
          if (!met && y + dy < b->h) met = any_between(b->row + (y + dy) * b->words, b->w, x - half, x + half);
        }
        n += met;
      }
    }
  }
  return n;
}

/* out |= in moved by `by` columns (left when negative), words of one row. */
static void or_moved(uint64_t *out, const uint64_t *in, int64_t words, int64_t by) {
  int64_t skip = (by < 0 ? -by : by) >> 6;
  int bit = (int)((by < 0 ? -by : by) & 63);
  if (by >= 0) {
    for (int64_t k = words - 1; k >= skip; k--) {
      uint64_t v = in[k - skip] << bit;
      if (bit && k - skip - 1 >= 0) v |= in[k - skip - 1] >> (64 - bit);
      out[k] |= v;
    }
  } else {
    for (int64_t k = 0; k + skip < words; k++) {
      uint64_t v = in[k + skip] >> bit;
      if (bit && k + skip + 1 < words) v |= in[k + skip + 1] << (64 - bit);
      out[k] |= v;
    }
  }
}

/* out = in dilated along the row by half pixels each way: the window grows by doubling. */
static void spread(uint64_t *out, const uint64_t *in, uint64_t *scratch, int64_t words, int64_t half) {
  memcpy(out, in, (size_t)words * sizeof *out);
  int64_t reach = 0;
  while (reach < half) {
    int64_t step =
        pn_min64(reach + 1, half - reach); /* no further: a run cut off by the end of the row must still meet its moved self */
    memcpy(scratch, out, (size_t)words * sizeof *out);
    or_moved(out, scratch, words, step);
    or_moved(out, scratch, words, -step);
    reach += step;
  }
}

int pn_bits_dilate(pn_bits *out, const pn_bits *b, int64_t radius, bool complement) {
  if (b->h == 0 || b->w == 0) return 0;
  size_t row_bytes = (size_t)b->words * sizeof(uint64_t);
  uint64_t *work = pn_alloc(3 * row_bytes);
  if (!work) return -1;
  uint64_t *source = work, *wide = work + b->words, *scratch = work + 2 * b->words;
  const uint64_t inside = ~UINT64_C(0) >> (63 - ((b->w - 1) & 63));
  memset(out->row, 0, (size_t)b->h * row_bytes);
  for (int64_t y = 0; y < b->h; y++) {
    const uint64_t *r = b->row + y * b->words;
    uint64_t any = 0;
    for (int64_t k = 0; k < b->words; k++) {
      source[k] = complement ? ~r[k] : r[k];
      if (k == b->words - 1) source[k] &= inside;
      any |= source[k];
    }
    if (!any) continue;
    int64_t half = -1;
    for (int64_t dy = pn_min64(radius, b->h - 1); dy >= 0; dy--) { /* this row's part in the rows dy away */
      int64_t want = pn_disk_half(radius, dy);
      if (want != half) {
        spread(wide, source, scratch, b->words, want);
        half = want;
      }
      for (int side = 0; side < (dy ? 2 : 1); side++) {
        int64_t to = side ? y - dy : y + dy;
        if (to < 0 || to >= b->h) continue;
        uint64_t *o = out->row + to * b->words;
        for (int64_t k = 0; k < b->words; k++) o[k] |= wide[k];
      }
    }
  }
  for (int64_t y = 0; y < b->h; y++) {
    uint64_t *o = out->row + y * b->words;
    if (complement) {
      for (int64_t k = 0; k < b->words; k++) o[k] = ~o[k];
    }
    o[b->words - 1] &= inside;
  }
  pn_free(work);
  return 0;
}
