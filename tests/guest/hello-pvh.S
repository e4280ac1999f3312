/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest kernel: a PVH ELF (Xen: docs/misc/pvh.pandoc) that says "hello" on the first serial
 * port and ends the program through isa-debug-exit (iobase=0x501,iosize=4): exit status 1.
 * It starts in 32-bit protected mode with flat segments and no paging.
 */
	.intel_syntax noprefix
	.code32

#define COM1 0x3f8
#define DEBUG_EXIT 0x501
#define XEN_ELFNOTE_PHYS32_ENTRY 18

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
	.asciz "Xen"
	.long start

	.text
	.globl start
start:
	mov esi, offset message
	mov edx, COM1
	mov ecx, offset message_end - message
	cld
	rep outsb
	mov edx, DEBUG_EXIT
	xor eax, eax
	out dx, al
1:	hlt
	jmp 1b

message:
	.ascii "hello\r\n"
message_end:

	.section .note.GNU-stack, "", @progbits
