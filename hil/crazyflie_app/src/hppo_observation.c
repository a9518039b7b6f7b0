#include "hppo_observation.h"

#include <math.h>
#include <string.h>

/* The package may name its own blocks, in its order, as conventions.observation lists them. */
#ifndef HPPO_OBSERVATION_BLOCKS
#define HPPO_OBSERVATION_BLOCKS \
    position_error_body, velocity_error_body, rotation, angular_velocity
#endif
#ifndef HPPO_POSITION_CLIP_M
#define HPPO_POSITION_CLIP_M 1.0f
#endif
#ifndef HPPO_VELOCITY_LIMIT_M_S
#define HPPO_VELOCITY_LIMIT_M_S 0.0f /* none */
#endif

#ifndef HPPO_ACTION_AVERAGE_GAINS /* of a control step, each average */
#define HPPO_ACTION_AVERAGE_GAINS 0.0f
#endif
#ifndef HPPO_INTEGRAL_CLIP_M_S
#define HPPO_INTEGRAL_CLIP_M_S 0.0f
#define HPPO_INTEGRAL_KEPT 0.0f /* after a control step's leak */
#endif

#define RADIANS_PER_DEGREE 0.017453292519943295f
#define AVERAGED (HPPO_ACTION_AVERAGES * POLICY_ACT_DIM)
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define LARGEST_BLOCK LARGER(9, LARGER(HPPO_HISTORY, AVERAGED))
#define CONTROL_PERIOD_S (1.0f / HPPO_CONTROL_HZ)

enum block {
    position_error_body,
    velocity_error_body,
    rotation,
    angular_velocity,
    position_error_integral_body,
    previous_action,
    action_average
};

static const enum block blocks[] = {HPPO_OBSERVATION_BLOCKS};

typedef float rotation_t[3][3]; /* body to world */

/* R from the quaternion scaled to unit length. Standard formula, e.g. J. Diebel, "Representing
 * attitude" (2006), eq. 125 transposed. */
static bool rotation_matrix(const float q[4], rotation_t R)
{
    const float norm2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
    if (!(norm2 > 0.5f && norm2 < 2.0f)) { /* also false for NaN */
        return false;
    }
    const float s = 2.0f / norm2;
    const float x = q[0], y = q[1], z = q[2], w = q[3];
    R[0][0] = 1.0f - s * (y * y + z * z);
    R[0][1] = s * (x * y - z * w);
    R[0][2] = s * (x * z + y * w);
    R[1][0] = s * (x * y + z * w);
    R[1][1] = 1.0f - s * (x * x + z * z);
    R[1][2] = s * (y * z - x * w);
    R[2][0] = s * (x * z - y * w);
    R[2][1] = s * (y * z + x * w);
    R[2][2] = 1.0f - s * (x * x + y * y);
    return true;
}

bool hppo_body_to_world(const float quaternion[4], const float body[3], float world[3])
{
    rotation_t R;
    if (!rotation_matrix(quaternion, R)) {
        return false;
    }
    for (int i = 0; i < 3; i++) {
        world[i] = R[i][0] * body[0] + R[i][1] * body[1] + R[i][2] * body[2];
    }
    return true;
}

/* R^T v */
static int to_body(const float v[3], rotation_t R, float *out)
{
    for (int i = 0; i < 3; i++) {
        out[i] = R[0][i] * v[0] + R[1][i] * v[1] + R[2][i] * v[2];
    }
    return 3;
}

static void subtract(const float a[3], const float b[3], float difference[3])
{
    for (int i = 0; i < 3; i++) {
        difference[i] = a[i] - b[i];
    }
}

/* Shortened to the limit, so that a vector keeps its direction. */
static void clip(float v[3], float limit)
{
    const float norm2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    if (norm2 > limit * limit) {
        const float scale = limit / sqrtf(norm2);
        for (int i = 0; i < 3; i++) {
            v[i] *= scale;
        }
    }
}

/* v / sqrt(1 + |v|^2 / limit^2): shorter than the limit, small ones hardly changed. */
static void compress(float v[3], float limit)
{
    if (limit <= 0.0f) {
        return;
    }
    const float norm2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    const float scale = 1.0f / sqrtf(1.0f + norm2 / (limit * limit));
    for (int i = 0; i < 3; i++) {
        v[i] *= scale;
    }
}

static void clipped_position_error(const hppo_flight_t *flight, float error[3])
{
    subtract(flight->position, flight->goal_position, error);
    clip(error, HPPO_POSITION_CLIP_M);
}

/* Writes a block's values and returns how many. */
static int write_block(enum block block, const hppo_flight_t *flight, rotation_t R, float *out)
{
    float world[3];
    switch (block) {
    case position_error_body:
        clipped_position_error(flight, world);
        return to_body(world, R, out);
    case velocity_error_body:
        subtract(flight->velocity, flight->goal_velocity, world);
        compress(world, HPPO_VELOCITY_LIMIT_M_S);
        return to_body(world, R, out);
    case rotation:
        memcpy(out, R, sizeof(rotation_t));
        return 9;
    case angular_velocity:
        for (int i = 0; i < 3; i++) {
            out[i] = flight->gyro[i] * RADIANS_PER_DEGREE;
        }
        return 3;
    case position_error_integral_body:
        return to_body(flight->integral, R, out);
    case previous_action:
        memcpy(out, flight->previous_action, sizeof flight->previous_action);
        return HPPO_HISTORY;
    case action_average:
        memcpy(out, flight->action_average, sizeof flight->action_average);
        return AVERAGED;
    }
    return 0;
}

bool hppo_observe(const hppo_flight_t *flight, float observation[POLICY_OBS_DIM])
{
    rotation_t R;
    if (!rotation_matrix(flight->quaternion, R)) {
        return false;
    }
    int filled = 0;
    for (unsigned i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        float values[LARGEST_BLOCK];
        const int count = write_block(blocks[i], flight, R, values);
        if (filled + count > POLICY_OBS_DIM) {
            return false;
        }
        memcpy(&observation[filled], values, sizeof(float) * (unsigned)count);
        filled += count;
    }
    return filled == POLICY_OBS_DIM;
}

bool hppo_upright(const float quaternion[4], float degrees)
{
    rotation_t R;
    return rotation_matrix(quaternion, R) && R[2][2] >= cosf(degrees * RADIANS_PER_DEGREE);
}

static void remember_action(hppo_flight_t *flight, const float action[POLICY_ACT_DIM])
{
    static const float gains[HPPO_ACTION_AVERAGES] = {HPPO_ACTION_AVERAGE_GAINS};
    float *history = flight->previous_action;
    memmove(history + POLICY_ACT_DIM, history, sizeof(float) * (HPPO_HISTORY - POLICY_ACT_DIM));
    memcpy(history, action, sizeof(float) * POLICY_ACT_DIM);
    float *average = flight->action_average;
    for (int k = 0; k < HPPO_ACTION_AVERAGES; k++) {
        for (int i = 0; i < POLICY_ACT_DIM; i++, average++) {
            *average += (action[i] - *average) * gains[k];
        }
    }
}

static void integrate(hppo_flight_t *flight)
{
    float error[3];
    clipped_position_error(flight, error);
    for (int i = 0; i < 3; i++) {
        flight->integral[i] =
            flight->integral[i] * HPPO_INTEGRAL_KEPT + error[i] * CONTROL_PERIOD_S;
    }
    clip(flight->integral, HPPO_INTEGRAL_CLIP_M_S);
}

void hppo_remember(hppo_flight_t *flight, const float action[POLICY_ACT_DIM])
{
    remember_action(flight, action);
    integrate(flight);
}

void hppo_forget(hppo_flight_t *flight)
{
    memset(flight->previous_action, 0, sizeof flight->previous_action);
    memset(flight->action_average, 0, sizeof flight->action_average);
    memset(flight->integral, 0, sizeof flight->integral);
}
