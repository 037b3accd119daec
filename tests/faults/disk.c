/* Preloaded into a process (LD_PRELOAD): its disk fails on command, and what it has synced is kept.
 *
 * FAULTS_CONTROL is a file of struct control, mapped: calls on paths that contain `match` fail with
 * `error`, after `delay_ms`. FAULTS_SHADOW is a folder: every successful sync of a file leaves a copy
 * there, named by its inode; that of a folder its entries. What a power cut leaves is made of those.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, TRUNCATE = 4, OPEN = 8 };

struct control {
    volatile int32_t kinds, error, delay_ms, hits;
    volatile char match[240];
};

static struct control *control;
static const char *shadow;

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

static int real_open(const char *path, int flags, mode_t mode) {
    static int (*call)(const char *, int, ...);
    if (!call) call = (int (*)(const char *, int, ...))next("open64");
    return call(path, flags, mode);
}

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULTS_CONTROL");
    shadow = getenv("FAULTS_SHADOW");
    if (!path) return;
    int fd = real_open(path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) control = map;
    close(fd);
}

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return -1;
    path[length] = 0;
    return 0;
}

/* Whether this call has to fail; errno says how. */
static int fails_path(int kind, const char *path) {
    if (!control || !(control->kinds & kind)) return 0;
    if (!strstr(path, (const char *)control->match)) return 0;
    __atomic_add_fetch((int32_t *)&control->hits, 1, __ATOMIC_SEQ_CST);
    int delay = control->delay_ms, error = control->error;
    if (delay) {
        struct timespec wait = {delay / 1000, (long)(delay % 1000) * 1000000L};
        nanosleep(&wait, NULL);
    }
    errno = error;
    return error != 0;
}

static int fails(int kind, int fd) {
    char path[4096];
    if (!control || !(control->kinds & kind)) return 0;
    return path_of(fd, path, sizeof path) == 0 && fails_path(kind, path);
}

static void keep_file(int fd, const char *to) {
    int out = real_open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char buffer[65536];
    off_t at = 0;
    ssize_t length;
    while ((length = pread(fd, buffer, sizeof buffer, at)) > 0) {
        if (write(out, buffer, (size_t)length) != length) abort();
        at += length;
    }
    close(out);
}

static void keep_folder(const char *path, const char *to) {
    DIR *folder = opendir(path);
    FILE *out = fopen(to, "we");
    if (folder && out)
        for (struct dirent *each; (each = readdir(folder));)
            if (each->d_name[0] != '.')
                fprintf(out, "%llu %d %s\n", (unsigned long long)each->d_ino,
                        each->d_type == DT_DIR, each->d_name);
    if (out) fclose(out);
    if (folder) closedir(folder);
}

static void keep(int fd) {
    char path[4096], to[4200], draft[4300];
    struct stat about;
    if (!shadow || fstat(fd, &about)) return;
    int saved = errno;
    snprintf(to, sizeof to, "%s/%llu", shadow, (unsigned long long)about.st_ino);
    snprintf(draft, sizeof draft, "%s.%d-%d", to, getpid(), gettid());
    if (S_ISREG(about.st_mode)) {
        /* A descriptor of its own would drop the locks of SQLite when it is closed. */
        keep_file(fd, draft);
        rename(draft, to);
    } else if (S_ISDIR(about.st_mode) && path_of(fd, path, sizeof path) == 0) {
        /* Many threads and processes sync the same folder: a later list must not give way. */
        char lock_path[4200];
        snprintf(lock_path, sizeof lock_path, "%s/lock", shadow);
        int lock = real_open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        flock(lock, LOCK_EX);
        keep_folder(path, draft);
        rename(draft, to);
        close(lock);
    }
    errno = saved;
}

int fdatasync(int fd) {
    static int (*call)(int);
    if (!call) call = (int (*)(int))next("fdatasync");
    if (fails(SYNC, fd)) return -1;
    int result = call(fd);
    if (!result) keep(fd);
    return result;
}

int fsync(int fd) {
    static int (*call)(int);
    if (!call) call = (int (*)(int))next("fsync");
    if (fails(SYNC, fd)) return -1;
    int result = call(fd);
    if (!result) keep(fd);
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    static ssize_t (*call)(int, const void *, size_t, off64_t);
    if (!call) call = (ssize_t(*)(int, const void *, size_t, off64_t))next("pwrite64");
    return fails(WRITE, fd) ? -1 : call(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return pwrite64(fd, data, size, at);
}

int ftruncate64(int fd, off64_t size) {
    static int (*call)(int, off64_t);
    if (!call) call = (int (*)(int, off64_t))next("ftruncate64");
    return fails(TRUNCATE, fd) ? -1 : call(fd, size);
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (flags & (O_WRONLY | O_RDWR | O_CREAT) && fails_path(OPEN, path)) return -1;
    return real_open(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open64(path, flags, mode);
}

/* Asynchronous syncs (io_submit): each on a thread of its own, by the fdatasync above, so that they
 * fail, wait and are kept as others are. */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct io_event done[1024];
static int done_count, under_way;

struct job {
    struct iocb *block;
    uint64_t data;
    int fd, tell;
};

static void *run_job(void *argument) {
    struct job job = *(struct job *)argument;
    free(argument);
    int64_t result = fdatasync(job.fd) ? -errno : 0;
    close(job.fd);
    pthread_mutex_lock(&lock);
    done[done_count++] = (struct io_event){
        .data = job.data, .obj = (uint64_t)(uintptr_t)job.block, .res = result};
    pthread_mutex_unlock(&lock);
    uint64_t one = 1;
    if (write(job.tell, &one, sizeof one) < 0) abort();
    pthread_mutex_lock(&lock); /* only now may whoever waits in io_destroy close the descriptor */
    under_way--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static long submit(long count, struct iocb **blocks) {
    for (long i = 0; i < count; i++) {
        struct iocb *block = blocks[i];
        struct stat about;
        int fd = -1;
        if (block->aio_lio_opcode == IOCB_CMD_FDSYNC && !fstat((int)block->aio_fildes, &about) &&
            S_ISREG(about.st_mode))
            fd = fcntl((int)block->aio_fildes, F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            errno = EINVAL;
            return i ? i : -1;
        }
        struct job *job = malloc(sizeof *job);
        *job = (struct job){block, block->aio_data, fd, (int)block->aio_resfd};
        pthread_mutex_lock(&lock);
        under_way++;
        pthread_mutex_unlock(&lock);
        pthread_t thread;
        if (pthread_create(&thread, NULL, run_job, job)) abort();
        pthread_detach(thread);
    }
    return count;
}

static long events(long most, struct io_event *to) {
    pthread_mutex_lock(&lock);
    int count = done_count < most ? done_count : (int)most;
    memcpy(to, done, (size_t)count * sizeof *to);
    done_count -= count;
    memmove(done, done + count, (size_t)done_count * sizeof *done);
    pthread_mutex_unlock(&lock);
    return count;
}

static long destroy(void) {
    pthread_mutex_lock(&lock);
    while (under_way) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return 0;
}

long syscall(long number, ...) {
    static long (*call)(long, ...);
    if (!call) call = (long (*)(long, ...))next("syscall");
    va_list more;
    long a[6];
    va_start(more, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(more, long);
    va_end(more);
    switch (number) {
        case SYS_io_setup: *(long *)a[1] = 1; return 0;
        case SYS_io_submit: return submit(a[1], (struct iocb **)a[2]);
        case SYS_io_getevents: return events(a[2], (struct io_event *)a[3]);
        case SYS_io_destroy: return destroy();
    }
    return call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
