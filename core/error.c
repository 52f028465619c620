/* error.c: the message of the last failure, one per thread; and notices, for all. Text that came from outside is always an argument, never a format. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include "internal.h"

static _Thread_local char message[2048];

const char *pn_error(void) { return message; }

void pn_error_clear(void) { message[0] = 0; }

int pn_fail(const char *format, ...) {
  char text[sizeof message]; /* an argument may be pn_error() itself */
  va_list ap;
  va_start(ap, format);
  vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  memcpy(message, text, sizeof message);
  return -1;
}

int pn_fail_errno(const char *path, const char *doing) {
  int code = errno;
  char text[128];
  return pn_fail("%s: cannot %s: %s", path, doing, strerror_r(code, text, sizeof text));
}

void pn_one_line(char *text) {
  for (; *text; text++)
    if (*text == '\n') *text = ';';
}

/* ---- notices ---------------------------------------------------------------------------------------------------------------- */

enum { MOST_NOTICES = 64 };
static pthread_mutex_t notice_lock = PTHREAD_MUTEX_INITIALIZER;
static char notices[MOST_NOTICES][320];
static int n_notices;
static atomic_int n_waiting; /* the last of them */

void pn_notice(const char *format, ...) {
  char text[sizeof notices[0]];
  va_list ap;
  va_start(ap, format);
  vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  pn_one_line(text);
  pthread_mutex_lock(&notice_lock);
  bool told = n_notices == MOST_NOTICES;
  for (int i = 0; i < n_notices && !told; i++) told = !strcmp(notices[i], text);
  if (!told) {
    memcpy(notices[n_notices++], text, sizeof text);
    n_waiting++;
  }
  pthread_mutex_unlock(&notice_lock);
}

int pn_take_notice(char *buffer, size_t bytes) {
  if (!n_waiting || !buffer || !bytes) return 0; /* asked after every operation: no lock for nothing */
  pthread_mutex_lock(&notice_lock);
  int waiting = n_waiting;
  if (waiting) {
    snprintf(buffer, bytes, "%s", notices[n_notices - waiting]);
    n_waiting--;
  }
  pthread_mutex_unlock(&notice_lock);
  return waiting > 0;
}
