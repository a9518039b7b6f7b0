/* Reads the cycle counter and the microsecond timer around known work. */
#include <stdint.h>

#define DEMCR (*(volatile uint32_t *)0xE000EDFCu)
#define DWT_CTRL (*(volatile uint32_t *)0xE0001000u)
#define DWT_CYCCNT (*(volatile uint32_t *)0xE0001004u)
#define TIM7_CNT (*(volatile uint32_t *)0x40001424u)

uint32_t stopped, cycles, microseconds;

__attribute__((noinline)) static void work(uint32_t n)
{
    do {
        __asm__ volatile("nop\n\tnop\n\tnop");
    } while (--n);
}

int run(int n);
int run(int n)
{
    stopped = DWT_CYCCNT;
    DEMCR |= 1u << 24;
    DWT_CYCCNT = 0;
    DWT_CTRL |= 1u;
    const uint32_t time = TIM7_CNT, start = DWT_CYCCNT;
    work((uint32_t)n);
    const uint32_t end = DWT_CYCCNT;
    microseconds = TIM7_CNT - time;
    cycles = end - start;
    return 0;
}
