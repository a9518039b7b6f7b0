/* ELU of -2x, for n values, a multiple of 4: itself above 0, alpha (exp(-2x) - 1) below, within
 * 5e-7 max(1, alpha) of the real one. With v = max(x, 0), exp(-2v) - 1 = -2 tanh v / (1 + tanh v),
 * and tanh v = v P(v^2) / Q(v^2) as in tanh_f32: four values share one division. v is rounded to
 * multiples of 2^-29 and kept within [0, 8] by one conversion to fixed point. */
static float within_0_8(float x)
{
    if (x >= 8.0f) {
        return 8.0f;
    }
    return x > 0.0f ? (float)(uint32_t)(x * 536870912.0f) / 536870912.0f : 0.0f;
}

KERNEL void elu_f32(float *x, size_t n, float alpha)
{
    for (; n >= 4; n -= 4, x += 4) {
        float top[4], q[4];
        for (size_t i = 0; i < 4; ++i) {
            const float v = within_0_8(x[i]);
            const float u = v * v;
            top[i] = v * (((u + 259.83893f) * u + 11417.721f) * u + 88415.945f) * 46.662487f;
            q[i] = (((u + 977.90784f) * u + 98042.58f) * u + 1.9080064e+06f) * u + 4.1257105e+06f;
            q[i] += top[i];
        }
        const float q01 = q[0] * q[1], q23 = q[2] * q[3];
        const float r = -2.0f * alpha / (q01 * q23);
        const float r01 = r * q23, r23 = r * q01;
        x[0] = absolute(x[0]) - x[0] + top[0] * (r01 * q[1]);
        x[1] = absolute(x[1]) - x[1] + top[1] * (r01 * q[0]);
        x[2] = absolute(x[2]) - x[2] + top[2] * (r23 * q[3]);
        x[3] = absolute(x[3]) - x[3] + top[3] * (r23 * q[2]);
    }
}
