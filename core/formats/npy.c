/* npy.c: NumPy's array files (numpy/lib/format.py: versions 1.0 to 3.0), alone or as the members of an npz. */
#include <stdlib.h>
#include <string.h>
#include "formats.h"

pn_element pn_numpy_element(const char *text, size_t bytes, bool *swap) {
  /* clang-format off */
  static const struct { const char *name; pn_element element; } types[] = {
    { "f4", PN_E_F32 }, { "f8", PN_E_F64 }, { "f2", PN_E_F16 }, { "i8", PN_E_I64 }, { "i4", PN_E_I32 }, { "u1", PN_E_U8 },
    { "b1", PN_E_BOOL }, { "i1", PN_E_I8 }, { "i2", PN_E_I16 }, { "u2", PN_E_U16 }, { "u4", PN_E_U32 }, { "?", PN_E_BOOL },
  };
  /* clang-format on */
  *swap = false;
  if (bytes > 0 && strchr("<>=|", *text) && *text) {
    *swap = *text == '>';
    text++;
    bytes--;
  }
  for (size_t i = 0; i < PN_LENGTH(types); i++)
    if (bytes == strlen(types[i].name) && memcmp(text, types[i].name, bytes) == 0) return types[i].element;
  return PN_E_OTHER;
}

/* ---- the header: a Python dictionary of three known keys --------------------------------------------------------- */

typedef struct parser {
  const char *p, *end;
} parser;

static void space(parser *j) {
  while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\r' || *j->p == '\n')) j->p++;
}

static bool take(parser *j, char c) {
  space(j);
  if (j->p >= j->end || *j->p != c) return false;
  j->p++;
  return true;
}

static bool word(parser *j, const char *text) {
  size_t n = strlen(text);
  if ((size_t)(j->end - j->p) < n || memcmp(j->p, text, n) != 0) return false;
  j->p += n;
  return true;
}

static bool string(parser *j, const char **text, size_t *n) {
  char quote = '\'';
  if (!take(j, quote)) {
    quote = '"';
    if (!take(j, quote)) return false;
  }
  *text = j->p;
  while (j->p < j->end && *j->p != quote && *j->p != '\\') j->p++;
  if (j->p >= j->end || *j->p != quote) return false;
  *n = (size_t)(j->p++ - *text);
  return true;
}

enum { MANY = 64 };

static bool tuple(parser *j, int64_t *shape, int *n_dims) {
  *n_dims = 0;
  if (!take(j, '(')) return false;
  while (!take(j, ')')) {
    int64_t value = 0;
    space(j);
    const char *first = j->p;
    for (; j->p < j->end && *j->p >= '0' && *j->p <= '9'; j->p++)
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *j->p - '0', &value)) return false;
    if (j->p == first || *n_dims == MANY) return false;
    shape[(*n_dims)++] = value;
    if (j->p < j->end && *j->p == 'L') j->p++; /* Python 2 wrote long integers so */
    if (!take(j, ',')) return take(j, ')');
  }
  return true;
}

static int header(pn_archive *a, const char *text, size_t bytes, int part, int64_t begin, const char *name, size_t name_bytes) {
  parser j = { text, text + bytes };
  const char *type = NULL, *key;
  size_t type_bytes = 0, n;
  int64_t shape[MANY];
  int n_dims = -1, fortran = -1;
  bool good = take(&j, '{');
  while (good && !take(&j, '}')) {
    good = string(&j, &key, &n) && take(&j, ':');
    if (!good) break;
    space(&j);
    if (n == 5 && memcmp(key, "descr", 5) == 0) {
      if (j.p < j.end && *j.p == '[') return pn_archive_fail(a, "%.*s holds records, not numbers", (int)name_bytes, name);
      good = string(&j, &type, &type_bytes);
    } else if (n == 13 && memcmp(key, "fortran_order", 13) == 0) {
      fortran = word(&j, "True") ? 1 : word(&j, "False") ? 0 : -1;
      good = fortran >= 0;
    } else if (n == 5 && memcmp(key, "shape", 5) == 0) good = tuple(&j, shape, &n_dims);
    else good = false;
    if (good && !take(&j, ',')) {
      good = take(&j, '}');
      break;
    }
  }
  if (!good || !type || fortran < 0 || n_dims < 0)
    return pn_archive_fail(a, "the header of %.*s is not one that NumPy writes", (int)name_bytes, name);
  bool swap;
  pn_element element = pn_numpy_element(type, type_bytes, &swap);
  pn_entry *entry;
  if (pn_archive_add_entry(a, &entry, name, name_bytes, element, n_dims, shape) != 0) return -1;
  entry->part = part;
  entry->begin = begin;
  entry->swap = swap;
  if (element == PN_E_OTHER)
    return pn_archive_refuse(entry, "has the element type %.*s, which no tensor has", (int)pn_min64(32, (int64_t)type_bytes), type);
  if (fortran && !entry->refusal) {
    int64_t step = 1;
    for (int d = 0; d < n_dims; d++) {
      entry->stride[d] = step;
      step *= pn_max64(shape[d], 1);
    }
  }
  return pn_archive_check_entry(a, entry, a->parts[part].bytes);
}

int pn_npy_entry(pn_archive *a, int part, const char *name, size_t name_bytes) {
  enum { FIRST = 4096, MAX_HEADER = 1 << 20 };
  int64_t bytes = a->parts[part].bytes, have = pn_min64(bytes, FIRST);
  char *head = pn_alloc(FIRST);
  if (!head) return -1;
  int rc = pn_part_read(a, part, 0, head, have);
  const unsigned char *u = (const unsigned char *)head;
  int version = have >= 12 && memcmp(head, "\x93NUMPY", 6) == 0 ? u[6] : 0;
  int64_t begin = version == 1 ? 10 : 12, n = version == 0 ? 0 : version == 1 ? pn_le16(u + 8) : (int64_t)pn_le32(u + 8);
  if (rc == 0 && (version < 1 || version > 3))
    rc = pn_archive_fail(a, "%.*s is not an npy file of version 1, 2 or 3", (int)name_bytes, name);
  else if (rc == 0 && (n > MAX_HEADER || begin + n > bytes))
    rc = pn_archive_fail(a, "the header of %.*s reaches past its end (%lld bytes of %lld)", (int)name_bytes, name,
                         (long long)(begin + n), (long long)bytes);
  if (rc == 0 && begin + n > have) {
    pn_free(head);
    head = pn_alloc((size_t)(begin + n));
    rc = head ? pn_part_read(a, part, 0, head, begin + n) : -1;
  }
  if (rc == 0) rc = header(a, head + begin, (size_t)n, part, begin + n, name, name_bytes);
  pn_free(head);
  return rc;
}

int pn_read_npy(pn_archive *a) {
  a->format = "npy";
  if (pn_archive_add_part(a, &(pn_part){ .bytes = a->files[0].bytes }, NULL) != 0) return -1;
  return pn_npy_entry(a, 0, "data", 4);
}

int pn_read_npz(pn_archive *a) {
  a->format = "npz";
  for (int64_t i = 0; i < a->n_parts; i++) {
    const char *name = a->parts[i].name;
    size_t n = strlen(name);
    if (n > 4 && memcmp(name + n - 4, ".npy", 4) == 0) n -= 4;
    if (pn_npy_entry(a, (int)i, name, n) != 0) return -1;
  }
  return 0;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

int pn_npy_write(const char *path, pn_tensor *t) {
  static const char *const types[PN_N_DTYPES] = {
    [PN_F32] = "<f4", [PN_F64] = "<f8", [PN_F16] = "<f2", [PN_I64] = "<i8", [PN_I32] = "<i4", [PN_U8] = "|u1"
  };
  if (!path || !t) return pn_fail("npy: path or tensor is missing");
  const char *type = types[pn_tensor_dtype(t)];
  if (!type) return pn_fail("%s: cannot write: NumPy has no %s", path, pn_dtype_name(pn_tensor_dtype(t)));
  char shape[PN_MAX_DIMS * 22 + 4] = "";
  size_t used = 0;
  int n_dims = pn_tensor_dims(t);
  for (int d = 0; d < n_dims; d++)
    used += (size_t)snprintf(shape + used, sizeof shape - used, "%lld%s", (long long)pn_tensor_size(t, d),
                             n_dims == 1      ? ","
                             : d + 1 < n_dims ? ", "
                                              : "");
  unsigned char head[512] = "\x93NUMPY\1";
  size_t n = 10 + (size_t)snprintf((char *)head + 10, sizeof head - 80, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                                   type, shape);
  do head[n++] = ' ';
  while ((n + 1) % 64 != 0);
  head[n++] = '\n';
  head[8] = (unsigned char)(n - 10);
  head[9] = (unsigned char)((n - 10) >> 8);
  size_t bytes = (size_t)pn_tensor_count(t) * (size_t)pn_dtype_bytes(pn_tensor_dtype(t));
  void *data = pn_alloc(bytes);
  if (!data) return -1;
  pn_writer writer;
  int rc = bytes > 0 ? pn_tensor_read(t, data, bytes) : 0;
  if (rc == 0) rc = pn_writer_open(&writer, path);
  if (rc == 0) {
    rc = pn_writer_write(&writer, head, n);
    if (rc == 0) rc = pn_writer_write(&writer, data, bytes);
    if (rc == 0) rc = pn_writer_commit(&writer);
    else pn_writer_abort(&writer);
  }
  pn_free(data);
  return rc;
}
