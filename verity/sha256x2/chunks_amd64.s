// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// The constants of the 64 rounds (FIPS 180-4, 4.2.2).
DATA constants<>+0x00(SB)/8, $0x71374491428a2f98
DATA constants<>+0x08(SB)/8, $0xe9b5dba5b5c0fbcf
DATA constants<>+0x10(SB)/8, $0x59f111f13956c25b
DATA constants<>+0x18(SB)/8, $0xab1c5ed5923f82a4
DATA constants<>+0x20(SB)/8, $0x12835b01d807aa98
DATA constants<>+0x28(SB)/8, $0x550c7dc3243185be
DATA constants<>+0x30(SB)/8, $0x80deb1fe72be5d74
DATA constants<>+0x38(SB)/8, $0xc19bf1749bdc06a7
DATA constants<>+0x40(SB)/8, $0xefbe4786e49b69c1
DATA constants<>+0x48(SB)/8, $0x240ca1cc0fc19dc6
DATA constants<>+0x50(SB)/8, $0x4a7484aa2de92c6f
DATA constants<>+0x58(SB)/8, $0x76f988da5cb0a9dc
DATA constants<>+0x60(SB)/8, $0xa831c66d983e5152
DATA constants<>+0x68(SB)/8, $0xbf597fc7b00327c8
DATA constants<>+0x70(SB)/8, $0xd5a79147c6e00bf3
DATA constants<>+0x78(SB)/8, $0x1429296706ca6351
DATA constants<>+0x80(SB)/8, $0x2e1b213827b70a85
DATA constants<>+0x88(SB)/8, $0x53380d134d2c6dfc
DATA constants<>+0x90(SB)/8, $0x766a0abb650a7354
DATA constants<>+0x98(SB)/8, $0x92722c8581c2c92e
DATA constants<>+0xa0(SB)/8, $0xa81a664ba2bfe8a1
DATA constants<>+0xa8(SB)/8, $0xc76c51a3c24b8b70
DATA constants<>+0xb0(SB)/8, $0xd6990624d192e819
DATA constants<>+0xb8(SB)/8, $0x106aa070f40e3585
DATA constants<>+0xc0(SB)/8, $0x1e376c0819a4c116
DATA constants<>+0xc8(SB)/8, $0x34b0bcb52748774c
DATA constants<>+0xd0(SB)/8, $0x4ed8aa4a391c0cb3
DATA constants<>+0xd8(SB)/8, $0x682e6ff35b9cca4f
DATA constants<>+0xe0(SB)/8, $0x78a5636f748f82ee
DATA constants<>+0xe8(SB)/8, $0x8cc7020884c87814
DATA constants<>+0xf0(SB)/8, $0xa4506ceb90befffa
DATA constants<>+0xf8(SB)/8, $0xc67178f2bef9a3f7
GLOBL constants<>(SB), RODATA|NOPTR, $256

// Message words are big-endian.
DATA swap<>+0x00(SB)/8, $0x0405060700010203
DATA swap<>+0x08(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), RODATA|NOPTR, $16

// func hasSHA() bool
TEXT ·hasSHA(SB), NOSPLIT, $0-1
	XORL AX, AX
	CPUID
	CMPL AX, $7
	JLT  absent
	MOVL $7, AX
	XORL CX, CX
	CPUID
	SHRL $29, BX
	ANDL $1, BX
	MOVB BX, ret+0(FP)
	RET

absent:
	MOVB $0, ret+0(FP)
	RET

// A message's state is kept as the instructions want it: abef and cdgh. w, x, y and z are sixteen words of its schedule,
// four each. X0 is what SHA256RNDS2 takes words and constants from, X7 is scratch, AX points at the constants.

// ROUNDS does four rounds with the words in w.
#define ROUNDS(k, abef, cdgh, w) \
	MOVO        w, X0          \
	PADDD       (16*k)(AX), X0 \
	SHA256RNDS2 X0, abef, cdgh \
	PSHUFD      $0x0e, X0, X0  \
	SHA256RNDS2 X0, cdgh, abef

// LOAD fetches the k-th four words of a chunk.
#define LOAD(k, from, w) \
	MOVOU  (16*k)(from), w \
	PSHUFB X14, w

// NEXT completes the words in w that follow those in y and z, where w went through SHA256MSG1 before.
#define NEXT(w, y, z) \
	MOVO       z, X7      \
	PALIGNR    $4, y, X7  \
	PADDD      X7, w      \
	SHA256MSG2 z, w

// BOTH does four rounds of both messages, whose words lie in a and b.
#define BOTH(k, a, b) \
	ROUNDS(k, X1, X2, a) \
	ROUNDS(k, X8, X9, b)

// STEP does four rounds with the newest words (a3, b3) and makes the four that come three steps later ready
// (a2, b2) and the next ones complete (a0, b0).
#define STEP(k, a0, a2, a3, b0, b2, b3) \
	NEXT(a0, a2, a3)   \
	NEXT(b0, b2, b3)   \
	BOTH(k, a3, b3)    \
	SHA256MSG1 a3, a2  \
	SHA256MSG1 b3, b2

// TURN brings a state from the order a to h into abef and cdgh.
#define TURN(abef, cdgh) \
	PSHUFD  $0xb1, abef, abef \
	PSHUFD  $0x1b, cdgh, cdgh \
	MOVO    abef, X7          \
	PALIGNR $8, cdgh, abef    \
	PBLENDW $0xf0, X7, cdgh

// UNTURN is its reverse.
#define UNTURN(abef, cdgh) \
	PSHUFD  $0x1b, abef, abef \
	PSHUFD  $0xb1, cdgh, cdgh \
	MOVO    abef, X7          \
	PBLENDW $0xf0, cdgh, abef \
	PALIGNR $8, X7, cdgh

// ADD adds the state that was kept on the stack.
#define ADD(kept, to) \
	MOVOU kept, X7 \
	PADDD X7, to

// func chunks2(s *[2]state, a, b *byte, n int)
// Requires SHA, SSE4.1, SSSE3.
TEXT ·chunks2(SB), NOSPLIT, $64-32
	MOVQ  s+0(FP), DI
	MOVQ  a+8(FP), SI
	MOVQ  b+16(FP), DX
	MOVQ  n+24(FP), CX
	MOVOU 0(DI), X1
	MOVOU 16(DI), X2
	MOVOU 32(DI), X8
	MOVOU 48(DI), X9
	TURN(X1, X2)
	TURN(X8, X9)
	MOVOU swap<>(SB), X14
	LEAQ  constants<>(SB), AX

chunk:
	MOVOU X1, kept-64(SP)
	MOVOU X2, kept-48(SP)
	MOVOU X8, kept-32(SP)
	MOVOU X9, kept-16(SP)

	LOAD(0, SI, X3)
	LOAD(0, DX, X10)
	BOTH(0, X3, X10)
	LOAD(1, SI, X4)
	LOAD(1, DX, X11)
	BOTH(1, X4, X11)
	SHA256MSG1 X4, X3
	SHA256MSG1 X11, X10
	LOAD(2, SI, X5)
	LOAD(2, DX, X12)
	BOTH(2, X5, X12)
	SHA256MSG1 X5, X4
	SHA256MSG1 X12, X11
	LOAD(3, SI, X6)
	LOAD(3, DX, X13)

	STEP(3, X3, X5, X6, X10, X12, X13)
	STEP(4, X4, X6, X3, X11, X13, X10)
	STEP(5, X5, X3, X4, X12, X10, X11)
	STEP(6, X6, X4, X5, X13, X11, X12)
	STEP(7, X3, X5, X6, X10, X12, X13)
	STEP(8, X4, X6, X3, X11, X13, X10)
	STEP(9, X5, X3, X4, X12, X10, X11)
	STEP(10, X6, X4, X5, X13, X11, X12)
	STEP(11, X3, X5, X6, X10, X12, X13)
	STEP(12, X4, X6, X3, X11, X13, X10)
	NEXT(X5, X3, X4)
	NEXT(X12, X10, X11)
	BOTH(13, X4, X11)
	NEXT(X6, X4, X5)
	NEXT(X13, X11, X12)
	BOTH(14, X5, X12)
	BOTH(15, X6, X13)

	ADD(kept-64(SP), X1)
	ADD(kept-48(SP), X2)
	ADD(kept-32(SP), X8)
	ADD(kept-16(SP), X9)
	ADDQ $64, SI
	ADDQ $64, DX
	DECQ CX
	JNZ  chunk

	UNTURN(X1, X2)
	UNTURN(X8, X9)
	MOVOU X1, 0(DI)
	MOVOU X2, 16(DI)
	MOVOU X8, 32(DI)
	MOVOU X9, 48(DI)
	RET
