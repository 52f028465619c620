/* safetensors.c: reading and writing the safetensors format (huggingface/safetensors, README "Format").
**
** u64 length of the header, little endian; the header, a JSON object name -> {dtype, shape, data_offsets}, with an optional
** __metadata__ of strings; then the bytes of the tensors, without holes, in rows order. The rules are those of the reference
** implementation (lib.rs, Metadata::validate), and no key that it does not name is accepted. */
#include <stdlib.h>
#include <string.h>
#include "formats.h"

enum { MAX_HEADER = 100000000 };

/* clang-format off */
static const struct { const char *name; pn_element element; int bits; } dtypes[] = {
  { "F32", PN_E_F32, 32 }, { "F64", PN_E_F64, 64 }, { "F16", PN_E_F16, 16 }, { "BF16", PN_E_BF16, 16 },
  { "I64", PN_E_I64, 64 }, { "I32", PN_E_I32, 32 }, { "U8", PN_E_U8, 8 }, { "BOOL", PN_E_BOOL, 8 },
  { "I8", PN_E_I8, 8 }, { "I16", PN_E_I16, 16 }, { "U16", PN_E_U16, 16 }, { "U32", PN_E_U32, 32 },
  { "U64", PN_E_OTHER, 64 }, { "C64", PN_E_OTHER, 64 }, { "F8_E4M3", PN_E_OTHER, 8 }, { "F8_E5M2", PN_E_OTHER, 8 },
  { "F8_E8M0", PN_E_OTHER, 8 }, { "F6_E2M3", PN_E_OTHER, 6 }, { "F6_E3M2", PN_E_OTHER, 6 }, { "F4", PN_E_OTHER, 4 },
};
/* clang-format on */

/* ---- the JSON of a header: a parser of just this shape, so nothing nests ----------------------------------------- */

typedef struct parser {
  pn_archive *a;
  const unsigned char *start, *p, *end;
  char *text; /* the string read last, unescaped; as long as the header, so it always fits */
  size_t n;
} parser;

static int fail(parser *j, const char *expected) {
  return pn_archive_fail(j->a, "the header is not the JSON it should be: %s expected at byte %lld", expected,
                         (long long)(j->p - j->start) + 8);
}

static void space(parser *j) {
  while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r')) j->p++;
}

static bool take(parser *j, char c) {
  space(j);
  if (j->p >= j->end || *j->p != (unsigned char)c) return false;
  j->p++;
  return true;
}

static int hex4(parser *j, uint32_t *out) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++, j->p++) {
    if (j->p >= j->end) return fail(j, "a hexadecimal digit");
    unsigned char c = *j->p;
    uint32_t digit = c >= '0' && c <= '9'   ? c - '0' + 0u
                     : c >= 'a' && c <= 'f' ? c - 'a' + 10u
                     : c >= 'A' && c <= 'F' ? c - 'A' + 10u
                                            : 16;
    if (digit == 16) return fail(j, "a hexadecimal digit");
    value = value << 4 | digit;
  }
  *out = value;
  return 0;
}

static void put_utf8(parser *j, uint32_t c) {
  if (c < 0x80) j->text[j->n++] = (char)c;
  else {
    if (c < 0x800) j->text[j->n++] = (char)(0xC0 | c >> 6);
    else {
      if (c < 0x10000) j->text[j->n++] = (char)(0xE0 | c >> 12);
      else {
        j->text[j->n++] = (char)(0xF0 | c >> 18);
        j->text[j->n++] = (char)(0x80 | (c >> 12 & 63));
      }
      j->text[j->n++] = (char)(0x80 | (c >> 6 & 63));
    }
    j->text[j->n++] = (char)(0x80 | (c & 63));
  }
}

static int escape(parser *j) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  if (j->p >= j->end) return fail(j, "an escape");
  char c = (char)*j->p++;
  const char *found = c ? strchr(from, c) : NULL;
  if (found) {
    j->text[j->n++] = to[found - from];
    return 0;
  }
  if (c != 'u') return fail(j, "an escape");
  uint32_t high, low;
  if (hex4(j, &high) != 0) return -1;
  if (high >= 0xD800 && high < 0xE000) {
    if (high >= 0xDC00 || j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u') return fail(j, "a surrogate pair");
    j->p += 2;
    if (hex4(j, &low) != 0) return -1;
    if (low < 0xDC00 || low >= 0xE000) return fail(j, "a surrogate pair");
    high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }
  put_utf8(j, high);
  return 0;
}

/* Length of the valid UTF-8 sequence at p (RFC 3629: shortest form, no surrogates), 0 when there is none. */
static size_t utf8(const unsigned char *p, const unsigned char *end) {
  size_t n = *p < 0x80 ? 1 : *p >= 0xC2 && *p < 0xE0 ? 2 : *p >= 0xE0 && *p < 0xF0 ? 3 : *p >= 0xF0 && *p < 0xF5 ? 4 : 0;
  if (n == 0 || n > (size_t)(end - p)) return 0;
  for (size_t i = 1; i < n; i++)
    if ((p[i] & 0xC0) != 0x80) return 0;
  if ((*p == 0xE0 && p[1] < 0xA0) || (*p == 0xED && p[1] > 0x9F) || (*p == 0xF0 && p[1] < 0x90) || (*p == 0xF4 && p[1] > 0x8F))
    return 0;
  return n;
}

static int string(parser *j) {
  j->n = 0;
  if (!take(j, '"')) return fail(j, "a string");
  for (;;) {
    if (j->p >= j->end || *j->p < 0x20) return fail(j, "the end of a string");
    if (*j->p == '"') break;
    if (*j->p == '\\') {
      j->p++;
      if (escape(j) != 0) return -1;
      continue;
    }
    size_t n = utf8(j->p, j->end);
    if (n == 0) return fail(j, "UTF-8");
    memcpy(j->text + j->n, j->p, n);
    j->n += n;
    j->p += n;
  }
  j->p++;
  return 0;
}

static bool is(const parser *j, const char *text) { return j->n == strlen(text) && memcmp(j->text, text, j->n) == 0; }

static int natural(parser *j, int64_t *out) {
  space(j);
  if (j->p < j->end && *j->p == '-')
    return pn_archive_fail(j->a, "a size or an offset is negative (byte %lld)", (long long)(j->p - j->start) + 8);
  const unsigned char *first = j->p;
  int64_t value = 0;
  for (; j->p < j->end && *j->p >= '0' && *j->p <= '9'; j->p++)
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *j->p - '0', &value))
      return pn_archive_fail(j->a, "a size or an offset is too large (byte %lld)", (long long)(first - j->start) + 8);
  if (j->p == first || (*first == '0' && j->p - first > 1)) return fail(j, "a whole number");
  *out = value;
  return 0;
}

/* Numbers between brackets; those past `room` are counted, not kept. */
static int naturals(parser *j, int64_t *values, int room, int *n) {
  *n = 0;
  if (!take(j, '[')) return fail(j, "[");
  if (take(j, ']')) return 0;
  do {
    int64_t value = 0;
    if (natural(j, &value) != 0) return -1;
    if (*n < room) values[*n] = value;
    if (++*n > 1000) return fail(j, "fewer axes");
  } while (take(j, ','));
  return take(j, ']') ? 0 : fail(j, "]");
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static int metadata(parser *j) {
  if (!take(j, '{')) return fail(j, "{");
  if (take(j, '}')) return 0;
  do {
    if (string(j) != 0) return -1;
    char *key = pn_copy_text(j->text, j->n);
    size_t bytes = j->n;
    if (!key) return -1;
    int rc = take(j, ':') ? string(j) : fail(j, ":");
    if (rc == 0) rc = pn_archive_add_metadata(j->a, key, bytes, j->text, j->n);
    pn_free(key);
    if (rc != 0) return -1;
  } while (take(j, ','));
  return take(j, '}') ? 0 : fail(j, "}");
}

/* What comes after the name of a tensor, which stands in `name`. */
static int tensor(parser *j, const char *name, size_t name_bytes, int64_t *size) {
  enum { MANY = 64 };
  int64_t shape[MANY], offsets[2] = { 0 };
  int n_dims = 0, n_offsets, type = -1;
  bool has_shape = false, has_offsets = false;
  if (!take(j, '{')) return fail(j, "{");
  do {
    if (string(j) != 0) return -1;
    bool is_type = is(j, "dtype"), is_shape = is(j, "shape"), is_offsets = is(j, "data_offsets");
    if (!is_type && !is_shape && !is_offsets)
      return pn_archive_fail(j->a, "tensor %s has the unknown key %.*s", name, (int)pn_min64(64, (int64_t)j->n), j->text);
    if ((is_type && type >= 0) || (is_shape && has_shape) || (is_offsets && has_offsets))
      return pn_archive_fail(j->a, "tensor %s has the key %.*s twice", name, (int)j->n, j->text);
    if (!take(j, ':')) return fail(j, ":");
    if (is_type) {
      if (string(j) != 0) return -1;
      for (size_t i = 0; i < PN_LENGTH(dtypes); i++)
        if (is(j, dtypes[i].name)) type = (int)i;
      if (type < 0)
        return pn_archive_fail(j->a, "tensor %s has the unknown element type %.*s", name, (int)pn_min64(64, (int64_t)j->n),
                               j->text);
    } else if (is_shape) {
      if (naturals(j, shape, MANY, &n_dims) != 0) return -1;
      if (n_dims > MANY) return pn_archive_fail(j->a, "tensor %s has %d axes", name, n_dims);
      has_shape = true;
    } else {
      if (naturals(j, offsets, 2, &n_offsets) != 0) return -1;
      if (n_offsets != 2) return pn_archive_fail(j->a, "tensor %s has %d data offsets, not 2", name, n_offsets);
      has_offsets = true;
    }
  } while (take(j, ','));
  if (!take(j, '}')) return fail(j, "}");
  if (type < 0 || !has_shape || !has_offsets)
    return pn_archive_fail(j->a, "tensor %s lacks its %s", name, type < 0 ? "dtype" : !has_shape ? "shape" : "data_offsets");

  int64_t count, bits, bytes = offsets[1] - offsets[0];
  if (!pn_count_of(n_dims, shape, &count) || __builtin_mul_overflow(count, (int64_t)dtypes[type].bits, &bits))
    return pn_archive_fail(j->a, "tensor %s: its shape overflows", name);
  if (bytes < 0)
    return pn_archive_fail(j->a, "tensor %s ends (%lld) before it begins (%lld)", name, (long long)offsets[1],
                           (long long)offsets[0]);
  if (bits % 8 != 0 || bits / 8 != bytes)
    return pn_archive_fail(j->a, "tensor %s: its shape needs %lld bytes, its offsets give %lld", name, (long long)(bits / 8),
                           (long long)bytes);
  pn_entry *entry;
  if (pn_archive_add_entry(j->a, &entry, name, name_bytes, dtypes[type].element, n_dims, shape) != 0) return -1;
  entry->begin = offsets[0];
  if (dtypes[type].element == PN_E_OTHER &&
      pn_archive_refuse(entry, "has the element type %s, which no tensor has", dtypes[type].name) != 0)
    return -1;
  *size = bytes;
  return 0;
}

typedef struct span {
  int64_t begin, end;
  int entry;
} span;

static int compare_spans(const void *x, const void *y) {
  const span *a = x, *b = y;
  if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
  return a->end == b->end ? 0 : a->end < b->end ? -1 : 1;
}

/* The tensors cover the data from first to last byte, each byte once. */
static int check_spans(pn_archive *a, span *spans, int64_t n, int64_t data_bytes) {
  if (n > 1) qsort(spans, (size_t)n, sizeof *spans, compare_spans);
  int64_t at = 0;
  for (int64_t i = 0; i < n; i++) {
    const char *name = a->entries[spans[i].entry].name;
    if (spans[i].end > data_bytes)
      return pn_archive_fail(a, "tensor %s reaches past the end of the file (byte %lld of %lld)", name, (long long)spans[i].end,
                             (long long)data_bytes);
    if (spans[i].begin < at) return pn_archive_fail(a, "tensor %s overlaps another at byte %lld", name, (long long)spans[i].begin);
    if (spans[i].begin > at)
      return pn_archive_fail(a, "there is a hole of %lld bytes before tensor %s", (long long)(spans[i].begin - at), name);
    at = spans[i].end;
  }
  if (at != data_bytes) return pn_archive_fail(a, "%lld bytes follow the last tensor", (long long)(data_bytes - at));
  return 0;
}

static int header(parser *j, span **spans, int64_t *room) {
  if (!take(j, '{')) return fail(j, "{");
  bool has_metadata = false;
  if (!take(j, '}')) {
    do {
      if (string(j) != 0) return -1;
      if (is(j, "__metadata__")) {
        if (has_metadata) return pn_archive_fail(j->a, "the header has __metadata__ twice");
        has_metadata = true;
        if (!take(j, ':')) return fail(j, ":");
        if (metadata(j) != 0) return -1;
        continue;
      }
      size_t bytes = j->n;
      char *name = pn_copy_text(j->text, bytes);
      if (!name) return -1;
      int64_t size = 0, i = j->a->n_entries;
      int rc = take(j, ':') ? tensor(j, name, bytes, &size) : fail(j, ":");
      pn_free(name);
      if (rc == 0) rc = pn_grow(spans, room, i, i + 1, sizeof **spans);
      if (rc != 0) return -1;
      (*spans)[i] = (span){ j->a->entries[i].begin, j->a->entries[i].begin + size, (int)i };
    } while (take(j, ','));
    if (!take(j, '}')) return fail(j, "}");
  }
  space(j);
  return j->p == j->end ? 0 : fail(j, "the end of the header");
}

int pn_read_safetensors(pn_archive *a) {
  a->format = "safetensors";
  unsigned char length[8];
  int64_t file_bytes = a->files[0].bytes;
  if (file_bytes < 8) return pn_archive_fail(a, "the file has %lld bytes, too few for a header", (long long)file_bytes);
  if (pn_disk_read(&a->files[0], 0, length, 8) != 0) return -1;
  uint64_t n = pn_le64(length);
  if (n > MAX_HEADER)
    return pn_archive_fail(a, "the header says it has %llu bytes; at most %d are allowed", (unsigned long long)n, MAX_HEADER);
  if ((int64_t)n > file_bytes - 8)
    return pn_archive_fail(a, "the header reaches past the end of the file (%llu bytes of %lld)", (unsigned long long)n,
                           (long long)file_bytes - 8);
  unsigned char *json = pn_alloc((size_t)n + 1);
  char *text = json ? pn_alloc((size_t)n + 4) : NULL;
  span *spans = NULL;
  int64_t room = 0, data_bytes = file_bytes - 8 - (int64_t)n;
  int rc = text ? pn_disk_read(&a->files[0], 8, json, (size_t)n) : -1;
  if (rc == 0 && (n == 0 || json[0] != '{')) rc = pn_archive_fail(a, "the header does not begin with {");
  if (rc == 0) {
    parser j = { a, json, json, json + n, text, 0 };
    rc = header(&j, &spans, &room);
  }
  if (rc == 0) rc = check_spans(a, spans, a->n_entries, data_bytes);
  if (rc == 0) rc = pn_archive_add_part(a, &(pn_part){ .offset = 8 + (int64_t)n, .bytes = data_bytes }, NULL);
  pn_free(json);
  pn_free(text);
  pn_free(spans);
  return rc;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

typedef struct buffer {
  char *data;
  int64_t n, room;
} buffer;

static int put(buffer *b, const char *text, size_t n) {
  if (pn_grow(&b->data, &b->room, b->n, b->n + (int64_t)n + 1, 1) != 0) return -1;
  memcpy(b->data + b->n, text, n);
  b->n += (int64_t)n;
  return 0;
}

static int put_text(buffer *b, const char *text) { return put(b, text, strlen(text)); }

static int put_string(buffer *b, const char *path, const char *text) {
  const unsigned char *p = (const unsigned char *)text, *end = p + strlen(text);
  if (put(b, "\"", 1) != 0) return -1;
  while (p < end) {
    size_t n = utf8(p, end);
    if (n == 0) return pn_fail("%s: cannot write: a name or a metadata text is not UTF-8", path);
    char code[8];
    int rc;
    if (*p == '"' || *p == '\\') rc = snprintf(code, sizeof code, "\\%c", *p) > 0 ? put(b, code, 2) : -1;
    else if (*p < 0x20) rc = snprintf(code, sizeof code, "\\u%04x", *p) > 0 ? put(b, code, 6) : -1;
    else rc = put(b, (const char *)p, n);
    if (rc != 0) return -1;
    p += n;
  }
  return put(b, "\"", 1);
}

typedef struct item {
  const char *name;
  pn_tensor *tensor;
  int width;
} item;

/* Widest elements first, so that every tensor is aligned; then by name, so that equal contents give equal files. */
static int compare_items(const void *x, const void *y) {
  const item *a = x, *b = y;
  return a->width != b->width ? b->width - a->width : strcmp(a->name, b->name);
}

static int compare_names(const void *x, const void *y) { return strcmp(((const item *)x)->name, ((const item *)y)->name); }

static int compose(buffer *b, const char *path, const item *items, int n, int n_metadata, const char *const *keys,
                   const char *const *values) {
  char text[96];
  if (put_text(b, "{") != 0) return -1;
  if (n_metadata > 0) {
    for (int i = 0; i < n_metadata; i++)
      if (put_text(b, i ? "," : "\"__metadata__\":{") || put_string(b, path, keys[i]) || put_text(b, ":") ||
          put_string(b, path, values[i]))
        return -1;
    if (put_text(b, n > 0 ? "}," : "}") != 0) return -1;
  }
  int64_t at = 0;
  for (int i = 0; i < n; i++) {
    pn_tensor *t = items[i].tensor;
    int64_t bytes = pn_tensor_count(t) * items[i].width;
    if (put_text(b, i ? "," : "") || put_string(b, path, items[i].name) || put_text(b, ":{\"dtype\":\"") ||
        put_text(b, dtypes[pn_tensor_dtype(t)].name) || put_text(b, "\",\"shape\":["))
      return -1;
    for (int d = 0; d < pn_tensor_dims(t); d++) {
      snprintf(text, sizeof text, "%s%lld", d ? "," : "", (long long)pn_tensor_size(t, d));
      if (put_text(b, text) != 0) return -1;
    }
    snprintf(text, sizeof text, "],\"data_offsets\":[%lld,%lld]}", (long long)at, (long long)(at + bytes));
    if (put_text(b, text) != 0) return -1;
    at += bytes;
  }
  if (put_text(b, "}") != 0) return -1;
  while (b->n % 8 != 0)
    if (put_text(b, " ") != 0) return -1;
  return b->n <= MAX_HEADER ? 0
                            : pn_fail("%s: cannot write: the header would have %lld bytes; at most %d are allowed", path,
                                      (long long)b->n, MAX_HEADER);
}

static int write_items(pn_writer *writer, const buffer *b, const item *items, int n) {
  unsigned char length[8];
  for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)b->n >> 8 * i);
  if (pn_writer_write(writer, length, 8) || pn_writer_write(writer, b->data, (size_t)b->n)) return -1;
  for (int i = 0; i < n; i++) {
    pn_tensor *t = items[i].tensor;
    size_t bytes = (size_t)(pn_tensor_count(t) * items[i].width);
    if (bytes == 0) continue;
    if (pn_tensor_device(t) == PN_CPU && pn_tensor_is_dense(t, PN_ROWS)) {
      if (pn_writer_write(writer, pn_tensor_data(t), bytes) != 0) return -1;
      continue;
    }
    void *copy = pn_alloc(bytes);
    if (!copy) return -1;
    int rc = pn_tensor_read(t, copy, bytes);
    if (rc == 0) rc = pn_writer_write(writer, copy, bytes);
    pn_free(copy);
    if (rc != 0) return -1;
  }
  return 0;
}

int pn_safetensors_write(const char *path, int n, const char *const *names, pn_tensor *const *tensors, int n_metadata,
                         const char *const *keys, const char *const *values) {
  if (!path || n < 0 || n_metadata < 0 || (n > 0 && (!names || !tensors)) || (n_metadata > 0 && (!keys || !values)))
    return pn_fail("safetensors: an argument is missing");
  for (int i = 0; i < n_metadata; i++)
    if (!keys[i] || !values[i]) return pn_fail("%s: cannot write: metadata %d is missing", path, i);
  item *items = pn_alloc((size_t)n * sizeof *items);
  if (!items) return -1;
  int rc = 0;
  for (int i = 0; i < n && rc == 0; i++) {
    if (!names[i] || !tensors[i]) rc = pn_fail("%s: cannot write: tensor %d is missing", path, i);
    else if (strcmp(names[i], "__metadata__") == 0) rc = pn_fail("%s: cannot write: no tensor may be named __metadata__", path);
    else items[i] = (item){ names[i], tensors[i], pn_dtype_bytes(pn_tensor_dtype(tensors[i])) };
  }
  if (rc == 0 && n > 1) qsort(items, (size_t)n, sizeof *items, compare_names);
  for (int i = 1; i < n && rc == 0; i++)
    if (strcmp(items[i - 1].name, items[i].name) == 0)
      rc = pn_fail("%s: cannot write: two tensors are named %s", path, items[i].name);
  if (rc == 0 && n > 1) qsort(items, (size_t)n, sizeof *items, compare_items);
  buffer b = { 0 };
  pn_writer writer = { .fd = -1 };
  if (rc == 0) rc = compose(&b, path, items, n, n_metadata, keys, values);
  if (rc == 0) rc = pn_writer_open(&writer, path);
  if (rc == 0) {
    rc = write_items(&writer, &b, items, n);
    if (rc == 0) rc = pn_writer_commit(&writer);
    else pn_writer_abort(&writer);
  }
  pn_free(b.data);
  pn_free(items);
  return rc;
}
