/* The last four rows of a layer: 4 biases, then 4 weights per input.
 * A sum becomes sum + leak |sum|, unless leak is 0.
 *
 * Cortex-M4F: the smallest networks spend their time here, so the code is inlined, up to 20 inputs
 * are unrolled, and only s0-s15 are used, which need no saving: sums in s0-s3, weights in s4-s11,
 * inputs in s12-s15. The sums leave in registers, where the compiler may hand them to what follows.
 * n_in and leak are constants wherever this is called. */
#define ADD_INPUT(x, w0, w1, w2, w3)                                                              \
    "vmul.f32 " #w0 ", " #w0 ", " #x "\n\tvmul.f32 " #w1 ", " #w1 ", " #x "\n\t"                  \
    "vmul.f32 " #w2 ", " #w2 ", " #x "\n\tvmul.f32 " #w3 ", " #w3 ", " #x "\n\t"                  \
    "vadd.f32 s0, s0, " #w0 "\n\tvadd.f32 s1, s1, " #w1 "\n\t"                                    \
    "vadd.f32 s2, s2, " #w2 "\n\tvadd.f32 s3, s3, " #w3 "\n\t"
#define TWO_INPUTS(x0, x1)                                                                        \
    "vldmia %[w]!, {s4-s11}\n\t" ADD_INPUT(x0, s4, s5, s6, s7) ADD_INPUT(x1, s8, s9, s10, s11)
#define FOUR_INPUTS "vldmia %[in]!, {s12-s15}\n\t" TWO_INPUTS(s12, s13) TWO_INPUTS(s14, s15)
#define UNROLLED(last)                                                                            \
    ".if %c[n] >= " #last " && %c[n] < 24\n\t" FOUR_INPUTS ".endif\n\t"

__attribute__((always_inline)) static inline void
dense4_f32(const float *weights, const float *in, float *out, const size_t n_in, const float leak)
{
    register float s0 __asm__("s0");
    register float s1 __asm__("s1");
    register float s2 __asm__("s2");
    register float s3 __asm__("s3");
    size_t k;
    __asm__ volatile(
        "vldmia %[w]!, {s0-s3}\n\t"
        UNROLLED(4) UNROLLED(8) UNROLLED(12) UNROLLED(16) UNROLLED(20)
        ".if %c[n] >= 24\n\t"
        "mov %[k], #(%c[n] / 4)\n"
        "1:\n\t"
        FOUR_INPUTS
        "subs %[k], %[k], #1\n\t"
        "bne 1b\n\t"
        ".endif\n\t"
        ".if %c[n] & 2\n\t"
        "vldmia %[in]!, {s12-s13}\n\t"
        TWO_INPUTS(s12, s13)
        ".endif\n\t"
        ".if %c[n] & 1\n\t"
        "vldmia %[in]!, {s12}\n\t"
        "vldmia %[w]!, {s4-s7}\n\t"
        ADD_INPUT(s12, s4, s5, s6, s7)
        ".endif\n\t"
        ".if %c[leaky]\n\t"
        "vmov s12, %[leak]\n\t"
        "vabs.f32 s4, s0\n\tvabs.f32 s5, s1\n\tvabs.f32 s6, s2\n\tvabs.f32 s7, s3\n\t"
        ADD_INPUT(s12, s4, s5, s6, s7)
        ".endif\n\t"
        : [w] "+&r"(weights), [in] "+&r"(in), [k] "=&r"(k), "=&t"(s0), "=&t"(s1), "=&t"(s2),
          "=&t"(s3)
        : [n] "i"(n_in), [leak] "r"(leak), [leaky] "i"(leak != 0.0f)
        : "cc", "memory", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
          "s12", "s13", "s14", "s15");
    out[0] = s0;
    out[1] = s1;
    out[2] = s2;
    out[3] = s3;
}
#undef ADD_INPUT
#undef TWO_INPUTS
#undef FOUR_INPUTS
#undef UNROLLED
