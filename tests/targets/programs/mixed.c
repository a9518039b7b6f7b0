/* Small jobs of every kind that a policy's code is made of; `run` leaves their results in `results`. */
#include <stdint.h>
#include <string.h>

float floats[32] = { 0.5f, -1.25f, 3.0f, 7.5f, -0.125f };
uint32_t results[32];
static const int32_t table[16] = { 3, -1, 4, -1, 5, -9, 2, -6, 5, 3, -5, 8, -9, 7, -9, 3 };
static uint8_t bytes[64], copied[64];

static uint32_t bits(float value)
{
    uint32_t word;
    memcpy(&word, &value, 4);
    return word;
}

static float polynomial(const float *x, int n)
{
    float sum = 1.0f;
    for (int i = 0; i < n; ++i) {
        sum = sum * 0.75f + x[i] / (1.0f + x[i] * x[i]);
    }
    return sum;
}

/* Conditional loads, multiplications and negations: IT blocks. */
static int32_t conditional(const int32_t *values, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; ++i) {
        sum += values[i] < 0 ? values[15 - i] * 3 : -values[i];
        if (values[i] > 4) {
            sum ^= values[(i + 1) & 15];
        }
    }
    return sum;
}

static uint32_t hash(uint32_t seed, int n)
{
    for (int i = 0; i < n; ++i) {
        seed = (seed ^ (seed >> 13)) * 0x5bd1e995u + (uint32_t)i / 7u;
    }
    return seed;
}

int run(int seed);
int run(int seed)
{
    for (int i = 0; i < 64; ++i) {
        bytes[i] = (uint8_t)(seed * 7 + i * i);
    }
    memcpy(copied, bytes + 3, 61);
    memset(copied + 40, 0x5a, 9);
    uint32_t check = 0;
    for (int i = 0; i < 64; ++i) {
        check = check * 31u + copied[i];
    }
    results[0] = check;
    results[1] = bits(polynomial(floats, 5 + seed % 27));
    results[2] = (uint32_t)conditional(table, 16);
    results[3] = hash((uint32_t)seed, 100 + seed);
    results[4] = bits((float)seed * 0.1f);
    results[5] = (uint32_t)(int32_t)(floats[seed % 5] * 1000.0f);
    results[6] = (uint32_t)((int64_t)seed * table[seed & 15] >> 3);
    return seed + 1;
}
