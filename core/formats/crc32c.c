/* crc32c.c: the Castagnoli CRC that TensorFlow stores with every tensor (polynomial 0x1EDC6F41, reflected 0x82F63B78;
** RFC 3720 appendix B.4), eight bytes a step (Kounavis and Berry, "slicing-by-8"). */
#include <pthread.h>
#include <string.h>
#include "formats.h"

static uint32_t table[8][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    table[0][i] = crc;
  }
  for (uint32_t i = 0; i < 256; i++)
    for (int k = 1; k < 8; k++) table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
}

uint32_t pn_crc32c(uint32_t crc, const void *data, size_t bytes) {
  pthread_once(&once, fill);
  const unsigned char *p = data;
  crc = ~crc;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    uint32_t low = pn_le32(p) ^ crc, high = pn_le32(p + 4);
    crc = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^ table[4][low >> 24] ^ table[3][high & 255] ^
          table[2][high >> 8 & 255] ^ table[1][high >> 16 & 255] ^ table[0][high >> 24];
  }
  for (; bytes > 0; bytes--, p++) crc = crc >> 8 ^ table[0][(crc ^ *p) & 255];
  return ~crc;
}

int pn_tensor_crc32c(pn_tensor *t, uint32_t *out) {
  if (!t || !out) return pn_fail("crc32c: tensor or result is missing");
  size_t bytes = (size_t)pn_tensor_count(t) * (size_t)pn_dtype_bytes(pn_tensor_dtype(t));
  if (bytes == 0 || (pn_tensor_device(t) == PN_CPU && pn_tensor_is_dense(t, PN_ROWS))) {
    *out = pn_crc32c(0, bytes > 0 ? pn_tensor_data(t) : NULL, bytes);
    return 0;
  }
  void *copy = pn_alloc(bytes);
  if (!copy) return -1;
  int rc = pn_tensor_read(t, copy, bytes);
  if (rc == 0) *out = pn_crc32c(0, copy, bytes);
  pn_free(copy);
  return rc;
}
