/* Makes file operations of this process fail, as disks and file servers do. Preload it (LD_PRELOAD), then call fault_arm.

   Counted are the calls of one kind on paths under one prefix. The call with number `first` fails with `error`; all after it fail
   too if `forever` is set. A failing write first writes half of its bytes when it fails for want of space, as a real disk does. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { READ_OPEN, WRITE_OPEN, READ, WRITE, RENAME, MKDIR, UNLINK, LIST, STAT, CHMOD, MAP, SYNC, KINDS };

static char prefix[PATH_MAX];
static size_t prefix_length;
static int armed_kind = -1, armed_error, armed_forever;
static long armed_first;
static long counts[KINDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void fault_arm(const char *under, int kind, long first, int error, int forever) {
  pthread_mutex_lock(&lock);
  snprintf(prefix, sizeof prefix, "%s/", under);
  prefix_length = strlen(prefix);
  memset(counts, 0, sizeof counts);
  armed_kind = kind, armed_first = first, armed_error = error, armed_forever = forever;
  pthread_mutex_unlock(&lock);
}

long fault_count(int kind) { return counts[kind]; }

/* The error with which this call fails; 0 if it does not. */
static int fails(enum kind kind, const char *path) {
  if (!prefix_length || !path || strncmp(path, prefix, prefix_length) != 0) return 0;
  pthread_mutex_lock(&lock);
  long number = ++counts[kind];
  int hit = (int)kind == armed_kind && (number == armed_first || (armed_forever && number > armed_first));
  pthread_mutex_unlock(&lock);
  return hit ? armed_error : 0;
}

/* The path of a name that may be relative to a folder's descriptor. */
static const char *at(int folder, const char *name, char *buffer) {
  if (!prefix_length || !name || name[0] == '/') return name;
  char link[64];
  if (folder == AT_FDCWD)
    strcpy(link, "/proc/self/cwd");
  else
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  ssize_t length = readlink(link, buffer, PATH_MAX - 1);
  if (length < 0) return NULL;
  snprintf(buffer + length, PATH_MAX - length, "/%s", name);
  return buffer;
}

static const char *of(int descriptor, char *buffer) {
  if (!prefix_length) return NULL;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, buffer, PATH_MAX - 1);
  if (length < 0) return NULL;
  buffer[length] = 0;
  return buffer;
}

#define REAL(type, name, ...)                          \
  static type (*real)(__VA_ARGS__);                    \
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, name)
#define CHECK(kind, path, failed)                      \
  do {                                                 \
    char buffer[PATH_MAX + 512];                       \
    int saved = errno, error = fails(kind, path);      \
    (void)buffer;                                      \
    errno = saved;                                     \
    if (error) return errno = error, failed;           \
  } while (0)

static enum kind opening(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT)) ? WRITE_OPEN : READ_OPEN; }

#define OPEN(name)                                                                      \
  int name(const char *path, int flags, ...) {                                          \
    REAL(int, #name, const char *, int, ...);                                           \
    va_list rest;                                                                       \
    va_start(rest, flags);                                                              \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;           \
    va_end(rest);                                                                       \
    CHECK(opening(flags), at(AT_FDCWD, path, buffer), -1);                              \
    return real(path, flags, mode);                                                     \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                    \
  int name(int folder, const char *path, int flags, ...) {                              \
    REAL(int, #name, int, const char *, int, ...);                                      \
    va_list rest;                                                                       \
    va_start(rest, flags);                                                              \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;           \
    va_end(rest);                                                                       \
    CHECK(opening(flags), at(folder, path, buffer), -1);                                \
    return real(folder, path, flags, mode);                                             \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                     \
  FILE *name(const char *path, const char *mode) {                                      \
    REAL(FILE *, #name, const char *, const char *);                                    \
    CHECK(strpbrk(mode, "wa+") ? WRITE_OPEN : READ_OPEN, at(AT_FDCWD, path, buffer), NULL); \
    return real(path, mode);                                                            \
  }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t read(int file, void *data, size_t size) {
  REAL(ssize_t, "read", int, void *, size_t);
  CHECK(READ, of(file, buffer), -1);
  return real(file, data, size);
}

#define PREAD(name)                                                                     \
  ssize_t name(int file, void *data, size_t size, off64_t offset) {                     \
    REAL(ssize_t, #name, int, void *, size_t, off64_t);                                 \
    CHECK(READ, of(file, buffer), -1);                                                  \
    return real(file, data, size, offset);                                              \
  }
PREAD(pread)
PREAD(pread64)

ssize_t write(int file, const void *data, size_t size) {
  REAL(ssize_t, "write", int, const void *, size_t);
  char buffer[PATH_MAX + 512];
  int saved = errno, error = fails(WRITE, of(file, buffer));
  errno = saved;
  if (error == ENOSPC && size > 1) real(file, data, size / 2);
  if (error) return errno = error, -1;
  return real(file, data, size);
}

ssize_t writev(int file, const struct iovec *data, int count) {
  REAL(ssize_t, "writev", int, const struct iovec *, int);
  CHECK(WRITE, of(file, buffer), -1);
  return real(file, data, count);
}

#define PWRITE(name)                                                                    \
  ssize_t name(int file, const void *data, size_t size, off64_t offset) {               \
    REAL(ssize_t, #name, int, const void *, size_t, off64_t);                           \
    CHECK(WRITE, of(file, buffer), -1);                                                 \
    return real(file, data, size, offset);                                              \
  }
PWRITE(pwrite)
PWRITE(pwrite64)

#define TRUNCATE(name)                                                                  \
  int name(int file, off64_t size) {                                                    \
    REAL(int, #name, int, off64_t);                                                     \
    CHECK(WRITE, of(file, buffer), -1);                                                 \
    return real(file, size);                                                            \
  }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

ssize_t sendfile(int to, int from, off64_t *offset, size_t size) {
  REAL(ssize_t, "sendfile", int, int, off64_t *, size_t);
  CHECK(WRITE, of(to, buffer), -1);
  return real(to, from, offset, size);
}

int fsync(int file) {
  REAL(int, "fsync", int);
  CHECK(SYNC, of(file, buffer), -1);
  return real(file);
}

int rename(const char *from, const char *to) {
  REAL(int, "rename", const char *, const char *);
  CHECK(RENAME, at(AT_FDCWD, to, buffer), -1);
  return real(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  REAL(int, "renameat", int, const char *, int, const char *);
  CHECK(RENAME, at(to_folder, to, buffer), -1);
  return real(from_folder, from, to_folder, to);
}

int mkdir(const char *path, mode_t mode) {
  REAL(int, "mkdir", const char *, mode_t);
  CHECK(MKDIR, at(AT_FDCWD, path, buffer), -1);
  return real(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode) {
  REAL(int, "mkdirat", int, const char *, mode_t);
  CHECK(MKDIR, at(folder, path, buffer), -1);
  return real(folder, path, mode);
}

int unlink(const char *path) {
  REAL(int, "unlink", const char *);
  CHECK(UNLINK, at(AT_FDCWD, path, buffer), -1);
  return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
  REAL(int, "unlinkat", int, const char *, int);
  CHECK(UNLINK, at(folder, path, buffer), -1);
  return real(folder, path, flags);
}

int rmdir(const char *path) {
  REAL(int, "rmdir", const char *);
  CHECK(UNLINK, at(AT_FDCWD, path, buffer), -1);
  return real(path);
}

DIR *opendir(const char *path) {
  REAL(DIR *, "opendir", const char *);
  CHECK(LIST, at(AT_FDCWD, path, buffer), NULL);
  return real(path);
}

DIR *fdopendir(int folder) {
  REAL(DIR *, "fdopendir", int);
  CHECK(LIST, of(folder, buffer), NULL);
  return real(folder);
}

#define STAT_PATH(name, type)                                                           \
  int name(const char *path, struct type *result) {                                     \
    REAL(int, #name, const char *, struct type *);                                      \
    CHECK(STAT, at(AT_FDCWD, path, buffer), -1);                                        \
    return real(path, result);                                                          \
  }
STAT_PATH(stat, stat)
STAT_PATH(lstat, stat)
STAT_PATH(stat64, stat64)
STAT_PATH(lstat64, stat64)

#define STAT_AT(name, type)                                                             \
  int name(int folder, const char *path, struct type *result, int flags) {              \
    REAL(int, #name, int, const char *, struct type *, int);                            \
    CHECK(STAT, at(folder, path, buffer), -1);                                          \
    return real(folder, path, result, flags);                                           \
  }
STAT_AT(fstatat, stat)
STAT_AT(fstatat64, stat64)

int chmod(const char *path, mode_t mode) {
  REAL(int, "chmod", const char *, mode_t);
  CHECK(CHMOD, at(AT_FDCWD, path, buffer), -1);
  return real(path, mode);
}

int fchmodat(int folder, const char *path, mode_t mode, int flags) {
  REAL(int, "fchmodat", int, const char *, mode_t, int);
  CHECK(CHMOD, at(folder, path, buffer), -1);
  return real(folder, path, mode, flags);
}

#define MMAP(name)                                                                      \
  void *name(void *where, size_t size, int protection, int flags, int file, off64_t offset) { \
    REAL(void *, #name, void *, size_t, int, int, int, off64_t);                        \
    if (!(flags & MAP_ANONYMOUS) && file >= 0) CHECK(MAP, of(file, buffer), MAP_FAILED); \
    return real(where, size, protection, flags, file, offset);                          \
  }
MMAP(mmap)
MMAP(mmap64)
