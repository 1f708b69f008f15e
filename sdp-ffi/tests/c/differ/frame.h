/* What the parts of differ.c are made of: a call by either library, and the line that it prints. */
#ifndef DIFFER_FRAME_H
#define DIFFER_FRAME_H

#if defined(__GNUC__) && !defined(__clang__)
/* Wrong arguments are what this is about. */
#pragma GCC diagnostic ignored "-Wnonnull"
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#pragma GCC diagnostic ignored "-Wstringop-overread"
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef OVER_SDP
#include "sdp.h"
#define S(name) sdp_##name
/* What select and epoll take for a socket. */
#define WAITABLE(s) sdp_fileno(s)
#else
#define S(name) name
#define WAITABLE(s) (s)
#endif

/* What the set-up of a phase needs: without it nothing can be compared. */
#define MUST(condition)                                                              \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: not: %s (%s)\n", __FILE__, __LINE__, #condition, \
                    strerror(errno));                                                \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)

/* Only a hang is as long: milliseconds. */
#define LONG 30000

static const char *phase;
static volatile sig_atomic_t pipes;

static void on_pipe(int number) {
    (void)number;
    pipes = pipes + 1;
}

/* One line: the phase, the call, what it gave. A line without a call is what the last one has left. */
static void say(const char *call, long result) {
    int why = errno;
    printf("%s: %s = ", phase, call);
    if (result == -1 && why != 0) {
        printf("%s", strerrorname_np(why));
    } else {
        printf("%ld", result);
    }
    if (pipes > 0) {
        printf(", SIGPIPE %d", (int)pipes);
        pipes = 0;
    }
    putchar('\n');
}

#define SAY(call) (errno = 0, say(#call, (long)(call)))
/* One whose result is a socket, if it is one. */
#define SAY_SOCKET(call)                     \
    do {                                     \
        errno = 0;                           \
        int made = (call);                   \
        say(#call, made >= 0 ? 0 : made);    \
        if (made >= 0) {                     \
            S(close)(made);                  \
        }                                    \
    } while (0)

/* Names and their numbers, for what is tried in turn. */
struct named {
    const char *name;
    int number;
};

#define NAMED(thing) {#thing, thing}
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Nothing that is asked here may wait. */
static void do_not_wait(int s) {
    S(fcntl)(s, F_SETFL, O_NONBLOCK);
}

#endif
