/* sha256.c: SHA-256 (FIPS 180-4) of a file or a tensor, to know a download for what it is. */
#include <string.h>
#include "formats.h"

static const uint32_t k[64] = { 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
                                0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
                                0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
                                0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
                                0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
                                0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
                                0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
                                0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2 };

static inline uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void block(uint32_t h[8], const unsigned char *p) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t a = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3,
             b = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  memcpy(s, h, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t e = s[4], a = s[0];
    uint32_t t1 = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
    uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) h[i] += s[i];
}

typedef struct hash {
  uint32_t h[8];
  uint64_t bytes;
  unsigned char rest[64];
} hash;

static void hash_start(hash *s) {
  *s = (hash){
    .h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
  };
}

static void hash_add(hash *s, const unsigned char *p, size_t n) {
  size_t held = (size_t)(s->bytes % 64);
  s->bytes += n;
  if (held > 0) {
    size_t more = n < 64 - held ? n : 64 - held;
    memcpy(s->rest + held, p, more);
    p += more;
    n -= more;
    if (held + more < 64) return;
    block(s->h, s->rest);
  }
  for (; n >= 64; n -= 64, p += 64) block(s->h, p);
  if (n > 0) memcpy(s->rest, p, n);
}

/* A one, zeros, and the length in bits, to a whole number of blocks. */
static void hash_end(hash *s, char *hex) {
  unsigned char tail[72] = { 0x80 };
  size_t zeros = (size_t)(119 - s->bytes % 64) % 64;
  uint64_t bits = s->bytes * 8;
  for (size_t i = 0; i < 8; i++) tail[1 + zeros + i] = (unsigned char)(bits >> (56 - 8 * i));
  hash_add(s, tail, 1 + zeros + 8);
  for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", s->h[i]);
}

int pn_sha256_file(const char *path, char *hex) {
  enum { CHUNK = 1 << 16 };
  if (!path || !hex) return pn_fail("sha256: path or result is missing");
  pn_disk_file file;
  if (pn_disk_open(&file, path) != 0) return -1;
  unsigned char *buffer = pn_alloc(CHUNK);
  int rc = buffer ? 0 : -1;
  hash s;
  hash_start(&s);
  for (int64_t at = 0; rc == 0 && at < file.bytes; at += CHUNK) {
    size_t n = (size_t)pn_min64(CHUNK, file.bytes - at);
    rc = pn_disk_read(&file, at, buffer, n);
    if (rc == 0) hash_add(&s, buffer, n);
  }
  if (rc == 0) hash_end(&s, hex);
  pn_free(buffer);
  pn_disk_close(&file);
  return rc;
}

int pn_tensor_sha256(pn_tensor *t, char *hex) {
  if (!t || !hex) return pn_fail("sha256: tensor or result is missing");
  size_t bytes = (size_t)pn_tensor_count(t) * (size_t)pn_dtype_bytes(pn_tensor_dtype(t));
  hash s;
  hash_start(&s);
  if (bytes > 0 && pn_tensor_device(t) == PN_CPU && pn_tensor_is_dense(t, PN_ROWS)) hash_add(&s, pn_tensor_data(t), bytes);
  else if (bytes > 0) {
    unsigned char *copy = pn_alloc(bytes);
    int rc = copy ? pn_tensor_read(t, copy, bytes) : -1;
    if (rc == 0) hash_add(&s, copy, bytes);
    pn_free(copy);
    if (rc != 0) return -1;
  }
  hash_end(&s, hex);
  return 0;
}
