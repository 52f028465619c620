/* zip.c: the directory of a zip archive (PKWARE APPNOTE 6.3.10), of which npz and PyTorch files are made. Each member becomes a
** part; stored and deflated members, and the 64-bit fields, are read; what is encrypted or split is refused. */
#include <stdlib.h>
#include <string.h>
#include "formats.h"

static int fail_directory(const pn_archive *a) { return pn_archive_fail(a, "its directory is damaged or cut off"); }

/* Where the directory stands, from the record at the end of the file. */
static int find_directory(const pn_archive *a, int64_t *offset, int64_t *bytes, int64_t *n_members) {
  enum { END = 22, COMMENT = 65535, LOCATOR = 20, END64 = 56 };
  const pn_disk_file *file = &a->files[0];
  int64_t n = pn_min64(file->bytes, END + COMMENT + LOCATOR);
  unsigned char *tail = pn_alloc((size_t)n + 1);
  if (!tail) return -1;
  int64_t found = -1;
  int rc = pn_disk_read(file, file->bytes - n, tail, (size_t)n);
  for (int64_t i = n - END; rc == 0 && i >= 0 && found < 0; i--)
    if (memcmp(tail + i, "PK\5\6", 4) == 0 && i + END + pn_le16(tail + i + 20) == n) found = i;
  if (rc == 0 && found < 0) rc = pn_archive_fail(a, "the end of the archive is missing: the file is cut off");
  if (rc == 0) {
    const unsigned char *end = tail + found;
    *n_members = pn_le16(end + 10);
    *bytes = pn_le32(end + 12);
    *offset = pn_le32(end + 16);
    bool wide = found >= LOCATOR && memcmp(end - LOCATOR, "PK\6\7", 4) == 0;
    if (!wide && (pn_le16(end + 4) != 0 || pn_le16(end + 6) != 0))
      rc = pn_archive_fail(a, "an archive in several files is not read");
    if (rc == 0 && wide) {
      unsigned char end64[END64];
      uint64_t at = pn_le64(end - LOCATOR + 8);
      if (at > (uint64_t)file->bytes || (int64_t)at > file->bytes - END64) rc = fail_directory(a);
      else rc = pn_disk_read(file, (int64_t)at, end64, END64);
      if (rc == 0 && memcmp(end64, "PK\6\6", 4) != 0) rc = fail_directory(a);
      if (rc == 0) {
        *n_members = (int64_t)pn_le64(end64 + 32);
        *bytes = (int64_t)pn_le64(end64 + 40);
        *offset = (int64_t)pn_le64(end64 + 48);
      }
    }
  }
  pn_free(tail);
  if (rc != 0) return -1;
  if (*offset < 0 || *bytes < 0 || *n_members < 0 || *offset > file->bytes || *bytes > file->bytes - *offset ||
      *n_members > *bytes / 46)
    return fail_directory(a);
  return 0;
}

/* Sizes and offset of a member that do not fit 32 bits stand in an extra field, in this order. */
static bool wide_fields(const unsigned char *extra, size_t n, int64_t *bytes, int64_t *packed, int64_t *offset) {
  while (n >= 4) {
    size_t size = pn_le16(extra + 2);
    if (size > n - 4) return false;
    if (pn_le16(extra) == 1) {
      int64_t *const fields[] = { bytes, packed, offset };
      const unsigned char *p = extra + 4;
      for (int i = 0; i < 3; i++) {
        if (*fields[i] != 0xFFFFFFFF) continue;
        if (size < 8) return false;
        *fields[i] = (int64_t)pn_le64(p);
        p += 8;
        size -= 8;
      }
      return true;
    }
    extra += 4 + size;
    n -= 4 + size;
  }
  return *bytes != 0xFFFFFFFF && *packed != 0xFFFFFFFF && *offset != 0xFFFFFFFF;
}

static int add_member(pn_archive *a, const unsigned char *d, const char *name, size_t name_bytes, size_t extra_bytes) {
  enum { LOCAL = 30 };
  const pn_disk_file *file = &a->files[0];
  int64_t packed = pn_le32(d + 20), bytes = pn_le32(d + 24), offset = pn_le32(d + 42);
  int method = pn_le16(d + 10);
  if (name_bytes == 0 || memchr(name, 0, name_bytes)) return fail_directory(a);
  if (name[name_bytes - 1] == '/') return 0; /* a directory */
  if (!wide_fields(d + 46 + name_bytes, extra_bytes, &bytes, &packed, &offset)) return fail_directory(a);
  if (pn_le16(d + 8) & 1) return pn_archive_fail(a, "member %.*s is encrypted", (int)name_bytes, name);
  if (method != 0 && method != 8)
    return pn_archive_fail(a, "member %.*s is packed by method %d; stored and deflated ones are read", (int)name_bytes, name,
                           method);
  unsigned char local[LOCAL];
  if (bytes < 0 || packed < 0 || offset < 0 || offset > file->bytes - LOCAL) return fail_directory(a);
  if (pn_disk_read(file, offset, local, LOCAL) != 0) return -1;
  int64_t data = offset + LOCAL + pn_le16(local + 26) + pn_le16(local + 28);
  if (memcmp(local, "PK\3\4", 4) != 0 || data > file->bytes || packed > file->bytes - data) return fail_directory(a);
  if (method == 0 && packed != bytes) return fail_directory(a);
  if (method == 8 && bytes / 1032 > packed + 1) /* more than deflate can reach: a bomb, or damage */
    return pn_archive_fail(a, "member %.*s says it unpacks from %lld to %lld bytes: refused", (int)name_bytes, name,
                           (long long)packed, (long long)bytes);
  pn_part part = { .offset = data,
                   .bytes = bytes,
                   .packed_bytes = packed,
                   .deflated = method == 8,
                   .has_crc = pn_le32(d + 16) != 0,
                   .crc = pn_le32(d + 16) };
  part.name = pn_copy_text(name, name_bytes);
  return part.name ? pn_archive_add_part(a, &part, NULL) : -1;
}

static int members(pn_archive *a) {
  enum { ENTRY = 46 };
  int64_t offset, bytes, n_members;
  if (find_directory(a, &offset, &bytes, &n_members) != 0) return -1;
  if (bytes > 1 << 28) return pn_archive_fail(a, "its directory has %lld bytes: refused", (long long)bytes);
  unsigned char *directory = pn_alloc((size_t)bytes + 1);
  if (!directory) return -1;
  int rc = pn_disk_read(&a->files[0], offset, directory, (size_t)bytes);
  const unsigned char *d = directory, *end = directory + bytes;
  for (int64_t i = 0; rc == 0 && i < n_members; i++) {
    if (end - d < ENTRY || memcmp(d, "PK\1\2", 4) != 0) {
      rc = fail_directory(a);
      break;
    }
    size_t name_bytes = pn_le16(d + 28), extra_bytes = pn_le16(d + 30), all = ENTRY + name_bytes + extra_bytes + pn_le16(d + 32);
    if ((size_t)(end - d) < all) rc = fail_directory(a);
    else rc = add_member(a, d, (const char *)d + ENTRY, name_bytes, extra_bytes);
    d += all;
  }
  pn_free(directory);
  return rc;
}

static int compare_places(const void *x, const void *y) {
  const pn_part *a = *(pn_part *const *)x, *b = *(pn_part *const *)y;
  return a->offset != b->offset ? (a->offset < b->offset ? -1 : 1)
                                : (a->packed_bytes > b->packed_bytes) - (a->packed_bytes < b->packed_bytes);
}

/* No byte belongs to two members: else a small file could stand for any number of large ones. */
static int check_places(const pn_archive *a) {
  const pn_part **parts = pn_alloc((size_t)a->n_parts * sizeof *parts);
  if (!parts) return -1;
  for (int64_t i = 0; i < a->n_parts; i++) parts[i] = &a->parts[i];
  if (a->n_parts > 1) qsort(parts, (size_t)a->n_parts, sizeof *parts, compare_places);
  int rc = 0;
  for (int64_t i = 1; i < a->n_parts && rc == 0; i++)
    if (parts[i]->offset < parts[i - 1]->offset + parts[i - 1]->packed_bytes)
      rc = pn_archive_fail(a, "the members %s and %s overlap", parts[i - 1]->name, parts[i]->name);
  pn_free(parts);
  return rc;
}

int pn_read_zip(pn_archive *a) {
  a->format = "zip";
  if (members(a) != 0 || check_places(a) != 0) return -1;
  int pickle = -1;
  bool arrays = true;
  for (int64_t i = 0; i < a->n_parts; i++) {
    const char *name = a->parts[i].name;
    size_t n = strlen(name);
    if (strcmp(name, "data.pkl") == 0 || (n > 9 && strcmp(name + n - 9, "/data.pkl") == 0)) {
      if (pickle >= 0) return pn_archive_fail(a, "there are two members named data.pkl");
      pickle = (int)i;
    }
    arrays = arrays && n > 4 && strcmp(name + n - 4, ".npy") == 0;
  }
  if (pickle >= 0) return pn_read_torch_zip(a, pickle);
  if (arrays) return pn_read_npz(a);
  return pn_archive_fail(a, "neither an npz (every member an .npy) nor a PyTorch file (a member data.pkl)");
}
