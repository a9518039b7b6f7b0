/* A function of two sums by straight pieces: entry = value << 16 | slope, `table` its middle.
 *
 * Cortex-M4F: SSAT gives the piece. The place in it is the 15 bits below and, as the sign of a
 * halfword, the piece's parity, which the entries allow for: SMLABB needs no masking. */
INLINE uint32_t table_pair(int32_t a, int32_t b, const int shift, const int bits,
                           const uint32_t *table)
{
    uint32_t entry, other;
    int32_t piece, next;
    __asm__("ssat %[piece], %[bits], %[a], asr %[s]\n\t"
            "ssat %[next], %[bits], %[b], asr %[s]\n\t"
            "ldr %[entry], [%[table], %[piece], lsl #2]\n\t"
            "ldr %[other], [%[table], %[next], lsl #2]\n\t"
            ".if %c[s] >= 15\n\t"
            "asr %[a], %[a], %[down]\n\t"
            "asr %[b], %[b], %[down]\n\t"
            ".else\n\t"
            "lsl %[a], %[a], %[up]\n\t"
            "lsl %[b], %[b], %[up]\n\t"
            ".endif\n\t"
            "smlabb %[entry], %[entry], %[a], %[entry]\n\t"
            "smlabb %[other], %[other], %[b], %[other]\n\t"
            "pkhtb %[entry], %[other], %[entry], asr #16"
            : [a] "+r"(a), [b] "+r"(b), [entry] "=&r"(entry), [other] "=&r"(other),
              [piece] "=&r"(piece), [next] "=&r"(next)
            : [bits] "i"(bits), [s] "i"(shift), [down] "i"((shift - 15) & 31), [up] "i"((15 - shift) & 31), [table] "r"(table)
            : "cc", "memory");
    return entry;
}
