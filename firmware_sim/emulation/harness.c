/* Serves one model over semihosting: requests come in on stdin, answers go out on stdout, both of the emulator.
 *
 * A request is three words and its payload: operation, count (steps, or bytes of a state), flags.
 * An answer is three words and its payload: status, value, bytes of the payload.
 */
#pragma GCC optimize("Os")

#include "harness.h"
#include MODEL_HEADER

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define MODEL(what) JOIN(MODEL_NAME, what)
#define MODEL_MACRO(what) JOIN(MODEL_PREFIX, what)

#define INPUT_SIZE MODEL_MACRO(_INPUT_SIZE)
#define OUTPUT_SIZE MODEL_MACRO(_OUTPUT_SIZE)
#define EVERY_STEP MODEL_MACRO(_EVERY_STEP)
#define BIDIRECTIONAL MODEL_MACRO(_BIDIRECTIONAL)

typedef MODEL(_state_t) state_t;
typedef MODEL(_input_t) input_t;
typedef MODEL(_output_t) output_t;

enum { RUN = 1, STEP = 2, GET = 3, SET = 4, TEST = 5, MEASURE = 6 };                    /* operations */
enum { FROM_ZERO = 1 };                                                                 /* flags */
enum { DONE = 0, TOO_LONG = 1, STACK_OVERFLOW = 2, FAULT = 3, UNKNOWN = 4, READY = 5 }; /* status */
enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT = 0x18, SYS_EXIT_EXTENDED = 0x20 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, APPLICATION_EXIT = 0x20026 };

#define PAINT 0xC5C5C5C5u

/* Read from the image, not from the running firmware. */
__attribute__((section(".description"), used)) const uint32_t edgernn_description[] = {
    INPUT_SIZE, sizeof(input_t), OUTPUT_SIZE, sizeof(output_t), EVERY_STEP, BIDIRECTIONAL,
    MODEL_MACRO(_MACS_PER_STEP) + MODEL_MACRO(_HEAD_MACS), sizeof(state_t),
};

static state_t state;
static uint32_t input, output; /* the emulator's numbers of the two files */

/* ---- the two pipes ---- */

static void leave(uint32_t code) {
    const uint32_t arguments[2] = {APPLICATION_EXIT, code};
    semihosting(SYS_EXIT_EXTENDED, arguments);
    semihosting(SYS_EXIT, (const void *)APPLICATION_EXIT);
    for (;;) {
    }
}

static uint32_t open_file(const char *path, uint32_t length, uint32_t mode) {
    const uint32_t arguments[3] = {(uint32_t)path, mode, length};
    return semihosting(SYS_OPEN, arguments);
}

static void receive(void *to, uint32_t size) {
    uint8_t *next = to;
    while (size > 0) {
        const uint32_t arguments[3] = {input, (uint32_t)next, size};
        const uint32_t left = semihosting(SYS_READ, arguments);
        if (left >= size) { /* the other end is closed */
            leave(0);
        }
        next += size - left;
        size = left;
    }
}

static void discard(uint32_t size) {
    uint32_t word;
    for (; size > 0; size -= size < sizeof word ? size : sizeof word) {
        receive(&word, size < sizeof word ? size : sizeof word);
    }
}

static void transmit(const void *from, uint32_t size) {
    const uint8_t *next = from;
    while (size > 0) {
        const uint32_t arguments[3] = {output, (uint32_t)next, size};
        const uint32_t left = semihosting(SYS_WRITE, arguments);
        if (left >= size) {
            leave(1);
        }
        next += size - left;
        size = left;
    }
}

static void answer(uint32_t status, uint32_t value, const void *payload, uint32_t size) {
    const uint32_t header[3] = {status, value, size};
    if (*stack_limit != PAINT) {
        const uint32_t overflow[3] = {STACK_OVERFLOW, (uint32_t)((uint8_t *)stack_top - (uint8_t *)stack_limit), 0};
        transmit(overflow, sizeof overflow);
        leave(1);
    }
    transmit(header, sizeof header);
    transmit(payload, size);
}

void report_fault(const uint32_t *registers, uint32_t count) {
    const uint32_t header[3] = {FAULT, count, count * 4};
    transmit(header, sizeof header);
    transmit(registers, count * 4);
    leave(1);
}

/* ---- the model ---- */

/* The emulator's plugin counts what runs between these two outside of the harness. */
__attribute__((noinline, used)) static void edgernn_count_begin(void) { __asm__ volatile(""); }
__attribute__((noinline, used)) static void edgernn_count_end(void) { __asm__ volatile(""); }

static void reset_state(void) { MODEL(_reset)(&state); }

static void *aligned(void *address) { return (void *)(((uint32_t)address + 7u) & ~7u); }

static void paint(uint32_t *end) {
    for (volatile uint32_t *word = stack_limit; word < (volatile uint32_t *)end; word++) {
        *word = PAINT;
    }
}

/* Bytes of the stack below `end` that were written since it was painted. */
static uint32_t painted_over(const uint32_t *end) {
    const volatile uint32_t *word = stack_limit;
    while (word < (const volatile uint32_t *)end && *word == PAINT) {
        word++;
    }
    return (uint32_t)((const uint8_t *)end - (const uint8_t *)word);
}

__attribute__((noinline)) static uint32_t measured(const input_t *x, uint32_t steps, output_t *y, void *work, int step) {
    uint32_t *end;
    STACK_POINTER(end);
    paint(end);
    edgernn_count_begin();
#if BIDIRECTIONAL
    (void)step;
    MODEL(_run)(&state, x, steps, y, work);
#else
    (void)work;
    if (step) {
        for (uint32_t index = 0; index < steps; index++) {
            MODEL(_step)(&state, x + index * INPUT_SIZE, y + index * OUTPUT_SIZE);
        }
    } else {
        MODEL(_run)(&state, x, steps, y);
    }
#endif
    edgernn_count_end();
    return painted_over(end);
}

static void run(uint32_t steps, uint32_t flags, int step) {
    input_t *x = (input_t *)buffer_start;
    output_t *y = aligned(x + steps * INPUT_SIZE);
    const uint32_t outputs = (EVERY_STEP || step ? steps : 1) * OUTPUT_SIZE;
    void *work = aligned(y + outputs);
    uint8_t *end = work;
#if BIDIRECTIONAL
    end = (uint8_t *)((MODEL(_work_t) *)work + MODEL_MACRO(_WORK_SIZE)(steps));
#endif
    if (end > buffer_end) {
        discard(steps * INPUT_SIZE * sizeof *x);
        answer(TOO_LONG, (uint32_t)(end - buffer_end), 0, 0);
        return;
    }
    receive(x, steps * INPUT_SIZE * sizeof *x);
    if (flags & FROM_ZERO) {
        reset_state();
    }
    const uint32_t depth = measured(x, steps, y, work, step);
    answer(DONE, depth, y, outputs * sizeof *y);
}

#if HAS_TEST
int MODEL(_test)(void);
#endif

void serve(void) {
    input = open_file("/dev/stdin", 10, READ_BINARY);
    output = open_file("/dev/stdout", 11, WRITE_BINARY);
    *stack_limit = PAINT;
    reset_state();
    answer(READY, (uint32_t)(buffer_end - buffer_start), 0, 0);
    for (;;) {
        uint32_t request[3];
        receive(request, sizeof request);
        const uint32_t count = request[1];
        switch (request[0]) {
        case RUN:
            run(count, request[2], 0);
            break;
        case STEP:
            run(count, request[2], 1);
            break;
        case GET:
            answer(DONE, 0, &state, count);
            break;
        case SET:
            reset_state();
            receive(&state, count);
            answer(DONE, 0, 0, 0);
            break;
#if HAS_TEST
        case TEST:
            answer(DONE, (uint32_t)MODEL(_test)(), 0, 0);
            break;
#endif
        default:
            answer(UNKNOWN, request[0], 0, 0);
        }
    }
}
