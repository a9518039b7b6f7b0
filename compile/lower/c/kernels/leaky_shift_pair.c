/* Leaky ReLU of two sums where 1 / slope = 1 + 2^lift: x + 2^lift max(x, 0) is its multiple. Both
 * terms are shifts of the sum, saturated to one bit less than `bits`; what they add up to, to 16. */
INLINE int32_t leaky_shift(int32_t sum, int shift, int lift, int bits)
{
    const int32_t half = 1 << (bits - 2), x = sum >> shift;
    if (sum < 0) {
        return between(x, -half, -1);
    }
    sum = between(sum >> (shift - lift), 0, 2 * half - 1);
    return between(between(x, 0, half - 1) + sum, 0, 32767);
}

INLINE uint32_t leaky_shift_pair(int32_t a, int32_t b, int shift, int lift, int bits)
{
    return pack(leaky_shift(a, shift, lift, bits), leaky_shift(b, shift, lift, bits));
}
