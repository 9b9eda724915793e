/* Lets a User-Mode Linux older than 6.13 run on a processor with AMX.
 *
 * That kernel keeps 2696 bytes of extended processor state (up to AVX-512 and PKRU) and hands exactly
 * these to ptrace(PTRACE_SETREGSET, NT_X86_XSTATE). A host kernel accepts only a whole image, which with
 * AMX is 11008 bytes, answers EFAULT, and User-Mode Linux panics with "ptrace set fp regs failed".
 * Preloaded, this ptrace() completes the image: the same state, with AMX in its initial condition.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SETREGSET = 0x4205, PEEKTEXT = 1, PEEKUSER = 3, XSTATE_BV = 512, WHOLE = 65536 };

static size_t whole_size; /* what the host's kernel gives and wants, once learned */

long ptrace(int request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	long pid = va_arg(arguments, long);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

	if (request >= PEEKTEXT && request <= PEEKUSER) { /* the C library returns the word, the kernel stores it */
		long word = 0;
		return syscall(SYS_ptrace, (long)request, pid, address, &word) < 0 ? -1 : (errno = 0, word);
	}
	long result = syscall(SYS_ptrace, (long)request, pid, address, data);
	if (result != -1 || errno != EFAULT || request != SETREGSET || (uintptr_t)address != NT_X86_XSTATE)
		return result;

	static _Thread_local unsigned char image[WHOLE];
	struct iovec given = *(struct iovec *)data, whole = { image, sizeof image };
	if (!whole_size) {
		if (syscall(SYS_ptrace, 0x4204L /* GETREGSET */, pid, address, &whole) < 0)
			return -1;
		whole_size = whole.iov_len;
	}
	if (given.iov_len >= whole_size) {
		errno = EFAULT;
		return -1;
	}
	memset(image, 0, whole_size);
	memcpy(image, given.iov_base, given.iov_len);
	uint64_t present;
	memcpy(&present, image + XSTATE_BV, sizeof present);
	present &= 0x2ff; /* x87, SSE, AVX, MPX, AVX-512, PKRU: all that lies inside 2696 bytes */
	memcpy(image + XSTATE_BV, &present, sizeof present);
	whole.iov_len = whole_size;
	return syscall(SYS_ptrace, (long)request, pid, address, &whole);
}
