/* Every call in every phase of a socket, with good and odd arguments. Built twice, with libc's sockets
 * and with libsdp's, or run twice, without the preload library and with it, it prints what each call
 * gives: both must print the same.
 *
 * differ [room N] [descriptors] [sparse]: N callers, not one, find room in a backlog of none; also what
 * only descriptors have is asked for; of what is asked in turns only some, and no memory is touched that is
 * not there, as suits a checker of memory. */
#include "differ/calls.h"
#include "differ/descriptors.h"
#include "differ/flags.h"
#include "differ/options.h"
#include "differ/pointers.h"
#include "differ/sizes.h"
#include "differ/waits.h"

static const struct {
    const char *name;
    int (*make)(void);
} phases[] = {
    NAMED(fresh),           NAMED(bound),           NAMED(listening),
    NAMED(called),          NAMED(connecting),      NAMED(refused),
    NAMED(connected),       NAMED(with_bytes),      NAMED(with_urgent),
    NAMED(shut_for_reading), NAMED(shut_for_writing), NAMED(shut_by_peer),
    NAMED(shut_by_both),    NAMED(reset_by_peer),   NAMED(reset_with_bytes),
    NAMED(no_longer_listening), NAMED(closed),      NAMED(fresh_v6),
    NAMED(no_socket),
};

/* Asked once in each phase, or as often as there are turns, each on a socket of its own. */
static const struct {
    const char *name;
    void (*ask)(int);
    void (*ask_in_turn)(int, size_t);
    size_t turns;
    /* Only of a socket that is a descriptor. */
    int of_descriptors;
} probes[] = {
#define ONCE(probe) {#probe, probe, NULL, 1, 0}
#define IN_TURN(probe, among) {#probe, NULL, probe, COUNT(among), 0}
#define OF_DESCRIPTORS(probe) {#probe, probe, NULL, 1, 1}
    ONCE(asks_addresses),
    ONCE(asks_flags),
    ONCE(polls),
    ONCE(binds),
    ONCE(listens),
    ONCE(accepts),
    ONCE(connects),
    ONCE(receives),
    ONCE(receives_urgent),
    ONCE(receives_messages),
    ONCE(sends),
    ONCE(sends_messages),
    ONCE(sends_files),
    ONCE(shuts),
    ONCE(asks_options),
    ONCE(sets_options),
    ONCE(closes),
    IN_TURN(receives_by_flag, flags),
    IN_TURN(sends_by_flag, flags),
    IN_TURN(accepts_by_flag, kinds),
    IN_TURN(shuts_by_half, halves),
    ONCE(receives_sizes),
    ONCE(sends_sizes),
    ONCE(polls_by_event),
    ONCE(polls_behind_calls),
    ONCE(selects),
    ONCE(epolls),
    ONCE(controls),
    ONCE(requests),
    ONCE(asks_other_options),
    ONCE(sets_lengths),
    ONCE(asks_other_levels),
#ifndef OVER_SDP
    OF_DESCRIPTORS(is_a_file),
    OF_DESCRIPTORS(is_copied),
#endif
};

/* Sockets that cannot be made, and those that can. */
static void makes_sockets(void) {
    const int families[] = {AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, -1};
    const int types[] = {SOCK_STREAM, SOCK_STREAM | SOCK_NONBLOCK, SOCK_STREAM | SOCK_CLOEXEC, 0, 77, -1};
    const int protocols[] = {0, IPPROTO_TCP, IPPROTO_UDP, 99, 999, -1};
    phase = "new, makes_sockets";
    for (size_t f = 0; f < COUNT(families); f++) {
        for (size_t t = 0; t < COUNT(types); t++) {
            for (size_t p = 0; p < COUNT(protocols); p++) {
                char text[64];
                if (families[f] == AF_INET6 && !has_v6()) {
                    continue;
                }
                snprintf(text, sizeof text, "S(socket)(family %d, type %#x, protocol %d)", families[f],
                         (unsigned)types[t], protocols[p]);
                errno = 0;
                int made = S(socket)(families[f], types[t], protocols[p]);
                say(text, made < 0 ? made : 0);
                if (made >= 0) {
                    S(close)(made);
                }
            }
        }
    }
}

/* Of so many turns one is taken. */
static size_t stride = 1;

static void ask(size_t p, size_t q) {
    for (size_t turn = 0; turn < probes[q].turns; turn += stride) {
        char name[64];
        snprintf(name, sizeof name, "%s, %s", phases[p].name, probes[q].name);
        phase = name;
        int s = phases[p].make();
        if (probes[q].ask != NULL) {
            probes[q].ask(s);
        } else {
            probes[q].ask_in_turn(s, turn);
        }
        S(close)(s);
        leave();
    }
}

int main(int count, char **arguments) {
    int of_descriptors = 0;
    for (int i = 1; i < count; i++) {
        if (strcmp(arguments[i], "fault") == 0 && i + 1 < count) {
            return one_fault(atoi(arguments[i + 1]));
        }
        if (strcmp(arguments[i], "room") == 0 && i + 1 < count) {
            room = atoi(arguments[++i]);
            MUST(room > 0 && room < 7);
        } else if (strcmp(arguments[i], "sparse") == 0) {
            stride = 9;
        } else {
            MUST(strcmp(arguments[i], "descriptors") == 0);
            of_descriptors = 1;
        }
    }
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_pipe;
    MUST(sigaction(SIGPIPE, &action, NULL) == 0);
    makes_sockets();
    for (size_t p = 0; p < COUNT(phases); p++) {
        if (phases[p].make == fresh_v6 && !has_v6()) {
            continue;
        }
        if (phases[p].make == no_socket && !of_descriptors) {
            continue;
        }
        for (size_t q = 0; q < COUNT(probes); q++) {
            if (of_descriptors || !probes[q].of_descriptors) {
                ask(p, q);
            }
        }
    }
    if (stride == 1) {
        faults();
    }
    return 0;
}
