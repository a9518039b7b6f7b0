/* out = in within [low, high]; a NaN becomes low.
 *
 * Cortex-M4F: four at a time without a branch, so the time does not depend on the values. */
#define CLIP(v)                                                                                   \
    "vcmp.f32 " #v ", %[low]\n\tvmrs APSR_nzcv, fpscr\n\tit le\n\tvmovle.f32 " #v ", %[low]\n\t"  \
    "vcmp.f32 " #v ", %[high]\n\tvmrs APSR_nzcv, fpscr\n\tit gt\n\tvmovgt.f32 " #v ", %[high]\n\t"

__attribute__((always_inline)) static inline void
clip_f32(const float *in, float *out, const size_t n, const float low, const float high)
{
    for (size_t i = n / 4; i > 0; --i) {
        __asm__ volatile(
            "vldmia %[in]!, {s0-s3}\n\t"
            CLIP(s0) CLIP(s1) CLIP(s2) CLIP(s3)
            "vstmia %[out]!, {s0-s3}\n\t"
            : [in] "+&r"(in), [out] "+&r"(out)
            : [low] "t"(low), [high] "t"(high)
            : "cc", "memory", "s0", "s1", "s2", "s3");
    }
    for (size_t i = n % 4; i > 0; --i) {
        __asm__ volatile(
            "vldmia %[in]!, {s0}\n\t"
            CLIP(s0)
            "vstmia %[out]!, {s0}\n\t"
            : [in] "+&r"(in), [out] "+&r"(out)
            : [low] "t"(low), [high] "t"(high)
            : "cc", "memory", "s0");
    }
}
#undef CLIP
