/* Device contract, version 1: see docs/device-contract.md and hppo_device.h. */
#include "hppo_device.h"

#include <string.h>

#include "hppo_kernels.h"
#include "policy_golden.h"

#define CHUNKS ((POLICY_OBS_DIM + HPPO_CHUNK_FLOATS - 1) / HPPO_CHUNK_FLOATS)
#define HEADER 4       /* request: command, session, sequence */
#define REPLY_HEADER 5 /* reply: command, session, sequence, result */

uint32_t hppo_log_cycles;
uint32_t hppo_log_max;
uint32_t hppo_log_us;
uint32_t hppo_log_count;
uint32_t hppo_log_miss;
uint8_t hppo_log_status;
uint8_t hppo_log_reason;
uint8_t hppo_log_version;
uint8_t hppo_param_mode;
uint8_t hppo_param_enable;
uint16_t hppo_param_stale;
float hppo_param_tilt;
float hppo_param_dist;
volatile uint8_t hppo_time_source = HPPO_TIME_DWT;

static const uint8_t package_hash[8] = HPPO_PACKAGE_HASH;

/* One remembered request. A repeated request finds its slot done and gets the same answer without
 * being carried out again; that is all that makes lost, doubled and late packets harmless. */
typedef struct {
    bool used;
    uint8_t done; /* the command that was carried out, 0: none yet */
    uint8_t result;
    uint8_t body[16];      /* of the reply, after the header; RUN keeps cycles and us here */
    uint16_t sequence;
    uint8_t loaded[CHUNKS];
    float observation[POLICY_OBS_DIM];
    float action[POLICY_ACT_DIM];
} slot_t;

static slot_t slots[HPPO_SLOTS];
static uint8_t session; /* 0: none since the device started */
static uint32_t deadline_cycles;
static float latest[POLICY_OBS_DIM]; /* the observation of the latest RUN */

static uint16_t get_u16(const uint8_t *from)
{
    return (uint16_t)(from[0] | (from[1] << 8));
}

static void put_u16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)(value & 0xFFu);
    to[1] = (uint8_t)(value >> 8);
}

static void put_u32(uint8_t *to, uint32_t value)
{
    put_u16(to, (uint16_t)(value & 0xFFFFu));
    put_u16(to + 2, (uint16_t)(value >> 16));
}

/* By the bits, so that it holds whatever floating-point options the file is compiled with. */
static bool all_finite(const float *values, int count)
{
    for (int i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        if ((bits & 0x7F800000u) == 0x7F800000u) {
            return false;
        }
    }
    return true;
}

void hppo_device_init(void)
{
    memset(slots, 0, sizeof slots);
    session = 0;
    hppo_log_version = HPPO_CONTRACT_VERSION;
    hppo_log_reason = HPPO_REASON_NONE;
    hppo_param_mode = HPPO_MODE_REQUEST;
    hppo_param_enable = 0;
    hppo_param_stale = 500; /* after which the firmware's own commander levels out, too */
    hppo_param_tilt = 75.0f;
    hppo_param_dist = 2.0f;
    deadline_cycles = hppo_port_clock_hz() / 1000000u * (uint32_t)HPPO_DEADLINE_US;
}

bool hppo_device_step(const float observation[POLICY_OBS_DIM], float action[POLICY_ACT_DIM])
{
    hppo_log_status |= HPPO_STATUS_NOT_FINITE; /* until it has proved otherwise */
    if (!all_finite(observation, POLICY_OBS_DIM)) {
        return false;
    }
    const uint32_t start_us = hppo_port_micros();
    const uint32_t start = hppo_port_cycles();
    policy_step(observation, action);
    hppo_log_cycles = hppo_port_cycles() - start;
    hppo_log_us = hppo_port_micros() - start_us;

    hppo_log_count++;
    if (hppo_log_cycles > hppo_log_max) {
        hppo_log_max = hppo_log_cycles;
    }
    if (hppo_log_cycles > deadline_cycles) {
        hppo_log_miss++;
    }
    if (!all_finite(action, POLICY_ACT_DIM)) {
        return false;
    }
    hppo_log_status = (uint8_t)(hppo_log_status & ~HPPO_STATUS_NOT_FINITE);
    return true;
}

int hppo_device_self_test(void)
{
    const int outcome = policy_self_test();
    const uint8_t kept = (uint8_t)(hppo_log_status & ~HPPO_STATUS_PASSED);
    hppo_log_status = (uint8_t)(kept | HPPO_STATUS_TESTED | (outcome == 0 ? HPPO_STATUS_PASSED : 0));
    return outcome;
}

void hppo_device_tick(void)
{
    float action[POLICY_ACT_DIM];
    if (hppo_param_mode == HPPO_MODE_FREE && hppo_port_begin()) {
        (void)hppo_device_step(latest, action);
        hppo_port_end();
    }
}

/* Opens a session; HELLO of the session that is already open changes nothing. */
static uint8_t hello(uint8_t wanted, uint8_t *body)
{
    if (wanted != session) {
        memset(slots, 0, sizeof slots);
        session = wanted;
        hppo_log_cycles = hppo_log_max = hppo_log_us = hppo_log_count = hppo_log_miss = 0;
    }
    body[0] = HPPO_CONTRACT_VERSION;
    body[1] = hppo_time_source;
    body[2] = HPPO_SLOTS;
    put_u16(body + 3, POLICY_OBS_DIM);
    put_u16(body + 5, POLICY_ACT_DIM);
    memcpy(body + 7, package_hash, sizeof package_hash);
    put_u32(body + 15, hppo_port_clock_hz());
    put_u32(body + 19, HPPO_DEADLINE_US);
    return 23;
}

/* The slot of a sequence number, cleared if it held an older one; NULL if it holds a newer one. */
static slot_t *find_slot(uint16_t sequence)
{
    slot_t *slot = &slots[sequence % HPPO_SLOTS];
    if (slot->used && slot->sequence == sequence) {
        return slot;
    }
    if (slot->used && (uint16_t)(sequence - slot->sequence) >= 0x8000u) {
        return NULL;
    }
    memset(slot, 0, sizeof *slot);
    slot->used = true;
    slot->sequence = sequence;
    return slot;
}

static uint8_t load(slot_t *slot, const uint8_t *body, uint8_t length)
{
    const int chunk = length > 0 ? body[0] : CHUNKS;
    if (chunk >= CHUNKS) {
        return HPPO_BAD_PACKET;
    }
    const int first = chunk * HPPO_CHUNK_FLOATS;
    const int left = POLICY_OBS_DIM - first;
    const int count = left < HPPO_CHUNK_FLOATS ? left : HPPO_CHUNK_FLOATS;
    if (length != 1 + 4 * count) {
        return HPPO_BAD_PACKET;
    }
    if (slot->done == 0) {
        memcpy(&slot->observation[first], body + 1, 4u * (size_t)count);
        slot->loaded[chunk] = 1;
    }
    return HPPO_OK;
}

static bool is_loaded(const slot_t *slot)
{
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        if (!slot->loaded[chunk]) {
            return false;
        }
    }
    return true;
}

/* One inference, with the core to itself. */
static uint8_t infer(slot_t *slot)
{
    if (!hppo_port_begin()) {
        return HPPO_BUSY;
    }
    const bool finite = hppo_device_step(slot->observation, slot->action);
    hppo_port_end();
    return finite ? HPPO_OK : HPPO_NOT_FINITE;
}

static uint8_t run(slot_t *slot)
{
    const uint8_t result = infer(slot);
    if (result == HPPO_OK) {
        memcpy(latest, slot->observation, sizeof latest);
        put_u32(slot->body, hppo_log_cycles);
        put_u32(slot->body + 4, hppo_log_us);
    }
    return result;
}

static uint8_t self_test(slot_t *slot)
{
    if (!hppo_port_begin()) {
        return HPPO_BUSY;
    }
    put_u32(slot->body, (uint32_t)hppo_device_self_test());
    hppo_port_end();
    return HPPO_OK;
}

/* Runs a kernel of the calibration once; its cycles are in hppo_log_cycles. */
static uint8_t run_kernel(uint8_t number)
{
    if (!hppo_port_begin()) {
        return HPPO_BUSY;
    }
    const uint32_t start = hppo_port_cycles();
    hppo_kernel(number)();
    hppo_log_cycles = hppo_port_cycles() - start;
    hppo_port_end();
    return HPPO_OK;
}

/* Inferences, or runs of a kernel. The core is given back after each, so that other tasks get
 * their turn in between. */
static uint8_t repeat(slot_t *slot, uint16_t times, const uint8_t *kernel)
{
    uint32_t least = UINT32_MAX;
    uint32_t most = 0;
    uint64_t sum = 0;
    for (uint16_t i = 0; i < times; i++) {
        const uint8_t result = kernel ? run_kernel(*kernel) : infer(slot);
        if (result != HPPO_OK) {
            return result;
        }
        least = hppo_log_cycles < least ? hppo_log_cycles : least;
        most = hppo_log_cycles > most ? hppo_log_cycles : most;
        sum += hppo_log_cycles;
    }
    put_u32(slot->body, least);
    put_u32(slot->body + 4, most);
    put_u32(slot->body + 8, (uint32_t)(sum & 0xFFFFFFFFu));
    put_u32(slot->body + 12, (uint32_t)(sum >> 32));
    return HPPO_OK;
}

/* Carries out a request that was not seen before and keeps its result in the slot, except those
 * results that a later try may change. */
static uint8_t carry_out(slot_t *slot, uint8_t command, const uint8_t *body)
{
    if ((command == HPPO_RUN || command == HPPO_REPEAT) && !is_loaded(slot)) {
        return HPPO_INCOMPLETE;
    }
    slot->result = command == HPPO_RUN         ? run(slot)
                   : command == HPPO_SELF_TEST ? self_test(slot)
                   : command == HPPO_REPEAT    ? repeat(slot, get_u16(body), NULL)
                                               : repeat(slot, get_u16(body + 1), body);
    if (slot->result != HPPO_BUSY) {
        slot->done = command;
    }
    return slot->result;
}

/* Part p of a RUN reply: the part number, in part 0 the timing, and the actions of this part. */
static uint8_t run_part(const slot_t *slot, uint8_t part, uint8_t *body)
{
    int first = 0;
    int room = HPPO_FIRST_FLOATS;
    uint8_t length = 1;
    body[0] = part;
    if (part == 0) {
        memcpy(body + 1, slot->body, 8);
        length = 9;
    } else {
        first = HPPO_FIRST_FLOATS + (part - 1) * HPPO_CHUNK_FLOATS;
        room = HPPO_CHUNK_FLOATS;
    }
    const int left = POLICY_ACT_DIM - first;
    const int count = left < room ? left : room;
    if (count <= 0) {
        return 0;
    }
    memcpy(body + length, &slot->action[first], 4u * (size_t)count);
    return (uint8_t)(length + 4 * count);
}

static bool well_formed(uint8_t command, const uint8_t *body, uint8_t length)
{
    if (command == HPPO_RUN) {
        return length == 1;
    }
    if (command == HPPO_REPEAT) {
        return length == 2 && get_u16(body) > 0 && get_u16(body) <= HPPO_MAX_REPEAT;
    }
    if (command == HPPO_KERNEL_RUN) {
        return length == 3 && hppo_kernel(body[0]) && get_u16(body + 1) > 0 &&
               get_u16(body + 1) <= HPPO_MAX_REPEAT;
    }
    return length == 0;
}

/* Returns the result; *reply_length is the number of bytes written to reply_body. */
static uint8_t answer(const uint8_t *packet, uint8_t length, uint8_t *reply_body,
                      uint8_t *reply_length)
{
    const uint8_t command = packet[0];
    const uint8_t *body = packet + HEADER;
    const uint8_t body_length = (uint8_t)(length - HEADER);

    if (command < HPPO_HELLO || command > HPPO_KERNEL_RUN) {
        return HPPO_UNKNOWN_COMMAND;
    }
    if (command == HPPO_HELLO) {
        if (body_length != 0 || packet[1] == 0) {
            return HPPO_BAD_PACKET;
        }
        *reply_length = hello(packet[1], reply_body);
        return HPPO_OK;
    }
    if (packet[1] != session) {
        return session == 0 ? HPPO_NO_SESSION : HPPO_OTHER_SESSION;
    }
    if (session == 0) {
        return HPPO_NO_SESSION;
    }
    if (command != HPPO_LOAD && !well_formed(command, body, body_length)) {
        return HPPO_BAD_PACKET;
    }
    slot_t *slot = find_slot(get_u16(packet + 2));
    if (slot == NULL) {
        return HPPO_STALE;
    }
    if (command == HPPO_LOAD) {
        return load(slot, body, body_length);
    }
    if (slot->done != 0 && slot->done != command) {
        return HPPO_CONFLICT;
    }
    const uint8_t result = slot->done ? slot->result : carry_out(slot, command, body);
    if (result != HPPO_OK) {
        return result;
    }
    if (command == HPPO_RUN) {
        *reply_length = run_part(slot, body[0], reply_body);
        return *reply_length ? HPPO_OK : HPPO_BAD_PACKET;
    }
    *reply_length = command == HPPO_SELF_TEST ? 4 : 16;
    memcpy(reply_body, slot->body, *reply_length);
    return HPPO_OK;
}

uint8_t hppo_device_handle(const uint8_t *packet, uint8_t length,
                           uint8_t reply[HPPO_PACKET_BYTES])
{
    if (length < HEADER || length > HPPO_PACKET_BYTES) {
        return 0; /* nothing to address an answer to */
    }
    uint8_t body_length = 0;
    const uint8_t result = answer(packet, length, reply + REPLY_HEADER, &body_length);
    if (packet[0] == HPPO_LOAD && result == HPPO_OK) {
        return 0; /* a lost chunk shows as HPPO_INCOMPLETE of its RUN */
    }
    memcpy(reply, packet, HEADER);
    reply[0] |= HPPO_REPLY;
    reply[HEADER] = result;
    return (uint8_t)(REPLY_HEADER + body_length);
}
