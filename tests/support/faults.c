/* The n-th call of a process that changes files under WF_UNDER fails, kills or stops the process.
 *
 * Counted over all threads, which strace's when= is not.  WF_AT is n; WF_MODE: k SIGKILL (a write has
 * written half by then), s SIGSTOP, e EIO, n ENOSPC; WF_ONLY and WF_WHERE, if set, count only calls of that
 * name, and on paths that hold that text.
 * Every call that counts is told in WF_LOG, a line each. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long calls;

static int under(const char *path) {
    const char *root = getenv("WF_UNDER");
    return root && path && strncmp(path, root, strlen(root)) == 0;
}

static const char *file_of(int fd, char *name) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, 4095);
    name[length > 0 ? length : 0] = 0;
    return name;
}

static int on_fd(int fd) {
    char name[4096];
    return under(file_of(fd, name));
}

/* Whether this call is the one; comes back only from modes that let the call fail. */
static int fault(const char *call, const char *path, int fd, const void *data, size_t size) {
    const char *only = getenv("WF_ONLY"), *where = getenv("WF_WHERE"), *at = getenv("WF_AT"), *mode = getenv("WF_MODE"), *log = getenv("WF_LOG");
    char name[4096], line[4200];
    if (only && *only && strcmp(only, call)) return 0;
    if (!path) path = file_of(fd, name);
    if (where && !strstr(path, where)) return 0;
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (log) {
        int out = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        int length = snprintf(line, sizeof line, "%ld %s %s\n", number, call, path);
        syscall(SYS_write, out, line, length);
        syscall(SYS_close, out);
    }
    if (!at || number != atol(at)) return 0;
    if (*mode == 'k') {
        if (data) syscall(SYS_write, fd, data, size / 2);
        raise(SIGKILL);
    }
    if (*mode == 's') {
        raise(SIGSTOP);
        return 0;
    }
    errno = *mode == 'n' ? ENOSPC : EIO;
    return 1;
}

#define HOOK(name, args, pass, when, told)                                          \
    int name args {                                                                 \
        static int(*real) args;                                                     \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);                       \
        return (when) && fault(#name, told) ? -1 : real pass;                       \
    }
#define PATH(path) path, -1, NULL, 0
#define FD(fd) NULL, fd, NULL, 0

HOOK(rename, (const char *a, const char *b), (a, b), under(b), PATH(b))
HOOK(renameat, (int x, const char *a, int y, const char *b), (x, a, y, b), under(b), PATH(b))
HOOK(renameat2, (int x, const char *a, int y, const char *b, unsigned f), (x, a, y, b, f), under(b), PATH(b))
HOOK(link, (const char *a, const char *b), (a, b), under(b), PATH(b))
HOOK(linkat, (int x, const char *a, int y, const char *b, int f), (x, a, y, b, f), under(b), PATH(b))
HOOK(unlink, (const char *a), (a), under(a), PATH(a))
HOOK(unlinkat, (int x, const char *a, int f), (x, a, f), under(a), PATH(a))
HOOK(mkdir, (const char *a, mode_t m), (a, m), under(a), PATH(a))
HOOK(chmod, (const char *a, mode_t m), (a, m), under(a), PATH(a))
HOOK(fsync, (int fd), (fd), on_fd(fd), FD(fd))
HOOK(fdatasync, (int fd), (fd), on_fd(fd), FD(fd))
HOOK(syncfs, (int fd), (fd), on_fd(fd), FD(fd))
HOOK(ftruncate, (int fd, off_t n), (fd, n), on_fd(fd), FD(fd))
HOOK(ftruncate64, (int fd, off_t n), (fd, n), on_fd(fd), FD(fd))

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "write");
    return on_fd(fd) && fault("write", NULL, fd, data, size) ? -1 : real(fd, data, size);
}

/* Only opening to write changes anything. */
#define OPEN(name, head, args, pass, flags)                                         \
    int name(head int how, ...) {                                                   \
        static int (*real) args;                                                    \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);                       \
        va_list rest;                                                               \
        va_start(rest, how);                                                        \
        mode_t mode = how & O_CREAT ? va_arg(rest, mode_t) : 0;                     \
        va_end(rest);                                                               \
        if (how & (O_CREAT | O_WRONLY | O_RDWR) && under(path) && fault("open", PATH(path))) return -1; \
        return real pass;                                                           \
    }
#define COMMA ,
OPEN(open, const char *path COMMA, (const char *, int, ...), (path, how, mode), how)
OPEN(open64, const char *path COMMA, (const char *, int, ...), (path, how, mode), how)
OPEN(openat, int at COMMA const char *path COMMA, (int, const char *, int, ...), (at, path, how, mode), how)
OPEN(openat64, int at COMMA const char *path COMMA, (int, const char *, int, ...), (at, path, how, mode), how)
