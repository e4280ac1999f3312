/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests' guests run: position-independent pieces that guest.c copies into their memory.
 * 64-bit mode, RDI is the CPU's index; see guest.h for what lies where.
 */
	.intel_syntax noprefix
	.section .rodata
	.code64

#define DATA 0x100000
#define MMIO 0xd0000000
#define APIC 0xfee00000
#define IOAPIC 0xfec00000
#define PORT_NUMBER 0x600

	.macro piece name
	.balign 16
	.globl guest_\name, guest_\name\()_end
guest_\name:
	.endm
	.macro end_piece name
guest_\name\()_end:
	.endm

	/* Ends guest_run() and stays, in any ring. */
	.macro done
	out 0xf4, al
9:	pause
	jmp 9b
	.endm

	/* The local APIC takes interrupts. */
	.macro apic_on
	mov eax, APIC + 0xf0
	mov dword ptr [rax], 0x1ff
	.endm

	.macro number value
	mov edx, PORT_NUMBER
	mov eax, \value
	out dx, eax
	.endm

piece hello
	lea rsi, [rip + 2f]
1:	mov al, [rsi]
	test al, al
	jz 3f
	out 0xe9, al
	inc rsi
	jmp 1b
2:	.asciz "hello"
3:	done
end_piece hello

	/* Writes of each width, what they left read back, one that straddles the device's end. */
piece mmio
	mov ebx, MMIO
	mov byte ptr [rbx], 0x11
	mov word ptr [rbx + 2], 0x2222
	mov dword ptr [rbx + 4], 0x33333333
	mov rax, 0x4444444455555555
	mov [rbx + 8], rax
	movzx eax, byte ptr [rbx]
	number eax
	movzx eax, word ptr [rbx + 2]
	number eax
	mov eax, [rbx + 4]
	number eax
	mov rcx, [rbx + 8]
	number ecx
	shr rcx, 32
	number ecx
	mov ebx, MMIO + 4094
	mov eax, [rbx]
	number eax
	done
end_piece mmio

	/* 200 bytes out of memory, 200 bytes into it. */
piece string
	cld
	mov edx, 0xe9
	mov esi, DATA
	mov ecx, 200
	rep outsb
	mov edi, DATA + 0x1000
	mov ecx, 200
	rep insb
	number ecx
	done
end_piece string

	/* Doorbells: 16 and 32 bits on ports, any width and one value on memory. */
piece doorbells
	mov ecx, 10
1:	mov edx, 0x700
	mov ax, cx
	out dx, ax
	mov edx, 0x704
	mov eax, ecx
	out dx, eax
	mov ebx, MMIO + 0x100
	mov [rbx], cx
	mov [rbx], ecx
	mov [rbx + 0x10], ecx
	dec ecx
	jnz 1b
	done
end_piece doorbells

	/* Counts each vector's interrupts at DATA + 0x800 and ends them. */
piece count_vectors
	push rax
	push rdx
	mov rax, [rsp + 16]
	mov edx, DATA + 0x800
	inc dword ptr [rdx + rax * 4]
	mov edx, APIC + 0xb0
	mov dword ptr [rdx], 0
	pop rdx
	pop rax
	add rsp, 8
	iretq
end_piece count_vectors

	/* Says it is ready, then takes interrupts. */
piece interrupts
	apic_on
	sti
	out 0xf4, al
1:	hlt
	jmp 1b
end_piece interrupts

	/* The same, awake: page-table KVM tells an end of interrupt only when it enters the guest. */
piece interrupts_awake
	apic_on
	sti
	done
end_piece interrupts_awake

	/* Pin 5 of the I/O APIC: level-triggered, vector 0x45, CPU 0. */
piece ioapic
	apic_on
	mov ebx, IOAPIC
	mov dword ptr [rbx], 0x10 + 2 * 5 + 1
	mov dword ptr [rbx + 0x10], 0
	mov dword ptr [rbx], 0x10 + 2 * 5
	mov dword ptr [rbx + 0x10], 0x8045
	sti
	out 0xf4, al
1:	hlt
	jmp 1b
end_piece ioapic

	/* The 8254's channel 0, once every 1000 of its cycles, through the I/O APIC's pin 2. */
piece pit
	apic_on
	mov ebx, IOAPIC
	mov dword ptr [rbx], 0x10 + 2 * 2 + 1
	mov dword ptr [rbx + 0x10], 0
	mov dword ptr [rbx], 0x10 + 2 * 2
	mov dword ptr [rbx + 0x10], 0x41
	mov al, 0x34
	out 0x43, al
	mov al, 1000 & 255
	out 0x40, al
	mov al, 1000 >> 8
	out 0x40, al
	in al, 0x61
	movzx ecx, al
	number ecx
	sti
	out 0xf4, al
1:	hlt
	jmp 1b
end_piece pit

	/* As count_vectors, for interrupts of the 8259s. */
piece count_pic
	push rax
	push rdx
	mov rax, [rsp + 16]
	mov edx, DATA + 0x800
	inc dword ptr [rdx + rax * 4]
	mov al, 0x20
	out 0xa0, al
	out 0x20, al
	pop rdx
	pop rax
	add rsp, 8
	iretq
end_piece count_pic

	/* 8259s at vectors 0x40 and 0x48, all inputs open. */
	.macro pic_init
	mov al, 0x11
	out 0x20, al
	out 0xa0, al
	mov al, 0x40
	out 0x21, al
	mov al, 0x48
	out 0xa1, al
	mov al, 4
	out 0x21, al
	mov al, 2
	out 0xa1, al
	mov al, 1
	out 0x21, al
	out 0xa1, al
	xor eax, eax
	out 0x21, al
	out 0xa1, al
	.endm

	/* Takes the 8259's interrupts, asleep. */
piece pic
	apic_on
	pic_init
	sti
	out 0xf4, al
1:	hlt
	jmp 1b
end_piece pic

	/* Takes them once DATA says so, and at LINT0 once DATA + 4 says so. */
piece pic_late
	apic_on
	mov dword ptr [rax - 0xf0 + 0x350], 0x10000
	pic_init
	out 0xf4, al
	mov ebx, DATA
1:	pause
	cmp dword ptr [rbx], 0
	je 1b
	sti
2:	pause
	cmp dword ptr [rbx + 4], 0
	je 2b
	mov eax, APIC + 0x350
	mov dword ptr [rax], 0x700
3:	inc dword ptr [rbx + 8]
	jmp 3b
end_piece pic_late

	/* CPU 0 wakes CPU 1, whose real-mode code the test put at 0x70000. */
piece start_up
	apic_on
	mov ebx, APIC
	mov dword ptr [rbx + 0x310], 1 << 24
	mov dword ptr [rbx + 0x300], 0x4500
	mov dword ptr [rbx + 0x310], 1 << 24
	mov dword ptr [rbx + 0x300], 0x4670
	done
end_piece start_up

	.code16
piece real_mode
	mov ax, cs
	mov ds, ax
	mov dword ptr [0x100], 0x600dcafe
1:	hlt
	jmp 1b
end_piece real_mode
	.code64

	/* Programs the 8254 and the 8259s as nobody leaves them. */
piece legacy_chips
	mov al, 0x34
	out 0x43, al
	mov al, 0x10
	out 0x40, al
	out 0x40, al
	mov al, 0x11
	out 0x20, al
	mov al, 0x20
	out 0x21, al
	mov al, 4
	out 0x21, al
	mov al, 1
	out 0x21, al
	mov al, 0xfb
	out 0x21, al
	mov ebx, IOAPIC
	mov dword ptr [rbx], 0x10 + 2 * 7
	mov dword ptr [rbx + 0x10], 0x18047
	apic_on
	done
end_piece legacy_chips

	/* Counts its lives, then dies of a fault without an interrupt table. */
piece triple_fault
	mov ebx, DATA
	inc dword ptr [rbx]
	cmp dword ptr [rbx], 3
	jae 1f
	xor eax, eax
	push rax
	push rax
	lidt [rsp]
	ud2
1:	done
end_piece triple_fault

	/* KVM's emulator, which serves accesses to devices, has no such instruction. */
piece emulator_gap
	mov ebx, DATA
	inc dword ptr [rbx]
	cmp dword ptr [rbx], 2
	jae 1f
	mov ebx, MMIO
	cmpxchg16b [rbx]
1:	done
end_piece emulator_gap

	/* Each CPU counts in a cache line of its own. */
piece spin
	shl edi, 6
	add edi, DATA
1:	inc qword ptr [rdi]
	jmp 1b
end_piece spin

	/* Each CPU counts and writes its count to a device. */
piece spin_mmio
	mov ebx, MMIO
	lea ebx, [ebx + edi * 8]
	shl edi, 6
	add edi, DATA
1:	inc qword ptr [rdi]
	mov eax, [rdi]
	mov [rbx], eax
	jmp 1b
end_piece spin_mmio

	/* Memory at 0xc0000000 that can be read only. */
piece rom
	mov ebx, 0xc0000000
	mov eax, [rbx]
	number eax
	mov dword ptr [rbx + 8], 0x12345678
	mov eax, [rbx + 8]
	number eax
	done
end_piece rom

	/* Writes to pages 3, 5 and 70 of memory at 0xc0000000. */
piece dirty
	mov ebx, 0xc0000000
	mov dword ptr [rbx + 0x3008], 1
	mov dword ptr [rbx + 0x5ffc], 1
	mov dword ptr [rbx + 0x46000], 1
	done
end_piece dirty

	/* Reads 0xc0000000 for ever; counts at DATA what was neither the memory's nor nothing, and
	 * at DATA + 8 and + 16 those two. */
piece watch
	mov ebx, 0xc0000000
	mov ecx, DATA
1:	mov eax, [rbx]
	cmp eax, 0x600d600d
	je 2f
	cmp eax, -1
	je 3f
	inc qword ptr [rcx]
	jmp 1b
2:	inc qword ptr [rcx + 8]
	jmp 1b
3:	inc qword ptr [rcx + 16]
	jmp 1b
end_piece watch

	/* An address where there is nothing. */
piece astray
	mov eax, 0xb0000000
	jmp rax
end_piece astray

	/* Asks a device for something in the middle of counting. */
piece requests
	mov ebx, DATA
1:	inc dword ptr [rbx]
	mov edx, 0x640
	out dx, al
	inc dword ptr [rbx + 4]
	cmp dword ptr [rbx + 4], 3
	jb 1b
	done
end_piece requests

	.section .note.GNU-stack, "", @progbits
