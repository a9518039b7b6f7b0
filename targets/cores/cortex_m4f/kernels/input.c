/* Two observations as fixed-point numbers of 16 bits with fa and fb fraction bits, the first in
 * the low half, each saturated to `bits` bits; adds both to `sum`, which a NaN or an infinity
 * spoils. VCVT rounds towards zero, saturates and makes a NaN 0. */
INLINE uint32_t input_pair(float a, float b, const int fa, const int fb, const int bits, float *sum)
{
    uint32_t pair, high;
    *sum += a;
    *sum += b;
    __asm__("vcvt.s16.f32 %[a], %[a], %[fa]\n\t"
            "vcvt.s16.f32 %[b], %[b], %[fb]"
            : [a] "+t"(a), [b] "+t"(b)
            : [fa] "i"(fa), [fb] "i"(fb));
    __asm__("vmov %[pair], %[a]\n\t"
            "vmov %[high], %[b]\n\t"
            "pkhbt %[pair], %[pair], %[high], lsl #16\n\t"
            ".if %c[bits] < 16\n\t"
            "ssat16 %[pair], %[bits], %[pair]\n\t"
            ".endif"
            : [pair] "=&r"(pair), [high] "=&r"(high)
            : [a] "t"(a), [b] "t"(b), [bits] "i"(bits));
    return pair;
}

INLINE int is_finite(float sum)
{
    return sum - sum == 0.0f;
}
