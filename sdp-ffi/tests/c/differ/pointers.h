/* Memory that is not there, or that cannot be written, as an argument. Each call in a process of its
 * own, since a library that touches such memory ends it, where the kernel says EFAULT. */
#ifndef DIFFER_POINTERS_H
#define DIFFER_POINTERS_H

#include "phases.h"

extern char **environ;

static void *nowhere, *read_only;
/* The call that is under way, for the handler. */
static const char *volatile under_way;

/* What say() would print, had the call come back. */
static void on_fault(int number) {
    const char *parts[] = {phase, ": ", under_way, " = ",
                           number == SIGSEGV ? "SIGSEGV\n" : "SIGBUS\n"};
    for (size_t i = 0; i < COUNT(parts); i++) {
        if (write(STDOUT_FILENO, parts[i], strlen(parts[i])) < 0) {
            break;
        }
    }
    /* Past everything: the thread may hold locks. */
    syscall(SYS_exit_group, 0);
}

static void prepare_faults(void) {
    struct sigaction action;
    nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    read_only = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(nowhere != MAP_FAILED && read_only != MAP_FAILED);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_fault;
    MUST(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
}

/* The calls by number, counted from 0; -1 makes none. Says how many there are. */
static int fault(int which) {
    char bytes[8];
    struct sockaddr_in address = loopback(0);
    struct sockaddr *name = (struct sockaddr *)&address;
    socklen_t length = sizeof address;
    struct iovec bad_piece = {nowhere, 1}, good_piece = {bytes, 1};
    struct msghdr message, bad_pieces, bad_array;
    int at = 0, s = -1;
    memset(&message, 0, sizeof message);
    message.msg_iov = &good_piece;
    message.msg_iovlen = 1;
    bad_pieces = bad_array = message;
    bad_pieces.msg_iov = &bad_piece;
    bad_array.msg_iov = (struct iovec *)nowhere;
#define FAULT(make, call)            \
    do {                             \
        if (which == at++) {         \
            s = make();              \
            do_not_wait(s);          \
            fflush(stdout);          \
            under_way = #call;       \
            errno = 0;               \
            say(#call, (long)(call)); \
            S(close)(s);             \
            leave();                 \
        }                            \
    } while (0)
    FAULT(with_bytes, S(recv)(s, nowhere, 1, 0));
    FAULT(with_bytes, S(recv)(s, read_only, 1, 0));
    FAULT(with_bytes, S(recv)(s, nowhere, 1, MSG_PEEK));
    FAULT(with_urgent, S(recv)(s, nowhere, 1, MSG_OOB));
    FAULT(connected, S(recv)(s, nowhere, 1, 0));
    FAULT(fresh, S(recv)(s, nowhere, 1, 0));
    FAULT(with_bytes, S(read)(s, nowhere, 1));
    FAULT(with_bytes, S(readv)(s, &bad_piece, 1));
    FAULT(with_bytes, S(readv)(s, (struct iovec *)nowhere, 1));
    FAULT(with_bytes, S(recvfrom)(s, bytes, 1, 0, name, (socklen_t *)nowhere));
    FAULT(with_bytes, S(recvmsg)(s, &bad_pieces, 0));
    FAULT(with_bytes, S(recvmsg)(s, &bad_array, 0));
    FAULT(with_bytes, S(recvmsg)(s, (struct msghdr *)nowhere, 0));
    FAULT(with_bytes, S(recvmmsg)(s, (struct mmsghdr *)nowhere, 1, 0, NULL));
    FAULT(connected, S(send)(s, nowhere, 1, 0));
    FAULT(connected, S(send)(s, nowhere, 1, MSG_OOB));
    FAULT(fresh, S(send)(s, nowhere, 1, MSG_NOSIGNAL));
    FAULT(connected, S(write)(s, nowhere, 1));
    FAULT(connected, S(writev)(s, &bad_piece, 1));
    FAULT(connected, S(writev)(s, (struct iovec *)nowhere, 1));
    FAULT(connected, S(sendto)(s, nowhere, 1, 0, NULL, 0));
    FAULT(connected, S(sendto)(s, "a", 1, 0, (struct sockaddr *)nowhere, sizeof address));
    FAULT(connected, S(sendmsg)(s, &bad_pieces, 0));
    FAULT(connected, S(sendmsg)(s, &bad_array, 0));
    FAULT(connected, S(sendmsg)(s, (struct msghdr *)nowhere, 0));
    FAULT(connected, S(sendmmsg)(s, (struct mmsghdr *)nowhere, 1, 0));
    FAULT(connected, S(sendfile)(s, 0, (off_t *)nowhere, 1));
    FAULT(fresh, S(bind)(s, (struct sockaddr *)nowhere, sizeof address));
    FAULT(fresh, S(connect)(s, (struct sockaddr *)nowhere, sizeof address));
    FAULT(called, S(accept)(s, (struct sockaddr *)nowhere, &length));
    FAULT(called, S(accept)(s, name, (socklen_t *)nowhere));
    FAULT(connected, S(getsockname)(s, (struct sockaddr *)nowhere, &length));
    FAULT(connected, S(getsockname)(s, name, (socklen_t *)nowhere));
    FAULT(connected, S(getpeername)(s, (struct sockaddr *)nowhere, &length));
    FAULT(connected, S(getpeername)(s, name, (socklen_t *)nowhere));
    FAULT(connected, S(setsockopt)(s, IPPROTO_TCP, TCP_NODELAY, nowhere, sizeof(int)));
    FAULT(connected, S(getsockopt)(s, IPPROTO_TCP, TCP_NODELAY, nowhere, &length));
    FAULT(connected, S(getsockopt)(s, IPPROTO_TCP, TCP_NODELAY, bytes, (socklen_t *)nowhere));
    FAULT(connected, S(getsockopt)(s, IPPROTO_TCP, TCP_NODELAY, read_only, &length));
    FAULT(connected, S(ioctl)(s, FIONREAD, nowhere));
    FAULT(connected, S(ioctl)(s, FIONBIO, nowhere));
    FAULT(connected, S(poll)((struct pollfd *)nowhere, 1, 0));
    FAULT(connected, S(poll)((struct pollfd *)read_only, 1, 0));
    FAULT(connected, S(ppoll)((struct pollfd *)nowhere, 1, NULL, NULL));
#undef FAULT
    return at;
}

/* One of them, in the process that is asked for it. */
static int one_fault(int which) {
    phase = "bad memory, faults";
    prepare_faults();
    fault(which);
    return 0;
}

/* All of them, each by a process that begins anew. */
static void faults(void) {
    for (int which = 0, all = fault(-1); which < all; which++) {
        char number[16];
        char program[] = "/proc/self/exe", what[] = "fault";
        char *arguments[] = {program, what, number, NULL};
        pid_t child;
        int status;
        snprintf(number, sizeof number, "%d", which);
        fflush(stdout);
        MUST(posix_spawn(&child, program, NULL, NULL, arguments, environ) == 0);
        MUST(waitpid(child, &status, 0) == child);
        if (status != 0) {
            printf("bad memory, faults: S(process)(%d) = %#x\n", which, (unsigned)status);
        }
    }
}

#endif
