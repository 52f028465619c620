/* file.c: files into memory and back. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "picture.h"

FILE *pn_file_open(const char *path, size_t *bytes) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO does not wait for its writer */
  struct stat info;
  bool there = fd >= 0 && fstat(fd, &info) == 0;
  if (there && S_ISDIR(info.st_mode)) errno = EISDIR;
  FILE *f = there && S_ISREG(info.st_mode) ? fdopen(fd, "rb") : NULL;
  if (f) {
    *bytes = (size_t)info.st_size;
    return f;
  }
  if (there && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) pn_fail("%s: is a device or pipe, not a file", path);
  else pn_fail_errno(path, "read");
  if (fd >= 0) close(fd);
  return NULL;
}

int pn_file_read(uint8_t **data, size_t *bytes, const char *path) {
  if (!path) return pn_fail("read: expected a path, got nothing");
  size_t size;
  FILE *f = pn_file_open(path, &size);
  if (!f) return -1;
  int rc = 0;
  uint8_t *all = pn_alloc(size + 1);
  if (!all) rc = -1;
  if (rc == 0) {
    errno = 0;
    size_t got = fread(all, 1, size, f);
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
