/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calendar arithmetic and register formats of the CMOS clock (Motorola MC146818A data sheet, table
 * of time, calendar and alarm data modes). Pure functions, any thread.
 */
#include "hw/legacy/rtc_time.h"

#include <stdio.h>
#include <string.h>

enum { DAY = 86400, HOUR = 3600, MINUTE = 60, HOUR_PM = 0x80, ALARM_ANY = 0xc0 };

/* Days since 1970-01-01. Years are counted from March, so that the leap day is the last. */
static int64_t days_from_civil(int64_t year, unsigned month, unsigned day)
{
	int64_t y = year - (month <= 2);
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int year_of_era = (int)(y - era * 400);
	int day_of_year = (int)((153 * ((month + 9) % 12) + 2) / 5 + day) - 1;
	int day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

	return era * 146097 + day_of_era - 719468;
}

int64_t rtc_civil_to_seconds(const struct rtc_civil *c)
{
	return days_from_civil(c->year, c->month, c->day) * DAY + (int64_t)c->hour * HOUR +
	       (int64_t)c->minute * MINUTE + c->second;
}

void rtc_seconds_to_civil(int64_t seconds, struct rtc_civil *c)
{
	int64_t days = seconds / DAY, rest = seconds % DAY;

	if (rest < 0) {
		rest += DAY;
		days--;
	}
	days += 719468;

	int64_t era = (days >= 0 ? days : days - 146096) / 146097;
	unsigned doe = (unsigned)(days - era * 146097);
	unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	unsigned mp = (5 * doy + 2) / 153;

	c->day = doy - (153 * mp + 2) / 5 + 1;
	c->month = mp < 10 ? mp + 3 : mp - 9;
	c->year = era * 400 + yoe + (c->month <= 2);
	c->hour = (unsigned)(rest / HOUR);
	c->minute = (unsigned)(rest % HOUR / MINUTE);
	c->second = (unsigned)(rest % MINUTE);
}

static uint8_t to_bcd(unsigned value)
{
	return (uint8_t)(value / 10 % 10 << 4 | value % 10);
}

static unsigned from_bcd(uint8_t value)
{
	return (value >> 4) * 10u + (value & 0x0f);
}

static uint8_t encode(uint8_t reg_b, unsigned value)
{
	return reg_b & RTC_B_DM ? (uint8_t)value : to_bcd(value);
}

static unsigned decode(uint8_t reg_b, uint8_t value)
{
	return reg_b & RTC_B_DM ? value : from_bcd(value);
}

static uint8_t encode_hour(uint8_t reg_b, unsigned hour)
{
	if (reg_b & RTC_B_24H)
		return encode(reg_b, hour);
	return encode(reg_b, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(uint8_t reg_b, uint8_t value)
{
	if (reg_b & RTC_B_24H)
		return decode(reg_b, value);
	return decode(reg_b, value & ~HOUR_PM) % 12 + (value & HOUR_PM ? 12 : 0);
}

void rtc_encode(uint8_t *ram, uint8_t reg_b, int64_t seconds)
{
	struct rtc_civil c;

	rtc_seconds_to_civil(seconds, &c);
	int64_t days = days_from_civil(c.year, c.month, c.day);
	int64_t century = c.year / 100 % 100, year = c.year % 100;

	ram[RTC_SECONDS] = encode(reg_b, c.second);
	ram[RTC_MINUTES] = encode(reg_b, c.minute);
	ram[RTC_HOURS] = encode_hour(reg_b, c.hour);
	ram[RTC_WEEKDAY] = encode(reg_b, (unsigned)(((days + 4) % 7 + 7) % 7) + 1);
	ram[RTC_DAY] = encode(reg_b, c.day);
	ram[RTC_MONTH] = encode(reg_b, c.month);
	ram[RTC_YEAR] = encode(reg_b, (unsigned)(year < 0 ? 0 : year));
	ram[RTC_CENTURY] = to_bcd((unsigned)(century < 0 ? 0 : century));
}

int64_t rtc_decode(const uint8_t *ram, uint8_t reg_b)
{
	unsigned month = decode(reg_b, ram[RTC_MONTH]);
	struct rtc_civil c = {
		.year = from_bcd(ram[RTC_CENTURY]) * 100 + decode(reg_b, ram[RTC_YEAR]),
		.month = (month + 11) % 12 + 1,
		.day = decode(reg_b, ram[RTC_DAY]),
		.hour = decode_hour(reg_b, ram[RTC_HOURS]),
		.minute = decode(reg_b, ram[RTC_MINUTES]),
		.second = decode(reg_b, ram[RTC_SECONDS]),
	};
	return rtc_civil_to_seconds(&c);
}

int64_t rtc_next_alarm(const uint8_t *ram, uint8_t reg_b, int64_t after)
{
	uint8_t s = ram[RTC_SECONDS_ALARM], m = ram[RTC_MINUTES_ALARM], h = ram[RTC_HOURS_ALARM];
	unsigned second = s >= ALARM_ANY ? 0 : decode(reg_b, s);
	unsigned minute = m >= ALARM_ANY ? 0 : decode(reg_b, m);
	unsigned hour = h >= ALARM_ANY ? 0 : decode_hour(reg_b, h);
	struct rtc_civil c;

	if (second > 59 || minute > 59 || hour > 23)
		return INT64_MAX;
	int64_t t = after + 1;
	/* Each step goes to the start of the next unit that can match: at most 24 + 60 + 60. */
	for (;;) {
		rtc_seconds_to_civil(t, &c);
		if (h < ALARM_ANY && c.hour != hour)
			t += HOUR - (c.minute * MINUTE + c.second);
		else if (m < ALARM_ANY && c.minute != minute)
			t += MINUTE - c.second;
		else if (s < ALARM_ANY && c.second != second)
			t += 1;
		else
			return t;
	}
}

bool rtc_parse_date(const char *text, int64_t *seconds)
{
	static const uint8_t month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	struct rtc_civil c = {0};
	unsigned year;
	int end = -1;

	if (sscanf(text, "%4u-%2u-%2u%n", &year, &c.month, &c.day, &end) != 3 || end < 0)
		return false;
	if (text[end] == 'T') {
		const char *time = text + end + 1;

		end = -1;
		if (sscanf(time, "%2u:%2u:%2u%n", &c.hour, &c.minute, &c.second, &end) != 3 ||
		    end < 0 || time[end])
			return false;
	} else if (text[end]) {
		return false;
	}
	if (c.month < 1 || c.month > 12 || c.day < 1 || c.day > month_days[c.month - 1] ||
	    c.hour > 23 || c.minute > 59 || c.second > 59)
		return false;
	c.year = year;
	*seconds = rtc_civil_to_seconds(&c);
	return true;
}
