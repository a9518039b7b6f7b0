/* Four rows of a layer: returns where the next panel starts. A panel is one sequential stream:
 * 4 biases, then for each four inputs one word a row, four int8 weights.
 *
 * Cortex-M4F: SMLAD takes the word's halfwords as they are: byte 1 and byte 3 are the weights of
 * the first pair of inputs, with bytes 0 and 2 below them as a fraction. Shifted up by 8, bytes 0
 * and 2 are those of the second pair. One shift unpacks four weights this way; quantisation has
 * accounted for the fractions. Up to 32 inputs are unrolled, more run 32 a turn.
 * n_quads is a constant wherever this is called. */
#define MAC(s, w)                                                                                 \
    "smlad " s ", " w ", r6, " s "\n\tlsls " w ", " w ", #8\n\tsmlad " s ", " w ", r12, " s "\n\t"
#define FOUR_INPUTS                                                                               \
    "ldr r12, [r1, #4]\n\tldr r6, [r1], #8\n\t"                                                   \
    "ldr r3, [r0, #4]\n\tldr r4, [r0, #8]\n\tldr r5, [r0, #12]\n\tldr r2, [r0], #16\n\t"          \
    MAC("r9", "r3") MAC("r10", "r4") MAC("r11", "r5") MAC("r8", "r2")

INLINE const uint32_t *sums4_i8(const uint32_t *weights, const uint32_t *in, const size_t n_quads,
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
        ".if %c[n] > 8\n\t"
        "movs %[turns], #(%c[n] / 8)\n"
        "1:\n\t"
        ".rept 8\n\t" FOUR_INPUTS ".endr\n\t"
        "subs %[turns], %[turns], #1\n\t"
        "bne 1b\n\t"
        ".rept %c[n] & 7\n\t" FOUR_INPUTS ".endr\n\t"
        ".else\n\t"
        ".rept %c[n]\n\t" FOUR_INPUTS ".endr\n\t"
        ".endif\n\t"
        : [w] "+&r"(w), [x] "+&r"(x), "=&r"(s0), "=&r"(s1), "=&r"(s2), "=&r"(s3),
          [turns] "=&r"(turns)
        : [n] "i"(n_quads)
        : "cc", "memory", "r2", "r3", "r4", "r5", "r6", "r12");
    sum[0] = s0;
    sum[1] = s1;
    sum[2] = s2;
    sum[3] = s3;
    return w;
}
#undef MAC
#undef FOUR_INPUTS
