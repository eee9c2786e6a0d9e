//go:build !purego

#include "textflag.h"

// func Two(p unsafe.Pointer)
TEXT ·Two(SB), NOSPLIT, $0-8
	MOVD p+0(FP), R0
	PRFM (R0), PSTL1KEEP
	PRFM 64(R0), PSTL1KEEP
	RET
