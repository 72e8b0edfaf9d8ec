// The time of day by libc, by the system calls themselves, and in a static program.
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int main(void) {
  struct timespec ts;
  struct timeval tv;
  clock_gettime(CLOCK_REALTIME, &ts);
  printf("clock_gettime %ld.%09ld\n", (long)ts.tv_sec, ts.tv_nsec);
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &ts);
  printf("system call %ld.%09ld\n", (long)ts.tv_sec, ts.tv_nsec);
  gettimeofday(&tv, 0);
  printf("gettimeofday %ld.%06ld\n", (long)tv.tv_sec, (long)tv.tv_usec);
  syscall(SYS_gettimeofday, &tv, 0);
  printf("system call %ld.%06ld\n", (long)tv.tv_sec, (long)tv.tv_usec);
  printf("time %ld\n", (long)time(0));
  printf("system call %ld\n", syscall(SYS_time, 0));
  timespec_get(&ts, TIME_UTC);
  printf("timespec_get %ld.%09ld\n", (long)ts.tv_sec, ts.tv_nsec);
  return 0;
}
