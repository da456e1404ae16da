/* What the start-up code of an architecture and the harness share. */
#ifndef EDGERNN_HARNESS_H
#define EDGERNN_HARNESS_H

#include <stdint.h>

extern uint8_t harness_start[], harness_end[], buffer_start[], buffer_end[];
extern uint32_t stack_limit[], stack_top[], data_start[], data_end[], bss_start[], bss_end[];
extern const uint32_t data_image[];

/* Of the architecture: one semihosting call; the stack pointer where it is inlined. */
uint32_t semihosting(uint32_t operation, const void *arguments);
#if defined(__riscv)
#define STACK_POINTER(variable) __asm__ volatile("mv %0, sp" : "=r"(variable))
#else
#define STACK_POINTER(variable) __asm__ volatile("mov %0, sp" : "=r"(variable))
#endif

/* Of the harness: serves requests until the input ends; tells the registers of a fault, and ends. */
void serve(void);
void report_fault(const uint32_t *registers, uint32_t count);

#endif
