/* Short loops whose cycles tell the constants of the cycle model apart: hyperppo-hil calibrate
 * runs them on a device. Included by hppo_device.c alone. Each loop has one thing in it that costs
 * what a constant says; where the loop lies does not matter, it begins at a flash line. */
#ifndef HPPO_KERNELS_H
#define HPPO_KERNELS_H

#include <stdint.h>

typedef void (*hppo_kernel_t)(void);

#if defined(__ARM_ARCH_7EM__) && defined(__ARM_FP)

#define HPPO_KERNEL_TURNS 64

#define HPPO_ZEROES "vmov s8, %2\n vmov s9, %2\n"

/* The loop around a body: r2 points to flash, r3 and r4 are free. */
#define HPPO_KERNEL(name, body)                                                               \
    static void name(void)                                                                    \
    {                                                                                         \
        uint32_t turns = HPPO_KERNEL_TURNS;                                                   \
        __asm__ volatile("mov r2, %1\n mov r4, %3\n" HPPO_ZEROES                              \
                         ".balign 16\n"                                                       \
                         "1:\n" body "subs %0, %0, #1\n"                                      \
                         "bne.w 1b\n"                                                         \
                         : "+r"(turns)                                                        \
                         : "r"(hppo_kernel_flash), "r"(0), "r"(hppo_kernel_ram)               \
                         : "r2", "r3", "r4", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", \
                           "s8", "s9", "cc", "memory");                                       \
    }

/* 32 lines of flash: four times what the data cache holds, so that a walk over them always misses. */
static const uint32_t hppo_kernel_flash[128] __attribute__((aligned(16))) = {1};
static uint32_t hppo_kernel_ram[4];

HPPO_KERNEL(hppo_kernel_branch, "")
HPPO_KERNEL(hppo_kernel_multiply_add,
            "vfma.f32 s0, s8, s9\n vfma.f32 s1, s8, s9\n vfma.f32 s2, s8, s9\n"
            "vfma.f32 s3, s8, s9\n vfma.f32 s4, s8, s9\n vfma.f32 s5, s8, s9\n")
HPPO_KERNEL(hppo_kernel_divide, "vdiv.f32 s0, s8, s9\n vdiv.f32 s1, s8, s9\n")
HPPO_KERNEL(hppo_kernel_result_use, ".rept 6\n vadd.f32 s0, s0, s8\n .endr\n")
HPPO_KERNEL(hppo_kernel_load, ".rept 6\n ldr r3, [r4]\n nop\n .endr\n")
HPPO_KERNEL(hppo_kernel_loads, ".rept 8\n ldr r3, [r4]\n .endr\n nop\n")
HPPO_KERNEL(hppo_kernel_store, ".rept 8\n str r3, [r4]\n .endr\n")
HPPO_KERNEL(hppo_kernel_flash_data, ".rept 32\n ldr r3, [r2], #16\n nop\n .endr\n"
                                    "sub.w r2, r2, #512\n")
HPPO_KERNEL(hppo_kernel_flash_line, ".rept 8\n ldr r3, [r2]\n nop\n .endr\n")
/* 160 lines of code, more than the instruction cache holds: jumps over every other line, then a
 * straight run that the prefetch can follow. */
HPPO_KERNEL(hppo_kernel_flash_jumps, ".rept 80\n b.w 2f\n .space 28\n 2:\n .endr\n")
HPPO_KERNEL(hppo_kernel_flash_run, ".rept 512\n add.w r3, r3, #1\n .endr\n")

static const hppo_kernel_t hppo_kernels[] = {
    hppo_kernel_branch,     hppo_kernel_multiply_add, hppo_kernel_divide,
    hppo_kernel_result_use, hppo_kernel_load,         hppo_kernel_loads,
    hppo_kernel_store,      hppo_kernel_flash_data,   hppo_kernel_flash_line,
    hppo_kernel_flash_jumps, hppo_kernel_flash_run,    0,
};

#else /* none for this core */

static const hppo_kernel_t hppo_kernels[] = {0};

#endif

/* The kernel of a number, 0 when there is none. */
static hppo_kernel_t hppo_kernel(uint8_t number)
{
    return number < sizeof hppo_kernels / sizeof hppo_kernels[0] ? hppo_kernels[number] : 0;
}

#endif
