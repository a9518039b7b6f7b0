/* Sums with `fraction` fraction bits as floats: VCVT scales, too. */
INLINE void to_f32(const int32_t *in, float *out, const size_t n, const int fraction)
{
    for (size_t i = n / 4; i > 0; --i) {
        __asm__ volatile("vldmia %[in]!, {s0-s3}\n\t"
                         "vcvt.f32.s32 s0, s0, %[f]\n\tvcvt.f32.s32 s1, s1, %[f]\n\t"
                         "vcvt.f32.s32 s2, s2, %[f]\n\tvcvt.f32.s32 s3, s3, %[f]\n\t"
                         "vstmia %[out]!, {s0-s3}"
                         : [in] "+&r"(in), [out] "+&r"(out)
                         : [f] "i"(fraction)
                         : "memory", "s0", "s1", "s2", "s3");
    }
    for (size_t i = n % 4; i > 0; --i) {
        __asm__ volatile("vldmia %[in]!, {s0}\n\t"
                         "vcvt.f32.s32 s0, s0, %[f]\n\t"
                         "vstmia %[out]!, {s0}"
                         : [in] "+&r"(in), [out] "+&r"(out)
                         : [f] "i"(fraction)
                         : "memory", "s0");
    }
}
