/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MC146818's way of writing time: ten bytes, binary or BCD, 12 or 24 hours. Pure functions.
 */
#ifndef HW_LEGACY_RTC_TIME_H
#define HW_LEGACY_RTC_TIME_H

#include <stdbool.h>
#include <stdint.h>

enum {
	RTC_SECONDS = 0x00,
	RTC_SECONDS_ALARM = 0x01,
	RTC_MINUTES = 0x02,
	RTC_MINUTES_ALARM = 0x03,
	RTC_HOURS = 0x04,
	RTC_HOURS_ALARM = 0x05,
	RTC_WEEKDAY = 0x06, /* 1: Sunday */
	RTC_DAY = 0x07,
	RTC_MONTH = 0x08, /* 1: January */
	RTC_YEAR = 0x09,
	RTC_REG_A = 0x0a,
	RTC_REG_B = 0x0b,
	RTC_REG_C = 0x0c,
	RTC_REG_D = 0x0d,
	RTC_CENTURY = 0x32, /* always BCD */

	RTC_B_DM = 1 << 2, /* binary */
	RTC_B_24H = 1 << 1,
};

/* Civil time to and from seconds since 1970 in the proleptic Gregorian calendar. */
struct rtc_civil {
	int64_t year;
	unsigned month, day, hour, minute, second; /* month and day from 1 */
};
int64_t rtc_civil_to_seconds(const struct rtc_civil *c);
void rtc_seconds_to_civil(int64_t seconds, struct rtc_civil *c);

/* ns to whole seconds, down also before 1970. */
static inline int64_t rtc_floor_second(int64_t ns)
{
	return ns / 1000000000 - (ns % 1000000000 < 0);
}

/* Fills the time bytes of ram (and the century) in the format that reg_b asks for. */
void rtc_encode(uint8_t *ram, uint8_t reg_b, int64_t seconds);
/* What the time bytes say; bytes out of range are carried over like the calendar does. */
int64_t rtc_decode(const uint8_t *ram, uint8_t reg_b);

/* The first second after `after` at which the alarm bytes match (0xc0 and above: any), or INT64_MAX
 * if they never do. */
int64_t rtc_next_alarm(const uint8_t *ram, uint8_t reg_b, int64_t after);

/* "2006-06-17T16:01:21" or "2006-06-17". */
bool rtc_parse_date(const char *text, int64_t *seconds);

#endif
