/* One connect to a listener of this process; says how it ended. */
#include "common.h"

int main(int count, char **words) {
    int listener = listen_anywhere();
    struct sockaddr_in address = loopback(port_of(listener));
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(count == 2);
    if (strcmp(words[1], "accepts") == 0) {
        accept_nobody(listener);
    }
    if (connect(client, (struct sockaddr *)&address, sizeof address) != 0) {
        printf("%s\n", name_of(errno));
        return 0;
    }
    int server = accept(listener, NULL, NULL);
    char end[8];
    CHECK(server >= 0);
    CHECK(write(client, "there", 5) == 5 && read(server, end, 8) == 5);
    CHECK(write(server, "back", 4) == 4 && read(client, end, 8) == 4);
    printf("connected\n");
    return 0;
}
