/* The policy as the firmware's out-of-tree controller, and its device contract as an app.
 *
 * The stock controller always runs and commands the motors, except while hppo.enable is 1 and
 * nothing speaks against it (enum hppo_reason): then its output is replaced by the policy's. A
 * reason that comes up hands the motors back within one control period. Those that say that
 * something went wrong in flight hold until enable was 0; hppo.reason names the first.
 */
#include <string.h>

#include "FreeRTOS.h"
#include "task.h"

#include "app.h"
#include "app_channel.h"
#include "attitude_controller.h"
#include "controller.h"
#include "controller_pid.h"
#include "debug.h"
#include "log.h"
#include "param.h"
#include "position_controller.h"
#include "stabilizer_types.h"
#include "stm32fxxx.h"
#include "supervisor.h"
#include "usec_time.h"

#include "hppo_device.h"
#include "hppo_observation.h"
#include "package_hash.h"


static bool running;  /* the cycle counter runs and the app has started */
static bool flies;    /* the motors follow the policy: action holds its latest answer */
static bool grounded; /* something went wrong in flight: not before enable was 0 */
static hppo_flight_t flight;
static float observation[POLICY_OBS_DIM];
static float action[POLICY_ACT_DIM];

/* -- port ------------------------------------------------------------------------------------ */

uint32_t hppo_port_clock_hz(void)
{
    return SystemCoreClock;
}

uint32_t hppo_port_cycles(void)
{
    return DWT->CYCCNT;
}

uint32_t hppo_port_micros(void)
{
    return (uint32_t)usecTimestamp();
}

/* The policy's buffers are static, so the app's task and the stabiliser's may not both be in
 * policy_step. Nothing is held up in flight: then requests are refused. */
bool hppo_port_begin(void)
{
    if (hppo_param_enable != 0 || supervisorIsFlying()) {
        return false;
    }
    vTaskSuspendAll();
    return true;
}

void hppo_port_end(void)
{
    (void)xTaskResumeAll();
}

/* -- app ------------------------------------------------------------------------------------- */

void hppo_start(void);

/* Also where an emulator of the firmware begins. */
void hppo_start(void)
{
    CoreDebug->DEMCR |= CoreDebug_DEMCR_TRCENA_Msk;
    DWT->CTRL |= DWT_CTRL_CYCCNTENA_Msk;
    hppo_device_init();
}

void appMain(void)
{
    static uint8_t request[HPPO_PACKET_BYTES];
    static uint8_t reply[HPPO_PACKET_BYTES];

    hppo_start();
    if (hppo_port_begin()) {
        (void)hppo_device_self_test();
        hppo_port_end();
    }
    running = true;

    for (;;) {
        const size_t length = appchannelReceiveDataPacket(request, sizeof request,
                                                          APPCHANNEL_WAIT_FOREVER);
        const uint8_t answer = hppo_device_handle(request, (uint8_t)length, reply);
        if (answer > 0) {
            appchannelSendDataPacketBlock(reply, answer);
        }
    }
}

/* -- controller ------------------------------------------------------------------------------ */

static void copy3(float to[3], float x, float y, float z)
{
    to[0] = x;
    to[1] = y;
    to[2] = z;
}

static void read_flight(const setpoint_t *setpoint, const sensorData_t *sensors,
                        const state_t *state)
{
    const quaternion_t *q = &state->attitudeQuaternion;
    copy3(flight.position, state->position.x, state->position.y, state->position.z);
    copy3(flight.velocity, state->velocity.x, state->velocity.y, state->velocity.z);
    copy3(flight.quaternion, q->x, q->y, q->z);
    flight.quaternion[3] = q->w;
    copy3(flight.gyro, sensors->gyro.x, sensors->gyro.y, sensors->gyro.z);
    copy3(flight.goal_position, setpoint->position.x, setpoint->position.y,
          setpoint->position.z);
    copy3(flight.goal_velocity, setpoint->velocity.x, setpoint->velocity.y,
          setpoint->velocity.z);
    if (setpoint->velocity_body) {
        float body[3];
        memcpy(body, flight.goal_velocity, sizeof body);
        (void)hppo_body_to_world(flight.quaternion, body, flight.goal_velocity);
    }
}

static bool is_near(float limit)
{
    float squared = 0.0f;
    for (int i = 0; i < 3; i++) {
        const float apart = flight.position[i] - flight.goal_position[i];
        squared += apart * apart;
    }
    return squared <= limit * limit; /* false for NaN */
}

/* One control period: observes, runs the policy, and says why its answer may not fly. */
static enum hppo_reason run_policy(const setpoint_t *setpoint, const sensorData_t *sensors,
                                   const state_t *state)
{
    if (setpoint->mode.x != modeAbs || setpoint->mode.y != modeAbs ||
        setpoint->mode.z != modeAbs) {
        hppo_device_tick(); /* on a desk, free running goes on with the latest request */
        return HPPO_REASON_NO_GOAL;
    }
    read_flight(setpoint, sensors, state);
    if (!hppo_observe(&flight, observation)) {
        return HPPO_REASON_ATTITUDE;
    }
    if (!hppo_device_step(observation, action)) {
        return HPPO_REASON_NOT_FINITE;
    }
    if (!(hppo_log_status & HPPO_STATUS_PASSED)) {
        return HPPO_REASON_SELF_TEST;
    }
    if (xTaskGetTickCount() - setpoint->timestamp > M2T(hppo_param_stale)) {
        return HPPO_REASON_STALE;
    }
    if (!hppo_upright(flight.quaternion, hppo_param_tilt)) {
        return HPPO_REASON_TILT;
    }
    return is_near(hppo_param_dist) ? HPPO_REASON_NONE : HPPO_REASON_DISTANCE;
}

/* After a while without the motors its integrators are wound up: the stock controller starts
 * from the present state. */
static void give_back(const state_t *state)
{
    flies = false;
    hppo_forget(&flight); /* the policy does not move the motors: it has no past */
    positionControllerResetAllPID(state->position.x, state->position.y, state->position.z);
    attitudeControllerResetAllPID(state->attitude.roll, state->attitude.pitch,
                                  state->attitude.yaw);
}

/* Whether the motors follow the policy, decided anew each control period. */
static void decide(enum hppo_reason reason, const state_t *state)
{
    if (flies && reason != HPPO_REASON_NONE && reason != HPPO_REASON_NO_GOAL) {
        grounded = true;
    } else if (grounded) {
        return; /* hppo.reason keeps the first */
    }
    hppo_log_reason = (uint8_t)reason;
    if (reason == HPPO_REASON_NONE) {
        flies = true;
        hppo_remember(&flight, action);
    } else if (flies) {
        give_back(state);
    }
}

void controllerOutOfTreeInit(void)
{
    controllerPidInit();
}

bool controllerOutOfTreeTest(void)
{
    return controllerPidTest();
}

void controllerOutOfTree(control_t *control, const setpoint_t *setpoint,
                         const sensorData_t *sensors, const state_t *state,
                         const stabilizerStep_t step)
{
    controllerPid(control, setpoint, sensors, state, step);

    const bool enabled = running && hppo_param_enable != 0;
    if (!enabled) {
        grounded = false;
        if (flies) {
            give_back(state);
        }
    }
    if (RATE_DO_EXECUTE(HPPO_CONTROL_HZ, step)) {
        if (enabled) {
            decide(run_policy(setpoint, sensors, state), state);
        } else if (running && hppo_param_mode == HPPO_MODE_FREE) {
            (void)run_policy(setpoint, sensors, state);
        }
    }
    if (!flies || POLICY_ACT_DIM != STABILIZER_NR_OF_MOTORS) {
        hppo_log_status = (uint8_t)(hppo_log_status & ~HPPO_STATUS_ACTIVE);
        return;
    }
    hppo_log_status |= HPPO_STATUS_ACTIVE;
    control->controlMode = controlModeForce;
    for (int motor = 0; motor < POLICY_ACT_DIM; motor++) {
        const float a = action[motor]; /* [-1, 1] to a fraction of full thrust */
        control->normalizedForces[motor] = a < -1.0f ? 0.0f : a > 1.0f ? 1.0f : 0.5f * (a + 1.0f);
    }
}

LOG_GROUP_START(hppo)
LOG_ADD(LOG_UINT32, cycles, &hppo_log_cycles)
LOG_ADD(LOG_UINT32, max, &hppo_log_max)
LOG_ADD(LOG_UINT32, us, &hppo_log_us)
LOG_ADD(LOG_UINT32, count, &hppo_log_count)
LOG_ADD(LOG_UINT32, miss, &hppo_log_miss)
LOG_ADD(LOG_UINT8, status, &hppo_log_status)
LOG_ADD(LOG_UINT8, reason, &hppo_log_reason)
LOG_ADD(LOG_UINT8, version, &hppo_log_version)
LOG_GROUP_STOP(hppo)

PARAM_GROUP_START(hppo)
PARAM_ADD(PARAM_UINT8, mode, &hppo_param_mode)
PARAM_ADD(PARAM_UINT8, enable, &hppo_param_enable)
PARAM_ADD(PARAM_UINT16, stale, &hppo_param_stale)
PARAM_ADD(PARAM_FLOAT, tilt, &hppo_param_tilt)
PARAM_ADD(PARAM_FLOAT, dist, &hppo_param_dist)
PARAM_GROUP_STOP(hppo)
