/* An instruction that does nothing and that no compiler emits: a no-op whose operand says SDPM. */
static const unsigned char mark[8] = {0x0f, 0x1f, 0x84, 0x00, 'S', 'D', 'P', 'M'};
#define RUN_MARK __asm__ volatile(".byte 0x0f, 0x1f, 0x84, 0x00, 'S', 'D', 'P', 'M'")
