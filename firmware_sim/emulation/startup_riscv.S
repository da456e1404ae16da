# Start-up of the RISC-V core: memory, traps, semihosting.
    .section .vectors, "ax"
    .globl reset
reset:
    la sp, stack_top
    la t0, trap
    csrw mtvec, t0
    li t0, (ROM_ORIGIN >> 2) | ((ROM_SIZE >> 3) - 1) # a region of a power of two, ..
    csrw pmpaddr0, t0
    li t0, 0x9D                                      # .. to read and execute alone
    csrw pmpcfg0, t0
    la t0, data_image
    la t1, data_start
    la t2, data_end
1:  bgeu t1, t2, 2f
    lw t3, 0(t0)
    sw t3, 0(t1)
    addi t0, t0, 4
    addi t1, t1, 4
    j 1b
2:  la t0, bss_start
    la t1, bss_end
3:  bgeu t0, t1, 4f
    sw zero, 0(t0)
    addi t0, t0, 4
    j 3b
4:  call serve
5:  j 5b

# x1-x31, mepc, mcause, mtval
    .balign 4
trap:
    csrw mscratch, t0
    la t0, registers
    sw x1, 0(t0)
    sw x2, 4(t0)
    sw x3, 8(t0)
    sw x4, 12(t0)
    sw x6, 20(t0)
    csrr x6, mscratch
    sw x6, 16(t0)
    .irp number, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    sw x\number, (\number - 1) * 4(t0)
    .endr
    csrr t1, mepc
    sw t1, 124(t0)
    csrr t1, mcause
    sw t1, 128(t0)
    csrr t1, mtval
    sw t1, 132(t0)
    la sp, fault_stack + 1024
    mv a0, t0
    li a1, 34
    call report_fault
6:  j 6b

# the three instructions that mark a call must lie on one page, uncompressed
    .globl semihosting
    .balign 16
    .option push
    .option norvc
semihosting:
    slli zero, zero, 0x1f
    ebreak
    srai zero, zero, 7
    ret
    .option pop

    .bss
    .balign 16
registers: .space 136
    .balign 16
fault_stack: .space 1024
