/* ReLU of two sums, shifted down to `bits` bits: one USAT each. */
INLINE uint32_t relu_pair(int32_t a, int32_t b, const int shift, const int bits)
{
    uint32_t pair;
    __asm__("usat %[a], %[top], %[a], asr %[s]\n\t"
            "usat %[b], %[top], %[b], asr %[s]\n\t"
            "pkhbt %[pair], %[a], %[b], lsl #16"
            : [a] "+r"(a), [b] "+r"(b), [pair] "=r"(pair)
            : [top] "i"(bits - 1), [s] "i"(shift));
    return pair;
}
