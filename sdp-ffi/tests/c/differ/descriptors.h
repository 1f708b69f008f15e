/* fcntl and ioctl, and what libc does with every descriptor. */
#ifndef DIFFER_DESCRIPTORS_H
#define DIFFER_DESCRIPTORS_H

#include "phases.h"

/* As linux/sockios.h has it, which is no part of libc. */
#define SIOCOUTQNSD 0x894b

static void controls(int s) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    SAY_SOCKET(S(fcntl)(s, F_DUPFD, 0));
    SAY_SOCKET(S(fcntl)(s, F_DUPFD_CLOEXEC, 0));
    SAY(S(fcntl)(s, F_DUPFD, -1));
    SAY(S(fcntl)(s, F_GETOWN));
    SAY(S(fcntl)(s, F_SETOWN, 0));
    SAY(S(fcntl)(s, F_GETSIG));
    SAY(S(fcntl)(s, F_SETSIG, 0));
    SAY(S(fcntl)(s, F_GETLK, (long)&lock));
    SAY(S(fcntl)(s, F_GETLEASE));
    SAY(S(fcntl)(s, F_GETPIPE_SZ));
    SAY(S(fcntl)(s, F_SETFL, O_APPEND));
    SAY(S(fcntl)(s, F_GETFL) & O_APPEND);
    SAY(S(fcntl)(s, F_SETFL, O_NOATIME));
    SAY(S(fcntl)(s, F_SETFL, 0));
    SAY(S(fcntl)(s, F_SETFD, 0));
    SAY(S(fcntl)(s, F_GETFD));
    SAY(S(fcntl)(s, INT_MAX));
}

static void requests(int s) {
    int value = 0;
    SAY(S(ioctl)(s, FIOCLEX, &value));
    SAY(S(ioctl)(s, FIONCLEX, &value));
    SAY(S(ioctl)(s, FIOASYNC, &value));
    value = -1;
    SAY(S(ioctl)(s, FIOGETOWN, &value));
    printf("%s: owner %d\n", phase, value);
    value = -1;
    SAY(S(ioctl)(s, SIOCGPGRP, &value));
    printf("%s: owner %d\n", phase, value);
    SAY(S(ioctl)(s, SIOCOUTQNSD, &value));
    SAY(S(ioctl)(s, TCGETS, NULL));
    SAY(S(ioctl)(s, FIONREAD, NULL));
    SAY(S(ioctl)(s, SIOCATMARK, NULL));
    SAY(S(ioctl)(s, 0, NULL));
    SAY(S(ioctl)(s, UINT_MAX, NULL));
}

#ifndef OVER_SDP
static void is_a_file(int s) {
    struct stat about;
    char bytes[8];
    memset(&about, 0, sizeof about);
    do_not_wait(s);
    SAY_SOCKET(S(dup)(s));
    SAY_SOCKET(S(dup2)(s, 500));
    SAY_SOCKET(S(dup3)(s, 500, O_CLOEXEC));
    SAY(S(dup2)(s, -1));
    SAY(S(dup2)(s, s) == s);
    SAY(S(dup3)(s, s, 0));
    SAY(S(fstat)(s, &about));
    printf("%s: kind %o\n", phase, (unsigned)(about.st_mode & S_IFMT));
    SAY(S(isatty)(s));
    SAY(S(lseek)(s, 0, SEEK_CUR));
    SAY(S(pread)(s, bytes, 1, 0));
    SAY(S(pwrite)(s, bytes, 1, 0));
    SAY(S(ftruncate)(s, 0));
    SAY(S(fsync)(s));
    SAY(S(mmap)(NULL, 4096, PROT_READ, MAP_SHARED, s, 0) == MAP_FAILED);
    SAY(S(posix_fadvise)(s, 0, 0, POSIX_FADV_NORMAL));
    SAY(S(fchmod)(s, 0777));
    SAY(S(fchdir)(s));
}

/* By another number of the same socket, which outlives the first. */
static void is_copied(int s) {
    char bytes[8];
    struct pollfd polled = {-1, POLLIN | POLLOUT | POLLRDHUP | POLLPRI, 0};
    int copy = dup(s);
    if (copy == -1) {
        return;
    }
    do_not_wait(s);
    SAY(S(fcntl)(copy, F_GETFL) & O_NONBLOCK);
    polled.fd = copy;
    SAY(S(poll)(&polled, 1, 0));
    printf("%s: shows %#x\n", phase, (unsigned)polled.revents);
    SAY(S(recv)(copy, bytes, 1, 0));
    SAY(S(close)(s));
    polled.fd = copy;
    SAY(S(poll)(&polled, 1, 0));
    printf("%s: shows %#x\n", phase, (unsigned)polled.revents);
    SAY(S(recv)(copy, bytes, 1, 0));
    SAY(S(send)(copy, "a", 1, MSG_NOSIGNAL));
    SAY(S(close)(copy));
}
#endif

#endif
