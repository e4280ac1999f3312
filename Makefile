# SPDX-License-Identifier: Apache-2.0
# make                  builds build/vmm and build/vmm-img
# make demo             a Debian cloud image with cloud-init in this terminal (DEMO=batch: without one)
# make check            every test;  make check-quick: all but the lab, in a minute
# make bench            side by side with QEMU
# make docs             docs/manual.md from the program's own tables
# make deps             installs what is missing (Debian, Ubuntu)
# make SAN=1 ...        the same with sanitizers, in build-san;  ./configure --help: options

ifeq ($(filter deps clean distclean help demo,$(MAKECMDGOALS)),)
-include config.mk
config.mk: configure
	@if [ -e config.mk ]; then ./configure $(CONFIGURE_ARGS); else tests/deps build && ./configure; fi
endif
BUILD ?= build
# SAN=1: the same tree under AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer, in
# build-san; the tests run from there. Of debug information they need what reports print.
ifdef SAN
BUILD := $(BUILD)-san
CFLAGS := $(filter-out -O2 -g -D_FORTIFY_SOURCE=2,$(CFLAGS)) -O1 -g1 -fno-omit-frame-pointer \
	-fsanitize=address,undefined -fno-sanitize-recover=undefined -Wno-maybe-uninitialized
LDFLAGS += -fsanitize=address,undefined
endif

.DEFAULT_GOAL := all
.PHONY: all check check-quick bench demo deps docs install clean distclean format kernels tests help
.DELETE_ON_ERROR:

# Rooms: every .c of a folder is that room's. Programs' main files are no room's.
core    := $(wildcard vmm/core/*.c)
chardev := $(wildcard vmm/chardev/*.c)
control := $(wildcard vmm/control/*.c)
state   := $(wildcard vmm/state/*.c)
cli     := $(wildcard vmm/cli/*.c)
cloudinit := $(wildcard vmm/cloudinit/*.c)
hw      := $(wildcard hw/*.c hw/*/*.c)
img_main := $(wildcard block/img/*.c)
block   := $(wildcard block/*.c block/qcow2/*.c block/engine/*.c block/format/*.c block/filter/*.c block/nbd/*.c \
	block/crypt/*.c block/rbd/*.c)
net     := $(wildcard net/*.c)
accel   := $(wildcard accel/*.c accel/*/*.c)
target  := $(wildcard target-x86/*.c target-x86/*/*.c)
program := $(wildcard vmm/*.c)

LIBS := $(JANSSON_LIBS) $(LIBURING_LIBS) $(LIBAIO_LIBS) $(ZLIB_LIBS) $(LIBDEFLATE_LIBS) $(ZSTD_LIBS) $(BZIP2_LIBS) $(FDT_LIBS) \
	$(SLIRP_LIBS) $(SECCOMP_LIBS) $(CAPNG_LIBS) $(NUMA_LIBS) \
	$(NETTLE_LIBS) -lm
INCS := $(JANSSON_CFLAGS) $(LIBURING_CFLAGS) $(ZLIB_CFLAGS) $(LIBDEFLATE_CFLAGS) $(ZSTD_CFLAGS) $(FDT_CFLAGS) \
	$(SLIRP_CFLAGS) $(ISOFS_CFLAGS) $(SECCOMP_CFLAGS) $(CAPNG_CFLAGS) $(NUMA_CFLAGS) \
	$(NETTLE_CFLAGS) $(GNUTLS_CFLAGS) $(LIBNBD_CFLAGS)

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
rooms := core chardev control state cli cloudinit hw block net accel target
archives := $(foreach r,$(rooms),$(BUILD)/lib$(r).a)
define room
$(BUILD)/lib$(1).a: $$(call obj,$$($(1)))
	@mkdir -p $$(@D)
	$$(Q)rm -f $$@ && $(AR) rcs $$@ $$^
endef
$(foreach r,$(rooms),$(eval $(call room,$(r))))

Q := $(if $(V),,@)
$(BUILD)/obj/%.o: %.c config.mk
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC  $<")
	$(Q)$(CC) $(CFLAGS) $(INCS) -MMD -MP -c $< -o $@

all: $(BUILD)/vmm $(BUILD)/vmm-img
$(BUILD)/vmm: $(call obj,$(program)) $(archives)
	$(if $(V),,@echo "  LD  $@")
	$(Q)$(CC) $(LDFLAGS) $(call obj,$(program)) -Wl,--start-group $(archives) -Wl,--end-group $(LIBS) -o $@
$(BUILD)/vmm-img: $(call obj,$(img_main)) $(BUILD)/libblock.a $(BUILD)/libcore.a
	$(if $(V),,@echo "  LD  $@")
	$(Q)$(CC) $(LDFLAGS) $(call obj,$(img_main)) $(BUILD)/libblock.a $(BUILD)/libcore.a $(LIBS) -o $@

# One cmocka program for each tests/unit/*.c and tests/device/*.c; what they share is in tests/lib.
unit_tests := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/*.c tests/device/*.c))
tests_lib := $(wildcard tests/lib/*.c)
tests: $(unit_tests)
$(BUILD)/libtests.a: $(call obj,$(tests_lib))
	$(Q)rm -f $@ && $(AR) rcs $@ $^
# The image tool without its main(), which is in no room's archive.
$(BUILD)/libimg.a: $(filter-out %/main.o,$(call obj,$(img_main)))
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(BUILD)/libtests.a $(BUILD)/libimg.a $(archives)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) $< -Wl,--start-group $(BUILD)/libtests.a $(BUILD)/libimg.a $(archives) -Wl,--end-group \
		$(LIBS) $(CMOCKA_LIBS) -o $@

# Guests of our own on /dev/kvm: programs tests/guest/test_*.c, which share the rest of that folder,
# and kernels for the program itself.
guest_tests := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/guest/test_*.c))
guest_lib := $(filter-out tests/guest/test_%.c,$(wildcard tests/guest/*.c)) tests/guest/code.S
guest_kernels := $(BUILD)/tests/guest/hello-pvh
kernels: $(guest_kernels)
tests: $(guest_tests) $(guest_kernels)
$(BUILD)/obj/tests/guest/%.o: tests/guest/%.S config.mk
	@mkdir -p $(@D)
	$(if $(V),,@echo "  AS  $<")
	$(Q)$(CC) -g -MMD -MP -c $< -o $@
$(BUILD)/libguest.a: $(patsubst %.S,$(BUILD)/obj/%.o,$(guest_lib:%.c=$(BUILD)/obj/%.o))
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(BUILD)/tests/guest/test_%: $(BUILD)/obj/tests/guest/test_%.o $(BUILD)/libguest.a $(archives)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) $< -Wl,--start-group $(BUILD)/libguest.a $(archives) -Wl,--end-group \
		$(LIBS) $(CMOCKA_LIBS) -o $@
# Loaded where its program headers say, 1 MiB; nothing of the host's C library or linker defaults.
$(BUILD)/tests/guest/%-pvh: tests/guest/%-pvh.S config.mk
	@mkdir -p $(@D)
	$(if $(V),,@echo "  AS  $<")
	$(Q)$(CC) -nostdlib -static -no-pie -Wl,-Ttext=0x100000,--section-start=.note.pvh=0x101000,-e,start \
		-Wl,--build-id=none,-n,-z,norelro,-z,noexecstack $< -o $@
# What tests/bench/net.py runs: a kernel of our own, and the other end of its network.
bench_programs := $(BUILD)/tests/bench/net-guest $(BUILD)/tests/bench/packets
tests: $(bench_programs)
bench: $(bench_programs) $(guest_kernels)
$(BUILD)/tests/bench/net-guest: tests/bench/net-start.S tests/bench/net-guest.c config.mk
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC  $(filter %.c,$^)")
	$(Q)$(CC) -O2 -Wall -Wextra -Werror -ffreestanding -fno-pie -fno-stack-protector -fcf-protection=none \
		-fno-asynchronous-unwind-tables -mgeneral-regs-only -mno-red-zone -nostdlib -static -no-pie \
		-Wl,-Ttext=0x100000,-Tdata=0x110000,--section-start=.note.pvh=0x3ff000,-e,start \
		-Wl,--build-id=none,-n,-z,norelro,-z,noexecstack $(filter-out config.mk,$^) -o $@
$(BUILD)/tests/bench/packets: tests/bench/packets.c config.mk
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC  $<")
	$(Q)$(CC) -O2 -Wall -Wextra -Werror $< -o $@
# Fuzz targets tests/fuzz/fuzz_*.c: libFuzzer's with --enable-fuzz, else programs that replay a corpus.
fuzz_targets := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
tests: $(fuzz_targets)
fuzz_main := $(if $(filter yes,$(FUZZ)),,$(BUILD)/obj/tests/fuzz/replay.o)
$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(fuzz_main) $(BUILD)/libtests.a $(archives)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) $(if $(fuzz_main),,-fsanitize=fuzzer) $(filter %.o,$^) \
		-Wl,--start-group $(BUILD)/libtests.a $(archives) -Wl,--end-group $(LIBS) $(CMOCKA_LIBS) -o $@
.SECONDARY:

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

check:
	@tests/run all
check-quick:
	@tests/run quick
bench: all
	@tests/bench/run
demo:
	@tests/demo $(DEMO)
deps:
	@tests/deps all
docs: $(BUILD)/vmm
	$(BUILD)/vmm --help-manual >docs/manual.md
format:
	clang-format -i $$(git ls-files '*.c' '*.h')
help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

install: all
	install -D -m 755 $(BUILD)/vmm $(DESTDIR)$(PREFIX)/bin/vmm
	install -D -m 755 $(BUILD)/vmm-img $(DESTDIR)$(PREFIX)/bin/vmm-img
clean:
	rm -rf $(BUILD) $(BUILD)-san
distclean: clean
	rm -f config.mk config.h config.log
