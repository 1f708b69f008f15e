/* What is told to whoever waits for a socket, event by event. */
#ifndef DIFFER_WAITS_H
#define DIFFER_WAITS_H

#include "phases.h"

static const struct named events[] = {
    {"0", 0},
    NAMED(POLLIN),
    NAMED(POLLPRI),
    NAMED(POLLOUT),
    NAMED(POLLERR),
    NAMED(POLLHUP),
    NAMED(POLLNVAL),
    NAMED(POLLRDNORM),
    NAMED(POLLRDBAND),
    NAMED(POLLWRNORM),
    NAMED(POLLWRBAND),
    NAMED(POLLRDHUP),
};

static void polls_by_event(int s) {
    for (size_t i = 0; i < COUNT(events); i++) {
        char text[64];
        snprintf(text, sizeof text, "S(poll)(%s)", events[i].name);
        errno = 0;
        /* As it is: others are told although nobody asks for them. */
        say(text, poll_one(s, (short)events[i].number, 0));
    }
}

/* What each call leaves to be told. */
static void polls_behind_calls(int s) {
    char bytes[8];
    struct pollfd polled = {s, POLLIN | POLLOUT | POLLPRI | POLLRDHUP, 0};
    do_not_wait(s);
#define BEHIND(call)                                                       \
    do {                                                                   \
        errno = 0;                                                         \
        say(#call, (long)(call));                                          \
        MUST(S(poll)(&polled, 1, 0) >= 0);                                 \
        printf("%s: shows %#x\n", phase, (unsigned)polled.revents);        \
    } while (0)
    BEHIND(S(recv)(s, bytes, 2, MSG_PEEK));
    BEHIND(S(recv)(s, bytes, 1, MSG_OOB));
    BEHIND(S(recv)(s, bytes, 2, 0));
    BEHIND(S(recv)(s, bytes, 8, 0));
    BEHIND(S(recv)(s, bytes, 8, 0));
    BEHIND(S(send)(s, "a", 1, MSG_NOSIGNAL));
    BEHIND(S(send)(s, "a", 1, MSG_NOSIGNAL));
    BEHIND(S(recv)(s, bytes, 8, 0));
#undef BEHIND
}

static void selects(int s) {
    const char *names[] = {"for reading", "for writing", "for urgent bytes"};
    int fd = WAITABLE(s);
    for (int which = 0; which < 3 && fd < FD_SETSIZE; which++) {
        char text[64];
        fd_set set;
        struct timeval none = {0, 0};
        FD_ZERO(&set);
        if (fd >= 0) {
            FD_SET(fd, &set);
        }
        errno = fd < 0 ? EBADF : 0;
        int result = fd < 0 ? -1
                            : select(fd + 1, which == 0 ? &set : NULL, which == 1 ? &set : NULL,
                                     which == 2 ? &set : NULL, &none);
        snprintf(text, sizeof text, "S(select)(%s)", names[which]);
        say(text, result);
    }
}

static const struct named sets_of_events[] = {
    NAMED(EPOLLIN),
    NAMED(EPOLLOUT),
    NAMED(EPOLLPRI),
    NAMED(EPOLLRDHUP),
    {"EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP", EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP},
};

static const struct named modes_of_events[] = {
    {"", 0},
    {" | EPOLLET", (int)EPOLLET},
    {" | EPOLLONESHOT", EPOLLONESHOT},
    {" | EPOLLEXCLUSIVE", EPOLLEXCLUSIVE},
};

/* One line of epoll, as say(), with the events that are told. */
static void says_events(const char *call, const char *asked, int result,
                        const struct epoll_event *got) {
    int why = errno;
    printf("%s: S(%s)(%s) = ", phase, call, asked);
    if (result == -1) {
        printf("%s\n", strerrorname_np(why));
    } else if (result == 1 && got != NULL) {
        printf("1 %#x data %d\n", (unsigned)got->events, (int)got->data.u64);
    } else {
        printf("%d\n", result);
    }
}

/* Told once, told again, told after it is asked for again, and not told when it is not asked for. */
static void epolls(int s) {
    int fd = WAITABLE(s);
    for (size_t e = 0; e < COUNT(sets_of_events); e++) {
        for (size_t m = 0; m < COUNT(modes_of_events); m++) {
            char asked[96];
            snprintf(asked, sizeof asked, "%s%s", sets_of_events[e].name, modes_of_events[m].name);
            struct epoll_event event, got;
            memset(&event, 0, sizeof event);
            event.events = (uint32_t)(sets_of_events[e].number | modes_of_events[m].number);
            event.data.u64 = 7;
            int set = epoll_create1(0);
            MUST(set >= 0);
            errno = 0;
            says_events("epoll_ctl", asked, epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), NULL);
            for (int again = 0; again < 2; again++) {
                says_events("epoll_wait", asked, epoll_wait(set, &got, 1, 0), &got);
            }
            event.data.u64 = 8;
            says_events("epoll_ctl", asked, epoll_ctl(set, EPOLL_CTL_MOD, fd, &event), NULL);
            says_events("epoll_wait", asked, epoll_wait(set, &got, 1, 0), &got);
            says_events("epoll_ctl", asked, epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), NULL);
            says_events("epoll_ctl", asked, epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL), NULL);
            says_events("epoll_wait", asked, epoll_wait(set, &got, 1, 0), &got);
            MUST(close(set) == 0);
        }
    }
}

#endif
