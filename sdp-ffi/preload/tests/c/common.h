/* What the test programs share. They know nothing of the library. */
#ifndef COMMON_H
#define COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            int saved = errno;                                                                \
            fflush(stdout);                                                                   \
            fprintf(stderr, "%s:%d: not: %s (%s)\n", __FILE__, __LINE__, #condition, strerror(saved)); \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

static inline const char *name_of(int number) {
    const char *name = number == 0 ? "-" : strerrorname_np(number);
    return name == NULL ? "?" : name;
}

/* A call, its result and its errno on a line. */
#define SHOW(call)                                                                        \
    do {                                                                                  \
        long result;                                                                      \
        errno = 0;                                                                        \
        result = (long)(call);                                                            \
        printf("%s = %ld %s\n", #call, result, name_of(result == -1 ? errno : 0));        \
    } while (0)

static volatile int signals;

static inline void count_signal(int number) {
    (void)number;
    signals++;
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((in_port_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static inline int port_of(int fd) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    return ntohs(address.sin_port);
}

static inline int listen_anywhere(void) {
    struct sockaddr_in address = loopback(0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(fd, 16) == 0);
    return fd;
}

/* Nobody is there to be accepted; but from here on this process accepts. */
static inline void accept_nobody(int listener) {
    int flags = fcntl(listener, F_GETFL);
    CHECK(flags >= 0 && fcntl(listener, F_SETFL, flags | O_NONBLOCK) == 0);
    CHECK(accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
    CHECK(fcntl(listener, F_SETFL, flags) == 0);
}

/* What a test program can do, one case a run. */
struct one_case {
    const char *name;
    void (*run)(void);
};

#define CASE(run) {#run, run}

/* Runs the case that the command line names. */
static inline int run_case(const struct one_case *cases, size_t among, int count, char **words) {
    CHECK(count == 2);
    for (size_t at = 0; at < among; at++) {
        if (strcmp(cases[at].name, words[1]) == 0) {
            cases[at].run();
            printf("%s holds\n", words[1]);
            return 0;
        }
    }
    return 2;
}

/* Two ends of a connection. */
struct pair {
    int client, server;
};

static inline struct pair make_pair(void) {
    struct pair pair;
    int listener = listen_anywhere();
    struct sockaddr_in address = loopback(port_of(listener));
    accept_nobody(listener);
    pair.client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(pair.client, (struct sockaddr *)&address, sizeof address) == 0);
    pair.server = accept(listener, NULL, NULL);
    CHECK(pair.server >= 0);
    CHECK(close(listener) == 0);
    return pair;
}

static inline void close_pair(struct pair pair) {
    CHECK(close(pair.client) == 0);
    CHECK(close(pair.server) == 0);
}

static inline int same_names(struct pair pair) {
    struct sockaddr_in one, two;
    socklen_t length = sizeof one;
    CHECK(getsockname(pair.client, (struct sockaddr *)&one, &length) == 0);
    CHECK(getpeername(pair.server, (struct sockaddr *)&two, &length) == 0);
    if (one.sin_port != two.sin_port || one.sin_addr.s_addr != two.sin_addr.s_addr) {
        return 0;
    }
    CHECK(getpeername(pair.client, (struct sockaddr *)&one, &length) == 0);
    CHECK(getsockname(pair.server, (struct sockaddr *)&two, &length) == 0);
    return one.sin_port == two.sin_port && one.sin_addr.s_addr == two.sin_addr.s_addr;
}

/* Waits until there is something to read. */
static inline void readable(int fd) {
    struct pollfd one = {fd, POLLIN, 0};
    CHECK(poll(&one, 1, 20000) == 1);
}

/* Waits until the other side has done that. */
static inline void hung_up(int fd, short what) {
    struct pollfd one = {fd, what, 0};
    CHECK(poll(&one, 1, 20000) == 1);
    CHECK(one.revents & what);
}

static inline void option(int fd, int level, int number, const char *name) {
    int value = -7;
    socklen_t length = sizeof value;
    errno = 0;
    int result = getsockopt(fd, level, number, &value, &length);
    printf("%s: %d %s value %d length %d\n", name, result, name_of(result ? errno : 0), value,
           (int)length);
}

#endif
