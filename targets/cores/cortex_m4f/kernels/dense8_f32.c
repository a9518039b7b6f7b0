/* Eight rows at a time. A panel is one sequential stream: 8 biases, then 8 weights per input.
 * A sum becomes sum + leak |sum|, unless leak is 0.
 *
 * Cortex-M4F: sums in s0-s7, weights in s8-s23, inputs in s24-s31, since a load of n words takes
 * 1 + n cycles. VMUL and VADD take 2 cycles where VMLA or VFMA takes 3; eight products stand
 * between each result and its use. Rounds exactly as the portable kernel. */
#define MUL8(x, w0, w1, w2, w3, w4, w5, w6, w7)                                                   \
    "vmul.f32 " #w0 ", " #w0 ", " #x "\n\tvmul.f32 " #w1 ", " #w1 ", " #x "\n\t"                  \
    "vmul.f32 " #w2 ", " #w2 ", " #x "\n\tvmul.f32 " #w3 ", " #w3 ", " #x "\n\t"                  \
    "vmul.f32 " #w4 ", " #w4 ", " #x "\n\tvmul.f32 " #w5 ", " #w5 ", " #x "\n\t"                  \
    "vmul.f32 " #w6 ", " #w6 ", " #x "\n\tvmul.f32 " #w7 ", " #w7 ", " #x "\n\t"
#define ADD8(w0, w1, w2, w3, w4, w5, w6, w7)                                                      \
    "vadd.f32 s0, s0, " #w0 "\n\tvadd.f32 s1, s1, " #w1 "\n\t"                                    \
    "vadd.f32 s2, s2, " #w2 "\n\tvadd.f32 s3, s3, " #w3 "\n\t"                                    \
    "vadd.f32 s4, s4, " #w4 "\n\tvadd.f32 s5, s5, " #w5 "\n\t"                                    \
    "vadd.f32 s6, s6, " #w6 "\n\tvadd.f32 s7, s7, " #w7 "\n\t"
#define LOW8 s8, s9, s10, s11, s12, s13, s14, s15
#define HIGH8 s16, s17, s18, s19, s20, s21, s22, s23
#define EXPAND(macro, ...) macro(__VA_ARGS__)
#define ONE_INPUT(x) EXPAND(MUL8, x, LOW8) EXPAND(ADD8, LOW8)
#define TWO_INPUTS(x0, x1)                                                                        \
    "vldmia %[w]!, {s8-s23}\n\t" ONE_INPUT(x0) EXPAND(MUL8, x1, HIGH8) EXPAND(ADD8, HIGH8)

__attribute__((noinline)) static void dense8_f32(const float *weights, const float *in, float *out,
                                                 size_t n_in, size_t n_panels, float leak)
{
    const float *x;
    size_t k;
    __asm__ volatile(
        "1:\n\t" /* a panel */
        "vldmia %[w]!, {s0-s7}\n\t"
        "mov %[x], %[in]\n\t"
        "lsrs %[k], %[n], #3\n\t"
        "beq 3f\n"
        "2:\n\t" /* eight inputs */
        "vldmia %[x]!, {s24-s31}\n\t"
        TWO_INPUTS(s24, s25) TWO_INPUTS(s26, s27) TWO_INPUTS(s28, s29) TWO_INPUTS(s30, s31)
        "subs %[k], %[k], #1\n\t"
        "bne 2b\n"
        "3:\n\t"
        "ands %[k], %[n], #6\n\t"
        "beq 5f\n"
        "4:\n\t" /* two inputs */
        "vldmia %[x]!, {s24-s25}\n\t"
        TWO_INPUTS(s24, s25)
        "subs %[k], %[k], #2\n\t"
        "bne 4b\n"
        "5:\n\t"
        "lsls %[k], %[n], #31\n\t"
        "beq 6f\n\t" /* n is even */
        "vldmia %[x]!, {s24}\n\t"
        "vldmia %[w]!, {s8-s15}\n\t"
        ONE_INPUT(s24)
        "6:\n\t"
        "cbz %[leak], 7f\n\t"
        "vmov s24, %[leak]\n\t"
        "vabs.f32 s8, s0\n\tvabs.f32 s9, s1\n\tvabs.f32 s10, s2\n\tvabs.f32 s11, s3\n\t"
        "vabs.f32 s12, s4\n\tvabs.f32 s13, s5\n\tvabs.f32 s14, s6\n\tvabs.f32 s15, s7\n\t"
        ONE_INPUT(s24)
        "7:\n\t"
        "vstmia %[out]!, {s0-s7}\n\t"
        "subs %[panels], %[panels], #1\n\t"
        "bne 1b\n\t"
        : [w] "+&r"(weights), [out] "+&r"(out), [panels] "+&r"(n_panels), [x] "=&r"(x), [k] "=&l"(k)
        : [in] "r"(in), [n] "r"(n_in), [leak] "l"(leak)
        : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
          "s12", "s13", "s14", "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23", "s24",
          "s25", "s26", "s27", "s28", "s29", "s30", "s31");
}
#undef MUL8
#undef ADD8
#undef LOW8
#undef HIGH8
#undef EXPAND
#undef ONE_INPUT
#undef TWO_INPUTS
