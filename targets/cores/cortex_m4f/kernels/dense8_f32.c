/* Eight rows at a time. A panel is one sequential stream: 8 biases, then 8 weights per input.
 * A sum becomes sum + leak |sum|, unless leak is 0.
 *
 * Cortex-M4F: sums in s0-s7, weights in s8-s23, inputs in s24-s31, since a load of n words takes
 * 1 + n cycles. VMUL and VADD take 2 cycles where VMLA or VFMA takes 3; eight products stand
 * between each result and its use. Rounds exactly as the portable kernel. */
__attribute__((noinline)) static void dense8_f32(const float *weights, const float *in, float *out,
                                                 size_t n_in, size_t n_panels, float leak)
{
    const float *x;
    size_t k;
    __asm__ volatile(
        ".macro add_input x, w0, w1, w2, w3, w4, w5, w6, w7\n\t"
        ".irp w, \\w0, \\w1, \\w2, \\w3, \\w4, \\w5, \\w6, \\w7\n\t"
        "vmul.f32 \\w, \\w, \\x\n\t"
        ".endr\n\t"
        "vadd.f32 s0, s0, \\w0\n\t vadd.f32 s1, s1, \\w1\n\t"
        "vadd.f32 s2, s2, \\w2\n\t vadd.f32 s3, s3, \\w3\n\t"
        "vadd.f32 s4, s4, \\w4\n\t vadd.f32 s5, s5, \\w5\n\t"
        "vadd.f32 s6, s6, \\w6\n\t vadd.f32 s7, s7, \\w7\n\t"
        ".endm\n\t"
        ".macro add_two_inputs x0, x1\n\t"
        "vldmia %[w]!, {s8-s23}\n\t"
        "add_input \\x0, s8, s9, s10, s11, s12, s13, s14, s15\n\t"
        "add_input \\x1, s16, s17, s18, s19, s20, s21, s22, s23\n\t"
        ".endm\n"
        "1:\n\t" /* a panel */
        "vldmia %[w]!, {s0-s7}\n\t"
        "mov %[x], %[in]\n\t"
        "lsrs %[k], %[n], #3\n\t"
        "beq 3f\n"
        "2:\n\t" /* eight inputs */
        "vldmia %[x]!, {s24-s31}\n\t"
        "add_two_inputs s24, s25\n\t add_two_inputs s26, s27\n\t"
        "add_two_inputs s28, s29\n\t add_two_inputs s30, s31\n\t"
        "subs %[k], %[k], #1\n\t"
        "bne 2b\n"
        "3:\n\t"
        "ands %[k], %[n], #7\n\t"
        "beq 5f\n"
        "4:\n\t" /* one input */
        "vldmia %[x]!, {s24}\n\t"
        "vldmia %[w]!, {s8-s15}\n\t"
        "add_input s24, s8, s9, s10, s11, s12, s13, s14, s15\n\t"
        "subs %[k], %[k], #1\n\t"
        "bne 4b\n"
        "5:\n\t"
        "cbz %[leak], 6f\n\t"
        "vmov s24, %[leak]\n\t"
        "vabs.f32 s8, s0\n\t vabs.f32 s9, s1\n\t vabs.f32 s10, s2\n\t vabs.f32 s11, s3\n\t"
        "vabs.f32 s12, s4\n\t vabs.f32 s13, s5\n\t vabs.f32 s14, s6\n\t vabs.f32 s15, s7\n\t"
        "add_input s24, s8, s9, s10, s11, s12, s13, s14, s15\n"
        "6:\n\t"
        "vstmia %[out]!, {s0-s7}\n\t"
        "subs %[panels], %[panels], #1\n\t"
        "bne 1b\n\t"
        ".purgem add_two_inputs\n\t"
        ".purgem add_input\n\t"
        : [w] "+r"(weights), [out] "+r"(out), [panels] "+r"(n_panels), [x] "=&r"(x), [k] "=&l"(k)
        : [in] "r"(in), [n] "r"(n_in), [leak] "l"(leak)
        : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
          "s12", "s13", "s14", "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23", "s24",
          "s25", "s26", "s27", "s28", "s29", "s30", "s31");
}
