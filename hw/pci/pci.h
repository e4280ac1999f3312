/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI: devices, their configuration space and BARs, interrupts, buses and bridges.
 * PCI Local Bus 3.0, PCI Express Base 4.0, PCI-to-PCI Bridge 1.2, PCI Power Management 1.2.
 *
 * A PCI device's struct begins with struct pci_device. Its descriptor's functions call the common
 * part themselves:
 *
 *   props      includes PCI_DEVICE_PROPS, state PCI_DEVICE_STATE
 *   realize    pci_device_init() first, then BARs and capabilities
 *   reset      pci_device_reset() first
 *   unplug     pci_device_unplug, if hotpluggable
 *   unrealize  pci_device_exit() last but before freeing what handlers use; likewise when realize
 *              fails after pci_device_init()
 *
 * The guest sees a device only once all of realize has succeeded (bus->plugged).
 *
 * Threads. Configuration accesses come from vCPU threads and are serialised, one at a time, by
 * root->lock; hooks in struct pci_device_ops run under it on the accessing thread and must not
 * block. BAR handlers (io_ops) run on vCPU threads without any lock of this room. Interrupt
 * functions are for any thread. Everything else is the main thread's.
 *
 * Lock order, outermost first:
 *   root->lock           configuration space, topology, where BARs are
 *   a device's own lock
 *   pci_device.msi_lock  MSI and MSI-X state of one device
 *   root->intx_lock      levels of interrupt pins
 *   the interrupt controller's, the bus map's (io_bus), the message sink's: leaves
 * So a device may raise interrupts with its own lock held, and take its own lock in a hook; it must
 * not take root->lock (pci_device_reset, pci_config_read, ...) inside its own.
 */
#ifndef HW_PCI_PCI_H
#define HW_PCI_PCI_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hw/pci/pci_regs.h"
#include "vmm/core/device.h"
#include "vmm/core/evloop.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/irq.h"
#include "vmm/core/log.h"
#include "vmm/core/notifier.h"
#include "vmm/core/vm.h"

struct pci_bus;
struct pci_device;
struct pci_root;

#define PCI_UNMAPPED UINT64_MAX

enum pci_bar_type {
	PCI_BAR_IO = PCI_BAR_SPACE_IO,
	PCI_BAR_MEM32 = 0,
	PCI_BAR_MEM32_PREF = PCI_BAR_MEM_PREFETCH,
	PCI_BAR_MEM64 = PCI_BAR_MEM_64,
	PCI_BAR_MEM64_PREF = PCI_BAR_MEM_64 | PCI_BAR_MEM_PREFETCH,
};

/*
 * A piece of a BAR. Embedded in the device, which fills io.size, io.ops, io.opaque, io.name,
 * io.max_access and, where pieces of one BAR overlap, io.priority (0 to 15, the higher answers).
 */
struct pci_bar_region {
	struct io_region io;
	uint64_t offset; /* in the BAR */
	struct pci_bar_region *next;
};

struct pci_bar {
	uint64_t size; /* power of two; 0: there is none */
	enum pci_bar_type type;
	uint64_t addr; /* where the guest sees it now, or PCI_UNMAPPED; under root->lock */
	struct pci_bar_region *regions;
};

struct pci_device_ops {
	/* After the common part: value is what the registers hold; returns what the guest gets. */
	uint32_t (*config_read)(struct pci_device *dev, unsigned offset, unsigned size,
				uint32_t value);
	/* After the common part took the writable bits; [offset, offset + size) was written with
	 * value. */
	void (*config_written)(struct pci_device *dev, unsigned offset, unsigned size,
			       uint32_t value);
	/* A BAR came, went or moved: its regions are already in their new place. Either address may
	 * be PCI_UNMAPPED. Doorbells are re-registered here. Also called with PCI_UNMAPPED by
	 * pci_device_exit(). */
	void (*bar_moved)(struct pci_device *dev, unsigned bar, uint64_t from, uint64_t to);
	/* Something that decides whether vector v is delivered changed: mask, function mask,
	 * enable. No lock of this room is held except perhaps root->lock; ask pci_msix_masked(). */
	void (*msix_changed)(struct pci_device *dev, unsigned v);
};

/* What a kind of device is; constant. */
struct pci_info {
	uint16_t vendor_id, device_id;
	uint16_t subsystem_vendor_id, subsystem_id; /* header type 0 only */
	uint32_t class_code;			    /* base << 16 | sub << 8 | interface */
	uint8_t revision;
	uint8_t intx_pin; /* 1 is INTA#; 0: none */
	bool express;	  /* 4096 bytes of configuration space */
	bool bridge;	  /* header type 1 */
	/* Without romfile=: this one, if it is installed; NULL: none. */
	const char *default_rom;
	const struct pci_device_ops *ops;
};

/* Under msi_lock; the guest's registers are in config and mirrored here when they are written. */
struct pci_msi {
	uint8_t pos; /* 0: not there */
	bool maskable;
	_Atomic bool enabled;
	uint8_t granted_log2;
	struct msi_msg msg;
	uint32_t mask, pending;
};

/* Under msi_lock. */
struct pci_msix_vector {
	uint8_t entry[PCI_MSIX_ENTRY_SIZE]; /* as in the table */
	bool pending;
	bool live;	     /* delivered at once: enabled, not masked */
	bool told_live;	     /* what msix_changed was last called for */
	bool routed;	     /* route is bound to notifier */
	_Atomic bool direct; /* a write to notifier reaches the guest without our help */
	uint32_t users;
	struct event_notifier notifier; /* made at first use, kept until the device goes */
	struct msi_route route;
	struct msi_msg routed_msg;
};

struct pci_msix {
	uint8_t pos; /* 0: not there */
	uint32_t count;
	_Atomic bool enabled;
	bool function_masked;
	bool may_send;	/* bus mastering is on, the device is awake */
	bool no_routes; /* the sink has none: all goes through send() */
	struct pci_msix_vector *vectors;
	struct pci_bar_region table, pba;
};

struct pci_device {
	struct device dev;

	/* Properties. addr is the devfn once attached. */
	int32_t addr;
	bool multifunction;
	uint32_t rombar;
	char *romfile;

	struct pci_bus *bus;
	uint8_t devfn;
	bool initialised, visible;
	const struct pci_info *info;
	uint32_t serial; /* unique in the hierarchy; tie-breaker of overlapping BARs */

	uint16_t config_size;
	uint8_t config[PCIE_CONFIG_SIZE];
	uint8_t *wmask;	  /* bits that the guest may write */
	uint8_t *w1cmask; /* bits that the guest clears by writing one */
	uint8_t *initial; /* after reset; taken when the device becomes visible */
	uint16_t next_cap, next_ext_cap, last_ext_cap;
	_Atomic uint16_t command; /* copy of the register for lock-free readers */

	struct pci_bar bars[PCI_BARS + 1];
	struct pci_bar_region rom;
	uint8_t *rom_data;
	uint32_t rom_size;

	uint8_t pm_pos, express_pos;
	struct pci_msi msi;
	struct pci_msix msix;
	pthread_mutex_t msi_lock;

	/* Under root->intx_lock. */
	bool intx_level;
	bool intx_allowed; /* not disabled, no MSI or MSI-X in use */
	int intx_asserted; /* the root's input that we hold up, or -1 */

	/* Under root->lock: a function or bus reset is due on the main loop; until then the device
	 * answers with all ones. */
	bool resetting;
	struct ev_work reset_work;
	struct log_ratelimit log;
};

/* Lines for a descriptor's prop_set array and a state table's fields. */
extern const struct prop pci_device_props[];
#define PCI_DEVICE_PROPS                                                                           \
	{                                                                                          \
		.props = pci_device_props, .base = 0                                               \
	}
extern const struct state_desc pci_device_state;
#define PCI_DEVICE_STATE                                                                           \
	{                                                                                          \
		.name = "pci", .type = STATE_STRUCT, .offset = 0,                                  \
		.size = sizeof(struct pci_device), .desc = &pci_device_state                       \
	}

/* False with err for a romfile that cannot be read. info is kept. */
bool pci_device_init(struct pci_device *dev, const struct pci_info *info, struct error **err);
/* Takes it from the guest's sight, waits until no handler runs, frees. Harmless when not
 * initialised. Never with a lock that one of its handlers takes. */
void pci_device_exit(struct pci_device *dev);
/* Configuration space as after power-on, BARs unmapped, interrupts lowered. Takes root->lock. */
void pci_device_reset(struct pci_device *dev);
/* For struct device_desc.unplug: asks the guest through the slot's hotplug controller. */
bool pci_device_unplug(struct device *dev, struct error **err);

static inline struct pci_device *pci_device_of(struct device *dev)
{
	return (struct pci_device *)dev;
}
/* Whether the device may access memory: bus mastering is on. Any thread. */
static inline bool pci_device_is_master(const struct pci_device *dev)
{
	return atomic_load_explicit(&((struct pci_device *)dev)->command, memory_order_acquire) &
	       PCI_COMMAND_MASTER;
}
/* Bus << 8 | devfn, as messages and DMA carry it. */
uint16_t pci_requester_id(const struct pci_device *dev);

/* BARs: in realize. A 64-bit one takes index n + 1 too. size: a power of two, at least 16 for
 * memory and 4 for ports. */
void pci_bar_init(struct pci_device *dev, unsigned n, enum pci_bar_type type, uint64_t size);
/* region->io is filled except base. */
void pci_bar_add_region(struct pci_device *dev, unsigned n, uint64_t offset,
			struct pci_bar_region *region);
/* Where the guest sees it, or PCI_UNMAPPED. In hooks, or on the main thread. */
static inline uint64_t pci_bar_addr(const struct pci_device *dev, unsigned n)
{
	return dev->bars[n].addr;
}

/* Capabilities, in realize: room for size bytes, linked; the offset, or 0 when there is no room.
 * pos 0: the next free place. The bytes behind the header are zero and read-only. */
uint8_t pci_add_capability(struct pci_device *dev, uint8_t id, uint8_t pos, uint8_t size);
uint16_t pci_add_ext_capability(struct pci_device *dev, uint16_t id, uint8_t version,
				uint16_t size);
uint8_t pci_find_capability(const struct pci_device *dev, uint8_t id);
/* Power management: D0 and D3hot; in D3hot BARs are unmapped and no interrupt leaves. */
bool pci_pm_init(struct pci_device *dev, struct error **err);
/* For devices whose info says express; endpoints get FLR (desc->reset on the main loop). */
bool pcie_cap_init(struct pci_device *dev, enum pcie_type type, uint8_t port, struct error **err);

/* Register bytes of config, wmask and the like; in realize or under root->lock. */
static inline uint16_t pci_get16(const uint8_t *p)
{
	return p[0] | p[1] << 8;
}
static inline void pci_set16(uint8_t *p, uint16_t v)
{
	p[0] = v;
	p[1] = v >> 8;
}
static inline uint32_t pci_get32(const uint8_t *p)
{
	return pci_get16(p) | (uint32_t)pci_get16(p + 2) << 16;
}
static inline void pci_set32(uint8_t *p, uint32_t v)
{
	pci_set16(p, v);
	pci_set16(p + 2, v >> 16);
}

/* INTx: the device's pin as its info says. Any thread. */
void pci_irq_set(struct pci_device *dev, bool level);

/* MSI: vectors is 1, 2, 4 .. 32. */
bool pci_msi_init(struct pci_device *dev, unsigned vectors, bool maskable, struct error **err);
bool pci_msi_enabled(struct pci_device *dev);
/* How many vectors the guest granted; 0 when disabled. */
unsigned pci_msi_vectors(struct pci_device *dev);
void pci_msi_notify(struct pci_device *dev, unsigned v);

/*
 * MSI-X. Table and PBA are regions of BARs that exist, or of one BAR of their own.
 *
 * A vector that the device means to raise is taken with pci_msix_vector_use() and given back with
 * pci_msix_vector_unuse() (counted). In between, pci_msix_notify() raises it; so does, from any
 * thread or the kernel, a write to the eventfd pci_msix_vector_fd(), which stays the same until the
 * device goes: what is written while the vector is masked is pending and delivered at the unmask.
 */
bool pci_msix_init(struct pci_device *dev, unsigned vectors, unsigned table_bar,
		   uint64_t table_offset, unsigned pba_bar, uint64_t pba_offset,
		   struct error **err);
bool pci_msix_init_exclusive(struct pci_device *dev, unsigned vectors, unsigned bar,
			     struct error **err);
static inline bool pci_msix_present(const struct pci_device *dev)
{
	return dev->msix.pos != 0;
}
static inline bool pci_msix_enabled(const struct pci_device *dev)
{
	return atomic_load_explicit(&((struct pci_device *)dev)->msix.enabled,
				    memory_order_acquire);
}
/* Whether v would not be delivered now. */
bool pci_msix_masked(struct pci_device *dev, unsigned v);
/* 0 or -errno (-EINVAL: no such vector, -EMFILE ...). Any thread. */
int pci_msix_vector_use(struct pci_device *dev, unsigned v);
void pci_msix_vector_unuse(struct pci_device *dev, unsigned v);
/* The eventfd of a vector in use, or -1 where eventfds do not reach the guest: use notify. */
int pci_msix_vector_fd(struct pci_device *dev, unsigned v);
/* Any thread. Lost when MSI-X is disabled or v is out of range. */
void pci_msix_notify(struct pci_device *dev, unsigned v);

/* ---- buses ---- */

/* What stands behind the slots of a bus and can talk a guest into plugging and unplugging. */
struct pci_hotplug_ops {
	/* A device became visible while the guest is there. Main thread. */
	void (*plugged)(struct pci_bus *bus, struct pci_device *dev);
	bool (*unplug_request)(struct pci_bus *bus, struct pci_device *dev, struct error **err);
	/* It is gone. */
	void (*unplugged)(struct pci_bus *bus, struct pci_device *dev);
};

struct pci_bus {
	struct bus bus;
	struct pci_root *root;
	struct pci_device *bridge;		/* NULL on the root bus */
	struct pci_device *devices[PCI_DEVFNS]; /* changes: main thread under root->lock */
	bool express;
	_Atomic uint8_t number;
	bool off;			       /* under root->lock: the slot has no power */
	uint8_t first_slot, last_slot;	       /* first that is given out unasked; last there is */
	const struct pci_hotplug_ops *hotplug; /* NULL: none */
};

/* type "pci"; bridge NULL only for roots. */
void pci_bus_init(struct vm *vm, struct pci_bus *bus, const char *name, struct pci_root *root,
		  struct pci_device *bridge, bool express);
void pci_bus_destroy(struct pci_bus *bus);
/* The bus number the guest or firmware gave; 0 for the root. */
static inline uint8_t pci_bus_number(const struct pci_bus *bus)
{
	return atomic_load_explicit(&((struct pci_bus *)bus)->number, memory_order_relaxed);
}
static inline bool pci_bus_is_root(const struct pci_bus *bus)
{
	return !bus->bridge;
}
/* The bus behind a bridge, or NULL. */
struct pci_bus *pci_bridge_secondary(struct pci_device *dev);
/* In order of devfn; with each bridge its bus afterwards. fn returns false to stop. Main thread. */
bool pci_bus_for_each(struct pci_bus *bus, bool (*fn)(struct pci_device *dev, void *opaque),
		      void *opaque);

/* ---- the root ---- */

struct pci_root_ops {
	/* Input number of pin (0 is INTA#) of a device of the root bus, below PCI_ROOT_INPUTS. */
	unsigned (*map_intx)(void *opaque, uint8_t devfn, unsigned pin);
	/* Called when the OR of all that share the input changes. Any thread, under intx_lock. */
	void (*set_intx)(void *opaque, unsigned input, bool level);
};
enum { PCI_ROOT_INPUTS = 16 };

struct pci_root {
	struct vm *vm;
	struct pci_bus bus;
	pthread_mutex_t lock;
	pthread_mutex_t intx_lock;
	const struct pci_root_ops *ops;
	void *opaque;
	uint16_t input_count[PCI_ROOT_INPUTS]; /* who holds it up */
	uint32_t next_serial;
	uint32_t config_address; /* port 0xcf8 */
	const struct io_ops *reset_port;
	void *reset_port_opaque;
	struct io_region address_port, data_port, ecam;
	bool ports_mapped, ecam_mapped;
};

/* The message sink, vm->msi, must be there before the first MSI. name "pcie.0"; express: whether
 * the bus takes PCI Express devices. */
void pci_root_init(struct pci_root *root, struct vm *vm, const char *name, bool express);
/* Devices on it are freed first. */
void pci_root_destroy(struct pci_root *root);
/* Who gets INTx. Before the first device. */
void pci_root_set_intx(struct pci_root *root, const struct pci_root_ops *ops, void *opaque);
/* map_intx gives other answers now: moves what is held up. Any thread, no lock held. */
void pci_root_intx_rerouted(struct pci_root *root);
/* Ports 0xcf8 (accesses of 4 bytes) and 0xcfc. */
bool pci_root_map_ports(struct pci_root *root, struct error **err);
/* Who gets accesses of one byte to port 0xcf9, at offset 0: they lie inside the address port. */
void pci_root_set_reset_port(struct pci_root *root, const struct io_ops *ops, void *opaque);
/* The memory-mapped window: 1 MiB a bus; size 0 takes it away. Under root->lock or at set-up. */
bool pci_root_set_ecam(struct pci_root *root, uint64_t base, uint64_t size, struct error **err);

/* Configuration accesses as the buses make them; size 1, 2 or 4. One that crosses a 4-byte boundary
 * or the end, and one to where nothing is, reads as all ones. Any thread; takes root->lock. */
uint32_t pci_config_read(struct pci_root *root, uint8_t bus, uint8_t devfn, unsigned offset,
			 unsigned size);
void pci_config_write(struct pci_root *root, uint8_t bus, uint8_t devfn, unsigned offset,
		      uint32_t value, unsigned size);
/* Decoding changed in a way that configuration writes did not tell (power state, window): maps and
 * unmaps BARs of dev and, if it is a bridge, of all behind it. Under root->lock. */
void pci_update_mappings(struct pci_device *dev);

/*
 * What firmware would have done: numbers buses, opens bridge windows, places BARs, writes interrupt
 * lines, turns on decoding and bus mastering. Ranges are [base, base + size); 64-bit prefetchable
 * BARs that do not fit below 4 GiB go to mem64. False with err when something does not fit.
 */
struct pci_windows {
	uint64_t io_base, io_size;
	uint64_t mem32_base, mem32_size;
	uint64_t mem64_base, mem64_size; /* size 0: none */
	/* Interrupt line register for a root input; NULL: 0xff. */
	uint8_t (*line)(void *opaque, unsigned input);
	void *opaque;
};
bool pci_assign_resources(struct pci_root *root, const struct pci_windows *windows,
			  struct error **err);

/* ---- bridges that a user may add (bridge.c, pcie_root_port.c) ---- */
extern const struct device_desc pcie_root_port_desc;
extern const struct device_desc pci_bridge_desc;
extern const struct device_desc pcie_pci_bridge_desc;

#endif
