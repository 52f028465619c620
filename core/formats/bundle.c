/* bundle.c: TensorFlow's checkpoint bundle: PREFIX.index, a LevelDB table of protocol buffers, and PREFIX.data-xxxxx-of-yyyyy.
**
** Sources: tensorflow/core/util/tensor_bundle/tensor_bundle.cc, tensorflow/core/protobuf/tensor_bundle.proto,
** leveldb/doc/table_format.md. Every block and every tensor has a masked CRC-32C, and both are checked. */
#include <stdlib.h>
#include <string.h>
#include "formats.h"

enum { MAX_KEY = 1 << 16 };

typedef struct bytes {
  const unsigned char *p, *end;
} bytes;

static bool varint(bytes *b, uint64_t *out) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (b->p >= b->end) return false;
    unsigned char c = *b->p++;
    value |= (uint64_t)(c & 127) << shift;
    if (c < 128) {
      *out = value;
      return true;
    }
  }
  return false;
}

static uint32_t unmask(uint32_t masked) {
  uint32_t rotated = masked - 0xa282ead8u;
  return rotated >> 17 | rotated << 15;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

typedef struct block {
  unsigned char *data;
  int64_t n;          /* of its entries, without the restart points */
  int64_t begin, end; /* where it stands in the file */
} block;

static int read_block(const pn_archive *a, bytes *handle, block *out) {
  enum { TRAILER = 5 }; /* the kind of compression, the checksum */
  uint64_t offset, size;
  int64_t file_bytes = a->files[0].bytes;
  if (!varint(handle, &offset) || !varint(handle, &size) || offset > (uint64_t)file_bytes || size > (uint64_t)file_bytes ||
      (int64_t)(offset + size) > file_bytes - TRAILER || size < 4)
    return pn_archive_fail(a, "a block of the index lies outside the file");
  unsigned char *data = pn_alloc((size_t)size + TRAILER);
  if (!data) return -1;
  int rc = pn_disk_read(&a->files[0], (int64_t)offset, data, (size_t)size + TRAILER);
  if (rc == 0 && unmask(pn_le32(data + size + 1)) != pn_crc32c(0, data, (size_t)size + 1))
    rc = pn_archive_fail(a, "the CRC-32C of a block of the index does not match: the file is damaged");
  if (rc == 0 && data[size] != 0)
    rc = pn_archive_fail(a, "the index is compressed (kind %d); TensorFlow writes it plain", data[size]);
  uint64_t n_restarts = rc == 0 ? pn_le32(data + size - 4) : 0;
  if (rc == 0 && n_restarts > (size - 4) / 4) rc = pn_archive_fail(a, "a block of the index is damaged");
  if (rc != 0) {
    pn_free(data);
    return -1;
  }
  *out = (block){ data, (int64_t)(size - 4 - 4 * n_restarts), (int64_t)offset, (int64_t)(offset + size) };
  return 0;
}

typedef int visitor(pn_archive *a, void *context, const unsigned char *key, size_t key_bytes, bytes value);

/* Calls visit for each key and value of a block; keys are stored as what differs from the one before. */
static int each(pn_archive *a, const block *b, visitor *visit, void *context) {
  unsigned char *key = pn_alloc(MAX_KEY);
  if (!key) return -1;
  uint64_t key_bytes = 0, shared, rest, value_bytes;
  bytes at = { b->data, b->data + b->n };
  int rc = 0;
  while (rc == 0 && at.p < at.end) {
    bool good = varint(&at, &shared) && varint(&at, &rest) && varint(&at, &value_bytes);
    good = good && shared <= key_bytes && rest <= MAX_KEY - shared && rest <= (uint64_t)(at.end - at.p) &&
           value_bytes <= (uint64_t)(at.end - at.p) - rest;
    if (!good) {
      rc = pn_archive_fail(a, "an entry of the index is damaged");
      break;
    }
    memcpy(key + shared, at.p, (size_t)rest);
    key_bytes = shared + rest;
    at.p += rest;
    rc = visit(a, context, key, (size_t)key_bytes, (bytes){ at.p, at.p + value_bytes });
    at.p += value_bytes;
  }
  pn_free(key);
  return rc;
}

/* ---- protocol buffers -------------------------------------------------------------------------------------------- */

typedef struct field {
  uint64_t number, value;
  bytes text;
} field; /* value of a number, text of a message */

static bool next_field(bytes *b, field *f) {
  uint64_t tag, n;
  if (!varint(b, &tag)) return false;
  *f = (field){ .number = tag >> 3 };
  switch (tag & 7) {
  case 0: return varint(b, &f->value);
  case 1:
    if (b->end - b->p < 8) return false;
    f->value = pn_le64(b->p);
    b->p += 8;
    return true;
  case 2:
    if (!varint(b, &n) || n > (uint64_t)(b->end - b->p)) return false;
    f->text = (bytes){ b->p, b->p + n };
    b->p += n;
    return true;
  case 5:
    if (b->end - b->p < 4) return false;
    f->value = pn_le32(b->p);
    b->p += 4;
    return true;
  default: return false;
  }
}

/* tensorflow/core/framework/types.proto */
static pn_element element_of(uint64_t type) {
  static const pn_element elements[] = {
    [1] = PN_E_F32, [2] = PN_E_F64,   [3] = PN_E_I32,   [4] = PN_E_U8,   [5] = PN_E_I16,  [6] = PN_E_I8,
    [9] = PN_E_I64, [10] = PN_E_BOOL, [14] = PN_E_BF16, [17] = PN_E_U16, [19] = PN_E_F16, [22] = PN_E_U32
  };
  return type < PN_LENGTH(elements) && (elements[type] != PN_E_F32 || type == 1) ? elements[type] : PN_E_OTHER;
}

enum { MANY = 64, STRING = 7 };

static bool shape_of(bytes b, int64_t *shape, int *n_dims) {
  field f, g;
  while (b.p < b.end) {
    if (!next_field(&b, &f)) return false;
    if (f.number == 3 && f.value != 0) return false; /* unknown rank */
    if (f.number != 2) continue;
    if (*n_dims == MANY) return false;
    int64_t size = 0;
    while (f.text.p < f.text.end) {
      if (!next_field(&f.text, &g)) return false;
      if (g.number == 1) size = (int64_t)g.value;
    }
    shape[(*n_dims)++] = size;
  }
  return true;
}

typedef struct state {
  uint64_t n_shards;
  bool has_header;
  int64_t at; /* the end of the block before: they follow one another in the file, so none is met twice */
  size_t last_bytes;
  unsigned char last[MAX_KEY]; /* the key before: keys ascend */
} state;

static int read_header(pn_archive *a, state *s, bytes value) {
  field f;
  s->has_header = true;
  s->n_shards = 0;
  while (value.p < value.end) {
    if (!next_field(&value, &f)) return pn_archive_fail(a, "the header of the bundle is damaged");
    if (f.number == 1) s->n_shards = f.value;
    if (f.number == 2 && f.value != 0) return pn_archive_fail(a, "a big-endian bundle is not read");
  }
  if (s->n_shards < 1 || s->n_shards > 99999)
    return pn_archive_fail(a, "the bundle says it has %llu data files", (unsigned long long)s->n_shards);
  return 0;
}

static int read_entry(pn_archive *a, void *context, const unsigned char *key, size_t key_bytes, bytes value) {
  state *s = context;
  if (key_bytes == 0) return s->has_header ? pn_archive_fail(a, "the bundle has two headers") : read_header(a, s, value);
  int order = memcmp(s->last, key, s->last_bytes < key_bytes ? s->last_bytes : key_bytes);
  if (order > 0 || (order == 0 && s->last_bytes >= key_bytes)) return pn_archive_fail(a, "the names in the index are not in order");
  memcpy(s->last, key, key_bytes);
  s->last_bytes = key_bytes;
  if (!s->has_header) return pn_archive_fail(a, "the header of the bundle is missing");
  int n_dims = 0, shown = (int)pn_min64(200, (int64_t)key_bytes);
  const char *name = (const char *)key;
  int64_t shape[MANY], count = 0;
  uint64_t type = 0, shard = 0, offset = 0, size = 0, crc = 0;
  bool has_crc = false, sliced = false;
  field f;
  while (value.p < value.end) {
    if (!next_field(&value, &f)) return pn_archive_fail(a, "the entry of %.*s is damaged", shown, name);
    switch (f.number) {
    case 1: type = f.value; break;
    case 2:
      if (!shape_of(f.text, shape, &n_dims)) return pn_archive_fail(a, "the shape of %.*s is damaged", shown, name);
      break;
    case 3: shard = f.value; break;
    case 4: offset = f.value; break;
    case 5: size = f.value; break;
    case 6:
      crc = f.value;
      has_crc = true;
      break;
    case 7: sliced = true; break;
    default: break;
    }
  }
  if (type == STRING) return 0; /* the graph of objects of TensorFlow 2: text, not a tensor */
  if (shard >= s->n_shards)
    return pn_archive_fail(a, "%.*s stands in data file %llu of %llu", shown, name, (unsigned long long)shard,
                           (unsigned long long)s->n_shards);
  pn_element element = element_of(type);
  pn_entry *entry;
  if (pn_archive_add_entry(a, &entry, name, key_bytes, element, n_dims, shape) != 0) return -1;
  entry->part = (int)shard;
  entry->begin = (int64_t)(offset & INT64_MAX); /* checked below */
  entry->has_crc32c = has_crc;
  entry->crc32c = unmask((uint32_t)crc);
  if (element == PN_E_OTHER)
    return pn_archive_refuse(entry, "has the TensorFlow element type %llu, which no tensor has", (unsigned long long)type);
  if (sliced) return pn_archive_refuse(entry, "is stored in slices, which are not read");
  if (entry->refusal) return 0;
  if (!pn_count_of(n_dims, shape, &count) || (uint64_t)count * (uint64_t)pn_element_bytes(element) != size || offset > INT64_MAX)
    return pn_archive_fail(a, "tensor %s: its shape needs %lld bytes, its entry says %llu", entry->name,
                           (long long)count * pn_element_bytes(element), (unsigned long long)size);
  return 0;
}

static int read_data_block(pn_archive *a, void *context, const unsigned char *key, size_t key_bytes, bytes value) {
  (void)key;
  (void)key_bytes;
  block b;
  state *s = context;
  if (read_block(a, &value, &b) != 0) return -1;
  int rc = b.begin < s->at ? pn_archive_fail(a, "the blocks of the index are not in order") : 0;
  s->at = b.end;
  if (rc == 0) rc = each(a, &b, read_entry, s);
  pn_free(b.data);
  return rc;
}

/* The data files become parts 0..n-1. An index without its data can be listed; loading from it fails. */
static int open_shards(pn_archive *a, uint64_t n_shards) {
  size_t n = strlen(a->path), prefix = n > 6 && strcmp(a->path + n - 6, ".index") == 0 ? n - 6 : n;
  char *path = pn_alloc(n + 40);
  if (!path) return -1;
  int rc = 0, n_open = 0;
  for (; rc == 0 && n_open < (int)n_shards; n_open++) {
    int file;
    snprintf(path, n + 40, "%.*s.data-%05d-of-%05d", (int)prefix, a->path, n_open, (int)n_shards);
    if (pn_archive_add_file(a, path, &file) != 0) break;
    rc = pn_archive_add_part(a, &(pn_part){ .file = file, .bytes = a->files[file].bytes }, NULL);
  }
  pn_free(path);
  for (int64_t i = 0; i < a->n_entries && rc == 0; i++) {
    pn_entry *entry = &a->entries[i];
    rc = entry->part >= n_open ? pn_archive_refuse(entry, "cannot be read: %s", pn_error())
                               : pn_archive_check_entry(a, entry, a->parts[entry->part].bytes);
  }
  return rc;
}

int pn_read_bundle(pn_archive *a) {
  enum { FOOTER = 48 };
  a->format = "tensorflow bundle";
  unsigned char footer[FOOTER];
  if (pn_disk_read(&a->files[0], a->files[0].bytes - FOOTER, footer, FOOTER) != 0) return -1;
  bytes at = { footer, footer + FOOTER - 8 };
  uint64_t skip;
  block index;
  if (!varint(&at, &skip) || !varint(&at, &skip)) return pn_archive_fail(a, "the footer of the index is damaged");
  if (read_block(a, &at, &index) != 0) return -1;
  state s = { 0 };
  int rc = each(a, &index, read_data_block, &s);
  pn_free(index.data);
  if (rc == 0 && !s.has_header) rc = pn_archive_fail(a, "the header of the bundle is missing");
  return rc == 0 ? open_shards(a, s.n_shards) : -1;
}
