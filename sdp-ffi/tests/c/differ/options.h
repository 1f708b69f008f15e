/* Every option, with values and lengths that are right and wrong. */
#ifndef DIFFER_OPTIONS_H
#define DIFFER_OPTIONS_H

#include "phases.h"

struct option {
    const char *name;
    int level, option;
};

#define OPTION(level, option) {#option, level, option}

/* Options whose values are the same everywhere. */
static const struct option options[] = {
    OPTION(SOL_SOCKET, SO_TYPE),        OPTION(SOL_SOCKET, SO_DOMAIN),
    OPTION(SOL_SOCKET, SO_PROTOCOL),    OPTION(SOL_SOCKET, SO_ACCEPTCONN),
    OPTION(SOL_SOCKET, SO_ERROR),       OPTION(SOL_SOCKET, SO_ERROR),
    OPTION(SOL_SOCKET, SO_REUSEADDR),   OPTION(SOL_SOCKET, SO_REUSEPORT),
    OPTION(SOL_SOCKET, SO_KEEPALIVE),   OPTION(SOL_SOCKET, SO_BROADCAST),
    OPTION(SOL_SOCKET, SO_OOBINLINE),   OPTION(SOL_SOCKET, SO_LINGER),
    OPTION(SOL_SOCKET, SO_RCVTIMEO),    OPTION(SOL_SOCKET, SO_SNDTIMEO),
    OPTION(SOL_SOCKET, SO_RCVLOWAT),    OPTION(SOL_SOCKET, SO_SNDLOWAT),
    OPTION(SOL_SOCKET, SO_PRIORITY),    OPTION(IPPROTO_TCP, TCP_NODELAY),
    OPTION(IPPROTO_TCP, TCP_CORK),      OPTION(IPPROTO_TCP, TCP_KEEPIDLE),
    OPTION(IPPROTO_TCP, TCP_KEEPINTVL), OPTION(IPPROTO_TCP, TCP_KEEPCNT),
    OPTION(IPPROTO_TCP, TCP_SYNCNT),    OPTION(IPPROTO_TCP, TCP_LINGER2),
    OPTION(IPPROTO_TCP, TCP_QUICKACK),  OPTION(IPPROTO_TCP, TCP_DEFER_ACCEPT),
    OPTION(IPPROTO_IP, IP_TOS),         OPTION(IPPROTO_IP, IP_TTL),
    OPTION(IPPROTO_IPV6, IPV6_V6ONLY),  OPTION(SOL_SOCKET, 9999),
    OPTION(IPPROTO_TCP, 9999),          OPTION(IPPROTO_TCP, TCP_USER_TIMEOUT),
    OPTION(IPPROTO_TCP, TCP_FASTOPEN_CONNECT),
};

/* The others of Linux 5.4, whose values are the machine's or the moment's: results are compared. Left
 * out is what depends on the user's rights alone, or on whether a route is remembered (IP_MTU), and what
 * makes another socket of one. */
static const struct option others_of_linux[] = {
    OPTION(SOL_SOCKET, SO_DONTROUTE),      OPTION(SOL_SOCKET, SO_SNDBUF),
    OPTION(SOL_SOCKET, SO_RCVBUF),         OPTION(SOL_SOCKET, SO_NO_CHECK),
    OPTION(SOL_SOCKET, SO_BSDCOMPAT),      OPTION(SOL_SOCKET, SO_PASSCRED),
    OPTION(SOL_SOCKET, SO_PEERCRED),       OPTION(SOL_SOCKET, SO_BINDTODEVICE),
    OPTION(SOL_SOCKET, SO_ATTACH_FILTER),  OPTION(SOL_SOCKET, SO_DETACH_FILTER),
    OPTION(SOL_SOCKET, SO_PEERNAME),       OPTION(SOL_SOCKET, SO_TIMESTAMP),
    OPTION(SOL_SOCKET, SO_TIMESTAMPNS),    OPTION(SOL_SOCKET, SO_TIMESTAMPING),
    OPTION(SOL_SOCKET, SO_MARK),           OPTION(SOL_SOCKET, SO_RXQ_OVFL),
    OPTION(SOL_SOCKET, SO_WIFI_STATUS),    OPTION(SOL_SOCKET, SO_NOFCS),
    OPTION(SOL_SOCKET, SO_LOCK_FILTER),    OPTION(SOL_SOCKET, SO_SELECT_ERR_QUEUE),
    OPTION(SOL_SOCKET, SO_BUSY_POLL),      OPTION(SOL_SOCKET, SO_MAX_PACING_RATE),
    OPTION(SOL_SOCKET, SO_BPF_EXTENSIONS), OPTION(SOL_SOCKET, SO_INCOMING_CPU),
    OPTION(SOL_SOCKET, SO_ATTACH_BPF),     OPTION(SOL_SOCKET, SO_CNX_ADVICE),
    OPTION(SOL_SOCKET, SO_MEMINFO),        OPTION(SOL_SOCKET, SO_INCOMING_NAPI_ID),
    OPTION(SOL_SOCKET, SO_COOKIE),         OPTION(SOL_SOCKET, SO_ZEROCOPY),
    OPTION(SOL_SOCKET, SO_TXTIME),         OPTION(SOL_SOCKET, SO_BINDTOIFINDEX),
    OPTION(IPPROTO_TCP, TCP_MAXSEG),       OPTION(IPPROTO_TCP, TCP_WINDOW_CLAMP),
    OPTION(IPPROTO_TCP, TCP_INFO),         OPTION(IPPROTO_TCP, TCP_CONGESTION),
    OPTION(IPPROTO_TCP, TCP_MD5SIG),       OPTION(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS),
    OPTION(IPPROTO_TCP, TCP_THIN_DUPACK),  OPTION(IPPROTO_TCP, TCP_FASTOPEN),
    OPTION(IPPROTO_TCP, TCP_TIMESTAMP),    OPTION(IPPROTO_TCP, TCP_NOTSENT_LOWAT),
    OPTION(IPPROTO_TCP, TCP_CC_INFO),      OPTION(IPPROTO_TCP, TCP_SAVE_SYN),
    OPTION(IPPROTO_TCP, TCP_SAVED_SYN),    OPTION(IPPROTO_TCP, TCP_ULP),
    OPTION(IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE), OPTION(IPPROTO_TCP, TCP_INQ),
    OPTION(IPPROTO_IP, IP_HDRINCL),        OPTION(IPPROTO_IP, IP_OPTIONS),
    OPTION(IPPROTO_IP, IP_RECVOPTS),       OPTION(IPPROTO_IP, IP_RETOPTS),
    OPTION(IPPROTO_IP, IP_PKTINFO),        OPTION(IPPROTO_IP, IP_MTU_DISCOVER),
    OPTION(IPPROTO_IP, IP_RECVERR),        OPTION(IPPROTO_IP, IP_RECVTTL),
    OPTION(IPPROTO_IP, IP_RECVTOS),        OPTION(IPPROTO_IP, IP_FREEBIND),
    OPTION(IPPROTO_IP, IP_TRANSPARENT),    OPTION(IPPROTO_IP, IP_MINTTL),
    OPTION(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT), OPTION(IPPROTO_IP, IP_MULTICAST_TTL),
    OPTION(IPPROTO_IP, IP_UNICAST_IF),
    OPTION(IPPROTO_IPV6, IPV6_TCLASS),     OPTION(IPPROTO_IPV6, IPV6_UNICAST_HOPS),
    OPTION(IPPROTO_IPV6, IPV6_MTU_DISCOVER), OPTION(IPPROTO_IPV6, IPV6_RECVERR),
    OPTION(IPPROTO_IPV6, IPV6_RECVPKTINFO), OPTION(IPPROTO_IPV6, IPV6_DONTFRAG),
};

/* One line, as say(): a call of which the arguments are told in words, and the bytes that it gave. */
static void shows(const char *function, const char *what, int result, const unsigned char *value,
                  socklen_t length) {
    int why = errno;
    printf("%s: S(%s)(%s) = ", phase, function, what);
    if (result == -1) {
        printf("%s", strerrorname_np(why));
    } else {
        printf("%d ", result);
    }
    for (socklen_t i = 0; result == 0 && i < length; i++) {
        printf("%02x", value[i]);
    }
    putchar('\n');
}

static void gets_one(int s, const struct option *option) {
    unsigned char value[32];
    socklen_t length = sizeof value;
    int result = S(getsockopt)(s, option->level, option->option, value, &length);
    shows("getsockopt", option->name, result, value, length);
}

static void asks_options(int s) {
    unsigned char value[32];
    for (size_t i = 0; i < COUNT(options); i++) {
        gets_one(s, &options[i]);
    }
    socklen_t length = sizeof value;
    SAY(S(getsockopt)(s, SOL_SOCKET, SO_TYPE, NULL, &length));
    SAY(S(getsockopt)(s, SOL_SOCKET, SO_TYPE, value, NULL));
    length = (socklen_t)-1;
    SAY(S(getsockopt)(s, SOL_SOCKET, SO_TYPE, value, &length));
}

/* Whether what an option takes is bounded by what differs: buffers, the system's settings, privileges,
 * rounding. */
static int is_bounded_elsewhere(const struct option *option) {
    return option->level == SOL_SOCKET
               ? option->option == SO_RCVLOWAT || option->option == SO_PRIORITY
               : option->level == IPPROTO_TCP &&
                     (option->option == TCP_LINGER2 || option->option == TCP_DEFER_ACCEPT);
}

static int is_time(const struct option *option) {
    return option->level == SOL_SOCKET &&
           (option->option == SO_RCVTIMEO || option->option == SO_SNDTIMEO);
}

static void sets_options(int s) {
    const int values[] = {1, 0, -1, 7, 300, 40000, INT_MAX};
    for (size_t i = 0; i < COUNT(options); i++) {
        const struct option *option = &options[i];
        if (is_bounded_elsewhere(option)) {
            continue;
        }
        for (size_t v = 0; v < COUNT(values); v++) {
            char what[64];
            if (option->option == SO_LINGER && values[v] < 0) {
                /* Linux reads back what is left of its longest time in an int. */
                continue;
            }
            int pair[4] = {values[v], values[v], 0, 0};
            snprintf(what, sizeof what, "%s, %d", option->name, values[v]);
            int result = S(setsockopt)(s, option->level, option->option, pair,
                                       is_time(option) ? sizeof pair : 2 * sizeof pair[0]);
            shows("setsockopt", what, result, NULL, 0);
            gets_one(s, option);
        }
    }
    SAY(S(setsockopt)(s, SOL_SOCKET, SO_KEEPALIVE, NULL, sizeof(int)));
}

/* Whether it works, not what it says. */
static void asks_other_options(int s) {
    const int values[] = {1, 0};
    for (size_t i = 0; i < COUNT(others_of_linux); i++) {
        const struct option *option = &others_of_linux[i];
        unsigned char value[256];
        memset(value, 0, sizeof value);
        socklen_t length = sizeof value;
        int result = S(getsockopt)(s, option->level, option->option, value, &length);
        shows("getsockopt", option->name, result, NULL, 0);
        for (size_t v = 0; v < COUNT(values); v++) {
            char what[64];
            int pair[4] = {values[v], 0, 0, 0};
            snprintf(what, sizeof what, "%s, %d", option->name, values[v]);
            result = S(setsockopt)(s, option->level, option->option, pair, sizeof pair[0]);
            shows("setsockopt", what, result, NULL, 0);
        }
    }
}

/* Values that are too short, too long, or nowhere near. */
static void tries_lengths(int s, const struct option *option, int shows_value) {
    const socklen_t lengths[] = {0, 1, 2, 3, 5, 200, (socklen_t)-1};
    const int value[50] = {1};
    unsigned char got[200];
    char what[64];
    for (size_t i = 0; i < COUNT(lengths); i++) {
        snprintf(what, sizeof what, "%s, length %d", option->name, (int)lengths[i]);
        if (!is_bounded_elsewhere(option)) {
            int result = S(setsockopt)(s, option->level, option->option, value, lengths[i]);
            shows("setsockopt", what, result, NULL, 0);
        }
        socklen_t length = lengths[i];
        memset(got, 0, sizeof got);
        int result = S(getsockopt)(s, option->level, option->option, got, &length);
        shows("getsockopt", what, result, got, shows_value ? length : 0);
    }
}

static void sets_lengths(int s) {
    for (size_t i = 0; i < COUNT(options); i++) {
        tries_lengths(s, &options[i], 1);
    }
}

/* The same numbers where nobody has options. */
static void asks_other_levels(int s) {
    const struct named levels[] = {NAMED(IPPROTO_UDP), {"level 77", 77}, {"level -1", -1}};
    for (size_t l = 0; l < COUNT(levels); l++) {
        const int numbers[] = {0, 1, 3, 80, -1};
        for (size_t i = 0; i < COUNT(numbers); i++) {
            struct option option = {levels[l].name, levels[l].number, numbers[i]};
            tries_lengths(s, &option, 0);
        }
    }
}

#endif
