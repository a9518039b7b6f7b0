/* The observation of the quadrotor convention (docs/conventions.md) from the firmware's units. */
#ifndef HPPO_OBSERVATION_H
#define HPPO_OBSERVATION_H

#include <stdbool.h>

#include "package_hash.h"
#include "policy.h"

#ifndef HPPO_CONTROL_HZ
#define HPPO_CONTROL_HZ 100
#endif
#ifndef HPPO_PREVIOUS_ACTIONS
#define HPPO_PREVIOUS_ACTIONS 1 /* steps that the block previous_action looks back */
#endif
#define HPPO_HISTORY (HPPO_PREVIOUS_ACTIONS * POLICY_ACT_DIM)
#ifndef HPPO_ACTION_AVERAGES
#define HPPO_ACTION_AVERAGES 1 /* averages of the block action_average */
#endif

/* What the builder reads, in the units in which the firmware keeps it. A struct of our own, so
 * that the builder compiles and is tested without the firmware. */
typedef struct {
    float position[3];      /* m, world (ENU) */
    float velocity[3];      /* m/s, world */
    float quaternion[4];    /* x y z w, body (FLU) to world: state_t.attitudeQuaternion. Not
                               state_t.attitude, whose pitch is inverted */
    float gyro[3];          /* degrees/s, body */
    float goal_position[3]; /* m, world */
    float goal_velocity[3]; /* m/s, world */
    /* What the policy is told of its past, zeros when it takes over: */
    float previous_action[HPPO_HISTORY]; /* its answers in [-1, 1], newest first */
    float action_average[HPPO_ACTION_AVERAGES * POLICY_ACT_DIM];
    float integral[3]; /* m s, world, of the clipped position error */
} hppo_flight_t;

/* Writes the observation in SI units. False, and an unusable observation, when the quaternion is
 * far from unit length or the convention's blocks do not fill POLICY_OBS_DIM values. */
bool hppo_observe(const hppo_flight_t *flight, float observation[POLICY_OBS_DIM]);

/* True when the body's z axis is within `degrees` of up. False also for NaN. */
bool hppo_upright(const float quaternion[4], float degrees);

/* Takes this step into the policy's past: its answer and the position error. Zeroes that past. */
void hppo_remember(hppo_flight_t *flight, const float action[POLICY_ACT_DIM]);
void hppo_forget(hppo_flight_t *flight);

/* Rotates a vector from body to world; false when the quaternion is far from unit length. */
bool hppo_body_to_world(const float quaternion[4], const float body[3], float world[3]);

#endif
