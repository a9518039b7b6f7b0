/* The device side of the HyperPPO device contract, version 1 (docs/device-contract.md).
 *
 * Platform independent C99: the Crazyflie app and the bare-metal image compile this same file and
 * each give it a port (hppo_port_*). One caller at a time; nothing is allocated.
 */
#ifndef HPPO_DEVICE_H
#define HPPO_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "package_hash.h"
#include "policy.h"

#define HPPO_CONTRACT_VERSION 1
#define HPPO_PACKET_BYTES 30 /* what one app-channel packet holds */
#define HPPO_SLOTS 4         /* requests that the device remembers and that may be under way */
#define HPPO_CHUNK_FLOATS 6  /* observation values in one LOAD, action values in one later RUN part */
#define HPPO_FIRST_FLOATS 4  /* action values in part 0 of a RUN reply */
#define HPPO_MAX_REPEAT 1000

enum hppo_command {
    HPPO_HELLO = 1,
    HPPO_LOAD = 2,
    HPPO_RUN = 3,
    HPPO_SELF_TEST = 4,
    HPPO_REPEAT = 5,
    HPPO_KERNEL_RUN = 6
};

#define HPPO_REPLY 0x80 /* set in the command byte of every reply */

enum hppo_result {
    HPPO_OK = 0,
    HPPO_NO_SESSION = 1,      /* HELLO first: none was opened since the device started */
    HPPO_UNKNOWN_COMMAND = 2,
    HPPO_BAD_PACKET = 3,      /* wrong length or a field out of range */
    HPPO_INCOMPLETE = 4,      /* chunks of the observation are missing: send them again */
    HPPO_STALE = 5,           /* the sequence number left the window */
    HPPO_CONFLICT = 6,        /* the sequence number was used for another command */
    HPPO_BUSY = 7,            /* the policy or the pilot is flying: nothing may block the loop */
    HPPO_NOT_FINITE = 8,      /* NaN or infinity in the observation or in the action */
    HPPO_OTHER_SESSION = 9    /* another session is open: an old packet, or two clients */
};

/* Bits of hppo_log_status. */
#define HPPO_STATUS_TESTED 0x01     /* the self-test ran */
#define HPPO_STATUS_PASSED 0x02     /* and every golden vector matched */
#define HPPO_STATUS_NOT_FINITE 0x04 /* the latest inference met NaN or infinity */
#define HPPO_STATUS_ACTIVE 0x08     /* the motors follow the policy */

/* hppo_log_reason: why the motors do not follow the policy although enable is 1. */
enum hppo_reason {
    HPPO_REASON_NONE = 0,
    HPPO_REASON_SELF_TEST = 1,  /* it did not pass */
    HPPO_REASON_NO_GOAL = 2,    /* the setpoint is no position */
    HPPO_REASON_STALE = 3,      /* the setpoint is older than hppo.stale */
    HPPO_REASON_NOT_FINITE = 4, /* NaN or infinity in the observation or in the action */
    HPPO_REASON_TILT = 5,       /* more than hppo.tilt */
    HPPO_REASON_DISTANCE = 6,   /* from the setpoint, more than hppo.dist */
    HPPO_REASON_ATTITUDE = 7    /* the estimate is no attitude */
};

/* hppo_param_mode */
#define HPPO_MODE_REQUEST 0 /* the policy runs on request only */
#define HPPO_MODE_FREE 1    /* the policy runs at the control rate, the motors do not follow it */

/* Where the time stamps come from. A simulator of this device writes HPPO_TIME_MODEL into
 * hppo_time_source before the first packet (or HPPO_TIME_CALIBRATED); on a real core it stays HPPO_TIME_DWT. */
#define HPPO_TIME_DWT 0
#define HPPO_TIME_MODEL 1
#define HPPO_TIME_CALIBRATED 2 /* a model with the constants of a measured device */

/* Log group "hppo". */
extern uint32_t hppo_log_cycles; /* core cycles of the latest inference */
extern uint32_t hppo_log_max;    /* core cycles of the slowest inference of this session */
extern uint32_t hppo_log_us;     /* microseconds of the latest inference, by the 1 MHz timer */
extern uint32_t hppo_log_count;  /* inferences of this session */
extern uint32_t hppo_log_miss;   /* of them, longer than the deadline */
extern uint8_t hppo_log_status;  /* HPPO_STATUS_* */
extern uint8_t hppo_log_reason;  /* HPPO_REASON_* */
extern uint8_t hppo_log_version; /* HPPO_CONTRACT_VERSION */

/* Parameter group "hppo". */
extern uint8_t hppo_param_mode;   /* HPPO_MODE_* */
extern uint8_t hppo_param_enable; /* 1: the motors follow the policy, once the self-test passed */
extern uint16_t hppo_param_stale; /* ms after which a setpoint is stale */
extern float hppo_param_tilt;     /* degrees between body z and up */
extern float hppo_param_dist;     /* m from the setpoint */

extern volatile uint8_t hppo_time_source;

/* The port: what differs between the firmware and the bare-metal image. */
uint32_t hppo_port_clock_hz(void); /* core clock */
uint32_t hppo_port_cycles(void);   /* free-running core cycle counter, wraps */
uint32_t hppo_port_micros(void);   /* free-running microseconds, wraps */
bool hppo_port_begin(void);        /* keep other tasks away from policy_step; false: not now */
void hppo_port_end(void);

void hppo_device_init(void);

/* Answers one packet. Returns the bytes written to reply, 0 when the packet asks for no answer. */
uint8_t hppo_device_handle(const uint8_t *packet, uint8_t length,
                           uint8_t reply[HPPO_PACKET_BYTES]);

/* Runs the golden vectors and remembers the outcome in hppo_log_status. Returns 0 when all match. */
int hppo_device_self_test(void);

/* One measured and counted inference. False (and action untouched or useless): not finite. */
bool hppo_device_step(const float observation[POLICY_OBS_DIM], float action[POLICY_ACT_DIM]);

/* The free-running mode of an image without a state estimator: one inference on the observation
 * of the latest RUN if mode is HPPO_MODE_FREE, else nothing. To be called at the control rate. */
void hppo_device_tick(void);

#endif
