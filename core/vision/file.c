/* file.c: files into memory and back. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "picture.h"

int pn_file_read(uint8_t **data, size_t *bytes, const char *path) {
  if (!path) return pn_fail("read: expected a path, got nothing");
  FILE *f = fopen(path, "rb");
  if (!f) return pn_fail_errno(path, "read");
  struct stat info;
  int rc = fstat(fileno(f), &info);
  if (rc == 0 && S_ISDIR(info.st_mode)) {
    errno = EISDIR;
    rc = -1;
  }
  if (rc != 0) rc = pn_fail_errno(path, "read");
  uint8_t *all = rc == 0 ? pn_alloc((size_t)info.st_size + 1) : NULL;
  if (rc == 0 && !all) rc = -1;
  if (rc == 0) {
    errno = 0;
    size_t got = fread(all, 1, (size_t)info.st_size, f);
    if (ferror(f)) rc = pn_fail_errno(path, "read");
    else *bytes = got;
  }
  fclose(f);
  if (rc == 0) *data = all;
  else pn_free(all);
  return rc;
}

int pn_file_replace(const char *path, const void *data, size_t bytes) {
  static atomic_uint turn;
  size_t length = strlen(path) + 48;
  char *beside = pn_alloc(length);
  if (!beside) return -1;
  snprintf(beside, length, "%s.part-%ld-%u", path, (long)getpid(), atomic_fetch_add(&turn, 1));
  int rc = 0;
  FILE *f = fopen(beside, "wb");
  if (!f) rc = pn_fail_errno(path, "write");
  else {
    bool whole = fwrite(data, 1, bytes, f) == bytes && fflush(f) == 0;
    int why = errno;
    if (fclose(f) != 0 && whole) {
      whole = false;
      why = errno;
    }
    if (whole && rename(beside, path) != 0) {
      whole = false;
      why = errno;
    }
    if (!whole) {
      unlink(beside);
      errno = why;
      rc = pn_fail_errno(path, "write");
    }
  }
  pn_free(beside);
  return rc;
}
