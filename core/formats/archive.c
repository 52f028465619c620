/* archive.c: named tensors of a file, whatever its format: describing, listing, loading. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "formats.h"

/* clang-format off */
static const struct { int bytes; pn_dtype dtype; } elements[] = {
  [PN_E_F32] = { 4, PN_F32 }, [PN_E_F64] = { 8, PN_F64 }, [PN_E_F16] = { 2, PN_F16 }, [PN_E_BF16] = { 2, PN_BF16 },
  [PN_E_I64] = { 8, PN_I64 }, [PN_E_I32] = { 4, PN_I32 }, [PN_E_U8] = { 1, PN_U8 },   [PN_E_BOOL] = { 1, PN_U8 },
  [PN_E_I8] = { 1, PN_I32 },  [PN_E_I16] = { 2, PN_I32 }, [PN_E_U16] = { 2, PN_I32 }, [PN_E_U32] = { 4, PN_I64 },
  [PN_E_OTHER] = { 0, PN_U8 },
};
/* clang-format on */

int pn_element_bytes(pn_element element) { return elements[element].bytes; }

bool pn_count_of(int n_dims, const int64_t *shape, int64_t *count) {
  bool empty = false;
  int64_t product = 1;
  for (int d = 0; d < n_dims; d++) {
    if (shape[d] < 0) return false;
    if (shape[d] == 0) empty = true;
    else if (__builtin_mul_overflow(product, shape[d], &product) || product > INT64_MAX / 16) return false;
  }
  *count = empty ? 0 : product;
  return true;
}

int pn_archive_fail(const pn_archive *a, const char *format, ...) {
  char text[1024];
  va_list ap;
  va_start(ap, format);
  vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  for (unsigned char *p = (unsigned char *)text; *p; p++) /* names come from the file, and go to a terminal */
    if (*p < 32 || *p == 127) *p = '?';
  return pn_fail("%s: %s: %s", a->path, a->format, text);
}

/* ---- describing -------------------------------------------------------------------------------------------------- */

int pn_archive_add_file(pn_archive *a, const char *path, int *index) {
  if (pn_grow(&a->files, &a->room_files, a->n_files, a->n_files + 1, sizeof *a->files) != 0) return -1;
  if (pn_grow(&a->file_paths, &a->room_paths, a->n_files, a->n_files + 1, sizeof *a->file_paths) != 0) return -1;
  char *copy = pn_copy_text(path, strlen(path));
  if (!copy) return -1;
  if (pn_disk_open(&a->files[a->n_files], copy) != 0) {
    pn_free(copy);
    return -1;
  }
  a->file_paths[a->n_files] = copy;
  *index = (int)a->n_files++;
  return 0;
}

int pn_archive_add_part(pn_archive *a, const pn_part *part, int *index) {
  if (a->n_parts >= INT32_MAX || pn_grow(&a->parts, &a->room_parts, a->n_parts, a->n_parts + 1, sizeof *a->parts) != 0) {
    pn_free(part->memory);
    pn_free(part->name);
    return -1;
  }
  a->parts[a->n_parts] = *part;
  if (index) *index = (int)a->n_parts;
  a->n_parts++;
  return 0;
}

int pn_archive_refuse(pn_entry *entry, const char *format, ...) {
  char text[512];
  va_list ap;
  va_start(ap, format);
  vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  if (entry->refusal) return 0;
  entry->refusal = pn_copy_text(text, strlen(text));
  return entry->refusal ? 0 : -1;
}

int pn_archive_add_entry(pn_archive *a, pn_entry **out, const char *name, size_t name_bytes, pn_element element, int n_dims,
                         const int64_t *shape) {
  if (memchr(name, 0, name_bytes)) return pn_archive_fail(a, "the name of a tensor contains a NUL byte");
  if (a->n_entries >= INT32_MAX) return pn_archive_fail(a, "too many tensors");
  if (pn_grow(&a->entries, &a->room_entries, a->n_entries, a->n_entries + 1, sizeof *a->entries) != 0) return -1;
  pn_entry *entry = &a->entries[a->n_entries];
  *entry = (pn_entry){ .element = element, .n_dims = n_dims };
  entry->name = pn_copy_text(name, name_bytes);
  if (!entry->name) return -1;
  a->n_entries++;
  *out = entry;
  if (n_dims > PN_MAX_DIMS) {
    entry->n_dims = 0;
    return pn_archive_refuse(entry, "has %d axes; a tensor has at most %d", n_dims, PN_MAX_DIMS);
  }
  int64_t count;
  if (!pn_count_of(n_dims, shape, &count)) return pn_archive_fail(a, "tensor %s has an impossible shape", entry->name);
  if (n_dims > 0) memcpy(entry->shape, shape, (size_t)n_dims * sizeof *shape);
  pn_strides_of(n_dims, shape, PN_ROWS, entry->stride);
  return 0;
}

/* Bytes from element 0 to the end of the last element; false when that does not fit. */
static bool extent_of(const pn_entry *entry, int64_t *bytes, int64_t *count) {
  if (!pn_count_of(entry->n_dims, entry->shape, count)) return false;
  *bytes = 0;
  if (*count == 0) return true;
  int64_t last = 1;
  for (int d = 0; d < entry->n_dims; d++) {
    int64_t step;
    if (entry->stride[d] < 0 || __builtin_mul_overflow(entry->shape[d] - 1, entry->stride[d], &step) ||
        __builtin_add_overflow(last, step, &last))
      return false;
  }
  return !__builtin_mul_overflow(last, (int64_t)elements[entry->element].bytes, bytes);
}

int pn_archive_check_entry(const pn_archive *a, const pn_entry *entry, int64_t limit) {
  enum { FREE_EXPANSION = 1 << 20 };
  int64_t extent, count, end;
  if (entry->refusal) return 0;
  bool good = extent_of(entry, &extent, &count) && entry->begin >= 0;
  if (good && count > 0) good = !__builtin_add_overflow(entry->begin, extent, &end) && end <= limit; /* no elements: anywhere */
  if (!good) return pn_archive_fail(a, "tensor %s reaches past the end of its data (%lld bytes)", entry->name, (long long)limit);
  if (count > FREE_EXPANSION && count > extent / pn_max64(1, elements[entry->element].bytes))
    return pn_archive_fail(a, "tensor %s repeats its data to %lld elements: refused", entry->name, (long long)count);
  return 0;
}

int pn_archive_add_metadata(pn_archive *a, const char *key, size_t key_bytes, const char *value, size_t value_bytes) {
  if (memchr(key, 0, key_bytes) || memchr(value, 0, value_bytes)) return pn_archive_fail(a, "the metadata contain a NUL byte");
  if (pn_grow(&a->keys, &a->room_keys, a->n_metadata, a->n_metadata + 1, sizeof *a->keys) != 0) return -1;
  if (pn_grow(&a->values, &a->room_values, a->n_metadata, a->n_metadata + 1, sizeof *a->values) != 0) return -1;
  char *k = pn_copy_text(key, key_bytes), *v = k ? pn_copy_text(value, value_bytes) : NULL;
  if (!v) {
    pn_free(k);
    return -1;
  }
  a->keys[a->n_metadata] = k;
  a->values[a->n_metadata++] = v;
  return 0;
}

static int compare_entries(const void *x, const void *y, void *context) {
  const pn_archive *a = context;
  return strcmp(a->entries[*(const int *)x].name, a->entries[*(const int *)y].name);
}

static int compare_keys(const void *x, const void *y) { return strcmp(*(char *const *)x, *(char *const *)y); }

int pn_archive_check_names(pn_archive *a) {
  a->order = pn_alloc((size_t)a->n_entries * sizeof *a->order);
  if (!a->order) return -1;
  for (int i = 0; i < a->n_entries; i++) a->order[i] = i;
  if (a->n_entries > 1) qsort_r(a->order, (size_t)a->n_entries, sizeof *a->order, compare_entries, a);
  for (int64_t i = 1; i < a->n_entries; i++)
    if (compare_entries(&a->order[i - 1], &a->order[i], a) == 0)
      return pn_archive_fail(a, "two tensors are named %s", a->entries[a->order[i]].name);
  if (a->n_metadata < 2) return 0;
  char **keys = pn_alloc((size_t)a->n_metadata * sizeof *keys);
  if (!keys) return -1;
  memcpy(keys, a->keys, (size_t)a->n_metadata * sizeof *keys);
  qsort(keys, (size_t)a->n_metadata, sizeof *keys, compare_keys);
  int rc = 0;
  for (int64_t i = 1; i < a->n_metadata && rc == 0; i++)
    if (strcmp(keys[i - 1], keys[i]) == 0) rc = pn_archive_fail(a, "the metadata have the key %s twice", keys[i]);
  pn_free(keys);
  return rc;
}

/* ---- bytes of a part --------------------------------------------------------------------------------------------- */

static int fail_member(const pn_archive *a, const pn_part *part, const char *what) {
  return pn_archive_fail(a, "member %s: %s", part->name ? part->name : "?", what);
}

/* Unpacks the whole of a deflated part, keeping bytes begin..begin+bytes; the CRC covers all of it. */
static int inflate_part(pn_archive *a, pn_part *part, int64_t begin, unsigned char *buffer, int64_t bytes) {
  enum { CHUNK = 1 << 16 };
  const pn_disk_file *file = &a->files[part->file];
  unsigned char *in = pn_alloc(2 * CHUNK), *out = in ? in + CHUNK : NULL;
  if (!in) return -1;
  z_stream z = { 0 };
  if (inflateInit2(&z, -15) != Z_OK) {
    pn_free(in);
    return fail_member(a, part, "zlib does not start");
  }
  int64_t at = 0, packed = 0;
  uLong crc = crc32(0, NULL, 0);
  int rc = 0, state = Z_OK;
  while (rc == 0 && state != Z_STREAM_END) {
    if (z.avail_in == 0 && packed < part->packed_bytes) {
      int64_t n = pn_min64(CHUNK, part->packed_bytes - packed);
      rc = pn_disk_read(file, part->offset + packed, in, (size_t)n);
      packed += n;
      z.next_in = in;
      z.avail_in = (uInt)n;
    }
    if (rc != 0) break;
    z.next_out = out;
    z.avail_out = CHUNK;
    state = inflate(&z, Z_NO_FLUSH);
    int64_t n = CHUNK - (int64_t)z.avail_out;
    if (state != Z_OK && state != Z_STREAM_END) rc = fail_member(a, part, z.msg ? z.msg : "its compressed data end too soon");
    else if (n > part->bytes - at) rc = fail_member(a, part, "unpacks to more than it says");
    if (rc != 0) break;
    crc = crc32(crc, out, (uInt)n);
    int64_t low = pn_max64(at, begin), high = pn_min64(at + n, begin + bytes);
    if (low < high) memcpy(buffer + (low - begin), out + (low - at), (size_t)(high - low));
    at += n;
  }
  inflateEnd(&z);
  pn_free(in);
  if (rc != 0) return -1;
  if (at != part->bytes) return fail_member(a, part, "unpacks to less than it says");
  if (part->has_crc && crc != part->crc) return fail_member(a, part, "its CRC-32 does not match: the file is damaged");
  return 0;
}

static int check_stored(pn_archive *a, pn_part *part) {
  enum { CHUNK = 1 << 18 };
  unsigned char *buffer = pn_alloc(CHUNK);
  if (!buffer) return -1;
  uLong crc = crc32(0, NULL, 0);
  int rc = 0;
  for (int64_t at = 0; rc == 0 && at < part->bytes; at += CHUNK) {
    size_t n = (size_t)pn_min64(CHUNK, part->bytes - at);
    rc = pn_disk_read(&a->files[part->file], part->offset + at, buffer, n);
    crc = crc32(crc, buffer, (uInt)n);
  }
  pn_free(buffer);
  if (rc == 0 && crc != part->crc) rc = fail_member(a, part, "its CRC-32 does not match: the file is damaged");
  return rc;
}

int pn_part_read(pn_archive *a, int index, int64_t begin, void *buffer, int64_t bytes) {
  pn_part *part = &a->parts[index];
  if (begin < 0 || bytes < 0 || begin > part->bytes || bytes > part->bytes - begin)
    return pn_archive_fail(a, "data end at byte %lld, %lld wanted", (long long)part->bytes, (long long)begin + bytes);
  if (bytes == 0) return 0;
  if (part->memory) {
    memcpy(buffer, part->memory + begin, (size_t)bytes);
    return 0;
  }
  if (part->deflated) return inflate_part(a, part, begin, buffer, bytes);
  if (part->has_crc && !part->checked) {
    if (check_stored(a, part) != 0) return -1;
    part->checked = true;
  }
  return pn_disk_read(&a->files[part->file], part->offset + begin, buffer, (size_t)bytes);
}

/* ---- the end -------------------------------------------------------------------------------------------------------- */

void pn_archive_close(pn_archive *a) {
  if (!a) return;
  for (int64_t i = 0; i < a->n_entries; i++) {
    pn_free(a->entries[i].name);
    pn_free(a->entries[i].refusal);
  }
  for (int64_t i = 0; i < a->n_parts; i++) {
    pn_free(a->parts[i].memory);
    pn_free(a->parts[i].name);
  }
  for (int64_t i = 0; i < a->n_files; i++) {
    pn_disk_close(&a->files[i]);
    pn_free(a->file_paths[i]);
  }
  for (int64_t i = 0; i < a->n_metadata; i++) {
    pn_free(a->keys[i]);
    pn_free(a->values[i]);
  }
  void *const blocks[] = { a->entries, a->parts, a->files, a->file_paths, a->keys, a->values, a->order, a->path, a };
  for (size_t i = 0; i < PN_LENGTH(blocks); i++) pn_free(blocks[i]);
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

static const pn_entry *entry_at(const pn_archive *a, int i) { return a && i >= 0 && i < a->n_entries ? &a->entries[i] : NULL; }

const char *pn_archive_format(const pn_archive *a) { return a->format; }
int pn_archive_count(const pn_archive *a) { return (int)a->n_entries; }

const char *pn_archive_name(const pn_archive *a, int i) {
  const pn_entry *entry = entry_at(a, i);
  return entry ? entry->name : NULL;
}

pn_dtype pn_archive_dtype(const pn_archive *a, int i) {
  const pn_entry *entry = entry_at(a, i);
  return entry ? elements[entry->element].dtype : PN_N_DTYPES;
}

int pn_archive_dims(const pn_archive *a, int i) {
  const pn_entry *entry = entry_at(a, i);
  return entry ? entry->n_dims : -1;
}

int64_t pn_archive_size(const pn_archive *a, int i, int axis) {
  const pn_entry *entry = entry_at(a, i);
  return entry && axis >= 0 && axis < entry->n_dims ? entry->shape[axis] : -1;
}

const char *pn_archive_refusal(const pn_archive *a, int i) {
  const pn_entry *entry = entry_at(a, i);
  return entry ? entry->refusal : NULL;
}

bool pn_archive_crc32c(const pn_archive *a, int i, uint32_t *out) {
  const pn_entry *entry = entry_at(a, i);
  if (!entry || !entry->has_crc32c) return false;
  *out = entry->crc32c;
  return true;
}

int pn_archive_find(const pn_archive *a, const char *name) {
  int64_t low = 0, high = a->n_entries;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    int order = strcmp(a->entries[a->order[middle]].name, name);
    if (order == 0) return a->order[middle];
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return -1;
}

int pn_archive_n_metadata(const pn_archive *a) { return (int)a->n_metadata; }
const char *pn_archive_key(const pn_archive *a, int i) { return i >= 0 && i < a->n_metadata ? a->keys[i] : NULL; }
const char *pn_archive_value(const pn_archive *a, int i) { return i >= 0 && i < a->n_metadata ? a->values[i] : NULL; }

const char *pn_archive_metadata(const pn_archive *a, const char *key) {
  for (int64_t i = 0; i < a->n_metadata; i++)
    if (strcmp(a->keys[i], key) == 0) return a->values[i];
  return NULL;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static void swap_bytes(unsigned char *p, int bytes) {
  for (int i = 0; i < bytes / 2; i++) {
    unsigned char t = p[i];
    p[i] = p[bytes - 1 - i];
    p[bytes - 1 - i] = t;
  }
}

/* One element, in host order, as its tensor holds it. */
static void store(unsigned char *to, pn_element element, const unsigned char *from) {
  int32_t narrow;
  int64_t wide;
  switch (element) {
  case PN_E_BOOL: *to = *from != 0; return;
  case PN_E_I8: narrow = (int8_t)*from; break;
  case PN_E_I16: narrow = (int16_t)pn_le16(from); break;
  case PN_E_U16: narrow = pn_le16(from); break;
  case PN_E_U32:
    wide = pn_le32(from);
    memcpy(to, &wide, sizeof wide);
    return;
  default: memcpy(to, from, (size_t)elements[element].bytes); return;
  }
  memcpy(to, &narrow, sizeof narrow);
}

static void gather(unsigned char *to, const pn_entry *entry, const unsigned char *from, int64_t count) {
  int bytes = elements[entry->element].bytes, step = pn_dtype_bytes(elements[entry->element].dtype);
  int64_t index[PN_MAX_DIMS] = { 0 }, at = 0;
  for (int64_t i = 0; i < count; i++) {
    unsigned char one[8];
    memcpy(one, from + at * bytes, (size_t)bytes);
    if (entry->swap) swap_bytes(one, bytes);
    store(to + i * step, entry->element, one);
    for (int d = entry->n_dims - 1; d >= 0; d--) {
      at += entry->stride[d];
      if (++index[d] < entry->shape[d]) break;
      at -= entry->stride[d] * entry->shape[d];
      index[d] = 0;
    }
  }
}

int pn_archive_load(pn_tensor **out, pn_archive *a, int i) {
  const pn_entry *entry = entry_at(a, i);
  if (!out || !entry) return pn_fail("archive: there is no tensor %d", i);
  if (entry->refusal) return pn_archive_fail(a, "tensor %s %s", entry->name, entry->refusal);
  int64_t extent, count;
  if (!extent_of(entry, &extent, &count)) return pn_archive_fail(a, "tensor %s has an impossible shape", entry->name);
  pn_dtype dtype = elements[entry->element].dtype;
  pn_tensor *t;
  if (pn_tensor_new(&t, dtype, entry->n_dims, entry->shape, PN_ROWS, PN_CPU) != 0) return -1;
  unsigned char *to = pn_tensor_data(t);
  bool rows = entry->element < PN_E_BOOL && extent == count * elements[entry->element].bytes;
  int64_t expected[PN_MAX_DIMS];
  pn_strides_of(entry->n_dims, entry->shape, PN_ROWS, expected);
  for (int d = 0; d < entry->n_dims; d++) rows = rows && (entry->shape[d] == 1 || entry->stride[d] == expected[d]);
  unsigned char *from = to;
  int rc = 0;
  if (count > 0 && !rows) from = pn_alloc((size_t)extent);
  if (!from) rc = -1;
  if (rc == 0 && count > 0) rc = pn_part_read(a, entry->part, entry->begin, from, extent);
  if (rc == 0 && count > 0 && entry->has_crc32c && pn_crc32c(0, from, (size_t)extent) != entry->crc32c)
    rc = pn_archive_fail(a, "tensor %s: its CRC-32C does not match: the data are damaged", entry->name);
  if (rc == 0 && count > 0) {
    if (!rows) gather(to, entry, from, count);
    else if (entry->swap)
      for (int64_t k = 0; k < count; k++) swap_bytes(to + k * pn_dtype_bytes(dtype), pn_dtype_bytes(dtype));
  }
  if (from != to) pn_free(from);
  if (rc != 0) {
    pn_tensor_release(t);
    return -1;
  }
  *out = t;
  return 0;
}
