/* What a program must not notice of the library: one case a run. */
#include "common.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char bytes[9000];

/* From the first accept on a listener answers who connects by SDP. */
static void first_accept(int listener) {
    int flags = fcntl(listener, F_GETFL);
    CHECK(fcntl(listener, F_SETFL, flags | O_NONBLOCK) == 0);
    CHECK(accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
    CHECK(fcntl(listener, F_SETFL, flags) == 0);
}

/* A child that has closed the program's sockets, and lives until the pipe it reads is closed. */
static pid_t bystander(const int *fds, int count, int *ends) {
    int until[2];
    pid_t child;
    CHECK(pipe(until) == 0);
    child = fork();
    if (child == 0) {
        for (int at = 0; at < count; at++) {
            CHECK(close(fds[at]) == 0);
        }
        CHECK(close(until[1]) == 0);
        CHECK(read(until[0], bytes, 1) == 0);
        _exit(0);
    }
    CHECK(close(until[0]) == 0);
    *ends = until[1];
    return child;
}

static void end_bystander(pid_t child, int ends) {
    int status = -1;
    CHECK(close(ends) == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* A listener that the parent has closed is nobody's, though a child lives. */
static void port_after_fork(void) {
    int listener = listen_anywhere(), port = port_of(listener), ends, fd;
    struct sockaddr_in address = loopback(port);
    pid_t child;
    first_accept(listener);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    int fds[3] = {listener, fd, accept(listener, NULL, NULL)};
    CHECK(fds[2] >= 0);
    child = bystander(fds, 3, &ends);
    /* The child may not have closed its own yet: until it has, the port is its to hold. */
    for (int at = 0; at < 3; at++) {
        CHECK(close(fds[at]) == 0);
    }
    for (;;) {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        int result = connect(fd, (struct sockaddr *)&address, sizeof address);
        int error = errno;
        CHECK(close(fd) == 0);
        if (result == -1) {
            CHECK(error == ECONNREFUSED);
            break;
        }
    }
    end_bystander(child, ends);
}

/* Who waits for the end alone is told of it, though a child lives. */
static void end_after_fork(void) {
    struct pair pair = make_pair();
    struct pollfd one = {pair.server, 0, 0};
    struct linger now = {1, 0};
    int fds[2] = {pair.client, pair.server}, ends;
    pid_t child;
    CHECK(poll(&one, 1, 0) == 0);
    child = bystander(fds, 2, &ends);
    CHECK(setsockopt(pair.client, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
    CHECK(close(pair.client) == 0);
    CHECK(poll(&one, 1, 20000) == 1 && one.revents & POLLHUP);
    end_bystander(child, ends);
    CHECK(close(pair.server) == 0);
}

/* A message that is no good is the call's fault, not the connection's. */
static void bad_second_message(void) {
    struct pair pair = make_pair();
    struct iovec piece = {"abc", 3};
    struct mmsghdr two[2];
    memset(two, 0, sizeof two);
    two[0].msg_hdr.msg_iov = two[1].msg_hdr.msg_iov = &piece;
    two[0].msg_hdr.msg_iovlen = 1;
    two[1].msg_hdr.msg_iovlen = 2000;
    CHECK(sendmmsg(pair.client, two, 2, 0) == 1);
    CHECK(write(pair.server, "q", 1) == 1);
    CHECK(read(pair.client, bytes, 8) == 1);
    CHECK(read(pair.server, bytes, 8) == 3);
    close_pair(pair);
}

/* An address without a port is where a connection comes from. */
static void address_without_port(void) {
    int listener = listen_anywhere(), fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, server;
    struct sockaddr_in address = loopback(0), peer;
    socklen_t length = sizeof peer;
    first_accept(listener);
    CHECK(setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) == 0);
    address.sin_addr.s_addr = inet_addr("127.0.0.9");
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    address = loopback(port_of(listener));
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    server = accept(listener, (struct sockaddr *)&peer, &length);
    CHECK(server >= 0 && peer.sin_addr.s_addr == inet_addr("127.0.0.9"));
    CHECK(same_names((struct pair){fd, server}));
    CHECK(close(listener) == 0);
    close_pair((struct pair){fd, server});
}

/* What was read ahead does not make fflush fail. */
static void stream_read_ahead(void) {
    struct pair pair = make_pair();
    FILE *stream = fdopen(pair.server, "r");
    CHECK(stream != NULL);
    CHECK(write(pair.client, "one\ntwo\n", 8) == 8);
    CHECK(fgets(bytes, 64, stream) != NULL && strcmp(bytes, "one\n") == 0);
    CHECK(fflush(stream) == 0);
    CHECK(fseek(stream, 0, SEEK_SET) == -1 && errno == ESPIPE);
    CHECK(fclose(stream) == 0 && close(pair.client) == 0);
}

/* The log goes to standard error, and not into a file that has its number. */
static void other_stderr(void) {
    int kept = dup(2), file;
    struct pair pair = make_pair();
    CHECK(kept >= 0 && close(2) == 0);
    file = open(".", O_TMPFILE | O_RDWR, 0600);
    CHECK(file == 2);
    close_pair(pair);
    close_pair(make_pair());
    CHECK(lseek(file, 0, SEEK_END) == 0);
    CHECK(dup2(kept, 2) == 2 && close(kept) == 0);
}

/* What MSG_TRUNC throws away is not written, and counted whole. */
static void thrown_away(void) {
    struct pair pair = make_pair();
    char four[] = "abcd";
    struct iovec piece = {four, 4};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    CHECK(write(pair.client, "0123456789", 10) == 10);
    CHECK(recvmsg(pair.server, &message, MSG_TRUNC) == 4 && strcmp(four, "abcd") == 0);
    CHECK(message.msg_iov == &piece && message.msg_iovlen == 1 && message.msg_flags == 0);
    CHECK(write(pair.client, bytes, sizeof bytes) == sizeof bytes);
    CHECK(recv(pair.server, NULL, 9006, MSG_TRUNC | MSG_WAITALL | MSG_PEEK) == 9006);
    CHECK(recv(pair.server, NULL, 9006, MSG_TRUNC | MSG_WAITALL) == 9006);
    CHECK(recv(pair.server, NULL, 1, MSG_TRUNC | MSG_DONTWAIT) == -1 && errno == EAGAIN);
    CHECK(write(pair.client, bytes, 5000) == 5000);
    readable(pair.server);
    for (int left = 5000; left > 0;) {
        left -= (int)recv(pair.server, NULL, 1 << 20, MSG_TRUNC);
        CHECK(left >= 0);
    }
    close_pair(pair);
}

/* The same of each of several messages. */
static void several_thrown_away(void) {
    struct pair pair = make_pair();
    char four[] = "abcd", five[] = "vwxyz";
    struct iovec pieces[2] = {{four, 4}, {five, 5}};
    struct mmsghdr two[2];
    struct timespec minute = {60, 0};
    memset(two, 0, sizeof two);
    for (int at = 0; at < 2; at++) {
        two[at].msg_hdr.msg_iov = &pieces[at];
        two[at].msg_hdr.msg_iovlen = 1;
    }
    CHECK(write(pair.client, "0123456789", 10) == 10);
    CHECK(recvmmsg(pair.server, two, 2, MSG_TRUNC | MSG_WAITALL, &minute) == 2);
    CHECK(two[0].msg_len == 4 && two[1].msg_len == 5);
    CHECK(strcmp(four, "abcd") == 0 && strcmp(five, "vwxyz") == 0);
    CHECK(two[1].msg_hdr.msg_iov == &pieces[1] && minute.tv_sec <= 60);
    CHECK(recvmmsg(pair.server, two, 2, MSG_TRUNC | MSG_WAITFORONE, NULL) == 1);
    CHECK(two[0].msg_len == 1 && strcmp(four, "abcd") == 0);
    CHECK(recvmmsg(pair.server, two, 2, MSG_TRUNC | MSG_DONTWAIT, NULL) == -1 && errno == EAGAIN);
    minute.tv_nsec = -1;
    CHECK(recvmmsg(pair.server, two, 2, MSG_TRUNC, &minute) == -1 && errno == EINVAL);
    close_pair(pair);
}

/* As many numbers as there may be at most, or so many. */
static void limit_to(rlim_t numbers) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = numbers == 0 ? limit.rlim_max : numbers;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* The length of the kernel's table. */
static int table_length(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    int length = -1;
    CHECK(file != NULL);
    while (length < 0 && fgets(line, sizeof line, file) != NULL) {
        sscanf(line, "FDSize: %d", &length);
    }
    CHECK(fclose(file) == 0);
    return length;
}

/* A connection that is waited for takes the numbers that TCP's takes, and the table is not longer for
   what is hidden than its place is high. */
static void takes_its_own_numbers(int table_most) {
    /* What SDP has once is made with the first one, by a thread of its own. */
    int first, set, before = table_length();
    struct pair pair = make_pair();
    struct pollfd one;
    struct epoll_event event = {EPOLLIN, {0}};
    close_pair(pair);
    first = dup(1);
    set = epoll_create1(0);
    pair = make_pair();
    one = (struct pollfd){pair.server, POLLIN, 0};
    CHECK(set == first + 1 && pair.client == first + 3 && pair.server == first + 4);
    CHECK(poll(&one, 1, 0) == 0);
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair.client, &event) == 0);
    /* The listener's, and then the next. */
    CHECK(dup(1) == first + 2 && dup(1) == first + 5 && dup(1) == first + 6);
    CHECK(table_length() <= table_most || table_length() <= before);
    CHECK(write(pair.client, "x", 1) == 1);
    CHECK(poll(&one, 1, 20000) == 1 && one.revents == POLLIN);
    close_pair(pair);
}

static void numbers_of_all(void) {
    limit_to(0);
    takes_its_own_numbers(1024);
}

static void numbers_of_1024(void) {
    limit_to(1024);
    takes_its_own_numbers(1024);
}

static void numbers_of_256(void) {
    limit_to(256);
    takes_its_own_numbers(256);
}

static void numbers_of_64(void) {
    limit_to(64);
    takes_its_own_numbers(64);
}

/* One ready descriptor in a set at the end of memory, and in one with something behind it, by a count
   of all there may be. */
static void is_selected(int fd) {
    long page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fd_set *edge = (fd_set *)(pages + page) - 1;
    static struct {
        fd_set set;
        unsigned char behind[4096];
    } alone;
    const struct timespec at_once = {0, 0};
    struct timeval second = {20, 0};
    CHECK(pages != MAP_FAILED && mprotect(pages + page, (size_t)page, PROT_NONE) == 0);
    FD_ZERO(edge);
    FD_SET(fd, edge);
    CHECK(select(getdtablesize(), edge, NULL, NULL, &second) == 1 && FD_ISSET(fd, edge));
    CHECK(pselect(getdtablesize(), edge, NULL, NULL, &at_once, NULL) == 1 && FD_ISSET(fd, edge));
    CHECK(munmap(pages, (size_t)page * 2) == 0);
    FD_ZERO(&alone.set);
    FD_SET(fd, &alone.set);
    memset(alone.behind, 0xa5, sizeof alone.behind);
    CHECK(select(getdtablesize(), &alone.set, NULL, NULL, &second) == 1);
    for (size_t at = 0; at < sizeof alone.behind; at++) {
        CHECK(alone.behind[at] == 0xa5);
    }
}

/* A count of all that there may be reaches no further than the program's own descriptors. */
static void sets_of_old_programs(void) {
    int ends[2], set = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {0}};
    struct pair pair;
    unsigned long large[4096 / 8 / sizeof(unsigned long)];
    limit_to(0);
    CHECK(getdtablesize() > 4096);
    CHECK(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
    pair = make_pair();
    CHECK(write(pair.client, "x", 1) == 1);
    is_selected(ends[0]);
    is_selected(pair.server);
    /* So many that there is no room for them among the first numbers. */
    for (int at = 0; at < 200; at++) {
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, dup(pair.client), &event) == 0);
    }
    CHECK(table_length() > 1024);
    is_selected(ends[0]);
    is_selected(pair.server);
    /* What the program itself has beyond FD_SETSIZE is looked at. */
    CHECK(dup2(ends[0], 1500) == 1500 && dup2(pair.server, 1700) == 1700);
    for (int among = 0; among < 3; among++) {
        const int bits = 8 * (int)sizeof large[0];
        struct timeval second = {20, 0};
        memset(large, 0, sizeof large);
        large[1500 / bits] |= among == 1 ? 0 : 1UL << 1500 % bits;
        large[1700 / bits] |= among == 0 ? 0 : 1UL << 1700 % bits;
        CHECK(select(getdtablesize(), (fd_set *)large, NULL, NULL, &second) == 1 + among / 2);
        CHECK(among == 1 || large[1500 / bits] == 1UL << 1500 % bits);
        CHECK(among == 0 || large[1700 / bits] == 1UL << 1700 % bits);
    }
}

/* How many descriptors there are, one of this look included. */
static int open_count(void) {
    int count = 0;
    DIR *all = opendir("/proc/self/fd");
    CHECK(all != NULL);
    while (readdir(all) != NULL) {
        count++;
    }
    CHECK(closedir(all) == 0);
    return count;
}

/* Who deletes and adds again pays no descriptor, and none is left over. A peer may lend its own meanwhile,
   once for each connection: fewer than there are rounds. */
static void added_again(void) {
    int first = epoll_create1(0), second = epoll_create1(0), before, most, kept = 0;
    struct epoll_event event = {EPOLLIN, {.fd = 7}}, told;
    struct pair pair = make_pair();
    CHECK(write(pair.client, "x", 1) == 1);
    CHECK(epoll_ctl(first, EPOLL_CTL_ADD, pair.server, &event) == 0);
    most = open_count() + 10;
    for (int round = 0; round < 100; round++) {
        CHECK(epoll_wait(first, &told, 1, 20000) == 1 && told.data.fd == 7);
        CHECK(epoll_ctl(first, EPOLL_CTL_DEL, pair.server, NULL) == 0);
        CHECK(epoll_wait(first, &told, 1, 0) == 0);
        before = open_count();
        CHECK(epoll_ctl(first, EPOLL_CTL_DEL, pair.server, NULL) == -1 && errno == ENOENT);
        CHECK(epoll_ctl(first, EPOLL_CTL_ADD, pair.server, &event) == 0 && open_count() <= most);
        kept += open_count() == before;
        CHECK(epoll_ctl(first, EPOLL_CTL_ADD, pair.server, &event) == -1 && errno == EEXIST);
    }
    CHECK(kept >= 90);
    /* Two sets at once have two, whichever was there first. */
    CHECK(epoll_ctl(second, EPOLL_CTL_ADD, pair.server, &event) == 0);
    CHECK(epoll_ctl(first, EPOLL_CTL_DEL, pair.server, NULL) == 0);
    CHECK(epoll_wait(second, &told, 1, 20000) == 1 && epoll_wait(first, &told, 1, 0) == 0);
    CHECK(epoll_ctl(second, EPOLL_CTL_DEL, pair.server, NULL) == 0);
    before = open_count();
    CHECK(before <= most);
    close_pair(pair);
    CHECK(open_count() <= before - 3);
}

/* The numbers from 896 on that are open. */
static int high_numbers(int *numbers, int most) {
    int count = 0;
    for (int fd = 896; fd < 1024 && count < most; fd++) {
        if (syscall(SYS_fcntl, fd, F_GETFD) >= 0) {
            numbers[count++] = fd;
        }
    }
    return count;
}

/* A connection speaks in both directions, and whoever waits is told. */
static void still_speaks(struct pair pair) {
    CHECK(write(pair.client, "there", 5) == 5);
    readable(pair.server);
    CHECK(read(pair.server, bytes, 8) == 5);
    CHECK(write(pair.server, "back", 4) == 4);
    readable(pair.client);
    CHECK(read(pair.client, bytes, 8) == 4);
}

/* To the program the library's descriptors are not open: it can neither close them nor take their
   numbers, and has every number that the library does not use. */
static void hidden_ones_stay(void) {
    int numbers[128], count, own;
    struct pair pair;
    limit_to(1024);
    pair = make_pair();
    still_speaks(pair);
    count = high_numbers(numbers, 128);
    CHECK(count > 5);
    for (int at = 0; at < count; at++) {
        CHECK(close(numbers[at]) == -1 && errno == EBADF);
        CHECK(dup2(1, numbers[at]) == -1 && errno == EBUSY);
        CHECK(dup3(pair.client, numbers[at], O_CLOEXEC) == -1 && errno == EBUSY);
        CHECK(dup2(800, numbers[at]) == -1 && errno == EBADF);
        CHECK(dup2(numbers[at], numbers[at]) == -1 && errno == EBADF);
    }
    own = fcntl(1, F_DUPFD, 896);
    CHECK(own >= 896 && close_range(896, 1023, 0) == 0);
    CHECK(fcntl(own, F_GETFD) == -1);
    CHECK(dup2(1, own) == own && dup2(pair.client, own) == own && close(own) == 0);
    closefrom(896);
    still_speaks(pair);
    for (int fd = 896; fd < 1024; fd++) {
        close(fd);
    }
    still_speaks(pair);
    close_pair(pair);
    /* Everything that there may be, as daemons do it. */
    CHECK(close_range(3, ~0U, 0) == 0);
    pair = make_pair();
    still_speaks(pair);
    closefrom(3);
    CHECK(write(pair.client, "x", 1) == -1 && errno == EBADF);
    pair = make_pair();
    still_speaks(pair);
    for (int fd = 3; fd < getdtablesize(); fd++) {
        close(fd);
    }
    pair = make_pair();
    still_speaks(pair);
    close_pair(pair);
    /* What the library has no more is the program's. */
    for (int round = 0; round < 200; round++) {
        pair = make_pair();
        still_speaks(pair);
        close_pair(pair);
        own = fcntl(1, F_DUPFD, 896);
        CHECK(own >= 896 && close(own) == 0);
    }
}

/* A child has no descriptor of its parent's library to keep, and a daemon that closes all of them speaks. */
static void hidden_ones_of_a_parent(void) {
    struct pair pair = make_pair();
    int status = -1, numbers[128];
    pid_t child;
    still_speaks(pair);
    child = fork();
    if (child == 0) {
        limit_to(1024);
        for (int fd = 3; fd < 1024; fd++) {
            close(fd);
        }
        CHECK(high_numbers(numbers, 128) == 0);
        pair = make_pair();
        still_speaks(pair);
        CHECK(high_numbers(numbers, 128) > 5);
        closefrom(3);
        pair = make_pair();
        still_speaks(pair);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    still_speaks(pair);
    close_pair(pair);
}

/* A child of vfork has a table of its own, with which it does what it likes. */
static int takes_a_number(int number) {
    int status = -1;
    pid_t child = vfork();
    if (child == 0) {
        _exit(dup2(1, number) == number && close(number) == 0 ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child);
    return status == 0;
}

static void hidden_ones_and_vfork(void) {
    int numbers[128];
    struct pair pair;
    limit_to(1024);
    pair = make_pair();
    still_speaks(pair);
    CHECK(high_numbers(numbers, 128) > 5 && takes_a_number(numbers[0]));
    CHECK(dup2(1, numbers[0]) == -1 && errno == EBUSY);
    still_speaks(pair);
    close_pair(pair);
}

/* Which registrations of fork handlers fail for want of memory, counted from 0 on; what else there is,
   the C library has. */
static int refused_from = 1000, refused_to = 1000, registered;

int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void), void *whose);

int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void), void *whose) {
    int (*libcs)(void (*)(void), void (*)(void), void (*)(void), void *);
    int number = registered++;
    if (number >= refused_from && number < refused_to) {
        return ENOMEM;
    }
    *(void **)&libcs = dlsym(RTLD_NEXT, "__register_atfork");
    return libcs(before, parent, child, whose);
}

/* Both of a new connection speak, and it is TCP's or is not. */
static void speaks(int by_tcp) {
    struct pair pair = make_pair();
    struct sockaddr_in name;
    socklen_t length = sizeof name;
    CHECK((syscall(SYS_getpeername, pair.client, &name, &length) == 0) == by_tcp);
    CHECK(write(pair.client, "there", 5) == 5 && read(pair.server, bytes, 8) == 5);
    close_pair(pair);
}

/* Without memory for a fork handler sockets are TCP's, as long as that is so. */
static void no_memory_for_forks(void) {
    pid_t child;
    int status = -1;
    refused_from = registered;
    speaks(1);
    child = fork();
    if (child == 0) {
        speaks(1);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    speaks(1);
    refused_from = 1000;
    speaks(0);
}

/* Without memory for libsdp's own a child has its own sockets all the same. */
static void no_memory_for_libsdp(void) {
    struct pair pair;
    pid_t child;
    int status = -1;
    refused_from = registered + 1;
    pair = make_pair();
    CHECK(registered > refused_from);
    for (int turn = 0; turn < 2; turn++) {
        child = fork();
        if (child == 0) {
            speaks(0);
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(write(pair.client, "there", 5) == 5 && read(pair.server, bytes, 8) == 5);
    }
    close_pair(pair);
}

/* A signal ends a connect that waits, which goes on meanwhile. */
static void signal_in_connect(void) {
    struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = count_signal};
    struct sockaddr_in address = loopback(0);
    int listener = socket(AF_INET, SOCK_STREAM, 0), fds[64], count = 0, result, error;
    struct pollfd one;
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(listener, 1) == 0);
    address = loopback(port_of(listener));
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    /* Until the listener's queue is full. */
    do {
        CHECK(count < 64);
        fds[count] = socket(AF_INET, SOCK_STREAM, 0);
        result = connect(fds[count], (struct sockaddr *)&address, sizeof address);
        error = errno;
        count++;
    } while (result == 0);
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(error == EINTR && signals > 0);
    for (int at = 0; at < count; at++) {
        int server = accept(listener, NULL, NULL);
        CHECK(server >= 0 && close(server) == 0);
    }
    one = (struct pollfd){fds[count - 1], POLLOUT, 0};
    CHECK(poll(&one, 1, 20000) == 1 && one.revents & POLLOUT);
    CHECK(connect(fds[count - 1], (struct sockaddr *)&address, sizeof address) == 0 ||
          errno == EISCONN);
}

int main(int count, char **words) {
    const struct one_case cases[] = {
        CASE(port_after_fork),
        CASE(end_after_fork),
        CASE(bad_second_message),
        CASE(address_without_port),
        CASE(stream_read_ahead),
        CASE(other_stderr),
        CASE(thrown_away),
        CASE(several_thrown_away),
        CASE(numbers_of_all),
        CASE(numbers_of_1024),
        CASE(numbers_of_256),
        CASE(numbers_of_64),
        CASE(sets_of_old_programs),
        CASE(added_again),
        CASE(hidden_ones_stay),
        CASE(hidden_ones_of_a_parent),
        CASE(hidden_ones_and_vfork),
        CASE(no_memory_for_forks),
        CASE(no_memory_for_libsdp),
        CASE(signal_in_connect),
    };
    return run_case(cases, sizeof cases / sizeof cases[0], count, words);
}
