/* Counts, in QEMU, how often every instruction of a program is executed and how often a branch is taken there.
 *
 * A plugin of QEMU's TCG, interface 1 (QEMU 4.2 to 8) or 2 (QEMU 9 and later); what it needs of qemu-plugin.h stands
 * below. Arguments, all but `out` in hexadecimal:
 *   out=FILE            where the counts go when the program ends: records of `struct count`, ascending
 *   code=START-END      the addresses that may be counted
 *   skip=START-END      those of them that are not
 *   begin=A, end=A      executing the instruction there begins, or ends, counting
 *   part=A              (any number) executing the instruction there makes it part 1, 2, .. that runs; it is 0 before, and again
 *                       after an instruction that is skipped
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef INTERFACE
#define INTERFACE 1
#endif
#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = INTERFACE;

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_cb(
    struct qemu_plugin_insn *, void (*)(unsigned int, void *), enum qemu_plugin_cb_flags, void *
);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

enum { PARTS = 256 };

struct range {
    uint64_t start, end;
};

/* What is counted of the instruction at an address while a part runs. */
struct count {
    uint32_t part, address;
    uint64_t executed, taken;
};

/* One instruction; the addresses of a program are few, so that there is one for each two bytes of the code. */
struct instruction {
    uint64_t address, next;
    struct count *counts; /* of part 0, 1, ..; NULL where nothing is counted */
    uint32_t enters;      /* the part that begins here, or 0 */
    bool begins, ends;
};

static const char *out;
static struct range code, skip;
static uint64_t begin, end, entries[PARTS];
static uint32_t parts = 1; /* with part 0 */
static struct instruction **instructions;

static bool counting;
static uint32_t part;
static struct count *last; /* of the instruction executed before, while it is counted */
static uint64_t expected;  /* where the next one is, unless a branch is taken */

static bool within(struct range range, uint64_t address) { return range.start <= address && address < range.end; }

static void executed(unsigned int cpu, void *data) {
    const struct instruction *this = data;
    (void)cpu;
    if (this->begins) {
        counting = true;
    }
    if (this->ends) {
        counting = false;
    }
    if (this->enters) {
        part = this->enters;
    }
    if (last != NULL) {
        last->taken += this->address != expected;
        last = NULL;
    }
    if (this->counts == NULL) {
        part = 0;
    } else if (counting) {
        last = &this->counts[part];
        last->executed++;
        expected = this->next;
    }
}

static void *allocated(size_t number, size_t size) {
    void *memory = calloc(number, size);
    if (memory == NULL) {
        fputs("no memory for the counts\n", stderr);
        exit(1);
    }
    return memory;
}

static struct instruction *made(uint64_t address, size_t size) {
    struct instruction *this = allocated(1, sizeof *this);
    this->address = address;
    this->next = address + size;
    this->begins = address == begin;
    this->ends = address == end;
    for (uint32_t index = 1; index < parts; index++) {
        if (entries[index] == address) {
            this->enters = index;
        }
    }
    if (!within(skip, address)) {
        this->counts = allocated(parts, sizeof *this->counts);
        for (uint32_t index = 0; index < parts; index++) {
            this->counts[index].part = index;
            this->counts[index].address = (uint32_t)address;
        }
    }
    return this;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    for (size_t index = 0; index < qemu_plugin_tb_n_insns(block); index++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, index);
        const uint64_t address = qemu_plugin_insn_vaddr(instruction);
        if (!within(code, address)) {
            continue;
        }
        struct instruction **place = &instructions[(address - code.start) / 2];
        if (*place == NULL) {
            *place = made(address, qemu_plugin_insn_size(instruction));
        }
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, executed, QEMU_PLUGIN_CB_NO_REGS, *place);
    }
}

static void ended(qemu_plugin_id_t id, void *data) {
    (void)id;
    (void)data;
    FILE *file = fopen(out, "wb");
    bool good = file != NULL;
    for (uint64_t index = 0; good && index < (code.end - code.start) / 2; index++) {
        const struct instruction *this = instructions[index];
        for (uint32_t number = 0; good && this != NULL && this->counts != NULL && number < parts; number++) {
            if (this->counts[number].executed > 0) {
                good = fwrite(&this->counts[number], sizeof this->counts[number], 1, file) == 1;
            }
        }
    }
    if (file == NULL || fclose(file) != 0 || !good) {
        fprintf(stderr, "cannot write %s\n", out);
    }
}

static struct range range_of(const char *text) {
    struct range range = {0, 0};
    sscanf(text, "%" SCNx64 "-%" SCNx64, &range.start, &range.end);
    return range;
}

static bool understood(char *argument) {
    char *value = strchr(argument, '=');
    if (value == NULL) {
        return false;
    }
    *value++ = '\0';
    if (strcmp(argument, "out") == 0) {
        out = strdup(value);
    } else if (strcmp(argument, "code") == 0) {
        code = range_of(value);
    } else if (strcmp(argument, "skip") == 0) {
        skip = range_of(value);
    } else if (strcmp(argument, "begin") == 0) {
        begin = strtoull(value, NULL, 16);
    } else if (strcmp(argument, "end") == 0) {
        end = strtoull(value, NULL, 16);
    } else if (strcmp(argument, "part") == 0 && parts < PARTS) {
        entries[parts++] = strtoull(value, NULL, 16);
    } else {
        return false;
    }
    return true;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv) {
    (void)info;
    for (int index = 0; index < argc; index++) {
        if (!understood(argv[index])) {
            fprintf(stderr, "the plugin does not understand %s\n", argv[index]);
            return 1;
        }
    }
    instructions = allocated((code.end - code.start) / 2, sizeof *instructions);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
