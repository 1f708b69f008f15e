/* What the test programs share. They compile as C11 and as C++17. */
#ifndef COMMON_H
#define COMMON_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>

#include "sdp.h"

/* Says what failed, where and why, and ends the program. */
#define FAIL(...)                                                                         \
    do {                                                                                  \
        int saved = errno;                                                                \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                   \
        fprintf(stderr, __VA_ARGS__);                                                     \
        fprintf(stderr, " (errno %d, %s; %s)\n", saved, strerror(saved), sdp_strerror_ext()); \
        exit(1);                                                                          \
    } while (0)

#define CHECK(condition)              \
    do {                              \
        if (!(condition)) {           \
            FAIL("not: %s", #condition); \
        }                             \
    } while (0)

/* The call must fail, with that errno. */
#define FAILS(call, number)                                                  \
    do {                                                                     \
        errno = 0;                                                           \
        if ((call) != -1) {                                                  \
            FAIL("%s: expected %s, but it succeeded", #call, #number);       \
        }                                                                    \
        if (errno != (number)) {                                             \
            FAIL("%s: expected %s", #call, #number);                         \
        }                                                                    \
        if (strncmp(sdp_strerror_ext(), #call, strcspn(#call, "(")) != 0) {  \
            FAIL("%s: the words are of another call", #call);                \
        }                                                                    \
    } while (0)

/* 127.0.0.1 and a port. */
static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET_SDP;
    address.sin_port = htons((in_port_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* The port a socket has. */
static inline int port_of(int socket) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    CHECK(sdp_getsockname(socket, (struct sockaddr *)&address, &length) == 0);
    CHECK(length == sizeof address && address.sin_family == AF_INET);
    return ntohs(address.sin_port);
}

/* A socket that listens on a free port of 127.0.0.1. */
static inline int listen_anywhere(void) {
    struct sockaddr_in address = loopback(0);
    int socket = sdp_socket(AF_INET_SDP, SOCK_STREAM, 0);
    CHECK(socket >= 1 << 20);
    CHECK(sdp_bind(socket, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(sdp_listen(socket, 16) == 0);
    return socket;
}

static inline struct sdp_stats stats_of(int socket) {
    struct sdp_stats stats;
    socklen_t length = sizeof stats;
    CHECK(sdp_getsockopt(socket, SOL_SDP, SDP_STATS, &stats, &length) == 0);
    CHECK(length == sizeof stats);
    return stats;
}

#endif
