/* file.c: files read at given offsets, and files that appear whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "formats.h"

int pn_disk_open(pn_disk_file *out, const char *path) {
  /* O_NONBLOCK: opening a FIFO must not wait for its writer; it makes no difference to regular files. */
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return pn_fail_errno(path, "open");
  struct stat info;
  if (fstat(fd, &info) != 0) {
    pn_fail_errno(path, "look at");
    close(fd);
    return -1;
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    return pn_fail("%s: is %s, not a file", path, S_ISDIR(info.st_mode) ? "a directory" : "a device or pipe");
  }
  *out = (pn_disk_file){ .fd = fd, .bytes = info.st_size, .path = path };
  return 0;
}

void pn_disk_close(pn_disk_file *file) {
  if (file->fd >= 0) close(file->fd);
  file->fd = -1;
}

int pn_disk_read(const pn_disk_file *file, int64_t offset, void *buffer, size_t bytes) {
  char *to = buffer;
  while (bytes > 0) {
    ssize_t n = pread(file->fd, to, bytes < (1u << 30) ? bytes : 1u << 30, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return pn_fail_errno(file->path, "read");
    if (n == 0) return pn_fail("%s: ends at byte %lld, %zu bytes too soon", file->path, (long long)offset, bytes);
    to += n;
    offset += n;
    bytes -= (size_t)n;
  }
  return 0;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void writer_free(pn_writer *writer) {
  if (writer->fd >= 0) close(writer->fd);
  pn_free(writer->path);
  pn_free(writer->temporary);
  *writer = (pn_writer){ .fd = -1 };
}

void pn_writer_abort(pn_writer *writer) {
  if (writer->temporary) unlink(writer->temporary);
  writer_free(writer);
}

int pn_writer_open(pn_writer *out, const char *path) {
  if (!path || !*path) return pn_fail("cannot write: the path is empty");
  pn_writer writer = { .fd = -1 };
  struct stat info;
  char resolved[PATH_MAX];
  const char *target = path;
  if (stat(path, &info) == 0) {
    if (!S_ISREG(info.st_mode))
      return pn_fail("%s: cannot write: it is %s", path, S_ISDIR(info.st_mode) ? "a directory" : "not a regular file");
    if (access(path, W_OK) != 0) return pn_fail_errno(path, "write");
    if (realpath(path, resolved)) target = resolved; /* what a link points at is replaced, not the link */
  }
  static atomic_int serial;
  size_t bytes = strlen(target) + 48;
  writer.path = pn_copy_text(target, strlen(target));
  writer.temporary = pn_alloc(bytes);
  if (!writer.path || !writer.temporary) {
    writer_free(&writer);
    return -1;
  }
  snprintf(writer.temporary, bytes, "%s.%ld-%d.tmp", target, (long)getpid(), atomic_fetch_add(&serial, 1));
  writer.fd = open(writer.temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (writer.fd < 0) {
    pn_fail_errno(path, "write");
    writer_free(&writer);
    return -1;
  }
  *out = writer;
  return 0;
}

int pn_writer_write(pn_writer *writer, const void *data, size_t bytes) {
  const char *from = data;
  while (bytes > 0) {
    ssize_t n = write(writer->fd, from, bytes < (1u << 30) ? bytes : 1u << 30);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return pn_fail_errno(writer->path, "write");
    from += n;
    bytes -= (size_t)n;
  }
  return 0;
}

int pn_writer_commit(pn_writer *writer) {
  int rc = 0;
  if (fsync(writer->fd) != 0) rc = pn_fail_errno(writer->path, "write");
  if (close(writer->fd) != 0 && rc == 0) rc = pn_fail_errno(writer->path, "write");
  writer->fd = -1;
  if (rc == 0 && rename(writer->temporary, writer->path) != 0) rc = pn_fail_errno(writer->path, "replace");
  if (rc != 0) {
    pn_writer_abort(writer);
    return -1;
  }
  /* The name itself reaches the disk with its directory. Some file systems cannot sync one: the file is written all the same. */
  char *slash = strrchr(writer->path, '/');
  if (slash) slash[slash == writer->path] = 0;
  int directory = open(slash ? writer->path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory >= 0) {
    (void)!fsync(directory);
    close(directory);
  }
  writer_free(writer);
  return 0;
}

/* ---- small helpers ----------------------------------------------------------------------------------------------- */

int pn_grow(void *data, int64_t *capacity, int64_t used, int64_t need, size_t each) {
  if (need <= *capacity) return 0;
  int64_t room = pn_max64(need, pn_max64(16, *capacity * 2));
  size_t bytes;
  if (__builtin_mul_overflow((size_t)room, each, &bytes))
    return pn_fail("too much memory asked for: %lld objects", (long long)room);
  void *old;
  memcpy(&old, data, sizeof old);
  void *grown = pn_alloc(bytes);
  if (!grown) return -1;
  if (used > 0) memcpy(grown, old, (size_t)used * each);
  memset((char *)grown + (size_t)used * each, 0, bytes - (size_t)used * each);
  pn_free(old);
  memcpy(data, &grown, sizeof grown);
  *capacity = room;
  return 0;
}

char *pn_copy_text(const char *text, size_t bytes) {
  char *copy = pn_alloc(bytes + 1);
  if (!copy) return NULL;
  if (bytes > 0) memcpy(copy, text, bytes);
  copy[bytes] = 0;
  return copy;
}
