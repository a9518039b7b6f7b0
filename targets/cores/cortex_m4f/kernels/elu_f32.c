/* ELU of -2x, for n values, a multiple of 4: itself above 0, alpha (exp(-2x) - 1) below, within
 * 5e-7 max(1, alpha) of the real one. With v = max(x, 0), exp(-2v) - 1 = -2 tanh v / (1 + tanh v),
 * and tanh v = v P(v^2) / Q(v^2) as in tanh_f32.
 *
 * Cortex-M4F: four values share one division, as in tanh_f32, and VCVT to unsigned fixed point with
 * 29 fraction bits keeps v within [0, 8] without a branch. v in s0-s3, v^2 in s4-s7, P in s8-s11,
 * Q in s12-s15, coefficients in s16-s24, |x| - x in s25-s28. */
#define ALL(op, d0, a0, b0, d1, a1, b1, d2, a2, b2, d3, a3, b3)                                    \
    op ".f32 " #d0 ", " #a0 ", " #b0 "\n\t" op ".f32 " #d1 ", " #a1 ", " #b1 "\n\t"                \
    op ".f32 " #d2 ", " #a2 ", " #b2 "\n\t" op ".f32 " #d3 ", " #a3 ", " #b3 "\n\t"
#define P(op, c) ALL(op, s8, s8, c, s9, s9, c, s10, s10, c, s11, s11, c)
#define Q(op, c) ALL(op, s12, s12, c, s13, s13, c, s14, s14, c, s15, s15, c)
#define P_TIMES_U ALL("vmul", s8, s8, s4, s9, s9, s5, s10, s10, s6, s11, s11, s7)
#define Q_TIMES_U ALL("vmul", s12, s12, s4, s13, s13, s5, s14, s14, s6, s15, s15, s7)
#define CONVERT(to)                                                                               \
    "vcvt." to " s0, s0, #29\n\tvcvt." to " s1, s1, #29\n\t"                                      \
    "vcvt." to " s2, s2, #29\n\tvcvt." to " s3, s3, #29\n\t"

static const float elu_coefficients[8] = {
    259.83893f, 11417.721f, 88415.945f, 46.662487f, 977.90784f, 98042.58f, 1.9080064e+06f, 4.1257105e+06f,
};

__attribute__((noinline)) static void elu_many_f32(float *x, size_t n, const float minus_two_alpha)
{
    __asm__ volatile(
        "vmov.f32 s24, %[m]\n\t"
        "vldmia %[c], {s16-s23}\n"
        "1:\n\t"
        "vldmia %[x], {s0-s3}\n\t"
        "vabs.f32 s25, s0\n\tvabs.f32 s26, s1\n\tvabs.f32 s27, s2\n\tvabs.f32 s28, s3\n\t"
        ALL("vsub", s25, s25, s0, s26, s26, s1, s27, s27, s2, s28, s28, s3)
        CONVERT("u32.f32") CONVERT("f32.u32")
        ALL("vmul", s4, s0, s0, s5, s1, s1, s6, s2, s2, s7, s3, s3)
        ALL("vadd", s8, s4, s16, s9, s5, s16, s10, s6, s16, s11, s7, s16)
        P_TIMES_U P("vadd", s17) P_TIMES_U P("vadd", s18)
        ALL("vmul", s8, s0, s8, s9, s1, s9, s10, s2, s10, s11, s3, s11)
        P("vmul", s19)
        ALL("vadd", s12, s4, s20, s13, s5, s20, s14, s6, s20, s15, s7, s20)
        Q_TIMES_U Q("vadd", s21) Q_TIMES_U Q("vadd", s22) Q_TIMES_U Q("vadd", s23)
        ALL("vadd", s12, s12, s8, s13, s13, s9, s14, s14, s10, s15, s15, s11)
        "vmul.f32 s4, s12, s13\n\t" /* q01 */
        "vmul.f32 s5, s14, s15\n\t" /* q23 */
        "subs %[n], %[n], #4\n\t"
        "vmul.f32 s6, s4, s5\n\t"
        "vdiv.f32 s6, s24, s6\n\t"
        "vmul.f32 s5, s6, s5\n\t" /* r01 */
        "vmul.f32 s4, s6, s4\n\t" /* r23 */
        ALL("vmul", s0, s5, s13, s1, s5, s12, s2, s4, s15, s3, s4, s14)
        ALL("vmul", s0, s8, s0, s1, s9, s1, s2, s10, s2, s3, s11, s3)
        ALL("vadd", s0, s25, s0, s1, s26, s1, s2, s27, s2, s3, s28, s3)
        "vstmia %[x]!, {s0-s3}\n\t"
        "bne 1b\n\t"
        : [x] "+&r"(x), [n] "+&r"(n)
        : [c] "r"(elu_coefficients), [m] "t"(minus_two_alpha)
        : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
          "s12", "s13", "s14", "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23", "s24",
          "s25", "s26", "s27", "s28");
}

__attribute__((always_inline)) static inline void elu_f32(float *x, const size_t n, const float alpha)
{
    elu_many_f32(x, n, -2.0f * alpha);
}
#undef ALL
#undef P
#undef Q
#undef P_TIMES_U
#undef Q_TIMES_U
#undef CONVERT
