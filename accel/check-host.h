/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm --check-host: what this host can do for a guest, each missing thing with its remedy in the
 * same line. Main thread, before anything else is set up.
 */
#ifndef ACCEL_CHECK_HOST_H
#define ACCEL_CHECK_HOST_H

#include <stdbool.h>
#include <stdio.h>

/* Prints the report; returns whether a stock guest can run here. */
bool check_host(FILE *out);

#endif
