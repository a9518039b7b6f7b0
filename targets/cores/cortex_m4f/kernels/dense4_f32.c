/* The last four rows of a layer: 4 biases, then 4 weights per input.
 * A sum becomes sum + leak |sum|, unless leak is 0.
 *
 * Cortex-M4F: only s0-s15, which a function may use without saving them: the smallest networks
 * spend their time here. Sums in s0-s3, weights in s4-s11, inputs in s12-s15. */
__attribute__((noinline)) static void dense4_f32(const float *weights, const float *in, float *out,
                                                 size_t n_in, float leak)
{
    size_t k;
    __asm__ volatile(
        ".macro add_two_inputs x0, x1\n\t"
        "vldmia %[w]!, {s4-s11}\n\t"
        "vmul.f32 s4, s4, \\x0\n\t vmul.f32 s5, s5, \\x0\n\t"
        "vmul.f32 s6, s6, \\x0\n\t vmul.f32 s7, s7, \\x0\n\t"
        "vmul.f32 s8, s8, \\x1\n\t vmul.f32 s9, s9, \\x1\n\t"
        "vmul.f32 s10, s10, \\x1\n\t vmul.f32 s11, s11, \\x1\n\t"
        "vadd.f32 s0, s0, s4\n\t vadd.f32 s1, s1, s5\n\t"
        "vadd.f32 s2, s2, s6\n\t vadd.f32 s3, s3, s7\n\t"
        "vadd.f32 s0, s0, s8\n\t vadd.f32 s1, s1, s9\n\t"
        "vadd.f32 s2, s2, s10\n\t vadd.f32 s3, s3, s11\n\t"
        ".endm\n\t"
        "vldmia %[w]!, {s0-s3}\n\t"
        "lsrs %[k], %[n], #2\n\t"
        "beq 2f\n"
        "1:\n\t" /* four inputs */
        "vldmia %[in]!, {s12-s15}\n\t"
        "add_two_inputs s12, s13\n\t"
        "add_two_inputs s14, s15\n\t"
        "subs %[k], %[k], #1\n\t"
        "bne 1b\n"
        "2:\n\t"
        "lsls %[k], %[n], #31\n\t" /* carry: bit 1 of n; sign: bit 0 */
        "bcc 3f\n\t"
        "vldmia %[in]!, {s12-s13}\n\t"
        "add_two_inputs s12, s13\n"
        "3:\n\t"
        "cbz %[k], 4f\n\t"
        "vldmia %[in]!, {s12}\n\t"
        "vldmia %[w]!, {s4-s7}\n\t"
        "vmul.f32 s4, s4, s12\n\t vmul.f32 s5, s5, s12\n\t"
        "vmul.f32 s6, s6, s12\n\t vmul.f32 s7, s7, s12\n\t"
        "vadd.f32 s0, s0, s4\n\t vadd.f32 s1, s1, s5\n\t"
        "vadd.f32 s2, s2, s6\n\t vadd.f32 s3, s3, s7\n"
        "4:\n\t"
        "cbz %[leak], 5f\n\t"
        "vmov s12, %[leak]\n\t"
        "vabs.f32 s4, s0\n\t vabs.f32 s5, s1\n\t vabs.f32 s6, s2\n\t vabs.f32 s7, s3\n\t"
        "vmul.f32 s4, s4, s12\n\t vmul.f32 s5, s5, s12\n\t"
        "vmul.f32 s6, s6, s12\n\t vmul.f32 s7, s7, s12\n\t"
        "vadd.f32 s0, s0, s4\n\t vadd.f32 s1, s1, s5\n\t"
        "vadd.f32 s2, s2, s6\n\t vadd.f32 s3, s3, s7\n"
        "5:\n\t"
        "vstmia %[out], {s0-s3}\n\t"
        ".purgem add_two_inputs\n\t"
        : [w] "+r"(weights), [in] "+r"(in), [k] "=&l"(k)
        : [n] "r"(n_in), [out] "r"(out), [leak] "l"(leak)
        : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
          "s12", "s13", "s14", "s15");
}
