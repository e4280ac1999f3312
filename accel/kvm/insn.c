/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of instructions, for reports; see insn.h.
 */
#include "accel/kvm/insn.h"

struct insn {
	const uint8_t *p, *end;
	bool rex_w, operand16, repe, repne;
};

static bool is_prefix(struct insn *i, uint8_t byte, bool long_mode)
{
	switch (byte) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x67:
	case 0xf0:
		return true;
	case 0x66:
		i->operand16 = true;
		return true;
	case 0xf2:
		i->repne = true;
		return true;
	case 0xf3:
		i->repe = true;
		return true;
	}
	if (!long_mode || (byte & 0xf0) != 0x40)
		return false;
	i->rex_w = byte & 8;
	return true;
}

/* 0f 01: system instructions, told apart by the whole ModRM byte. */
static const char *name_0f01(uint8_t modrm)
{
	switch (modrm) {
	case 0xc1:
		return "vmcall";
	case 0xc8:
		return "monitor";
	case 0xc9:
		return "mwait";
	case 0xca:
		return "clac";
	case 0xcb:
		return "stac";
	case 0xd0:
		return "xgetbv";
	case 0xd1:
		return "xsetbv";
	case 0xd9:
		return "vmmcall";
	case 0xf8:
		return "swapgs";
	case 0xf9:
		return "rdtscp";
	}
	return NULL;
}

static const char *name_0fae(const struct insn *i, uint8_t modrm)
{
	static const char *const memory[] = { "fxsave",	"fxrstor", "ldmxcsr",  "stmxcsr",
					      "xsave",	"xrstor",  "xsaveopt", "clflush" };
	static const char *const fsgsbase[] = { "rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase" };
	unsigned reg = modrm >> 3 & 7;

	if (modrm < 0xc0)
		return memory[reg];
	if (i->repe && reg < 4)
		return fsgsbase[reg];
	return reg == 5 ? "lfence" : reg == 6 ? "mfence" : reg == 7 ? "sfence" : NULL;
}

static const char *name_0fc7(const struct insn *i, uint8_t modrm)
{
	unsigned reg = modrm >> 3 & 7;

	if (modrm >= 0xc0)
		return reg == 6 ? "rdrand" : reg == 7 ? (i->repe ? "rdpid" : "rdseed") : NULL;
	switch (reg) {
	case 1:
		return i->rex_w ? "cmpxchg16b" : "cmpxchg8b";
	case 3:
		return "xrstors";
	case 4:
		return "xsavec";
	case 5:
		return "xsaves";
	}
	return NULL;
}

static const char *name_0f(struct insn *i)
{
	uint8_t op, modrm;

	if (i->p == i->end)
		return NULL;
	op = *i->p++;
	modrm = i->p < i->end ? *i->p : 0;
	switch (op) {
	case 0x01:
		return name_0f01(modrm);
	case 0x05:
		return "syscall";
	case 0x07:
		return "sysret";
	case 0x08:
		return "invd";
	case 0x09:
		return "wbinvd";
	case 0x0b:
		return "ud2: what compilers put where a program must not come";
	case 0x18:
		return "prefetch";
	case 0x1e:
		return i->repe ? "endbr64 or a shadow stack instruction" : "nop";
	case 0x30:
		return "wrmsr";
	case 0x31:
		return "rdtsc";
	case 0x32:
		return "rdmsr";
	case 0x33:
		return "rdpmc";
	case 0x34:
		return "sysenter";
	case 0xa2:
		return "cpuid";
	case 0xae:
		return name_0fae(i, modrm);
	case 0xb8:
		return i->repe ? "popcnt" : NULL;
	case 0xbc:
		return i->repe ? "tzcnt" : "bsf";
	case 0xbd:
		return i->repe ? "lzcnt" : "bsr";
	case 0xc7:
		return name_0fc7(i, modrm);
	}
	if ((op >= 0x10 && op <= 0x17) || (op >= 0x28 && op <= 0x2f) || op == 0x38 || op == 0x3a ||
	    (op >= 0x50 && op <= 0x7f) || op == 0xc2 || op == 0xc6 || op >= 0xd0)
		return "an SSE or MMX instruction";
	return NULL;
}

const char *insn_name(const uint8_t *bytes, size_t len, bool long_mode)
{
	struct insn i = { .p = bytes, .end = bytes + len };
	size_t zeros = 0;

	while (zeros < len && !bytes[zeros])
		zeros++;
	if (len && zeros == len)
		return "zeros: empty memory, the guest jumped astray";
	while (i.p < i.end && is_prefix(&i, *i.p, long_mode))
		i.p++;
	if (i.p == i.end)
		return NULL;
	switch (*i.p++) {
	case 0x0f:
		return name_0f(&i);
	case 0x62:
		return long_mode ? "an AVX-512 instruction" : NULL;
	case 0xc4:
	case 0xc5:
		return long_mode ? "an AVX instruction" : NULL;
	case 0xcc:
		return "int3: a breakpoint";
	case 0xcd:
		return "int";
	case 0xcf:
		return "iret";
	case 0xd8 ... 0xdf:
		return "an x87 floating-point instruction";
	case 0xf4:
		return "hlt";
	case 0xff:
		return i.p < i.end && *i.p == 0xff ? "ff bytes: no memory is there" : NULL;
	}
	return NULL;
}
