/* Start-up of the M-profile cores: vectors, memory, FPU, faults. */
#pragma GCC optimize("Os")

#include "harness.h"

#define CPACR (*(volatile uint32_t *)0xE000ED88u) /* coprocessors: FPU and MVE are 10 and 11 */
#define FPCCR (*(volatile uint32_t *)0xE000EF34u) /* its bits 30 and 31: exceptions keep the FPU's registers */
#define CFSR (*(volatile uint32_t *)0xE000ED28u)
#define HFSR (*(volatile uint32_t *)0xE000ED2Cu)
#define MMFAR (*(volatile uint32_t *)0xE000ED34u)
#define BFAR (*(volatile uint32_t *)0xE000ED38u)

#if defined(__ARM_ARCH_7M__) || defined(__ARM_ARCH_7EM__)
/* The boards of these cores let everything below the RAM be written. One region forbids it all, so that a stack that
 * overflows is a fault; the next has the ROM, to be read. Armv7-M Architecture Reference Manual, B3.5 */
#define MPU_CTRL (*(volatile uint32_t *)0xE000ED94u)
#define MPU_RBAR (*(volatile uint32_t *)0xE000ED9Cu)
#define MPU_RASR (*(volatile uint32_t *)0xE000EDA0u)
enum { REGION = 1 << 4, ENABLE = 1, BYTES_512M = 28 << 1, BYTES_4M = 21 << 1, READ_ONLY = 6 << 24, DEFAULTS = 4 };

static void protect(void) {
    MPU_RBAR = 0 | REGION | 0;
    MPU_RASR = ENABLE | BYTES_512M;
    MPU_RBAR = ROM_ORIGIN | REGION | 1;
    MPU_RASR = ENABLE | BYTES_4M | READ_ONLY;
    MPU_CTRL = ENABLE | DEFAULTS;
    __asm__ volatile("dsb\n\tisb");
}
#else
static void protect(void) {}
#endif

uint32_t semihosting(uint32_t operation, const void *arguments) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

__attribute__((noreturn, used)) void reset(void) {
    const uint32_t *from = data_image;
    for (volatile uint32_t *to = data_start; to < data_end;) {
        *to++ = *from++;
    }
    for (volatile uint32_t *to = bss_start; to < bss_end;) {
        *to++ = 0;
    }
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    CPACR |= 0xFu << 20;
    FPCCR &= ~(3u << 30); /* a fault after a stack overflow must not write more of it */
    __asm__ volatile("dsb\n\tisb");
#endif
    protect();
    serve();
    for (;;) {
    }
}

/* r0-r3, r12, lr, pc, xpsr as the core stacked them, r4-r11, sp, cfsr, hfsr, mmfar, bfar */
static uint32_t registers[21];
__attribute__((used, aligned(8))) static uint32_t fault_stack[256]; /* the firmware's own may be what is broken */

__attribute__((used)) static void fault_in_c(const uint32_t *frame, const uint32_t *saved) {
    const int readable = frame >= stack_limit && frame + 8 <= stack_top;
    for (int index = 0; index < 8; index++) {
        registers[index] = readable ? frame[index] : 0;
        registers[8 + index] = saved[index];
    }
    registers[16] = (uint32_t)frame + 32;
#if !defined(__ARM_ARCH_6M__)
    registers[17] = CFSR;
    registers[18] = HFSR;
    registers[19] = MMFAR;
    registers[20] = BFAR;
#endif
    report_fault(registers, 21);
}

__attribute__((naked, used)) static void fault(void) {
    __asm__ volatile(
        ".syntax unified\n\t"
        "mov r0, sp\n\t"
        "ldr r1, =fault_stack + 1024\n\t"
        "mov sp, r1\n\t"
        "mov r2, r10\n\t"
        "mov r3, r11\n\t"
        "push {r2, r3}\n\t"
        "mov r2, r8\n\t"
        "mov r3, r9\n\t"
        "push {r2, r3}\n\t"
        "push {r4-r7}\n\t"
        "mov r1, sp\n\t"
        "bl fault_in_c\n\t"
        ".ltorg");
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))stack_top, reset, fault, fault, fault, fault, fault, fault,
    0, 0, 0, fault, fault, 0, fault, fault,
};
