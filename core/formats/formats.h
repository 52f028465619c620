/* formats.h: what the readers and writers of files share. Private to core/formats.
**
** An archive is a list of entries (named tensors) over a list of parts (runs of bytes). A reader, one a format, looks at
** a file and only describes what it finds; the bytes of a tensor are read when it is loaded, by one routine for all
** formats (archive.c). Files are read with pread, never mapped: a file that shrinks meanwhile is an error, not a signal.
**
** Whatever a file says is checked before it is used: sizes in overflow-checked arithmetic, counts against the bytes that
** are there, depth and number of objects against fixed limits.
*/
#ifndef PENUMBRA_FORMATS_H
#define PENUMBRA_FORMATS_H
#include "internal.h"

/* ---- files (file.c) ---------------------------------------------------------------------------------------------- */
typedef struct pn_disk_file {
  int fd; /* -1 when closed */
  int64_t bytes;
  const char *path; /* owned by the archive */
} pn_disk_file;

PN_CHECKED int pn_disk_open(pn_disk_file *out, const char *path); /* regular files only */
void pn_disk_close(pn_disk_file *file);
PN_CHECKED int pn_disk_read(const pn_disk_file *file, int64_t offset, void *buffer, size_t bytes); /* all of them, or it fails */

/* A file being written beside its final place; it appears there whole, or not at all. */
typedef struct pn_writer {
  int fd;
  char *path, *temporary;
} pn_writer;

PN_CHECKED int pn_writer_open(pn_writer *out, const char *path);
PN_CHECKED int pn_writer_write(pn_writer *writer, const void *data, size_t bytes);
PN_CHECKED int pn_writer_commit(pn_writer *writer); /* to disk, then to its name; frees the writer, also when it fails */
void pn_writer_abort(pn_writer *writer);            /* frees the writer; keeps pn_error */

/* ---- small helpers (file.c) -------------------------------------------------------------------------------------- */
/* Makes room for `need` elements of `each` bytes in the array at *data, which holds `used`. */
PN_CHECKED int pn_grow(void *data, int64_t *capacity, int64_t used, int64_t need, size_t each);
char *pn_copy_text(const char *text, size_t bytes); /* NUL-terminated copy; NULL with pn_error set */

static inline uint16_t pn_le16(const unsigned char *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t pn_le32(const unsigned char *p) { return (uint32_t)pn_le16(p) | (uint32_t)pn_le16(p + 2) << 16; }
static inline uint64_t pn_le64(const unsigned char *p) { return (uint64_t)pn_le32(p) | (uint64_t)pn_le32(p + 4) << 32; }

/* ---- archives (archive.c) ---------------------------------------------------------------------------------------- */

/* Element types of files. The first are those of tensors, in their order; BOOL..U32 widen when loaded; OTHER is listed but
** not loaded. */
typedef enum pn_element {
  PN_E_F32,
  PN_E_F64,
  PN_E_F16,
  PN_E_BF16,
  PN_E_I64,
  PN_E_I32,
  PN_E_U8,
  PN_E_BOOL,
  PN_E_I8,
  PN_E_I16,
  PN_E_U16,
  PN_E_U32,
  PN_E_OTHER
} pn_element;
int pn_element_bytes(pn_element element); /* 0 for OTHER */

/* A run of bytes: of a file, stored or deflated, or of memory. */
typedef struct pn_part {
  int file;              /* index into files; -1: memory */
  int64_t offset, bytes; /* bytes as they are when unpacked */
  bool deflated, checked, has_crc;
  int64_t packed_bytes;
  uint32_t crc;          /* CRC-32 of a zip member */
  unsigned char *memory; /* owned */
  char *name;            /* of the zip member, for messages; owned */
} pn_part;

typedef struct pn_entry {
  char *name;
  pn_element element;
  int n_dims;
  int64_t shape[PN_MAX_DIMS], stride[PN_MAX_DIMS]; /* elements */
  bool swap;                                       /* big endian */
  int part;
  int64_t begin; /* byte of element 0 in its part */
  char *refusal; /* why it cannot be loaded, NULL when it can */
  bool has_crc32c;
  uint32_t crc32c; /* of its bytes, as a TensorFlow bundle says */
} pn_entry;

struct pn_archive {
  char *path;
  const char *format;
  pn_disk_file *files;
  char **file_paths;
  pn_part *parts;
  pn_entry *entries;
  char **keys, **values; /* metadata */
  int64_t n_files, n_parts, n_entries, n_metadata;
  int64_t room_files, room_paths, room_parts, room_entries, room_keys, room_values;
  int *order; /* entries sorted by name, for look-ups */
};

PN_CHECKED int pn_archive_add_file(pn_archive *a, const char *path, int *index);
PN_CHECKED int pn_archive_add_part(pn_archive *a, const pn_part *part, int *index); /* takes memory and name */
/* A new entry: contiguous, in part 0 from byte 0, until the caller says otherwise; valid until the next one is added. Sets a
** refusal when there are too many axes (shape may then be longer than PN_MAX_DIMS). */
PN_CHECKED int pn_archive_add_entry(pn_archive *a, pn_entry **out, const char *name, size_t name_bytes, pn_element element,
                                    int n_dims, const int64_t *shape);
PN_CHECKED int pn_archive_refuse(pn_entry *entry, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Fails unless the entry's elements lie within byte 0..limit of its part. */
PN_CHECKED int pn_archive_check_entry(const pn_archive *a, const pn_entry *entry, int64_t limit);
PN_CHECKED int pn_archive_add_metadata(pn_archive *a, const char *key, size_t key_bytes, const char *value, size_t value_bytes);
PN_CHECKED int pn_archive_fail(const pn_archive *a, const char *format, ...)
    __attribute__((format(printf, 2, 3)));            /* "path: format: ..." */
PN_CHECKED int pn_archive_check_names(pn_archive *a); /* after the last entry: sorts them; fails where two are named alike */
PN_CHECKED int pn_part_read(pn_archive *a, int part, int64_t begin, void *buffer, int64_t bytes);

/* Product of the sizes; false when it does not fit, or a size is negative. */
bool pn_count_of(int n_dims, const int64_t *shape, int64_t *count);

/* ---- readers: each fills an archive whose file 0 is open --------------------------------------------------------- */
PN_CHECKED int pn_read_safetensors(pn_archive *a);
PN_CHECKED int pn_read_npy(pn_archive *a);
PN_CHECKED int pn_read_zip(pn_archive *a); /* npz, or a PyTorch file */
PN_CHECKED int pn_read_npz(pn_archive *a); /* its members are parts by now */
PN_CHECKED int pn_read_torch_zip(pn_archive *a, int pickle_part);
PN_CHECKED int pn_read_pickle(pn_archive *a); /* nested dictionaries of NumPy arrays, or PyTorch before 1.6 */
PN_CHECKED int pn_read_bundle(pn_archive *a);
PN_CHECKED int pn_npy_entry(pn_archive *a, int part, const char *name, size_t name_bytes);
/* The element type of a NumPy type string such as "<f4"; swap: it is big endian. */
pn_element pn_numpy_element(const char *text, size_t bytes, bool *swap);

#endif
