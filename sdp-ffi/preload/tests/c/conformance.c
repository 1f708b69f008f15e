/* Every call in every phase of a stream socket, result and errno of each on a line. Run once by
 * itself, which is TCP, and once with the library preloaded, it must print the same. */
#include "common.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>

static char buffer[1 << 16];

/* Arguments that no program should give, kept from the compiler. */
static void *volatile nothing;
static volatile int minus_one = -1;

static void data_calls(int fd, const char *phase) {
    struct iovec piece = {buffer, 4};
    struct msghdr message;
    struct mmsghdr messages[2];
    memset(&message, 0, sizeof message);
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    memset(messages, 0, sizeof messages);
    messages[0].msg_hdr = message;
    messages[1].msg_hdr = message;
    printf("-- data, %s\n", phase);
    SHOW(read(fd, buffer, 4));
    SHOW(readv(fd, &piece, 1));
    SHOW(recv(fd, buffer, 4, MSG_DONTWAIT));
    SHOW(recv(fd, buffer, 4, MSG_OOB));
    SHOW(recvfrom(fd, buffer, 4, 0, NULL, NULL));
    SHOW(recvmsg(fd, &message, 0));
    SHOW(recvmmsg(fd, messages, 2, 0, NULL));
    SHOW(write(fd, "1234", 4));
    SHOW(writev(fd, &piece, 1));
    SHOW(send(fd, "1234", 4, 0));
    SHOW(send(fd, "1234", 4, MSG_NOSIGNAL));
    SHOW(sendto(fd, "1234", 4, 0, NULL, 0));
    SHOW(sendmsg(fd, &message, 0));
    SHOW(sendmmsg(fd, messages, 2, 0));
    SHOW(lseek(fd, 0, SEEK_SET));
    SHOW(pread(fd, buffer, 4, 0));
    SHOW(pwrite(fd, buffer, 4, 0));
}

static void state_calls(int fd, const char *phase) {
    int value = -7;
    struct pollfd one = {fd, POLLIN | POLLOUT | POLLRDHUP | POLLPRI, 0};
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    printf("-- state, %s\n", phase);
    SHOW(poll(&one, 1, 0));
    printf("revents %#x\n", (unsigned)one.revents);
    SHOW(ioctl(fd, FIONREAD, &value));
    printf("unread %d\n", value);
    SHOW(sockatmark(fd));
    if (strstr(phase, "end") == NULL) {
        SHOW(getpeername(fd, (struct sockaddr *)&address, &length));
    }
    length = sizeof address;
    SHOW(getsockname(fd, (struct sockaddr *)&address, &length));
    printf("family %d length %d\n", address.sin_family, (int)length);
    SHOW(fcntl(fd, F_GETFL));
    SHOW(fcntl(fd, F_GETFD));
    option(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR");
    option(fd, SOL_SOCKET, SO_TYPE, "SO_TYPE");
    option(fd, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
    option(fd, SOL_SOCKET, SO_PROTOCOL, "SO_PROTOCOL");
    option(fd, SOL_SOCKET, SO_ACCEPTCONN, "SO_ACCEPTCONN");
    option(fd, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR");
    option(fd, SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE");
    option(fd, SOL_SOCKET, SO_RCVLOWAT, "SO_RCVLOWAT");
    option(fd, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY");
    option(fd, IPPROTO_TCP, TCP_KEEPIDLE, "TCP_KEEPIDLE");
    option(fd, IPPROTO_TCP, TCP_KEEPCNT, "TCP_KEEPCNT");
    option(fd, IPPROTO_TCP, 9999, "no such");
    SHOW(setsockopt(fd, IPPROTO_TCP, 9999, &value, sizeof value));
    SHOW(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, nothing, sizeof value));
    SHOW(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, 1));
    SHOW(getsockopt(fd, SOL_SOCKET, SO_TYPE, nothing, nothing));
}

static void fresh(void) {
    struct sockaddr_in address = loopback(1);
    struct sockaddr_in6 other = {0};
    struct sockaddr none = {0};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    printf("== new\n");
    SHOW(socket(AF_INET, SOCK_STREAM, 99));
    SHOW(socket(AF_INET, 77, 0));
    SHOW(socket(minus_one, SOCK_STREAM, 0));
    state_calls(fd, "new");
    data_calls(fd, "new");
    SHOW(accept(fd, NULL, NULL));
    SHOW(shutdown(fd, SHUT_WR));
    SHOW(shutdown(fd, 9));
    SHOW(connect(fd, nothing, 0));
    SHOW(connect(fd, (struct sockaddr *)&address, 3));
    other.sin6_family = AF_INET6;
    SHOW(connect(fd, (struct sockaddr *)&other, sizeof other));
    none.sa_family = AF_UNSPEC;
    SHOW(connect(fd, &none, sizeof none));
    SHOW(bind(fd, (struct sockaddr *)&address, 3));
    SHOW(bind(fd, (struct sockaddr *)&other, sizeof other));
    SHOW(connect(fd, (struct sockaddr *)&address, sizeof address));
    option(fd, SOL_SOCKET, SO_ERROR, "SO_ERROR after refusal");
    SHOW(close(fd));
    SHOW(close(fd));
    SHOW(read(fd, buffer, 1));
    SHOW(write(fd, buffer, 1));
    SHOW(listen(fd, 1));
    SHOW(dup(fd));
    SHOW(fcntl(fd, F_GETFL));
    SHOW(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &fd, sizeof fd));
}

static void listening(void) {
    struct sockaddr_in address;
    int fd = listen_anywhere();
    printf("== listening\n");
    state_calls(fd, "listening");
    address = loopback(port_of(fd));
    SHOW(bind(fd, (struct sockaddr *)&address, sizeof address));
    data_calls(fd, "listening");
    SHOW(listen(fd, 7));
    SHOW(fcntl(fd, F_SETFL, O_NONBLOCK | O_RDWR));
    SHOW(accept(fd, NULL, NULL));
    SHOW(accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
    SHOW(accept4(fd, NULL, NULL, 12345));
    SHOW(fcntl(fd, F_GETFL));
    SHOW(fcntl(fd, F_SETFL, O_RDWR));
    SHOW(fcntl(fd, F_GETFL));
    {
        struct timeval time = {0, 20000};
        SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
        SHOW(accept(fd, NULL, NULL));
    }
    SHOW(shutdown(fd, SHUT_RDWR));
    SHOW(close(fd));
}

/* sendmsg and recvmsg, alone and many at once. */
static void messages_in_pieces(struct pair pair) {
    char in[16];
    struct iovec out[2] = {{(char *)"ab", 2}, {(char *)"cde", 3}}, to[2] = {{in, 1}, {in + 1, 4}};
    struct msghdr message;
    struct mmsghdr two[2];
    char control[64];
    memset(&message, 0, sizeof message);
    message.msg_iov = out;
    message.msg_iovlen = 2;
    SHOW(sendmsg(pair.client, &message, 0));
    message.msg_iov = to;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    message.msg_flags = -1;
    SHOW(recvmsg(pair.server, &message, MSG_WAITALL));
    printf("%.5s control %d flags %#x name %d\n", in, (int)message.msg_controllen,
           (unsigned)message.msg_flags, (int)message.msg_namelen);
    memset(two, 0, sizeof two);
    two[0].msg_hdr.msg_iov = two[1].msg_hdr.msg_iov = out;
    two[0].msg_hdr.msg_iovlen = two[1].msg_hdr.msg_iovlen = 2;
    SHOW(sendmmsg(pair.client, two, 2, 0));
    printf("%u %u\n", two[0].msg_len, two[1].msg_len);
    two[0].msg_hdr.msg_iov = two[1].msg_hdr.msg_iov = to;
    SHOW(recvmmsg(pair.server, two, 2, MSG_WAITALL, NULL));
    printf("%u %u\n", two[0].msg_len, two[1].msg_len);
    SHOW(sendmsg(pair.client, nothing, 0));
    message.msg_iovlen = 5000;
    SHOW(sendmsg(pair.client, &message, 0));
    SHOW(recvmsg(pair.client, &message, 0));
}

static void connected(void) {
    struct pair pair = make_pair();
    struct sockaddr_in address = loopback(1);
    int copy, value;
    char end[8];
    printf("== connected\n");
    SHOW(fcntl(pair.client, F_GETFL));
    SHOW(fcntl(pair.server, F_GETFD));
    CHECK(same_names(pair));
    SHOW(connect(pair.client, (struct sockaddr *)&address, sizeof address));
    SHOW(listen(pair.client, 1));
    SHOW(bind(pair.client, (struct sockaddr *)&address, sizeof address));
    SHOW(accept(pair.client, NULL, NULL));
    state_calls(pair.client, "connected");
    SHOW(recv(pair.client, buffer, 4, MSG_DONTWAIT));
    SHOW(recv(pair.client, buffer, 4, MSG_OOB));
    SHOW(read(pair.client, buffer, 0));
    SHOW(write(pair.client, buffer, 0));
    SHOW(writev(pair.client, nothing, 0));
    SHOW(readv(pair.client, nothing, minus_one));
    SHOW(writev(pair.client, nothing, 2000));
    SHOW(write(pair.client, "12345678", 8));
    readable(pair.server);
    state_calls(pair.server, "with bytes");
    SHOW(recv(pair.server, end, 3, MSG_PEEK));
    SHOW(recv(pair.server, end, 3, MSG_TRUNC));
    {
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        SHOW(recvfrom(pair.server, end, 2, 0, (struct sockaddr *)&from, &length));
        printf("name of %d bytes\n", (int)length);
    }
    SHOW(recv(pair.server, end, 8, 0));
    printf("%.3s\n", end);
    SHOW(sendto(pair.server, "ab", 2, 0, (struct sockaddr *)&address, sizeof address));
    SHOW(send(pair.server, "cd", 2, MSG_MORE));
    SHOW(recv(pair.client, end, 4, MSG_WAITALL));
    printf("%.4s\n", end);
    messages_in_pieces(pair);
    copy = dup(pair.client);
    SHOW(write(copy, "x", 1));
    SHOW(close(pair.client));
    SHOW(read(pair.server, end, 1));
    SHOW(write(pair.server, "y", 1));
    SHOW(read(copy, end, 1));
    pair.client = copy;
    SHOW(fcntl(pair.client, F_SETFL, O_RDWR | O_NONBLOCK));
    SHOW(read(pair.client, end, 1));
    SHOW(fcntl(copy, F_GETFL));
    value = 0;
    SHOW(ioctl(pair.client, FIONBIO, &value));
    SHOW(fcntl(pair.client, F_GETFL));
    value = 1;
    SHOW(setsockopt(pair.client, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value));
    option(pair.client, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY set");
    SHOW(setsockopt(pair.client, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value));
    option(pair.client, SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE set");
    {
        struct timeval time = {0, 20000};
        SHOW(setsockopt(pair.client, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
        SHOW(read(pair.client, end, 1));
        time.tv_usec = 2000000;
        SHOW(setsockopt(pair.client, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    }
    close_pair(pair);
}

static void half_closed(void) {
    struct pair pair = make_pair();
    char end[8];
    printf("== half closed\n");
    SHOW(write(pair.client, "last", 4));
    SHOW(shutdown(pair.client, SHUT_WR));
    readable(pair.server);
    SHOW(read(pair.server, end, 8));
    hung_up(pair.server, POLLRDHUP);
    state_calls(pair.server, "half closed");
    SHOW(read(pair.server, end, 8));
    SHOW(write(pair.server, "back", 4));
    SHOW(write(pair.client, "no", 2));
    SHOW(send(pair.client, "no", 2, MSG_NOSIGNAL));
    SHOW(read(pair.client, end, 8));
    SHOW(shutdown(pair.server, SHUT_RDWR));
    hung_up(pair.client, POLLHUP);
    state_calls(pair.client, "at the end");
    SHOW(read(pair.client, end, 8));
    SHOW(write(pair.client, "no", 2));
    SHOW(shutdown(pair.client, SHUT_RD));
    close_pair(pair);
}

static void reset(void) {
    struct pair pair = make_pair();
    struct linger none = {1, 0};
    char end[8];
    printf("== reset\n");
    SHOW(setsockopt(pair.server, SOL_SOCKET, SO_LINGER, &none, sizeof none));
    SHOW(close(pair.server));
    hung_up(pair.client, POLLHUP);
    SHOW(read(pair.client, end, 8));
    SHOW(read(pair.client, end, 8));
    SHOW(write(pair.client, "no", 2));
    state_calls(pair.client, "reset, the end");
    SHOW(close(pair.client));
}

static void nonblocking(void) {
    struct pair pair = make_pair();
    ssize_t sent, total = 0;
    struct pollfd one = {pair.client, POLLOUT, 0};
    printf("== non-blocking\n");
    SHOW(fcntl(pair.client, F_SETFL, O_RDWR | O_NONBLOCK));
    memset(buffer, 'x', sizeof buffer);
    while ((sent = write(pair.client, buffer, sizeof buffer)) > 0) {
        total += sent;
    }
    printf("full: %zd errno %s, some %d\n", sent, name_of(errno), total > 0);
    while (total > 0) {
        ssize_t got = read(pair.server, buffer, sizeof buffer);
        CHECK(got > 0);
        total -= got;
    }
    SHOW(poll(&one, 1, 20000));
    printf("revents %#x\n", (unsigned)one.revents);
    SHOW(recv(pair.server, buffer, 1, MSG_DONTWAIT));
    close_pair(pair);
}

static void urgent(void) {
    struct pair pair = make_pair();
    struct pollfd one = {pair.server, POLLPRI, 0};
    char end[8];
    printf("== urgent\n");
    SHOW(send(pair.client, "abc", 3, MSG_OOB));
    SHOW(poll(&one, 1, 20000));
    SHOW(recv(pair.server, end, 1, MSG_OOB | MSG_PEEK));
    SHOW(recv(pair.server, end, 1, MSG_OOB));
    printf("%c\n", end[0]);
    SHOW(recv(pair.server, end, 8, 0));
    SHOW(sockatmark(pair.server));
    SHOW(send(pair.client, "d", 1, 0));
    SHOW(recv(pair.server, end, 8, 0));
    close_pair(pair);
}

static void many(void) {
    struct pair pair = make_pair();
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {EPOLLIN | EPOLLONESHOT, {.u64 = 77}}, got;
    struct timeval zero = {0, 0};
    fd_set read_set, write_set;
    printf("== epoll and select\n");
    SHOW(epoll_ctl(set, EPOLL_CTL_MOD, pair.server, &event));
    SHOW(epoll_ctl(set, EPOLL_CTL_DEL, pair.server, NULL));
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, pair.server, &event));
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, pair.server, &event));
    SHOW(epoll_wait(set, &got, 1, 0));
    SHOW(write(pair.client, "z", 1));
    SHOW(epoll_wait(set, &got, 1, 20000));
    printf("events %#x data %d\n", got.events, (int)got.data.u64);
    SHOW(epoll_wait(set, &got, 1, 0));
    event.data.u64 = 78;
    SHOW(epoll_ctl(set, EPOLL_CTL_MOD, pair.server, &event));
    SHOW(epoll_wait(set, &got, 1, 20000));
    printf("events %#x data %d\n", got.events, (int)got.data.u64);
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    SHOW(epoll_ctl(set, EPOLL_CTL_MOD, pair.server, &event));
    SHOW(epoll_wait(set, &got, 1, 20000));
    printf("events %#x\n", got.events);
    SHOW(epoll_wait(set, &got, 1, 0));
    SHOW(epoll_ctl(minus_one, EPOLL_CTL_ADD, pair.client, &event));
    SHOW(epoll_ctl(pair.server, EPOLL_CTL_ADD, pair.client, &event));
    SHOW(epoll_ctl(set, 99, pair.client, &event));
    SHOW(epoll_ctl(set, EPOLL_CTL_DEL, pair.server, NULL));
    SHOW(epoll_ctl(set, EPOLL_CTL_DEL, pair.server, NULL));
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, pair.client, &event));
    FD_ZERO(&read_set);
    FD_ZERO(&write_set);
    FD_SET(pair.server, &read_set);
    FD_SET(pair.client, &read_set);
    FD_SET(pair.client, &write_set);
    SHOW(select(FD_SETSIZE, &read_set, &write_set, NULL, &zero));
    printf("%d %d %d\n", FD_ISSET(pair.server, &read_set) != 0,
           FD_ISSET(pair.client, &read_set) != 0, FD_ISSET(pair.client, &write_set) != 0);
    zero.tv_usec = -1;
    SHOW(select(FD_SETSIZE, &read_set, NULL, NULL, &zero));
    SHOW(close(pair.client));
    SHOW(epoll_wait(set, &got, 1, 0));
    zero.tv_usec = 0;
    FD_SET(pair.client, &read_set);
    SHOW(select(FD_SETSIZE, &read_set, NULL, NULL, &zero));
    SHOW(close(pair.server));
    close(set);
}

static void early_epoll(void) {
    int set = epoll_create1(0), listener = listen_anywhere(), client, server;
    struct epoll_event event = {EPOLLIN, {.u64 = 1}}, got[4];
    struct sockaddr_in address = loopback(port_of(listener));
    printf("== registered before\n");
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event));
    accept_nobody(listener);
    client = socket(AF_INET, SOCK_STREAM, 0);
    event.events = EPOLLIN;
    event.data.u64 = 2;
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, client, &event));
    SHOW(epoll_wait(set, got, 4, 0));
    SHOW(connect(client, (struct sockaddr *)&address, sizeof address));
    SHOW(epoll_wait(set, got, 4, 20000));
    printf("events %#x data %d\n", got[0].events, (int)got[0].data.u64);
    server = accept(listener, NULL, NULL);
    SHOW(epoll_wait(set, got, 4, 0));
    SHOW(write(server, "q", 1));
    SHOW(epoll_wait(set, got, 4, 20000));
    printf("events %#x data %d\n", got[0].events, (int)got[0].data.u64);
    SHOW(epoll_ctl(set, EPOLL_CTL_DEL, client, NULL));
    SHOW(epoll_wait(set, got, 4, 0));
    close(server);
    close(client);
    SHOW(close(listener));
    close(set);
}

static void files(void) {
    struct pair pair = make_pair();
    FILE *file = tmpfile(), *stream;
    off_t at = 2;
    int pipes[2];
    char end[64];
    printf("== files\n");
    CHECK(file != NULL && fputs("0123456789", file) >= 0 && fflush(file) == 0);
    SHOW(sendfile(pair.client, fileno(file), &at, 5));
    printf("at %d\n", (int)at);
    SHOW(recv(pair.server, end, 5, MSG_WAITALL));
    rewind(file);
    SHOW(sendfile(pair.client, fileno(file), NULL, 100));
    SHOW(recv(pair.server, end, 10, MSG_WAITALL));
    printf("%.10s\n", end);
    SHOW(sendfile(pair.client, fileno(file), NULL, 100));
    at = -1;
    SHOW(sendfile(pair.client, fileno(file), &at, 1));
    SHOW(sendfile(pair.client, minus_one, NULL, 1));
    CHECK(pipe(pipes) == 0);
    SHOW(sendfile(pair.client, pair.server, NULL, 1));
    stream = fdopen(dup(pair.client), "r+");
    CHECK(stream != NULL);
    SHOW(fprintf(stream, "line %d\n", 7));
    SHOW(fflush(stream));
    SHOW(recv(pair.server, end, 7, MSG_WAITALL));
    SHOW(write(pair.server, "reply\n", 6));
    CHECK(fgets(end, sizeof end, stream) != NULL);
    printf("%s", end);
    SHOW(fclose(stream));
    SHOW(write(pair.client, "!", 1));
    SHOW(read(pair.server, end, 1));
    close(pipes[0]);
    close(pipes[1]);
    fclose(file);
    close_pair(pair);
}

static void numbers(void) {
    struct pair pair = make_pair();
    int copy = fcntl(pair.client, F_DUPFD_CLOEXEC, 400);
    char end[8];
    printf("== numbers\n");
    printf("%d\n", copy);
    SHOW(fcntl(copy, F_GETFD));
    SHOW(dup2(pair.client, 401));
    SHOW(dup3(pair.client, 402, O_CLOEXEC));
    SHOW(dup3(pair.client, pair.client, 0));
    SHOW(dup2(pair.client, pair.client) == pair.client);
    SHOW(dup2(minus_one, 402));
    SHOW(write(402, "a", 1));
    SHOW(read(pair.server, end, 1));
    SHOW(dup2(0, 402));
    SHOW(write(401, "b", 1));
    SHOW(read(pair.server, end, 1));
    SHOW(close(400));
    SHOW(close(401));
    SHOW(close(402));
    SHOW(write(pair.client, "c", 1));
    SHOW(close_range(pair.client, pair.client, 0));
    SHOW(write(pair.client, "d", 1));
    SHOW(read(pair.server, end, 8));
    SHOW(read(pair.server, end, 8));
    close(pair.server);
}

static void to_a_child(void) {
    int listener = listen_anywhere();
    struct sockaddr_in address = loopback(port_of(listener));
    int status, server;
    char end[8];
    pid_t child;
    printf("== a child connects\n");
    fflush(stdout);
    accept_nobody(listener);
    child = fork();
    if (child == 0) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
        CHECK(write(client, "child", 5) == 5);
        CHECK(read(client, end, 8) == 2);
        CHECK(close(client) == 0);
        _exit(0);
    }
    server = accept(listener, NULL, NULL);
    SHOW(recv(server, end, 5, MSG_WAITALL));
    SHOW(write(server, "ok", 2));
    SHOW(waitpid(child, &status, 0) == child);
    printf("status %d\n", status);
    SHOW(read(server, end, 8));
    close(server);
    close(listener);
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    signal(SIGPIPE, count_signal);
    fresh();
    listening();
    connected();
    half_closed();
    reset();
    nonblocking();
    urgent();
    many();
    early_epoll();
    files();
    numbers();
    to_a_child();
    printf("signals %d\n", signals);
    return 0;
}
