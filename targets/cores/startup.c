/* Start-up of a bare Cortex-M image: vector table, FPU where there is one, .data, .bss, main.
 * Runs unchanged in an emulated core, in QEMU (netduinoplus2) and on an STM32F405.
 */
#include <stdint.h>

/* From link.ld. */
extern uint32_t _stack_top, _bss_start, _bss_end;
extern uint32_t _data_load, _data_start, _data_end;
extern uint32_t _policy_data_load, _policy_data_start, _policy_data_end;

int main(void);
void Reset_Handler(void);
void Fault_Handler(void);

#define CPACR (*(volatile uint32_t *)0xE000ED88u) /* ARMv7-M ARM B3.2.20 */

typedef union {
    const void *stack;
    void (*handler)(void);
} vector_t;

/* ARMv7-M ARM B1.5.3: initial stack pointer, reset, NMI, and the faults up to SysTick. */
__attribute__((section(".vectors"), used)) static const vector_t vectors[16] = {
    { .stack = &_stack_top },     { .handler = Reset_Handler }, { .handler = Fault_Handler },
    { .handler = Fault_Handler }, { .handler = Fault_Handler }, { .handler = Fault_Handler },
    { .handler = Fault_Handler },
};

/* Word by word through volatile: a call to memcpy would run before .data exists. */
static void copy(const uint32_t *from, volatile uint32_t *to, const volatile uint32_t *end)
{
    while (to < end) {
        *to++ = *from++;
    }
}

__attribute__((noreturn)) void Reset_Handler(void)
{
#if defined(__ARM_FP)
    CPACR |= 0xFu << 20; /* full access to CP10 and CP11: the FPU */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif

    copy(&_policy_data_load, &_policy_data_start, &_policy_data_end);
    copy(&_data_load, &_data_start, &_data_end);
    for (volatile uint32_t *word = &_bss_start; word < &_bss_end; ++word) {
        *word = 0u;
    }
    (void)main();
    for (;;) {
    }
}

__attribute__((noreturn)) void Fault_Handler(void)
{
    for (;;) {
    }
}
