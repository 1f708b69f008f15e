/* pthread_cancel: a thread in a call of the library is not ended there, and at once where the call
 * has done nothing; whatever happens, no byte is lost and the connection goes on. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "common.h"

/* More than both ends keep: without a reader no send of it is over. */
#define LARGE (16 << 20)

/* What a thread does, and what became of it. */
struct work {
    int socket;
    unsigned char *memory;
    size_t length;
    int sends;
    pid_t thread;      /* set right before the first call */
    ssize_t first;     /* what that gave */
    int ended;         /* by a cancellation: its clean-up handler has run */
};

static void on_signal(int number) {
    (void)number;
}

static void clean_up(void *argument) {
    struct work *work = (struct work *)argument;
    __atomic_store_n(&work->ended, 1, __ATOMIC_SEQ_CST);
}

static ssize_t call(struct work *work) {
    return work->sends ? sdp_send(work->socket, work->memory, work->length, 0)
                       : sdp_recv(work->socket, work->memory, work->length, 0);
}

static void *worker(void *argument) {
    struct work *work = (struct work *)argument;
    pthread_cleanup_push(clean_up, work);
    __atomic_store_n(&work->thread, gettid(), __ATOMIC_SEQ_CST);
    work->first = call(work);
    /* It has been cancelled meanwhile: this ends it, before anything is done. */
    call(work);
    FAIL("a cancelled thread goes on");
    pthread_cleanup_pop(0);
    return NULL;
}

static pthread_t start(struct work *work) {
    pthread_t thread;
    work->first = -2;
    CHECK(pthread_create(&thread, NULL, worker, work) == 0);
    return thread;
}

/* Returns when the thread sleeps in its call. */
static void until_asleep(struct work *work) {
    char path[64], line[256];
    pid_t thread;
    do {
        thread = __atomic_load_n(&work->thread, __ATOMIC_SEQ_CST);
    } while (thread == 0);
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    for (;;) {
        FILE *file = fopen(path, "r");
        CHECK(file != NULL && fgets(line, sizeof line, file) != NULL);
        CHECK(fclose(file) == 0);
        if (strstr(line, ") S ") != NULL) {
            return;
        }
    }
}

static void joined(pthread_t thread, struct work *work) {
    void *result = NULL;
    CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    CHECK(work->ended == 1);
}

static void make_pair(int listener, int ends[2]) {
    struct sockaddr_in address = loopback(port_of(listener));
    ends[0] = sdp_socket(AF_INET_SDP, SOCK_STREAM, 0);
    CHECK(sdp_connect(ends[0], (struct sockaddr *)&address, sizeof address) == 0);
    ends[1] = sdp_accept(listener, NULL, NULL);
    CHECK(ends[1] >= 1 << 20);
}

static void carries(int ends[2]) {
    char byte = 'x';
    CHECK(sdp_send(ends[0], &byte, 1, 0) == 1 && sdp_recv(ends[1], &byte, 1, 0) == 1);
    CHECK(sdp_send(ends[1], &byte, 1, 0) == 1 && sdp_recv(ends[0], &byte, 1, 0) == 1);
}

/* The byte that a cancelled thread was waiting for is given to it. */
static void receiving(int ends[2], int others[2]) {
    unsigned char memory[10];
    struct work work = {ends[0], memory, sizeof memory, 0, 0, 0, 0};
    pthread_t thread = start(&work);
    until_asleep(&work);
    CHECK(pthread_cancel(thread) == 0);
    carries(others);
    CHECK(sdp_send(ends[1], "y", 1, 0) == 1);
    joined(thread, &work);
    CHECK(work.first == 1 && memory[0] == 'y');
    carries(ends);
}

/* The memory that it shows to the peer is not taken from under it. */
static void sending(int ends[2], int others[2]) {
    unsigned char *memory = (unsigned char *)sdp_alloc(LARGE);
    unsigned char part[4096];
    CHECK(memory != NULL);
    for (size_t i = 0; i < LARGE; i++) {
        memory[i] = (unsigned char)(i % 251);
    }
    struct work work = {ends[0], memory, LARGE, 1, 0, 0, 0};
    pthread_t thread = start(&work);
    until_asleep(&work);
    CHECK(pthread_cancel(thread) == 0);
    carries(others);
    for (size_t at = 0; at < LARGE;) {
        ssize_t count = sdp_recv(ends[1], part, sizeof part, 0);
        CHECK(count > 0);
        for (ssize_t i = 0; i < count; i++) {
            CHECK(part[i] == (unsigned char)((at + (size_t)i) % 251));
        }
        at += (size_t)count;
    }
    joined(thread, &work);
    CHECK(work.first == LARGE);
    CHECK(sdp_free(memory) == 0);
    carries(ends);
}

/* A call that a signal ends has done nothing, so the thread ends with it. */
static void interrupted(int ends[2]) {
    unsigned char memory[10];
    struct work work = {ends[0], memory, sizeof memory, 0, 0, 0, 0};
    pthread_t thread = start(&work);
    until_asleep(&work);
    CHECK(pthread_cancel(thread) == 0);
    while (__atomic_load_n(&work.ended, __ATOMIC_SEQ_CST) == 0) {
        pthread_kill(thread, SIGUSR1);
        usleep(100);
    }
    joined(thread, &work);
    CHECK(work.first == -2);
    carries(ends);
}

static void *cancels_itself(void *argument) {
    struct work *work = (struct work *)argument;
    pthread_cleanup_push(clean_up, work);
    CHECK(pthread_cancel(pthread_self()) == 0);
    /* No cancellation point. */
    int value = 0;
    CHECK(sdp_ioctl(work->socket, FIONREAD, &value) == 0 && value == 1);
    work->first = call(work);
    FAIL("a cancelled thread goes on");
    pthread_cleanup_pop(0);
    return NULL;
}

/* One that is cancelled already takes nothing out of the stream. */
static void before(int ends[2]) {
    unsigned char memory[10];
    struct work work = {ends[0], memory, sizeof memory, 0, 0, -2, 0};
    pthread_t thread;
    int value = 0;
    CHECK(sdp_send(ends[1], "z", 1, 0) == 1);
    while (value == 0) {
        CHECK(sdp_ioctl(ends[0], FIONREAD, &value) == 0);
    }
    CHECK(pthread_create(&thread, NULL, cancels_itself, &work) == 0);
    joined(thread, &work);
    CHECK(work.first == -2);
    CHECK(sdp_recv(ends[0], memory, sizeof memory, 0) == 1 && memory[0] == 'z');
}

int main(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    int listener = listen_anywhere();
    int ends[2], others[2];
    make_pair(listener, ends);
    make_pair(listener, others);
    receiving(ends, others);
    sending(ends, others);
    interrupted(ends);
    before(ends);
    for (int i = 0; i < 2; i++) {
        CHECK(sdp_close(ends[i]) == 0 && sdp_close(others[i]) == 0);
    }
    CHECK(sdp_close(listener) == 0);
    puts("cancellation holds");
    return 0;
}
