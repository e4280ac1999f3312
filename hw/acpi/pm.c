/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICH9's ACPI power management registers (ICH9 datasheet, 13.8.3; ACPI 6.4, 4.8.3 and 4.8.4).
 *
 * All registers are byte-wise: an access of any size is a run of bytes, and the sleep type, its
 * enable and each status bit lie within one. The PM timer has 24 bits; a change of its highest one
 * sets TMR_STS.
 *
 * Registers: vCPU threads, under pm->lock. The rest: the main thread.
 */
#include <string.h>

#include "hw/acpi/pm.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum {
	/* PM1_STS, PM1_EN */
	PM1_TMR = 1 << 0,
	PM1_GBL = 1 << 5,
	PM1_PWRBTN = 1 << 8,
	PM1_RTC = 1 << 10,
	PM1_EN_MASK = PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC,
	/* PM1_CNT */
	PM1_SCI_EN = 1 << 0,
	PM1_BM_RLD = 1 << 1,
	PM1_SLP_TYP_SHIFT = 10,
	PM1_SLP_TYP = 7 << PM1_SLP_TYP_SHIFT,
	PM1_SLP_EN = 1 << 13,
	SLP_TYP_S5 = 0, /* as \_S5 says */

	SMI_APMC_EN = 1 << 5,

	GPE_BYTES = ACPI_PM_GPE0_LEN / 2,
	TIMER_MASK = (1 << 24) - 1,
	TIMER_HALF = 1 << 23,

	/* Firmware chooses the place: what the board has put there answers first. */
	IO_PRIORITY = -1,
};

/* ---- time; lock held ---- */

static int64_t guest_ns(const struct acpi_pm *pm)
{
	return pm->guest_ns + (pm->running ? evloop_now(pm->vm->loop) - pm->resumed : 0);
}

static uint64_t ticks(const struct acpi_pm *pm)
{
	return (unsigned __int128)guest_ns(pm) * ACPI_PM_TIMER_HZ / NSEC_PER_SEC;
}

/* The loop's clock when the counter gets there. */
static int64_t deadline(const struct acpi_pm *pm, uint64_t tick)
{
	unsigned __int128 ns = ((unsigned __int128)tick * NSEC_PER_SEC + ACPI_PM_TIMER_HZ - 1) /
			       ACPI_PM_TIMER_HZ;

	return pm->resumed + ((int64_t)ns - pm->guest_ns);
}

static void next_overflow(struct acpi_pm *pm)
{
	pm->overflow = (ticks(pm) / TIMER_HALF + 1) * TIMER_HALF;
}

/* TMR_STS is as late as its reader: the timer runs only for those who want an interrupt. */
static void sync_timer(struct acpi_pm *pm)
{
	if (!(pm->pm1_sts & PM1_TMR) && ticks(pm) >= pm->overflow)
		pm->pm1_sts |= PM1_TMR;
}

static bool timer_wanted(const struct acpi_pm *pm)
{
	return pm->running && (pm->pm1_en & PM1_TMR) && !(pm->pm1_sts & PM1_TMR);
}

/* ---- events; lock held ---- */

static void update_sci(struct acpi_pm *pm)
{
	bool level = pm->pm1_sts & pm->pm1_en & PM1_EN_MASK;

	for (unsigned i = 0; i < GPE_BYTES; i++)
		level |= pm->gpe0_sts[i] & pm->gpe0_en[i];
	if (level != pm->sci_level) {
		pm->sci_level = level;
		irq_set(pm->sci, level);
	}
}

/* On the loop's thread: after something that decides about the timer has changed. */
static void rearm(struct acpi_pm *pm)
{
	if (timer_wanted(pm))
		evloop_timer_arm(pm->vm->loop, &pm->timer, deadline(pm, pm->overflow));
	else
		evloop_timer_cancel(pm->vm->loop, &pm->timer);
}

static void timer_update(void *opaque)
{
	struct acpi_pm *pm = opaque;

	pthread_mutex_lock(&pm->lock);
	sync_timer(pm);
	update_sci(pm);
	rearm(pm);
	pthread_mutex_unlock(&pm->lock);
}

/* ---- registers ---- */

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct acpi_pm *pm = opaque;
	uint8_t regs[ACPI_PM_SMI_STS + 4] = {0};

	pthread_mutex_lock(&pm->lock);
	if (offset >= ACPI_PM_TMR && offset < ACPI_PM_TMR + 4) {
		store_le32(regs + ACPI_PM_TMR, ticks(pm) & TIMER_MASK);
	} else {
		sync_timer(pm);
		store_le16(regs + ACPI_PM_PM1_STS, pm->pm1_sts);
		store_le16(regs + ACPI_PM_PM1_EN, pm->pm1_en);
		store_le16(regs + ACPI_PM_PM1_CNT, pm->pm1_cnt);
		memcpy(regs + ACPI_PM_GPE0, pm->gpe0_sts, GPE_BYTES);
		memcpy(regs + ACPI_PM_GPE0 + GPE_BYTES, pm->gpe0_en, GPE_BYTES);
		store_le32(regs + ACPI_PM_SMI_EN, pm->smi_en);
	}
	pthread_mutex_unlock(&pm->lock);
	return range_inside(offset, size, sizeof(regs)) ? load_le(regs + offset, size) : 0;
}

/* A 16-bit register with one of its bytes replaced. */
static uint16_t with_byte(uint16_t reg, unsigned n, uint8_t v)
{
	return (reg & ~(0xff << 8 * n)) | v << 8 * n;
}

static void clear_pm1_status(struct acpi_pm *pm, uint16_t bits)
{
	sync_timer(pm);
	if (pm->pm1_sts & bits & PM1_TMR)
		next_overflow(pm);
	pm->pm1_sts &= ~bits;
}

/* Returns whether the guest goes to sleep for good. */
static bool write_pm1_cnt(struct acpi_pm *pm, uint16_t v)
{
	pm->pm1_cnt = (v & (PM1_BM_RLD | PM1_SLP_TYP)) | PM1_SCI_EN;
	return (v & PM1_SLP_EN) && (v & PM1_SLP_TYP) >> PM1_SLP_TYP_SHIFT == SLP_TYP_S5;
}

static bool write_byte(struct acpi_pm *pm, uint64_t reg, uint8_t v)
{
	unsigned shift;

	switch (reg) {
	case ACPI_PM_PM1_STS ... ACPI_PM_PM1_STS + 1:
		clear_pm1_status(pm, v << 8 * (reg - ACPI_PM_PM1_STS));
		break;
	case ACPI_PM_PM1_EN ... ACPI_PM_PM1_EN + 1:
		pm->pm1_en = with_byte(pm->pm1_en, reg - ACPI_PM_PM1_EN, v) & PM1_EN_MASK;
		break;
	case ACPI_PM_PM1_CNT ... ACPI_PM_PM1_CNT + 1:
		return write_pm1_cnt(pm, with_byte(pm->pm1_cnt, reg - ACPI_PM_PM1_CNT, v));
	case ACPI_PM_GPE0 ... ACPI_PM_GPE0 + GPE_BYTES - 1:
		pm->gpe0_sts[reg - ACPI_PM_GPE0] &= ~v;
		break;
	case ACPI_PM_GPE0 + GPE_BYTES... ACPI_PM_GPE0 + ACPI_PM_GPE0_LEN - 1:
		pm->gpe0_en[reg - ACPI_PM_GPE0 - GPE_BYTES] = v;
		break;
	case ACPI_PM_SMI_EN ... ACPI_PM_SMI_EN + 3:
		shift = 8 * (reg - ACPI_PM_SMI_EN);
		pm->smi_en = (pm->smi_en & ~(UINT32_C(0xff) << shift)) | (uint32_t)v << shift |
			     SMI_APMC_EN;
		break;
	}
	return false;
}

static void pm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct acpi_pm *pm = opaque;
	bool off = false, timer_was_wanted;

	pthread_mutex_lock(&pm->lock);
	timer_was_wanted = timer_wanted(pm);
	for (unsigned i = 0; i < size; i++)
		off |= write_byte(pm, offset + i, value >> 8 * i);
	sync_timer(pm);
	update_sci(pm);
	if (timer_was_wanted || timer_wanted(pm))
		evloop_post(pm->vm->loop, &pm->rearm);
	pthread_mutex_unlock(&pm->lock);
	if (off)
		vm_request_shutdown(pm->vm, CAUSE_GUEST_SHUTDOWN);
}

static const struct io_ops pm_ops = {
	.read = pm_read,
	.write = pm_write,
};

/* ---- from outside ---- */

void acpi_pm_set_base(struct acpi_pm *pm, uint16_t base, bool enabled)
{
	struct error *err = NULL;

	pthread_mutex_lock(&pm->lock);
	if (pm->mapped != enabled || pm->io.base != base) {
		if (pm->mapped)
			io_bus_remove(&pm->vm->pio, &pm->io);
		pm->io.base = base;
		pm->mapped = enabled && io_bus_add(&pm->vm->pio, &pm->io, &err);
	}
	pthread_mutex_unlock(&pm->lock);
	if (err) {
		log_guest_error(&pm->ratelimit, "ACPI PM block at port 0x%x: %s", base,
				error_message(err));
		error_free(err);
	}
}

void acpi_pm_set_sci(struct acpi_pm *pm, struct irq_line *line)
{
	pthread_mutex_lock(&pm->lock);
	if (line != pm->sci) {
		if (pm->sci_level)
			irq_set(pm->sci, false);
		pm->sci = line;
		if (pm->sci_level)
			irq_set(pm->sci, true);
	}
	pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned n)
{
	if (n >= 8 * GPE_BYTES)
		return;
	pthread_mutex_lock(&pm->lock);
	pm->gpe0_sts[n / 8] |= 1 << n % 8;
	update_sci(pm);
	pthread_mutex_unlock(&pm->lock);
}

/* A guest that has not asked for the button does not find it pressed later. */
static void power_button(struct notifier *n, void *data)
{
	struct acpi_pm *pm = container_of(n, struct acpi_pm, powerdown);

	pthread_mutex_lock(&pm->lock);
	if (pm->pm1_en & PM1_PWRBTN) {
		pm->pm1_sts |= PM1_PWRBTN;
		update_sci(pm);
	}
	pthread_mutex_unlock(&pm->lock);
}

static void run_state_changed(struct notifier *n, void *data)
{
	struct acpi_pm *pm = container_of(n, struct acpi_pm, state_changed);
	bool running = *(const enum run_state *)data == RUN_STATE_RUNNING;

	pthread_mutex_lock(&pm->lock);
	if (running != pm->running) {
		pm->guest_ns = guest_ns(pm);
		pm->resumed = evloop_now(pm->vm->loop);
		pm->running = running;
		rearm(pm);
	}
	pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_reset(struct acpi_pm *pm)
{
	pthread_mutex_lock(&pm->lock);
	pm->pm1_sts = 0;
	pm->pm1_en = 0;
	pm->pm1_cnt = PM1_SCI_EN;
	memset(pm->gpe0_sts, 0, sizeof(pm->gpe0_sts));
	memset(pm->gpe0_en, 0, sizeof(pm->gpe0_en));
	pm->smi_en = SMI_APMC_EN;
	next_overflow(pm);
	update_sci(pm);
	rearm(pm);
	pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_init(struct acpi_pm *pm, struct vm *vm)
{
	*pm = (struct acpi_pm){
		.vm = vm,
		.io = {.size = ACPI_PM_SIZE,
		       .ops = &pm_ops,
		       .opaque = pm,
		       .name = "acpi-pm",
		       .priority = IO_PRIORITY},
		.running = vm_is_running(vm),
		.resumed = evloop_now(vm->loop),
		.powerdown = {.fn = power_button},
		.state_changed = {.fn = run_state_changed},
	};
	pthread_mutex_init(&pm->lock, NULL);
	ev_timer_init(&pm->timer, timer_update, pm);
	ev_work_init(&pm->rearm, timer_update, pm);
	notifier_add(&vm->powerdown, &pm->powerdown);
	notifier_add(&vm->state_changed, &pm->state_changed);
	acpi_pm_reset(pm);
}

void acpi_pm_destroy(struct acpi_pm *pm)
{
	acpi_pm_set_base(pm, 0, false);
	io_bus_quiesce(&pm->vm->pio);
	notifier_remove(&pm->vm->powerdown, &pm->powerdown);
	notifier_remove(&pm->vm->state_changed, &pm->state_changed);
	evloop_unpost(pm->vm->loop, &pm->rearm);
	evloop_timer_cancel(pm->vm->loop, &pm->timer);
	pthread_mutex_destroy(&pm->lock);
}

/* ---- state ---- */

static void pm_pre_save(void *object)
{
	struct acpi_pm *pm = object;

	pthread_mutex_lock(&pm->lock);
	sync_timer(pm);
	pm->guest_ns = guest_ns(pm);
	pm->resumed = evloop_now(pm->vm->loop);
	pthread_mutex_unlock(&pm->lock);
}

static bool pm_post_load(void *object, unsigned version, struct error **err)
{
	struct acpi_pm *pm = object;

	if (pm->guest_ns < 0 || pm->guest_ns > INT64_MAX / 2) {
		error_set(err, "acpi-pm: impossible time");
		return false;
	}
	pthread_mutex_lock(&pm->lock);
	pm->pm1_en &= PM1_EN_MASK;
	pm->pm1_cnt = (pm->pm1_cnt & (PM1_BM_RLD | PM1_SLP_TYP)) | PM1_SCI_EN;
	pm->smi_en |= SMI_APMC_EN;
	pm->resumed = evloop_now(pm->vm->loop);
	next_overflow(pm);
	update_sci(pm);
	rearm(pm);
	pthread_mutex_unlock(&pm->lock);
	return true;
}

static const struct state_field pm_fields[] = {
	STATE_FIELD(struct acpi_pm, pm1_sts, STATE_U16),
	STATE_FIELD(struct acpi_pm, pm1_en, STATE_U16),
	STATE_FIELD(struct acpi_pm, pm1_cnt, STATE_U16),
	STATE_BUFFER(struct acpi_pm, gpe0_sts),
	STATE_BUFFER(struct acpi_pm, gpe0_en),
	STATE_FIELD(struct acpi_pm, smi_en, STATE_U32),
	STATE_FIELD(struct acpi_pm, guest_ns, STATE_I64),
	{.type = STATE_END},
};

const struct state_desc acpi_pm_state = {
	.name = "acpi-pm",
	.version = 1,
	.fields = pm_fields,
	.pre_save = pm_pre_save,
	.post_load = pm_post_load,
};
