// Tries one way into the kernel that is not watched, and says what came of it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

static int tell(long result) {
  puts(result < 0 ? strerror(errno) : "there");
  return 0;
}

int main(int argc, char **argv) {
  char zeros[256] = {0};
  struct timespec ts = {0, 0};
  struct timex timex = {0};
  if (!strcmp(argv[1], "int80")) {
    long result = 13;
    __asm__ volatile("int $0x80" : "+a"(result) : "b"(0) : "memory", "r8", "r9", "r10", "r11");
    printf("%ld\n", result);
    return 0;
  }
  if (!strcmp(argv[1], "x32")) return tell(syscall(0x40000000 | SYS_clock_gettime, CLOCK_REALTIME, &ts));
  if (!strcmp(argv[1], "io_uring")) return tell(syscall(425, 8, zeros));
  if (!strcmp(argv[1], "perf")) return tell(syscall(SYS_perf_event_open, zeros, 0, -1, -1, 0));
  if (!strcmp(argv[1], "userfaultfd")) return tell(syscall(SYS_userfaultfd, 0));
  if (!strcmp(argv[1], "bpf")) return tell(syscall(SYS_bpf, 0, zeros, 64));
  if (!strcmp(argv[1], "settime")) return tell(clock_settime(CLOCK_REALTIME, &ts));
  if (!strcmp(argv[1], "rtc")) return tell(open("/dev/rtc0", O_RDONLY));
  if (!strcmp(argv[1], "adjtimex") && adjtimex(&timex) >= 0) return printf("%ld\n", (long)timex.time.tv_sec) < 0;
  if (!strcmp(argv[1], "clock_adjtime") && syscall(SYS_clock_adjtime, CLOCK_REALTIME, &timex) >= 0)
    return printf("%ld\n", (long)timex.time.tv_sec) < 0;
  return tell(-1);
}
