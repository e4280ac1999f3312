/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How net-guest.c is entered: as a PVH kernel (Xen: docs/misc/pvh.pandoc), in 32-bit protected mode
 * without paging, EBX telling where the start information lies. From there to ring 3 of 64-bit mode,
 * the first 4 GiB lying where they are and all ports being allowed: page-table KVM interprets what
 * runs in ring 0, and runs the rest as it is. There are no interrupts.
 */
	.intel_syntax noprefix
	.code32

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define CODE0 0x08
#define CODE3 0x2b
#define DATA3 0x33
#define SYSENTER_CS 0x174
#define TASK 0x38
#define TASK_SIZE (0x68 + 8192 + 1)
#define CR4_PAE 0x20
#define CR0_PG_PE 0x80000001
#define EFER 0xc0000080
#define EFER_LME 0x100

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
	.asciz "Xen"
	.long start

	.text
	.globl start
start:
	cld
	mov esp, offset stack_end
	mov eax, offset task
	mov [gdt + TASK + 2], ax
	shr eax, 16
	mov [gdt + TASK + 4], al
	lgdt gdt_pointer
	mov eax, CR4_PAE
	mov cr4, eax
	mov eax, offset pml4
	mov cr3, eax
	mov ecx, EFER
	mov eax, EFER_LME
	xor edx, edx
	wrmsr
	mov eax, CR0_PG_PE
	mov cr0, eax
	jmp CODE0:offset 1f

	.code64
1:	mov eax, DATA3
	mov ds, eax
	mov es, eax
	mov edi, ebx
	mov eax, TASK
	ltr ax
	mov ecx, SYSENTER_CS
	mov eax, CODE0
	xor edx, edx
	wrmsr
	mov edx, offset run
	mov ecx, offset stack_end - 8
	sysexitq

	.data
	.balign 4096
pml4:
	.quad pdpt + 7
	.skip 4096 - 8
pdpt:
	.quad directories + 7, directories + 0x1007, directories + 0x2007, directories + 0x3007
	.skip 4096 - 4 * 8
directories:
	.set at, 0
	.rept 2048
	.quad (at << 21) + 0x87
	.set at, at + 1
	.endr
task:
	.skip 0x66
	.word 0x68
	.skip 8192
	.byte 0xff
	.balign 8
gdt:
	/* SYSEXIT wants ring 3's behind ring 0's and those of 32 bits. */
	.quad 0, 0x00209b0000000000, 0, 0, 0, 0x0020fb0000000000, 0x00cff3000000ffff
	/* The task, which is there for its map of ports. */
	.word TASK_SIZE - 1, 0
	.byte 0, 0x89, 0, 0
	.quad 0
gdt_pointer:
	.word . - gdt - 1
	.quad gdt

	.bss
	.balign 16
	.skip 16384
stack_end:

	.section .note.GNU-stack, "", @progbits
