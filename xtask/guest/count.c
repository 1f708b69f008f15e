/* A plugin of the emulator: counts the instructions that the guest carries out, those of programs
 * and those of its kernel. Each time the guest runs the mark of mark.h, one line with both counts
 * goes to the file out=FILE.
 *
 * Debian's packages bring no header for plugins. What follows declares the little that is used of
 * version 1 of the interface (QEMU 4.2 and later). */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "mark.h"

typedef uint64_t plugin_id;
struct block;
struct instruction;
enum { INLINE_ADD = 0, NO_REGISTERS = 0 };

size_t qemu_plugin_tb_n_insns(const struct block *);
uint64_t qemu_plugin_tb_vaddr(const struct block *);
struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
const void *qemu_plugin_insn_data(const struct instruction *);
size_t qemu_plugin_insn_size(const struct instruction *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_insn_exec_cb(struct instruction *, void (*)(unsigned, void *), int,
                                            void *);

int qemu_plugin_version = 1;

/* Of programs, of the kernel, which has the upper half of the addresses. One processor counts, so
 * nothing is lost. */
static uint64_t counts[2];
static FILE *out;

static void on_mark(unsigned processor, void *unused)
{
    (void)processor, (void)unused;
    fprintf(out, "%lu %lu\n", (unsigned long)counts[0], (unsigned long)counts[1]);
    fflush(out);
}

static void on_block(plugin_id id, struct block *block)
{
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(block);
    int kernel = qemu_plugin_tb_vaddr(block) >> 63;
    qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD, &counts[kernel], n);
    if (kernel)
        return;
    for (size_t i = 0; i < n; i++) {
        struct instruction *one = qemu_plugin_tb_get_insn(block, i);
        if (qemu_plugin_insn_size(one) == sizeof mark &&
            !memcmp(qemu_plugin_insn_data(one), mark, sizeof mark))
            qemu_plugin_register_vcpu_insn_exec_cb(one, on_mark, NO_REGISTERS, NULL);
    }
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) || !(out = fopen(argv[0] + 4, "w"))) {
        fprintf(stderr, "count: out=FILE, which can be written\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    return 0;
}
