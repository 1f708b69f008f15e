/* Bytes that nobody mistakes for others, there and back. */
#ifndef STREAMS_H
#define STREAMS_H

#include "common.h"

#include <pthread.h>
#include <sys/wait.h>

#define MUCH (10 << 20)

static char bytes[1 << 16];

static inline void fill(size_t from, size_t length) {
    for (size_t at = 0; at < length; at++) {
        bytes[at] = (char)((from + at) * 31 >> 3);
    }
}

static inline int is_right(size_t from, size_t length) {
    for (size_t at = 0; at < length; at++) {
        if (bytes[at] != (char)((from + at) * 31 >> 3)) {
            return 0;
        }
    }
    return 1;
}

static inline void write_much(int fd, size_t count) {
    for (size_t at = 0; at < count;) {
        size_t length = count - at < sizeof bytes ? count - at : sizeof bytes;
        ssize_t written;
        fill(at, length);
        written = write(fd, bytes, length);
        CHECK(written > 0);
        at += (size_t)written;
    }
}

/* To the end of the stream. */
static inline void read_much(int fd, size_t count) {
    size_t at = 0;
    ssize_t got;
    while ((got = read(fd, bytes, sizeof bytes)) > 0) {
        CHECK(is_right(at, (size_t)got));
        at += (size_t)got;
    }
    CHECK(got == 0 && at == count);
}

static inline void echo(int fd) {
    ssize_t got;
    while ((got = read(fd, bytes, sizeof bytes)) > 0) {
        for (ssize_t at = 0; at < got;) {
            ssize_t written = write(fd, bytes + at, (size_t)(got - at));
            CHECK(written > 0);
            at += written;
        }
    }
    CHECK(got == 0);
}

static inline void expect(int fd, const char *words) {
    size_t length = strlen(words);
    CHECK(recv(fd, bytes, length, MSG_WAITALL) == (ssize_t)length);
    CHECK(memcmp(bytes, words, length) == 0);
}

/* The same of a pipe. */
static inline void expect_by_read(int fd, const char *words) {
    size_t length = strlen(words);
    for (size_t at = 0; at < length;) {
        ssize_t got = read(fd, bytes + at, length - at);
        CHECK(got > 0);
        at += (size_t)got;
    }
    CHECK(memcmp(bytes, words, length) == 0);
}

static inline void tell(int fd, const char *words) {
    CHECK(write(fd, words, strlen(words)) == (ssize_t)strlen(words));
}

static inline void succeeds(pid_t child) {
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Both directions at once, each to its end. */
static inline void *sends(void *fd) {
    write_much(*(int *)fd, MUCH);
    CHECK(shutdown(*(int *)fd, SHUT_WR) == 0);
    return NULL;
}

static inline void send_and_read_back(int fd) {
    static char own[1 << 16];
    pthread_t thread;
    size_t at = 0;
    ssize_t got;
    CHECK(pthread_create(&thread, NULL, sends, &fd) == 0);
    while ((got = read(fd, own, sizeof own)) > 0) {
        for (ssize_t one = 0; one < got; one++) {
            CHECK(own[one] == (char)((at + (size_t)one) * 31 >> 3));
        }
        at += (size_t)got;
    }
    CHECK(got == 0 && at == MUCH);
    CHECK(pthread_join(thread, NULL) == 0);
}

#endif
