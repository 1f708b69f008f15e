/* Has the emulator's plugin write down its counts: see count.c. */
#include "mark.h"

int main(void)
{
    (void)mark;
    RUN_MARK;
    return 0;
}
