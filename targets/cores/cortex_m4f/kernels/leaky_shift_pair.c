/* Leaky ReLU of two sums where 1 / slope = 1 + 2^lift: x + 2^lift max(x, 0) is its multiple.
 * Both terms are saturating shifts of the sum, two of which QADD16 adds at once. */
INLINE uint32_t leaky_shift_pair(int32_t a, int32_t b, const int shift, const int lift,
                                 const int bits)
{
    uint32_t positive, pair, rest;
    __asm__("usat %[pair], %[top], %[a], asr %[high]\n\t"
            "usat %[rest], %[top], %[b], asr %[high]\n\t"
            "ssat %[a], %[top], %[a], asr %[s]\n\t"
            "ssat %[b], %[top], %[b], asr %[s]\n\t"
            "pkhbt %[positive], %[pair], %[rest], lsl #16\n\t"
            "pkhbt %[pair], %[a], %[b], lsl #16\n\t"
            "qadd16 %[pair], %[pair], %[positive]"
            : [a] "+r"(a), [b] "+r"(b), [pair] "=&r"(pair), [rest] "=&r"(rest),
              [positive] "=&r"(positive)
            : [top] "i"(bits - 1), [high] "i"(shift - lift), [s] "i"(shift));
    return pair;
}
