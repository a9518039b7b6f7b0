/* tanh(x) = x P(x^2) / Q(x^2) on [-8, 8], constant beyond, for n values, a multiple of 4: within
 * 7e-7 of the real tanh. Minimax coefficients, by reweighted least squares; P and Q are monic.
 *
 * Cortex-M4F: a division takes 14 cycles, so four values share one, by Q Q Q Q. VCVT to fixed point
 * with 28 fraction bits keeps x within [-8, 8] without a branch. x in s0-s3, x^2 in s4-s7, P in
 * s8-s11, Q in s12-s15, coefficients in s16-s23: no result is used by the next instruction. Four
 * values alone take coefficients as they go, in registers that need no saving. */
#define ALL(op, d0, a0, b0, d1, a1, b1, d2, a2, b2, d3, a3, b3)                                    \
    op ".f32 " #d0 ", " #a0 ", " #b0 "\n\t" op ".f32 " #d1 ", " #a1 ", " #b1 "\n\t"                \
    op ".f32 " #d2 ", " #a2 ", " #b2 "\n\t" op ".f32 " #d3 ", " #a3 ", " #b3 "\n\t"
#define ADD_P(c) ALL("vadd", s8, s8, c, s9, s9, c, s10, s10, c, s11, s11, c)
#define ADD_Q(c) ALL("vadd", s12, s12, c, s13, s13, c, s14, s14, c, s15, s15, c)
#define P_TIMES_U ALL("vmul", s8, s8, s4, s9, s9, s5, s10, s10, s6, s11, s11, s7)
#define Q_TIMES_U ALL("vmul", s12, s12, s4, s13, s13, s5, s14, s14, s6, s15, s15, s7)
#define CONVERT(to)                                                                               \
    "vcvt." to " s0, s0, #28\n\tvcvt." to " s1, s1, #28\n\t"                                      \
    "vcvt." to " s2, s2, #28\n\tvcvt." to " s3, s3, #28\n\t"

static const float tanh_coefficients[8] = {
    259.83893f, 11417.721f, 88415.945f, 977.90784f, 98042.58f, 1.9080064e+06f, 4.1257105e+06f, 46.662487f,
};

__attribute__((noinline)) static void tanh_many_f32(float *x, size_t n)
{
    __asm__ volatile(
        "vldmia %[c], {s16-s23}\n"
        "1:\n\t"
        "vldmia %[x], {s0-s3}\n\t"
        CONVERT("s32.f32") CONVERT("f32.s32")
        ALL("vmul", s4, s0, s0, s5, s1, s1, s6, s2, s2, s7, s3, s3)
        ALL("vadd", s8, s4, s16, s9, s5, s16, s10, s6, s16, s11, s7, s16)
        P_TIMES_U ADD_P(s17) P_TIMES_U ADD_P(s18)
        ALL("vadd", s12, s4, s19, s13, s5, s19, s14, s6, s19, s15, s7, s19)
        Q_TIMES_U ADD_Q(s20) Q_TIMES_U ADD_Q(s21) Q_TIMES_U ADD_Q(s22)
        "vmul.f32 s4, s12, s13\n\t" /* q01 */
        "vmul.f32 s5, s14, s15\n\t" /* q23 */
        ALL("vmul", s8, s0, s8, s9, s1, s9, s10, s2, s10, s11, s3, s11)
        "vmul.f32 s6, s4, s5\n\t"
        "subs %[n], %[n], #4\n\t"
        "vdiv.f32 s6, s23, s6\n\t"
        "vmul.f32 s5, s6, s5\n\t" /* r01 */
        "vmul.f32 s4, s6, s4\n\t" /* r23 */
        "vmul.f32 s0, s5, s13\n\t"
        "vmul.f32 s1, s5, s12\n\t"
        "vmul.f32 s2, s4, s15\n\t"
        "vmul.f32 s3, s4, s14\n\t"
        ALL("vmul", s0, s8, s0, s1, s9, s1, s2, s10, s2, s3, s11, s3)
        "vstmia %[x]!, {s0-s3}\n\t"
        "bne 1b\n\t"
        : [x] "+&r"(x), [n] "+&r"(n)
        : [c] "r"(tanh_coefficients)
        : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
          "s12", "s13", "s14", "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23");
}

/* x in s0-s3 from the start to the end. */
__attribute__((always_inline)) static inline void tanh_four_f32(float *x)
{
    const float *c = tanh_coefficients;
    register float s0 __asm__("s0") = x[0];
    register float s1 __asm__("s1") = x[1];
    register float s2 __asm__("s2") = x[2];
    register float s3 __asm__("s3") = x[3];
    __asm__(CONVERT("s32.f32") CONVERT("f32.s32")
            "vldmia %[c]!, {s12-s14}\n\t"
            ALL("vmul", s4, s0, s0, s5, s1, s1, s6, s2, s2, s7, s3, s3)
            ALL("vadd", s8, s4, s12, s9, s5, s12, s10, s6, s12, s11, s7, s12)
            P_TIMES_U ADD_P(s13) P_TIMES_U ADD_P(s14)
            ALL("vmul", s8, s0, s8, s9, s1, s9, s10, s2, s10, s11, s3, s11)
            "vldmia %[c]!, {s0-s3}\n\t"
            ALL("vadd", s12, s4, s0, s13, s5, s0, s14, s6, s0, s15, s7, s0)
            Q_TIMES_U ADD_Q(s1) Q_TIMES_U ADD_Q(s2) Q_TIMES_U ADD_Q(s3)
            "vmul.f32 s4, s12, s13\n\t" /* q01 */
            "vmul.f32 s5, s14, s15\n\t" /* q23 */
            "vldmia %[c], {s7}\n\t"
            "vmul.f32 s6, s4, s5\n\t"
            "vdiv.f32 s6, s7, s6\n\t"
            "vmul.f32 s5, s6, s5\n\t" /* r01 */
            "vmul.f32 s4, s6, s4\n\t" /* r23 */
            "vmul.f32 s0, s5, s13\n\t"
            "vmul.f32 s1, s5, s12\n\t"
            "vmul.f32 s2, s4, s15\n\t"
            "vmul.f32 s3, s4, s14\n\t"
            ALL("vmul", s0, s8, s0, s1, s9, s1, s2, s10, s2, s3, s11, s3)
            : [c] "+&r"(c), "+&t"(s0), "+&t"(s1), "+&t"(s2), "+&t"(s3)
            : "m"(tanh_coefficients)
            : "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14", "s15");
    x[0] = s0;
    x[1] = s1;
    x[2] = s2;
    x[3] = s3;
}

__attribute__((always_inline)) static inline void tanh_f32(float *x, const size_t n)
{
    if (n == 4) {
        tanh_four_f32(x);
    } else {
        tanh_many_f32(x, n);
    }
}
#undef ALL
#undef ADD_P
#undef ADD_Q
#undef P_TIMES_U
#undef Q_TIMES_U
#undef CONVERT
