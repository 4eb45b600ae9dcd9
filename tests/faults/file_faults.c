/* Loaded by LD_PRELOAD into a program and what it starts: a fault in one of their operations on the files of a folder.

Operations are counted from 1 over all processes, in three kinds; what would change nothing, as making a folder that is
there, is none. `file_faults.py` fills in the fault that is wanted and reads what came of it. At its number either the
process that makes the operation is killed, half of a write written, or the disk is full: nothing that needs room finds
any for half a second, in any process; if wanted again and again, so many operations later each time. Or, from its number
on, each of the operations in a list finds no room the first time.

The C library calls itself past these functions: what is written through its streams is met at `fwrite`. Opened by
`fopen` is no file of ours. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define SECONDS_FULL 0.5

enum { KILL = 1, FULL = 2, FULL_ONCE = 3 }; /* faults */
enum { COORDINATOR, OTHERS, STUDY, KINDS }; /* whose operations; those on the study's files are of no process */
enum { GO_ON, NO_ROOM, DIE };               /* fates of an operation */

#define NAMED 256 /* operations that may be named, as in file_faults.py */

struct noted {
    int32_t pid;
    int32_t kind;
    int32_t needs_room;
    int32_t refused; /* it found no room */
    char name[16];
    char path[104]; /* below the folder */
};

static struct shared {
    uint64_t fault, kind, at;
    uint64_t every;        /* operations from one full disk to the next; 0 = one only */
    uint64_t coordinator;  /* pid of the first process */
    uint64_t met_by;       /* pid; 0 = nobody */
    uint64_t full_until;   /* [ns] */
    uint64_t made[KINDS];
    uint64_t all;
    uint64_t most;         /* places in the list */
    uint64_t named[NAMED]; /* what is to find no room once, see `what` */
    struct noted list[];
} *shared;

static const char *folder;

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("FILE_FAULTS");
    struct stat found;
    uint64_t nobody = 0;

    folder = getenv("FILE_FAULTS_IN");
    int fd = file && folder ? (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0 || fstat(fd, &found))
        return;
    void *mapped = mmap(NULL, (size_t)found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED)
        return;
    shared = mapped;
    __atomic_compare_exchange_n(&shared->coordinator, &nobody, (uint64_t)getpid(), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* What of a path lies below the folder; NULL where it lies elsewhere. */
static const char *below(const char *path)
{
    size_t length = strlen(folder);
    if (strncmp(path, folder, length) || (path[length] && path[length] != '/'))
        return NULL;
    return path[length] ? path + length + 1 : path + length;
}

static int is_full(uint64_t kind, uint64_t number)
{
    uint64_t at = shared->at, time = now();
    if (kind == shared->kind && number >= at &&
        __atomic_compare_exchange_n(&shared->at, &at, shared->every ? number + shared->every : UINT64_MAX, 0,
                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        shared->full_until = time + (uint64_t)(SECONDS_FULL * 1e9);
        shared->met_by = (uint64_t)getpid();
    }
    return time < shared->full_until;
}

/* What an operation does to which file, as a number; a file that is being written is called as it will be. */
static uint64_t what(const char *name, const char *file)
{
    uint64_t found = 14695981039346656037u; /* FNV-1a */
    size_t length = strlen(file);
    if (length > 9 && file[length - 9] == '.' && strspn(file + length - 8, "0123456789abcdef") == 8)
        length -= 9;
    for (; *name; name++)
        found = (found ^ (unsigned char)*name) * 1099511628211u;
    for (size_t place = 0; place < length; place++)
        found = (found ^ (unsigned char)file[place]) * 1099511628211u;
    return found;
}

static int is_named(uint64_t kind, uint64_t number, uint64_t what)
{
    if (kind != shared->kind || number < shared->at)
        return 0;
    for (size_t place = 0; place < NAMED && shared->named[place]; place++) {
        uint64_t wanted = what;
        if (__atomic_compare_exchange_n(&shared->named[place], &wanted, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            shared->met_by = (uint64_t)getpid();
            return 1;
        }
    }
    return 0;
}

static int finds_room(uint64_t kind, uint64_t number, const char *name, const char *file)
{
    if (shared->fault == FULL)
        return !is_full(kind, number);
    return shared->fault != FULL_ONCE || !is_named(kind, number, what(name, file));
}

static int fate(const char *name, const char *path, int needs_room)
{
    int before = errno;
    const char *file = below(path);
    if (!file)
        return GO_ON;
    uint64_t kind = !strncmp(file, "study.db", 8) ? STUDY : shared->coordinator == (uint64_t)getpid() ? COORDINATOR : OTHERS;
    uint64_t number = __atomic_add_fetch(&shared->made[kind], 1, __ATOMIC_SEQ_CST);
    int refused = needs_room && !finds_room(kind, number, name, file);
    uint64_t place = __atomic_fetch_add(&shared->all, 1, __ATOMIC_SEQ_CST);
    if (place < shared->most) {
        struct noted *noted = &shared->list[place];
        noted->pid = getpid();
        noted->kind = (int32_t)kind;
        noted->needs_room = needs_room;
        noted->refused = refused;
        strncpy(noted->name, name, sizeof noted->name - 1);
        strncpy(noted->path, file, sizeof noted->path - 1);
    }
    if (shared->fault == KILL && kind == shared->kind && number == shared->at) {
        shared->met_by = (uint64_t)getpid();
        return DIE;
    }
    errno = before;
    return refused ? NO_ROOM : GO_ON;
}

static int fate_at(const char *name, int at, const char *path, int needs_room)
{
    char whole[2 * PATH_MAX], link[64];
    ssize_t length = 0;
    if (!shared || !path)
        return GO_ON;
    if (*path == '/')
        return fate(name, path, needs_room);
    if (at == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    length = readlink(link, whole, PATH_MAX);
    if (length <= 0)
        return GO_ON;
    snprintf(whole + length, sizeof whole - (size_t)length, "/%s", path);
    return fate(name, whole, needs_room);
}

static int fate_of(const char *name, int fd, int needs_room)
{
    char path[PATH_MAX], link[64];
    int before = errno;
    if (!shared)
        return GO_ON;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0)
        return GO_ON;
    path[length] = 0;
    return fate(name, path, needs_room);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* ---- bytes: half of them written where the process is killed */

#define BYTES(result, function, parameters, fd, half, whole)                   \
    EXPORT result function parameters                                          \
    {                                                                          \
        int met = fate_of(#function, fd, 1);                                   \
        if (met == NO_ROOM)                                                    \
            return errno = ENOSPC, -1;                                         \
        if (met == DIE)                                                        \
            (void)!(half), die();                                              \
        return whole;                                                          \
    }

#define PWRITE(n) syscall(SYS_pwrite64, fd, from, n, offset)
#define COPY(n) syscall(SYS_copy_file_range, in, from, fd, to, n, flags)
#define SEND(n) syscall(SYS_sendfile, fd, in, offset, n)

BYTES(ssize_t, write, (int fd, const void *from, size_t count), fd, syscall(SYS_write, fd, from, count / 2),
      syscall(SYS_write, fd, from, count))
BYTES(ssize_t, pwrite, (int fd, const void *from, size_t count, off_t offset), fd, PWRITE(count / 2), PWRITE(count))
BYTES(ssize_t, pwrite64, (int fd, const void *from, size_t count, off_t offset), fd, PWRITE(count / 2), PWRITE(count))
BYTES(ssize_t, writev, (int fd, const struct iovec *from, int count), fd,
      syscall(SYS_write, fd, from->iov_base, from->iov_len / 2), syscall(SYS_writev, fd, from, count))
BYTES(ssize_t, copy_file_range, (int in, off_t *from, int fd, off_t *to, size_t count, unsigned flags), fd,
      COPY(count / 2), COPY(count))
BYTES(ssize_t, sendfile, (int fd, int in, off_t *offset, size_t count), fd, SEND(count / 2), SEND(count))
BYTES(ssize_t, sendfile64, (int fd, int in, off_t *offset, size_t count), fd, SEND(count / 2), SEND(count))

EXPORT size_t fwrite(const void *from, size_t size, size_t count, FILE *file)
{
    static size_t (*real)(const void *, size_t, size_t, FILE *);
    if (!real)
        real = (size_t (*)(const void *, size_t, size_t, FILE *))dlsym(RTLD_NEXT, "fwrite");
    int met = shared && fileno(file) >= 0 ? fate_of("fwrite", fileno(file), 1) : GO_ON;
    if (met == NO_ROOM)
        return errno = ENOSPC, 0;
    if (met == DIE) {
        (void)!real(from, size, count / 2, file);
        fflush(file);
        die();
    }
    return real(from, size, count, file);
}

/* ---- what is done in whole or not at all */

#define WHOLE(name, met, call)                                                 \
    do {                                                                       \
        int fate = met;                                                        \
        if (fate == NO_ROOM)                                                   \
            return errno = ENOSPC, -1;                                         \
        if (fate == DIE)                                                       \
            die();                                                             \
        return (int)(call);                                                    \
    } while (0)

static int is_missing(int at, const char *path)
{
    return shared && syscall(SYS_faccessat, at, path, F_OK);
}

static int opened(int at, const char *path, int flags, mode_t mode)
{
    if ((flags & O_ACCMODE) == O_RDONLY && !(flags & (O_CREAT | O_TRUNC)))
        return (int)syscall(SYS_openat, at, path, flags, mode);
    int is_new = flags & O_CREAT && is_missing(at, path);
    WHOLE("open", fate_at("open", at, path, is_new), syscall(SYS_openat, at, path, flags, mode));
}

#define OPEN(function, parameters, at)                                         \
    EXPORT int function parameters                                             \
    {                                                                          \
        va_list rest;                                                          \
        va_start(rest, flags);                                                 \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                          \
        return opened(at, path, flags, mode);                                  \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat, (int at, const char *path, int flags, ...), at)
OPEN(openat64, (int at, const char *path, int flags, ...), at)
EXPORT int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
EXPORT int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }

static int truncated(int fd, off_t length)
{
    struct stat found;
    int grows = shared && !fstat(fd, &found) && found.st_size < length;
    WHOLE("ftruncate", fate_of("ftruncate", fd, grows), syscall(SYS_ftruncate, fd, length));
}

EXPORT int ftruncate(int fd, off_t length) { return truncated(fd, length); }
EXPORT int ftruncate64(int fd, off_t length) { return truncated(fd, length); }
EXPORT int fsync(int fd) { WHOLE("fsync", fate_of("fsync", fd, 1), syscall(SYS_fsync, fd)); }
EXPORT int fdatasync(int fd) { WHOLE("fdatasync", fate_of("fdatasync", fd, 1), syscall(SYS_fdatasync, fd)); }

static int allocated(int fd, int mode, off_t offset, off_t length)
{
    WHOLE("fallocate", fate_of("fallocate", fd, 1), syscall(SYS_fallocate, fd, mode, offset, length));
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length) { return allocated(fd, mode, offset, length); }
EXPORT int fallocate64(int fd, int mode, off_t offset, off_t length) { return allocated(fd, mode, offset, length); }
EXPORT int posix_fallocate(int fd, off_t offset, off_t length) { return allocated(fd, 0, offset, length) ? errno : 0; }
EXPORT int posix_fallocate64(int fd, off_t offset, off_t length) { return allocated(fd, 0, offset, length) ? errno : 0; }

static int renamed(int at, const char *old, int to, const char *new, unsigned flags)
{
    WHOLE("rename", fate_at("rename", to, new, 1), syscall(SYS_renameat2, at, old, to, new, flags));
}

EXPORT int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new, 0); }
EXPORT int renameat(int at, const char *old, int to, const char *new) { return renamed(at, old, to, new, 0); }
EXPORT int renameat2(int at, const char *old, int to, const char *new, unsigned f) { return renamed(at, old, to, new, f); }

static int linked(int at, const char *old, int to, const char *new, int flags)
{
    WHOLE("link", fate_at("link", to, new, 1), syscall(SYS_linkat, at, old, to, new, flags));
}

EXPORT int link(const char *old, const char *new) { return linked(AT_FDCWD, old, AT_FDCWD, new, 0); }
EXPORT int linkat(int at, const char *old, int to, const char *new, int flags) { return linked(at, old, to, new, flags); }

static int made(int at, const char *path, mode_t mode)
{
    WHOLE("mkdir", is_missing(at, path) ? fate_at("mkdir", at, path, 1) : GO_ON, syscall(SYS_mkdirat, at, path, mode));
}

EXPORT int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
EXPORT int mkdirat(int at, const char *path, mode_t mode) { return made(at, path, mode); }

static int removed(int at, const char *path, int flags)
{
    WHOLE("unlink", is_missing(at, path) ? GO_ON : fate_at("unlink", at, path, 0), syscall(SYS_unlinkat, at, path, flags));
}

EXPORT int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
EXPORT int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }
EXPORT int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }
