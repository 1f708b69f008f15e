/* crowd ROUNDS: many threads in every call on one socket, which is closed under them: each call ends, soon, with what
 * it has done or an errno that is its own, and the next socket is not disturbed. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "common.h"

#define THREADS 64

static int under_attack;
static int a_file;
static int ready;

/* What a call may say of a socket that is shut or closed meanwhile. */
static void expect(const char *call, long result) {
    int why = errno;
    const int fine[] = {EBADF, EPIPE, ENOTCONN, ECONNRESET, EAGAIN, EINVAL, EOPNOTSUPP};
    if (result >= 0) {
        return;
    }
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
        if (why == fine[i]) {
            return;
        }
    }
    FAIL("%s", call);
}

#define EXPECT(call) (errno = 0, expect(#call, (long)(call)))

static void one_call(int s, int which) {
    static char memory[1 << 16];
    char bytes[256];
    struct iovec piece = {bytes, sizeof bytes};
    struct iovec large = {memory, sizeof memory};
    struct msghdr message;
    struct mmsghdr messages[2];
    struct pollfd polled = {s, POLLIN, 0};
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    off_t offset = 0;
    int value = 0;
    memset(&message, 0, sizeof message);
    memset(messages, 0, sizeof messages);
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    messages[0].msg_hdr = messages[1].msg_hdr = message;
    switch (which % 16) {
    case 0: EXPECT(sdp_recv(s, bytes, sizeof bytes, 0)); break;
    case 1: EXPECT(sdp_recv(s, bytes, sizeof bytes, MSG_PEEK | MSG_WAITALL)); break;
    case 2: EXPECT(sdp_read(s, NULL, 1)); break;
    case 3: EXPECT(sdp_recvmsg(s, &message, 0)); break;
    case 4: EXPECT(sdp_recvmmsg(s, messages, 2, 0, NULL)); break;
    case 5: EXPECT(sdp_send(s, memory, sizeof memory, MSG_NOSIGNAL)); break;
    case 6: EXPECT(sdp_writev(s, &large, 1)); break;
    case 7: EXPECT(sdp_sendmmsg(s, messages, 2, MSG_NOSIGNAL)); break;
    case 8: EXPECT(sdp_sendfile(s, a_file, &offset, 1 << 20)); break;
    case 9: EXPECT(sdp_send(s, "!", 1, MSG_OOB | MSG_NOSIGNAL)); break;
    /* Who waits for nothing is let go by the close alone. */
    case 10: EXPECT(sdp_poll(&polled, 1, -1)); break;
    case 11: EXPECT(sdp_ioctl(s, FIONREAD, &value)); break;
    case 12: EXPECT(sdp_fcntl(s, F_SETFL, 0)); break;
    case 13: EXPECT(sdp_getpeername(s, (struct sockaddr *)&address, &length)); break;
    case 14: length = sizeof value;
        EXPECT(sdp_getsockopt(s, SOL_SOCKET, SO_ERROR, &value, &length));
        break;
    default: EXPECT(sdp_fileno(s)); break;
    }
}

static void *attacker(void *argument) {
    int which = (int)(long)argument;
    int s = __atomic_load_n(&under_attack, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    one_call(s, which);
    return NULL;
}

/* All calls at once; the socket goes when they have begun, all of them or some. */
static void round_of(int number, int s) {
    pthread_t threads[THREADS];
    __atomic_store_n(&under_attack, s, __ATOMIC_SEQ_CST);
    __atomic_store_n(&ready, 0, __ATOMIC_SEQ_CST);
    for (long i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, attacker, (void *)(i + number)) == 0);
    }
    int begun = number % 2 == 0 ? THREADS : number % THREADS;
    while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) < begun) {
    }
    CHECK(sdp_close(s) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    FAILS(sdp_close(s), EBADF);
}

int main(int count, char **arguments) {
    char path[] = "/tmp/sdp-crowd-XXXXXX";
    CHECK(count == 2);
    int rounds = atoi(arguments[1]);
    a_file = mkstemp(path);
    CHECK(a_file >= 0 && unlink(path) == 0 && ftruncate(a_file, 1 << 20) == 0);
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    int listener = listen_anywhere();
    struct sockaddr_in address = loopback(port_of(listener));
    for (int round = 0; round < rounds; round++) {
        int client = sdp_socket(AF_INET, SOCK_STREAM, 0);
        CHECK(sdp_connect(client, (struct sockaddr *)&address, sizeof address) == 0);
        int server = sdp_accept(listener, NULL, NULL);
        CHECK(server >= 1 << 20);
        round_of(round, round % 3 == 0 ? client : server);
        CHECK(sdp_close(round % 3 == 0 ? server : client) == 0);
        /* One that listens, and one that is new. */
        round_of(round, listen_anywhere());
        round_of(round, sdp_socket(AF_INET, SOCK_STREAM, 0));
    }
    char byte = 'x';
    int client = sdp_socket(AF_INET, SOCK_STREAM, 0);
    CHECK(sdp_connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    int server = sdp_accept(listener, NULL, NULL);
    CHECK(sdp_write(client, &byte, 1) == 1 && sdp_read(server, &byte, 1) == 1 && byte == 'x');
    CHECK(sdp_close(client) == 0 && sdp_close(server) == 0 && sdp_close(listener) == 0);
    CHECK(close(a_file) == 0);
    puts("the crowd is gone");
    return 0;
}
