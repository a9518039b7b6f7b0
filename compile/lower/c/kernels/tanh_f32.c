/* tanh(x) = x P(x^2) / Q(x^2) on [-8, 8], constant beyond, for n values, a multiple of 4: within
 * 7e-7 of the real tanh. Minimax coefficients, by reweighted least squares; P and Q are monic, and
 * four values share one division by Q Q Q Q. Rounds to multiples of 2^-28 first, as one conversion
 * to fixed point does that also keeps x within [-8, 8]. */
static float within_8(float x)
{
    if (x >= 8.0f) {
        return 8.0f;
    }
    return x > -8.0f ? (float)(int32_t)(x * 268435456.0f) / 268435456.0f : (x <= -8.0f ? -8.0f : 0.0f);
}

KERNEL void tanh_f32(float *x, size_t n)
{
    for (; n >= 4; n -= 4, x += 4) {
        float top[4], q[4];
        for (size_t i = 0; i < 4; ++i) {
            const float v = within_8(x[i]);
            const float u = v * v;
            top[i] = v * (((u + 259.83893f) * u + 11417.721f) * u + 88415.945f);
            q[i] = (((u + 977.90784f) * u + 98042.58f) * u + 1.9080064e+06f) * u + 4.1257105e+06f;
        }
        const float q01 = q[0] * q[1], q23 = q[2] * q[3];
        const float r = 46.662487f / (q01 * q23);
        const float r01 = r * q23, r23 = r * q01;
        x[0] = top[0] * (r01 * q[1]);
        x[1] = top[1] * (r01 * q[0]);
        x[2] = top[2] * (r23 * q[3]);
        x[3] = top[3] * (r23 * q[2]);
    }
}
