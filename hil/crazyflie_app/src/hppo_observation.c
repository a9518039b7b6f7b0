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

#define RADIANS_PER_DEGREE 0.017453292519943295f
#define LARGEST_BLOCK (HPPO_HISTORY > 9 ? HPPO_HISTORY : 9)

enum block {
    position_error_body,
    velocity_error_body,
    rotation,
    angular_velocity,
    previous_action
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

/* R^T (actual - goal) */
static int error_body(const float actual[3], const float goal[3], rotation_t R, float *out)
{
    const float x = actual[0] - goal[0], y = actual[1] - goal[1], z = actual[2] - goal[2];
    for (int i = 0; i < 3; i++) {
        out[i] = R[0][i] * x + R[1][i] * y + R[2][i] * z;
    }
    return 3;
}

/* Clipped by its norm, so that a far goal keeps its direction. */
static int clipped_position_error(const hppo_flight_t *flight, rotation_t R, float *out)
{
    const int count = error_body(flight->position, flight->goal_position, R, out);
    const float norm2 = out[0] * out[0] + out[1] * out[1] + out[2] * out[2];
    if (norm2 > HPPO_POSITION_CLIP_M * HPPO_POSITION_CLIP_M) {
        const float scale = HPPO_POSITION_CLIP_M / sqrtf(norm2);
        for (int i = 0; i < count; i++) {
            out[i] *= scale;
        }
    }
    return count;
}

/* Writes a block's values and returns how many. */
static int write_block(enum block block, const hppo_flight_t *flight, rotation_t R, float *out)
{
    switch (block) {
    case position_error_body:
        return clipped_position_error(flight, R, out);
    case velocity_error_body:
        return error_body(flight->velocity, flight->goal_velocity, R, out);
    case rotation:
        memcpy(out, R, sizeof(rotation_t));
        return 9;
    case angular_velocity:
        for (int i = 0; i < 3; i++) {
            out[i] = flight->gyro[i] * RADIANS_PER_DEGREE;
        }
        return 3;
    case previous_action:
        memcpy(out, flight->previous_action, sizeof flight->previous_action);
        return HPPO_HISTORY;
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

void hppo_remember(hppo_flight_t *flight, const float action[POLICY_ACT_DIM])
{
    float *history = flight->previous_action;
    memmove(history + POLICY_ACT_DIM, history, sizeof(float) * (HPPO_HISTORY - POLICY_ACT_DIM));
    memcpy(history, action, sizeof(float) * POLICY_ACT_DIM);
}

void hppo_forget(hppo_flight_t *flight)
{
    memset(flight->previous_action, 0, sizeof flight->previous_action);
}
