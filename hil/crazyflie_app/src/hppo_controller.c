/* The policy as the firmware's out-of-tree controller, and its device contract as an app.
 *
 * The stock controller always runs and commands the motors, except while hppo.enable is 1, the
 * self-test has passed, a position setpoint is there and the policy's output is finite: then its
 * output is replaced by the policy's. Losing any of these hands the motors back within one control
 * period.
 */
#include <string.h>

#include "FreeRTOS.h"
#include "task.h"

#include "app.h"
#include "app_channel.h"
#include "controller.h"
#include "controller_pid.h"
#include "debug.h"
#include "log.h"
#include "param.h"
#include "stabilizer_types.h"
#include "stm32fxxx.h"
#include "supervisor.h"
#include "usec_time.h"

#include "hppo_device.h"
#include "hppo_observation.h"
#include "package_hash.h"

#ifndef HPPO_CONTROL_HZ
#define HPPO_CONTROL_HZ 100
#endif

static bool running; /* the cycle counter runs and the app has started */
static bool usable;  /* action holds the answer to the latest observation */
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

void appMain(void)
{
    static uint8_t request[HPPO_PACKET_BYTES];
    static uint8_t reply[HPPO_PACKET_BYTES];

    CoreDebug->DEMCR |= CoreDebug_DEMCR_TRCENA_Msk;
    DWT->CTRL |= DWT_CTRL_CYCCNTENA_Msk;
    hppo_device_init();
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

/* False when the setpoint gives no position to fly to. */
static bool read_flight(const setpoint_t *setpoint, const sensorData_t *sensors,
                        const state_t *state)
{
    if (setpoint->mode.x != modeAbs || setpoint->mode.y != modeAbs ||
        setpoint->mode.z != modeAbs) {
        return false;
    }
    const quaternion_t *q = &state->attitudeQuaternion;
    copy3(flight.position, state->position.x, state->position.y, state->position.z);
    copy3(flight.velocity, state->velocity.x, state->velocity.y, state->velocity.z);
    copy3(flight.quaternion, q->x, q->y, q->z);
    flight.quaternion[3] = q->w;
    copy3(flight.gyro, sensors->gyro.x, sensors->gyro.y, sensors->gyro.z);
    copy3(flight.goal_position, setpoint->position.x, setpoint->position.y,
          setpoint->position.z);
    float wanted[3];
    copy3(wanted, setpoint->velocity.x, setpoint->velocity.y, setpoint->velocity.z);
    if (setpoint->velocity_body) {
        return hppo_body_to_world(flight.quaternion, wanted, flight.goal_velocity);
    }
    memcpy(flight.goal_velocity, wanted, sizeof wanted);
    return true;
}

static bool wanted(void)
{
    return running && (hppo_param_enable != 0 || hppo_param_mode == HPPO_MODE_FREE);
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

    const bool due = RATE_DO_EXECUTE(HPPO_CONTROL_HZ, step);
    if (due) {
        usable = wanted() && read_flight(setpoint, sensors, state) &&
                 hppo_observe(&flight, observation) && hppo_device_step(observation, action);
    }
    if (!hppo_device_may_fly() || !usable || POLICY_ACT_DIM != STABILIZER_NR_OF_MOTORS) {
        usable = false;
        hppo_forget(&flight); /* the policy did not move the motors: it has no past */
        hppo_log_status = (uint8_t)(hppo_log_status & ~HPPO_STATUS_ACTIVE);
        return;
    }
    hppo_log_status |= HPPO_STATUS_ACTIVE;
    if (due) {
        hppo_remember(&flight, action);
    }
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
LOG_ADD(LOG_UINT8, version, &hppo_log_version)
LOG_GROUP_STOP(hppo)

PARAM_GROUP_START(hppo)
PARAM_ADD(PARAM_UINT8, mode, &hppo_param_mode)
PARAM_ADD(PARAM_UINT8, enable, &hppo_param_enable)
PARAM_GROUP_STOP(hppo)
