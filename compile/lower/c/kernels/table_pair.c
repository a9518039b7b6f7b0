/* A function of two sums by straight pieces: entry = value << 16 | slope, `table` its middle. The
 * place in a piece is the 15 bits below the piece's number and, as the sign of a halfword, that
 * number's parity, which the entries allow for. */
INLINE int32_t look_up(int32_t sum, int shift, int bits, const uint32_t *table)
{
    const int32_t half = 1 << (bits - 1);
    const uint32_t entry = table[between(sum >> shift, -half, half - 1)];
    const int up = shift < 15 ? 15 - shift : 0, down = shift < 15 ? 0 : shift - 15;
    const uint32_t place = (uint32_t)sum << up >> down;
    return high_half(entry + (uint32_t)(low_half(entry) * low_half(place)));
}

INLINE uint32_t table_pair(int32_t a, int32_t b, int shift, int bits, const uint32_t *table)
{
    return pack(look_up(a, shift, bits, table), look_up(b, shift, bits, table));
}
