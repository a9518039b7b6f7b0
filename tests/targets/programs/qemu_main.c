/* Runs the program under test in QEMU, and prints by semihosting what it left and what it cost.
 *
 * With -icount shift=0 an instruction takes 1 ns of QEMU's virtual time, and netduinoplus2 clocks
 * its TIM2 at 1 GHz, so the timer counts instructions. */
#include <stdint.h>

#define TIM2_CR1 (*(volatile uint32_t *)0x40000000u)
#define TIM2_CNT (*(volatile uint32_t *)0x40000024u)

extern uint32_t results[32];
int run(int seed);
int nothing(int seed);

int nothing(int seed)
{
    return seed;
}

static void semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(uint32_t word)
{
    char text[10];
    for (int i = 0; i < 8; ++i) {
        text[i] = "0123456789abcdef"[word >> (28 - 4 * i) & 15u];
    }
    text[8] = ' ';
    text[9] = 0;
    semihost(4, text); /* SYS_WRITE0 */
}

/* One piece of code for both functions, through volatile: neither is inlined. */
__attribute__((noinline)) static uint32_t count(int (*volatile function)(int), int seed)
{
    const uint32_t start = TIM2_CNT;
    (void)function(seed);
    return TIM2_CNT - start;
}

int main(void)
{
    TIM2_CR1 = 1u;
    for (int seed = 1; seed < 9; ++seed) {
        const uint32_t empty = count(nothing, seed);
        print(count(run, seed) - empty);
        for (int i = 0; i < 7; ++i) {
            print(results[i]);
        }
    }
    semihost(0x18, (const void *)0x20026); /* SYS_EXIT, ADP_Stopped_ApplicationExit */
    return 0;
}
