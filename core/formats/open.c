/* open.c: which format a file has, by its content, never by its extension; the extension only chooses which error is told when the content
** is of no known kind. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "formats.h"

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && memcmp(text + n - m, end, m) == 0;
}

static int recognise(pn_archive *a) {
  static const unsigned char leveldb[8] = { 0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb };
  pn_disk_file *file = &a->files[0];
  unsigned char head[9] = { 0 }, tail[8] = { 0 };
  if (pn_disk_read(file, 0, head, (size_t)pn_min64(file->bytes, 9)) != 0) return -1;
  if (file->bytes >= 8 && pn_disk_read(file, file->bytes - 8, tail, 8) != 0) return -1;
  if (memcmp(head, "\x93NUMPY", 6) == 0) return pn_read_npy(a);
  if (memcmp(head, "PK\3\4", 4) == 0 || memcmp(head, "PK\5\6", 4) == 0) return pn_read_zip(a);
  if (head[8] == '{' && pn_le64(head) <= (uint64_t)file->bytes) return pn_read_safetensors(a);
  if (file->bytes >= 48 && memcmp(tail, leveldb, 8) == 0) return pn_read_bundle(a);
  if (head[0] == 0x80 && head[1] >= 2 && head[1] <= 5) return pn_read_pickle(a);
  if (ends_with(a->path, ".safetensors")) return pn_read_safetensors(a);
  if (strstr(a->path, ".data-0")) return pn_fail("%s: is the data of a TensorFlow bundle: name its .index file", a->path);
  if (file->bytes == 0) return pn_fail("%s: is empty", a->path);
  return pn_fail("%s: is no file of tensors (safetensors, npy, npz, PyTorch, pickled NumPy arrays or TensorFlow .index)", a->path);
}

int pn_archive_open(pn_archive **out, const char *path) {
  if (!out || !path) return pn_fail("archive: path or result is missing");
  pn_archive *a = pn_alloc_zero(sizeof *a);
  if (!a) return -1;
  a->format = "file";
  struct stat info;
  size_t n = strlen(path);
  char *index_path = pn_alloc(n + 8);
  int rc = index_path ? 0 : -1, file;
  if (rc == 0) {
    snprintf(index_path, n + 8, "%s.index", path);
    bool prefix = stat(path, &info) != 0 && errno == ENOENT && stat(index_path, &info) == 0; /* how TensorFlow names a bundle */
    a->path = pn_copy_text(prefix ? index_path : path, prefix ? n + 6 : n);
    rc = a->path ? pn_archive_add_file(a, a->path, &file) : -1;
  }
  pn_free(index_path);
  if (rc == 0) rc = recognise(a);
  if (rc == 0) rc = pn_archive_check_names(a);
  if (rc != 0) {
    pn_archive_close(a);
    return -1;
  }
  *out = a;
  return 0;
}
