/* Leaky ReLU of two sums, shifted down to `bits` bits: the larger of x and x slope / 2^16. */
INLINE uint32_t leaky_pair(int32_t a, int32_t b, const int shift, const int bits,
                           const int32_t slope)
{
    uint32_t pair, small, unused;
    __asm__("ssat %[a], %[bits], %[a], asr %[s]\n\t"
            "ssat %[b], %[bits], %[b], asr %[s]\n\t"
            "smulwb %[small], %[slope], %[a]\n\t"
            "smulwb %[unused], %[slope], %[b]\n\t"
            "pkhbt %[pair], %[a], %[b], lsl #16\n\t"
            "pkhbt %[small], %[small], %[unused], lsl #16\n\t"
            "ssub16 %[unused], %[pair], %[small]\n\t" /* sets GE where pair >= small */
            "sel %[pair], %[pair], %[small]"
            : [a] "+r"(a), [b] "+r"(b), [pair] "=&r"(pair), [small] "=&r"(small),
              [unused] "=&r"(unused)
            : [bits] "i"(bits), [s] "i"(shift), [slope] "r"(slope)
            : "cc");
    return pair;
}
