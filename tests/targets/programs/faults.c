#include <stdint.h>

int run(int kind);
int run(int kind)
{
    switch (kind) {
    case 0: return *(volatile int *)0x60000000;
    case 1: *(volatile int *)0x70000000 = 1; return 0;
    case 2: __asm__ volatile("udf #1"); return 0;
    case 3: for (;;) { __asm__ volatile("nop"); }
    default: return kind;
    }
}
