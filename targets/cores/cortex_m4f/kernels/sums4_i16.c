/* Four rows of a layer: returns where the next panel starts. A panel is one sequential stream:
 * 4 biases, then for each pair of inputs one word a row, two int16 weights.
 *
 * Cortex-M4F: SMLAD makes two products a cycle, so loads are half the time. Four input values and
 * 16 weights a step: loads in a row cost 1 cycle each behind the first, LDM of four words 5; the
 * words of r0-r6 have short encodings. Up to 32 inputs are unrolled, more run 32 a turn.
 * n_pairs is a constant wherever this is called. */
#define MAC(x)                                                                                    \
    "smlad %[s1], r3, " x ", %[s1]\n\tsmlad %[s2], r4, " x ", %[s2]\n\t"                          \
    "smlad %[s3], r5, " x ", %[s3]\n\tsmlad %[s0], r2, " x ", %[s0]\n\t"
#define LOAD_WEIGHTS "ldr r3, [r0, #4]\n\tldr r4, [r0, #8]\n\tldr r5, [r0, #12]\n\tldr r2, [r0], #16\n\t"
#define TWO_PAIRS                                                                                 \
    "ldr r12, [r1, #4]\n\tldr r6, [r1], #8\n\t" LOAD_WEIGHTS MAC("r6")                            \
    "ldmia r0!, {r2-r5}\n\t" MAC("r12")

INLINE const uint32_t *sums4_i16(const uint32_t *weights, const uint32_t *in, const size_t n_pairs,
                                 int32_t sum[4])
{
    register const uint32_t *w __asm__("r0") = weights;
    register const uint32_t *x __asm__("r1") = in;
    register int32_t s0 __asm__("r8");
    register int32_t s1 __asm__("r9");
    register int32_t s2 __asm__("r10");
    register int32_t s3 __asm__("r11");
    uint32_t turns;
    __asm__ volatile(
        "ldmia %[w]!, {r8-r11}\n\t"
        ".if %c[n] > 16\n\t"
        "movs %[turns], #(%c[n] / 16)\n"
        "1:\n\t"
        ".rept 8\n\t" TWO_PAIRS ".endr\n\t"
        "subs %[turns], %[turns], #1\n\t"
        "bne 1b\n\t"
        ".rept (%c[n] & 15) / 2\n\t" TWO_PAIRS ".endr\n\t"
        ".else\n\t"
        ".rept %c[n] / 2\n\t" TWO_PAIRS ".endr\n\t"
        ".endif\n\t"
        ".if %c[n] & 1\n\t"
        "ldr r6, [r1], #4\n\t" LOAD_WEIGHTS MAC("r6")
        ".endif\n\t"
        : [w] "+&r"(w), [x] "+&r"(x), [s0] "=&r"(s0), [s1] "=&r"(s1), [s2] "=&r"(s2),
          [s3] "=&r"(s3), [turns] "=&r"(turns)
        : [n] "i"(n_pairs)
        : "cc", "memory", "r2", "r3", "r4", "r5", "r6", "r12");
    sum[0] = s0;
    sum[1] = s1;
    sum[2] = s2;
    sum[3] = s3;
    return w;
}
#undef MAC
#undef LOAD_WEIGHTS
#undef TWO_PAIRS
